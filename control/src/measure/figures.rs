//! What the proxies counted in a window → its figures. Arithmetic only.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::counters::{Latency, Tally, Window};
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
#[derive(Clone, Debug)]
pub(super) struct Figures<'a>(pub(super) &'a Window);

impl Figures<'_> {
    const fn tally(&self) -> &Tally {
        &self.0.tally
    }

    /// Requests that the weights meant for this version and another one had to serve, or nobody.
    pub(super) fn fallback(&self) -> u64 {
        self.tally().fallback.values().sum()
    }

    /// The reasons for them, for people.
    pub(super) fn fallback_reasons(&self) -> String {
        let reasons: Vec<String> = self
            .tally()
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
        let answered = of(&self.tally().codes, "5") + of(&self.tally().outcomes, IN_BODY);
        answered.max(of(&self.tally().outcomes, UPSTREAM))
    }

    /// Requests that say something about the version: all but those whose client went away.
    fn judged(&self) -> u64 {
        let aborted = self
            .tally()
            .outcomes
            .get(CLIENT_ABORT)
            .copied()
            .unwrap_or(0);
        self.tally().requests.saturating_sub(aborted)
    }

    /// The figures as `result`; rates and quantiles are nil where there was nothing to take them from.
    pub(super) fn to_value(&self, window_seconds: f64) -> Map {
        let requests = float(self.tally().requests);
        let errors = self.errors();
        let judged = self.judged();
        let rate = (judged > 0).then(|| (float(errors) / float(judged)).min(1.0));
        let mut fields = vec![
            ("requests", Value::Float(requests)),
            ("rps", Value::Float(requests / window_seconds)),
            ("errors", Value::Float(float(errors))),
            ("errorRate", optional(rate)),
            ("successRate", optional(rate.map(|rate| 1.0 - rate))),
            ("codes", counts(&self.tally().codes)),
            ("outcomes", counts(&self.tally().outcomes)),
            ("fallback", Value::Float(float(self.fallback()))),
            ("inFlight", Value::Float(float(self.0.in_flight))),
            ("oldestInFlightMs", optional(self.0.oldest_in_flight_ms)),
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
        self.tally().latency.counts.iter().sum()
    }

    fn mean(&self) -> Option<f64> {
        let measured = self.measured();
        (measured > 0).then(|| self.tally().latency.sum_ms / float(measured))
    }

    /// The latency that this share of requests stayed below, evenly spread within its bucket. What is above all bounds is taken
    /// as the last bound.
    fn quantile(&self, share: f64) -> Option<f64> {
        let Latency {
            bounds_ms, counts, ..
        } = &self.tally().latency;
        let last = bounds_ms.last()?;
        let measured = self.measured();
        if measured == 0 || self.0.mixed_buckets {
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

    fn window(json: &serde_json::Value) -> Window {
        let map = |name: &str| serde_json::from_value(json[name].clone()).unwrap_or_default();
        let numbers = |name: &str| -> Vec<u64> {
            serde_json::from_value(json[name].clone()).unwrap_or_default()
        };
        let tally = Tally {
            requests: json["requests"].as_u64().unwrap_or(0),
            codes: map("codes"),
            outcomes: map("outcomes"),
            fallback: map("fallback"),
            latency: Latency {
                bounds_ms: Arc::from([1.0, 10.0, 100.0]),
                counts: numbers("latency"),
                sum_ms: json["sum"].as_f64().unwrap_or(0.0),
            },
        };
        Window {
            tally,
            in_flight: 2,
            ..Window::default()
        }
    }

    fn check(counted: &serde_json::Value, expected: &serde_json::Value) {
        let window = window(counted);
        let value = Value::Map(Arc::new(Figures(&window).to_value(10.0))).to_json();
        for (field, expected) in expected.as_object().unwrap() {
            assert_eq!(value[field], *expected, "{field} of {value}");
        }
    }

    #[test]
    fn rates_are_of_what_was_counted() {
        check(
            &json!({
                "requests": 50, "codes": {"200": 47, "500": 2, "503": 1}, "outcomes": {"ok": 49, "upstream_connect": 1},
            }),
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
            check(&end, &json!({"errors": errors}));
        }
    }

    #[test]
    fn those_who_went_away_are_not_judged() {
        let end = json!({"requests": 10, "codes": {"500": 1, "200": 4, "499": 5}, "outcomes": {"ok": 5, "client_abort": 5}});
        check(&end, &json!({"requests": 10, "errorRate": 0.2}));
    }

    #[test]
    fn without_requests_rates_are_nil() {
        check(
            &json!({}),
            &json!({"requests": 0, "rps": 0, "errorRate": null, "successRate": null, "p50": null, "p99": null, "mean": null}),
        );
    }

    #[test]
    fn quantiles_lie_in_their_buckets() {
        let end = json!({"requests": 100, "latency": [50, 40, 9, 1], "sum": 500});
        check(
            &end,
            &json!({"p50": 1, "p90": 10, "p95": 60, "p99": 100, "mean": 5}),
        );
        let slow = json!({"requests": 1, "latency": [0, 0, 0, 1], "sum": 5000});
        check(&slow, &json!({"p50": 100, "p99": 100}));
    }

    #[test]
    fn proxies_with_other_buckets_have_no_common_quantile() {
        let mut mixed = window(&json!({"requests": 2, "latency": [2], "sum": 1}));
        mixed.mixed_buckets = true;
        assert_eq!(Figures(&mixed).quantile(0.5), None);
    }
}
