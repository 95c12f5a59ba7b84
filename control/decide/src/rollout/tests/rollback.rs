//! Ways back: what can be aborted, and rollbacks that skip the steps.

use serde_json::json;

use super::Model;
use super::traces::{pause_at, seen, told, with_template};

/// Five pods, two steps, analysis beside them, a window of so many revisions; revisions V1 to V4 deployed one after the other.
fn windowed(revisions: i32) -> Model {
    let strategy = json!({
        "steps": pause_at(&[20, 60]), "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
        "stableService": "web-stable", "canaryService": "web-canary",
        "analysis": {"templates": [{"templateName": "good"}]},
    });
    let mut model = with_template(Model::new(5, &strategy));
    model.edit(|spec| spec["rollbackWindow"] = json!({"revisions": revisions}));
    let mut model = model.deployed();
    for tag in ["2", "3", "4"] {
        model.wait(60);
        model.image(tag);
        model.run_ready();
        model.status.promote_full = true;
        model.run_ready();
        assert_eq!(seen(&model), "4 Healthy");
    }
    model.wait(60);
    model.run_ready();
    model.runs.clear();
    model.events.clear();
    model
}

#[test]
fn a_rollback_within_the_window_skips_steps_and_analysis() {
    // R13.2
    let mut model = windowed(3);
    model.image("2");
    model.turn();
    assert_eq!(
        told(&mut model),
        [
            "Normal RolloutUpdated: Rollout updated to revision 5",
            "Normal SkipSteps: Rollback to ReplicaSets within RollbackWindow",
            "Normal RolloutNotCompleted: Rollout not completed, started update to revision 5 (V2)",
        ]
    );
    model.run();
    model.ready("2", 3);
    model.run();
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        (
            "4 Progressing waiting for all steps to complete",
            Some((60, 40))
        ),
        "R8.1 f: never ahead of the pods"
    );
    model.ready("2", 5);
    model.run();
    let told = told(&mut model).join("\n");
    assert!(
        told.contains("Rollout completed update to revision 5 (V2): Rollback within window"),
        "{told}"
    );
    assert_eq!((seen(&model).as_str(), model.runs.len()), ("4 Healthy", 0));
}

#[test]
fn a_rollback_to_pods_that_are_still_there_is_done_at_once() {
    let mut model = windowed(3);
    model.image("5");
    model.run_ready();
    model.status.promote_full = true;
    model.run_ready();
    assert_eq!(model.set("4").wanted, 5, "in its delay");
    told(&mut model);
    model.image("4");
    model.turn();
    assert!(
        told(&mut model)[1].contains("Rollback to active ReplicaSets within RollbackWindow"),
        "R13.2"
    );
    model.run();
    assert_eq!(
        (seen(&model).as_str(), model.set("4").deadline()),
        ("4 Healthy", None)
    );
}

#[test]
fn a_rollback_beyond_the_window_takes_the_steps() {
    // R13.1: V1 has V2 and V3 between itself and V4.
    for (revisions, expected) in [(2, "1 Paused CanaryPauseStep"), (3, "4 Healthy")] {
        let mut model = windowed(revisions);
        model.image("1");
        model.run_ready();
        assert_eq!(seen(&model), expected, "a window of {revisions}");
    }
}

#[test]
fn a_rollback_within_the_window_can_be_aborted_and_tried_again() {
    let mut model = windowed(3);
    model.image("2");
    model.run();
    model.ready("2", 3);
    model.run();
    model.status.abort = true;
    model.run();
    let aborted = "0 Degraded RolloutAborted: Rollout aborted update to revision 5";
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        (aborted, Some((0, 100)))
    );
    model.status.abort = false;
    model.run_ready();
    assert_eq!(seen(&model), "4 Healthy");
}

