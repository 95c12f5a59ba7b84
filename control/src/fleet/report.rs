//! What a proxy says on its admin port: the lines of `GET /splits?watch=1`, and the answer of `GET /splits/{namespace}/{name}`.
//!
//! The stream is newline-delimited JSON, one [`Line`] a line. It begins with `hello`; then comes every Split that the proxy serves, a
//! `ping` that says that these were all, and each Split again the moment its table state changes (that line *is* the acknowledgement) or
//! when its counters have changed. These are told in rounds: 200 ms apart, or as many as `&every=MS` asks for. A proxy that is asked says
//! `told` at the end of a round, at least once a second or once in two rounds. A proxy with nothing to say sends a `ping` every 5 s, so
//! that silence means trouble.
//!
//! Fields may be added; a reader ignores those it does not know.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The version of these lines, as `hello` names it.
pub const SCHEMA: &str = "v1alpha1";

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    /// The first line: who speaks.
    Hello(Hello),
    /// A Split as the proxy serves it now.
    Split(Box<SplitReport>),
    /// The proxy has stopped serving a Split, and nothing of it is in flight any more.
    Gone(Gone),
    /// The proxy has begun to drain (or, with `false`, has not).
    Draining(bool),
    /// Nothing more to say for now, but here.
    Ping(Ping),
    /// All that had been counted when this was written has been told. Only where `every` was asked for.
    Told(RoundTold),
}

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Hello {
    /// Random per process: counters of another instance begin anew.
    pub instance: String,
    /// When the process began to count.
    pub since: Timestamp,
    /// The version of the lines that follow: [`SCHEMA`].
    pub schema: String,
    /// Upper bounds of the latency buckets in milliseconds, ascending; the last count of a [`Latency`] is what lies above them.
    pub latency_bounds_ms: Vec<f64>,
    /// Whether it is draining.
    #[serde(default)]
    pub draining: bool,
    /// The time between two rounds of counters in milliseconds, as was asked for; absent where it was not, or the proxy is an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
}

/// A Split as one proxy serves it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitReport {
    /// The Split's namespace.
    pub namespace: String,
    /// The Split's name.
    pub name: String,
    /// The Split's uid.
    pub uid: String,
    /// The generation in service: every worker has taken it up.
    pub generation: i64,
    /// The rules in service.
    #[serde(default)]
    pub rules: Vec<RuleReport>,
    /// The versions in service, and those that have left the table but still have requests in flight.
    #[serde(default)]
    pub versions: Vec<VersionReport>,
    /// The ports of its `spec.apexes` at which the proxy answers by its rules: not those of an older Split, nor any at which it does not
    /// listen.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apexes: Vec<u16>,
    /// Fields of its spec that the proxy does not know or does not serve, as paths: it serves the rest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unknown: Vec<String>,
}

/// One rule's shares, as fractions of 1 by version name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RuleReport {
    /// The Services it governs.
    pub services: Vec<String>,
    /// What its weights ask for.
    pub desired: BTreeMap<String, f64>,
    /// What the versions can carry.
    pub effective: BTreeMap<String, f64>,
}

/// One version of a Split at one proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionReport {
    /// Its name.
    pub name: String,
    /// Its pod-template hash; empty in a Split written by hand.
    #[serde(default)]
    pub revision: String,
    /// Whether it stands in the table in service.
    pub live: bool,
    /// Distinct ready pods.
    #[serde(default)]
    pub ready: u32,
    /// Requests begun and unfinished.
    #[serde(default)]
    pub in_flight: u64,
    /// Age of the oldest of them in milliseconds.
    #[serde(default)]
    pub oldest_in_flight_ms: Option<f64>,
    /// What was counted since the process began.
    #[serde(default)]
    pub counters: Counters,
}

/// Cumulative counts of one version at one proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counters {
    /// Requests finished.
    pub requests: u64,
    /// By status: a code such as `200`, or a class such as `5xx` for the codes that have no count of their own.
    pub codes: BTreeMap<String, u64>,
    /// By outcome: `ok`, `upstream_connect`, `upstream_reset_before_head`, `upstream_reset_in_body`, `upstream_timeout`,
    /// `client_abort`, `refused_by_proxy`.
    pub outcomes: BTreeMap<String, u64>,
    /// Requests that another version should have had, by the reason it could not.
    pub fallback: BTreeMap<String, u64>,
    /// Latency of finished requests.
    pub latency: Latency,
}

/// A latency histogram over the bounds of [`Hello::latency_bounds_ms`].
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Latency {
    /// Requests per bucket, not cumulative over buckets; one more than there are bounds. Trailing zeros may be left out.
    pub counts: Vec<u64>,
    /// Sum of all latencies in milliseconds.
    pub sum_ms: f64,
}

/// A Split that a proxy no longer serves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Gone {
    /// The Split's namespace.
    pub namespace: String,
    /// The Split's name.
    pub name: String,
    /// The Split's uid.
    pub uid: String,
}

/// A line without content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {}

/// A line without content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoundTold {}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &Line, text: &str) {
        assert_eq!(serde_json::to_string(line).unwrap(), text);
        assert_eq!(serde_json::from_str::<Line>(text).unwrap(), *line);
    }

    #[test]
    fn lines_are_one_key_each() {
        check(&Line::Ping(Ping {}), r#"{"ping":{}}"#);
        check(&Line::Draining(true), r#"{"draining":true}"#);
        check(
            &Line::Gone(Gone {
                namespace: "a".into(),
                name: "b".into(),
                uid: "c".into(),
            }),
            r#"{"gone":{"namespace":"a","name":"b","uid":"c"}}"#,
        );
        check(
            &Line::Hello(Hello {
                instance: "i1".into(),
                since: "2026-01-02T03:04:05Z".parse().unwrap(),
                schema: SCHEMA.into(),
                latency_bounds_ms: vec![1.0, 2.5],
                draining: false,
                every_ms: None,
            }),
            r#"{"hello":{"instance":"i1","since":"2026-01-02T03:04:05Z","schema":"v1alpha1","latencyBoundsMs":[1.0,2.5],"draining":false}}"#,
        );
    }

    #[test]
    fn fields_of_a_newer_proxy_are_ignored() {
        let text = r#"{"split":{"namespace":"n","name":"s","uid":"u","generation":3,"news":1,
            "versions":[{"name":"canary","live":true,"inFlight":2,"counters":{"requests":7,"latency":{"counts":[1,6],"sumMs":9.5}}}]}}"#;
        let Line::Split(split) = serde_json::from_str(text).unwrap() else {
            panic!("a split")
        };
        assert_eq!(split.generation, 3);
        assert_eq!(split.versions[0].in_flight, 2);
        assert_eq!(split.versions[0].counters.requests, 7);
        assert_eq!(split.versions[0].counters.latency.counts, [1, 6]);
    }
}
