//! Weights: how much the canary gets, and when that may change. They are decided here and nowhere else.
//!
//! A weight never leads the pods that carry it, goes down before they do, and counts as set only when every proxy acknowledges it.
//! Promotion moves no request: it renames what already has everything.

use std::collections::BTreeMap;

use super::acknowledgement::{self, forget_verification, missing};
use super::decision::Action;
use super::experiment::Beside;
use super::observed::Revision;
use super::plan::Routing;
use super::replicas::{self, Position};
use super::split::{CANARY, STABLE, Split, Version, of_rules};
use super::turn::Turn;
use super::{dynamic, experiment, release, routes, scale};
use crate::api::rollout::{TrafficWeights, WeightDestination};
use crate::api::split::SplitRule;

/// Sets the weights that the present step asks for, as far as pods allow, and follows their acknowledgement.
pub(super) fn route(turn: &mut Turn<'_>) {
    ensure_services(turn);
    let (Some(routing), Some(stable)) = (turn.routing(), turn.stable) else {
        return release::proceed(turn, turn.stable);
    };
    acknowledgement::doubt(turn);
    let Some(trial) = trial(turn, routing, stable) else {
        return;
    };
    let changed = record(turn, routing, stable, &trial);
    let wanted = split(turn, routing, stable, &trial, changed.is_some());
    turn.carried = wanted.needed(&turn.new.hash);
    let is_written = write(turn, &wanted);
    // Of a weight that the Split has already it was told when that was written: the status comes late.
    if let Some(details) = changed.filter(|details| is_written || details.is_empty()) {
        let message = format!("Traffic weight updated {details}");
        turn.report("TrafficWeightUpdated", message);
    }
    acknowledgement::verify(turn);
    acknowledgement::note_departures(turn, &wanted);
}

/// The version beside stable, and its weight.
#[derive(Clone, Debug)]
struct Trial<'a> {
    set: &'a Revision,
    weight: i32,
    /// It is a version of the Split, if only with weight 0.
    listed: bool,
    /// Versions of an experiment, which take from stable.
    beside: Vec<Beside<'a>>,
}

impl Trial<'_> {
    /// What is left for stable.
    fn rest(&self, routing: &Routing) -> i32 {
        let beside: i32 = self.beside.iter().map(|beside| beside.weight).sum();
        routing.whole - self.weight - beside
    }
}

/// What stands beside stable now: a version that leaves as long as it does, then the new one; none where nothing is to change.
fn trial<'a>(turn: &mut Turn<'a>, routing: &Routing, stable: &Revision) -> Option<Trial<'a>> {
    if let Some((set, weight)) = dynamic::leaving(turn) {
        let message = format!(
            "{} available pods of ReplicaSet \"{}\", before all traffic leaves ReplicaSet \"{}\"",
            turn.replicas, stable.name, set.name
        );
        turn.wait("pods", message, None);
        return Some(Trial {
            set,
            weight,
            listed: true,
            beside: Vec::new(),
        });
    }
    let weight = weight(turn, routing, stable)?;
    let goes_on = !turn.is_promoted() && !turn.is_aborted() && turn.new.available > 0;
    Some(Trial {
        set: turn.new,
        weight,
        listed: goes_on && (weight > 0 || scale::sizes(turn).canary > 0),
        beside: experiment::beside(turn, routing.whole - weight),
    })
}

/// The canary's weight now (R8.1); none where nothing is to change (R8.2).
fn weight(turn: &mut Turn<'_>, routing: &Routing, stable: &Revision) -> Option<i32> {
    let recorded = turn.was.weights.is_some();
    let at = weight_in_force(turn, routing);
    if turn.is_promoted() {
        let goes = recorded || is_enough(turn, stable, turn.replicas);
        return goes.then_some(0);
    }
    if turn.is_aborted() || turn.new.available == 0 {
        return Some(0);
    }
    let goal = goal(turn, routing, at);
    let kept = match routing.dynamic {
        true => stable_pods(turn, routing, goal),
        false => replicas::share_down(turn.replicas, routing.whole - goal, routing.whole),
    };
    let served = written_weight(turn).min(routing.whole);
    let takes_nothing_back = goal == at && served <= goal;
    if takes_nothing_back || is_enough(turn, stable, kept) {
        return Some(goal);
    }
    turn.wait(
        "pods",
        format!("{kept} available pods of ReplicaSet \"{}\"", stable.name),
        None,
    );
    Some(served)
}

/// The weight that the steps ask for: lower ones at once, higher ones when the pods are there, and never ahead of them.
fn goal(turn: &Turn<'_>, routing: &Routing, at: i32) -> i32 {
    let whole = routing.whole;
    let position = position(turn);
    let complete = is_enough(turn, turn.new, turn.replicas);
    let carried = replicas::share_down(whole, turn.new.available, turn.replicas);
    if turn.next.promote_full || position.steps.is_empty() {
        return match (complete, routing.dynamic && turn.next.promote_full) {
            (true, _) => whole,
            (false, true) => carried.min(whole), // R8.1 e
            (false, false) => at,
        };
    }
    let sizes = scale::sizes(turn);
    if sizes.canary == 0 {
        return 0; // whatever the weight: `setCanaryScale` of 0, or `spec.replicas` of 0
    }
    let asked = position.weight().unwrap_or(whole);
    if scale::is_at(turn, sizes) {
        return asked;
    }
    asked.min(at.max(position.weight_before().min(carried)))
}

