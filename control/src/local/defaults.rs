//! What the server fills in: only what clients and our own players rely on to be there. A real API server fills in more
//! (`imagePullPolicy`, `dnsPolicy`, cluster addresses, …); nothing here reads those.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, json};

use super::store::text;

/// Fills in nothing.
pub(super) const fn none(_: &mut Value) {}

/// A new Namespace holds itself until its content is gone.
pub(super) fn new_namespace(object: &mut Value) {
    object["spec"] = json!({"finalizers": ["kubernetes"]});
    object["status"] = json!({"phase": "Active"});
}

pub(super) fn namespace(object: &mut Value) {
    let name = text(object, "name").to_owned();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
}

pub(super) fn new_pod(object: &mut Value) {
    object["status"] = json!({"phase": "Pending"});
}

pub(super) fn pod(object: &mut Value) {
    fill_pod_spec(object.pointer_mut("/spec"));
}

pub(super) fn service(object: &mut Value) {
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return;
    };
    fill(spec, "type", json!("ClusterIP"));
    fill(spec, "sessionAffinity", json!("None"));
    for port in items(spec.get_mut("ports")) {
        fill(port, "protocol", json!("TCP"));
        let number = port.get("port").cloned().unwrap_or_default();
        fill(port, "targetPort", number);
    }
}

/// `stringData` is write-only: it becomes `data`.
pub(super) fn secret(object: &mut Value) {
    let Some(fields) = object.as_object_mut() else {
        return;
    };
    fill(fields, "type", json!("Opaque"));
    let Some(Value::Object(plain)) = fields.shift_remove("stringData") else {
        return;
    };
    let data = fields.entry("data").or_insert_with(|| json!({}));
    for (key, value) in plain {
        data[key] = json!(BASE64_STANDARD.encode(value.as_str().unwrap_or_default()));
    }
}

pub(super) fn deployment(object: &mut Value) {
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return;
    };
    fill(spec, "replicas", json!(1));
    fill(spec, "revisionHistoryLimit", json!(10));
    fill(spec, "progressDeadlineSeconds", json!(600));
    fill(
        spec,
        "strategy",
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}),
    );
    fill_template(spec);
}

pub(super) fn replica_set(object: &mut Value) {
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return;
    };
    fill(spec, "replicas", json!(1));
    fill_template(spec);
}

/// A Job finds its pods by its own uid, unless the user chose a selector.
pub(super) fn new_job(object: &mut Value) {
    if object["spec"]["manualSelector"] == json!(true) {
        return;
    }
    let uid = text(object, "uid").to_owned();
    let name = text(object, "name").to_owned();
    object["spec"]["selector"] =
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": uid}});
    let labels = &mut object["spec"]["template"]["metadata"]["labels"];
    for (key, value) in [
        ("batch.kubernetes.io/controller-uid", &uid),
        ("batch.kubernetes.io/job-name", &name),
        ("controller-uid", &uid),
        ("job-name", &name),
    ] {
        labels[key] = json!(value);
    }
}

pub(super) fn job(object: &mut Value) {
    let Some(Value::Object(spec)) = object.get_mut("spec") else {
        return;
    };
    if !spec.contains_key("completions") && !spec.contains_key("parallelism") {
        fill(spec, "completions", json!(1));
    }
    fill(spec, "parallelism", json!(1));
    fill(spec, "backoffLimit", json!(6));
    fill(spec, "completionMode", json!("NonIndexed"));
    fill(spec, "suspend", json!(false));
    fill_template(spec);
}

pub(super) fn endpoint_slice(object: &mut Value) {
    for port in items(object.get_mut("ports")) {
        fill(port, "protocol", json!("TCP"));
    }
}

/// Argo's schema knows one default in the pod template: the protocol of a port.
pub(super) fn rollout(object: &mut Value) {
    fill_protocols(object.pointer_mut("/spec/template/spec"));
}

fn fill_template(spec: &mut Map<String, Value>) {
    fill_pod_spec(
        spec.get_mut("template")
            .and_then(|template| template.get_mut("spec")),
    );
}

fn fill_pod_spec(mut pod: Option<&mut Value>) {
    fill_protocols(pod.as_deref_mut());
    let Some(fields) = pod.and_then(Value::as_object_mut) else {
        return;
    };
    fill(fields, "restartPolicy", json!("Always"));
    fill(fields, "terminationGracePeriodSeconds", json!(30));
    for kind in ["containers", "initContainers"] {
        for container in items(fields.get_mut(kind)) {
            for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
                fill_probe(container.get_mut(probe));
            }
            quantities_as_text(container.get_mut("resources"));
        }
    }
}

fn fill_protocols(pod: Option<&mut Value>) {
    let Some(fields) = pod.and_then(Value::as_object_mut) else {
        return;
    };
    for kind in ["containers", "initContainers"] {
        for container in items(fields.get_mut(kind)) {
            for port in items(container.get_mut("ports")) {
                fill(port, "protocol", json!("TCP"));
            }
        }
    }
}

fn fill_probe(probe: Option<&mut Value>) {
    let Some(probe) = probe.and_then(Value::as_object_mut) else {
        return;
    };
    fill(probe, "timeoutSeconds", json!(1));
    fill(probe, "periodSeconds", json!(10));
    fill(probe, "successThreshold", json!(1));
    fill(probe, "failureThreshold", json!(3));
    if let Some(Value::Object(get)) = probe.get_mut("httpGet") {
        fill(get, "path", json!("/"));
        fill(get, "scheme", json!("HTTP"));
    }
}

/// A quantity may be written as a number (`cpu: 1`) and is always read as text.
fn quantities_as_text(resources: Option<&mut Value>) {
    let Some(resources) = resources.and_then(Value::as_object_mut) else {
        return;
    };
    for kind in ["limits", "requests"] {
        let Some(Value::Object(amounts)) = resources.get_mut(kind) else {
            continue;
        };
        for amount in amounts.values_mut().filter(|amount| amount.is_number()) {
            *amount = json!(amount.to_string());
        }
    }
}

fn fill(fields: &mut Map<String, Value>, key: &str, value: Value) {
    let slot = fields.entry(key).or_insert(Value::Null);
    if slot.is_null() {
        *slot = value;
    }
}

fn items(list: Option<&mut Value>) -> impl Iterator<Item = &mut Map<String, Value>> {
    list.and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
}
