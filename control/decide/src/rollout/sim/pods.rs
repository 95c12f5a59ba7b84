//! ReplicaSets and their pods: the part of the cluster that makes pods, and the pods that become ready, or late, or never.

use std::collections::VecDeque;

use super::dice::Dice;
use super::world::{Due, Kind, World};

/// How the pods of an image behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behaviour {
    /// Ready in a moment.
    Good,
    /// Ready after a minute or so.
    Late,
    /// Never ready.
    Never,
    /// Now ready, now not.
    Flapping,
    /// Ready once, and then never again.
    Dying,
    /// Never ready, whatever else is healed.
    Broken,
}

impl Behaviour {
    /// How an image's pods behave in the world of a seed.
    pub(super) fn of(seed: u64, image: &str) -> Self {
        if image == BROKEN {
            return Self::Broken;
        }
        match Dice::new(seed, image).roll(12) {
            0..=6 => Self::Good,
            7..=8 => Self::Late,
            9 => Self::Never,
            10 => Self::Flapping,
            _ => Self::Dying,
        }
    }
}

/// An image whose pods are never ready, in every world.
pub(super) const BROKEN: &str = "web:99";

/// A pod.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) id: u64,
    pub(super) set: u32,
    pub(super) created: i64,
    /// Since when it is ready, if it is.
    pub(super) ready: Option<i64>,
    pub(super) terminating: bool,
    /// It has been ready before.
    pub(super) was_ready: bool,
}

/// How long ReplicaSets and pods take, in milliseconds, where that is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    /// Until the ReplicaSet controller looks at what has changed.
    pub(super) follow: i64,
    /// Starts of each ReplicaSet's pods, ReplicaSets and pods in the order of their creation.
    pub(super) starts: Vec<VecDeque<i64>>,
    /// A start that is not among them.
    pub(super) start: i64,
    /// Until an evicted pod is gone.
    pub(super) stop: i64,
}

impl World {
    /// Ready pods of a ReplicaSet, as they are.
    pub(super) fn ready(&self, set: u32) -> i32 {
        let ready = self
            .pods
            .iter()
            .filter(|pod| pod.set == set && pod.ready.is_some());
        i32::try_from(ready.count()).unwrap()
    }

    /// The ReplicaSet controller is to look at a ReplicaSet.
    pub(super) fn touch(&mut self, id: u32, within: i64) {
        let known = self.pace.as_ref().map(|pace| pace.follow);
        let delay = known.unwrap_or_else(|| self.dice.between(2, within));
        let Some(set) = self.sets.iter_mut().find(|set| set.id == id) else {
            return;
        };
        if !set.is_due {
            set.is_due = true;
            self.after(delay, Due::Set(id));
        }
    }

    /// The ReplicaSet controller makes and deletes pods, and counts them.
    pub(super) fn follow_set(&mut self, id: u32) {
        let Some(index) = self.sets.iter().position(|set| set.id == id) else {
            self.pods.retain(|pod| pod.set != id);
            return;
        };
        self.sets[index].is_due = false;
        let wanted = usize::try_from(self.sets[index].revision.wanted).unwrap();
        let mut living = self.living(id);
        while living > wanted {
            self.delete_one(id);
            living -= 1;
        }
        while living < wanted && !self.quota {
            self.create_one(id, self.sets[index].behaviour);
            living += 1;
        }
        self.count(index, living < wanted);
    }

    fn living(&self, id: u32) -> usize {
        let living = self
            .pods
            .iter()
            .filter(|pod| pod.set == id && !pod.terminating);
        living.count()
    }

    fn create_one(&mut self, set: u32, behaviour: Behaviour) {
        self.made += 1;
        let id = u64::from(self.made);
        self.pods.push(Pod {
            id,
            set,
            created: self.now,
            ready: None,
            terminating: false,
            was_ready: false,
        });
        let known = self.known_start(set);
        let delay = match (behaviour, known) {
            (Behaviour::Broken, _) => return,
            (_, Some(start)) => start,
            _ if self.healthy => self.dice.between(50, 900),
            (Behaviour::Good | Behaviour::Dying, None) => self.dice.between(50, 4_000),
            (Behaviour::Flapping, None) => self.dice.between(50, 9_000),
            (Behaviour::Late, None) => self.dice.between(5_000, 100_000),
            (Behaviour::Never, None) => return,
        };
        self.after(delay, Due::Pod(id, true));
    }

    /// How long the next pod of a ReplicaSet takes to start.
    fn known_start(&mut self, set: u32) -> Option<i64> {
        let index = self.sets.iter().position(|one| one.id == set);
        let pace = self.pace.as_mut()?;
        let starts = pace.starts.get_mut(index?);
        Some(starts.and_then(VecDeque::pop_front).unwrap_or(pace.start))
    }

    /// Those that are not ready go first, then the youngest.
    fn delete_one(&mut self, set: u32) {
        let living = self.pods.iter().enumerate();
        let living = living.filter(|(_, pod)| pod.set == set && !pod.terminating);
        let first = living.min_by_key(|(_, pod)| (pod.ready.is_some(), -pod.created));
        let index = first.unwrap().0;
        let was_ready = self.pods[index].ready.is_some();
        self.pods.remove(index);
        if was_ready {
            self.report_all();
        }
    }

