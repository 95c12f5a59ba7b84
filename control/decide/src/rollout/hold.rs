//! Waiting for a router of others that carries the traffic (control-plane rules, section 7): nothing is switched and nothing shrinks
//! behind it. Stable follows `spec.replicas`, a new revision waits without pods, and everybody is told why.

use super::conditions::{self, Says};
use super::plan::Foreign;
use super::turn::Turn;
use super::{promotion, release};

/// Says in a condition what becomes of blocks of others, and tells it where that changes.
pub(super) fn declare(turn: &mut Turn<'_>) {
    let kind = conditions::FOREIGN_ROUTER;
    let (status, reason, message) = match &turn.plan.foreign {
        Foreign::None => {
            let conditions = &mut turn.next.conditions;
            return conditions.retain(|condition| condition.kind != kind);
        }
        Foreign::Translated(message) => ("False", "ForeignRouterTranslated", message),
        Foreign::Live(message) => ("True", "ForeignRouterLive", message),
    };
    let says = Says {
        kind,
        status,
        reason,
        message,
    };
    if conditions::set(&mut turn.next, &says, turn.now) {
        match status {
            "True" => turn.warn(reason, message.clone()),
            _ => turn.tell(reason, message.clone()),
        }
    }
}

/// Waits, if a router of others carries the traffic. Returns whether it does.
pub(super) fn wait(turn: &mut Turn<'_>) -> bool {
    let Foreign::Live(message) = &turn.plan.foreign else {
        return false;
    };
    turn.wait("router", message.clone(), None);
    follow_replicas(turn);
    match turn.is_promoted() {
        true => {
            release::give_back(turn, turn.stable);
            promotion::keep(turn);
        }
        false => promotion::advance(turn),
    }
    true
}

/// Where an update is under way stable only grows: how much of the traffic each side has is for the other router to know.
fn follow_replicas(turn: &mut Turn<'_>) {
    let (set, to) = match turn.stable {
        None => (turn.new, turn.replicas),
        Some(stable) if turn.is_promoted() => (stable, turn.replicas),
        Some(stable) => (stable, turn.replicas.max(stable.wanted)),
    };
    turn.scale(set, to, Vec::new());
}
