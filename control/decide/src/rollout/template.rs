//! Whether two pod templates ask for the same pods (R2.4 c), though one has passed through an API server and the other has not.
//!
//! The live one may have fields that the desired one lacks, if they hold what Kubernetes would have filled in; texts of quantities
//! may differ.

use serde_json::Value;

use super::observed::Revision;
use super::{affinity, marks, quantity};
use crate::api::labels;

/// Whether the live template is what the API server makes of the desired one.
///
/// What the controller has put into the live one does not count: the hash, marks of its part, a distance from stable's pods.
pub(super) fn is_made_of(live: &Revision, desired: &Value) -> bool {
    let (mut template, desired) = (without_hash(&live.template), without_hash(desired));
    marks::take_out(&live.annotations, &mut template);
    affinity::take_out(&mut template);
    covers("", &template, &desired)
}

/// The template without the label that the controller adds.
fn without_hash(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(Value::Object(labels)) = template.pointer_mut("/metadata/labels") {
        labels.remove(labels::POD_TEMPLATE_HASH);
    }
    template
}

fn covers(key: &str, live: &Value, desired: &Value) -> bool {
    match (live, desired) {
        (Value::Object(one), Value::Object(other)) => {
            let missing = &Value::Null;
            let keys = one
                .keys()
                .chain(other.keys().filter(|key| !one.contains_key(*key)));
            keys.filter(|key| *key != "serviceAccount").all(|inner| {
                let (live, desired) = (
                    one.get(inner).unwrap_or(missing),
                    other.get(inner).unwrap_or(missing),
                );
                match key {
                    "limits" | "requests" => same_quantity(live, desired),
                    _ => covers(inner, live, desired),
                }
            })
        }
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| covers(key, one, other))
        }
        (live, desired) if is_empty(desired) => is_empty(live) || is_default(key, live),
        (live, desired) if is_empty(live) => is_default(key, desired),
        (live, desired) => live == desired,
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        Value::Bool(set) => !set,
        Value::Number(_) => false,
    }
}

/// What `k8s.io/kubernetes/pkg/apis/core/v1/defaults.go` fills in within a pod template.
fn is_default(key: &str, value: &Value) -> bool {
    if let Value::Object(map) = value {
        return map
            .iter()
            .all(|(key, value)| is_empty(value) || is_default(key, value));
    }
    match value.as_str() {
        Some(text) => TEXTS.contains(&(key, text)),
        None => value
            .as_i64()
            .is_some_and(|number| NUMBERS.contains(&(key, number))),
    }
}

const TEXTS: &[(&str, &str)] = &[
    ("restartPolicy", "Always"),
    ("dnsPolicy", "ClusterFirst"),
    ("schedulerName", "default-scheduler"),
    ("terminationMessagePath", "/dev/termination-log"),
    ("terminationMessagePolicy", "File"),
    ("imagePullPolicy", "Always"),
    ("imagePullPolicy", "IfNotPresent"),
    ("protocol", "TCP"),
    ("scheme", "HTTP"),
    ("path", "/"),
    ("apiVersion", "v1"),
    ("whenUnsatisfiable", "DoNotSchedule"),
    ("nodeAffinityPolicy", "Honor"),
    ("nodeTaintsPolicy", "Ignore"),
];

const NUMBERS: &[(&str, i64)] = &[
    ("terminationGracePeriodSeconds", 30),
    ("timeoutSeconds", 1),
    ("periodSeconds", 10),
    ("successThreshold", 1),
    ("failureThreshold", 3),
    ("defaultMode", 420),
    ("expirationSeconds", 3600),
];

/// `500m` is `0.5`, and `1Gi` is `1024Mi`.
fn same_quantity(one: &Value, other: &Value) -> bool {
    let amount = |value: &Value| match value {
        Value::String(text) => quantity::nano(text),
        Value::Number(number) => quantity::nano(&number.to_string()),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    };
    one == other || amount(one).is_some_and(|one| amount(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn desired() -> Value {
        json!({
            "metadata": {"labels": {"app": "web"}},
            "spec": {"containers": [{
                "name": "web", "image": "nginx:1",
                "ports": [{"containerPort": 80}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "resources": {"requests": {"cpu": 0.5, "memory": "1Gi"}},
            }]},
        })
    }

    fn live() -> Value {
        json!({
            "metadata": {"creationTimestamp": null, "labels": {"app": "web", "rollouts-pod-template-hash": "abc"}},
            "spec": {
                "containers": [{
                    "name": "web", "image": "nginx:1",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": 80, "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
                    "resources": {"requests": {"cpu": "500m", "memory": "1024Mi"}},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "imagePullPolicy": "IfNotPresent",
                }],
                "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst",
                "securityContext": {}, "schedulerName": "default-scheduler",
            },
        })
    }

    fn check(change: impl FnOnce(&mut Value), same: bool) {
        let mut live = live();
        change(&mut live);
        assert_eq!(
            covers("", &without_hash(&live), &desired()),
            same,
            "{live:#}"
        );
    }

    #[test]
    fn defaults_and_spelling_do_not_make_a_difference() {
        check(|_| {}, true);
        check(|live| live["spec"]["serviceAccount"] = json!("robot"), true);
        assert!(
            covers("", &desired(), &without_hash(&live())),
            "a template that spells the defaults out"
        );
    }

    #[test]
    fn anything_else_does() {
        check(
            |live| live["spec"]["containers"][0]["image"] = json!("nginx:2"),
            false,
        );
        check(
            |live| live["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("1"),
            false,
        );
        check(
            |live| live["spec"]["terminationGracePeriodSeconds"] = json!(60),
            false,
        );
        check(
            |live| live["spec"]["containers"][0]["args"] = json!(["-v"]),
            false,
        );
        check(
            |live| live["metadata"]["labels"]["tier"] = json!("front"),
            false,
        );
        check(|live| live["spec"]["hostNetwork"] = json!(true), false);
        check(|live| live["spec"]["containers"] = json!([]), false);
    }
}
