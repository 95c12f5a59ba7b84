//! How a walk ends: everybody does their part, or one thing is wrong for good, and the rollout must come to where that leads.

use serde_json::json;

use super::fleet::weight;
use super::happening::What;
use super::world::World;
use super::{Broken, Walk};
use crate::rollout::observed::Service;

/// What is wrong at the end, if anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Nothing.
    Healthy,
    /// The pods of the new image never become ready.
    NeverReady,
    /// A person aborts an update.
    Aborted,
    /// No proxy answers.
    Silent,
}

impl Ending {
    pub(super) const ALL: [Self; 8] = [
        Self::Healthy,
        Self::Healthy,
        Self::Healthy,
        Self::NeverReady,
        Self::NeverReady,
        Self::Aborted,
        Self::Aborted,
        Self::Silent,
    ];
}

/// Ends a walk.
pub(super) fn end(walk: &mut Walk, ending: Ending) -> Result<(), Broken> {
    walk.world.note(|_| format!("== the end: {ending:?}"));
    walk.world.calm();
    walk.world.edit(|spec| spec["paused"] = json!(false));
    match ending {
        Ending::Healthy => {}
        Ending::NeverReady => never_ready(walk)?,
        Ending::Aborted => aborted(walk)?,
        Ending::Silent => silent(walk)?,
    }
    healthy(walk)
}

fn broken(rule: &'static str, why: String) -> Result<(), Broken> {
    Err(Broken { rule, why })
}

/// A user who wants the update to go on resumes and retries.
fn help(walk: &mut Walk) {
    if walk.world.status.abort {
        walk.world.happen(&What::Retry);
    }
    if !walk.world.status.pause_conditions.is_empty() {
        walk.world.happen(&What::Promote);
    }
}

/// Everybody does their part: within a bound the rollout is Healthy, everything old is gone, and nothing is written any more.
fn healthy(walk: &mut Walk) -> Result<(), Broken> {
    let rule = "a_healthy_world_ends_healthy";
    for _ in 0..ROUNDS {
        walk.run_for(20 * SECOND)?;
        if is_settled(walk) {
            break;
        }
        help(walk);
    }
    if !is_settled(walk) {
        return broken(rule, summary(walk));
    }
    walk.run_for(30 * MINUTE)?; // the delays, and the longest request
    let left = left_over(walk);
    if !left.is_empty() {
        return broken(rule, format!("{left}; {}", summary(walk)));
    }
    let wrote_at = walk.controller.wrote_at;
    walk.run_for(60 * MINUTE)?;
    match walk.controller.wrote_at == wrote_at {
        true => Ok(()),
        false => broken("a_steady_state_writes_nothing", summary(walk)),
    }
}

fn is_settled(walk: &Walk) -> bool {
    let world = &walk.world;
    let seen = Some(world.metadata.generation.to_string());
    let is_observed = world.status.observed_generation == seen && world.is_workload_observed();
    world.phase() == "Healthy" && is_observed
}

/// What should not be there any more, or should be and is not.
fn left_over(walk: &Walk) -> String {
    let world = &walk.world;
    let stable = world.status.stable_rs.clone().unwrap_or_default();
    for set in &world.sets {
        let wanted = if set.revision.hash == stable {
            world.replicas()
        } else {
            0
        };
        if set.revision.wanted != wanted {
            return format!(
                "{} has {} of {wanted} pods",
                set.revision.name, set.revision.wanted
            );
        }
    }
    for (proxy, table) in world.tables() {
        let mut versions = table.split.versions.iter();
        if versions.any(|version| version.revision != stable) {
            return format!("{proxy} serves {}", super::fleet::shown(table));
        }
    }
    if let Some(service) = astray(world, &stable) {
        return format!("{} leads to {:?}", service.name, service.hash());
    }
    let restarted = world.status.restarted_at.as_ref();
    match restarted == world.rollout.spec.restart_at.as_ref() {
        true => String::new(),
        false => format!("restarted at {restarted:?}"),
    }
}

