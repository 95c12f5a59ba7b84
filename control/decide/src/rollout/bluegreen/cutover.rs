//! Which revision is active, and the selectors of the active and the preview Service (R14.1, R14.5, R14.6).

use super::super::observed::{Revision, Service};
use super::super::plan::BlueGreen;
use super::super::services;
use super::super::turn::Turn;
use super::{gate, size};

/// What the active Service is to lead to.
#[derive(Clone, Debug)]
pub(super) enum Active<'a> {
    /// This revision, from now on or still.
    Is(&'a Revision),
    /// Whatever it leads to, if anything.
    Stays,
}

impl Active<'_> {
    /// Whether the new revision is active.
    pub(super) fn is_new(&self, turn: &Turn<'_>) -> bool {
        match self {
            Self::Is(set) => set.uid == turn.new.uid,
            Self::Stays => turn.next.blue_green.active_selector.as_ref() == Some(&turn.new.hash),
        }
    }
}

/// Reads what the Services select now. An apex selects nothing: it leads where the proxies were last told to.
pub(super) fn read_selectors(turn: &mut Turn<'_>, strategy: &BlueGreen) {
    let hash = |service: &Service, was: &Option<String>| match service.apex {
        true => was.clone(),
        false => service.hash().map(str::to_owned),
    };
    let was = &turn.was.blue_green;
    let active = service(turn, &strategy.active_service);
    let active = active.and_then(|service| hash(service, &was.active_selector));
    let preview = strategy.preview_service.as_ref();
    let preview = preview.and_then(|name| service(turn, name));
    let preview = preview.and_then(|service| hash(service, &was.preview_selector));
    turn.next.blue_green.active_selector = active;
    turn.next.blue_green.preview_selector = preview;
}

fn service<'a>(turn: &Turn<'a>, name: &str) -> Option<&'a Service> {
    let mut services = turn.observed.services.iter();
    services.find(|service| service.name == name)
}

/// R14.1: the preview Service leads to the new revision from its beginning.
pub(super) fn show_preview(turn: &mut Turn<'_>, strategy: &BlueGreen) {
    let Some(name) = strategy
        .preview_service
        .as_ref()
        .filter(|_| !turn.is_halted())
    else {
        return;
    };
    let new = turn.new;
    if point(turn, name, new) {
        turn.next.blue_green.preview_selector = Some(new.hash.clone());
    }
}

/// Brings the active Service where it is to lead.
pub(super) fn switch(turn: &mut Turn<'_>, strategy: &BlueGreen, active: &Active<'_>) {
    if let Active::Is(set) = active
        && point(turn, &strategy.active_service, set)
    {
        turn.next.blue_green.active_selector = Some(set.hash.clone());
    }
}

/// Points a Service that exists at a revision. Returns whether it does point there then.
fn point(turn: &mut Turn<'_>, name: &str, set: &Revision) -> bool {
    let Some(service) = service(turn, name) else {
        return false;
    };
    let from = service.hash().unwrap_or_default();
    if from != set.hash && services::is_to_select(turn, service) {
        services::select(turn, name, from, set);
    }
    true
}

/// Where the active Service is to lead. It never leads to a revision that lacks pods for it; going back is not kept waiting by the
/// revision that is left.
pub(super) fn active<'a>(turn: &mut Turn<'a>, open: bool) -> Active<'a> {
    let Some(old) = turn.old_stable() else {
        return only(turn);
    };
    if turn.is_aborted() {
        return back(turn, old);
    }
    let at_new = turn.next.blue_green.active_selector.as_ref() == Some(&turn.new.hash);
    if at_new && !is_lost(turn, old) {
        return Active::Is(turn.new);
    }
    if open && size::is_whole(turn, turn.new) {
        return Active::Is(turn.new);
    }
    if open {
        size::wait_for_pods(turn, turn.replicas);
    }
    let first = turn.next.blue_green.active_selector.is_none() && gate::is_fast_tracked(turn);
    match first || turn.is_halted() {
        true => Active::Stays,
        false => back(turn, old),
    }
}

/// The new revision has lost all of its pods since the switch, and stable still has some.
fn is_lost(turn: &Turn<'_>, old: &Revision) -> bool {
    turn.replicas > 0 && turn.new.available == 0 && old.available > 0
}

/// There is one revision that counts. A Service that leads nowhere yet waits for all its pods, one that was led astray for any.
fn only<'a>(turn: &mut Turn<'a>) -> Active<'a> {
    let astray = turn.next.blue_green.active_selector.is_some();
    if size::is_whole(turn, turn.new) || (astray && turn.new.available > 0) {
        return Active::Is(turn.new);
    }
    if !turn.is_halted() {
        size::wait_for_pods(turn, turn.replicas);
    }
    Active::Stays
}

/// To stable, unless that would take the last pods that can answer.
fn back<'a>(turn: &mut Turn<'a>, old: &'a Revision) -> Active<'a> {
    let at_new = turn.next.blue_green.active_selector.as_ref() == Some(&turn.new.hash);
    if old.available > 0 || (at_new && turn.new.available == 0) || turn.replicas == 0 {
        return Active::Is(old);
    }
    if at_new {
        let message = format!("available pods of ReplicaSet \"{}\"", old.name);
        turn.wait("pods", message, None);
    }
    Active::Stays
}
