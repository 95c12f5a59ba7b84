//! What each proxy has counted, over time: the answers to "how much between these two moments".
//!
//! Proxies send cumulative counters. Every report is kept for a while, then one a second, then one every ten; a moment between two
//! reports is answered by the later one unless nothing was counted in between, so that no window ever begins too early.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::report::{Counters as Reported, Hello, SplitReport, VersionReport};
use crate::measure::counters::{Latency, Span, Start, Tally, VersionKey};

/// How far back a window may begin.
pub const REACH: SignedDuration = SignedDuration::from_mins(10);

/// A report tells of nothing older: a proxy sends changed counters after at most 200 ms; as much again for their way here.
const REPORT_COVERS: SignedDuration = SignedDuration::from_millis(400);

/// Reports of up to this age are all kept …
const FINE: SignedDuration = SignedDuration::from_secs(10);
/// … then up to this age one of each second, then one of each ten.
const MEDIUM: SignedDuration = SignedDuration::from_mins(2);

/// What the proxies have counted over the last [`REACH`].
#[derive(Debug, Default)]
pub struct History {
    /// By instance. A vanished one is kept for as long as a window may reach it.
    instances: BTreeMap<String, Instance>,
}

/// One process of a proxy.
#[derive(Debug)]
struct Instance {
    /// When it began to count.
    since: Timestamp,
    /// When it was first heard.
    heard_from: Timestamp,
    /// While nobody heard it.
    gaps: VecDeque<Gap>,
    /// When it left the fleet.
    left: Option<Timestamp>,
    bounds_ms: Arc<[f64]>,
    /// By uid of the Splits it has reported: since when it no longer serves them.
    splits: HashMap<String, Option<Timestamp>>,
    /// By uid of the Split: a report speaks of one.
    series: HashMap<String, HashMap<VersionKey, Series>>,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    from: Timestamp,
    until: Option<Timestamp>,
}

/// One version's counters at one proxy.
#[derive(Debug, Default)]
struct Series {
    /// Oldest first. A report that changes nothing leaves no sample.
    samples: VecDeque<Sample>,
    /// Since when the proxy no longer reports this version.
    absent_since: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Sample {
    at: Timestamp,
    /// When the counters had last changed before; the sample of that change may have been thinned out since.
    previous: Option<Timestamp>,
    tally: Arc<Tally>,
    in_flight: u64,
    oldest_in_flight_ms: Option<f64>,
}

impl History {
    /// A proxy has introduced itself, for the first time or again.
    pub fn hello(&mut self, hello: &Hello, now: Timestamp) {
        let instance = self
            .instances
            .entry(hello.instance.clone())
            .or_insert_with(|| Instance {
                since: hello.since,
                heard_from: now,
                gaps: VecDeque::new(),
                left: None,
                bounds_ms: Arc::from(hello.latency_bounds_ms.as_slice()),
                splits: HashMap::new(),
                series: HashMap::new(),
            });
        instance.left = None;
        instance.close_gap(now);
    }

    /// A proxy's stream broke.
    pub fn lost(&mut self, instance: &str, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.gaps.push_back(Gap {
                from: now,
                until: None,
            });
        }
    }

    /// A proxy is no longer of the fleet, or another process has taken its place: there is nothing more to be heard of it.
    pub fn left(&mut self, instance: &str, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.left.get_or_insert(now);
            instance.close_gap(now);
        }
    }

    /// A proxy has reported a Split.
    pub fn report(&mut self, instance: &str, report: &SplitReport, now: Timestamp) {
        let Some(instance) = self.instances.get_mut(instance) else {
            return;
        };
        instance.splits.insert(report.uid.clone(), None);
        instance.mark_absent(&report.uid, now);
        let of_split = instance.series.entry(report.uid.clone()).or_default();
        for version in &report.versions {
            let series = of_split.entry(key(report, version)).or_default();
            series.absent_since = None;
            series.add(version, &instance.bounds_ms, now);
        }
    }

    /// A proxy no longer serves a Split.
    pub fn gone(&mut self, instance: &str, uid: &str, now: Timestamp) {
        if let Some(instance) = self.instances.get_mut(instance) {
            instance.splits.insert(uid.to_owned(), Some(now));
            instance.mark_absent(uid, now);
        }
    }

    /// Forgets what no window can reach any more.
    pub fn prune(&mut self, now: Timestamp) {
        let horizon = now.checked_sub(REACH).unwrap_or(Timestamp::MIN);
        let reachable = |end: Option<Timestamp>| end.is_none_or(|end| end > horizon);
        self.instances
            .retain(|_, instance| reachable(instance.left));
        for instance in self.instances.values_mut() {
            instance.gaps.retain(|gap| reachable(gap.until));
            instance
                .splits
                .retain(|_, absent_since| reachable(*absent_since));
            instance.series.retain(|_, of_split| {
                of_split.retain(|_, series| reachable(series.absent_since));
                !of_split.is_empty()
            });
            for series in instance.series.values_mut().flat_map(HashMap::values_mut) {
                series.thin(now, horizon);
            }
        }
    }

    /// One span per proxy that serves the Split and was in the fleet at `from` or later.
    pub fn between(&self, version: &VersionKey, from: Timestamp, until: Timestamp) -> Vec<Span> {
        let after_from = |end: Option<Timestamp>| end.is_none_or(|end| end >= from);
        let serves = |instance: &Instance| {
            after_from(instance.left)
                && instance
                    .splits
                    .get(&version.uid)
                    .is_some_and(|absent| after_from(*absent))
        };
        let spans = self
            .instances
            .iter()
            .filter(|(_, instance)| serves(instance));
        spans
            .map(|(name, instance)| instance.span(name, version, from, until))
            .collect()
    }
}

