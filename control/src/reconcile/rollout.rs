//! The driver for Rollouts: observe → plan → decide → apply → status.

use jiff::Timestamp;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use kube::core::{Selector, SelectorExt};
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::warn;

use super::apply::Writer;
use super::objects::{Key, Name, controller_of};
use super::observe::{self, Scene};
use super::{Context, Error, apex, behind, split, status, words};
use crate::api::rollout::RolloutStatus;
use crate::api::split::{DEFAULT_FLEET, Memory, SplitStatus};
use crate::api::{Rollout, labels};
use crate::rollout::decision::{Event, EventKind, PATIENCE};
use crate::rollout::plan::{self, Invalid};
use crate::rollout::restart;
use crate::rollout::{Action, Decision, State, decide};

/// Looks at one Rollout and does what follows; answers when to look again by itself.
///
/// # Errors
///
/// When the spec is invalid, the API server refuses, or what was observed has changed meanwhile.
pub async fn reconcile(
    context: &Context,
    name: &Name,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let key = Key::Rollout(name.clone());
    if let Some(wait) = context.writes.catch_up(&key).await? {
        return Ok(now.checked_add(wait).ok());
    }
    let Some(scene) = observe::scene(context, name) else {
        part(context, name, now);
        return Ok(None);
    };
    context.meet(name, &scene.rollout);
    if scene.rollout.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    greet(context, &scene, now);
    let mut writer = Writer::new(context, &scene);
    let result = Box::pin(step(context, &scene, &mut writer, now)).await;
    if let Err(Error::Api { doing, source }) = &result {
        let event = warning("ReconciliationError", format!("{doing}: {source}"));
        context.events.tell(scene.rollout.as_ref(), &event, now);
    }
    result
}

/// One decision and its writes.
async fn step(
    context: &Context,
    scene: &Scene,
    writer: &mut Writer<'_>,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let references = observe::references(context, scene, now).await?;
    let state = state(scene);
    let plan = match plan::plan(&scene.rollout, &references) {
        Ok(plan) => plan,
        Err(_) if behind::is_behind(context, scene, &references).await? => {
            return Err(Error::Stale("what the spec names".to_owned()));
        }
        Err(complaints) => return refuse(context, scene, writer, &complaints, now).await,
    };
    let selector = Selector::try_from(plan.selector.clone()).ok();
    if settle_ownership(context, scene, writer, selector.as_ref()).await? {
        return Ok(Some(now));
    }
    let mut observed = observe::observed(context, scene);
    let about_apexes = apex::reserve(context, scene, &plan, &mut observed, now);
    if let Some(selector) = selector.filter(|_| restart::is_due(&plan, &state, now)) {
        observed.pods = Some(observe::pods(context, scene, &selector).await?);
    }
    let decision = decide(&plan, &state, &observed, now);
    let tell = |done| {
        for event in decision.told(done) {
            context.events.tell(scene.rollout.as_ref(), event, now);
        }
    };
    tell(Some(0));
    for (done, action) in (1..).zip(&decision.actions) {
        if let Err(error) = writer.apply(action).await {
            tell_of_failure(context, scene, writer, (action, &error), now).await?;
            return Err(error);
        }
        tell(Some(done));
    }
    write_memory(context, scene, writer, &decision.memory, now).await?;
    if is_answered(context, &decision, writer).await {
        return Ok(Some(now));
    }
    write_status(scene, writer, &decision).await?;
    tell(None);
    let about_routers = context.routers.look_again(&scene.rollout, now);
    let again = decision.again.into_iter().chain(about_routers);
    Ok(again.chain(about_apexes).min())
}

/// Says in the status what is wrong with the spec, and does nothing else.
async fn refuse(
    context: &Context,
    scene: &Scene,
    writer: &mut Writer<'_>,
    complaints: &[Invalid],
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let observed = observe::observed(context, scene);
    let decision = plan::refuse(&observed.rollout, &state(scene), complaints, now);
    write_memory(context, scene, writer, &decision.memory, now).await?;
    let all: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    if write_status(scene, writer, &decision).await? {
        warn!(rollout = %scene.name, "the spec is invalid: {}", all.join("; "));
    }
    Err(Error::Invalid(all.into_iter().next().unwrap_or_default()))
}

/// Whether the proxies serve the Split that this turn has written. They mostly do by now, and then the status is old before it is written:
/// the turn ends as if we had died here, and the next one says it with their answer.
async fn is_answered(context: &Context, decision: &Decision, writer: &Writer<'_>) -> bool {
    let is_split = |action: &&Action| matches!(action, Action::WriteSplit(_));
    let Some(Action::WriteSplit(split)) = decision.actions.iter().find(is_split) else {
        return false;
    };
    let Some(written) = writer.written_split() else {
        return false;
    };
    let fleet = split.fleet.as_deref().unwrap_or(DEFAULT_FLEET);
    let uid = written.uid.as_deref().unwrap_or_default();
    let generation = written.generation.unwrap_or_default();
    let answer = context.fleet.verifies(fleet, uid, generation);
    timeout(PATIENCE.unsigned_abs(), answer).await.is_ok()
}

fn state(scene: &Scene) -> State {
    let status = scene.rollout.status.clone().unwrap_or_default();
    State::from_status(&status, &scene.memory())
}

