//! What the tests play on: the embedded cluster with stand-in pods, the controller, and a proxy without a data plane: it takes up the
//! tables that routing builds and acknowledges them as a real one does.

use std::collections::BTreeMap;
use std::future::ready;
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::routing::get;
use futures::StreamExt;
use http::{Request, Response};
use kube::Client;
use serde_json::{Value, json};
use sidestep_proxy::table::{Pick, PlannedSplit, Source, Table, Target};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::labels;
use crate::controller::{Config, Controller};
use crate::fleet;
use crate::fleet::report::{Hello, Line, Ping, RuleReport, SplitReport, VersionReport};
use crate::local::kinds::{self, Kind};
use crate::local::workloads::Workloads;
use crate::local::{self, Local};
use crate::reconcile::apex;
use crate::reconcile::objects::Scope;
use crate::routing::{self, Attached, Published, ServiceNames};

pub(super) const NS: &str = "default";
const SYSTEM: &str = "sidestep-system";
/// Longest wait of a test: many times what an idle machine needs.
pub(super) const LIMIT: Duration = Duration::from_secs(60);

pub(super) struct Stage {
    pub(super) local: Local,
    workloads: Workloads,
    scope: Scope,
    apexes: apex::Policy,
    controller: Option<Running>,
    proxy: Proxy,
}

struct Running {
    cancel: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

/// A proxy without a data plane.
struct Proxy {
    table: watch::Receiver<Option<Arc<Table>>>,
    /// While true it takes up tables but acknowledges none.
    silent: watch::Sender<bool>,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
}

/// What is to be seen at one moment.
pub(super) struct Seen {
    pub(super) rollout: Value,
    pub(super) split: Value,
    sets: Vec<Arc<Value>>,
    table: Option<Arc<Table>>,
}

impl Stage {
    pub(super) async fn new() -> Self {
        Self::within(Scope::default()).await
    }

    /// With a controller that looks after a part of all objects.
    pub(super) async fn within(scope: Scope) -> Self {
        Self::set(scope, apex::Policy::None).await
    }

    /// With ports of the proxy for apexes.
    pub(super) async fn with_apexes(ports: RangeInclusive<u16>) -> Self {
        Self::set(Scope::default(), apex::Policy::Ports(ports)).await
    }

    async fn set(scope: Scope, apexes: apex::Policy) -> Self {
        let local = local::start(local::Config::default()).await.unwrap();
        let workloads =
            Workloads::start(&local.store, &local.logs, PathBuf::from("/nowhere")).unwrap();
        let proxy = Proxy::start(&local, &apexes).await;
        let mut stage = Self {
            local,
            workloads,
            scope,
            apexes,
            controller: None,
            proxy,
        };
        stage.start_controller();
        stage
    }

    pub(super) fn start_controller(&mut self) {
        self.begin(self.local.client().unwrap(), ready(()));
    }

    /// Starts a controller whose requests go through `way`, which is given a client that reaches the API server.
    pub(super) fn start_controller_through<W, A, E>(&mut self, way: W)
    where
        W: Fn(Client, Request<kube::client::Body>) -> A + Clone + Send + 'static,
        A: Future<Output = Result<Response<Body>, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let direct = self.local.client().unwrap();
        let service = tower::service_fn(move |request| way(direct.clone(), request));
        self.begin(Client::new(service, NS), ready(()));
    }

    /// Starts a controller that never leads.
    pub(super) fn start_standby(&mut self) {
        self.begin(self.local.client().unwrap(), std::future::pending());
    }

    fn begin(&mut self, client: Client, leading: impl Future<Output = ()> + Send + 'static) {
        let fleet = fleet::Config {
            namespace: SYSTEM.into(),
            service: "sidestep-proxy".into(),
        };
        let config = Config {
            scope: self.scope.clone(),
            apexes: self.apexes.clone(),
            workers: NonZeroUsize::new(2).unwrap(),
            ..Config::new(fleet)
        };
        let controller = Controller::new(client, config);
        let cancel = CancellationToken::new();
        let task = tokio::spawn(controller.run(leading, cancel.clone()));
        self.controller = Some(Running { cancel, task });
    }

    pub(super) async fn stop_controller(&mut self) {
        let Running { cancel, task } = self.controller.take().unwrap();
        cancel.cancel();
        task.await.unwrap();
    }

