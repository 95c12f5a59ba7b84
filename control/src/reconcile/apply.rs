//! One action → one write, with the resourceVersion it was decided on.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::TryFutureExt;
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde_json::{Value, json};
use tracing::info;

use super::objects::{Key, Name, controller_of};
use super::observe::Scene;
use super::services;
use super::writes::{Kind, Place};
use super::{Context, Error};
use crate::api::replicaset::ReplicaSetSpec;
use crate::api::{AnalysisRun, ReplicaSet, Rollout, Split, labels};
use crate::rollout::Action;
use crate::rollout::decision::NewReplicaSet;
use crate::wire::Collection;

mod marks;

/// Writes what was decided on one scene.
#[derive(Debug)]
pub struct Writer<'a> {
    context: &'a Context,
    scene: &'a Scene,
    key: Key,
    /// What our own writes of this turn have made of objects, by kind and name: the next write rests on those. Of what is deleted there
    /// is no version.
    written: HashMap<(String, String), ObjectMeta>,
}

/// Which part of an object a patch goes to.
#[derive(Clone, Copy, Debug)]
enum Part {
    Whole,
    Status,
}

impl<'a> Writer<'a> {
    /// Nothing written yet.
    pub fn new(context: &'a Context, scene: &'a Scene) -> Self {
        Self {
            context,
            scene,
            key: Key::Rollout(scene.name.clone()),
            written: HashMap::new(),
        }
    }

    /// Does one action.
    ///
    /// # Errors
    ///
    /// When the API server refuses, or what the action rests on has changed.
    pub async fn apply(&mut self, action: &Action) -> Result<(), Error> {
        match action {
            Action::SetReplicas { replicas } => self.set_replicas(*replicas).await,
            Action::AnnotateRollout { revision } => self.number_rollout(*revision).await,
            Action::CreateReplicaSet(set) => self.create_replica_set(set).await,
            Action::AnnotateReplicaSet {
                name,
                set,
                remove,
                min_ready_seconds,
            } => {
                let spec = min_ready_seconds.map(|seconds| json!({"minReadySeconds": seconds}));
                self.patch_replica_set(name, annotations(set, remove), spec)
                    .await
            }
            Action::ScaleReplicaSet {
                name,
                from: _,
                to,
                set,
                remove,
            } => {
                let spec = json!({"replicas": to});
                self.patch_replica_set(name, annotations(set, remove), Some(spec))
                    .await
            }
            Action::EnsureRevisionService {
                replica_set,
                hash: _,
            } => self.ensure_revision_service(replica_set).await,
            Action::DeleteRevisionService { replica_set } => {
                self.delete_revision_service(replica_set).await
            }
            Action::SwitchService { name, hash } => self.switch_service(name, hash).await,
            Action::WriteSplit(split) => self.write_split(split).await,
            Action::DeleteSplit => self.delete::<Split>(&self.scene.name.name.clone()).await,
            Action::CreateAnalysisRun(run) => self.create(run.as_ref()).await,
            Action::TerminateAnalysisRun { name } => self.terminate(name).await,
            Action::MarkPods {
                replica_set,
                labels,
                annotations,
                note,
            } => {
                self.mark_pods(replica_set, labels, annotations, note.as_ref())
                    .await
            }
            Action::KeepApart {
                replica_set,
                required,
                preferred,
            } => self.keep_apart(replica_set, required, preferred).await,
            Action::NoteWorkload { generation } => self.note_workload(generation).await,
            Action::ScaleWorkload { name, to } => self.scale_workload(name, *to).await,
            Action::EvictPod { name, uid } => self.evict(name, uid).await,
            Action::DeleteReplicaSet { name } => self.delete::<ReplicaSet>(name).await,
            Action::DeleteAnalysisRun { name } => self.delete::<AnalysisRun>(name).await,
        }
    }

    /// Merge-patches the Rollout.
    ///
    /// # Errors
    ///
    /// When the API server refuses, or the Rollout has changed.
    pub async fn patch_rollout(&mut self, patch: Value) -> Result<(), Error> {
        let name = self.scene.name.name.clone();
        self.patch::<Rollout>(&name, patch, Part::Whole).await
    }

    async fn set_replicas(&mut self, replicas: i32) -> Result<(), Error> {
        self.patch_rollout(json!({"spec": {"replicas": replicas}}))
            .await
    }

