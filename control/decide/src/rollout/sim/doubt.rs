//! Writes that got no answer, as `reconcile::writes` treats them: what they wrote is read past the caches before the next decision.

use super::api::{Seen, Write};
use super::world::{Kind, Stamp, World};
use crate::rollout::decision::Action;
use crate::rollout::observed::Observed;

/// What stands where a write went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Found {
    kind: Kind,
    /// The object's version; none if it is not there.
    version: Option<u64>,
    /// The cache has an object of that name.
    held: bool,
}

/// Reads what a write was about, and says how far each cache has to get.
pub(super) fn settle(world: &World, observed: &Observed, write: &Write, must_see: &mut Seen) {
    for found in read(world, observed, write) {
        let gone = if found.held { world.version } else { 0 };
        let must = &mut must_see[found.kind.index()];
        *must = found.version.unwrap_or(gone).max(*must);
    }
}

fn read(world: &World, observed: &Observed, write: &Write) -> Vec<Found> {
    let split = world.split.as_ref().map(|split| split.stamp);
    let rollout = there(Kind::Rollout, world.rollout_stamp);
    let split = Found {
        kind: Kind::Split,
        version: split.map(|stamp| stamp.version),
        held: observed.split.is_some(),
    };
    match write {
        Write::Action(action) => read_action(world, observed, action, [rollout, split]),
        Write::Memory(_) => vec![rollout, split],
        Write::Status(_) => vec![rollout],
    }
}

fn read_action(
    world: &World,
    observed: &Observed,
    action: &Action,
    [rollout, split]: [Found; 2],
) -> Vec<Found> {
    match action {
        Action::SetReplicas { .. }
        | Action::AnnotateRollout { .. }
        | Action::NoteWorkload { .. } => vec![rollout],
        Action::SwitchService { .. } => vec![there(Kind::Services, world.services_stamp)],
        Action::WriteSplit(_) | Action::DeleteSplit => vec![split],
        Action::CreateAnalysisRun(run) => {
            let name = run.metadata.name.as_deref().unwrap_or_default();
            vec![run_of(world, observed, name)]
        }
        Action::TerminateAnalysisRun { name } | Action::DeleteAnalysisRun { name } => {
            vec![run_of(world, observed, name)]
        }
        Action::EvictPod { .. } => Vec::new(), // pods are not cached
        Action::CreateReplicaSet(new) => vec![set_of(world, observed, &new.name)],
        Action::AnnotateReplicaSet { name, .. }
        | Action::ScaleReplicaSet { name, .. }
        | Action::DeleteReplicaSet { name } => vec![set_of(world, observed, name)],
        Action::EnsureRevisionService { replica_set, .. }
        | Action::DeleteRevisionService { replica_set }
        | Action::MarkPods { replica_set, .. }
        | Action::KeepApart { replica_set, .. } => vec![set_of(world, observed, replica_set)],
        Action::ScaleWorkload { .. } => {
            let stamp = world.workload.as_ref().map(|workload| workload.stamp);
            let found = stamp.map(|stamp| there(Kind::Workload, stamp));
            found.into_iter().collect()
        }
    }
}

/// An object that is always there.
fn there(kind: Kind, stamp: Stamp) -> Found {
    Found {
        kind,
        version: Some(stamp.version),
        held: true,
    }
}

fn set_of(world: &World, observed: &Observed, name: &str) -> Found {
    let set = world.sets.iter().find(|set| set.revision.name == name);
    let mut held = observed.revisions.iter();
    Found {
        kind: Kind::Sets,
        version: set.map(|set| set.stamp.version),
        held: held.any(|set| set.name == name),
    }
}

fn run_of(world: &World, observed: &Observed, name: &str) -> Found {
    let run = world.runs.iter().find(|(_, run)| run.name == name);
    let mut held = observed.runs.iter();
    Found {
        kind: Kind::Runs,
        version: run.map(|(stamp, _)| stamp.version),
        held: held.any(|run| run.name == name),
    }
}
