//! An AnalysisRun's next move: which metrics are due, what finished measurements mean, whether the run is over (reference R2.16).
//!
//! [`step`] is a function of values. The driver calls it to learn what is due, asks the providers, and calls it again with their
//! answers; what it then writes down is [`Move::status`].

mod assess;
mod plan;
mod record;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::phase::Phase;
use crate::api::analysis::{
    AnalysisRunSpec, AnalysisRunStatus, Measurement, MetricResult, TtlStrategy,
};

pub use plan::{Asked, Plan, unresolved};

/// Time from an error to the next try, whatever the interval: 10 s, as in Argo (`DefaultErrorRetryInterval`).
const ERROR_RETRY: SignedDuration = SignedDuration::from_secs(10);

/// Time after which a measurement in flight is looked at again when it does not say itself.
const RESUME: SignedDuration = SignedDuration::from_secs(5);

/// What follows.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Move {
    /// What to ask the providers now.
    pub due: Vec<Due>,
    /// The run's status.
    pub status: AnalysisRunStatus,
    /// What to tell people; only what is new in this move.
    pub events: Vec<Event>,
    /// When to look again, if by time.
    pub again: Option<Timestamp>,
    /// The run has been over long enough: delete it.
    pub expired: bool,
}

/// One thing to ask a provider.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// The metric's name.
    pub metric: String,
    /// What to ask.
    pub ask: Ask,
}

/// What to ask.
#[derive(Clone, Debug, PartialEq)]
pub enum Ask {
    /// Begin a measurement.
    Begin,
    /// Go on with one that is in flight.
    Resume(Measurement),
    /// Give one up that is in flight: the run ends.
    GiveUp(Measurement),
}

/// A provider's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Finished {
    /// The metric's name.
    pub metric: String,
    /// The measurement: ended, or still in flight. `None`: it was given up and leaves nothing behind.
    pub measurement: Option<Measurement>,
    /// When to look again at one in flight; `None`: when it says so itself.
    pub again: Option<Timestamp>,
}

/// Something people should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether it is bad news.
    pub warning: bool,
    /// In one word; part of Argo's API.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// The run's next move.
#[must_use]
pub fn step(
    spec: &AnalysisRunSpec,
    status: &AnalysisRunStatus,
    finished: Vec<Finished>,
    now: Timestamp,
) -> Move {
    if Phase::read(&status.phase).is_completed() {
        return settled(spec.ttl_strategy.as_ref(), status, now);
    }
    let plan = match plan::read(spec) {
        Ok(plan) => plan,
        Err(message) => return refuse(status, message, now),
    };
    let mut status = status.clone();
    status.started_at.get_or_insert(Time(now));
    let polls: Polls = finished
        .iter()
        .filter_map(|answer| Some((answer.metric.clone(), answer.again?)))
        .collect();
    for answer in finished {
        record::record(&plan, &mut status, answer, now);
    }
    let mut events = assess::metrics(&plan, &mut status);
    events.extend(assess::run(&plan, &mut status, now));
    let (due, again) = due(&plan, &status, &polls, now);
    Move {
        due,
        status,
        events,
        again,
        expired: false,
    }
}

/// Ends a run that cannot be carried out.
#[must_use]
pub fn refuse(status: &AnalysisRunStatus, message: String, now: Timestamp) -> Move {
    let status = AnalysisRunStatus {
        phase: Phase::Error.as_str().to_owned(),
        message: Some(message),
        started_at: status.started_at.clone().or(Some(Time(now))),
        completed_at: Some(Time(now)),
        ..status.clone()
    };
    Move {
        events: vec![assess::completion(Phase::Error)],
        status,
        ..Move::default()
    }
}

/// A run that is over stays until its time to live has passed.
fn settled(ttl: Option<&TtlStrategy>, status: &AnalysisRunStatus, now: Timestamp) -> Move {
    let expires = ttl.and_then(|ttl| expiry(ttl, status));
    Move {
        status: status.clone(),
        again: expires.filter(|at| *at > now),
        expired: expires.is_some_and(|at| at <= now),
        ..Move::default()
    }
}