impl Instance {
    fn close_gap(&mut self, now: Timestamp) {
        if let Some(gap) = self.gaps.back_mut() {
            gap.until.get_or_insert(now);
        }
    }

    /// Marks every version of a Split as absent; a report that follows takes back those it names.
    fn mark_absent(&mut self, uid: &str, now: Timestamp) {
        let of_split = self.series.get_mut(uid).into_iter();
        for series in of_split.flat_map(HashMap::values_mut) {
            series.absent_since.get_or_insert(now);
        }
    }

    fn span(&self, name: &str, version: &VersionKey, from: Timestamp, until: Timestamp) -> Span {
        let series = self.series.get(&version.uid);
        let series = series.and_then(|of_split| of_split.get(version));
        let end = series.and_then(|series| series.last_until(until));
        Span {
            instance: name.to_owned(),
            start: self.start(series, from),
            end: end.map_or_else(|| self.nothing(), |sample| Arc::clone(&sample.tally)),
            in_flight: end.map_or(0, |sample| sample.in_flight),
            oldest_in_flight_ms: end.and_then(|sample| sample.oldest_in_flight_ms),
            gone: self.left.is_some_and(|left| left < until),
        }
    }

    fn start(&self, series: Option<&Series>, from: Timestamp) -> Start {
        if self.since >= from {
            return Start::Zero;
        }
        if self.heard_from > from {
            return Start::HeardFrom(self.heard_from);
        }
        let in_gap = |gap: &&Gap| gap.from <= from && gap.until.is_none_or(|until| until > from);
        if let Some(gap) = self.gaps.iter().find(in_gap) {
            return gap.until.map_or(Start::Unheard, Start::HeardFrom);
        }
        match series.and_then(|series| series.at(from)) {
            Some(sample) => Start::At(Arc::clone(&sample.tally)),
            None => Start::Zero,
        }
    }

    fn nothing(&self) -> Arc<Tally> {
        Arc::new(Tally {
            latency: Latency {
                bounds_ms: Arc::clone(&self.bounds_ms),
                ..Latency::default()
            },
            ..Tally::default()
        })
    }
}

impl Series {
    fn add(&mut self, version: &VersionReport, bounds_ms: &Arc<[f64]>, now: Timestamp) {
        if let Some(last) = self.samples.back_mut()
            && last.in_flight == version.in_flight
            && is_tally_of(&last.tally, &version.counters)
        {
            last.oldest_in_flight_ms = version.oldest_in_flight_ms;
            return;
        }
        self.samples.push_back(Sample {
            at: now,
            previous: self.samples.back().map(|last| last.at),
            tally: Arc::new(tally(&version.counters, bounds_ms)),
            in_flight: version.in_flight,
            oldest_in_flight_ms: version.oldest_in_flight_ms,
        });
    }

    /// Where the counters stood at `from`; none where nothing had been counted yet.
    fn at(&self, from: Timestamp) -> Option<&Sample> {
        let before = self.last_until(from);
        let next = self.samples.partition_point(|sample| sample.at <= from);
        let Some(after) = self.samples.get(next) else {
            return before;
        };
        let adjoining = after.previous == before.map(|before| before.at);
        let quiet = after.at.duration_since(from) > REPORT_COVERS;
        let exact = before.is_some_and(|before| before.at == from);
        if exact || (adjoining && quiet) {
            before
        } else {
            Some(after)
        }
    }