fn is_enough(turn: &Turn<'_>, set: &Revision, target: i32) -> bool {
    set.available >= replicas::enough(target, turn.plan.threshold())
}

/// The weight that the new revision has: recorded, and written. Where the two differ somebody has edited the Split, or a turn was
/// broken off, and only the lower one is known to have its pods. Where sizes follow weights, stable need not have them for the lower
/// one either, and what proxies may serve is what counts.
fn weight_in_force(turn: &Turn<'_>, routing: &Routing) -> i32 {
    let hash = turn.new.hash.as_str();
    let written = written_weight(turn);
    if routing.dynamic {
        return written.min(routing.whole);
    }
    let canary = turn.was.weights.as_ref().map(|weights| &weights.canary);
    let recorded = canary.filter(|canary| canary.pod_template_hash.as_deref() == Some(hash));
    recorded.map_or(0, |canary| canary.weight.min(written))
}

/// The weight that the new revision has in the Split as it stands, which is what proxies may serve.
fn written_weight(turn: &Turn<'_>) -> i32 {
    let written = turn.observed.split.as_ref();
    let shares = written.map(|written| shares(&written.split));
    let weight = shares.and_then(|shares| shares.get(turn.new.hash.as_str()).copied());
    i32::try_from(weight.unwrap_or(0)).unwrap_or(i32::MAX)
}

/// Writes the weights to the status, unverified where they differ. Returns what is new in them, if they do.
fn record(
    turn: &mut Turn<'_>,
    routing: &Routing,
    stable: &Revision,
    trial: &Trial<'_>,
) -> Option<String> {
    let weight = trial.weight;
    let destination = |set: &Revision, service: Option<&String>, weight| WeightDestination {
        pod_template_hash: Some(set.hash.clone()),
        service_name: service.cloned(),
        weight,
    };
    let weights = TrafficWeights {
        additional: trial.beside.iter().map(Beside::destination).collect(),
        canary: destination(trial.set, turn.plan.new_service(), weight),
        stable: destination(stable, turn.plan.stable_service(), trial.rest(routing)),
        verified: Some(false),
    };
    let before = turn.was.weights.as_ref();
    let same = |before: &TrafficWeights| {
        let verified = before.verified;
        *before
            == TrafficWeights {
                verified,
                ..weights.clone()
            }
    };
    if before.is_some_and(same) {
        return None;
    }
    let details = changes(before, &weights);
    turn.next.weights = Some(weights);
    Some(details)
}

/// What is new in weights, as Argo says it.
fn changes(before: Option<&TrafficWeights>, weights: &TrafficWeights) -> String {
    let weight = weights.canary.weight;
    let Some(before) = before else {
        return format!("to {weight}");
    };
    let canary = (before.canary.weight != weight)
        .then(|| format!("from {} to {weight}", before.canary.weight));
    let additional =
        (before.additional != weights.additional).then(|| experiment::printed(&weights.additional));
    let details: Vec<String> = canary.into_iter().chain(additional).collect();
    details.join(", ")
}

/// The whole Split for a weight.
fn split(
    turn: &Turn<'_>,
    routing: &Routing,
    stable: &Revision,
    trial: &Trial<'_>,
    changed: bool,
) -> Split {
    let kept = match routing.dynamic {
        true => stable_pods(turn, routing, trial.weight),
        false => turn.replicas,
    };
    let version = |name: &str, set: &Revision, pods| Version {
        name: name.to_owned(),
        revision: set.hash.clone(),
        service: None,
        needed: needed(turn, set, pods, changed),
    };
    let mut versions = vec![version(STABLE, stable, kept)];
    if trial.listed {
        let pods = canary_pods(turn, routing, trial);
        versions.push(version(CANARY, trial.set, pods));
    }
    versions.extend(trial.beside.iter().map(Beside::version));
    let rules = rules(turn, routing, trial);
    Split {
        versions,
        apexes: of_rules(&turn.observed.apexes, &rules),
        rules,
        fallback: routing.fallback,
        fleet: routing.fleet.clone(),
    }
}

/// Pods of stable that carry what a canary's weight leaves it, with sizes that follow weights.
fn stable_pods(turn: &Turn<'_>, routing: &Routing, weight: i32) -> i32 {
    replicas::share_up(turn.replicas, routing.whole - weight, routing.whole)
}

