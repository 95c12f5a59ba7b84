//! Which objects a client wants: label and field selectors, as they stand in a query.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::{Expression, Selector, SelectorExt};
use serde::Deserialize;
use serde_json::Value;

use super::kinds::Kind;
use super::strict;

/// Why a selector was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// It is not a selector.
    #[error("unable to parse requirement: {0}")]
    Syntax(String),
    /// The kind cannot be selected by that field.
    #[error("field label not supported: {0}")]
    Field(String),
}

/// What a list or watch is narrowed to.
#[derive(Clone, Debug, Default)]
pub(super) struct Filter {
    labels: Selector,
    fields: Vec<FieldRule>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FieldRule {
    path: String,
    value: String,
    equal: bool,
}

impl Filter {
    /// Parses `labelSelector` and `fieldSelector` for a kind.
    ///
    /// # Errors
    /// [`Error`].
    pub(super) fn parse(kind: &Kind, labels: &str, fields: &str) -> Result<Self, Error> {
        Ok(Self {
            labels: parse_labels(labels)?,
            fields: parse_fields(kind, fields)?,
        })
    }

    /// Only the object of this name.
    pub(super) fn and_name(mut self, name: &str) -> Self {
        self.fields.push(FieldRule {
            path: "metadata.name".to_owned(),
            value: name.to_owned(),
            equal: true,
        });
        self
    }

    /// Whether it lets everything through.
    pub(super) fn is_empty(&self) -> bool {
        self.labels.selects_all() && self.fields.is_empty()
    }

