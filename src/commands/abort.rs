//! `abort`: all traffic back to stable.

use serde_json::json;

use super::print;
use super::rollouts::Rollouts;

/// Aborts a rollout and answers its name.
pub(crate) async fn abort(rollouts: &Rollouts, name: &str) -> kube::Result<String> {
    rollouts
        .patch_status(name, &json!({"status": {"abort": true}}))
        .await
}

/// Aborts each rollout, up to the first that cannot be.
pub(crate) async fn run(rollouts: &Rollouts, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let name = abort(rollouts, name).await?;
        print(&format!("rollout '{name}' aborted\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::{Script, not_found};

    const PATH: &str = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo";

    #[tokio::test]
    async fn abort_is_one_merge_patch_of_the_status() {
        let script = Script::default().answer(
            "PATCH",
            &format!("{PATH}/status"),
            json!({"metadata": {"name": "demo"}}),
        );
        assert_eq!(abort(&script.rollouts(), "demo").await.unwrap(), "demo");
        script.saw(&[&format!(
            r#"PATCH {PATH}/status application/merge-patch+json {{"status":{{"abort":true}}}}"#
        )]);
    }

    #[tokio::test]
    async fn without_a_status_subresource_the_object_is_patched() {
        let script = Script::default().answer("PATCH", PATH, json!({"metadata": {"name": "demo"}}));
        assert_eq!(abort(&script.rollouts(), "demo").await.unwrap(), "demo");
        script.saw(&[
            &format!(
                r#"PATCH {PATH}/status application/merge-patch+json {{"status":{{"abort":true}}}}"#
            ),
            &format!(r#"PATCH {PATH} application/merge-patch+json {{"status":{{"abort":true}}}}"#),
        ]);
    }

    #[tokio::test]
    async fn a_rollout_that_is_not_there_is_said_to_be() {
        let script = Script::default().fail("PATCH", PATH, not_found("demo"));
        let error = abort(&script.rollouts(), "demo").await.unwrap_err();
        assert_eq!(
            crate::commands::failure::text(&error.into()),
            "rollouts.argoproj.io \"demo\" not found"
        );
    }
}
