//! Beginning anew, one step further, and all the way (R2.9, R12).

use super::conditions;
use super::plan::{CanaryScale, PauseFor, Step};
use super::turn::{Resume, Turn};
use super::{
    acknowledgement, arrival, duration, pause, phase, replicas, revision, rollback, runs, scale,
};

/// R12.1, R12.2: another template or other steps begin the steps anew. Returns whether they did.
pub(super) fn reset_if_changed(turn: &mut Turn<'_>) -> bool {
    let was = turn.was;
    let steps = was.step_hash.as_ref() != turn.plan.step_hash();
    let template = was
        .current
        .as_ref()
        .is_some_and(|hash| *hash != turn.new.hash);
    turn.next.step_hash = turn.plan.step_hash().cloned();
    let taken_over = was.step_hash.is_some() && revision::is_observed(was, turn.observed);
    if !template && (!steps || taken_over) {
        return false;
    }
    revision::sync(turn);
    reset(turn);
    true
}

fn reset(turn: &mut Turn<'_>) {
    turn.will.resume = Resume::All;
    turn.will.forgive = true;
    turn.analysed = true;
    turn.next.promote_full = false;
    turn.next.restarted_at = turn.plan.restart_at;
    turn.next.step_run = None;
    turn.next.background_run = None;
    turn.next.step = turn.last_index().map(|_| 0);
    duration::begin(turn);
    if turn.is_promoted() && turn.last_index().is_some() {
        skip_all(turn, "Rollback to stable ReplicaSets");
    } else if rollback::is_within_window(turn) {
        skip_all(
            turn,
            match turn.new.wanted {
                0 => "Rollback to ReplicaSets within RollbackWindow",
                _ => "Rollback to active ReplicaSets within RollbackWindow",
            },
        );
    } else if is_asleep(turn) {
        skip_all(turn, ASLEEP);
        promote(turn, ASLEEP);
    }
    close(turn);
    turn.look_again(turn.now);
}

/// An update of nothing: no pod is wanted and none is there, so that there is nothing to try. It is promoted in the turn that sees it:
/// where replicas are wanted a moment later, nothing may have been skipped for a revision that is not stable.
pub(super) fn is_asleep(turn: &Turn<'_>) -> bool {
    let mut sets = turn.observed.revisions.iter();
    let is_empty = turn.replicas == 0 && sets.all(|set| set.wanted == 0 && set.pods == 0);
    is_empty && turn.old_stable().is_some() && !turn.plan.paused && !turn.is_held()
}

/// Why it is.
pub(super) const ASLEEP: &str = "No replicas are wanted, and none are left";

fn skip_all(turn: &mut Turn<'_>, why: &str) {
    turn.tell("SkipSteps", why.to_owned());
    turn.next.step = turn.last_index();
}

/// Ends the turn: promotion, or an abort, or a step that is done; then what follows from it for the status (R3.6).
pub(super) fn advance(turn: &mut Turn<'_>) {
    if turn.next.promote_full && !turn.is_aborted() {
        turn.will.resume = Resume::All; // R11.1
        turn.next.step = turn.last_index();
    }
    if let Some(why) = reason(turn) {
        promote(turn, &why);
    } else if !turn.is_aborted() {
        complete_step(turn);
        rollback::abort_at_deadline(turn);
    }
    if turn.is_aborted() {
        turn.next.promote_full = false;
        turn.next.step = turn.last_index().map(|_| 0); // R11.2
    }
    close(turn);
}

/// Ends the turn of a rollout that is where it was: phase and conditions stay (control-plane rules, section 7).
pub(super) fn keep(turn: &mut Turn<'_>) {
    match turn.was.condition(conditions::INVALID_SPEC) {
        Some(_) => close(turn),
        None => pause::settle(turn),
    }
}

pub(super) fn close(turn: &mut Turn<'_>) {
    rollback::remember(turn);
    pause::settle(turn);
    duration::note(turn);
    conditions::judge(turn);
    let pending = arrival::pending(turn);
    let (phase, message) = phase::of(turn.plan, &turn.next, turn.replicas, pending);
    turn.next.phase = phase;
    turn.next.message = message;
}

/// Why the new revision is to be stable, if it is (R12.3).
fn reason(turn: &mut Turn<'_>) -> Option<String> {
    if turn.stable.is_none() {
        return Some("Initial deploy".to_owned());
    }
    if turn.is_held() {
        return None;
    }
    let available = turn.new.available >= replicas::enough(turn.replicas, turn.plan.threshold());
    let past = turn.next.promote_full || turn.is_past_steps();
    if turn.is_aborted() || (turn.plan.paused && !turn.is_promoted()) || !past {
        return None;
    }
    if !available {
        let message = format!(
            "{} available pods of ReplicaSet \"{}\"",
            turn.replicas, turn.new.name
        );
        turn.wait("pods", message, None);
        return None;
    }
    let routing = turn.routing().filter(|_| !turn.is_promoted());
    if routing.is_some_and(|routing| !acknowledgement::is_whole_and_verified(turn, routing)) {
        return None;
    }
    Some(why(turn))
}

