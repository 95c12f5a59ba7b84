//! ReplicaSets: stable first, then the new one, then all that are neither (R3.4 step 11, R7.2 to R7.10).
//!
//! With routing nothing is shrunk while a proxy may still send it what it is about to lose: weights go down first, then sizes.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::decision::Action;
use super::observed::Revision;
use super::plan::{AbortDelay, Delays, Routing};
use super::replicas::{self, Move, Position, Sizes};
use super::turn::Turn;
use super::{acknowledgement, dynamic, release, time};
use crate::api::labels;

/// Brings the sizes one move closer to what the step asks for.
pub(super) fn reconcile(turn: &mut Turn<'_>) {
    if turn.is_halted() && !turn.scaling && !turn.is_aborted() {
        return;
    }
    if release::is_under_way(turn) {
        return release::keep_sizes(turn);
    }
    drop_deadlines(turn);
    let sizes = sizes(turn);
    turn.scaled = scale_stable(turn, sizes.stable) || scale_new(turn, sizes.canary);
    if !turn.scaled {
        scale_others(turn);
    }
}

/// The sizes that the present step asks for now: without routing as far as one move reaches, with routing in full.
pub(super) fn sizes(turn: &Turn<'_>) -> Sizes {
    match turn.routing() {
        None => basic(turn),
        Some(routing) => Sizes {
            canary: routed(turn, routing),
            stable: match routing.dynamic {
                true => dynamic::stable(turn, routing),
                false => turn.replicas,
            },
        },
    }
}

fn position<'a>(turn: &Turn<'a>) -> Position<'a> {
    Position {
        steps: turn.plan.steps(),
        index: turn.step_index(),
    }
}

/// The whole rollout is to run the new revision (R7.2).
pub(super) fn is_whole(turn: &Turn<'_>) -> bool {
    turn.next.promote_full || turn.stable.is_none() || turn.is_promoted()
}

fn basic(turn: &Turn<'_>) -> Sizes {
    let slack = turn.plan.slack(turn.replicas);
    let weight = match (is_whole(turn), turn.is_aborted()) {
        (true, _) => 100,
        (false, true) => 0,
        (false, false) => position(turn).weight().unwrap_or(100),
    };
    let step = Move {
        replicas: turn.replicas,
        slack,
        canary: turn.new,
        stable: turn.old_stable(),
        older: turn.others.iter().map(|set| set.wanted).sum(),
    };
    step.towards(replicas::approximate(
        turn.replicas,
        weight,
        100,
        slack.surge,
    ))
}

fn routed(turn: &Turn<'_>, routing: &Routing) -> i32 {
    let position = position(turn);
    if is_whole(turn) {
        return turn.replicas;
    }
    if turn.is_aborted() {
        return dynamic::aborted(turn, routing);
    }
    position
        .scale(turn.replicas, routing.whole)
        .unwrap_or_else(|| {
            let weight = position.weight().unwrap_or(routing.whole);
            replicas::routed(turn.replicas, weight, routing.whole, routing.min_pods)
        })
}

/// R7.7: the sizes are there, and enough of the new pods are available.
pub(super) fn is_at(turn: &Turn<'_>, sizes: Sizes) -> bool {
    let enough = replicas::enough(sizes.canary, turn.plan.threshold());
    let exact = turn.plan.threshold().is_none();
    let available = turn.new.available;
    let canary =
        turn.new.wanted == sizes.canary && available >= enough && (!exact || available == enough);
    let is_dynamic = turn.routing().is_some_and(|routing| routing.dynamic);
    let at_size = |set: &Revision| set.wanted == sizes.stable && set.pods == sizes.stable;
    let stable = is_dynamic || turn.old_stable().is_none_or(at_size);
    let gone = turn.routing().is_some() || turn.others.iter().all(|set| set.available == 0);
    canary && stable && gone
}

/// What is new or stable again does not wait to be scaled down (R7.9).
pub(super) fn drop_deadlines(turn: &mut Turn<'_>) {
    let new = Some(turn.new).filter(|_| !turn.is_aborted());
    for set in new.into_iter().chain(turn.old_stable()) {
        if set.annotations.contains_key(labels::SCALE_DOWN_DEADLINE) {
            turn.act(Action::AnnotateReplicaSet {
                name: set.name.clone(),
                set: BTreeMap::new(),
                remove: vec![labels::SCALE_DOWN_DEADLINE.to_owned()],
                min_ready_seconds: None,
            });
        }
    }
}

