//! The stage: Sidestep as the chart installs it, an application, its clients, and the course of its releases.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use sidestep_control::api::{AnalysisRun, ReplicaSet, Rollout, Split};
use tokio::time::timeout;

use super::callers;
use super::record::Record;
use crate::controller::phase;
use crate::support::cluster::World;
use crate::support::cluster::audit::lines;
use crate::support::cluster::role::is_ready;
use crate::support::load::{Load, Places, Tally, chosen, only};
use crate::support::manifests::origin;
use crate::support::session::DEADLINE;

/// The Rollout, its Service, its Split.
pub(super) const NAME: &str = "web";
/// So many insist on each proxy, so many take the way in, and so many are inside.
pub(super) const CLIENTS: u32 = 6;

/// When in a release something is killed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Moment {
    /// The new version's pods are being started.
    Scaling,
    /// An analysis of the canary is under way.
    Judging,
    /// A user has just promoted it.
    Promoted,
    /// Its weight is being raised.
    Weighting,
    /// It is stable; the old version is being left.
    Leaving,
    /// A user has just aborted it.
    Aborted,
}

impl Moment {
    /// Whether something is killed then: always at three, at all of them where the API server's gap is asked for.
    fn is_chosen(self) -> bool {
        match self {
            Self::Scaling | Self::Promoted | Self::Aborted => true,
            Self::Judging | Self::Weighting | Self::Leaving => asked_gap().is_some(),
        }
    }
}

/// Two controllers, two proxies, an application in another namespace, and its clients.
pub(super) struct Stage {
    pub(super) system: World,
    pub(super) app: World,
    /// The proxies' pods.
    pub(super) proxies: Vec<String>,
    insisting: Vec<Load>,
    way_in: Load,
    inside: Load,
    record: Record,
    version: u32,
}

/// What clients saw.
pub(super) struct Seen {
    /// Those who insist on one proxy, by proxy.
    pub(super) insisting: Vec<Tally>,
    /// Those whom the Service of the proxies leads to one that is ready.
    pub(super) way_in: Tally,
    /// Callers of the application's own Service.
    pub(super) inside: Tally,
}

/// What a release has written: the canary's weights, how often it wrote the Split, and what it made.
#[derive(Debug)]
struct Written {
    weights: Vec<u32>,
    generations: i64,
    steps: Vec<i32>,
    runs: usize,
    sets: usize,
}

impl Stage {
    /// Returns when the first version is served everywhere.
    pub(super) async fn set(system: World) -> Self {
        let app = World::start().await;
        install(&system).await;
        let record = Record::keep(&app);
        for object in application(&system.namespace) {
            app.create(&object).await;
        }
        until_settled(&app, 1).await;
        let proxies = proxies(&system).await;
        let way_in = callers::places(&system, "sidestep-ingress");
        let inside = callers::places(&app, NAME);
        for places in [&way_in, &inside] {
            let at_proxies = |places: &Vec<_>| places.len() == proxies.len();
            let mut places = places.clone();
            let led = timeout(DEADLINE, places.wait_for(at_proxies)).await;
            drop(led.expect("callers are led to the proxies").unwrap());
        }
        let of = |places: Places| Load::of(CLIENTS, &[places], NAME);
        let insisting = proxies.iter().map(|(_, address)| of(only(*address)));
        let stage = Self {
            insisting: insisting.collect(),
            way_in: of(way_in),
            inside: of(inside),
            proxies: proxies.iter().map(|(name, _)| name.clone()).collect(),
            record,
            version: 1,
            system,
            app,
        };
        stage.go_on().await;
        stage
    }

    /// Waits for some more requests of every client.
    pub(super) async fn go_on(&self) {
        for load in self.insisting.iter().chain([&self.way_in, &self.inside]) {
            load.more(u64::from(3 * CLIENTS)).await;
        }
    }

