//! Every metric of the data plane: name, help, type, labels.
//!
//! Workers count in cells of their own (`live`); a collector adds them up when it is asked. So a request touches no label and
//! no shared counter, and label values cannot be mixed up (the `prometheus` crate keys its own vectors by a hash that can).
//!
//! Figures of a Split carry `namespace, split, version, revision`; those of a Service without one carry `namespace, route`, where
//! the route is `service:port`. To Prometheus a label that is absent is an empty one, so both live in one family.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prometheus::core::{Collector as Collect, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Error, Registry};
use tokio::time::Instant;

use crate::live::cells::{self, Counts};
use crate::live::{Front, Outcome, Owner, TableHandle, VersionKey, VersionState, latency};
use crate::report::{Report, Share};
use crate::split::Shortage;

/// Registers all metrics of the data plane.
///
/// # Errors
///
/// When a metric of one of these names is registered already.
pub fn register(registry: &Registry, handle: TableHandle) -> Result<(), Error> {
    let descriptions = FAMILIES
        .iter()
        .map(|family| family.describe())
        .collect::<Result<_, _>>()?;
    registry.register(Box::new(Collector {
        handle,
        descriptions,
    }))
}

/// Bounds of `sidestep_request_duration_seconds`, in seconds: those of Prometheus' own client libraries, and what is slower up to
/// a minute. A request within one of our cells that straddles a bound counts above it.
const BOUNDS_S: [f64; 14] = [
    0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];

/// Name, help and type of a metric.
#[derive(Clone, Copy, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
}

const fn counter(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        kind: MetricType::COUNTER,
    }
}

const fn gauge(name: &'static str, help: &'static str) -> Family {
    Family {
        name,
        help,
        kind: MetricType::GAUGE,
    }
}

const REQUESTS: Family = counter(
    "sidestep_requests_total",
    "Requests ended, by status code; the rarer codes of a class count as 2xx and so on, 499 means that the client went away first.",
);
const OUTCOMES: Family = counter(
    "sidestep_request_outcomes_total",
    "Requests ended, by who ended them: ok, upstream_connect, upstream_reset_before_head, upstream_reset_in_body, upstream_timeout, client_abort, refused_by_proxy.",
);
const DURATION: Family = Family {
    name: "sidestep_request_duration_seconds",
    help: "From the request's head to the end of its response, in seconds; upgraded connections and requests aborted by the client are left out.",
    kind: MetricType::HISTOGRAM,
};
const IN_FLIGHT: Family = gauge(
    "sidestep_requests_in_flight",
    "Requests begun and not ended.",
);
const CONNECTS: Family = counter(
    "sidestep_upstream_connects_total",
    "Connections to endpoints, by result: made or failed.",
);
const RETRIES: Family = counter("sidestep_retries_total", "Second attempts of requests.");
const FALLBACK: Family = counter(
    "sidestep_fallback_total",
    "Requests that the weights meant for this version and that it could not carry, by reason.",
);
const WEIGHT: Family = gauge(
    "sidestep_split_weight",
    "Share of a version as a fraction of 1, by rule (its place and its Services) and kind: desired or effective.",
);
const GENERATION: Family = gauge(
    "sidestep_split_generation",
    "Generation of the Split that every worker serves.",
);
const OVERCOMMIT: Family = gauge(
    "sidestep_overcommit",
    "By how much the ready endpoints of a rule's versions carry more than they are said to: 0 within capacity, 0.25 for a quarter more.",
);
const DOWNSTREAM_ERRORS: Family = counter(
    "sidestep_downstream_errors_total",
    "Requests and connections that the proxy itself refused or broke off before any version was chosen, by reason.",
);
const DOWNSTREAM_OPEN: Family = gauge(
    "sidestep_downstream_connections",
    "Connections from clients, open now.",
);
const DOWNSTREAM_TOTAL: Family = counter(
    "sidestep_downstream_connections_total",
    "Connections from clients, ever.",
);
const UPSTREAM_OPEN: Family = gauge(
    "sidestep_upstream_connections",
    "Connections to endpoints, open now, by state: active or idle.",
);
const PENDING: Family = gauge(
    "sidestep_requests_pending",
    "Requests that wait for a connection to an endpoint or its response head.",
);

const FAMILIES: [Family; 15] = [
    REQUESTS,
    OUTCOMES,
    DURATION,
    IN_FLIGHT,
    CONNECTS,
    RETRIES,
    FALLBACK,
    WEIGHT,
    GENERATION,
    OVERCOMMIT,
    DOWNSTREAM_ERRORS,
    DOWNSTREAM_OPEN,
    DOWNSTREAM_TOTAL,
    UPSTREAM_OPEN,
    PENDING,
];

