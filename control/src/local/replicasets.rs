//! Plays the ReplicaSet controller: as many pods as are wanted, made from the template, counted in the status.

use std::cmp::Reverse;

use jiff::{SignedDuration, Timestamp};
use kube::core::Selector;
use serde_json::{Map, Value, json};

use super::kinds;
use super::notes::{self, Tone};
use super::owners;
use super::selector;
use super::store::{self, Change, Error, Object, Store};
use super::workloads::{Again, Key, Player};

/// The ReplicaSet controller.
#[derive(Debug)]
pub(super) struct ReplicaSets;

impl Player for ReplicaSets {
    fn all(&mut self, store: &Store) -> Vec<Key> {
        store
            .list(&kinds::REPLICA_SET, None)
            .objects
            .iter()
            .map(Key::of)
            .collect()
    }

    fn concerned(&mut self, store: &Store, change: &Change) -> Vec<Key> {
        if change.kind == &kinds::REPLICA_SET {
            return vec![Key::of(&change.object)];
        }
        if change.kind != &kinds::POD {
            return Vec::new();
        }
        let states = [Some(&change.object), change.previous.as_ref()];
        states
            .into_iter()
            .flatten()
            .flat_map(|pod| owners_of(store, pod))
            .collect()
    }

    fn settle(&mut self, store: &Store, key: &Key, now: Timestamp) -> Result<Again, Error> {
        let Some(set) = store.get(&kinds::REPLICA_SET, &key.namespace, &key.name) else {
            return Ok(None);
        };
        let Ok(selector) = selector::of_object(set["spec"].get("selector")) else {
            return Ok(None);
        };
        let pods = claim(store, &set, &selector)?;
        let mut failure = None;
        if !store::is_deleting(&set) {
            failure = scale(store, &set, pods, now).err();
        }
        let pods = owners::controlled(store, &kinds::POD, &key.namespace, &set);
        let (status, again) = status(&set, &pods, failure.as_ref(), now);
        owners::write_status(store, &kinds::REPLICA_SET, &set, &status)?;
        failure.map_or(Ok(again), Err)
    }
}

/// The ReplicaSets that a pod concerns: its controller, or those that could adopt it.
fn owners_of(store: &Store, pod: &Object) -> Vec<Key> {
    let namespace = store::text(pod, "namespace");
    if owners::controller(pod).is_some() {
        let name = owners::controller_name(pod, &kinds::REPLICA_SET).map(str::to_owned);
        return name
            .map(|name| Key {
                namespace: namespace.to_owned(),
                name,
            })
            .into_iter()
            .collect();
    }
    let sets = store.list(&kinds::REPLICA_SET, Some(namespace)).objects;
    sets.iter()
        .filter(|set| selects(set, pod))
        .map(Key::of)
        .collect()
}

fn selects(set: &Value, pod: &Value) -> bool {
    let selector = selector::of_object(set["spec"].get("selector"));
    selector.is_ok_and(|selector| {
        !selector.selects_all() && selector::matches(&selector, pod.pointer("/metadata/labels"))
    })
}

/// The set's active pods. Pods without a controller that it selects are adopted; its own that it no longer selects are let go.
fn claim(store: &Store, set: &Object, selector: &Selector) -> Result<Vec<Object>, Error> {
    let mut claimed = Vec::new();
    for pod in store
        .list(&kinds::POD, Some(store::text(set, "namespace")))
        .objects
    {
        let selected = selector::matches(selector, pod.pointer("/metadata/labels"));
        let own = owners::is_controlled_by(&pod, set);
        let adoptable = owners::controller(&pod).is_none()
            && owners::is_active(&pod)
            && !store::is_deleting(set);
        if own && !selected {
            release(store, set, &pod)?;
        } else if own {
            claimed.push(pod);
        } else if selected && adoptable {
            claimed.push(adopt(store, set, &pod)?);
        }
    }
    claimed.retain(|pod| owners::is_active(pod));
    Ok(claimed)
}

fn adopt(store: &Store, set: &Value, pod: &Value) -> Result<Object, Error> {
    let (namespace, name) = (store::text(pod, "namespace"), store::text(pod, "name"));
    store.update(
        &kinds::POD,
        namespace,
        name,
        store::version_of(pod),
        |pod| {
            let mut references = owners::references(pod).to_vec();
            references.push(owners::controller_reference(set));
            pod["metadata"]["ownerReferences"] = Value::Array(references);
        },
    )
}

fn release(store: &Store, set: &Value, pod: &Value) -> Result<Object, Error> {
    let (namespace, name) = (store::text(pod, "namespace"), store::text(pod, "name"));
    store.update(
        &kinds::POD,
        namespace,
        name,
        store::version_of(pod),
        |pod| {
            let mut references = owners::references(pod).to_vec();
            references.retain(|reference| reference["uid"] != set["metadata"]["uid"]);
            pod["metadata"]["ownerReferences"] = Value::Array(references);
        },
    )
}

