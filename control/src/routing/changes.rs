//! What has changed since the last table, as far as a table shows it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::{Secret, Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::ObjectMeta;
use tokio::sync::Notify;

use super::endpoints::{is_of_apex, owner};
use super::ports::is_revision_service;
use super::split::RawSplit;
use crate::cache::{Change, Listener};

/// More than this, and everything is looked at: it takes no longer.
const MOST: usize = 100;

/// Namespace and name.
pub type Name = (String, String);

/// What has changed. Its parts are few; what else there is to say is `everything`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Something that a table may show anywhere.
    pub everything: bool,
    /// Services whose EndpointSlices have changed, and revision Services that have.
    pub services: BTreeSet<Name>,
    /// Splits that are others, and were there before.
    pub splits: BTreeSet<Name>,
}

/// Gathers changes for whoever builds the tables. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    changes: Mutex<Changes>,
    news: Notify,
}

impl Changes {
    /// That everything is new.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    fn bound(&mut self) {
        if self.everything || self.services.len() + self.splits.len() > MOST {
            *self = Self::everything();
        }
    }
}

impl Journal {
    /// What has changed since this was asked last.
    pub fn take(&self) -> Changes {
        std::mem::take(&mut self.changes())
    }

    /// Returns once something has changed. Cancel safe.
    pub async fn news(&self) {
        self.0.news.notified().await;
    }

    /// Hears of Services: nothing but the ports of a revision Service can change without its being attached elsewhere. Whom a Service
    /// selects is no news, though a Rollout changes it at most of its steps: its slices say who that is.
    pub fn of_services(&self) -> Listener<Service> {
        fn shown(service: &Service) -> Option<(&Option<String>, &Option<Vec<ServicePort>>)> {
            let spec = service.spec.as_ref()?;
            Some((&spec.type_, &spec.ports))
        }
        self.listener(
            |old: &Service, new: &Service| {
                shown(old) == shown(new) && old.metadata.labels == new.metadata.labels
            },
            |change, changes| {
                let mut known = change.old.into_iter().chain(change.new);
                if known.all(|service| is_revision_service(service)) {
                    changes.services.insert(name_of(change));
                } else {
                    changes.everything = true;
                }
            },
        )
    }

    /// Hears of EndpointSlices; those of apexes are ours and in no table.
    pub fn of_slices(&self) -> Listener<EndpointSlice> {
        self.listener(
            |old: &EndpointSlice, new: &EndpointSlice| {
                old.endpoints == new.endpoints
                    && old.ports == new.ports
                    && old.metadata.labels == new.metadata.labels
            },
            |change, changes| {
                let known = change.old.into_iter().chain(change.new);
                let shown = known.filter(|slice| !is_of_apex(slice));
                for (namespace, service) in shown.filter_map(|slice| owner(slice)) {
                    let name = (namespace.to_owned(), service.to_owned());
                    changes.services.insert(name);
                }
            },
        )
    }

    /// Hears of Splits. Their status is written by the controller in answer to what we report: it must not cause another table.
    pub fn of_splits(&self) -> Listener<RawSplit> {
        self.listener(
            |old: &RawSplit, new: &RawSplit| {
                let identity = |metadata: &ObjectMeta| {
                    let created = metadata.creation_timestamp.clone();
                    (metadata.uid.clone(), metadata.generation, created)
                };
                old.spec == new.spec && identity(&old.metadata) == identity(&new.metadata)
            },
            |change, changes| match (change.old, change.new) {
                (Some(_), Some(_)) => {
                    changes.splits.insert(name_of(change));
                }
                (None, _) | (_, None) => changes.everything = true,
            },
        )
    }

    /// Hears of Ingresses.
    pub fn of_ingresses(&self) -> Listener<Ingress> {
        self.listener(
            |old: &Ingress, new: &Ingress| {
                old.spec == new.spec && old.metadata.annotations == new.metadata.annotations
            },
            |_, changes| changes.everything = true,
        )
    }

    /// Hears of Secrets.
    pub fn of_secrets(&self) -> Listener<Secret> {
        self.listener(
            |old: &Secret, new: &Secret| old.data == new.data,
            |_, changes| changes.everything = true,
        )
    }

    /// Notes what is more than a change that no table shows; what does not parse is to be said of, which is part of a whole table.
    fn listener<K: 'static>(
        &self,
        is_same: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
        note: impl Fn(&Change<'_, K>, &mut Changes) + Send + Sync + 'static,
    ) -> Listener<K> {
        let journal = self.clone();
        Box::new(move |change: &Change<'_, K>| {
            let both = change.old.zip(change.new);
            if !change.is_malformed && both.is_some_and(|(old, new)| is_same(old, new)) {
                return;
            }
            let mut changes = journal.changes();
            note(change, &mut changes);
            changes.everything |= change.is_malformed;
            changes.bound();
            let is_news = *changes != Changes::default();
            drop(changes);
            if is_news {
                journal.0.news.notify_one();
            }
        })
    }

    fn changes(&self) -> MutexGuard<'_, Changes> {
        self.0
            .changes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn name_of<K>(change: &Change<'_, K>) -> Name {
    (change.namespace.to_owned(), change.name.to_owned())
}
