//! Troubles that are not the rollout's own: ReplicaSets that cannot create pods, analyses that cannot be begun.

use serde_json::json;

use super::Model;
use super::traces::{pause_at, with_template};
use crate::rollout::Action;

/// Reason and message of the condition ReplicaFailure, where it is true.
fn failure(model: &Model) -> Option<(&str, &str)> {
    let mut conditions = model.status.conditions.iter();
    let found = conditions.find(|condition| condition.kind == "ReplicaFailure")?;
    assert_eq!(found.status, "True");
    Some((&found.reason, &found.message))
}

#[test]
fn a_replica_set_that_fails_is_a_condition_as_long_as_it_does() {
    // R5.1: the new one's before any other's.
    let mut model = Model::basic(5, &pause_at(&[20])).deployed();
    model.image("2");
    model.run_ready();
    let why = |reason: &str| Some((reason.to_owned(), "quota".to_owned()));
    for (old, new, expected) in [
        (None, None, None),
        (Some("FailedCreate"), None, Some(("FailedCreate", "quota"))),
        (
            Some("FailedCreate"),
            Some("FailedDelete"),
            Some(("FailedDelete", "quota")),
        ),
        (None, None, None),
    ] {
        model.sets[0].failure = old.and_then(why);
        model.sets[1].failure = new.and_then(why);
        model.run();
        assert_eq!(failure(&model), expected);
    }
}

#[test]
fn an_analysis_that_cannot_be_begun_is_waited_for() {
    // R16.1: an argument that is to be read from a field that the status has not.
    let path = json!({"fieldRef": {"fieldPath": "status.nowhere"}});
    let analysis = json!({
        "templates": [{"templateName": "good"}],
        "args": [{"name": "team", "valueFrom": path}],
    });
    let steps = json!([{"setWeight": 20}, {"analysis": analysis}]);
    let mut model = with_template(Model::routed(5, &steps)).deployed();
    model.image("2");
    for _ in 0..20 {
        model.turn();
        model.all_ready();
    }
    let waiting = model.memory.waiting.as_ref().unwrap();
    let expected = "an analysis that can be begun: ";
    assert_eq!(waiting.reason, "analysis");
    assert!(waiting.message.starts_with(expected), "{}", waiting.message);
    assert!(model.runs.is_empty());
    let told = model.take_events();
    let warned = |event: &String| event.starts_with("Warning ReconciliationError: ");
    assert!(told.iter().any(warned), "{told:?}");
}

#[test]
fn what_was_done_is_told_though_a_later_write_fails() {
    // Argo tells each event at its act. What the status says is told with it.
    let mut model = Model::routed(2, &pause_at(&[50])).deployed();
    let reasons = |model: &mut Model| {
        let events = model.take_events();
        let reason = |event: &String| event.split([' ', ':']).nth(1).map(str::to_owned);
        events.iter().filter_map(reason).collect::<Vec<_>>()
    };
    model.take_events();
    model.image("2");
    model.apply(&model.decide(), 0);
    assert!(reasons(&mut model).is_empty());
    model.apply(&model.decide(), 1);
    assert_eq!(
        reasons(&mut model),
        ["RolloutUpdated", "NewReplicaSetCreated"]
    );
    model.run();
    model.take_events();
    model.all_ready();
    let decision = model.decide();
    let told_with = |is_it: fn(&Action) -> bool| {
        let done = decision.actions.iter().position(is_it).map(|at| at + 1);
        let told = decision.told(done).map(|event| event.reason);
        told.collect::<Vec<_>>()
    };
    let switches = |action: &Action| matches!(action, Action::SwitchService { .. });
    assert_eq!(told_with(switches), ["SwitchService"]);
    let writes = |action: &Action| matches!(action, Action::WriteSplit(_));
    assert_eq!(told_with(writes), ["TrafficWeightUpdated"]);
    model.run();
    assert!(reasons(&mut model).contains(&"RolloutStepCompleted".to_owned()));
}
