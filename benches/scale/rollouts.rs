//! Many Rollouts: how each is, and when all are Healthy.

use std::collections::HashSet;
use std::ops::Range;

use futures::StreamExt as _;
use futures::stream;
use kube::ResourceExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use sidestep_control::api::Rollout;

use crate::support::cluster::World;

/// Rollouts made side by side.
const SIDE_BY_SIDE: usize = 16;

/// Makes the Rollouts of these numbers; returns when all are Healthy.
pub(crate) async fn grow(world: &World, numbers: Range<usize>) {
    let make = |number| async move {
        for object in manifests(&name(number)) {
            world.create(&object).await;
        }
    };
    let mut missing: HashSet<String> = numbers.clone().map(name).collect();
    let made = stream::iter(numbers).for_each_concurrent(SIDE_BY_SIDE, make);
    let healthy = async {
        let rollouts = watcher(world.api::<Rollout>(), watcher::Config::default());
        let mut rollouts = rollouts.default_backoff().applied_objects().boxed();
        while !missing.is_empty() {
            let seen = rollouts.next().await.expect("a watch does not end");
            if let Ok(rollout) = seen
                && is_healthy(&rollout)
            {
                missing.remove(&rollout.name_any());
            }
        }
    };
    tokio::join!(made, healthy);
}

/// A Rollout's name, and what those of its objects begin with.
pub(crate) fn name(number: usize) -> String {
    format!("web-{number}")
}

/// A container of such a Rollout.
pub(crate) fn container(image: &str) -> Value {
    json!({"name": "app", "image": image, "ports": [{"name": "http", "containerPort": 8080}]})
}

fn is_healthy(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    status.and_then(|status| status.phase.as_deref()) == Some("Healthy")
}

/// Two Services and the Rollout that splits them.
fn manifests(name: &str) -> [Value; 3] {
    let labels = json!({"app": name});
    let canary = format!("{name}-canary");
    let service = |name: &str| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        })
    };
    let rollout = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container("demo:blue")]}},
            "strategy": {"canary": {
                "stableService": name, "canaryService": canary,
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "steps": [{"setWeight": 50}, {"pause": {}}],
            }},
        },
    });
    [service(name), service(&canary), rollout]
}
