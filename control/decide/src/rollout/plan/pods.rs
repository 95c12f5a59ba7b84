//! The pods a Rollout asks for: selector and template, its own or a workload's.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde_json::Value;

use super::invalid::Complaints;
use super::{References, Workload};
use crate::api::rollout::{Rollout, WorkloadRef};

/// Selector and template that fit each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Pods {
    pub(super) selector: LabelSelector,
    pub(super) template: Value,
    /// The template's labels.
    pub(super) labels: BTreeMap<String, String>,
}

pub(super) fn parse(
    rollout: &Rollout,
    references: &References,
    complaints: &mut Complaints,
) -> Option<Pods> {
    let spec = &rollout.spec;
    let mut own = (spec.selector.clone(), spec.template.clone());
    if let Some(reference) = &spec.workload_ref {
        own = resolve(reference, own, references, complaints)?;
    }
    let (selector, template) = own;
    let Some(selector) = selector else {
        complaints.required(
            "spec.selector",
            "Rollout has missing field '.spec.selector'",
        );
        return None;
    };
    let labels = labels(&template);
    if is_empty(&selector) {
        complaints.value(
            "spec.selector",
            "{}",
            "empty selector is invalid for deployment",
        );
    } else if !matches(&selector, &labels) {
        let labels = Value::from_iter(labels.clone());
        complaints.value(
            "spec.template.metadata.labels",
            labels,
            "'selector' does not match template 'labels'",
        );
    }
    check(&template, complaints);
    Some(Pods {
        selector,
        template,
        labels,
    })
}

/// R18.1: the workload's template, and its selector where the Rollout has none.
fn resolve(
    reference: &WorkloadRef,
    (selector, template): (Option<LabelSelector>, Value),
    references: &References,
    complaints: &mut Complaints,
) -> Option<(Option<LabelSelector>, Value)> {
    let field = "spec.workloadRef";
    let metadata = &template["metadata"];
    if [&metadata["labels"], &metadata["annotations"]]
        .iter()
        .any(|map| map.as_object().is_some_and(|map| !map.is_empty()))
    {
        complaints.bare(
            field,
            "template must be empty for workload reference rollout",
        );
        return None;
    }
    let kind = reference.kind.as_deref().unwrap_or_default();
    let version = reference.api_version.as_deref().unwrap_or_default();
    let group = version.split_once('/').map_or("", |(group, _)| group);
    if ![
        ("apps", "Deployment"),
        ("apps", "ReplicaSet"),
        ("", "PodTemplate"),
    ]
    .contains(&(group, kind))
    {
        complaints.bare(
            field,
            format!("workload of type {group}/{kind} is not supported"),
        );
        return None;
    }
    let scale_down = reference.scale_down.as_deref().unwrap_or_default();
    let known = ["never", "onsuccess", "progressively"];
    if !scale_down.is_empty() && !known.contains(&scale_down) {
        complaints.not_one_of("spec.workloadRef.scaleDown", scale_down, &known);
    }
    match &references.workload {
        Some(Workload::Found {
            template,
            selector: found,
            generation: _,
            replicas: _,
        }) => Some((selector.or_else(|| found.clone()), template.clone())),
        Some(Workload::Missing(why)) => {
            complaints.bare(field, why);
            None
        }
        None => {
            let name = reference.name.as_deref().unwrap_or_default();
            complaints.bare(field, format!("{kind} \"{name}\" not found"));
            None
        }
    }
}

fn labels(template: &Value) -> BTreeMap<String, String> {
    let entries = template["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten();
    entries
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn is_empty(selector: &LabelSelector) -> bool {
    selector
        .match_labels
        .as_ref()
        .is_none_or(BTreeMap::is_empty)
        && selector
            .match_expressions
            .as_ref()
            .is_none_or(Vec::is_empty)
}

fn matches(selector: &LabelSelector, labels: &BTreeMap<String, String>) -> bool {
    let mut wanted = selector.match_labels.iter().flatten();
    let mut requirements = selector.match_expressions.iter().flatten();
    wanted.all(|(key, value)| labels.get(key) == Some(value))
        && requirements.all(|requirement| meets(requirement, labels.get(&requirement.key)))
}

fn meets(requirement: &LabelSelectorRequirement, label: Option<&String>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let listed = label.is_some_and(|label| values.contains(label));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => label.is_some(),
        "DoesNotExist" => label.is_none(),
        _ => false,
    }
}

/// What the API server would refuse when the ReplicaSet is created, as far as people get it wrong.
fn check(template: &Value, complaints: &mut Complaints) {
    let spec = &template["spec"];
    let containers = spec["containers"].as_array().map_or(&[][..], Vec::as_slice);
    if containers.is_empty() {
        complaints.required("spec.template.spec.containers", "");
    }
    for (index, container) in containers.iter().enumerate() {
        for key in ["name", "image"] {
            if container[key].as_str().is_none_or(str::is_empty) {
                complaints.required(format!("spec.template.spec.containers[{index}].{key}"), "");
            }
        }
    }
    if let Some(policy) = spec["restartPolicy"]
        .as_str()
        .filter(|policy| *policy != "Always")
    {
        complaints.not_one_of("spec.template.spec.restartPolicy", policy, &["Always"]);
    }
}