pub(super) fn scale_stable(turn: &mut Turn<'_>, to: i32) -> bool {
    let Some(stable) = turn.old_stable() else {
        return false;
    };
    may_shrink(turn, stable, to) && turn.scale(stable, to, Vec::new())
}

fn scale_new(turn: &mut Turn<'_>, to: i32) -> bool {
    let new = turn.new;
    if turn.routing().is_some() && turn.is_aborted() {
        return leave(turn, to);
    }
    let free = is_whole(turn);
    let carried = turn
        .carried
        .map_or(0, |pods| i32::try_from(pods).unwrap_or(i32::MAX));
    let to = if free {
        to
    } else {
        to.max(carried.min(new.wanted))
    }; // a weight that is held keeps its pods
    (free || may_shrink_new(turn, to)) && turn.scale(new, to, Vec::new())
}

/// The last pods of a canary go as those of any revision do: when nothing is sent to them any more.
pub(super) fn may_shrink_new(turn: &mut Turn<'_>, to: i32) -> bool {
    let new = turn.new;
    match to {
        0 if new.wanted > 0 && turn.replicas > 0 => may_leave(turn, new),
        _ => may_shrink(turn, new, to),
    }
}

/// What becomes of the new revision after an abort; `to` is what its weight needs.
pub(super) fn leave(turn: &mut Turn<'_>, to: i32) -> bool {
    match turn.plan.delays().abort {
        AbortDelay::Never => turn.scale(turn.new, turn.new.wanted, Vec::new()),
        AbortDelay::After(seconds) => leave_after_abort(turn, seconds),
        AbortDelay::WithTraffic => leave_with_traffic(turn, to),
    }
}

/// No ReplicaSet is shrunk below what the weights that every proxy serves need.
pub(super) fn may_shrink(turn: &mut Turn<'_>, set: &Revision, to: i32) -> bool {
    if to >= set.wanted || turn.routing().is_none() || turn.settled {
        return true;
    }
    let missing = acknowledgement::missing(turn);
    turn.wait(
        "acknowledgement",
        format!("{missing}, before ReplicaSet \"{}\" shrinks", set.name),
        None,
    );
    false
}

/// The canary stays up for a while after an abort, and until nothing is sent to it any more (R7.10).
fn leave_after_abort(turn: &mut Turn<'_>, seconds: i64) -> bool {
    let new = turn.new;
    let stable_is_whole = turn
        .stable
        .is_some_and(|stable| stable.available >= turn.replicas);
    match new.deadline() {
        _ if new.wanted == 0 => return false,
        Some(deadline) if deadline <= turn.now => {
            if may_leave(turn, new) {
                return turn.scale(new, 0, Vec::new());
            }
        }
        Some(deadline) => wait_for_deadline(turn, new, deadline),
        None if stable_is_whole => set_deadline(turn, new, seconds),
        None => turn.wait(
            "pods",
            "stable to be complete before the canary is scaled down".to_owned(),
            None,
        ),
    }
    turn.scale(new, new.wanted, Vec::new())
}

/// The aborted canary keeps what its weight needs, and nothing once no proxy serves it any more and it is idle.
fn leave_with_traffic(turn: &mut Turn<'_>, to: i32) -> bool {
    let (new, to) = (turn.new, to.min(turn.new.wanted));
    let free = match to {
        0 if new.wanted > 0 => may_leave(turn, new),
        _ => may_shrink(turn, new, to),
    };
    turn.scale(new, if free { to } else { new.wanted }, Vec::new())
}

pub(super) fn set_deadline(turn: &mut Turn<'_>, set: &Revision, seconds: i64) {
    let deadline = time::whole_seconds(time::after(turn.now, seconds));
    turn.act(Action::AnnotateReplicaSet {
        name: set.name.clone(),
        set: BTreeMap::from([(labels::SCALE_DOWN_DEADLINE.to_owned(), deadline.to_string())]),
        remove: Vec::new(),
        min_ready_seconds: None,
    });
    wait_for_deadline(turn, set, deadline);
}

pub(super) fn wait_for_deadline(turn: &mut Turn<'_>, set: &Revision, deadline: Timestamp) {
    let message = format!("the scale-down delay of ReplicaSet \"{}\"", set.name);
    turn.wait_after("deadline", message, Some(deadline));
}

