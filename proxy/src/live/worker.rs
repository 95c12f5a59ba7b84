//! The table as one worker holds it: the pick, and the counting of a request from its begin to its end.
//!
//! Everything here stays on one thread. A worker's sequences and its places in the cells are found at the first request that needs
//! them and kept from table to table. The loop that drives a worker, its pool and its I/O are elsewhere.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::Instant;

use super::ages::Ages;
use super::cells::{CLIENT_CLOSED, Cells};
use super::{EndpointState, Front, Outcome, Served, ServedBackend, Shared, VersionState};
use crate::split::{Lot, Sequence, Shortage};
use crate::table::{Pick, Protocol, Source, Split, Target, Version};

/// A worker's place, to be carried to its thread.
#[derive(Debug)]
pub struct Seat {
    shared: Arc<Shared>,
    index: usize,
}

impl Seat {
    pub(super) fn new(shared: Arc<Shared>, index: usize) -> Self {
        Self { shared, index }
    }

    /// Takes the place, on the worker's own thread. `seed` feeds this worker's random numbers: draw it from the system.
    #[must_use]
    pub fn take(self, seed: u64) -> Rc<Worker> {
        let Self { shared, index } = self;
        let served = shared.served.load_full();
        let memory = Rc::new(Memory {
            index,
            random: RefCell::new(SmallRng::seed_from_u64(seed)),
            versions: RefCell::default(),
            sequences: RefCell::default(),
        });
        let front = Arc::clone(&shared.places[index].front);
        let worker = Worker {
            seen: Cell::new(served.serial),
            current: RefCell::new(Rc::new(LiveTable::new(&shared, Rc::clone(&memory), served))),
            shared,
            memory,
            front,
        };
        worker.report(worker.current.borrow().served.serial);
        Rc::new(worker)
    }
}

/// One worker's view of the table in service.
#[derive(Debug)]
pub struct Worker {
    shared: Arc<Shared>,
    memory: Rc<Memory>,
    front: Arc<Front>,
    current: RefCell<Rc<LiveTable>>,
    /// Serial of the newest table that [`Worker::changed`] has told of.
    seen: Cell<u64>,
}

/// What a worker keeps from table to table.
#[derive(Debug)]
struct Memory {
    index: usize,
    random: RefCell<SmallRng>,
    versions: RefCell<HashMap<u64, Rc<WorkerVersion>>>,
    sequences: RefCell<HashMap<String, Rc<Cell<Sequence>>>>,
}

impl Worker {
    /// The table to serve a request with: the newest one, taken up now if it is not yet. Take it once per request.
    #[must_use]
    pub fn current(&self) -> Rc<LiveTable> {
        if self.shared.serial.load(Ordering::Acquire) != self.current.borrow().served.serial {
            self.take_up();
        }
        Rc::clone(&self.current.borrow())
    }

    /// Returns when a table was published that this has not told of yet. Then call [`Worker::take_up`], and close the idle
    /// connections of endpoints that are [`EndpointState::leaving`]. Cancel safe. Not for two tasks at once.
    pub async fn changed(&self) {
        let mut told = self.shared.told.subscribe();
        match told
            .wait_for(|serial| *serial > self.seen.get())
            .await
            .map(|serial| *serial)
        {
            Ok(serial) => self.seen.set(serial),
            Err(_) => std::future::pending().await, // cannot be: `shared` holds the sender
        }
    }

    /// Serves the newest table from now on, and says so. Requests that are under way stay with theirs.
    pub fn take_up(&self) {
        let served = self.shared.served.load_full();
        let serial = served.serial;
        if serial == self.current.borrow().served.serial {
            return;
        }
        self.memory.forget(&served);
        let table = LiveTable::new(&self.shared, Rc::clone(&self.memory), served);
        drop(self.current.replace(Rc::new(table)));
        self.report(serial);
    }

    /// A random number from this worker's own generator.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.memory.random.borrow_mut().random()
    }

    /// Where this worker counts its connections and the errors that concern no version.
    #[must_use]
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Milliseconds since the process's own clock began, which all workers share: for breakers and budgets.
    #[must_use]
    pub fn clock_ms(&self, now: Instant) -> u64 {
        self.shared.clock_ms(now)
    }

    /// This worker's number, from 0.
    #[must_use]
    pub fn index(&self) -> usize {
        self.memory.index
    }

    fn report(&self, serial: u64) {
        self.shared.places[self.memory.index]
            .taken
            .store(serial, Ordering::Release);
        self.shared.changed();
    }
}

impl Drop for Worker {
    /// A worker that is gone serves no table: nobody waits for it.
    fn drop(&mut self) {
        self.report(u64::MAX);
    }
}

impl Memory {
    /// Forgets the sequences of Splits and the versions that `served` does not hold, unless a request is under way.
    fn forget(&self, served: &Served) {
        self.sequences
            .borrow_mut()
            .retain(|uid, _| served.has_split(uid));
        let kept = |_: &u64, version: &mut Rc<WorkerVersion>| {
            version.state.is_listed() || Rc::strong_count(version) > 1
        };
        self.versions.borrow_mut().retain(kept);
    }

