//! What the proxies have acknowledged: weights that every one serves, and revisions that none serves any more.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, Time};

use super::observed::named;
use super::plan::Routing;
use super::split::Split;
use super::time;
use super::turn::Turn;
use crate::api::split::Verified;

/// A write that was not noted may have been served: what was acknowledged before it is acknowledged no more.
pub(super) fn doubt(turn: &mut Turn<'_>) {
    let generation = turn
        .observed
        .split
        .as_ref()
        .map(|written| written.generation);
    if turn.was.memory.generation != generation {
        turn.next.memory.left.clear();
        forget_verification(turn);
    }
    turn.next.memory.generation = generation;
}

/// Nothing is known of what proxies serve for the weights as recorded.
pub(super) fn forget_verification(turn: &mut Turn<'_>) {
    turn.next.memory.verified = None;
    if let Some(weights) = &mut turn.next.weights {
        weights.verified = Some(false);
    }
}

/// Latches the verification of the weights as recorded.
pub(super) fn verify(turn: &mut Turn<'_>) {
    let Some(weights) = turn
        .next
        .weights
        .as_ref()
        .filter(|weights| weights.verified != Some(true))
    else {
        return;
    };
    turn.next.memory.verified = None;
    let (fleet, settled) = (&turn.observed.fleet, turn.settled);
    let written = turn.observed.split.as_ref();
    let Some(written) = written.filter(|_| settled && fleet.verifies()) else {
        let message = format!("{}, for weight {}", missing(turn), weights.canary.weight);
        return turn.wait("acknowledgement", message, None);
    };
    turn.next.memory.verified = Some(Verified {
        generation: written.generation,
        at: MicroTime(fleet.verified_at.unwrap_or(turn.now)),
    });
    if let Some(weights) = &mut turn.next.weights {
        weights.verified = Some(true);
    }
}

/// Every proxy has served the weights as recorded.
pub(super) fn is_verified(turn: &Turn<'_>) -> bool {
    turn.next
        .weights
        .as_ref()
        .is_some_and(|weights| weights.verified == Some(true))
}

/// The weight in force is the whole, and every proxy serves it; so that promotion moves no request.
pub(super) fn is_whole_and_verified(turn: &Turn<'_>, routing: &Routing) -> bool {
    let weights = turn.next.weights.as_ref();
    let canary = weights.map(|weights| {
        (
            weights.canary.weight,
            weights.canary.pod_template_hash.as_ref(),
        )
    });
    turn.replicas == 0
        || (is_verified(turn) && canary == Some((routing.whole, Some(&turn.new.hash))))
}

/// Who has not acknowledged the Split, for a person.
pub(super) fn missing(turn: &Turn<'_>) -> String {
    let fleet = &turn.observed.fleet;
    match (
        fleet.proxies.is_empty(),
        fleet.behind.as_slice(),
        fleet.short.as_slice(),
    ) {
        (true, _, _) => "a proxy to serve the Split: none is there".to_owned(),
        (false, [], []) => "the proxies to acknowledge the Split".to_owned(),
        (false, [], short) => format!("ready endpoints at proxies {}", named(short)),
        (false, behind, _) => format!("proxies to acknowledge the Split: {}", named(behind)),
    }
}

/// Notes since when every proxy serves a table without a revision that still has pods.
pub(super) fn note_departures(turn: &mut Turn<'_>, wanted: &Split) {
    let (settled, now) = (turn.settled, turn.now);
    let known = std::mem::take(&mut turn.next.memory.left);
    let written = turn.observed.split.as_ref().map(|written| &written.split);
    let mut left = BTreeMap::new();
    for set in turn
        .observed
        .revisions
        .iter()
        .filter(|set| set.pods > 0 || set.wanted > 0)
    {
        if wanted.lists(&set.hash) || written.is_some_and(|written| written.lists(&set.hash)) {
            continue;
        }
        let since = known.get(&set.hash).cloned();
        let since = since.or_else(|| settled.then(|| Time(time::whole_seconds(now))));
        left.extend(since.map(|since| (set.hash.clone(), since)));
    }
    turn.next.memory.left = left;
}
