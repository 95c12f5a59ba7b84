//! How many pods each revision has (R7.9 to R7.11).

use std::cmp::Reverse;

use super::super::observed::Revision;
use super::super::plan::{BlueGreen, Delays};
use super::super::scale;
use super::super::turn::Turn;
use super::gate;
use crate::api::labels;

/// Takes the deadline from what may become active. This comes before the switch: were it left by a turn that breaks off after that, the
/// next departure would end with the delay of the last one.
pub(super) fn drop_deadlines(turn: &mut Turn<'_>) {
    if !is_frozen(turn) {
        scale::drop_deadlines(turn);
    }
}

/// Brings every revision to its size: stable, new, all others.
pub(super) fn reconcile(turn: &mut Turn<'_>, strategy: &BlueGreen) {
    if is_frozen(turn) {
        return;
    }
    scale::scale_stable(turn, turn.replicas);
    scale_new(turn, strategy);
    retire(turn, strategy.delays);
}

/// No size changes while the update is held up, unless `spec.replicas` does.
fn is_frozen(turn: &Turn<'_>) -> bool {
    turn.is_halted() && !turn.scaling && !turn.is_aborted()
}

/// R7.11: all pods, or as many as are to be previewed until the gate is open.
pub(super) fn target(turn: &Turn<'_>, strategy: &BlueGreen) -> i32 {
    let previewed = !gate::is_fast_tracked(turn) && turn.replicas > 0;
    let pods = strategy.preview_replicas.filter(|_| previewed);
    pods.unwrap_or(turn.replicas)
}

/// R14.2.
pub(super) fn is_ready(turn: &Turn<'_>, strategy: &BlueGreen) -> bool {
    let target = target(turn, strategy);
    turn.new.wanted == target && turn.new.available == target
}

/// R14.5: all of its pods are available.
pub(super) fn is_whole(turn: &Turn<'_>, set: &Revision) -> bool {
    set.wanted == turn.replicas && set.available == turn.replicas
}

pub(super) fn wait_for_pods(turn: &mut Turn<'_>, pods: i32) {
    let message = format!("{pods} available pods of ReplicaSet \"{}\"", turn.new.name);
    turn.wait("pods", message, None);
}

fn scale_new(turn: &mut Turn<'_>, strategy: &BlueGreen) -> bool {
    if turn.is_aborted() && turn.old_stable().is_some() {
        return scale::leave(turn, 0);
    }
    let (new, to) = (turn.new, target(turn, strategy));
    (turn.is_promoted() || scale::may_shrink_new(turn, to)) && turn.scale(new, to, Vec::new())
}

/// R7.9: old revisions that nothing leads to any more wait for their delay, the newest first, as many as the limit allows.
fn retire(turn: &mut Turn<'_>, delays: Delays) {
    let mut others = turn.others.clone();
    others.retain(|set| set.wanted > 0 && !scale::is_referenced(turn, set));
    others.sort_by_key(|set| Reverse(set.number()));
    for (before, set) in others.into_iter().enumerate() {
        let over = delays.limit.is_some_and(|limit| before >= limit);
        match set.deadline() {
            Some(deadline) if deadline > turn.now && !over => {
                scale::wait_for_deadline(turn, set, deadline);
                keep(turn, set);
            }
            None if delays.scale_down > 0 && !over => {
                scale::set_deadline(turn, set, delays.scale_down);
            }
            Some(_) | None => leave(turn, set),
        }
    }
}

/// One that was stable follows `spec.replicas`, so that the way back stays fast; one that was not never grows again.
fn keep(turn: &mut Turn<'_>, set: &Revision) {
    let grows = turn.was.memory.proven.contains(&set.hash);
    let most = if grows { i32::MAX } else { set.wanted };
    let to = turn.replicas.min(most);
    if to >= set.wanted || scale::may_leave(turn, set) {
        turn.scale(set, to, Vec::new());
    }
}

fn leave(turn: &mut Turn<'_>, set: &Revision) {
    if scale::may_leave(turn, set) {
        let deadline = set.annotations.contains_key(labels::SCALE_DOWN_DEADLINE);
        let remove = deadline.then(|| labels::SCALE_DOWN_DEADLINE.to_owned());
        turn.scale(set, 0, remove.into_iter().collect());
    }
}
