//! The controller against the embedded cluster: real watches, real stand-in pods, and a proxy that takes up real tables.

mod analysis;
mod apex;
mod behind;
mod doubt;
mod roles;
mod routers;
mod scope;
mod stage;

use serde_json::{Value, json};

use self::stage::{Seen, Stage, rollout};
use crate::local::kinds;

#[tokio::test]
async fn a_canary_walks_its_steps_behind_acknowledged_weights_and_is_promoted() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(
        &kinds::ROLLOUT,
        rollout(
            "web",
            "blue",
            &json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}]),
        ),
    );
    let first = stage.until("web", |seen| seen.phase() == "Healthy").await;

    stage.set_image("web", "yellow");
    let paused = stage.until("web", |seen| seen.phase() == "Paused").await;
    assert_eq!(paused.message(), "CanaryPauseStep");
    assert_eq!(paused.weights("web"), "canary=20 stable=80");
    assert_eq!(paused.verified(), Some(true));
    assert_eq!(
        paused.served("web"),
        "canary=20 stable=80",
        "the proxy serves what is verified"
    );

    stage.promote("web");
    let done = stage.until("web", |seen| seen.phase() == "Healthy").await;
    assert_ne!(done.stable(), first.stable());
    stage
        .until("web", |seen| {
            seen.served("web") == "stable=100"
                && seen.served_revision("web", "stable") == seen.stable()
        })
        .await;
    stage.close().await;
}

fn steps() -> Value {
    json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}])
}

/// A Rollout of blue pods that is Healthy, and a canary of yellow ones at 20 %.
async fn paused_at_the_first_step() -> (Stage, Seen) {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.set_image("web", "yellow");
    let paused = stage
        .until("web", |seen| {
            seen.phase() == "Paused" && seen.served("web") == "canary=20 stable=80"
        })
        .await;
    (stage, paused)
}

#[tokio::test]
async fn an_abort_takes_the_canary_out_of_traffic_at_once_and_a_retry_brings_it_back() {
    let (mut stage, paused) = paused_at_the_first_step().await;
    stage.abort("web");
    let aborted = stage.until("web", |seen| seen.phase() == "Degraded").await;
    assert_eq!(
        aborted.message(),
        "RolloutAborted: Rollout aborted update to revision 2"
    );
    assert_eq!(aborted.weights("web"), "stable=100");
    let back = stage
        .until("web", |seen| seen.served("web") == "stable=100")
        .await;
    assert_eq!(back.served_revision("web", "stable"), paused.stable());

    stage.edit_status("web", |rollout| rollout["status"]["abort"] = json!(false));
    stage
        .until("web", |seen| {
            seen.phase() == "Paused" && seen.served("web") == "canary=20 stable=80"
        })
        .await;
    stage.close().await;
}

#[tokio::test]
async fn a_third_version_in_mid_rollout_takes_the_second_ones_place() {
    let (mut stage, second) = paused_at_the_first_step().await;
    stage.set_image("web", "green");
    let third = stage
        .until("web", |seen| {
            seen.phase() == "Paused"
                && seen.current() != second.current()
                && seen.served_revision("web", "canary") == seen.current()
        })
        .await;
    assert_eq!(third.served("web"), "canary=20 stable=80");
    assert_eq!(third.stable(), second.stable());
    for _ in 0..2 {
        stage.promote("web");
        let at = stage.seen("web").rollout["status"]["currentStepIndex"].clone();
        stage
            .until("web", |seen| {
                seen.rollout["status"]["currentStepIndex"] != at
                    && ["Paused", "Healthy"].contains(&seen.phase())
            })
            .await;
    }
    let done = stage
        .until("web", |seen| {
            seen.phase() == "Healthy" && seen.served("web") == "stable=100"
        })
        .await;
    assert_eq!(done.stable(), third.current());
    // The second one's pods go, and the first one's after their delay.
    stage
        .until("web", |seen| {
            [second.current(), second.stable()]
                .iter()
                .all(|hash| seen.pods(hash) == Some(0))
        })
        .await;
    stage.close().await;
}

