//! Several templates, with those they name, made into one; and what a Rollout may not ask of them.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::args;
use super::expr;
use super::verdict::Condition;
use crate::api::analysis::{AnalysisTemplateSpec, Argument, Metric};
use crate::api::rollout::TemplateRef;

/// The templates that are there, by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Templates {
    /// AnalysisTemplates of the namespace.
    pub namespaced: BTreeMap<String, AnalysisTemplateSpec>,
    /// ClusterAnalysisTemplates.
    pub cluster: BTreeMap<String, AnalysisTemplateSpec>,
}

impl Templates {
    /// Whether what a reference names is among them.
    pub fn holds(&self, reference: &TemplateRef) -> bool {
        self.find(reference).is_ok()
    }

    /// All of them.
    pub fn all(&self) -> impl Iterator<Item = &AnalysisTemplateSpec> {
        self.namespaced.values().chain(self.cluster.values())
    }

    fn find(&self, reference: &TemplateRef) -> Result<&AnalysisTemplateSpec, Error> {
        let templates = match is_cluster(reference) {
            true => &self.cluster,
            false => &self.namespaced,
        };
        templates
            .get(&reference.template_name)
            .ok_or_else(|| Error::NotFound {
                kind: kind(reference),
                name: reference.template_name.clone(),
            })
    }
}

fn is_cluster(reference: &TemplateRef) -> bool {
    reference.cluster_scope == Some(true)
}

fn kind(reference: &TemplateRef) -> &'static str {
    match is_cluster(reference) {
        true => "ClusterAnalysisTemplate",
        false => "AnalysisTemplate",
    }
}

/// Why templates cannot be used, in Argo's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is none of that name.
    #[error("{kind} '{name}' not found")]
    NotFound {
        /// `AnalysisTemplate` or `ClusterAnalysisTemplate`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A step would never end.
    #[error(
        "{kind} {template} has metric {metric} which runs indefinitely. Invalid value for count: <nil>"
    )]
    RunsForever {
        /// `AnalysisTemplate` or `ClusterAnalysisTemplate`.
        kind: &'static str,
        /// The template.
        template: String,
        /// Its metric.
        metric: String,
    },
    /// A condition that is no expression.
    #[error("{kind} {template} has metric {metric} with an invalid {field}: {cause}")]
    Condition {
        /// `AnalysisTemplate` or `ClusterAnalysisTemplate`.
        kind: &'static str,
        /// The template.
        template: String,
        /// Its metric.
        metric: String,
        /// `successCondition` or `failureCondition`.
        field: &'static str,
        /// Where and why.
        cause: String,
    },
    /// Metrics are told apart by name.
    #[error("two metrics have the same name '{0}'")]
    SameMetric(String),
    /// Dry-run rules are told apart by name.
    #[error("two Dry-Run metric rules have the same name '{0}'")]
    SameDryRun(String),
    /// Retention rules are told apart by name.
    #[error("two Measurement Retention metric rules have the same name '{0}'")]
    SameRetention(String),
    /// Two templates disagree.
    #[error("Argument '{name}' specified multiple times with different values: '{one}', '{other}'")]
    Conflict {
        /// The argument.
        name: String,
        /// What one says.
        one: String,
        /// What the other says.
        other: String,
    },
    /// Arguments do not fit.
    #[error(transparent)]
    Argument(#[from] args::Error),
}

impl Error {
    pub(super) fn runs_forever(origin: &TemplateRef, metric: &str) -> Self {
        Self::RunsForever {
            kind: kind(origin),
            template: origin.template_name.clone(),
            metric: metric.to_owned(),
        }
    }

    pub(super) fn condition(
        origin: &TemplateRef,
        metric: &str,
        place: Condition,
        cause: &expr::Error,
    ) -> Self {
        Self::Condition {
            kind: kind(origin),
            template: origin.template_name.clone(),
            metric: metric.to_owned(),
            field: place.field(),
            cause: cause.to_string(),
        }
    }

