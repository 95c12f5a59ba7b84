//! The term that keeps new pods off nodes with stable ones (R20). It stands in the ReplicaSet's template, not in the spec, and no hash
//! knows of it.

use serde_json::{Value, json};

use super::decision::Action;
use super::plan::Apart;
use super::turn::Turn;
use crate::api::labels;

/// Keeps the term in step with what is stable; a revision that is stable itself has none.
pub(super) fn reconcile(turn: &mut Turn<'_>) {
    let (new, namespace) = (turn.new, &turn.observed.rollout.namespace);
    let ours = turn.plan.roles.apart.zip(turn.old_stable());
    let ours = ours.map(|(apart, stable)| term(apart, &stable.hash, namespace));
    let [required, preferred] = [REQUIRED, PREFERRED].map(|list| {
        let others = terms(&new.template, list).iter();
        let others = others.filter(|term| !is_ours(term)).cloned();
        let ours = ours.iter().filter(|(of, _)| *of == list);
        others
            .chain(ours.map(|(_, term)| term.clone()))
            .collect::<Vec<_>>()
    });
    if required != terms(&new.template, REQUIRED) || preferred != terms(&new.template, PREFERRED) {
        turn.act(Action::KeepApart {
            replica_set: new.name.clone(),
            required,
            preferred,
        });
    }
}

/// Adds the term: away from nodes with pods of that revision.
pub(super) fn put(template: &mut Value, apart: Apart, hash: &str, namespace: &str) {
    let (list, term) = term(apart, hash, namespace);
    let list = &mut template["spec"]["affinity"]["podAntiAffinity"][list];
    match list.as_array_mut() {
        Some(terms) => terms.push(term),
        None => *list = json!([term]),
    }
}

/// The term, and the list it belongs to.
fn term(apart: Apart, hash: &str, namespace: &str) -> (&'static str, Value) {
    let term = json!({
        "labelSelector": {"matchExpressions": [{"key": labels::POD_TEMPLATE_HASH, "operator": "In", "values": [hash]}]},
        "namespaces": [namespace],
        "topologyKey": HOSTNAME,
    });
    match apart {
        Apart::Required => (REQUIRED, term),
        Apart::Preferred(weight) => (
            PREFERRED,
            json!({"weight": weight, "podAffinityTerm": term}),
        ),
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

/// The terms of a list that stand in a template.
fn terms<'a>(template: &'a Value, list: &str) -> &'a [Value] {
    let terms = template["spec"]["affinity"]["podAntiAffinity"][list].as_array();
    terms.map_or(&[], Vec::as_slice)
}

const HOSTNAME: &str = "kubernetes.io/hostname";
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
