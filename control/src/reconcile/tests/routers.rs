//! Rollouts for routers of others on a cluster that has none, and on one that has.

use serde_json::{Value, json};

use super::stage::{Seen, Stage, rollout};
use crate::local::kinds;

/// `examples/istio.yaml` with short pauses: the Rollout, then its Services.
fn istio() -> Vec<Value> {
    let text =
        include_str!("../../../../examples/istio.yaml").replace("duration: 60", "duration: 1");
    let parts = text.split("\n---\n");
    parts
        .map(|part| serde_saphyr::from_str(part).unwrap())
        .collect()
}

#[tokio::test]
async fn a_manifest_for_istio_rolls_out_without_istio() {
    let mut stage = Stage::new().await;
    let mut objects = istio().into_iter();
    let rollout = objects.next().unwrap();
    for service in objects {
        stage.create(&kinds::SERVICE, service);
    }
    stage.create(&kinds::ROLLOUT, rollout);
    let first = stage
        .until("my-app", |seen| seen.phase() == "Healthy")
        .await;
    stage.set_image("my-app", "argoproj/rollouts-demo:yellow");
    for served in ["canary=34 stable=66", "canary=67 stable=33"] {
        stage
            .until("my-app", |seen| seen.served("my-app-stable") == served)
            .await;
    }
    let promoted = |seen: &Seen| seen.phase() == "Healthy" && seen.stable() != first.stable();
    stage.until("my-app", promoted).await;
    stage.close().await;
}

/// A Rollout for ingress-nginx, and an Ingress of that class.
async fn behind_an_ingress(class: &str) -> Stage {
    let stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    let ingress = json!({"metadata": {"name": "front"}, "spec": {
        "ingressClassName": class, "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    }});
    stage.create(&kinds::INGRESS, ingress);
    let mut rollout = rollout("web", "blue", &json!([{"setWeight": 20}, {"pause": {}}]));
    rollout["spec"]["strategy"]["canary"]["trafficRouting"] =
        json!({"nginx": {"stableIngress": "front"}});
    stage.create(&kinds::ROLLOUT, rollout);
    stage
}

#[tokio::test]
async fn a_live_ingress_holds_the_rollout_and_is_named() {
    let mut stage = behind_an_ingress("nginx").await;
    stage.until("web", |seen| seen.stable() != "").await;
    stage.set_image("web", "yellow");
    let is_held = |seen: &Seen| {
        let state = &seen.rollout["metadata"]["annotations"]["sidestep.dev/state"];
        seen.stable() != seen.current()
            && state
                .as_str()
                .is_some_and(|state| state.contains("Ingress \\\"default/front\\\""))
    };
    let held = stage.until("web", is_held).await;
    assert_eq!(
        (held.pods(held.current()), held.split),
        (Some(0), Value::Null)
    );
    stage.close().await;
}

#[tokio::test]
async fn an_ingress_for_sidestep_does_not() {
    let mut stage = behind_an_ingress("sidestep").await;
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.set_image("web", "yellow");
    stage
        .until("web", |seen| seen.served("web") == "canary=20 stable=80")
        .await;
    stage.close().await;
}