/// Makes pods or deletes some.
fn scale(store: &Store, set: &Value, mut pods: Vec<Object>, now: Timestamp) -> Result<(), Error> {
    let wanted = wanted(set);
    for _ in pods.len()..wanted {
        match owners::create_pod(store, set, &set["spec"]["template"]) {
            Ok(pod) => note(
                store,
                set,
                Tone::Normal,
                "SuccessfulCreate",
                &format!("Created pod: {}", store::text(&pod, "name")),
            ),
            Err(error) => {
                note(
                    store,
                    set,
                    Tone::Warning,
                    "FailedCreate",
                    &format!("Error creating: {error}"),
                );
                return Err(error);
            }
        }
    }
    if pods.len() > wanted {
        pods.sort_by_cached_key(|pod| deletion_order(pod, now));
        for pod in pods.iter().take(pods.len() - wanted) {
            owners::delete(store, &kinds::POD, pod)?;
            note(
                store,
                set,
                Tone::Normal,
                "SuccessfulDelete",
                &format!("Deleted pod: {}", store::text(pod, "name")),
            );
        }
    }
    Ok(())
}

fn note(store: &Store, set: &Value, tone: Tone, reason: &str, message: &str) {
    notes::note(store, set, "replicaset-controller", tone, reason, message);
}

fn wanted(set: &Value) -> usize {
    set["spec"]["replicas"].as_u64().map_or(1, |replicas| {
        usize::try_from(replicas).unwrap_or(usize::MAX)
    })
}

/// Which pod goes first when there are too many; the least goes first. As Kubernetes (`controller.ActivePodsWithRanks`): without a
/// node, pending, not ready, cheap by annotation, ready for a short time, often restarted, young.
fn deletion_order(pod: &Value, now: Timestamp) -> impl Ord + use<> {
    let placed = pod["spec"]["nodeName"]
        .as_str()
        .is_some_and(|node| !node.is_empty());
    let phase = match pod["status"]["phase"].as_str() {
        Some("Running") => 2,
        Some("Unknown") => 1,
        _ => 0,
    };
    let ready_since = owners::ready_since(pod);
    let cost = &pod["metadata"]["annotations"]["controller.kubernetes.io/pod-deletion-cost"];
    let cost = cost
        .as_str()
        .and_then(|cost| cost.parse::<i32>().ok())
        .unwrap_or(0);
    let ready_for = ready_since.map_or(SignedDuration::ZERO, |since| now.duration_since(since));
    let restarts = pod["status"]["containerStatuses"][0]["restartCount"]
        .as_u64()
        .unwrap_or(0);
    let created = store::text(pod, "creationTimestamp").to_owned();
    let rank = (
        placed,
        phase,
        ready_since.is_some(),
        cost,
        ready_for,
        Reverse(restarts),
    );
    (rank, Reverse(created), store::text(pod, "name").to_owned())
}

/// The status that the pods give, and when a pod will become available.
fn status(set: &Value, pods: &[Object], failure: Option<&Error>, now: Timestamp) -> (Value, Again) {
    let active: Vec<&Object> = pods.iter().filter(|pod| owners::is_active(pod)).collect();
    let min_ready = SignedDuration::from_secs(set["spec"]["minReadySeconds"].as_i64().unwrap_or(0));
    let ready: Vec<Timestamp> = active
        .iter()
        .filter_map(|pod| owners::ready_since(pod))
        .collect();
    let missing = |since: &Timestamp| min_ready - now.duration_since(*since);
    let available = ready
        .iter()
        .filter(|since| !missing(since).is_positive())
        .count();
    let again = ready
        .iter()
        .map(missing)
        .filter(SignedDuration::is_positive)
        .min();
    let labelled = active
        .iter()
        .filter(|pod| has_labels(pod, &set["spec"]["template"]["metadata"]["labels"]))
        .count();

    let mut status = Map::new();
    status.insert("replicas".to_owned(), json!(active.len()));
    for (field, count) in [
        ("fullyLabeledReplicas", labelled),
        ("readyReplicas", ready.len()),
        ("availableReplicas", available),
    ] {
        if count > 0 {
            status.insert(field.to_owned(), json!(count));
        }
    }
    status.insert(
        "observedGeneration".to_owned(),
        set["metadata"]["generation"].clone(),
    );
    if let Some(failure) = failure {
        let now = store::whole_seconds(now);
        let condition = owners::condition(
            set,
            "ReplicaFailure",
            "True",
            "FailedCreate",
            &failure.to_string(),
            &now,
        );
        status.insert("conditions".to_owned(), json!([condition]));
    }
    (
        Value::Object(status),
        again.and_then(|again| again.try_into().ok()),
    )
}

fn has_labels(pod: &Value, labels: &Value) -> bool {
    let labels = labels.as_object().into_iter().flatten();
    labels
        .into_iter()
        .all(|(key, value)| pod["metadata"]["labels"].get(key) == Some(value))
}