    /// A release that nobody disturbs, one that is struck at each of its moments, and one that is aborted.
    pub(super) async fn releases(&mut self, kill: impl AsyncFn(&Self)) {
        let calm = self.release(async |_: &Self, _| {}).await;
        let strike = async |stage: &Self, moment: Moment| {
            if moment.is_chosen() {
                println!("{moment:?}");
                kill(stage).await;
                stage.go_on().await;
            }
        };
        let struck = self.release(&strike).await;
        assert!(calm.is_each_once(), "{calm:?}");
        assert!(struck.is_as(&calm), "{struck:?}; undisturbed: {calm:?}");
        self.abort(&strike).await;
    }

    /// A new version goes all the way.
    async fn release(&mut self, strike: impl AsyncFn(&Self, Moment)) -> Written {
        let generation = self.generation().await;
        let (sets, runs) = self.made().await;
        let hash = self.begin().await;
        strike(self, Moment::Scaling).await;
        self.until(|rollout| step(rollout) == Some(1)).await;
        strike(self, Moment::Judging).await;
        self.until(|rollout| step(rollout) == Some(2) && phase(rollout) == Some("Paused"))
            .await;
        self.app.verb(&format!("promote {NAME}")).await;
        strike(self, Moment::Promoted).await;
        self.record.until_weight(generation, 60).await;
        strike(self, Moment::Weighting).await;
        self.until(|rollout| stable(rollout) == Some(&hash)).await;
        strike(self, Moment::Leaving).await;
        until_settled(&self.app, self.version).await;
        self.until_left(&hash).await;
        let history = self.record.so_far();
        let now = self.made().await;
        Written {
            weights: history.weights_since(generation),
            generations: self.generation().await - generation,
            steps: history.steps_of(&hash),
            sets: now.0 - sets,
            runs: now.1 - runs,
        }
    }

    /// A new version comes to its pause, and is aborted.
    async fn abort(&mut self, strike: impl AsyncFn(&Self, Moment)) {
        let hash = self.begin().await;
        self.until(|rollout| phase(rollout) == Some("Paused")).await;
        self.app.verb(&format!("abort {NAME}")).await;
        strike(self, Moment::Aborted).await;
        self.until(|rollout| phase(rollout) == Some("Degraded"))
            .await;
        let rollout = self.app.api::<Rollout>().get(NAME).await.unwrap();
        assert_ne!(stable(&rollout), Some(hash.as_str()));
        self.until_left(stable(&rollout).unwrap()).await;
        self.go_on().await;
    }

    /// Asks for a new version; returns its hash once the controller has seen it.
    async fn begin(&mut self) -> String {
        self.version += 1;
        let path = "/spec/template/spec/containers/0/env/0/value";
        let patch = json!([{"op": "replace", "path": path, "value": format!("v{}", self.version)}]);
        let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
        let rollouts = self.app.api::<Rollout>();
        let how = PatchParams::default();
        rollouts.patch(NAME, &how, &patch).await.unwrap();
        let is_new = |rollout: &Rollout| {
            let hash = rollout
                .status
                .as_ref()
                .and_then(|status| status.current_pod_hash.as_ref());
            observed(rollout) && hash.is_some() && hash.map(String::as_str) != stable(rollout)
        };
        let begun = self.app.eventually(NAME, "has begun", is_new).await;
        begun.status.unwrap().current_pod_hash.unwrap()
    }

    async fn until(&self, holds: impl Fn(&Rollout) -> bool) {
        self.app.eventually(NAME, "has come so far", holds).await;
    }

    /// Waits until only one revision has pods.
    async fn until_left(&self, hash: &str) {
        let sets = self
            .app
            .api::<ReplicaSet>()
            .list(&ListParams::default())
            .await
            .unwrap();
        let others = sets
            .items
            .into_iter()
            .filter(|set| !set.name_any().ends_with(hash));
        for set in others {
            let is_empty = |set: &ReplicaSet| {
                set.status
                    .as_ref()
                    .is_none_or(|status| status.replicas == 0)
            };
            self.app
                .eventually(&set.name_any(), "is empty", is_empty)
                .await;
        }
    }

    async fn generation(&self) -> i64 {
        let split = self.app.api::<Split>().get(NAME).await.unwrap();
        split.metadata.generation.unwrap()
    }

