//! `pause`: steps and promotion stand still until `promote`.

use serde_json::json;

use super::print;
use super::rollouts::Rollouts;

/// Pauses a rollout and answers its name.
pub(crate) async fn pause(rollouts: &Rollouts, name: &str) -> kube::Result<String> {
    rollouts
        .patch(name, &json!({"spec": {"paused": true}}))
        .await
}

/// Pauses each rollout, up to the first that cannot be.
pub(crate) async fn run(rollouts: &Rollouts, names: &[String]) -> anyhow::Result<()> {
    for name in names {
        let name = pause(rollouts, name).await?;
        print(&format!("rollout '{name}' paused\n"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::Script;

    #[tokio::test]
    async fn pause_is_one_merge_patch_of_the_spec() {
        let path = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo";
        let script = Script::default().answer("PATCH", path, json!({"metadata": {"name": "demo"}}));
        assert_eq!(pause(&script.rollouts(), "demo").await.unwrap(), "demo");
        script.saw(&[&format!(
            r#"PATCH {path} application/merge-patch+json {{"spec":{{"paused":true}}}}"#
        )]);
    }
}
