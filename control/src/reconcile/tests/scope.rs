//! Controllers that look after a part of all objects.

use serde_json::{Value, json};

use super::stage::{NS, Seen, Stage, rollout};
use crate::api::labels;
use crate::local::kinds;
use crate::reconcile::objects::{Instance, Scope};

/// A Service whose selector a Rollout has its hash in.
fn managed(name: &str, by: &str) -> Value {
    json!({
        "metadata": {"name": name, "annotations": {labels::MANAGED_BY: by}},
        "spec": {"selector": {labels::POD_TEMPLATE_HASH: "abc"}, "ports": [{"port": 80}]},
    })
}

/// Reference 1.12: a controller with an id looks after the objects labelled with it, one without after those that have no label. What
/// belongs to another is not touched, nor a Service that another's Rollout manages.
#[tokio::test]
async fn an_instance_leaves_the_objects_of_another_alone() {
    let scope = Scope {
        instance: Instance::Unlabelled,
        ..Scope::default()
    };
    let mut stage = Stage::within(scope).await;
    let mut theirs = rollout("theirs", "blue", &json!([]));
    theirs["metadata"]["labels"] = json!({labels::INSTANCE_ID: "green"});
    let routing = &mut theirs["spec"]["strategy"]["canary"];
    *routing = json!({"stableService": "theirs", "canaryService": "theirs-canary"});
    stage.create(&kinds::ROLLOUT, theirs);
    stage.create(&kinds::SERVICE, managed("theirs", "theirs"));
    stage.create(&kinds::SERVICE, managed("orphan", "nobody"));
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &json!([])));
    stage.until("web", |seen| seen.phase() == "Healthy").await;

    let hash = |name: &str| {
        let service = stage.local.store.get(&kinds::SERVICE, NS, name).unwrap();
        service["spec"]["selector"][labels::POD_TEMPLATE_HASH].clone()
    };
    assert_eq!(hash("orphan"), Value::Null, "nobody's Service is released");
    assert_eq!(hash("theirs"), "abc");
    assert_eq!(stage.seen("theirs").rollout["status"], Value::Null);
    stage.close().await;
}

fn split(name: &str, metadata: &Value) -> Value {
    let mut split = json!({
        "metadata": metadata,
        "spec": {"versions": [{"name": "stable", "service": name}], "rules": [{"services": [name], "weights": {"stable": 1}}]},
    });
    split["metadata"]["name"] = json!(name);
    split
}

/// Two controllers with a fleet each would contradict each other about one Split without end.
#[tokio::test]
async fn nothing_is_said_of_the_splits_of_another() {
    let scope = Scope {
        instance: Instance::Unlabelled,
        ..Scope::default()
    };
    let mut stage = Stage::within(scope).await;
    let green = json!({labels::INSTANCE_ID: "green"});
    let mut theirs = rollout("theirs", "blue", &json!([]));
    theirs["metadata"]["labels"] = green.clone();
    stage.create(&kinds::ROLLOUT, theirs);
    let owner = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "theirs", "controller": true,
        "uid": stage.seen("theirs").rollout["metadata"]["uid"],
    });
    // name → metadata
    for (name, metadata) in [
        ("labelled", json!({"labels": green})),
        ("owned", json!({"ownerReferences": [owner]})),
    ] {
        stage.create(&kinds::SPLIT, split(name, &metadata));
    }
    stage.create(&kinds::SPLIT, split("unlabelled", &json!({})));
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &json!([])));
    let is_done =
        |seen: &Seen| seen.phase() == "Healthy" && seen.split["status"]["conditions"].is_array();
    stage.until("web", is_done).await;
    let is_told_of = |name: &str| {
        let split = stage.local.store.get(&kinds::SPLIT, NS, name).unwrap();
        split["status"]["conditions"].is_array()
    };
    let told: Vec<_> = ["labelled", "owned", "unlabelled", "web"]
        .into_iter()
        .filter(|name| is_told_of(name))
        .collect();
    assert_eq!(told, ["unlabelled", "web"]);
    stage.close().await;
}

/// One namespace is looked after without ClusterAnalysisTemplates, which a Role cannot grant.
#[tokio::test]
async fn a_controller_of_one_namespace_needs_nothing_outside() {
    let scope = Scope {
        namespace: Some(NS.to_owned()),
        ..Scope::default()
    };
    let mut stage = Stage::within(scope).await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &json!([])));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.close().await;
}
