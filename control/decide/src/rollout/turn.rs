//! One turn: what is known, and what has been decided so far. The files beside this one read and extend it in the order of `decide`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::decision::{Action, Decision, Event, EventKind, Told};
use super::observed::{Observed, Revision};
use super::plan::{Foreign, Plan, Routing, Step};
use super::state::{Counts, PauseReason, State};
use super::{conditions, revision, selector, time};
use crate::api::labels;
use crate::api::rollout::BlueGreenStatus;
use crate::api::split::Waiting;

/// What is known, and what has been decided so far.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    /// What the spec asks for.
    pub(super) plan: &'a Plan,
    /// What was remembered.
    pub(super) was: &'a State,
    /// What is.
    pub(super) observed: &'a Observed,
    /// When.
    pub(super) now: Timestamp,
    /// Pods that the spec asks for.
    pub(super) replicas: i32,
    /// The revision that the spec asks for.
    pub(super) new: &'a Revision,
    /// The stable revision; may be the same.
    pub(super) stable: Option<&'a Revision>,
    /// All that are neither.
    pub(super) others: Vec<&'a Revision>,
    /// Number of the new revision.
    pub(super) number: i64,
    /// `spec.replicas` changed since the ReplicaSets were last scaled (R3.3).
    pub(super) scaling: bool,
    /// What will be remembered.
    pub(super) next: State,
    /// Pauses and aborts that this turn adds or takes away.
    pub(super) will: Will,
    /// The Split stands as this turn wants it, and every proxy serves it.
    pub(super) settled: bool,
    /// Pods that the canary's weight needs now, where it is a version of the Split; one for a weight of 0.
    pub(super) carried: Option<u32>,
    /// A ReplicaSet of the update has been scaled in this turn.
    pub(super) scaled: bool,
    /// Analysis runs have been looked after in this turn.
    pub(super) analysed: bool,
    actions: Vec<Action>,
    events: Vec<Told>,
    waiting: Option<Waiting>,
    aftermath: Option<Waiting>,
    again: Option<Timestamp>,
}

/// Pauses and aborts that a turn adds or takes away.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Will {
    /// A pause to add.
    pub(super) pause: Option<PauseReason>,
    /// Pauses to take away.
    pub(super) resume: Resume,
    /// Abort, and why.
    pub(super) abort: Option<String>,
    /// Take an abort back.
    pub(super) forgive: bool,
}

/// Pauses to take away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Resume {
    /// None.
    #[default]
    Nothing,
    /// The pause step's.
    Step,
    /// All.
    All,
}

impl<'a> Turn<'a> {
    /// Casts the parts and counts the pods.
    pub(super) fn new(
        plan: &'a Plan,
        was: &'a State,
        observed: &'a Observed,
        now: Timestamp,
        replicas: i32,
        new: &'a Revision,
    ) -> Self {
        let all = || observed.revisions.iter();
        let is_stable = |set: &&Revision| was.stable.as_ref() == Some(&set.hash);
        let stable = all().find(is_stable);
        let others = all().filter(|set| set.uid != new.uid && !is_stable(set));
        let rescaled =
            |set: &Revision| set.wanted > 0 && set.desired() != Some(i64::from(replicas));
        let mut next = was.clone();
        next.observed_generation = Some(observed.rollout.generation.to_string());
        next.conditions
            .retain(|condition| condition.kind != conditions::INVALID_SPEC);
        next.current = Some(new.hash.clone());
        next.selector = Some(selector::text(&plan.selector));
        next.counts = counts(observed, new);
        forget_roles(plan, &mut next);
        next.memory.proven.clear();
        if plan.canary().is_some() {
            next.blue_green = BlueGreenStatus::default(); // R12.6
        }
        next.promote_full = was.promote_full && was.stable.as_ref() != Some(&new.hash);
        Self {
            plan,
            was,
            observed,
            now,
            replicas,
            new,
            stable,
            others: others.collect(),
            number: revision::number(observed, new),
            scaling: rescaled(new) || stable.is_some_and(rescaled),
            next,
            will: Will::default(),
            settled: false,
            carried: None,
            scaled: false,
            analysed: false,
            actions: Vec::new(),
            events: Vec::new(),
            waiting: None,
            aftermath: None,
            again: None,
        }
    }

