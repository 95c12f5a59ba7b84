//! `status`: one line per change, until the rollout is Healthy or Degraded. CI jobs wait by it.

use std::time::Duration;

use anyhow::{anyhow, bail};
use futures::{Stream, StreamExt};
use kube::runtime::watcher;
use sidestep_control::api::Rollout;
use sidestep_control::wire::Collection;
use tokio::time::Instant;

use super::print;
use super::rollouts::{Rollouts, not_found};
use crate::cli::StatusArgs;
use crate::client::Session;
use crate::view::phase;

/// Prints the status, or watches it.
pub(crate) async fn run(session: &Session, args: &StatusArgs) -> anyhow::Result<()> {
    let rollout = Rollouts::of(session).get(&args.name).await?;
    let line = Line::of(&rollout);
    print(&format!("{}\n", line.text()))?;
    if !args.watch || line.is_final() {
        return line.verdict();
    }
    let rollouts = Collection::<Rollout>::within(&session.client, &session.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={}", args.name));
    let changes = rollouts.watch(config);
    tokio::select! {
        end = follow(&args.name, line, changes, |line| print(&format!("{line}\n"))) => end,
        () = give_up(args.timeout) => bail!("Rollout status watch exceeded timeout"),
        interrupt = tokio::signal::ctrl_c() => {
            interrupt?;
            bail!("Rollout status watch was interrupted")
        }
    }
}

/// Prints each line that differs from the one before, until one is final.
async fn follow(
    name: &str,
    mut last: Line,
    changes: impl Stream<Item = watcher::Result<watcher::Event<Rollout>>>,
    mut say: impl FnMut(&str) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        let rollout = match change {
            Ok(watcher::Event::Apply(rollout) | watcher::Event::InitApply(rollout)) => rollout,
            Ok(watcher::Event::Delete(_)) => return Err(not_found(name).into()),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::debug!(%error, "watching again");
                continue;
            }
        };
        let line = Line::of(&rollout);
        if line != last {
            say(&line.text())?;
        }
        if line.is_final() {
            return line.verdict();
        }
        last = line;
    }
    Err(anyhow!("the watch ended"))
}

async fn give_up(timeout: Duration) {
    match timeout.is_zero() {
        true => std::future::pending().await,
        false => tokio::time::sleep_until(Instant::now() + timeout).await,
    }
}

/// Phase and message.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    phase: String,
    message: String,
}

impl Line {
    fn of(rollout: &Rollout) -> Self {
        let (phase, message) = phase::of(rollout);
        Self { phase, message }
    }

    fn text(&self) -> String {
        match self.message.is_empty() {
            true => self.phase.clone(),
            false => format!("{} - {}", self.phase, self.message),
        }
    }

    fn is_final(&self) -> bool {
        matches!(self.phase.as_str(), "Healthy" | "Degraded")
    }

    fn verdict(&self) -> anyhow::Result<()> {
        match self.phase.as_str() {
            "Degraded" => bail!(
                "The rollout is in a degraded state with message: {}",
                self.message
            ),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use serde_json::{Value, json};

    use super::*;

    fn rollout(phase: &str, message: &str) -> Rollout {
        let status = json!({"phase": phase, "message": message});
        let object: Value = json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "demo"}, "spec": {}, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    /// What is printed, and how it ends.
    async fn check(changes: Vec<watcher::Event<Rollout>>, lines: &[&str], end: &str) {
        let mut said = Vec::new();
        let first = Line::of(&rollout("Progressing", "more replicas need to be updated"));
        let changes = stream::iter(changes.into_iter().map(Ok));
        let ended = follow("demo", first, changes, |line| {
            said.push(line.to_owned());
            Ok(())
        });
        let ended = ended.await.map_or_else(
            |error| crate::commands::failure::text(&error),
            |()| "well".to_owned(),
        );
        assert_eq!(
            (
                said.iter().map(String::as_str).collect::<Vec<_>>(),
                ended.as_str()
            ),
            (lines.to_vec(), end)
        );
    }

    #[tokio::test]
    async fn one_line_is_printed_per_change_until_the_rollout_is_healthy() {
        use watcher::Event::{Apply, Init, InitApply, InitDone};
        let changes = vec![
            Init,
            InitApply(rollout("Progressing", "more replicas need to be updated")),
            InitDone,
            Apply(rollout("Paused", "CanaryPauseStep")),
            Apply(rollout("Paused", "CanaryPauseStep")),
            Apply(rollout(
                "Progressing",
                "old replicas are pending termination",
            )),
            Apply(rollout("Healthy", "")),
            Apply(rollout("Degraded", "later")),
        ];
        let lines = [
            "Paused - CanaryPauseStep",
            "Progressing - old replicas are pending termination",
            "Healthy",
        ];
        check(changes, &lines, "well").await;
    }

    #[tokio::test]
    async fn a_degraded_rollout_is_an_error() {
        let message = "RolloutAborted: Rollout aborted update to revision 2";
        let changes = vec![watcher::Event::Apply(rollout("Degraded", message))];
        let end = format!("The rollout is in a degraded state with message: {message}");
        check(changes, &[&format!("Degraded - {message}")], &end).await;
    }

    #[tokio::test]
    async fn a_rollout_that_is_deleted_is_not_waited_for() {
        let changes = vec![watcher::Event::Delete(rollout("Progressing", ""))];
        check(changes, &[], "rollouts.argoproj.io \"demo\" not found").await;
    }
}
