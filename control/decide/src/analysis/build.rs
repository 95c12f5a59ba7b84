//! The AnalysisRun that a Rollout asks for: its name, labels, owner, and arguments resolved from the Rollout.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use serde_json::Value;

use super::args::{self, Values};
use super::expr;
use super::template::{self, Flat, Templates};
use super::verdict::Condition;
use crate::api::analysis::{AnalysisRun, AnalysisRunSpec, Argument, Metric};
use crate::api::labels;
use crate::api::rollout::{AnalysisRunArgument, Rollout, RolloutAnalysis};

/// What a run is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Beside the steps.
    Background,
    /// The step of this index.
    Step(i32),
    /// Before blue-green switches.
    PrePromotion,
    /// After blue-green has switched.
    PostPromotion,
}

impl Role {
    /// The value of the label `rollout-type`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Step(_) => "Step",
            Self::PrePromotion => "PrePromotion",
            Self::PostPromotion => "PostPromotion",
        }
    }

    fn suffix(self) -> String {
        match self {
            Self::Background => String::new(),
            Self::Step(index) => format!("-{index}"),
            Self::PrePromotion => "-pre".to_owned(),
            Self::PostPromotion => "-post".to_owned(),
        }
    }
}

/// What a run is built from.
#[derive(Clone, Copy, Debug)]
pub struct Order<'a> {
    /// The Rollout, with name, namespace and uid.
    pub rollout: &'a Rollout,
    /// What the run is for.
    pub role: Role,
    /// Templates and arguments as the Rollout gives them.
    pub analysis: &'a RolloutAnalysis,
    /// The templates that are there.
    pub templates: &'a Templates,
    /// Pod-template hash of the revision that the spec asks for.
    pub latest: &'a str,
    /// Pod-template hash of the stable revision; empty before the first.
    pub stable: &'a str,
    /// Number of the revision that the spec asks for.
    pub revision: &'a str,
    /// How many runs of this name were there before; 0 for the first.
    pub attempt: u32,
}

/// Builds the run.
///
/// # Errors
///
/// What [`template::flatten`] and [`args::merge`] refuse, and paths that lead nowhere in the Rollout.
pub fn run(order: &Order<'_>) -> Result<AnalysisRun, template::Error> {
    let Flat { spec, origins: _ } = template::flatten(&order.analysis.templates, order.templates)?;
    let rollout = serde_json::to_value(order.rollout).unwrap_or_default();
    let given = order
        .analysis
        .args
        .iter()
        .map(|argument| given(argument, order, &rollout))
        .collect::<Result<Vec<_>, _>>()?;
    let merged = args::merge(&given, &spec.args)?;
    let args = merged
        .into_iter()
        .map(|argument| located(argument, &rollout))
        .collect::<Result<Vec<_>, _>>()?;
    let run = AnalysisRunSpec {
        metrics: spec.metrics,
        args,
        dry_run: joined(&spec.dry_run, &order.analysis.dry_run),
        measurement_retention: joined(
            &spec.measurement_retention,
            &order.analysis.measurement_retention,
        ),
        terminate: None,
        ttl_strategy: None,
    };
    Ok(AnalysisRun {
        metadata: metadata(order),
        spec: run,
        status: None,
    })
}

fn joined<T: Clone>(one: &[T], other: &[T]) -> Vec<T> {
    one.iter().chain(other).cloned().collect()
}

/// Checks what a Rollout asks of its templates, without the values that only a running Rollout has.
///
/// `role` tells whether the analysis has to end by itself: all but background ones do.
///
/// # Errors
///
/// Templates that are not there or do not fit together, arguments without a value, conditions that are no expressions, and
/// metrics without end where a step waits for one.
pub fn check(
    analysis: &RolloutAnalysis,
    role: Role,
    templates: &Templates,
) -> Result<(), template::Error> {
    let flat = template::flatten(&analysis.templates, templates)?;
    let given: Vec<Argument> = analysis.args.iter().map(stand_in).collect();
    let args = args::merge(&given, &flat.spec.args)?;
    let args: Vec<Argument> = args
        .into_iter()
        .map(|argument| Argument {
            value: Some(argument.value.unwrap_or_else(|| STAND_IN.to_owned())),
            value_from: None,
            ..argument
        })
        .collect();
    let values = Values::masked(&args)?;
    for (metric, origin) in flat.spec.metrics.iter().zip(&flat.origins) {
        let metric = values.substitute(metric)?;
        if role != Role::Background && runs_forever(&metric) {
            return Err(template::Error::runs_forever(origin, &metric.name));
        }
        for place in [Condition::Success, Condition::Failure] {
            parses(&metric, place)
                .map_err(|cause| template::Error::condition(origin, &metric.name, place, &cause))?;
        }
    }
    Ok(())
}

