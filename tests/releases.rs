//! What is promised about requests while versions change (bar 3), seen from outside: the real binary with processes as pods, its verbs,
//! and clients that count what fails. It goes the same on the embedded cluster and on a real one.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::runtime::wait::await_condition;
use kube::runtime::wait::conditions::is_deleted;
use serde_json::{Value, json};
use sidestep_control::api::{ReplicaSet, Rollout, Split};
use tempfile::tempdir;
use tokio::time::timeout;

use crate::Machine;
use crate::support::load::{Load, Tally, rounds};
use crate::support::manifests;
use crate::support::processes::{NAME, is_phase, observed, set_version, settled, weight};
use crate::support::session::DEADLINE;

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
        let load = Load::start(&machine.proxies, NAME);
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
    machine.end().await;
    tally
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_fail_no_request_of_a_server_that_drains() {
    let tally = releases(&["--drain"], rounds()).await;
    assert_eq!(tally.failed(|_, _| true), 0, "{tally}");
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_fail_no_get_of_a_server_that_dies_at_once() {
    let tally = releases(&["--die-at-once"], rounds()).await;
    assert_eq!(tally.failed(|method, _| method == "GET"), 0, "{tally}");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_written_by_hand_fail_no_request() {
    let folder = tempdir().unwrap();
    let manifests = manifests::split(folder.path(), &["--drain"]);
    let machine = Machine::start(folder.path(), &manifests).await;
    machine.eventually("web", "it is served", verified).await;
    let load = Load::start(&machine.proxies, "web");
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
    machine.end().await;
}

/// Whether every proxy serves a Split as it is written now.
fn verified(split: &Split) -> bool {
    let conditions = split.status.iter().flat_map(|status| &status.conditions);
    let mut verified = conditions.filter(|condition| condition.type_ == "Verified");
    verified.any(|condition| {
        condition.status == "True" && condition.observed_generation == split.metadata.generation
    })
}
