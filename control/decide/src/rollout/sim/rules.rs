//! What must hold of every decision, whatever happened before. Each rule is a small function that knows the arithmetic it checks by
//! itself and asks the deciding code for nothing.
//!
//! What must hold of the world at every write stands in [`super::guards`], where a walk must end in [`super::ending`].

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::fleet::weight;
use super::{Broken, switches};
use crate::api::rollout::RolloutStatus;
use crate::api::split::Memory;
use crate::rollout::State;
use crate::rollout::decision::{Action, Decision};
use crate::rollout::observed::{Observed, Revision, RunPhase};
use crate::rollout::plan::{AbortDelay, CanaryScale, Plan, Routing, ScaleDown, Step, Threshold};
use crate::rollout::split::{CANARY, Split};

/// One decision and what it was made from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Case<'a> {
    pub(super) plan: &'a Plan,
    pub(super) was: &'a State,
    pub(super) observed: &'a Observed,
    pub(super) decision: &'a Decision,
    /// The decision made once more.
    pub(super) again: &'a Decision,
    /// What the controller's clock shows.
    pub(super) now: Timestamp,
    /// A person, or the gate when it was seen to open with all it asks for, lets the present blue-green update be promoted.
    pub(super) consent: bool,
    /// It writes nothing.
    pub(super) is_still: bool,
}

/// Whether a rule holds; if not, why.
pub(super) type Verdict = Result<(), String>;

/// A rule and its name.
pub(super) type Rule = (&'static str, fn(&Case<'_>) -> Verdict);

/// Every rule.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    RULES.iter().chain(switches::RULES)
}

const RULES: &[Rule] = &[
    ("weights_sum_right", weights_sum_right),
    (
        "canary_weight_is_at_most_its_step",
        canary_weight_is_at_most_its_step,
    ),
    ("a_raised_weight_has_its_pods", a_raised_weight_has_its_pods),
    ("nothing_ready_gets_nothing", nothing_ready_gets_nothing),
    (
        "stable_takes_back_what_it_carries",
        stable_takes_back_what_it_carries,
    ),
    (
        "an_abort_takes_all_traffic_back",
        an_abort_takes_all_traffic_back,
    ),
    ("the_same_again_is_the_same", the_same_again_is_the_same),
    ("status_round_trips", status_round_trips),
    ("waiting_is_named", waiting_is_named),
    ("a_still_look_is_not_hot", a_still_look_is_not_hot),
    ("trouble_has_a_reason", trouble_has_a_reason),
    ("healthy_is_true", healthy_is_true),
    ("surge_is_kept", surge_is_kept),
    ("enough_stay_available", enough_stay_available),
    ("evictions_leave_enough", evictions_leave_enough),
    ("scaling_starts_from_what_is", scaling_starts_from_what_is),
    ("the_workload_makes_room", the_workload_makes_room),
];

/// Checks every rule.
pub(super) fn check(case: &Case<'_>) -> Result<(), Broken> {
    for (rule, holds) in all() {
        holds(case).map_err(|why| Broken { rule, why })?;
    }
    Ok(())
}

/// A condition, or why it does not hold.
pub(super) fn ensure(condition: bool, why: impl FnOnce() -> String) -> Verdict {
    match condition {
        true => Ok(()),
        false => Err(why()),
    }
}

