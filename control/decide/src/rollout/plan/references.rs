//! What a Rollout refers to: Services that select its pods, and templates that fit together.

use std::collections::BTreeMap;

use super::invalid::Complaints;
use super::{Canary, References, Step, Strategy, pingpong, strategy};
use crate::analysis::build::{self, Role};
use crate::api::labels;
use crate::api::rollout::{Rollout, RolloutAnalysis};

pub(super) fn check(
    rollout: &Rollout,
    strategy: &Strategy,
    labels: &BTreeMap<String, String>,
    references: &References,
    complaints: &mut Complaints,
) {
    let own = rollout.metadata.name.as_deref().unwrap_or_default();
    for (field, service) in services(strategy) {
        let field = pingpong::field(rollout, service).unwrap_or(field);
        check_service(own, &field, service, labels, references, complaints);
    }
    for (field, role, analysis) in analyses(strategy) {
        if let Err(error) = build::check(analysis, role, &references.templates) {
            complaints.text(
                field,
                &error.subject(&analysis.templates),
                error.to_string(),
            );
        }
    }
    let (routing, field) = match strategy {
        Strategy::Canary(canary) => {
            let field = "spec.strategy.canary.trafficRouting".to_owned();
            (&canary.routing, field)
        }
        Strategy::BlueGreen(blue_green) => (&blue_green.routing, strategy::annotation_field()),
    };
    if routing.is_some() && references.split_taken {
        let detail = format!("Split {own:?} belongs to another owner");
        complaints.text(field, own, detail);
    }
}

fn services(strategy: &Strategy) -> Vec<(String, &String)> {
    let (named, routing, block) = match strategy {
        Strategy::Canary(canary) => (
            [
                ("canary.stableService", canary.stable_service.as_ref()),
                ("canary.canaryService", canary.canary_service.as_ref()),
            ],
            &canary.routing,
            "spec.strategy.canary.trafficRouting.services".to_owned(),
        ),
        Strategy::BlueGreen(blue_green) => (
            [
                ("blueGreen.activeService", Some(&blue_green.active_service)),
                (
                    "blueGreen.previewService",
                    blue_green.preview_service.as_ref(),
                ),
            ],
            &blue_green.routing,
            format!("{}.services", strategy::annotation_field()),
        ),
    };
    let named = named
        .into_iter()
        .filter_map(|(key, service)| Some((format!("spec.strategy.{key}"), service?)));
    let mut all: Vec<(String, &String)> = named.collect();
    for service in routing.iter().flat_map(|routing| &routing.services) {
        if all.iter().all(|(_, known)| *known != service) {
            all.push((block.clone(), service));
        }
    }
    all
}

fn check_service(
    own: &str,
    field: &str,
    name: &str,
    labels: &BTreeMap<String, String>,
    references: &References,
    complaints: &mut Complaints,
) {
    let Some(service) = references
        .services
        .iter()
        .find(|service| service.name == *name)
    else {
        return complaints.text(field, name, format!("service {name:?} not found"));
    };
    let mut selector = service.selector.iter();
    let odd = selector
        .find(|(key, value)| *key != labels::POD_TEMPLATE_HASH && labels.get(*key) != Some(value));
    if let Some((key, _)) = odd {
        complaints.text(
            field,
            name,
            format!("Service {name:?} has unmatch label {key:?} in rollout"),
        );
    }
    if service
        .managed_by
        .as_ref()
        .is_some_and(|owner| owner != own)
    {
        complaints.text(
            field,
            name,
            format!("Service {name:?} is managed by another Rollout"),
        );
    }
}

fn analyses(strategy: &Strategy) -> Vec<(String, Role, &RolloutAnalysis)> {
    match strategy {
        Strategy::Canary(canary) => canary_analyses(canary),
        Strategy::BlueGreen(blue_green) => {
            let all = [
                ("pre", Role::PrePromotion, &blue_green.before),
                ("post", Role::PostPromotion, &blue_green.after),
            ];
            let all = all.into_iter().filter_map(|(key, role, analysis)| {
                let field = format!("spec.strategy.blueGreen.{key}PromotionAnalysis.templates");
                Some((field, role, analysis.as_ref()?))
            });
            all.collect()
        }
    }
}

fn canary_analyses(canary: &Canary) -> Vec<(String, Role, &RolloutAnalysis)> {
    let steps = canary
        .steps
        .iter()
        .enumerate()
        .filter_map(|(index, step)| match step {
            Step::Analysis(analysis) => {
                let field = format!("spec.strategy.canary.steps[{index}].analysis.templates");
                Some((
                    field,
                    Role::Step(i32::try_from(index).ok()?),
                    analysis.as_ref(),
                ))
            }
            Step::SetWeight(_) | Step::SetCanaryScale(_) | Step::Pause(_) | Step::SetRoute(_) => {
                None
            }
        });
    let background = canary.background.as_ref().map(|background| {
        let field = "spec.strategy.canary.analysis.templates".to_owned();
        (field, Role::Background, &background.analysis)
    });
    steps.chain(background).collect()
}
