//! Blue-green (R14): the new revision is made whole beside the old one, tried, and then gets everything in one switch.
//!
//! A switch goes through a *gate*: pods, analysis, pause. Fast tracks have no gate, but every switch has to have its pods.
//!
//! | module | what |
//! |---|---|
//! | `gate` | may the active Service go to the new revision: fast tracks, analysis, pause, checkpoint |
//! | `cutover` | which revision is active; the selectors of both Services |
//! | `split` | the same for our proxies: two rules of one Split |
//! | `size` | how many pods each revision has |
//! | `runs` | the runs before and after the switch |
//! | `promotion` | beginning anew, and the end |

use super::plan::BlueGreen;
use super::state::State;
use super::turn::Turn;
use super::{affinity, history, hold, marks, restart, revision, waits, workload};
use crate::rollout::observed::RunPhase;

mod cutover;
mod gate;
mod promotion;
mod runs;
mod size;
mod split;

/// One look, in the order of R3.5, but that the gate comes before the sizes: what has passed grows in the same turn.
pub(super) fn take(turn: &mut Turn<'_>, strategy: &BlueGreen) {
    hold::declare(turn);
    workload::note(turn);
    forget_the_canary(turn);
    cutover::read_selectors(turn, strategy);
    revision::sync(turn);
    cutover::show_preview(turn, strategy);
    if promotion::reset_if_changed(turn) {
        return;
    }
    marks::reconcile(turn);
    affinity::reconcile(turn);
    runs::judge(turn);
    history::clean(turn);
    let open = gate::is_open(turn, strategy);
    let active = cutover::active(turn, open);
    size::drop_deadlines(turn);
    split::route(turn, strategy, &active);
    cutover::switch(turn, strategy, &active);
    size::reconcile(turn, strategy);
    runs::follow(turn, strategy);
    restart::reconcile(turn);
    promotion::advance(turn, strategy);
    workload::make_room(turn);
    waits::name(turn);
}

/// R12.6: what only a canary remembers goes.
fn forget_the_canary(turn: &mut Turn<'_>) {
    let next = &mut turn.next;
    next.step = None;
    next.step_hash = None;
    next.step_run = None;
    next.background_run = None;
    next.weights = None;
}

/// R2.6, point 7: what is missing for the phase Healthy beside the pods.
pub(super) fn unfinished(strategy: &BlueGreen, state: &State) -> Option<&'static str> {
    let status = &state.blue_green;
    if status.active_selector.is_none() || status.active_selector != state.current {
        return Some("active service cutover pending");
    }
    let measured = status.post_promotion_analysis_run_status.as_ref();
    let measured = measured.is_some_and(|run| RunPhase::read(&run.status).is_finished());
    if !state.is_promoted() && strategy.after.is_some() && !measured {
        return Some("waiting for analysis to complete");
    }
    (!state.is_promoted()).then_some("waiting for post-promotion verification to complete")
}

/// Every proxy has served the Split as it was last changed. There is nothing to serve without pods.
fn is_verified(turn: &Turn<'_>) -> bool {
    let verified = turn.next.memory.verified.is_some();
    turn.routing().is_none() || turn.replicas == 0 || verified
}

/// Every proxy has served it. Where there is no proxy none serves anything else.
pub(super) fn is_traffic_switched(turn: &Turn<'_>) -> bool {
    is_verified(turn) || turn.observed.fleet.proxies.is_empty()
}

/// A run before or after the switch is under way: that is no lack of progress (R5.3).
pub(super) fn is_measuring(turn: &Turn<'_>) -> bool {
    let status = &turn.next.blue_green;
    let current = [
        &status.pre_promotion_analysis_run_status,
        &status.post_promotion_analysis_run_status,
    ];
    let unfinished = |status: &str| !RunPhase::read(status).is_finished();
    !turn.is_promoted()
        && current
            .into_iter()
            .flatten()
            .any(|run| unfinished(&run.status))
}