fn expiry(ttl: &TtlStrategy, status: &AnalysisRunStatus) -> Option<Timestamp> {
    let completed = status.completed_at.as_ref()?.0;
    let own = match Phase::read(&status.phase) {
        Phase::Successful => ttl.seconds_after_success,
        Phase::Failed => ttl.seconds_after_failure,
        Phase::Running | Phase::Pending | Phase::Inconclusive | Phase::Error => None,
    };
    let seconds = own.or(ttl.seconds_after_completion)?;
    completed
        .checked_add(SignedDuration::from_secs(seconds.into()))
        .ok()
}

/// When a metric is asked next.
enum Next {
    Now(Ask),
    At(Timestamp),
    Never,
}

/// When to look again at measurements in flight that have just been looked at in vain.
type Polls = BTreeMap<String, Timestamp>;

fn due(
    plan: &Plan,
    status: &AnalysisRunStatus,
    polls: &Polls,
    now: Timestamp,
) -> (Vec<Due>, Option<Timestamp>) {
    let mut due = Vec::new();
    let mut again: Option<Timestamp> = None;
    if Phase::read(&status.phase).is_completed() {
        let again = plan.ttl.as_ref().and_then(|ttl| expiry(ttl, status));
        return (due, again);
    }
    let terminating = plan.is_terminating(status);
    let started = status.started_at.as_ref().map_or(now, |time| time.0);
    for asked in &plan.metrics {
        let at = match next(
            asked,
            result(status, &asked.name),
            started,
            terminating,
            now,
        ) {
            Next::Never => continue,
            Next::At(at) => at,
            Next::Now(Ask::Resume(_)) if polls.contains_key(&asked.name) => polls[&asked.name],
            Next::Now(ask) => {
                due.push(Due {
                    metric: asked.name.clone(),
                    ask,
                });
                now
            }
        };
        again = Some(again.map_or(at, |again| again.min(at)));
    }
    (due, again)
}

fn next(
    asked: &Asked,
    result: Option<&MetricResult>,
    started: Timestamp,
    terminating: bool,
    now: Timestamp,
) -> Next {
    if result.is_some_and(|result| Phase::read(&result.phase).is_completed()) {
        return Next::Never;
    }
    let last = result.and_then(|result| result.measurements.last());
    if let Some(open) = last.filter(|last| last.finished_at.is_none()) {
        return in_flight(open, terminating, now);
    }
    if terminating {
        return Next::Never;
    }
    let Some((result, last)) = result.zip(last) else {
        return at(started, asked.initial_delay, now);
    };
    if asked.count.is_some_and(|count| result.count >= count) {
        return Next::Never;
    }
    let pause = match Phase::read(&last.phase) {
        Phase::Error => ERROR_RETRY,
        Phase::Successful
        | Phase::Running
        | Phase::Pending
        | Phase::Inconclusive
        | Phase::Failed => asked.interval.unwrap_or(ERROR_RETRY),
    };
    let ended = last.finished_at.as_ref().map_or(now, |time| time.0);
    at(ended, pause, now)
}

fn in_flight(open: &Measurement, terminating: bool, now: Timestamp) -> Next {
    if terminating {
        return Next::Now(Ask::GiveUp(open.clone()));
    }
    match &open.resume_at {
        Some(resume) if resume.0 > now => Next::At(resume.0),
        Some(_) => Next::Now(Ask::Resume(open.clone())),
        None => {
            let begun = open.started_at.as_ref().map_or(now, |time| time.0);
            match at(begun, RESUME, now) {
                Next::Now(_) => Next::Now(Ask::Resume(open.clone())),
                later @ (Next::At(_) | Next::Never) => later,
            }
        }
    }
}

fn at(since: Timestamp, pause: SignedDuration, now: Timestamp) -> Next {
    match since.checked_add(pause) {
        Ok(at) if at > now => Next::At(at),
        Ok(_) => Next::Now(Ask::Begin),
        // Beyond the end of time.
        Err(_) => Next::Never,
    }
}

fn result<'a>(status: &'a AnalysisRunStatus, metric: &str) -> Option<&'a MetricResult> {
    status
        .metric_results
        .iter()
        .find(|result| result.name == metric)
}

#[cfg(test)]
mod tests;
