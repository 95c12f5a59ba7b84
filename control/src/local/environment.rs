//! The environment of a container, and `$(NAME)` in its command, arguments and values, as Kubernetes defines them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use super::store::Object;

/// What an environment may be read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl Source {
    fn word(self) -> &'static str {
        match self {
            Self::ConfigMap => "configmap",
            Self::Secret => "secret",
        }
    }
}

/// Why there is no environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An object or a key of it is missing; it may still come.
    #[error("{0}")]
    Missing(String),
    /// Not to be had on one machine.
    #[error("{0}")]
    Unsupported(String),
}

/// The environment of `container`, in order, later entries winning: `given` first, then `envFrom`, then `env`.
///
/// `find` answers with an object of the pod's namespace.
///
/// # Errors
/// What is missing or not supported, as the kubelet says it.
pub fn resolve(
    pod: &Value,
    container: &Value,
    given: Vec<(String, String)>,
    find: impl Fn(Source, &str) -> Option<Object>,
) -> Result<Vec<(String, String)>, Error> {
    let mut environment = given;
    for from in list(container, "envFrom") {
        environment.extend(all_of(from, &find)?);
    }
    for variable in list(container, "env") {
        let name = variable["name"].as_str().unwrap_or_default();
        let value = match variable.get("valueFrom") {
            Some(from) => value_from(pod, from, &find)?,
            None => Some(expand(
                variable["value"].as_str().unwrap_or_default(),
                &environment,
            )),
        };
        environment.extend(value.map(|value| (name.to_owned(), value)));
    }
    Ok(environment)
}

fn list<'a>(object: &'a Value, field: &str) -> &'a [Value] {
    object[field].as_array().map_or(&[], Vec::as_slice)
}

/// All keys of one `envFrom` entry.
fn all_of(
    from: &Value,
    find: &impl Fn(Source, &str) -> Option<Object>,
) -> Result<Vec<(String, String)>, Error> {
    let prefix = from["prefix"].as_str().unwrap_or_default();
    let (source, reference) = match (from.get("configMapRef"), from.get("secretRef")) {
        (Some(reference), _) => (Source::ConfigMap, reference),
        (None, Some(reference)) => (Source::Secret, reference),
        (None, None) => {
            return Err(Error::Unsupported(
                "envFrom: configMapRef or secretRef is expected".to_owned(),
            ));
        }
    };
    let name = reference["name"].as_str().unwrap_or_default();
    let Some(found) = find(source, name) else {
        return optional(reference, Vec::new(), || missing(source, name));
    };
    let values = values(source, &found).map_err(Error::Unsupported)?;
    Ok(values
        .into_iter()
        .map(|(key, value)| (format!("{prefix}{key}"), value))
        .collect())
}

fn value_from(
    pod: &Value,
    from: &Value,
    find: &impl Fn(Source, &str) -> Option<Object>,
) -> Result<Option<String>, Error> {
    if let Some(reference) = from.get("fieldRef") {
        let path = reference["fieldPath"].as_str().unwrap_or_default();
        return field(pod, path)
            .map(Some)
            .ok_or_else(|| Error::Unsupported(format!("fieldPath {path:?} is not supported")));
    }
    let (source, reference) = match (from.get("configMapKeyRef"), from.get("secretKeyRef")) {
        (Some(reference), _) => (Source::ConfigMap, reference),
        (None, Some(reference)) => (Source::Secret, reference),
        (None, None) => {
            let kind = from
                .as_object()
                .and_then(|from| from.keys().next())
                .map_or("", String::as_str);
            return Err(Error::Unsupported(format!(
                "env.valueFrom.{kind} is not supported on one machine"
            )));
        }
    };
    let text = |field: &str| reference[field].as_str().unwrap_or_default();
    let (name, key) = (text("name"), text("key"));
    let Some(found) = find(source, name) else {
        return optional(reference, None, || missing(source, name));
    };
    match values(source, &found)
        .map_err(Error::Unsupported)?
        .remove(key)
    {
        Some(value) => Ok(Some(value)),
        None => optional(reference, None, || {
            format!("couldn't find key {key} in {} {name}", source.word())
        }),
    }
}

fn missing(source: Source, name: &str) -> String {
    format!("{} {name:?} not found", source.word())
}

fn optional<T>(
    reference: &Value,
    without: T,
    complaint: impl FnOnce() -> String,
) -> Result<T, Error> {
    if reference["optional"].as_bool().unwrap_or(false) {
        Ok(without)
    } else {
        Err(Error::Missing(complaint()))
    }
}

fn values(source: Source, object: &Value) -> Result<BTreeMap<String, String>, String> {
    let entries = object["data"].as_object().into_iter().flatten();
    let entries = entries.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default()));
    match source {
        Source::ConfigMap => Ok(entries
            .map(|(key, value)| (key, value.to_owned()))
            .collect()),
        Source::Secret => entries
            .map(|(key, value)| decode(&key, value).map(|value| (key, value)))
            .collect(),
    }
}

