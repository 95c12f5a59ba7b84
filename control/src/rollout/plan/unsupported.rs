//! What Argo does and this version does not. It is refused, never ignored.

use super::invalid::Complaints;
use super::routers;
use crate::api::rollout::{BlueGreenStrategy, CanaryStep, CanaryStrategy, Rollout, TrafficRouting};

pub(super) fn refuse(rollout: &Rollout, complaints: &mut Complaints) {
    let spec = &rollout.spec;
    let scale_down = spec
        .workload_ref
        .as_ref()
        .and_then(|workload| workload.scale_down.as_deref());
    let top = [(
        "spec.workloadRef.scaleDown",
        scale_down.is_some_and(|when| when != "never"),
    )];
    all(&top, complaints);
    if let Some(canary) = &spec.strategy.canary {
        refuse_canary(canary, complaints);
    }
    if let Some(blue_green) = &spec.strategy.blue_green {
        refuse_blue_green(blue_green, complaints);
    }
}

fn refuse_blue_green(blue_green: &BlueGreenStrategy, complaints: &mut Complaints) {
    let fields = [
        (
            "spec.strategy.blueGreen.antiAffinity",
            blue_green.anti_affinity.is_some(),
        ),
        (
            "spec.strategy.blueGreen.previewMetadata",
            blue_green.preview_metadata.is_some(),
        ),
        (
            "spec.strategy.blueGreen.activeMetadata",
            blue_green.active_metadata.is_some(),
        ),
    ];
    all(&fields, complaints);
}

fn all(fields: &[(&str, bool)], complaints: &mut Complaints) {
    for (field, used) in fields {
        if *used {
            complaints.not_implemented(*field);
        }
    }
}

fn refuse_canary(canary: &CanaryStrategy, complaints: &mut Complaints) {
    let fields = [
        (
            "spec.strategy.canary.antiAffinity",
            canary.anti_affinity.is_some(),
        ),
        (
            "spec.strategy.canary.canaryMetadata",
            canary.canary_metadata.is_some(),
        ),
        (
            "spec.strategy.canary.stableMetadata",
            canary.stable_metadata.is_some(),
        ),
    ];
    all(&fields, complaints);
    for (index, step) in canary.steps.iter().flatten().enumerate() {
        refuse_step(index, step, complaints);
    }
    if let Some(routing) = &canary.traffic_routing {
        refuse_routing(routing, complaints);
    }
}

fn refuse_step(index: usize, step: &CanaryStep, complaints: &mut Complaints) {
    let kinds = [
        ("experiment", step.experiment.is_some()),
        ("setHeaderRoute", step.set_header_route.is_some()),
        ("setMirrorRoute", step.set_mirror_route.is_some()),
        ("plugin", step.plugin.is_some()),
    ];
    for (kind, used) in kinds {
        if used {
            complaints.not_implemented(format!("spec.strategy.canary.steps[{index}].{kind}"));
        }
    }
}

fn refuse_routing(routing: &TrafficRouting, complaints: &mut Complaints) {
    let field = "spec.strategy.canary.trafficRouting";
    if routing
        .managed_routes
        .as_ref()
        .is_some_and(|routes| !routes.is_empty())
    {
        complaints.not_implemented(format!("{field}.managedRoutes"));
    }
    for router in routing.others.keys().filter(|key| !routers::is_known(key)) {
        complaints.not_implemented(format!("{field}.{router}"));
    }
}