impl Case<'_> {
    pub(super) fn replicas(&self) -> i32 {
        self.plan.replicas.unwrap_or(1)
    }

    /// Routing, of a canary.
    fn routing(&self) -> Option<&Routing> {
        self.plan.canary()?.routing.as_ref()
    }

    /// A canary without routing.
    fn is_basic(&self) -> bool {
        self.plan.canary().is_some() && self.routing().is_none()
    }

    /// The Split that this decision writes.
    pub(super) fn writes(&self) -> Option<&Split> {
        let mut actions = self.decision.actions.iter().rev();
        actions.find_map(|action| {
            let Action::WriteSplit(split) = action else {
                return None;
            };
            Some(split)
        })
    }

    /// The Split as it stands after this decision.
    pub(super) fn split(&self) -> Option<&Split> {
        let written = self.observed.split.as_ref().map(|written| &written.split);
        self.writes().or(written)
    }

    pub(super) fn set(&self, hash: &str) -> Option<&Revision> {
        self.observed.revisions.iter().find(|set| set.hash == hash)
    }

    pub(super) fn available(&self, hash: &str) -> i32 {
        self.set(hash).map_or(0, |set| set.available)
    }

    /// Hash of the revision that the spec asks for.
    pub(super) fn wanted(&self) -> &str {
        self.decision
            .status
            .current_pod_hash
            .as_deref()
            .unwrap_or_default()
    }

    fn was_promoted(&self) -> bool {
        self.was.stable.as_deref() == Some(self.wanted())
    }

    /// The turn got as far as traffic: it was not one that only creates, resets, pauses or resumes.
    fn got_to_traffic(&self) -> bool {
        self.is_still || self.writes().is_some()
    }

    /// Index of the step that the turn began at, never beyond the number of steps.
    fn step(&self) -> usize {
        let count = self.plan.steps().len();
        self.was.step.unwrap_or(count).min(count)
    }

    /// The weight that the steps up to this one ask for.
    fn asked(&self, whole: i32) -> i32 {
        let steps = self.plan.steps();
        if self.step() == steps.len() {
            return whole;
        }
        let mut weights = steps.iter().take(self.step() + 1).filter_map(|step| {
            let Step::SetWeight(weight) = step else {
                return None;
            };
            Some(*weight)
        });
        weights.next_back().unwrap_or(0)
    }

    /// The last `setCanaryScale` up to this step, in pods.
    fn canary_scale(&self, whole: i32) -> Option<i32> {
        let steps = self.plan.steps();
        let mut scales = steps.iter().take(self.step() + 1).filter_map(|step| {
            let Step::SetCanaryScale(scale) = step else {
                return None;
            };
            Some(*scale)
        });
        match scales.next_back().filter(|_| self.step() < steps.len())? {
            CanaryScale::Replicas(pods) => Some(pods),
            CanaryScale::Weight(weight) => Some(up(self.replicas(), weight, whole)),
            CanaryScale::MatchTrafficWeight => None,
        }
    }

    /// Pods that satisfy a number of pods.
    fn enough(&self, pods: i32) -> i32 {
        match self.plan.threshold() {
            None => pods,
            Some(Threshold::Percent(percent)) => up(pods, percent, 100),
            Some(Threshold::Pods(least)) => least.min(pods),
        }
    }

    /// Sizes of the ReplicaSets after this decision.
    pub(super) fn sizes(&self) -> BTreeMap<&str, i32> {
        let sets = self.observed.revisions.iter();
        let mut sizes: BTreeMap<&str, i32> =
            sets.map(|set| (set.name.as_str(), set.wanted)).collect();
        for action in &self.decision.actions {
            if let Action::ScaleReplicaSet { name, to, .. } = action {
                sizes.insert(name, *to);
            }
        }
        sizes
    }
}

/// `⌈pods · part ÷ whole⌉`.
fn up(pods: i32, part: i32, whole: i32) -> i32 {
    let product = i64::from(pods) * i64::from(part);
    let rounded = (product + i64::from(whole) - 1).div_euclid(i64::from(whole));
    i32::try_from(rounded).unwrap()
}

fn down(pods: i32, part: i32, whole: i32) -> i32 {
    i32::try_from((i64::from(pods) * i64::from(part)).div_euclid(i64::from(whole))).unwrap()
}

/// R8.3: the weights of every rule, and those in the status, sum up to the whole.
fn weights_sum_right(case: &Case<'_>) -> Verdict {
    let whole = case.routing().map_or(100, |routing| routing.whole);
    for rule in case.writes().iter().flat_map(|split| &split.rules) {
        let sum = rule
            .weights
            .values()
            .map(|weight| i64::from(*weight))
            .sum::<i64>();
        ensure(sum == i64::from(whole), || format!("{rule:?}"))?;
    }
    let Some(weights) = &case.decision.status.canary.weights else {
        return Ok(());
    };
    let others = weights.additional.iter().map(|other| other.weight);
    let sum = weights.canary.weight + weights.stable.weight + others.sum::<i32>();
    ensure(case.routing().is_none() || sum == whole, || {
        format!("{weights:?}")
    })
}

