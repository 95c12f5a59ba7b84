//! The driver: one look at a rollout, in the order of R3.1 and R3.4; that of R3.5 is `bluegreen`'s.

use jiff::Timestamp;

use super::decision::{Action, Decision};
use super::observed::Observed;
use super::plan::{Plan, Strategy};
use super::state::State;
use super::turn::Turn;
use super::{
    affinity, bluegreen, conditions, history, hold, marks, pause, promotion, restart, revision,
    rollback, runs, scale, services, traffic, waits, workload,
};

/// Decides what a rollout does next.
///
/// The same arguments give the same answer. When the rollout is where its spec wants it, the answer has no actions and the status it
/// was given. Every other answer names in its memory what the rollout waits for.
#[must_use]
pub fn decide(plan: &Plan, state: &State, observed: &Observed, now: Timestamp) -> Decision {
    let Some(new) = revision::find(plan, state, observed) else {
        return revision::create(plan, state, observed, now);
    };
    let Some(replicas) = plan.replicas else {
        return fill_in_replicas(state);
    };
    let mut turn = Turn::new(plan, state, observed, now, replicas, new);
    take(&mut turn);
    turn.finish()
}

/// Autoscalers need a number to start from (R1.2).
fn fill_in_replicas(state: &State) -> Decision {
    Decision {
        actions: vec![Action::SetReplicas { replicas: 1 }],
        status: state.status(),
        memory: state.memory.clone(),
        ..Decision::default()
    }
}

fn take(turn: &mut Turn<'_>) {
    revision::adopt(turn);
    rollback::forgive_if_promoted(turn);
    rollback::settle_promotion(turn);
    if conditions::pause_or_resume(turn) {
        return;
    }
    match &turn.plan.strategy {
        Strategy::Canary(_) => canary(turn),
        Strategy::BlueGreen(strategy) => bluegreen::take(turn, strategy),
    }
}

/// R3.4.
fn canary(turn: &mut Turn<'_>) {
    if promotion::reset_if_changed(turn) {
        return;
    }
    hold::declare(turn);
    workload::note(turn);
    rollback::skip_steps(turn);
    revision::sync(turn);
    if hold::wait(turn) {
        return;
    }
    marks::reconcile(turn);
    affinity::reconcile(turn);
    runs::judge(turn);
    history::clean(turn);
    services::switch(turn);
    traffic::route(turn);
    if !turn.scaling {
        runs::follow(turn);
    }
    if turn.will.pause.is_none() {
        scale::reconcile(turn);
    }
    if !turn.scaled && !turn.scaling {
        pause::reconcile(turn);
    }
    restart::reconcile(turn);
    promotion::advance(turn);
    workload::make_room(turn);
    waits::name(turn);
}
