//! What one worker counts of one version: named cells that it alone writes and anyone may read.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use super::latency;
use crate::error::Outcome;
use crate::split::Shortage;

/// Status of a request whose client went away before any was sent: 499, as nginx logs it.
pub const CLIENT_CLOSED: u16 = 499;

/// The statuses that are counted one by one.
const NAMED: [(u16, &str); 24] = [
    (101, "101"),
    (200, "200"),
    (201, "201"),
    (202, "202"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (304, "304"),
    (307, "307"),
    (308, "308"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (429, "429"),
    (CLIENT_CLOSED, "499"),
    (500, "500"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];

/// The names of all others.
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Slots for statuses: the named ones, then one per class.
pub const CODES: usize = NAMED.len() + CLASSES.len();

/// The name of a slot for statuses: `200`, or `2xx` for the rest of a class.
#[must_use]
pub fn code_name(slot: usize) -> &'static str {
    NAMED
        .get(slot)
        .map_or_else(|| CLASSES[slot - NAMED.len()], |(_, name)| name)
}

/// The slot a status is counted in. What is no HTTP status counts as the nearest class.
#[must_use]
pub fn code_slot(status: u16) -> usize {
    match NAMED.binary_search_by_key(&status, |(code, _)| *code) {
        Ok(slot) => slot,
        Err(_) => NAMED.len() + usize::from(status / 100).clamp(1, CLASSES.len()) - 1,
    }
}

/// A number that one thread changes and any may read: a load and a store, no locked instruction.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds. Only ever called by the one thread that owns the cell.
    pub fn add(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Takes away what was added: for numbers that go both ways. Only ever called by the one thread that owns the cell.
    pub fn take(&self, amount: u64) {
        self.0
            .store(self.0.load(Relaxed).wrapping_sub(amount), Relaxed);
    }

    /// The number now.
    #[must_use]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }
}

/// What one worker counts of one version, on cache lines of its own.
#[derive(Debug)]
#[repr(align(128))]
pub struct Cells {
    in_flight: Counter,
    /// Start of the oldest request in flight, in milliseconds of the process's own clock, plus 1; 0: none is in flight.
    oldest: Counter,
    codes: [Counter; CODES],
    outcomes: [Counter; Outcome::ALL.len()],
    fallback: [Counter; Shortage::ALL.len()],
    latency: [Counter; latency::CELLS],
    latency_sum_us: Counter,
    connects: Counter,
    connect_failures: Counter,
    retries: Counter,
}

impl Default for Cells {
    fn default() -> Self {
        Self {
            in_flight: Counter::default(),
            oldest: Counter::default(),
            codes: [const { Counter(AtomicU64::new(0)) }; CODES],
            outcomes: Default::default(),
            fallback: Default::default(),
            latency: [const { Counter(AtomicU64::new(0)) }; latency::CELLS],
            latency_sum_us: Counter::default(),
            connects: Counter::default(),
            connect_failures: Counter::default(),
            retries: Counter::default(),
        }
    }
}

impl Cells {
    pub(super) fn begun(&self) {
        self.in_flight.add(1);
    }

    pub(super) fn ended(&self, status: u16, outcome: Outcome, latency: Option<Duration>) {
        self.in_flight.take(1);
        self.codes[code_slot(status)].add(1);
        self.outcomes[outcome.index()].add(1);
        if let Some(latency) = latency {
            self.latency[latency::cell(latency)].add(1);
            self.latency_sum_us
                .add(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn oldest(&self, start_ms: Option<u64>) {
        self.oldest.set(start_ms.map_or(0, |ms| ms + 1));
    }

    pub(super) fn fell_back(&self, shortage: Shortage) {
        self.fallback[shortage.index()].add(1);
    }

    pub(super) fn connected(&self) {
        self.connects.add(1);
    }

    pub(super) fn connect_failed(&self) {
        self.connect_failures.add(1);
    }

    pub(super) fn retried(&self) {
        self.retries.add(1);
    }

    /// The numbers now. Cells that change meanwhile may be one request apart.
    pub(super) fn read(&self) -> Counts {
        Counts {
            in_flight: self.in_flight.value(),
            oldest_start_ms: self.oldest.value().checked_sub(1),
            codes: self.codes.each_ref().map(Counter::value),
            outcomes: self.outcomes.each_ref().map(Counter::value),
            fallback: self.fallback.each_ref().map(Counter::value),
            latency: self.latency.each_ref().map(Counter::value),
            latency_sum_us: self.latency_sum_us.value(),
            connects: self.connects.value(),
            connect_failures: self.connect_failures.value(),
            retries: self.retries.value(),
        }
    }
}

/// What tells whether anything was counted since: little to read beside [`Counts`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Glance {
    in_flight: u64,
    ended: u64,
    fallback: u64,
    /// As [`Counts::oldest_start_ms`].
    pub(crate) oldest_start_ms: Option<u64>,
}

impl Glance {
    /// Whether requests are in flight.
    pub(crate) const fn is_in_flight(&self) -> bool {
        self.in_flight > 0
    }

    pub(super) fn add(&mut self, cells: &Cells) {
        let sum = |counters: &[Counter]| counters.iter().map(Counter::value).sum::<u64>();
        self.in_flight += cells.in_flight.value();
        self.ended += sum(&cells.outcomes);
        self.fallback += sum(&cells.fallback);
        let start = cells.oldest.value().checked_sub(1);
        self.oldest_start_ms = self.oldest_start_ms.into_iter().chain(start).min();
    }
}

/// The cells of all workers of one version, added up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Begun and not ended.
    pub in_flight: u64,
    /// Start of the oldest request in flight, in milliseconds of the process's own clock.
    pub oldest_start_ms: Option<u64>,
    /// Requests ended, per slot of [`code_name`].
    pub codes: [u64; CODES],
    /// Requests ended, per outcome of [`Outcome::ALL`].
    pub outcomes: [u64; Outcome::ALL.len()],
    /// Requests that the weights meant for this version and that it could not carry, per reason of [`Shortage::ALL`].
    pub fallback: [u64; Shortage::ALL.len()],
    /// Requests per cell of [`latency::bounds`]; upgrades and aborted requests are left out.
    pub latency: [u64; latency::CELLS],
    /// Sum of those latencies, in microseconds.
    pub latency_sum_us: u64,
    /// Connections made to endpoints.
    pub connects: u64,
    /// Connections that could not be made.
    pub connect_failures: u64,
    /// Second attempts.
    pub retries: u64,
}

impl Default for Counts {
    fn default() -> Self {
        Self {
            in_flight: 0,
            oldest_start_ms: None,
            codes: [0; CODES],
            outcomes: Default::default(),
            fallback: Default::default(),
            latency: [0; latency::CELLS],
            latency_sum_us: 0,
            connects: 0,
            connect_failures: 0,
            retries: 0,
        }
    }
}

impl Counts {
    /// Requests ended.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.outcomes.iter().sum()
    }

    /// Requests in the histogram.
    #[must_use]
    pub fn timed(&self) -> u64 {
        self.latency.iter().sum()
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&mut self, other: &Self) {
        self.in_flight += other.in_flight;
        let starts = self
            .oldest_start_ms
            .into_iter()
            .chain(other.oldest_start_ms);
        self.oldest_start_ms = starts.min();
        add_each(&mut self.codes, &other.codes);
        add_each(&mut self.outcomes, &other.outcomes);
        add_each(&mut self.fallback, &other.fallback);
        add_each(&mut self.latency, &other.latency);
        self.latency_sum_us += other.latency_sum_us;
        self.connects += other.connects;
        self.connect_failures += other.connect_failures;
        self.retries += other.retries;
    }
}

fn add_each(sums: &mut [u64], others: &[u64]) {
    for (sum, other) in sums.iter_mut().zip(others) {
        *sum += other;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_have_slots() {
        for (status, name) in [
            (200, "200"),
            (299, "2xx"),
            (503, "503"),
            (599, "5xx"),
            (418, "4xx"),
            (0, "1xx"),
            (999, "5xx"),
        ] {
            assert_eq!(code_name(code_slot(status)), name, "{status}");
        }
        assert!(NAMED.is_sorted());
    }

    #[test]
    fn indices_are_places() {
        assert!(
            Outcome::ALL
                .iter()
                .enumerate()
                .all(|(i, outcome)| outcome.index() == i)
        );
        assert!(
            Shortage::ALL
                .iter()
                .enumerate()
                .all(|(i, shortage)| shortage.index() == i)
        );
    }

    #[test]
    fn cells_add_up_over_workers() {
        let workers = [Cells::default(), Cells::default()];
        workers[0].begun();
        workers[0].oldest(Some(7));
        workers[1].begun();
        workers[1].begun();
        workers[1].oldest(Some(5));
        workers[1].ended(200, Outcome::Ok, Some(Duration::from_millis(3)));
        let mut counts = Counts::default();
        workers.iter().for_each(|cells| counts.merge(&cells.read()));
        assert_eq!(
            (counts.in_flight, counts.requests(), counts.timed()),
            (2, 1, 1)
        );
        assert_eq!(
            (counts.oldest_start_ms, counts.latency_sum_us),
            (Some(5), 3_000)
        );
    }
}
