//! What must hold of the world at every write of the controller's: what proxies in fact serve, pods that in fact work.

use super::Broken;
use super::api::Write;
use super::fleet::{shown, weight};
use super::pods::Pod;
use super::rules::{Verdict, ensure};
use super::world::{Set, World};
use crate::rollout::decision::Action;

/// A guard and its name.
type Guard = (&'static str, fn(&World, &Action) -> Verdict);

/// Every guard.
pub(super) const GUARDS: &[Guard] = &[
    (
        "served_weights_keep_their_pods",
        served_weights_keep_their_pods,
    ),
    ("busy_pods_stay", busy_pods_stay),
    (
        "listed_versions_have_services",
        listed_versions_have_services,
    ),
    (
        "no_pods_are_deleted_with_their_set",
        no_pods_are_deleted_with_their_set,
    ),
    ("revision_numbers_differ", revision_numbers_differ),
    (
        "the_old_active_stays_for_its_delay",
        the_old_active_stays_for_its_delay,
    ),
];

/// Checks a write that is about to be done.
pub(super) fn check(world: &World, write: &Write) -> Result<(), Broken> {
    let Write::Action(action) = write else {
        return Ok(());
    };
    for (rule, holds) in GUARDS {
        holds(world, action).map_err(|why| Broken { rule, why })?;
    }
    Ok(())
}

fn scaled_down<'a>(world: &'a World, action: &Action) -> Option<(&'a Set, i32)> {
    let Action::ScaleReplicaSet { name, to, .. } = action else {
        return None;
    };
    let set = world.sets.iter().find(|set| set.revision.name == *name)?;
    (*to < set.revision.wanted && world.is_routed()).then_some((set, *to))
}

/// Control-plane rules, section 4: no ReplicaSet is shrunk below what the weights that any proxy serves need of it; so stable's last
/// ready capacity is never scaled away while it carries traffic. More than `spec.replicas` are never needed.
///
/// A person may have changed that since the controller looked.
fn served_weights_keep_their_pods(world: &World, action: &Action) -> Verdict {
    let Some((set, to)) = scaled_down(world, action) else {
        return Ok(());
    };
    let revision = &set.revision;
    let most = world.ready(set.id).min(world.replicas()).min(world.decided);
    for (proxy, table) in world.tables() {
        let weight = weight(&table.split, &revision.hash);
        let needed = table.split.needed(&revision.hash).unwrap_or(0);
        let needed = i32::try_from(needed).unwrap_or(i32::MAX);
        let needed = needed.min(most);
        ensure(weight == 0 || to >= needed, || {
            format!(
                "{} to {to}, but {proxy} serves {}",
                revision.name,
                shown(table)
            )
        })?;
    }
    Ok(())
}

/// Data-plane rules, section 4: a revision's pods go when no proxy serves it any more and nothing is in flight to it, or its drain has
/// had its time.
fn busy_pods_stay(world: &World, action: &Action) -> Verdict {
    let Some((set, 0)) = scaled_down(world, action) else {
        return Ok(());
    };
    let hash = &set.revision.hash;
    if world.ready(set.id) == 0 || world.replicas().min(world.decided) == 0 || !world.is_busy(hash)
    {
        return Ok(());
    }
    let memory = world.memory();
    let since = memory.left.get(hash).map(|since| since.0);
    let waited = since.map(|since| world.clock().duration_since(since).as_secs());
    let listed = world.tables().any(|(_, table)| table.split.lists(hash));
    let drain = world.drain_seconds();
    ensure(
        !listed && waited.is_some_and(|waited| waited >= drain),
        || {
            format!(
                "{} goes after {waited:?} s of {drain} and is busy (listed: {listed})",
                set.revision.name
            )
        },
    )
}

/// Every version of a Split has a Service that lists its pods.
fn listed_versions_have_services(world: &World, action: &Action) -> Verdict {
    let Action::WriteSplit(split) = action else {
        return Ok(());
    };
    for version in &split.versions {
        let set = world.set(&version.revision);
        let lacks = set.is_some_and(|set| !set.revision.has_service);
        ensure(!lacks, || format!("{version:?} has no Service"))?;
    }
    Ok(())
}

/// R7.12: a ReplicaSet that has pods, or is about to, is not deleted. Evicted pods, which go anyway, are not counted in its status.
fn no_pods_are_deleted_with_their_set(world: &World, action: &Action) -> Verdict {
    let Action::DeleteReplicaSet { name } = action else {
        return Ok(());
    };
    let set = world.sets.iter().find(|set| set.revision.name == *name);
    let Some(set) = set else { return Ok(()) };
    let living = |pod: &&Pod| pod.set == set.id && !pod.terminating;
    let pods = world.pods.iter().filter(living).count();
    ensure(pods == 0 && set.revision.wanted == 0, || {
        format!("{name} has {pods} pods")
    })
}

/// R1.3: no two ReplicaSets have one number.
fn revision_numbers_differ(world: &World, _: &Action) -> Verdict {
    let numbers: Vec<i64> = world
        .sets
        .iter()
        .filter_map(|set| set.revision.number())
        .collect();
    let twice = (1..numbers.len()).find(|&index| numbers[..index].contains(&numbers[index]));
    ensure(twice.is_none(), || format!("{numbers:?}"))
}

/// R7.9, R7.10: the pods that active led to stay for the delay after a switch, as many revisions as the limit allows.
fn the_old_active_stays_for_its_delay(world: &World, action: &Action) -> Verdict {
    let Action::ScaleReplicaSet { name, to: 0, .. } = action else {
        return Ok(());
    };
    let set = world.sets.iter().find(|set| set.revision.name == *name);
    let strategy = world.rollout.spec.strategy.blue_green.as_ref();
    let (Some(set), Some(strategy)) = (set, strategy) else {
        return Ok(());
    };
    let Some(left) = world.left_active.get(&set.revision.hash) else {
        return Ok(());
    };
    let later =
        |other: &&Set| other.revision.wanted > 0 && other.revision.number() > set.revision.number();
    let later = world.sets.iter().filter(later).count();
    let limit = strategy.scale_down_delay_revision_limit;
    let over = limit.is_some_and(|limit| i64::from(limit) <= i64::try_from(later).unwrap());
    let delays = [
        strategy.scale_down_delay_seconds,
        strategy.abort_scale_down_delay_seconds,
    ];
    let [delay, abort] = delays.map(|delay| i64::from(delay.unwrap_or(30)));
    let delay = if abort > 0 { delay.min(abort) } else { delay };
    let waited = (world.now - left) / 1000 + 1; // deadlines are in whole seconds
    let none = world.replicas().min(world.decided) == 0 || set.revision.wanted == 0;
    let current = world.status.current_pod_hash.as_ref() == Some(&set.revision.hash);
    let retried = current && !world.status.abort; // it is tried again, with as many pods as its preview has
    ensure(over || none || retried || waited >= delay, || {
        format!("{name} goes {waited} s after active left it, not {delay}")
    })
}
