//! Arguments: how those of a Rollout meet those of its templates, and how their values get into a metric.
//!
//! A Secret's value goes to the provider and nowhere else: [`Values::mask`] takes it out of everything that is written down.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::api::analysis::{Argument, Metric, SecretKeyRef};

/// What stands for a Secret's value wherever it could be read.
pub const MASK: &str = "********";

/// Why arguments do not fit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An argument has no value, or a placeholder names none.
    #[error("args.{0} was not resolved")]
    Unresolved(String),
    /// A placeholder that is no argument's.
    #[error("failed to resolve {{{{{0}}}}}")]
    Placeholder(String),
    /// A value and a source of a value.
    #[error("arg '{0}' has both Value and ValueFrom fields")]
    Both(String),
    /// The Secret or its key is not there.
    #[error("{0}")]
    Secret(String),
    /// A path that leads nowhere, or a source that does not exist.
    #[error("{0}")]
    Field(String),
    /// With the values in place the metric has another shape.
    #[error("metric '{metric}': {cause}")]
    Shape {
        /// The metric.
        metric: String,
        /// What does not fit.
        cause: String,
    },
}

/// Puts the arguments that are given over the template's, by name.
///
/// Given arguments that the template does not name are left out.
///
/// # Errors
///
/// An argument that is left without a value or a source of one.
pub fn merge(given: &[Argument], template: &[Argument]) -> Result<Vec<Argument>, Error> {
    let merged: Vec<Argument> = template
        .iter()
        .map(|default| match find(given, &default.name) {
            Some(argument) if argument.value.is_some() || argument.value_from.is_some() => {
                argument.clone()
            }
            Some(_) | None => default.clone(),
        })
        .collect();
    match merged.iter().find(|argument| is_open(argument)) {
        Some(argument) => Err(Error::Unresolved(argument.name.clone())),
        None => Ok(merged),
    }
}

fn find<'a>(arguments: &'a [Argument], name: &str) -> Option<&'a Argument> {
    arguments.iter().find(|argument| argument.name == name)
}

fn is_open(argument: &Argument) -> bool {
    argument.value.is_none() && argument.value_from.is_none()
}

/// The values of a run's arguments.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Values {
    values: BTreeMap<String, String>,
    secrets: Vec<String>,
}

// Written by hand, so that no log line can hold a Secret's value.
impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.values.keys()).finish()
    }
}

impl Values {
    /// The values with every Secret masked: enough for all that is no provider's business.
    ///
    /// # Errors
    ///
    /// An argument without a value.
    pub fn masked(arguments: &[Argument]) -> Result<Self, Error> {
        Self::resolve(arguments, |_| Ok(MASK.to_owned())).map(|values| Self {
            secrets: Vec::new(),
            ..values
        })
    }

    /// The values, with Secrets as `secret` finds them.
    ///
    /// # Errors
    ///
    /// An argument without a value, with two, or whose Secret is not found.
    pub fn resolve(
        arguments: &[Argument],
        mut secret: impl FnMut(&SecretKeyRef) -> Result<String, Error>,
    ) -> Result<Self, Error> {
        let mut resolved = Self::default();
        for argument in arguments {
            let value = match (&argument.value, &argument.value_from) {
                (Some(_), Some(_)) => return Err(Error::Both(argument.name.clone())),
                (Some(value), None) => value.clone(),
                (None, from) => {
                    let reference = from.as_ref().and_then(|from| from.secret_key_ref.as_ref());
                    let reference =
                        reference.ok_or_else(|| Error::Unresolved(argument.name.clone()))?;
                    let value = secret(reference)?;
                    resolved.secrets.push(value.clone());
                    value
                }
            };
            resolved.values.insert(argument.name.clone(), value);
        }
        // Longest first: a Secret that is part of another must not leave the rest of it readable.
        resolved.secrets.retain(|value| !value.is_empty());
        resolved
            .secrets
            .sort_by_key(|value| std::cmp::Reverse(value.len()));
        Ok(resolved)
    }

    /// The text with every Secret's value masked.
    #[must_use]
    pub fn mask(&self, text: &str) -> String {
        self.secrets
            .iter()
            .fold(text.to_owned(), |text, secret| text.replace(secret, MASK))
    }

    /// The metric with every `{{args.name}}` replaced, in all of its strings.
    ///
    /// # Errors
    ///
    /// A placeholder that names no argument, or a metric that has lost its shape.
    pub fn substitute(&self, metric: &Metric) -> Result<Metric, Error> {
        let shape = |cause: serde_json::Error| Error::Shape {
            metric: metric.name.clone(),
            cause: cause.to_string(),
        };
        let json = serde_json::to_value(metric).map_err(shape)?;
        serde_json::from_value(self.fill(json)?).map_err(shape)
    }

