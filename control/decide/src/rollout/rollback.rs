//! Ways back: aborts (R11.2 to R11.4) by a person, by a verdict, by the deadline, and what is remembered of them; and rollbacks that
//! skip the steps (R13). Whatever is under way can be aborted, a full promotion and a rollback too.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::conditions::{self, Says};
use super::turn::{Resume, Turn};
use super::{runs, time};
use crate::api::split::LastAbort;

/// A rollout that is fully promoted has nothing to abort (R3.1).
pub(super) fn forgive_if_promoted(turn: &mut Turn<'_>) {
    if turn.is_promoted() {
        turn.will.forgive = true;
    }
}

/// A full promotion that was asked for after an abort takes the abort back (R11.1); an abort of a full promotion ends it.
pub(super) fn settle_promotion(turn: &mut Turn<'_>) {
    if !turn.was.abort || !turn.next.promote_full {
        return;
    }
    match turn.was.aborted_at {
        None => turn.next.promote_full = false,
        Some(_) => {
            turn.will.forgive = true;
            turn.next.aborted_at = None;
        }
    }
}

/// The spec has gone back to a revision older than stable, with few enough others between the two (R13.1).
pub(super) fn is_within_window(turn: &Turn<'_>) -> bool {
    let (Some(window), Some(stable)) = (turn.plan.rollback_window, turn.old_stable()) else {
        return false;
    };
    let created = turn.observed.revisions.iter().map(|set| set.created_at);
    is_recent(window, turn.new.created_at, stable.created_at, created)
}

/// Creation times decide and not revision numbers, which a rollback raises (R13.3).
fn is_recent(
    window: usize,
    new: Timestamp,
    stable: Timestamp,
    all: impl Iterator<Item = Timestamp>,
) -> bool {
    new < stable && all.filter(|at| new < *at && *at < stable).count() < window
}

/// A rollback within the window that nobody has aborted: no pause, no analysis, no step holds it up (R13.2).
pub(super) fn is_fast(turn: &Turn<'_>) -> bool {
    is_within_window(turn) && !turn.is_aborted()
}

/// Skips all steps of a rollback within the window; after a retry, too.
pub(super) fn skip_steps(turn: &mut Turn<'_>) {
    if is_fast(turn) && turn.next.step != turn.last_index() {
        turn.will.resume = Resume::All;
        turn.next.step = turn.last_index();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_counts_revisions_in_between() {
        // R13.1: a window of 3 with stable r5 reaches r4, r3 and r2.
        let at = |second| Timestamp::from_second(second).unwrap();
        let all = || (1..=5).map(at);
        for (new, recent) in [(4, true), (3, true), (2, true), (1, false), (5, false)] {
            assert_eq!(is_recent(3, at(new), at(5), all()), recent, "r{new}");
        }
        assert!(!is_recent(3, at(5), at(4), all()), "forward is no rollback");
    }
}