    /// What an `Invalid value: "…"` about these templates names: the one at fault, or all.
    #[must_use]
    pub fn subject(&self, references: &[TemplateRef]) -> String {
        match self {
            Self::NotFound { name, .. } => name.clone(),
            Self::RunsForever { template, .. } | Self::Condition { template, .. } => {
                template.clone()
            }
            Self::SameMetric(_)
            | Self::SameDryRun(_)
            | Self::SameRetention(_)
            | Self::Conflict { .. }
            | Self::Argument(_) => {
                let names: Vec<&str> = references
                    .iter()
                    .map(|reference| reference.template_name.as_str())
                    .collect();
                format!("templateNames: [{}]", names.join(" "))
            }
        }
    }
}

/// Templates made into one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Flat {
    /// All metrics, arguments and rules.
    pub spec: AnalysisTemplateSpec,
    /// Where each metric comes from, in the order of the metrics.
    pub origins: Vec<TemplateRef>,
}

/// Makes templates, and those they name, into one. A template that is named twice counts once.
///
/// # Errors
///
/// A template that is not there, two metrics or rules of one name, two values for one argument.
pub fn flatten(references: &[TemplateRef], templates: &Templates) -> Result<Flat, Error> {
    let mut flat = Flat::default();
    let mut seen = BTreeSet::new();
    for reference in references {
        add(&mut flat, reference, templates, &mut seen)?;
    }
    let spec = &flat.spec;
    let metrics = spec.metrics.iter().map(|metric| &metric.name);
    let dry_runs = spec.dry_run.iter().map(|rule| &rule.metric_name);
    let retentions = spec
        .measurement_retention
        .iter()
        .map(|rule| &rule.metric_name);
    unique(metrics).map_err(Error::SameMetric)?;
    unique(dry_runs).map_err(Error::SameDryRun)?;
    unique(retentions).map_err(Error::SameRetention)?;
    Ok(flat)
}

fn add(
    flat: &mut Flat,
    reference: &TemplateRef,
    templates: &Templates,
    seen: &mut BTreeSet<(bool, String)>,
) -> Result<(), Error> {
    if !seen.insert((is_cluster(reference), reference.template_name.clone())) {
        return Ok(());
    }
    let AnalysisTemplateSpec {
        metrics,
        args,
        dry_run,
        measurement_retention,
        templates: nested,
    } = templates.find(reference)?;
    for metric in metrics {
        flat.spec.metrics.push(metric.clone());
        flat.origins.push(reference.clone());
    }
    for argument in args {
        add_argument(&mut flat.spec.args, argument)?;
    }
    flat.spec.dry_run.extend(dry_run.iter().cloned());
    flat.spec
        .measurement_retention
        .extend(measurement_retention.iter().cloned());
    nested
        .iter()
        .try_for_each(|nested| add(flat, nested, templates, seen))
}

fn add_argument(arguments: &mut Vec<Argument>, argument: &Argument) -> Result<(), Error> {
    let Some(known) = arguments
        .iter_mut()
        .find(|known| known.name == argument.name)
    else {
        arguments.push(argument.clone());
        return Ok(());
    };
    let has_default =
        |argument: &Argument| argument.value.is_some() || argument.value_from.is_some();
    if !has_default(known) {
        *known = argument.clone();
    } else if has_default(argument) && known != argument {
        return Err(Error::Conflict {
            name: argument.name.clone(),
            one: shown(known),
            other: shown(argument),
        });
    }
    Ok(())
}

/// An argument's default for a person: its value, or the name of where it is.
fn shown(argument: &Argument) -> String {
    let Some(from) = &argument.value_from else {
        return argument.value.clone().unwrap_or_default();
    };
    match (&from.secret_key_ref, &from.field_ref) {
        (Some(secret), _) => format!("secret {}/{}", secret.name, secret.key),
        (None, Some(field)) => format!("field {}", field.field_path),
        (None, None) => String::new(),
    }
}

fn unique<'a>(names: impl Iterator<Item = &'a String>) -> Result<(), String> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(name.clone());
        }
    }
    Ok(())
}