#[tokio::test]
async fn a_weight_that_no_proxy_acknowledges_is_no_step_done() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.silence(true);
    stage.set_image("web", "yellow");
    let waiting = stage
        .until("web", |seen| seen.served("web") == "canary=20 stable=80")
        .await;
    assert_eq!(
        waiting.rollout["status"]["currentStepIndex"],
        json!(0),
        "{:#}",
        waiting.rollout["status"]
    );
    stage
        .until("web", |seen| {
            let waiting = &seen.split["status"]["waiting"];
            let names_the_proxy = waiting["message"]
                .as_str()
                .is_some_and(|said| said.contains("127.0.0.1"));
            waiting["reason"] == "acknowledgement"
                && names_the_proxy
                && seen.verified() == Some(false)
        })
        .await;
    stage.silence(false);
    stage
        .until("web", |seen| {
            seen.phase() == "Paused" && seen.verified() == Some(true)
        })
        .await;
    stage.close().await;
}

#[tokio::test]
async fn another_controller_goes_on_where_the_first_one_stopped() {
    let (mut stage, paused) = paused_at_the_first_step().await;
    stage.stop_controller().await;
    let before = stage.seen("web");
    stage.start_controller();
    stage.promote("web");
    let later = stage
        .until("web", |seen| {
            seen.phase() == "Paused" && seen.served("web") == "canary=60 stable=40"
        })
        .await;
    assert_eq!(
        (later.stable(), later.current()),
        (paused.stable(), paused.current())
    );
    assert_eq!(
        before.split["metadata"]["uid"],
        later.split["metadata"]["uid"]
    );
    stage.close().await;
}

#[tokio::test]
async fn a_split_edited_by_hand_is_put_back() {
    let (mut stage, paused) = paused_at_the_first_step().await;
    stage.edit(&kinds::SPLIT, "web", |split| {
        for rule in split["spec"]["rules"].as_array_mut().unwrap() {
            rule["weights"] = json!({"canary": 1});
        }
    });
    let restored = stage
        .until("web", |seen| {
            seen.split["spec"] == paused.split["spec"]
                && seen.served("web") == "canary=20 stable=80"
        })
        .await;
    assert!(
        restored.split["metadata"]["generation"].as_i64()
            > paused.split["metadata"]["generation"].as_i64()
    );
    stage
        .until("web", |seen| {
            seen.verified() == Some(true)
                && seen.split["status"]["observedGeneration"]
                    == seen.split["metadata"]["generation"]
        })
        .await;
    stage.close().await;
}

#[tokio::test]
async fn a_split_written_by_hand_moves_weights_without_any_rollout() {
    let mut stage = Stage::new().await;
    stage.create_services(&["shop", "shop-v1", "shop-v2"]);
    for name in ["shop-v1", "shop-v2"] {
        stage.edit(&kinds::SERVICE, name, |service| {
            service["spec"]["selector"] = json!({"app": name})
        });
        let set = json!({
            "metadata": {"name": name},
            "spec": {"replicas": 1, "selector": {"matchLabels": {"app": name}}, "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": "x", "ports": [{"containerPort": 8080}]}]}}},
        });
        stage.create(&kinds::REPLICA_SET, set);
    }
    let versions =
        json!([{"name": "stable", "service": "shop-v1"}, {"name": "canary", "service": "shop-v2"}]);
    let rules = |canary: u32| json!([{"services": ["shop"], "weights": {"stable": 100 - canary, "canary": canary}}]);
    stage.create(
        &kinds::SPLIT,
        json!({"metadata": {"name": "shop"}, "spec": {"versions": versions, "rules": rules(10)}}),
    );
    let is_verified = |seen: &Seen| {
        let conditions = seen.split["status"]["conditions"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let current =
            seen.split["status"]["observedGeneration"] == seen.split["metadata"]["generation"];
        current
            && conditions.len() == 2
            && conditions
                .iter()
                .all(|condition| condition["status"] == "True")
    };
    stage
        .until("shop", |seen| {
            seen.served("shop") == "canary=10 stable=90" && is_verified(seen)
        })
        .await;
    stage.edit(&kinds::SPLIT, "shop", |split| {
        split["spec"]["rules"] = rules(70)
    });
    let moved = stage
        .until("shop", |seen| {
            seen.served("shop") == "canary=70 stable=30" && is_verified(seen)
        })
        .await;
    assert_eq!(
        moved.split["status"]["effective"],
        json!([{"services": ["shop"], "shares": {"canary": 0.7, "stable": 0.3}}])
    );
    stage.close().await;
}

