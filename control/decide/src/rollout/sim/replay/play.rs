//! Plays a recording: the same spec, the same users at the same times, pods that start as they did, and our controller.

use std::collections::BTreeMap;

use super::facts::{Fact, RolloutSeen, Seen, ServiceSeen, SetSeen};
use super::recording::Recording;
use crate::api::labels;
use crate::rollout::sim::dice::Dice;
use crate::rollout::sim::fleet::weight;
use crate::rollout::sim::world::{Set, World};
use crate::rollout::sim::{Broken, Script, Walk};

/// Plays what a script says in the world of a recording; returns what was seen of ours, or the rule of the simulation that broke.
pub(super) fn play(recording: &Recording, script: &Script) -> Result<Vec<Seen>, Broken> {
    let mut walk = Walk::new(script, None);
    walk.world.dice = Dice::Steady(TEMPO);
    walk.world.pace = Some(recording.pace());
    walk.world.slowness = 1;
    walk.world.healthy = true;
    let mut watch = Watch::default();
    for happening in &script.list {
        run_until(&mut walk, happening.at, &mut watch)?;
        walk.controller.restless = 0;
        walk.world.happen(&happening.what);
        watch.look(&mut walk);
    }
    run_until(&mut walk, recording.end, &mut watch)?;
    Ok(watch.seen)
}

fn run_until(walk: &mut Walk, time: i64, watch: &mut Watch) -> Result<(), Broken> {
    while let Some(due) = walk.world.next_due(time) {
        walk.follow(due)?;
        watch.look(walk);
    }
    walk.world.now = walk.world.now.max(time);
    Ok(())
}

/// Somebody who writes down what changes.
#[derive(Debug, Default)]
struct Watch {
    rollout: Option<RolloutSeen>,
    sets: BTreeMap<String, SetSeen>,
    services: BTreeMap<String, ServiceSeen>,
    split: Option<BTreeMap<String, i32>>,
    seen: Vec<Seen>,
}

impl Watch {
    fn look(&mut self, walk: &mut Walk) {
        let world = &walk.world;
        let mut news = Vec::new();
        for (index, set) in world.sets.iter().enumerate() {
            let set = shown_set(index, set);
            if self.sets.get(&set.name) != Some(&set) {
                self.sets.insert(set.name.clone(), set.clone());
                news.push(Fact::Set(set));
            }
        }
        news.extend(self.services(world));
        let split = shares(world);
        if split != self.split {
            self.split.clone_from(&split);
            news.extend(split.map(Fact::Split));
        }
        let rollout = Some(shown_rollout(world));
        if rollout != self.rollout {
            self.rollout.clone_from(&rollout);
            news.extend(rollout.map(Fact::Rollout));
        }
        for event in std::mem::take(&mut walk.controller.told) {
            let text = format!("{} {}: {}", event.kind.word(), event.reason, event.message);
            news.push(Fact::Event(renamed(world, text.trim_end())));
        }
        let at = world.now;
        let news = news.into_iter().map(|fact| Seen { at, fact });
        self.seen.extend(news);
    }

    fn services(&mut self, world: &World) -> Vec<Fact> {
        let mut news = Vec::new();
        for service in &world.services {
            let Some(hash) = service.selector.get(labels::POD_TEMPLATE_HASH) else {
                continue;
            };
            let name = service.name.clone();
            let set = renamed(world, hash);
            let service = ServiceSeen { name, set };
            if self.services.get(&service.name) != Some(&service) {
                let name = service.name.clone();
                self.services.insert(name, service.clone());
                news.push(Fact::Service(service));
            }
        }
        news
    }
}

fn shown_set(index: usize, set: &Set) -> SetSeen {
    let revision = &set.revision;
    SetSeen {
        name: format!("V{}", index + 1),
        revision: revision.number().unwrap_or_default(),
        size: revision.wanted,
        pods: revision.pods,
        available: revision.available,
        has_deadline: revision.deadline().is_some(),
    }
}

/// Shares of the weighted rule by ReplicaSet, in percent.
fn shares(world: &World) -> Option<BTreeMap<String, i32>> {
    let split = &world.split.as_ref()?.written.split;
    let share = |set: &Set| i32::try_from(weight(split, &set.revision.hash)).unwrap();
    let shares = world.sets.iter().enumerate();
    let shares = shares.map(|(index, set)| (format!("V{}", index + 1), share(set)));
    Some(shares.filter(|(_, share)| *share > 0).collect())
}

/// The parts in the order of a recording's line.
fn shown_rollout(world: &World) -> RolloutSeen {
    let status = &world.status;
    let hash = |hash: &Option<String>| match hash {
        Some(hash) => renamed(world, hash),
        None => "-".to_owned(),
    };
    let index = status.current_step_index;
    let step = index.map_or_else(|| "-".to_owned(), |index| index.to_string());
    let state = format!(
        "stable {} current {} flags {} step {step} {} {}",
        hash(&status.stable_rs),
        hash(&status.current_pod_hash),
        flags(world),
        status.phase.as_deref().unwrap_or("-"),
        renamed(world, status.message.as_deref().unwrap_or_default()),
    );
    let weights = status.canary.weights.as_ref();
    RolloutSeen {
        generation: world.metadata.generation,
        counts: [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ],
        weight: weights.map(|weights| weights.canary.weight),
        state: state.trim_end().to_owned(),
    }
}

/// What else the status says: `abort,controllerPause,CanaryPauseStep`.
fn flags(world: &World) -> String {
    let status = &world.status;
    let switches = [
        ("abort", status.abort),
        ("controllerPause", status.controller_pause),
        ("promoteFull", status.promote_full),
    ];
    let switches = switches.into_iter().filter(|(_, is_on)| *is_on);
    let pauses = status.pause_conditions.iter();
    let selectors = [
        ("active", &status.blue_green.active_selector),
        ("preview", &status.blue_green.preview_selector),
    ];
    let selectors = selectors.into_iter().filter_map(|(name, hash)| {
        let hash = hash.as_deref()?;
        Some(format!("{name}={}", renamed(world, hash)))
    });
    let flags: Vec<String> = switches
        .map(|(name, _)| name.to_owned())
        .chain(pauses.map(|pause| pause.reason.clone()))
        .chain(selectors)
        .collect();
    match flags.is_empty() {
        true => "-".to_owned(),
        false => flags.join(","),
    }
}

/// Names and hashes of ReplicaSets replaced by V1, V2, ...
fn renamed(world: &World, text: &str) -> String {
    let mut text = text.to_owned();
    for (index, set) in world.sets.iter().enumerate() {
        let name = format!("V{}", index + 1);
        text = text.replace(&set.revision.name, &name);
        text = text.replace(&set.revision.hash, &name);
    }
    text
}

/// In hundredths of what the simulation draws from: caches hear within 7 ms, a look comes 5 ms later, a write takes 3 ms, which is about as
/// quick as Argo is.
///
/// Two recordings scale with every pod that becomes available (basic-canary-abort, basic-weight-down). How far a size goes at once depends
/// on how many pods a look sees, and from 20 to 25 hundredths ours sees as many as Argo's did. To the others the tempo is the same.
const TEMPO: i64 = 22;
