//! Conditions (R2.5): what they say, when they are rewritten, and when a rollout has run out of time.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{Foreign, Step};
use super::state::State;
use super::time;
use super::turn::Turn;
use super::{arrival, bluegreen, phase, rollback};
use crate::api::rollout::RolloutCondition;

pub(super) const INVALID_SPEC: &str = "InvalidSpec";
pub(super) const PROGRESSING: &str = "Progressing";
const PAUSED: &str = "Paused";
const AVAILABLE: &str = "Available";
const COMPLETED: &str = "Completed";
const HEALTHY: &str = "Healthy";
pub(super) const FOREIGN_ROUTER: &str = "ForeignRouter";
const REPLICA_FAILURE: &str = "ReplicaFailure";

pub(super) const ROLLOUT_ABORTED: &str = "RolloutAborted";
pub(super) const DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";
const ROLLOUT_PAUSED: &str = "RolloutPaused";

/// What a condition is to say.
#[derive(Clone, Debug)]
pub(super) struct Says<'a> {
    pub(super) kind: &'a str,
    pub(super) status: &'a str,
    pub(super) reason: &'a str,
    pub(super) message: &'a str,
}

/// Rewrites a condition if its status or reason changes; a message alone never does. Returns whether it did.
pub(super) fn set(state: &mut State, says: &Says<'_>, now: Timestamp) -> bool {
    let current = state.condition(says.kind);
    if current.is_some_and(|current| current.status == says.status && current.reason == says.reason)
    {
        return false;
    }
    rewrite(state, says, now);
    true
}

/// Rewrites a condition, which then stands last; its transition time moves only with its status.
fn rewrite(state: &mut State, says: &Says<'_>, now: Timestamp) {
    let now = Time(time::whole_seconds(now));
    let kept = state
        .condition(says.kind)
        .filter(|current| current.status == says.status)
        .and_then(|current| current.last_transition_time.clone());
    state
        .conditions
        .retain(|condition| condition.kind != says.kind);
    state.conditions.push(RolloutCondition {
        kind: says.kind.to_owned(),
        status: says.status.to_owned(),
        reason: says.reason.to_owned(),
        message: says.message.to_owned(),
        last_transition_time: Some(kept.unwrap_or_else(|| now.clone())),
        last_update_time: Some(now),
    });
}

/// R3.2: a pause, a resume or a retry is written by itself, before anything follows from it. Returns whether it was.
pub(super) fn pause_or_resume(turn: &mut Turn<'_>) -> bool {
    let was = turn.was;
    let generation = Some(turn.observed.rollout.generation.to_string());
    if was.observed_generation != generation || was.condition(INVALID_SPEC).is_some() {
        return false;
    }
    let says = pause_conditions(was, turn.plan.paused);
    if says.is_empty() {
        return false;
    }
    let mut next = was.clone();
    for says in says {
        set(&mut next, &says, turn.now);
    }
    if next == *was {
        return false;
    }
    turn.next = next;
    let pending = arrival::pending(turn);
    (turn.next.phase, turn.next.message) = phase::of(turn.plan, &turn.next, turn.replicas, pending);
    turn.keep_waiting();
    turn.look_again(turn.now);
    true
}

fn pause_conditions(was: &State, user_paused: bool) -> Vec<Says<'static>> {
    let paused = user_paused || !was.pauses.is_empty();
    let reason = was
        .condition(PROGRESSING)
        .map(|condition| condition.reason.as_str());
    let progressing = |reason, message| Says {
        kind: PROGRESSING,
        status: "Unknown",
        reason,
        message,
    };
    if reason == Some(ROLLOUT_ABORTED) {
        let retried =
            (!was.abort).then(|| progressing("RolloutRetry", "Retrying Rollout after abort"));
        return retried.into_iter().collect();
    }
    let mut says = Vec::new();
    if paused != (reason == Some(ROLLOUT_PAUSED)) {
        says.push(match paused {
            true => progressing(ROLLOUT_PAUSED, "Rollout is paused"),
            false => progressing("RolloutResumed", "Rollout is resumed"),
        });
    }
    let shown = was
        .condition(PAUSED)
        .is_some_and(|condition| condition.status == "True");
    if paused != shown {
        let status = if paused { "True" } else { "False" };
        says.push(Says {
            kind: PAUSED,
            status,
            reason: ROLLOUT_PAUSED,
            message: "Rollout is paused",
        });
    }
    says
}

