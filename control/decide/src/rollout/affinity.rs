//! The term that keeps new pods off nodes with stable ones (R20). It stands in the ReplicaSet's template, not in the spec, and no hash
//! knows of it.

use serde_json::{Value, json};

use super::decision::Action;
use super::plan::Apart;
use super::turn::Turn;
use crate::api::labels;

/// Keeps the term in step with what is stable; a revision that is stable itself has none.
pub(super) fn reconcile(turn: &mut Turn<'_>) {
    let new = turn.new;
    let mut wanted = new.template.clone();
    take_out(&mut wanted);
    if let (Some(apart), Some(stable)) = (turn.plan.roles.apart, turn.old_stable()) {
        put(
            &mut wanted,
            apart,
            &stable.hash,
            &turn.observed.rollout.namespace,
        );
    }
    if terms(&wanted) != terms(&new.template) {
        let [required, preferred] = terms(&wanted);
        turn.act(Action::KeepApart {
            replica_set: new.name.clone(),
            required,
            preferred,
        });
    }
}

/// Adds the term: away from nodes with pods of that revision.
pub(super) fn put(template: &mut Value, apart: Apart, hash: &str, namespace: &str) {
    let term = json!({
        "labelSelector": {"matchExpressions": [{"key": labels::POD_TEMPLATE_HASH, "operator": "In", "values": [hash]}]},
        "namespaces": [namespace],
        "topologyKey": HOSTNAME,
    });
    let (list, term) = match apart {
        Apart::Required => (REQUIRED, term),
        Apart::Preferred(weight) => (
            PREFERRED,
            json!({"weight": weight, "podAffinityTerm": term}),
        ),
    };
    let list = &mut template["spec"]["affinity"]["podAntiAffinity"][list];
    match list.as_array_mut() {
        Some(terms) => terms.push(term),
        None => *list = json!([term]),
    }
}

/// Takes the term out of a template, wherever it stands.
pub fn take_out(template: &mut Value) {
    for list in [REQUIRED, PREFERRED] {
        let path = format!("/spec/affinity/podAntiAffinity/{list}");
        if let Some(Value::Array(terms)) = template.pointer_mut(&path) {
            terms.retain(|term| !is_ours(term));
        }
    }
}

fn is_ours(term: &Value) -> bool {
    let term = term.get("podAffinityTerm").unwrap_or(term);
    let expressions = term["labelSelector"]["matchExpressions"].as_array();
    let names_hash = |expression: &Value| {
        expression["key"] == labels::POD_TEMPLATE_HASH && expression["operator"] == "In"
    };
    term["topologyKey"] == HOSTNAME && expressions.into_iter().flatten().any(names_hash)
}

/// The terms that stand in a template: required ones, preferred ones.
fn terms(template: &Value) -> [Vec<Value>; 2] {
    [REQUIRED, PREFERRED].map(|list| {
        let path = format!("/spec/affinity/podAntiAffinity/{list}");
        let terms = template.pointer(&path).and_then(Value::as_array);
        terms.cloned().unwrap_or_default()
    })
}

const HOSTNAME: &str = "kubernetes.io/hostname";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
