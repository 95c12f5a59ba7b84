//! Reads everything that one decision looks at, out of the caches. Nothing is judged here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodTemplate, Service};
use kube::ResourceExt;
use kube::api::ListParams;
use kube::core::Selector;

use super::objects::{Deployment, Name, controller_of, services_of};
use super::services::{self, Target};
use super::split;
use super::{Context, Error};
use crate::analysis::build::Role;
use crate::analysis::template::Templates;
use crate::api::analysis::{AnalysisTemplateSpec, MetricResult};
use crate::api::rollout::{RolloutSpec, TemplateRef, WorkloadRef};
use crate::api::split::{DEFAULT_FLEET, Memory};
use crate::api::{AnalysisRun, ReplicaSet, Rollout, Split, labels};
use crate::rollout::memory::recall;
use crate::rollout::observed::{
    self, Failure, Metadata, Observed, Revision, Run, RunPhase, WrittenSplit,
};
use crate::rollout::plan::{References, Workload};
use crate::routing::split::RawSplit;
use crate::wire::Collection;

/// A Rollout and what belongs to it, as one moment's caches show it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// The Rollout's name.
    pub name: Name,
    /// The Rollout.
    pub rollout: Arc<Rollout>,
    /// The ReplicaSets it owns.
    pub sets: Vec<Arc<ReplicaSet>>,
    /// The Services that its spec names, or its Split, and that exist.
    pub services: Vec<Arc<Service>>,
    /// The AnalysisRuns it owns.
    pub runs: Vec<Arc<AnalysisRun>>,
    /// The Split of its name, whoever owns it.
    pub split: Option<Arc<Split>>,
}

/// Reads the Rollout of that name and what belongs to it; none if it is gone.
pub fn scene(context: &Context, name: &Name) -> Option<Scene> {
    let objects = &context.objects;
    let namespace = name.namespace.as_str();
    let rollout = objects.rollouts.get(namespace, &name.name)?;
    let uid = rollout.uid().unwrap_or_default();
    let mut scene = Scene {
        name: name.clone(),
        split: objects.splits.get(namespace, &name.name),
        sets: objects.replica_sets.holding(namespace, &uid),
        runs: objects.runs.holding(namespace, &uid),
        rollout,
        services: Vec::new(),
    };
    let mut named = services_of(&scene.rollout);
    named.extend(scene.split_services());
    let services = named.iter();
    scene.services = services
        .filter_map(|service| objects.services.get(namespace, service))
        .collect();
    Some(scene)
}

/// What a Rollout's spec refers to, as far as it exists.
///
/// # Errors
///
/// When a workload that is no Deployment, or an object of another router, cannot be read.
pub async fn references(
    context: &Context,
    scene: &Scene,
    now: Timestamp,
) -> Result<References, Error> {
    let workload = match &scene.rollout.spec.workload_ref {
        Some(reference) => workload(context, &scene.name.namespace, reference).await?,
        None => None,
    };
    Ok(References {
        services: scene
            .services
            .iter()
            .map(|service| read_service(service))
            .collect(),
        templates: templates(context, &scene.name.namespace, &scene.rollout.spec),
        workload,
        live_routers: context
            .routers
            .live(&context.client, &scene.rollout, now)
            .await?,
        serves_routes: false, // no proxy of this version does
        split_taken: scene.split.is_some() && scene.own_split().is_none(),
    })
}

