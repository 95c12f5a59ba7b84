//! The conditions of Splits, whoever wrote them: `Accepted` (it can be served, and governs what it names) and `Verified` (every proxy
//! of its fleet serves it with effective shares as desired); and beside them what the proxies do serve.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tracing::warn;

use super::objects::{Name, rollout_of};
use super::observe::raw;
use super::status::difference;
use super::{Context, Error};
use crate::api::Split;
use crate::api::split::SplitStatus;
use crate::rollout::observed::{Fleet as View, named};
use crate::routing::govern::Governed;
use crate::routing::notice::{Notice, Reason, on_splits};
use crate::routing::split::{ReadSplit, read};
use crate::wire::Collection;

/// Writes the conditions of a Split without a Rollout, if they have changed.
///
/// # Errors
///
/// When the API server refuses, or the Split has changed meanwhile.
pub async fn reconcile(
    context: &Context,
    name: &Name,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let split = context.objects.splits.get(&name.namespace, &name.name);
    let Some(split) = split.filter(|split| is_own(context, split)) else {
        return Ok(None);
    };
    let status = split.status.clone().unwrap_or_default();
    let new = said(context, &split, now);
    let Some(difference) = difference(&status, &new) else {
        return Ok(None);
    };
    let patch = json!({
        "metadata": {"resourceVersion": split.metadata.resource_version},
        "status": difference,
    });
    let api = Collection::<Split>::within(&context.client, &name.namespace);
    api.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|source| Error::api(format!("Split {name}"), source))?;
    Ok(None)
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

/// A Split's status with what is to be said of it now; its memory is left alone. A new complaint is logged.
pub fn said(context: &Context, split: &Split, now: Timestamp) -> SplitStatus {
    let generation = split.metadata.generation.unwrap_or_default();
    let status = split.status.clone().unwrap_or_default();
    let competing = competing(context, split);
    let notices = notices(context, &competing);
    let about: Vec<&Notice> = notices
        .iter()
        .filter(|notice| notice.name == split.name_any())
        .collect();
    let ReadSplit { fleet, uid, .. } = &competing[0];
    let view = context.fleet.view(fleet, uid, generation);
    let mut conditions = status.conditions.clone();
    for wanted in [accepted(&about), verified(&view, &about)] {
        set(&mut conditions, wanted, generation, now);
    }
    let before = about_acceptance(&status.conditions);
    let complaint = about_acceptance(&conditions);
    if let Some(complaint) = complaint.filter(|text| before.as_ref() != Some(text)) {
        warn!(split = %Name::of(&split.metadata), "{complaint}");
    }
    SplitStatus {
        observed_generation: Some(generation),
        conditions,
        effective: context.fleet.effective(fleet, uid, &split.spec),
        memory: status.memory,
    }
}

/// Whether an older Split of its fleet has one of the Services that it governs.
pub fn has_lost(context: &Context, split: &Split) -> bool {
    let competing = competing(context, split);
    let mut lost = Governed::new(&competing).lost.into_iter();
    lost.any(|lost| lost.split == 0)
}

/// The Split, and after it those of its fleet that would govern a Service of its own; those of other fleets do not stand in its way.
fn competing(context: &Context, split: &Split) -> Vec<ReadSplit> {
    let own = read(&raw(split));
    let splits = &context.objects.splits;
    let services = own.services.iter();
    let others = services.flat_map(|service| splits.holding(&own.namespace, service));
    let others: BTreeMap<_, _> = others.map(|other| (other.name_any(), other)).collect();
    let others = others.values().filter(|other| other.uid() != split.uid());
    let others = others
        .map(|other| read(&raw(other)))
        .filter(|other| other.fleet == own.fleet);
    let others: Vec<_> = others.collect();
    [own].into_iter().chain(others).collect()
}

/// What is to be said of Splits of one fleet.
fn notices(context: &Context, splits: &[ReadSplit]) -> Vec<Notice> {
    let exists =
        |namespace: &str, name: &str| context.objects.services.get(namespace, name).is_some();
    on_splits(splits, &Governed::new(splits), exists)
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
            format!("not acknowledged by {}", named(&view.behind)),
        );
    }
    if !view.short.is_empty() {
        let message = format!(
            "too few ready pods for the shares asked for, at {}",
            named(&view.short)
        );
        return says(false, "Short", message);
    }
    says(
        true,
        "Verified",
        format!("served by {}", named(&view.proxies)),
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
