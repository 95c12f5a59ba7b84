//! Hand-back and preflight on a real control plane: the chart's own controller and proxies, and the verbs of the real binary.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sidestep_control::api::{Rollout, Split};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::controller::{phase, service, until_healthy, until_paused_at};
use crate::support::cluster::World;
use crate::support::cluster::audit::lines;

/// A release of the chart, and a namespace of an application that its controller looks after.
struct Stage {
    system: World,
    app: World,
}

impl Stage {
    async fn set(values: &[&str]) -> Self {
        let stage = Self {
            system: World::start().await,
            app: World::start().await,
        };
        stage.system.install(values).await;
        for name in ["web", "web-canary"] {
            stage.app.create(&service(name)).await;
        }
        stage.app.create(&stage.ingress()).await;
        stage
    }

    fn rollout(&self, strategy: &Value) -> Value {
        let labels = json!({"app": "web"});
        let container =
            json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
        let mine =
            json!({"argo-rollouts.argoproj.io/controller-instance-id": self.system.namespace});
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "labels": mine},
            "spec": {
                "replicas": 2, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                "strategy": strategy,
            },
        })
    }

    fn ingress(&self) -> Value {
        let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}});
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
            "spec": {"ingressClassName": self.system.namespace, "rules": [{"host": "web.example", "http": {"paths": [path]}}]},
        })
    }

    /// Ends controllers and proxies; nothing that they asked for was refused.
    async fn end(self) {
        self.system.stop().await;
        for account in ["sidestep-controller", "sidestep-proxy"] {
            let requests = self.system.requests(account);
            let refused = lines(requests.iter().filter(|request| request.is_refused()));
            assert_eq!(refused, "", "{account}");
        }
    }
}

fn canary() -> Value {
    json!({"canary": {
        "stableService": "web", "canaryService": "web-canary", "steps": [{"setWeight": 50}, {"pause": {}}],
        "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
    }})
}

