//! Plays as much of the Deployment controller as `workloadRef` needs: a ReplicaSet for the present template, kept at the wanted size.
//!
//! A new template replaces the old one whole: its ReplicaSet comes up at full size and the old ones go when it is available
//! (`RollingUpdate`), or it comes when they are gone (`Recreate`). `maxSurge` and `maxUnavailable` are not stepped through.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds;
use super::owners;
use super::store::{self, Change, Error, Object, Store};
use super::workloads::{Again, Key, Player};

/// The Deployment controller.
#[derive(Debug)]
pub(super) struct Deployments;

impl Player for Deployments {
    fn all(&mut self, store: &Store) -> Vec<Key> {
        store
            .list(&kinds::DEPLOYMENT, None)
            .objects
            .iter()
            .map(Key::of)
            .collect()
    }

    fn concerned(&mut self, _: &Store, change: &Change) -> Vec<Key> {
        if change.kind == &kinds::DEPLOYMENT {
            return vec![Key::of(&change.object)];
        }
        if change.kind != &kinds::REPLICA_SET {
            return Vec::new();
        }
        let name = owners::controller_name(&change.object, &kinds::DEPLOYMENT);
        let namespace = store::text(&change.object, "namespace");
        name.map(|name| Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
        .into_iter()
        .collect()
    }

    fn settle(&mut self, store: &Store, key: &Key, now: Timestamp) -> Result<Again, Error> {
        let Some(deployment) = store.get(&kinds::DEPLOYMENT, &key.namespace, &key.name) else {
            return Ok(None);
        };
        if !store::is_deleting(&deployment) {
            let sets = owners::controlled(store, &kinds::REPLICA_SET, &key.namespace, &deployment);
            replace(store, &deployment, sets)?;
        }
        let sets = owners::controlled(store, &kinds::REPLICA_SET, &key.namespace, &deployment);
        let status = status(&deployment, &sets, now);
        owners::write_status(store, &kinds::DEPLOYMENT, &deployment, &status)?;
        Ok(None)
    }
}

/// Brings the present template's ReplicaSet up and the others down.
fn replace(store: &Store, deployment: &Value, mut sets: Vec<Object>) -> Result<(), Error> {
    let wanted = replicas(deployment);
    let new = sets
        .iter()
        .position(|set| has_template_of(set, deployment))
        .map(|place| sets.swap_remove(place));
    let paused = deployment["spec"]["paused"] == true;
    if paused && new.is_none() {
        // What runs goes on running, at the size that is wanted.
        let largest = sets.iter().max_by_key(|set| replicas(set));
        return largest.map_or(Ok(()), |set| resize(store, set, wanted));
    }
    let recreate = deployment["spec"]["strategy"]["type"] == "Recreate";
    let old_pods: u64 = sets
        .iter()
        .map(|set| set["status"]["replicas"].as_u64().unwrap_or(0))
        .sum();
    if recreate && old_pods > 0 {
        return sets.iter().try_for_each(|set| resize(store, set, 0));
    }
    match new {
        None => create(store, deployment).map(drop),
        Some(new) => {
            resize(store, &new, wanted)?;
            if new["status"]["availableReplicas"].as_u64().unwrap_or(0) >= wanted {
                sets.iter().try_for_each(|set| resize(store, set, 0))?;
                forget(store, deployment, sets)?;
            }
            Ok(())
        }
    }
}

fn replicas(object: &Value) -> u64 {
    object["spec"]["replicas"].as_u64().unwrap_or(1)
}

/// Whether a ReplicaSet was made from the Deployment's present template: all is the same but the label that we put there.
fn has_template_of(set: &Value, deployment: &Value) -> bool {
    let mut template = set["spec"]["template"].clone();
    if let Some(labels) = template["metadata"]["labels"].as_object_mut() {
        labels.shift_remove(HASH);
    }
    template == deployment["spec"]["template"]
}

fn create(store: &Store, deployment: &Value) -> Result<Object, Error> {
    let hash = hash(&deployment["spec"]["template"]);
    let mut template = deployment["spec"]["template"].clone();
    template["metadata"]["labels"][HASH] = json!(hash);
    let mut selector = deployment["spec"]["selector"].clone();
    selector["matchLabels"][HASH] = json!(hash);
    store.create(
        &kinds::REPLICA_SET,
        json!({
            "metadata": {
                "name": format!("{}-{hash}", store::text(deployment, "name")),
                "namespace": deployment["metadata"]["namespace"],
                "labels": template["metadata"]["labels"],
                "ownerReferences": [owners::controller_reference(deployment)],
            },
            "spec": {
                "replicas": replicas(deployment), "selector": selector, "template": template,
                "minReadySeconds": deployment["spec"]["minReadySeconds"].as_i64().unwrap_or(0),
            },
        }),
    )
}

fn resize(store: &Store, set: &Value, wanted: u64) -> Result<(), Error> {
    let (namespace, name) = (store::text(set, "namespace"), store::text(set, "name"));
    store
        .update(&kinds::REPLICA_SET, namespace, name, None, |set| {
            set["spec"]["replicas"] = json!(wanted)
        })
        .map(drop)
}

/// Deletes the oldest of the empty ReplicaSets that are over `revisionHistoryLimit`.
fn forget(store: &Store, deployment: &Value, mut old: Vec<Object>) -> Result<(), Error> {
    let kept = deployment["spec"]["revisionHistoryLimit"]
        .as_u64()
        .unwrap_or(10);
    old.retain(|set| replicas(set) == 0 && set["status"]["replicas"].as_u64().unwrap_or(0) == 0);
    old.sort_by_key(|set| std::cmp::Reverse(store::text(set, "creationTimestamp").to_owned()));
    let over = old.iter().skip(usize::try_from(kept).unwrap_or(usize::MAX));
    over.into_iter()
        .try_for_each(|set| owners::delete(store, &kinds::REPLICA_SET, set))
}

fn status(deployment: &Value, sets: &[Object], now: Timestamp) -> Value {
    let sum = |field: &str| {
        sets.iter()
            .map(|set| set["status"][field].as_u64().unwrap_or(0))
            .sum::<u64>()
    };
    let new = sets.iter().find(|set| has_template_of(set, deployment));
    let updated = new.map_or(0, |set| set["status"]["replicas"].as_u64().unwrap_or(0));
    let updated_available = new.map_or(0, |set| {
        set["status"]["availableReplicas"].as_u64().unwrap_or(0)
    });
    let (wanted, available) = (replicas(deployment), sum("availableReplicas"));
    let done = updated_available >= wanted && sum("replicas") == updated;
    let now = store::whole_seconds(now);
    let condition = |kind, status, reason, message| {
        owners::condition(deployment, kind, status, reason, message, &now)
    };
    let is_available = if available >= wanted {
        condition(
            "Available",
            "True",
            "MinimumReplicasAvailable",
            "Deployment has minimum availability.",
        )
    } else {
        condition(
            "Available",
            "False",
            "MinimumReplicasUnavailable",
            "Deployment does not have minimum availability.",
        )
    };
    let progressing = if done {
        condition(
            "Progressing",
            "True",
            "NewReplicaSetAvailable",
            "The ReplicaSet of the present template is available.",
        )
    } else {
        condition(
            "Progressing",
            "True",
            "ReplicaSetUpdated",
            "The ReplicaSet of the present template is coming up.",
        )
    };
    json!({
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": sum("replicas"), "updatedReplicas": updated, "readyReplicas": sum("readyReplicas"),
        "availableReplicas": available, "unavailableReplicas": wanted.saturating_sub(available),
        "conditions": [is_available, progressing],
    })
}

/// A short name for a template: FNV-1a of its JSON with sorted keys, in letters that spell no words.
fn hash(template: &Value) -> String {
    let mut text = String::new();
    canonical(template, &mut text);
    let fnv1a = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
    let hash = text.bytes().fold(0x811c_9dc5, fnv1a).to_string();
    let letter = |digit: char| {
        HASH_LETTERS
            .chars()
            .nth(digit.to_digit(10).unwrap_or(0) as usize)
    };
    hash.chars().filter_map(letter).collect()
}

fn canonical(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(key, _)| *key);
            for (key, value) in fields {
                text.extend(["{", key.as_str(), ":"]);
                canonical(value, text);
                text.push('}');
            }
        }
        Value::Array(items) => {
            for item in items {
                text.push('[');
                canonical(item, text);
                text.push(']');
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string())
        }
    }
}

/// Label that tells a Deployment's ReplicaSets and their pods apart.
const HASH: &str = "pod-template-hash";
/// A letter for each digit (Kubernetes, `rand.SafeEncodeString`).
const HASH_LETTERS: &str = "bcdfghjklm";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_of_the_content_and_not_of_the_order_of_keys() {
        let one = hash(&json!({"spec": {"containers": [{"name": "app", "image": "demo:blue"}]}}));
        let same = hash(&json!({"spec": {"containers": [{"image": "demo:blue", "name": "app"}]}}));
        let other = hash(&json!({"spec": {"containers": [{"name": "app", "image": "demo:red"}]}}));
        assert_eq!(one, same);
        assert_ne!(one, other);
    }
}
