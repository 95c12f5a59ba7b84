//! The proxy's configuration file: [`Config`] in YAML, but for the addresses and the access log, which are flags.
//!
//! camelCase; times as `10s`, `500ms`, `1m30s`. What is left out keeps its default. `docs/proxy.yaml` shows every field. The data plane
//! itself knows no file and no format, so its fields are listed here once more; the compiler compares the lists.

mod text;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::Path;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use sidestep_proxy::Config;
use sidestep_proxy::config::{AccessLog, Apexes, Deadlines, Drain, Ejection, H2, Limits, Retry};
use sidestep_proxy::table::Pick;

use crate::manifest::Faults;
use crate::manifest::configuration;

/// What a proxy on one machine does where nobody says otherwise; addresses are to be added.
pub(crate) fn alone() -> Config {
    let config: Result<File, _> = serde_json::from_value(defaults_alone());
    config.expect("it is in the form of the file").0
}

/// Reads the file of a proxy on one machine.
///
/// # Errors
/// The first thing that is wrong with it: file, line, field and what is allowed.
pub(crate) fn read(path: &Path) -> Result<Config, Faults> {
    configuration::read(path, defaults_alone()).map(|File(config)| config)
}

/// Answers name their version, to show the split at work. Clients are asked to go for 1 s before idle connections are closed: nobody
/// in front of us has to learn that we are going, but a client may send its next request in the moment in which its connection is
/// closed (6 of 64 at once, under load).
fn defaults_alone() -> Value {
    json!({"namesVersions": true, "drain": {"grace": "1s"}})
}

/// What stands in the file.
#[derive(Deserialize)]
struct File(#[serde(with = "ConfigFields")] Config);

#[derive(Deserialize)]
#[serde(
    remote = "Config",
    default = "Config::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct ConfigFields {
    #[serde(skip)]
    listen: Vec<SocketAddr>,
    #[serde(skip)]
    listen_tls: Vec<SocketAddr>,
    #[serde(skip)]
    apexes: Option<Apexes>,
    workers: NonZeroUsize,
    #[serde(with = "LimitsFields")]
    limits: Limits,
    #[serde(with = "DeadlinesFields")]
    deadlines: Deadlines,
    #[serde(with = "H2Fields")]
    h2: H2,
    #[serde(with = "RetryFields")]
    retry: Retry,
    #[serde(with = "EjectionFields")]
    ejection: Ejection,
    #[serde(with = "DrainFields")]
    drain: Drain,
    #[serde(deserialize_with = "text::networks")]
    trusted: Vec<IpNet>,
    #[serde(deserialize_with = "pick")]
    pick: Option<Pick>,
    #[serde(skip)]
    access_log: AccessLog,
    names_versions: bool,
}

#[derive(Deserialize)]
#[serde(
    remote = "Limits",
    default = "Limits::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct LimitsFields {
    headers: NonZeroUsize,
    head_bytes: NonZeroUsize,
    uri_bytes: NonZeroUsize,
    connections_per_worker: NonZeroUsize,
    pending_per_worker: NonZeroUsize,
    idle_per_endpoint: NonZeroUsize,
    idle_per_process: NonZeroUsize,
    replay_bytes: usize,
}

#[derive(Deserialize)]
#[serde(
    remote = "Deadlines",
    default = "Deadlines::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct DeadlinesFields {
    #[serde(deserialize_with = "text::time")]
    head: Duration,
    #[serde(deserialize_with = "text::time")]
    connect: Duration,
    #[serde(deserialize_with = "text::time")]
    response_head: Duration,
    #[serde(deserialize_with = "text::some_time")]
    total: Option<Duration>,
    #[serde(deserialize_with = "text::time")]
    body_idle: Duration,
    #[serde(deserialize_with = "text::time")]
    keep_alive_idle: Duration,
    #[serde(deserialize_with = "text::time")]
    upstream_idle: Duration,
    #[serde(deserialize_with = "text::time")]
    tick: Duration,
}

#[derive(Deserialize)]
#[serde(
    remote = "H2",
    default = "H2::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct H2Fields {
    streams: NonZeroU32,
    #[serde(deserialize_with = "text::window")]
    stream_window_bytes: NonZeroU32,
    #[serde(deserialize_with = "text::window")]
    connection_window_bytes: NonZeroU32,
    header_list_bytes: NonZeroU32,
}

#[derive(Deserialize)]
#[serde(
    remote = "Retry",
    default = "Retry::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct RetryFields {
    connects: u32,
    percent: u32,
    per_second: u32,
    #[serde(deserialize_with = "text::time")]
    window: Duration,
}