/// Somebody who asks again and again.
struct Caller {
    asked: watch::Receiver<Vec<String>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Caller {
    fn start(proxies: Vec<SocketAddr>) -> Self {
        let (answers, asked) = watch::channel(Vec::new());
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(async move {
            let client = reqwest::Client::new();
            for proxy in proxies.iter().cycle() {
                if *stopped.borrow() {
                    return;
                }
                let request = client.get(format!("http://{proxy}/color"));
                let answer = request.header("host", "web.example").send().await;
                let said = match answer {
                    Ok(answer) => format!("{} {}", answer.status(), answer.text().await.unwrap()),
                    Err(error) => error.to_string(),
                };
                answers.send_modify(|answers| answers.push(said));
            }
        });
        Self { asked, stop, task }
    }

    /// Returns when so many more answers have come.
    async fn more(&mut self, count: usize) {
        let until = self.asked.borrow().len() + count;
        let enough = self.asked.wait_for(|asked| asked.len() >= until).await;
        drop(enough.unwrap());
    }

    async fn stop(self) -> BTreeSet<String> {
        self.stop.send_replace(true);
        self.task.await.unwrap();
        self.asked.borrow().iter().cloned().collect()
    }
}

async fn pods(world: &World) -> BTreeSet<String> {
    let selected = ListParams::default().labels("app=web");
    let pods = world.api::<Pod>().list(&selected).await.unwrap();
    pods.iter().filter_map(|pod| pod.uid()).collect()
}

async fn patch(world: &World, service: &str, patch: &Value) {
    let how = PatchParams::default();
    let api = world.api::<Service>();
    api.patch(service, &how, &Patch::Merge(patch))
        .await
        .unwrap();
}

/// What is Sidestep's own beside the Rollout: the Split and the revision Services.
async fn leftovers(world: &World) -> Vec<String> {
    let all = ListParams::default();
    let splits = world.api::<Split>().list(&all).await.unwrap();
    let services = world.api::<Service>().list(&all).await.unwrap();
    let named = splits.iter().map(|split| split.name_any());
    let revision = |name: &String| name.contains("-rev-");
    let services = services.iter().map(|service| service.name_any());
    named.chain(services.filter(revision)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_released_is_argos_to_run_and_no_request_fails() {
    let stage = Stage::set(&[]).await;
    let app = &stage.app;
    app.create(&stage.rollout(&canary())).await;
    until_healthy(app).await;
    app.verb("set image web app=demo:yellow").await;
    until_paused_at(app, 1).await;
    let refused = app.try_verb("release web").await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(
        said.contains("rollout 'web': it is in the middle of an update"),
        "{said}"
    );

    app.verb("abort web").await;
    let aborted = |rollout: &Rollout| phase(rollout) == Some("Degraded");
    app.eventually("web", "is aborted", aborted).await;
    let mut caller = Caller::start(stage.system.installed_proxies().await);
    caller.more(50).await;
    let before = pods(app).await;
    let released = app.try_verb("release web").await;
    let said = String::from_utf8_lossy(&released.stdout);
    assert!(released.status.success(), "{released:?}");
    assert_eq!(said, "rollout 'web' released\n");
    assert_eq!(leftovers(app).await, Vec::<String>::new());
    caller.more(200).await;
    let answers = caller.stop().await;
    let blue = BTreeSet::from(["200 OK \"blue\"".to_owned()]);
    assert_eq!(answers, blue);

    let rollout = app.api::<Rollout>().get("web").await.unwrap();
    let canary = json!(rollout.spec.strategy)["canary"].clone();
    assert_eq!(canary["trafficRouting"], Value::Null);
    assert_eq!(json!(rollout.status)["canary"]["weights"], Value::Null);
    let stable = rollout
        .status
        .as_ref()
        .and_then(|status| status.stable_rs.clone());
    for name in ["web", "web-canary"] {
        let selector =
            json!(app.api::<Service>().get(name).await.unwrap())["spec"]["selector"].clone();
        assert_eq!(
            selector["rollouts-pod-template-hash"],
            json!(stable),
            "{name}"
        );
    }
    // The canary's pods were on their way out; those of stable are the same.
    let after = pods(app).await;
    assert!(
        after.len() >= 2 && after.is_subset(&before),
        "{before:?} {after:?}"
    );
    app.verb("release --all").await;
    app.verb("retry rollout web").await;
    until_paused_at(app, 1).await;
    stage.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn blue_green_is_released_and_so_are_all() {
    let stage = Stage::set(&[]).await;
    let app = &stage.app;
    let strategy = json!({"blueGreen": {"activeService": "web", "previewService": "web-canary"}});
    let mut rollout = stage.rollout(&strategy);
    rollout["metadata"]["annotations"] = json!({"sidestep.dev/proxy": "{}"});
    app.create(&rollout).await;
    until_healthy(app).await;
    assert_eq!(leftovers(app).await.len(), 2);
    app.verb("release --all").await;
    assert_eq!(leftovers(app).await, Vec::<String>::new());
    let released = app.api::<Rollout>().get("web").await.unwrap();
    assert!(!released.annotations().contains_key("sidestep.dev/proxy"));
    assert_eq!(phase(&released), Some("Healthy"));
    stage.end().await;
}

/// Section 9: an apex is not let go while its Service has no selector; by hand nobody is kept from taking the block out.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_without_a_selector_is_refused_and_waited_for() {
    let world = World::start().await;
    let controller = world.controller("controller").await;
    let proxies = world.proxies(1).await;
    for name in ["web", "web-canary"] {
        world.create(&service(name)).await;
    }
    let labels = json!({"app": "web"});
    let container =
        json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
    world
        .create(&json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web"},
            "spec": {
                "replicas": 1, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                "strategy": canary(),
            },
        }))
        .await;
    until_healthy(&world).await;
    patch(&world, "web", &json!({"spec": {"selector": null}})).await;
    let has_port = |split: &Split| !split.spec.apexes.is_empty();
    world.eventually("web", "has a port", has_port).await;
    let refused = world.try_verb("release web").await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success());
    assert!(said.contains("Service \"web\" has no selector"), "{said}");

    let api = world.api::<Rollout>();
    let taken = json!({"spec": {"strategy": {"canary": {"trafficRouting": null}}}});
    let how = PatchParams::default();
    api.patch("web", &how, &Patch::Merge(&taken)).await.unwrap();
    let waits = |split: &Split| {
        let waiting = split
            .status
            .as_ref()
            .and_then(|status| status.memory.waiting.clone());
        waiting.is_some_and(|waiting| waiting.message.starts_with("a selector of Service \"web\""))
    };
    world.eventually("web", "waits for a selector", waits).await;
    controller.stop(&world).await;
    proxies.assert_calm(&world);
}