/// Brings all conditions in line with what the turn has decided.
pub(super) fn judge(turn: &mut Turn<'_>) {
    let became_unhealthy = judge_health(turn);
    judge_completion(turn);
    match turn.is_aborted() {
        true => rollback::declare(turn),
        false => judge_progress(turn, became_unhealthy),
    }
    judge_availability(turn);
    judge_failures(turn);
}

fn judge_health(turn: &mut Turn<'_>) -> bool {
    let now = turn.now;
    if is_healthy(turn) {
        let says = Says {
            kind: HEALTHY,
            status: "True",
            reason: "RolloutHealthy",
            message: "Rollout is healthy",
        };
        set(&mut turn.next, &says, now);
        return false;
    }
    let says = Says {
        kind: HEALTHY,
        status: "False",
        reason: "RolloutHealthy",
        message: "Rollout is not healthy",
    };
    turn.was.condition(HEALTHY).is_some() && set(&mut turn.next, &says, now)
}

fn judge_completion(turn: &mut Turn<'_>) {
    let now = turn.now;
    let status = if turn.next.is_promoted() {
        "True"
    } else {
        "False"
    };
    let says = Says {
        kind: COMPLETED,
        status,
        reason: "RolloutCompleted",
        message: "RolloutCompleted",
    };
    if set(&mut turn.next, &says, now) && status == "False" {
        let message = format!(
            "Rollout not completed, started update to revision {} ({})",
            turn.number, turn.new.hash
        );
        turn.tell("RolloutNotCompleted", message);
    }
}

fn judge_progress(turn: &mut Turn<'_>, became_unhealthy: bool) {
    let now = turn.now;
    let name = &turn.new.name;
    if is_healthy(turn) {
        let message = format!("ReplicaSet \"{name}\" has successfully progressed.");
        let says = Says {
            kind: PROGRESSING,
            status: "True",
            reason: "NewReplicaSetAvailable",
            message: &message,
        };
        set(&mut turn.next, &says, now);
    } else if made_progress(turn) || became_unhealthy {
        let message = format!("ReplicaSet \"{name}\" is progressing.");
        let lacking = turn.next.counts.available < turn.replicas;
        let (reason, message) = match turn.next.is_promoted() && became_unhealthy && lacking {
            true => (
                "ReplicaSetNotAvailable",
                "Rollout does not have minimum availability",
            ),
            false => ("ReplicaSetUpdated", message.as_str()),
        };
        rewrite(
            &mut turn.next,
            &Says {
                kind: PROGRESSING,
                status: "True",
                reason,
                message,
            },
            now,
        );
    } else if has_timed_out(turn) {
        let message = timeout_message(turn);
        let says = Says {
            kind: PROGRESSING,
            status: "False",
            reason: DEADLINE_EXCEEDED,
            message: &message,
        };
        set(&mut turn.next, &says, now);
    }
}

/// What the deadline says when it passes: Argo's words, unless the ReplicaSet has all its pods and it is proxies that were waited for.
pub(super) fn timeout_message(turn: &Turn<'_>) -> String {
    let new = turn.new;
    let complete = new.wanted > 0 && new.available >= new.wanted;
    let waiting = turn.was.memory.waiting.as_ref();
    let proxies = waiting.filter(|waiting| complete && waiting.reason == "acknowledgement");
    match proxies {
        Some(proxies) => format!("Rollout has timed out waiting for {}", proxies.message),
        None => format!("ReplicaSet \"{}\" has timed out progressing.", new.name),
    }
}

