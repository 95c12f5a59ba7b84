//! Revisions: which ReplicaSet the spec asks for, its number, its annotations, and making one that is missing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::conditions::{self, Says};
use super::decision::{Action, Decision, Event, EventKind, NewReplicaSet, Told};
use super::observed::{Observed, Revision};
use super::plan::Plan;
use super::state::State;
use super::turn::Turn;
use super::{affinity, marks, template};
use crate::api::labels;
use crate::api::split::Adopted;

/// The ReplicaSet that the spec asks for, if it exists (R2.4).
///
/// It carries one of the names of the template, or is known to stand for it; or the spec is the one that was last looked at, and the
/// status names it; or its template says the same. The status is not believed while the spec was invalid, since the template may
/// have changed meanwhile.
pub(super) fn find<'a>(plan: &Plan, was: &State, observed: &'a Observed) -> Option<&'a Revision> {
    let hash = plan.names.today(was.collisions);
    let named = |hash: &str| observed.revisions.iter().find(|set| set.hash == hash);
    let adopted = was
        .memory
        .adopted
        .as_ref()
        .filter(|adopted| adopted.template == hash);
    named(&hash)
        .or_else(|| named(&plan.names.before(was.collisions)))
        .or_else(|| named(&adopted?.revision))
        .or_else(|| {
            named(
                was.current
                    .as_ref()
                    .filter(|_| is_same_template(plan, was, observed))?,
            )
        })
        .or_else(|| {
            let alike = |set: &&Revision| template::is_made_of(set, &plan.template);
            observed
                .revisions
                .iter()
                .filter(alike)
                .min_by_key(|set| set.created_at)
        })
}

/// A referenced workload changes without the Rollout's generation.
fn is_same_template(plan: &Plan, was: &State, observed: &Observed) -> bool {
    is_observed(was, observed) && plan.rollout.spec.workload_ref.is_none()
}

/// The status speaks of this spec.
pub(super) fn is_observed(was: &State, observed: &Observed) -> bool {
    was.observed_generation == Some(observed.rollout.generation.to_string())
        && was.condition(conditions::INVALID_SPEC).is_none()
}

/// Remembers a revision that has another's hash, so that it is found again when defaults change.
pub(super) fn adopt(turn: &mut Turn<'_>) {
    let template = turn.plan.names.today(turn.was.collisions);
    if template != turn.new.hash {
        let revision = turn.new.hash.clone();
        turn.next.memory.adopted = Some(Adopted { template, revision });
    }
}

/// The number of the new revision: one above all others, and never lowered (R1.3).
pub(super) fn number(observed: &Observed, new: &Revision) -> i64 {
    let others = observed.revisions.iter().filter(|set| set.uid != new.uid);
    next_number(others).max(new.number().unwrap_or(0))
}

fn next_number<'a>(sets: impl Iterator<Item = &'a Revision>) -> i64 {
    sets.filter_map(Revision::number).max().unwrap_or(0) + 1
}

/// Makes the ReplicaSet that is missing, and nothing else (R3.1).
pub(super) fn create(plan: &Plan, was: &State, observed: &Observed, now: Timestamp) -> Decision {
    let hash = plan.names.today(was.collisions);
    let name = format!("{}-{hash}", observed.rollout.name);
    let mut next = was.clone();
    if observed.taken.contains(&name) {
        next.collisions = Some(was.collisions.unwrap_or(0) + 1); // R2.5
        return Decision {
            status: next.status(),
            memory: next.memory,
            again: Some(now),
            ..Decision::default()
        };
    }
    let number = next_number(observed.revisions.iter());
    let message = format!("Created new replica set \"{name}\"");
    let says = Says {
        kind: conditions::PROGRESSING,
        status: "True",
        reason: "NewReplicaSetCreated",
        message: &message,
    };
    conditions::set(&mut next, &says, now);
    let event = |reason, message| Told {
        event: Event {
            kind: EventKind::Normal,
            reason,
            message,
        },
        after: Some(1),
    };
    Decision {
        events: vec![
            event("RolloutUpdated", updated_message(number)),
            event(
                "NewReplicaSetCreated",
                format!("Created ReplicaSet {name} (revision {number})"),
            ),
        ],
        actions: vec![
            Action::CreateReplicaSet(blank(plan, was, observed, name, hash, number)),
            Action::AnnotateRollout { revision: number },
        ],
        status: next.status(),
        memory: next.memory,
        again: Some(now),
    }
}