impl Family {
    /// Labels differ within a family, so none are declared: the registry only looks at names and help.
    fn describe(self) -> Result<Desc, Error> {
        Desc::new(
            self.name.to_owned(),
            self.help.to_owned(),
            Vec::new(),
            HashMap::new(),
        )
    }

    fn of(self, metrics: Vec<Metric>) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        family.set_field_type(self.kind);
        family.set_metric(metrics);
        family
    }
}

/// Adds up the workers' cells when a scrape asks.
#[derive(Debug)]
struct Collector {
    handle: TableHandle,
    descriptions: Vec<Desc>,
}

impl Collect for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Instant::now();
        let mut families = version_families(&counted(&self.handle.versions(now)));
        families.extend(split_families(&self.handle.report(now)));
        families.extend(front_families(&self.handle.fronts()));
        families
    }
}

/// One set of labels and what was counted under it.
#[derive(Debug)]
struct Counted {
    labels: Vec<LabelPair>,
    /// Whether it is a version of a Split.
    weighted: bool,
    counts: Counts,
}

/// What is counted under each set of labels. A Split that was made anew has another uid and the same labels: its figures are added
/// to those of its predecessor. A route that nobody has asked for is left out: there may be thousands.
fn counted(versions: &[Arc<VersionState>]) -> Vec<Counted> {
    let mut sums: BTreeMap<Vec<(&str, String)>, (bool, Counts)> = BTreeMap::new();
    for state in versions {
        let weighted = matches!(state.key.owner, Owner::Split { .. });
        if weighted || state.is_asked_for() {
            let sum = sums
                .entry(labels(&state.key))
                .or_insert_with(|| (weighted, Counts::default()));
            sum.1.merge(&state.counts());
        }
    }
    let counted = sums
        .into_iter()
        .map(|(labels, (weighted, counts))| Counted {
            labels: labels
                .iter()
                .map(|(name, value)| label(name, value))
                .collect(),
            weighted,
            counts,
        });
    counted.collect()
}

fn version_families(counted: &[Counted]) -> Vec<MetricFamily> {
    let each = |metrics: fn(&[LabelPair], &Counts) -> Vec<Metric>| -> Vec<Metric> {
        counted
            .iter()
            .flat_map(|of| metrics(&of.labels, &of.counts))
            .collect()
    };
    let weighted = counted.iter().filter(|of| of.weighted);
    vec![
        REQUESTS.of(each(requests)),
        OUTCOMES.of(each(outcomes)),
        DURATION.of(each(|labels, counts| vec![duration(labels, counts)])),
        IN_FLIGHT.of(each(|labels, counts| {
            vec![level(labels, count(counts.in_flight))]
        })),
        CONNECTS.of(each(connects)),
        RETRIES.of(each(|labels, counts| vec![total(labels, counts.retries)])),
        FALLBACK.of(weighted
            .flat_map(|of| fallbacks(&of.labels, &of.counts))
            .collect()),
    ]
}

/// Only codes that were seen: 29 series per version would be mostly empty.
fn requests(labels: &[LabelPair], counts: &Counts) -> Vec<Metric> {
    let codes = counts
        .codes
        .iter()
        .enumerate()
        .filter(|(_, count)| **count > 0);
    codes
        .map(|(slot, &count)| total(&with(labels, "code", cells::code_name(slot)), count))
        .collect()
}

fn outcomes(labels: &[LabelPair], counts: &Counts) -> Vec<Metric> {
    let outcomes = Outcome::ALL.iter().zip(counts.outcomes);
    outcomes
        .map(|(outcome, count)| total(&with(labels, "outcome", outcome.name()), count))
        .collect()
}

fn connects(labels: &[LabelPair], counts: &Counts) -> Vec<Metric> {
    let results = [
        ("made", counts.connects),
        ("failed", counts.connect_failures),
    ];
    results
        .iter()
        .map(|(result, count)| total(&with(labels, "result", result), *count))
        .collect()
}

fn fallbacks(labels: &[LabelPair], counts: &Counts) -> Vec<Metric> {
    let reasons = Shortage::ALL.iter().zip(counts.fallback);
    reasons
        .map(|(reason, count)| total(&with(labels, "reason", reason.name()), count))
        .collect()
}

fn duration(labels: &[LabelPair], counts: &Counts) -> Metric {
    let mut histogram = Histogram::default();
    histogram.set_sample_count(counts.timed());
    histogram.set_sample_sum(count(counts.latency_sum_us) / 1e6);
    histogram.set_bucket(
        BOUNDS_S
            .iter()
            .map(|&bound| bucket(bound, counts))
            .collect(),
    );
    let mut metric = metric(labels);
    metric.set_histogram(histogram);
    metric
}

