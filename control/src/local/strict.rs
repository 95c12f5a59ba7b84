//! Is an object what its kind says? What its schema cannot say of it (names, labels, rules between fields, what may change), and how
//! complaints look. Fields nobody knows and values of the wrong type are found by [`super::schema`].

use std::collections::BTreeSet;
use std::fmt;

use serde_json::Value;

use super::kinds::{Kind, NameRule};
use super::selector;
use super::store::text;

/// One complaint about one field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Where: `spec.steps[2].setWeight`.
    pub path: String,
    /// What is wrong with it.
    pub problem: Problem,
    /// In words.
    pub message: String,
    /// The place as a JSON pointer (RFC 6901), for [`Problem::Unknown`].
    pub pointer: Option<String>,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The kind has no such field.
    Unknown,
    /// The value is of another type.
    Type,
    /// A value is required.
    Required,
    /// The value is not possible.
    Invalid,
    /// The value is none of those allowed.
    Unsupported,
}

impl FieldError {
    /// A complaint.
    pub fn new(path: impl Into<String>, problem: Problem, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            problem,
            message: message.into(),
            pointer: None,
        }
    }

    /// A field that its kind does not know.
    pub(super) fn unknown(path: String, pointer: String) -> Self {
        let complaint = Self::new(path, Problem::Unknown, "");
        Self {
            pointer: Some(pointer),
            ..complaint
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            path,
            problem,
            message,
            ..
        } = self;
        match problem {
            Problem::Unknown => write!(f, "unknown field \"{path}\""),
            Problem::Type | Problem::Invalid => write!(f, "{path}: Invalid value: {message}"),
            Problem::Required if message.is_empty() => write!(f, "{path}: Required value"),
            Problem::Required => write!(f, "{path}: Required value: {message}"),
            Problem::Unsupported => write!(f, "{path}: Unsupported value: {message}"),
        }
    }
}

/// Takes the fields that a kind does not know out of an object, as a real API server does.
pub(super) fn prune(object: &mut Value, errors: &[FieldError]) {
    for pointer in errors.iter().filter_map(|error| error.pointer.as_deref()) {
        let Some((holder, key)) = pointer.rsplit_once('/') else {
            continue;
        };
        if let Some(Value::Object(fields)) = object.pointer_mut(holder) {
            fields.shift_remove(&unescaped(key));
        }
    }
}

/// Checks what types cannot say: the name, labels, required fields, rules between fields.
pub(super) fn validate(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = names(kind, object);
    for path in kind.required {
        missing(object, path, "", &mut errors);
    }
    errors.extend((kind.rules)(object));
    errors
}

/// No rule between fields.
pub(super) fn no_rules(_: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// Every change is allowed.
pub(super) fn any_change(_: &Value, _: &Value) -> Vec<FieldError> {
    Vec::new()
}

/// Of a pod's spec only images, deadlines and tolerations may change.
pub(super) fn pod_change(old: &Value, new: &Value) -> Vec<FieldError> {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for container in ["containers", "initContainers"]
            .into_iter()
            .flat_map(|key| {
                spec.get(key)
                    .and_then(Value::as_array)
                    .map_or(0..0, |list| 0..list.len())
                    .map(move |index| format!("/{key}/{index}"))
            })
            .collect::<Vec<_>>()
        {
            if let Some(Value::Object(container)) = spec.pointer_mut(&container) {
                container.shift_remove("image");
            }
        }
        if let Some(fields) = spec.as_object_mut() {
            for key in [
                "activeDeadlineSeconds",
                "terminationGracePeriodSeconds",
                "tolerations",
            ] {
                fields.shift_remove(key);
            }
        }
        spec
    };
    if fixed(old) == fixed(new) {
        return Vec::new();
    }
    let message = "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds`, `spec.terminationGracePeriodSeconds`, `spec.tolerations`";
    vec![FieldError::new("spec", Problem::Invalid, message)]
}

/// Checks what a write may not change.
pub(super) fn validate_change(kind: &Kind, old: &Value, new: &Value) -> Vec<FieldError> {
    let at = |object: &Value, path: &str| {
        path.split('.')
            .fold(object, |value, key| &value[key])
            .clone()
    };
    let mut errors = (kind.changes)(old, new);
    for path in kind.immutable {
        let before = at(old, path);
        if !before.is_null() && before != at(new, path) {
            errors.push(FieldError::new(
                *path,
                Problem::Invalid,
                "field is immutable",
            ));
        }
    }
    if old["immutable"] == true && (old["data"] != new["data"] || new["immutable"] != true) {
        errors.push(FieldError::new(
            "data",
            Problem::Invalid,
            "field is immutable when `immutable` is set",
        ));
    }
    errors
}

/// A workload must select the pods it makes.
pub(super) fn selects_own_template(object: &Value) -> Vec<FieldError> {
    let labels = object.pointer("/spec/template/metadata/labels");
    match selector::of_object(object.pointer("/spec/selector")) {
        Err(error) => vec![FieldError::new(
            "spec.selector",
            Problem::Invalid,
            error.to_string(),
        )],
        Ok(selector) if selector.selects_all() => {
            vec![FieldError::new(
                "spec.selector",
                Problem::Invalid,
                "empty selector is invalid",
            )]
        }
        Ok(selector) if !selector::matches(&selector, labels) => {
            let message = "`selector` does not match template `labels`";
            vec![FieldError::new(
                "spec.template.metadata.labels",
                Problem::Invalid,
                message,
            )]
        }
        Ok(_) => Vec::new(),
    }
}

