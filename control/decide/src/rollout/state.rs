//! What is remembered of a rollout: its `.status` with words turned into types, and the memory beside it.
//!
//! Fields of Argo's that no rule here reads or writes are carried along untouched.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::time;
use crate::api::rollout::{
    AnalysisRunSummary, BlueGreenStatus, CanaryStatus, PauseCondition, RolloutCondition,
    RolloutDuration, RolloutStatus, TrafficWeights,
};
use crate::api::split::Memory;

/// What is remembered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The generation the rest speaks of, as a string.
    pub observed_generation: Option<String>,
    /// `Progressing`, `Paused`, `Healthy`, `Degraded`.
    pub phase: Option<String>,
    /// In words, why.
    pub message: Option<String>,
    /// Pods, as last counted.
    pub counts: Counts,
    /// Label selector of its pods, as a string.
    pub selector: Option<String>,
    /// Hash of the revision that the spec asked for.
    pub current: Option<String>,
    /// Hash of the stable revision.
    pub stable: Option<String>,
    /// Times a hash was taken by another template.
    pub collisions: Option<i32>,
    /// Hash of the step list.
    pub step_hash: Option<String>,
    /// Index of the current step; the number of steps when done; none without steps.
    pub step: Option<usize>,
    /// Why the controller has paused.
    pub pauses: Vec<Pause>,
    /// True from adding a pause until a status is written without one.
    pub controller_pause: bool,
    /// The update is aborted.
    pub abort: bool,
    /// When it was first aborted.
    pub aborted_at: Option<Timestamp>,
    /// `spec.restartAt` of the last restart, done or overtaken.
    pub restarted_at: Option<Timestamp>,
    /// The rest of the steps is to be skipped.
    pub promote_full: bool,
    /// The weights last set.
    pub weights: Option<TrafficWeights>,
    /// The run of the current step.
    pub step_run: Option<AnalysisRunSummary>,
    /// The run beside the steps.
    pub background_run: Option<AnalysisRunSummary>,
    /// What the blue-green strategy remembers.
    pub blue_green: BlueGreenStatus,
    /// Generation of the workload that `workloadRef` names, as a string.
    pub workload: Option<String>,
    /// Conditions, in the order of their last rewrite.
    pub conditions: Vec<RolloutCondition>,
    /// Times of the update.
    pub duration: Option<RolloutDuration>,
    /// What Argo's status has no field for.
    pub memory: Memory,
    /// With the fields that no rule here knows.
    others: CanaryStatus,
}

/// Pods, as last counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of all revisions.
    pub replicas: i32,
    /// Of the revision that the spec asks for.
    pub updated: i32,
    /// Ready ones of all revisions.
    pub ready: i32,
    /// Available ones of all revisions.
    pub available: i32,
    /// As an autoscaler should count them.
    pub hpa: i32,
}

/// Why the controller has paused, and since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pause {
    /// Why.
    pub reason: PauseReason,
    /// Since when, in whole seconds.
    pub since: Timestamp,
}

/// Why the controller has paused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseReason {
    /// A pause step.
    Step,
    /// A blue-green update before its promotion.
    BlueGreen,
    /// An analysis that was neither good nor bad.
    Inconclusive,
    /// One of Argo's that this version does not make.
    Other(String),
}

impl PauseReason {
    /// As it stands in a status.
    #[must_use]
    pub fn read(text: &str) -> Self {
        match text {
            "CanaryPauseStep" => Self::Step,
            "BlueGreenPause" => Self::BlueGreen,
            "InconclusiveAnalysisRun" => Self::Inconclusive,
            other => Self::Other(other.to_owned()),
        }
    }

    /// The word for a status.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Step => "CanaryPauseStep",
            Self::BlueGreen => "BlueGreenPause",
            Self::Inconclusive => "InconclusiveAnalysisRun",
            Self::Other(text) => text,
        }
    }
}

