//! `undo`: the template of an earlier revision comes back.

use anyhow::{anyhow, bail};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::PodTemplate;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::core::Selector;
use serde_json::{Value, json};
use sidestep_control::api::labels::{POD_TEMPLATE_HASH, REVISION};
use sidestep_control::api::{ReplicaSet, Rollout};
use sidestep_control::rollout::affinity;
use sidestep_control::wire::Collection;

use super::print;
use super::rollouts::Rollouts;
use crate::cli::UndoArgs;

/// Annotation on ReplicaSets: labels and annotations put on pods for as long as they play a part; not the template's own.
const EPHEMERAL_METADATA: &str = "rollout.argoproj.io/ephemeral-metadata";

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Undone {
    /// The template was written.
    Yes,
    /// The rollout is at that revision already.
    AlreadyThere,
}

/// Brings back the template of a revision; 0 is the one before the newest.
pub(crate) async fn undo(rollouts: &Rollouts, name: &str, revision: u32) -> anyhow::Result<Undone> {
    let rollout = rollouts.get(name).await?;
    let target = choose(
        name,
        owned_replica_sets(rollouts, &rollout).await?,
        revision,
    )?;
    if is_current(&rollout, &target) {
        return Ok(Undone::AlreadyThere);
    }
    let patch =
        json!([{"op": "replace", "path": "/spec/template", "value": own_template(&target)}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch)?);
    let (api, object) = template_holder(rollouts, &rollout, name)?;
    let patched = api.patch(&object, &PatchParams::default(), &patch).await;
    patched.map_err(|error| {
        anyhow!(
            "failed restoring revision {revision}: {}",
            super::failure::text(&error.into())
        )
    })?;
    Ok(Undone::Yes)
}

/// Undoes and says so.
pub(crate) async fn run(rollouts: &Rollouts, args: &UndoArgs) -> anyhow::Result<()> {
    match undo(rollouts, &args.name, args.to_revision).await? {
        Undone::Yes => print(&format!("rollout '{}' undo\n", args.name)),
        Undone::AlreadyThere => print(&format!(
            "skipped rollback (current template already matches revision {})\n",
            args.to_revision
        )),
    }
}

async fn owned_replica_sets(
    rollouts: &Rollouts,
    rollout: &Rollout,
) -> anyhow::Result<Vec<ReplicaSet>> {
    let selector: Selector = rollout
        .spec
        .selector
        .clone()
        .unwrap_or_default()
        .try_into()?;
    let api = Collection::<ReplicaSet>::within(&rollouts.client, &rollouts.namespace);
    let mut all = api
        .list(&ListParams::default().labels_from(&selector))
        .await?;
    all.retain(|replica_set| {
        let mut owners = replica_set.metadata.owner_references.iter().flatten();
        owners.any(|owner| {
            owner.controller == Some(true) && Some(&owner.uid) == rollout.metadata.uid.as_ref()
        })
    });
    Ok(all)
}

/// The ReplicaSet of that revision, or of the second newest.
fn choose(
    name: &str,
    mut replica_sets: Vec<ReplicaSet>,
    revision: u32,
) -> anyhow::Result<ReplicaSet> {
    if revision > 0 {
        let found = replica_sets
            .into_iter()
            .find(|replica_set| number(replica_set) == Some(revision));
        return found
            .ok_or_else(|| anyhow!("unable to find specified revision {revision} in history"));
    }
    replica_sets.sort_by_key(|replica_set| std::cmp::Reverse(number(replica_set)));
    match replica_sets.into_iter().nth(1) {
        Some(previous) => Ok(previous),
        None => bail!("no revision found for rollout \"{name}\""),
    }
}

fn number(replica_set: &ReplicaSet) -> Option<u32> {
    replica_set
        .metadata
        .annotations
        .as_ref()?
        .get(REVISION)?
        .parse()
        .ok()
}

/// Whether the rollout's template is that ReplicaSet's: the controller has seen the spec and found this hash for it.
fn is_current(rollout: &Rollout, target: &ReplicaSet) -> bool {
    let status = rollout.status.clone().unwrap_or_default();
    let hash = target
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(POD_TEMPLATE_HASH));
    let generation = rollout
        .metadata
        .generation
        .map(|generation| generation.to_string());
    hash.is_some()
        && hash == status.current_pod_hash.as_ref()
        && status.observed_generation == generation
}

/// The template as the user wrote it: without the hash, and without what pods carry only for the part they play.
fn own_template(replica_set: &ReplicaSet) -> Value {
    let mut template = replica_set.spec.template.clone();
    remove(&mut template, "labels", POD_TEMPLATE_HASH);
    let annotations = replica_set.metadata.annotations.as_ref();
    let injected = annotations
        .and_then(|all| serde_json::from_str::<Value>(all.get(EPHEMERAL_METADATA)?).ok());
    for field in ["labels", "annotations"] {
        let keys = injected
            .as_ref()
            .and_then(|injected| injected.get(field)?.as_object());
        keys.into_iter()
            .flatten()
            .for_each(|(key, _)| remove(&mut template, field, key));
    }
    affinity::take_out(&mut template);
    template
}