/// R8.1: a canary weight is raised to at most what its step asks for; `promote --full` asks for all, and so does a rollback within the
/// window (R13.2).
fn canary_weight_is_at_most_its_step(case: &Case<'_>) -> Verdict {
    let (Some(routing), Some(after)) = (case.routing(), &case.decision.status.canary.weights)
    else {
        return Ok(());
    };
    let same = |canary: &&crate::api::rollout::WeightDestination| {
        canary.pod_template_hash == after.canary.pod_template_hash
    };
    let before = case.was.weights.as_ref().map(|weights| &weights.canary);
    let before = before.filter(same).map_or(0, |canary| canary.weight);
    let hash = after
        .canary
        .pod_template_hash
        .as_deref()
        .unwrap_or_default();
    let written = case
        .observed
        .split
        .as_ref()
        .map_or(0, |written| weight(&written.split, hash));
    let before = before.max(i32::try_from(written).unwrap_or(i32::MAX));
    let after = after.canary.weight;
    let asked = case.asked(routing.whole);
    let full = case.was.promote_full || case.was_promoted() || goes_back(case);
    ensure(after <= before.max(asked) || full, || {
        format!(
            "{after} is above {asked}, which step {} asks for",
            case.step()
        )
    })
}

/// R13.1: the spec has gone back to a revision that was created before stable, with few enough others in between.
pub(super) fn goes_back(case: &Case<'_>) -> bool {
    let stable = case.was.stable.as_deref().and_then(|hash| case.set(hash));
    let (Some(window), Some(new), Some(stable)) =
        (case.plan.rollback_window, case.set(case.wanted()), stable)
    else {
        return false;
    };
    let mut between = 0;
    for set in &case.observed.revisions {
        between +=
            usize::from(new.created_at < set.created_at && set.created_at < stable.created_at);
    }
    new.created_at < stable.created_at && between < window
}

/// R8.2, R8.6: a version gets more than before only with the pods that this share needs; stable, which takes what others lose, only
/// where the canary goes on and loses by its step.
fn a_raised_weight_has_its_pods(case: &Case<'_>) -> Verdict {
    let (Some(routing), Some(after), Some(before)) =
        (case.routing(), case.writes(), &case.observed.split)
    else {
        return Ok(());
    };
    for version in &after.versions {
        let (from, to) = (
            weight(&before.split, &version.revision),
            weight(after, &version.revision),
        );
        if to <= from || is_taken_back(case, &version.revision) {
            continue;
        }
        let to = i32::try_from(to).unwrap();
        let needed = pods_for(case, routing, version.name == CANARY, to);
        let available = case.available(&version.revision);
        ensure(available >= needed, || {
            format!(
                "{} gets {to} with {available} of {needed} pods",
                version.revision
            )
        })?;
    }
    Ok(())
}

/// Pods that a version's weight needs.
fn pods_for(case: &Case<'_>, routing: &Routing, is_canary: bool, weight: i32) -> i32 {
    let (all, whole) = (case.replicas(), routing.whole);
    if !is_canary {
        return case.enough(down(all, weight, whole));
    }
    let by_weight = up(all, weight, whole);
    let by_scale = case
        .canary_scale(whole)
        .filter(|_| weight == case.asked(whole));
    case.enough(by_scale.unwrap_or(by_weight).min(by_weight).max(1))
}

/// Stable takes everything back at once: an abort, a way back, another revision, a canary that is gone.
fn is_taken_back(case: &Case<'_>, hash: &str) -> bool {
    let new = case.wanted();
    let before = case.observed.split.as_ref();
    let has_some = before.is_some_and(|before| weight(&before.split, new) > 0);
    let goes_on =
        !case.decision.status.abort && !case.was_promoted() && case.available(new) > 0 && has_some;
    let is_stable = case.was.stable.as_deref() == Some(hash);
    let has_canary = case.canary_scale(1_000) != Some(0) && case.replicas() > 0;
    is_stable && !(goes_on && has_canary)
}