/// All that a decision looks at, beside plan and state.
pub fn observed(context: &Context, scene: &Scene) -> Observed {
    let rollout = &scene.rollout;
    let targets = scene.targets();
    let revision = |set: &Arc<ReplicaSet>| {
        let services = &context.objects.services;
        let existing = services.get(&scene.name.namespace, &services::name_of(set));
        let wanted = services::wanted(set, &targets);
        let is = |so: fn(&Service, &Service) -> bool| {
            existing
                .as_ref()
                .is_some_and(|existing| so(existing, &wanted))
        };
        Some(Revision {
            service_stands: is(services::is_owned_alike),
            ..Revision::read(set, is(services::is_as_wanted))?
        })
    };
    let split = scene.own_split();
    Observed {
        rollout: Metadata {
            name: scene.name.name.clone(),
            namespace: scene.name.namespace.clone(),
            uid: rollout.uid().unwrap_or_default(),
            generation: rollout.metadata.generation.unwrap_or_default(),
            annotations: rollout.annotations().clone(),
        },
        revisions: scene.sets.iter().filter_map(revision).collect(),
        services: scene
            .services
            .iter()
            .map(|service| read_service(service))
            .collect(),
        runs: scene.runs.iter().map(|run| read_run(run)).collect(),
        pods: None,
        split: split.map(|split| written(split, &scene.revision_services())),
        fleet: match split {
            Some(split) => fleet(context, split),
            None => observed::Fleet {
                leftover: context
                    .fleet
                    .serving(&scene.name.namespace, &scene.name.name),
                ..observed::Fleet::default()
            },
        },
        apexes: split
            .map(|split| split.spec.apexes.clone())
            .unwrap_or_default(),
        taken: context.taken(&scene.name).into_iter().collect(),
        experiment: Vec::new(), // nothing runs Experiments yet
    }
}

/// The pods of the Rollout's ReplicaSets, read from the API server: they are not watched, and seldom needed.
///
/// # Errors
///
/// When the API server refuses or does not answer.
pub async fn pods(
    context: &Context,
    scene: &Scene,
    selector: &Selector,
) -> Result<Vec<observed::Pod>, Error> {
    let api = Collection::<Pod>::within(&context.client, &scene.name.namespace);
    let listed = api.list(&ListParams::default().labels_from(selector)).await;
    let listed = listed.map_err(|source| Error::api("reading the pods to restart", source))?;
    let mut pods: Vec<_> = listed.iter().filter_map(observed::Pod::read).collect();
    let is_ours = |pod: &observed::Pod| {
        let mut sets = scene.sets.iter();
        sets.any(|set| set.metadata.uid.as_deref() == Some(&pod.replica_set))
    };
    pods.retain(is_ours);
    Ok(pods)
}

impl Scene {
    /// The Split, if it is the Rollout's own.
    pub fn own_split(&self) -> Option<&Arc<Split>> {
        let ours = |split: &&Arc<Split>| {
            let owner = controller_of(&split.metadata).map(|owner| &owner.uid);
            owner.is_some() && owner == self.rollout.metadata.uid.as_ref()
        };
        self.split.as_ref().filter(ours)
    }

    /// The Services that its Split governs, those included that the spec does not name any more.
    fn split_services(&self) -> impl Iterator<Item = String> {
        let rules = self.own_split().map(|split| split.spec.rules.clone());
        rules.into_iter().flatten().flat_map(|rule| rule.services)
    }

    /// The targets that its revisions must be reachable on.
    pub fn targets(&self) -> BTreeSet<Target> {
        services::targets(self.services.iter().map(AsRef::as_ref))
    }

    /// Revision → the name of its revision Service.
    pub fn revision_services(&self) -> BTreeMap<String, String> {
        let hash = |set: &ReplicaSet| set.labels().get(labels::POD_TEMPLATE_HASH).cloned();
        self.sets
            .iter()
            .filter_map(|set| Some((hash(set)?, services::name_of(set))))
            .collect()
    }

    /// What the rollout remembers beyond its status.
    pub fn memory(&self) -> Memory {
        let split = self.own_split();
        let split = split.map(|split| split.status.clone().unwrap_or_default().memory);
        recall(split.as_ref(), Some(&self.annotated_memory()))
    }

