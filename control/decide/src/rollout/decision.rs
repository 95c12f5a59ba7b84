//! What follows: writes in order, the status to write after them, and what to tell people.
//!
//! Every action done twice is done once, and dying between any two of them is safe: the next decision finds what is missing.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::marks::Changes;
use super::split::Split;
use crate::api::analysis::AnalysisRun;
use crate::api::rollout::RolloutStatus;
use crate::api::split::Memory;

/// How long the status of a decision that writes the Split waits for every proxy to serve it. Where they do by then, the status is left to
/// the next decision, which knows of it; else it says that they do not yet.
pub const PATIENCE: SignedDuration = SignedDuration::from_millis(50);

/// What follows from a plan, a state and what is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// Writes, in order; when one fails the rest is left out and the rollout is looked at again.
    pub actions: Vec<Action>,
    /// The Rollout's status after them; equal to the one read when there is nothing to write.
    pub status: RolloutStatus,
    /// What Argo's status has no field for.
    pub memory: Memory,
    /// Told in order, each as soon as what it tells of is written.
    pub events: Vec<Told>,
    /// When to look again if nothing happens before.
    pub again: Option<Timestamp>,
}

impl Decision {
    /// What to tell when that many actions are done; none: all are, and the status is written.
    pub fn told(&self, done: Option<usize>) -> impl Iterator<Item = &Event> {
        let events = self.events.iter().filter(move |told| told.after == done);
        events.map(|told| &told.event)
    }
}

/// An Event, and when it is told: what was done is told even if a later write of the same decision fails.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The Event.
    pub event: Event,
    /// As many actions are done by then; none: all are, and the status is written, which it tells of.
    pub after: Option<usize>,
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Writes `spec.replicas` of the Rollout, where it is absent.
    SetReplicas {
        /// Pods.
        replicas: i32,
    },
    /// Merge-patches the Rollout's revision annotation (never an update of its spec).
    AnnotateRollout {
        /// Revision number.
        revision: i64,
    },
    /// Creates a ReplicaSet owned by the Rollout. If one of that name exists already, look again.
    CreateReplicaSet(NewReplicaSet),
    /// Changes a ReplicaSet's annotations, and its `minReadySeconds` if given.
    AnnotateReplicaSet {
        /// Its name.
        name: String,
        /// Annotations to set.
        set: BTreeMap<String, String>,
        /// Annotations to remove.
        remove: Vec<String>,
        /// `spec.minReadySeconds`.
        min_ready_seconds: Option<i32>,
    },
    /// Writes a ReplicaSet's `spec.replicas`, and annotations with it.
    ScaleReplicaSet {
        /// Its name.
        name: String,
        /// Pods it had.
        from: i32,
        /// Pods it gets.
        to: i32,
        /// Annotations to set.
        set: BTreeMap<String, String>,
        /// Annotations to remove.
        remove: Vec<String>,
    },
    /// Creates the revision Service of a ReplicaSet, where it is missing.
    EnsureRevisionService {
        /// The ReplicaSet's name.
        replica_set: String,
        /// Its pod-template hash.
        hash: String,
    },
    /// Deletes the revision Service of a ReplicaSet: no Split lists it any more.
    DeleteRevisionService {
        /// The ReplicaSet's name.
        replica_set: String,
    },
    /// Points a Service's selector at a revision, and marks it as managed.
    SwitchService {
        /// Its name.
        name: String,
        /// The revision.
        hash: String,
    },
    /// Creates or replaces the Split's spec. See [`PATIENCE`] for what comes after it.
    WriteSplit(Split),
    /// Deletes the Split: routing was taken out of the spec, and nothing is left of it.
    DeleteSplit,
    /// Creates an AnalysisRun, complete with owner, labels and arguments.
    CreateAnalysisRun(Box<AnalysisRun>),
    /// Sets `spec.terminate` of an AnalysisRun.
    TerminateAnalysisRun {
        /// Its name.
        name: String,
    },
    /// Evicts a pod. A refusal by a disruption budget is no failure: it is tried again.
    EvictPod {
        /// Its name.
        name: String,
        /// Its uid: another pod of that name stays.
        uid: String,
    },
    /// Changes labels and annotations of a ReplicaSet's template and, in place, of its pods.
    MarkPods {
        /// Its name.
        replica_set: String,
        /// Labels.
        labels: Changes,
        /// Annotations.
        annotations: Changes,
        /// What the ReplicaSet's annotation says of them; none removes it.
        note: Option<String>,
    },
    /// Writes the terms of a ReplicaSet's template that keep its pods off nodes; pods that exist stay.
    KeepApart {
        /// Its name.
        replica_set: String,
        /// All terms that must hold.
        required: Vec<Value>,
        /// All terms that should hold.
        preferred: Vec<Value>,
    },
    /// Merge-patches the Rollout's annotation with the generation of the workload that it follows.
    NoteWorkload {
        /// The generation.
        generation: String,
    },
    /// Scales the Deployment that `workloadRef` names.
    ScaleWorkload {
        /// Its name.
        name: String,
        /// Pods it gets.
        to: i32,
    },
    /// Deletes a ReplicaSet that has no pods.
    DeleteReplicaSet {
        /// Its name.
        name: String,
    },
    /// Deletes an AnalysisRun.
    DeleteAnalysisRun {
        /// Its name.
        name: String,
    },
}

/// A ReplicaSet to create, with no pods yet. The writer adds the owner reference.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NewReplicaSet {
    /// Its name.
    pub name: String,
    /// Its pod-template hash.
    pub hash: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its selector, hash included.
    pub selector: LabelSelector,
    /// Its pod template, hash label included.
    pub template: Value,
    /// `spec.minReadySeconds`.
    pub min_ready_seconds: i32,
}

/// One Event about the Rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Whether people should worry.
    pub kind: EventKind,
    /// In one word.
    pub reason: &'static str,
    /// In words.
    pub message: String,
}

/// Whether people should worry about an Event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// No.
    Normal,
    /// Yes.
    Warning,
}

impl EventKind {
    /// The Event's `type`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}
