//! `list rollouts`: a table, and with `--watch` a further line whenever a rollout's values change.

use std::collections::BTreeMap;
use std::io::Write;
use std::io::stderr;

use futures::StreamExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use sidestep_control::api::Rollout;
use sidestep_control::wire::Collection;

use super::{now, print};
use crate::cli::ListRolloutsArgs;
use crate::client::Session;
use crate::view::list::{Columns, Row, Widths};

/// Prints the rollouts, or watches them.
pub(crate) async fn run(session: &Session, args: &ListRolloutsArgs) -> anyhow::Result<()> {
    let namespace = (!args.all_namespaces).then_some(session.namespace.as_str());
    let all = Collection::<Rollout>::scoped(&session.client, namespace);
    let selector = args
        .name
        .as_ref()
        .map(|name| format!("metadata.name={name}"));
    let params = ListParams {
        field_selector: selector.clone(),
        ..ListParams::default()
    };
    let rollouts = all.list(&params).await?;
    if rollouts.is_empty() && !args.watch {
        writeln!(stderr(), "No resources found.")?;
        return Ok(());
    }
    let mut table = Table::new(args, &rollouts);
    print(&table.first(&rollouts))?;
    if !args.watch {
        return Ok(());
    }
    let config = watcher::Config {
        field_selector: selector,
        ..watcher::Config::default()
    };
    tokio::select! {
        end = follow(&mut table, all, config) => end,
        interrupt = tokio::signal::ctrl_c() => Ok(interrupt?),
    }
}

async fn follow(
    table: &mut Table,
    all: Collection<Rollout>,
    config: watcher::Config,
) -> anyhow::Result<()> {
    let changes = all.watch(config).applied_objects();
    let mut changes = std::pin::pin!(changes);
    while let Some(change) = changes.next().await {
        match change {
            Ok(rollout) => table
                .changed(&rollout)
                .map_or(Ok(()), |line| print(&line))?,
            Err(error) => tracing::debug!(%error, "watching again"),
        }
    }
    Ok(())
}

/// What was printed of each rollout.
struct Table {
    columns: Columns,
    widths: Widths,
    printed: BTreeMap<(Option<String>, Option<String>), Row>,
}

impl Table {
    fn new(args: &ListRolloutsArgs, rollouts: &[Rollout]) -> Self {
        let rows: Vec<Row> = rollouts.iter().map(Row::of).collect();
        Self {
            columns: Columns {
                timestamp: args.timestamps,
                namespace: args.all_namespaces,
            },
            widths: Widths::fitting(&rows),
            printed: BTreeMap::new(),
        }
    }

    /// The header and a line per rollout.
    fn first(&mut self, rollouts: &[Rollout]) -> String {
        let header = format!("{}\n", self.widths.header(self.columns));
        rollouts
            .iter()
            .filter_map(|rollout| self.changed(rollout))
            .fold(header, |text, line| text + &line)
    }

    /// A line, if it is not the one that was printed last of this rollout.
    fn changed(&mut self, rollout: &Rollout) -> Option<String> {
        let key = (
            rollout.metadata.namespace.clone(),
            rollout.metadata.name.clone(),
        );
        let row = Row::of(rollout);
        if self.printed.get(&key) == Some(&row) {
            return None;
        }
        let line = format!("{}\n", self.widths.row(self.columns, &row, now()));
        self.printed.insert(key, row);
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rollout(available: i32, generation: i64) -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "demo", "namespace": "there", "generation": generation},
            "spec": {"strategy": {"canary": {}}}, "status": {"phase": "Progressing", "availableReplicas": available},
        }))
        .unwrap()
    }

    #[test]
    fn only_changed_values_make_a_line() {
        let args = ListRolloutsArgs {
            name: None,
            all_namespaces: true,
            watch: true,
            timestamps: false,
        };
        let mut table = Table::new(&args, &[rollout(1, 1)]);
        let first = table.first(&[rollout(1, 1)]);
        assert!(
            first.starts_with("NAMESPACE  NAME        STRATEGY   STATUS "),
            "{first}"
        );
        assert_eq!(table.changed(&rollout(1, 2)), None);
        let line = table.changed(&rollout(2, 2)).unwrap();
        assert!(
            line.starts_with("there      demo        Canary     Progressing   - "),
            "{line}"
        );
        assert!(line.ends_with("  2\n"), "{line}");
    }
}
