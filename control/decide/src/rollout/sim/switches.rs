//! What must hold of a decision of blue-green: where the active Service and the active rule of the Split lead, and when that may change.

use super::rules::{Case, Rule, Verdict, ensure, goes_back};
use super::world::ACTIVE;
use crate::analysis::build::Role;
use crate::rollout::decision::Action;
use crate::rollout::observed::{RunPhase, Service};
use crate::rollout::plan::{BlueGreen, Promotion};
use crate::rollout::split::Split;
use crate::rollout::state::PauseReason;

/// Every rule of blue-green.
pub(super) const RULES: &[Rule] = &[
    ("an_abort_leads_back", an_abort_leads_back),
    ("a_switch_has_its_pods", a_switch_has_its_pods),
    ("a_switch_was_allowed", a_switch_was_allowed),
    ("active_keeps_its_pods", active_keeps_its_pods),
    ("active_leads_to_pods", active_leads_to_pods),
    (
        "the_preview_gets_nothing_of_active",
        the_preview_gets_nothing_of_active,
    ),
    (
        "what_becomes_stable_was_tried",
        what_becomes_stable_was_tried,
    ),
];

/// Where everybody is sent: by the selector of the active Service, and by the first rule of the Split.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lead<'a> {
    service: Option<&'a str>,
    split: Option<&'a str>,
}

impl<'a> Lead<'a> {
    /// As the decision found it.
    fn before(case: &Case<'a>) -> Self {
        let mut services = case.observed.services.iter();
        let service = services.find(|service| service.name == ACTIVE);
        let split = case.observed.split.as_ref();
        Self {
            service: service.and_then(Service::hash),
            split: split.and_then(|written| led(&written.split)),
        }
    }

    /// As the decision leaves it.
    fn after(case: &'a Case<'a>) -> Self {
        let before = Self::before(case);
        let mut actions = case.decision.actions.iter().rev();
        let switched = actions.find_map(|action| {
            let Action::SwitchService { name, hash } = action else {
                return None;
            };
            (name == ACTIVE).then_some(hash.as_str())
        });
        Self {
            service: switched.or(before.service),
            split: case.split().and_then(led),
        }
    }

    fn all(self) -> [Option<&'a str>; 2] {
        [self.service, self.split]
    }
}

/// The revision that gets everything.
fn led(split: &Split) -> Option<&str> {
    let (name, _) = split
        .rules
        .first()?
        .weights
        .iter()
        .find(|(_, weight)| **weight > 0)?;
    let mut versions = split.versions.iter();
    let version = versions.find(|version| version.name == *name)?;
    Some(&version.revision)
}

/// Active leads to a revision, by Service and by Split, or there is no active.
pub(super) fn leads_to(case: &Case<'_>, hash: &str) -> bool {
    case.plan.blue_green().is_none() || Lead::after(case).service == Some(hash)
}

/// The stable revision, where the spec asks for another.
fn old<'a>(case: &Case<'a>) -> Option<&'a str> {
    let stable = case.was.stable.as_deref();
    stable.filter(|stable| *stable != case.wanted())
}

/// R11.2, R14.7: once it is known to be aborted active goes nowhere but back, and at rest it is back if stable has a pod.
fn an_abort_leads_back(case: &Case<'_>) -> Verdict {
    let known = case.was.abort && case.was.aborted_at.is_some() && !case.was.promote_full;
    let (Some(_), Some(stable), true) = (case.plan.blue_green(), old(case), known) else {
        return Ok(());
    };
    let (before, after) = (Lead::before(case), Lead::after(case));
    for (from, to) in before.all().into_iter().zip(after.all()) {
        let is_back = to.is_none_or(|to| to == stable);
        let rests = case.is_still && case.available(stable) > 0;
        ensure(is_back || (from == to && !rests), || {
            format!("aborted, and active leads from {from:?} to {to:?}")
        })?;
    }
    Ok(())
}

/// R14.5: active goes on to a revision with all of its pods, and back to one with any, unless the one that is left has none either.
fn a_switch_has_its_pods(case: &Case<'_>) -> Verdict {
    if case.plan.blue_green().is_none() || case.replicas() == 0 {
        return Ok(());
    }
    let (before, after) = (Lead::before(case), Lead::after(case));
    let begins = before.split.is_none() && after.split == old(case); // a Split for the preview: active has what it had
    for (from, to) in before.all().into_iter().zip(after.all()) {
        let Some(to) = to.filter(|to| from != Some(to) && !begins) else {
            continue;
        };
        let is_stable = case.was.stable.as_deref() == Some(to);
        let is_back = is_stable && (from.is_some() || old(case).is_some());
        let has_none = from.is_none_or(|from| case.available(from) == 0);
        let least = match is_back {
            true if has_none => 0,
            true => 1,
            false => case.replicas(),
        };
        let available = case.available(to);
        ensure(available >= least, || {
            format!("from {from:?} to {to} with {available} of {least} pods")
        })?;
    }
    Ok(())
}