/// Whether a metric's condition is an expression at all; its types are known only with a result.
fn parses(metric: &Metric, place: Condition) -> Result<(), expr::Error> {
    match place.text(metric) {
        None => Ok(()),
        Some(text) => expr::parse(text).map(drop),
    }
}

/// Stands for a value that is not known yet: it may be read as a number, and within quotes as text.
const STAND_IN: &str = "0";

fn stand_in(argument: &AnalysisRunArgument) -> Argument {
    let from = argument.value_from.as_ref().map(|_| STAND_IN.to_owned());
    Argument {
        name: argument.name.clone(),
        value: argument.value.clone().or(from),
        value_from: None,
    }
}

/// A count that is no number is refused when the run starts, as Argo does.
fn runs_forever(metric: &Metric) -> bool {
    matches!(template::effective_count(metric), Ok(None))
}

fn metadata(order: &Order<'_>) -> ObjectMeta {
    let rollout = &order.rollout.metadata;
    let extra = order
        .analysis
        .analysis_run_metadata
        .clone()
        .unwrap_or_default();
    let mut labels: BTreeMap<String, String> = order
        .rollout
        .spec
        .selector
        .as_ref()
        .and_then(|selector| selector.match_labels.clone())
        .unwrap_or_default();
    labels.extend(extra.labels.unwrap_or_default());
    labels.insert(
        labels::POD_TEMPLATE_HASH.to_owned(),
        order.latest.to_owned(),
    );
    labels.insert(
        labels::ROLLOUT_TYPE.to_owned(),
        order.role.label().to_owned(),
    );
    if let Role::Step(index) = order.role {
        labels.insert(labels::STEP_INDEX.to_owned(), index.to_string());
    }
    if let Some(instance) = rollout
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::INSTANCE_ID))
    {
        labels.insert(labels::INSTANCE_ID.to_owned(), instance.clone());
    }
    let mut annotations = extra.annotations.unwrap_or_default();
    annotations.insert(labels::REVISION.to_owned(), order.revision.to_owned());
    ObjectMeta {
        name: Some(name(order)),
        namespace: rollout.namespace.clone(),
        labels: Some(labels),
        annotations: Some(annotations),
        owner_references: Some(vec![owner(order.rollout)]),
        ..ObjectMeta::default()
    }
}

/// `<rollout>-<hash>-<revision>`, then what the run is for, then `.1`, `.2`, … where there were others.
fn name(order: &Order<'_>) -> String {
    let rollout = order.rollout.metadata.name.as_deref().unwrap_or_default();
    let base = format!(
        "{rollout}-{}-{}{}",
        order.latest,
        order.revision,
        order.role.suffix()
    );
    match order.attempt {
        0 => base,
        attempt => format!("{base}.{attempt}"),
    }
}

