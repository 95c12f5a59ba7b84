//! `promote`: on to the next step, or to the end.

use serde_json::{Value, json};
use sidestep_control::api::Rollout;

use super::print;
use super::rollouts::{Rollouts, is_not_found};
use crate::cli::PromoteArgs;
use crate::view::weight;

/// How far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Past the pause or step under way.
    Next,
    /// Past everything that is left.
    End,
}

/// Promotes a rollout.
pub(crate) async fn promote(rollouts: &Rollouts, name: &str, reach: Reach) -> kube::Result<()> {
    let patches = Patches::of(&rollouts.get(name).await?, reach);
    let mut spec = patches.spec;
    if let Some(status) = patches.status {
        let patched = rollouts
            .json()
            .patch_status(name, &Default::default(), &kube::api::Patch::Merge(&status))
            .await;
        match patched {
            Err(error) if is_not_found(&error) => spec = Some(patches.unified),
            patched => drop(patched?),
        }
    }
    if let Some(spec) = spec {
        rollouts.patch(name, &spec).await?;
    }
    Ok(())
}

/// Promotes a rollout and says so.
pub(crate) async fn run(rollouts: &Rollouts, args: &PromoteArgs) -> anyhow::Result<()> {
    let (reach, said) = if args.full {
        (Reach::End, "fully promoted")
    } else {
        (Reach::Next, "promoted")
    };
    promote(rollouts, &args.name, reach).await?;
    print(&format!("rollout '{}' {said}\n", args.name))
}

/// What to send: to the object, to the status, and to the object where there is no status subresource.
#[derive(Debug, PartialEq)]
struct Patches {
    spec: Option<Value>,
    status: Option<Value>,
    unified: Value,
}

impl Patches {
    fn of(rollout: &Rollout, reach: Reach) -> Self {
        let status = match reach {
            Reach::End => to_the_end(rollout),
            Reach::Next => to_the_next_step(rollout),
        };
        let mut unified = json!({"spec": {"paused": false}});
        if let (Some(unified), Some(status)) = (unified.as_object_mut(), &status) {
            unified.insert("status".to_owned(), status.clone());
        }
        Self {
            spec: (rollout.spec.paused == Some(true)).then(|| json!({"spec": {"paused": false}})),
            status: status.map(|status| json!({"status": status})),
            unified,
        }
    }
}

fn to_the_end(rollout: &Rollout) -> Option<Value> {
    let status = rollout.status.clone().unwrap_or_default();
    (status.current_pod_hash != status.stable_rs).then(|| json!({"promoteFull": true}))
}

/// Ends the pause, or goes one step on where there is none: never both, but for an inconclusive analysis, whose pause would begin anew.
fn to_the_next_step(rollout: &Rollout) -> Option<Value> {
    let status = rollout.status.clone().unwrap_or_default();
    let is_paused = !status.pause_conditions.is_empty();
    match next_step(rollout) {
        Some(next) if is_paused && status.controller_pause && is_inconclusive(rollout) => Some(
            json!({"pauseConditions": null, "controllerPause": false, "currentStepIndex": next}),
        ),
        Some(_) | None if is_paused => Some(json!({"pauseConditions": null})),
        Some(next) => Some(json!({"pauseConditions": null, "currentStepIndex": next})),
        None => None,
    }
}

/// The index after the current step's; `None` without steps.
fn next_step(rollout: &Rollout) -> Option<usize> {
    let steps = weight::steps(rollout).len();
    (steps > 0).then(|| weight::current_step(rollout).map_or(steps, |current| current + 1))
}

