//! Events about our objects: sent in order by one task, bounded, never in the way of anything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
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

use super::lock;
use super::objects::Name;
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
    /// What was told of each object; for the metrics.
    tally: Arc<Mutex<BTreeMap<Name, Vec<Told>>>>,
    /// Makes names unique within a nanosecond.
    sent: Arc<AtomicU64>,
}

/// How often an object's Events of a type and reason were told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// `Normal` or `Warning`.
    pub kind: &'static str,
    /// The reason.
    pub reason: &'static str,
    /// How often.
    pub count: u64,
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
            sent: Arc::default(),
        };
        (events, Sender(receiver))
    }

    /// Tells people about an object. Never waits; when too many wait already, this one is dropped.
    pub fn tell<K: Resource<DynamicType = ()>>(&self, about: &K, event: &Event, now: Timestamp) {
        let object = about.object_ref(&());
        self.count(&object, event);
        let number = self.sent.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.sender.try_send(wire(object, event, number, now)) {
            debug!(reason = event.reason, %error, "event dropped");
        }
    }

    /// How many of each were told since the process began, by the object's name.
    pub fn tally(&self) -> BTreeMap<Name, Vec<Told>> {
        lock(&self.tally).clone()
    }

    /// Forgets the counts of an object that is gone.
    pub fn forget(&self, name: &Name) {
        lock(&self.tally).remove(name);
    }

    fn count(&self, object: &ObjectReference, event: &Event) {
        let name = Name {
            namespace: object.namespace.clone().unwrap_or_default(),
            name: object.name.clone().unwrap_or_default(),
        };
        let (kind, reason) = (event.kind.word(), event.reason);
        let mut tally = lock(&self.tally);
        let told = tally.entry(name).or_default();
        match told
            .iter_mut()
            .find(|told| (told.kind, told.reason) == (kind, reason))
        {
            Some(told) => told.count += 1,
            None => told.push(Told {
                kind,
                reason,
                count: 1,
            }),
        }
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;
    use crate::rollout::decision::EventKind;

    #[test]
    fn events_are_counted_by_object_type_and_reason_until_the_object_is_gone() {
        let (events, _sender) = Events::new();
        let name = |name: &str| Name {
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        let tell = |about: &str, kind, reason| {
            let mut object = Pod::default();
            object.metadata.namespace = Some("shop".to_owned());
            object.metadata.name = Some(about.to_owned());
            let message = String::new();
            let event = Event {
                kind,
                reason,
                message,
            };
            events.tell(&object, &event, Timestamp::UNIX_EPOCH);
        };
        for (about, kind, reason) in [
            ("web", EventKind::Normal, "RolloutUpdated"),
            ("web", EventKind::Normal, "RolloutUpdated"),
            ("web", EventKind::Warning, "RolloutAborted"),
            ("api", EventKind::Normal, "RolloutUpdated"),
        ] {
            tell(about, kind, reason);
        }
        let told = |kind, reason, count| Told {
            kind,
            reason,
            count,
        };
        let api = (name("api"), vec![told("Normal", "RolloutUpdated", 1)]);
        let web = vec![
            told("Normal", "RolloutUpdated", 2),
            told("Warning", "RolloutAborted", 1),
        ];
        let all = BTreeMap::from([api.clone(), (name("web"), web)]);
        assert_eq!(events.tally(), all);
        events.forget(&name("web"));
        assert_eq!(events.tally(), BTreeMap::from([api]));
    }
}