#[derive(Deserialize)]
#[serde(
    remote = "Ejection",
    default = "Ejection::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct EjectionFields {
    #[serde(deserialize_with = "text::time")]
    first: Duration,
    #[serde(deserialize_with = "text::time")]
    longest: Duration,
}

#[derive(Deserialize)]
#[serde(
    remote = "Drain",
    default = "Drain::default",
    deny_unknown_fields,
    rename_all = "camelCase"
)]
struct DrainFields {
    #[serde(deserialize_with = "text::time_or_none")]
    grace: Duration,
    #[serde(deserialize_with = "text::time_or_none")]
    deadline: Duration,
}

fn pick<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Pick>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    enum Word {
        Sequence,
        Random,
    }
    let word = Option::<Word>::deserialize(deserializer)?;
    Ok(word.map(|word| match word {
        Word::Sequence => Pick::Sequence,
        Word::Random => Pick::Random,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Result<Config, String> {
        let read = configuration::parse("proxy.yaml", text, defaults_alone());
        read.map(|File(config)| config)
            .map_err(|faults| faults.to_string())
    }

    /// Names of fields in what `Debug` prints, but for those that are flags.
    fn fields(printed: &str) -> impl Iterator<Item = String> {
        let words = printed
            .split(['{', ','])
            .filter_map(|part| part.split_once(": "));
        let names = words.map(|(name, _)| camel_case(name.trim()));
        names
            .filter(|name| !["listen", "listenTls", "apexes", "accessLog"].contains(&name.as_str()))
    }

    fn camel_case(name: &str) -> String {
        let mut words = name.split('_');
        let first = words.next().unwrap_or_default().to_owned();
        words.fold(first, |name, word| {
            let (initial, rest) = word.split_at(1);
            name + &initial.to_uppercase() + rest
        })
    }

    #[test]
    fn the_documented_file_shows_every_default() {
        let documented = include_str!("../docs/proxy.yaml");
        let File(read) = configuration::parse("proxy.yaml", documented, json!({})).unwrap();
        let defaults = Config {
            workers: read.workers, // the machine's
            ..Config::default()
        };
        assert_eq!(read, defaults);
        for field in fields(&format!("{defaults:?}")) {
            assert!(documented.contains(&format!("{field}:")), "{field}");
        }
    }

    #[test]
    fn what_is_left_out_keeps_its_default() {
        let read = config("drain: {deadline: 3s}\npick: random\ntrusted: [10.0.0.0/8, 192.0.2.1]")
            .unwrap();
        assert_eq!(read.drain.grace.as_secs(), 1);
        assert_eq!(read.drain.deadline.as_secs(), 3);
        assert_eq!(read.pick, Some(Pick::Random));
        assert_eq!(read.trusted.len(), 2);
        assert_eq!(config("").unwrap().drain.grace.as_secs(), 1);
    }

    #[test]
    fn what_cannot_be_names_line_and_field() {
        for (text, said) in [
            (
                "deadlines:\n  head: 0s",
                "proxy.yaml:2: deadlines.head: `0s` is not a time above 0 such as 10s, 500ms or 1m30s",
            ),
            (
                "deadlines:\n  head: 10",
                "proxy.yaml:2: deadlines.head: invalid type: integer `10`, expected a string: write a time above 0 such as 10s, 500ms or 1m30s",
            ),
            (
                "\nlimits: {uriBytes: 0}",
                "proxy.yaml:2: limits.uriBytes: invalid value: integer `0`, expected a nonzero usize",
            ),
            (
                "h2: {streamWindowBytes: 2147483648}",
                "proxy.yaml:1: h2.streamWindowBytes: `2147483648` is not a window of 1 to 2147483647 bytes",
            ),
            (
                "trusted: [10.0.0.0/8, ten]",
                "proxy.yaml:1: trusted: `ten` is not a network such as 10.0.0.0/8",
            ),
            (
                "pick: dice",
                "proxy.yaml:1: pick: unknown variant `dice`, expected `sequence` or `random`",
            ),
            (
                "deadline: 3s",
                "proxy.yaml:1: deadline: unknown field `deadline`, expected one of `workers`, `limits`, `deadlines`, `h2`, `retry`, `ejection`, `drain`, `trusted`, `pick`, `namesVersions`",
            ),
            ("- 1", "proxy.yaml: this is no mapping of fields to values"),
            (
                "retry: {}\n---\nretry: {}",
                "proxy.yaml:3: a second document begins here; a configuration is one",
            ),
        ] {
            assert_eq!(config(text).unwrap_err(), said);
        }
    }
}
