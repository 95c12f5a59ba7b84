use super::super::kinds;
use super::definitions::{DEFINITIONS, FILES, Format, Type};
use super::*;
use crate::api::analysis::{AnalysisRunSpec, AnalysisTemplateSpec, ClusterAnalysisTemplateSpec};
use crate::api::experiment::ExperimentSpec;
use crate::api::rollout::RolloutSpec;
use crate::api::split::SplitSpec;
use crate::api::{
    AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate, Experiment, Rollout, Split,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

/// The complaints about a Rollout's, Split's, Service's, … fields, in words.
fn said(api_version: &str, kind: &str, object: &Value) -> Vec<String> {
    let row = kinds::named(api_version, kind).unwrap();
    check(row, object).iter().map(ToString::to_string).collect()
}

#[test]
fn every_kind_has_a_schema_and_every_reference_leads_somewhere() {
    for kind in kinds::ALL {
        assert!(DEFINITIONS.contains_key(kind.schema), "{kind:?}");
    }
    let mut open: Vec<&Schema> = DEFINITIONS.values().collect();
    while let Some(schema) = open.pop() {
        if let Some(name) = &schema.definition {
            assert!(DEFINITIONS.contains_key(name), "{name}");
        }
        let parts = [&schema.items, &schema.additional_properties];
        open.extend(parts.into_iter().flatten().map(AsRef::as_ref));
        open.extend(schema.properties.values());
    }
}

/// What the walk asks for, and what it may pass over: how lists are merged, and what an API server fills in.
const KEYWORDS: &[&str] = &[
    "$ref",
    "additionalProperties",
    "default",
    "enum",
    "format",
    "items",
    "maxProperties",
    "maximum",
    "minProperties",
    "minimum",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-map-type",
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
];

#[test]
fn no_schema_says_what_nobody_reads() {
    let mut open: Vec<Value> = Vec::new();
    for file in FILES {
        let definitions: Map<String, Value> = serde_json::from_str(file).unwrap();
        open.extend(definitions.into_iter().map(|(_, schema)| schema));
    }
    while let Some(schema) = open.pop() {
        for (keyword, value) in schema.as_object().unwrap() {
            assert!(KEYWORDS.contains(&keyword.as_str()), "{keyword}");
            match keyword.as_str() {
                "items" | "additionalProperties" => open.push(value.clone()),
                "properties" => open.extend(value.as_object().unwrap().values().cloned()),
                _ => {}
            }
        }
    }
}

#[test]
fn values_that_cannot_stand_where_they_do_are_named_in_an_api_servers_words() {
    let argo = "argoproj.io/v1alpha1";
    let split = "sidestep.dev/v1alpha1";
    for (api_version, kind, object, expected) in [
        (
            argo,
            "Rollout",
            json!({"spec": {"replicas": "many"}}),
            r#"spec.replicas: Invalid value: "string": spec.replicas in body must be of type integer: "string""#,
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"replicas": 1.5}}),
            r#"spec.replicas: Invalid value: "number": spec.replicas in body must be of type integer: "number""#,
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"replicas": 3_000_000_000_u32}}),
            "spec.replicas: Invalid value: 3000000000: spec.replicas in body should be less than or equal to 2147483647",
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"strategy": {"canary": {"steps": [{}, {"pause": {"duration": true}}]}}}}),
            r#"spec.strategy.canary.steps[1].pause.duration: Invalid value: "boolean": spec.strategy.canary.steps[1].pause.duration in body must be of type integer,string: "boolean""#,
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"strategy": {"canary": {"steps": {}}}}}),
            r#"spec.strategy.canary.steps: Invalid value: "object": spec.strategy.canary.steps in body must be of type array: "object""#,
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"strategy": {"blueGreen": {"activeService": null}}}}),
            "spec.strategy.blueGreen.activeService: Required value",
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"restartAt": "soon"}}),
            r#"spec.restartAt: Invalid value: "soon": spec.restartAt in body must be of type date-time: "soon""#,
        ),
        (argo, "Rollout", json!({}), "spec: Required value"),
        (
            argo,
            "AnalysisTemplate",
            json!({"spec": {"metrics": [{"name": "a", "provider": {"datadog": {"apiVersion": "v3"}}}]}}),
            r#"spec.metrics[0].provider.datadog.apiVersion: Unsupported value: "v3": supported values: "v1", "v2""#,
        ),
        (
            split,
            "Split",
            json!({"spec": {"rules": [{"services": ["web"], "weights": {"a": -1}}]}}),
            "spec.rules[0].weights.a: Invalid value: -1: spec.rules[0].weights.a in body should be greater than or equal to 0",
        ),
        (
            split,
            "Split",
            json!({"spec": {"fallback": "wait"}}),
            r#"spec.fallback: Unsupported value: "wait": supported values: "redistribute", "refuse""#,
        ),
        (
            split,
            "Split",
            json!({"spec": {"rules": [{"services": [], "weights": {}, "routes": [{"name": "r", "version": "a", "matches": [{"path": {}}]}]}]}}),
            "spec.rules[0].routes[0].matches[0].path: Invalid value: {}: spec.rules[0].routes[0].matches[0].path in body should have at least 1 properties",
        ),
        (
            "v1",
            "Secret",
            json!({"data": {"a/b": "?"}}),
            r#"data.a/b: Invalid value: "?": data.a/b in body must be of type byte: "?""#,
        ),
        (
            "v1",
            "Pod",
            json!({"spec": {"overhead": {"cpu": "lots"}}}),
            r#"spec.overhead.cpu: Invalid value: "lots": spec.overhead.cpu in body should match '^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$'"#,
        ),
    ] {
        assert_eq!(said(api_version, kind, &object), [expected], "{object}");
    }
}