    /// What stands in the annotation. One that does not parse is as none: it is written anew.
    pub fn annotated_memory(&self) -> Memory {
        let text = self.rollout.annotations().get(labels::STATE);
        text.and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}

/// The Split as decisions see it. A version whose Service is not the one we would write counts as one of no revision: so a hand edit
/// of it is seen as the difference it is.
fn written(split: &Split, services: &BTreeMap<String, String>) -> WrittenSplit {
    let mut read = crate::rollout::Split::read(&split.spec);
    for (version, written) in read.versions.iter_mut().zip(&split.spec.versions) {
        let expected = services.get(&version.revision);
        let expected = expected.filter(|_| version.service.is_none()); // an experiment's is its own
        // A ReplicaSet that is gone has taken its Service along.
        if expected.is_some_and(|expected| *expected != written.service) {
            version.revision.clear();
        }
    }
    WrittenSplit {
        uid: split.uid().unwrap_or_default(),
        generation: split.metadata.generation.unwrap_or_default(),
        split: read,
    }
}

/// What the fleet says of the Split. Proxies that serve it, but not for the Services it means, are behind: an older Split has them.
fn fleet(context: &Context, split: &Split) -> observed::Fleet {
    let fleet = split.spec.fleet.as_deref().unwrap_or(DEFAULT_FLEET);
    let uid = split.uid().unwrap_or_default();
    let mut view = context
        .fleet
        .view(fleet, &uid, split.metadata.generation.unwrap_or_default());
    if split::has_lost(context, split) {
        view.behind.clone_from(&view.proxies);
        view.verified_at = None;
    }
    view
}

/// A Split as routing reads it.
pub fn raw(split: &Split) -> RawSplit {
    RawSplit {
        metadata: split.metadata.clone(),
        spec: serde_json::to_value(&split.spec).unwrap_or_default(),
    }
}

fn read_service(service: &Service) -> observed::Service {
    let selector = service.spec.as_ref().and_then(|spec| spec.selector.clone());
    observed::Service {
        name: service.name_any(),
        selector: selector.unwrap_or_default(),
        managed_by: service.annotations().get(labels::MANAGED_BY).cloned(),
        apex: false, // said by `apex::reserve`, which knows the plan
    }
}

fn read_run(run: &AnalysisRun) -> Run {
    let status = run.status.clone().unwrap_or_default();
    let created_at = run.metadata.creation_timestamp.as_ref().map(|time| time.0);
    Run {
        name: run.name_any(),
        role: role(run.labels()),
        hash: run
            .labels()
            .get(labels::POD_TEMPLATE_HASH)
            .cloned()
            .unwrap_or_default(),
        created_at: created_at.unwrap_or(Timestamp::UNIX_EPOCH),
        phase: RunPhase::read(&status.phase),
        message: status.message.unwrap_or_default(),
        terminating: run.spec.terminate == Some(true),
        failure: status
            .metric_results
            .iter()
            .find(|result| is_bad(result))
            .map(|result| failure(run, result)),
    }
}

fn role(labels: &BTreeMap<String, String>) -> Option<Role> {
    match labels.get(labels::ROLLOUT_TYPE)?.as_str() {
        "Background" => Some(Role::Background),
        "Step" => Some(Role::Step(labels.get(labels::STEP_INDEX)?.parse().ok()?)),
        "PrePromotion" => Some(Role::PrePromotion),
        "PostPromotion" => Some(Role::PostPromotion),
        _ => None,
    }
}

fn is_bad(result: &MetricResult) -> bool {
    !result.dry_run && matches!(result.phase.as_str(), "Failed" | "Error")
}

/// What broke: the metric, its last bad value, and the condition it broke.
fn failure(run: &AnalysisRun, result: &MetricResult) -> Failure {
    let metric = run
        .spec
        .metrics
        .iter()
        .find(|metric| metric.name == result.name);
    let condition = metric.and_then(|metric| {
        metric
            .failure_condition
            .clone()
            .or_else(|| metric.success_condition.clone())
    });
    let bad = result
        .measurements
        .iter()
        .rev()
        .find(|measurement| measurement.phase == result.phase);
    Failure {
        metric: result.name.clone(),
        value: bad.and_then(|measurement| measurement.value.clone()),
        condition,
    }
}

/// The templates that a spec names, and those that they name.
fn templates(context: &Context, namespace: &str, spec: &RolloutSpec) -> Templates {
    let mut found = Templates::default();
    let mut open: Vec<TemplateRef> = analyses(spec);
    while let Some(reference) = open.pop() {
        let name = &reference.template_name;
        let is_cluster = reference.cluster_scope == Some(true);
        let known = if is_cluster {
            &mut found.cluster
        } else {
            &mut found.namespaced
        };
        if known.contains_key(name) {
            continue;
        }
        if let Some(template) = template(context, namespace, name, is_cluster) {
            open.extend(template.templates.iter().cloned());
            known.insert(name.clone(), template);
        }
    }
    found
}

fn template(
    context: &Context,
    namespace: &str,
    name: &str,
    is_cluster: bool,
) -> Option<AnalysisTemplateSpec> {
    let objects = &context.objects;
    if is_cluster {
        objects
            .cluster_templates
            .get("", name)
            .map(|template| template.spec.template.clone())
    } else {
        objects
            .templates
            .get(namespace, name)
            .map(|template| template.spec.clone())
    }
}

/// The templates that the analyses of a Rollout name.
pub fn analyses(spec: &RolloutSpec) -> Vec<TemplateRef> {
    let canary = spec.strategy.canary.as_ref();
    let steps = canary
        .iter()
        .flat_map(|canary| canary.steps.iter().flatten())
        .filter_map(|step| step.analysis.as_ref());
    let background = canary
        .and_then(|canary| canary.analysis.as_ref())
        .map(|background| &background.analysis);
    let blue_green = spec.strategy.blue_green.iter();
    let promotion = blue_green
        .flat_map(|one| [&one.pre_promotion_analysis, &one.post_promotion_analysis])
        .flatten();
    steps
        .chain(background)
        .chain(promotion)
        .flat_map(|analysis| analysis.templates.iter().cloned())
        .collect()
}

/// What `workloadRef` leads to; none for a kind that it cannot name. Deployments are watched; those that are not in view, and the
/// rarer kinds, are read each time.
async fn workload(
    context: &Context,
    namespace: &str,
    reference: &WorkloadRef,
) -> Result<Option<Workload>, Error> {
    let name = reference.name.as_deref().unwrap_or_default();
    let (found, plural) = match reference.kind.as_deref() {
        Some("Deployment") => {
            let deployment = match context.objects.deployments.get(namespace, name) {
                Some(in_view) => Some(in_view),
                None => fetched::<Deployment>(context, namespace, name)
                    .await?
                    .map(Arc::new),
            };
            (
                deployment.map(|found| of_deployment(&found)),
                "deployments.apps",
            )
        }
        Some("ReplicaSet") => {
            let set = fetched::<ReplicaSet>(context, namespace, name).await?;
            (set.map(of_replica_set), "replicasets.apps")
        }
        Some("PodTemplate") => {
            let template = fetched::<PodTemplate>(context, namespace, name).await?;
            (template.map(of_pod_template), "podtemplates")
        }
        _ => return Ok(None),
    };
    let missing = || Workload::Missing(format!("{plural} \"{namespace}/{name}\" not found"));
    Ok(Some(found.unwrap_or_else(missing)))
}

async fn fetched<K>(context: &Context, namespace: &str, name: &str) -> Result<Option<K>, Error>
where
    K: kube::Resource<DynamicType = ()> + serde::de::DeserializeOwned,
{
    let read = Collection::<K>::within(&context.client, namespace)
        .get_opt(name)
        .await;
    read.map_err(|source| Error::api("reading the workload", source))
}

fn of_deployment(deployment: &Deployment) -> Workload {
    Workload::Found {
        template: deployment.spec.template.clone(),
        selector: deployment.spec.selector.clone(),
        generation: deployment.metadata.generation.unwrap_or_default(),
        replicas: Some(deployment.spec.replicas.unwrap_or(1)),
    }
}

fn of_replica_set(set: ReplicaSet) -> Workload {
    Workload::Found {
        template: set.spec.template,
        selector: Some(set.spec.selector),
        generation: set.metadata.generation.unwrap_or_default(),
        replicas: None,
    }
}

fn of_pod_template(template: PodTemplate) -> Workload {
    Workload::Found {
        template: serde_json::to_value(template.template).unwrap_or_default(),
        selector: None,
        generation: template.metadata.generation.unwrap_or_default(),
        replicas: None,
    }
}