fn owner(rollout: &Rollout) -> OwnerReference {
    OwnerReference {
        api_version: Rollout::api_version(&()).into_owned(),
        kind: Rollout::kind(&()).into_owned(),
        name: rollout.metadata.name.clone().unwrap_or_default(),
        uid: rollout.metadata.uid.clone().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// An argument of the Rollout, with its value.
fn given(
    argument: &AnalysisRunArgument,
    order: &Order<'_>,
    rollout: &Value,
) -> Result<Argument, args::Error> {
    let value = match &argument.value_from {
        None => argument.value.clone(),
        Some(from) => match (&from.pod_template_hash_value, &from.field_ref) {
            (Some(which), _) => Some(hash(which, order, &argument.name)?),
            (None, Some(field)) => Some(field_value(rollout, &field.field_path)?),
            (None, None) => None,
        },
    };
    Ok(Argument {
        name: argument.name.clone(),
        value,
        value_from: None,
    })
}

fn hash(which: &str, order: &Order<'_>, name: &str) -> Result<String, args::Error> {
    match which {
        "Latest" => Ok(order.latest.to_owned()),
        "Stable" => Ok(order.stable.to_owned()),
        other => Err(args::Error::Field(format!(
            "args.{name}.valueFrom.podTemplateHashValue: {other:?} is neither \"Stable\" nor \"Latest\""
        ))),
    }
}

/// A template's argument, its path into the Rollout followed; Secrets stay references.
fn located(argument: Argument, rollout: &Value) -> Result<Argument, args::Error> {
    let field = argument
        .value_from
        .as_ref()
        .and_then(|from| from.field_ref.as_ref());
    match field {
        None => Ok(argument),
        Some(field) => Ok(Argument {
            value: Some(field_value(rollout, &field.field_path)?),
            value_from: None,
            name: argument.name,
        }),
    }
}

/// Whether a path leads into what the downward API knows of metadata, or elsewhere; what stands there is not asked.
#[must_use]
pub fn is_known_field(path: &str) -> bool {
    !path.starts_with("metadata") || metadata_value(&Value::Null, path).is_ok()
}

/// What stands at a path of the Rollout, as text: `metadata.…` as the downward API has it, any other as JSON.
fn field_value(rollout: &Value, path: &str) -> Result<String, args::Error> {
    if path == "metadata" || path.starts_with("metadata.") {
        metadata_value(&rollout["metadata"], path)
    } else {
        json_value(rollout, path)
    }
}

/// As the downward API reads it: a label or annotation that is missing is empty text.
fn metadata_value(metadata: &Value, path: &str) -> Result<String, args::Error> {
    let unsupported = || args::Error::Field(format!("unsupported fieldPath: {path}"));
    let field = path.strip_prefix("metadata.").ok_or_else(unsupported)?;
    if let Some((map, key)) = field
        .strip_suffix("']")
        .and_then(|field| field.split_once("['"))
    {
        return match map {
            "labels" | "annotations" => Ok(text(&metadata[map][key])),
            _ => Err(unsupported()),
        };
    }
    match field {
        "name" | "namespace" | "uid" => Ok(text(&metadata[field])),
        "labels" | "annotations" => Ok(lines(&metadata[field])),
        _ => Err(unsupported()),
    }
}

/// A map as the downward API prints it: `key="value"`, sorted, one a line.
fn lines(map: &Value) -> String {
    let mut lines: Vec<String> = map
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={:?}", text(value)))
        .collect();
    lines.sort();
    lines.join("\n")
}

fn json_value(rollout: &Value, path: &str) -> Result<String, args::Error> {
    let nowhere = || args::Error::Field(format!("invalid path {path} in rollout"));
    let mut at = rollout;
    for section in path.split(['.', '[', ']']).filter(|part| !part.is_empty()) {
        at = match at {
            Value::Array(items) => section
                .parse()
                .ok()
                .and_then(|index: usize| items.get(index))
                .ok_or_else(nowhere)?,
            Value::Object(fields) => fields.get(section).ok_or_else(nowhere)?,
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                return Err(nowhere());
            }
        };
    }
    if at.is_null() {
        return Err(nowhere());
    }
    Ok(text(at))
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout() -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1",
            "kind": "Rollout",
            "metadata": {
                "name": "shop", "namespace": "prod", "uid": "u-1",
                "labels": {"team": "blue", "argo-rollouts.argoproj.io/controller-instance-id": "two"},
                "annotations": {"a": "1", "b": "2"},
            },
            "spec": {
                "selector": {"matchLabels": {"app": "shop"}},
                "template": {"spec": {"containers": [{"image": "shop:2"}]}},
                "strategy": {},
            },
            "status": {"stableRS": "aaa"},
        }))
        .unwrap()
    }

    fn templates(specs: Value) -> Templates {
        Templates {
            namespaced: serde_json::from_value(specs).unwrap(),
            cluster: BTreeMap::new(),
        }
    }

    fn analysis(json: Value) -> RolloutAnalysis {
        serde_json::from_value(json).unwrap()
    }

    fn build(
        analysis: &RolloutAnalysis,
        templates: &Templates,
        role: Role,
    ) -> Result<AnalysisRun, String> {
        run(&Order {
            rollout: &rollout(),
            role,
            analysis,
            templates,
            latest: "bbb",
            stable: "aaa",
            revision: "2",
            attempt: 0,
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn a_steps_run_is_named_labelled_and_owned() {
        let templates = templates(json!({"t": {"metrics": [{"name": "m"}]}}));
        let analysis = analysis(json!({
            "templates": [{"templateName": "t"}],
            "analysisRunMetadata": {"labels": {"x": "y"}, "annotations": {"note": "n"}},
        }));
        let run = build(&analysis, &templates, Role::Step(3)).unwrap();
        assert_eq!(
            serde_json::to_value(&run.metadata).unwrap(),
            json!({
                "name": "shop-bbb-2-3", "namespace": "prod",
                "labels": {
                    "app": "shop", "x": "y", "rollouts-pod-template-hash": "bbb", "rollout-type": "Step",
                    "step-index": "3", "argo-rollouts.argoproj.io/controller-instance-id": "two",
                },
                "annotations": {"note": "n", "rollout.argoproj.io/revision": "2"},
                "ownerReferences": [{
                    "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "shop", "uid": "u-1",
                    "controller": true, "blockOwnerDeletion": true,
                }],
            })
        );
    }

    #[test]
    fn names_tell_the_role_and_the_attempt() {
        let rollout = rollout();
        let (analysis, templates) = (RolloutAnalysis::default(), Templates::default());
        let cases = [
            (Role::Background, 0, "shop-bbb-2"),
            (Role::Step(0), 2, "shop-bbb-2-0.2"),
            (Role::PrePromotion, 0, "shop-bbb-2-pre"),
            (Role::PostPromotion, 1, "shop-bbb-2-post.1"),
        ];
        for (role, attempt, expected) in cases {
            let order = Order {
                rollout: &rollout,
                role,
                analysis: &analysis,
                templates: &templates,
                latest: "bbb",
                stable: "aaa",
                revision: "2",
                attempt,
            };
            assert_eq!(name(&order), expected);
        }
    }

    #[test]
    fn arguments_are_taken_from_the_rollout() {
        let cases = [
            (json!({"value": "v"}), Ok("v")),
            (
                json!({"valueFrom": {"podTemplateHashValue": "Latest"}}),
                Ok("bbb"),
            ),
            (
                json!({"valueFrom": {"podTemplateHashValue": "Stable"}}),
                Ok("aaa"),
            ),
            (
                json!({"valueFrom": {"podTemplateHashValue": "Old"}}),
                Err(
                    "args.x.valueFrom.podTemplateHashValue: \"Old\" is neither \"Stable\" nor \"Latest\"",
                ),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}),
                Ok("shop"),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['team']"}}}),
                Ok("blue"),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['none']"}}}),
                Ok(""),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations"}}}),
                Ok("a=\"1\"\nb=\"2\""),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.foo"}}}),
                Err("unsupported fieldPath: metadata.foo"),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "spec.template.spec.containers[0].image"}}}),
                Ok("shop:2"),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "status.stableRS"}}}),
                Ok("aaa"),
            ),
            (
                json!({"valueFrom": {"fieldRef": {"fieldPath": "status.nothing"}}}),
                Err("invalid path status.nothing in rollout"),
            ),
            (json!({}), Err("args.x was not resolved")),
        ];
        let templates = templates(json!({"t": {"args": [{"name": "x"}]}}));
        for (argument, expected) in cases {
            let mut named = argument.clone();
            named["name"] = json!("x");
            let analysis = analysis(json!({"templates": [{"templateName": "t"}], "args": [named]}));
            let actual = build(&analysis, &templates, Role::Background)
                .map(|run| run.spec.args[0].value.clone().unwrap());
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(actual, expected, "{argument}");
        }
    }

    #[test]
    fn a_step_refuses_what_never_ends() {
        let forever = "AnalysisTemplate t has metric m which runs indefinitely. Invalid value for count: <nil>";
        let cases = [
            (
                json!({"name": "m", "interval": "1m"}),
                Role::Step(0),
                Some(forever),
            ),
            (
                json!({"name": "m", "interval": "1m"}),
                Role::Background,
                None,
            ),
            (
                json!({"name": "m", "interval": "1m", "count": "{{args.n}}"}),
                Role::Step(0),
                None,
            ),
            (json!({"name": "m"}), Role::Step(0), None),
        ];
        for (metric, role, expected) in cases {
            let templates = templates(json!({
                "t": {"metrics": [metric], "args": [{"name": "n", "value": "3"}]},
            }));
            let analysis = analysis(json!({"templates": [{"templateName": "t"}]}));
            let actual = check(&analysis, role, &templates)
                .err()
                .map(|e| e.to_string());
            assert_eq!(actual.as_deref(), expected, "{metric}");
        }
    }

    #[test]
    fn a_condition_that_does_not_parse_is_refused_with_its_place() {
        let templates = templates(json!({"t": {"metrics": [
            {"name": "m", "successCondition": "result[0] < {{args.limit}}", "failureCondition": "result >"},
        ], "args": [{"name": "limit"}]}}));
        let analysis = analysis(json!({
            "templates": [{"templateName": "t"}],
            "args": [{"name": "limit", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
        }));
        let error = check(&analysis, Role::Background, &templates).unwrap_err();
        assert_eq!(
            error.to_string(),
            "AnalysisTemplate t has metric m with an invalid failureCondition: unexpected end of expression (1:9)\n | result >\n | ........^"
        );
    }
}
