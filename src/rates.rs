//! What the proxy in this process measured between two looks, per version: for pages, not for verdicts.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;
use sidestep_proxy::TableHandle;
use sidestep_proxy::live::{Counts, Outcome, cells, latency};
use sidestep_proxy::report::{SplitReport, VersionReport};
use tokio::time::Instant;

/// One version's figures between two looks.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Figures {
    /// Its name.
    pub(crate) name: String,
    /// Its pod-template hash; may be empty.
    pub(crate) revision: String,
    /// Ready pods.
    pub(crate) ready: u32,
    /// Share of the first weighted rule, as a fraction of 1: what the weights ask for.
    pub(crate) desired: f64,
    /// What it gets of it.
    pub(crate) effective: f64,
    /// Requests per second.
    pub(crate) rps: f64,
    /// Fraction of requests that failed; nothing without requests.
    pub(crate) error_rate: Option<f64>,
    /// 99th percentile of the latency in milliseconds; nothing without requests.
    pub(crate) p99: Option<f64>,
}

/// A Split, by namespace and name.
pub(crate) type SplitName = (String, String);

/// Looks at the proxy's counters and remembers the look before.
#[derive(Debug)]
pub(crate) struct Rates {
    tables: TableHandle,
    before: BTreeMap<Key, Counts>,
    at: Instant,
}

/// Split uid, version name, revision.
type Key = (String, String, String);

impl Rates {
    /// Begins to look.
    pub(crate) fn new(tables: TableHandle, now: Instant) -> Self {
        let mut rates = Self {
            tables,
            before: BTreeMap::new(),
            at: now,
        };
        rates.look(now);
        rates
    }

    /// The figures of every live version since the last look.
    pub(crate) fn look(&mut self, now: Instant) -> BTreeMap<SplitName, Vec<Figures>> {
        let elapsed = now.duration_since(self.at);
        self.at = now;
        let mut counts = BTreeMap::new();
        let mut figures = BTreeMap::new();
        for split in self.tables.report(now).splits {
            let live = split.versions.iter().filter(|version| version.live);
            let of = live.map(|version| {
                let key = (
                    split.uid.clone(),
                    version.name.clone(),
                    version.revision.clone(),
                );
                let figures = self.figures(&split, version, self.before.get(&key), elapsed);
                counts.insert(key, version.counts.clone());
                figures
            });
            let of = of.collect();
            figures.insert((split.namespace, split.name), of);
        }
        self.before = counts;
        figures
    }

    fn figures(
        &self,
        split: &SplitReport,
        version: &VersionReport,
        before: Option<&Counts>,
        elapsed: Duration,
    ) -> Figures {
        let weighted = split
            .rules
            .iter()
            .find(|rule| rule.shares.len() > 1)
            .or_else(|| split.rules.first());
        let share = weighted.and_then(|rule| {
            rule.shares
                .iter()
                .find(|share| share.version == version.name)
        });
        let nothing = Counts::default();
        let (before, after) = (before.unwrap_or(&nothing), &version.counts);
        Figures {
            name: version.name.clone(),
            revision: version.revision.clone(),
            ready: version.ready,
            desired: share.map_or(0.0, |share| share.desired),
            effective: share.map_or(0.0, |share| share.effective),
            rps: ratio(
                after.requests().saturating_sub(before.requests()),
                elapsed.as_secs_f64(),
            ),
            error_rate: error_rate(before, after),
            p99: p99(before, after),
        }
    }
}

/// (5xx + `upstream_*`) ÷ (all but `client_abort`), each request once: the answers we give for a failed upstream are 5xx themselves.
fn error_rate(before: &Counts, after: &Counts) -> Option<f64> {
    let outcome = |outcome: Outcome| {
        after.outcomes[outcome.index()].saturating_sub(before.outcomes[outcome.index()])
    };
    let answered = after
        .requests()
        .saturating_sub(before.requests())
        .saturating_sub(outcome(Outcome::ClientAbort));
    let failed: u64 = (0..cells::CODES)
        .filter(|slot| cells::code_name(*slot).starts_with('5'))
        .map(|slot| after.codes[slot].saturating_sub(before.codes[slot]))
        .sum();
    // A reset in the body comes after a good status.
    let failed = failed + outcome(Outcome::UpstreamResetInBody);
    (answered > 0).then(|| ratio(failed.min(answered), ratio(answered, 1.0)))
}

fn p99(before: &Counts, after: &Counts) -> Option<f64> {
    let new: Vec<u64> = after
        .latency
        .iter()
        .zip(&before.latency)
        .map(|(after, before)| after.saturating_sub(*before))
        .collect();
    let total: u64 = new.iter().sum();
    let rank = total - total / 100;
    let mut sum = 0;
    let cell = new.iter().position(|count| {
        sum += count;
        sum >= rank && total > 0
    })?;
    Some(ratio(latency::estimate_us(cell), 1e3))
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a second fit a double exactly"
)]
fn ratio(count: u64, by: f64) -> f64 {
    if by > 0.0 { count as f64 / by } else { 0.0 }
}
