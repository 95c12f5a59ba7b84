//! The conditions of Splits, whoever wrote them: `Accepted` (it can be served, and governs what it names) and `Verified` (every proxy
//! of its fleet serves it with effective shares as desired); and beside them what the proxies do serve.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::warn;

use super::objects::rollout_of;
use super::observe::raw;
use super::status::difference;
use super::{Context, Error};
use crate::api::Split;
use crate::api::split::SplitStatus;
use crate::rollout::observed::Fleet as View;
use crate::routing::govern::Governed;
use crate::routing::notice::{Notice, Reason, on_splits};
use crate::routing::split::{ReadSplit, read};
use crate::wire::Collection;

/// Writes the conditions of our Splits of a namespace that have changed.
///
/// # Errors
///
/// When the API server refuses, or a Split has changed meanwhile.
pub async fn reconcile(
    context: &Context,
    namespace: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let splits = context.objects.splits.list(namespace);
    let notices = notices(context, &splits);
    let mut first_error = None;
    for split in splits.iter().filter(|split| is_own(context, split)) {
        let about: Vec<&Notice> = notices
            .iter()
            .filter(|notice| notice.name == split.name_any())
            .collect();
        if let Err(error) = write(context, split, &about, now).await {
            first_error.get_or_insert(error);
        }
    }
    first_error.map_or(Ok(None), Err)
}

/// Whether a Split is ours to speak of. Another controller may have another fleet, and would contradict us without end: a Rollout's Split
/// belongs to whoever looks after the Rollout, one without a Rollout to the instance that its label names.
fn is_own(context: &Context, split: &Split) -> bool {
    let Some(owner) = rollout_of(&split.metadata) else {
        return context.instance.is_own(&split.metadata);
    };
    let namespace = split.metadata.namespace.as_deref().unwrap_or_default();
    let rollout = context.objects.rollouts.get(namespace, &owner.name);
    rollout.is_some_and(|rollout| rollout.metadata.uid.as_ref() == Some(&owner.uid))
}

/// What is to be said of Splits; those of different fleets do not stand in each other's way.
fn notices(context: &Context, splits: &[Arc<Split>]) -> Vec<Notice> {
    let mut fleets: BTreeMap<String, Vec<ReadSplit>> = BTreeMap::new();
    for split in splits {
        let split = read(&raw(split));
        fleets.entry(split.fleet.clone()).or_default().push(split);
    }
    let exists =
        |namespace: &str, name: &str| context.objects.services.get(namespace, name).is_some();
    let of_fleet = |splits: &Vec<ReadSplit>| on_splits(splits, &Governed::new(splits), exists);
    fleets.values().flat_map(of_fleet).collect()
}

async fn write(
    context: &Context,
    split: &Split,
    about: &[&Notice],
    now: Timestamp,
) -> Result<(), Error> {
    let generation = split.metadata.generation.unwrap_or_default();
    let status = split.status.clone().unwrap_or_default();
    let read = read(&raw(split));
    let view = context.fleet.view(&read.fleet, &read.uid, generation);
    let wanted = [accepted(about), verified(&view, about)];
    let mut conditions = status.conditions.clone();
    for wanted in wanted {
        set(&mut conditions, wanted, generation, now);
    }
    let new = SplitStatus {
        observed_generation: Some(generation),
        conditions,
        effective: context.fleet.effective(&read.fleet, &read.uid, &split.spec),
        memory: status.memory.clone(),
    };
    let Some(difference) = difference(&status, &new) else {
        return Ok(());
    };
    let patch = json!({
        "metadata": {"resourceVersion": split.metadata.resource_version},
        "status": difference,
    });
    let name = split.name_any();
    let said = about_acceptance(&status.conditions);
    if let Some(complaint) =
        about_acceptance(&new.conditions).filter(|text| said.as_ref() != Some(text))
    {
        warn!(split = %name, "{complaint}");
    }
    let namespace = split.namespace().unwrap_or_default();
    let api = Collection::<Split>::within(&context.client, &namespace);
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|source| Error::api(format!("Split {name}"), source))?;
    Ok(())
}

/// Why a Split is not served as it is written, if it is not.
fn about_acceptance(conditions: &[Condition]) -> Option<String> {
    let refused =
        |condition: &&Condition| condition.type_ == "Accepted" && condition.status == "False";
    conditions
        .iter()
        .find(refused)
        .map(|condition| condition.message.clone())
}

/// What a condition is to say.
struct Says {
    kind: &'static str,
    status: bool,
    reason: &'static str,
    message: String,
}

fn accepted(about: &[&Notice]) -> Says {
    let messages: Vec<&str> = about.iter().map(|notice| notice.message.as_str()).collect();
    Says {
        kind: "Accepted",
        status: about.is_empty(),
        reason: about
            .first()
            .map_or("Accepted", |notice| notice.reason.name()),
        message: match messages.is_empty() {
            true => "the Split is served as it is written".to_owned(),
            false => messages.join("; "),
        },
    }
}

fn verified(view: &View, about: &[&Notice]) -> Says {
    let says = |status, reason, message| Says {
        kind: "Verified",
        status,
        reason,
        message,
    };
    let is_served = |notice: &&Notice| {
        !matches!(
            notice.reason,
            Reason::Invalid | Reason::Conflict | Reason::Unsupported
        )
    };
    if !about.iter().all(is_served) {
        return says(
            false,
            "NotAccepted",
            "the Split is not served as it is written".to_owned(),
        );
    }
    if view.proxies.is_empty() {
        return says(false, "NoProxy", "the fleet has no proxy".to_owned());
    }
    if !view.behind.is_empty() {
        return says(
            false,
            "Unacknowledged",
            format!("not acknowledged by {}", view.behind.join(", ")),
        );
    }
    if !view.short.is_empty() {
        let message = format!(
            "too few ready pods for the shares asked for, at {}",
            view.short.join(", ")
        );
        return says(false, "Short", message);
    }
    says(
        true,
        "Verified",
        format!("served by {}", view.proxies.join(", ")),
    )
}

/// Rewrites a condition where it says something else; its time moves with its status only.
fn set(conditions: &mut Vec<Condition>, says: Says, generation: i64, now: Timestamp) {
    let status = if says.status { "True" } else { "False" };
    let old = conditions
        .iter_mut()
        .find(|condition| condition.type_ == says.kind);
    let kept = old
        .as_ref()
        .filter(|old| old.status == status)
        .map(|old| old.last_transition_time.clone());
    let new = Condition {
        type_: says.kind.to_owned(),
        status: status.to_owned(),
        reason: says.reason.to_owned(),
        message: says.message,
        observed_generation: Some(generation),
        last_transition_time: kept.unwrap_or(Time(now)),
    };
    match old {
        Some(old) => *old = new,
        None => conditions.push(new),
    }
}