#[test]
fn a_full_promotion_can_be_aborted() {
    let mut model = Model::routed(5, &pause_at(&[20, 60])).deployed();
    model.image("2");
    model.run_ready();
    model.status.promote_full = true;
    model.run();
    model.ready("2", 3);
    model.run();
    model.status.abort = true;
    model.run();
    let aborted = "0 Degraded RolloutAborted: Rollout aborted update to revision 2";
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        (aborted, Some((0, 100)))
    );
    assert!(!model.status.promote_full);
    assert!(model.memory.last_abort.is_some());
    model.status.promote_full = true; // R11.1: and finished all the same
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), model.status.abort),
        ("4 Healthy", false)
    );
}

#[test]
fn a_full_promotion_that_makes_no_progress_is_aborted_where_that_is_asked_for() {
    // R5.4
    let mut model = Model::routed(4, &pause_at(&[50]));
    model.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(60);
        spec["progressDeadlineAbort"] = json!(true);
    });
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model.status.promote_full = true;
    model.run();
    model.wait(62);
    model.run();
    assert!(
        seen(&model).starts_with("0 Degraded RolloutAborted"),
        "{}",
        seen(&model)
    );
    assert_eq!(model.weights(), Some((0, 100)));
}

#[test]
fn an_abort_does_not_wait_for_the_end_of_a_pause_by_a_person() {
    // R10.2 keeps sizes; without routing the sizes are the traffic.
    let mut model = Model::basic(4, &pause_at(&[50])).deployed();
    model.image("2");
    model.run_ready();
    model.edit(|spec| spec["paused"] = json!(true));
    model.run_ready();
    model.status.abort = true;
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (4, 0));
}

#[test]
fn revisions_in_their_delay_are_limited() {
    // R7.9: the newest wait, the others go, also those that were already waiting.
    let mut model = Model::routed(2, &json!([]));
    model.edit(|spec| {
        spec["strategy"]["canary"]["scaleDownDelaySeconds"] = json!(600);
        spec["strategy"]["canary"]["scaleDownDelayRevisionLimit"] = json!(2);
    });
    let mut model = model.deployed();
    for tag in ["2", "3", "4", "5"] {
        model.wait(10);
        model.image(tag);
        model.run_ready();
    }
    let sizes = |model: &Model| {
        let wanted = |tag| model.set(tag).wanted;
        ["1", "2", "3", "4", "5"].map(wanted)
    };
    assert_eq!(sizes(&model), [0, 0, 2, 2, 2]);
    model.edit(|spec| spec["strategy"]["canary"]["scaleDownDelayRevisionLimit"] = json!(1));
    model.run_ready();
    assert_eq!(sizes(&model), [0, 0, 0, 2, 2]);
    model.edit(|spec| spec["strategy"]["canary"]["scaleDownDelaySeconds"] = json!(0));
    model.run_ready();
    assert_eq!(
        sizes(&model),
        [0, 0, 0, 0, 2],
        "a delay of 0 waits for nothing"
    );
    assert_eq!(model.set("4").deadline(), None);
}

#[test]
fn an_aborted_canary_with_a_delay_of_0_stays() {
    // R7.10
    let mut model = Model::routed(4, &pause_at(&[50]));
    model.edit(|spec| spec["strategy"]["canary"]["abortScaleDownDelaySeconds"] = json!(0));
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run_ready();
    model.wait(100_000);
    model.run_ready();
    assert_eq!(
        (model.set("2").wanted, model.weights()),
        (2, Some((0, 100)))
    );
    model.edit(|spec| spec["replicas"] = json!(6)); // R24.2: noted there too
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (6, 2));
}

#[test]
fn the_window_needs_no_routing() {
    // R13.2
    let mut model = Model::basic(4, &pause_at(&[25]));
    model.edit(|spec| spec["rollbackWindow"] = json!({"revisions": 1}));
    let mut model = model.deployed();
    model.wait(60);
    model.image("2");
    model.run_ready();
    model.promote();
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy");
    model.image("1");
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy");
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (4, 0));
}
