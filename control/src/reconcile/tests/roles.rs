//! Marks on pods and a Deployment that makes room, on the embedded cluster.

use std::sync::Arc;

use serde_json::{Value, json};

use super::stage::{Stage, rollout};
use crate::local::kinds;

fn steps() -> Value {
    json!([{"setWeight": 50}, {"pause": {}}])
}

/// Pods by image and mark, sorted.
fn pods(stage: &Stage) -> Vec<(String, String)> {
    let read = |pod: &Arc<Value>| {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let container = &pod["spec"]["containers"][0];
        (
            text(&container["image"]),
            text(&pod["metadata"]["labels"]["role"]),
        )
    };
    let mut pods: Vec<_> = stage.list(&kinds::POD).iter().map(read).collect();
    pods.sort();
    pods
}

/// R19.1: pods are marked in place, without a restart.
#[tokio::test]
async fn pods_are_marked_in_place() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    let mut object = rollout("web", "blue", &steps());
    object["spec"]["strategy"]["canary"]["stableMetadata"] = json!({"labels": {"role": "stable"}});
    object["spec"]["strategy"]["canary"]["canaryMetadata"] = json!({"labels": {"role": "canary"}});
    stage.create(&kinds::ROLLOUT, object);
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    let all = |image: &str, role: &str| vec![(image.to_owned(), role.to_owned()); 3];
    assert_eq!(pods(&stage), all("blue", "stable"));

    stage.set_image("web", "yellow");
    stage.until("web", |seen| seen.phase() == "Paused").await;
    let mut both = all("blue", "stable");
    both.extend(all("yellow", "canary").into_iter().take(2));
    assert_eq!(pods(&stage), both);
    let names = |stage: &Stage| -> Vec<Value> {
        let pods = stage.list(&kinds::POD);
        let yellow = pods
            .iter()
            .filter(|pod| pod["spec"]["containers"][0]["image"] == "yellow");
        yellow.map(|pod| pod["metadata"]["uid"].clone()).collect()
    };
    let before = names(&stage);
    stage.promote("web");
    let gone =
        |seen: &super::Seen| seen.phase() == "Healthy" && seen.pods(seen.stable()) == Some(3);
    stage.until("web", gone).await;
    let after = names(&stage);
    assert!(
        before.iter().all(|uid| after.contains(uid)),
        "no pod was replaced"
    );
    let pods = pods(&stage);
    assert!(
        pods.iter()
            .filter(|(image, _)| image == "yellow")
            .all(|(_, role)| role == "stable"),
        "{pods:?}"
    );
    stage.close().await;
}

/// R18: a Rollout takes over a Deployment, which then has no pods.
#[tokio::test]
async fn a_deployment_is_taken_over() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    let mut object = rollout("web", "blue", &steps());
    let template = object["spec"]["template"].take();
    let deployment = json!({"metadata": {"name": "web"}, "spec": {
        "replicas": 3, "selector": object["spec"]["selector"], "template": template,
    }});
    stage.create(&kinds::DEPLOYMENT, deployment);
    object["spec"].as_object_mut().unwrap().remove("template");
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "scaleDown": "progressively"});
    object["spec"]["workloadRef"] = reference;
    stage.create(&kinds::ROLLOUT, object);
    let store = stage.local.store.clone();
    let taken_over = move |seen: &super::Seen| {
        let deployment = store
            .get(&kinds::DEPLOYMENT, super::stage::NS, "web")
            .unwrap();
        let noted = &seen.rollout["status"]["workloadObservedGeneration"];
        seen.phase() == "Healthy"
            && deployment["spec"]["replicas"] == 0
            && noted.as_str() == Some(&deployment["metadata"]["generation"].to_string())
    };
    stage.until("web", taken_over).await;
    stage.close().await;
}
