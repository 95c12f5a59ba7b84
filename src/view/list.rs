//! `list rollouts`: one line per rollout, in the columns of `kubectl argo rollouts` (reference 1.8).

use jiff::Timestamp;
use sidestep_control::api::Rollout;

use super::{phase, weight};

/// Which columns stand before Argo's own.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Columns {
    /// TIMESTAMP.
    pub(crate) timestamp: bool,
    /// NAMESPACE.
    pub(crate) namespace: bool,
}

/// One rollout's values; a watch prints a line when they change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    namespace: String,
    cells: [String; 9],
}

/// Widths the columns keep, so that lines printed later stand below the first ones.
#[derive(Clone, Debug, Default)]
pub(crate) struct Widths {
    namespace: usize,
    cells: [usize; 9],
}

const HEADER: [&str; 9] = [
    "NAME",
    "STRATEGY",
    "STATUS",
    "STEP",
    "SET-WEIGHT",
    "READY",
    "DESIRED",
    "UP-TO-DATE",
    "AVAILABLE",
];

/// Least widths: room for values that come later, as in Argo (`cmd/list`, `columnFmtString`).
const LEAST: [usize; 9] = [10, 9, 12, 4, 10, 5, 7, 10, 9];

impl Row {
    /// The values of a rollout.
    pub(crate) fn of(rollout: &Rollout) -> Self {
        let strategy = &rollout.spec.strategy;
        let (name, step, set_weight) = match (&strategy.canary, &strategy.blue_green) {
            (Some(_), _) => (
                "Canary",
                weight::step(rollout),
                weight::set(rollout).to_string(),
            ),
            (None, Some(_)) => ("BlueGreen", String::new(), "-".to_owned()),
            (None, None) => ("unknown", String::new(), "-".to_owned()),
        };
        let status = rollout.status.clone().unwrap_or_default();
        Self {
            namespace: rollout.metadata.namespace.clone().unwrap_or_default(),
            cells: [
                rollout.metadata.name.clone().unwrap_or_default(),
                name.to_owned(),
                phase::of(rollout).0,
                if step.is_empty() {
                    "-".to_owned()
                } else {
                    step
                },
                set_weight,
                format!("{}/{}", status.ready_replicas, status.replicas),
                rollout.spec.replicas.unwrap_or(1).to_string(),
                status.updated_replicas.to_string(),
                status.available_replicas.to_string(),
            ],
        }
    }
}

impl Widths {
    /// Widths that fit the header and these rows.
    pub(crate) fn fitting(rows: &[Row]) -> Self {
        let mut widths = Self {
            namespace: "NAMESPACE".len(),
            cells: LEAST,
        };
        for (width, header) in widths.cells.iter_mut().zip(HEADER) {
            *width = header.len().max(*width);
        }
        for row in rows {
            widths.namespace = widths.namespace.max(row.namespace.len());
            for (width, cell) in widths.cells.iter_mut().zip(&row.cells) {
                *width = cell.len().max(*width);
            }
        }
        widths
    }

    /// The header's line.
    pub(crate) fn header(&self, columns: Columns) -> String {
        self.line(columns, "TIMESTAMP", "NAMESPACE", &HEADER)
    }

    /// A rollout's line.
    pub(crate) fn row(&self, columns: Columns, row: &Row, now: Timestamp) -> String {
        let now = Timestamp::from_second(now.as_second())
            .unwrap_or(now)
            .to_string();
        self.line(
            columns,
            &now,
            &row.namespace,
            &row.cells.each_ref().map(String::as_str),
        )
    }

    fn line(
        &self,
        columns: Columns,
        timestamp: &str,
        namespace: &str,
        cells: &[&str; 9],
    ) -> String {
        let mut line = String::new();
        if columns.timestamp {
            line += &format!("{timestamp:<20}  ");
        }
        if columns.namespace {
            line += &format!("{namespace:<width$}  ", width = self.namespace);
        }
        for (cell, width) in cells.iter().zip(self.cells) {
            line += &format!("{cell:<width$}  ");
        }
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn rollout(name: &str, strategy: &Value) -> Rollout {
        serde_json::from_value(json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": name, "namespace": "test"},
            "spec": {"replicas": 5, "strategy": strategy},
            "status": {
                "phase": "Progressing", "currentStepIndex": 1, "replicas": 4, "readyReplicas": 1, "updatedReplicas": 3,
                "availableReplicas": 2,
            },
        }))
        .unwrap()
    }

    fn table(columns: Columns) -> String {
        let canary = json!({"canary": {"steps": [{"setWeight": 10}, {"pause": {"duration": 60}}, {"setWeight": 20}]}});
        let rows = [
            Row::of(&rollout("can-guestbook", &canary)),
            Row::of(&rollout(
                "bg",
                &json!({"blueGreen": {"activeService": "bg"}}),
            )),
            Row::of(&rollout("none", &json!({}))),
        ];
        let widths = Widths::fitting(&rows);
        let now = "2026-11-21T08:00:00.4Z".parse().unwrap();
        let lines = rows.iter().map(|row| widths.row(columns, row, now));
        [widths.header(columns)]
            .into_iter()
            .chain(lines)
            .collect::<Vec<_>>()
            .join("\n")
    }

    #[test]
    fn columns_stand_below_one_another() {
        insta::assert_snapshot!(table(Columns::default()), @r"
        NAME           STRATEGY   STATUS        STEP  SET-WEIGHT  READY  DESIRED  UP-TO-DATE  AVAILABLE
        can-guestbook  Canary     Progressing   1/3   10          1/4    5        3           2
        bg             BlueGreen  Progressing   -     -           1/4    5        3           2
        none           unknown    Progressing   -     -           1/4    5        3           2
        ");
    }

    #[test]
    fn namespace_and_timestamp_come_first() {
        insta::assert_snapshot!(table(Columns { timestamp: true, namespace: true }), @r"
        TIMESTAMP             NAMESPACE  NAME           STRATEGY   STATUS        STEP  SET-WEIGHT  READY  DESIRED  UP-TO-DATE  AVAILABLE
        2026-11-21T08:00:00Z  test       can-guestbook  Canary     Progressing   1/3   10          1/4    5        3           2
        2026-11-21T08:00:00Z  test       bg             BlueGreen  Progressing   -     -           1/4    5        3           2
        2026-11-21T08:00:00Z  test       none           unknown    Progressing   -     -           1/4    5        3           2
        ");
    }
}
