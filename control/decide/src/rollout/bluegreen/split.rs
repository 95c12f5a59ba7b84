//! Blue-green by our proxies: one rule for the active Service and one for the preview, switched in one write of one Split.
//!
//! As with a canary, `stable` is the version that carried everything so far and `canary` the one that is tried; a switch gives the
//! active rule's whole weight to `canary`, and the promotion after it only renames.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::super::observed::Revision;
use super::super::plan::{BlueGreen, Routing};
use super::super::split::{CANARY, STABLE, Split, Version, of_rules};
use super::super::turn::Turn;
use super::super::{acknowledgement, release, traffic};
use super::cutover::Active;
use super::size;
use crate::api::split::{SplitRule, Verified};

/// Brings the Split where the Services lead, and follows its acknowledgement.
pub(super) fn route(turn: &mut Turn<'_>, strategy: &BlueGreen, active: &Active<'_>) {
    traffic::ensure_services(turn);
    let (Some(routing), Some(stable)) = (turn.routing(), turn.stable) else {
        let keeper = match active.is_new(turn) {
            true => Some(turn.new),
            false => turn.stable,
        };
        return release::proceed(turn, keeper);
    };
    acknowledgement::doubt(turn);
    let written = turn.observed.split.as_ref().map(|written| &written.split);
    if written.is_none() && turn.is_promoted() && stable.available < turn.replicas {
        return; // R8.2: a first deploy has nothing to send anybody to
    }
    let carrier = carrier(turn, routing, active);
    let keeps_new = carrier.is_some_and(|set| set.uid == turn.new.uid);
    let stable = carrier.filter(|_| !keeps_new).unwrap_or(stable);
    let moved = active.is_new(turn) && !turn.is_promoted();
    let is_new = keeps_new || (moved && is_carried(turn, routing));
    let wanted = wanted(turn, strategy, routing, stable, is_new);
    if written.map(shares) != Some(shares(&wanted)) {
        turn.next.memory.verified = None;
    }
    traffic::write(turn, &wanted);
    match moved == is_new {
        true => verify(turn),
        false => hold(turn),
    }
    acknowledgement::note_departures(turn, &wanted);
}

/// While stable has no pod to go back to, the revision that the active rule leads to goes on: one that was overtaken after the switch
/// to it, or the new one, where the Service has lost its selector.
fn carrier<'a>(turn: &Turn<'a>, routing: &Routing, active: &Active<'_>) -> Option<&'a Revision> {
    let stays = matches!(active, Active::Stays);
    turn.stable
        .filter(|stable| stays && stable.available == 0)?;
    let mut sets = turn.others.iter().copied().chain([turn.new]);
    let set = sets.find(|set| is_led_to(turn, routing, set))?;
    (set.available > 0).then_some(set)
}

/// The new revision has everything already, or all the pods for it. A Service may have been ahead: its selector is anybody's to edit.
fn is_carried(turn: &Turn<'_>, routing: &Routing) -> bool {
    is_led_to(turn, routing, turn.new) || (turn.replicas > 0 && size::is_whole(turn, turn.new))
}

/// The active rule, as it is written, leads to a revision.
fn is_led_to(turn: &Turn<'_>, routing: &Routing, set: &Revision) -> bool {
    let written = turn.observed.split.as_ref().map(|written| &written.split);
    written.is_some_and(|split| {
        shares(split).iter().any(|(services, led)| {
            *services == routing.services.as_slice() && led.contains(&set.hash.as_str())
        })
    })
}

/// The proxies do not follow the Service yet.
fn hold(turn: &mut Turn<'_>) {
    turn.next.memory.verified = None;
    if turn.replicas > 0 {
        size::wait_for_pods(turn, turn.replicas);
    }
}

/// The whole Split. The new revision is listed while it has pods, and after an abort until its delay is over.
fn wanted(
    turn: &Turn<'_>,
    strategy: &BlueGreen,
    routing: &Routing,
    stable: &Revision,
    is_new: bool,
) -> Split {
    let over = turn.is_aborted() && turn.new.deadline().is_some_and(|at| at <= turn.now);
    let shown = turn.new.available > 0 && size::target(turn, strategy) > 0;
    let listed = !turn.is_promoted() && (is_new || (shown && !over));
    let preview = if listed { CANARY } else { STABLE };
    let rules = rules(
        strategy,
        routing,
        if is_new { CANARY } else { STABLE },
        preview,
    );
    let written = turn.observed.split.as_ref();
    let changed = written.is_none_or(|written| written.split.rules != rules);
    let version = |name: &str, set: &Revision, pods| Version {
        name: name.to_owned(),
        revision: set.hash.clone(),
        service: None,
        needed: traffic::needed(turn, set, pods, changed),
    };
    let mut versions = vec![version(STABLE, stable, turn.replicas)];
    if listed {
        let pods = match is_new {
            true => turn.replicas,
            false => size::target(turn, strategy),
        };
        versions.push(version(CANARY, turn.new, pods));
    }
    Split {
        versions,
        apexes: of_rules(&turn.observed.apexes, &rules),
        rules,
        fallback: routing.fallback,
        fleet: routing.fleet.clone(),
    }
}

/// Each rule gives all to one version.
fn rules(strategy: &BlueGreen, routing: &Routing, active: &str, preview: &str) -> Vec<SplitRule> {
    let whole = u32::try_from(routing.whole).unwrap_or(100);
    let rule = |services: Vec<String>, version: &str| SplitRule {
        services,
        ports: None,
        weights: BTreeMap::from([(version.to_owned(), whole)]),
        routes: Vec::new(),
    };
    let mut rules = vec![rule(routing.services.clone(), active)];
    let name = strategy.preview_service.as_ref();
    if let Some(name) = name.filter(|name| !routing.services.contains(name)) {
        rules.push(rule(vec![name.clone()], preview));
    }
    rules
}

/// Which revision each rule's Services lead to: a renamed version is no change.
fn shares(split: &Split) -> Vec<(&[String], Vec<&str>)> {
    let revision = |name: &String| {
        let mut versions = split.versions.iter();
        versions.find(|version| version.name == *name)
    };
    let rules = split.rules.iter().map(|rule| {
        let named = rule.weights.iter().filter(|(_, weight)| **weight > 0);
        let led = named.filter_map(|(name, _)| Some(revision(name)?.revision.as_str()));
        (rule.services.as_slice(), led.collect())
    });
    rules.collect()
}

/// Latches that every proxy serves the Split as it was last changed.
fn verify(turn: &mut Turn<'_>) {
    if turn.next.memory.verified.is_some() || turn.replicas == 0 {
        return;
    }
    let (settled, fleet) = (turn.settled, &turn.observed.fleet);
    let written = turn.observed.split.as_ref();
    let Some(written) = written.filter(|_| settled && fleet.verifies()) else {
        let message = acknowledgement::missing(turn);
        return turn.wait("acknowledgement", message, None);
    };
    turn.next.memory.verified = Some(Verified {
        generation: written.generation,
        at: MicroTime(fleet.verified_at.unwrap_or(turn.now)),
    });
    turn.look_again(turn.now);
}

/// Every proxy leads the preview to the new revision: before that nobody can try it. A preview of no pods is nothing to try.
pub(super) fn is_shown(turn: &Turn<'_>, strategy: &BlueGreen) -> bool {
    let written = turn.observed.split.as_ref();
    let listed = written.is_some_and(|written| written.split.lists(&turn.new.hash));
    let served = listed && turn.was.memory.verified.is_some();
    strategy.routing.is_none() || size::target(turn, strategy) == 0 || served
}
