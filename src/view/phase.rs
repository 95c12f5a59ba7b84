//! Phase and message of a Rollout as a client sees them: what the controller wrote, unless it has yet to see the newest change.

use sidestep_control::api::Rollout;
use sidestep_control::api::labels;

/// Phase and message, with what a client knows better than the status (reference 2.6, client side).
pub(crate) fn of(rollout: &Rollout) -> (String, String) {
    let progressing = |message: &str| ("Progressing".to_owned(), message.to_owned());
    if !generation_is_observed(rollout) {
        return progressing("waiting for rollout spec update to be observed");
    }
    if is_unpausing(rollout) {
        return progressing("waiting for rollout to unpause");
    }
    if !workload_is_observed(rollout) {
        return progressing(
            "waiting for rollout spec update to be observed for the reference workload",
        );
    }
    let written = rollout.status.as_ref().and_then(|status| {
        Some((
            status.phase.clone()?,
            status.message.clone().unwrap_or_default(),
        ))
    });
    written.unwrap_or_else(|| before_the_first_status(rollout))
}

/// A status that is no number, or ahead of the object, is a very old controller's and counts as current.
fn generation_is_observed(rollout: &Rollout) -> bool {
    let observed = rollout
        .status
        .as_ref()
        .and_then(|status| status.observed_generation.as_deref()?.parse::<i64>().ok());
    observed.is_none_or(|observed| observed >= rollout.metadata.generation.unwrap_or_default())
}

/// The user has cleared the pause and the controller has not seen it yet.
fn is_unpausing(rollout: &Rollout) -> bool {
    rollout
        .status
        .as_ref()
        .is_some_and(|status| status.controller_pause && status.pause_conditions.is_empty())
}

fn workload_is_observed(rollout: &Rollout) -> bool {
    let current = rollout
        .metadata
        .annotations
        .as_ref()
        .and_then(|all| all.get(labels::WORKLOAD_GENERATION)?.parse::<i64>().ok());
    let observed = rollout.status.as_ref().and_then(|status| {
        status
            .workload_observed_generation
            .as_deref()?
            .parse::<i64>()
            .ok()
    });
    match (&rollout.spec.workload_ref, current, observed) {
        (Some(_), Some(current), Some(observed)) => current == observed,
        (Some(_) | None, _, _) => true,
    }
}

fn before_the_first_status(rollout: &Rollout) -> (String, String) {
    let (phase, message) = match (rollout.spec.paused, rollout.spec.replicas) {
        (Some(true), _) => ("Paused", "manually paused"),
        (Some(false) | None, Some(0)) => ("Progressing", "waiting for all steps to complete"),
        (Some(false) | None, Some(_) | None) => ("Progressing", "more replicas need to be updated"),
    };
    (phase.to_owned(), message.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn check(metadata: &Value, spec: &Value, status: &Value, phase: &str, message: &str) {
        let object = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": metadata, "spec": spec, "status": status,
        });
        let rollout: Rollout = serde_json::from_value(object.clone()).unwrap();
        assert_eq!(
            of(&rollout),
            (phase.to_owned(), message.to_owned()),
            "{object}"
        );
    }

    #[test]
    fn what_the_controller_wrote_counts_once_it_has_seen_the_spec() {
        let healthy = json!({"observedGeneration": "3", "phase": "Healthy"});
        check(
            &json!({"generation": 3}),
            &json!({}),
            &healthy,
            "Healthy",
            "",
        );
        check(
            &json!({"generation": 2}),
            &json!({}),
            &healthy,
            "Healthy",
            "",
        );
        let unseen = "waiting for rollout spec update to be observed";
        check(
            &json!({"generation": 4}),
            &json!({}),
            &healthy,
            "Progressing",
            unseen,
        );
        let hash =
            json!({"observedGeneration": "7f9c6", "phase": "Paused", "message": "CanaryPauseStep"});
        check(
            &json!({"generation": 4}),
            &json!({}),
            &hash,
            "Paused",
            "CanaryPauseStep",
        );
    }

    #[test]
    fn a_cleared_pause_is_shown_before_the_controller_has_seen_it() {
        let status = json!({"observedGeneration": "1", "phase": "Paused", "message": "CanaryPauseStep", "controllerPause": true});
        check(
            &json!({"generation": 1}),
            &json!({}),
            &status,
            "Progressing",
            "waiting for rollout to unpause",
        );
    }

    #[test]
    fn a_newer_workload_is_waited_for() {
        let metadata = json!({"annotations": {"rollout.argoproj.io/workload-generation": "5"}});
        let status = json!({"workloadObservedGeneration": "4", "phase": "Healthy"});
        let unseen = "waiting for rollout spec update to be observed for the reference workload";
        check(
            &metadata,
            &json!({"workloadRef": {"name": "web"}}),
            &status,
            "Progressing",
            unseen,
        );
        check(&metadata, &json!({}), &status, "Healthy", "");
    }

    #[test]
    fn a_rollout_that_no_controller_has_seen_is_progressing() {
        check(
            &json!({}),
            &json!({}),
            &Value::Null,
            "Progressing",
            "more replicas need to be updated",
        );
        check(
            &json!({}),
            &json!({"replicas": 0}),
            &Value::Null,
            "Progressing",
            "waiting for all steps to complete",
        );
        check(
            &json!({}),
            &json!({"paused": true}),
            &Value::Null,
            "Paused",
            "manually paused",
        );
    }
}
