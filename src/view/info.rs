//! What is worth showing of a rollout and of what belongs to it: one value from which the terminal and the dashboard both print.
//!
//! Names and rules follow `kubectl argo rollouts` (reference 1.8). Times stay times: ages are computed when they are printed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::Serialize;
use serde_json::Value;
use sidestep_control::api::split::{LastAbort, Memory, SplitRule, Waiting};
use sidestep_control::api::{AnalysisRun, ReplicaSet, Rollout, Split, labels};

use super::paint::Icon;
use super::{phase, pod, weight};

/// A rollout and all that may belong to it; what does not is left out by owner.
#[derive(Clone, Debug, Default)]
pub(crate) struct Objects {
    /// The rollout.
    pub(crate) rollout: Rollout,
    /// ReplicaSets of its namespace.
    pub(crate) replica_sets: Vec<ReplicaSet>,
    /// Pods of its namespace.
    pub(crate) pods: Vec<Pod>,
    /// AnalysisRuns of its namespace.
    pub(crate) analysis_runs: Vec<AnalysisRun>,
    /// The Split of its name.
    pub(crate) split: Option<Split>,
}

/// A rollout as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Info {
    /// Its name.
    pub(crate) name: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// When it was created.
    pub(crate) created: Option<Time>,
    /// Its phase.
    pub(crate) status: String,
    /// The phase as an icon.
    pub(crate) icon: Icon,
    /// Why the phase is what it is; may be empty.
    pub(crate) message: String,
    /// What it waits for beyond the message.
    pub(crate) waiting: Option<Waiting>,
    /// Why the last update was aborted.
    pub(crate) last_abort: Option<LastAbort>,
    /// How it updates.
    pub(crate) strategy: Strategy,
    /// Every image in use.
    pub(crate) images: Vec<Image>,
    /// Pods by what they are.
    pub(crate) replicas: Replicas,
    /// What belongs to it, newest revision first.
    pub(crate) revisions: Vec<Revision>,
}

/// How a rollout updates.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Strategy {
    /// Step by step.
    Canary(Canary),
    /// All at once.
    BlueGreen,
    /// Neither was written.
    Unknown,
}

/// Where a canary is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Canary {
    /// `2/8`; empty without steps.
    pub(crate) step: String,
    /// The weight that the steps ask for.
    pub(crate) set_weight: i32,
    /// The weight that was set, or that the pods make.
    pub(crate) actual_weight: i32,
    /// The weight that the proxies can serve, in the same unit; `None` where no proxy has said so.
    pub(crate) effective_weight: Option<f64>,
}

/// Pods by what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Replicas {
    /// Wanted.
    pub(crate) desired: i32,
    /// That exist.
    pub(crate) current: i32,
    /// Of the newest revision.
    pub(crate) updated: i32,
    /// Ready.
    pub(crate) ready: i32,
    /// Ready for long enough.
    pub(crate) available: i32,
}

/// An image in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Image {
    /// The image.
    pub(crate) image: String,
    /// The parts its ReplicaSets play, sorted.
    pub(crate) tags: BTreeSet<&'static str>,
}

/// What belongs to one revision.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revision {
    /// Its number.
    pub(crate) number: i64,
    /// Its ReplicaSets.
    pub(crate) replica_sets: Vec<ReplicaSetInfo>,
    /// Its AnalysisRuns.
    pub(crate) analysis_runs: Vec<AnalysisRunInfo>,
}

/// A ReplicaSet as it is shown.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ReplicaSetInfo {
    /// Its name.
    pub(crate) name: String,
    /// When it was created.
    pub(crate) created: Option<Time>,
    /// Its revision.
    pub(crate) revision: i64,
    /// `Healthy`, `Progressing`, `ScaledDown`, `ReplicaFailure`.
    pub(crate) status: &'static str,
    /// The status as an icon.
    pub(crate) icon: Icon,
    /// The parts it plays: `stable`, `canary`, `active`, `preview`, `ping`, `pong`.
    pub(crate) tags: Vec<&'static str>,
    /// When it may be scaled to zero, as its annotation has it.
    pub(crate) scale_down_deadline: Option<String>,
    /// Its pods that exist.
    pub(crate) replicas: i32,
    /// Its pods that are available.
    pub(crate) available: i32,
    /// The images of its containers.
    pub(crate) images: Vec<String>,
    /// Its pods, oldest first.
    pub(crate) pods: Vec<PodInfo>,
}

