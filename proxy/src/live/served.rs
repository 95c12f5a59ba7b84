//! A table joined with the states of what it names: endpoints and versions as they were found again.
//!
//! Made by the publisher, shared by all workers. What equals the table before is taken over as it stands.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::Instant;

use super::identity::{EndpointState, Identities, Owner, VersionKey, VersionState};
use crate::table::{Backend, Endpoint, PlannedBackend, PlannedSplit, Source, Split, Table};

/// A table with the states of what it names.
#[derive(Debug, Default)]
pub(crate) struct Served {
    /// Counts publications; 0 is the empty table from before the first.
    pub(crate) serial: u64,
    pub(crate) table: Table,
    pub(crate) splits: Vec<ServedSplit>,
    pub(crate) backends: Vec<Arc<ServedBackend>>,
    /// Per backend, how many versions stand before its first.
    pub(crate) offsets: Vec<usize>,
    /// Versions of all backends.
    pub(crate) slots: usize,
    /// Ids of all versions.
    versions: HashSet<u64>,
    /// Uids of all Splits.
    uids: HashSet<String>,
}

/// A Split in service.
#[derive(Clone, Debug)]
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
        let splits: Vec<_> = table
            .splits
            .iter()
            .map(|split| join_split(split, identities))
            .collect();
        let join = |(index, planned)| {
            join_backend(planned, &splits, before.backends.get(index), identities)
        };
        let backends: Vec<_> = table.backends.iter().enumerate().map(join).collect();
        let (offsets, slots) = offsets(&backends);
        let listed = || backends.iter().flat_map(|backend| &backend.versions);
        let staying = listed()
            .flat_map(|version| &version.staying)
            .map(|endpoint| endpoint.id)
            .collect();
        let of_splits = splits.iter().flat_map(|split| &split.versions);
        let versions = of_splits.chain(listed().map(|version| &version.state));
        let versions = versions.map(|version| version.id).collect();
        identities.settle(&staying, &versions, now);
        let uids = splits
            .iter()
            .map(|split| split.planned.split.uid.clone())
            .collect();
        Self {
            serial: before.serial + 1,
            table,
            splits,
            backends,
            offsets,
            slots,
            versions,
            uids,
        }
    }

    /// Whether it names this version.
    pub(super) fn has_version(&self, id: u64) -> bool {
        self.versions.contains(&id)
    }

    /// Whether it names the Split of this uid.
    pub(super) fn has_split(&self, uid: &str) -> bool {
        self.uids.contains(uid)
    }
}

fn join_split(planned: &Arc<PlannedSplit>, identities: &mut Identities) -> ServedSplit {
    let keys =
        (0..planned.split.versions.len()).map(|version| split_version(&planned.split, version));
    let versions = keys.map(|key| identities.version(key)).collect();
    ServedSplit {
        planned: Arc::clone(planned),
        versions,
    }
}

/// `before` is what stood in the same place.
fn join_backend(
    planned: &Arc<PlannedBackend>,
    splits: &[ServedSplit],
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

impl ServedBackend {
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
