//! The canary trace of R2.28, as corrected by the record of what Argo does, cell by cell.
//!
//! Three rows are ours: a weight is recorded in one turn and counts in the next, when every proxy has acknowledged it; promotion
//! follows the acknowledgement of the whole weight; and Healthy follows the switch of traffic and Services.

use serde_json::json;

use super::Model;

/// One row: what is seen after a turn.
fn row(
    model: &mut Model,
    index: i32,
    canary: (i32, i32),
    weights: (i32, i32),
    phase: &str,
    events: &[&str],
) {
    model.turn();
    let set = model.set("2");
    let seen = (
        model.status.current_step_index,
        (set.wanted, set.available),
        model.weights(),
        format!("{} {}", model.phase(), model.message()),
    );
    let expected = (Some(index), canary, Some(weights), phase.to_owned());
    assert_eq!(seen, expected);
    let hash = set.hash.clone();
    let told: Vec<String> = model
        .take_events()
        .iter()
        .map(|event| event.replace(&hash, "NEW"))
        .collect();
    assert_eq!(told, events);
}

const MORE: &str = "Progressing more replicas need to be updated";
const CUTOVER: &str = "Progressing service cutover pending";
const WAITING: &str = "Progressing waiting for all steps to complete";

#[test]
fn canary_with_routing() {
    let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}]);
    let mut model = Model::routed(10, &steps).deployed();
    model.image("2");
    // 1: created; the status does not speak of the new generation yet.
    row(
        &mut model,
        3,
        (0, 0),
        (0, 100),
        "Healthy ",
        &[
            "Normal RolloutUpdated: Rollout updated to revision 2",
            "Normal NewReplicaSetCreated: Created ReplicaSet web-NEW (revision 2)",
        ],
    );
    assert_eq!(model.metadata.revision(), Some(2));
    assert_eq!(model.status.observed_generation.as_deref(), Some("1"));
    // 2: reset.
    row(
        &mut model,
        0,
        (0, 0),
        (0, 100),
        MORE,
        &["Normal RolloutNotCompleted: Rollout not completed, started update to revision 2 (NEW)"],
    );
    // 3
    row(
        &mut model,
        0,
        (2, 0),
        (0, 100),
        MORE,
        &[
            "Normal TrafficWeightUpdated: Traffic weight updated ",
            "Normal ScalingReplicaSet: Scaled up ReplicaSet web-NEW (revision 2) from 0 to 2",
        ],
    );
    row(&mut model, 0, (2, 0), (0, 100), MORE, &[]);
    // 4
    model.ready("2", 1);
    assert!(model.selects("web-canary", "1"));
    let old = model.set("1").hash.clone();
    let switched = format!(
        "Normal SwitchService: Switched selector for service 'web-canary' from '{old}' to 'NEW'"
    );
    row(&mut model, 0, (2, 1), (0, 100), MORE, &[&switched]);
    // 5: the weight, then its acknowledgement.
    model.ready("2", 2);
    row(
        &mut model,
        0,
        (2, 2),
        (20, 80),
        MORE,
        &["Normal TrafficWeightUpdated: Traffic weight updated from 0 to 20"],
    );
    assert_eq!(
        model.status.canary.weights.as_ref().unwrap().verified,
        Some(false)
    );
    row(
        &mut model,
        1,
        (2, 2),
        (20, 80),
        MORE,
        &["Normal RolloutStepCompleted: Rollout step 1/3 completed (setWeight: 20)"],
    );
    assert_eq!(
        model.status.canary.weights.as_ref().unwrap().verified,
        Some(true)
    );
    assert_eq!(
        model.memory.verified.as_ref().unwrap().generation,
        model.split.as_ref().unwrap().generation
    );
    // 6
    row(
        &mut model,
        1,
        (2, 2),
        (20, 80),
        "Paused CanaryPauseStep",
        &["Normal RolloutPaused: Rollout is paused (CanaryPauseStep)"],
    );
    row(
        &mut model,
        1,
        (2, 2),
        (20, 80),
        "Paused CanaryPauseStep",
        &[],
    );
    model.assert_still();
    // 7: no RolloutResumed when a person resumes (observed point 1).
    model.promote();
    row(&mut model, 1, (2, 2), (20, 80), MORE, &[]);
    row(
        &mut model,
        2,
        (2, 2),
        (20, 80),
        MORE,
        &["Normal RolloutStepCompleted: Rollout step 2/3 completed (pause)"],
    );
    // 8
    row(
        &mut model,
        2,
        (6, 2),
        (20, 80),
        MORE,
        &["Normal ScalingReplicaSet: Scaled up ReplicaSet web-NEW (revision 2) from 2 to 6"],
    );
    // 9
    model.ready("2", 6);
    row(
        &mut model,
        2,
        (6, 6),
        (60, 40),
        MORE,
        &["Normal TrafficWeightUpdated: Traffic weight updated from 20 to 60"],
    );
    row(
        &mut model,
        3,
        (6, 6),
        (60, 40),
        MORE,
        &["Normal RolloutStepCompleted: Rollout step 3/3 completed (setWeight: 60)"],
    );
    // 10
    row(
        &mut model,
        3,
        (10, 6),
        (60, 40),
        MORE,
        &["Normal ScalingReplicaSet: Scaled up ReplicaSet web-NEW (revision 2) from 6 to 10"],
    );
    row(&mut model, 3, (10, 6), (60, 40), WAITING, &[]);
    // 11: all of the weight, then its acknowledgement.
    model.ready("2", 10);
    row(
        &mut model,
        3,
        (10, 10),
        (100, 0),
        WAITING,
        &["Normal TrafficWeightUpdated: Traffic weight updated from 60 to 100"],
    );
    row(
        &mut model,
        3,
        (10, 10),
        (100, 0),
        CUTOVER,
        &[
            "Normal RolloutCompleted: Rollout completed update to revision 2 (NEW): Completed all 3 canary steps",
        ],
    );
    // 12: the same traffic under another name.
    let before = shares(&model);
    let switched = format!(
        "Normal SwitchService: Switched selector for service 'web-stable' from '{old}' to 'NEW'"
    );
    row(
        &mut model,
        3,
        (10, 10),
        (0, 100),
        CUTOVER,
        &[
            &switched,
            "Normal TrafficWeightUpdated: Traffic weight updated from 100 to 0",
        ],
    );
    assert_eq!(shares(&model), before, "promotion moves no request");
    row(&mut model, 3, (10, 10), (0, 100), "Healthy ", &[]);
    model.run();
    let deadline = model.set("1").deadline().unwrap();
    assert_eq!(deadline.to_string(), "2026-01-01T00:00:30Z");
    assert_eq!(model.set("1").wanted, 10);
    // 13
    model.wait(30);
    row(
        &mut model,
        3,
        (10, 10),
        (0, 100),
        "Healthy ",
        &[
            "Normal ScalingReplicaSet: Scaled down ReplicaSet web-1ST (revision 1) from 10 to 0"
                .replace("1ST", &old)
                .as_str(),
        ],
    );
    assert_eq!(model.set("1").deadline(), None);
    model.run();
}

/// Shares of the stable Service by revision, in percent.
fn shares(model: &Model) -> Vec<(String, u32)> {
    let split = &model.split.as_ref().unwrap().split;
    let weights = &split.rules[0].weights;
    let shares = split.versions.iter().map(|version| {
        (
            version.revision.clone(),
            weights.get(&version.name).copied().unwrap_or(0),
        )
    });
    shares.filter(|(_, weight)| *weight > 0).collect()
}
