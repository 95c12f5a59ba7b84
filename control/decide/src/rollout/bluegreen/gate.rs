//! May the active Service go to the new revision, as far as that is not a matter of its pods (R14.2 to R14.4)?

use super::super::plan::{BlueGreen, Promotion};
use super::super::state::PauseReason;
use super::super::turn::{Resume, Turn};
use super::super::{rollback, time};
use super::{runs, size, split};

/// Whether the gate is open. Once it was it stays open (the checkpoint), until the update ends or another begins.
pub(super) fn is_open(turn: &mut Turn<'_>, strategy: &BlueGreen) -> bool {
    if !turn.is_aborted() && is_resumed(turn, strategy) {
        open(turn);
    }
    if turn.is_aborted() || turn.is_halted() || turn.scaling {
        return false;
    }
    if !is_fast_tracked(turn) && has_passed(turn, strategy) {
        open(turn);
        turn.will.resume = Resume::All;
    }
    is_fast_tracked(turn)
}

/// R14.4.
fn open(turn: &mut Turn<'_>) {
    turn.next.blue_green.scale_up_preview_check_point = true;
}

/// No pause and no analysis before the switch (R14.3, R13.2).
pub(super) fn is_fast_tracked(turn: &Turn<'_>) -> bool {
    let active = turn.next.blue_green.active_selector.as_ref();
    let is_first = active.is_none() && !turn.stable.is_some_and(|set| size::is_whole(turn, set));
    turn.is_promoted()
        || is_first
        || active == Some(&turn.new.hash)
        || turn.next.blue_green.scale_up_preview_check_point
        || is_waved_through(turn)
}

/// No analysis after the switch either.
pub(super) fn is_waved_through(turn: &Turn<'_>) -> bool {
    turn.stable.is_none()
        || turn.next.promote_full
        || rollback::is_fast(turn)
        || turn.was.memory.proven.contains(&turn.new.hash)
}

/// A person has resumed what was ready and good then. Pods that have gone meanwhile, another size or a pause do not take that back.
fn is_resumed(turn: &Turn<'_>, strategy: &BlueGreen) -> bool {
    let resumed = turn.was.controller_pause && turn.was.pauses.is_empty();
    resumed && runs::is_good_before(turn, strategy)
}

fn has_passed(turn: &mut Turn<'_>, strategy: &BlueGreen) -> bool {
    if !size::is_ready(turn, strategy) {
        let pods = size::target(turn, strategy);
        size::wait_for_pods(turn, pods);
        return false;
    }
    split::is_shown(turn, strategy)
        && runs::is_good_before(turn, strategy)
        && is_pause_over(turn, strategy.promotion)
}

/// R14.3: the pause begins when the analysis is good. Adds it, or waits for its end.
fn is_pause_over(turn: &mut Turn<'_>, promotion: Promotion) -> bool {
    let seconds = match promotion {
        Promotion::AtOnce => return true,
        Promotion::After(seconds) => Some(seconds),
        Promotion::ByPerson => None,
    };
    let since = turn
        .was
        .pause(&PauseReason::BlueGreen)
        .map(|pause| pause.since);
    if since.is_none() {
        turn.will.pause = Some(PauseReason::BlueGreen);
    }
    let Some(seconds) = seconds else {
        turn.wait("pause", "a person to promote".to_owned(), None);
        return false;
    };
    let began = since.unwrap_or_else(|| time::whole_seconds(turn.now));
    let until = time::after(began, seconds);
    let over = since.is_some() && turn.now > until;
    if !over {
        turn.wait("pause", format!("the pause of {seconds}s"), Some(until));
    }
    over
}
