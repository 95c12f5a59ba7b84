//! Giving the traffic back: routing was taken out of the spec, or a router of others carries it (control-plane rules, section 9).
//!
//! The Services select stable, which has its full size; then it gets all of the traffic. When every proxy serves that, and what was
//! begun elsewhere has ended, the Split goes, and when no proxy serves it any more, so do the revision Services. Until the Split is
//! gone no ReplicaSet shrinks: whoever comes next finds what it would have made itself.

use std::collections::BTreeMap;

use super::acknowledgement::{missing, note_departures};
use super::decision::Action;
use super::observed::{Revision, WrittenSplit, named};
use super::plan::DRAIN_TIMEOUT_SECONDS;
use super::split::{STABLE, Split, Version, of_rules};
use super::time;
use super::traffic::shares;
use super::turn::Turn;

/// Routing was taken out of the spec, and the Split is still there.
pub(super) fn is_under_way(turn: &Turn<'_>) -> bool {
    turn.routing().is_none() && turn.observed.split.is_some()
}

/// Takes the next step, if routing was taken out of the spec; `keeper` is the revision that gets everything.
pub(super) fn proceed(turn: &mut Turn<'_>, keeper: Option<&Revision>) {
    if turn.routing().is_some() {
        return;
    }
    turn.next.weights = None;
    give_back(turn, keeper);
}

/// Takes the next step, whatever the spec says of routing.
pub(super) fn give_back(turn: &mut Turn<'_>, keeper: Option<&Revision>) {
    turn.next.memory.verified = None;
    turn.next.memory.generation = None;
    let Some(written) = &turn.observed.split else {
        turn.next.memory.left.clear();
        return delete_services(turn);
    };
    let Some(keeper) = keeper else {
        return;
    };
    let wanted = all_to(turn, &written.split, keeper);
    turn.settled = written.split == wanted && is_served(turn);
    note_departures(turn, &wanted);
    if written.split != wanted {
        if is_complete(turn, written, keeper) {
            turn.act(Action::WriteSplit(wanted));
        }
    } else if is_let_go(turn, &wanted, keeper) {
        turn.act(Action::DeleteSplit);
    }
}

/// The Split with all of every rule for one revision. Ports of the proxies stay as long as Services lead to them.
fn all_to(turn: &Turn<'_>, written: &Split, keeper: &Revision) -> Split {
    let mut wanted = written.clone();
    let needed = wanted.needed(&keeper.hash).unwrap_or(1);
    wanted.versions = vec![Version {
        name: STABLE.to_owned(),
        revision: keeper.hash.clone(),
        service: None,
        needed,
    }];
    for rule in &mut wanted.rules {
        rule.weights = BTreeMap::from([(STABLE.to_owned(), 100)]);
        rule.routes.clear();
    }
    wanted.apexes = of_rules(&turn.observed.apexes, &wanted.rules);
    wanted
}

/// All pods are there to take what others have; where they have nothing, nobody need wait.
fn is_complete(turn: &mut Turn<'_>, written: &WrittenSplit, keeper: &Revision) -> bool {
    let has_all = shares(&written.split)
        .keys()
        .all(|hash| *hash == keeper.hash);
    if has_all || keeper.available >= turn.replicas {
        return true;
    }
    let message = format!(
        "{} available pods of ReplicaSet \"{}\", before it gets all of the traffic",
        turn.replicas, keeper.name
    );
    turn.wait("pods", message, None);
    false
}

/// Nothing rests on the Split any more. Says on what it rests, if on anything.
fn is_let_go(turn: &mut Turn<'_>, wanted: &Split, keeper: &Revision) -> bool {
    if let Some(message) = about_services(turn, wanted, keeper) {
        turn.wait("service", message, None);
    } else if let Some(apex) = wanted.apexes.first() {
        let message = format!(
            "callers of Service \"{}\" to leave port {} of the proxies",
            apex.service, apex.listen
        );
        turn.wait("service", message, None);
    } else if !turn.settled {
        let message = format!("{}, before the Split goes", missing(turn));
        turn.wait("acknowledgement", message, None);
    } else {
        return is_drained(turn);
    }
    false
}

/// Which Service does not lead to where the Split does.
fn about_services(turn: &Turn<'_>, wanted: &Split, keeper: &Revision) -> Option<String> {
    let governed = |name: &String| wanted.rules.iter().any(|rule| rule.services.contains(name));
    let stable = turn.plan.stable_service();
    for service in &turn.observed.services {
        let name = &service.name;
        if governed(name) && service.selector.is_empty() {
            return Some(format!(
                "a selector of Service \"{name}\": without one its callers would reach nobody once the proxies are left"
            ));
        }
        if stable == Some(name) && service.hash() != Some(&keeper.hash) {
            return Some(format!(
                "Service \"{name}\" to select ReplicaSet \"{}\"",
                keeper.name
            ));
        }
    }
    None
}

/// Every proxy serves the Split, or there is none that could.
fn is_served(turn: &Turn<'_>) -> bool {
    let fleet = &turn.observed.fleet;
    fleet.acknowledges() || (fleet.listed && fleet.proxies.is_empty())
}

/// What was begun at other revisions has ended, or has had its time.
fn is_drained(turn: &mut Turn<'_>) -> bool {
    let in_flight = &turn.observed.fleet.in_flight;
    let until = |since| time::after(since, DRAIN_TIMEOUT_SECONDS);
    let mut left = turn.next.memory.left.iter();
    let busy = left.find_map(|(hash, since)| {
        let count = in_flight.get(hash).filter(|count| **count > 0)?;
        Some((*count, hash.clone(), until(since.0)))
    });
    let Some((count, hash, until)) = busy.filter(|(.., until)| *until > turn.now) else {
        return true;
    };
    let message = format!("{count} requests in flight to revision {hash}");
    turn.wait("drain", message, Some(until));
    false
}

/// Revision Services go when no proxy asks for their endpoints any more.
fn delete_services(turn: &mut Turn<'_>) {
    let sets = turn.observed.revisions.iter();
    let names: Vec<String> = sets
        .filter(|set| set.service_stands)
        .map(|set| set.name.clone())
        .collect();
    if names.is_empty() {
        return;
    }
    let leftover = &turn.observed.fleet.leftover;
    if !leftover.is_empty() {
        let message = format!("proxies to leave the Split: {}", named(leftover));
        return turn.wait_after("acknowledgement", message, None);
    }
    for replica_set in names {
        turn.act(Action::DeleteRevisionService { replica_set });
    }
}

/// No ReplicaSet shrinks before the Split is gone; what gets everything has its full size.
pub(super) fn keep_sizes(turn: &mut Turn<'_>) {
    let keeper = turn.stable.unwrap_or(turn.new);
    let to = turn.replicas.max(keeper.wanted);
    turn.scaled = turn.scale(keeper, to, Vec::new());
}
