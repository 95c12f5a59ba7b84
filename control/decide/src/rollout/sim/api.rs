//! The API server: what becomes of a write.

use std::collections::BTreeMap;

use serde_json::json;

use super::pods::Behaviour;
use super::spec;
use super::world::{ACTIVE, Due, Kind, Set, SplitObject, Stamp, World};
use crate::analysis::build::Role;
use crate::api::analysis::AnalysisRun;
use crate::api::labels;
use crate::api::rollout::RolloutStatus;
use crate::api::split::Memory;
use crate::rollout::decision::{Action, NewReplicaSet};
use crate::rollout::observed::{Revision, Run, RunPhase, WrittenSplit};
use crate::rollout::split::Split;

/// One write of the controller's.
#[derive(Clone, Debug)]
pub(super) enum Write {
    /// What was decided.
    Action(Action),
    /// The memory, into the Split's status or the annotation.
    Memory(Memory),
    /// The Rollout's status.
    Status(Box<RolloutStatus>),
}

/// The write is refused: what it rests on has changed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Conflict;

/// How far each cache had got when the controller looked.
pub(super) type Seen = [u64; 6];

impl World {
    /// Does a write that rests on what was seen; says which kind has changed.
    pub(super) fn write(&mut self, write: &Write, seen: &Seen) -> Result<Option<Kind>, Conflict> {
        match write {
            Write::Action(action) => self.act(action, seen),
            Write::Memory(memory) => self.write_memory(memory, seen).map(Some),
            Write::Status(status) => {
                self.fresh(self.rollout_stamp, Kind::Rollout, seen)?;
                self.set_status(status);
                Ok(Some(Kind::Rollout))
            }
        }
    }

    /// An object may be written if nobody else has written it since it was seen.
    fn fresh(&self, stamp: Stamp, kind: Kind, seen: &Seen) -> Result<(), Conflict> {
        let own = stamp.look == self.look && self.look > 0;
        match own || stamp.version <= seen[kind.index()] {
            true => Ok(()),
            false => Err(Conflict),
        }
    }

    fn act(&mut self, action: &Action, seen: &Seen) -> Result<Option<Kind>, Conflict> {
        match action {
            Action::SetReplicas { replicas } => {
                self.fresh(self.rollout_stamp, Kind::Rollout, seen)?;
                self.rollout.spec.replicas = Some(*replicas);
                self.changed_spec();
                Ok(Some(Kind::Rollout))
            }
            Action::AnnotateRollout { revision } => {
                self.annotate(labels::REVISION, revision.to_string(), seen)
            }
            Action::SwitchService { name, hash } => self.switch_service(name, hash, seen),
            Action::WriteSplit(split) => self.write_split(split, seen),
            Action::DeleteSplit => {
                self.fresh_split(seen)?;
                self.split = None;
                self.change(Kind::Split);
                self.hear_all();
                Ok(Some(Kind::Split))
            }
            Action::CreateAnalysisRun(run) => self.create_run(run),
            Action::TerminateAnalysisRun { name } => self.terminate_run(name, seen),
            Action::DeleteAnalysisRun { name } => {
                self.fresh_run(name, seen)?;
                self.runs.retain(|(_, run)| run.name != *name);
                self.change(Kind::Runs);
                Ok(Some(Kind::Runs))
            }
            Action::EvictPod { name, uid: _ } => {
                let id = name.trim_start_matches("pod-").parse().unwrap();
                if !self.dice.one_in(6) || self.healthy {
                    self.evict(id);
                }
                Ok(None)
            }
            Action::CreateReplicaSet(_)
            | Action::AnnotateReplicaSet { .. }
            | Action::ScaleReplicaSet { .. }
            | Action::EnsureRevisionService { .. }
            | Action::DeleteRevisionService { .. }
            | Action::MarkPods { .. }
            | Action::KeepApart { .. }
            | Action::DeleteReplicaSet { .. } => self.act_on_set(action, seen),
            Action::NoteWorkload { generation } => {
                self.annotate(labels::WORKLOAD_GENERATION, generation.clone(), seen)
            }
            Action::ScaleWorkload { to, .. } => {
                let stamp = self.workload.as_ref().map(|workload| workload.stamp);
                self.fresh(stamp.ok_or(Conflict)?, Kind::Workload, seen)?;
                self.scale_workload(*to);
                Ok(Some(Kind::Workload))
            }
        }
    }

