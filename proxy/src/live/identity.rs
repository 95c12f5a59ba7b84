//! What outlives a table: endpoints and versions, found again by identity when the next table comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use tokio::time::Instant;

use super::cells::{Cells, Counts, Glance};
use crate::breaker::Breaker;
use crate::budget::Budget;
use crate::table::{Endpoint, Protocol};

/// How long figures of a version are kept after it left the table: 10 minutes (data-plane rules, section 7).
const KEPT: Duration = Duration::from_secs(600);

/// An endpoint in service: what all workers share about it, on a cache line of its own.
#[derive(Debug)]
#[repr(align(64))]
pub struct EndpointState {
    in_flight: AtomicU32,
    /// How often the newest table lists it as one that stays.
    listed: AtomicU32,
    /// Whether it refuses connections.
    pub breaker: Breaker,
    /// A number no other endpoint of this process has or had: the key of a pool.
    pub id: u64,
    /// Where to connect.
    pub address: SocketAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whose it is, a pod's uid for one.
    pub pod: String,
}

impl EndpointState {
    /// Requests in flight to it, from all workers.
    #[must_use]
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Whether it has left the newest table or is about to go: its idle connections are closed and none is kept.
    #[must_use]
    pub fn leaving(&self) -> bool {
        self.listed.load(Relaxed) == 0
    }

    /// Counts a request in flight to it until the guard is dropped.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> EndpointInFlight {
        self.in_flight.fetch_add(1, Relaxed);
        EndpointInFlight(Arc::clone(self))
    }
}

/// A request in flight to an endpoint.
#[derive(Debug)]
pub struct EndpointInFlight(Arc<EndpointState>);

impl EndpointInFlight {
    /// The endpoint.
    #[must_use]
    pub fn endpoint(&self) -> &Arc<EndpointState> {
        &self.0
    }
}

impl Drop for EndpointInFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Whose version it is: the first half of its identity, and its labels.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner {
    /// A Split.
    Split {
        /// The Split's namespace.
        namespace: String,
        /// The Split's name.
        name: String,
        /// The Split's uid.
        uid: String,
    },
    /// A Service without a Split.
    Route {
        /// The Service's namespace.
        namespace: String,
        /// The Service's name.
        service: String,
        /// The Service's port.
        port: String,
    },
}

/// What a version is found again by. The same revision under another name (a canary that became stable) is another version.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// Whose it is.
    pub owner: Owner,
    /// Its name; empty without a Split.
    pub name: String,
    /// Its revision; may be empty.
    pub revision: String,
}

/// A version in service: what all workers share about it, and where each worker's cells are found.
#[derive(Debug)]
pub struct VersionState {
    /// A number no other version of this process has or had.
    pub id: u64,
    /// What it is.
    pub key: VersionKey,
    /// What its retries may cost.
    pub budget: Budget,
    /// How often the newest table names it.
    listed: AtomicU32,
    cells: Box<[OnceLock<Arc<Cells>>]>,
}

impl VersionState {
    /// The cells of a worker, made at its first request.
    pub(super) fn cells(&self, worker: usize) -> Arc<Cells> {
        Arc::clone(self.cells[worker].get_or_init(Arc::default))
    }

    /// Whether the newest table names it.
    pub(super) fn is_listed(&self) -> bool {
        self.listed.load(Relaxed) > 0
    }

    /// Whether any request was ever begun to it.
    #[must_use]
    pub fn is_asked_for(&self) -> bool {
        self.cells.iter().any(|cells| cells.get().is_some())
    }

    /// What tells whether anything was counted since.
    pub(crate) fn glance(&self) -> Glance {
        let mut glance = Glance::default();
        let cells = self.cells.iter().filter_map(OnceLock::get);
        cells.for_each(|cells| glance.add(cells));
        glance
    }

    /// The cells of all workers, added up.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        let cells = self.cells.iter().filter_map(OnceLock::get);
        cells.for_each(|cells| counts.merge(&cells.read()));
        counts
    }
}

/// A version that is known, and since when it is in no table any more.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) state: Arc<VersionState>,
    pub(super) left: Option<Instant>,
}