/// A Service of a blue-green update that does not lead to stable.
fn astray<'a>(world: &'a World, stable: &str) -> Option<&'a Service> {
    let strategy = world.rollout.spec.strategy.blue_green.as_ref()?;
    let is_named = |service: &&Service| {
        let preview = strategy.preview_service.as_ref();
        service.name == strategy.active_service || Some(&service.name) == preview
    };
    let mut services = world.services.iter().filter(is_named);
    services.find(|service| service.hash() != Some(stable))
}

/// Pods that never become ready: within the deadline the rollout is Degraded and says why.
fn never_ready(walk: &mut Walk) -> Result<(), Broken> {
    if walk.world.replicas() == 0 && walk.world.workload.is_some() {
        walk.world.edit(|spec| spec["replicas"] = json!(2));
        walk.run_for(2 * SECOND)?; // else the image may be seen first, and be promoted without pods
    }
    let replicas = match walk.world.replicas() {
        0 => 2,
        replicas => i64::from(replicas),
    };
    walk.world.set_image_and_replicas(99, replicas);
    for _ in 0..ROUNDS {
        walk.run_for(60 * SECOND)?;
        if walk.world.phase() == "Degraded" {
            break;
        }
        help(walk);
    }
    if walk.world.phase() != "Degraded" {
        return broken("an_unhealthy_world_says_so", summary(walk));
    }
    walk.world.happen(&What::Image(1));
    Ok(())
}

/// An abort: within a bound every proxy sends everything to stable, the canary goes, and so it stays.
fn aborted(walk: &mut Walk) -> Result<(), Broken> {
    walk.world.set_image(8);
    walk.run_for(3 * SECOND)?;
    help(walk);
    let pause = walk.world.dice.between(0, 20_000);
    walk.run_for(pause)?;
    walk.world.happen(&What::Abort);
    walk.run_for(20 * MINUTE)?;
    let rule = "an_abort_ends_on_stable";
    let stable = walk.world.status.stable_rs.clone().unwrap_or_default();
    if !walk.world.status.abort && walk.world.phase() != "Healthy" {
        return broken(rule, summary(walk));
    }
    for (proxy, table) in walk.world.tables() {
        let mut versions = table.split.versions.iter();
        if versions.any(|v| v.revision != stable && weight(&table.split, &v.revision) > 0) {
            return broken(
                rule,
                format!("{proxy} serves {}", super::fleet::shown(table)),
            );
        }
    }
    let active = walk.world.active_service();
    if active.is_some_and(|active| active.hash() != Some(stable.as_str())) {
        return broken(rule, format!("{active:?}, and stable is {stable}"));
    }
    let wrote_at = walk.controller.wrote_at;
    walk.run_for(40 * MINUTE)?;
    match walk.controller.wrote_at == wrote_at {
        true => Ok(()),
        false => broken(
            "an_abort_ends_on_stable",
            format!("it does not stay: {}", summary(walk)),
        ),
    }
}

/// No proxy answers: an update with routing goes no further than its first weight, and says which proxies it waits for.
fn silent(walk: &mut Walk) -> Result<(), Broken> {
    for index in 0..walk.world.proxies.len() {
        walk.world.happen(&What::Silent(index, true));
    }
    walk.world.set_image(9);
    for _ in 0..30 {
        walk.run_for(60 * SECOND)?;
        help(walk);
    }
    let world = &walk.world;
    let stable = world.status.stable_rs.as_ref();
    let promoted = stable.is_some() && stable == world.status.current_pod_hash.as_ref();
    if world.is_routed() && world.replicas() > 0 && promoted {
        return broken(
            "an_unhealthy_world_says_so",
            format!("promoted: {}", summary(walk)),
        );
    }
    walk.world.calm();
    Ok(())
}

fn summary(walk: &Walk) -> String {
    let world = &walk.world;
    let sets = world.sets.iter().map(|set| {
        let revision = &set.revision;
        format!(
            "{} {}/{}",
            revision.hash, revision.available, revision.wanted
        )
    });
    format!(
        "{} {:?}, step {:?}, stable {:?}, new {:?}, sets {:?}, {:?}",
        world.phase(),
        world.message(),
        world.status.current_step_index,
        world.status.stable_rs,
        world.status.current_pod_hash,
        sets.collect::<Vec<_>>(),
        world.memory().waiting,
    )
}

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;

/// Rounds of waiting and helping within which an end must be reached.
const ROUNDS: usize = 90;
