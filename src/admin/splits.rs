//! The proxy's own report in the words that the controller reads, as one answer or as a stream of lines.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use sidestep_control::fleet::report::{
    Counters, Gone, Hello, Latency, Line, Ping, RuleReport, SCHEMA, SplitReport, VersionReport,
};
use sidestep_proxy::live::{Outcome, cells, latency};
use sidestep_proxy::report::{News, Told};
use sidestep_proxy::split::Shortage;
use sidestep_proxy::{TableHandle, report};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often changed counters are told; a change of the table is told at once.
const COUNTERS_EVERY: Duration = Duration::from_millis(200);
/// Silence after which a ping is sent, so that the reader can tell a quiet proxy from a dead one.
const PING_AFTER: Duration = Duration::from_secs(5);

/// The first line of the stream.
pub(crate) fn hello(instance: String, since: Timestamp, draining: bool) -> Hello {
    Hello {
        instance,
        since,
        schema: SCHEMA.to_owned(),
        latency_bounds_ms: latency::bounds()
            .iter()
            .map(|bound| milliseconds(*bound))
            .collect(),
        draining,
    }
}

/// Every Split in service.
pub(crate) fn reports(tables: &TableHandle) -> Vec<SplitReport> {
    tables
        .report(Instant::now())
        .splits
        .iter()
        .map(split)
        .collect()
}

/// The stream of `GET /splits?watch=1`: `hello`, every Split, and each again when it changes. Ends when the reader leaves.
pub(crate) fn stream(
    hello: Hello,
    tables: TableHandle,
    draining: watch::Receiver<bool>,
) -> impl Stream<Item = Result<String, Infallible>> {
    let feed = Feed {
        changes: tables.changes(),
        tables,
        draining,
        told: Told::default(),
        queue: VecDeque::from([Line::Hello(hello)]),
        looked: false,
        last_line: Instant::now(),
    };
    futures::stream::unfold(feed, async |mut feed| Some((Ok(feed.next().await), feed)))
}

struct Feed {
    tables: TableHandle,
    changes: watch::Receiver<u64>,
    draining: watch::Receiver<bool>,
    /// What the reader knows.
    told: Told,
    queue: VecDeque<Line>,
    /// The first look does not wait.
    looked: bool,
    last_line: Instant,
}

impl Feed {
    async fn next(&mut self) -> String {
        let line = loop {
            match self.queue.pop_front() {
                Some(line) => break line,
                None => self.wait().await,
            }
        };
        self.last_line = Instant::now();
        // Our own types of numbers and strings always encode.
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Waits for news and queues what is new.
    async fn wait(&mut self) {
        if self.looked {
            tokio::select! {
                biased;
                changed = self.draining.changed() => if changed.is_ok() {
                    self.queue.push_back(Line::Draining(*self.draining.borrow_and_update()));
                },
                _ = self.changes.changed() => {}
                () = tokio::time::sleep(COUNTERS_EVERY) => {}
            }
        }
        let is_first = !std::mem::replace(&mut self.looked, true);
        self.changes.mark_unchanged();
        self.compare();
        let is_silent = self.queue.is_empty() && self.last_line.elapsed() >= PING_AFTER;
        if is_first || is_silent {
            self.queue.push_back(Line::Ping(Ping {}));
        }
    }

    fn compare(&mut self) {
        for news in self.tables.news(&mut self.told, Instant::now()) {
            self.queue.push_back(match news {
                News::Split(report) => Line::Split(Box::new(split(&report))),
                News::Gone(planned) => Line::Gone(Gone {
                    namespace: planned.split.namespace.clone(),
                    name: planned.split.name.clone(),
                    uid: planned.split.uid.clone(),
                }),
            });
        }
    }
}

fn split(split: &report::SplitReport) -> SplitReport {
    SplitReport {
        namespace: split.namespace.clone(),
        name: split.name.clone(),
        uid: split.uid.clone(),
        generation: split.generation,
        rules: split.rules.iter().map(rule).collect(),
        versions: split.versions.iter().map(version).collect(),
        apexes: split.apexes.clone(),
    }
}

fn rule(rule: &report::RuleReport) -> RuleReport {
    let shares = |of: fn(&report::Share) -> f64| {
        rule.shares
            .iter()
            .map(|share| (share.version.clone(), of(share)))
            .collect()
    };
    RuleReport {
        services: rule.services.clone(),
        desired: shares(|share| share.desired),
        effective: shares(|share| share.effective),
    }
}

fn version(version: &report::VersionReport) -> VersionReport {
    VersionReport {
        name: version.name.clone(),
        revision: version.revision.clone(),
        live: version.live,
        ready: version.ready,
        in_flight: version.counts.in_flight,
        oldest_in_flight_ms: version.oldest_in_flight.map(|age| age.as_secs_f64() * 1e3),
        counters: counters(&version.counts),
    }
}

fn counters(counts: &cells::Counts) -> Counters {
    Counters {
        requests: counts.requests(),
        codes: named(&counts.codes, cells::code_name),
        outcomes: named(&counts.outcomes, |index| Outcome::ALL[index].name()),
        fallback: named(&counts.fallback, |index| Shortage::ALL[index].name()),
        latency: Latency {
            counts: without_trailing_zeros(&counts.latency).to_vec(),
            sum_ms: milliseconds(counts.latency_sum_us),
        },
    }
}

fn without_trailing_zeros(counts: &[u64]) -> &[u64] {
    let last = counts.iter().rposition(|&count| count > 0);
    counts
        .get(..last.map_or(0, |last| last + 1))
        .unwrap_or_default()
}

/// The counts that are not 0, by name.
fn named(counts: &[u64], name: fn(usize) -> &'static str) -> BTreeMap<String, u64> {
    let counted = counts.iter().enumerate().filter(|(_, count)| **count > 0);
    counted
        .map(|(index, count)| (name(index).to_owned(), *count))
        .collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a sum of microseconds stays exact for 285 years"
)]
fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}
