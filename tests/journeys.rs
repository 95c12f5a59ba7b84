//! What is promised about requests while versions change (bar 3) and about a `kill -9` of everything (bar 4), seen from outside: the
//! real binary with processes as pods, its verbs, and clients that count what fails.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::runtime::wait::conditions::is_deleted;
use serde_json::{Value, json};
use sidestep_control::api::{ReplicaSet, Rollout, Split};
use tempfile::tempdir;
use tokio::time::timeout;

use crate::support::load::{Cause, Load, Tally};
use crate::support::machine::{DEADLINE, Machine, ended};
use crate::support::{manifests, rounds};

/// The Rollout of `examples/processes.yaml`, its Service, and its Split.
const NAME: &str = "processes";
/// Weight changes by hand in one round.
const CHANGES_PER_ROUND: u32 = 10;

/// Ten weights, with a stop in the middle.
fn long_steps() -> Value {
    let weights = |weights: [u32; 5]| weights.map(|weight| json!({"setWeight": weight}));
    let mut steps = weights([5, 15, 25, 35, 45]).to_vec();
    steps.push(json!({"pause": {}}));
    steps.extend(weights([55, 65, 75, 85, 95]));
    Value::Array(steps)
}

/// A rollout whose users are at work, under load.
struct Journey {
    machine: Machine,
    load: Load,
    versions: u32,
}

impl Journey {
    /// Versions are counted from 1, which the example starts with.
    async fn start(machine: Machine) -> Self {
        settled(&machine, "v1").await;
        let load = Load::start(machine.proxy, NAME);
        load.more(100).await;
        Self {
            machine,
            load,
            versions: 1,
        }
    }

    /// Asks for a new version, and waits until it has come to the pause.
    async fn begin(&mut self) {
        self.versions += 1;
        set_version(&self.machine, &format!("v{}", self.versions)).await;
        let what = format!("v{} is paused at 45", self.versions);
        self.machine
            .eventually(NAME, &what, |rollout: &Rollout| {
                observed(rollout) && is_phase(rollout, "Paused") && weight(rollout) == Some(45)
            })
            .await;
    }

    async fn promote(&mut self) {
        self.begin().await;
        self.machine.verb("promote processes").await;
        settled(&self.machine, &format!("v{}", self.versions)).await;
    }

    /// V1 → V2 → V3: the second replaces the first while that has part of the traffic.
    async fn supersede(&mut self) {
        self.begin().await;
        self.promote().await;
    }

    async fn abort(&mut self) {
        self.begin().await;
        self.machine.verb("abort processes").await;
        let aborted =
            |rollout: &Rollout| is_phase(rollout, "Degraded") && weight(rollout) == Some(0);
        self.machine
            .eventually(NAME, "it is aborted", aborted)
            .await;
        self.machine.verb("undo processes").await;
        let healthy = |rollout: &Rollout| observed(rollout) && is_phase(rollout, "Healthy");
        self.machine
            .eventually(NAME, "it is back at stable", healthy)
            .await;
    }

    /// One of the stable version's pods is deleted, as by a node that is emptied.
    async fn lose_a_pod(&mut self) {
        let rollout = self.machine.api::<Rollout>().get(NAME).await.unwrap();
        let hash = rollout.status.unwrap().stable_rs.unwrap();
        let pods = self.machine.api::<Pod>();
        let of_stable = ListParams::default().labels(&format!("rollouts-pod-template-hash={hash}"));
        let name = pods.list(&of_stable).await.unwrap().items[0].name_any();
        let uid = pods.get(&name).await.unwrap().uid().unwrap();
        pods.delete(&name, &DeleteParams::default()).await.unwrap();
        let gone = await_condition(pods, &name, is_deleted(&uid));
        timeout(DEADLINE, gone).await.expect("it goes").unwrap();
        let complete = |set: &ReplicaSet| {
            set.status
                .as_ref()
                .is_some_and(|status| status.ready_replicas == set.spec.replicas)
        };
        let set = format!("{NAME}-{hash}");
        self.machine
            .eventually(&set, "it has all pods again", complete)
            .await;
    }
}

/// Everything that users do, `rounds` times each, under load; returns what clients saw.
async fn releases(arguments: &[&str], rounds: u32) -> Tally {
    let folder = tempdir().unwrap();
    let manifests = manifests::processes(folder.path(), arguments, &long_steps());
    let mut journey = Journey::start(Machine::start(folder.path(), &manifests).await).await;
    for _ in 0..rounds {
        journey.promote().await;
        journey.abort().await;
        journey.supersede().await;
        journey.lose_a_pod().await;
    }
    let split: Split = journey.machine.api().get(NAME).await.unwrap();
    let Journey {
        machine,
        load,
        versions,
    } = journey;
    let tally = load.stop().await;
    println!(
        "releases{arguments:?}: {tally}; {rounds} promotions, aborts, supersedes and pods deleted; {versions} versions, {} weight changes",
        split.metadata.generation.unwrap_or_default()
    );
    for version in (1..=versions).map(|version| format!("v{version}")) {
        assert!(
            tally.versions.contains_key(&version),
            "{version} has served: {tally:?}"
        );
    }
    assert!(machine.terminate().await.success());
    tally
}

