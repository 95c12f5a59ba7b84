//! A run's spec, read once: limits as numbers, times as durations, rules as lists. What is wrong is refused here, in Argo's words.

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use regex::Regex;

use crate::analysis::args::Values;
use crate::analysis::duration;
use crate::analysis::phase::Phase;
use crate::analysis::template;
use crate::api::analysis::{AnalysisRunSpec, AnalysisRunStatus, Metric, TtlStrategy};

/// Measurements kept per metric: 10, as in Argo (`DefaultMeasurementHistoryLimit`).
const RETENTION: usize = 10;

/// Errors in a row tolerated: 4, as in Argo (`DefaultConsecutiveErrorLimit`).
const ERRORS: i32 = 4;

/// What a run is to do.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Its metrics.
    pub metrics: Vec<Asked>,
    /// Somebody asked it to end.
    pub terminate: bool,
    /// When it is deleted.
    pub ttl: Option<TtlStrategy>,
}

/// A metric's rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// From one measurement to the next.
    pub interval: Option<SignedDuration>,
    /// From the run's start to the first measurement.
    pub initial_delay: SignedDuration,
    /// Measurements to take; `None` is without end.
    pub count: Option<i32>,
    /// Failed measurements tolerated; negative is all.
    pub failure_limit: i32,
    /// Inconclusive measurements tolerated.
    pub inconclusive_limit: i32,
    /// Errors in a row tolerated.
    pub consecutive_error_limit: i32,
    /// Successes in a row that end it well; 0 is off.
    pub consecutive_success_limit: i32,
    /// It is measured but does not count.
    pub dry_run: bool,
    /// Measurements kept.
    pub retention: usize,
}

impl Plan {
    /// Whether no new measurement is begun: somebody asked for it, or a metric that counts ended badly.
    #[must_use]
    pub fn is_terminating(&self, status: &AnalysisRunStatus) -> bool {
        let is_bad = |asked: &Asked| {
            let phase = super::result(status, &asked.name).map(|result| Phase::read(&result.phase));
            !asked.dry_run
                && matches!(
                    phase,
                    Some(Phase::Failed | Phase::Error | Phase::Inconclusive)
                )
        };
        self.terminate || self.metrics.iter().any(is_bad)
    }
}

/// Reads a spec.
pub(super) fn read(spec: &AnalysisRunSpec) -> Result<Plan, String> {
    let values = Values::masked(&spec.args).map_err(unresolved)?;
    let metrics = spec
        .metrics
        .iter()
        .map(|metric| values.substitute(metric))
        .collect::<Result<Vec<Metric>, _>>()
        .map_err(unresolved)?;
    checked(spec, &metrics).map_err(|cause| format!("Analysis spec invalid: {cause}"))
}

/// The message for arguments that cannot be resolved.
#[must_use]
#[expect(clippy::needless_pass_by_value, reason = "an error that ends here")]
pub fn unresolved(cause: crate::analysis::args::Error) -> String {
    format!("Unable to resolve metric arguments: {cause}")
}

fn checked(spec: &AnalysisRunSpec, metrics: &[Metric]) -> Result<Plan, String> {
    let rules = spec.dry_run.iter().map(|rule| rule.metric_name.as_str());
    let dry_runs = matching("dryRun", rules, metrics)?;
    let rules = spec.measurement_retention.iter();
    let rules = rules.map(|rule| rule.metric_name.as_str());
    let retentions = matching("measurementRetention", rules, metrics)?;
    if metrics.is_empty() {
        return Err("no metrics specified".to_owned());
    }
    let mut asked: Vec<Asked> = Vec::with_capacity(metrics.len());
    for (index, metric) in metrics.iter().enumerate() {
        if asked.iter().any(|other| other.name == metric.name) {
            return Err(format!(
                "metrics[{index}]: duplicate name '{}'",
                metric.name
            ));
        }
        let one = ask(metric).map_err(|cause| format!("metrics[{index}]: {cause}"))?;
        let retention = retentions[index].map(|rule| spec.measurement_retention[rule].limit);
        asked.push(Asked {
            dry_run: dry_runs[index].is_some(),
            retention: retention.map_or(RETENTION, kept),
            ..one
        });
    }
    Ok(Plan {
        metrics: asked,
        terminate: spec.terminate == Some(true),
        ttl: spec.ttl_strategy.clone(),
    })
}

