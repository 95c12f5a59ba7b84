//! Callers inside a real cluster: they keep the name of a Service without a selector, whose EndpointSlices lead to the proxies.
//!
//! There is no kube-proxy: the caller reads the slices and connects to what they list.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::api::{Rollout, Split};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::controller::{until_healthy, until_paused_at};
use crate::support::cluster::World;
use crate::support::cluster::audit::lines;
use crate::support::session::DEADLINE;

/// Answers by colour; what failed, by cause.
#[derive(Clone, Debug, Default)]
struct Seen {
    colours: BTreeMap<String, u32>,
    failures: Vec<String>,
    requests: u32,
}

/// A caller that asks again and again, over a new connection each time.
struct Caller {
    seen: watch::Receiver<Seen>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

/// Where the ready endpoints of the Service are, by its EndpointSlices.
async fn resolve(slices: &Api<EndpointSlice>) -> BTreeSet<SocketAddr> {
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let mut found = BTreeSet::new();
    for slice in slices.list(&of_web).await.unwrap() {
        let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
        for port in ports {
            let ready = slice.endpoints.iter().filter(|endpoint| {
                let conditions = endpoint.conditions.as_ref();
                conditions.and_then(|c| c.ready).unwrap_or(true)
            });
            let address = |text: &String| format!("{text}:{port}").parse::<SocketAddr>().unwrap();
            found.extend(ready.map(|endpoint| address(&endpoint.addresses[0])));
        }
    }
    found
}

async fn ask(address: SocketAddr) -> Result<String, String> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let request = b"GET /color HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = timeout(DEADLINE, exchange)
        .await
        .map_err(|_| "no answer".to_owned())?;
    let answer = answer.map_err(|error| error.to_string())?;
    let colour = ["blue", "yellow"]
        .into_iter()
        .find(|colour| answer.contains(colour));
    match colour.filter(|_| answer.starts_with("HTTP/1.1 200")) {
        Some(colour) => Ok(colour.to_owned()),
        None => Err(answer),
    }
}

impl Caller {
    fn start(world: &World) -> Self {
        let slices: Api<EndpointSlice> = world.api();
        let (book, seen) = watch::channel(Seen::default());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let mut turn = 0;
            while !*stopped.borrow() {
                let addresses: Vec<_> = resolve(&slices).await.into_iter().collect();
                for _ in 0..4 {
                    turn += 1;
                    let chosen = addresses.get(turn % addresses.len().max(1));
                    let answer = match chosen {
                        Some(address) => ask(*address).await.map_err(|e| format!("{address}: {e}")),
                        None => Err("nobody is listed".to_owned()),
                    };
                    book.send_modify(|seen| {
                        seen.requests += 1;
                        match answer {
                            Ok(colour) => *seen.colours.entry(colour).or_default() += 1,
                            Err(failure) => seen.failures.push(failure),
                        }
                    });
                }
            }
        });
        Self { seen, stop, task }
    }

    /// Colours of that many requests from now on.
    async fn colours(&mut self, requests: u32) -> BTreeMap<String, u32> {
        let before = self.seen.borrow().clone();
        let enough = before.requests + requests;
        let waited = timeout(DEADLINE, self.seen.wait_for(|seen| seen.requests >= enough)).await;
        let now = waited.expect("requests go on").unwrap().clone();
        let since = |(colour, count): (&String, &u32)| {
            let earlier = before.colours.get(colour).copied().unwrap_or(0);
            (colour.clone(), count - earlier)
        };
        now.colours
            .iter()
            .map(since)
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Ends it; nothing may have failed.
    async fn end(self) {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        let seen = self.seen.borrow().clone();
        assert!(seen.failures.is_empty(), "{seen:?}");
    }
}

fn rollout() -> Value {
    let labels = json!({"app": "web"});
    let container =
        json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": {
                "stableService": "web", "canaryService": "web-canary",
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "steps": [{"setWeight": 0}, {"pause": {}}, {"setWeight": 20}, {"pause": {}}, {"setWeight": 100}, {"pause": {}}],
            }},
        },
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
    })
}

/// Gives the Service a selector or takes it away.
async fn select(world: &World, selector: Value) {
    let patch = Patch::Merge(json!({"spec": {"selector": selector}}));
    let services: Api<Service> = world.api();
    services
        .patch("web", &PatchParams::default(), &patch)
        .await
        .unwrap();
}

/// Waits until exactly these are listed, by port.
async fn until_listed(world: &World, count: usize, port: u16) -> BTreeSet<SocketAddr> {
    let slices: Api<EndpointSlice> = world.api();
    let listed = async {
        loop {
            let found = resolve(&slices).await;
            if found.len() == count && found.iter().all(|address| address.port() == port) {
                return found;
            }
        }
    };
    match timeout(DEADLINE, listed).await {
        Ok(found) => found,
        Err(_) => panic!("not in time: {:?}", resolve(&slices).await),
    }
}

