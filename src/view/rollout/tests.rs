//! Pictures of rollouts in many states.

use serde_json::{Value, json};

use super::*;
use crate::view::info::Objects;

const NOW: &str = "2026-11-21T08:00:00Z";
const WEEK_AGO: &str = "2026-11-14T08:00:00Z";

/// A rollout's world, built from what differs between the cases.
struct World(Objects);

impl World {
    fn new(spec: &Value, status: &Value) -> Self {
        let mut spec_full = json!({"replicas": 5, "strategy": {"canary": {"steps": [
            {"setWeight": 20}, {"pause": {}}, {"setWeight": 40}, {"pause": {"duration": 10}},
            {"setWeight": 60}, {"pause": {"duration": 10}}, {"setWeight": 80}, {"pause": {"duration": 10}},
        ]}}});
        json_patch_merge(&mut spec_full, spec);
        let rollout = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": "canary-demo", "namespace": "default", "uid": "ro", "creationTimestamp": WEEK_AGO},
            "spec": spec_full, "status": status,
        });
        Self(Objects {
            rollout: serde_json::from_value(rollout).unwrap(),
            ..Objects::default()
        })
    }

    /// Adds a ReplicaSet of a revision and its running pods.
    fn replica_set(mut self, hash: &str, revision: u32, color: &str, pods: &[&str]) -> Self {
        let count = pods.len();
        self.0.replica_sets.push(
            serde_json::from_value(json!({
                "metadata": {
                    "name": format!("canary-demo-{hash}"), "uid": hash, "generation": 1, "creationTimestamp": WEEK_AGO,
                    "labels": {"rollouts-pod-template-hash": hash},
                    "annotations": {"rollout.argoproj.io/revision": revision.to_string()},
                    "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "canary-demo", "uid": "ro"}],
                },
                "spec": {
                    "replicas": count, "selector": {},
                    "template": {"spec": {"containers": [{"name": "app", "image": format!("argoproj/rollouts-demo:{color}")}]}},
                },
                "status": {"replicas": count, "availableReplicas": count, "observedGeneration": 1},
            }))
            .unwrap(),
        );
        for pod in pods {
            self.0.pods.push(
                serde_json::from_value(json!({
                    "metadata": {
                        "name": format!("canary-demo-{hash}-{pod}"), "creationTimestamp": WEEK_AGO,
                        "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": hash, "uid": hash}],
                    },
                    "spec": {"containers": [{"name": "app"}]},
                    "status": {"phase": "Running", "containerStatuses": [{
                        "name": "app", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}},
                    }]},
                }))
                .unwrap(),
            );
        }
        self
    }

    fn annotate_replica_set(mut self, hash: &str, key: &str, value: &str) -> Self {
        let found = self
            .0
            .replica_sets
            .iter_mut()
            .find(|replica_set| replica_set.metadata.uid.as_deref() == Some(hash));
        found
            .unwrap()
            .metadata
            .annotations
            .as_mut()
            .unwrap()
            .insert(key.to_owned(), value.to_owned());
        self
    }

    fn analysis_run(mut self, name: &str, revision: u32, status: &Value) -> Self {
        self.0.analysis_runs.push(
            serde_json::from_value(json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun",
                "metadata": {
                    "name": name, "creationTimestamp": "2026-11-21T07:58:57Z",
                    "annotations": {"rollout.argoproj.io/revision": revision.to_string()},
                    "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "canary-demo", "uid": "ro"}],
                },
                "spec": {}, "status": status,
            }))
            .unwrap(),
        );
        self
    }

    fn split(mut self, status: &Value) -> Self {
        self.0.split = Some(
            serde_json::from_value(json!({
                "apiVersion": "sidestep.dev/v1alpha1", "kind": "Split", "metadata": {"name": "canary-demo"},
                "spec": {"versions": [], "rules": [
                    {"services": ["canary"], "weights": {"canary": 1}},
                    {"services": ["stable"], "weights": {"stable": 80, "canary": 20}},
                ]},
                "status": status,
            }))
            .unwrap(),
        );
        self
    }

    fn text(&self, paint: Paint) -> String {
        text(&Info::of(&self.0), NOW.parse().unwrap(), paint)
    }

    fn plain(&self) -> String {
        self.text(Paint::Plain)
    }
}

