//! When an update began, how long people held it up, how it ended and when (R2.25). For whoever measures releases; nothing here is read
//! back by a decision.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::plan::{PauseFor, Promotion, Step};
use super::state::PauseReason;
use super::turn::Turn;
use super::{rollback, time};
use crate::api::rollout::RolloutDuration;

/// An update begins: another template, or other steps in mid-update. What was under way has been superseded.
pub(super) fn begin(turn: &mut Turn<'_>) {
    let same = turn.was.current.as_ref() == Some(&turn.new.hash);
    if same && turn.is_promoted() {
        return;
    }
    turn.next.duration = Some(RolloutDuration {
        rollout_started_at: Some(now(turn)),
        ..RolloutDuration::default()
    });
}

/// Notes what the turn has decided. An update of which nobody has seen the beginning is left alone.
pub(super) fn note(turn: &mut Turn<'_>) {
    let aborted =
        |duration: &RolloutDuration| duration.completion_status.as_deref() == Some(ABORTED);
    if turn.next.duration.as_ref().is_some_and(aborted)
        && !turn.next.abort
        && !turn.next.is_promoted()
    {
        begin(turn); // a retry
    }
    let open = |duration: &RolloutDuration| duration.finished_at.is_none();
    let Some(mut duration) = turn.next.duration.clone().filter(open) else {
        return;
    };
    if let Some(outcome) = outcome(turn, duration.completion_status.is_none()) {
        duration.completion_status = Some(outcome.to_owned());
    }
    let arrived = turn.next.is_promoted() && turn.new.available >= turn.replicas;
    if turn.next.abort || arrived {
        duration.finished_at = Some(now(turn));
    }
    count_pause(turn, &mut duration);
    turn.next.duration = Some(duration);
}

/// How the update ends, as soon as that is known.
fn outcome(turn: &Turn<'_>, unknown: bool) -> Option<&'static str> {
    let backwards = turn
        .old_stable()
        .is_some_and(|stable| turn.new.created_at < stable.created_at);
    let promoted = turn.next.is_promoted();
    if turn.next.abort {
        return Some(ABORTED);
    }
    if turn.next.promote_full || (promoted && turn.was.promote_full) {
        return Some("FastPromoted");
    }
    if rollback::is_within_window(turn) {
        return Some("FastRolledBack");
    }
    match (promoted && unknown, turn.is_promoted(), backwards) {
        (false, _, _) => None,
        (true, true, _) => Some("FastRolledBack"),
        (true, false, true) => Some("RolledBack"),
        (true, false, false) => Some("Promoted"),
    }
}

/// The seconds that people hold an update up are summed when they let it go on.
fn count_pause(turn: &Turn<'_>, duration: &mut RolloutDuration) {
    let now = now(turn);
    let held = duration.finished_at.is_none() && is_held(turn);
    match (held, duration.manual_pause_started_at.clone()) {
        (true, None) => duration.manual_pause_started_at = Some(now),
        (false, Some(since)) => {
            let seconds = now.0.duration_since(since.0).as_secs();
            duration.total_manual_pause_duration_seconds += seconds.max(0);
            duration.manual_pause_started_at = None;
        }
        (true, Some(_)) | (false, None) => {}
    }
}

/// Nothing but a person ends the pause.
fn is_held(turn: &Turn<'_>) -> bool {
    let endless = matches!(turn.step(), Some(Step::Pause(PauseFor::Person)));
    let by_person = turn
        .plan
        .blue_green()
        .is_some_and(|strategy| strategy.promotion == Promotion::ByPerson);
    let by_reason = |reason: &PauseReason| match reason {
        PauseReason::Step => endless,
        PauseReason::BlueGreen => by_person,
        PauseReason::Inconclusive => true,
        PauseReason::Other(_) => false,
    };
    let mut pauses = turn.next.pauses.iter();
    turn.plan.paused || pauses.any(|pause| by_reason(&pause.reason))
}

fn now(turn: &Turn<'_>) -> Time {
    Time(time::whole_seconds(turn.now))
}

const ABORTED: &str = "Aborted";
