//! Edges of a single step: what ends it, what must not, and what is said meanwhile.

use serde_json::json;

use super::Model;
use super::traces::{pause_at, reasons, seen};
use crate::api::rollout::PauseCondition;

/// An update of a basic canary whose steps these are, with pods as the model has them at its beginning.
fn begun(steps: &serde_json::Value) -> Model {
    let mut model = Model::basic(3, steps).deployed();
    model.image("2");
    model
}

#[test]
fn an_abort_wins_over_a_promotion_in_the_same_turn() {
    // R12.3, R11.2: without steps nothing but the pods was missing.
    let mut model = begun(&json!([]));
    model.run();
    let stable = model.status.stable_rs.clone();
    for _ in 0..9 {
        if model.set("2").wanted < 3 {
            model.all_ready();
            model.turn();
        }
    }
    assert_eq!(model.set("2").wanted, 3);
    model.all_ready();
    model.status.abort = true;
    model.turn();
    assert_eq!(model.status.stable_rs, stable);
    assert_eq!(model.phase(), "Degraded");
}

#[test]
fn a_paused_spec_promotes_nothing() {
    // R10.2: the pods of the update have come, but it stands still.
    let mut model = begun(&json!([]));
    model.run();
    let stable = model.status.stable_rs.clone();
    for _ in 0..9 {
        if model.set("2").wanted < 3 {
            model.all_ready();
            model.turn();
        }
    }
    assert_eq!(model.set("2").wanted, 3);
    model.all_ready();
    model.edit(|spec| spec["paused"] = json!(true));
    model.run();
    assert_eq!(model.status.stable_rs, stable);
    model.edit(|spec| spec["paused"] = json!(false));
    model.run_ready();
    assert_eq!(model.status.stable_rs.as_ref(), Some(&model.set("2").hash));
}

#[test]
fn a_paused_spec_begins_no_pause_step() {
    // R10.2: the step's own pause begins when the steps go on.
    let mut model = begun(&json!([{"pause": {}}]));
    model.edit(|spec| spec["paused"] = json!(true));
    model.run();
    assert_eq!(model.status.pause_conditions, []);
    model.edit(|spec| spec["paused"] = json!(false));
    model.run();
    assert_eq!(seen(&model), "0 Paused CanaryPauseStep");
}

#[test]
fn a_pause_is_over_after_its_time_and_not_at_it() {
    // R10.1: startTime + duration < now. What halts the steps is waited for only then.
    let mut model = begun(&json!([{"pause": {"duration": 10}}]));
    model.run();
    let since = model.status.pause_conditions[0].start_time.0;
    model.now = since;
    model.wait(10);
    model.run();
    assert_eq!(seen(&model), "0 Paused CanaryPauseStep");
    let unclear = PauseCondition {
        reason: "InconclusiveAnalysisRun".to_owned(),
        ..model.status.pause_conditions[0].clone()
    };
    model.status.pause_conditions.push(unclear);
    for (seconds, reason) in [(0, "pause"), (1, "person")] {
        model.wait(seconds);
        let waiting = model.decide().memory.waiting.unwrap();
        assert_eq!(waiting.reason, reason, "{seconds} s later");
    }
}

#[test]
fn a_canary_that_is_to_have_no_pods_waits_until_they_are_gone() {
    // R7.5, R7.7
    let steps = json!([{"setWeight": 50}, {"pause": {}}, {"setWeight": 0}, {"pause": {}}]);
    let mut model = Model::routed(4, &steps).deployed();
    model.image("2");
    model.run_ready();
    model.promote();
    while model.set("2").wanted > 0 {
        assert!(model.turn());
    }
    let name = model.set("2").name.clone();
    let going = model.sets.iter_mut().find(|set| set.name == name).unwrap();
    (going.pods, going.available) = (2, 2);
    let waiting = model.decide().memory.waiting.unwrap();
    let message = format!("ReplicaSet \"{name}\" to be without pods");
    assert_eq!(waiting.message, message);
}

/// Whether an update to V2, which has just begun, has skipped its steps.
fn has_skipped(model: &mut Model) -> bool {
    reasons(model).iter().any(|reason| reason == "SkipSteps")
}

#[test]
fn only_an_update_of_nothing_skips_its_steps() {
    // Nothing is wanted and nothing is there: replicas before and after the update begins, pods still there of V1.
    for (before, after, left, skips) in [
        (0, 0, 0, true),
        (0, 3, 0, false),
        (3, 0, 0, true),
        (3, 0, 1, false),
    ] {
        let mut model = Model::basic(before, &pause_at(&[20])).deployed();
        model.edit(|spec| spec["replicas"] = json!(after));
        if after == 0 {
            model.run_ready();
        }
        let first = model.status.current_pod_hash.clone();
        model.image("2");
        model.events.clear();
        for _ in 0..2 {
            model.sets[0].pods = left;
            model.turn(); // makes the ReplicaSet, then begins the update
        }
        assert_ne!(model.status.current_pod_hash, first, "the update is begun");
        assert_eq!(
            has_skipped(&mut model),
            skips,
            "{before} to {after}, {left}"
        );
    }
    let mut model = Model::basic(0, &pause_at(&[20]));
    model.run_ready();
    assert!(
        !has_skipped(&mut model),
        "a first deploy has no steps to skip"
    );
}

#[test]
fn nobody_is_waited_for_where_no_pod_is_wanted() {
    // R2.6, R7.1: behind proxies, which have nobody to send requests to and cannot serve the weights as desired.
    let mut model = Model::routed(3, &json!([{"setWeight": 20}, {"pause": {}}])).deployed();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy");
    model.image("2");
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy");
    assert_eq!(model.status.stable_rs.as_ref(), Some(&model.set("2").hash));
    model.edit(|spec| spec["replicas"] = json!(3));
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), model.set("2").ready),
        ("2 Healthy", 3)
    );
}

#[test]
fn a_promotion_counts_where_the_user_has_paused_as_well() {
    // R2.11: `promote` takes the step's pause away first and spec.paused a moment later; we may look in between.
    let halted = || {
        let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 40}, {"pause": {}}]);
        let mut model = Model::routed(5, &steps).deployed();
        model.image("2");
        model.run_ready();
        model.edit(|spec| spec["paused"] = json!(true));
        model.run_ready();
        model.promote();
        model.run_ready();
        assert_eq!(seen(&model), "1 Paused manually paused");
        model
    };
    let mut model = halted();
    model.edit(|spec| spec["paused"] = json!(false));
    model.run_ready();
    assert_eq!(seen(&model), "3 Paused CanaryPauseStep");

    let mut model = halted();
    model.image("3");
    model.run_ready();
    model.edit(|spec| spec["paused"] = json!(false));
    model.run_ready();
    assert_eq!(
        seen(&model),
        "1 Paused CanaryPauseStep",
        "nobody has promoted that"
    );
}
