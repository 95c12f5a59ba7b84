//! What the real cluster's own controllers see of our pods: they come, answer, end and fail as on any node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::local::logs::Part;
use tokio::time::Instant;

use crate::support::cluster::World;
use crate::support::cluster::role::is_ready;

fn deployment(replicas: u32, container: &Value) -> Value {
    let labels = json!({"app": "web"});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

fn container(image: &str) -> Value {
    json!({"name": "app", "image": image, "ports": [{"name": "http", "containerPort": 8080}]})
}

fn pod(name: &str, grace_seconds: u32, container: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"terminationGracePeriodSeconds": grace_seconds, "containers": [container]},
    })
}

async fn get(address: IpAddr, path: &str) -> String {
    let url = format!("http://{address}:8080{path}");
    let response = reqwest::get(&url).await.expect(&url);
    response.text().await.expect(&url)
}

/// The addresses of a Service's ready pods, as its EndpointSlices list them.
async fn ready_addresses(world: &World, service: &str, count: usize) -> BTreeSet<IpAddr> {
    let slices: Api<EndpointSlice> = world.api();
    let selected = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let listed = slices.list(&selected).await.unwrap();
    let [slice] = listed.items.as_slice() else {
        panic!("one slice holds up to a hundred endpoints: {listed:?}")
    };
    let slice = world
        .eventually(&slice.name_any(), "as many ready endpoints", |slice| {
            ready(slice).len() == count
        })
        .await;
    ready(&slice)
}

fn ready(slice: &EndpointSlice) -> BTreeSet<IpAddr> {
    let endpoints = slice.endpoints.iter();
    let ready = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|conditions| conditions.ready) == Some(true)
    });
    ready
        .flat_map(|endpoint| &endpoint.addresses)
        .map(|address| address.parse().unwrap())
        .collect()
}

fn is_available(deployment: &Deployment, count: i32) -> bool {
    let status = deployment.status.as_ref();
    status.is_some_and(|status| {
        status.available_replicas.unwrap_or(0) == count && status.replicas.unwrap_or(0) == count
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_a_deployment_answer_on_the_addresses_that_its_service_lists() {
    let world = World::start().await;
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    });
    world.create(&service).await;
    world.create(&deployment(3, &container("demo:blue"))).await;
    world
        .eventually("web", "3 pods are available", |web| is_available(web, 3))
        .await;
    let addresses = ready_addresses(&world, "web", 3).await;
    assert_eq!(addresses.len(), 3);
    for address in addresses {
        assert!(address.to_string().starts_with("10.244."), "{address}");
        assert_eq!(get(address, "/color").await, "\"blue\"");
    }

    // A ReplicaSet that shrinks takes its endpoints along.
    let one = json!({"spec": {"replicas": 1}});
    let api: Api<Deployment> = world.api();
    api.patch("web", &PatchParams::default(), &Patch::Merge(one))
        .await
        .unwrap();
    world
        .eventually("web", "1 pod is available", |web| is_available(web, 1))
        .await;
    assert_eq!(ready_addresses(&world, "web", 1).await.len(), 1);
    let pods: Api<Pod> = world.api();
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        if pod.metadata.deletion_timestamp.is_some() {
            world.eventually_gone::<Pod>(&pod.name_any()).await;
        }
    }
    assert_eq!(
        pods.list(&ListParams::default()).await.unwrap().items.len(),
        1
    );
}

fn is_running(pod: &Pod) -> bool {
    phase(pod) == Some("Running")
}

fn phase(pod: &Pod) -> Option<&str> {
    pod.status.as_ref()?.phase.as_deref()
}

fn address(pod: &Pod) -> IpAddr {
    let status = pod.status.as_ref().unwrap();
    status.pod_ip.as_deref().unwrap().parse().unwrap()
}

