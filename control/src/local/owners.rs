//! Owner references, and pods as their owners see them.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::{self, Kind};
use super::podstatus::find_condition;
use super::store::{self, Deletion, Error, Object, Store};

/// The reference to an object as the controller that made another from it.
pub(super) fn controller_reference(owner: &Value) -> Value {
    json!({
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// All owner references of an object.
pub(super) fn references(object: &Value) -> &[Value] {
    object["metadata"]["ownerReferences"]
        .as_array()
        .map_or(&[], Vec::as_slice)
}

/// The reference to the object's controller, if it has one.
pub(super) fn controller(object: &Value) -> Option<&Value> {
    references(object)
        .iter()
        .find(|reference| reference["controller"] == true)
}

/// Whether `owner` is the object's controller.
pub(super) fn is_controlled_by(object: &Value, owner: &Value) -> bool {
    controller(object).is_some_and(|reference| reference["uid"] == owner["metadata"]["uid"])
}

/// The name of the object's controller, if that is of this kind.
pub(super) fn controller_name<'a>(object: &'a Value, kind: &Kind) -> Option<&'a str> {
    let reference = controller(object).filter(|reference| reference["kind"] == kind.kind)?;
    reference["name"].as_str()
}

/// Objects of a kind in a namespace that `owner` controls.
pub(super) fn controlled(
    store: &Store,
    kind: &'static Kind,
    namespace: &str,
    owner: &Value,
) -> Vec<Object> {
    let mut objects = store.list(kind, Some(namespace)).objects;
    objects.retain(|object| is_controlled_by(object, owner));
    objects
}

/// Whether a pod runs or will run: it has not ended and was not asked to.
pub(super) fn is_active(pod: &Value) -> bool {
    !store::is_deleting(pod) && !has_ended(pod)
}

/// Whether a pod has ended by itself.
pub(super) fn has_ended(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

/// Since when a pod is ready.
pub(super) fn ready_since(pod: &Value) -> Option<Timestamp> {
    let ready = find_condition(pod, "Ready").filter(|ready| ready["status"] == "True")?;
    ready["lastTransitionTime"].as_str()?.parse().ok()
}

/// Makes a pod of `owner` from `template`, named after `owner` with five letters more.
pub(super) fn create_pod(store: &Store, owner: &Value, template: &Value) -> Result<Object, Error> {
    let prefix: String = store::text(owner, "name")
        .chars()
        .take(PREFIX_MAX)
        .collect();
    let mut metadata = json!({
        "generateName": format!("{prefix}-"), "namespace": owner["metadata"]["namespace"],
        "ownerReferences": [controller_reference(owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = template["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    store.create(
        &kinds::POD,
        json!({"metadata": metadata, "spec": template["spec"]}),
    )
}

/// Deletes an object that was looked at, unless another has taken its name.
pub(super) fn delete(store: &Store, kind: &'static Kind, object: &Value) -> Result<(), Error> {
    let deletion = Deletion {
        uid: Some(store::text(object, "uid").to_owned()),
        ..Deletion::default()
    };
    delete_as(store, kind, object, &deletion)
}

/// Deletes an object in a certain way; one that is gone already is fine.
pub(super) fn delete_as(
    store: &Store,
    kind: &'static Kind,
    object: &Value,
    deletion: &Deletion,
) -> Result<(), Error> {
    match store.delete(
        kind,
        store::text(object, "namespace"),
        store::text(object, "name"),
        deletion,
    ) {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Writes a status whole, if it is not so already.
pub(super) fn write_status(
    store: &Store,
    kind: &'static Kind,
    object: &Value,
    status: &Value,
) -> Result<(), Error> {
    let (namespace, name) = (
        store::text(object, "namespace"),
        store::text(object, "name"),
    );
    let written = store.update_status(kind, namespace, name, None, |present| {
        if present["metadata"]["uid"] == object["metadata"]["uid"] {
            present["status"] = status.clone();
        }
    });
    match written {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// A condition; its time is that of the one before, if that said the same.
pub(super) fn condition(
    object: &Value,
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: &str,
) -> Value {
    let before = find_condition(object, kind).filter(|before| before["status"] == status);
    let since = before
        .and_then(|before| before["lastTransitionTime"].as_str())
        .unwrap_or(now);
    json!({"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since})
}

/// A generated name has 63 letters at most, of which five are drawn and one is the hyphen (Kubernetes, `names.generate`).
const PREFIX_MAX: usize = 57;
