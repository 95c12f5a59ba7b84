//! One release, as an observer sees it.

use std::fmt::Debug;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use kube::{Resource, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde_json::json;
use sidestep_control::api::{Rollout, Split};
use tokio::time::{Instant, timeout};

use crate::rollouts::{container, name};
use crate::support::cluster::World;
use crate::support::cluster::role::is_ready;
use crate::support::session::DEADLINE;

/// How long the parts of a release took.
#[derive(Debug)]
pub(crate) struct Times {
    /// From the answer to the change of the template to the canary's first pod.
    pub(crate) pod: Duration,
    /// From that pod's readiness to the word of the last proxy that it serves the weight, as the Split's status has it.
    pub(crate) served: Duration,
    /// From that pod's readiness to the Rollout's status, which says so.
    pub(crate) verified: Duration,
}

/// Objects of a kind as they change.
struct Sight<K> {
    events: BoxStream<'static, watcher::Result<Event<K>>>,
    /// Those that were there at first.
    listed: Vec<String>,
}

/// Changes the template of a Rollout that is Healthy, and waits until its weighted step is verified.
pub(crate) async fn time(world: &World, number: usize) -> Times {
    let name = name(number);
    let of_it = watcher::Config::default().labels(&format!("app={name}"));
    let mut pods = Sight::<Pod>::open(world, of_it).await;
    let itself = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut rollout = Sight::<Rollout>::open(world, itself).await;
    let template = json!({"spec": {"containers": [container("demo:yellow")]}});
    let changed = json!({"spec": {"template": template}});
    let how = PatchParams::default();
    let patch = Patch::Merge(&changed);
    let api = world.api::<Rollout>();
    api.patch(&name, &how, &patch).await.unwrap();
    let begun = Instant::now();
    let ((seen, ready), verified) = tokio::join!(canary(&mut pods), rollout.seen(is_verified));
    Times {
        pod: seen - begun,
        served: (last_word(world, &name).await - ready.clock)
            .try_into()
            .unwrap_or_default(),
        verified: verified.saturating_duration_since(ready.at),
    }
}

/// When the last proxy said that it serves the Split.
async fn last_word(world: &World, name: &str) -> Timestamp {
    let split = world.api::<Split>().get(name).await.unwrap();
    let verified = split.status.unwrap().memory.verified.unwrap();
    assert_eq!(Some(verified.generation), split.metadata.generation);
    verified.at.0
}

/// A moment, for comparison with others of this process and with what is written.
struct Moment {
    at: Instant,
    clock: Timestamp,
}

/// When the first pod that is not an old one was seen, and when it was seen ready.
async fn canary(pods: &mut Sight<Pod>) -> (Instant, Moment) {
    let old = std::mem::take(&mut pods.listed);
    let is_new = |pod: &Pod| !old.contains(&pod.name_any());
    let seen = pods.seen(is_new).await;
    let at = pods.seen(|pod| is_new(pod) && is_ready(pod)).await;
    #[expect(clippy::disallowed_methods, reason = "what is written has wall time")]
    let clock = Timestamp::now();
    (seen, Moment { at, clock })
}

/// Half of the traffic goes to the canary, at every proxy.
fn is_verified(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    let weights = status.and_then(|status| status.canary.weights.as_ref());
    weights.is_some_and(|weights| weights.canary.weight == 50 && weights.verified == Some(true))
}

impl<K> Sight<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    /// Watches from now on.
    async fn open(world: &World, which: watcher::Config) -> Self {
        let mut events = watch(world.api::<K>(), which).default_backoff().boxed();
        let mut listed = Vec::new();
        loop {
            match events.next().await.expect("a watch does not end") {
                Ok(Event::InitApply(object)) => listed.push(object.name_any()),
                Ok(Event::InitDone) => return Self { events, listed },
                Ok(Event::Init | Event::Apply(_) | Event::Delete(_)) | Err(_) => {}
            }
        }
    }

    /// When something was seen that holds.
    async fn seen(&mut self, holds: impl Fn(&K) -> bool) -> Instant {
        let found = async {
            loop {
                let event = self.events.next().await.expect("a watch does not end");
                if let Ok(Event::Apply(object) | Event::InitApply(object)) = event
                    && holds(&object)
                {
                    return Instant::now();
                }
            }
        };
        timeout(DEADLINE, found).await.expect("it comes in time")
    }
}
