//! The table in service, and what outlives it.
//!
//! [`TableHandle::publish`] puts a table in service: it finds again by identity what endpoints and versions carry from table to
//! table (`identity`), stores the table in one `ArcSwap`, tells every worker and returns when each has taken it up; only then is
//! its generation reported. Workers (`worker`) hold it as an `Rc<LiveTable>`, and count in cells of their own (`cells`), so that a
//! request touches no line it need not share. Old tables are dropped here, on the caller's runtime, never by a worker.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

pub use self::cells::{Counter, Counts};
pub use self::identity::{EndpointInFlight, EndpointState, Owner, VersionKey, VersionState};
use self::identity::{Identities, Known};
pub use self::worker::{
    Choice, Chosen, InFlight, LiveTable, Refused, Seat, Why, Worker, WorkerVersion,
};
pub use crate::error::Outcome;
use crate::table::{Backend, Endpoint, Pick, PlannedBackend, PlannedSplit, Source, Split, Table};

mod ages;
pub mod cells;
#[cfg(test)]
pub(crate) mod fixture;
mod identity;
pub mod latency;
mod worker;

/// Opens the shop: a handle to publish tables with, and one seat per worker.
///
/// `now` is where the process's own clock begins. `pick`, if given, overrides where the points of every Split come from. Until the
/// first table is published, workers serve one without routes, and [`LiveTable::is_published`] says so.
#[must_use]
pub fn open(workers: NonZeroUsize, pick: Option<Pick>, now: Instant) -> (TableHandle, Vec<Seat>) {
    let empty = Arc::new(Served::default());
    let shared = Arc::new(Shared {
        epoch: now,
        pick,
        serial: AtomicU64::new(0),
        served: ArcSwap::new(Arc::clone(&empty)),
        told: watch::Sender::new(0),
        changes: watch::Sender::new(0),
        places: (0..workers.get()).map(|_| Place::default()).collect(),
        ledger: Mutex::new(Ledger {
            identities: Identities::new(workers.get()),
            history: VecDeque::from([empty]),
        }),
    });
    let seats = (0..workers.get())
        .map(|index| Seat::new(Arc::clone(&shared), index))
        .collect();
    (TableHandle { shared }, seats)
}

/// Publishes tables and reads what became of them. Cheap to clone.
#[derive(Clone, Debug)]
pub struct TableHandle {
    shared: Arc<Shared>,
}

impl TableHandle {
    /// Puts a table in service; returns when every worker has taken it up.
    ///
    /// Cancel safe: once begun, the table is in service and is reported when the workers have taken it up, whether or not anyone
    /// waits. Tables published at the same time are served one after the other; the last one stays.
    pub async fn publish(&self, table: Table) {
        let serial = self.shared.store(table, Instant::now());
        self.shared.taken_up(serial).await;
    }

    /// A number that changes with every publication and whenever a table has been taken up by all: look at the report again.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// What each worker says of its connections, in the order of the workers.
    #[must_use]
    pub fn fronts(&self) -> Vec<Arc<Front>> {
        self.shared
            .places
            .iter()
            .map(|place| Arc::clone(&place.front))
            .collect()
    }

    /// The newest table that every worker has taken up.
    pub(crate) fn acknowledged(&self) -> Arc<Served> {
        let taken = self.shared.taken();
        let ledger = self.shared.ledger();
        let served = ledger
            .history
            .iter()
            .rev()
            .find(|served| served.serial <= taken);
        Arc::clone(served.unwrap_or(&ledger.history[0]))
    }

    /// The newest table.
    pub(crate) fn newest(&self) -> Arc<Served> {
        self.shared.served.load_full()
    }