    fn annotate(
        &mut self,
        key: &str,
        value: String,
        seen: &Seen,
    ) -> Result<Option<Kind>, Conflict> {
        self.fresh(self.rollout_stamp, Kind::Rollout, seen)?;
        self.metadata.annotations.insert(key.to_owned(), value);
        self.rollout_stamp = self.change(Kind::Rollout);
        Ok(Some(Kind::Rollout))
    }

    fn act_on_set(&mut self, action: &Action, seen: &Seen) -> Result<Option<Kind>, Conflict> {
        if let Action::CreateReplicaSet(new) = action {
            return self.create_set(new);
        }
        if let Action::EnsureRevisionService { replica_set, .. } = action {
            self.set_revision_service(replica_set, true);
            return Ok(Some(Kind::Sets));
        }
        if let Action::DeleteRevisionService { replica_set } = action {
            self.set_revision_service(replica_set, false);
            return Ok(Some(Kind::Sets));
        }
        if let Action::DeleteReplicaSet { name } = action {
            self.set_to_write(name, seen)?;
            self.sets.retain(|set| set.revision.name != *name);
            self.change(Kind::Sets);
            return Ok(Some(Kind::Sets));
        }
        let name = set_of(action);
        change_set(self.set_to_write(name, seen)?, action);
        self.changed_set(name)
    }

    /// The generation counts changes of the spec.
    pub(super) fn changed_spec(&mut self) {
        self.metadata.generation += 1;
        self.rollout_stamp = self.change(Kind::Rollout);
    }

    /// A status comes back as it was written: the rule `status_round_trips`.
    fn set_status(&mut self, status: &RolloutStatus) {
        let is_another = status.current_pod_hash != self.status.current_pod_hash;
        if is_another || (status.aborted_at.is_some() && self.status.aborted_at.is_none()) {
            self.consent = false;
        }
        self.status.clone_from(status);
        self.rollout_stamp = self.change(Kind::Rollout);
    }

    fn write_memory(&mut self, memory: &Memory, seen: &Seen) -> Result<Kind, Conflict> {
        if self.split.is_none() {
            self.fresh(self.rollout_stamp, Kind::Rollout, seen)?;
            let is_news = *memory != Memory::default();
            self.annotated = is_news.then(|| memory.clone());
            self.rollout_stamp = self.change(Kind::Rollout);
            return Ok(Kind::Rollout);
        }
        self.fresh_split(seen)?;
        let stamp = self.change(Kind::Split);
        if let Some(split) = &mut self.split {
            split.memory.clone_from(memory);
            split.stamp = stamp;
        }
        if self.annotated.is_some() {
            self.fresh(self.rollout_stamp, Kind::Rollout, seen)?;
            self.annotated = None;
            self.rollout_stamp = self.change(Kind::Rollout);
        }
        Ok(Kind::Split)
    }

    fn create_set(&mut self, new: &NewReplicaSet) -> Result<Option<Kind>, Conflict> {
        if self.sets.iter().any(|set| set.revision.name == new.name) {
            return Err(Conflict);
        }
        self.made += 1;
        let image = new.template["spec"]["containers"][0]["image"].as_str();
        let image = image.unwrap_or_default();
        let revision = Revision {
            name: new.name.clone(),
            uid: format!("u-{}-{}", new.name, self.made),
            hash: new.hash.clone(),
            created_at: Self::time(self.now - self.now % 1000),
            annotations: new.annotations.clone(),
            template: new.template.clone(),
            min_ready_seconds: new.min_ready_seconds,
            ..Revision::default()
        };
        let stamp = self.change(Kind::Sets);
        self.sets.push(Set {
            id: self.made,
            stamp,
            behaviour: Behaviour::of(self.seed, image),
            revision,
            is_due: false,
        });
        self.touch(self.made, 200);
        Ok(Some(Kind::Sets))
    }

    fn set_to_write(&mut self, name: &str, seen: &Seen) -> Result<&mut Revision, Conflict> {
        let index = self.sets.iter().position(|set| set.revision.name == name);
        let index = index.ok_or(Conflict)?;
        self.fresh(self.sets[index].stamp, Kind::Sets, seen)?;
        Ok(&mut self.sets[index].revision)
    }

