//! A rollout's steps in words, as its events and messages name them.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sidestep_control::api::Rollout;
use sidestep_control::api::rollout::{CanaryStep, SetCanaryScale};

/// One line per step; none without steps.
pub(crate) fn words(rollout: &Rollout) -> Vec<String> {
    let canary = rollout.spec.strategy.canary.as_ref();
    let steps = canary
        .and_then(|canary| canary.steps.as_deref())
        .unwrap_or_default();
    steps.iter().map(step).collect()
}

fn step(step: &CanaryStep) -> String {
    if let Some(weight) = step.set_weight {
        return format!("setWeight: {weight}");
    }
    if let Some(pause) = &step.pause {
        return match &pause.duration {
            None => "pause".to_owned(),
            Some(IntOrString::Int(seconds)) => format!("pause: {seconds}s"),
            Some(IntOrString::String(text)) => format!("pause: {text}"),
        };
    }
    if let Some(scale) = &step.set_canary_scale {
        return canary_scale(scale);
    }
    let others = [
        ("analysis", step.analysis.is_some()),
        ("experiment", step.experiment.is_some()),
    ];
    let named = [
        ("setHeaderRoute", &step.set_header_route),
        ("setMirrorRoute", &step.set_mirror_route),
        ("plugin", &step.plugin),
    ];
    let other = others
        .into_iter()
        .find(|(_, is_set)| *is_set)
        .map(|(word, _)| word);
    let other = other.or_else(|| {
        named
            .into_iter()
            .find(|(_, block)| block.is_some())
            .map(|(word, _)| word)
    });
    other.unwrap_or("empty step").to_owned()
}

fn canary_scale(scale: &SetCanaryScale) -> String {
    match (scale.weight, scale.replicas) {
        (Some(weight), _) => format!("setCanaryScale: {weight} %"),
        (None, Some(replicas)) => format!("setCanaryScale: {replicas} pods"),
        (None, None) => "setCanaryScale: as the weight".to_owned(),
    }
}
