//! Bookkeeping: a measurement's place in its metric's result.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Finished, Plan};
use crate::analysis::phase::Phase;
use crate::api::analysis::{AnalysisRunStatus, Measurement, MetricResult};

/// Takes an answer into the status. Answers for metrics that the plan does not name are dropped.
pub(super) fn record(
    plan: &Plan,
    status: &mut AnalysisRunStatus,
    answer: Finished,
    now: Timestamp,
) {
    let Finished {
        metric,
        measurement,
        again: _,
    } = answer;
    let Some(asked) = plan.metrics.iter().find(|asked| asked.name == metric) else {
        return;
    };
    let Some(mut measurement) = measurement else {
        give_up(status, &metric);
        return;
    };
    let result = result_of(status, &metric, asked.dry_run);
    let phase = Phase::read(&measurement.phase);
    if phase.is_completed() {
        measurement.finished_at.get_or_insert(Time(now));
        measurement.resume_at = None;
        count(result, phase);
    }
    put(result, measurement);
    let surplus = result.measurements.len().saturating_sub(asked.retention);
    result.measurements.drain(..surplus);
}

/// A measurement that is given up leaves nothing behind.
fn give_up(status: &mut AnalysisRunStatus, metric: &str) {
    for result in &mut status.metric_results {
        if result.name == metric {
            result
                .measurements
                .retain(|measurement| measurement.finished_at.is_some());
        }
    }
}

fn result_of<'a>(
    status: &'a mut AnalysisRunStatus,
    metric: &str,
    dry_run: bool,
) -> &'a mut MetricResult {
    let results = &mut status.metric_results;
    let place = results.iter().position(|result| result.name == metric);
    let place = place.unwrap_or_else(|| {
        results.push(MetricResult {
            name: metric.to_owned(),
            phase: Phase::Running.as_str().to_owned(),
            dry_run,
            ..MetricResult::default()
        });
        results.len() - 1
    });
    &mut results[place]
}

fn count(result: &mut MetricResult, phase: Phase) {
    result.consecutive_success = match phase {
        Phase::Successful => result.consecutive_success + 1,
        Phase::Running | Phase::Pending | Phase::Inconclusive | Phase::Error | Phase::Failed => 0,
    };
    if phase == Phase::Error {
        result.error += 1;
        result.consecutive_error += 1;
        return;
    }
    result.count += 1;
    result.consecutive_error = 0;
    match phase {
        Phase::Successful => result.successful += 1,
        Phase::Failed => result.failed += 1,
        Phase::Inconclusive => result.inconclusive += 1,
        Phase::Error | Phase::Running | Phase::Pending => {}
    }
}

/// The one in flight is replaced by what became of it.
fn put(result: &mut MetricResult, measurement: Measurement) {
    match result.measurements.last_mut() {
        Some(last) if last.finished_at.is_none() => *last = measurement,
        Some(_) | None => result.measurements.push(measurement),
    }
}
