//! What objects that are well formed can still have wrong: a Rollout that the controller would call invalid, a Split that no proxy
//! would serve, a condition that does not parse.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sidestep_control::analysis::expr;
use sidestep_control::analysis::template::Templates;
use sidestep_control::api::{AnalysisTemplate, ClusterAnalysisTemplate, Rollout, Split, labels};
use sidestep_control::rollout::observed::Service;
use sidestep_control::rollout::plan::{Invalid, References, Workload, plan};
use sidestep_control::routing::split::complaints;

use super::{Fault, Object};

/// What is wrong with the meaning of these objects.
pub(super) fn faults(objects: &[Object]) -> Vec<Fault> {
    let one = |object| [conditions(object), split(object), rollout(object, objects)].concat();
    objects.iter().flat_map(one).collect()
}

/// What a proxy would say of a Split.
fn split(object: &Object) -> Vec<Fault> {
    let Some(split) = typed::<Split>(object).filter(|_| object.id.kind == "Split") else {
        return Vec::new();
    };
    let complaints = complaints(&split.spec);
    let fault = |complaint: &String| {
        let (field, _) = complaint.split_once(": ").unwrap_or_default();
        object.fault(field, complaint)
    };
    complaints.iter().map(fault).collect()
}

/// Conditions that do not parse. One that takes an argument is checked when the argument is known, by the analysis.
fn conditions(object: &Object) -> Vec<Fault> {
    let is_analysis = ["AnalysisTemplate", "ClusterAnalysisTemplate", "AnalysisRun"]
        .contains(&object.id.kind.as_str());
    let metrics = object
        .value
        .pointer("/spec/metrics")
        .and_then(Value::as_array)
        .filter(|_| is_analysis);
    let mut faults = Vec::new();
    for (index, metric) in metrics.into_iter().flatten().enumerate() {
        for field in ["successCondition", "failureCondition"] {
            let condition = metric
                .get(field)
                .and_then(Value::as_str)
                .unwrap_or_default();
            let takes_argument = condition.contains("{{");
            if let (false, false, Err(error)) =
                (condition.is_empty(), takes_argument, expr::parse(condition))
            {
                let path = format!("spec.metrics[{index}].{field}");
                faults.push(object.fault(&path, format!("{path}: {error}")));
            }
        }
    }
    faults
}

/// What the controller would say of a Rollout. What it refers to may come from elsewhere, so that is not asked for here.
fn rollout(object: &Object, objects: &[Object]) -> Vec<Fault> {
    let Some(rollout) = typed::<Rollout>(object).filter(|_| object.id.kind == "Rollout") else {
        return Vec::new();
    };
    let complaints = plan(&rollout, &references(&rollout, object, objects))
        .err()
        .unwrap_or_default();
    let own = complaints
        .iter()
        .filter(|complaint| !is_missing_reference(complaint));
    own.map(|complaint| {
        let path = path_in_yaml(&rollout, &complaint.field);
        object.fault(&path, complaint.to_string())
    })
    .collect()
}

fn is_missing_reference(complaint: &Invalid) -> bool {
    complaint.detail.ends_with(" not found")
}

/// Argo leaves out `canary` and `blueGreen` in some of its paths.
fn path_in_yaml(rollout: &Rollout, field: &str) -> String {
    let strategy = match rollout.spec.strategy.blue_green {
        Some(_) => "blueGreen",
        None => "canary",
    };
    match field.strip_prefix("spec.strategy.") {
        Some(rest) if !rest.starts_with("canary") && !rest.starts_with("blueGreen") => {
            format!("spec.strategy.{strategy}.{rest}")
        }
        Some(_) | None => field.to_owned(),
    }
}

/// What of the things a Rollout may refer to stands in the manifests.
fn references(rollout: &Rollout, object: &Object, objects: &[Object]) -> References {
    let nearby = |kind: &'static str| {
        objects
            .iter()
            .filter(move |other| other.id.kind == kind && other.id.namespace == object.id.namespace)
    };
    let templates = nearby("AnalysisTemplate").filter_map(|other| {
        Some((
            other.id.name.clone(),
            typed::<AnalysisTemplate>(other)?.spec,
        ))
    });
    let cluster = objects
        .iter()
        .filter(|other| other.id.kind == "ClusterAnalysisTemplate");
    let cluster = cluster.filter_map(|other| {
        Some((
            other.id.name.clone(),
            typed::<ClusterAnalysisTemplate>(other)?.spec.template,
        ))
    });
    References {
        services: nearby("Service").map(service).collect(),
        templates: Templates {
            namespaced: templates.collect(),
            cluster: cluster.collect(),
        },
        workload: rollout.spec.workload_ref.as_ref().map(|reference| {
            let is_meant = |other: &&Object| {
                Some(&other.id.kind) == reference.kind.as_ref()
                    && Some(&other.id.name) == reference.name.as_ref()
            };
            let same_namespace = objects
                .iter()
                .filter(|other| other.id.namespace == object.id.namespace);
            same_namespace
                .into_iter()
                .find(is_meant)
                .map_or_else(missing, found)
        }),
        live_routers: Vec::new(),
        serves_routes: false,
        split_taken: false,
    }
}

fn service(object: &Object) -> Service {
    let selector = object
        .value
        .pointer("/spec/selector")
        .and_then(|selector| BTreeMap::deserialize(selector).ok());
    let annotations: Option<BTreeMap<String, String>> = object
        .value
        .pointer("/metadata/annotations")
        .and_then(|all| BTreeMap::deserialize(all).ok());
    Service {
        name: object.id.name.clone(),
        selector: selector.unwrap_or_default(),
        managed_by: annotations.and_then(|mut all| all.remove(labels::MANAGED_BY)),
        apex: false,
    }
}

fn found(workload: &Object) -> Workload {
    let at = |pointer: &str| workload.value.pointer(pointer).cloned().unwrap_or_default();
    Workload::Found {
        template: at("/spec/template"),
        selector: serde_json::from_value(at("/spec/selector")).unwrap_or_default(),
        generation: 0,
        replicas: None,
    }
}

fn missing() -> Workload {
    Workload::Missing("the workload stands in no manifest: not found".to_owned())
}

fn typed<K: DeserializeOwned>(object: &Object) -> Option<K> {
    K::deserialize(&object.value).ok()
}
