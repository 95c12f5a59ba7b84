//! What tests say and ask of the Rollout of `examples/processes.yaml`, on either cluster.

use kube::api::{Patch, PatchParams};
use serde_json::json;
use sidestep_control::api::Rollout;

use crate::Machine;

/// The Rollout of `examples/processes.yaml`, its Service, and its Split.
pub(crate) const NAME: &str = "processes";

/// Waits until a version is the stable one and has all the traffic.
pub(crate) async fn settled(machine: &Machine, version: &str) {
    let what = format!("{version} is Healthy");
    machine
        .eventually(NAME, &what, |rollout: &Rollout| {
            observed(rollout) && is_phase(rollout, "Healthy") && version_of(rollout) == version
        })
        .await;
}

/// A new revision, as a user makes one who edits the manifest.
pub(crate) async fn set_version(machine: &Machine, version: &str) {
    let path = "/spec/template/spec/containers/0/env/0/value";
    let patch = json!([{"op": "replace", "path": path, "value": version}]);
    let patch = Patch::<()>::Json(serde_json::from_value(patch).unwrap());
    let rollouts = machine.api::<Rollout>();
    rollouts
        .patch(NAME, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

pub(crate) fn version_of(rollout: &Rollout) -> &str {
    let version = rollout
        .spec
        .template
        .pointer("/spec/containers/0/env/0/value");
    version.unwrap().as_str().unwrap()
}

/// Whether the status speaks of the spec as it is now.
pub(crate) fn observed(rollout: &Rollout) -> bool {
    let generation = rollout.metadata.generation.unwrap_or_default().to_string();
    rollout
        .status
        .as_ref()
        .and_then(|s| s.observed_generation.as_deref())
        == Some(&generation)
}

pub(crate) fn is_phase(rollout: &Rollout, phase: &str) -> bool {
    rollout
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
        == Some(phase)
}

/// The canary's weight, once every proxy serves it.
pub(crate) fn weight(rollout: &Rollout) -> Option<i32> {
    let weights = rollout.status.as_ref()?.canary.weights.as_ref()?;
    (weights.verified == Some(true)).then_some(weights.canary.weight)
}
