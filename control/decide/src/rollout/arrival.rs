//! Whether a promotion has arrived: requests and selectors are where the status says they are. Until then a rollout is not Healthy.

use super::observed::Service;
use super::plan::Strategy;
use super::turn::Turn;
use super::{bluegreen, traffic};

/// What of a promoted revision is still to arrive, as the status message says it; none when all of it has, or nothing is promoted.
pub(super) fn pending(turn: &Turn<'_>) -> Option<&'static str> {
    if !turn.next.is_promoted() {
        return None;
    }
    let (services, traffic) = match &turn.plan.strategy {
        Strategy::Canary(_) => (are_services_switched(turn), is_traffic_switched(turn)),
        // Nothing is promoted before its Service leads to it, and without one it is unfinished (R2.6).
        Strategy::BlueGreen(_) => (true, bluegreen::is_traffic_switched(turn)),
    };
    let traffic = traffic || was_all_stable(turn);
    match (services, traffic && !leads_elsewhere(turn)) {
        (true, true) => None,
        (true, false) => Some("traffic cutover pending"),
        (false, _) => Some("service cutover pending"),
    }
}

/// No proxy has ever been told to send requests elsewhere: the first Split of a rollout that was Healthy without one leads where its
/// Services led already. So it is when a rollout is taken over, and Healthy it stays.
fn was_all_stable(turn: &Turn<'_>) -> bool {
    let was_healthy = turn.was.phase.as_deref() == Some("Healthy") && turn.was.is_promoted();
    let written = turn.observed.split.as_ref();
    let is_first = written.is_none_or(|written| written.generation == 1);
    was_healthy && is_first && turn.was.stable == turn.next.stable
}

/// The Split as it stands sends requests to another revision: its write may not have been noted. Without a proxy none are sent.
fn leads_elsewhere(turn: &Turn<'_>) -> bool {
    let written = turn.observed.split.as_ref();
    let written = written.filter(|_| turn.replicas > 0);
    let stable = turn.next.stable.as_deref();
    let shares = written.map(|written| traffic::shares(&written.split));
    let mut led = shares.iter().flat_map(|shares| shares.keys());
    led.any(|hash| Some(*hash) != stable) && !turn.observed.fleet.proxies.is_empty()
}

/// The Services as they were read, not as they have been told to be.
fn are_services_switched(turn: &Turn<'_>) -> bool {
    let named = [turn.plan.stable_service(), turn.plan.new_service()];
    named.into_iter().flatten().all(|name| {
        let mut services = turn.observed.services.iter();
        let service = services.find(|service| service.name == *name);
        let is_apex = service.is_some_and(|service| service.apex);
        is_apex || service.and_then(Service::hash) == turn.next.stable.as_deref()
    })
}

/// Every proxy has served the weights of stable. Where there is no proxy none serves anything else; where no pod is wanted there is
/// nobody to serve them with.
fn is_traffic_switched(turn: &Turn<'_>) -> bool {
    let nobody = turn.observed.fleet.proxies.is_empty() || turn.replicas == 0;
    if turn.routing().is_none() || nobody {
        return true;
    }
    turn.next.weights.as_ref().is_some_and(|weights| {
        weights.stable.pod_template_hash == turn.next.stable && weights.verified == Some(true)
    })
}
