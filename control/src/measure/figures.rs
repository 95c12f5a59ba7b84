//! Counters of several proxies → the figures of one window. Arithmetic only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::{Latency, Span, Start, Tally};
use crate::analysis::expr::{Map, Type, Value};

/// Outcomes that are the upstream's fault begin with this.
const UPSTREAM: &str = "upstream_";

/// The upstream failed after its status had been sent: the status does not tell.
const IN_BODY: &str = "upstream_reset_in_body";

/// The client went away: nobody's verdict.
const CLIENT_ABORT: &str = "client_abort";

/// The shares of requests whose latencies are shown, by field.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p95", 0.95), ("p99", 0.99)];

/// What one version did within a window, over all proxies.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Figures {
    tally: Tally,
    in_flight: u64,
    oldest_in_flight_ms: Option<f64>,
    /// Proxies that left within the window.
    pub(super) gone: Vec<String>,
    /// The proxies count latencies in different buckets, which cannot be added.
    pub(super) mixed_buckets: bool,
}

impl Figures {
    /// Sums what the proxies counted between the spans' two ends.
    pub(super) fn sum(spans: &[Span]) -> Self {
        let mut figures = Self::default();
        for span in spans {
            figures.add(span);
        }
        figures
    }

    fn add(&mut self, span: &Span) {
        let none = Tally::default();
        let start = match &span.start {
            Start::At(tally) => tally,
            Start::Zero | Start::HeardFrom(_) | Start::Unheard => &none,
        };
        let end = &span.end;
        self.tally.requests += end.requests.saturating_sub(start.requests);
        add_growth(&mut self.tally.codes, &start.codes, &end.codes);
        add_growth(&mut self.tally.outcomes, &start.outcomes, &end.outcomes);
        add_growth(&mut self.tally.fallback, &start.fallback, &end.fallback);
        self.add_latency(&start.latency, &end.latency);
        self.in_flight += span.in_flight;
        self.oldest_in_flight_ms = [self.oldest_in_flight_ms, span.oldest_in_flight_ms]
            .into_iter()
            .flatten()
            .reduce(f64::max);
        if span.gone {
            self.gone.push(span.instance.clone());
        }
    }

    fn add_latency(&mut self, start: &Latency, end: &Latency) {
        let all = &mut self.tally.latency;
        if end.counts.is_empty() {
            return;
        }
        if all.counts.is_empty() {
            all.bounds_ms = Arc::clone(&end.bounds_ms);
        }
        self.mixed_buckets |= all.bounds_ms != end.bounds_ms;
        all.counts.resize(all.counts.len().max(end.counts.len()), 0);
        for (bucket, count) in end.counts.iter().enumerate() {
            let before = start.counts.get(bucket).copied().unwrap_or(0);
            all.counts[bucket] += count.saturating_sub(before);
        }
        all.sum_ms += (end.sum_ms - start.sum_ms).max(0.0);
    }

    /// Requests that the weights meant for this version and another one had to serve, or nobody.
    pub(super) fn fallback(&self) -> u64 {
        self.tally.fallback.values().sum()
    }

    /// The reasons for them, for people.
    pub(super) fn fallback_reasons(&self) -> String {
        let reasons: Vec<String> = self
            .tally
            .fallback
            .iter()
            .filter(|(_, count)| **count > 0)
            .map(|(reason, count)| format!("{reason} {count}"))
            .collect();
        reasons.join(", ")
    }

    /// 5xx answers, and upstream failures that no status shows. A failure that is answered with a 5xx counts once.
    fn errors(&self) -> u64 {
        let of = |counts: &BTreeMap<String, u64>, prefix: &str| -> u64 {
            let matching = counts.iter().filter(|(name, _)| name.starts_with(prefix));
            matching.map(|(_, count)| count).sum()
        };
        let answered = of(&self.tally.codes, "5") + of(&self.tally.outcomes, IN_BODY);
        answered.max(of(&self.tally.outcomes, UPSTREAM))
    }

    /// Requests that say something about the version: all but those whose client went away.
    fn judged(&self) -> u64 {
        let aborted = self.tally.outcomes.get(CLIENT_ABORT).copied().unwrap_or(0);
        self.tally.requests.saturating_sub(aborted)
    }