    fn last_until(&self, until: Timestamp) -> Option<&Sample> {
        let next = self.samples.partition_point(|sample| sample.at <= until);
        self.samples.get(next.checked_sub(1)?)
    }

    /// Keeps all young samples, fewer old ones, the last one beyond the horizon (where windows that begin there stand), and the last.
    fn thin(&mut self, now: Timestamp, horizon: Timestamp) {
        let beyond = self.samples.partition_point(|sample| sample.at <= horizon);
        self.samples.drain(..beyond.saturating_sub(1));
        let last = self.samples.pop_back();
        let mut kept = None;
        self.samples.retain(|sample| {
            let stretch = stretch(sample.at, now);
            let keep = stretch.is_none() || stretch != kept;
            kept = stretch;
            keep
        });
        self.samples.extend(last);
    }
}

/// The stretch of time of which one sample is enough, at that age; none where all are kept.
fn stretch(at: Timestamp, now: Timestamp) -> Option<(i64, i64)> {
    let age = now.duration_since(at);
    if age <= FINE {
        return None;
    }
    let width_s = if age <= MEDIUM { 1 } else { 10 };
    Some((width_s, at.as_second().div_euclid(width_s)))
}

fn key(report: &SplitReport, version: &VersionReport) -> VersionKey {
    VersionKey {
        namespace: report.namespace.clone(),
        split: report.name.clone(),
        uid: report.uid.clone(),
        version: version.name.clone(),
        revision: version.revision.clone(),
    }
}

fn tally(reported: &Reported, bounds_ms: &Arc<[f64]>) -> Tally {
    let Reported {
        requests,
        codes,
        outcomes,
        fallback,
        latency,
    } = reported;
    Tally {
        requests: *requests,
        codes: codes.clone(),
        outcomes: outcomes.clone(),
        fallback: fallback.clone(),
        latency: Latency {
            bounds_ms: Arc::clone(bounds_ms),
            counts: latency.counts.clone(),
            sum_ms: latency.sum_ms,
        },
    }
}