/// Deletes a pod; returns how many seconds it took to go.
async fn delete(world: &World, name: &str) -> f64 {
    let begun = Instant::now();
    let api: Api<Pod> = world.api();
    api.delete(name, &DeleteParams::default()).await.unwrap();
    world.eventually_gone::<Pod>(name).await;
    begun.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stand_in_serves_on_for_the_sleep_of_its_pre_stop_hook() {
    let world = World::start().await;
    let mut sleeper = container("demo:blue");
    sleeper["lifecycle"] = json!({"preStop": {"sleep": {"seconds": 3}}});
    world.create(&pod("sleeper", 30, &sleeper)).await;
    let running = world.eventually("sleeper", "is ready", is_ready).await;
    let address = address(&running);
    let (seconds, answer) = tokio::join!(delete(&world, "sleeper"), async {
        world
            .eventually("sleeper", "terminates", |pod: &Pod| {
                pod.metadata.deletion_timestamp.is_some()
            })
            .await;
        get(address, "/color").await
    });
    assert_eq!(answer, "\"blue\"");
    assert!((3.0..20.0).contains(&seconds), "{seconds} s");
    assert!(
        reqwest::get(format!("http://{address}:8080/"))
            .await
            .is_err()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_is_asked_to_end_after_its_hook_and_killed_after_its_grace() {
    let world = World::start().await;
    let deaf = json!({
        "name": "app", "image": "shell", "command": ["sh", "-c"],
        "args": ["trap 'echo asked' TERM; echo \"at $POD_IP\"; ip -oneline address show dev eth0; while :; do sleep 0.1; done"],
        "lifecycle": {"preStop": {"sleep": {"seconds": 1}}},
        "readinessProbe": {"tcpSocket": {"port": 8080}},
    });
    world.create(&pod("deaf", 3, &deaf)).await;
    let running = world.eventually("deaf", "runs", is_running).await;
    assert!(!is_ready(&running), "nobody listens on its port");
    let log = world.log("deaf");
    let seconds = delete(&world, "deaf").await;
    let written = log.read(Part::default()).unwrap();
    let said: Vec<&str> = written.lines().collect();
    let address = address(&running);
    assert_eq!(said.first(), Some(&format!("at {address}").as_str()));
    assert!(
        said.iter()
            .any(|line| line.contains(&format!("inet {address}/32"))),
        "{written}"
    );
    assert!(said.contains(&"asked"), "{written}");
    assert!((3.0..20.0).contains(&seconds), "{seconds} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_image_cannot_be_had_is_never_ready_and_says_why() {
    let world = World::start().await;
    let mut broken = container("demo:none");
    broken["env"] = json!([{"name": "IMAGE_PULL_FAILS", "value": "true"}]);
    world.create(&deployment(1, &broken)).await;
    let waits = |pod: &Pod| {
        let statuses = pod
            .status
            .as_ref()
            .and_then(|status| status.container_statuses.as_ref());
        let state = statuses
            .into_iter()
            .flatten()
            .find_map(|status| status.state.as_ref());
        let waiting = state.and_then(|state| state.waiting.as_ref());
        waiting.and_then(|waiting| waiting.reason.as_deref()) == Some("ImagePullBackOff")
    };
    let name = only_pod(&world).await;
    let pod = world
        .eventually(&name, "cannot pull its image", waits)
        .await;
    assert_eq!((phase(&pod), is_ready(&pod)), (Some("Pending"), false));
    let api: Api<Deployment> = world.api();
    assert!(
        is_available(&api.get("web").await.unwrap(), 0)
            || !is_available(&api.get("web").await.unwrap(), 1)
    );
    assert!(delete(&world, &name).await < 20.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_readiness_gate_and_a_config_map_are_waited_for() {
    let world = World::start().await;
    let mut gated = container("demo:blue");
    gated["env"] = json!([{"name": "LATENCY_MS", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "latency"}}}]);
    let mut object = pod("gated", 5, &gated);
    object["spec"]["readinessGates"] = json!([{"conditionType": "example.org/open"}]);
    world.create(&object).await;
    world
        .eventually("gated", "waits for its ConfigMap", |pod: &Pod| {
            phase(pod) == Some("Pending")
        })
        .await;
    world
        .create(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"latency": "1"},
        }))
        .await;
    let running = world.eventually("gated", "runs", is_running).await;
    assert!(!is_ready(&running));
    let open = json!({"status": {"conditions": [{"type": "example.org/open", "status": "True"}]}});
    let api: Api<Pod> = world.api();
    api.patch_status("gated", &PatchParams::default(), &Patch::Strategic(open))
        .await
        .unwrap();
    world.eventually("gated", "is ready", is_ready).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_run_to_their_end() {
    let world = World::start().await;
    for (name, exit_code) in [("good", 0), ("bad", 7)] {
        let container = json!({"name": "app", "image": "shell", "command": ["sh", "-c", format!("echo done; exit {exit_code}")]});
        let job = json!({
            "apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name},
            "spec": {"backoffLimit": 0, "template": {"spec": {"restartPolicy": "Never", "containers": [container]}}},
        });
        world.create(&job).await;
    }
    let ended = |condition: &'static str| {
        move |job: &Job| {
            let conditions = job
                .status
                .as_ref()
                .and_then(|status| status.conditions.as_ref());
            conditions
                .into_iter()
                .flatten()
                .any(|found| found.type_ == condition && found.status == "True")
        }
    };
    world
        .eventually("good", "succeeds", ended("Complete"))
        .await;
    world.eventually("bad", "fails", ended("Failed")).await;
}

/// The name of the one pod there is going to be.
async fn only_pod(world: &World) -> String {
    use futures::TryStreamExt as _;
    use kube::runtime::{WatchStreamExt as _, watcher};
    let pods = watcher(world.api::<Pod>(), watcher::Config::default()).applied_objects();
    let pod = std::pin::pin!(pods).try_next().await.unwrap();
    pod.expect("a watch has no end").name_any()
}
