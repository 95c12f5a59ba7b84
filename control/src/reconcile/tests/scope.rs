//! Controllers that look after a part of all objects.

use serde_json::{Value, json};

use super::stage::{NS, Stage, rollout};
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
