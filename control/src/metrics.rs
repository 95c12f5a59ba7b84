//! Every metric of the controller: name, help, labels. Names and labels are Argo Rollouts', so that its dashboards and alerts work.
//!
//! Gauges are read off the caches when somebody asks, so they never lag and never outlive an object. Counts are kept by name here: the
//! `prometheus` crate keys its own vectors by a hash of label values that can mix two of them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kube::ResourceExt;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};
use prometheus::{Error, Registry};

use crate::api::{AnalysisRun, Rollout};
use crate::reconcile::events::Told;
use crate::reconcile::objects::{Key, Name};
use crate::reconcile::{Context, lock};

/// Bounds of `rollout_reconcile` and `analysis_run_reconcile`, in seconds: Argo's.
const BOUNDS_S: [f64; 5] = [0.01, 0.15, 0.25, 0.5, 1.0];

/// The controller's metrics.
#[derive(Debug)]
pub struct Metrics {
    context: Arc<Context>,
    looks: Mutex<BTreeMap<(Looked, Name), Looks>>,
    leads: AtomicBool,
}

/// Kinds whose looks are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Looked {
    Rollout,
    AnalysisRun,
}

/// Looks at one object.
#[derive(Clone, Debug, Default)]
struct Looks {
    /// Per bucket, not cumulated; the last is what took longer.
    buckets: [u64; BOUNDS_S.len() + 1],
    sum_s: f64,
    errors: u64,
}

/// Name, help and type of a metric.
#[derive(Clone, Copy, Debug)]
struct Family {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
}

const fn family(name: &'static str, help: &'static str, kind: MetricType) -> Family {
    Family { name, help, kind }
}

const ROLLOUT_INFO: Family = family("rollout_info", "A rollout: 1.", MetricType::GAUGE);
const ROLLOUT_PHASE: Family = family(
    "rollout_phase",
    "1 for the phase a rollout is in, 0 for the others.",
    MetricType::GAUGE,
);
const REPLICAS_AVAILABLE: Family = family(
    "rollout_info_replicas_available",
    "Available pods of a rollout.",
    MetricType::GAUGE,
);
const REPLICAS_UNAVAILABLE: Family = family(
    "rollout_info_replicas_unavailable",
    "Pods of a rollout that are not available.",
    MetricType::GAUGE,
);
const REPLICAS_DESIRED: Family = family(
    "rollout_info_replicas_desired",
    "Pods that a rollout's spec asks for.",
    MetricType::GAUGE,
);
const REPLICAS_UPDATED: Family = family(
    "rollout_info_replicas_updated",
    "Pods of the revision that a rollout's spec asks for.",
    MetricType::GAUGE,
);
const ROLLOUT_RECONCILE: Family = family(
    "rollout_reconcile",
    "Seconds that a look at a rollout took.",
    MetricType::HISTOGRAM,
);
const ROLLOUT_ERRORS: Family = family(
    "rollout_reconcile_error",
    "Looks at a rollout that failed.",
    MetricType::COUNTER,
);
const ROLLOUT_EVENTS: Family = family(
    "rollout_events_total",
    "Events about a rollout.",
    MetricType::COUNTER,
);
const RUN_INFO: Family = family(
    "analysis_run_info",
    "An analysis run: 1.",
    MetricType::GAUGE,
);
const RUN_PHASE: Family = family(
    "analysis_run_phase",
    "1 for the phase an analysis run is in, 0 for the others.",
    MetricType::GAUGE,
);
const RUN_METRIC_TYPE: Family = family(
    "analysis_run_metric_type",
    "A metric of an analysis run, by provider: 1.",
    MetricType::GAUGE,
);
const RUN_METRIC_PHASE: Family = family(
    "analysis_run_metric_phase",
    "1 for the phase a metric is in, 0 for the others.",
    MetricType::GAUGE,
);
const RUN_RECONCILE: Family = family(
    "analysis_run_reconcile",
    "Seconds that a look at an analysis run took.",
    MetricType::HISTOGRAM,
);
const RUN_ERRORS: Family = family(
    "analysis_run_reconcile_error",
    "Looks at an analysis run that failed.",
    MetricType::COUNTER,
);
const TEMPLATE_INFO: Family = family(
    "analysis_template_info",
    "An analysis template: 1.",
    MetricType::GAUGE,
);

