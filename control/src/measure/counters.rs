//! What the proxies have counted, as a measurement needs it: the seam between the fleet and the provider `sidestep/proxy`.
//!
//! The fleet hears cumulative counters, each proxy's from time to time, and keeps a history of what all of them have grown by; a
//! measurement asks how much that was since a point of time. Rates and quantiles are made in the provider.

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
    /// How far all proxies that serve the version's Split have told what they count; none where no proxy serves it.
    fn told(&self, version: &VersionKey, now: Timestamp) -> Option<Told>;

    /// What has been heard after `from` of what the proxies counted for a version, vanished ones included.
    ///
    /// A version that never had a request has a window too, with nothing in it; none means that no proxy has served the Split since.
    fn window(&self, version: &VersionKey, from: Timestamp, now: Timestamp) -> Option<Window>;

    /// How far back `from` may lie; history older than this is not kept.
    fn reach(&self) -> SignedDuration;
}

/// How far the proxies have told what they count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Of all that ended until then, nothing is missing.
    pub until: Timestamp,
    /// What is heard ended no longer ago than this.
    pub lag: SignedDuration,
}

/// What the proxies have counted for a version from some time on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Window {
    /// It holds what was heard from then on.
    pub from: Timestamp,
    /// Whether all of that is known.
    pub start: Start,
    /// How much it was, over all proxies.
    pub tally: Tally,
    /// Requests begun and unfinished now.
    pub in_flight: u64,
    /// Age of the oldest of them, in milliseconds.
    pub oldest_in_flight_ms: Option<f64>,
    /// How many proxies served the Split.
    pub proxies: usize,
    /// Those of them that have left the fleet, by instance: what they counted last may be missing.
    pub gone: Vec<String>,
    /// The proxies count latencies in different buckets, which cannot be added.
    pub mixed_buckets: bool,
}

/// How much is known of what the proxies counted from some time on; of several proxies, the greatest stands for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Start {
    /// Everything.
    #[default]
    Known,
    /// Not everything: a proxy ran already, but was first (or again) heard only at this time.
    HeardFrom(Timestamp),
    /// Not everything, and nobody hears some proxy now.
    Unheard,
}

/// Counters of one version.
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