    fn changed_set(&mut self, name: &str) -> Result<Option<Kind>, Conflict> {
        let stamp = self.change(Kind::Sets);
        let set = self.sets.iter_mut().find(|set| set.revision.name == name);
        let set = set.ok_or(Conflict)?;
        set.stamp = stamp;
        let id = set.id;
        self.touch(id, 300);
        Ok(Some(Kind::Sets))
    }

    fn set_revision_service(&mut self, replica_set: &str, stands: bool) {
        let stamp = self.change(Kind::Sets);
        let mut sets = self.sets.iter_mut();
        if let Some(set) = sets.find(|set| set.revision.name == replica_set) {
            (set.revision.has_service, set.revision.service_stands) = (stands, stands);
            set.stamp = stamp;
        }
    }

    fn switch_service(
        &mut self,
        name: &str,
        hash: &str,
        seen: &Seen,
    ) -> Result<Option<Kind>, Conflict> {
        self.fresh(self.services_stamp, Kind::Services, seen)?;
        let stamp = self.change(Kind::Services);
        let mut services = self.services.iter_mut();
        let service = services.find(|service| service.name == name);
        let service = service.ok_or(Conflict)?;
        let selector = &mut service.selector;
        let before = selector.insert(labels::POD_TEMPLATE_HASH.to_owned(), hash.to_owned());
        service.managed_by = Some("web".to_owned());
        if name == ACTIVE {
            let since = before.map(|before| (before, self.now));
            self.left_active.extend(since);
            self.left_active.remove(hash);
        }
        self.services_stamp = stamp;
        Ok(Some(Kind::Services))
    }

    fn fresh_split(&self, seen: &Seen) -> Result<(), Conflict> {
        let stamp = self.split.as_ref().map(|split| split.stamp);
        self.fresh(stamp.ok_or(Conflict)?, Kind::Split, seen)
    }

    fn write_split(&mut self, split: &Split, seen: &Seen) -> Result<Option<Kind>, Conflict> {
        let missing = |hash: &str| self.set(hash).is_none();
        let mut versions = split.versions.iter();
        if versions.any(|version| missing(&version.revision)) {
            return Err(Conflict);
        }
        if self.split.is_some() {
            self.fresh_split(seen)?;
        } else {
            self.splits += 1;
        }
        let generation = self
            .split
            .as_ref()
            .map_or(1, |split| split.written.generation + 1);
        let memory = self.split.take().map(|split| split.memory);
        self.split = Some(SplitObject {
            stamp: self.change(Kind::Split),
            written: WrittenSplit {
                uid: format!("u-split-{}", self.splits),
                generation,
                split: split.clone(),
            },
            memory: memory.unwrap_or_default(),
        });
        self.hear_all();
        Ok(Some(Kind::Split))
    }

    fn create_run(&mut self, run: &AnalysisRun) -> Result<Option<Kind>, Conflict> {
        let labels = run.metadata.labels.clone().unwrap_or_default();
        let name = run.metadata.name.clone().unwrap_or_default();
        if self.runs.iter().any(|(_, other)| other.name == name) {
            return Err(Conflict);
        }
        let role = match labels[labels::ROLLOUT_TYPE].as_str() {
            "Step" => Role::Step(labels[labels::STEP_INDEX].parse().unwrap()),
            "PrePromotion" => Role::PrePromotion,
            "PostPromotion" => Role::PostPromotion,
            _ => Role::Background,
        };
        let run = Run {
            name: name.clone(),
            role: Some(role),
            hash: labels[labels::POD_TEMPLATE_HASH].clone(),
            created_at: self.clock(),
            phase: RunPhase::Pending,
            message: String::new(),
            terminating: false,
            failure: None,
        };
        let stamp = self.change(Kind::Runs);
        self.runs.push((stamp, run));
        let delay = self.dice.between(10, 2_000);
        self.after(delay, Due::Run(name));
        Ok(Some(Kind::Runs))
    }

    fn fresh_run(&self, name: &str, seen: &Seen) -> Result<(), Conflict> {
        let run = self.runs.iter().find(|(_, run)| run.name == name);
        self.fresh(run.ok_or(Conflict)?.0, Kind::Runs, seen)
    }