const FAMILIES: [Family; 16] = [
    ROLLOUT_INFO,
    ROLLOUT_PHASE,
    REPLICAS_AVAILABLE,
    REPLICAS_UNAVAILABLE,
    REPLICAS_DESIRED,
    REPLICAS_UPDATED,
    ROLLOUT_RECONCILE,
    ROLLOUT_ERRORS,
    ROLLOUT_EVENTS,
    RUN_INFO,
    RUN_PHASE,
    RUN_METRIC_TYPE,
    RUN_METRIC_PHASE,
    RUN_RECONCILE,
    RUN_ERRORS,
    TEMPLATE_INFO,
];

/// What `rollout_info` and `rollout_phase` call a phase: Argo's words, which come from the Progressing condition, not the status.
const ROLLOUT_PHASES: [&str; 7] = [
    "Completed",
    "Progressing",
    "Paused",
    "Timeout",
    "Error",
    "Abort",
    "InvalidSpec",
];
const RUN_PHASES: [&str; 6] = [
    "Pending",
    "Running",
    "Successful",
    "Failed",
    "Error",
    "Inconclusive",
];

impl Metrics {
    /// Metrics over what the controller knows.
    pub fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            looks: Mutex::default(),
            leads: AtomicBool::new(false),
        }
    }

    /// From now on this controller is the one that writes. Before that it shows no metric of an object, else each would be counted once
    /// for every standby.
    pub fn lead(&self) {
        self.leads.store(true, Ordering::Relaxed);
    }

    /// Registers all of them.
    ///
    /// # Errors
    ///
    /// When a metric of one of these names is registered already.
    pub fn register(self: &Arc<Self>, registry: &Registry) -> Result<(), Error> {
        let descriptions = FAMILIES.iter().map(|family| {
            Desc::new(
                family.name.to_owned(),
                family.help.to_owned(),
                Vec::new(),
                std::collections::HashMap::new(),
            )
        });
        registry.register(Box::new(Collect {
            metrics: Arc::clone(self),
            descriptions: descriptions.collect::<Result<_, _>>()?,
        }))
    }

    /// Counts a look at a key.
    pub fn looked(&self, key: &Key, took: Duration, succeeded: bool) {
        let key = match key {
            Key::Rollout(name) => (Looked::Rollout, name.clone()),
            Key::AnalysisRun(name) => (Looked::AnalysisRun, name.clone()),
            Key::Service(_) | Key::Split(_) | Key::Apex(_) | Key::Ingress(_) => return,
        };
        let mut looks = lock(&self.looks);
        let looks = looks.entry(key).or_default();
        let took_s = took.as_secs_f64();
        looks.buckets[BOUNDS_S.partition_point(|&bound| bound < took_s)] += 1;
        looks.sum_s += took_s;
        looks.errors += u64::from(!succeeded);
    }

    fn gather(&self) -> Vec<MetricFamily> {
        if !self.leads.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut page = Page::default();
        let objects = &self.context.objects;
        let rollouts = objects.rollouts.all();
        rollouts.for_each(|rollout| page.add_rollout(&rollout));
        let runs = objects.runs.all();
        runs.for_each(|run| page.add_run(&run));
        for template in objects.templates.all() {
            page.gauge(
                TEMPLATE_INFO,
                &name_labels(
                    &template.namespace().unwrap_or_default(),
                    &template.name_any(),
                ),
                1.0,
            );
        }
        for (name, told) in self.context.events.tally() {
            for Told {
                kind,
                reason,
                count,
            } in told
            {
                let labels = [
                    ("namespace", name.namespace.as_str()),
                    ("name", &name.name),
                    ("type", kind),
                    ("reason", reason),
                ];
                page.counter(ROLLOUT_EVENTS, &labels, count);
            }
        }
        let mut looks = lock(&self.looks);
        // What is gone is no longer told.
        looks.retain(|(kind, name), _| match kind {
            Looked::Rollout => objects.rollouts.get(&name.namespace, &name.name).is_some(),
            Looked::AnalysisRun => objects.runs.get(&name.namespace, &name.name).is_some(),
        });
        looks
            .iter()
            .for_each(|((kind, name), looks)| page.add_looks(*kind, name, looks));
        page.0.into_values().map(finish).collect()
    }
}