    fn fill(&self, json: Value) -> Result<Value, Error> {
        Ok(match json {
            Value::String(text) => Value::String(self.fill_text(&text)?),
            Value::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| self.fill(item))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(fields) => Value::Object(
                fields
                    .into_iter()
                    .map(|(key, value)| Ok((self.fill_text(&key)?, self.fill(value)?)))
                    .collect::<Result<_, Error>>()?,
            ),
            other @ (Value::Null | Value::Bool(_) | Value::Number(_)) => other,
        })
    }

    /// The text with its placeholders replaced; what stands in a value is not looked into again.
    fn fill_text(&self, text: &str) -> Result<String, Error> {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((tag, after)) = after.split_once("}}") else {
                break;
            };
            filled.push_str(before);
            filled.push_str(self.value(tag.trim())?);
            rest = after;
        }
        filled.push_str(rest);
        Ok(filled)
    }

    fn value(&self, tag: &str) -> Result<&str, Error> {
        let Some(name) = tag.strip_prefix("args.") else {
            return Err(Error::Placeholder(tag.to_owned()));
        };
        self.values
            .get(name)
            .map(String::as_str)
            .ok_or_else(|| Error::Unresolved(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::analysis::ValueFrom;

    fn plain(name: &str, value: Option<&str>) -> Argument {
        Argument {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            value_from: None,
        }
    }

    fn secret(name: &str) -> Argument {
        Argument {
            name: name.to_owned(),
            value: None,
            value_from: Some(ValueFrom {
                secret_key_ref: Some(SecretKeyRef {
                    name: "token".to_owned(),
                    key: "value".to_owned(),
                }),
                field_ref: None,
            }),
        }
    }

    fn metric(json: Value) -> Metric {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn given_arguments_override_and_strangers_are_left_out() {
        let given = [plain("host", Some("b")), plain("stranger", Some("x"))];
        let template = [
            plain("host", Some("a")),
            plain("port", Some("80")),
            secret("token"),
        ];
        let merged = merge(&given, &template).unwrap();
        assert_eq!(
            merged,
            [
                plain("host", Some("b")),
                plain("port", Some("80")),
                secret("token")
            ]
        );
    }

    #[test]
    fn a_given_value_takes_the_place_of_a_secret() {
        let merged = merge(&[plain("token", Some("b"))], &[secret("token")]).unwrap();
        assert_eq!(merged, [plain("token", Some("b"))]);
    }

    #[test]
    fn an_argument_without_a_value_is_an_error() {
        let error = merge(&[], &[plain("host", None)]).unwrap_err();
        assert_eq!(error.to_string(), "args.host was not resolved");
    }

    #[test]
    fn placeholders_are_filled_wherever_text_stands() {
        let values = Values::resolve(
            &[plain("host", Some("h\"1")), plain("limit", Some("3"))],
            |_| unreachable!(),
        )
        .unwrap();
        let filled = values
            .substitute(&metric(json!({
                "name": "m",
                "failureLimit": "{{args.limit}}",
                "successCondition": "result < {{ args.limit }} || {{args.limit}} > 1 }}",
                "provider": {"web": {"url": "http://{{args.host}}/{{ args.host }}", "timeoutSeconds": 3}},
            })))
            .unwrap();
        assert_eq!(
            filled,
            metric(json!({
                "name": "m",
                "failureLimit": "3",
                "successCondition": "result < 3 || 3 > 1 }}",
                "provider": {"web": {"url": "http://h\"1/h\"1", "timeoutSeconds": 3}},
            }))
        );
    }

    #[test]
    fn what_names_no_argument_is_an_error() {
        let cases = [
            ("{{args.x}}", "args.x was not resolved"),
            ("{{ inputs.x }}", "failed to resolve {{inputs.x}}"),
        ];
        for (text, expected) in cases {
            let metric = metric(json!({"name": text}));
            let error = Values::default().substitute(&metric).unwrap_err();
            assert_eq!(error.to_string(), expected);
        }
    }

    #[test]
    fn secrets_are_masked_longest_first() {
        let mut found = ["abc", "abcdef"].into_iter();
        let values = Values::resolve(&[secret("a"), secret("b")], |_| {
            Ok(found.next().unwrap().to_owned())
        })
        .unwrap();
        assert_eq!(values.mask("x abcdef abc y"), "x ******** ******** y");
        assert!(!format!("{values:?}").contains("abc"));
    }
}
