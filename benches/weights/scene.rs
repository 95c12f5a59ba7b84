//! A Rollout that runs through its weights, and what is written and heard of them.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures::StreamExt as _;
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::{Value, json};
use sidestep_control::api::{Rollout, Split};
use tokio::task::JoinHandle;

use super::Times;
use super::support::cluster::World;
use super::support::cluster::role::{Controller, Proxies};
use super::support::processes::{is_phase, observed};
use super::witness::Witness;

const NAME: &str = "weights";
const CONTROLLER: &str = "controller";

/// A cluster with a Rollout at rest.
pub(crate) struct Scene {
    world: World,
    controller: Controller,
    proxies: Proxies,
    weights: usize,
}

/// When the Split of each generation was written, served by all, and known to be.
pub(crate) struct Weights {
    pub(crate) written: Times,
    pub(crate) acknowledged: Times,
    pub(crate) verified: Times,
}

impl Scene {
    pub(crate) async fn set(proxies: usize, weights: usize) -> Self {
        let world = World::start().await;
        let (controller, proxies) =
            tokio::join!(world.controller(CONTROLLER), world.proxies(proxies));
        for service in ["", "-canary"] {
            world.create(&service_of(service)).await;
        }
        world.create(&rollout(weights)).await;
        let scene = Self {
            world,
            controller,
            proxies,
            weights,
        };
        scene
            .until("it is Healthy", |rollout| is_phase(rollout, "Healthy"))
            .await;
        scene
    }

    /// Begins an update, and returns what became of it when it has ended.
    pub(crate) async fn play(&self) -> Weights {
        let admins = self.proxies.addresses.iter();
        let admins: Vec<_> = admins.map(|a| SocketAddr::new(a.ip(), 9901)).collect();
        let witness = Witness::listen(&admins, NAME);
        let (verified, watch) = self.watch();
        let image = json!([{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "argoproj/rollouts-demo:yellow"}]);
        let patch = Patch::<()>::Json(serde_json::from_value(image).expect("a patch"));
        let rollouts = self.world.api::<Rollout>();
        rollouts
            .patch(NAME, &PatchParams::default(), &patch)
            .await
            .expect("it is taken");
        // Each wait has a deadline.
        for step in (0..self.weights).step_by(20) {
            let what = format!("step {step} is done");
            self.until(&what, |rollout| has_done(rollout, step)).await;
        }
        self.until("it is promoted", |rollout| is_phase(rollout, "Healthy"))
            .await;
        watch.abort();
        let verified = verified
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        Weights {
            written: self.written(),
            acknowledged: witness.all(),
            verified,
        }
    }

    pub(crate) async fn end(self) {
        self.controller.stop(&self.world).await;
        self.proxies.assert_calm(&self.world);
    }

    async fn until(&self, what: &str, holds: impl Fn(&Rollout) -> bool) {
        let holds = |rollout: &Rollout| observed(rollout) && holds(rollout);
        self.world.eventually::<Rollout>(NAME, what, holds).await;
    }

    /// What the controller says of each generation.
    fn watch(&self) -> (Arc<Mutex<Times>>, JoinHandle<()>) {
        let verified: Arc<Mutex<Times>> = Arc::default();
        let noted = Arc::clone(&verified);
        let splits = watcher(self.world.api::<Split>(), watcher::Config::default());
        let watch = tokio::spawn(async move {
            let mut splits = splits.default_backoff().applied_objects().boxed();
            while let Some(split) = splits.next().await {
                let status = split.ok().and_then(|split| split.status);
                if let Some(verified) = status.and_then(|status| status.memory.verified) {
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    noted.entry(verified.generation).or_insert(verified.at.0);
                }
            }
        });
        (verified, watch)
    }

    /// The first write of a Split makes generation 1, which is no change of a weight, and every further one of its spec the next.
    fn written(&self) -> Times {
        let requests = self.world.requests(CONTROLLER);
        let writes = requests.iter().filter(|request| {
            let right = request.right();
            let right = right.as_deref();
            request.response_status.code < 400
                && (right == Some("create splits.sidestep.dev")
                    || right == Some("update splits.sidestep.dev"))
        });
        let times = writes.map(|request| request.received);
        (1..).zip(times).skip(1).collect()
    }
}

/// Whether a step has been left behind, by however much.
fn has_done(rollout: &Rollout, step: usize) -> bool {
    let status = rollout.status.as_ref();
    let index = status.and_then(|status| status.current_step_index);
    index.is_some_and(|index| usize::try_from(index).is_ok_and(|index| index > step))
}

fn service_of(suffix: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": format!("{NAME}{suffix}")},
        "spec": {"selector": {"app": NAME}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    })
}

/// Its canary has all its pods before the first weight, so that no weight waits for one.
fn rollout(weights: usize) -> Value {
    let weights = (0..weights).map(|number| json!({"setWeight": 1 + number * 37 % 99}));
    let steps: Vec<Value> = [json!({"setCanaryScale": {"replicas": 2}})]
        .into_iter()
        .chain(weights)
        .collect();
    let container = json!({
        "name": "app", "image": "argoproj/rollouts-demo:blue", "ports": [{"name": "http", "containerPort": 8080}],
    });
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": NAME},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": {"containers": [container]}},
            "strategy": {"canary": {
                "stableService": NAME, "canaryService": format!("{NAME}-canary"), "steps": steps,
                "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
            }},
        },
    })
}
