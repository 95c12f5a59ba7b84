//! The table in service, and what outlives it.
//!
//! [`TableHandle::publish`] puts a table in service: it finds again by identity what endpoints and versions carry from table to
//! table (`identity`, `served`), stores the table in one `ArcSwap`, tells every worker and returns when each has taken it up; only then is
//! its generation reported. Workers (`worker`) hold it as an `Rc<LiveTable>`, and count in cells of their own (`cells`), so that a
//! request touches no line it need not share. Old tables are dropped here, on the caller's runtime, never by a worker.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::time::Instant;

pub(crate) use self::cells::Glance;
pub use self::cells::{Counter, Counts};
pub use self::identity::{EndpointInFlight, EndpointState, Owner, VersionKey, VersionState};
use self::identity::{Identities, Known};
pub(crate) use self::served::{Served, ServedBackend, ServedSplit, ServedVersion};
pub use self::worker::{
    Choice, Chosen, InFlight, LiveTable, Refused, Seat, Why, Worker, WorkerVersion,
};
pub use crate::error::Outcome;
use crate::table::{Pick, Table};

mod ages;
pub mod cells;
#[cfg(test)]
pub(crate) mod fixture;
mod identity;
pub mod latency;
mod served;
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

    /// Whether every worker serves a table.
    #[must_use]
    pub fn is_served(&self) -> bool {
        self.acknowledged().serial > 0
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

    /// Versions that left the newest table and that figures are kept of, in order; forgets what is too old at `now`.
    pub(crate) fn left(&self, now: Instant) -> Vec<Arc<VersionState>> {
        let taken = self.shared.taken();
        let mut ledger = self.shared.ledger();
        ledger.identities.forget(now);
        ledger.drop_old_tables(taken);
        let known = ledger.identities.versions();
        let left = known.filter(|known| known.left.is_some());
        let mut left: Vec<_> = left.map(|known| Arc::clone(&known.state)).collect();
        left.sort_by(|a, b| a.key.cmp(&b.key));
        left
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
        let before = ledger.newest();
        let served = Arc::new(Served::join(table, &before, &mut ledger.identities, now));
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
    fn newest(&self) -> Arc<Served> {
        Arc::clone(
            self.history
                .back()
                .expect("the newest table is never dropped"),
        )
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

#[cfg(test)]
mod tests;