    async fn number_rollout(&mut self, revision: i64) -> Result<(), Error> {
        self.annotate_rollout(labels::REVISION, &revision.to_string())
            .await
    }

    async fn note_workload(&mut self, generation: &str) -> Result<(), Error> {
        self.annotate_rollout(labels::WORKLOAD_GENERATION, generation)
            .await
    }

    async fn terminate(&mut self, run: &str) -> Result<(), Error> {
        self.patch::<AnalysisRun>(run, json!({"spec": {"terminate": true}}), Part::Whole)
            .await
    }

    async fn annotate_rollout(&mut self, key: &str, value: &str) -> Result<(), Error> {
        self.patch_rollout(json!({"metadata": {"annotations": {key: value}}}))
            .await
    }

    async fn patch_replica_set(
        &mut self,
        name: &str,
        mut patch: Value,
        spec: Option<Value>,
    ) -> Result<(), Error> {
        if let Some(spec) = spec {
            patch["spec"] = spec;
        }
        self.patch::<ReplicaSet>(name, patch, Part::Whole).await
    }

    /// Merge-patches the Rollout's status.
    ///
    /// # Errors
    ///
    /// When the API server refuses, or the Rollout has changed.
    pub async fn patch_rollout_status(&mut self, status: Value) -> Result<(), Error> {
        let name = self.scene.name.name.clone();
        self.patch::<Rollout>(&name, json!({"status": status}), Part::Status)
            .await
    }

    /// Merge-patches the status of the Rollout's Split.
    ///
    /// # Errors
    ///
    /// When the API server refuses, or the Split has changed.
    pub async fn patch_split_status(&mut self, status: Value) -> Result<(), Error> {
        let name = self.scene.name.name.clone();
        self.patch::<Split>(&name, json!({"status": status}), Part::Status)
            .await
    }

    /// Whether the Rollout has a Split of its own after what was written.
    pub fn has_split(&self) -> bool {
        match self.written_split() {
            Some(written) => written.resource_version.is_some(),
            None => self.scene.own_split().is_some(),
        }
    }

    /// The Rollout's Split as this turn has written it, if it has.
    pub fn written_split(&self) -> Option<&ObjectMeta> {
        let key = (Split::kind(&()).into_owned(), self.scene.name.name.clone());
        self.written.get(&key)
    }

    /// Makes a ReplicaSet that nobody controls the Rollout's own, or lets go of one (R1.4).
    ///
    /// # Errors
    ///
    /// When the API server refuses, or the ReplicaSet has changed.
    pub async fn own(&mut self, set: &ReplicaSet, owned: bool) -> Result<(), Error> {
        let ours = self.scene.rollout.metadata.uid.clone().unwrap_or_default();
        let mut owners = set.owner_references().to_vec();
        owners.retain(|owner| owner.uid != ours);
        if owned {
            owners.push(self.owner(true));
        }
        let patch = json!({"metadata": {"uid": set.metadata.uid, "ownerReferences": owners}});
        self.patch::<ReplicaSet>(&set.name_any(), patch, Part::Whole)
            .await
    }

