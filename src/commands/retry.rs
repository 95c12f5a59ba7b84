//! `retry`: an aborted update begins anew.

use serde_json::json;

use super::print;
use super::rollouts::Rollouts;

/// Retries an aborted rollout and answers its name.
pub(crate) async fn retry(rollouts: &Rollouts, name: &str) -> kube::Result<String> {
    rollouts
        .patch_status(name, &json!({"status": {"abort": false}}))
        .await
}

/// Retries each rollout, up to the first that cannot be.
pub(crate) async fn run(rollouts: &Rollouts, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let name = retry(rollouts, name).await?;
        print(&format!("rollout '{name}' retried\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::Script;

    #[tokio::test]
    async fn retry_is_one_merge_patch_of_the_status() {
        let path = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo/status";
        let script = Script::default().answer("PATCH", path, json!({"metadata": {"name": "demo"}}));
        assert_eq!(retry(&script.rollouts(), "demo").await.unwrap(), "demo");
        script.saw(&[&format!(
            r#"PATCH {path} application/merge-patch+json {{"status":{{"abort":false}}}}"#
        )]);
    }
}
