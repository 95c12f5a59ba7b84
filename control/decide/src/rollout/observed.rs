//! What is: the objects of one rollout as they were read, and what the fleet says.
//!
//! Everything here is of one moment. The reader leaves nothing out that exists, and judges nothing.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::Value;

use super::split::Split;
use crate::analysis::build::Role;
use crate::api::labels;
use crate::api::replicaset::ReplicaSet;
use crate::api::split::Apex;

/// All that one decision looks at, beside the plan and the state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Observed {
    /// The Rollout's own metadata.
    pub rollout: Metadata,
    /// The ReplicaSets it owns that carry a pod-template hash, in any order.
    pub revisions: Vec<Revision>,
    /// The Services that its spec names and that exist.
    pub services: Vec<Service>,
    /// The AnalysisRuns it owns, in any order.
    pub runs: Vec<Run>,
    /// The pods of those ReplicaSets, read only while a restart is under way.
    pub pods: Option<Vec<Pod>>,
    /// Its Split, if it exists and is ours.
    pub split: Option<WrittenSplit>,
    /// What the proxies that serve the Split say of it.
    pub fleet: Fleet,
    /// Ports of the proxies that are reserved for ports of its Services, to be written into the Split as they are.
    pub apexes: Vec<Apex>,
    /// Names in its namespace that ReplicaSets of others have taken.
    pub taken: Vec<String>,
    /// The versions of its experiment that are to have a weight, while it is Running (R17.6), in the experiment's order.
    pub experiment: Vec<Experimental>,
}

/// A version of an experiment that is to have a weight. It is none of the Rollout's revisions, even where it has the hash of one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Experimental {
    /// Name of the experiment's template.
    pub name: String,
    /// The Service that lists its pods.
    pub service: String,
    /// Its pod-template hash.
    pub hash: String,
    /// Pods that it has been given.
    pub pods: i32,
    /// Its weight, of what a weight is a part of.
    pub weight: i32,
}

/// The Rollout's own metadata.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metadata {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid.
    pub uid: String,
    /// Counts changes of its spec.
    pub generation: i64,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
}

impl Metadata {
    /// The revision number that stands on the Rollout.
    #[must_use]
    pub fn revision(&self) -> Option<i64> {
        number(&self.annotations, labels::REVISION)
    }
}

/// One revision: a ReplicaSet with its counts. Counts are pods.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Revision {
    /// The ReplicaSet's name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its pod-template hash, read from its label and never computed again.
    pub hash: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its pod template, as JSON.
    pub template: Value,
    /// Its `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
    /// Pods wanted: its `spec.replicas`.
    pub wanted: i32,
    /// Pods that exist.
    pub pods: i32,
    /// Pods that are ready.
    pub ready: i32,
    /// Pods that have been ready for `minReadySeconds`.
    pub available: i32,
    /// Its counts belong to its present spec.
    pub settled: bool,
    /// It is being deleted.
    pub deleting: bool,
    /// Its condition `ReplicaFailure`, if true: reason and message.
    pub failure: Option<(String, String)>,
    /// Its revision Service exists, as it is wanted.
    pub has_service: bool,
    /// Its revision Service exists, wanted or not.
    pub service_stands: bool,
}

impl Revision {
    /// Reads a ReplicaSet; none if it carries no pod-template hash.
    #[must_use]
    pub fn read(set: &ReplicaSet, has_service: bool) -> Option<Self> {
        let metadata = &set.metadata;
        let hash = metadata.labels.as_ref()?.get(labels::POD_TEMPLATE_HASH)?;
        let status = set.status.clone().unwrap_or_default();
        let failure = status
            .conditions
            .iter()
            .flatten()
            .find(|condition| condition.type_ == "ReplicaFailure" && condition.status == "True")
            .map(|condition| {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                (text(&condition.reason), text(&condition.message))
            });
        Some(Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            hash: hash.clone(),
            created_at: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            annotations: metadata.annotations.clone().unwrap_or_default(),
            template: set.spec.template.clone(),
            min_ready_seconds: set.spec.min_ready_seconds.unwrap_or(0),
            wanted: set.spec.replicas.unwrap_or(1),
            pods: status.replicas,
            ready: status.ready_replicas.unwrap_or(0),
            available: status.available_replicas.unwrap_or(0),
            settled: status.observed_generation >= metadata.generation,
            deleting: metadata.deletion_timestamp.is_some(),
            failure,
            has_service,
            service_stands: has_service,
        })
    }

    /// Its revision number.
    #[must_use]
    pub fn number(&self) -> Option<i64> {
        number(&self.annotations, labels::REVISION)
    }

    /// `spec.replicas` of the Rollout when it was last scaled.
    #[must_use]
    pub fn desired(&self) -> Option<i64> {
        number(&self.annotations, labels::DESIRED_REPLICAS)
    }

    /// From when it may be scaled to zero, if it waits for that. A time that cannot be read has passed.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let text = self.annotations.get(labels::SCALE_DOWN_DEADLINE)?;
        Some(text.parse().unwrap_or(Timestamp::MIN))
    }
}