/// A limit below 1 is the default, as in Argo.
fn kept(limit: i32) -> usize {
    usize::try_from(limit)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(RETENTION)
}

/// For each metric, the last rule whose expression its name matches.
fn matching<'a>(
    field: &str,
    rules: impl Iterator<Item = &'a str>,
    metrics: &[Metric],
) -> Result<Vec<Option<usize>>, String> {
    let mut matched = vec![None; metrics.len()];
    for (rule, text) in rules.enumerate() {
        let pattern = Regex::new(text)
            .map_err(|error| format!("{field}[{rule}]: invalid rule {text:?}: {error}"))?;
        let mut hits = 0;
        for (metric, slot) in metrics.iter().zip(&mut matched) {
            if pattern.is_match(&metric.name) {
                *slot = Some(rule);
                hits += 1;
            }
        }
        if hits == 0 {
            return Err(format!(
                "{field}[{rule}]: Rule didn't match any metric name(s)"
            ));
        }
    }
    Ok(matched)
}

fn ask(metric: &Metric) -> Result<Asked, String> {
    let number =
        |field, value: &Option<IntOrString>, otherwise| limit(field, value.as_ref(), otherwise);
    let asked = Asked {
        name: metric.name.clone(),
        failure_limit: number("failureLimit", &metric.failure_limit, 0)?,
        inconclusive_limit: number("inconclusiveLimit", &metric.inconclusive_limit, 0)?,
        consecutive_error_limit: number(
            "consecutiveErrorLimit",
            &metric.consecutive_error_limit,
            ERRORS,
        )?,
        consecutive_success_limit: number(
            "consecutiveSuccessLimit",
            &metric.consecutive_success_limit,
            0,
        )?,
        count: template::effective_count(metric).map_err(|text| no_integer("count", &text))?,
        interval: time("interval", metric.interval.as_deref())?,
        initial_delay: time("startDelay", metric.initial_delay.as_deref())?.unwrap_or_default(),
        dry_run: false,
        retention: RETENTION,
    };
    match mistake(metric, &asked) {
        Some(mistake) => Err(mistake.to_owned()),
        None => Ok(asked),
    }
}

/// What of a metric contradicts itself or cannot be, in Argo's words and order; the first of it.
fn mistake(metric: &Metric, asked: &Asked) -> Option<&'static str> {
    let written = template::number(metric.count.as_ref());
    let written = written.ok().flatten().unwrap_or(0);
    let needed = asked
        .failure_limit
        .max(0)
        .saturating_add(asked.consecutive_success_limit);
    let mistakes = [
        (asked.failure_limit < -1, "failureLimit must be >= -1"),
        (
            asked.inconclusive_limit < 0,
            "inconclusiveLimit must be >= 0",
        ),
        (
            asked.consecutive_error_limit < 0,
            "consecutiveErrorLimit must be >= 0",
        ),
        (
            asked.consecutive_success_limit < 0,
            "consecutiveSuccessLimit must be >= 0",
        ),
        (written < 0, "count must be >= 0"),
        (
            written > 1 && asked.interval.is_none(),
            "interval must be specified when count > 1",
        ),
        (
            written > 0 && written < needed,
            "count must be >= failureLimit + consecutiveSuccessLimit",
        ),
        (
            written > 0 && written < asked.inconclusive_limit,
            "count must be >= inconclusiveLimit",
        ),
        (metric.provider.is_empty(), "no provider specified"),
        (metric.provider.len() > 1, "multiple providers specified"),
    ];
    let mut made = mistakes.into_iter().filter(|(made, _)| *made);
    made.next().map(|(_, mistake)| mistake)
}

fn limit(field: &str, value: Option<&IntOrString>, otherwise: i32) -> Result<i32, String> {
    template::number(value)
        .map(|number| number.unwrap_or(otherwise))
        .map_err(|text| no_integer(field, &text))
}

fn no_integer(field: &str, text: &str) -> String {
    format!("{field}: {text:?} is no integer")
}

fn time(field: &str, text: Option<&str>) -> Result<Option<SignedDuration>, String> {
    text.filter(|text| !text.is_empty())
        .map(duration::parse)
        .transpose()
        .map_err(|error| format!("invalid {field} string: {error}"))
}
