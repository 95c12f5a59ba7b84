//! Pauses (R10): adding them, waiting for their time, and telling that a person has resumed.

use super::plan::{PauseFor, Step};
use super::state::{Pause, PauseReason};
use super::time;
use super::turn::{Resume, Turn};

/// How soon to look again at a pause that a person ends, who is seen at once: in case a watch has missed it.
const PERSON_SECONDS: i64 = 300;

/// Adds the pause of a pause step, or asks to be called when its time is over.
pub(super) fn reconcile(turn: &mut Turn<'_>) {
    let Some(Step::Pause(length)) = turn.step() else {
        return;
    };
    if turn.plan.paused || turn.is_aborted() || turn.is_promoted() || turn.next.promote_full {
        return;
    }
    let since = match turn.was.pause(&PauseReason::Step) {
        Some(pause) => pause.since,
        None if turn.was.controller_pause => return,
        None => {
            turn.will.pause = Some(PauseReason::Step);
            time::whole_seconds(turn.now)
        }
    };
    match length {
        PauseFor::Person => {
            turn.look_again(time::after(turn.now, PERSON_SECONDS));
            turn.expect("pause", "a person to promote".to_owned());
        }
        PauseFor::Time { seconds, written } => {
            let until = time::after(since, *seconds);
            if until < turn.now && turn.is_halted() {
                return; // what halts the steps is waited for
            }
            turn.wait("pause", format!("the pause of {written}"), Some(until));
        }
    }
}

/// A person has taken the pause away, or its time is over (R10.1).
pub(super) fn is_over(turn: &Turn<'_>, length: &PauseFor) -> bool {
    match (turn.was.pause(&PauseReason::Step), length) {
        (None, _) => turn.was.controller_pause && turn.was.pauses.is_empty(),
        (Some(_), PauseFor::Person) => false,
        (Some(pause), PauseFor::Time { seconds, .. }) => {
            turn.now > time::after(pause.since, *seconds)
        }
    }
}

/// Writes what the turn wills: an abort drops all pauses; the marks of the controller's own pause go with the last of them.
pub(super) fn settle(turn: &mut Turn<'_>) {
    let now = time::whole_seconds(turn.now);
    let aborted = turn.is_aborted();
    let before = turn.was.pauses.len();
    turn.next.abort = aborted;
    if aborted {
        turn.next.aborted_at.get_or_insert(now);
        turn.next.pauses.clear();
        turn.next.controller_pause = false;
        return;
    }
    if turn.analysed {
        turn.next.aborted_at = None; // R11.3: a retry is over once its analyses are begun
    }
    match turn.will.resume {
        Resume::Nothing => {}
        Resume::Step => turn
            .next
            .pauses
            .retain(|pause| pause.reason != PauseReason::Step),
        Resume::All => turn.next.pauses.clear(),
    }
    if turn.next.pauses.len() < before {
        turn.tell("RolloutResumed", "Rollout is resumed".to_owned());
    }
    if let Some(reason) = turn
        .will
        .pause
        .take()
        .filter(|_| turn.will.resume != Resume::All)
    {
        let message = format!("Rollout is paused ({})", reason.word());
        turn.tell("RolloutPaused", message);
        turn.next.pauses.push(Pause { reason, since: now });
    }
    // Who resumes a rollout that a user has paused too takes the pause away first, and spec.paused a moment later.
    let is_resuming = turn.plan.paused && turn.was.controller_pause;
    turn.next.controller_pause =
        !turn.next.pauses.is_empty() || is_resuming && turn.will.resume == Resume::Nothing;
}