#[tokio::test]
async fn an_invalid_spec_is_a_condition_and_heals_when_the_reason_goes() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &steps()));
    let invalid = stage.until("web", |seen| seen.phase() == "Degraded").await;
    assert_eq!(
        invalid.message(),
        "InvalidSpec: The Rollout \"web\" is invalid: spec.strategy.canary.canaryService: Invalid value: \"web-canary\": service \"web-canary\" not found"
    );
    stage.create_services(&["web-canary"]);
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.close().await;
}

#[tokio::test]
async fn a_restart_replaces_every_pod_and_leaves_enough_of_them() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &json!([])));
    let first = stage.until("web", |seen| seen.phase() == "Healthy").await;
    let pods = |stage: &Stage| -> Vec<String> {
        let pods = stage.list(&kinds::POD);
        pods.iter()
            .map(|pod| pod["metadata"]["uid"].to_string())
            .collect()
    };
    let before = pods(&stage);
    assert_eq!(before.len(), 3);
    // Pods count by the second: all there are now were created before the next one begins.
    let pods_now = stage.list(&kinds::POD);
    let created = pods_now
        .iter()
        .map(|pod| pod["metadata"]["creationTimestamp"].as_str().unwrap());
    let last: jiff::Timestamp = created.max().unwrap().parse().unwrap();
    let at = last + jiff::SignedDuration::from_secs(1);
    let mut changes = stage.local.store.subscribe(stage.local.store.version());
    stage.edit(&kinds::ROLLOUT, "web", |rollout| {
        rollout["spec"]["restartAt"] = json!(at.to_string());
    });
    let is_restarting = |seen: &Seen| seen.message() == "rollout is restarting";
    stage.until("web", is_restarting).await;
    let done = stage.until("web", |seen| seen.phase() == "Healthy").await;
    assert_eq!(done.rollout["status"]["restartedAt"], json!(at.to_string()));
    assert_eq!(
        (done.stable(), done.current()),
        (first.stable(), first.current()),
        "no new revision"
    );
    stage
        .until("web", |seen| seen.pods(seen.stable()) == Some(3))
        .await;
    assert!(pods(&stage).iter().all(|uid| !before.contains(uid)));
    let available = |change: &std::sync::Arc<crate::local::store::Change>| {
        (change.kind.kind == "ReplicaSet")
            .then(|| change.object["status"]["availableReplicas"].as_i64())
    };
    let least = changes.ready().unwrap().iter().filter_map(available).min();
    assert_eq!(least, Some(Some(2)), "one at a time");
    stage.close().await;
}

/// R2.23
#[tokio::test]
async fn the_end_of_a_rollout_is_told() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &json!([])));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    let store = stage.local.store.clone();
    let rollout = store.get(&kinds::ROLLOUT, stage::NS, "web").unwrap();
    let gone = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "namespace": stage::NS, "name": "web",
        "uid": rollout["metadata"]["uid"],
    });
    let deletion = crate::local::store::Deletion::default();
    store
        .delete(&kinds::ROLLOUT, stage::NS, "web", &deletion)
        .unwrap();
    let told = move |_: &Seen| {
        let events = store.list(&kinds::EVENT, Some(stage::NS)).objects;
        let last = events
            .iter()
            .filter(|event| event["reason"] == "RolloutDeleted");
        let last: Vec<_> = last
            .map(|event| (event["message"].as_str(), event["involvedObject"].clone()))
            .collect();
        last == [(Some("Rollout web/default is deleted."), gone.clone())]
    };
    stage.until("web", told).await;
    stage.close().await;
}
