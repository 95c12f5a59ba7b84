//! Old revisions beyond the limit go, with their AnalysisRuns (R7.12).

use super::decision::Action;
use super::observed::Revision;
use super::turn::Turn;

/// Deletes the oldest revisions beyond the limit, those of them that have no pods.
pub(super) fn clean(turn: &mut Turn<'_>) {
    let mut others: Vec<&Revision> = turn
        .others
        .iter()
        .copied()
        .filter(|set| !set.deleting)
        .collect();
    others.sort_by_key(|set| set.created_at);
    let excess = others.len().saturating_sub(turn.plan.history_limit);
    for set in others.into_iter().take(excess) {
        if set.wanted == 0 && set.pods == 0 && set.settled {
            delete(turn, set);
        }
    }
}

fn delete(turn: &mut Turn<'_>, set: &Revision) {
    for run in turn
        .observed
        .runs
        .iter()
        .filter(|run| run.role.is_some() && run.hash == set.hash)
    {
        turn.act(Action::DeleteAnalysisRun {
            name: run.name.clone(),
        });
    }
    turn.act(Action::DeleteReplicaSet {
        name: set.name.clone(),
    });
}