/// R14.3 to R14.5: active goes on, and the gate opens, only when the analysis before it was good and the pause is over: in time, or by
/// a person. A full promotion, a way back and a Service that leads nowhere have no gate.
fn a_switch_was_allowed(case: &Case<'_>) -> Verdict {
    let (Some(strategy), Some(_)) = (case.plan.blue_green(), old(case)) else {
        return Ok(());
    };
    let (before, new) = (Lead::before(case).service, case.wanted());
    let goes_on = before != Some(new) && Lead::after(case).service == Some(new);
    let latches = latches(case) && before != Some(new);
    let free = before.is_none()
        || case.was.promote_full
        || goes_back(case)
        || case.was.memory.proven.contains(new);
    if (!goes_on && !latches) || free || case.replicas() == 0 {
        return Ok(());
    }
    ensure(!goes_on || !case.plan.paused, || {
        "spec.paused is set".to_owned()
    })?;
    let before = strategy.before.is_none() || is_good(case, Role::PrePromotion);
    ensure(before, || "no good analysis".to_owned())?;
    ensure(case.consent || is_pause_over(case, strategy), || {
        format!("{:?}: {:?}", strategy.promotion, case.was.pauses)
    })
}

/// The gate opens in this decision, with all that it asks for: the rule has been checked.
pub(super) fn opens(case: &Case<'_>) -> bool {
    latches(case) && case.replicas() > 0
}

fn latches(case: &Case<'_>) -> bool {
    let latched = case.decision.status.blue_green.scale_up_preview_check_point;
    latched && !case.was.blue_green.scale_up_preview_check_point
}

fn is_pause_over(case: &Case<'_>, strategy: &BlueGreen) -> bool {
    let pause = case.was.pause(&PauseReason::BlueGreen);
    match strategy.promotion {
        Promotion::AtOnce => true,
        Promotion::After(seconds) => pause.is_some_and(|pause| {
            let waited = case.now.duration_since(pause.since);
            waited.as_secs() >= seconds
        }),
        Promotion::ByPerson => false,
    }
}

/// A run of this kind was good for the revision that the spec asks for.
fn is_good(case: &Case<'_>, role: Role) -> bool {
    let mut runs = case.observed.runs.iter();
    runs.any(|run| {
        run.role == Some(role) && run.hash == case.wanted() && run.phase == RunPhase::Successful
    })
}

/// What active leads to keeps its pods, before and after a switch.
fn active_keeps_its_pods(case: &Case<'_>) -> Verdict {
    if case.plan.blue_green().is_none() {
        return Ok(());
    }
    let sizes = case.sizes();
    let (before, after) = (Lead::before(case), Lead::after(case));
    for hash in before.all().into_iter().chain(after.all()).flatten() {
        let Some(set) = case.set(hash) else { continue };
        let size = sizes.get(set.name.as_str()).copied().unwrap_or(0);
        let least = case.replicas().min(set.available).min(set.wanted);
        ensure(size >= least, || {
            format!("{} to {size}, below {least}", set.name)
        })?;
    }
    Ok(())
}

/// At rest active does not lead to a revision without pods while stable has some.
fn active_leads_to_pods(case: &Case<'_>) -> Verdict {
    let Some(stable) = old(case).filter(|_| case.plan.blue_green().is_some()) else {
        return Ok(());
    };
    let halted = case.plan.paused || case.was.pause(&PauseReason::Inconclusive).is_some();
    if !case.is_still || halted || case.replicas() == 0 || case.available(stable) == 0 {
        return Ok(());
    }
    let mut led = Lead::after(case).all().into_iter().flatten();
    let dead = led.find(|hash| case.available(hash) == 0);
    ensure(dead.is_none(), || {
        format!("active leads to {dead:?}, and {stable} has pods")
    })
}

/// The active rule of a Split gives everything to one version, which is not the tried one before the Service leads there, and has no
/// Service in common with the preview's rule.
fn the_preview_gets_nothing_of_active(case: &Case<'_>) -> Verdict {
    let (Some(strategy), Some(split)) = (case.plan.blue_green(), case.writes()) else {
        return Ok(());
    };
    let Some(rule) = split.rules.first() else {
        return Ok(());
    };
    let weighted = rule.weights.values().filter(|weight| **weight > 0).count();
    let preview = strategy.preview_service.as_ref();
    let shares = preview.is_some_and(|preview| rule.services.contains(preview));
    let goes_on = led(split) != Lead::before(case).split;
    let tried = goes_on && old(case).is_some() && led(split) == Some(case.wanted());
    let is_switched = Lead::after(case).service == Some(case.wanted());
    ensure(weighted == 1 && !shares && (!tried || is_switched), || {
        format!("{split:?}")
    })
}

/// R14.7: a revision becomes stable when active leads to it, proxies included, and the analysis after that was good.
fn what_becomes_stable_was_tried(case: &Case<'_>) -> Verdict {
    let new = case.wanted();
    let becomes = case.decision.status.stable_rs.as_deref() == Some(new);
    let (Some(strategy), Some(_), true) = (case.plan.blue_green(), old(case), becomes) else {
        return Ok(());
    };
    if case.replicas() == 0 {
        return Ok(());
    }
    let after = Lead::after(case);
    let served = strategy.routing.is_none()
        || (Lead::before(case).split == Some(new) && case.decision.memory.verified.is_some());
    ensure(after.service == Some(new) && served, || {
        format!("{after:?}")
    })?;
    let free = case.was.promote_full || goes_back(case) || case.was.memory.proven.contains(new);
    let good = strategy.after.is_none() || free || is_good(case, Role::PostPromotion);
    ensure(good, || "no good analysis".to_owned())
}
