//! The selectors of Services: of the stable and the canary Service (R15), and how one is changed. With routing no request depends on them; previews and other clients do.

use super::decision::Action;
use super::observed::{Revision, Service};
use super::turn::Turn;
use super::{dynamic, release};

/// Points stable at stable, and canary at the new revision, or at stable after an abort: once, and there it stays.
pub(super) fn switch(turn: &mut Turn<'_>) {
    if let (Some(name), Some(stable)) = (turn.plan.stable_service(), turn.stable) {
        point(turn, name, stable, true);
    }
    if let Some(name) = turn.plan.new_service() {
        match turn.old_stable().filter(|_| turn.is_aborted()) {
            Some(_) if dynamic::leaving(turn).is_some() => {} // R8.1 c: it still gets requests
            Some(stable) => point(turn, name, stable, false),
            None => point(turn, name, turn.new, true),
        }
    }
}

fn point(turn: &mut Turn<'_>, name: &str, set: &Revision, checked: bool) {
    let Some(service) = turn
        .observed
        .services
        .iter()
        .find(|service| service.name == name && is_to_select(turn, service))
    else {
        return;
    };
    let ready = match service.managed_by {
        Some(_) => set.available > 0,
        None => set.wanted > 0 && set.available >= set.wanted,
    };
    let from = service.hash().unwrap_or_default();
    let empty = turn.replicas == 0; // nobody is kept waiting
    if from == set.hash || (checked && !ready && !empty) {
        return;
    }
    select(turn, name, from, set);
}

/// An apex is to have no selector; one that was an apex until routing was taken out waits for its owner to give it one.
pub(super) fn is_to_select(turn: &Turn<'_>, service: &Service) -> bool {
    let was_apex = release::is_under_way(turn) && service.selector.is_empty();
    !service.apex && !was_apex
}

/// Points a Service at a revision.
pub(super) fn select(turn: &mut Turn<'_>, name: &str, from: &str, set: &Revision) {
    let message = format!(
        "Switched selector for service '{name}' from '{from}' to '{}'",
        set.hash
    );
    turn.act(Action::SwitchService {
        name: name.to_owned(),
        hash: set.hash.clone(),
    });
    turn.report("SwitchService", message);
}
