//! R27, as the Split has it. No proxy of this version serves routes, so a Rollout that asks for them is refused; here one would.

use serde_json::{Value, json};

use super::Model;

fn routed(steps: &Value) -> Model {
    let mut model = Model::routed(2, &json!([]));
    model.serves_routes = true;
    model.edit(|spec| {
        let canary = &mut spec["strategy"]["canary"];
        canary["steps"] = steps.clone();
        canary["trafficRouting"]["managedRoutes"] = json!([{"name": "late"}, {"name": "early"}]);
    });
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model
}

fn header(name: &str, value: &Value) -> Value {
    json!({"setHeaderRoute": {"name": name, "match": [{"headerName": "X-Try", "headerValue": value}]}})
}

/// Names of the routes of each rule.
fn names(model: &Model) -> Vec<Vec<String>> {
    let rules = &model.split.as_ref().unwrap().split.rules;
    let of = |rule: &crate::api::split::SplitRule| {
        rule.routes.iter().map(|route| route.name.clone()).collect()
    };
    rules.iter().map(of).collect()
}

fn none() -> Vec<Vec<String>> {
    vec![Vec::new(), Vec::new()]
}

/// R27.3
#[test]
fn routes_stand_in_managed_order_until_they_are_taken_away() {
    let mirror = json!({"setMirrorRoute": {"name": "late", "percentage": 35, "match": [{"method": {"exact": "GET"}, "headers": {"a": {"regex": ".+"}}}]}});
    let mut model = routed(&json!([
        {"setWeight": 10}, header("early", &json!({"prefix": "1"})), mirror, {"pause": {}},
        {"setHeaderRoute": {"name": "early"}}, {"pause": {}},
    ]));
    assert_eq!(names(&model)[0], ["late", "early"]);
    assert!(names(&model)[1].is_empty(), "pinned Services have none");
    let written =
        serde_json::to_value(&model.split.as_ref().unwrap().split.rules[0].routes).unwrap();
    let expected = json!([
        {"name": "late", "version": "canary", "mirror": 35, "matches": [{"method": {"exact": "GET"}, "headers": {"a": {"regex": ".+"}}}]},
        {"name": "early", "version": "canary", "matches": [{"headers": {"X-Try": {"prefix": "1"}}}]},
    ]);
    assert_eq!(written, expected);
    model.promote();
    model.run_ready();
    assert_eq!(names(&model)[0], ["late"]);
    model.promote();
    model.run_ready();
    assert_eq!((model.phase(), names(&model)), ("Healthy", none()));
}

#[test]
fn an_abort_a_full_promotion_and_a_lost_canary_take_all_routes_away() {
    let steps = json!([{"setWeight": 10}, header("early", &json!({"exact": "1"})), {"pause": {}}]);
    let begun = routed(&steps);
    assert_eq!(names(&begun)[0], ["early"]);
    let mut model = begun.clone();
    model.status.abort = true;
    model.run();
    assert_eq!(names(&model), none());
    let mut model = begun.clone();
    model.status.promote_full = true;
    model.turn();
    assert_eq!(names(&model), none());
    let mut model = begun;
    model.ready("2", 0);
    model.run();
    assert_eq!(names(&model), none());
}

/// A step is done when every proxy serves its route.
#[test]
fn a_route_is_waited_for() {
    let steps = json!([{"setWeight": 10}, {"pause": {}}, header("early", &json!({"exact": "1"})), {"pause": {}}]);
    let mut model = routed(&steps);
    model.prompt = false;
    model.promote();
    model.run_ready();
    assert_eq!(
        (model.status.current_step_index, names(&model)[0].len()),
        (Some(2), 1)
    );
    assert_eq!(
        model.memory.waiting.as_ref().unwrap().reason,
        "acknowledgement"
    );
    model.prompt = true;
    model.acknowledge();
    model.run_ready();
    assert_eq!(model.status.current_step_index, Some(3));
}