fn number(annotations: &BTreeMap<String, String>, key: &str) -> Option<i64> {
    annotations.get(key)?.parse().ok()
}

/// A pod of one of the ReplicaSets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Uid of its ReplicaSet.
    pub replica_set: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Since when it has been ready, if it is.
    pub ready_since: Option<Timestamp>,
    /// It is being deleted.
    pub terminating: bool,
}

impl Pod {
    /// Reads a pod; none if no ReplicaSet controls it.
    #[must_use]
    pub fn read(pod: &core::Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let owners = metadata.owner_references.iter().flatten();
        let mut owners = owners.filter(|owner| owner.controller == Some(true));
        let status = pod.status.iter();
        let mut conditions = status.flat_map(|status| status.conditions.iter().flatten());
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        let ready = ready.filter(|condition| condition.status == "True");
        let time = |time: Option<&Time>| time.map_or(Timestamp::UNIX_EPOCH, |time| time.0);
        Some(Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            replica_set: owners.next()?.uid.clone(),
            created_at: time(metadata.creation_timestamp.as_ref()),
            ready_since: ready.map(|condition| time(condition.last_transition_time.as_ref())),
            terminating: metadata.deletion_timestamp.is_some(),
        })
    }
}

/// A Service that the spec names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// Its selector.
    pub selector: BTreeMap<String, String>,
    /// Its annotation `managed-by-rollouts`.
    pub managed_by: Option<String>,
    /// It is an apex: it has no selector, and is to have none, as its EndpointSlices lead to the proxies.
    pub apex: bool,
}

impl Service {
    /// The revision its selector names, if it does.
    #[must_use]
    pub fn hash(&self) -> Option<&str> {
        self.selector
            .get(labels::POD_TEMPLATE_HASH)
            .map(String::as_str)
    }
}

/// An AnalysisRun.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its name.
    pub name: String,
    /// What it is for, as its labels say; none for one made by hand.
    pub role: Option<Role>,
    /// The revision it judges.
    pub hash: String,
    /// When it was created.
    pub created_at: Timestamp,
    /// Where it stands.
    pub phase: RunPhase,
    /// In words.
    pub message: String,
    /// It has been told to end.
    pub terminating: bool,
    /// What made it fail, where it has failed.
    pub failure: Option<Failure>,
}

/// Where an AnalysisRun stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RunPhase {
    /// Not begun.
    #[default]
    Pending,
    /// Measuring.
    Running,
    /// Good.
    Successful,
    /// Bad.
    Failed,
    /// Neither.
    Inconclusive,
    /// It could not be measured.
    Error,
}

impl RunPhase {
    /// As it stands in a status. An unknown word counts as not begun.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text {
            "Running" => Self::Running,
            "Successful" => Self::Successful,
            "Failed" => Self::Failed,
            "Inconclusive" => Self::Inconclusive,
            "Error" => Self::Error,
            _ => Self::Pending,
        }
    }

    /// The word for a status.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Running => "Running",
            Self::Successful => "Successful",
            Self::Failed => "Failed",
            Self::Inconclusive => "Inconclusive",
            Self::Error => "Error",
        }
    }

    /// It will not change any more.
    #[must_use]
    pub const fn is_finished(self) -> bool {
        !matches!(self, Self::Pending | Self::Running)
    }
}

/// What made a run fail.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    /// The metric.
    pub metric: String,
    /// The value it had.
    pub value: Option<String>,
    /// The condition that broke.
    pub condition: Option<String>,
}

/// The Split as it stands in the API.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct WrittenSplit {
    /// Its uid.
    pub uid: String,
    /// Counts changes of its spec.
    pub generation: i64,
    /// Its spec, versions named by revision.
    pub split: Split,
}

/// What the proxies say of the Split *as it stands in the API*: this uid, this generation or a later one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fleet {
    /// Who is there is known, be it nobody.
    pub listed: bool,
    /// Proxies that still serve a Split of this name that is gone, where there is none.
    pub leftover: Vec<String>,
    /// Every proxy of the fleet whose EndpointSlice entry still exists, by name.
    pub proxies: Vec<String>,
    /// Those that have not reported it live.
    pub behind: Vec<String>,
    /// Those that have, with effective shares other than the desired ones.
    pub short: Vec<String>,
    /// When the last of them reported it live with effective shares as desired.
    pub verified_at: Option<Timestamp>,
    /// Requests in flight by revision, summed over the proxies; revisions that have left the table included.
    pub in_flight: BTreeMap<String, u64>,
}

