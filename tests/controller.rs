//! The controller against a real control plane, in this process and for one namespace; the verbs are those of the real binary.

use std::future::ready;

use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::api::Rollout;
use sidestep_control::controller::{Config, Controller};
use sidestep_control::fleet;
use sidestep_control::reconcile::objects::{Instance, Scope};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::cluster::World;

/// A controller at work.
struct Running {
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(world: &World) -> Self {
        let fleet = fleet::Config {
            namespace: world.namespace.clone(),
            service: "sidestep-proxy".to_owned(),
        };
        let scope = Scope {
            namespace: Some(world.namespace.clone()),
            instance: Instance::default(),
        };
        let config = Config {
            scope,
            ..Config::new(fleet)
        };
        let controller = Controller::new(world.client.clone(), config);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(controller.run(ready(()), cancel.clone()));
        Self { cancel, task }
    }

    async fn stop(self) {
        assert!(
            !self.task.is_finished(),
            "it works until it is told to stop"
        );
        self.cancel.cancel();
        self.task.await.unwrap();
    }
}

fn rollout(steps: &Value) -> Value {
    let labels = json!({"app": "web"});
    let container =
        json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 4,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": {"steps": steps}},
        },
    })
}

fn phase(rollout: &Rollout) -> Option<&str> {
    rollout.status.as_ref()?.phase.as_deref()
}

async fn until_healthy(world: &World) -> Rollout {
    let healthy = |rollout: &Rollout| {
        let generation = rollout
            .metadata
            .generation
            .map(|generation| generation.to_string());
        let observed = rollout
            .status
            .as_ref()
            .and_then(|status| status.observed_generation.clone());
        observed == generation && phase(rollout) == Some("Healthy")
    };
    world.eventually("web", "is healthy", healthy).await
}

async fn until_paused_at(world: &World, step: i32) -> Rollout {
    let paused = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        phase(rollout) == Some("Paused")
            && status.and_then(|status| status.current_step_index) == Some(step)
    };
    world.eventually("web", "is paused", paused).await
}

/// Replicas wanted of each image's ReplicaSet, by image.
async fn sizes(world: &World) -> Vec<(String, i32)> {
    let api: Api<ReplicaSet> = world.api();
    let sets = api.list(&ListParams::default()).await.unwrap();
    let mut sizes: Vec<_> = sets.iter().map(size).collect();
    sizes.sort();
    sizes
}

fn size(set: &ReplicaSet) -> (String, i32) {
    let spec = set.spec.as_ref().unwrap();
    let template = spec.template.as_ref().unwrap().spec.as_ref().unwrap();
    let image = template.containers.first().unwrap().image.clone();
    (image.unwrap(), spec.replicas.unwrap())
}

fn sized(of: [(&str, i32); 2]) -> Vec<(String, i32)> {
    of.map(|(image, replicas)| (image.to_owned(), replicas))
        .to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_without_routing_is_promoted_step_by_step() {
    let world = World::start().await;
    let controller = Running::start(&world);
    world
        .create(&rollout(
            &json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]),
        ))
        .await;
    until_healthy(&world).await;
    assert_eq!(sizes(&world).await, [("demo:blue".to_owned(), 4)]);

    world.verb("set image web app=demo:yellow").await;
    until_paused_at(&world, 1).await;
    assert_eq!(
        sizes(&world).await,
        sized([("demo:blue", 3), ("demo:yellow", 1)])
    );
    world.verb("promote web").await;
    until_paused_at(&world, 3).await;
    assert_eq!(
        sizes(&world).await,
        sized([("demo:blue", 2), ("demo:yellow", 2)])
    );
    world.verb("promote web").await;
    let healthy = until_healthy(&world).await;
    assert_eq!(
        sizes(&world).await,
        sized([("demo:blue", 0), ("demo:yellow", 4)])
    );

    // The real API server keeps all that the controller writes: nothing is left to write.
    let version = healthy.resource_version();
    controller.stop().await;
    let controller = Running::start(&world);
    world.verb("status web --timeout 60s").await;
    let api: Api<Rollout> = world.api();
    assert_eq!(api.get("web").await.unwrap().resource_version(), version);
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_canary_leaves_and_comes_back() {
    let world = World::start().await;
    let controller = Running::start(&world);
    world
        .create(&rollout(&json!([{"setWeight": 50}, {"pause": {}}])))
        .await;
    until_healthy(&world).await;
    world.verb("set image web app=demo:yellow").await;
    until_paused_at(&world, 1).await;
    world.verb("abort web").await;
    world
        .eventually("web", "is degraded", |rollout: &Rollout| {
            phase(rollout) == Some("Degraded")
        })
        .await;
    world.verb("retry rollout web").await;
    until_paused_at(&world, 1).await;
    world.verb("promote web --full").await;
    until_healthy(&world).await;
    assert_eq!(
        sizes(&world).await,
        sized([("demo:blue", 0), ("demo:yellow", 4)])
    );
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollout_owns_goes_with_it() {
    let world = World::start().await;
    let controller = Running::start(&world);
    world.create(&rollout(&json!([]))).await;
    until_healthy(&world).await;
    let sets: Api<ReplicaSet> = world.api();
    let set = sets
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .remove(0);
    let api: Api<Rollout> = world.api();
    api.delete("web", &DeleteParams::default()).await.unwrap();
    world.eventually_gone::<ReplicaSet>(&set.name_any()).await;
    controller.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_goes_through_the_scale_subresource() {
    let world = World::start().await;
    let controller = Running::start(&world);
    world.create(&rollout(&json!([]))).await;
    until_healthy(&world).await;
    let api: Api<Rollout> = world.api();
    let six = Patch::Merge(json!({"spec": {"replicas": 6}}));
    api.patch_scale("web", &PatchParams::default(), &six)
        .await
        .unwrap();
    until_healthy(&world).await;
    let scale = api.get_scale("web").await.unwrap();
    let status = scale.status.unwrap();
    assert_eq!(
        (status.replicas, status.selector.as_deref()),
        (6, Some("app=web"))
    );
    controller.stop().await;
}