fn why(turn: &Turn<'_>) -> String {
    if turn.next.promote_full {
        return "Full promotion requested".to_owned();
    }
    if rollback::is_within_window(turn) {
        return "Rollback within window".to_owned();
    }
    let count = turn.plan.steps().len();
    format!("Completed all {count} canary steps")
}

pub(super) fn promote(turn: &mut Turn<'_>, why: &str) {
    turn.will.resume = Resume::All;
    turn.will.pause = None;
    turn.will.forgive = true;
    turn.next.promote_full = false;
    turn.next.step = turn.last_index();
    let hash = turn.new.hash.clone();
    if turn.was.stable.as_ref() != Some(&hash) {
        let message = format!(
            "Rollout completed update to revision {} ({hash}): {why}",
            turn.number
        );
        turn.tell("RolloutCompleted", message);
        turn.next.stable = Some(hash);
        turn.look_again(turn.now);
    }
}

fn complete_step(turn: &mut Turn<'_>) {
    let (Some(step), Some(index)) = (turn.step(), turn.step_index()) else {
        return;
    };
    if turn.is_halted() || turn.scaling || !is_done(turn, step) {
        return;
    }
    let count = turn.plan.steps().len();
    let message = format!(
        "Rollout step {}/{count} completed ({})",
        index + 1,
        text(step)
    );
    turn.tell("RolloutStepCompleted", message);
    turn.next.step = Some(index + 1);
    turn.next.step_run = None;
    if turn.will.resume == Resume::Nothing {
        turn.will.resume = Resume::Step;
    }
    turn.look_again(turn.now);
}

/// R2.9.
fn is_done(turn: &mut Turn<'_>, step: &Step) -> bool {
    match step {
        Step::Pause(length) => pause::is_over(turn, length),
        Step::Analysis(_) => runs::step_succeeded(turn),
        Step::SetCanaryScale(_) => is_at(turn),
        Step::SetRoute(_) => is_served(turn),
        Step::SetWeight(weight) => is_at(turn) && carries(turn, *weight),
    }
}

/// Every proxy serves the Split as this turn wants it.
fn is_served(turn: &mut Turn<'_>) -> bool {
    if !turn.settled {
        let missing = acknowledgement::missing(turn);
        turn.wait("acknowledgement", missing, None);
    }
    turn.settled
}

fn is_at(turn: &mut Turn<'_>) -> bool {
    let sizes = scale::sizes(turn);
    let there = !turn.scaled && scale::is_at(turn, sizes);
    if !there {
        let name = &turn.new.name;
        match sizes.canary {
            0 => turn.wait_after(
                "pods",
                format!("ReplicaSet \"{name}\" to be without pods"),
                None,
            ),
            pods => turn.wait(
                "pods",
                format!("{pods} available pods of ReplicaSet \"{name}\""),
                None,
            ),
        }
    }
    there
}

/// With routing the weight has been set and every proxy has served it. A canary without pods gets none, whatever the step says; where
/// no replicas are wanted, stable has none to serve its share with.
fn carries(turn: &Turn<'_>, weight: i32) -> bool {
    let new = Some(&turn.new.hash);
    let canary = turn.next.weights.as_ref().map(|weights| &weights.canary);
    let recorded = canary
        .filter(|canary| canary.pod_template_hash.as_ref() == new)
        .map_or(0, |canary| canary.weight);
    let empty = scale::sizes(turn).canary == 0;
    turn.routing().is_none()
        || turn.replicas == 0
        || (acknowledgement::is_verified(turn) && (recorded == weight || empty))
}

/// The step as events print it.
fn text(step: &Step) -> String {
    match step {
        Step::SetWeight(weight) => format!("setWeight: {weight}"),
        Step::Pause(PauseFor::Person) => "pause".to_owned(),
        Step::Pause(PauseFor::Time { written, .. }) => format!("pause: {written}"),
        Step::Analysis(_) => "analysis".to_owned(),
        Step::SetRoute(route) => format!("{}: {}", route.kind, route.name),
        Step::SetCanaryScale(CanaryScale::Weight(weight)) => {
            format!("setCanaryScale{{weight: {weight}}}")
        }
        Step::SetCanaryScale(CanaryScale::Replicas(pods)) => {
            format!("setCanaryScale{{replicas: {pods}}}")
        }
        Step::SetCanaryScale(CanaryScale::MatchTrafficWeight) => {
            "setCanaryScale{matchTrafficWeight: true}".to_owned()
        }
    }
}
