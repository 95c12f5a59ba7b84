//! Blocks of other routers (control-plane rules, section 7): translated where nothing that they name exists, else waited for.

use serde_json::{Value, json};

use super::Model;
use crate::rollout::plan::named_routers;

/// The Rollout of user A: Istio and nothing else.
fn istio() -> Value {
    let step = json!({"setCanaryScale": {"matchTrafficWeight": true}});
    json!({
        "maxSurge": "33%", "stableService": "web-stable", "canaryService": "web-canary", "dynamicStableScale": true,
        "trafficRouting": {"istio": {"virtualService": {"name": "my-app", "routes": ["http-my-app-primary"]}}},
        "steps": [step, {"pause": {"duration": 60}}, {"setWeight": 34}, step, {"pause": {"duration": 60}},
            {"setWeight": 67}, step, {"pause": {"duration": 60}}, {"setWeight": 100}],
    })
}

fn condition(model: &Model) -> Option<(&str, &str)> {
    let mut conditions = model.status.conditions.iter();
    let found = conditions.find(|condition| condition.kind == "ForeignRouter")?;
    Some((found.status.as_str(), found.reason.as_str()))
}

/// The VirtualService is there from now on.
fn install(model: &mut Model) {
    model.live_routers = named_routers(&model.rollout);
}

#[test]
fn an_istio_block_is_carried_out_by_our_proxies_where_there_is_no_istio() {
    let mut model = Model::new(3, &istio()).deployed();
    assert_eq!(
        condition(&model),
        Some(("False", "ForeignRouterTranslated"))
    );
    model.image("2");
    for weights in [(0, 100), (34, 66), (67, 33)] {
        model.run_ready();
        assert_eq!((model.phase(), model.weights()), ("Paused", Some(weights)));
        model.wait(61);
    }
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
    assert!(model.selects("web-stable", "2"));
}

const LIVE: &str = "VirtualService \"shop/my-app\" of spec.strategy.canary.trafficRouting.istio carries the traffic";

#[test]
fn behind_a_live_router_a_new_revision_waits_and_replicas_follow() {
    let mut model = Model::new(3, &istio()).deployed();
    install(&mut model);
    model.run_ready();
    assert_eq!(
        model.split, None,
        "what another carries is given back at rest"
    );
    assert_eq!(condition(&model), Some(("True", "ForeignRouterLive")));
    assert!(model.take_events()[0].starts_with(&format!("Warning ForeignRouterLive: {LIVE}")));
    model.edit(|spec| spec["replicas"] = json!(5));
    model.run_ready();
    assert_eq!((model.phase(), model.set("1").wanted), ("Healthy", 5));

    model.image("2");
    model.run_ready();
    model.wait(1000);
    model.run_ready();
    let seen = (model.phase(), model.message(), model.set("2").wanted);
    assert_eq!(seen, ("Progressing", "more replicas need to be updated", 0));
    let waiting = model.memory.waiting.clone().unwrap();
    assert_eq!(waiting.reason, "router");
    assert!(waiting.message.starts_with(LIVE), "{}", waiting.message);
    assert_eq!(model.split, None);
    assert!(model.selects("web-stable", "1") && model.selects("web-canary", "1"));

    model.live_routers.clear();
    model.run_ready();
    assert_eq!(
        (model.phase(), condition(&model).unwrap().0),
        ("Paused", "False")
    );
}

/// In the middle of an update of Argo's nothing shrinks, grows or goes on.
#[test]
fn an_update_under_way_stands_still_behind_a_live_router() {
    let mut model = Model::new(3, &istio()).deployed();
    model.image("2");
    model.run_ready();
    model.wait(61);
    model.run_ready();
    install(&mut model);
    let before = (
        model.set("1").wanted,
        model.set("2").wanted,
        model.weights(),
    );
    model.status.pause_conditions.clear();
    model.run_ready();
    model.wait(1000);
    model.run_ready();
    let stable = before.0.max(3);
    assert_eq!(
        (
            model.set("1").wanted,
            model.set("2").wanted,
            model.weights()
        ),
        (stable, before.1, before.2)
    );
    assert_eq!(model.status.current_step_index, Some(4));
}

#[test]
fn a_first_deploy_needs_no_router() {
    let mut model = Model::new(2, &istio());
    install(&mut model);
    model.run_ready();
    assert_eq!((model.set("1").available, model.split.is_none()), (2, true));
    assert_eq!(model.status.stable_rs.as_ref(), Some(&model.set("1").hash));
}

#[test]
fn an_unknown_plugin_is_waited_for_unless_ours_stands_beside_it() {
    let plugins = |plugins: Value| json!({"stableService": "web-stable", "canaryService": "web-canary", "trafficRouting": {"plugins": plugins}});
    let mut model = Model::new(
        1,
        &plugins(json!({"argoproj-labs/gatewayAPI": {"httpRoute": "r"}})),
    );
    model.run_ready();
    assert_eq!(condition(&model), Some(("True", "ForeignRouterLive")));
    let model = Model::new(1, &plugins(json!({"x/y": {}, "sidestep/proxy": {}}))).deployed();
    assert_eq!(condition(&model), None);
}

/// `alb` and `smi` split their `rootService`.
#[test]
fn a_root_service_is_split_in_the_stead_of_stable() {
    let alb = json!({"alb": {"ingress": "front", "rootService": "web"}});
    let mut model = Model::new(
        1,
        &json!({"stableService": "web-stable", "canaryService": "web-canary", "trafficRouting": alb}),
    );
    let mut root = model.services[0].clone();
    root.name = "web".to_owned();
    model.services.push(root);
    let model = model.deployed();
    let rules = model.split.unwrap().split.rules;
    let services: Vec<_> = rules.iter().map(|rule| rule.services.join(" ")).collect();
    assert_eq!(services, ["web", "web-stable", "web-canary"]);
}

#[test]
fn behind_a_live_router_stable_shrinks_only_at_rest() {
    // Control-plane rules, section 7: while an update is under way the other router knows who needs what.
    let mut resting = Model::new(3, &istio()).deployed();
    let mut updating = resting.clone();
    updating.image("2");
    for (model, replicas) in [(&mut resting, 2), (&mut updating, 3)] {
        install(model);
        model.run_ready();
        model.edit(|spec| spec["replicas"] = json!(2));
        model.run_ready();
        assert_eq!(model.set("1").wanted, replicas);
    }
}

#[test]
fn behind_a_live_router_an_abort_at_rest_is_taken_back() {
    // R11.2: there is nothing to abort.
    let mut model = Model::new(3, &istio()).deployed();
    install(&mut model);
    model.run();
    model.status.abort = true;
    model.run();
    assert!(!model.status.abort);
}