impl State {
    /// Reads a status and the memory beside it.
    #[must_use]
    pub fn from_status(status: &RolloutStatus, memory: &Memory) -> Self {
        let RolloutStatus { canary, .. } = status;
        let pauses = status.pause_conditions.iter().map(|pause| Pause {
            reason: PauseReason::read(&pause.reason),
            since: pause.start_time.0,
        });
        Self {
            observed_generation: status.observed_generation.clone(),
            phase: status.phase.clone(),
            message: status.message.clone(),
            counts: Counts {
                replicas: status.replicas,
                updated: status.updated_replicas,
                ready: status.ready_replicas,
                available: status.available_replicas,
                hpa: status.hpa_replicas,
            },
            selector: status.selector.clone(),
            current: status.current_pod_hash.clone(),
            stable: status.stable_rs.clone().filter(|hash| !hash.is_empty()),
            collisions: status.collision_count,
            step_hash: status.current_step_hash.clone(),
            step: status
                .current_step_index
                .map(|index| usize::try_from(index).unwrap_or(0)),
            pauses: pauses.collect(),
            controller_pause: status.controller_pause,
            abort: status.abort,
            aborted_at: status.aborted_at.as_ref().map(|time| time.0),
            restarted_at: status
                .restarted_at
                .as_ref()
                .map(|at| time::whole_seconds(at.0)),
            promote_full: status.promote_full,
            weights: canary.weights.clone(),
            step_run: canary.current_step_analysis_run_status.clone(),
            background_run: canary.current_background_analysis_run_status.clone(),
            blue_green: status.blue_green.clone(),
            workload: status.workload_observed_generation.clone(),
            conditions: status.conditions.clone(),
            duration: status.duration.clone(),
            memory: memory.clone(),
            others: canary.clone(),
        }
    }

    /// The status to write.
    #[must_use]
    pub fn status(&self) -> RolloutStatus {
        let pauses = self.pauses.iter().map(|pause| PauseCondition {
            reason: pause.reason.word().to_owned(),
            start_time: Time(pause.since),
        });
        RolloutStatus {
            observed_generation: self.observed_generation.clone(),
            phase: self.phase.clone(),
            message: self.message.clone(),
            replicas: self.counts.replicas,
            updated_replicas: self.counts.updated,
            ready_replicas: self.counts.ready,
            available_replicas: self.counts.available,
            hpa_replicas: self.counts.hpa,
            selector: self.selector.clone(),
            current_pod_hash: self.current.clone(),
            stable_rs: self.stable.clone(),
            collision_count: self.collisions,
            current_step_hash: self.step_hash.clone(),
            current_step_index: self
                .step
                .map(|index| i32::try_from(index).unwrap_or(i32::MAX)),
            pause_conditions: pauses.collect(),
            controller_pause: self.controller_pause,
            abort: self.abort,
            aborted_at: self.aborted_at.map(Time),
            restarted_at: self.restarted_at.map(Time),
            promote_full: self.promote_full,
            canary: CanaryStatus {
                weights: self.weights.clone(),
                current_step_analysis_run_status: self.step_run.clone(),
                current_background_analysis_run_status: self.background_run.clone(),
                ..self.others.clone()
            },
            blue_green: self.blue_green.clone(),
            workload_observed_generation: self.workload.clone(),
            conditions: self.conditions.clone(),
            duration: self.duration.clone(),
        }
    }

    /// Forgets which of ping and pong is stable.
    pub(super) fn forget_roles(&mut self) {
        self.others.stable_ping_pong = None;
    }

    /// Whether a pause of this reason is in force.
    #[must_use]
    pub fn pause(&self, reason: &PauseReason) -> Option<&Pause> {
        self.pauses.iter().find(|pause| pause.reason == *reason)
    }

    /// Stable is what the spec asks for.
    #[must_use]
    pub fn is_promoted(&self) -> bool {
        self.stable.is_some() && self.stable == self.current
    }

    /// The condition of this type.
    #[must_use]
    pub fn condition(&self, kind: &str) -> Option<&RolloutCondition> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }
}