/// Adopts ReplicaSets that match and have no controller, releases those that no longer match (R1.4). Returns whether it did.
async fn settle_ownership(
    context: &Context,
    scene: &Scene,
    writer: &mut Writer<'_>,
    selector: Option<&Selector>,
) -> Result<bool, Error> {
    let Some(selector) = selector else {
        return Ok(false);
    };
    let mut settled = false;
    let orphans = &context.objects.replica_sets;
    let orphans = orphans.holding(&scene.name.namespace, words::NOBODY);
    for set in scene.sets.iter().chain(&orphans) {
        let matches = selector.matches(set.labels());
        let ours = controller_of(&set.metadata)
            .map(|owner| Some(&owner.uid) == scene.rollout.metadata.uid.as_ref());
        let change = match ours {
            None if matches && set.metadata.deletion_timestamp.is_none() => true,
            Some(true) if !matches => false,
            None | Some(_) => continue,
        };
        writer.own(set, change).await?;
        settled = true;
    }
    Ok(settled)
}

/// A ReplicaSet that is refused is said in the Rollout's own status (R2.5): it cannot go on without.
async fn tell_of_failure(
    context: &Context,
    scene: &Scene,
    writer: &mut Writer<'_>,
    (action, error): (&Action, &Error),
    now: Timestamp,
) -> Result<(), Error> {
    let (Action::CreateReplicaSet(set), Error::Api { source, .. }) = (action, error) else {
        return Ok(());
    };
    let old = scene.rollout.status.clone().unwrap_or_default();
    let new = status::create_error(&old, &set.name, &source.to_string(), now);
    if let Some(patch) = status::difference(&old, &new) {
        writer.patch_rollout_status(patch).await?;
        let event = warning(
            "ReplicaSetCreateError",
            status::create_error_message(&set.name, &source.to_string()),
        );
        context.events.tell(scene.rollout.as_ref(), &event, now);
    }
    Ok(())
}

/// Writes the memory where it belongs now: into the Split's status, beside what is to be said of the Split, or the annotation while
/// there is no Split.
///
/// It goes before the status: should we die between the two, the same decision is taken again and finds it there.
async fn write_memory(
    context: &Context,
    scene: &Scene,
    writer: &mut Writer<'_>,
    memory: &Memory,
    now: Timestamp,
) -> Result<(), Error> {
    let annotated = scene.rollout.annotations().contains_key(labels::STATE);
    if writer.has_split() {
        if let Some(patch) = split_status(context, scene, writer, memory, now) {
            writer.patch_split_status(patch).await?;
        }
        return match annotated {
            true => writer.patch_rollout(annotation(None)).await,
            false => Ok(()),
        };
    }
    let old = scene.annotated_memory();
    if !status::is_news(&old, memory) {
        return Ok(());
    }
    let worth_writing = *memory != Memory::default();
    match worth_writing || annotated {
        true => {
            writer
                .patch_rollout(annotation(worth_writing.then_some(memory)))
                .await
        }
        false => Ok(()),
    }
}

/// What is new in the status of the Rollout's Split. What is to be said of a Split that this turn has written is said when it is in
/// view.
fn split_status(
    context: &Context,
    scene: &Scene,
    writer: &Writer<'_>,
    memory: &Memory,
    now: Timestamp,
) -> Option<Value> {
    let split = scene.own_split();
    let old = split.and_then(|split| split.status.clone());
    let old = old.unwrap_or_default();
    let said = split.filter(|_| writer.written_split().is_none());
    let said = said.map(|split| split::said(context, split, now));
    let new = SplitStatus {
        memory: memory.clone(),
        ..said.unwrap_or_else(|| old.clone())
    };
    status::difference(&old, &new)
}

fn annotation(memory: Option<&Memory>) -> Value {
    let text = memory.map(|memory| serde_json::to_string(memory).unwrap_or_default());
    json!({"metadata": {"annotations": {labels::STATE: text}}})
}

/// Writes the status if it has changed; says whether it has.
async fn write_status(
    scene: &Scene,
    writer: &mut Writer<'_>,
    decision: &Decision,
) -> Result<bool, Error> {
    let old: RolloutStatus = scene.rollout.status.clone().unwrap_or_default();
    match status::difference(&old, &decision.status) {
        Some(patch) => writer.patch_rollout_status(patch).await.map(|()| true),
        None => Ok(false),
    }
}

/// The last Event of a Rollout, which is gone; nothing is remembered of it.
fn part(context: &Context, name: &Name, now: Timestamp) {
    if let Some(uid) = context.forget(name) {
        let metadata = ObjectMeta {
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            uid: Some(uid),
            ..ObjectMeta::default()
        };
        let rollout = Rollout {
            metadata,
            ..Rollout::default()
        };
        let event = Event {
            kind: EventKind::Normal,
            reason: "RolloutDeleted",
            message: format!("Rollout {}/{} is deleted.", name.name, name.namespace),
        };
        context.events.tell(&rollout, &event, now);
    }
    context.events.forget(name);
}

/// The first Event of a Rollout that nobody has looked at yet.
fn greet(context: &Context, scene: &Scene, now: Timestamp) {
    let is_new = scene
        .rollout
        .status
        .as_ref()
        .is_none_or(|status| *status == RolloutStatus::default());
    if is_new && scene.sets.is_empty() {
        let event = Event {
            kind: EventKind::Normal,
            reason: "RolloutAddedToInformer",
            message: format!("Rollout resource added to informer: {}", scene.name),
        };
        context.events.tell(scene.rollout.as_ref(), &event, now);
    }
}

fn warning(reason: &'static str, message: String) -> Event {
    Event {
        kind: EventKind::Warning,
        reason,
        message,
    }
}