    fn sequence(&self, uid: &str) -> Rc<Cell<Sequence>> {
        if let Some(sequence) = self.sequences.borrow().get(uid) {
            return Rc::clone(sequence);
        }
        let sequence = {
            let mut random = self.random.borrow_mut();
            Rc::new(Cell::new(Sequence::new(random.random(), random.random())))
        };
        self.sequences
            .borrow_mut()
            .insert(uid.to_owned(), Rc::clone(&sequence));
        sequence
    }

    fn version(&self, state: &Arc<VersionState>) -> Rc<WorkerVersion> {
        let mut versions = self.versions.borrow_mut();
        let version = versions.entry(state.id).or_insert_with(|| {
            Rc::new(WorkerVersion {
                cells: state.cells(self.index),
                state: Arc::clone(state),
                ages: RefCell::default(),
            })
        });
        Rc::clone(version)
    }
}

/// A version as one worker counts it.
#[derive(Debug)]
pub struct WorkerVersion {
    state: Arc<VersionState>,
    cells: Arc<Cells>,
    ages: RefCell<Ages>,
}

impl WorkerVersion {
    /// What the workers share about it.
    #[must_use]
    pub fn state(&self) -> &VersionState {
        &self.state
    }

    /// Counts a connection that was made to one of its endpoints.
    pub fn connected(&self) {
        self.cells.connected();
    }

    /// Counts a connection that could not be made.
    pub fn connect_failed(&self) {
        self.cells.connect_failed();
    }

    /// Counts a second attempt.
    pub fn retried(&self) {
        self.cells.retried();
    }
}

/// The table in service as one worker holds it. A request sees one of these, whatever is published meanwhile.
#[derive(Debug)]
pub struct LiveTable {
    served: Arc<Served>,
    memory: Rc<Memory>,
    shared: Arc<Shared>,
    sequences: Box<[OnceCell<Rc<Cell<Sequence>>>]>,
    versions: Box<[OnceCell<Rc<WorkerVersion>>]>,
}

impl LiveTable {
    fn new(shared: &Arc<Shared>, memory: Rc<Memory>, served: Arc<Served>) -> Self {
        Self {
            sequences: served.splits.iter().map(|_| OnceCell::new()).collect(),
            versions: (0..served.slots).map(|_| OnceCell::new()).collect(),
            shared: Arc::clone(shared),
            memory,
            served,
        }
    }

    /// Whether it was published; before the first publication the proxy does not listen.
    #[must_use]
    pub fn is_published(&self) -> bool {
        self.served.serial > 0
    }

    /// The target of a request; `None`: 404. `host` may have a port, `path` has no query.
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<&Target> {
        self.served.table.route(host, path)
    }

    /// The target of a request that came in at an apex port; `None`: 503.
    #[must_use]
    pub fn apex(&self, port: u16) -> Option<&Target> {
        self.served.table.apex(port)
    }

    /// Chooses the version for a request to a backend that [`LiveTable::route`] named. Takes a point of the Split's sequence and
    /// counts a fallback: call it once per request.
    #[must_use]
    pub fn choose(&self, backend: usize) -> Choice<'_> {
        let served = &*self.served.backends[backend];
        let chosen = |version, why| Chosen {
            table: self,
            backend: served,
            index: backend,
            version,
            why,
        };
        let Source::Split { split, .. } = &served.planned.backend.source else {
            return admitted(chosen(0, Why::Only));
        };
        let lot = served
            .planned
            .plan
            .as_ref()
            .and_then(|plan| plan.lot(self.point(*split)));
        let Some(Lot {
            meant,
            served,
            shortage,
        }) = lot
        else {
            return Choice::Refuse(None, Refused::NoWeight);
        };
        if let Some(shortage) = shortage {
            self.version(backend, meant).cells.fell_back(shortage);
        }
        match (served, shortage) {
            (Some(version), None) => admitted(chosen(version, Why::Weight)),
            (Some(version), Some(shortage)) => admitted(chosen(version, Why::Fallback(shortage))),
            (None, shortage) => {
                let shortage = shortage.unwrap_or(Shortage::NoneReady);
                Choice::Refuse(Some(chosen(meant, Why::Weight)), Refused::Short(shortage))
            }
        }
    }

    fn point(&self, split: usize) -> u64 {
        let planned = &self.served.splits[split].planned.split;
        match self.shared.pick.unwrap_or(planned.pick) {
            Pick::Random => self.memory.random.borrow_mut().random(),
            Pick::Sequence => {
                let cell = self.sequences[split].get_or_init(|| self.memory.sequence(&planned.uid));
                let mut sequence = cell.get();
                let point = sequence.advance();
                cell.set(sequence);
                point
            }
        }
    }

    fn version(&self, backend: usize, version: usize) -> &Rc<WorkerVersion> {
        let slot = &self.versions[self.served.offsets[backend] + version];
        slot.get_or_init(|| {
            self.memory
                .version(&self.served.backends[backend].versions[version].state)
        })
    }
}