#[test]
fn what_is_like_its_kind_is_not_complained_of() {
    let argo = "argoproj.io/v1alpha1";
    for (api_version, kind, object) in [
        // Quantities may be numbers, with a fraction too.
        (
            "v1",
            "Pod",
            json!({"spec": {"containers": [{"resources": {"limits": {"cpu": 0.5, "memory": 1, "x": "1.5Gi"}}}]}}),
        ),
        // What a Go type has a zero value for may be left out.
        (
            "v1",
            "Pod",
            json!({"spec": {}, "status": {"containerStatuses": [{"name": "a"}]}}),
        ),
        // null is absence.
        (
            "v1",
            "Service",
            json!({"metadata": {"creationTimestamp": null}, "spec": null}),
        ),
        (argo, "Rollout", json!({"spec": {"replicas": null}})),
        (
            argo,
            "Rollout",
            json!({"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {}}}]}, "spec": {}}),
        ),
        (
            argo,
            "Rollout",
            json!({"spec": {"strategy": {"canary": {"trafficRouting": {"plugins": {"a/b": {"c": [1]}}}}}}}),
        ),
        (
            argo,
            "AnalysisRun",
            json!({"spec": {"metrics": [{"name": "a", "provider": {"plugin": {"a/b": 1}}, "count": "{{args.n}}"}]}}),
        ),
    ] {
        assert_eq!(said(api_version, kind, &object), [""; 0], "{object}");
    }
}

#[test]
fn fields_of_blocks_that_our_types_keep_as_json_are_known_as_well() {
    let metric =
        |provider: Value| json!({"spec": {"metrics": [{"name": "a", "provider": provider}]}});
    let routed =
        |router: Value| json!({"spec": {"strategy": {"canary": {"trafficRouting": router}}}});
    for (kind, object, unknown) in [
        (
            "AnalysisTemplate",
            metric(json!({"prometheus": {"adress": "x"}})),
            "spec.metrics[0].provider.prometheus.adress",
        ),
        (
            "AnalysisTemplate",
            metric(json!({"promtheus": {}})),
            "spec.metrics[0].provider.promtheus",
        ),
        (
            "AnalysisTemplate",
            metric(json!({"job": {"spec": {"template": {"spec": {"containers": [], "x": 1}}}}})),
            "spec.metrics[0].provider.job.spec.template.spec.x",
        ),
        (
            "Rollout",
            routed(json!({"nginx": {"stabelIngress": "x"}})),
            "spec.strategy.canary.trafficRouting.nginx.stabelIngress",
        ),
        (
            "Rollout",
            json!({"spec": {"template": {"metadata": {"name": "x"}}}}),
            "spec.template.metadata.name",
        ),
    ] {
        let expected = [format!("unknown field \"{unknown}\"")];
        assert_eq!(
            said("argoproj.io/v1alpha1", kind, &object),
            expected,
            "{object}"
        );
    }
}

/// A value of everything that a schema knows.
fn sample(schema: &Schema) -> Value {
    if let Some(name) = &schema.definition {
        return sample(definition(name));
    }
    let words = schema.choices.first().cloned();
    match (schema.kind, schema.format) {
        (Some(Type::Array), _) => schema.items.iter().map(|item| sample(item)).collect(),
        (Some(Type::Boolean), _) => true.into(),
        (Some(Type::Integer | Type::Number), _) | (None, _) => 1.into(),
        (Some(Type::String), Some(Format::DateTime)) => "2026-11-21T15:00:00Z".into(),
        (Some(Type::String), _) => words.unwrap_or_else(|| "abcd".to_owned()).into(),
        (Some(Type::Object), _) => {
            let fields = schema
                .properties
                .iter()
                .map(|(key, field)| (key.clone(), sample(field)));
            let other = schema
                .additional_properties
                .iter()
                .map(|value| ("other".to_owned(), sample(value)));
            let most = schema.max_properties.unwrap_or(usize::MAX);
            fields.chain(other).take(most).collect()
        }
    }
}

/// Checks a wire type against its schema: what the schema knows the type keeps, and what the type writes the schema allows.
fn agrees<T: Serialize + DeserializeOwned>(kind: &Kind, least: &T) {
    let full = sample(definition(kind.schema));
    assert_eq!(check(kind, &full), [], "{kind:?}: {full}");
    let typed: T = serde_json::from_value(full.clone())
        .unwrap_or_else(|error| panic!("{kind:?}: {error}: {full}"));
    let back = serde_json::to_value(&typed).unwrap();
    let mut lost = lost(&full, &back, Place::Root);
    // What Argo notes of an ALB: no Rollout of ours is routed by one.
    lost.retain(|path| !path.starts_with("status.alb"));
    assert_eq!(lost, [""; 0], "{kind:?} forgets what its schema knows");
    assert_eq!(check(kind, &back), [], "{kind:?}");
    assert_eq!(
        check(kind, &serde_json::to_value(least).unwrap()),
        [],
        "{kind:?}"
    );
}

fn lost(before: &Value, after: &Value, at: Place<'_>) -> Vec<String> {
    if after.is_null() {
        return vec![at.path()];
    }
    match before {
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(key, value)| lost(value, &after[key], Place::Field(&at, key)))
            .collect(),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .flat_map(|(index, value)| lost(value, &after[index], Place::Item(&at, index)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[test]
fn our_types_agree_with_their_schemas() {
    agrees(&kinds::ROLLOUT, &Rollout::new("a", RolloutSpec::default()));
    agrees(
        &kinds::ANALYSIS_TEMPLATE,
        &AnalysisTemplate::new("a", AnalysisTemplateSpec::default()),
    );
    agrees(
        &kinds::CLUSTER_ANALYSIS_TEMPLATE,
        &ClusterAnalysisTemplate::new("a", ClusterAnalysisTemplateSpec::default()),
    );
    agrees(
        &kinds::ANALYSIS_RUN,
        &AnalysisRun::new("a", AnalysisRunSpec::default()),
    );
    agrees(
        &kinds::EXPERIMENT,
        &Experiment::new("a", ExperimentSpec::default()),
    );
    agrees(&kinds::SPLIT, &Split::new("a", SplitSpec::default()));
}
