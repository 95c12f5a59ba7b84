//! The embedded cluster, as its kubelet has it: the store, where a write takes no time, and one address for all pods.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::{self, BoxStream};
use serde_json::{Value, json};

use super::cluster::{Cluster, News, PodName};
use crate::local::environment::Source;
use crate::local::kinds;
use crate::local::launcher::Launch;
use crate::local::notes::{self, Tone};
use crate::local::podstatus::{self, Report};
use crate::local::ports::Ports;
use crate::local::store::{self, Change, Deletion, Object, Store, Subscription, What};

/// The embedded cluster. Its one node is this machine.
#[derive(Clone, Debug)]
pub struct Embedded {
    store: Store,
    ports: Ports,
}

impl Embedded {
    /// The cluster of these objects.
    pub fn new(store: Store) -> Self {
        Self {
            store,
            ports: Ports::default(),
        }
    }

    /// A write fails only if the object has gone meanwhile, and then what is wanted will say so.
    fn log(pod: &PodName, written: Result<Object, store::Error>) {
        if let Err(error) = written {
            tracing::debug!(?pod, %error, "a pod went while it was written");
        }
    }
}

impl Cluster for Embedded {
    fn news(&self) -> BoxStream<'static, News> {
        let reader = Reader {
            store: self.store.clone(),
            changes: None,
            read: VecDeque::new(),
        };
        stream::unfold(reader, Reader::next).boxed()
    }

    fn configuration(&self, source: Source, namespace: &str, name: &str) -> Option<Object> {
        let kind = match source {
            Source::ConfigMap => &kinds::CONFIG_MAP,
            Source::Secret => &kinds::SECRET,
        };
        self.store.get(kind, namespace, name)
    }

    fn address(&self, _pod: &PodName) -> IpAddr {
        Ipv4Addr::LOCALHOST.into()
    }

    fn shared_ports(&self) -> Option<&Ports> {
        Some(&self.ports)
    }

    /// The pod's object says where it runs and on which port.
    fn listens(&self, pod: &PodName, port: u16) {
        let change = |object: &mut Value| {
            if store::text(object, "uid") == pod.uid {
                object["spec"]["nodeName"] = json!(NODE);
                object["metadata"]["annotations"][PORT] = json!(port.to_string());
            }
        };
        let written = self
            .store
            .update(&kinds::POD, &pod.namespace, &pod.name, None, change);
        Self::log(pod, written);
    }

    fn report(&self, pod: &PodName, report: Report) {
        let change = |object: &mut Value| {
            if store::text(object, "uid") == pod.uid {
                podstatus::write(object, &report);
            }
        };
        let written =
            self.store
                .update_status(&kinds::POD, &pod.namespace, &pod.name, None, change);
        Self::log(pod, written);
    }

    fn launch(&self, _pod: &PodName, launch: Launch) -> Launch {
        launch
    }

    fn note(&self, pod: &Object, tone: Tone, reason: &str, message: &str) {
        notes::note(&self.store, pod, COMPONENT, tone, reason, message);
    }

    fn remove(&self, pod: &PodName) {
        let deletion = Deletion {
            uid: Some(pod.uid.clone()),
            ..Deletion::now()
        };
        let deleted = self
            .store
            .delete(&kinds::POD, &pod.namespace, &pod.name, &deletion);
        if let Err(error) = deleted {
            tracing::debug!(?pod, %error, "a pod was gone already");
        }
    }
}

/// Reads the store's changes; looks at everything first, and again when changes were missed.
struct Reader {
    store: Store,
    changes: Option<Subscription>,
    read: VecDeque<News>,
}

impl Reader {
    async fn next(mut self) -> Option<(News, Self)> {
        loop {
            if let Some(news) = self.read.pop_front() {
                return Some((news, self));
            }
            match &mut self.changes {
                None => self.look(),
                Some(changes) => match changes.next().await {
                    Ok(next) => self
                        .read
                        .extend(next.iter().filter_map(|change| news(change))),
                    Err(expired) => {
                        tracing::debug!(%expired, "pods are listed again");
                        self.changes = None;
                    }
                },
            }
        }
    }

    fn look(&mut self) {
        let listing = self.store.list(&kinds::POD, None);
        self.changes = Some(self.store.subscribe(listing.version));
        self.read.push_back(News::Pods(listing.objects));
    }
}

fn news(change: &Change) -> Option<News> {
    if change.kind == &kinds::CONFIG_MAP || change.kind == &kinds::SECRET {
        return Some(News::Configuration);
    }
    if change.kind != &kinds::POD {
        return None;
    }
    let pod = Arc::clone(&change.object);
    Some(match change.what {
        What::Added | What::Modified => News::Pod(pod),
        What::Deleted => News::Gone(pod),
    })
}

/// The one node.
const NODE: &str = "sidestep";
/// Annotation on pods: the loopback port of the pod's process or stand-in, decimal.
pub(in crate::local) const PORT: &str = "sidestep.dev/port";
/// Who notes.
const COMPONENT: &str = "kubelet";
