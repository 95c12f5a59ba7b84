//! `restart`: the pods that exist at a time are replaced after it.

use jiff::Timestamp;
use serde_json::json;

use super::rollouts::Rollouts;
use super::{now, print};
use crate::cli::RestartArgs;
use crate::settings::go_duration;

/// Asks for pods created before `at` to be replaced, and answers the rollout's name.
pub(crate) async fn restart(
    rollouts: &Rollouts,
    name: &str,
    at: Timestamp,
) -> kube::Result<String> {
    let at = Timestamp::from_second(at.as_second()).unwrap_or(at);
    rollouts
        .patch(name, &json!({"spec": {"restartAt": at.to_string()}}))
        .await
}

/// Restarts a rollout, now or in a while.
pub(crate) async fn run(rollouts: &Rollouts, args: &RestartArgs) -> anyhow::Result<()> {
    let delay = go_duration(&args.delay).map_err(anyhow::Error::msg)?;
    let name = restart(rollouts, &args.name, now().checked_add(delay)?).await?;
    print(&format!("rollout '{name}' restarts in {}\n", args.delay))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::Script;

    #[tokio::test]
    async fn restart_is_one_merge_patch_with_whole_seconds() {
        let path = "/apis/argoproj.io/v1alpha1/namespaces/there/rollouts/demo";
        let script = Script::default().answer("PATCH", path, json!({"metadata": {"name": "demo"}}));
        let at = "2026-11-21T08:00:00.75Z".parse().unwrap();
        assert_eq!(
            restart(&script.rollouts(), "demo", at).await.unwrap(),
            "demo"
        );
        let patch = r#"{"spec":{"restartAt":"2026-11-21T08:00:00Z"}}"#;
        script.saw(&[&format!(
            "PATCH {path} application/merge-patch+json {patch}"
        )]);
    }
}