fn decode(key: &str, value: &str) -> Result<String, String> {
    let bytes = BASE64_STANDARD
        .decode(value)
        .map_err(|error| format!("secret key {key}: {error}"))?;
    String::from_utf8(bytes).map_err(|_| format!("secret key {key}: a variable takes text only"))
}

/// A field of the pod as the downward API gives it.
fn field(pod: &Value, path: &str) -> Option<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &pod["metadata"];
    let keyed = |map: &str| {
        Some(
            path.strip_prefix(map)?
                .strip_prefix("['")?
                .strip_suffix("']")?
                .to_owned(),
        )
    };
    if let Some(key) = keyed("metadata.labels") {
        return Some(text(&metadata["labels"][key]));
    }
    if let Some(key) = keyed("metadata.annotations") {
        return Some(text(&metadata["annotations"][key]));
    }
    match path {
        "metadata.name" => Some(text(&metadata["name"])),
        "metadata.namespace" => Some(text(&metadata["namespace"])),
        "metadata.uid" => Some(text(&metadata["uid"])),
        "spec.nodeName" => Some(text(&pod["spec"]["nodeName"])),
        "spec.serviceAccountName" => Some(
            pod["spec"]["serviceAccountName"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
        ),
        "status.podIP" | "status.podIPs" => Some(
            pod["status"]["podIP"]
                .as_str()
                .unwrap_or("127.0.0.1")
                .to_owned(),
        ),
        "status.hostIP" | "status.hostIPs" => Some("127.0.0.1".to_owned()),
        _ => None,
    }
}

/// Replaces `$(NAME)` by what `environment` says. What it does not know stays as it is; `$$` is a plain `$` (Kubernetes,
/// `third_party/forked/golang/expansion`).
pub fn expand(text: &str, environment: &[(String, String)]) -> String {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_str(before);
        let reference = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        if let Some((name, after)) = reference {
            match environment.iter().rev().find(|(known, _)| known == name) {
                Some((_, value)) => expanded.push_str(value),
                None => expanded.extend(["$(", name, ")"]),
            }
            rest = after;
        } else {
            expanded.push('$');
            rest = after.strip_prefix('$').unwrap_or(after);
        }
    }
    expanded.push_str(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let environment = [("A", "1"), ("A", "2"), ("B", "$(A)")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let check =
            |text: &str, expected: &str| assert_eq!(expand(text, &environment), expected, "{text}");
        check("--port=$(A)", "--port=2");
        check("$(A)$(B)", "2$(A)");
        check("$(NONE)", "$(NONE)");
        check("$$(A)", "$(A)");
        check("$$$(A)", "$2");
        check("$A ${A} $", "$A ${A} $");
        check("$(A", "$(A");
        check("", "");
    }

    fn find(source: Source, name: &str) -> Option<Object> {
        match (source, name) {
            (Source::ConfigMap, "settings") => Some(Arc::new(json!({"data": {"level": "debug"}}))),
            (Source::Secret, "token") => Some(Arc::new(json!({"data": {"key": "aHVudGVyMg=="}}))),
            _ => None,
        }
    }

    fn resolved(container: &Value) -> Result<Vec<(String, String)>, Error> {
        let pod =
            json!({"metadata": {"name": "web-x", "namespace": "shop", "labels": {"app": "web"}}});
        resolve(
            &pod,
            container,
            vec![("PORT".to_owned(), "8001".to_owned())],
            find,
        )
    }

    #[test]
    fn an_environment_comes_from_all_its_sources_in_order() {
        let container = json!({
            "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "LOG_"}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "ADDRESS", "value": "127.0.0.1:$(PORT)"},
                {"name": "EMPTY"},
                {"name": "POD", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "token", "key": "key"}}},
                {"name": "GONE", "valueFrom": {"secretKeyRef": {"name": "token", "key": "no", "optional": true}}},
            ],
        });
        let lines: Vec<_> = resolved(&container)
            .unwrap()
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        PORT=8001
        LOG_level=debug
        ADDRESS=127.0.0.1:8001
        EMPTY=
        POD=web-x
        APP=web
        KEY=hunter2
        ");
    }

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        let check = |from: Value, expected: Error| {
            assert_eq!(
                resolved(&json!({"env": [{"name": "X", "valueFrom": from}]})).unwrap_err(),
                expected
            );
        };
        let missing = |text: &str| Error::Missing(text.to_owned());
        let unsupported = |text: &str| Error::Unsupported(text.to_owned());
        check(
            json!({"secretKeyRef": {"name": "none", "key": "k"}}),
            missing("secret \"none\" not found"),
        );
        check(
            json!({"configMapKeyRef": {"name": "settings", "key": "k"}}),
            missing("couldn't find key k in configmap settings"),
        );
        check(
            json!({"fieldRef": {"fieldPath": "spec.x"}}),
            unsupported("fieldPath \"spec.x\" is not supported"),
        );
        check(
            json!({"resourceFieldRef": {"resource": "limits.cpu"}}),
            unsupported("env.valueFrom.resourceFieldRef is not supported on one machine"),
        );
    }
}
