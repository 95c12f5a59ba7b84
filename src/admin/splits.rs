//! The proxy's own report in the words that the controller reads, as one answer or as a stream of lines.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use futures::Stream;
use jiff::Timestamp;
use sidestep_control::fleet::pace;
use sidestep_control::fleet::report::{
    Counters, Gone, Hello, Latency, Line, Ping, RoundTold, RuleReport, SCHEMA, SplitReport,
    VersionReport,
};
use sidestep_proxy::live::{Outcome, cells, latency};
use sidestep_proxy::report::{Look, News, Told};
use sidestep_proxy::split::Shortage;
use sidestep_proxy::{TableHandle, report};
use tokio::sync::watch;
use tokio::time::Instant;

/// How often it is looked whether a version that left the table still has requests in flight; a change of the table tells of itself.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A round of counters that has nothing to tell is passed over in silence, as long as the last one that was not is no older.
const QUIET: Duration = Duration::from_secs(1);
/// Silence after which a ping is sent, so that the reader can tell a quiet proxy from a dead one.
const PING_AFTER: Duration = Duration::from_secs(5);

/// The first line of the stream.
pub(crate) fn hello(
    instance: String,
    since: Timestamp,
    draining: bool,
    every: Option<Duration>,
) -> Hello {
    Hello {
        instance,
        since,
        schema: SCHEMA.to_owned(),
        latency_bounds_ms: latency::bounds()
            .iter()
            .map(|bound| milliseconds(*bound))
            .collect(),
        draining,
        every_ms: every.and_then(|every| u64::try_from(every.as_millis()).ok()),
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

/// The stream of `GET /splits?watch=1`: `hello`, every Split, and each again when it changes. `every` is the time between two rounds of
/// counters that was asked for, if any was. Ends when the reader leaves.
pub(crate) fn stream(
    hello: Hello,
    tables: TableHandle,
    draining: watch::Receiver<bool>,
    every: Option<Duration>,
) -> impl Stream<Item = Result<String, Infallible>> {
    let feed = Feed {
        changes: tables.changes(),
        tables,
        draining,
        told: Told::default(),
        queue: VecDeque::from([Line::Hello(hello)]),
        rounds: Rounds::new(every),
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
    rounds: Rounds,
    last_line: Instant,
}

/// When counters are told.
struct Rounds {
    every: Duration,
    /// Whether the reader wants to know when one has ended.
    are_told: bool,
    /// None before the first, which does not wait.
    next: Option<Instant>,
    last_told: Instant,
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
        let Some(round) = self.rounds.next else {
            self.look(Look::All);
            self.queue.push_back(Line::Ping(Ping {}));
            return self.end_round();
        };
        let look = tokio::time::sleep_until(round.min(Instant::now() + LOOK_EVERY));
        tokio::select! {
            biased;
            changed = self.draining.changed() => if changed.is_ok() {
                self.queue.push_back(Line::Draining(*self.draining.borrow_and_update()));
            },
            _ = self.changes.changed() => {}
            () = look => {}
        }
        if Instant::now() < round {
            self.look(Look::State);
        } else {
            self.look(Look::All);
            self.end_round();
        }
        if self.queue.is_empty() && self.last_line.elapsed() >= PING_AFTER {
            self.queue.push_back(Line::Ping(Ping {}));
        }
    }

    fn end_round(&mut self) {
        if self.rounds.end(!self.queue.is_empty()) {
            self.queue.push_back(Line::Told(RoundTold {}));
        }
    }

    fn look(&mut self, look: Look) {
        self.changes.mark_unchanged();
        for news in self.tables.news(&mut self.told, look, Instant::now()) {
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

impl Rounds {
    fn new(every: Option<Duration>) -> Self {
        Self {
            every: every.unwrap_or(pace::SHORTEST),
            are_told: every.is_some(),
            next: None,
            last_told: Instant::now(),
        }
    }

    /// A round has ended; returns whether to say so. The first is followed by the second after a part of the time, drawn by lot, lest the
    /// proxies of a fleet tell all at once what they count.
    fn end(&mut self, has_told: bool) -> bool {
        let now = Instant::now();
        let part = self.next.map_or_else(rand::random, |_| 1.0);
        self.next = Some(now + self.every.mul_f64(part));
        let says = self.are_told && (has_told || self.last_told.elapsed() >= QUIET);
        if says {
            self.last_told = now;
        }
        says
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
        unknown: split.unknown.clone(),
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

#[cfg(test)]
mod tests;