/// Pods that carry a canary weight: as many as the step asks for with its own weight; with another, which was held, has only come so
/// far or is on its way out, as many as that one needs.
fn canary_pods(turn: &Turn<'_>, routing: &Routing, trial: &Trial<'_>) -> i32 {
    let asked = position(turn).weight().unwrap_or(routing.whole);
    let leaves = trial.set.uid != turn.new.uid || turn.is_aborted();
    let by_step = trial.weight == asked && !turn.next.promote_full && !leaves;
    let sized = Some(scale::sizes(turn).canary).filter(|pods| by_step && *pods > 0);
    sized.unwrap_or_else(|| replicas::share_up(turn.replicas, trial.weight, routing.whole))
}

/// Where in the steps the update is.
fn position<'a>(turn: &Turn<'a>) -> Position<'a> {
    Position {
        steps: turn.plan.steps(),
        index: turn.step_index(),
    }
}

/// Fixed when the weight is set; later lowered, never raised.
pub(super) fn needed(turn: &Turn<'_>, set: &Revision, pods: i32, changed: bool) -> u32 {
    let enough = replicas::enough(pods, turn.plan.threshold()).max(1);
    let enough = u32::try_from(enough).unwrap_or(1);
    let written = turn
        .observed
        .split
        .as_ref()
        .and_then(|written| written.split.needed(&set.hash));
    match written.filter(|_| !changed) {
        Some(written) => written.min(enough),
        None => enough,
    }
}

/// One weighted rule, and one for each Service that is not weighted itself.
fn rules(turn: &Turn<'_>, routing: &Routing, trial: &Trial<'_>) -> Vec<SplitRule> {
    let share = |name: &str, weight: i32| (name.to_owned(), u32::try_from(weight).unwrap_or(0));
    let whole = |name: &str| BTreeMap::from([share(name, routing.whole)]);
    let listed = trial.listed;
    let canary = listed.then(|| share(CANARY, trial.weight));
    let beside = trial.beside.iter().map(Beside::share);
    let mut shares = BTreeMap::from([share(STABLE, trial.rest(routing))]);
    shares.extend(canary.into_iter().chain(beside));
    let rule = |services: Vec<String>, weights| SplitRule {
        services,
        ports: None,
        weights,
        routes: Vec::new(),
    };
    let pinned = |service: Option<&String>, name: &str| {
        let service = service.filter(|service| !routing.services.contains(service))?;
        Some(rule(vec![service.clone()], whole(name)))
    };
    let mut rules = vec![rule(routing.services.clone(), shares)];
    rules[0].routes = routes::in_force(turn, listed);
    rules.extend(pinned(turn.plan.stable_service(), STABLE));
    rules.extend(pinned(
        turn.plan.new_service(),
        if listed { CANARY } else { STABLE },
    ));
    rules
}

/// Writes the Split where it differs, and says whether it does. Weights that are not served as recorded are not verified any more.
pub(super) fn write(turn: &mut Turn<'_>, wanted: &Split) -> bool {
    let written = turn.observed.split.as_ref().map(|written| &written.split);
    turn.settled = written == Some(wanted) && turn.observed.fleet.acknowledges();
    if written == Some(wanted) {
        return false;
    }
    let fleet = |split: &Split| split.fleet.clone();
    if written.map(fleet) != Some(fleet(wanted)) {
        // What another fleet has acknowledged says nothing of this one.
        forget_verification(turn);
        turn.next.memory.left.clear();
    }
    let served = |split| (shares(split), experiment::shares(split));
    if written.map(served) != Some(served(wanted)) {
        forget_verification(turn);
    }
    turn.act(Action::WriteSplit(wanted.clone()));
    turn.next.memory.generation = Some(turn.next.memory.generation.unwrap_or(0) + 1);
    let missing = missing(turn);
    turn.wait("acknowledgement", missing, None);
    true
}

/// Weights of the weighted rule by revision, without those that get nothing and those of experiments.
pub(super) fn shares(split: &Split) -> BTreeMap<&str, u32> {
    let weights = split.rules.first().map(|rule| &rule.weights);
    let share = |version: &Version| {
        weights
            .and_then(|weights| weights.get(&version.name))
            .copied()
    };
    let shares = split
        .revisions()
        .map(|version| (version.revision.as_str(), share(version)));
    shares
        .filter_map(|(revision, share)| Some((revision, share.filter(|share| *share > 0)?)))
        .collect()
}

/// Every revision that has pods, or is about to, has a Service that lists them; stable has one even without, as the Split lists it.
pub(super) fn ensure_services(turn: &mut Turn<'_>) {
    if turn.routing().is_none() {
        return;
    }
    for set in turn
        .observed
        .revisions
        .iter()
        .filter(|set| !set.has_service && !set.deleting)
    {
        let is_stable = turn.stable.is_some_and(|stable| stable.uid == set.uid);
        if set.wanted > 0 || set.pods > 0 || set.uid == turn.new.uid || is_stable {
            let (replica_set, hash) = (set.name.clone(), set.hash.clone());
            turn.act(Action::EnsureRevisionService { replica_set, hash });
        }
    }
}