/// R8.1 d: a canary with no available pod has no weight.
fn nothing_ready_gets_nothing(case: &Case<'_>) -> Verdict {
    if case.routing().is_none() || !case.got_to_traffic() {
        return Ok(());
    }
    let split = case.split();
    let canary =
        split.and_then(|split| split.versions.iter().find(|version| version.name == CANARY));
    let Some((split, canary)) = split.zip(canary) else {
        return Ok(());
    };
    let weight = weight(split, &canary.revision);
    ensure(weight == 0 || case.available(&canary.revision) > 0, || {
        format!("{} has {weight} and no pod", canary.revision)
    })
}

/// R8.4: with sizes that follow the weights stable gets back what it has pods for, unless nobody else has any, or an analysis of
/// theirs has failed.
fn stable_takes_back_what_it_carries(case: &Case<'_>) -> Verdict {
    let routing = case.routing().filter(|routing| routing.dynamic);
    let written = case.observed.split.as_ref().map(|written| &written.split);
    let (Some(routing), Some(after), Some(before)) = (routing, case.writes(), written) else {
        return Ok(());
    };
    let Some(stable) = case.was.stable.as_deref() else {
        return Ok(());
    };
    let (from, to) = (weight(before, stable), weight(after, stable));
    let mut others = before.versions.iter().map(|version| &version.revision);
    let could_stay = |hash: &String| {
        let has_some = hash != stable && weight(before, hash) > 0;
        has_some && case.available(hash) > 0 && !has_failed(case, hash)
    };
    if to <= from || case.replicas() == 0 || !others.any(could_stay) {
        return Ok(());
    }
    let to = i32::try_from(to).unwrap();
    let needed = case.enough(up(case.replicas(), to, routing.whole));
    let available = case.available(stable);
    ensure(available >= needed, || {
        format!("stable gets {to} with {available} of {needed} pods")
    })
}

fn has_failed(case: &Case<'_>, hash: &str) -> bool {
    let mut runs = case.observed.runs.iter();
    runs.any(|run| run.hash == hash && run.phase == RunPhase::Failed)
}

/// R11.2: once it is known to be aborted, nothing is sent to any revision but stable, and nobody is waited for.
fn an_abort_takes_all_traffic_back(case: &Case<'_>) -> Verdict {
    let status = &case.decision.status;
    let (known, was_known) = (status.aborted_at.is_some(), case.was.aborted_at.is_some());
    let aborted = status.abort && case.was.abort && case.was.stable.is_some();
    let dealt_with = aborted && known && (!was_known || case.got_to_traffic());
    let (Some(routing), Some(split), true) = (case.routing(), case.split(), dealt_with) else {
        return Ok(());
    };
    let before = case.observed.split.as_ref();
    for version in &split.versions {
        let is_stable = Some(&version.revision) == case.was.stable.as_ref();
        let weight = weight(split, &version.revision);
        let most = before.map_or(0, |before| self::weight(&before.split, &version.revision));
        let most = if routing.dynamic { most } else { 0 }; // R8.4: as stable grows
        ensure(is_stable || weight <= most, || {
            format!("aborted, and {} still has {weight}", version.revision)
        })?;
    }
    Ok(())
}

/// The same arguments give the same answer.
fn the_same_again_is_the_same(case: &Case<'_>) -> Verdict {
    ensure(case.decision == case.again, || {
        format!("{:#?}\nand then\n{:#?}", case.decision, case.again)
    })
}

/// What is written to a status, and to the memory beside it, is read back as it was written.
fn status_round_trips(case: &Case<'_>) -> Verdict {
    match case.is_still && case.decision.memory == case.was.memory {
        true => Ok(()),
        false => round_trips(case.was, case.decision),
    }
}

/// The model of the API server relies on it, and keeps what is written as it is; so what stood there before has been read before.
pub(super) fn round_trips(was: &State, decision: &Decision) -> Verdict {
    let mut status = decision.status.clone();
    status
        .conditions
        .retain(|condition| !was.conditions.contains(condition));
    let read: RolloutStatus = read_back(&status)?;
    let memory: Memory = match decision.memory == was.memory {
        true => was.memory.clone(),
        false => read_back(&decision.memory)?,
    };
    let again = State::from_status(&read, &memory).status();
    ensure(read == again, || format!("{read:#?}\nbecomes {again:#?}"))
}