/// What is surely at most `bound_s`: the cells that end there or before.
fn bucket(bound_s: f64, counts: &Counts) -> Bucket {
    let within = latency::bounds().partition_point(|&bound_us| count(bound_us) <= bound_s * 1e6);
    let mut bucket = Bucket::default();
    bucket.set_upper_bound(bound_s);
    bucket.set_cumulative_count(counts.latency[..within].iter().sum());
    bucket
}

fn split_families(report: &Report) -> Vec<MetricFamily> {
    let (mut weights, mut generations, mut overcommits) = (Vec::new(), Vec::new(), Vec::new());
    for split in &report.splits {
        let labels = [
            label("namespace", &split.namespace),
            label("split", &split.name),
        ];
        generations.push(level(&labels, signed(split.generation)));
        for (index, rule) in split.rules.iter().enumerate() {
            let labels = with(&labels, "rule", &index.to_string());
            let labels = with(&labels, "services", &rule.services.join(","));
            overcommits.push(level(&labels, rule.overcommit));
            weights.extend(rule.shares.iter().flat_map(|share| weight(&labels, share)));
        }
    }
    vec![
        WEIGHT.of(weights),
        GENERATION.of(generations),
        OVERCOMMIT.of(overcommits),
    ]
}

fn weight(labels: &[LabelPair], share: &Share) -> [Metric; 2] {
    let labels = with(labels, "version", &share.version);
    let kind = |kind, share| level(&with(&labels, "kind", kind), share);
    [
        kind("desired", share.desired),
        kind("effective", share.effective),
    ]
}

fn front_families(fronts: &[Arc<Front>]) -> Vec<MetricFamily> {
    let sum = |number: fn(&Front) -> u64| fronts.iter().map(|front| number(front)).sum::<u64>();
    let idle = sum(|front| front.upstream_idle.value());
    let active = sum(|front| front.upstream_open.value()).saturating_sub(idle);
    let state = |state, number| level(&[label("state", state)], count(number));
    vec![
        DOWNSTREAM_ERRORS.of(downstream_errors(fronts)),
        DOWNSTREAM_OPEN.of(vec![level(
            &[],
            count(sum(|front| front.downstream_open.value())),
        )]),
        DOWNSTREAM_TOTAL.of(vec![total(
            &[],
            sum(|front| front.downstream_total.value()),
        )]),
        UPSTREAM_OPEN.of(vec![state("active", active), state("idle", idle)]),
        PENDING.of(vec![level(&[], count(sum(|front| front.pending.value())))]),
    ]
}

fn downstream_errors(fronts: &[Arc<Front>]) -> Vec<Metric> {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for (reason, count) in fronts.iter().flat_map(|front| front.downstream_errors()) {
        *sums.entry(reason).or_default() += count;
    }
    sums.iter()
        .map(|(reason, &count)| total(&[label("reason", reason)], count))
        .collect()
}

fn labels(key: &VersionKey) -> Vec<(&'static str, String)> {
    match &key.owner {
        Owner::Split {
            namespace,
            name,
            uid: _,
        } => vec![
            ("namespace", namespace.clone()),
            ("split", name.clone()),
            ("version", key.name.clone()),
            ("revision", key.revision.clone()),
        ],
        Owner::Route {
            namespace,
            service,
            port,
        } => {
            vec![
                ("namespace", namespace.clone()),
                ("route", format!("{service}:{port}")),
            ]
        }
    }
}

fn label(name: &str, value: &str) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}

fn with(labels: &[LabelPair], name: &str, value: &str) -> Vec<LabelPair> {
    let mut labels = labels.to_vec();
    labels.push(label(name, value));
    labels
}

fn metric(labels: &[LabelPair]) -> Metric {
    Metric::from_label(labels.to_vec())
}

fn total(labels: &[LabelPair], number: u64) -> Metric {
    let mut counter = Counter::default();
    counter.set_value(count(number));
    let mut metric = metric(labels);
    metric.set_counter(counter);
    metric
}

fn level(labels: &[LabelPair], number: f64) -> Metric {
    let mut gauge = Gauge::default();
    gauge.set_value(number);
    let mut metric = metric(labels);
    metric.set_gauge(gauge);
    metric
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus' numbers are floats: exact to 2⁵³"
)]
fn count(number: u64) -> f64 {
    number as f64
}