fn admitted(chosen: Chosen<'_>) -> Choice<'_> {
    if chosen.endpoints().is_empty() {
        return Choice::Refuse(Some(chosen), Refused::Short(Shortage::NoneReady));
    }
    Choice::Serve(chosen)
}

/// What becomes of a request to a backend.
#[derive(Debug)]
pub enum Choice<'a> {
    /// It goes to one of the endpoints of this version; there is at least one.
    Serve(Chosen<'a>),
    /// It is answered with 503, counted in this version if the weights meant one.
    Refuse(Option<Chosen<'a>>, Refused),
}

/// Why a request to a backend is answered with 503.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Every weight of the rule is 0.
    NoWeight,
    /// The version cannot carry it and no other may.
    Short(Shortage),
}

impl Refused {
    /// Its name in `x-sidestep-reason` and logs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoWeight => "no-weight",
            Self::Short(shortage) => shortage.name(),
        }
    }
}

/// Why a version was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// The backend has no Split.
    Only,
    /// By weight.
    Weight,
    /// The weights meant another version, which could not carry it.
    Fallback(Shortage),
}

impl Why {
    /// Its name in the access log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Only => "only",
            Self::Weight => "weight",
            Self::Fallback(_) => "fallback",
        }
    }
}

/// A version chosen for a request.
#[derive(Clone, Copy, Debug)]
pub struct Chosen<'a> {
    table: &'a LiveTable,
    backend: &'a ServedBackend,
    index: usize,
    version: usize,
    /// Why this one.
    pub why: Why,
}

impl<'a> Chosen<'a> {
    /// The endpoints that take requests.
    #[must_use]
    pub fn endpoints(&self) -> &'a [Arc<EndpointState>] {
        &self.backend.versions[self.version].endpoints
    }

    /// What the endpoints speak.
    #[must_use]
    pub fn protocol(&self) -> Protocol {
        self.backend.planned.backend.protocol
    }

    /// The Split, if the backend has one: its generation is the table's for this request.
    #[must_use]
    pub fn split(&self) -> Option<&'a Split> {
        match &self.backend.planned.backend.source {
            Source::Endpoints(_) => None,
            Source::Split { split, .. } => Some(&self.table.served.splits[*split].planned.split),
        }
    }

    /// The version as the Split lists it, if the backend has a Split.
    #[must_use]
    pub fn version(&self) -> Option<&'a Version> {
        self.split().map(|split| &split.versions[self.version])
    }

    /// What the workers share about the version.
    #[must_use]
    pub fn state(&self) -> &'a Arc<VersionState> {
        &self.backend.versions[self.version].state
    }

    /// Counts the request in flight. No `.await` between [`Worker::current`] and this: a table that is taken up is one whose
    /// predecessor gets no new requests.
    #[must_use]
    pub fn begin(&self, now: Instant) -> InFlight {
        let version = Rc::clone(self.table.version(self.index, self.version));
        version.cells.begun();
        let slot = {
            let mut ages = version.ages.borrow_mut();
            let slot = ages.add(self.table.shared.clock_ms(now));
            version.cells.oldest(ages.oldest_ms());
            slot
        };
        InFlight {
            version,
            slot,
            start: now,
            status: CLIENT_CLOSED,
            ended: false,
        }
    }
}

/// A request in flight to a version. Holds no table. Dropped without [`InFlight::finish`] it counts as aborted by the client.
#[derive(Debug)]
pub struct InFlight {
    version: Rc<WorkerVersion>,
    slot: usize,
    start: Instant,
    status: u16,
    ended: bool,
}

impl InFlight {
    /// The version, to count its connections and retries.
    #[must_use]
    pub fn version(&self) -> &WorkerVersion {
        &self.version
    }

    /// When it began.
    #[must_use]
    pub fn start(&self) -> Instant {
        self.start
    }

    /// Notes the status that the client is sent; without one, 499 is counted.
    pub fn answered(&mut self, status: u16) {
        self.status = status;
    }

    /// Ends it: at the end of the response body or of the tunnel.
    ///
    /// Its latency, from begin to `now`, goes into the histogram unless the client aborted or the connection was upgraded: what
    /// those last says nothing about the version.
    pub fn finish(mut self, outcome: Outcome, now: Instant) {
        let timed = outcome != Outcome::ClientAbort && self.status != 101;
        let latency = timed.then(|| now.saturating_duration_since(self.start));
        self.end(outcome, latency);
    }

    fn end(&mut self, outcome: Outcome, latency: Option<std::time::Duration>) {
        self.ended = true;
        self.version.cells.ended(self.status, outcome, latency);
        let mut ages = self.version.ages.borrow_mut();
        ages.remove(self.slot);
        self.version.cells.oldest(ages.oldest_ms());
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.ended {
            self.end(Outcome::ClientAbort, None);
        }
    }
}