    /// ReplicaSets and AnalysisRuns that were made so far: the Rollout keeps more than are made here.
    async fn made(&self) -> (usize, usize) {
        let all = ListParams::default();
        let sets = self.app.api::<ReplicaSet>().list(&all).await.unwrap();
        let runs = self.app.api::<AnalysisRun>().list(&all).await.unwrap();
        (sets.items.len(), runs.items.len())
    }

    /// Who holds the Lease.
    pub(super) async fn leader(&self) -> String {
        let held = |lease: &Lease| holder(lease).is_some();
        let lease = self.system.eventually(&self.lock(), "is held", held).await;
        holder(&lease).unwrap().to_owned()
    }

    /// Waits until somebody else leads.
    pub(super) async fn until_led_by_another(&self, leader: &str) {
        let another = |lease: &Lease| holder(lease).is_some_and(|holder| holder != leader);
        self.system
            .eventually(&self.lock(), "has another holder", another)
            .await;
    }

    fn lock(&self) -> String {
        format!("argo-rollouts-controller-lock-{}", self.system.namespace)
    }

    /// The controllers' pods.
    pub(super) async fn controllers(&self) -> Vec<String> {
        let pods = part(&self.system, "controller").await;
        pods.iter().map(Pod::name_any).collect()
    }

    /// Kills the processes of these pods, all at once.
    pub(super) async fn kill_9(&self, pods: &[String]) -> Vec<Killed> {
        let mut processes = Vec::new();
        let mut killed = Vec::new();
        for name in pods {
            let pod = self.system.eventually(name, "runs", is_ready).await;
            killed.push(Killed {
                name: name.clone(),
                restarts: restarts(&pod),
            });
            processes.push(self.system.process(name).await);
        }
        processes.iter().for_each(|process| process.kill_9());
        killed
    }

    /// Waits until what was killed is back.
    pub(super) async fn until_back(&self, killed: &[Killed]) {
        for Killed {
            name,
            restarts: before,
        } in killed
        {
            let is_back = |pod: &Pod| is_ready(pod) && restarts(pod) > *before;
            self.system.eventually(name, "is back", is_back).await;
        }
    }

    /// Panics if somebody has asked for what is not granted.
    pub(super) fn assert_nothing_was_forbidden(&self) {
        for account in [CONTROLLER, "sidestep-proxy"] {
            let requests = self.system.requests(account);
            let forbidden = lines(requests.iter().filter(|request| request.is_forbidden()));
            assert_eq!(forbidden, "", "{account}");
        }
    }

    /// Ends it all; returns what clients saw.
    pub(super) async fn end(self) -> Seen {
        let mut insisting = Vec::new();
        for load in self.insisting {
            insisting.push(load.stop().await);
        }
        Seen {
            insisting,
            way_in: self.way_in.stop().await,
            inside: self.inside.stop().await,
        }
    }
}

impl Written {
    /// Whether nothing was done twice or taken back.
    fn is_each_once(&self) -> bool {
        let steps = self.steps.is_sorted() && self.steps.last() == Some(&STEPS);
        steps && (self.sets, self.runs) == (1, 1)
    }

    /// Whether it is what the other has written, of which some may not have been seen.
    fn is_as(&self, other: &Self) -> bool {
        let mut others = other.weights.iter();
        let is_known = self
            .weights
            .iter()
            .all(|weight| others.any(|other| other == weight));
        is_known && self.generations == other.generations && self.is_each_once()
    }
}

/// A pod whose process was killed.
pub(super) struct Killed {
    name: String,
    restarts: i32,
}

/// Steps of the Rollout.
const STEPS: i32 = 6;

/// The controllers' account.
const CONTROLLER: &str = "sidestep-controller";

fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    let first = statuses.and_then(|statuses| statuses.first());
    first.map_or(0, |container| container.restart_count)
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

fn stable(rollout: &Rollout) -> Option<&str> {
    rollout.status.as_ref()?.stable_rs.as_deref()
}

fn step(rollout: &Rollout) -> Option<i32> {
    rollout.status.as_ref()?.current_step_index
}

fn observed(rollout: &Rollout) -> bool {
    let generation = rollout.metadata.generation.unwrap_or_default().to_string();
    let status = rollout.status.as_ref();
    status.and_then(|status| status.observed_generation.as_ref()) == Some(&generation)
}

