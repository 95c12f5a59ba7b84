//! What a revision's pods carry for the part they play: labels and annotations (R19), and a distance from stable's pods (R20).

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use super::invalid::Complaints;
use crate::api::labels;
use crate::api::rollout::{PodMetadata, RolloutSpec};

/// What a revision's pods carry for the part they play.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    /// The new revision's, until it is stable.
    pub new: Marks,
    /// The stable revision's.
    pub stable: Marks,
    /// How the new revision's pods keep away from nodes with stable ones.
    pub apart: Option<Apart>,
}

/// Labels and annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// How pods keep away from nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Apart {
    /// Always.
    Required,
    /// If possible, with this weight.
    Preferred(i64),
}

impl From<PodMetadata> for Marks {
    fn from(metadata: PodMetadata) -> Self {
        Self {
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
        }
    }
}

pub(super) fn parse(
    spec: &RolloutSpec,
    selector: Option<&LabelSelector>,
    complaints: &mut Complaints,
) -> Roles {
    let strategy = serde_json::to_value(&spec.strategy).unwrap_or_default();
    let (kind, block) = match strategy.get("canary") {
        Some(canary) => ("canary", canary),
        None => ("blueGreen", &strategy["blueGreen"]),
    };
    let [new, stable] = match kind {
        "canary" => ["canaryMetadata", "stableMetadata"],
        _ => ["previewMetadata", "activeMetadata"],
    };
    let mut marks = |key: &str| {
        let metadata = PodMetadata::deserialize(&block[key]).unwrap_or_default();
        let field = format!("spec.strategy.{kind}.{key}");
        check_labels(&field, &metadata, selector, complaints);
        Marks::from(metadata)
    };
    let (new, stable) = (marks(new), marks(stable));
    Roles {
        new,
        stable,
        apart: parse_affinity(block.get("antiAffinity"), complaints),
    }
}

/// A label that says whose pods they are must stay as it is.
fn check_labels(
    field: &str,
    metadata: &PodMetadata,
    selector: Option<&LabelSelector>,
    complaints: &mut Complaints,
) {
    let selector = selector.cloned().unwrap_or_default();
    let matched = selector.match_labels.unwrap_or_default();
    let expressions = selector.match_expressions.unwrap_or_default();
    for (key, value) in metadata.labels.iter().flatten() {
        let selects = matched.contains_key(key)
            || key == labels::POD_TEMPLATE_HASH
            || expressions.iter().any(|expression| expression.key == *key);
        if selects {
            let detail = "must not be a label that pods are selected by";
            complaints.text(format!("{field}.labels[{key}]"), value, detail);
        }
    }
}

fn parse_affinity(affinity: Option<&Value>, complaints: &mut Complaints) -> Option<Apart> {
    let affinity = affinity.filter(|affinity| !affinity.is_null())?;
    let preferred = affinity.get("preferredDuringSchedulingIgnoredDuringExecution");
    let required = affinity
        .get("requiredDuringSchedulingIgnoredDuringExecution")
        .is_some();
    if preferred.is_some() == required {
        let value = format!(
            "antiAffinity.PreferredDuringSchedulingIgnoredDuringExecution: {} antiAffinity.RequiredDuringSchedulingIgnoredDuringExecution: {required}",
            preferred.is_some()
        );
        complaints.text(
            "spec.strategy.antiAffinity",
            &value,
            "AntiAffinity must have exactly one strategy listed",
        );
    }
    let weight = preferred.map(|preferred| preferred["weight"].as_i64().unwrap_or(0));
    if let Some(weight) = weight.filter(|weight| !(1..=100).contains(weight)) {
        complaints.value(
            "spec.strategy.antiAffinity.weight",
            weight,
            "AntiAffinity weight must be between 1-100",
        );
    }
    Some(weight.map_or(Apart::Required, Apart::Preferred))
}
