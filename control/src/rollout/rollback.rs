//! Aborts (R11.2 to R11.4): by a person, by a verdict, by the deadline; and what is remembered of them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{self, Says};
use super::turn::Turn;
use super::{runs, time};
use crate::api::split::LastAbort;

/// A rollout that is fully promoted has nothing to abort (R3.1).
pub(super) fn forgive_if_promoted(turn: &mut Turn<'_>) {
    if turn.is_promoted() {
        turn.will.forgive = true;
    }
}

/// Aborts an update that has made no progress for too long, where the spec asks for it (R5.4).
pub(super) fn abort_at_deadline(turn: &mut Turn<'_>) {
    let wanted = turn.plan.abort_at_deadline && !turn.next.is_promoted() && !turn.will.forgive;
    if wanted && !conditions::made_progress(turn) && conditions::has_timed_out(turn) {
        let message = conditions::timeout_message(turn);
        turn.warn(conditions::ROLLOUT_ABORTED, message.clone());
        turn.will.abort = Some(message);
    }
}

/// Says in the condition that the update is aborted, and why.
pub(super) fn declare(turn: &mut Turn<'_>) {
    let mut message = format!("Rollout aborted update to revision {}", turn.number);
    if let Some(cause) = &turn.will.abort {
        message = format!("{message}: {cause}");
    }
    let reason = conditions::ROLLOUT_ABORTED;
    let says = Says {
        kind: conditions::PROGRESSING,
        status: "False",
        reason,
        message: &message,
    };
    let now = turn.now;
    if conditions::set(&mut turn.next, &says, now) {
        turn.warn(reason, message);
    }
}

/// Keeps why an update was aborted, since a retry wipes it from the status.
pub(super) fn remember(turn: &mut Turn<'_>) {
    if !turn.is_aborted() || turn.was.aborted_at.is_some() {
        return;
    }
    let failure = turn
        .will
        .abort
        .as_ref()
        .and_then(|_| runs::failed(turn)?.failure.clone());
    let failure = failure.as_ref();
    turn.next.memory.last_abort = Some(LastAbort {
        revision: turn.number.to_string(),
        step: turn.was.step.and_then(|step| i32::try_from(step).ok()),
        reason: turn
            .will
            .abort
            .clone()
            .unwrap_or_else(|| "aborted by a person".to_owned()),
        metric: failure.map(|failure| failure.metric.clone()),
        value: failure.and_then(|failure| failure.value.clone()),
        condition: failure.and_then(|failure| failure.condition.clone()),
        at: Some(Time(time::whole_seconds(turn.now))),
    });
}