    async fn create_replica_set(&mut self, new: &NewReplicaSet) -> Result<(), Error> {
        let NewReplicaSet {
            name,
            hash: _,
            labels,
            annotations,
            selector,
            template,
            min_ready_seconds,
        } = new;
        let set = ReplicaSet {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                namespace: Some(self.scene.name.namespace.clone()),
                labels: Some(labels.clone()),
                annotations: Some(annotations.clone()),
                owner_references: Some(vec![self.owner(true)]),
                ..ObjectMeta::default()
            },
            spec: ReplicaSetSpec {
                replicas: Some(0),
                min_ready_seconds: (*min_ready_seconds > 0).then_some(*min_ready_seconds),
                selector: selector.clone(),
                template: template.clone(),
            },
            status: None,
        };
        let result = self.create(&set).await;
        if matches!(result, Err(Error::Stale(_))) {
            self.note_if_taken(name).await?;
        }
        result
    }

    /// The name is there already: ours, and about to come into view, or another's (R2.5), as is one whose label was taken away.
    async fn note_if_taken(&self, name: &str) -> Result<(), Error> {
        let existing = self.api::<ReplicaSet>().get_opt(name).await;
        let existing =
            existing.map_err(|source| Error::api(format!("reading ReplicaSet {name}"), source))?;
        let Some(existing) = existing else {
            return Ok(());
        };
        let ours = controller_of(&existing.metadata).map(|owner| &owner.uid)
            == self.scene.rollout.metadata.uid.as_ref();
        if !ours || !existing.labels().contains_key(labels::POD_TEMPLATE_HASH) {
            self.context.take_name(&self.scene.name, name);
        }
        Ok(())
    }

    async fn ensure_revision_service(&mut self, replica_set: &str) -> Result<(), Error> {
        let Some(set) = self
            .scene
            .sets
            .iter()
            .find(|set| set.name_any() == replica_set)
        else {
            return Err(Error::Stale(format!("ReplicaSet {replica_set}")));
        };
        let wanted = services::wanted(set, &self.scene.targets());
        let name = wanted.name_any();
        match self
            .context
            .objects
            .services
            .get(&self.scene.name.namespace, &name)
        {
            None => self.create(&wanted).await,
            Some(existing) if services::is_owned_alike(&existing, &wanted) => {
                let spec = wanted.spec.unwrap_or_default();
                let patch = json!({"spec": {"selector": spec.selector, "ports": spec.ports, "publishNotReadyAddresses": false}});
                self.patch::<Service>(&name, patch, Part::Whole).await
            }
            Some(_) => Err(Error::InTheWay(format!(
                "Service {name} stands where a revision Service has to be"
            ))),
        }
    }

    async fn delete_revision_service(&mut self, replica_set: &str) -> Result<(), Error> {
        let mut sets = self.scene.sets.iter();
        match sets.find(|set| set.name_any() == replica_set) {
            Some(set) => self.delete::<Service>(&services::name_of(set)).await,
            None => Ok(()), // it has gone with its ReplicaSet
        }
    }

    /// R15.1.
    async fn switch_service(&mut self, name: &str, hash: &str) -> Result<(), Error> {
        let version = self.version::<Service>(name)?;
        let patch = json!({
            "metadata": {"resourceVersion": version, "annotations": {labels::MANAGED_BY: self.scene.name.name}},
            "spec": {"selector": {labels::POD_TEMPLATE_HASH: hash}},
        });
        let (api, params, patch) = (
            self.api::<Service>(),
            PatchParams::default(),
            Patch::Strategic(&patch),
        );
        let request = api.patch(name, &params, &patch);
        self.send::<Service>(name, request).await
    }

    async fn write_split(&mut self, split: &crate::rollout::Split) -> Result<(), Error> {
        let name = self.scene.name.name.clone();
        let services = self.scene.revision_services();
        if let Some(version) = split
            .revisions()
            .find(|version| !services.contains_key(&version.revision))
        {
            return Err(Error::Stale(format!(
                "the ReplicaSet of revision {}",
                version.revision
            )));
        }
        let spec = split.spec(&services);
        let Some(existing) = self.scene.own_split() else {
            let mut split = Split::new(&name, spec);
            split.metadata.namespace = Some(self.scene.name.namespace.clone());
            split.metadata.owner_references = Some(vec![self.owner(false)]);
            return self.create(&split).await;
        };
        let mut whole = Split::clone(existing);
        whole.metadata.resource_version = Some(self.version::<Split>(&name)?);
        whole.metadata.managed_fields = None;
        whole.spec = spec;
        let api = self.api::<Split>();
        self.send::<Split>(&name, api.replace(&name, &whole)).await
    }

    /// R21.1. kube's own `evict` names its options wrongly, so that the server would not see the uid.
    async fn evict(&self, name: &str, uid: &str) -> Result<(), Error> {
        let pods: Api<Pod> =
            Api::namespaced(self.context.client.clone(), &self.scene.name.namespace);
        let eviction = json!({
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self.scene.name.namespace},
            "deleteOptions": {"preconditions": {"uid": uid}},
        });
        let asked: kube::Result<Value> = pods
            .create_subresource("eviction", name, &PostParams::default(), &eviction)
            .await;
        match asked {
            Ok(_) => {
                info!(rollout = %self.scene.name, pod = name, "evicted for a restart");
                Ok(())
            }
            // A disruption budget is in the way, or the pod is gone already.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409 | 429) => {
                info!(rollout = %self.scene.name, pod = name, %status, "not evicted");
                Ok(())
            }
            Err(source) => Err(Error::api(format!("Pod {name}"), source)),
        }
    }

    async fn create<K: Kind + Serialize>(&mut self, object: &K) -> Result<(), Error> {
        let api = self.api::<K>();
        self.send::<K>(&object.name_any(), api.create(object)).await
    }

    async fn patch<K: Kind>(
        &mut self,
        name: &str,
        mut patch: Value,
        part: Part,
    ) -> Result<(), Error> {
        patch["metadata"]["resourceVersion"] = json!(self.version::<K>(name)?);
        let (api, params, patch) = (
            self.api::<K>(),
            PatchParams::default(),
            Patch::Merge(&patch),
        );
        match part {
            Part::Whole => self.send::<K>(name, api.patch(name, &params, &patch)).await,
            Part::Status => {
                let request = api.patch_status(name, &params, &patch);
                self.send::<K>(name, request).await
            }
        }
    }

    async fn delete<K: Kind>(&mut self, name: &str) -> Result<(), Error> {
        let Some(object) = self.cached::<K>(name) else {
            return Ok(());
        };
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: object.uid(),
                resource_version: Some(self.version::<K>(name)?),
            }),
            ..DeleteParams::background()
        };
        let api = self.api::<K>();
        let request = api.delete(name, &params);
        self.send::<K>(name, request.map_ok(|()| ObjectMeta::default()))
            .await
    }

    /// Sends a write of an object; the next one rests on the version that it brings.
    async fn send<K: Kind>(
        &mut self,
        name: &str,
        request: impl Future<Output = kube::Result<ObjectMeta>>,
    ) -> Result<(), Error> {
        let Context {
            client,
            objects,
            writes,
            ..
        } = self.context;
        let object = Name {
            namespace: self.scene.name.namespace.clone(),
            name: name.to_owned(),
        };
        let place = Place::<K>::new(client, objects, object);
        let written = writes.send(&self.key, place, request).await;
        let kind = K::kind(&()).into_owned();
        let written = written.map_err(|source| Error::api(format!("{kind} {name}"), source))?;
        self.written.insert((kind, name.to_owned()), written);
        Ok(())
    }

    /// The version a write rests on: our own last write's, else the one that was observed.
    fn version<K: Kind>(&self, name: &str) -> Result<String, Error> {
        let key = (K::kind(&()).into_owned(), name.to_owned());
        if let Some(written) = self.written.get(&key) {
            return Ok(written.resource_version.clone().unwrap_or_default());
        }
        let observed = match self.observed_version(&key) {
            Some(version) => Some(version),
            None => self.cached::<K>(name).and_then(|o| o.resource_version()),
        };
        observed.ok_or_else(|| Error::Stale(format!("{} {name}", key.0)))
    }

    /// The version in the scene, which is what the decision saw.
    fn observed_version(&self, (kind, name): &(String, String)) -> Option<String> {
        let scene = self.scene;
        let mut all = std::iter::once(("Rollout", &scene.rollout.metadata))
            .chain(scene.sets.iter().map(|set| ("ReplicaSet", &set.metadata)))
            .chain(
                scene
                    .services
                    .iter()
                    .map(|service| ("Service", &service.metadata)),
            )
            .chain(scene.runs.iter().map(|run| ("AnalysisRun", &run.metadata)))
            .chain(scene.split.iter().map(|split| ("Split", &split.metadata)));
        let found = all.find(|(of, metadata)| of == kind && metadata.name.as_ref() == Some(name));
        found.and_then(|(_, metadata)| metadata.resource_version.clone())
    }

    fn cached<K: Kind>(&self, name: &str) -> Option<Arc<K>> {
        K::cache(&self.context.objects).get(&self.scene.name.namespace, name)
    }

    fn owner(&self, blocks_deletion: bool) -> OwnerReference {
        let metadata = &self.scene.rollout.metadata;
        OwnerReference {
            api_version: Rollout::api_version(&()).into_owned(),
            kind: Rollout::kind(&()).into_owned(),
            name: self.scene.name.name.clone(),
            uid: metadata.uid.clone().unwrap_or_default(),
            controller: Some(true),
            block_owner_deletion: Some(blocks_deletion),
        }
    }

    fn api<K: Kind>(&self) -> Collection<K> {
        Collection::within(&self.context.client, &self.scene.name.namespace)
    }
}

/// A merge patch of annotations: those to set, and those to remove.
fn annotations(set: &BTreeMap<String, String>, remove: &[String]) -> Value {
    let mut annotations = json!(set);
    for key in remove {
        annotations[key] = Value::Null;
    }
    json!({"metadata": {"annotations": annotations}})
}