/// A pod as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodInfo {
    /// Its name.
    pub(crate) name: String,
    /// When it was created.
    pub(crate) created: Option<Time>,
    /// As kubectl says it.
    pub(crate) status: String,
    /// The status as an icon.
    pub(crate) icon: Icon,
    /// `1/1`.
    pub(crate) ready: String,
    /// Restarts of its containers.
    pub(crate) restarts: i32,
}

/// An AnalysisRun as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AnalysisRunInfo {
    /// Its name.
    pub(crate) name: String,
    /// When it was created.
    pub(crate) created: Option<Time>,
    /// Its revision.
    pub(crate) revision: i64,
    /// Its phase.
    pub(crate) status: String,
    /// The phase as an icon.
    pub(crate) icon: Icon,
    /// Measurements of all metrics that succeeded.
    pub(crate) successful: i32,
    /// That failed.
    pub(crate) failed: i32,
    /// That were inconclusive.
    pub(crate) inconclusive: i32,
    /// That could not be made.
    pub(crate) error: i32,
    /// The Jobs that measured.
    pub(crate) jobs: Vec<JobInfo>,
}

/// A Job that measured, as its AnalysisRun tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct JobInfo {
    /// Its name.
    pub(crate) name: String,
    /// When it was started.
    pub(crate) created: Option<Time>,
    /// The measurement's phase.
    pub(crate) status: String,
    /// The phase as an icon.
    pub(crate) icon: Icon,
}

/// Key in a measurement's metadata under which the Job's name stands (Argo, `metricproviders/job`).
const JOB_NAME: &str = "job-name";

impl Info {
    /// Gathers what is worth showing.
    pub(crate) fn of(objects: &Objects) -> Self {
        let rollout = &objects.rollout;
        let (status, message) = phase::of(rollout);
        let replica_sets = replica_sets(objects);
        let memory = memory(objects);
        Self {
            name: rollout.metadata.name.clone().unwrap_or_default(),
            namespace: rollout.metadata.namespace.clone().unwrap_or_default(),
            created: rollout.metadata.creation_timestamp.clone(),
            icon: Icon::of_phase(&status),
            status,
            message,
            waiting: memory.waiting,
            last_abort: memory.last_abort,
            strategy: strategy(objects, &replica_sets),
            images: images(&replica_sets),
            replicas: replicas(rollout),
            revisions: revisions(replica_sets, analysis_runs(objects)),
        }
    }
}

/// What the controller remembers: in the Split, or in the annotation where there is none.
fn memory(objects: &Objects) -> Memory {
    let in_split = objects
        .split
        .as_ref()
        .and_then(|split| split.status.as_ref())
        .map(|status| status.memory.clone());
    let in_annotation = || {
        let text = objects
            .rollout
            .metadata
            .annotations
            .as_ref()?
            .get(labels::STATE)?;
        serde_json::from_str(text).ok()
    };
    in_split.or_else(in_annotation).unwrap_or_default()
}

fn strategy(objects: &Objects, replica_sets: &[ReplicaSetInfo]) -> Strategy {
    let rollout = &objects.rollout;
    if rollout.spec.strategy.canary.is_some() {
        let canary = replica_sets
            .iter()
            .find(|replica_set| replica_set.tags.contains(&"canary"));
        return Strategy::Canary(Canary {
            step: weight::step(rollout),
            set_weight: weight::set(rollout),
            actual_weight: weight::actual(rollout, canary.map(|canary| canary.available)),
            effective_weight: effective_weight(objects),
        });
    }
    if rollout.spec.strategy.blue_green.is_some() {
        Strategy::BlueGreen
    } else {
        Strategy::Unknown
    }
}

/// The canary's share as the proxies serve it, in the unit of the rollout's weights.
fn effective_weight(objects: &Objects) -> Option<f64> {
    let split = objects.split.as_ref()?;
    let is_weighted = |rule: &&SplitRule| rule.weights.len() > 1;
    let rule = split.spec.rules.iter().find(is_weighted)?;
    let served = split
        .status
        .as_ref()?
        .effective
        .iter()
        .find(|served| served.services == rule.services)?;
    let share = served.shares.get("canary").copied().unwrap_or(0.0);
    Some(share * f64::from(weight::max(&objects.rollout)))
}

