//! Restarts (R21.1): pods created before `spec.restartAt` are evicted in place, stable ones first, no more at a time than may be missing.
//!
//! The next pod goes as soon as its predecessor's replacement is available. A turn that writes anything else evicts nothing: an abort, a
//! weight or a size comes before a restart.

use jiff::{SignedDuration, Timestamp};

use super::decision::Action;
use super::observed::{Pod, Revision};
use super::plan::Plan;
use super::state::State;
use super::time;
use super::turn::Turn;

/// Whether old pods are to be replaced now, so that a decision needs to see the pods.
#[must_use]
pub fn is_due(plan: &Plan, state: &State, now: Timestamp) -> bool {
    is_asked_for(plan, state) && plan.restart_at.is_some_and(|at| at < now)
}

/// A restart is asked for that is not yet done; it may be due only later.
pub(super) fn is_asked_for(plan: &Plan, state: &State) -> bool {
    plan.restart_at.is_some() && plan.restart_at != state.restarted_at
}

/// Evicts what may go now, and notes when nothing old is left.
pub(super) fn reconcile(turn: &mut Turn<'_>) {
    let Some(at) = turn
        .plan
        .restart_at
        .filter(|_| is_asked_for(turn.plan, turn.was))
    else {
        return;
    };
    if !is_due(turn.plan, turn.was, turn.now) {
        turn.note_after("deadline", format!("the restart at {at}"));
        return turn.look_again(time::after(at, 1));
    }
    let Some(pods) = &turn.observed.pods else {
        return turn.look_again(turn.now);
    };
    let mut old: Vec<&Pod> = pods.iter().filter(|pod| pod.created_at < at).collect();
    if old.is_empty() {
        turn.next.restarted_at = Some(at);
        return;
    }
    old.retain(|pod| !pod.terminating);
    turn.note_after("pods", format!("pods created before {at} to be replaced"));
    turn.look_again(time::after(
        turn.now,
        if old.is_empty() {
            GONE_SECONDS
        } else {
            RETRY_SECONDS
        },
    ));
    if turn.writes() {
        return;
    }
    old.sort_by_key(|pod| (rank(turn, pod), pod.created_at, &pod.name));
    for pod in old.into_iter().take(spare(turn, pods)) {
        turn.act(Action::EvictPod {
            name: pod.name.clone(),
            uid: pod.uid.clone(),
        });
    }
}

/// Stable, new, older.
fn rank(turn: &Turn<'_>, pod: &Pod) -> usize {
    let of = |set: &&Revision| set.uid == pod.replica_set;
    match (turn.stable.filter(of), of(&turn.new)) {
        (Some(_), _) => 0,
        (None, true) => 1,
        (None, false) => 2,
    }
}

/// How many available pods there are beyond those that must stay.
fn spare(turn: &Turn<'_>, pods: &[Pod]) -> usize {
    let sets = &turn.observed.revisions;
    let available: i32 = sets.iter().map(|set| available(set, pods, turn.now)).sum();
    let wanted: i32 = sets.iter().map(|set| set.wanted).sum();
    let slack = turn.plan.slack(turn.replicas);
    let least = turn.replicas.max(wanted) - slack.unavailable.max(1);
    usize::try_from(available - least).unwrap_or(0)
}

/// Available pods of a ReplicaSet. Its status lags behind an eviction and the pods behind nothing; the lower number is believed.
fn available(set: &Revision, pods: &[Pod], now: Timestamp) -> i32 {
    let least = SignedDuration::from_secs(i64::from(set.min_ready_seconds));
    let is_available = |pod: &&Pod| {
        // By a clock that is behind nothing can be said of a pod's age, and the status is all there is.
        let long_enough = |since: Timestamp| since > now || now.duration_since(since) >= least;
        pod.replica_set == set.uid && !pod.terminating && pod.ready_since.is_some_and(long_enough)
    };
    let counted = pods.iter().filter(is_available).count();
    set.available
        .min(i32::try_from(counted).unwrap_or(i32::MAX))
}

/// When a refused eviction is tried again (observed point 17).
const RETRY_SECONDS: i64 = 30;

/// When to look whether the last ones are gone: nothing tells of it.
const GONE_SECONDS: i64 = 2;
