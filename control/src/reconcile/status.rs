//! The status patch, and the memory beside it.

use jiff::{Timestamp, Unit};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::api::rollout::{RolloutCondition, RolloutStatus};
use crate::api::split::Memory;

/// The merge patch that turns `old` into `new`; none where they are equal.
pub fn difference<T: Serialize + PartialEq>(old: &T, new: &T) -> Option<Value> {
    if old == new {
        return None;
    }
    let value = |of: &T| serde_json::to_value(of).unwrap_or_default();
    between(&value(old), &value(new))
}

/// A merge patch cannot change parts of a list: lists are replaced whole.
fn between(old: &Value, new: &Value) -> Option<Value> {
    match (old, new) {
        _ if old == new => None,
        (Value::Object(old), Value::Object(new)) => {
            let mut patch = Map::new();
            for key in old.keys().filter(|key| !new.contains_key(*key)) {
                patch.insert(key.clone(), Value::Null);
            }
            for (key, value) in new {
                let part = match old.get(key) {
                    Some(before) => between(before, value),
                    None => Some(value.clone()),
                };
                patch.extend(part.map(|part| (key.clone(), part)));
            }
            Some(Value::Object(patch))
        }
        _ => Some(new.clone()),
    }
}

/// The status of a Rollout whose ReplicaSet could not be created.
pub fn create_error(
    status: &RolloutStatus,
    set: &str,
    error: &str,
    now: Timestamp,
) -> RolloutStatus {
    let message = create_error_message(set, error);
    let mut status = status.clone();
    status.conditions.retain(|condition| {
        condition.kind != "Progressing" || condition.reason == "ReplicaSetCreateError"
    });
    if !status
        .conditions
        .iter()
        .any(|condition| condition.kind == "Progressing")
    {
        status.conditions.push(condition(
            "Progressing",
            "False",
            "ReplicaSetCreateError",
            &message,
            now,
        ));
    }
    status
}

/// In words, why a ReplicaSet could not be created.
pub fn create_error_message(set: &str, error: &str) -> String {
    format!("Failed to create new replica set \"{set}\": {error}")
}

/// Whether the memory has changed in more than the wording of what is waited for: an annotation is a change of the Rollout itself, so
/// it is written no oftener than that. Complaints about a spec are news: a person has to act on them.
pub fn is_news(old: &Memory, new: &Memory) -> bool {
    let reason = |memory: &Memory| {
        let waiting = memory.waiting.as_ref()?;
        let is_complaint = ["spec", "router"].contains(&waiting.reason.as_str());
        let message = is_complaint.then(|| waiting.message.clone());
        Some((waiting.reason.clone(), message))
    };
    let rest = |memory: &Memory| Memory {
        waiting: None,
        ..memory.clone()
    };
    reason(old) != reason(new) || rest(old) != rest(new)
}

fn condition(
    kind: &str,
    status: &str,
    reason: &str,
    message: &str,
    now: Timestamp,
) -> RolloutCondition {
    let now = Some(Time(now.round(Unit::Second).unwrap_or(now)));
    RolloutCondition {
        last_transition_time: now.clone(),
        last_update_time: now,
        message: message.to_owned(),
        reason: reason.to_owned(),
        status: status.to_owned(),
        kind: kind.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn apply(target: &mut Value, patch: &Value) {
        let Value::Object(patch) = patch else {
            *target = patch.clone();
            return;
        };
        if !target.is_object() {
            *target = json!({});
        }
        let target = target.as_object_mut().unwrap();
        for (key, value) in patch {
            if value.is_null() {
                target.remove(key);
            } else {
                apply(target.entry(key.clone()).or_insert(Value::Null), value);
            }
        }
    }

    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(Value::from),
            any::<u8>().prop_map(Value::from)
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-d]", inner, 0..4).prop_map(|map| json!(map)),
            ]
        })
    }

    proptest! {
        #[test]
        fn the_difference_turns_old_into_new(old in tree(), new in tree()) {
            let mut turned = old.clone();
            if let Some(patch) = between(&old, &new) {
                apply(&mut turned, &patch);
            }
            prop_assert_eq!(turned, new);
        }
    }
}
