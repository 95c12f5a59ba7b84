//! A table joined with the states of what it names: endpoints and versions as they were found again.
//!
//! Made by the publisher, shared by all workers. What equals the table before is taken over as it stands.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::identity::{EndpointState, Identities, Listed, Owner, VersionKey, VersionState};
use crate::table::{Backend, Endpoint, PlannedBackend, PlannedSplit, Source, Split, Table};

/// A table with the states of what it names.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Counts publications; 0 is the empty table from before the first.
    pub(crate) serial: u64,
    pub(crate) table: Table,
    pub(crate) splits: Vec<Arc<ServedSplit>>,
    pub(crate) backends: Vec<Arc<ServedBackend>>,
    /// Per backend, how many versions stand before its first.
    pub(crate) offsets: Vec<usize>,
    /// Versions of all backends.
    pub(crate) slots: usize,
    /// Uids of all Splits.
    uids: Arc<HashSet<String>>,
}

/// A Split in service.
#[derive(Debug)]
pub(crate) struct ServedSplit {
    pub(crate) planned: Arc<PlannedSplit>,
    pub(crate) versions: Vec<Arc<VersionState>>,
}

/// A backend in service.
#[derive(Debug)]
pub(crate) struct ServedBackend {
    pub(crate) planned: Arc<PlannedBackend>,
    pub(crate) versions: Vec<ServedVersion>,
}

/// A version as one backend serves it.
#[derive(Debug)]
pub(crate) struct ServedVersion {
    pub(crate) state: Arc<VersionState>,
    /// Those that take requests.
    pub(crate) endpoints: Vec<Arc<EndpointState>>,
    /// Those that are listed and not about to go.
    staying: Vec<Arc<EndpointState>>,
}

impl Served {
    /// Joins a table with the states of what it names, and marks what it names no more.
    pub(super) fn join(
        mut table: Table,
        before: &Self,
        identities: &mut Identities,
        now: Instant,
    ) -> Self {
        table.share_with(&before.table);
        let join = |(index, planned)| join_split(planned, before.splits.get(index), identities);
        let splits: Vec<_> = table.splits.iter().enumerate().map(join).collect();
        let join = |(index, planned)| {
            join_backend(planned, &splits, before.backends.get(index), identities)
        };
        let backends: Vec<_> = table.backends.iter().enumerate().map(join).collect();
        identities.come(new_in(&splits, &before.splits).flat_map(|split| split.listed()));
        identities.come(new_in(&backends, &before.backends).flat_map(|backend| backend.listed()));
        let gone = new_in(&before.splits, &splits);
        identities.leave(gone.flat_map(|split| split.listed()), now);
        let gone = new_in(&before.backends, &backends);
        identities.leave(gone.flat_map(|backend| backend.listed()), now);
        identities.tidy(now);
        let (offsets, slots) = offsets(&backends);
        Self {
            serial: before.serial + 1,
            uids: uids(&splits, before),
            table,
            splits,
            backends,
            offsets,
            slots,
        }
    }

    /// Whether it names the Split of this uid.
    pub(super) fn has_split(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }
}

/// What does not stand in the same place of `before`.
fn new_in<'a, T>(now: &'a [Arc<T>], before: &'a [Arc<T>]) -> impl Iterator<Item = &'a Arc<T>> {
    let pairs = now.iter().enumerate();
    pairs.filter_map(|(index, now)| {
        let stays = before
            .get(index)
            .is_some_and(|before| Arc::ptr_eq(now, before));
        (!stays).then_some(now)
    })
}

/// Those of the table before, where they are the same.
fn uids(splits: &[Arc<ServedSplit>], before: &Served) -> Arc<HashSet<String>> {
    fn uid(split: &Arc<ServedSplit>) -> &String {
        &split.planned.split.uid
    }
    let same = |(now, before): (&Arc<ServedSplit>, &Arc<ServedSplit>)| {
        Arc::ptr_eq(now, before) || uid(now) == uid(before)
    };
    if splits.len() == before.splits.len() && splits.iter().zip(&before.splits).all(same) {
        return Arc::clone(&before.uids);
    }
    Arc::new(splits.iter().map(uid).cloned().collect())
}

