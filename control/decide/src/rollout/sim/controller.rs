//! The controller around the decisions, as `reconcile` is: caches, looks, writes one after another, failures, deaths.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use super::api::{Seen, Write};
use super::doubt;
use super::guards;
use super::happening::Trouble;
use super::rules::{self, Case};
use super::spec;
use super::workload::Workload;
use super::world::{Due, Kind, World};
use super::{Broken, Scene, Tamper, switches};
use crate::api::rollout::{Rollout, RolloutStatus};
use crate::api::split::Memory;
use crate::rollout::decision::{Action, Decision, Event, PATIENCE, Told};
use crate::rollout::memory::recall;
use crate::rollout::observed::{Observed, Pod, Revision};
use crate::rollout::plan::{self, Invalid, plan};
use crate::rollout::{Plan, State, decide, restart};

/// A plan, or why there is none.
type Planned = Arc<Result<Plan, Vec<Invalid>>>;

/// The controller: what it has seen, and what it is about.
#[derive(Debug)]
pub(super) struct Controller {
    is_up: bool,
    /// How far each cache has got.
    seen: Seen,
    /// How far each must get before the next look (control-plane rules, section 5).
    must_see: Seen,
    /// A write that got no answer.
    doubt: Option<Write>,
    /// How far each had got when it looked: what is written rests on that.
    rests_on: Seen,
    observed: Observed,
    /// Versions of the ReplicaSets, in the order of `observed.revisions`.
    versions: Vec<u64>,
    rollout: Rollout,
    status: RolloutStatus,
    annotated: Option<Memory>,
    split_memory: Option<Memory>,
    workload: Option<Workload>,
    planned: Option<(i64, [u64; 2], Planned)>,
    /// When it looks next.
    look_at: Option<i64>,
    /// What is left to write.
    writes: VecDeque<Write>,
    /// When this turn has written the Split, if it has.
    split_since: Option<i64>,
    /// How long after the writes it looks again by itself, in milliseconds.
    again: Option<i64>,
    /// What it tells as they are done.
    to_tell: Vec<Told>,
    /// Actions of the decision that are done.
    done: usize,
    /// What it has told.
    pub(super) told: Vec<Event>,
    failures: u32,
    /// Looks so far.
    pub(super) looks: u64,
    /// Looks in a row that wrote, with nothing else happening.
    pub(super) restless: u32,
    /// When anything was written last.
    pub(super) wrote_at: i64,
    /// Breaks decisions, where a rule is to be shown to notice.
    pub(super) tamper: Option<Tamper>,
}

impl Controller {
    pub(super) fn new(world: &World) -> Self {
        Self {
            is_up: false,
            seen: Seen::default(),
            must_see: Seen::default(),
            doubt: None,
            rests_on: Seen::default(),
            observed: Observed::default(),
            versions: Vec::new(),
            rollout: world.rollout.clone(),
            status: RolloutStatus::default(),
            annotated: None,
            split_memory: None,
            workload: None,
            planned: None,
            look_at: None,
            writes: VecDeque::new(),
            split_since: None,
            again: None,
            to_tell: Vec::new(),
            done: 0,
            told: Vec::new(),
            failures: 0,
            looks: 0,
            restless: 0,
            wrote_at: 0,
            tamper: None,
        }
    }

    /// It comes up and reads everything.
    pub(super) fn start(&mut self, world: &mut World) {
        self.is_up = true;
        self.must_see = Seen::default();
        self.doubt = None;
        self.failures = 0;
        for kind in Kind::ALL {
            self.hear(world, kind);
        }
        world.note(|_| "the controller starts".to_owned());
    }

    /// It dies, and what it was about is forgotten.
    fn die(&mut self, world: &mut World) {
        self.is_up = false;
        self.writes.clear();
        self.look_at = None;
        let pause = world.dice.between(50, 8_000);
        world.after(pause, Due::Start);
        world.note(|_| "the controller dies".to_owned());
    }