fn replicas(rollout: &Rollout) -> Replicas {
    let status = rollout.status.clone().unwrap_or_default();
    Replicas {
        desired: rollout.spec.replicas.unwrap_or(1),
        current: status.replicas,
        updated: status.updated_replicas,
        ready: status.ready_replicas,
        available: status.available_replicas,
    }
}

fn replica_sets(objects: &Objects) -> Vec<ReplicaSetInfo> {
    let owner = objects.rollout.metadata.uid.as_deref();
    let owned = objects
        .replica_sets
        .iter()
        .filter(|replica_set| is_owned_by(&replica_set.metadata, owner));
    let mut found: Vec<ReplicaSetInfo> = owned
        .map(|replica_set| replica_set_info(objects, replica_set))
        .collect();
    found.sort_by(|a, b| (b.revision, &a.created, &a.name).cmp(&(a.revision, &b.created, &b.name)));
    found
}

fn replica_set_info(objects: &Objects, replica_set: &ReplicaSet) -> ReplicaSetInfo {
    let status = replica_set_status(replica_set);
    let counts = replica_set.status.clone().unwrap_or_default();
    ReplicaSetInfo {
        name: replica_set.metadata.name.clone().unwrap_or_default(),
        created: replica_set.metadata.creation_timestamp.clone(),
        revision: revision(&replica_set.metadata),
        status,
        icon: Icon::of_replica_set(status),
        tags: tags(&objects.rollout, replica_set),
        scale_down_deadline: annotation(&replica_set.metadata, labels::SCALE_DOWN_DEADLINE)
            .map(str::to_owned),
        replicas: counts.replicas,
        available: counts.available_replicas.unwrap_or_default(),
        images: container_images(&replica_set.spec.template),
        pods: pods(objects, replica_set),
    }
}

fn replica_set_status(replica_set: &ReplicaSet) -> &'static str {
    let status = replica_set.status.clone().unwrap_or_default();
    if replica_set.metadata.generation > status.observed_generation.or(Some(0)) {
        return "Progressing";
    }
    let mut conditions = status.conditions.iter().flatten();
    if conditions.any(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
    {
        return "ReplicaFailure";
    }
    match replica_set.spec.replicas {
        Some(wanted) if status.available_replicas.unwrap_or_default() < wanted => "Progressing",
        Some(0) => "ScaledDown",
        Some(_) | None => "Healthy",
    }
}

/// The parts a ReplicaSet plays, in the order in which they are shown.
fn tags(rollout: &Rollout, replica_set: &ReplicaSet) -> Vec<&'static str> {
    let hash = replica_set
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(labels::POD_TEMPLATE_HASH));
    let (Some(hash), Some(status)) = (hash, &rollout.status) else {
        return Vec::new();
    };
    let is = |wanted: Option<&str>| wanted == Some(hash.as_str());
    let is_stable = is(status.stable_rs.as_deref());
    let mut tags = Vec::new();
    if is_stable {
        tags.push("stable");
    }
    if let Some(canary) = &rollout.spec.strategy.canary {
        let is_canary = !is_stable && is(status.current_pod_hash.as_deref());
        if is_canary {
            tags.push("canary");
        }
        if canary.ping_pong.is_some() && (is_stable || is_canary) {
            let stable_is_ping = status.canary.stable_ping_pong.as_deref() == Some("ping");
            tags.push(if stable_is_ping == is_stable {
                "ping"
            } else {
                "pong"
            });
        }
    }
    if rollout.spec.strategy.blue_green.is_some() {
        if is(status.blue_green.active_selector.as_deref()) {
            tags.push("active");
        } else if is(status.blue_green.preview_selector.as_deref()) {
            tags.push("preview");
        }
    }
    tags
}

fn container_images(template: &Value) -> Vec<String> {
    let containers = template
        .pointer("/spec/containers")
        .and_then(Value::as_array);
    containers
        .into_iter()
        .flatten()
        .filter_map(|container| Some(container.get("image")?.as_str()?.to_owned()))
        .collect()
}

fn pods(objects: &Objects, replica_set: &ReplicaSet) -> Vec<PodInfo> {
    let owner = replica_set.metadata.uid.as_deref();
    let mut found: Vec<PodInfo> = objects
        .pods
        .iter()
        .filter(|pod| is_owned_by(&pod.metadata, owner))
        .map(pod_info)
        .collect();
    found.sort_by(|a, b| (&a.created, &a.name).cmp(&(&b.created, &b.name)));
    found
}

