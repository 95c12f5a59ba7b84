//! Which keys a change of an object concerns.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::ResourceExt;
use kube::api::ObjectMeta;

use super::objects::{Deployment, Key, Keys, Name, controller_of, rollout_of, services_of};
use super::{ingress, words};
use crate::api::{AnalysisRun, ReplicaSet, Rollout, Split};
use crate::cache::{Cache, Change, Listener};
use crate::controller::queue::Lanes;
use crate::routing::endpoints::owner;
use crate::routing::ingress::class;

pub(super) fn on_rollout(keys: &Keys) -> Listener<Rollout> {
    let keys = Arc::clone(keys);
    Box::new(move |change| {
        keys.add(Key::Rollout(Name::new(change.namespace, change.name)));
        // A Service that is no longer named gets its selector back.
        for name in both(change).flat_map(services_of).collect::<BTreeSet<_>>() {
            keys.add(Key::Service(Name::new(change.namespace, &name)));
        }
    })
}

pub(super) fn on_replica_set(keys: &Keys, rollouts: &Cache<Rollout>) -> Listener<ReplicaSet> {
    let (keys, rollouts) = (Arc::clone(keys), rollouts.clone());
    Box::new(move |change| {
        for set in both(change) {
            match controller_of(&set.metadata) {
                Some(_) => keys.add_owner(&set.metadata),
                // One without an owner may be adopted by any.
                None => keys.add_rollouts(rollouts.list(change.namespace)),
            }
        }
    })
}

pub(super) fn on_service(
    keys: &Keys,
    rollouts: &Cache<Rollout>,
    sets: &Cache<ReplicaSet>,
    splits: &Cache<Split>,
) -> Listener<Service> {
    let (keys, rollouts) = (Arc::clone(keys), rollouts.clone());
    let (sets, splits) = (sets.clone(), splits.clone());
    Box::new(move |change| {
        let name = change.name;
        keys.add(Key::Service(Name::new(change.namespace, name)));
        keys.add_rollouts(rollouts.holding(change.namespace, name));
        if both(change).count() < 2 {
            for word in [name, &words::of_version(name)] {
                let named = splits.holding(change.namespace, word);
                named.iter().for_each(|split| keys.add_split(split));
            }
        }
        // A revision Service belongs to a ReplicaSet, which belongs to a Rollout.
        let owners = both(change).filter_map(|service| controller_of(&service.metadata));
        for owner in owners.filter(|owner| owner.kind == "ReplicaSet") {
            if let Some(set) = sets.get(change.namespace, &owner.name) {
                keys.add_owner(&set.metadata);
            }
        }
    })
}

pub(super) fn on_split(keys: &Keys) -> Listener<Split> {
    let keys = Arc::clone(keys);
    Box::new(move |change| {
        // A Split has its Rollout's name; one of another owner stands in the Rollout's way.
        keys.add(Key::Rollout(Name::new(change.namespace, change.name)));
        both(change).for_each(|split| keys.add_split(split));
        if !is_of_status(change) {
            // Who governs a Service is decided among all Splits that would.
            for service in both(change).flat_map(words::governed) {
                let rivals = change.cache.holding(change.namespace, service);
                rivals.iter().for_each(|split| keys.add_split(split));
            }
        }
    })
}

pub(super) fn on_apex(keys: &Keys) -> Listener<Service> {
    let keys = Arc::clone(keys);
    Box::new(move |change| keys.add(Key::Apex(Name::new(change.namespace, change.name))))
}

pub(super) fn on_ingress(keys: &Keys) -> Listener<Ingress> {
    let keys = Arc::clone(keys);
    Box::new(move |change| keys.add(Key::Ingress(Name::new(change.namespace, change.name))))
}

/// The Ingresses of the class that a Service is, or was, the way in for.
pub(super) fn on_entrance(keys: &Keys, ingresses: &Cache<Ingress>) -> Listener<Service> {
    let (keys, ingresses) = (Arc::clone(keys), ingresses.clone());
    Box::new(move |change| {
        let classes: BTreeSet<_> = both(change).filter_map(ingress::class_of).collect();
        for ingress in ingresses.all() {
            if class(&ingress).is_some_and(|class| classes.contains(class)) {
                keys.add(Key::Ingress(Name::of(&ingress.metadata)));
            }
        }
    })
}

