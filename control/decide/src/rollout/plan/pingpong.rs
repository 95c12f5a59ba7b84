//! Ping-pong: two Services that swap their roles under Argo, so that no selector moves while a load balancer still holds the old pods.
//!
//! Our proxies depend on no selector, and so the roles stay as they are found: the Service that the status calls stable is the stable
//! one, `pong` where it says nothing. They are then two plain Services.

use std::borrow::Cow;

use super::invalid::Complaints;
use crate::api::rollout::{PingPong, Rollout, RolloutSpec};

/// The spec with a plain stable and canary Service in place of ping and pong.
pub(super) fn plain<'a>(rollout: &'a Rollout, complaints: &mut Complaints) -> Cow<'a, RolloutSpec> {
    let canary = rollout.spec.strategy.canary.as_ref();
    let Some(services) = canary.and_then(|canary| canary.ping_pong.as_ref()) else {
        return Cow::Borrowed(&rollout.spec);
    };
    check(services, complaints);
    let mut spec = rollout.spec.clone();
    if let Some(canary) = &mut spec.strategy.canary {
        if canary.stable_service.is_some() || canary.canary_service.is_some() {
            complaints.not_implemented(
                "spec.strategy.canary.pingPong beside stableService or canaryService",
            );
        }
        let (stable, trial) = roles(rollout, services);
        canary.stable_service = Some(stable.clone());
        canary.canary_service = Some(trial.clone());
    }
    Cow::Owned(spec)
}

/// The stable Service and the other one.
fn roles<'a>(rollout: &Rollout, services: &'a PingPong) -> (&'a String, &'a String) {
    let status = rollout.status.as_ref();
    let stable = status.and_then(|status| status.canary.stable_ping_pong.as_deref());
    match stable {
        Some("ping") => (&services.ping_service, &services.pong_service),
        Some(_) | None => (&services.pong_service, &services.ping_service),
    }
}

/// The field that names a Service of a Rollout with ping-pong; none for any other.
pub(super) fn field(rollout: &Rollout, service: &str) -> Option<String> {
    let services = rollout.spec.strategy.canary.as_ref()?.ping_pong.as_ref()?;
    let key = match (
        services.ping_service == service,
        services.pong_service == service,
    ) {
        (true, _) => "pingService",
        (false, true) => "pongService",
        (false, false) => return None,
    };
    Some(format!("spec.strategy.canary.pingPong.{key}"))
}

fn check(services: &PingPong, complaints: &mut Complaints) {
    let field = "spec.strategy.pingPong";
    let named = [
        ("pingService", &services.ping_service),
        ("pongService", &services.pong_service),
    ];
    for (key, service) in named {
        if service.is_empty() {
            let detail = "Ping service and Pong service must to be set to use Ping-Pong feature";
            complaints.text(format!("{field}.{key}"), "", detail);
        }
    }
    if services.ping_service == services.pong_service && !services.ping_service.is_empty() {
        let detail = "This rollout uses the same service for the ping and pong services, but two different services are required.";
        complaints.text(
            format!("{field}.pingService"),
            &services.ping_service,
            detail,
        );
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_pair_is_complete_and_stands_alone() {
        let same = "spec.strategy.pingPong.pingService: Invalid value: \"a\": This rollout uses the same service for the ping and pong services, but two different services are required.";
        let missing = "spec.strategy.pingPong.pongService: Invalid value: \"\": Ping service and Pong service must to be set to use Ping-Pong feature";
        let beside = "spec.strategy.canary.pingPong beside stableService or canaryService: not supported by this version";
        for (canary, expected) in [
            (
                json!({"pingPong": {"pingService": "a", "pongService": "b"}}),
                vec![],
            ),
            (
                json!({"pingPong": {"pingService": "a", "pongService": "a"}}),
                vec![same],
            ),
            (json!({"pingPong": {"pingService": "a"}}), vec![missing]),
            (
                json!({"pingPong": {"pingService": "a", "pongService": "b"}, "stableService": "c"}),
                vec![beside],
            ),
        ] {
            let rollout = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {}, "spec": {"strategy": {"canary": canary}}});
            let rollout: Rollout = serde_json::from_value(rollout).unwrap();
            let mut complaints = Complaints::default();
            plain(&rollout, &mut complaints);
            let texts: Vec<String> = complaints.0.iter().map(ToString::to_string).collect();
            assert_eq!(texts, expected);
            assert_eq!(
                field(&rollout, "a").as_deref(),
                Some("spec.strategy.canary.pingPong.pingService")
            );
        }
    }
}
