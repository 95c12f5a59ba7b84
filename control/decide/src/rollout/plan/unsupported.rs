//! What Argo does and this version does not. It is refused, never ignored.

use super::References;
use super::invalid::Complaints;
use super::routers;
use crate::api::rollout::{CanaryStep, CanaryStrategy, Rollout, TrafficRouting};

pub(super) fn refuse(rollout: &Rollout, references: &References, complaints: &mut Complaints) {
    if let Some(canary) = &rollout.spec.strategy.canary {
        refuse_canary(canary, references.serves_routes, complaints);
    }
}

fn refuse_canary(canary: &CanaryStrategy, serves_routes: bool, complaints: &mut Complaints) {
    for (index, step) in canary.steps.iter().flatten().enumerate() {
        refuse_step(index, step, serves_routes, complaints);
    }
    if let Some(routing) = &canary.traffic_routing {
        refuse_routing(routing, serves_routes, complaints);
    }
}

fn refuse_step(index: usize, step: &CanaryStep, serves_routes: bool, complaints: &mut Complaints) {
    let kinds = [
        ("experiment", step.experiment.is_some()),
        (
            "setHeaderRoute",
            !serves_routes && step.set_header_route.is_some(),
        ),
        (
            "setMirrorRoute",
            !serves_routes && step.set_mirror_route.is_some(),
        ),
        ("plugin", step.plugin.is_some()),
    ];
    for (kind, used) in kinds {
        if used {
            complaints.not_implemented(format!("spec.strategy.canary.steps[{index}].{kind}"));
        }
    }
}

fn refuse_routing(routing: &TrafficRouting, serves_routes: bool, complaints: &mut Complaints) {
    let field = "spec.strategy.canary.trafficRouting";
    let routes = routing.managed_routes.as_ref();
    if !serves_routes && routes.is_some_and(|routes| !routes.is_empty()) {
        complaints.not_implemented(format!("{field}.managedRoutes"));
    }
    for router in routing.others.keys().filter(|key| !routers::is_known(key)) {
        complaints.not_implemented(format!("{field}.{router}"));
    }
}