/// `before` is what stood in the same place.
fn join_split(
    planned: &Arc<PlannedSplit>,
    before: Option<&Arc<ServedSplit>>,
    identities: &mut Identities,
) -> Arc<ServedSplit> {
    if let Some(known) = before.filter(|known| Arc::ptr_eq(&known.planned, planned)) {
        return Arc::clone(known);
    }
    let keys =
        (0..planned.split.versions.len()).map(|version| split_version(&planned.split, version));
    let versions = keys.map(|key| identities.version(key)).collect();
    Arc::new(ServedSplit {
        planned: Arc::clone(planned),
        versions,
    })
}

/// `before` is what stood in the same place.
fn join_backend(
    planned: &Arc<PlannedBackend>,
    splits: &[Arc<ServedSplit>],
    before: Option<&Arc<ServedBackend>>,
    identities: &mut Identities,
) -> Arc<ServedBackend> {
    let split = match &planned.backend.source {
        Source::Endpoints(_) => None,
        Source::Split { split, .. } => Some(splits[*split].versions.as_slice()),
    };
    let same = |known: &&Arc<ServedBackend>| {
        Arc::ptr_eq(&known.planned, planned) && split.is_none_or(|split| known.is_of(split))
    };
    if let Some(known) = before.filter(same) {
        return Arc::clone(known);
    }
    let states = match split {
        Some(versions) => versions.to_vec(),
        None => vec![identities.version(route_version(&planned.backend))],
    };
    let versions = states.into_iter().zip(endpoints(&planned.backend));
    let versions =
        versions.map(|(state, listed)| join_version(state, listed, &planned.backend, identities));
    Arc::new(ServedBackend {
        versions: versions.collect(),
        planned: Arc::clone(planned),
    })
}

impl ServedSplit {
    fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.versions.iter().map(|version| Listed {
            version,
            staying: &[],
        })
    }
}

impl ServedBackend {
    fn listed(&self) -> impl Iterator<Item = Listed<'_>> {
        self.versions.iter().map(|version| Listed {
            version: &version.state,
            staying: &version.staying,
        })
    }

    fn is_of(&self, split: &[Arc<VersionState>]) -> bool {
        let states = self.versions.iter().map(|version| version.state.id);
        states.eq(split.iter().map(|state| state.id))
    }
}

/// EndpointSlices may list an endpoint twice; it stands here once.
fn join_version(
    state: Arc<VersionState>,
    listed: &[Endpoint],
    backend: &Backend,
    identities: &mut Identities,
) -> ServedVersion {
    let mut version = ServedVersion {
        state,
        endpoints: Vec::new(),
        staying: Vec::new(),
    };
    let (mut admitted, mut stays) = (HashSet::new(), HashSet::new());
    for endpoint in listed {
        let state = identities.endpoint(endpoint, backend.protocol);
        if endpoint.admits() && admitted.insert(state.id) {
            version.endpoints.push(Arc::clone(&state));
        }
        if !endpoint.terminating && stays.insert(state.id) {
            version.staying.push(state);
        }
    }
    version
}

fn offsets(backends: &[Arc<ServedBackend>]) -> (Vec<usize>, usize) {
    let mut slots = 0;
    let offset = |backend: &Arc<ServedBackend>| {
        let offset = slots;
        slots += backend.versions.len();
        offset
    };
    (backends.iter().map(offset).collect(), slots)
}

fn endpoints(backend: &Backend) -> impl Iterator<Item = &[Endpoint]> {
    let lists = match &backend.source {
        Source::Endpoints(endpoints) => std::slice::from_ref(endpoints),
        Source::Split { endpoints, .. } => endpoints.as_slice(),
    };
    lists.iter().map(Vec::as_slice)
}

fn split_version(split: &Split, version: usize) -> VersionKey {
    let version = &split.versions[version];
    let (namespace, name, uid) = (
        split.namespace.clone(),
        split.name.clone(),
        split.uid.clone(),
    );
    VersionKey {
        owner: Owner::Split {
            namespace,
            name,
            uid,
        },
        name: version.name.clone(),
        revision: version.revision.clone(),
    }
}

fn route_version(backend: &Backend) -> VersionKey {
    let (namespace, service, port) = (
        backend.namespace.clone(),
        backend.service.clone(),
        backend.port.clone(),
    );
    VersionKey {
        owner: Owner::Route {
            namespace,
            service,
            port,
        },
        name: String::new(),
        revision: String::new(),
    }
}