    /// Every version that figures are kept of, in order; forgets what is too old at `now`.
    pub(crate) fn versions(&self, now: Instant) -> Vec<Arc<VersionState>> {
        let taken = self.shared.taken();
        let mut ledger = self.shared.ledger();
        ledger.identities.forget(now);
        ledger.drop_old_tables(taken);
        let mut versions: Vec<_> = ledger
            .identities
            .versions()
            .map(|Known { state, .. }| Arc::clone(state))
            .collect();
        versions.sort_by(|a, b| a.key.cmp(&b.key));
        versions
    }

    /// Milliseconds of the process's own clock.
    pub(crate) fn clock_ms(&self, now: Instant) -> u64 {
        self.shared.clock_ms(now)
    }
}

/// What a worker says of its connections and of requests that reached no version. It alone writes, but for the errors.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Front {
    /// Connections from clients, open now.
    pub downstream_open: Counter,
    /// Connections from clients, ever.
    pub downstream_total: Counter,
    /// Connections to endpoints, open now.
    pub upstream_open: Counter,
    /// Connections to endpoints, open and idle now.
    pub upstream_idle: Counter,
    /// Requests that wait for a connection or a response head now.
    pub pending: Counter,
    errors: Mutex<BTreeMap<String, u64>>,
}

impl Front {
    /// Reasons that are counted by name; any further one counts as `other`. Reasons come from our own code and from refusals in
    /// the table: a bounded set, and the bound is kept even if it is not.
    const REASONS_MAX: usize = 64;

    /// Counts an error towards a client. Off the usual path: it takes a lock, which only the scrape shares.
    pub fn downstream_error(&self, reason: &str) {
        let mut errors = self.errors.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = errors.get_mut(reason) {
            *count += 1;
            return;
        }
        let reason = if errors.len() < Self::REASONS_MAX {
            reason
        } else {
            "other"
        };
        *errors.entry(reason.to_owned()).or_default() += 1;
    }