/// A version as a table names it, and the endpoints of it that stay.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    pub(super) version: &'a VersionState,
    pub(super) staying: &'a [Arc<EndpointState>],
}

/// Every endpoint and version that something may still speak of.
#[derive(Debug, Default)]
pub(super) struct Identities {
    workers: usize,
    next: u64,
    endpoints: HashMap<(SocketAddr, Protocol, String), Weak<EndpointState>>,
    /// Endpoints that left may still be among them.
    is_untidy: bool,
    versions: HashMap<VersionKey, Known>,
}

impl Identities {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers,
            ..Self::default()
        }
    }

    /// The state of an endpoint, the one it had before if it is known.
    pub(super) fn endpoint(
        &mut self,
        endpoint: &Endpoint,
        protocol: Protocol,
    ) -> Arc<EndpointState> {
        let key = (endpoint.address, protocol, endpoint.pod.clone());
        let id = self.next;
        let slot = self.endpoints.entry(key).or_default();
        if let Some(known) = slot.upgrade() {
            return known;
        }
        self.next += 1;
        let state = Arc::new(EndpointState {
            in_flight: AtomicU32::new(0),
            listed: AtomicU32::new(0),
            breaker: Breaker::default(),
            id,
            address: endpoint.address,
            protocol,
            pod: endpoint.pod.clone(),
        });
        *slot = Arc::downgrade(&state);
        state
    }

    /// The state of a version, the one it had before if it is known.
    pub(super) fn version(&mut self, key: VersionKey) -> Arc<VersionState> {
        if let Some(known) = self.versions.get(&key) {
            return Arc::clone(&known.state);
        }
        let cells = (0..self.workers).map(|_| OnceLock::new()).collect();
        let state = Arc::new(VersionState {
            id: self.next,
            key: key.clone(),
            budget: Budget::default(),
            listed: AtomicU32::new(0),
            cells,
        });
        self.next += 1;
        self.versions.insert(
            key,
            Known {
                state: Arc::clone(&state),
                left: None,
            },
        );
        state
    }

    /// The newest table lists them once more. Before anything [`Self::leave`]s: what stays must not look as if it left in between.
    pub(super) fn come<'a>(&mut self, listed: impl Iterator<Item = Listed<'a>>) {
        for Listed { version, staying } in listed {
            for endpoint in staying {
                endpoint.listed.fetch_add(1, Relaxed);
            }
            if version.listed.fetch_add(1, Relaxed) == 0
                && let Some(known) = self.versions.get_mut(&version.key)
            {
                known.left = None;
            }
        }
    }

    /// The newest table lists them once less. Endpoints that it does not list at all are leaving; versions have left at `now`.
    pub(super) fn leave<'a>(&mut self, listed: impl Iterator<Item = Listed<'a>>, now: Instant) {
        for Listed { version, staying } in listed {
            for endpoint in staying {
                self.is_untidy |= endpoint.listed.fetch_sub(1, Relaxed) == 1;
            }
            if version.listed.fetch_sub(1, Relaxed) == 1
                && let Some(known) = self.versions.get_mut(&version.key)
            {
                known.left = Some(now);
            }
        }
    }

    /// Forgets endpoints of which nothing speaks any more, and versions that left long ago.
    pub(super) fn tidy(&mut self, now: Instant) {
        if std::mem::take(&mut self.is_untidy) {
            let mut leaving = false;
            self.endpoints.retain(|_, endpoint| {
                let endpoint = endpoint.upgrade();
                leaving |= endpoint.as_ref().is_some_and(|known| known.leaving());
                endpoint.is_some()
            });
            self.is_untidy = leaving;
            self.forget(now);
        }
    }

    /// Forgets versions that left long ago and have nothing in flight.
    pub(super) fn forget(&mut self, now: Instant) {
        self.versions.retain(|_, known| {
            let old = known
                .left
                .is_some_and(|left| now.saturating_duration_since(left) >= KEPT);
            !old || known.state.counts().in_flight > 0
        });
    }

    /// Every version that is known, in the table or not.
    pub(super) fn versions(&self) -> impl Iterator<Item = &Known> {
        self.versions.values()
    }
}
