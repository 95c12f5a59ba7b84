//! Beginning anew, and the end of an update: promotion or abort (R12, R14.7).

use super::super::plan::BlueGreen;
use super::super::selector;
use super::super::turn::{Resume, Turn};
use super::super::{duration, promotion, rollback};
use super::runs;
use crate::api::labels;

/// R12.1: another template, or another strategy, begins anew. Returns whether it did.
pub(super) fn reset_if_changed(turn: &mut Turn<'_>) -> bool {
    let was = turn.was;
    let template = was
        .current
        .as_ref()
        .is_some_and(|hash| *hash != turn.new.hash);
    let strategy = was.step_hash.is_some();
    if !template && !strategy {
        return false;
    }
    turn.will.resume = Resume::All;
    turn.will.forgive = true;
    turn.analysed = true;
    turn.next.promote_full = false;
    turn.next.restarted_at = turn.plan.restart_at;
    duration::begin(turn);
    let status = &mut turn.next.blue_green;
    status.scale_up_preview_check_point = false;
    status.pre_promotion_analysis_run_status = None;
    status.post_promotion_analysis_run_status = None;
    if promotion::is_asleep(turn) {
        promotion::promote(turn, promotion::ASLEEP);
    }
    close(turn);
    turn.look_again(turn.now);
    true
}

/// Ends the turn: promotion or an abort; then what follows from it for the status.
pub(super) fn advance(turn: &mut Turn<'_>, strategy: &BlueGreen) {
    if turn.next.promote_full {
        turn.will.resume = Resume::All; // R11.1; an abort drops them all the same
    }
    if let Some(why) = reason(turn, strategy) {
        promotion::promote(turn, why);
        turn.next.blue_green.scale_up_preview_check_point = false;
    } else if !turn.is_aborted() {
        rollback::abort_at_deadline(turn);
    }
    if turn.is_aborted() {
        turn.next.promote_full = false;
        turn.next.blue_green.scale_up_preview_check_point = false;
    }
    close(turn);
}

/// Why the new revision is to be stable, if it is.
fn reason(turn: &Turn<'_>, strategy: &BlueGreen) -> Option<&'static str> {
    if turn.stable.is_none() {
        return Some("Initial deploy");
    }
    let done = "Completed blue-green update";
    if turn.is_promoted() {
        return Some(done);
    }
    let switched = turn.next.blue_green.active_selector.as_ref() == Some(&turn.new.hash)
        && super::is_verified(turn);
    if turn.is_aborted() || turn.is_halted() || turn.scaling || !switched {
        return None;
    }
    if turn.next.promote_full {
        return Some("Full promotion requested");
    }
    if rollback::is_within_window(turn) {
        return Some("Rollback within window");
    }
    runs::is_good_after(turn, strategy).then_some(done)
}

fn close(turn: &mut Turn<'_>) {
    count_the_active(turn);
    remember_the_proven(turn);
    promotion::close(turn);
}

/// R2.4: ready and available pods, and what an autoscaler looks at, are those of the active revision, once there is one.
fn count_the_active(turn: &mut Turn<'_>) {
    let hash = turn.next.blue_green.active_selector.as_ref();
    let mut all = turn.observed.revisions.iter();
    let Some(active) = hash.and_then(|hash| all.find(|set| set.hash == *hash)) else {
        return;
    };
    let counts = &mut turn.next.counts;
    counts.ready = active.ready;
    counts.available = active.available;
    counts.hpa = active.pods;
    let mut selected = turn.plan.selector.clone();
    let key = labels::POD_TEMPLATE_HASH.to_owned();
    let matched = selected.match_labels.get_or_insert_default();
    matched.insert(key, active.hash.clone());
    turn.next.selector = Some(selector::text(&selected));
}

/// R13.2: a revision that was stable and still has its pods may be gone back to without a gate. One that never was may not, even where
/// its pods wait for their delay.
fn remember_the_proven(turn: &mut Turn<'_>) {
    let was = turn.was;
    let proven =
        |hash: &String| was.memory.proven.contains(hash) || was.stable.as_ref() == Some(hash);
    let others = turn.observed.revisions.iter().filter(|set| set.wanted > 0);
    let hashes = others.map(|set| &set.hash).filter(|hash| proven(hash));
    let hashes = hashes.filter(|hash| turn.next.stable.as_ref() != Some(*hash));
    turn.next.memory.proven = hashes.cloned().collect();
}