/// What becomes of a value in JSON; it must be the same.
fn read_back<T: PartialEq + fmt::Debug + Serialize + DeserializeOwned>(
    value: &T,
) -> Result<T, String> {
    let text = serde_json::to_vec(value).map_err(|error| error.to_string())?;
    let read = serde_json::from_slice(&text).map_err(|error| error.to_string())?;
    ensure(*value == read, || format!("{value:#?}\nbecomes {read:#?}"))?;
    Ok(read)
}

/// A decision that leaves something undone and writes nothing names what it waits for, and when it looks again, unless it is a person.
fn waiting_is_named(case: &Case<'_>) -> Verdict {
    if !case.is_still || !is_unfinished(case) {
        return Ok(());
    }
    let waiting = case.decision.memory.waiting.as_ref();
    let named = waiting.is_some_and(|waiting| !waiting.message.is_empty());
    ensure(named, || {
        format!("{} and nothing is waited for", told(case))
    })?;
    let person = waiting.is_some_and(|waiting| waiting.reason == "person");
    ensure(person || case.decision.again.is_some(), || {
        format!("{} and it never looks again", told(case))
    })
}

/// A decision that changes nothing does not ask to be made again at a time that is past: it would be, for ever. One that ends at this
/// very moment is over a moment later.
fn a_still_look_is_not_hot(case: &Case<'_>) -> Verdict {
    let changes = !case.is_still || case.decision.memory != case.was.memory;
    let again = case.decision.again;
    ensure(
        changes || again.is_none_or(|again| again >= case.now),
        || format!("{}, and again at {again:?}", told(case)),
    )
}

fn told(case: &Case<'_>) -> String {
    let status = &case.decision.status;
    format!("{:?} {:?}", status.phase, status.message)
}

/// An update that goes on, or old pods that are still to go.
fn is_unfinished(case: &Case<'_>) -> bool {
    let status = &case.decision.status;
    let aborted = status.abort;
    let kept = [
        case.was.stable.as_deref(),
        Some(case.wanted()).filter(|_| !aborted),
    ];
    let never = aborted && case.plan.delays().abort == AbortDelay::Never;
    let mut sets = case.observed.revisions.iter();
    let leaving = sets.any(|set| {
        let stays = kept.contains(&Some(set.hash.as_str())) || (never && set.hash == case.wanted());
        !stays && set.wanted > 0
    });
    let phase = status.phase.as_deref();
    leaving
        || matches!(phase, Some("Progressing" | "Paused"))
        || (phase == Some("Degraded") && !aborted)
}

/// A phase that needs somebody says why.
fn trouble_has_a_reason(case: &Case<'_>) -> Verdict {
    let status = &case.decision.status;
    let phase = status.phase.as_deref().unwrap_or_default();
    let silent = status.message.as_deref().is_none_or(str::is_empty);
    ensure(phase == "Healthy" || phase.is_empty() || !silent, || {
        format!("{phase} without a word")
    })
}

/// Healthy is said only where the revision that the spec asks for is stable, has its pods, and has all traffic.
fn healthy_is_true(case: &Case<'_>) -> Verdict {
    let status = &case.decision.status;
    let spoken = status.observed_generation == Some(case.observed.rollout.generation.to_string());
    // A turn that makes the ReplicaSet repeats what was said before, as in Argo. Only a workload's template changes without a new
    // generation (seed 10895).
    let creates = |action: &Action| matches!(action, Action::CreateReplicaSet(_));
    let repeats =
        case.was.status().phase == status.phase && case.decision.actions.iter().any(creates);
    if status.phase.as_deref() != Some("Healthy") || !spoken || repeats {
        return Ok(());
    }
    let (new, replicas) = (case.wanted(), case.replicas());
    let stable = status.stable_rs.as_deref();
    ensure(stable == Some(new), || {
        format!("stable is {stable:?}, not {new}")
    })?;
    let counts = (status.updated_replicas, status.available_replicas);
    ensure(counts.0 >= replicas && counts.1 >= replicas, || {
        format!("{counts:?} of {replicas}")
    })?;
    ensure(switches::leads_to(case, new), || {
        "active leads elsewhere".to_owned()
    })?;
    let Some((split, _)) = case.split().zip(case.plan.routing()) else {
        return Ok(());
    };
    let mut others = split
        .versions
        .iter()
        .filter(|version| version.revision != new);
    let other = others.find(|version| weight(split, &version.revision) > 0);
    ensure(other.is_none() || replicas == 0, || {
        format!("{other:?} still has traffic")
    })
}