fn is_tally_of(tally: &Tally, reported: &Reported) -> bool {
    let Tally {
        requests,
        codes,
        outcomes,
        fallback,
        latency,
    } = tally;
    *requests == reported.requests
        && *codes == reported.codes
        && *outcomes == reported.outcomes
        && *fallback == reported.fallback
        && latency.counts == reported.latency.counts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millisecond(ms).unwrap()
    }

    fn hello(instance: &str, since_ms: i64) -> Hello {
        Hello {
            instance: instance.into(),
            since: at(since_ms),
            schema: String::new(),
            latency_bounds_ms: vec![1.0],
            draining: false,
        }
    }

    fn report(requests: u64) -> SplitReport {
        SplitReport {
            uid: "u".into(),
            versions: vec![VersionReport {
                name: "canary".into(),
                counters: Reported {
                    requests,
                    ..Reported::default()
                },
                ..VersionReport::default()
            }],
            ..SplitReport::default()
        }
    }

    fn canary() -> VersionKey {
        VersionKey {
            namespace: String::new(),
            split: String::new(),
            uid: "u".into(),
            version: "canary".into(),
            revision: String::new(),
        }
    }

    /// `instance start→end`, with `+` where it is gone.
    fn spans(history: &History, from_ms: i64, until_ms: i64) -> Vec<String> {
        let spans = history.between(&canary(), at(from_ms), at(until_ms));
        let text = |span: &Span| {
            let start = match &span.start {
                Start::At(tally) => tally.requests.to_string(),
                Start::Zero => "zero".into(),
                Start::HeardFrom(time) => format!("from {}", time.as_millisecond()),
                Start::Unheard => "unheard".into(),
            };
            format!(
                "{} {start}>{}{}",
                span.instance,
                span.end.requests,
                if span.gone { "+" } else { "" }
            )
        };
        spans.iter().map(text).collect()
    }

    fn heard(reports: &[(i64, u64)]) -> History {
        let mut history = History::default();
        history.hello(&hello("a", 0), at(0));
        for (ms, requests) in reports {
            history.report("a", &report(*requests), at(*ms));
        }
        history
    }

    #[test]
    fn a_window_never_begins_before_it_was_asked_to() {
        let history = heard(&[(1_000, 10), (1_200, 20), (9_000, 30)]);
        assert_eq!(spans(&history, 1_000, 9_500), ["a 10>30"]);
        assert_eq!(
            spans(&history, 1_100, 9_500),
            ["a 20>30"],
            "the later one, while requests come in"
        );
        assert_eq!(
            spans(&history, 5_000, 9_500),
            ["a 20>30"],
            "nothing was counted since 1.2 s"
        );
        assert_eq!(spans(&history, 8_900, 9_500), ["a 30>30"]);
        assert_eq!(spans(&history, 9_400, 9_500), ["a 30>30"]);
        assert_eq!(
            spans(&history, 500, 1_100),
            ["a zero>10"],
            "nothing had been counted"
        );
    }

    #[test]
    fn what_a_proxy_counted_before_it_was_heard_is_not_known() {
        let mut history = History::default();
        history.hello(&hello("a", 0), at(5_000));
        history.report("a", &report(100), at(5_000));
        assert_eq!(spans(&history, 4_000, 6_000), ["a from 5000>100"]);
        history.hello(&hello("b", 5_500), at(5_600));
        history.report("b", &report(7), at(5_700));
        assert_eq!(spans(&history, 5_400, 6_000), ["a 100>100", "b zero>7"]);
        history.lost("a", at(6_000));
        assert_eq!(spans(&history, 6_500, 7_000)[0], "a unheard>100");
        history.hello(&hello("a", 0), at(7_000));
        history.report("a", &report(150), at(7_000));
        assert_eq!(spans(&history, 6_500, 8_000)[0], "a from 7000>150");
        assert_eq!(
            spans(&history, 5_900, 8_000)[0],
            "a 100>150",
            "counters run on through a gap"
        );
    }

    #[test]
    fn a_proxy_that_vanished_is_named_until_no_window_reaches_it() {
        let mut history = heard(&[(1_000, 10)]);
        history.left("a", at(2_000));
        assert_eq!(spans(&history, 1_500, 3_000), ["a 10>10+"]);
        assert!(spans(&history, 2_500, 3_000).is_empty());
        history.prune(at(700_000));
        assert!(history.instances.is_empty());
    }

    /// The proxy is killed at 2 s; another process answers in its place at 4 s.
    #[test]
    fn what_a_killed_proxy_counted_is_not_waited_for_once_it_is_replaced() {
        let mut history = heard(&[(1_000, 10)]);
        history.lost("a", at(2_000));
        assert_eq!(spans(&history, 1_500, 3_000), ["a 10>10"]);
        assert_eq!(spans(&history, 2_500, 3_000), ["a unheard>10"]);
        history.left("a", at(4_000));
        history.hello(&hello("b", 3_900), at(4_000));
        history.report("b", &report(5), at(4_100));
        let found = spans(&history, 2_500, 5_000);
        assert_eq!(found, ["a from 4000>10+", "b zero>5"]);
        assert_eq!(spans(&history, 4_100, 5_000), ["b 5>5"]);
    }

    #[test]
    fn a_version_without_requests_has_a_span_and_an_unknown_split_has_none() {
        let mut history = heard(&[(1_000, 10)]);
        let mut key = canary();
        key.version = "stable".into();
        let spans = history.between(&key, at(1_500), at(2_000));
        assert_eq!(
            (spans.len(), &spans[0].start, spans[0].end.requests),
            (1, &Start::Zero, 0)
        );
        key.uid = "other".into();
        assert!(history.between(&key, at(1_500), at(2_000)).is_empty());
        history.gone("a", "u", at(3_000));
        assert!(history.between(&canary(), at(3_500), at(4_000)).is_empty());
    }

    #[test]
    fn old_samples_become_few_but_the_counters_stay() {
        let reports: Vec<(i64, u64)> = (0..5_000)
            .map(|n| (n * 200, 10 * u64::try_from(n).unwrap()))
            .collect();
        let mut history = heard(&reports);
        history.prune(at(1_000_000));
        let samples = history.instances["a"].series["u"][&canary()].samples.len();
        assert!((150..250).contains(&samples), "{samples}");
        assert_eq!(spans(&history, 995_000, 1_000_000), ["a 49750>49990"]);
        // A second's sample stands for that second: the window begins up to a second later, never earlier.
        assert_eq!(spans(&history, 950_100, 1_000_000), ["a 47550>49990"]);

        // A version that nobody asks for ten minutes keeps its place.
        history.prune(at(9_000_000));
        assert_eq!(spans(&history, 8_999_000, 9_000_000), ["a 49990>49990"]);
    }
}