    /// The figures as `result`; rates and quantiles are nil where there was nothing to take them from.
    pub(super) fn to_value(&self, window_seconds: f64) -> Map {
        let requests = float(self.tally.requests);
        let errors = self.errors();
        let judged = self.judged();
        let rate = (judged > 0).then(|| (float(errors) / float(judged)).min(1.0));
        let mut fields = vec![
            ("requests", Value::Float(requests)),
            ("rps", Value::Float(requests / window_seconds)),
            ("errors", Value::Float(float(errors))),
            ("errorRate", optional(rate)),
            ("successRate", optional(rate.map(|rate| 1.0 - rate))),
            ("codes", counts(&self.tally.codes)),
            ("outcomes", counts(&self.tally.outcomes)),
            ("fallback", Value::Float(float(self.fallback()))),
            ("inFlight", Value::Float(float(self.in_flight))),
            ("oldestInFlightMs", optional(self.oldest_in_flight_ms)),
            ("mean", optional(self.mean())),
        ];
        for (name, share) in QUANTILES {
            fields.push((name, optional(self.quantile(share))));
        }
        fields
            .into_iter()
            .map(|(name, value)| (Arc::from(name), value))
            .collect()
    }

    fn measured(&self) -> u64 {
        self.tally.latency.counts.iter().sum()
    }

    fn mean(&self) -> Option<f64> {
        let measured = self.measured();
        (measured > 0).then(|| self.tally.latency.sum_ms / float(measured))
    }

    /// The latency that this share of requests stayed below, evenly spread within its bucket. What is above all bounds is taken
    /// as the last bound.
    fn quantile(&self, share: f64) -> Option<f64> {
        let Latency {
            bounds_ms, counts, ..
        } = &self.tally.latency;
        let last = bounds_ms.last()?;
        let measured = self.measured();
        if measured == 0 || self.mixed_buckets {
            return None;
        }
        let wanted = share * float(measured);
        let mut below = 0.0;
        for (bucket, count) in counts.iter().enumerate() {
            let within = float(*count);
            if within > 0.0 && below + within >= wanted {
                let Some(upper) = bounds_ms.get(bucket) else {
                    return Some(*last);
                };
                let lower = bucket
                    .checked_sub(1)
                    .and_then(|bucket| bounds_ms.get(bucket));
                let lower = lower.copied().unwrap_or(0.0);
                return Some(lower + (upper - lower) * (wanted - below) / within);
            }
            below += within;
        }
        Some(*last)
    }
}

