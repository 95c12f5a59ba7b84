//! What a ReplicaSet's template and its pods carry for the part they play (R19, R20), and the workload that a Rollout takes over (R18).

use futures::{StreamExt, TryStreamExt, stream};
use kube::api::ListParams;

use super::{
    Error, Part, Patch, PatchParams, Pod, ReplicaSet, ResourceExt, Value, Writer, controller_of,
    json, labels,
};
use crate::reconcile::objects::Deployment;
use crate::rollout::marks::Changes;
use crate::wire::Collection;

/// Pods that are written side by side, as in Argo (R19.1).
const AT_ONCE: usize = 10;

impl Writer<'_> {
    /// The pods that are there, the template for those to come, and the pods that came between the two. The note goes with the
    /// template: should we die before it, all is done again.
    pub(super) async fn mark_pods(
        &mut self,
        replica_set: &str,
        labels: &Changes,
        annotations: &Changes,
        note: Option<&String>,
    ) -> Result<(), Error> {
        let marks = json!({"labels": labels, "annotations": annotations});
        self.mark_each_pod(replica_set, &marks).await?;
        let patch = json!({
            "metadata": {"annotations": {labels::EPHEMERAL_METADATA: note}},
            "spec": {"template": {"metadata": marks}},
        });
        self.patch::<ReplicaSet>(replica_set, patch, Part::Whole)
            .await?;
        self.mark_each_pod(replica_set, &marks).await
    }

    async fn mark_each_pod(&self, replica_set: &str, marks: &Value) -> Result<(), Error> {
        let mut sets = self.scene.sets.iter();
        let Some(set) = sets.find(|set| set.name_any() == replica_set) else {
            return Err(Error::Stale(format!("ReplicaSet {replica_set}")));
        };
        let hash = set.labels().get(labels::POD_TEMPLATE_HASH);
        let selector = format!(
            "{}={}",
            labels::POD_TEMPLATE_HASH,
            hash.map_or("", String::as_str)
        );
        let pods = Collection::<Pod>::within(&self.context.client, &self.scene.name.namespace);
        let listed = pods.list(&ListParams::default().labels(&selector)).await;
        let mut listed = listed.map_err(|source| Error::api("reading the pods to mark", source))?;
        let uid = set.metadata.uid.as_ref();
        listed.retain(|pod| {
            controller_of(&pod.metadata).map(|owner| &owner.uid) == uid && !is_marked(pod, marks)
        });
        let mut writes = Vec::new();
        for pod in listed {
            writes.push(mark(pods.clone(), pod, marks.clone()));
        }
        stream::iter(writes)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }

    /// R20.1. What else stands in the template's affinity stays.
    pub(super) async fn keep_apart(
        &mut self,
        replica_set: &str,
        required: &[Value],
        preferred: &[Value],
    ) -> Result<(), Error> {
        let terms = |terms: &[Value]| (!terms.is_empty()).then(|| terms.to_vec());
        let affinity = json!({"podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": terms(required),
            "preferredDuringSchedulingIgnoredDuringExecution": terms(preferred),
        }});
        let patch = json!({"spec": {"template": {"spec": {"affinity": affinity}}}});
        self.patch::<ReplicaSet>(replica_set, patch, Part::Whole)
            .await
    }

    /// R18.3.
    pub(super) async fn scale_workload(&mut self, name: &str, to: i32) -> Result<(), Error> {
        let patch = json!({"spec": {"replicas": to}});
        self.patch::<Deployment>(name, patch, Part::Whole).await
    }
}

/// One pod. One that is gone needs no marks, and one that has changed meanwhile gets them all the same.
async fn mark(pods: Collection<Pod>, pod: Pod, marks: Value) -> Result<(), Error> {
    let name = pod.name_any();
    let mut patch = json!({"metadata": marks});
    patch["metadata"]["uid"] = json!(pod.metadata.uid);
    match pods
        .patch(&name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
    {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(Error::api(format!("Pod {name}"), source)),
    }
}

fn is_marked(pod: &Pod, marks: &Value) -> bool {
    let has = |field: &str, present: &std::collections::BTreeMap<String, String>| {
        let mut wanted = marks[field].as_object().into_iter().flatten();
        wanted.all(|(key, value)| present.get(key).map(String::as_str) == value.as_str())
    };
    has("labels", pod.labels()) && has("annotations", pod.annotations())
}