    fn terminate_run(&mut self, name: &str, seen: &Seen) -> Result<Option<Kind>, Conflict> {
        self.fresh_run(name, seen)?;
        let stamp = self.change(Kind::Runs);
        let mut runs = self.runs.iter_mut();
        if let Some((old, run)) = runs.find(|(_, run)| run.name == name) {
            run.terminating = true;
            *old = stamp;
        }
        let delay = self.dice.between(10, 3_000);
        self.after(delay, Due::Run(name.to_owned()));
        Ok(Some(Kind::Runs))
    }

    /// A run goes on: it begins, or it ends.
    pub(super) fn follow_run(&mut self, name: &str) {
        let Some(index) = self.runs.iter().position(|(_, run)| run.name == name) else {
            return;
        };
        let run = &self.runs[index].1;
        if run.phase.is_finished() {
            return;
        }
        let background = run.role == Some(Role::Background);
        let next = match (run.terminating, run.phase == RunPhase::Pending) {
            (true, _) => RunPhase::Successful,
            (false, true) => RunPhase::Running,
            (false, false) => self.verdict(background),
        };
        if next == RunPhase::Running {
            let most = if self.healthy && !background {
                2_000
            } else {
                90_000
            };
            let delay = self.dice.between(500, most);
            self.after(delay, Due::Run(name.to_owned()));
        }
        if next == self.runs[index].1.phase {
            return;
        }
        let stamp = self.change(Kind::Runs);
        let (old, run) = &mut self.runs[index];
        *old = stamp;
        run.phase = next;
        run.message = format!("it is {}", next.word());
    }

    /// A run beside the steps goes on for as long as it is good.
    fn verdict(&mut self, background: bool) -> RunPhase {
        let good = if background {
            RunPhase::Running
        } else {
            RunPhase::Successful
        };
        if self.healthy {
            return good;
        }
        match self.dice.roll(10) {
            0 => RunPhase::Error,
            1..=2 => RunPhase::Failed,
            3 => RunPhase::Inconclusive,
            4..=5 => RunPhase::Running,
            _ => good,
        }
    }
}

/// Name of the ReplicaSet that an action changes.
fn set_of(action: &Action) -> &str {
    if let Action::AnnotateReplicaSet { name, .. } | Action::ScaleReplicaSet { name, .. } = action {
        return name;
    }
    if let Action::MarkPods { replica_set, .. } = action {
        return replica_set;
    }
    if let Action::KeepApart { replica_set, .. } = action {
        return replica_set;
    }
    unreachable!("{action:?} changes no ReplicaSet")
}

fn change_set(revision: &mut Revision, action: &Action) {
    revision.settled = false;
    if let Action::AnnotateReplicaSet {
        set,
        remove,
        min_ready_seconds,
        ..
    } = action
    {
        annotate(revision, set, remove);
        revision.min_ready_seconds = min_ready_seconds.unwrap_or(revision.min_ready_seconds);
    }
    if let Action::ScaleReplicaSet {
        to, set, remove, ..
    } = action
    {
        annotate(revision, set, remove);
        revision.wanted = *to;
    }
    if let Action::MarkPods {
        labels: tags,
        annotations,
        note,
        ..
    } = action
    {
        let metadata = &mut revision.template["metadata"];
        for (field, changes) in [("labels", tags), ("annotations", annotations)] {
            for (key, value) in changes {
                spec::merge(metadata, &json!({field: {key: value}}));
            }
        }
        let key = labels::EPHEMERAL_METADATA.to_owned();
        revision.annotations.remove(&key);
        revision
            .annotations
            .extend(note.clone().map(|note| (key, note)));
    }
    if let Action::KeepApart {
        required,
        preferred,
        ..
    } = action
    {
        revision.template["spec"]["affinity"]["podAntiAffinity"] = json!({
            "requiredDuringSchedulingIgnoredDuringExecution": required,
            "preferredDuringSchedulingIgnoredDuringExecution": preferred,
        });
    }
}

fn annotate(revision: &mut Revision, set: &BTreeMap<String, String>, remove: &[String]) {
    let set = set.iter().map(|(key, value)| (key.clone(), value.clone()));
    revision.annotations.extend(set);
    revision.annotations.retain(|key, _| !remove.contains(key));
}
