//! The world of one rollout: the objects as the API server has them, the pods and proxies behind them, and what is due when.

use std::collections::BTreeMap;
use std::fmt;

use jiff::{SignedDuration, Timestamp};

use super::dice::Dice;
use super::fleet::Proxy;
use super::happening::Trouble;
use super::pods::{Behaviour, Pace, Pod};
use super::spec;
use super::workload::Workload;
use crate::api::labels;
use crate::api::rollout::{Rollout, RolloutStatus};
use crate::api::split::Memory;
use crate::rollout::observed::{Metadata, Revision, Run, Service, WrittenSplit};

/// What a cache holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The Rollout: spec, status, annotations.
    Rollout,
    /// Its ReplicaSets.
    Sets,
    /// The Services that its spec names, and revision Services.
    Services,
    /// Its Split, with the memory in its status.
    Split,
    /// Its AnalysisRuns.
    Runs,
    /// The Deployment that it refers to.
    Workload,
}

impl Kind {
    pub(super) const ALL: [Self; 6] = [
        Self::Rollout,
        Self::Sets,
        Self::Services,
        Self::Split,
        Self::Runs,
        Self::Workload,
    ];

    pub(super) fn index(self) -> usize {
        self as usize
    }
}

/// Version of an object, and the look that wrote it, if one did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) version: u64,
    pub(super) look: u64,
}

/// A ReplicaSet: as its spec and status say.
#[derive(Clone, Debug)]
pub(super) struct Set {
    pub(super) id: u32,
    pub(super) stamp: Stamp,
    pub(super) revision: Revision,
    pub(super) behaviour: Behaviour,
    /// The ReplicaSet controller is going to look at it.
    pub(super) is_due: bool,
}

/// The Split, and what stands in its status.
#[derive(Clone, Debug)]
pub(super) struct SplitObject {
    pub(super) stamp: Stamp,
    pub(super) written: WrittenSplit,
    pub(super) memory: Memory,
}

/// What is due.
#[derive(Clone, Debug)]
pub(super) enum Due {
    /// The controller looks, if this is still the time it wants to.
    Look,
    /// The controller writes the next of what it has decided.
    Write,
    /// The controller comes back.
    Start,
    /// A cache hears of what has changed.
    Cache(Kind),
    /// The ReplicaSet controller looks at a ReplicaSet.
    Set(u32),
    /// A pod becomes ready, or stops being so.
    Pod(u64, bool),
    /// An evicted pod is gone.
    Gone(u64),
    /// A proxy takes up the Split as it stands.
    Take(u32),
    /// A proxy reports.
    Report(u32),
    /// A run goes on.
    Run(String),
}

/// The world.
#[derive(Debug)]
pub(super) struct World {
    /// Milliseconds since it began.
    pub(super) now: i64,
    /// `spec.replicas` as the controller saw it when it last looked.
    pub(super) decided: i32,
    /// How far the controller's clock is ahead, in milliseconds.
    pub(super) skew: i64,
    /// Everything that nobody chose.
    pub(super) dice: Dice,
    pub(super) seed: u64,
    /// Counts changes of objects.
    pub(super) version: u64,
    /// The look that is writing; 0 when somebody else is.
    pub(super) look: u64,

    pub(super) rollout: Rollout,
    pub(super) metadata: Metadata,
    pub(super) status: RolloutStatus,
    /// The annotation `sidestep.dev/state`.
    pub(super) annotated: Option<Memory>,
    pub(super) rollout_stamp: Stamp,
    pub(super) sets: Vec<Set>,
    pub(super) services: Vec<Service>,
    pub(super) services_stamp: Stamp,
    pub(super) split: Option<SplitObject>,
    /// Splits made so far.
    pub(super) splits: u32,
    pub(super) runs: Vec<(Stamp, Run)>,
    pub(super) workload: Option<Workload>,
    /// A person, or the gate when it was seen to open with all it asks for, lets the present blue-green update be promoted.
    pub(super) consent: bool,
    /// Revisions that the active Service no longer leads to, and since when.
    pub(super) left_active: BTreeMap<String, i64>,

    pub(super) pods: Vec<Pod>,
    /// How long pods take, where that is not drawn.
    pub(super) pace: Option<Pace>,
    /// ReplicaSets, pods and proxies made so far.
    pub(super) made: u32,
    pub(super) proxies: Vec<Proxy>,
    /// How long proxies take to follow, in milliseconds.
    pub(super) slowness: i64,
    /// No pod can be created.
    pub(super) quota: bool,
    /// Everybody does their part: pods become ready, runs are good.
    pub(super) healthy: bool,
    pub(super) troubles: Vec<(Trouble, u32)>,
    /// How late each cache hears, in milliseconds.
    pub(super) lags: [i64; 6],
    /// Caches that are about to hear.
    pub(super) stale: [bool; 6],