    /// The new revision is the stable one.
    pub(super) fn is_promoted(&self) -> bool {
        self.stable.is_some_and(|stable| stable.uid == self.new.uid)
    }

    /// The stable revision, where it is another than the new one.
    pub(super) fn old_stable(&self) -> Option<&'a Revision> {
        self.stable.filter(|stable| stable.uid != self.new.uid)
    }

    /// The update is aborted, or is about to be.
    pub(super) fn is_aborted(&self) -> bool {
        (self.was.abort || self.will.abort.is_some()) && !self.will.forgive
    }

    /// Steps and sizes stand still (R10.2, R10.3).
    pub(super) fn is_halted(&self) -> bool {
        self.plan.paused || self.is_held() || self.was.pause(&PauseReason::Inconclusive).is_some()
    }

    /// A router of others carries the traffic.
    pub(super) fn is_held(&self) -> bool {
        matches!(self.plan.foreign, Foreign::Live(_))
    }

    /// Routing by our proxies, if it is asked for.
    pub(super) fn routing(&self) -> Option<&'a Routing> {
        self.plan.routing()
    }

    /// Index of the current step, never beyond the number of steps; none without steps.
    pub(super) fn step_index(&self) -> Option<usize> {
        let count = self.plan.steps().len();
        (count > 0).then(|| self.next.step.unwrap_or(0).min(count))
    }

    /// The current step; none when all are done.
    pub(super) fn step(&self) -> Option<&'a Step> {
        self.plan.steps().get(self.step_index()?)
    }

    /// All steps are done, or there are none.
    pub(super) fn is_past_steps(&self) -> bool {
        self.step().is_none()
    }

    /// The index that means all steps are done.
    pub(super) fn last_index(&self) -> Option<usize> {
        let count = self.plan.steps().len();
        (count > 0).then_some(count)
    }

    /// Adds a write.
    pub(super) fn act(&mut self, action: Action) {
        self.actions.push(action);
    }

    /// Something is to be written, beside the status.
    pub(super) fn writes(&self) -> bool {
        !self.actions.is_empty()
    }

    /// Tells people of what has been done so far, as soon as it is.
    pub(super) fn report(&mut self, reason: &'static str, message: String) {
        let done = Some(self.actions.len());
        self.push_event(EventKind::Normal, reason, message, done);
    }

    /// Tells people of what the status says.
    pub(super) fn tell(&mut self, reason: &'static str, message: String) {
        self.push_event(EventKind::Normal, reason, message, None);
    }

    /// Warns people of what the status says.
    pub(super) fn warn(&mut self, reason: &'static str, message: String) {
        self.push_event(EventKind::Warning, reason, message, None);
    }

    fn push_event(
        &mut self,
        kind: EventKind,
        reason: &'static str,
        message: String,
        after: Option<usize>,
    ) {
        let event = Event {
            kind,
            reason,
            message,
        };
        self.events.push(Told { event, after });
    }

    /// Names what the rollout waits for; the first named is the one that is shown.
    pub(super) fn wait(&mut self, reason: &str, message: String, until: Option<Timestamp>) {
        self.look_again(until.unwrap_or_else(|| time::after(self.now, POLL_SECONDS)));
        self.waiting
            .get_or_insert_with(|| waiting(reason, message, until));
    }

    /// Names what the rollout waits for, where the caller says when to look again.
    pub(super) fn expect(&mut self, reason: &str, message: String) {
        self.waiting
            .get_or_insert_with(|| waiting(reason, message, None));
    }

    /// Names what clearing up after the rollout waits for; shown when nothing else is.
    pub(super) fn wait_after(&mut self, reason: &str, message: String, until: Option<Timestamp>) {
        self.look_again(until.unwrap_or_else(|| time::after(self.now, POLL_SECONDS)));
        self.aftermath
            .get_or_insert_with(|| waiting(reason, message, until));
    }

    /// Names what clearing up waits for, where somebody else says when to look again.
    pub(super) fn note_after(&mut self, reason: &str, message: String) {
        self.aftermath
            .get_or_insert_with(|| waiting(reason, message, None));
    }

    /// Something has been named that the rollout waits for.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some() || self.aftermath.is_some()
    }

    /// Names what the rollout waits for, if nobody has named anything, where somebody else says when to look again.
    pub(super) fn note(&mut self, reason: &str, message: String) {
        if self.aftermath.is_none() {
            self.expect(reason, message);
        }
    }

    /// Goes on waiting for what was waited for.
    pub(super) fn keep_waiting(&mut self) {
        self.waiting.clone_from(&self.was.memory.waiting);
    }

    /// Asks to be called again at a time, if nothing happens before.
    pub(super) fn look_again(&mut self, at: Timestamp) {
        self.again = Some(self.again.map_or(at, |again| again.min(at)));
    }

    /// Scales a ReplicaSet; also where only its note of `spec.replicas` is out of date (R2.24). Returns whether anything was written.
    pub(super) fn scale(&mut self, set: &Revision, to: i32, remove: Vec<String>) -> bool {
        let noted = set.desired() == Some(i64::from(self.replicas)) || (set.wanted == 0 && to == 0);
        let note = BTreeMap::from([(
            labels::DESIRED_REPLICAS.to_owned(),
            self.replicas.to_string(),
        )]);
        let name = set.name.clone();
        match (set.wanted == to, noted) {
            (true, true) => return false,
            (true, false) => self.act(Action::AnnotateReplicaSet {
                name,
                set: note,
                remove,
                min_ready_seconds: None,
            }),
            (false, _) => {
                let number = match set.uid == self.new.uid {
                    true => self.number,
                    false => set.number().unwrap_or(0),
                };
                self.act(Action::ScaleReplicaSet {
                    name,
                    from: set.wanted,
                    to,
                    set: note,
                    remove,
                });
                self.report("ScalingReplicaSet", scaling_message(set, number, to));
            }
        }
        true
    }

    /// The decision that has been reached.
    pub(super) fn finish(mut self) -> Decision {
        let waiting = self.waiting.or(self.aftermath);
        self.next.memory.waiting = waiting;
        Decision {
            actions: self.actions,
            status: self.next.status(),
            memory: self.next.memory,
            events: self.events,
            again: self.again,
        }
    }
}