/// How many measurements a metric takes: `None` is without end.
///
/// An absent count is one measurement without an interval, and no end with one.
///
/// # Errors
///
/// The text of a count that is no number.
pub fn effective_count(metric: &Metric) -> Result<Option<i32>, String> {
    let has_interval = metric
        .interval
        .as_ref()
        .is_some_and(|text| !text.is_empty());
    Ok(
        match (number(metric.count.as_ref())?.unwrap_or(0), has_interval) {
            (0, false) => Some(1),
            (0, true) => None,
            (count, _) => Some(count),
        },
    )
}

/// An integer that may stand as text, since arguments are text; empty text is absent.
///
/// # Errors
///
/// The text, when it is no number.
pub fn number(value: Option<&IntOrString>) -> Result<Option<i32>, String> {
    match value {
        None => Ok(None),
        Some(IntOrString::Int(number)) => Ok(Some(*number)),
        Some(IntOrString::String(text)) if text.is_empty() => Ok(None),
        Some(IntOrString::String(text)) => text.parse().map(Some).map_err(|_| text.clone()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn templates(specs: serde_json::Value) -> Templates {
        Templates {
            namespaced: serde_json::from_value(specs).unwrap(),
            cluster: BTreeMap::new(),
        }
    }

    fn references(names: &[&str]) -> Vec<TemplateRef> {
        names
            .iter()
            .map(|name| TemplateRef {
                template_name: (*name).to_owned(),
                cluster_scope: None,
            })
            .collect()
    }

    #[test]
    fn nested_templates_are_added_once() {
        let templates = templates(json!({
            "a": {"metrics": [{"name": "m"}], "templates": [{"templateName": "b"}, {"templateName": "a"}]},
            "b": {"metrics": [{"name": "n"}], "args": [{"name": "x"}]},
        }));
        let flat = flatten(&references(&["a", "b"]), &templates).unwrap();
        let names: Vec<_> = flat.spec.metrics.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["m", "n"]);
        assert_eq!(flat.origins, references(&["a", "b"]));
        assert_eq!(flat.spec.args.len(), 1);
    }

    #[test]
    fn refusals_read_as_argos() {
        let templates = templates(json!({
            "dup": {"metrics": [{"name": "m"}, {"name": "m"}]},
            "a": {"args": [{"name": "host", "value": "a"}]},
            "b": {"args": [{"name": "host", "value": "b"}]},
            "open": {"args": [{"name": "host"}]},
        }));
        type Case = (
            &'static [&'static str],
            Option<(&'static str, &'static str)>,
        );
        let cases: [Case; 5] = [
            (
                &["nosuch"],
                Some(("nosuch", "AnalysisTemplate 'nosuch' not found")),
            ),
            (
                &["dup"],
                Some(("templateNames: [dup]", "two metrics have the same name 'm'")),
            ),
            (
                &["a", "b"],
                Some((
                    "templateNames: [a b]",
                    "Argument 'host' specified multiple times with different values: 'a', 'b'",
                )),
            ),
            (&["a", "open"], None),
            (&["open", "a"], None),
        ];
        for (names, expected) in cases {
            let references = references(names);
            let actual = flatten(&references, &templates)
                .err()
                .map(|error| (error.subject(&references), error.to_string()));
            let expected = expected.map(|(subject, text)| (subject.to_owned(), text.to_owned()));
            assert_eq!(actual, expected, "{names:?}");
        }
    }

    #[test]
    fn a_count_may_be_text() {
        let text = |text: &str| Some(IntOrString::String(text.to_owned()));
        let cases = [
            (None, None, Ok(Some(1))),
            (None, Some("1m"), Ok(None)),
            (Some(IntOrString::Int(0)), Some("1m"), Ok(None)),
            (Some(IntOrString::Int(5)), None, Ok(Some(5))),
            (text("5"), Some("1m"), Ok(Some(5))),
            (text("five"), Some("1m"), Err("five".to_owned())),
        ];
        for (count, interval, expected) in cases {
            let metric = Metric {
                count,
                interval: interval.map(str::to_owned),
                ..Metric::default()
            };
            assert_eq!(effective_count(&metric), expected, "{metric:?}");
        }
    }
}
