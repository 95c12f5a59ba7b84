//! Phase and message (R2.6): the first that applies.

use super::conditions::{DEADLINE_EXCEEDED, INVALID_SPEC, ROLLOUT_ABORTED};
use super::plan::Plan;
use super::state::State;
use super::{bluegreen, restart};
use crate::api::rollout::RolloutCondition;

/// The phase and message of a status; `pending` is what of a promotion is still to arrive.
pub(super) fn of(
    plan: &Plan,
    state: &State,
    replicas: i32,
    pending: Option<&'static str>,
) -> (Option<String>, Option<String>) {
    let (phase, message) = judge(plan, state, replicas, pending);
    (Some(phase.to_owned()), message)
}

fn judge(
    plan: &Plan,
    state: &State,
    replicas: i32,
    pending: Option<&'static str>,
) -> (&'static str, Option<String>) {
    if let Some((phase, message)) = degraded(state) {
        return (phase, Some(message));
    }
    if plan.paused {
        return ("Paused", Some("manually paused".to_owned()));
    }
    if let Some(pause) = state.pauses.first() {
        return ("Paused", Some(pause.reason.word().to_owned()));
    }
    if restart::is_asked_for(plan, state) {
        return ("Progressing", Some("rollout is restarting".to_owned()));
    }
    match unfinished(plan, state, replicas).or(pending) {
        Some(what) => ("Progressing", Some(what.to_owned())),
        None => ("Healthy", None),
    }
}

/// The phase and message of a rollout that needs somebody.
pub(super) fn degraded(state: &State) -> Option<(&'static str, String)> {
    let bad = |condition: &&RolloutCondition| {
        condition.kind == INVALID_SPEC
            || [ROLLOUT_ABORTED, DEADLINE_EXCEEDED].contains(&condition.reason.as_str())
    };
    let condition = state.conditions.iter().find(bad)?;
    Some((
        "Degraded",
        format!("{}: {}", condition.reason, condition.message),
    ))
}

fn unfinished(plan: &Plan, state: &State, replicas: i32) -> Option<&'static str> {
    let counts = state.counts;
    if counts.updated < replicas {
        return Some("more replicas need to be updated");
    }
    if counts.available < counts.updated {
        return Some("updated replicas are still becoming available");
    }
    if let Some(strategy) = plan.blue_green() {
        return bluegreen::unfinished(strategy, state);
    }
    if plan.routing().is_none() && counts.replicas > counts.updated {
        return Some("old replicas are pending termination");
    }
    (!state.is_promoted()).then_some("waiting for all steps to complete")
}