/// A Service has ports, unless it is headless or a name; with several, each has its own name.
pub(super) fn has_ports(object: &Value) -> Vec<FieldError> {
    let spec = &object["spec"];
    let ports = spec["ports"].as_array().map_or(&[][..], Vec::as_slice);
    let needless = spec["clusterIP"] == "None" || spec["type"] == "ExternalName";
    if ports.is_empty() && !needless {
        return vec![FieldError::new("spec.ports", Problem::Required, "")];
    }
    let mut seen = BTreeSet::new();
    let mut errors = Vec::new();
    for (index, port) in ports.iter().enumerate() {
        let name = port["name"].as_str().unwrap_or_default();
        if ports.len() > 1 && name.is_empty() {
            errors.push(FieldError::new(
                format!("spec.ports[{index}].name"),
                Problem::Required,
                "",
            ));
        } else if !seen.insert(name) {
            errors.push(FieldError::new(
                format!("spec.ports[{index}].name"),
                Problem::Invalid,
                "duplicate name",
            ));
        }
        if !port["port"]
            .as_u64()
            .is_some_and(|number| (1..=65535).contains(&number))
        {
            let message = format!("{}: must be between 1 and 65535, inclusive", port["port"]);
            errors.push(FieldError::new(
                format!("spec.ports[{index}].port"),
                Problem::Invalid,
                message,
            ));
        }
    }
    errors
}

fn names(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let name = text(object, "name");
    let generated = text(object, "generateName");
    if name.is_empty() && generated.is_empty() {
        errors.push(FieldError::new(
            "metadata.name",
            Problem::Required,
            "name or generateName is required",
        ));
    }
    if !name.is_empty()
        && let Err(rule) = kind.name.check(name)
    {
        errors.push(FieldError::new(
            "metadata.name",
            Problem::Invalid,
            format!("{name:?}: {rule}"),
        ));
    }
    if !generated.is_empty()
        && let Err(rule) = kind.name.check(&format!("{generated}x"))
    {
        errors.push(FieldError::new(
            "metadata.generateName",
            Problem::Invalid,
            format!("{generated:?}: {rule}"),
        ));
    }
    for (key, value) in object["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
    {
        if let Err(rule) = selector::check_label(key, value.as_str().unwrap_or_default()) {
            errors.push(FieldError::new("metadata.labels", Problem::Invalid, rule));
        }
    }
    for key in object["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        if let Err(rule) = selector::check_label_key(&key.to_lowercase()) {
            errors.push(FieldError::new(
                "metadata.annotations",
                Problem::Invalid,
                rule,
            ));
        }
    }
    errors
}

impl NameRule {
    /// Whether a name follows the rule.
    ///
    /// # Errors
    /// The rule, in the words of Kubernetes.
    pub fn check(self, name: &str) -> Result<(), &'static str> {
        match self {
            Self::Subdomain if is_subdomain(name) => Ok(()),
            Self::Subdomain => Err(
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character",
            ),
            Self::Label if is_label(name) => Ok(()),
            Self::Label => Err(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character",
            ),
            Self::Service
                if is_label(name) && name.starts_with(|first: char| first.is_ascii_lowercase()) =>
            {
                Ok(())
            }
            Self::Service => Err(
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            ),
        }
    }
}

/// Whether it is a DNS-1123 subdomain.
pub(super) fn is_subdomain(name: &str) -> bool {
    name.len() <= 253 && name.split('.').all(|part| is_label_of(part, 253))
}

fn is_label(name: &str) -> bool {
    is_label_of(name, 63)
}

fn is_label_of(name: &str, longest: usize) -> bool {
    let alphanumeric = |byte: Option<&u8>| {
        byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    };
    let bytes = name.as_bytes();
    bytes.len() <= longest
        && alphanumeric(bytes.first())
        && alphanumeric(bytes.last())
        && bytes
            .iter()
            .all(|byte| *byte == b'-' || alphanumeric(Some(byte)))
}

/// Complains of every place where `path` leads to nothing, or to an empty list or map.
fn missing(value: &Value, path: &str, at: &str, errors: &mut Vec<FieldError>) {
    let (first, rest) = path
        .split_once('.')
        .map_or((path, None), |(first, rest)| (first, Some(rest)));
    let key = first.strip_suffix("[]").unwrap_or(first);
    let here = join(at, key);
    let found = &value[key];
    if key != first {
        for (index, item) in found.as_array().into_iter().flatten().enumerate() {
            missing(
                item,
                rest.unwrap_or_default(),
                &format!("{here}[{index}]"),
                errors,
            );
        }
    } else if is_nothing(found) {
        // One complaint is enough, though longer paths lead through here as well.
        if !errors.iter().any(|error| error.path == here) {
            errors.push(FieldError::new(here, Problem::Required, ""));
        }
    } else if let Some(rest) = rest {
        missing(found, rest, &here, errors);
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::Object(_) => false,
    }
}

/// A key as a part of a JSON pointer.
pub(super) fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn unescaped(key: &str) -> String {
    key.replace("~1", "/").replace("~0", "~")
}

/// A field below a path.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, "") => path.to_owned(),
        (path, key) => format!("{path}.{key}"),
    }
}
