//! One release, as an observer sees it.

use std::collections::HashSet;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, WatchEvent, WatchParams};
use serde_json::json;
use sidestep_control::api::Rollout;
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
    /// From that pod's readiness to the weight verified on every proxy.
    pub(crate) verified: Duration,
}

type Events<K> = BoxStream<'static, kube::Result<WatchEvent<K>>>;

/// Changes the template of a Rollout that is Healthy, and waits until its weighted step is verified.
pub(crate) async fn time(world: &World, number: usize) -> Times {
    let name = name(number);
    let pods = world.api::<Pod>();
    let selector = format!("app={name}");
    let of_it = WatchParams::default().labels(&selector);
    let listed = pods
        .list(&kube::api::ListParams::default().labels(&selector))
        .await
        .unwrap();
    let old: HashSet<String> = listed.iter().map(|pod| pod.name_any()).collect();
    let version = listed.metadata.resource_version.unwrap();
    let pods = pods.watch(&of_it, &version).await.unwrap().boxed();
    let rollouts = world.api::<Rollout>();
    let version = rollouts.get(&name).await.unwrap().resource_version();
    let field = format!("metadata.name={name}");
    let of_name = WatchParams::default().fields(&field);
    let events = rollouts.watch(&of_name, &version.unwrap()).await;
    let changed =
        json!({"spec": {"template": {"spec": {"containers": [container("demo:yellow")]}}}});
    let patch = Patch::Merge(&changed);
    rollouts
        .patch(&name, &PatchParams::default(), &patch)
        .await
        .unwrap();
    let begun = Instant::now();
    let (pods, verified) = tokio::join!(
        canary(pods, &old),
        first(events.unwrap().boxed(), is_verified)
    );
    Times {
        pod: pods.0 - begun,
        verified: verified.saturating_duration_since(pods.1),
    }
}

/// When the first pod that is not an old one was seen, and when it was seen ready.
async fn canary(mut pods: Events<Pod>, old: &HashSet<String>) -> (Instant, Instant) {
    let is_new = |pod: &Pod| !old.contains(&pod.name_any());
    let seen = next(&mut pods, is_new).await;
    (
        seen,
        next(&mut pods, |pod| is_new(pod) && is_ready(pod)).await,
    )
}

async fn first<K>(mut events: Events<K>, holds: impl Fn(&K) -> bool) -> Instant {
    next(&mut events, holds).await
}

/// When something was seen that holds.
async fn next<K>(events: &mut Events<K>, holds: impl Fn(&K) -> bool) -> Instant {
    let found = async {
        loop {
            let event = events.next().await.expect("the watch goes on");
            if let Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) = event
                && holds(&object)
            {
                return Instant::now();
            }
        }
    };
    timeout(DEADLINE, found).await.expect("it comes in time")
}

/// Half of the traffic goes to the canary, at every proxy.
fn is_verified(rollout: &Rollout) -> bool {
    let status = rollout.status.as_ref();
    let weights = status.and_then(|status| status.canary.weights.as_ref());
    weights.is_some_and(|weights| weights.canary.weight == 50 && weights.verified == Some(true))
}
