//! The workload that a `workloadRef` names: its generation is noted for clients (R18.2), and a Deployment makes room for the Rollout's
//! first revision (R18.3).

use super::decision::Action;
use super::plan::ScaleDown;
use super::turn::Turn;
use crate::api::labels;

/// Notes the generation whose template is followed.
pub(super) fn note(turn: &mut Turn<'_>) {
    let Some(workload) = &turn.plan.workload else {
        turn.next.workload = None;
        return;
    };
    let generation = workload.generation.to_string();
    let annotations = &turn.observed.rollout.annotations;
    if annotations.get(labels::WORKLOAD_GENERATION) != Some(&generation) {
        turn.act(Action::NoteWorkload {
            generation: generation.clone(),
        });
    }
    turn.next.workload = Some(generation);
}

/// Scales the Deployment down while the first revision comes up, or when it is Healthy. A revision that follows never does.
pub(super) fn make_room(turn: &mut Turn<'_>) {
    let Some(workload) = turn.plan.workload.as_ref().filter(|_| turn.number == 1) else {
        return;
    };
    let Some(pods) = workload.replicas else {
        return; // no Deployment
    };
    let is_healthy = turn.next.phase.as_deref() == Some("Healthy");
    let to = match workload.scale_down {
        ScaleDown::Never => return,
        ScaleDown::OnSuccess | ScaleDown::Progressively if is_healthy => 0,
        ScaleDown::OnSuccess => return,
        ScaleDown::Progressively => (turn.replicas - turn.next.counts.ready).max(0),
    };
    // Pods of the Deployment come back only where they were taken away for the Rollout.
    let was_ours = turn.was.memory.workload_pods == Some(pods);
    if to < pods || (to > pods && was_ours) {
        turn.next.memory.workload_pods = Some(to);
        turn.act(Action::ScaleWorkload {
            name: workload.name.clone(),
            to,
        });
    }
}