/// Whether nothing is sent to a revision any more: every proxy serves a table without it, and it is idle or has had its time.
pub(super) fn may_leave(turn: &mut Turn<'_>, set: &Revision) -> bool {
    let Some(routing) = turn.routing() else {
        return !release::is_under_way(turn);
    };
    let Some(since) = turn.next.memory.left.get(&set.hash).map(|since| since.0) else {
        let missing = acknowledgement::missing(turn);
        turn.wait_after(
            "acknowledgement",
            format!("{missing}, before ReplicaSet \"{}\" goes", set.name),
            None,
        );
        return false;
    };
    let in_flight = turn
        .observed
        .fleet
        .in_flight
        .get(&set.hash)
        .copied()
        .unwrap_or(0);
    let until = time::after(since, routing.drain_timeout);
    if in_flight == 0 || until <= turn.now {
        return true;
    }
    let message = format!(
        "{in_flight} requests in flight to ReplicaSet \"{}\"",
        set.name
    );
    turn.wait_after("drain", message, Some(until));
    false
}

/// R7.8.
fn scale_others(turn: &mut Turn<'_>) {
    let mut others: Vec<&Revision> = turn
        .others
        .iter()
        .copied()
        .filter(|set| set.wanted > 0)
        .collect();
    others.retain(|set| !cut_unhealthy(turn, set));
    others.sort_by_key(|set| std::cmp::Reverse(set.number()));
    let slack = turn.plan.slack(turn.replicas);
    let available: i32 = turn
        .observed
        .revisions
        .iter()
        .map(|set| set.available.min(set.wanted)) // a count may be older than a size
        .sum();
    let surplus = available - (turn.replicas - slack.unavailable);
    if surplus <= 0 {
        return;
    }
    match turn.routing() {
        None => drain(turn, &others, surplus),
        Some(_) => retire(turn, &others, turn.plan.delays()),
    }
}

/// Pods that do no work go first; with routing a ready pod works before it counts as available, and one that is not ready any more may
/// still have requests.
fn cut_unhealthy(turn: &mut Turn<'_>, set: &Revision) -> bool {
    let working = match turn.routing() {
        None => set.available,
        Some(_) if !may_leave(turn, set) => return false, // those that come back are there
        Some(_) => set.available.max(set.ready),
    };
    working < set.wanted && turn.scale(set, working, Vec::new())
}

/// Without routing every pod of an old revision gets requests: they go as fast as availability allows.
fn drain(turn: &mut Turn<'_>, others: &[&Revision], mut surplus: i32) {
    for set in others {
        let cut = set.wanted.min(surplus);
        turn.scale(set, set.wanted - cut, Vec::new());
        surplus -= cut;
    }
}

/// With routing an old revision waits for its delay, and one that was overtaken before it was stable for nothing but its requests.
fn retire(turn: &mut Turn<'_>, others: &[&Revision], delays: Delays) {
    let mut delayed = 0;
    for set in others
        .iter()
        .copied()
        .filter(|set| !is_referenced(turn, set))
        .collect::<Vec<_>>()
    {
        let is_full = delays.limit.is_some_and(|limit| delayed >= limit);
        let undelayed = is_full || delays.scale_down == 0;
        let due = match set.deadline() {
            _ if undelayed => true,
            Some(deadline) if deadline > turn.now => {
                delayed += 1;
                wait_for_deadline(turn, set, deadline);
                turn.scale(set, set.wanted, Vec::new());
                false
            }
            Some(_) => true,
            None if !turn.next.is_promoted() => true,
            None => {
                delayed += 1;
                set_deadline(turn, set, delays.scale_down);
                false
            }
        };
        if due && may_leave(turn, set) {
            let deadline = set.annotations.contains_key(labels::SCALE_DOWN_DEADLINE);
            let remove = deadline.then(|| labels::SCALE_DOWN_DEADLINE.to_owned());
            turn.scale(set, 0, remove.into_iter().collect());
        }
    }
}

/// Something still points at the revision (R7.8).
pub(super) fn is_referenced(turn: &Turn<'_>, set: &Revision) -> bool {
    let hash = Some(set.hash.as_str());
    let weights = turn
        .next
        .weights
        .iter()
        .flat_map(|weights| [&weights.canary, &weights.stable]);
    let mut weighted = weights.map(|version| version.pod_template_hash.as_deref());
    let mut selected = turn
        .observed
        .services
        .iter()
        .map(super::observed::Service::hash);
    weighted.any(|weighted| weighted == hash) || selected.any(|selected| selected == hash)
}