fn is_inconclusive(rollout: &Rollout) -> bool {
    let run = rollout
        .status
        .as_ref()
        .and_then(|status| status.canary.current_step_analysis_run_status.as_ref());
    run.is_some_and(|run| run.status == "Inconclusive")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::Script;

    const PATH: &str = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo";

    fn rollout(spec: &Value, status: &Value) -> Value {
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "demo"}, "spec": spec, "status": status,
        })
    }

    /// What is sent beside the read: `status …` and `object …`.
    async fn sent(reach: Reach, spec: &Value, status: &Value) -> Vec<String> {
        let object = rollout(spec, status);
        let script = Script::default()
            .answer("GET", PATH, object.clone())
            .answer("PATCH", &format!("{PATH}/status"), object.clone())
            .answer("PATCH", PATH, object);
        promote(&script.rollouts(), "demo", reach).await.unwrap();
        let requests = script.requests();
        let patches = requests
            .iter()
            .filter_map(|request| request.strip_prefix(&format!("PATCH {PATH}")));
        let patches = patches.map(|patch| {
            patch
                .replace("/status", "status")
                .replace(" application/merge-patch+json ", " ")
        });
        patches.collect()
    }

    fn canary(paused: bool) -> Value {
        json!({"paused": paused, "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 40}]}}})
    }

    #[tokio::test]
    async fn a_pause_is_ended_and_nothing_else() {
        let pause = json!([{"reason": "CanaryPauseStep", "startTime": "2026-11-21T08:00:00Z"}]);
        let status =
            json!({"pauseConditions": pause, "controllerPause": true, "currentStepIndex": 1});
        assert_eq!(
            sent(Reach::Next, &canary(false), &status).await,
            [r#"status {"status":{"pauseConditions":null}}"#]
        );
        let blue_green = json!({"strategy": {"blueGreen": {}}});
        assert_eq!(
            sent(Reach::Next, &blue_green, &status).await,
            [r#"status {"status":{"pauseConditions":null}}"#]
        );
    }

    #[tokio::test]
    async fn without_a_pause_the_next_step_is_next() {
        let next = |index: usize| {
            [format!(
                r#"status {{"status":{{"pauseConditions":null,"currentStepIndex":{index}}}}}"#
            )]
        };
        assert_eq!(
            sent(Reach::Next, &canary(false), &json!({"currentStepIndex": 0})).await,
            next(1)
        );
        assert_eq!(sent(Reach::Next, &canary(false), &json!({})).await, next(1));
        assert_eq!(
            sent(Reach::Next, &canary(false), &json!({"currentStepIndex": 3})).await,
            next(3)
        );
        assert!(
            sent(
                Reach::Next,
                &json!({"strategy": {"canary": {}}}),
                &json!({})
            )
            .await
            .is_empty()
        );
    }

    #[tokio::test]
    async fn an_inconclusive_analysis_is_left_behind() {
        let status = json!({
            "pauseConditions": [{"reason": "InconclusiveAnalysisRun", "startTime": "2026-11-21T08:00:00Z"}],
            "controllerPause": true, "currentStepIndex": 0,
            "canary": {"currentStepAnalysisRunStatus": {"name": "a", "status": "Inconclusive"}},
        });
        let patch = r#"status {"status":{"pauseConditions":null,"controllerPause":false,"currentStepIndex":1}}"#;
        assert_eq!(sent(Reach::Next, &canary(false), &status).await, [patch]);
    }

    #[tokio::test]
    async fn a_user_pause_is_ended_too() {
        let unpause = r#" {"spec":{"paused":false}}"#;
        let status = json!({"currentStepIndex": 2, "currentPodHash": "a", "stableRS": "b"});
        let next = r#"status {"status":{"pauseConditions":null,"currentStepIndex":3}}"#;
        assert_eq!(
            sent(Reach::Next, &canary(true), &status).await,
            [next, unpause]
        );
        assert_eq!(
            sent(Reach::End, &canary(true), &status).await,
            [r#"status {"status":{"promoteFull":true}}"#, unpause]
        );
    }

    #[tokio::test]
    async fn a_rollout_at_its_end_is_not_promoted_further() {
        assert!(
            sent(
                Reach::End,
                &canary(false),
                &json!({"currentPodHash": "a", "stableRS": "a"})
            )
            .await
            .is_empty()
        );
    }

    #[tokio::test]
    async fn without_a_status_subresource_both_go_to_the_object() {
        let object = rollout(&canary(false), &json!({"currentStepIndex": 0}));
        let script = Script::default()
            .answer("GET", PATH, object.clone())
            .answer("PATCH", PATH, object);
        promote(&script.rollouts(), "demo", Reach::Next)
            .await
            .unwrap();
        let unified =
            r#"{"spec":{"paused":false},"status":{"pauseConditions":null,"currentStepIndex":1}}"#;
        assert_eq!(
            script.requests().last().unwrap(),
            &format!("PATCH {PATH} application/merge-patch+json {unified}")
        );
    }
}