/// RFC 7386, enough of it to say what differs.
fn json_patch_merge(target: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        target.clone_from(patch);
        return;
    };
    for (key, value) in patch {
        match (value, target.as_object_mut()) {
            (Value::Null, Some(target)) => drop(target.shift_remove(key)),
            (_, Some(target)) => json_patch_merge(target.entry(key).or_insert(json!({})), value),
            (_, None) => *target = patch.clone().into(),
        }
    }
}

fn paused() -> World {
    let status = json!({
        "phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1, "currentPodHash": "6f646bf7b7", "stableRS": "877894d5b",
        "replicas": 5, "updatedReplicas": 1, "readyReplicas": 5, "availableReplicas": 5,
        "pauseConditions": [{"reason": "CanaryPauseStep", "startTime": NOW}], "controllerPause": true,
    });
    World::new(&json!({}), &status)
        .replica_set(
            "877894d5b",
            1,
            "blue",
            &["2kwlp", "6jfpt", "7jmqw", "j8g2b"],
        )
        .replica_set("6f646bf7b7", 2, "yellow", &["9wf5r"])
}

#[test]
fn paused_at_a_step() {
    insta::assert_snapshot!(paused().plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ॥ Paused
    Message:         CanaryPauseStep
    Strategy:        Canary
      Step:          1/8
      SetWeight:     20
      ActualWeight:  20
    Images:          argoproj/rollouts-demo:blue (stable)
                     argoproj/rollouts-demo:yellow (canary)
    Replicas:
      Desired:       5
      Current:       5
      Updated:       1
      Ready:         5
      Available:     5

    NAME                                     KIND        STATUS     AGE  INFO
    ⟳ canary-demo                            Rollout     ॥ Paused   7d
    ├──# revision:2
    │  └──⧉ canary-demo-6f646bf7b7           ReplicaSet  ✔ Healthy  7d   canary
    │     └──□ canary-demo-6f646bf7b7-9wf5r  Pod         ✔ Running  7d   ready:1/1
    └──# revision:1
       └──⧉ canary-demo-877894d5b            ReplicaSet  ✔ Healthy  7d   stable
          ├──□ canary-demo-877894d5b-2kwlp   Pod         ✔ Running  7d   ready:1/1
          ├──□ canary-demo-877894d5b-6jfpt   Pod         ✔ Running  7d   ready:1/1
          ├──□ canary-demo-877894d5b-7jmqw   Pod         ✔ Running  7d   ready:1/1
          └──□ canary-demo-877894d5b-j8g2b   Pod         ✔ Running  7d   ready:1/1
    ");
}

#[test]
fn paused_at_a_step_in_colour() {
    insta::assert_snapshot!(paused().text(Paint::Colors).replace('\x1b', "␛"), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ॥ Paused
    Message:         CanaryPauseStep
    Strategy:        Canary
      Step:          1/8
      SetWeight:     20
      ActualWeight:  20
    Images:          argoproj/rollouts-demo:blue (␛[32mstable␛[0m)
                     argoproj/rollouts-demo:yellow (␛[33mcanary␛[0m)
    Replicas:
      Desired:       5
      Current:       5
      Updated:       1
      Ready:         5
      Available:     5

    NAME                                     KIND        STATUS     AGE  INFO
    ⟳ canary-demo                            Rollout     ॥ Paused   7d
    ├──# revision:2
    │  └──⧉ ␛[33mcanary-demo-6f646bf7b7␛[0m           ReplicaSet  ␛[32m✔␛[0m Healthy  7d   ␛[33mcanary␛[0m
    │     └──□ canary-demo-6f646bf7b7-9wf5r  Pod         ␛[32m✔␛[0m Running  7d   ready:1/1
    └──# revision:1
       └──⧉ ␛[32mcanary-demo-877894d5b␛[0m            ReplicaSet  ␛[32m✔␛[0m Healthy  7d   ␛[32mstable␛[0m
          ├──□ canary-demo-877894d5b-2kwlp   Pod         ␛[32m✔␛[0m Running  7d   ready:1/1
          ├──□ canary-demo-877894d5b-6jfpt   Pod         ␛[32m✔␛[0m Running  7d   ready:1/1
          ├──□ canary-demo-877894d5b-7jmqw   Pod         ␛[32m✔␛[0m Running  7d   ready:1/1
          └──□ canary-demo-877894d5b-j8g2b   Pod         ␛[32m✔␛[0m Running  7d   ready:1/1
    ");
}

#[test]
fn progressing_with_pods_on_their_way() {
    let status = json!({
        "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 0, "currentPodHash": "new", "stableRS": "old",
        "replicas": 6, "updatedReplicas": 1, "readyReplicas": 5, "availableReplicas": 5,
    });
    let mut world = World::new(&json!({}), &status)
        .replica_set("old", 1, "blue", &["a"])
        .replica_set("new", 2, "bad", &["b", "c"]);
    world.0.replica_sets[1]
        .status
        .as_mut()
        .unwrap()
        .available_replicas = Some(0);
    let container = |state: Value, restarts: i32| {
        let status = json!([{"name": "app", "image": "", "imageID": "", "ready": false, "restartCount": restarts, "state": state}]);
        serde_json::from_value(status).unwrap()
    };
    let waiting =
        |reason: &str, restarts| container(json!({"waiting": {"reason": reason}}), restarts);
    world.0.pods[1].status.as_mut().unwrap().container_statuses = waiting("ImagePullBackOff", 0);
    world.0.pods[2].status.as_mut().unwrap().container_statuses = waiting("CrashLoopBackOff", 3);
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ◌ Progressing
    Message:         more replicas need to be updated
    Strategy:        Canary
      Step:          0/8
      SetWeight:     20
      ActualWeight:  0
    Images:          argoproj/rollouts-demo:bad (canary)
                     argoproj/rollouts-demo:blue (stable)
    Replicas:
      Desired:       5
      Current:       6
      Updated:       1
      Ready:         5
      Available:     5

    NAME                          KIND        STATUS              AGE  INFO
    ⟳ canary-demo                 Rollout     ◌ Progressing       7d
    ├──# revision:2
    │  └──⧉ canary-demo-new       ReplicaSet  ◌ Progressing       7d   canary
    │     ├──□ canary-demo-new-b  Pod         ⚠ ImagePullBackOff  7d   ready:0/1
    │     └──□ canary-demo-new-c  Pod         ✖ CrashLoopBackOff  7d   ready:0/1,restarts:3
    └──# revision:1
       └──⧉ canary-demo-old       ReplicaSet  ✔ Healthy           7d   stable
          └──□ canary-demo-old-a  Pod         ✔ Running           7d   ready:1/1
    ");
}

#[test]
fn routed_and_aborted_with_a_canary_that_waits_for_its_delay() {
    let status = json!({
        "phase": "Degraded", "message": "RolloutAborted: Rollout aborted update to revision 2", "abort": true, "currentStepIndex": 0,
        "currentPodHash": "new", "stableRS": "old", "replicas": 6, "updatedReplicas": 1, "readyReplicas": 6, "availableReplicas": 6,
        "canary": {"weights": {"canary": {"weight": 0}, "stable": {"weight": 100}}},
    });
    let world = World::new(&json!({"strategy": {"canary": {"trafficRouting": {}}}}), &status)
        .replica_set("old", 1, "blue", &["a", "b"])
        .replica_set("new", 2, "bad", &["c"])
        .annotate_replica_set("new", "scale-down-deadline", "2026-11-21T08:00:29Z")
        .split(&json!({"lastAbort": {
            "revision": "2", "step": 1, "reason": "Metric \"success-rate\" assessed Failed due to failed (1) > failureLimit (0)",
            "metric": "success-rate", "value": "0.62", "condition": "result.successRate >= 0.95", "at": "2026-11-21T07:59:59Z",
        }}));
    insta::assert_snapshot!(world.plain(), @r#"
    Name:            canary-demo
    Namespace:       default
    Status:          ✖ Degraded
    Message:         RolloutAborted: Rollout aborted update to revision 2
    Last abort:      revision 2 at step 1: Metric "success-rate" assessed Failed due to failed (1) > failureLimit (0) (value 0.62, condition result.successRate >= 0.95), 1s ago
    Strategy:        Canary
      Step:          0/8
      SetWeight:     0
      ActualWeight:  0
    Images:          argoproj/rollouts-demo:bad (canary)
                     argoproj/rollouts-demo:blue (stable)
    Replicas:
      Desired:       5
      Current:       6
      Updated:       1
      Ready:         6
      Available:     6

    NAME                          KIND        STATUS      AGE  INFO
    ⟳ canary-demo                 Rollout     ✖ Degraded  7d
    ├──# revision:2
    │  └──⧉ canary-demo-new       ReplicaSet  ✔ Healthy   7d   canary,delay:29s
    │     └──□ canary-demo-new-c  Pod         ✔ Running   7d   ready:1/1
    └──# revision:1
       └──⧉ canary-demo-old       ReplicaSet  ✔ Healthy   7d   stable
          ├──□ canary-demo-old-a  Pod         ✔ Running   7d   ready:1/1
          └──□ canary-demo-old-b  Pod         ✔ Running   7d   ready:1/1
    "#);
}

#[test]
fn analysis_under_way_and_done() {
    let status = json!({
        "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 1, "currentPodHash": "new", "stableRS": "old",
        "replicas": 3, "updatedReplicas": 1, "readyReplicas": 3, "availableReplicas": 3,
    });
    let jobs = json!([
        {"phase": "Successful", "startedAt": "2026-11-21T07:59:00Z", "metadata": {"job-name": "run.check.1"}},
        {"phase": "Running", "startedAt": "2026-11-21T07:59:55Z", "metadata": {"job-name": "run.check.2"}},
    ]);
    let world = World::new(&json!({}), &status)
        .replica_set("old", 1, "blue", &["a", "b"])
        .replica_set("new", 2, "yellow", &["c"])
        .analysis_run("canary-demo-new-2", 2, &json!({"phase": "Running", "metricResults": [{"name": "rate", "successful": 3}]}))
        .analysis_run("canary-demo-new-2-1", 2, &json!({"phase": "Inconclusive", "metricResults": [
            {"name": "rate", "successful": 3, "failed": 4}, {"name": "check", "successful": 1, "inconclusive": 1, "error": 1, "measurements": jobs},
        ]}))
        .analysis_run("canary-demo-old-1", 1, &json!({"phase": "Pending"}));
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ◌ Progressing
    Message:         more replicas need to be updated
    Strategy:        Canary
      Step:          1/8
      SetWeight:     20
      ActualWeight:  33
    Images:          argoproj/rollouts-demo:blue (stable)
                     argoproj/rollouts-demo:yellow (canary)
    Replicas:
      Desired:       5
      Current:       3
      Updated:       1
      Ready:         3
      Available:     3

    NAME                          KIND         STATUS          AGE  INFO
    ⟳ canary-demo                 Rollout      ◌ Progressing   7d
    ├──# revision:2
    │  ├──⧉ canary-demo-new       ReplicaSet   ✔ Healthy       7d   canary
    │  │  └──□ canary-demo-new-c  Pod          ✔ Running       7d   ready:1/1
    │  ├──α canary-demo-new-2-1   AnalysisRun  ? Inconclusive  63s  ✔ 4,✖ 4,? 1,⚠ 1
    │  │  ├──⊞ run.check.1        Job          ✔ Successful    60s
    │  │  └──⊞ run.check.2        Job          ◌ Running       5s
    │  └──α canary-demo-new-2     AnalysisRun  ◌ Running       63s  ✔ 3
    └──# revision:1
       ├──⧉ canary-demo-old       ReplicaSet   ✔ Healthy       7d   stable
       │  ├──□ canary-demo-old-a  Pod          ✔ Running       7d   ready:1/1
       │  └──□ canary-demo-old-b  Pod          ✔ Running       7d   ready:1/1
       └──α canary-demo-old-1     AnalysisRun  ◷ Pending       63s
    ");
}

#[test]
fn a_third_revision_before_the_second_is_gone() {
    let status = json!({
        "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 0, "currentPodHash": "v3", "stableRS": "v1",
        "replicas": 6, "updatedReplicas": 1, "readyReplicas": 6, "availableReplicas": 6,
    });
    let mut world = World::new(&json!({}), &status)
        .replica_set("v1", 1, "blue", &["a", "b"])
        .replica_set("v2", 2, "yellow", &["c"])
        .replica_set("v3", 3, "green", &["d"]);
    world.0.pods[2].metadata.deletion_timestamp = Some(Time(NOW.parse().unwrap()));
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ◌ Progressing
    Message:         more replicas need to be updated
    Strategy:        Canary
      Step:          0/8
      SetWeight:     20
      ActualWeight:  16
    Images:          argoproj/rollouts-demo:blue (stable)
                     argoproj/rollouts-demo:green (canary)
                     argoproj/rollouts-demo:yellow
    Replicas:
      Desired:       5
      Current:       6
      Updated:       1
      Ready:         6
      Available:     6

    NAME                         KIND        STATUS         AGE  INFO
    ⟳ canary-demo                Rollout     ◌ Progressing  7d
    ├──# revision:3
    │  └──⧉ canary-demo-v3       ReplicaSet  ✔ Healthy      7d   canary
    │     └──□ canary-demo-v3-d  Pod         ✔ Running      7d   ready:1/1
    ├──# revision:2
    │  └──⧉ canary-demo-v2       ReplicaSet  ✔ Healthy      7d
    │     └──□ canary-demo-v2-c  Pod         ◌ Terminating  7d   ready:1/1
    └──# revision:1
       └──⧉ canary-demo-v1       ReplicaSet  ✔ Healthy      7d   stable
          ├──□ canary-demo-v1-a  Pod         ✔ Running      7d   ready:1/1
          └──□ canary-demo-v1-b  Pod         ✔ Running      7d   ready:1/1
    ");
}

#[test]
fn healthy_with_old_revisions_scaled_down() {
    let status = json!({
        "phase": "Healthy", "currentStepIndex": 8, "currentPodHash": "v3", "stableRS": "v3",
        "replicas": 5, "updatedReplicas": 5, "readyReplicas": 5, "availableReplicas": 5,
    });
    let world = World::new(&json!({}), &status)
        .replica_set("v3", 3, "green", &["a"])
        .replica_set("v2", 2, "yellow", &["b"])
        .replica_set("v1", 1, "blue", &[])
        .annotate_replica_set("v2", "scale-down-deadline", "2026-11-21T07:59:59Z");
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ✔ Healthy
    Strategy:        Canary
      Step:          8/8
      SetWeight:     100
      ActualWeight:  100
    Images:          argoproj/rollouts-demo:green (stable)
                     argoproj/rollouts-demo:yellow
    Replicas:
      Desired:       5
      Current:       5
      Updated:       5
      Ready:         5
      Available:     5

    NAME                         KIND        STATUS        AGE  INFO
    ⟳ canary-demo                Rollout     ✔ Healthy     7d
    ├──# revision:3
    │  └──⧉ canary-demo-v3       ReplicaSet  ✔ Healthy     7d   stable
    │     └──□ canary-demo-v3-a  Pod         ✔ Running     7d   ready:1/1
    ├──# revision:2
    │  └──⧉ canary-demo-v2       ReplicaSet  ✔ Healthy     7d   delay:passed
    │     └──□ canary-demo-v2-b  Pod         ✔ Running     7d   ready:1/1
    └──# revision:1
       └──⧉ canary-demo-v1       ReplicaSet  • ScaledDown  7d
    ");
}

#[test]
fn without_steps() {
    let status = json!({"phase": "Progressing", "message": "old replicas are pending termination", "availableReplicas": 5, "replicas": 5});
    let world = World::new(&json!({"strategy": {"canary": {"steps": null}}}), &status);
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ◌ Progressing
    Message:         old replicas are pending termination
    Strategy:        Canary
      Step:
      SetWeight:     100
      ActualWeight:  100
    Replicas:
      Desired:       5
      Current:       5
      Updated:       0
      Ready:         0
      Available:     5

    NAME           KIND     STATUS         AGE  INFO
    ⟳ canary-demo  Rollout  ◌ Progressing  7d
    ");
}

#[test]
fn an_invalid_spec() {
    let message = "InvalidSpec: The Rollout \"canary-demo\" is invalid: spec.strategy.steps[0].setWeight: Invalid value: 101: \
                   SetWeight needs to be between 0 and 100";
    let status = json!({"phase": "Degraded", "message": message});
    insta::assert_snapshot!(World::new(&json!({"strategy": {"canary": {"steps": [{"setWeight": 101}]}}}), &status).plain(), @r#"
    Name:            canary-demo
    Namespace:       default
    Status:          ✖ Degraded
    Message:         InvalidSpec: The Rollout "canary-demo" is invalid: spec.strategy.steps[0].setWeight: Invalid value: 101: SetWeight needs to be between 0 and 100
    Strategy:        Canary
      Step:
      SetWeight:     101
      ActualWeight:  0
    Replicas:
      Desired:       5
      Current:       0
      Updated:       0
      Ready:         0
      Available:     0

    NAME           KIND     STATUS      AGE  INFO
    ⟳ canary-demo  Rollout  ✖ Degraded  7d
    "#);
}

#[test]
fn a_rollout_nobody_has_looked_at_yet() {
    insta::assert_snapshot!(World::new(&json!({"replicas": null}), &Value::Null).plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ◌ Progressing
    Message:         more replicas need to be updated
    Strategy:        Canary
      Step:
      SetWeight:     20
      ActualWeight:  0
    Replicas:
      Desired:       1
      Current:       0
      Updated:       0
      Ready:         0
      Available:     0

    NAME           KIND     STATUS         AGE  INFO
    ⟳ canary-demo  Rollout  ◌ Progressing  7d
    ");
}

#[test]
fn what_it_waits_for_and_what_the_proxies_can_serve() {
    let status = json!({
        "phase": "Progressing", "message": "more replicas need to be updated", "currentStepIndex": 0, "currentPodHash": "new", "stableRS": "old",
        "replicas": 6, "updatedReplicas": 1, "readyReplicas": 6, "availableReplicas": 6,
        "canary": {"weights": {"canary": {"weight": 20}, "stable": {"weight": 80}, "verified": false}},
    });
    let split = json!({
        "effective": [{"services": ["canary"], "shares": {"canary": 1.0}}, {"services": ["stable"], "shares": {"stable": 0.875, "canary": 0.125}}],
        "waiting": {"reason": "acknowledgement", "message": "proxy sidestep-proxy-0 has not taken up generation 7", "until": "2026-11-21T08:00:05Z"},
    });
    let world = World::new(
        &json!({"strategy": {"canary": {"trafficRouting": {}}}}),
        &status,
    )
    .split(&split);
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ◌ Progressing
    Message:         more replicas need to be updated
    Waiting:         proxy sidestep-proxy-0 has not taken up generation 7 (in 5s)
    Strategy:        Canary
      Step:          0/8
      SetWeight:     20
      ActualWeight:  20
      Effective:     12.5
    Replicas:
      Desired:       5
      Current:       6
      Updated:       1
      Ready:         6
      Available:     6

    NAME           KIND     STATUS         AGE  INFO
    ⟳ canary-demo  Rollout  ◌ Progressing  7d
    ");
}

#[test]
fn what_the_proxies_serve_is_not_repeated_when_it_is_what_was_set() {
    let status = json!({
        "phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1, "availableReplicas": 6,
        "canary": {"weights": {"canary": {"weight": 20}}},
    });
    let split =
        json!({"effective": [{"services": ["stable"], "shares": {"stable": 0.8, "canary": 0.2}}]});
    let world = World::new(
        &json!({"strategy": {"canary": {"trafficRouting": {}}}}),
        &status,
    )
    .split(&split);
    assert!(!world.plain().contains("Effective:"), "{}", world.plain());
}

#[test]
fn a_rollout_without_a_split_keeps_what_it_waits_for_in_an_annotation() {
    let mut world = paused();
    let state =
        json!({"waiting": {"reason": "pause", "message": "`sidestep promote canary-demo`"}})
            .to_string();
    world.0.rollout.metadata.annotations = Some([("sidestep.dev/state".to_owned(), state)].into());
    assert!(
        world.plain().contains(
            "Message:         CanaryPauseStep\nWaiting:         `sidestep promote canary-demo`\n"
        ),
        "{}",
        world.plain()
    );
}

#[test]
fn blue_green() {
    let status = json!({
        "phase": "Paused", "message": "BlueGreenPause", "currentPodHash": "new", "stableRS": "old", "replicas": 2, "updatedReplicas": 1,
        "readyReplicas": 1, "availableReplicas": 1, "blueGreen": {"activeSelector": "old", "previewSelector": "new"},
    });
    let world = World::new(
        &json!({"strategy": {"canary": null, "blueGreen": {"activeService": "web"}}}),
        &status,
    )
    .replica_set("old", 1, "blue", &["a"])
    .replica_set("new", 2, "green", &["b"]);
    insta::assert_snapshot!(world.plain(), @r"
    Name:            canary-demo
    Namespace:       default
    Status:          ॥ Paused
    Message:         BlueGreenPause
    Strategy:        BlueGreen
    Images:          argoproj/rollouts-demo:blue (active, stable)
                     argoproj/rollouts-demo:green (preview)
    Replicas:
      Desired:       5
      Current:       2
      Updated:       1
      Ready:         1
      Available:     1

    NAME                          KIND        STATUS     AGE  INFO
    ⟳ canary-demo                 Rollout     ॥ Paused   7d
    ├──# revision:2
    │  └──⧉ canary-demo-new       ReplicaSet  ✔ Healthy  7d   preview
    │     └──□ canary-demo-new-b  Pod         ✔ Running  7d   ready:1/1
    └──# revision:1
       └──⧉ canary-demo-old       ReplicaSet  ✔ Healthy  7d   stable,active
          └──□ canary-demo-old-a  Pod         ✔ Running  7d   ready:1/1
    ");
}

#[test]
fn what_belongs_to_another_rollout_is_left_out() {
    let mut world = paused();
    world.0.rollout.metadata.uid = Some("another".to_owned());
    assert!(
        world
            .plain()
            .ends_with("INFO\n⟳ canary-demo  Rollout  ॥ Paused  7d\n"),
        "{}",
        world.plain()
    );
}