    /// Writes the counts, if they have changed.
    fn count(&mut self, index: usize, short: bool) {
        let set = &self.sets[index];
        let (id, least) = (set.id, i64::from(set.revision.min_ready_seconds) * 1000);
        let mut counts = (0, 0, 0);
        let mut again = None;
        for pod in self
            .pods
            .iter()
            .filter(|pod| pod.set == id && !pod.terminating)
        {
            counts.0 += 1;
            let Some(since) = pod.ready else { continue };
            counts.1 += 1;
            match since + least <= self.now {
                true => counts.2 += 1,
                false => again = Some(again.map_or(since + least, |at: i64| at.min(since + least))),
            }
        }
        if let Some(at) = again {
            self.sets[index].is_due = true;
            self.after(at - self.now, Due::Set(id));
        }
        let revision = &self.sets[index].revision;
        let failed = revision.failure.is_some();
        let fails = short && self.quota;
        if counts == (revision.pods, revision.ready, revision.available)
            && revision.settled
            && failed == fails
        {
            return;
        }
        let stamp = self.change(Kind::Sets);
        let set = &mut self.sets[index];
        set.stamp = stamp;
        let revision = &mut set.revision;
        (revision.pods, revision.ready, revision.available) = counts;
        revision.settled = true;
        let quota = || ("FailedCreate".to_owned(), "exceeded quota".to_owned());
        revision.failure = fails.then(quota);
    }

    /// A pod becomes ready, or stops being so.
    pub(super) fn turn_pod(&mut self, id: u64, ready: bool) {
        let Some(index) = self.pods.iter().position(|pod| pod.id == id) else {
            return;
        };
        let (set, terminating) = (self.pods[index].set, self.pods[index].terminating);
        if terminating || self.pods[index].ready.is_some() == ready {
            return;
        }
        let behaviour = self.behaviour(set);
        let dies = !self.healthy && self.pods[index].was_ready && behaviour == Behaviour::Dying;
        if ready && (dies || behaviour == Behaviour::Broken) {
            return;
        }
        let now = self.now;
        let pod = &mut self.pods[index];
        pod.ready = ready.then_some(now);
        pod.was_ready |= ready;
        self.go_on(id, ready, behaviour);
        self.touch(set, 200);
        self.report_all();
    }

    fn behaviour(&self, set: u32) -> Behaviour {
        let set = self.sets.iter().find(|one| one.id == set);
        set.map_or(Behaviour::Broken, |set| set.behaviour)
    }

    /// What a pod does next of itself.
    fn go_on(&mut self, id: u64, ready: bool, behaviour: Behaviour) {
        let unstable = matches!(behaviour, Behaviour::Flapping | Behaviour::Dying);
        if ready && unstable && !self.healthy {
            let delay = self.dice.between(1_000, 60_000);
            self.after(delay, Due::Pod(id, false));
        } else if !ready && (self.healthy || behaviour != Behaviour::Never) {
            let delay = self.dice.between(500, 20_000);
            self.after(delay, Due::Pod(id, true));
        }
    }

    /// Pods that are drawn by lot.
    pub(super) fn lot(&self, mask: u64) -> Vec<u64> {
        let pods = self.pods.iter().filter(|pod| !pod.terminating);
        let drawn = pods.filter(|pod| mask >> (pod.id % 16) & 1 == 1);
        drawn.map(|pod| pod.id).collect()
    }

    /// A pod is deleted; its ReplicaSet makes another.
    pub(super) fn delete_pod(&mut self, id: u64) {
        let Some(index) = self.pods.iter().position(|pod| pod.id == id) else {
            return;
        };
        let pod = self.pods.remove(index);
        self.touch(pod.set, 200);
        self.report_all();
    }

    /// An eviction: the pod ends after its grace time.
    pub(super) fn evict(&mut self, id: u64) {
        let Some(pod) = self.pods.iter_mut().find(|pod| pod.id == id) else {
            return;
        };
        pod.terminating = true;
        pod.ready = None;
        let set = pod.set;
        self.touch(set, 200);
        self.report_all();
        let known = self.pace.as_ref().map(|pace| pace.stop);
        let grace = known.unwrap_or_else(|| self.dice.between(100, 5_000));
        self.after(grace, Due::Gone(id));
    }

    /// An evicted pod is gone. Clusters from 1.33 on tell of it: the ReplicaSet's status counts pods that terminate.
    pub(super) fn gone(&mut self, id: u64) {
        let Some(index) = self.pods.iter().position(|pod| pod.id == id) else {
            return;
        };
        let pod = self.pods.remove(index);
        if self.pace.is_none() {
            return;
        }
        let stamp = self.change(Kind::Sets);
        let mut sets = self.sets.iter_mut();
        if let Some(set) = sets.find(|set| set.id == pod.set) {
            set.stamp = stamp;
        }
    }

    /// From now on every pod becomes ready that can.
    pub(super) fn heal(&mut self) {
        self.healthy = true;
        let late: Vec<u64> = self
            .pods
            .iter()
            .filter(|pod| pod.ready.is_none())
            .map(|pod| pod.id)
            .collect();
        for id in late {
            self.after(500, Due::Pod(id, true));
        }
        let sets: Vec<u32> = self.sets.iter().map(|set| set.id).collect();
        for id in sets {
            self.touch(id, 200);
        }
    }
}