#[tokio::test]
async fn releases_fail_no_request_of_a_server_that_drains() {
    let tally = releases(&["--drain"], rounds()).await;
    assert_eq!(tally.failed(|_, _| true), 0, "{tally}");
}

#[tokio::test]
async fn releases_fail_no_get_of_a_server_that_dies_at_once() {
    let tally = releases(&["--die-at-once"], rounds()).await;
    assert_eq!(tally.failed(|method, _| method == "GET"), 0, "{tally}");
}

#[tokio::test]
async fn weights_written_by_hand_fail_no_request() {
    let folder = tempdir().unwrap();
    let manifests = manifests::split(folder.path(), &["--drain"]);
    let machine = Machine::start(folder.path(), &manifests).await;
    machine.eventually("web", "it is served", verified).await;
    let load = Load::start(machine.proxy, "web");
    let changes = rounds() * CHANGES_PER_ROUND;
    for change in 1..=changes {
        // 37 and 101 have no common factor: all weights come up, none beside its neighbour.
        let green = change * 37 % 101;
        let rule = json!([{"services": ["web"], "weights": {"blue": 100 - green, "green": green}}]);
        let patch = Patch::Merge(json!({"spec": {"rules": rule}}));
        let splits = machine.api::<Split>();
        splits
            .patch("web", &PatchParams::default(), &patch)
            .await
            .unwrap();
        machine
            .eventually("web", "the weight is served", verified)
            .await;
        load.more(20).await;
    }
    let tally = load.stop().await;
    println!("weights by hand: {tally}; {changes} weight changes");
    assert_eq!(tally.failed(|_, _| true), 0, "{tally}");
    assert_eq!(tally.versions.len(), 2, "{tally:?}");
    assert!(machine.terminate().await.success());
}

#[tokio::test]
async fn sigterm_answers_every_request_that_was_begun() {
    let folder = tempdir().unwrap();
    let manifests = manifests::processes(folder.path(), &["--drain"], &json!([]));
    let machine = Machine::start(folder.path(), &manifests).await;
    settled(&machine, "v1").await;
    let load = Load::start(machine.proxy, NAME);
    load.more(500).await;
    assert!(machine.terminate().await.success());
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
    assert!(machine.terminate().await.success());
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

/// Waits until a version is the stable one and has all the traffic.
async fn settled(machine: &Machine, version: &str) {
    let what = format!("{version} is Healthy");
    machine
        .eventually(NAME, &what, |rollout: &Rollout| {
            observed(rollout) && is_phase(rollout, "Healthy") && version_of(rollout) == version
        })
        .await;
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

/// A new revision, as a user makes one who edits the manifest.
async fn set_version(machine: &Machine, version: &str) {
    let path = "/spec/template/spec/containers/0/env/0/value";
    let patch = json!([{"op": "replace", "path": path, "value": version}]);
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    let rollouts = machine.api::<Rollout>();
    rollouts
        .patch(NAME, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

fn version_of(rollout: &Rollout) -> &str {
    let version = rollout
        .spec
        .template
        .pointer("/spec/containers/0/env/0/value");
    version.unwrap().as_str().unwrap()
}

/// Whether the status speaks of the spec as it is now.
fn observed(rollout: &Rollout) -> bool {
    let generation = rollout.metadata.generation.unwrap_or_default().to_string();
    rollout
        .status
        .as_ref()
        .and_then(|s| s.observed_generation.as_deref())
        == Some(&generation)
}

fn is_phase(rollout: &Rollout, phase: &str) -> bool {
    rollout
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some(phase)
}

/// The canary's weight, once every proxy serves it.
fn weight(rollout: &Rollout) -> Option<i32> {
    let weights = rollout.status.as_ref()?.canary.weights.as_ref()?;
    (weights.verified == Some(true)).then_some(weights.canary.weight)
}

/// Whether every proxy serves a Split as it is written now.
fn verified(split: &Split) -> bool {
    let conditions = split.status.iter().flat_map(|status| &status.conditions);
    let mut verified = conditions.filter(|condition| condition.type_ == "Verified");
    verified.any(|condition| {
        condition.status == "True" && condition.observed_generation == split.metadata.generation
    })
}