    /// Errors towards clients, by reason.
    #[must_use]
    pub fn downstream_errors(&self) -> BTreeMap<String, u64> {
        self.errors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

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

/// What handle and workers share.
#[derive(Debug)]
struct Shared {
    epoch: Instant,
    pick: Option<Pick>,
    /// That of `served`, on its own so that a worker sees with one load whether anything is new.
    serial: AtomicU64,
    served: ArcSwap<Served>,
    told: watch::Sender<u64>,
    changes: watch::Sender<u64>,
    places: Vec<Place>,
    ledger: Mutex<Ledger>,
}

/// What one worker tells the others.
#[derive(Debug, Default)]
struct Place {
    /// Serial of the table it has taken up; the highest number once it is gone.
    taken: AtomicU64,
    front: Arc<Front>,
}

/// What the publishing side keeps.
#[derive(Debug)]
struct Ledger {
    identities: Identities,
    /// Tables that a worker may still hold, the newest last.
    history: VecDeque<Arc<Served>>,
}

impl Shared {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a table in service and tells the workers; returns its serial.
    fn store(&self, table: Table, now: Instant) -> u64 {
        let taken = self.taken();
        let mut ledger = self.ledger();
        let served = Arc::new(ledger.serve(table, now));
        let serial = served.serial;
        ledger.history.push_back(Arc::clone(&served));
        self.served.store(served);
        self.serial.store(serial, Ordering::Release);
        ledger.drop_old_tables(taken);
        drop(ledger);
        self.told.send_replace(serial);
        self.changed();
        serial
    }

    async fn taken_up(&self, serial: u64) {
        let mut changes = self.changes.subscribe();
        while self.taken() < serial {
            // The sender lives as long as `self`.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Serial of the newest table that every worker has taken up.
    fn taken(&self) -> u64 {
        let taken = self
            .places
            .iter()
            .map(|place| place.taken.load(Ordering::Acquire));
        taken.min().unwrap_or(u64::MAX)
    }

    fn changed(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn clock_ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u64::MAX)
    }
}

impl Ledger {
    /// Joins a table with the states of what it names, and marks what it no longer names.
    fn serve(&mut self, mut table: Table, now: Instant) -> Served {
        let before = Arc::clone(
            self.history
                .back()
                .expect("the newest table is never dropped"),
        );
        table.share_with(&before.table);
        let splits: Vec<_> = table
            .splits
            .iter()
            .map(|split| self.serve_split(split))
            .collect();
        let serve = |(index, planned)| self.serve_backend(index, planned, &splits, &before);
        let backends: Vec<_> = table.backends.iter().enumerate().map(serve).collect();
        let (offsets, slots) = offsets(&backends);
        let staying = backends
            .iter()
            .flat_map(|backend| &backend.versions)
            .flat_map(|version| &version.staying);
        let staying: HashSet<u64> = staying.map(|endpoint| endpoint.id).collect();
        let served = splits.iter().flat_map(|split| &split.versions);
        let served = served.chain(
            backends
                .iter()
                .flat_map(|backend| &backend.versions)
                .map(|version| &version.state),
        );
        let served: HashSet<u64> = served.map(|version| version.id).collect();
        self.identities.settle(&staying, &served, now);
        Served {
            serial: before.serial + 1,
            table,
            splits,
            backends,
            offsets,
            slots,
        }
    }

    fn serve_split(&mut self, planned: &Arc<PlannedSplit>) -> ServedSplit {
        let keys =
            (0..planned.split.versions.len()).map(|version| split_version(&planned.split, version));
        let versions = keys.map(|key| self.identities.version(key)).collect();
        ServedSplit {
            planned: Arc::clone(planned),
            versions,
        }
    }

    fn serve_backend(
        &mut self,
        index: usize,
        planned: &Arc<PlannedBackend>,
        splits: &[ServedSplit],
        before: &Served,
    ) -> Arc<ServedBackend> {
        let states = match &planned.backend.source {
            Source::Endpoints(_) => vec![self.identities.version(route_version(&planned.backend))],
            Source::Split { split, .. } => splits[*split].versions.clone(),
        };
        let same = |known: &&Arc<ServedBackend>| {
            let ids = known.versions.iter().map(|version| version.state.id);
            Arc::ptr_eq(&known.planned, planned) && ids.eq(states.iter().map(|state| state.id))
        };
        if let Some(known) = before.backends.get(index).filter(same) {
            return Arc::clone(known);
        }
        let versions = states.into_iter().zip(endpoints(&planned.backend));
        let versions = versions
            .map(|(state, endpoints)| self.serve_version(state, endpoints, &planned.backend));
        Arc::new(ServedBackend {
            versions: versions.collect(),
            planned: Arc::clone(planned),
        })
    }

    /// EndpointSlices may list an endpoint twice; it stands here once.
    fn serve_version(
        &mut self,
        state: Arc<VersionState>,
        listed: &[Endpoint],
        backend: &Backend,
    ) -> ServedVersion {
        let mut version = ServedVersion {
            state,
            endpoints: Vec::new(),
            staying: Vec::new(),
        };
        let (mut admitted, mut stays) = (HashSet::new(), HashSet::new());
        for endpoint in listed {
            let state = self.identities.endpoint(endpoint, backend.protocol);
            if endpoint.admits() && admitted.insert(state.id) {
                version.endpoints.push(Arc::clone(&state));
            }
            if !endpoint.terminating && stays.insert(state.id) {
                version.staying.push(state);
            }
        }
        version
    }

    /// Drops tables that are older than what all have taken up and that no request holds any more.
    fn drop_old_tables(&mut self, taken: u64) {
        let newest = self.history.back().map_or(0, |served| served.serial);
        let needed = self
            .history
            .iter()
            .rev()
            .find(|served| served.serial <= taken)
            .map_or(0, |served| served.serial);
        let kept = |served: &Arc<Served>| {
            served.serial == newest || served.serial >= needed || Arc::strong_count(served) > 1
        };
        self.history.retain(kept);
    }
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

#[cfg(test)]
mod tests;