    /// A cache hears of what has changed.
    pub(super) fn hear(&mut self, world: &mut World, kind: Kind) {
        if !self.is_up {
            return;
        }
        self.seen[kind.index()] = world.version;
        match kind {
            Kind::Rollout => {
                if self.observed.rollout.generation != world.metadata.generation {
                    self.rollout.clone_from(&world.rollout);
                }
                self.observed.rollout.clone_from(&world.metadata);
                self.status.clone_from(&world.status);
                self.annotated.clone_from(&world.annotated);
            }
            Kind::Sets => self.hear_sets(world),
            Kind::Services => self.observed.services.clone_from(&world.services),
            Kind::Split => {
                let split = world.split.as_ref();
                self.observed.split = split.map(|split| split.written.clone());
                self.split_memory = split.map(|split| split.memory.clone());
            }
            Kind::Runs => {
                let runs = world.runs.iter();
                self.observed.runs = runs.map(|(_, run)| run.clone()).collect();
            }
            Kind::Workload => self.workload.clone_from(&world.workload),
        }
        let delay = world.dice.between(1, 20);
        self.wake(world, delay);
    }

    fn hear_sets(&mut self, world: &World) {
        let known = std::mem::take(&mut self.observed.revisions);
        let mut known: Vec<(u64, Option<Revision>)> = std::mem::take(&mut self.versions)
            .into_iter()
            .zip(known.into_iter().map(Some))
            .collect();
        for set in &world.sets {
            let version = set.stamp.version;
            let mut same = known.iter_mut();
            let same = same.find(|(known, _)| *known == version);
            let revision = same.and_then(|(_, revision)| revision.take());
            let revision = revision.unwrap_or_else(|| set.revision.clone());
            self.observed.revisions.push(revision);
            self.versions.push(version);
        }
    }

    /// It is to look after so many milliseconds at the latest.
    pub(super) fn wake(&mut self, world: &mut World, delay: i64) {
        let at = world.now + delay.max(0);
        if self.is_up && self.look_at.is_none_or(|look_at| at < look_at) {
            self.look_at = Some(at);
            world.after(delay, Due::Look);
        }
    }

    /// It looks, if it is time to, and decides.
    pub(super) fn look(&mut self, world: &mut World) -> Result<(), Broken> {
        if !self.is_up || self.look_at.is_none_or(|at| at > world.now) {
            return Ok(());
        }
        self.look_at = None;
        if !self.writes.is_empty() {
            return Ok(()); // it looks when they are done
        }
        if !self.catch_up(world) {
            return Ok(());
        }
        self.looks += 1;
        self.rests_on = self.seen;
        world.decided = self.rollout.spec.replicas.unwrap_or(1);
        let now = world.clock();
        let planned = self.planned();
        let memory = self.memory();
        let was = State::from_status(&self.status, &memory);
        self.observed.fleet = world.fleet(self.observed.split.as_ref());
        let decision = match planned.as_ref() {
            Ok(plan) => self.decide(world, plan, &was, now)?,
            Err(complaints) => self.refuse(&was, complaints, now)?,
        };
        self.begin(world, decision, &memory, now);
        Ok(())
    }

    /// Whether everything it has written is in view; else it looks again.
    fn catch_up(&mut self, world: &mut World) -> bool {
        if let Some(write) = self.doubt.take() {
            if !world.healthy && world.dice.one_in(3) {
                world.note(|_| "a read fails".to_owned());
                self.doubt = Some(write);
                self.fail(world);
                return false;
            }
            doubt::settle(world, &self.observed, &write, &mut self.must_see);
        }
        let mut pairs = self.must_see.iter().zip(&self.seen);
        let is_behind = pairs.any(|(must, seen)| must > seen);
        if is_behind {
            world.note(|_| "its writes are not in view".to_owned());
            self.wake(world, 1_000);
        }
        !is_behind
    }

    /// Decides, and has it checked.
    fn decide(
        &mut self,
        world: &mut World,
        plan: &Plan,
        was: &State,
        now: Timestamp,
    ) -> Result<Decision, Broken> {
        let due = restart::is_due(plan, was, now);
        self.observed.pods = due.then(|| live_pods(world));
        let mut decision = decide(plan, was, &self.observed, now);
        let mut again = decide(plan, was, &self.observed, now);
        if let Some(tamper) = self.tamper {
            let scene = |is_second| Scene {
                state: was,
                observed: &self.observed,
                now,
                is_second,
            };
            tamper(&mut decision, scene(false));
            tamper(&mut again, scene(true));
        }
        let case = Case {
            consent: world.consent,
            is_still: decision.actions.is_empty() && decision.status == was.status(),
            plan,
            was,
            observed: &self.observed,
            decision: &decision,
            again: &again,
            now,
        };
        let holds = rules::check(&case);
        if holds.is_err() {
            world.note(|_| shown(&decision));
        }
        world.consent |= switches::opens(&case);
        holds.map(|()| decision)
    }