fn pod_info(object: &Pod) -> PodInfo {
    let columns = pod::columns(object);
    PodInfo {
        name: object.metadata.name.clone().unwrap_or_default(),
        created: object.metadata.creation_timestamp.clone(),
        icon: pod::icon(&columns.status),
        status: columns.status,
        ready: format!("{}/{}", columns.ready, columns.containers),
        restarts: columns.restarts,
    }
}

fn analysis_runs(objects: &Objects) -> Vec<AnalysisRunInfo> {
    let owner = objects.rollout.metadata.uid.as_deref();
    let owned = objects
        .analysis_runs
        .iter()
        .filter(|run| is_owned_by(&run.metadata, owner));
    let mut found: Vec<AnalysisRunInfo> = owned.map(analysis_run_info).collect();
    found.sort_by(|a, b| (b.revision, &a.created, &b.name).cmp(&(a.revision, &b.created, &a.name)));
    found
}

fn analysis_run_info(run: &AnalysisRun) -> AnalysisRunInfo {
    let status = run.status.clone().unwrap_or_default();
    let results = &status.metric_results;
    AnalysisRunInfo {
        name: run.metadata.name.clone().unwrap_or_default(),
        created: run.metadata.creation_timestamp.clone(),
        revision: revision(&run.metadata),
        icon: Icon::of_analysis(&status.phase),
        successful: results.iter().map(|result| result.successful).sum(),
        failed: results.iter().map(|result| result.failed).sum(),
        inconclusive: results.iter().map(|result| result.inconclusive).sum(),
        error: results.iter().map(|result| result.error).sum(),
        jobs: results
            .iter()
            .flat_map(|result| &result.measurements)
            .filter_map(job_info)
            .collect(),
        status: status.phase,
    }
}

fn job_info(measurement: &sidestep_control::api::analysis::Measurement) -> Option<JobInfo> {
    Some(JobInfo {
        name: measurement.metadata.get(JOB_NAME)?.clone(),
        created: measurement.started_at.clone(),
        status: measurement.phase.clone(),
        icon: Icon::of_analysis(&measurement.phase),
    })
}

/// Every image of a ReplicaSet that has pods, sorted, each once with all parts it plays.
fn images(replica_sets: &[ReplicaSetInfo]) -> Vec<Image> {
    let mut images: Vec<Image> = Vec::new();
    for replica_set in replica_sets
        .iter()
        .filter(|replica_set| replica_set.replicas > 0)
    {
        for image in &replica_set.images {
            match images.iter_mut().find(|known| known.image == *image) {
                Some(known) => known.tags.extend(&replica_set.tags),
                None => images.push(Image {
                    image: image.clone(),
                    tags: replica_set.tags.iter().copied().collect(),
                }),
            }
        }
    }
    images.sort_by(|a, b| a.image.cmp(&b.image));
    images
}

/// Sorts what belongs to the rollout by revision, newest first; the order within a revision stays.
fn revisions(
    replica_sets: Vec<ReplicaSetInfo>,
    analysis_runs: Vec<AnalysisRunInfo>,
) -> Vec<Revision> {
    let mut revisions: BTreeMap<Reverse<i64>, Revision> = BTreeMap::new();
    for replica_set in replica_sets {
        revision_of(&mut revisions, replica_set.revision)
            .replica_sets
            .push(replica_set);
    }
    for run in analysis_runs {
        revision_of(&mut revisions, run.revision)
            .analysis_runs
            .push(run);
    }
    revisions.into_values().collect()
}

fn revision_of(revisions: &mut BTreeMap<Reverse<i64>, Revision>, number: i64) -> &mut Revision {
    let new = || Revision {
        number,
        replica_sets: Vec::new(),
        analysis_runs: Vec::new(),
    };
    revisions.entry(Reverse(number)).or_insert_with(new)
}

fn is_owned_by(metadata: &ObjectMeta, uid: Option<&str>) -> bool {
    let mut owners = metadata.owner_references.iter().flatten();
    uid.is_some_and(|uid| owners.any(|owner| owner.uid == uid))
}

fn revision(metadata: &ObjectMeta) -> i64 {
    annotation(metadata, labels::REVISION)
        .and_then(|text| text.parse().ok())
        .unwrap_or(0)
}

fn annotation<'a>(metadata: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    metadata.annotations.as_ref()?.get(key).map(String::as_str)
}
