//! What a rollout waits for when no file has named it: a rollout that is not Healthy always says what it waits for.

use super::state::PauseReason;
use super::turn::Turn;

/// Names it, where that is still to be done.
pub(super) fn name(turn: &mut Turn<'_>) {
    if turn.is_waiting() {
        return;
    }
    let phase = turn.next.phase.as_deref().unwrap_or_default();
    let what = match phase {
        "Healthy" => return name_leftovers(turn),
        "Paused" if turn.plan.paused => "a person to resume, since spec.paused is set",
        "Paused" if turn.next.pause(&PauseReason::Inconclusive).is_some() => {
            "a person to judge an inconclusive analysis: promote or abort"
        }
        "Paused" => return turn.note("pause", "the next look at the pause".to_owned()),
        "Degraded" if turn.next.abort => return name_after_abort(turn),
        _ => {
            let message = missing_pods(turn);
            return turn.wait("pods", message, None);
        }
    };
    turn.note("person", what.to_owned());
}

/// Old pods that may not go yet: too few others are available, or theirs are not counted yet.
fn name_leftovers(turn: &mut Turn<'_>) {
    if let Some(set) = turn.others.iter().find(|set| set.wanted > 0) {
        let message = format!("the pods of ReplicaSet \"{}\" to go", set.name);
        turn.wait_after("pods", message, None);
    }
}

/// Pods that may not go yet, because without routing too few others are available; else a person.
fn name_after_abort(turn: &mut Turn<'_>) {
    let mut leaving = turn.others.iter().copied().chain([turn.new]);
    if turn.routing().is_none() && turn.plan.canary().is_some() && leaving.any(|set| set.wanted > 0)
    {
        let stable = turn.stable.map_or("", |stable| &stable.name);
        let message = available(turn.replicas, stable);
        turn.wait_after("pods", message, None);
    }
    turn.note_after("person", "a retry, or another template".to_owned());
}

fn missing_pods(turn: &Turn<'_>) -> String {
    let counts = turn.next.counts;
    match counts.updated.min(counts.available) < turn.replicas {
        true => available(turn.replicas, &turn.new.name),
        false => outstanding(turn.next.message.as_deref().unwrap_or_default()),
    }
}

/// A status message as what is waited for: "waiting for all steps to complete" is a wait for "all steps to complete".
fn outstanding(message: &str) -> String {
    let what = message.strip_prefix("waiting for ").unwrap_or(message);
    what.replace(" cutover pending", " cutover")
        .replace(" are pending termination", " to be gone")
        .replace(" are still becoming ", " to become ")
        .replace(" need to be ", " to be ")
}

fn available(pods: i32, set: &str) -> String {
    format!("{pods} available pods of ReplicaSet \"{set}\"")
}