fn judge_availability(turn: &mut Turn<'_>) {
    let (status, message) = match turn.next.counts.available >= turn.replicas {
        true => ("True", "Rollout has minimum availability"),
        false => ("False", "Rollout does not have minimum availability"),
    };
    let now = turn.now;
    set(
        &mut turn.next,
        &Says {
            kind: AVAILABLE,
            status,
            reason: "AvailableReason",
            message,
        },
        now,
    );
}

fn judge_failures(turn: &mut Turn<'_>) {
    let others = turn.observed.revisions.iter();
    let failure = turn
        .new
        .failure
        .as_ref()
        .or_else(|| others.filter_map(|set| set.failure.as_ref()).next());
    let now = turn.now;
    match failure {
        Some((reason, message)) => {
            set(
                &mut turn.next,
                &Says {
                    kind: REPLICA_FAILURE,
                    status: "True",
                    reason,
                    message,
                },
                now,
            );
        }
        None => turn
            .next
            .conditions
            .retain(|condition| condition.kind != REPLICA_FAILURE),
    }
}

/// R5.2.
fn is_healthy(turn: &Turn<'_>) -> bool {
    let counts = turn.next.counts;
    let generation = turn.observed.rollout.generation.to_string();
    let paused = turn.plan.paused || !turn.was.pauses.is_empty();
    let surplus = turn.plan.canary().is_some() && counts.replicas != turn.replicas;
    let counted = [counts.updated, counts.available];
    !paused
        && turn.was.observed_generation == Some(generation)
        && !surplus
        && counted.iter().all(|count| *count == turn.replicas)
        && turn.is_past_steps()
        && turn.next.is_promoted()
        && arrival::pending(turn).is_none()
}

/// R5.1.
pub(super) fn made_progress(turn: &Turn<'_>) -> bool {
    let (was, next) = (turn.was, &turn.next);
    next.counts.updated != was.counts.updated
        || next.counts.replicas - next.counts.updated < was.counts.replicas - was.counts.updated
        || next.counts.ready > was.counts.ready
        || next.counts.available > was.counts.available
        || next.stable != was.stable
        || next.step != was.step
        || next.step_hash != was.step_hash
        || next.blue_green.active_selector != was.blue_green.active_selector
        || next.blue_green.preview_selector != was.blue_green.preview_selector
}

/// R5.3. Asks to be called again when the time has come.
pub(super) fn has_timed_out(turn: &mut Turn<'_>) -> bool {
    if is_exempt(turn) {
        return false;
    }
    let Some(condition) = turn.was.condition(PROGRESSING) else {
        return false;
    };
    match condition.reason.as_str() {
        ROLLOUT_ABORTED | ROLLOUT_PAUSED => return false,
        DEADLINE_EXCEEDED => return true,
        _ => {}
    }
    let Some(updated) = &condition.last_update_time else {
        return false;
    };
    let deadline = time::after(updated.0, turn.plan.progress_deadline.as_secs());
    if deadline < turn.now {
        return true;
    }
    turn.look_again(time::after(deadline, 1));
    false
}

/// Waiting for a person, an analysis or an old revision's delay is no lack of progress.
fn is_exempt(turn: &Turn<'_>) -> bool {
    let waits = matches!(turn.step(), Some(Step::Pause(_) | Step::Analysis(_)));
    let paused = turn
        .was
        .condition(PAUSED)
        .is_some_and(|condition| condition.status == "True");
    let held = matches!(turn.plan.foreign, Foreign::Live(_));
    let leaving = turn.others.iter().any(|set| {
        (set.deadline().is_some_and(|at| at > turn.now) && set.wanted > 0)
            || (turn.routing().is_some() && turn.next.is_promoted() && set.wanted > 0)
    });
    waits || paused || held || leaving || bluegreen::is_measuring(turn)
}