    /// Whether it lets this object, in its kind's own words, through.
    pub(super) fn admits(&self, object: &Value) -> bool {
        matches(&self.labels, object.pointer("/metadata/labels"))
            && self.fields.iter().all(|rule| rule.admits(object))
    }
}

impl FieldRule {
    fn admits(&self, object: &Value) -> bool {
        (at(object, &self.path) == self.value) == self.equal
    }
}

/// Whether labels, as they stand in an object, are selected.
pub(super) fn matches(selector: &Selector, labels: Option<&Value>) -> bool {
    if selector.selects_all() {
        return true;
    }
    let labels: BTreeMap<String, String> = labels
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
        .collect();
    selector.matches(&labels)
}

/// A `LabelSelector` as it stands in an object; absent selects everything.
pub(super) fn of_object(selector: Option<&Value>) -> Result<Selector, Error> {
    let Some(selector) = selector.filter(|selector| !selector.is_null()) else {
        return Ok(Selector::default());
    };
    let typed =
        LabelSelector::deserialize(selector).map_err(|error| Error::Syntax(error.to_string()))?;
    Selector::try_from(typed).map_err(|error| Error::Syntax(error.to_string()))
}

/// The text of a field; empty if it is not there.
fn at(object: &Value, path: &str) -> String {
    let value = path.split('.').fold(object, |value, key| &value[key]);
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

fn parse_fields(kind: &Kind, text: &str) -> Result<Vec<FieldRule>, Error> {
    split(text)
        .into_iter()
        .map(|term| parse_field(kind, term))
        .collect()
}

fn parse_field(kind: &Kind, term: &str) -> Result<FieldRule, Error> {
    let (path, value, equal) = term
        .split_once("!=")
        .map(|(path, value)| (path, value, false))
        .or_else(|| {
            term.split_once("==")
                .map(|(path, value)| (path, value, true))
        })
        .or_else(|| {
            term.split_once('=')
                .map(|(path, value)| (path, value, true))
        })
        .ok_or_else(|| Error::Syntax(format!("invalid field selector {term:?}")))?;
    let always = ["metadata.name", "metadata.namespace"];
    if !always.contains(&path) && !kind.selectable.contains(&path) {
        return Err(Error::Field(path.to_owned()));
    }
    Ok(FieldRule {
        path: path.to_owned(),
        value: unescape(value),
        equal,
    })
}

/// In a field selector's value `\` takes the meaning from `,`, `=` and itself.
fn unescape(value: &str) -> String {
    let mut characters = value.chars();
    let mut result = String::new();
    while let Some(character) = characters.next() {
        match character {
            '\\' => result.extend(characters.next()),
            other => result.push(other),
        }
    }
    result
}

/// Parses a label selector: `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
pub(super) fn parse_labels(text: &str) -> Result<Selector, Error> {
    let expressions: Vec<Expression> = split(text)
        .into_iter()
        .map(parse_label)
        .collect::<Result<_, _>>()?;
    Ok(expressions.into_iter().collect())
}

fn parse_label(term: &str) -> Result<Expression, Error> {
    let expression = if let Some((key, value)) = term.split_once("!=") {
        Expression::NotEqual(key.trim().to_owned(), value.trim().to_owned())
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        Expression::Equal(key.trim().to_owned(), value.trim().to_owned())
    } else if let Some(key) = term.strip_prefix('!') {
        Expression::DoesNotExist(key.trim().to_owned())
    } else if let Some((head, values)) = term.split_once('(') {
        parse_set(term, head, values)?
    } else {
        Expression::Exists(term.to_owned())
    };
    check_expression(&expression).map_err(Error::Syntax)?;
    Ok(expression)
}

fn parse_set(term: &str, head: &str, values: &str) -> Result<Expression, Error> {
    let bad = || Error::Syntax(format!("invalid label selector {term:?}"));
    let values: BTreeSet<String> = values
        .trim_end()
        .strip_suffix(')')
        .ok_or_else(bad)?
        .split(',')
        .map(|value| value.trim().to_owned())
        .collect();
    match head.split_whitespace().collect::<Vec<_>>()[..] {
        [key, "in"] => Ok(Expression::In(key.to_owned(), values)),
        [key, "notin"] => Ok(Expression::NotIn(key.to_owned(), values)),
        _ => Err(bad()),
    }
}

fn check_expression(expression: &Expression) -> Result<(), String> {
    match expression {
        Expression::Equal(key, value) | Expression::NotEqual(key, value) => check_label(key, value),
        Expression::Exists(key) | Expression::DoesNotExist(key) => check_label_key(key),
        Expression::In(key, values) | Expression::NotIn(key, values) => {
            values.iter().try_for_each(|value| check_label(key, value))
        }
    }
}

/// The terms of a selector: split at commas that stand neither in parentheses nor behind a backslash.
fn split(text: &str) -> Vec<&str> {
    let (mut inside, mut escaped) = (false, false);
    text.split(|character| {
        let here = character == ',' && !inside && !escaped;
        match character {
            '(' => inside = true,
            ')' => inside = false,
            _ => {}
        }
        escaped = character == '\\' && !escaped;
        here
    })
    .map(str::trim)
    .filter(|term| !term.is_empty())
    .collect()
}

/// Whether key and value can be those of a label.
///
/// # Errors
/// What is wrong, in the words of Kubernetes.
pub(super) fn check_label(key: &str, value: &str) -> Result<(), String> {
    check_label_key(key)?;
    if value.is_empty() || is_name(value) {
        return Ok(());
    }
    Err(format!(
        "{value:?}: a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character"
    ))
}

/// Whether it can be the key of a label or annotation.
///
/// # Errors
/// What is wrong, in the words of Kubernetes.
pub(super) fn check_label_key(key: &str) -> Result<(), String> {
    let (prefix, name) = key
        .split_once('/')
        .map_or((None, key), |(prefix, name)| (Some(prefix), name));
    if prefix.is_none_or(strict::is_subdomain) && is_name(name) {
        return Ok(());
    }
    Err(format!(
        "{key:?}: name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character, with an optional DNS subdomain prefix and '/'"
    ))
}

fn is_name(text: &str) -> bool {
    let alphanumeric = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= 63
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| alphanumeric(Some(byte)) || b"-_.".contains(byte))
}
