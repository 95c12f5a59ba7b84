//! What the proxies have counted, as a measurement needs it: the seam between the fleet and the provider `sidestep/proxy`.
//!
//! The fleet hears cumulative counters and keeps a history of them; a measurement asks for two points of that history. Sums,
//! rates and quantiles are made in the provider.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

/// One version of one Split, exactly: a Split made anew has another uid, a canary of another update another revision.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VersionKey {
    /// The Split's namespace.
    pub namespace: String,
    /// The Split's name.
    pub split: String,
    /// The Split's uid.
    pub uid: String,
    /// The version's name in it.
    pub version: String,
    /// The version's revision; empty where the Split names none.
    pub revision: String,
}

/// The history of what the fleet's proxies have counted.
pub trait Counters: Send + Sync + fmt::Debug {
    /// What every proxy counted for a version between two times: one span per proxy that was in the fleet at `from` or later,
    /// vanished ones included.
    ///
    /// A proxy that never had a request for the version has a span too, with empty tallies; an empty answer means that no proxy
    /// serves the Split.
    fn between(&self, version: &VersionKey, from: Timestamp, until: Timestamp) -> Vec<Span>;

    /// How far back `from` may lie; history older than this is not kept.
    fn reach(&self) -> SignedDuration;
}

/// What one proxy counted between two times.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// The proxy: random, drawn when its process starts.
    pub instance: String,
    /// Its counters at the first time.
    pub start: Start,
    /// Its counters at the second time, or when it was last heard before that.
    pub end: Arc<Tally>,
    /// Requests begun and unfinished at the end.
    pub in_flight: u64,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_in_flight_ms: Option<f64>,
    /// It left the fleet before the second time: what it counted last may be missing.
    pub gone: bool,
}

/// Where a proxy's counters stood at the start of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Start {
    /// There.
    At(Arc<Tally>),
    /// At nothing: the proxy, or the version in it, appeared later.
    Zero,
    /// Not known: the proxy ran already, but was first (or again) heard only at this time.
    HeardFrom(Timestamp),
    /// Not known, and nobody hears the proxy now.
    Unheard,
}

/// Cumulative counters of one version in one proxy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Requests ended.
    pub requests: u64,
    /// By status: `200`, or `5xx` for those of a class that have no counter of their own.
    pub codes: BTreeMap<String, u64>,
    /// By outcome: `ok`, `upstream_connect`, …
    pub outcomes: BTreeMap<String, u64>,
    /// Picks of this version that another one had to serve, by reason.
    pub fallback: BTreeMap<String, u64>,
    /// Durations.
    pub latency: Latency,
}

/// A histogram of durations.
#[derive(Clone, Debug, PartialEq)]
pub struct Latency {
    /// Upper bounds of the buckets in milliseconds, ascending; the same `Arc` for all tallies of a proxy.
    pub bounds_ms: Arc<[f64]>,
    /// Requests per bucket, not cumulated; a last one beyond the bounds holds what was slower than all.
    pub counts: Vec<u64>,
    /// Sum of all durations in milliseconds.
    pub sum_ms: f64,
}

impl Default for Latency {
    fn default() -> Self {
        Self {
            bounds_ms: Arc::from([]),
            counts: Vec::new(),
            sum_ms: 0.0,
        }
    }
}