    queue: BTreeMap<(i64, u64), Due>,
    queued: u64,
    /// What happened, where somebody wants to know.
    pub(super) log: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(seed: u64, spec: &serde_json::Value, proxy: Option<&str>) -> Self {
        let mut world = Self {
            now: 0,
            decided: 0,
            skew: 0,
            dice: Dice::new(seed, "world"),
            seed,
            version: 1,
            look: 0,
            rollout: spec::rollout(spec, proxy),
            metadata: Metadata {
                name: "web".to_owned(),
                namespace: "shop".to_owned(),
                uid: "u-rollout".to_owned(),
                generation: 1,
                annotations: BTreeMap::new(),
            },
            status: RolloutStatus::default(),
            annotated: None,
            rollout_stamp: Stamp::default(),
            sets: Vec::new(),
            services: spec::services(spec),
            services_stamp: Stamp::default(),
            split: None,
            splits: 0,
            runs: Vec::new(),
            workload: Workload::of(spec),
            consent: false,
            left_active: BTreeMap::new(),
            pods: Vec::new(),
            pace: None,
            made: 0,
            proxies: Vec::new(),
            slowness: 50,
            quota: false,
            healthy: false,
            troubles: Vec::new(),
            lags: [0; 6],
            stale: [false; 6],
            queue: BTreeMap::new(),
            queued: 0,
            log: None,
        };
        world.add_proxy();
        world.add_proxy();
        world
    }

    /// A time of this world, as its clocks show it when they are right.
    pub(super) fn time(at: i64) -> Timestamp {
        let start: Timestamp = Timestamp::from_second(START).unwrap();
        start + SignedDuration::from_millis(at)
    }

    /// What the controller's clock shows.
    pub(super) fn clock(&self) -> Timestamp {
        Self::time(self.now + self.skew)
    }

    /// Puts something on the list of what is due.
    pub(super) fn after(&mut self, milliseconds: i64, due: Due) {
        self.queued += 1;
        let key = (self.now + milliseconds.max(0), self.queued);
        self.queue.insert(key, due);
    }

    /// What is due next, if anything is before a time.
    pub(super) fn next_due(&mut self, before: i64) -> Option<Due> {
        let entry = self.queue.first_entry()?;
        if entry.key().0 > before {
            return None;
        }
        let ((at, _), due) = entry.remove_entry();
        self.now = self.now.max(at);
        Some(due)
    }

    /// An object of this kind has changed: its new stamp. Its cache hears of it a little later.
    pub(super) fn change(&mut self, kind: Kind) -> Stamp {
        self.version += 1;
        let index = kind.index();
        if !self.stale[index] {
            self.stale[index] = true;
            let lag = self.lags[index] + self.dice.between(1, 30);
            self.after(lag, Due::Cache(kind));
        }
        Stamp {
            version: self.version,
            look: self.look,
        }
    }

    pub(super) fn set(&self, hash: &str) -> Option<&Set> {
        self.sets.iter().find(|set| set.revision.hash == hash)
    }

    /// `spec.replicas`.
    pub(super) fn replicas(&self) -> i32 {
        self.rollout.spec.replicas.unwrap_or(1)
    }

    /// Routing by our proxies is asked for.
    pub(super) fn is_routed(&self) -> bool {
        let canary = self.rollout.spec.strategy.canary.as_ref();
        canary.is_some_and(|canary| canary.traffic_routing.is_some()) || self.annotation().is_some()
    }

    /// The annotation that asks for routing of a blue-green update.
    pub(super) fn annotation(&self) -> Option<&str> {
        let annotations = self.rollout.metadata.annotations.as_ref()?;
        annotations.get(labels::PROXY).map(String::as_str)
    }

    /// The Service named `web-active`, of a blue-green update.
    pub(super) fn active_service(&self) -> Option<&Service> {
        let mut services = self.services.iter();
        services.find(|service| service.name == ACTIVE)
    }

    pub(super) fn phase(&self) -> &str {
        self.status.phase.as_deref().unwrap_or_default()
    }

    pub(super) fn message(&self) -> &str {
        self.status.message.as_deref().unwrap_or_default()
    }

    /// What the rollout remembers beyond its status, as the API server has it.
    pub(super) fn memory(&self) -> Memory {
        match &self.split {
            Some(split) => split.memory.clone(),
            None => self.annotated.clone().unwrap_or_default(),
        }
    }

    /// Writes a line of the log, where there is one.
    pub(super) fn note(&mut self, line: impl FnOnce(&Self) -> String) {
        let Some(mut log) = self.log.take() else {
            return;
        };
        let line = line(self);
        // What is only said again is not told again.
        if log.last().is_none_or(|last| !last.ends_with(&line)) {
            log.push(format!("{}  {line}", Seconds(self.now)));
        }
        self.log = Some(log);
    }
}

/// Milliseconds, printed as seconds.
struct Seconds(i64);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = format!("{}.{:03}", self.0 / 1000, self.0 % 1000);
        write!(f, "{text:>11}")
    }
}

/// The active Service of every blue-green spec.
pub(super) const ACTIVE: &str = "web-active";

/// 2026-01-01T00:00:00Z.
const START: i64 = 1_767_225_600;