/// What preflight says of objects of one namespace: verdict and finding, by object.
async fn preflight(world: &World) -> Vec<(String, String, String)> {
    let said = world.try_verb("preflight -o json").await;
    let said: Value = serde_json::from_slice(&said.stdout).unwrap();
    let findings = said["findings"].as_array().unwrap().iter();
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let all = findings.map(|finding| {
        (
            text(finding, "verdict"),
            text(finding, "object"),
            text(finding, "message"),
        )
    });
    all.filter(|(_, object, _)| object.contains(&world.namespace) || object.starts_with("crd/"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn preflight_names_what_stands_in_the_way() {
    let world = World::start().await;
    let namespace = &world.namespace;
    for name in ["web", "web-canary"] {
        world.create(&service(name)).await;
    }
    world
        .create(&json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": {"name": "errors"},
            "spec": {"metrics": [{"name": "errors", "provider": {"prometheus": {"address": "http://x", "query": "y"}}}]},
        }))
        .await;
    for (name, strategy) in [
        (
            "good",
            json!({"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}}),
        ),
        (
            "trial",
            json!({"canary": {"steps": [{"experiment": {"templates": []}}]}}),
        ),
        (
            "measured",
            json!({"canary": {"analysis": {"templates": [{"templateName": "errors"}]}}}),
        ),
        (
            "routed",
            json!({"canary": {
                "stableService": "web", "canaryService": "web-canary", "trafficRouting": {"nginx": {"stableIngress": "web"}},
            }}),
        ),
    ] {
        let labels = json!({"app": "web"});
        let container = json!({"name": "app", "image": "demo:blue"});
        world
            .create(&json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
                "spec": {
                    "replicas": 1, "selector": {"matchLabels": labels},
                    "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                    "strategy": strategy,
                },
            }))
            .await;
    }
    let rollout = |name: &str| format!("rollout/{namespace}/{name}");
    let found = preflight(&world).await;
    for (verdict, object, part) in [
        ("ok", rollout("good"), "new"),
        (
            "stop",
            rollout("trial"),
            "steps[0].experiment: not supported",
        ),
        (
            "stop",
            rollout("measured"),
            "provider prometheus is not supported",
        ),
        (
            "warn",
            rollout("routed"),
            "is carried out by Sidestep's proxies",
        ),
        // A test beside this one may have made it a Helm release's.
        ("ok", "crd/rollouts.argoproj.io".to_owned(), ""),
    ] {
        let mut about = found.iter().filter(|(_, of, _)| *of == object);
        let fits = about.any(|(said, _, message)| said == verdict && message.contains(part));
        assert!(fits, "{verdict} {object} {part}: {found:#?}");
    }
    world
        .create(&json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
            "spec": {"ingressClassName": "nginx", "defaultBackend": {"service": {"name": "web", "port": {"name": "http"}}}},
        }))
        .await;
    let controller = world.controller("controller").await;
    let is_held = |lease: &Lease| {
        lease
            .spec
            .as_ref()
            .is_some_and(|spec| spec.holder_identity.is_some())
    };
    world
        .eventually("argo-rollouts-controller-lock", "is held", is_held)
        .await;
    let found = preflight(&world).await;
    let lease = format!("lease/{namespace}/argo-rollouts-controller-lock");
    for (verdict, object, part) in [
        ("stop", rollout("routed"), "Ingress"),
        ("ok", lease, "held by Sidestep"),
    ] {
        let mut about = found.iter().filter(|(_, of, _)| *of == object);
        let fits = about.any(|(said, _, message)| said == verdict && message.contains(part));
        assert!(fits, "{verdict} {object} {part}: {found:#?}");
    }
    let table = world.try_verb("preflight").await;
    assert_eq!(table.status.code(), Some(1));
    let text = String::from_utf8_lossy(&table.stdout);
    assert!(text.starts_with("VERDICT  OBJECT"), "{text}");
    drop(controller);
}