/// A proxy that is killed is led to no more; the one that takes its place is.
async fn lose_a_proxy(world: &World, listed: &BTreeSet<SocketAddr>) {
    let pods: Api<Pod> = world.api();
    let victim = pods
        .list(&ListParams::default().labels("app=sidestep-proxy"))
        .await
        .unwrap();
    let victim = victim.items.first().unwrap();
    let how = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete(&victim.name_any(), &how).await.unwrap();
    let dead = victim
        .status
        .as_ref()
        .and_then(|status| status.pod_ip.clone())
        .unwrap();
    let slices: Api<EndpointSlice> = world.api();
    let gone = async {
        while resolve(&slices)
            .await
            .iter()
            .any(|address| address.ip().to_string() == dead)
        {}
    };
    timeout(DEADLINE, gone).await.expect("it leaves the slices");
    assert_ne!(until_listed(world, 2, world.apex_port).await, *listed);
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_inside_are_split_without_a_failed_request() {
    let world = World::start().await;
    let proxies = world.proxies(2).await;
    world.controller("controller").await;
    for name in ["web", "web-canary"] {
        world.create(&service(name)).await;
    }
    world.create(&rollout()).await;
    until_healthy(&world).await;
    until_listed(&world, 3, 8080).await;
    let mut caller = Caller::start(&world);
    caller.colours(20).await;

    // It becomes an apex under load.
    select(&world, Value::Null).await;
    until_listed(&world, 2, world.apex_port).await;
    world.verb("set image web app=demo:yellow").await;
    until_paused_at(&world, 1).await;
    assert_eq!(
        caller.colours(40).await.keys().collect::<Vec<_>>(),
        ["blue"]
    );
    world.verb("promote web").await;
    until_paused_at(&world, 3).await;
    let yellow = caller.colours(200).await["yellow"];
    assert!((30..=50).contains(&yellow), "{yellow} of 200 at 20 %");
    world.verb("promote web").await;
    until_paused_at(&world, 5).await;
    assert_eq!(
        caller.colours(40).await.keys().collect::<Vec<_>>(),
        ["yellow"]
    );
    world.verb("promote web").await;
    until_healthy(&world).await;

    // It stops being one, and becomes one again.
    select(&world, json!({"app": "web"})).await;
    until_listed(&world, 3, 8080).await;
    select(&world, Value::Null).await;
    let listed = until_listed(&world, 2, world.apex_port).await;
    caller.colours(40).await;
    caller.end().await;

    proxies.assert_calm(&world);

    lose_a_proxy(&world, &listed).await;
    let requests = world.requests("controller");
    let refused = lines(requests.iter().filter(|request| request.is_refused()));
    assert_eq!(refused, "", "what the API server refused");
}

/// Who keeps the EndpointSlices of the Service.
async fn keepers(world: &World) -> BTreeSet<String> {
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let slices = world.api::<EndpointSlice>().list(&of_web).await.unwrap();
    let keeper =
        |slice: &EndpointSlice| slice.labels()["endpointslice.kubernetes.io/managed-by"].clone();
    slices.iter().map(keeper).collect()
}

/// Control-plane rules, section 9: callers by the port are waited for; afterwards nothing of it is left.
#[tokio::test(flavor = "multi_thread")]
async fn an_apex_is_released_with_its_selector_and_no_request_fails() {
    let world = World::start().await;
    let proxies = world.proxies(2).await;
    let controller = world.controller("controller").await;
    for name in ["web", "web-canary"] {
        world.create(&service(name)).await;
    }
    world.create(&rollout()).await;
    until_healthy(&world).await;
    select(&world, Value::Null).await;
    until_listed(&world, 2, world.apex_port).await;
    let mut caller = Caller::start(&world);
    caller.colours(20).await;

    select(&world, json!({"app": "web"})).await;
    let begun = world.try_verb("release web --timeout 10s").await;
    let said = String::from_utf8_lossy(&begun.stderr);
    let left = format!(
        "waiting for callers of Service \"web\" to leave port {} of the proxies",
        world.apex_port
    );
    assert!(!begun.status.success() && said.contains(&left), "{said}");
    until_listed(&world, 3, 8080).await;
    caller.colours(40).await;
    world.verb("release web").await;
    caller.colours(40).await;
    caller.end().await;

    let by_kubernetes = BTreeSet::from(["endpointslice-controller.k8s.io".to_owned()]);
    assert_eq!(keepers(&world).await, by_kubernetes);
    let rollout = world.api::<Rollout>().get("web").await.unwrap();
    let stable = rollout.status.unwrap().stable_rs.unwrap();
    let service = world.api::<Service>().get("web").await.unwrap();
    let selector = service.spec.unwrap().selector.unwrap();
    assert_eq!(selector["app"], "web");
    assert_eq!(selector["rollouts-pod-template-hash"], stable);
    assert!(world.api::<Split>().get_opt("web").await.unwrap().is_none());
    controller.stop(&world).await;
    proxies.assert_calm(&world);
}
