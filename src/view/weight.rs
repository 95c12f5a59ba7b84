//! Where a canary is: its step, the weight that was asked for, and the weight it has.

use sidestep_control::api::Rollout;
use sidestep_control::api::rollout::{CanaryStep, CanaryStrategy};

/// What a weight is a part of, unless the rollout says otherwise.
const DEFAULT_MAX_WEIGHT: i32 = 100;

/// `2/8`; empty without steps, or before the controller has counted.
pub(crate) fn step(rollout: &Rollout) -> String {
    let steps = steps(rollout).len();
    match rollout
        .status
        .as_ref()
        .and_then(|status| status.current_step_index)
    {
        Some(index) if steps > 0 => format!("{index}/{steps}"),
        Some(_) | None => String::new(),
    }
}

/// The last `setWeight` at or before the current step: none when aborted, all when the steps are done.
pub(crate) fn set(rollout: &Rollout) -> i32 {
    if rollout.status.as_ref().is_some_and(|status| status.abort) {
        return 0;
    }
    match current_step(rollout) {
        Some(current) => steps(rollout)
            .iter()
            .take(current + 1)
            .rev()
            .find_map(|step| step.set_weight)
            .unwrap_or(0),
        None => max(rollout),
    }
}

/// The canary's weight as it is: by routing what was last set, else its part of the available pods.
///
/// `canary_available` is the number of the canary's available pods, if there is a canary.
pub(crate) fn actual(rollout: &Rollout, canary_available: Option<i32>) -> i32 {
    if current_step(rollout).is_none() {
        return max(rollout);
    }
    let Some(status) = rollout
        .status
        .as_ref()
        .filter(|status| status.available_replicas > 0)
    else {
        return 0;
    };
    let routed = canary(rollout).is_some_and(|canary| canary.traffic_routing.is_some());
    match (&status.canary.weights, routed) {
        (Some(weights), true) => weights.canary.weight,
        (None, true) => set(rollout),
        (_, false) => canary_available.unwrap_or(0) * max(rollout) / status.available_replicas,
    }
}

/// What a weight is a part of.
pub(crate) fn max(rollout: &Rollout) -> i32 {
    let routing = canary(rollout).and_then(|canary| canary.traffic_routing.as_ref());
    routing
        .and_then(|routing| routing.max_traffic_weight)
        .unwrap_or(DEFAULT_MAX_WEIGHT)
}

/// The steps; empty without a canary.
pub(crate) fn steps(rollout: &Rollout) -> &[CanaryStep] {
    canary(rollout)
        .and_then(|canary| canary.steps.as_deref())
        .unwrap_or_default()
}

/// The index of the step under way; `None` without steps or past the last.
pub(crate) fn current_step(rollout: &Rollout) -> Option<usize> {
    let index = rollout
        .status
        .as_ref()
        .and_then(|status| status.current_step_index)
        .unwrap_or(0);
    usize::try_from(index)
        .ok()
        .filter(|index| *index < steps(rollout).len())
}

fn canary(rollout: &Rollout) -> Option<&CanaryStrategy> {
    rollout.spec.strategy.canary.as_ref()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rollout(canary: &Value, status: &Value) -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {},
            "spec": {"strategy": {"canary": canary}}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn the_weight_set_is_the_last_one_reached() {
        let canary =
            json!({"steps": [{"pause": {}}, {"setWeight": 20}, {"pause": {}}, {"setWeight": 60}]});
        let cases = [
            (json!({}), 0, ""),
            (json!({"currentStepIndex": 0}), 0, "0/4"),
            (json!({"currentStepIndex": 1}), 20, "1/4"),
            (json!({"currentStepIndex": 2}), 20, "2/4"),
            (json!({"currentStepIndex": 3}), 60, "3/4"),
            (json!({"currentStepIndex": 4}), 100, "4/4"),
            (json!({"currentStepIndex": 2, "abort": true}), 0, "2/4"),
        ];
        for (status, weight, text) in cases {
            let rollout = rollout(&canary, &status);
            assert_eq!(
                (set(&rollout), step(&rollout).as_str()),
                (weight, text),
                "{status}"
            );
        }
    }

    #[test]
    fn without_steps_the_weight_is_all() {
        let rollout = rollout(&json!({}), &json!({"availableReplicas": 3}));
        assert_eq!(
            (
                set(&rollout),
                actual(&rollout, Some(1)),
                step(&rollout).as_str()
            ),
            (100, 100, "")
        );
    }

    #[test]
    fn the_weight_it_has_is_that_of_the_router_or_of_the_pods() {
        let steps = json!([{"setWeight": 200}, {"pause": {}}]);
        let basic = json!({"steps": steps});
        let routed = json!({"steps": steps, "trafficRouting": {"maxTrafficWeight": 1000}});
        let weights = json!({"canary": {"weight": 150}, "stable": {"weight": 850}});
        let cases = [
            (&basic, json!({"availableReplicas": 5}), Some(1), 20),
            (&basic, json!({"availableReplicas": 3}), Some(1), 33),
            (&basic, json!({"availableReplicas": 5}), None, 0),
            (&basic, json!({}), Some(1), 0),
            (&routed, json!({"availableReplicas": 5}), Some(1), 200),
            (
                &routed,
                json!({"availableReplicas": 5, "canary": {"weights": weights}}),
                Some(1),
                150,
            ),
            (
                &routed,
                json!({"availableReplicas": 5, "currentStepIndex": 2}),
                Some(1),
                1000,
            ),
        ];
        for (canary, status, available, weight) in cases {
            assert_eq!(
                actual(&rollout(canary, &status), available),
                weight,
                "{status} {available:?}"
            );
        }
    }
}