    /// Refuses a spec.
    fn refuse(
        &self,
        was: &State,
        complaints: &[Invalid],
        now: Timestamp,
    ) -> Result<Decision, Broken> {
        let decision = plan::refuse(&self.observed.rollout, was, complaints, now);
        let rule = "status_round_trips";
        let verdict = rules::round_trips(was, &decision);
        verdict
            .map(|()| decision)
            .map_err(|why| Broken { rule, why })
    }

    fn planned(&mut self) -> Planned {
        let generation = self.observed.rollout.generation;
        let referred = [Kind::Services, Kind::Workload].map(|kind| self.seen[kind.index()]);
        if let Some((of, seen, planned)) = &self.planned
            && (*of, *seen) == (generation, referred)
        {
            return Arc::clone(planned);
        }
        let references = spec::references(&self.observed.services, self.workload.as_ref());
        let planned = Arc::new(plan(&self.rollout, &references));
        self.planned = Some((generation, referred, Arc::clone(&planned)));
        planned
    }

    fn memory(&self) -> Memory {
        recall(self.split_memory.as_ref(), self.annotated.as_ref())
    }

    /// Begins to write what has been decided.
    fn begin(&mut self, world: &mut World, decision: Decision, was: &Memory, now: Timestamp) {
        world.note(|_| shown(&decision));
        let mut has_split = self.split_memory.is_some();
        for action in &decision.actions {
            has_split = !matches!(action, Action::DeleteSplit)
                && (has_split || matches!(action, Action::WriteSplit(_)));
        }
        let same_place = has_split == self.split_memory.is_some();
        let moved = has_split && (self.annotated.is_some() || !same_place);
        let news = match has_split {
            true => decision.memory != *was || moved,
            false => is_news(was, &decision.memory) || !same_place,
        };
        self.again = decision.again.map(|again| {
            let wait = again.duration_since(now).as_millis();
            i64::try_from(wait).unwrap_or(i64::MAX).clamp(1, LONGEST)
        });
        self.split_since = None;
        (self.to_tell, self.done) = (decision.events, 0);
        self.tell(Some(0));
        self.writes
            .extend(decision.actions.into_iter().map(Write::Action));
        if news {
            self.writes.push_back(Write::Memory(decision.memory));
        }
        if decision.status != self.status {
            self.writes
                .push_back(Write::Status(Box::new(decision.status)));
        }
        world.look = 0;
        match self.writes.is_empty() {
            true => self.rest(world),
            false => {
                self.restless += 1;
                self.write_soon(world);
            }
        }
    }

    fn write_soon(&mut self, world: &mut World) {
        let delay = world.dice.between(1, 12);
        world.after(delay, Due::Write);
    }

    /// Tells what is due when that many actions are done, or with the status.
    fn tell(&mut self, done: Option<usize>) {
        let events = self.to_tell.extract_if(.., |told| told.after == done);
        self.told.extend(events.map(|told| told.event));
    }

    /// Waits for the next look.
    fn rest(&mut self, world: &mut World) {
        self.failures = 0;
        self.tell(None);
        if let Some(wait) = self.again {
            self.wake(world, wait);
        }
    }

    /// Does the next write, after the guards have had a look at it.
    pub(super) fn write(&mut self, world: &mut World) -> Result<(), Broken> {
        if !self.is_up || self.is_answered(world) {
            return Ok(());
        }
        let Some(write) = self.writes.pop_front() else {
            return Ok(());
        };
        let trouble = trouble(world);
        if trouble == Some(Trouble::DiesBefore) {
            self.die(world);
            return Ok(());
        }
        guards::check(world, &write)?;
        world.look = self.looks;
        let result = match trouble {
            Some(Trouble::Lost | Trouble::Conflict) => Err(super::api::Conflict),
            _ => world.write(&write, &self.rests_on),
        };
        world.look = 0;
        let is_known = !matches!(trouble, Some(Trouble::Lost | Trouble::DoneButFailed));
        if let Ok(Some(kind)) = result {
            self.wrote_at = world.now;
            if is_known {
                self.must_see[kind.index()] = world.version;
            }
        }
        let is_action = matches!(write, Write::Action(_));
        let is_split = matches!(write, Write::Action(Action::WriteSplit(_)));
        if !is_known {
            self.doubt = Some(write);
        } else if is_action && result.is_ok() {
            self.done += 1;
            self.tell(Some(self.done));
            self.split_since = is_split.then_some(world.now).or(self.split_since);
        }
        match (result, trouble) {
            (Ok(_), Some(Trouble::DiesAfter)) => self.die(world),
            (Ok(_), Some(Trouble::DoneButFailed)) | (Err(_), _) => {
                world.note(|_| format!("a write fails ({trouble:?})"));
                self.fail(world);
            }
            (Ok(_), _) if self.writes.is_empty() => {
                self.rest(world);
                // What woke it meanwhile is looked at now.
                let delay = world.dice.between(1, 20);
                self.wake(world, delay);
            }
            (Ok(_), _) => self.write_soon(world),
        }
        Ok(())
    }