impl Fleet {
    /// Every proxy serves the Split as it stands, and there is at least one.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        !self.proxies.is_empty() && self.behind.is_empty()
    }

    /// … and every one's effective shares are the desired ones.
    #[must_use]
    pub fn verifies(&self) -> bool {
        self.acknowledges() && self.short.is_empty()
    }
}

/// Proxies of which a message speaks by name.
const NAMED: usize = 10;

/// Names of proxies for a message: the first of them, and how many more there are. A fleet may have thousands.
#[must_use]
pub fn named(proxies: &[String]) -> String {
    let some = proxies.iter().take(NAMED).map(String::as_str);
    let text = some.collect::<Vec<_>>().join(", ");
    match proxies.len().saturating_sub(NAMED) {
        0 => text,
        others => format!("{text} and {others} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_message_names_ten_proxies_and_counts_the_others() {
        let proxies =
            |count: usize| -> Vec<String> { (0..count).map(|n| format!("p{n}")).collect() };
        assert_eq!(named(&proxies(2)), "p0, p1");
        assert!(named(&proxies(10)).ends_with("p8, p9"));
        assert!(named(&proxies(1_000)).ends_with("p8, p9 and 990 more"));
    }

    fn set(change: &Value) -> Option<Revision> {
        let mut set = json!({
            "metadata": {
                "name": "web-1", "uid": "u", "generation": 4, "labels": {"rollouts-pod-template-hash": "1"},
                "creationTimestamp": "2026-01-01T00:00:00Z", "annotations": {"rollout.argoproj.io/revision": "3"},
            },
            "spec": {"replicas": 5, "minReadySeconds": 7, "template": {"x": 1}, "selector": {}},
            "status": {"replicas": 4, "readyReplicas": 3, "availableReplicas": 2, "observedGeneration": 4},
        });
        for (path, value) in change.as_object().unwrap() {
            *set.pointer_mut(path).unwrap() = value.clone();
        }
        Revision::read(&serde_json::from_value(set).unwrap(), true)
    }

    #[test]
    fn a_replica_set_is_read_as_a_revision() {
        let read = set(&json!({})).unwrap();
        assert_eq!((read.name.as_str(), read.hash.as_str()), ("web-1", "1"));
        assert_eq!(
            (read.wanted, read.pods, read.ready, read.available),
            (5, 4, 3, 2)
        );
        assert_eq!((read.number(), read.min_ready_seconds), (Some(3), 7));
        assert!(read.settled && read.has_service && !read.deleting);
        assert_eq!(set(&json!({"/metadata/labels": {}})), None, "R2.1: no hash");
    }

    #[test]
    fn what_a_replica_set_does_not_say_has_a_default() {
        let bare = json!({"/spec": {}, "/status": null});
        let read = set(&bare).unwrap();
        assert_eq!((read.wanted, read.pods, read.available), (1, 0, 0));
        assert!(!read.settled, "its counts are of no generation");
    }

    #[test]
    fn counts_of_an_older_generation_are_not_settled() {
        for (observed, settled) in [(3, false), (4, true), (5, true)] {
            let read = set(&json!({"/status/observedGeneration": observed})).unwrap();
            assert_eq!(read.settled, settled, "{observed}");
        }
    }

    #[test]
    fn a_failure_is_the_true_condition() {
        for (kind, status, failure) in [
            ("ReplicaFailure", "True", true),
            ("ReplicaFailure", "False", false),
            ("Other", "True", false),
        ] {
            let condition = json!({"type": kind, "status": status, "reason": "FailedCreate", "message": "quota"});
            let read =
                set(&json!({"/status": {"replicas": 0, "conditions": [condition]}})).unwrap();
            let expected = failure.then(|| ("FailedCreate".to_owned(), "quota".to_owned()));
            assert_eq!(read.failure, expected, "{kind} {status}");
        }
    }

    #[test]
    fn a_pod_belongs_to_its_controller() {
        let pod = |controller: bool, ready: &str| {
            let pod = json!({
                "metadata": {
                    "name": "p", "uid": "u-p", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "u", "controller": controller}],
                },
                "status": {"conditions": [
                    {"type": "ContainersReady", "status": "True"},
                    {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T00:00:09Z"},
                ]},
            });
            Pod::read(&serde_json::from_value(pod).unwrap())
        };
        assert_eq!(pod(false, "True"), None);
        assert_eq!(pod(true, "False").unwrap().ready_since, None);
        let read = pod(true, "True").unwrap();
        let since = read.ready_since.map(|at| at.to_string());
        assert_eq!(since.as_deref(), Some("2026-01-01T00:00:09Z"));
        assert_eq!((read.replica_set.as_str(), read.terminating), ("u", false));
    }
}
