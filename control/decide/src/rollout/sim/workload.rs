//! The Deployment whose template a `workloadRef` follows.

use serde_json::{Value, json};

use super::spec;
use super::world::{Kind, Stamp, World};
use crate::rollout::plan;

/// A Deployment.
#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) stamp: Stamp,
    template: Value,
    generation: i64,
    /// Pods wanted.
    pub(super) replicas: i32,
}

impl Workload {
    /// The Deployment that a spec refers to, if it does.
    pub(super) fn of(spec: &Value) -> Option<Self> {
        spec["workloadRef"].is_object().then(|| Self {
            stamp: Stamp::default(),
            template: spec::template(),
            generation: 1,
            replicas: PODS,
        })
    }

    /// As the plan reads it.
    pub(super) fn found(&self) -> plan::Workload {
        let selector = json!({"matchLabels": {"app": "web"}});
        plan::Workload::Found {
            template: self.template.clone(),
            selector: serde_json::from_value(selector).unwrap(),
            generation: self.generation,
            replicas: Some(self.replicas),
        }
    }
}

impl World {
    /// Changes the pod template, wherever it stands.
    pub(super) fn edit_template(&mut self, change: impl FnOnce(&mut Value)) {
        let Some(workload) = &mut self.workload else {
            return self.edit(|spec| change(&mut spec["template"]));
        };
        let before = workload.template.clone();
        change(&mut workload.template);
        if workload.template != before {
            workload.generation += 1;
            self.changed_workload();
        }
    }

    /// Somebody scales the Deployment.
    pub(super) fn scale_workload(&mut self, pods: i32) {
        if let Some(workload) = &mut self.workload
            && workload.replicas != pods
        {
            workload.replicas = pods;
            workload.generation += 1;
            self.changed_workload();
        }
    }

    fn changed_workload(&mut self) {
        let stamp = self.change(Kind::Workload);
        if let Some(workload) = &mut self.workload {
            workload.stamp = stamp;
        }
    }

    /// The status speaks of the workload as it is.
    pub(super) fn is_workload_observed(&self) -> bool {
        let generation = self
            .workload
            .as_ref()
            .map(|workload| workload.generation.to_string());
        self.status.workload_observed_generation == generation
    }
}

/// Pods of the Deployment before the Rollout takes over.
const PODS: i32 = 5;
