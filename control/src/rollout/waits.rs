//! What a rollout waits for when no file has named it: a rollout that is not Healthy always says what it waits for.

use super::state::PauseReason;
use super::turn::Turn;

/// Names it, where that is still to be done.
pub(super) fn name(turn: &mut Turn<'_>) {
    let phase = turn.next.phase.as_deref().unwrap_or_default();
    let what = match phase {
        "Healthy" => return,
        "Paused" if turn.plan.paused => "a person to resume, since spec.paused is set",
        "Paused" if turn.next.pause(&PauseReason::Inconclusive).is_some() => {
            "a person to judge an inconclusive analysis: promote or abort"
        }
        "Paused" => return turn.note("pause", "the next look at the pause".to_owned()),
        "Degraded" if turn.next.abort => "a retry, or another template",
        _ => {
            let message = turn.next.message.clone().unwrap_or_default();
            return turn.note("pods", message);
        }
    };
    turn.note("person", what.to_owned());
}