#[expect(
    clippy::cast_precision_loss,
    reason = "Prometheus' numbers are floats: exact to 2⁵³"
)]
fn signed(number: i64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::*;
    use crate::live::Choice;
    use crate::live::fixture::{Shop, backend, open_shop, parts, shop};
    use crate::table::{Source, Table};

    /// The shop's table with a canary that is half ready, a stable with room, and a Service nobody asks for.
    fn table() -> Table {
        let mut parts = parts([80, 20]);
        parts.splits[0].generation = 4;
        parts.splits[0].rules[0]
            .services
            .push("web-root".to_owned());
        parts.splits[0].versions[1].needed = Some(2);
        parts
            .backends
            .push(backend("unused", Source::Endpoints(vec![])));
        Table::build(parts).unwrap()
    }

    fn ask(shop: &Shop, backend: usize, status: u16) {
        let table = shop.workers[0].current();
        let Choice::Serve(chosen) = table.choose(backend) else {
            panic!("refused")
        };
        let mut request = chosen.begin(shop.now);
        request.version().connected();
        request.answered(status);
        request.finish(Outcome::Ok, shop.now + Duration::from_millis(4));
    }

    fn scrape(registry: &Registry) -> String {
        TextEncoder::new()
            .encode_to_string(&registry.gather())
            .unwrap()
    }

    #[track_caller]
    fn check(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(
                text.lines().any(|found| found == *line),
                "no line {line} in\n{text}"
            );
        }
    }

    #[tokio::test]
    async fn a_scrape_shows_what_was_counted() {
        let shop = open_shop(1, None);
        let registry = Registry::new();
        register(&registry, shop.handle.clone()).unwrap();
        shop.publish(table());
        ask(&shop, 1, 204);
        ask(&shop, 1, 418);
        let front = shop.workers[0].front();
        front.downstream_open.add(3);
        front.upstream_open.add(5);
        front.upstream_idle.add(2);
        front.downstream_error("no-route");
        let text = scrape(&registry);
        check(
            &text,
            &[
                r#"sidestep_requests_total{namespace="shop",route="plain:80",code="204"} 1"#,
                r#"sidestep_requests_total{namespace="shop",route="plain:80",code="4xx"} 1"#,
                r#"sidestep_request_outcomes_total{namespace="shop",route="plain:80",outcome="ok"} 2"#,
                r#"sidestep_request_duration_seconds_bucket{namespace="shop",route="plain:80",le="0.0025"} 0"#,
                r#"sidestep_request_duration_seconds_bucket{namespace="shop",route="plain:80",le="0.005"} 2"#,
                r#"sidestep_request_duration_seconds_bucket{namespace="shop",route="plain:80",le="+Inf"} 2"#,
                r#"sidestep_request_duration_seconds_sum{namespace="shop",route="plain:80"} 0.008"#,
                r#"sidestep_requests_in_flight{namespace="shop",split="web",version="canary",revision="canary-hash"} 0"#,
                r#"sidestep_upstream_connects_total{namespace="shop",route="plain:80",result="made"} 2"#,
                r#"sidestep_split_weight{namespace="shop",split="web",rule="0",services="web,web-root",version="canary",kind="desired"} 0.2"#,
                r#"sidestep_split_weight{namespace="shop",split="web",rule="0",services="web,web-root",version="canary",kind="effective"} 0.1111111111111111"#,
                r#"sidestep_split_generation{namespace="shop",split="web"} 4"#,
                r#"sidestep_overcommit{namespace="shop",split="web",rule="0",services="web,web-root"} 0.11111111111111112"#,
                r#"sidestep_downstream_errors_total{reason="no-route"} 1"#,
                "sidestep_downstream_connections 3",
                r#"sidestep_upstream_connections{state="active"} 3"#,
                r#"sidestep_upstream_connections{state="idle"} 2"#,
            ],
        );
        assert!(!text.contains("unused"), "a route that nobody asked for");
    }

    #[tokio::test]
    async fn no_series_stands_twice_when_a_split_is_made_anew() {
        let shop = shop(1, [80, 20]);
        let registry = Registry::new();
        register(&registry, shop.handle.clone()).unwrap();
        (0..20).for_each(|_| ask(&shop, 0, 200));
        let mut anew = parts([80, 20]);
        anew.splits[0].uid = "uid-2".to_owned();
        shop.publish(Table::build(anew).unwrap());
        (0..20).for_each(|_| ask(&shop, 0, 200));
        let text = scrape(&registry);
        let series: Vec<&str> = text
            .lines()
            .filter_map(|line| Some(line.rsplit_once(' ')?.0))
            .collect();
        let unique: HashSet<&str> = series.iter().copied().collect();
        assert_eq!(series.len(), unique.len(), "{text}");
        let requests = text
            .lines()
            .filter(|line| line.starts_with("sidestep_requests_total{"));
        let sum: u32 = requests
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u32>().unwrap())
            .sum();
        assert_eq!(sum, 40);
    }

    #[test]
    fn metrics_are_registered_once() {
        let shop = open_shop(1, None);
        let registry = Registry::new();
        register(&registry, shop.handle.clone()).unwrap();
        register(&registry, shop.handle).unwrap_err();
    }
}
