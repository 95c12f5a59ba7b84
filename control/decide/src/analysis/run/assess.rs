//! What the measurements so far say: of each metric, then of the run.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{Asked, Event, Plan};
use crate::analysis::phase::Phase;
use crate::api::analysis::{AnalysisRunStatus, MetricResult, RunSummary};

/// Brings every metric's phase up to date; a completed one stays as it is.
pub(super) fn metrics(plan: &Plan, status: &mut AnalysisRunStatus) -> Vec<Event> {
    let mut events = Vec::new();
    // The verdict on one metric can end the others.
    for _ in 0..2 {
        let terminating = plan.is_terminating(status);
        for asked in &plan.metrics {
            let results = &mut status.metric_results;
            let Some(result) = results.iter_mut().find(|result| result.name == asked.name) else {
                continue;
            };
            let phase = metric(asked, result, terminating);
            if phase == Phase::read(&result.phase) {
                continue;
            }
            result.phase = phase.as_str().to_owned();
            result.message = result
                .measurements
                .last()
                .and_then(|measurement| measurement.message.clone());
            if phase.is_completed() {
                events.push(Event {
                    warning: is_bad_news(phase),
                    reason: metric_reason(phase),
                    message: format!("Metric '{}' Completed. Result: {phase}", asked.name),
                });
            }
        }
    }
    events
}

fn metric(asked: &Asked, result: &MetricResult, terminating: bool) -> Phase {
    let before = Phase::read(&result.phase);
    if before.is_completed() {
        return before;
    }
    match result.measurements.last() {
        None if terminating => return Phase::Successful,
        None => return Phase::Pending,
        Some(last) if last.finished_at.is_none() => return Phase::Running,
        Some(_) => {}
    }
    if let Some((phase, _)) = limit_passed(asked, result) {
        return phase;
    }
    if reached(asked.consecutive_success_limit, result.consecutive_success) {
        return Phase::Successful;
    }
    if asked.count.is_some_and(|count| result.count >= count) {
        return at_the_end(asked);
    }
    if terminating {
        Phase::Successful
    } else {
        Phase::Running
    }
}

/// 0 is no limit.
const fn reached(limit: i32, successes: i32) -> bool {
    limit > 0 && successes >= limit
}

/// All measurements are taken and no limit was passed.
const fn at_the_end(asked: &Asked) -> Phase {
    match (
        asked.failure_limit >= 0,
        asked.consecutive_success_limit > 0,
    ) {
        (true, true) => Phase::Inconclusive,
        (false, true) => Phase::Failed,
        (_, false) => Phase::Successful,
    }
}

/// The limit that was passed, if one was, and how.
fn limit_passed(asked: &Asked, result: &MetricResult) -> Option<(Phase, String)> {
    let passed = |phase, what: &str, count: i32, name: &str, limit: i32| {
        (count > limit).then(|| (phase, format!("{what} ({count}) > {name} ({limit})")))
    };
    // Later rules override earlier ones in Argo; so the last is asked first.
    let errors = passed(
        Phase::Error,
        "consecutiveErrors",
        result.consecutive_error,
        "consecutiveErrorLimit",
        asked.consecutive_error_limit,
    );
    let inconclusive = || {
        let (count, limit) = (result.inconclusive, asked.inconclusive_limit);
        passed(
            Phase::Inconclusive,
            "inconclusive",
            count,
            "inconclusiveLimit",
            limit,
        )
    };
    let failed = || {
        let (count, limit) = (result.failed, asked.failure_limit);
        let counts = limit >= 0;
        passed(Phase::Failed, "failed", count, "failureLimit", limit).filter(|_| counts)
    };
    errors.or_else(inconclusive).or_else(failed)
}

/// Why a metric did not end well.
fn reason(asked: &Asked, result: &MetricResult) -> String {
    let why = limit_passed(asked, result).map_or_else(
        || {
            format!(
                "consecutiveSuccess ({}) < consecutiveSuccessLimit ({})",
                result.consecutive_success, asked.consecutive_success_limit
            )
        },
        |(_, why)| why,
    );
    let detail = match result.message.as_deref() {
        Some(message) if !message.is_empty() => format!(": \"Error Message: {message}\""),
        Some(_) | None => String::new(),
    };
    format!(
        "Metric \"{}\" assessed {} due to {why}{detail}",
        asked.name, result.phase
    )
}

/// Brings the run's phase, message and summaries up to date.
pub(super) fn run(plan: &Plan, status: &mut AnalysisRunStatus, now: Timestamp) -> Option<Event> {
    let terminating = plan.is_terminating(status);
    let mut worst: Option<(Phase, Option<String>)> = None;
    let mut completed = true;
    let mut counting = RunSummary::default();
    let mut dry = RunSummary::default();
    for asked in &plan.metrics {
        let result = super::result(status, &asked.name);
        let phase = match result {
            Some(result) => Phase::read(&result.phase),
            None if terminating => Phase::Successful,
            None => Phase::Pending,
        };
        add(
            if asked.dry_run {
                &mut dry
            } else {
                &mut counting
            },
            phase,
            result.is_some(),
        );
        completed &= phase.is_completed();
        let is_worse = worst.as_ref().is_none_or(|(worst, _)| phase > *worst);
        if phase.is_completed() && !asked.dry_run && is_worse {
            let bad = phase != Phase::Successful;
            let why = result.filter(|_| bad).map(|result| reason(asked, result));
            worst = Some((phase, why));
        }
    }
    status.run_summary = Some(counting);
    status.dry_run_summary = (dry.count > 0).then_some(dry);
    if !completed {
        status.phase = Phase::Running.as_str().to_owned();
        return None;
    }
    let (phase, why) = worst.unwrap_or((Phase::Successful, None));
    let terminated = plan.terminate.then(|| "Run Terminated".to_owned());
    status.phase = phase.as_str().to_owned();
    status.message = why.or(terminated);
    status.completed_at = Some(Time(now));
    Some(completion(phase))
}

fn add(summary: &mut RunSummary, phase: Phase, measured: bool) {
    summary.count += 1;
    match phase {
        Phase::Successful if measured => summary.successful += 1,
        Phase::Failed => summary.failed += 1,
        Phase::Inconclusive => summary.inconclusive += 1,
        Phase::Error => summary.error += 1,
        Phase::Successful | Phase::Running | Phase::Pending => {}
    }
}

/// The event for a run that is over.
pub(super) fn completion(phase: Phase) -> Event {
    Event {
        warning: is_bad_news(phase),
        reason: run_reason(phase),
        message: format!("Analysis Completed. Result: {phase}"),
    }
}

const fn is_bad_news(phase: Phase) -> bool {
    matches!(phase, Phase::Failed | Phase::Error)
}

const fn metric_reason(phase: Phase) -> &'static str {
    match phase {
        Phase::Successful => "MetricSuccessful",
        Phase::Running => "MetricRunning",
        Phase::Pending => "MetricPending",
        Phase::Inconclusive => "MetricInconclusive",
        Phase::Error => "MetricError",
        Phase::Failed => "MetricFailed",
    }
}

const fn run_reason(phase: Phase) -> &'static str {
    match phase {
        Phase::Successful => "AnalysisRunSuccessful",
        Phase::Running => "AnalysisRunRunning",
        Phase::Pending => "AnalysisRunPending",
        Phase::Inconclusive => "AnalysisRunInconclusive",
        Phase::Error => "AnalysisRunError",
        Phase::Failed => "AnalysisRunFailed",
    }
}
