//! The controller against a real control plane: the real binary as a pod, with the verbs of the same binary.

use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::api::Rollout;
use tokio::time::Instant;

use crate::support::cluster::World;
use crate::support::cluster::audit::lines;
use crate::support::cluster::role::is_ready;

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

pub(crate) fn phase(rollout: &Rollout) -> Option<&str> {
    rollout.status.as_ref()?.phase.as_deref()
}

pub(crate) async fn until_healthy(world: &World) -> Rollout {
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

pub(crate) async fn until_paused_at(world: &World, step: i32) -> Rollout {
    let paused = |rollout: &Rollout| {
        let status = rollout.status.as_ref();
        phase(rollout) == Some("Paused")
            && status.and_then(|status| status.current_step_index) == Some(step)
    };
    world.eventually("web", "is paused", paused).await
}

/// A Rollout of blue pods that is Healthy, and a canary of yellow ones that waits at half of them.
async fn begin_canary(world: &World) {
    world
        .create(&rollout(&json!([{"setWeight": 50}, {"pause": {}}])))
        .await;
    until_healthy(world).await;
    world.verb("set image web app=demo:yellow").await;
    until_paused_at(world, 1).await;
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
    let controller = world.controller("controller").await;
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
    controller.stop(&world).await;
    let controller = world.controller("controller-2").await;
    world.verb("status web --timeout 60s").await;
    let api: Api<Rollout> = world.api();
    assert_eq!(api.get("web").await.unwrap().resource_version(), version);
    controller.stop(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_canary_leaves_and_comes_back() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
    begin_canary(&world).await;
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
    controller.stop(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_rollout_owns_goes_with_it() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
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
    controller.stop(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scaling_goes_through_the_scale_subresource() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
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
    controller.stop(&world).await;
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_goes_on_where_the_leader_ended() {
    let world = World::start().await;
    let leader = world.controller("controller").await;
    let standby = world.controller("controller-2").await;
    let steps = json!([{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {}}]);
    world.create(&rollout(&steps)).await;
    until_healthy(&world).await;
    world.verb("set image web app=demo:yellow").await;
    until_paused_at(&world, 1).await;

    // A clean end gives the Lease back: long before it would have expired, which takes 15 s.
    leader.stop(&world).await;
    let begun = Instant::now();
    world.verb("promote web").await;
    until_paused_at(&world, 3).await;
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );

    let last = world.controller("controller-3").await;
    standby.kill_9(&world).await;
    world.verb("promote web").await;
    until_healthy(&world).await;
    assert_eq!(
        sizes(&world).await,
        sized([("demo:blue", 0), ("demo:yellow", 4)])
    );
    last.stop(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_at_rest_costs_no_write() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
    begin_canary(&world).await;
    // Every renewal of the Lease is 2 s: what is left to write after the first is written by the second.
    until_renewed(&world).await;
    until_renewed(&world).await;
    let before = world.requests("controller").len();
    for _ in 0..3 {
        until_renewed(&world).await;
    }
    let requests = world.requests("controller");
    let written = requests
        .iter()
        .skip(before)
        .filter(|request| request.writes());
    assert_eq!(lines(written), "");
    controller.stop(&world).await;
}

/// Waits until the leader renews its Lease.
async fn until_renewed(world: &World) {
    let name = "argo-rollouts-controller-lock";
    let renewed = |lease: &Lease| lease.spec.as_ref().and_then(|spec| spec.renew_time.clone());
    let last = renewed(&world.api().get(name).await.unwrap());
    world
        .eventually(name, "is renewed", |lease| renewed(lease) != last)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_switches_the_selector_when_it_is_promoted() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
    world.create(&service("web")).await;
    world.create(&service("web-preview")).await;
    let mut object = rollout(&json!([]));
    object["spec"]["strategy"] = json!({"blueGreen": {
        "activeService": "web", "previewService": "web-preview", "autoPromotionEnabled": false, "scaleDownDelaySeconds": 1,
    }});
    world.create(&object).await;
    let blue = hash(&until_healthy(&world).await);
    world.verb("set image web app=demo:green").await;
    let paused = world
        .eventually("web", "is paused", |rollout: &Rollout| {
            phase(rollout) == Some("Paused")
        })
        .await;
    let green = hash(&paused);
    assert_eq!(
        (
            selected(&world, "web").await,
            selected(&world, "web-preview").await
        ),
        (blue, green.clone())
    );
    world.verb("promote web").await;
    until_healthy(&world).await;
    assert_eq!(selected(&world, "web").await, green);
    controller.stop(&world).await;
}

fn hash(rollout: &Rollout) -> String {
    rollout
        .status
        .as_ref()
        .and_then(|status| status.current_pod_hash.clone())
        .unwrap()
}

/// The revision that a Service's selector names.
async fn selected(world: &World, service: &str) -> String {
    let service = world.api::<Service>().get(service).await.unwrap();
    let selector = service.spec.and_then(|spec| spec.selector).unwrap();
    selector["rollouts-pod-template-hash"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_analysis_that_fails_aborts_the_rollout() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
    let judge = json!({"name": "app", "image": "demo:red", "ports": [{"containerPort": 8080}]});
    world
        .create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "judge"}, "spec": {"containers": [judge]},
        }))
        .await;
    let judge = world.eventually("judge", "is ready", is_ready).await;
    let address = judge.status.unwrap().pod_ip.unwrap();
    world
        .create(&json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "color"},
            "spec": {
                "args": [{"name": "address"}],
                "metrics": [{
                    "name": "color", "interval": "1s", "successCondition": "result == 'blue'",
                    "provider": {"web": {"url": "http://{{args.address}}:8080/color", "jsonPath": "{$}"}},
                }],
            },
        }))
        .await;
    let mut object = rollout(&json!([{"setWeight": 50}, {"pause": {}}]));
    object["spec"]["strategy"]["canary"]["analysis"] = json!({
        "templates": [{"templateName": "color"}], "args": [{"name": "address", "value": address}],
    });
    world.create(&object).await;
    until_healthy(&world).await;
    world.verb("set image web app=demo:yellow").await;
    let aborted = world
        .eventually("web", "is degraded", |rollout: &Rollout| {
            phase(rollout) == Some("Degraded")
        })
        .await;
    let message = aborted
        .status
        .and_then(|status| status.message)
        .unwrap_or_default();
    assert!(
        message.contains("Metric \"color\" assessed Failed"),
        "{message}"
    );
    controller.stop(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_behind_proxies_gets_the_share_that_each_of_them_has_acknowledged() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
    let proxies = world.proxies(2).await;
    world.create(&service("web")).await;
    world.create(&service("web-canary")).await;
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}});
    world
        .create(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
            "spec": {"ingressClassName": world.namespace, "rules": [{"host": "web.example", "http": {"paths": [path]}}]},
        }))
        .await;
    let mut object = rollout(&json!([{"setWeight": 20}, {"pause": {}}]));
    let canary = &mut object["spec"]["strategy"]["canary"];
    canary["stableService"] = json!("web");
    canary["canaryService"] = json!("web-canary");
    canary["trafficRouting"] = json!({"plugins": {"sidestep/proxy": {}}});
    canary["scaleDownDelaySeconds"] = json!(1);
    world.create(&object).await;
    until_healthy(&world).await;
    for proxy in &proxies.addresses {
        assert_eq!(percent(proxy, "yellow").await, 0);
    }
    world.verb("set image web app=demo:yellow").await;
    let paused = until_paused_at(&world, 1).await;
    let weights = serde_json::to_value(&paused).unwrap()["status"]["canary"]["weights"].clone();
    assert_eq!(
        (&weights["canary"]["weight"], &weights["verified"]),
        (&json!(20), &json!(true))
    );
    for proxy in &proxies.addresses {
        let share = percent(proxy, "yellow").await;
        // A sequence stays within a few of what is asked for, whatever it begins with.
        assert!((16..=24).contains(&share), "{share} %");
    }
    world.verb("promote web").await;
    until_healthy(&world).await;
    for proxy in &proxies.addresses {
        assert_eq!(percent(proxy, "yellow").await, 100);
    }
    controller.stop(&world).await;
    proxies.assert_calm(&world);
}

/// The share of a colour among a hundred requests of one client to one proxy, which spreads them evenly.
pub(crate) async fn percent(proxy: &SocketAddr, color: &str) -> usize {
    let client = reqwest::Client::new();
    let mut found = 0;
    for _ in 0..100 {
        let request = client
            .get(format!("http://{proxy}/color"))
            .header("host", "web.example");
        let answer = request.send().await.unwrap().error_for_status().unwrap();
        found += usize::from(answer.text().await.unwrap() == format!("\"{color}\""));
    }
    found
}