/// R7.1, R7.4: without routing an update has no more pods than the surge allows.
fn surge_is_kept(case: &Case<'_>) -> Verdict {
    if !case.is_basic() {
        return Ok(());
    }
    let (surge, _) = slack(case);
    let before: i32 = case.observed.revisions.iter().map(|set| set.wanted).sum();
    let after: i32 = case.sizes().values().sum();
    let most = case.replicas() + surge;
    ensure(after <= most.max(before), || {
        format!("{before} pods become {after}, above {most}")
    })
}

/// R7.1, R7.4: without routing scaling leaves as many pods available as may not be missing.
fn enough_stay_available(case: &Case<'_>) -> Verdict {
    if !case.is_basic() {
        return Ok(());
    }
    let (_, unavailable) = slack(case);
    let sizes = case.sizes();
    let sets = || case.observed.revisions.iter();
    let size = |set: &Revision| sizes.get(set.name.as_str()).copied().unwrap_or(0);
    let before: i32 = sets().map(|set| set.available.min(set.wanted)).sum();
    let after: i32 = sets().map(|set| set.available.min(size(set))).sum();
    let least = case.replicas() - unavailable;
    ensure(after >= least.min(before), || {
        format!("{before} available pods become {after}, below {least}")
    })
}

/// R7.1 by itself: surge up, unavailable down, one of the two at least.
fn slack(case: &Case<'_>) -> (i32, i32) {
    let slack = case.plan.slack(case.replicas());
    (slack.surge, slack.unavailable)
}

/// R21.1: with the evicted pods gone there are as many available ones as are wanted, but for those that may be missing.
fn evictions_leave_enough(case: &Case<'_>) -> Verdict {
    let evictions = case.decision.actions.iter();
    let evictions = evictions.filter(|action| matches!(action, Action::EvictPod { .. }));
    let count = i32::try_from(evictions.count()).unwrap();
    if count == 0 {
        return Ok(());
    }
    let sum = |of: fn(&Revision) -> i32| case.observed.revisions.iter().map(of).sum::<i32>();
    let least = case.replicas().max(sum(|set| set.wanted)) - slack(case).1.max(1);
    let left = sum(|set| set.available) - count;
    ensure(left >= least, || format!("{left} of {least} pods are left"))
}

/// A scaling says what it starts from, and changes it.
fn scaling_starts_from_what_is(case: &Case<'_>) -> Verdict {
    for action in &case.decision.actions {
        if let Action::ScaleReplicaSet { name, from, to, .. } = action {
            let set = case.observed.revisions.iter().find(|set| set.name == *name);
            let wanted = set.map(|set| set.wanted);
            ensure(wanted == Some(*from) && from != to && *to >= 0, || {
                format!("{name} from {from} to {to}, and it has {wanted:?}")
            })?;
        }
    }
    Ok(())
}

/// R18.3: a Deployment is scaled down for the first revision only, and never below what the Rollout's ready pods leave missing.
fn the_workload_makes_room(case: &Case<'_>) -> Verdict {
    let mut actions = case.decision.actions.iter();
    let scaled = actions.find_map(|action| {
        let Action::ScaleWorkload { to, .. } = action else {
            return None;
        };
        Some(*to)
    });
    let Some(to) = scaled else { return Ok(()) };
    let workload = case.plan.workload.as_ref();
    let mode = workload.map_or(ScaleDown::Never, |workload| workload.scale_down);
    let mut numbers = case.observed.revisions.iter().filter_map(Revision::number);
    let is_first = numbers.all(|number| number == 1);
    let is_healthy = case.decision.status.phase.as_deref() == Some("Healthy");
    let ready: i32 = case.observed.revisions.iter().map(|set| set.ready).sum();
    let least = case.replicas() - ready;
    let allowed = match mode {
        ScaleDown::Never => false,
        ScaleDown::OnSuccess => is_healthy && to == 0,
        ScaleDown::Progressively => to >= least,
    };
    ensure(is_first && allowed, || {
        format!("{mode:?}: to {to} with {ready} ready")
    })
}