/// The families of one answer, by name.
#[derive(Default)]
struct Page(BTreeMap<&'static str, (Family, Vec<Metric>)>);

type Labels<'a> = [(&'static str, &'a str)];

impl Page {
    fn add_rollout(&mut self, rollout: &Rollout) {
        let (namespace, name) = (rollout.namespace().unwrap_or_default(), rollout.name_any());
        let status = rollout.status.clone().unwrap_or_default();
        let strategy = strategy(rollout);
        let phase = rollout_phase(rollout);
        let id = name_labels(&namespace, &name);
        let info = [
            id[0],
            id[1],
            ("strategy", strategy),
            ("traffic_router", traffic_router(rollout)),
            ("phase", phase),
        ];
        self.gauge(ROLLOUT_INFO, &info, 1.0);
        for other in ROLLOUT_PHASES {
            let labels = [id[0], id[1], ("strategy", strategy), ("phase", other)];
            self.gauge(ROLLOUT_PHASE, &labels, truth(other == phase));
        }
        let counts = [
            (REPLICAS_AVAILABLE, status.available_replicas),
            (
                REPLICAS_UNAVAILABLE,
                status.replicas - status.available_replicas,
            ),
            (REPLICAS_DESIRED, rollout.spec.replicas.unwrap_or(1)),
            (REPLICAS_UPDATED, status.updated_replicas),
        ];
        for (family, count) in counts {
            self.gauge(family, &id, f64::from(count));
        }
    }

    fn add_run(&mut self, run: &AnalysisRun) {
        let (namespace, name) = (run.namespace().unwrap_or_default(), run.name_any());
        let status = run.status.clone().unwrap_or_default();
        let phase = if status.phase.is_empty() {
            "Pending"
        } else {
            &status.phase
        };
        let id = name_labels(&namespace, &name);
        self.gauge(RUN_INFO, &[id[0], id[1], ("phase", phase)], 1.0);
        for other in RUN_PHASES {
            self.gauge(
                RUN_PHASE,
                &[id[0], id[1], ("phase", other)],
                truth(other == phase),
            );
        }
        for metric in &run.spec.metrics {
            let provider = metric.provider.keys().next().map_or("none", String::as_str);
            let metric_id = ("metric", metric.name.as_str());
            let kind = ("type", provider);
            self.gauge(RUN_METRIC_TYPE, &[id[0], id[1], metric_id, kind], 1.0);
            let result = status
                .metric_results
                .iter()
                .find(|result| result.name == metric.name);
            let dry_run = (
                "dry_run",
                if result.is_some_and(|result| result.dry_run) {
                    "true"
                } else {
                    "false"
                },
            );
            let phase = result.map_or("Pending", |result| result.phase.as_str());
            for other in RUN_PHASES {
                let labels = [id[0], id[1], metric_id, kind, dry_run, ("phase", other)];
                self.gauge(RUN_METRIC_PHASE, &labels, truth(other == phase));
            }
        }
    }

    fn add_looks(&mut self, kind: Looked, name: &Name, looks: &Looks) {
        let (times, errors) = match kind {
            Looked::Rollout => (ROLLOUT_RECONCILE, ROLLOUT_ERRORS),
            Looked::AnalysisRun => (RUN_RECONCILE, RUN_ERRORS),
        };
        let labels = name_labels(&name.namespace, &name.name);
        if looks.errors > 0 {
            self.counter(errors, &labels, looks.errors);
        }
        let mut below = 0;
        let mut buckets = Vec::new();
        for (bound, count) in BOUNDS_S.iter().zip(looks.buckets) {
            below += count;
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(below);
            buckets.push(bucket);
        }
        let mut histogram = Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(looks.buckets.iter().sum());
        histogram.set_sample_sum(looks.sum_s);
        self.metric(times, &labels, |metric| metric.set_histogram(histogram));
    }

    fn gauge(&mut self, family: Family, labels: &Labels<'_>, value: f64) {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        self.metric(family, labels, |metric| metric.set_gauge(gauge));
    }

    fn counter(&mut self, family: Family, labels: &Labels<'_>, value: u64) {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus counts in floats")]
        let value = value as f64;
        let mut counter = Counter::default();
        counter.set_value(value);
        self.metric(family, labels, |metric| metric.set_counter(counter));
    }

    fn metric(&mut self, family: Family, labels: &Labels<'_>, fill: impl FnOnce(&mut Metric)) {
        let pair = |(name, value): &(&'static str, &str)| {
            let mut pair = LabelPair::default();
            pair.set_name((*name).to_owned());
            pair.set_value((*value).to_owned());
            pair
        };
        let mut metric = Metric::default();
        metric.set_label(labels.iter().map(pair).collect());
        fill(&mut metric);
        let page = self.0.entry(family.name).or_insert((family, Vec::new()));
        page.1.push(metric);
    }
}

fn finish((family, metrics): (Family, Vec<Metric>)) -> MetricFamily {
    let mut page = MetricFamily::default();
    page.set_name(family.name.to_owned());
    page.set_help(family.help.to_owned());
    page.set_field_type(family.kind);
    page.set_metric(metrics);
    page
}

struct Collect {
    metrics: Arc<Metrics>,
    descriptions: Vec<Desc>,
}

impl Collector for Collect {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.metrics.gather()
    }
}