    /// Whether the status waits for the proxies to answer to the Split that was written, or is left to the next look, since they have.
    fn is_answered(&mut self, world: &mut World) -> bool {
        let is_status = matches!(self.writes.front(), Some(Write::Status(_)));
        let Some(since) = self.split_since.filter(|_| is_status) else {
            return false;
        };
        let split = world.split.as_ref().map(|split| split.written.clone());
        if world.fleet(split.as_ref()).verifies() {
            world.note(|_| "the proxies answer before the status is written".to_owned());
            self.writes.clear();
            self.wake(world, 1);
            return true;
        }
        let waited = SignedDuration::from_millis(world.now - since);
        let waits = waited < PATIENCE;
        match waits {
            true => world.after(5, Due::Write),
            false => self.split_since = None,
        }
        waits
    }

    /// The rest is left out, and it looks again.
    fn fail(&mut self, world: &mut World) {
        self.writes.clear();
        self.failures = (self.failures + 1).min(11);
        self.wake(world, 5 << self.failures);
    }
}

/// What goes wrong with this write.
fn trouble(world: &mut World) -> Option<Trouble> {
    let (_, writes) = world.troubles.first_mut()?;
    if *writes > 0 {
        *writes -= 1;
        return None;
    }
    Some(world.troubles.remove(0).0)
}

/// Pods are read from the API server, not from a cache.
fn live_pods(world: &World) -> Vec<Pod> {
    let uid = |set: u32| world.sets.iter().find(|one| one.id == set);
    let pods = world.pods.iter().filter_map(|pod| {
        Some(Pod {
            name: format!("pod-{}", pod.id),
            uid: format!("u-pod-{}", pod.id),
            replica_set: uid(pod.set)?.revision.uid.clone(),
            created_at: World::time(pod.created - pod.created % 1000),
            ready_since: pod.ready.map(World::time),
            terminating: pod.terminating,
        })
    });
    pods.collect()
}

/// An annotation is written for more than another wording of what is waited for.
fn is_news(was: &Memory, next: &Memory) -> bool {
    let reason = |memory: &Memory| {
        memory
            .waiting
            .as_ref()
            .map(|waiting| waiting.reason.clone())
    };
    let rest = |memory: &Memory| Memory {
        waiting: None,
        ..memory.clone()
    };
    reason(was) != reason(next) || rest(was) != rest(next)
}

/// A decision in a line.
fn shown(decision: &Decision) -> String {
    let status = &decision.status;
    let mut text = format!(
        "look: {} {} step {:?}",
        status.phase.as_deref().unwrap_or_default(),
        status.message.as_deref().unwrap_or_default(),
        status.current_step_index,
    );
    if let Some(waiting) = &decision.memory.waiting {
        text = format!("{text}; waits for {}", waiting.message);
    }
    for action in &decision.actions {
        let line = line(action);
        text = format!("{text}\n                 {line}");
    }
    text
}

fn line(action: &Action) -> String {
    if let Action::CreateReplicaSet(new) = action {
        return format!("create {}", new.name);
    }
    if let Action::ScaleReplicaSet { name, from, to, .. } = action {
        return format!("scale {name} {from}-{to}");
    }
    if let Action::WriteSplit(split) = action {
        return format!("split {}", super::fleet::shares(split));
    }
    if let Action::CreateAnalysisRun(run) = action {
        return format!("begin {:?}", run.metadata.name);
    }
    format!("{action:?}")
}

/// A day, in milliseconds: a timer longer than any walk.
const LONGEST: i64 = 86_400_000;