fn updated_message(number: i64) -> String {
    format!("Rollout updated to revision {number}")
}

/// R1.1.
fn blank(
    plan: &Plan,
    was: &State,
    observed: &Observed,
    name: String,
    hash: String,
    number: i64,
) -> NewReplicaSet {
    let mut template = plan.template.clone();
    let mut selector = plan.selector.clone();
    let labels = label(&mut template, &hash);
    selector
        .match_labels
        .get_or_insert_default()
        .insert(labels::POD_TEMPLATE_HASH.to_owned(), hash.clone());
    let mut annotations: BTreeMap<String, String> = inherited(observed).collect();
    annotations.insert(labels::REVISION.to_owned(), number.to_string());
    let replicas = plan.replicas.unwrap_or(1);
    annotations.insert(labels::DESIRED_REPLICAS.to_owned(), replicas.to_string());
    marks::put(plan, was.stable.is_none(), &mut template, &mut annotations);
    if let (Some(apart), Some(stable)) = (plan.roles.apart, &was.stable) {
        affinity::put(&mut template, apart, stable, &observed.rollout.namespace);
    }
    NewReplicaSet {
        name,
        hash,
        labels,
        annotations,
        selector,
        template,
        min_ready_seconds: plan.min_ready_seconds,
    }
}

/// Adds the hash to a template's labels; returns them all.
fn label(template: &mut Value, hash: &str) -> BTreeMap<String, String> {
    if !template["metadata"]["labels"].is_object() {
        template["metadata"]["labels"] = json!({});
    }
    let labels = &mut template["metadata"]["labels"];
    labels[labels::POD_TEMPLATE_HASH] = json!(hash);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = labels.as_object().into_iter().flatten();
    entries
        .map(|(key, value)| (key.clone(), text(value)))
        .collect()
}

/// The Rollout's annotations that its ReplicaSets get (R1.2).
fn inherited(observed: &Observed) -> impl Iterator<Item = (String, String)> {
    let own = |key: &str| {
        key.starts_with(labels::OURS)
            || [
                labels::LAST_APPLIED,
                labels::REVISION,
                labels::REVISION_HISTORY,
                labels::DESIRED_REPLICAS,
                labels::NOTIFIED,
            ]
            .contains(&key)
    };
    let annotations = observed.rollout.annotations.iter();
    annotations
        .filter(move |(key, _)| !own(key))
        .map(|(key, value)| (key.clone(), value.clone()))
}

/// Brings number, history and annotations of the new ReplicaSet up to date, and the Rollout's number with it (R1.2, R1.3).
pub(super) fn sync(turn: &mut Turn<'_>) {
    let new = turn.new;
    let mut set: BTreeMap<String, String> = inherited(turn.observed)
        .filter(|(key, value)| new.annotations.get(key) != Some(value))
        .collect();
    let number = turn.number;
    let is_renumbered = new.number() != Some(number);
    if is_renumbered {
        set.insert(labels::REVISION.to_owned(), number.to_string());
        if let Some(earlier) = new.number() {
            let history = new.annotations.get(labels::REVISION_HISTORY);
            let history = history.map_or(String::new(), |history| format!("{history},"));
            set.insert(
                labels::REVISION_HISTORY.to_owned(),
                format!("{history}{earlier}"),
            );
        }
    }
    let min_ready = turn.plan.min_ready_seconds;
    let min_ready_seconds = (new.min_ready_seconds != min_ready).then_some(min_ready);
    if !set.is_empty() || min_ready_seconds.is_some() {
        let (name, remove) = (new.name.clone(), Vec::new());
        turn.act(Action::AnnotateReplicaSet {
            name,
            set,
            remove,
            min_ready_seconds,
        });
    }
    if is_renumbered {
        turn.report("RolloutUpdated", updated_message(number));
    }
    if turn.observed.rollout.revision() != Some(number) {
        turn.act(Action::AnnotateRollout { revision: number });
    }
}