    pub(super) async fn close(mut self) {
        self.stop_controller().await;
        self.proxy.cancel.cancel();
        self.proxy.tasks.shutdown().await;
        self.workloads.stop().await;
        self.local.stop().await;
    }

    pub(super) fn create(&self, kind: &'static Kind, mut object: Value) {
        object["metadata"]["namespace"] = json!(NS);
        self.local.store.create(kind, object).unwrap();
    }

    pub(super) fn create_services(&self, names: &[&str]) {
        for name in names {
            let spec = json!({"selector": {"app": "web"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]});
            self.create(
                &kinds::SERVICE,
                json!({"metadata": {"name": name}, "spec": spec}),
            );
        }
    }

    pub(super) fn edit(&self, kind: &'static Kind, name: &str, change: impl Fn(&mut Value)) {
        self.local
            .store
            .update(kind, NS, name, None, change)
            .unwrap();
    }

    pub(super) fn edit_status(&self, name: &str, change: impl Fn(&mut Value)) {
        self.local
            .store
            .update_status(&kinds::ROLLOUT, NS, name, None, change)
            .unwrap();
    }

    pub(super) fn set_image(&self, name: &str, image: &str) {
        self.edit(&kinds::ROLLOUT, name, |rollout| {
            rollout["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        });
    }

    /// R11: what `promote` sends while paused.
    pub(super) fn promote(&self, name: &str) {
        self.edit_status(name, |rollout| {
            rollout["status"]
                .as_object_mut()
                .unwrap()
                .remove("pauseConditions");
        });
    }

    pub(super) fn abort(&self, name: &str) {
        self.edit_status(name, |rollout| rollout["status"]["abort"] = json!(true));
    }

    /// Has the proxy listed as one that is about to go.
    pub(super) fn end_proxy(&self) {
        let ending = json!({"ready": false, "serving": false, "terminating": true});
        let end = |slice: &mut Value| slice["endpoints"][0]["conditions"] = ending.clone();
        let (store, kind) = (&self.local.store, &kinds::ENDPOINT_SLICE);
        store
            .update(kind, SYSTEM, "sidestep-proxy-1", None, end)
            .unwrap();
    }

    /// Stops (`true`) or resumes the proxy's acknowledgements.
    pub(super) fn silence(&self, silent: bool) {
        self.proxy.silent.send_replace(silent);
    }

    pub(super) fn list(&self, kind: &'static Kind) -> Vec<Arc<Value>> {
        self.local.store.list(kind, Some(NS)).objects
    }

    pub(super) fn seen(&self, name: &str) -> Seen {
        let object = |kind| self.local.store.get(kind, NS, name);
        Seen {
            rollout: object(&kinds::ROLLOUT)
                .map(|o| Value::clone(&o))
                .unwrap_or_default(),
            split: object(&kinds::SPLIT)
                .map(|o| Value::clone(&o))
                .unwrap_or_default(),
            sets: self.list(&kinds::REPLICA_SET),
            table: self.proxy.table.borrow().clone(),
        }
    }

    /// Waits until an Event has been told.
    pub(super) async fn until_told(&self, reason: &str, message: &str) {
        let mut changes = self.local.store.subscribe(self.local.store.version());
        let is_it = |event: &Arc<Value>| event["reason"] == reason && event["message"] == message;
        let waiting = async {
            while !self.list(&kinds::EVENT).iter().any(is_it) {
                changes.stirred().await;
                changes.ready().unwrap();
            }
        };
        let told = tokio::time::timeout(LIMIT, waiting).await;
        assert!(told.is_ok(), "nobody tells: {reason}: {message}");
    }

    /// Waits until what is to be seen is as expected; looks whenever something is written or a table is taken up.
    pub(super) async fn until(&mut self, name: &str, expected: impl Fn(&Seen) -> bool) -> Seen {
        let mut changes = self.local.store.subscribe(self.local.store.version());
        let mut table = self.proxy.table.clone();
        let waiting = async {
            loop {
                let seen = self.seen(name);
                if expected(&seen) {
                    return seen;
                }
                tokio::select! {
                    () = changes.stirred() => { changes.ready().unwrap(); }
                    changed = table.changed() => changed.unwrap(),
                }
            }
        };
        if let Ok(seen) = tokio::time::timeout(LIMIT, waiting).await {
            return seen;
        }
        let seen = self.seen(name);
        let sets = self.list(&kinds::REPLICA_SET);
        let sets: Vec<_> = sets
            .iter()
            .map(|set| {
                format!(
                    "{} {} {}",
                    set["metadata"]["name"], set["spec"]["replicas"], set["status"]
                )
            })
            .collect();
        panic!(
            "not in time\nrollout status: {:#}\nsplit: {:#}\nsets: {sets:#?}\nserved: {}",
            seen.rollout["status"],
            seen.split,
            seen.served("web")
        );
    }
}

impl Seen {
    fn status(&self, pointer: &str) -> &str {
        self.rollout["status"]
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    pub(super) fn phase(&self) -> &str {
        let generation = self.rollout["metadata"]["generation"].to_string();
        if self.status("/observedGeneration") == generation {
            self.status("/phase")
        } else {
            ""
        }
    }

    pub(super) fn message(&self) -> &str {
        self.status("/message")
    }

    pub(super) fn stable(&self) -> &str {
        self.status("/stableRS")
    }

    pub(super) fn current(&self) -> &str {
        self.status("/currentPodHash")
    }

    /// ReplicaSets there are.
    pub(super) fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Pods of a revision; none if it has no ReplicaSet.
    pub(super) fn pods(&self, hash: &str) -> Option<u64> {
        let is_of =
            |set: &&Arc<Value>| set["metadata"]["labels"][labels::POD_TEMPLATE_HASH] == hash;
        self.sets.iter().find(is_of)?["status"]["replicas"].as_u64()
    }

    pub(super) fn verified(&self) -> Option<bool> {
        self.rollout["status"]
            .pointer("/canary/weights/verified")
            .and_then(Value::as_bool)
    }

    /// What the Split asks for a Service, weights above 0 only.
    pub(super) fn weights(&self, service: &str) -> String {
        let rules = self.split["spec"]["rules"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let governs = |rule: &&Value| {
            rule["services"]
                .as_array()
                .is_some_and(|services| services.contains(&json!(service)))
        };
        let Some(rule) = rules.iter().find(governs) else {
            return "none".into();
        };
        let weights = rule["weights"].as_object().unwrap();
        let mut shown: Vec<_> = weights
            .iter()
            .filter(|(_, w)| **w != json!(0))
            .map(|(name, w)| format!("{name}={w}"))
            .collect();
        shown.sort();
        shown.join(" ")
    }

    /// What the proxy serves for a Service: effective shares in percent.
    pub(super) fn served(&self, service: &str) -> String {
        let Some((split, rule)) = self.rule(service) else {
            return "none".into();
        };
        let names = split.split.versions.iter().map(|version| &version.name);
        let shares = split.plans[rule]
            .effective
            .iter()
            .map(|share| (share * 100.0).round());
        let mut shown: Vec<_> = names
            .zip(shares)
            .filter(|(_, share)| *share > 0.0)
            .map(|(name, share)| format!("{name}={share}"))
            .collect();
        shown.sort();
        shown.join(" ")
    }

    /// The revision that the proxy serves as a version.
    pub(super) fn served_revision(&self, service: &str, version: &str) -> String {
        let versions = self
            .rule(service)
            .map(|(split, _)| split.split.versions.clone())
            .unwrap_or_default();
        versions
            .into_iter()
            .find(|v| v.name == version)
            .map(|v| v.revision)
            .unwrap_or_default()
    }

    fn rule(&self, service: &str) -> Option<(&PlannedSplit, usize)> {
        let table = self.table.as_ref()?;
        let Some(Target::Backend(index)) = table.route(service, "/") else {
            return None;
        };
        match &table.backends().nth(*index)?.backend.source {
            Source::Split { split, rule, .. } => Some((table.splits().nth(*split)?, *rule)),
            Source::Endpoints(_) => None,
        }
    }
}

impl Proxy {
    async fn start(local: &Local, apexes: &apex::Policy) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let labels = json!({"kubernetes.io/service-name": "sidestep-proxy"});
        let slice = json!({
            "metadata": {"namespace": SYSTEM, "name": "sidestep-proxy-1", "labels": labels},
            "addressType": "IPv4", "ports": [{"name": "admin", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": true}}],
        });
        local.store.create(&kinds::ENDPOINT_SLICE, slice).unwrap();

        let (sender, table) = watch::channel(None);
        let silent = watch::Sender::new(false);
        let cancel = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let options = routing::Options {
            namespace: None,
            fleet: "default".into(),
            fleet_service: (SYSTEM.into(), "sidestep-proxy".into()),
            attached: Attached::Services(ServiceNames {
                default_namespace: NS.into(),
                default_service: None,
                cluster_domain: "cluster.local".into(),
            }),
            apexes: match apexes {
                apex::Policy::Ports(ports) => Some(ports.clone()),
                apex::Policy::None | apex::Policy::NoPorts => None,
            },
            own: Vec::new(),
            pick: Pick::Sequence,
        };
        let publish = move |published: Published| {
            sender.send_replace(Some(Arc::new(published.table)));
            ready(())
        };
        tasks.spawn(routing::run(
            local.client().unwrap(),
            options,
            publish,
            cancel.clone(),
        ));
        let app = Router::new()
            .route("/splits", get(splits))
            .with_state((table.clone(), silent.subscribe()));
        tasks.spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            table,
            silent,
            tasks,
            cancel,
        }
    }
}

/// The ports at which a Split answers.
fn apexes(table: &Table, split: usize) -> Vec<u16> {
    let is_its_own = |target: &Target| {
        let Target::Backend(index) = target else {
            return false;
        };
        let backend = table.backends().nth(*index);
        matches!(backend.map(|b| &b.backend.source), Some(Source::Split { split: of, .. }) if *of == split)
    };
    let apexes = table.apexes().filter(|(_, target)| is_its_own(target));
    apexes.map(|(port, _)| port).collect()
}

type Told = (watch::Receiver<Option<Arc<Table>>>, watch::Receiver<bool>);

async fn splits(Shared((mut table, mut silent)): Shared<Told>) -> Body {
    let hello = Line::Hello(Hello {
        instance: "stub".into(),
        since: "2026-01-01T00:00:00Z".parse().unwrap(),
        schema: "v1alpha1".into(),
        latency_bounds_ms: Vec::new(),
        draining: false,
        every_ms: None,
    });
    table.mark_changed();
    let lines = futures::stream::unfold((table, silent.clone()), |(mut table, mut silent)| async {
        table.changed().await.ok()?;
        silent.wait_for(|silent| !silent).await.ok()?;
        let now = table.borrow_and_update().clone();
        let lines: Vec<Line> = now
            .iter()
            .flat_map(|table| {
                table
                    .splits()
                    .enumerate()
                    .map(|(index, split)| report(split, &apexes(table, index)))
            })
            .collect();
        Some((futures::stream::iter(lines), (table, silent)))
    });
    silent.mark_unchanged();
    let ping = Line::Ping(Ping {});
    let all = futures::stream::iter([hello, ping]).chain(lines.flatten());
    Body::from_stream(all.map(|line| serde_json::to_string(&line).map(|text| text + "\n")))
}

fn report(planned: &PlannedSplit, apexes: &[u16]) -> Line {
    let split = &planned.split;
    let shares = |shares: &[f64]| -> BTreeMap<String, f64> {
        split
            .versions
            .iter()
            .map(|version| version.name.clone())
            .zip(shares.iter().copied())
            .collect()
    };
    let rule =
        |(rule, plan): (&sidestep_proxy::table::Rule, &sidestep_proxy::split::Plan)| RuleReport {
            services: rule.services.clone(),
            desired: shares(&plan.desired),
            effective: shares(&plan.effective),
        };
    let version = |version: &sidestep_proxy::table::Version| VersionReport {
        name: version.name.clone(),
        revision: version.revision.clone(),
        live: true,
        ready: version.ready,
        ..VersionReport::default()
    };
    Line::Split(Box::new(SplitReport {
        namespace: split.namespace.clone(),
        name: split.name.clone(),
        uid: split.uid.clone(),
        generation: split.generation,
        rules: split.rules.iter().zip(&planned.plans).map(rule).collect(),
        versions: split.versions.iter().map(version).collect(),
        apexes: apexes.to_vec(),
        unknown: split.unknown.clone(),
    }))
}

/// A Rollout of three stand-in pods, routed, with those steps.
pub(super) fn rollout(name: &str, image: &str, steps: &Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "app", "image": image, "ports": [{"containerPort": 8080}]}]},
            },
            "strategy": {"canary": {
                "stableService": name,
                "canaryService": format!("{name}-canary"),
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "scaleDownDelaySeconds": 1,
                "steps": steps,
            }},
        },
    })
}