/// Which of ping and pong is stable says something only as long as there are the two.
fn forget_roles(plan: &Plan, next: &mut State) {
    let canary = plan.rollout.spec.strategy.canary.as_ref();
    if canary.is_none_or(|canary| canary.ping_pong.is_none()) {
        next.forget_roles();
    }
}

fn scaling_message(set: &Revision, number: i64, to: i32) -> String {
    let direction = if to > set.wanted { "up" } else { "down" };
    format!(
        "Scaled {direction} ReplicaSet {} (revision {number}) from {} to {to}",
        set.name, set.wanted
    )
}

fn waiting(reason: &str, message: String, until: Option<Timestamp>) -> Waiting {
    Waiting {
        reason: reason.to_owned(),
        message,
        until: until.map(|until| Time(time::whole_seconds(until))),
    }
}

/// R2.4: what stands in the status.
fn counts(observed: &Observed, new: &Revision) -> Counts {
    let sum = |count: fn(&Revision) -> i32| observed.revisions.iter().map(count).sum();
    Counts {
        replicas: sum(|set| set.pods),
        updated: new.pods,
        ready: sum(|set| set.ready),
        available: sum(|set| set.available),
        hpa: sum(|set| set.pods),
    }
}

/// What a watch should have told is looked for by ourselves after 10 s, as Argo polls a router that has not verified (R8.5).
const POLL_SECONDS: i64 = 10;
