//! Labels and annotations that pods carry for the part they play (R19): put on a ReplicaSet's template and on its pods, in place, and
//! taken away when the part is over. An annotation in Argo's form says which ones they are.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::decision::Action;
use super::hash;
use super::observed::Revision;
use super::plan::{Marks, Plan};
use super::turn::Turn;
use crate::api::labels;
use crate::api::rollout::PodMetadata;

/// Keys and what becomes of them; none takes the key away.
pub type Changes = BTreeMap<String, Option<String>>;

/// Gives every revision the marks of its part.
pub(super) fn reconcile(turn: &mut Turn<'_>) {
    let nothing = Marks::default();
    let roles = &turn.plan.roles;
    for set in turn.observed.revisions.iter().filter(|set| !set.deleting) {
        let is_new = set.uid == turn.new.uid;
        let is_stable = turn.stable.is_none_or(|stable| stable.uid == set.uid);
        let wanted = match (is_new, is_stable) {
            (_, true) => &roles.stable,
            (true, false) => &roles.new,
            (false, false) => &nothing,
        };
        // What a revision's template said itself is only known of the new one.
        let own = is_new.then_some(&turn.plan.template);
        if let Some(action) = change(set, wanted, own) {
            turn.act(action);
        }
    }
}

fn change(set: &Revision, wanted: &Marks, own: Option<&Value>) -> Option<Action> {
    let present = present(&set.annotations);
    if present == *wanted {
        return None;
    }
    let changes =
        |field: &str, present: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>| {
            let own = |key: &String| Some(own?["metadata"][field].get(key)?.as_str()?.to_owned());
            let gone = present.keys().filter(|key| !wanted.contains_key(*key));
            let gone = gone.map(|key| (key.clone(), own(key)));
            let set = wanted
                .iter()
                .map(|(key, value)| (key.clone(), Some(value.clone())));
            gone.chain(set).collect::<Changes>()
        };
    Some(Action::MarkPods {
        replica_set: set.name.clone(),
        labels: changes("labels", &present.labels, &wanted.labels),
        annotations: changes("annotations", &present.annotations, &wanted.annotations),
        note: note(wanted),
    })
}

/// The marks that a ReplicaSet's annotations say it has.
pub(super) fn present(annotations: &BTreeMap<String, String>) -> Marks {
    let text = annotations.get(labels::EPHEMERAL_METADATA);
    let metadata = text.and_then(|text| serde_json::from_str::<PodMetadata>(text).ok());
    metadata.unwrap_or_default().into()
}

/// The annotation for marks; none for none.
fn note(marks: &Marks) -> Option<String> {
    let value = json!({"labels": marks.labels, "annotations": marks.annotations});
    (*marks != Marks::default()).then(|| hash::as_go("PodTemplateMetadata", &value))
}

/// Gives a template that is about to be created the marks of its part, and its annotations the note.
pub(super) fn put(
    plan: &Plan,
    is_first: bool,
    template: &mut Value,
    annotations: &mut BTreeMap<String, String>,
) {
    let marks = if is_first {
        &plan.roles.stable
    } else {
        &plan.roles.new
    };
    for (field, marks) in [
        ("labels", &marks.labels),
        ("annotations", &marks.annotations),
    ] {
        for (key, value) in marks {
            if !template["metadata"][field].is_object() {
                template["metadata"][field] = json!({});
            }
            template["metadata"][field][key] = json!(value);
        }
    }
    annotations.extend(note(marks).map(|note| (labels::EPHEMERAL_METADATA.to_owned(), note)));
}

/// Takes the marks out of a live template. What they hid is not known any more: then only a name finds the revision.
pub(super) fn take_out(annotations: &BTreeMap<String, String>, live: &mut Value) {
    let present = present(annotations);
    for (field, marks) in [
        ("labels", &present.labels),
        ("annotations", &present.annotations),
    ] {
        if let Some(Value::Object(live)) = live["metadata"].get_mut(field) {
            live.retain(|key, _| !marks.contains_key(key));
        }
    }
}