fn name_labels<'a>(namespace: &'a str, name: &'a str) -> [(&'static str, &'a str); 2] {
    [("namespace", namespace), ("name", name)]
}

fn truth(value: bool) -> f64 {
    f64::from(u8::from(value))
}

fn strategy(rollout: &Rollout) -> &'static str {
    let strategy = &rollout.spec.strategy;
    match (&strategy.canary, &strategy.blue_green) {
        (Some(_), _) => "canary",
        (None, Some(_)) => "blueGreen",
        (None, None) => "none",
    }
}

fn traffic_router(rollout: &Rollout) -> &str {
    let canary = rollout.spec.strategy.canary.as_ref();
    let Some(routing) = canary.and_then(|canary| canary.traffic_routing.as_ref()) else {
        return "";
    };
    let plugin = routing
        .plugins
        .as_ref()
        .and_then(|plugins| plugins.keys().next());
    plugin
        .or_else(|| routing.others.keys().next())
        .map_or("", String::as_str)
}

/// Argo's reading: by the reason of the Progressing condition.
fn rollout_phase(rollout: &Rollout) -> &'static str {
    let conditions = rollout.status.iter().flat_map(|status| &status.conditions);
    let mut phase = "Progressing";
    for condition in conditions {
        match (condition.kind.as_str(), condition.reason.as_str()) {
            ("InvalidSpec", _) => return "InvalidSpec",
            ("Progressing", "NewReplicaSetAvailable") => phase = "Completed",
            ("Progressing", "RolloutPaused") => phase = "Paused",
            ("Progressing", "ProgressDeadlineExceeded") => phase = "Timeout",
            ("Progressing", "ReplicaSetCreateError") => phase = "Error",
            ("Progressing", "RolloutAborted") => phase = "Abort",
            _ => {}
        }
    }
    phase
}

#[cfg(test)]
mod tests {
    use prometheus::{Encoder, TextEncoder};
    use serde_json::json;

    use super::*;

    fn text(page: Page) -> String {
        let families: Vec<_> = page.0.into_values().map(finish).collect();
        let mut text = Vec::new();
        TextEncoder::new().encode(&families, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn label_values_that_read_alike_in_a_row_stay_apart() {
        let mut page = Page::default();
        page.counter(ROLLOUT_ERRORS, &name_labels("ab", "c"), 1);
        page.counter(ROLLOUT_ERRORS, &name_labels("a", "bc"), 2);
        let text = text(page);
        assert!(
            text.contains(r#"rollout_reconcile_error{namespace="ab",name="c"} 1"#),
            "{text}"
        );
        assert!(
            text.contains(r#"rollout_reconcile_error{namespace="a",name="bc"} 2"#),
            "{text}"
        );
    }

    #[test]
    fn buckets_are_cumulative_and_the_rest_counts_in_the_sum() {
        let looks = Looks {
            buckets: [1, 2, 0, 0, 0, 4],
            sum_s: 9.5,
            errors: 0,
        };
        let name = Name {
            namespace: "ns".into(),
            name: "web".into(),
        };
        let mut page = Page::default();
        page.add_looks(Looked::Rollout, &name, &looks);
        let text = text(page);
        for line in [
            r#"le="0.01"} 1"#,
            r#"le="0.15"} 3"#,
            r#"le="1"} 3"#,
            r#"le="+Inf"} 7"#,
            "rollout_reconcile_error",
        ] {
            assert_eq!(
                text.contains(line),
                line != "rollout_reconcile_error",
                "{line} in {text}"
            );
        }
    }

    #[test]
    fn the_phase_is_what_the_progressing_condition_says() {
        let check = |conditions: serde_json::Value, expected: &str| {
            let rollout = json!({"metadata": {"name": "web"}, "spec": {}, "status": {"conditions": conditions}});
            assert_eq!(
                rollout_phase(&serde_json::from_value(rollout).unwrap()),
                expected,
                "{conditions}"
            );
        };
        let condition = |kind: &str, reason: &str| json!({"type": kind, "reason": reason, "status": "True", "message": ""});
        check(json!([]), "Progressing");
        check(
            json!([
                condition("Progressing", "NewReplicaSetAvailable"),
                condition("Paused", "RolloutPaused")
            ]),
            "Completed",
        );
        check(json!([condition("Progressing", "RolloutAborted")]), "Abort");
        check(
            json!([
                condition("Progressing", "RolloutPaused"),
                condition("InvalidSpec", "InvalidSpec")
            ]),
            "InvalidSpec",
        );
    }
}