/// Waits until a version is the stable one.
async fn until_settled(app: &World, version: u32) {
    let what = format!("v{version} is healthy");
    let healthy = |rollout: &Rollout| observed(rollout) && phase(rollout) == Some("Healthy");
    app.eventually(NAME, &what, healthy).await;
}

/// The pods of a part of the release.
async fn part(system: &World, part: &str) -> Vec<Pod> {
    let selected = format!("app.kubernetes.io/component={part}");
    let selected = ListParams::default().labels(&selected);
    system.api::<Pod>().list(&selected).await.unwrap().items
}

async fn proxies(system: &World) -> Vec<(String, SocketAddr)> {
    let pods = part(system, "proxy").await;
    let at = |pod: &Pod| {
        format!("{}:8000", pod.status.as_ref()?.pod_ip.as_ref()?)
            .parse()
            .ok()
    };
    pods.iter()
        .map(|pod| (pod.name_any(), at(pod).unwrap()))
        .collect()
}

/// Time that the API server is away, 6 s unless `SIDESTEP_API_SERVER_GAP` says otherwise in seconds. The times of the Lease follow it: at
/// 30 they are the controller's defaults.
pub(super) fn gap() -> Duration {
    asked_gap().unwrap_or(Duration::from_secs(6))
}

fn asked_gap() -> Option<Duration> {
    let seconds = chosen("SIDESTEP_API_SERVER_GAP")?;
    Some(Duration::from_secs(seconds.into()))
}

/// The chart as it is, which has two of everything, with apexes and the times of the Lease.
async fn install(system: &World) {
    let gap = gap();
    let times = format!(
        "--set=controller.extraArgs={{--leader-election-lease-duration={}s,--leader-election-renew-deadline={}ms,\
         --leader-election-retry-period={}ms}}",
        gap.as_secs() / 2,
        gap.as_millis() / 3,
        gap.as_millis() / 15,
    );
    let apexes = format!("--set=apex.enabled=true,apex.ports={}", system.apex_ports());
    system.install(&[&times, &apexes]).await;
}

fn application(system: &str) -> Vec<Value> {
    let service = |name: &str, selector: &Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        })
    };
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": NAME, "port": {"name": "http"}}}});
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": NAME},
        "spec": {"ingressClassName": system, "rules": [{"host": NAME, "http": {"paths": [path]}}]},
    });
    let label = json!({"argo-rollouts.argoproj.io/controller-instance-id": system});
    let metadata = json!({"name": NAME, "labels": label});
    let analysis = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate", "metadata": metadata,
        "spec": {"metrics": [{
            "name": "requests", "interval": "1s", "count": 3, "successCondition": "result.requests > 0",
            "provider": {"plugin": {"sidestep/proxy": {"version": "canary", "window": "1s"}}},
        }]},
    });
    let canary = format!("{NAME}-canary");
    vec![
        service(NAME, &Value::Null),
        service(&canary, &json!({"app": NAME})),
        ingress,
        analysis,
        rollout(&metadata, &canary),
    ]
}

fn rollout(metadata: &Value, canary: &str) -> Value {
    let labels = json!({"app": NAME});
    let container = json!({
        "name": "app", "image": "origin", "command": [origin()], "args": ["--drain"],
        "env": [{"name": "VERSION", "value": "v1"}],
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
    });
    let steps = json!([
        {"setWeight": 20}, {"analysis": {"templates": [{"templateName": NAME}]}}, {"pause": {}},
        {"setWeight": 40}, {"setWeight": 60}, {"setWeight": 80},
    ]);
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": metadata,
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": {
                "stableService": NAME, "canaryService": canary,
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "scaleDownDelaySeconds": 1, "abortScaleDownDelaySeconds": 1,
                "steps": steps,
            }},
        },
    })
}

impl Seen {
    /// What all of them saw.
    pub(super) fn all(&self) -> impl Iterator<Item = &Tally> {
        self.insisting.iter().chain([&self.way_in, &self.inside])
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, tally) in (1..).zip(&self.insisting) {
            write!(f, "at proxy {number}: {tally}; ")?;
        }
        write!(f, "by the way in: {}; inside: {}", self.way_in, self.inside)
    }
}