fn add_growth(
    into: &mut BTreeMap<String, u64>,
    start: &BTreeMap<String, u64>,
    end: &BTreeMap<String, u64>,
) {
    for (name, count) in end {
        let before = start.get(name).copied().unwrap_or(0);
        let growth = count.saturating_sub(before);
        if growth > 0 {
            *into.entry(name.clone()).or_default() += growth;
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
const fn float(count: u64) -> f64 {
    count as f64
}

fn optional(number: Option<f64>) -> Value {
    number.map_or(Value::Nil, Value::Float)
}

fn counts(counts: &BTreeMap<String, u64>) -> Value {
    let map = counts
        .iter()
        .map(|(name, count)| (Arc::from(name.as_str()), Value::Float(float(*count))))
        .collect();
    Value::Map(Arc::new(map))
}

/// What is known of `result` beforehand: a misspelt field is an error, not nil.
pub(super) fn kind() -> Type {
    let mut fields: BTreeMap<&'static str, Type> = BTreeMap::from([
        ("requests", Type::Float),
        ("rps", Type::Float),
        ("errors", Type::Float),
        ("fallback", Type::Float),
        ("inFlight", Type::Float),
        ("codes", Type::Map),
        ("outcomes", Type::Map),
        // A number or nil.
        ("errorRate", Type::Unknown),
        ("successRate", Type::Unknown),
        ("oldestInFlightMs", Type::Unknown),
        ("mean", Type::Unknown),
    ]);
    fields.extend(QUANTILES.map(|(name, _)| (name, Type::Unknown)));
    let one = Type::Object(Arc::new(fields.clone()));
    fields.insert("stable", one);
    Type::Object(Arc::new(fields))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tally(json: &serde_json::Value) -> Arc<Tally> {
        let map = |name: &str| serde_json::from_value(json[name].clone()).unwrap_or_default();
        let numbers = |name: &str| -> Vec<u64> {
            serde_json::from_value(json[name].clone()).unwrap_or_default()
        };
        Arc::new(Tally {
            requests: json["requests"].as_u64().unwrap_or(0),
            codes: map("codes"),
            outcomes: map("outcomes"),
            fallback: map("fallback"),
            latency: Latency {
                bounds_ms: Arc::from([1.0, 10.0, 100.0]),
                counts: numbers("latency"),
                sum_ms: json["sum"].as_f64().unwrap_or(0.0),
            },
        })
    }

    fn span(start: Start, end: &serde_json::Value) -> Span {
        Span {
            instance: "i".to_owned(),
            start,
            end: tally(end),
            in_flight: 1,
            oldest_in_flight_ms: None,
            gone: false,
        }
    }

    fn check(spans: &[Span], expected: &serde_json::Value) {
        let value = Value::Map(Arc::new(Figures::sum(spans).to_value(10.0))).to_json();
        for (field, expected) in expected.as_object().unwrap() {
            assert_eq!(value[field], *expected, "{field} of {value}");
        }
    }

    #[test]
    fn a_window_is_what_was_added_in_all_proxies() {
        let before =
            json!({"requests": 100, "codes": {"200": 90, "500": 10}, "outcomes": {"ok": 100}});
        let after =
            json!({"requests": 140, "codes": {"200": 128, "500": 12}, "outcomes": {"ok": 140}});
        let young = json!({"requests": 10, "codes": {"200": 9, "503": 1}, "outcomes": {"ok": 9, "upstream_connect": 1}});
        check(
            &[
                span(Start::At(tally(&before)), &after),
                span(Start::Zero, &young),
            ],
            &json!({
                "requests": 50, "rps": 5, "errors": 3, "errorRate": 0.06, "successRate": 0.94, "inFlight": 2,
                "codes": {"200": 47, "500": 2, "503": 1}, "outcomes": {"ok": 49, "upstream_connect": 1},
            }),
        );
    }

    #[test]
    fn a_failure_counts_once_whether_or_not_its_status_shows_it() {
        let cases = [
            (
                json!({"codes": {"503": 2}, "outcomes": {"upstream_connect": 2}}),
                2,
            ),
            (
                json!({"codes": {"200": 2}, "outcomes": {"upstream_reset_in_body": 2}}),
                2,
            ),
            (json!({"codes": {"500": 2}, "outcomes": {"ok": 2}}), 2),
            (
                json!({"codes": {"500": 1, "5xx": 1, "200": 1}, "outcomes": {"ok": 2, "upstream_reset_in_body": 1}}),
                3,
            ),
            (
                json!({"codes": {"499": 2}, "outcomes": {"client_abort": 2}}),
                0,
            ),
        ];
        for (end, errors) in cases {
            check(&[span(Start::Zero, &end)], &json!({"errors": errors}));
        }
    }

    #[test]
    fn those_who_went_away_are_not_judged() {
        let end = json!({"requests": 10, "codes": {"500": 1, "200": 4, "499": 5}, "outcomes": {"ok": 5, "client_abort": 5}});
        check(
            &[span(Start::Zero, &end)],
            &json!({"requests": 10, "errorRate": 0.2}),
        );
    }

    #[test]
    fn without_requests_rates_are_nil() {
        check(
            &[span(Start::Zero, &json!({}))],
            &json!({"requests": 0, "rps": 0, "errorRate": null, "successRate": null, "p50": null, "p99": null, "mean": null}),
        );
    }

    #[test]
    fn quantiles_lie_in_their_buckets() {
        let end = json!({"requests": 100, "latency": [50, 40, 9, 1], "sum": 500});
        check(
            &[span(Start::Zero, &end)],
            &json!({"p50": 1, "p90": 10, "p95": 60, "p99": 100, "mean": 5}),
        );
        let slow = json!({"requests": 1, "latency": [0, 0, 0, 1], "sum": 5000});
        check(
            &[span(Start::Zero, &slow)],
            &json!({"p50": 100, "p99": 100}),
        );
    }

    #[test]
    fn proxies_with_other_buckets_have_no_common_quantile() {
        let mut other = span(Start::Zero, &json!({"requests": 1, "latency": [1]}));
        let mut tally = (*other.end).clone();
        tally.latency.bounds_ms = Arc::from([2.0]);
        other.end = Arc::new(tally);
        let one = span(
            Start::Zero,
            &json!({"requests": 1, "latency": [1], "sum": 1}),
        );
        let figures = Figures::sum(&[one, other]);
        assert!(figures.mixed_buckets);
        assert_eq!(figures.quantile(0.5), None);
    }
}