fn remove(template: &mut Value, field: &str, key: &str) {
    let map = template
        .pointer_mut(&format!("/metadata/{field}"))
        .and_then(Value::as_object_mut);
    map.and_then(|map| map.shift_remove(key));
}

/// What holds the template: the rollout, or what its `workloadRef` names.
fn template_holder(
    rollouts: &Rollouts,
    rollout: &Rollout,
    name: &str,
) -> anyhow::Result<(Api<DynamicObject>, String)> {
    let Some(workload) = &rollout.spec.workload_ref else {
        return Ok((rollouts.json(), name.to_owned()));
    };
    let resource = match workload.kind.as_deref().unwrap_or_default() {
        "Deployment" => ApiResource::erase::<Deployment>(&()),
        "ReplicaSet" => ApiResource::erase::<ReplicaSet>(&()),
        "PodTemplate" => ApiResource::erase::<PodTemplate>(&()),
        kind => bail!("workload of type {kind} is not supported"),
    };
    let api = Api::namespaced_with(rollouts.client.clone(), &rollouts.namespace, &resource);
    Ok((api, workload.name.clone().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::failure;
    use crate::commands::script::Script;

    const ROLLOUT: &str = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo";
    const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/there/deployments/web";
    const REPLICA_SETS: &str = "/apis/apps/v1/namespaces/there/replicasets";

    fn rollout(workload: Option<&str>, current: &str) -> Value {
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "demo", "uid": "ro", "generation": 3},
            "spec": {"selector": {"matchLabels": {"app": "demo"}}, "workloadRef": workload.map(|kind| json!({"kind": kind, "name": "web"}))},
            "status": {"currentPodHash": current, "observedGeneration": "3"},
        })
    }

    fn replica_set(hash: &str, revision: &str, owner: &str) -> Value {
        json!({
            "metadata": {
                "name": format!("demo-{hash}"), "labels": {"rollouts-pod-template-hash": hash},
                "annotations": {
                    "rollout.argoproj.io/revision": revision,
                    "rollout.argoproj.io/ephemeral-metadata": r#"{"labels":{"role":"stable"},"annotations":{}}"#,
                },
                "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "demo", "uid": owner, "controller": true}],
            },
            "spec": {"selector": {}, "template": {
                "metadata": {"labels": {"app": "demo", "rollouts-pod-template-hash": hash, "role": "stable"}},
                "spec": {"containers": [{"name": "app", "image": hash}]},
            }},
        })
    }

    /// What was patched, or what was said instead.
    async fn check(rollout: Value, revision: u32, outcome: &str) {
        let list = json!({"metadata": {}, "items": [
            replica_set("v1", "1", "ro"), replica_set("v3", "3", "ro"), replica_set("v2", "2", "ro"), replica_set("v9", "9", "other"),
        ]});
        let script = Script::default()
            .answer("GET", ROLLOUT, rollout)
            .answer("GET", REPLICA_SETS, list)
            .answer("PATCH", ROLLOUT, json!({"metadata": {"name": "demo"}}))
            .answer("PATCH", DEPLOYMENT, json!({"metadata": {"name": "web"}}));
        let said = match undo(&script.rollouts(), "demo", revision).await {
            Ok(Undone::Yes) => script.requests().last().unwrap().clone(),
            Ok(Undone::AlreadyThere) => "already there".to_owned(),
            Err(error) => failure::text(&error),
        };
        assert_eq!(said, outcome, "revision {revision}");
    }

    fn patch(path: &str, hash: &str) -> String {
        let template = format!(
            r#"{{"metadata":{{"labels":{{"app":"demo"}}}},"spec":{{"containers":[{{"name":"app","image":"{hash}"}}]}}}}"#
        );
        format!(
            r#"PATCH {path} application/json-patch+json [{{"op":"replace","path":"/spec/template","value":{template}}}]"#
        )
    }

    #[tokio::test]
    async fn the_template_of_the_revision_comes_back_as_it_was_written() {
        check(rollout(None, "v3"), 0, &patch(ROLLOUT, "v2")).await;
        check(rollout(None, "v3"), 1, &patch(ROLLOUT, "v1")).await;
        check(
            rollout(Some("Deployment"), "v3"),
            1,
            &patch(DEPLOYMENT, "v1"),
        )
        .await;
    }

    #[tokio::test]
    async fn what_cannot_be_undone_is_said() {
        check(rollout(None, "v3"), 3, "already there").await;
        check(
            rollout(None, "v3"),
            7,
            "unable to find specified revision 7 in history",
        )
        .await;
        check(
            rollout(None, "v3"),
            9,
            "unable to find specified revision 9 in history",
        )
        .await;
        check(
            rollout(Some("StatefulSet"), "v3"),
            1,
            "workload of type StatefulSet is not supported",
        )
        .await;
    }

    #[test]
    fn without_an_earlier_revision_there_is_nothing_to_undo() {
        let only = serde_json::from_value(replica_set("v1", "1", "ro")).unwrap();
        let error = choose("demo", vec![only], 0).unwrap_err();
        assert_eq!(error.to_string(), "no revision found for rollout \"demo\"");
    }
}
