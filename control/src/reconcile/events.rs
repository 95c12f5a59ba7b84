//! Events about our objects: sent in order by one task, bounded, never in the way of anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event as Wire, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};
use kube::api::ObjectMeta;
use kube::{Client, Resource};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::rollout::decision::Event;
use crate::wire::Collection;

/// Events that may wait to be sent. A rollout sends a handful per step; what is over is dropped, as client-go drops.
const WAITING_MAX: usize = 1024;
/// An Event that takes longer is given up.
const SEND_LIMIT: Duration = Duration::from_secs(5);
/// Who reports: Argo's name, which dashboards and scripts filter by.
const COMPONENT: &str = "rollouts-controller";

/// Where Events go. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Events {
    sender: mpsc::Sender<Wire>,
    /// Told, by (namespace, name, type, reason); for the metrics.
    tally: Arc<std::sync::Mutex<std::collections::BTreeMap<Told, u64>>>,
    /// Makes names unique within a nanosecond.
    count: Arc<AtomicU64>,
}

/// What Events are counted by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Told {
    /// The object's namespace.
    pub namespace: String,
    /// The object's name.
    pub name: String,
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// The reason.
    pub reason: &'static str,
}

/// Sends what [`Events`] takes.
#[derive(Debug)]
pub struct Sender(mpsc::Receiver<Wire>);

impl Events {
    /// Both ends.
    pub fn new() -> (Self, Sender) {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let events = Self {
            sender,
            tally: Arc::default(),
            count: Arc::default(),
        };
        (events, Sender(receiver))
    }

    /// Tells people about an object. Never waits; when too many wait already, this one is dropped.
    pub fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, event: &Event, now: Timestamp) {
        self.tell_of(about.object_ref(&()), event, now);
    }

    /// Tells people about an object that may be gone.
    pub fn tell_of(&self, object: ObjectReference, event: &Event, now: Timestamp) {
        let told = Told {
            namespace: object.namespace.clone().unwrap_or_default(),
            name: object.name.clone().unwrap_or_default(),
            kind: event.kind.word(),
            reason: event.reason,
        };
        *super::lock(&self.tally).entry(told).or_default() += 1;
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.sender.try_send(wire(object, event, number, now)) {
            debug!(reason = event.reason, %error, "event dropped");
        }
    }

    /// How many of each were told since the process began.
    pub fn tally(&self) -> Vec<(Told, u64)> {
        super::lock(&self.tally)
            .iter()
            .map(|(told, count)| (told.clone(), *count))
            .collect()
    }

    /// Forgets the counts of an object that is gone.
    pub fn forget(&self, namespace: &str, name: &str) {
        super::lock(&self.tally)
            .retain(|told, _| (told.namespace.as_str(), told.name.as_str()) != (namespace, name));
    }
}

impl Sender {
    /// Sends until `cancel`, and then what still waits, as far as there is time.
    pub async fn run(mut self, client: Client, cancel: CancellationToken) {
        while let Some(Some(event)) = cancel.run_until_cancelled(self.0.recv()).await {
            send(&client, event).await;
        }
        self.0.close();
        let rest = async {
            while let Some(event) = self.0.recv().await {
                send(&client, event).await;
            }
        };
        if timeout(SEND_LIMIT, rest).await.is_err() {
            debug!("events left unsent");
        }
    }
}

async fn send(client: &Client, event: Wire) {
    let namespace = event.metadata.namespace.as_deref().unwrap_or("default");
    let api = Collection::<Wire>::within(client, namespace);
    match timeout(SEND_LIMIT, api.create(&event)).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => debug!(reason = event.reason, %error, "event not taken"),
        Err(_) => debug!(reason = event.reason, "event took too long"),
    }
}

fn wire(object: ObjectReference, event: &Event, number: u64, now: Timestamp) -> Wire {
    // Objects without a namespace tell theirs in `default`, as client-go does.
    let namespace = object
        .namespace
        .clone()
        .unwrap_or_else(|| "default".to_owned());
    let about = object.name.clone().unwrap_or_default();
    Wire {
        metadata: ObjectMeta {
            name: Some(format!("{about}.{:x}{number:04x}", now.as_nanosecond())),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: object,
        reason: Some(event.reason.to_owned()),
        message: Some(event.message.clone()),
        type_: Some(event.kind.word().to_owned()),
        source: Some(EventSource {
            component: Some(COMPONENT.to_owned()),
            host: None,
        }),
        reporting_component: Some(COMPONENT.to_owned()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        event_time: Some(MicroTime(now)),
        action: Some(event.reason.to_owned()),
        reporting_instance: Some(COMPONENT.to_owned()),
        count: Some(1),
        ..Wire::default()
    }
}