pub(super) fn on_split_of_apexes(keys: &Keys) -> Listener<Split> {
    let keys = Arc::clone(keys);
    Box::new(move |change| {
        // What the proxies say of it stands in its status, and came from them first.
        if !is_of_status(change) {
            both(change).for_each(|split| keys.add_apexes(split));
        }
    })
}

/// The Service that a slice is of; and those whose Splits have it as a version, since they may lead to its pods.
pub(super) fn on_slice(keys: &Keys, splits: &Cache<Split>) -> Listener<EndpointSlice> {
    let (keys, splits) = (Arc::clone(keys), splits.clone());
    Box::new(move |change| {
        let names = both(change).filter_map(owner).map(|(_, service)| service);
        for name in names.collect::<BTreeSet<_>>() {
            keys.add(Key::Apex(Name::new(change.namespace, name)));
            let leading = splits.holding(change.namespace, &words::of_version(name));
            leading.iter().for_each(|split| keys.add_apexes(split));
        }
    })
}

pub(super) fn on_run(keys: &Keys) -> Listener<AnalysisRun> {
    let keys = Arc::clone(keys);
    Box::new(move |change| {
        keys.add(Key::AnalysisRun(Name::new(change.namespace, change.name)));
        for run in both(change) {
            keys.add_owner(&run.metadata);
        }
    })
}

pub(super) fn on_template<K: 'static>(keys: &Keys, rollouts: &Cache<Rollout>) -> Listener<K> {
    let (keys, rollouts) = (Arc::clone(keys), rollouts.clone());
    Box::new(move |change| match change.namespace {
        "" => keys.add_rollouts(rollouts.all()),
        namespace => keys.add_rollouts(rollouts.list(namespace)),
    })
}

pub(super) fn on_deployment(keys: &Keys, rollouts: &Cache<Rollout>) -> Listener<Deployment> {
    let (keys, rollouts) = (Arc::clone(keys), rollouts.clone());
    Box::new(move |change| {
        let workload = words::of_workload(change.name);
        keys.add_rollouts(rollouts.holding(change.namespace, &workload));
    })
}

impl Lanes<Key> {
    /// The Services that a Split governs, which may be apexes.
    pub fn add_apexes(&self, split: &Split) {
        let namespace = split.namespace().unwrap_or_default();
        for service in words::governed(split).collect::<BTreeSet<_>>() {
            self.add(Key::Apex(Name::new(&namespace, service)));
        }
    }

    /// Whoever writes a Split's conditions: its Rollout, or nobody else.
    pub fn add_split(&self, split: &Split) {
        let name = Name::of(&split.metadata);
        let of_rollout = rollout_of(&split.metadata).is_some_and(|owner| owner.name == name.name);
        self.add(match of_rollout {
            true => Key::Rollout(name),
            false => Key::Split(name),
        });
    }

    fn add_owner(&self, metadata: &ObjectMeta) {
        if let Some(owner) = rollout_of(metadata) {
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            self.add(Key::Rollout(Name::new(namespace, &owner.name)));
        }
    }

    fn add_rollouts(&self, rollouts: impl IntoIterator<Item = Arc<Rollout>>) {
        for rollout in rollouts {
            self.add(Key::Rollout(Name::of(&rollout.metadata)));
        }
    }
}

/// Whether nothing is new but what is said of a Split.
fn is_of_status(change: &Change<'_, Split>) -> bool {
    both(change).count() == 2 && change.old.map(|old| &old.spec) == change.new.map(|new| &new.spec)
}

/// The object as it was and as it is.
fn both<'a, K>(change: &Change<'a, K>) -> impl Iterator<Item = &'a K> + use<'a, K> {
    [change.old, change.new]
        .into_iter()
        .flatten()
        .map(AsRef::as_ref)
}
