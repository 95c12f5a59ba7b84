//! Which endpoints refuse connections: they are passed over for a growing time, then tried by one request.
//!
//! One [`Breaker`] per endpoint, shared by all workers; arithmetic on two atomics, the caller brings the time. How many of a
//! version's endpoints may be passed over at once is decided in `balance`. The share of a version never depends on this.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::config::{Ejection, millis};

/// What a breaker says of its endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// Takes requests.
    Healthy,
    /// Refused lately; takes none.
    Ejected,
    /// Its time is over: the one request that wins [`Breaker::probe`] may try it.
    Probing,
}

/// The state of one endpoint. The default is healthy.
#[derive(Debug, Default)]
pub struct Breaker {
    /// Refusals in a row.
    refusals: AtomicU32,
    /// When the endpoint may be tried again, in milliseconds of the caller's clock; 0 when healthy.
    until_ms: AtomicU64,
}

impl Breaker {
    /// The condition at `now_ms`.
    pub(crate) fn condition(&self, now_ms: u64) -> Condition {
        match self.until_ms.load(Ordering::Relaxed) {
            0 => Condition::Healthy,
            until if until > now_ms => Condition::Ejected,
            _ => Condition::Probing,
        }
    }

    /// Whether the caller is the one who may try an endpoint that is [`Condition::Probing`]. Nobody else may until the probe
    /// has reported, or has been lost for as long as [`PROBE_MS`].
    pub(crate) fn probe(&self, now_ms: u64) -> bool {
        let until = self.until_ms.load(Ordering::Relaxed);
        until != 0
            && until <= now_ms
            && self
                .until_ms
                .compare_exchange(
                    until,
                    now_ms + PROBE_MS,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                )
                .is_ok()
    }

    /// The endpoint took a connection.
    pub(crate) fn connected(&self) {
        if self.until_ms.load(Ordering::Relaxed) != 0 {
            self.until_ms.store(0, Ordering::Relaxed);
            self.refusals.store(0, Ordering::Relaxed);
        }
    }

    /// The endpoint refused a connection, or gave none in time. Refusals while it is ejected already (requests that were
    /// under way) do not lengthen the time.
    pub(crate) fn refused(&self, now_ms: u64, probing: bool, terms: &Ejection) {
        if !probing && self.condition(now_ms) == Condition::Ejected {
            return;
        }
        let refusals = self.refusals.fetch_add(1, Ordering::Relaxed);
        let until = now_ms + ejection_ms(refusals, terms);
        self.until_ms.store(until, Ordering::Relaxed);
    }
}

/// How long an endpoint is passed over that has refused `refusals` times in a row before.
fn ejection_ms(refusals: u32, terms: &Ejection) -> u64 {
    let doubled = 2_u64.saturating_pow(refusals);
    let grown = millis(terms.first).saturating_mul(doubled);
    grown.min(millis(terms.longest)).max(1)
}

/// After this time a probe that has not reported counts as lost: beyond any usual connect timeout.
const PROBE_MS: u64 = 5_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_grows_and_is_capped() {
        let times: Vec<_> = (0..8)
            .map(|n| ejection_ms(n, &Ejection::default()))
            .collect();
        assert_eq!(
            times,
            [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]
        );
    }

    #[test]
    fn one_probe_decides() {
        let breaker = Breaker::default();
        assert_eq!(breaker.condition(10), Condition::Healthy);
        breaker.refused(10, false, &Ejection::default());
        assert_eq!(breaker.condition(1_009), Condition::Ejected);
        assert!(!breaker.probe(1_009), "not yet");
        assert_eq!(breaker.condition(1_010), Condition::Probing);
        assert!(breaker.probe(1_010));
        assert!(!breaker.probe(1_010), "one at a time");
        assert_eq!(breaker.condition(1_011), Condition::Ejected);
        breaker.refused(1_020, true, &Ejection::default());
        assert_eq!(
            breaker.condition(3_019),
            Condition::Ejected,
            "twice as long"
        );
        assert!(breaker.probe(3_020));
        breaker.connected();
        assert_eq!(breaker.condition(3_020), Condition::Healthy);
        breaker.refused(4_000, false, &Ejection::default());
        assert_eq!(
            breaker.condition(5_000),
            Condition::Probing,
            "short again after a success"
        );
    }

    #[test]
    fn refusals_of_the_same_moment_count_once() {
        let breaker = Breaker::default();
        for _ in 0..50 {
            breaker.refused(10, false, &Ejection::default());
        }
        assert_eq!(breaker.condition(1_010), Condition::Probing);
    }

    #[test]
    fn a_lost_probe_is_repeated() {
        let breaker = Breaker::default();
        breaker.refused(0, false, &Ejection::default());
        assert!(breaker.probe(1_000));
        assert!(!breaker.probe(5_999));
        assert!(breaker.probe(6_000));
    }
}
