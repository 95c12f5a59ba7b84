//! What is promised when processes end: nobody's request is lost at a SIGTERM, and no decision at a `kill -9` of everything (bar 4).

use serde_json::json;
use sidestep_control::api::{ReplicaSet, Rollout, Split};
use tempfile::tempdir;

use crate::support::load::{Cause, Load};
use crate::support::machine::{Machine, ended};
use crate::support::manifests;
use crate::support::processes::{NAME, is_phase, observed, set_version, settled, weight};

#[tokio::test]
async fn sigterm_answers_every_request_that_was_begun() {
    let folder = tempdir().unwrap();
    let manifests = manifests::processes(folder.path(), &["--drain"], &json!([]));
    let machine = Machine::start(folder.path(), &manifests).await;
    settled(&machine, "v1").await;
    let load = Load::start(&machine.proxies, NAME);
    load.more(500).await;
    machine.end().await;
    let tally = load.stop().await;
    println!("SIGTERM: {tally}");
    let is_begun = |cause: &Cause| !matches!(cause, Cause::NoConnection(_));
    assert_eq!(tally.failed(|_, cause| is_begun(cause)), 0, "{tally}");
}

#[tokio::test]
async fn kill_9_loses_no_decision() {
    let folder = tempdir().unwrap();
    let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 40}, {"pause": {}}, {"setWeight": 60}]);
    let manifests = manifests::processes(folder.path(), &[], &steps);
    let machine = Machine::start(folder.path(), &manifests).await;
    settled(&machine, "v1").await;

    // Paused at the second weight.
    set_version(&machine, "v2").await;
    paused_at(&machine, 20).await;
    machine.verb("promote processes").await;
    let before = paused_at(&machine, 40).await;
    let split: Split = machine.api().get(NAME).await.unwrap();
    let machine = killed_and_started_again(machine, folder.path(), &manifests, 5).await;
    let after = paused_at(&machine, 40).await;
    let split_after: Split = machine.api().get(NAME).await.unwrap();
    let place = |rollout: &Rollout| {
        let status = rollout.status.clone().unwrap();
        (
            status.current_step_index,
            status.current_pod_hash,
            status.stable_rs,
            status.pause_conditions,
        )
    };
    assert_eq!(place(&before), place(&after));
    assert_eq!(split.spec, split_after.spec);
    assert_eq!(
        split.metadata.generation, split_after.metadata.generation,
        "no other weight meanwhile"
    );
    machine.verb("promote processes").await;
    settled(&machine, "v2").await;

    // In the middle of scaling: the canary's ReplicaSet is asked for, and none of it is there yet.
    set_version(&machine, "v3").await;
    let hash = canary_is_asked_for(&machine).await;
    let machine = killed_and_started_again(machine, folder.path(), &manifests, 3).await;
    let resumed = paused_at(&machine, 20).await;
    assert_eq!(resumed.status.unwrap().current_pod_hash, Some(hash));

    // Right after an abort: all that is known of it is in the object.
    machine.verb("abort processes").await;
    let machine = killed_and_started_again(machine, folder.path(), &manifests, 4).await;
    let aborted = |rollout: &Rollout| is_phase(rollout, "Degraded") && weight(rollout) == Some(0);
    machine.eventually(NAME, "it is aborted", aborted).await;
    machine.verb("retry rollout processes").await;
    paused_at(&machine, 20).await;
    machine.verb("promote processes --full").await;
    settled(&machine, "v3").await;
    machine.end().await;
}

/// Kills everything while so many pods run (an old one may be on its way out), sees that none survives, and starts it on what it kept.
async fn killed_and_started_again(
    machine: Machine,
    folder: &std::path::Path,
    manifests: &std::path::Path,
    pods_min: usize,
) -> Machine {
    let pods = machine.pods();
    assert!(pods.len() >= pods_min, "{} processes of pods", pods.len());
    machine.kill_9().await;
    for pod in pods {
        ended(pod).await;
    }
    Machine::start(folder, manifests).await
}

async fn paused_at(machine: &Machine, wanted: i32) -> Rollout {
    let paused = |rollout: &Rollout| {
        observed(rollout) && is_phase(rollout, "Paused") && weight(rollout) == Some(wanted)
    };
    machine
        .eventually(NAME, &format!("it is paused at {wanted}"), paused)
        .await
}

/// Waits until the newest revision's ReplicaSet wants pods; returns its hash.
async fn canary_is_asked_for(machine: &Machine) -> String {
    let begun = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        observed(rollout) && status.is_some_and(|s| s.current_pod_hash != s.stable_rs)
    };
    let rollout = machine
        .eventually(NAME, "the revision is seen", begun)
        .await;
    let hash = rollout.status.unwrap().current_pod_hash.unwrap();
    let wants_pods = |set: &ReplicaSet| set.spec.replicas.is_some_and(|replicas| replicas > 0);
    machine
        .eventually(&format!("{NAME}-{hash}"), "it wants pods", wants_pods)
        .await;
    hash
}
