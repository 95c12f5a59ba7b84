//! A recording: the spec, what the user did, how long pods took, and what was seen of Argo.
//!
//! A line is a time in seconds, then what was done (`user`) or seen; the first two lines are the image and the spec that the rollout
//! was created with. `user delete` ends it.

use std::collections::VecDeque;

use serde_json::{Value, json};

use super::facts::{Fact, Seen, SetSeen};
use crate::rollout::sim::Script;
use crate::rollout::sim::ending::Ending;
use crate::rollout::sim::happening::{Happening, What};
use crate::rollout::sim::pods::{BROKEN, Pace};
use crate::rollout::sim::spec::{merge, skeleton};

/// A recording.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    pub(super) spec: Value,
    /// What the user did.
    pub(super) list: Vec<Happening>,
    /// What was seen of Argo.
    pub(super) seen: Vec<Seen>,
    /// When it ends, in milliseconds.
    pub(super) end: i64,
}

impl Recording {
    /// Reads one; panics at a line that it does not know.
    pub(super) fn parse(text: &str) -> Self {
        let mut lines = text.lines();
        let mut head = |key: &str| lines.next().and_then(|line| line.strip_prefix(key));
        let image = tag(head("image ").unwrap());
        let written: Value = serde_json::from_str(head("spec ").unwrap()).unwrap();
        let mut spec = skeleton(1);
        merge(&mut spec, &written);
        spec["template"]["spec"]["containers"][0]["image"] = json!(format!("web:{image}"));
        let mut recording = Self {
            spec,
            list: Vec::new(),
            seen: Vec::new(),
            end: 0,
        };
        for line in lines {
            recording.read(line).unwrap_or_else(|| panic!("{line}"));
        }
        recording
    }

    fn read(&mut self, line: &str) -> Option<()> {
        let (time, rest) = line.split_once(' ')?;
        let earliest = self.seen.last().map_or(0, |last| last.at + APART);
        let at = milliseconds(time)?.max(earliest);
        self.end = at + REST;
        match rest.strip_prefix("user ") {
            Some("delete") => {}
            Some(done) => self.list.push(Happening {
                at,
                what: action(done)?,
            }),
            None => self.seen.push(Seen {
                at,
                fact: Fact::parse(rest)?,
            }),
        }
        Some(())
    }

    /// The walk that does the same.
    pub(super) fn script(&self) -> Script {
        Script {
            seed: 0,
            spec: self.spec.clone(),
            proxy: None,
            list: self.list.clone(),
            ending: Ending::Healthy,
            decisions: u64::MAX,
        }
    }

    /// How often the user wrote the spec.
    pub(super) fn edits(&self) -> i64 {
        let is_edit = |done: &&Happening| {
            use What::{Image, Paused, Replicas, Restart, Steps};
            matches!(
                done.what,
                Image(_) | Paused(_) | Replicas(_) | Restart | Steps(_)
            )
        };
        let edits = self.list.iter().filter(is_edit);
        i64::try_from(edits.count()).unwrap()
    }

    /// How long pods took.
    pub(super) fn pace(&self) -> Pace {
        let mut sets: Vec<Starts> = Vec::new();
        for seen in &self.seen {
            let Fact::Set(set) = &seen.fact else { continue };
            let number: usize = set.name.trim_start_matches('V').parse().unwrap();
            sets.resize_with(sets.len().max(number), Starts::default);
            sets[number - 1].see(seen.at, set);
        }
        let starts = sets.into_iter().map(|set| set.known());
        Pace {
            starts: starts.collect(),
            follow: FOLLOW,
            start: START,
            stop: STOP,
        }
    }
}

/// Pods of a ReplicaSet that start.
#[derive(Debug, Default)]
struct Starts {
    /// How long each pod took, in the order of creation, as far as it became available.
    took: Vec<Option<i64>>,
    /// Pods that are not available yet: their number and when they were created.
    waiting: VecDeque<(usize, i64)>,
    available: usize,
}

impl Starts {
    /// The oldest become available first, and the youngest of the others go first.
    fn see(&mut self, at: i64, set: &SetSeen) {
        let count = |pods: i32| usize::try_from(pods).unwrap();
        let (pods, available) = (count(set.pods), count(set.available));
        for _ in self.available..available {
            let (pod, since) = self.waiting.pop_front().unwrap();
            self.took[pod] = Some(at - since);
        }
        self.available = available;
        self.waiting.truncate(pods - available);
        while self.waiting.len() < pods - available {
            self.waiting.push_back((self.took.len(), at));
            self.took.push(None);
        }
    }

    fn known(self) -> VecDeque<i64> {
        let took = self.took.into_iter();
        took.map(|took| took.unwrap_or(START)).collect()
    }
}

/// `13.89` in milliseconds.
fn milliseconds(text: &str) -> Option<i64> {
    let (seconds, hundredths) = text.split_once('.')?;
    let whole: i64 = seconds.parse().ok()?;
    let part: i64 = hundredths.parse().ok()?;
    Some(whole * 1000 + part * 10)
}

/// What a user did.
fn action(text: &str) -> Option<What> {
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    Some(match (verb, rest) {
        ("image", image) => What::Image(tag(image)),
        ("replicas", count) => What::Replicas(count.parse().ok()?),
        ("steps", steps) => What::Steps(serde_json::from_str(steps).ok()?),
        ("paused", paused) => What::Paused(paused.parse().ok()?),
        ("promote", "--full") => What::PromoteFull,
        ("promote", "") => What::Promote,
        ("abort", "") => What::Abort,
        ("retry", "") => What::Retry,
        ("restart", "") => What::Restart,
        _ => return None,
    })
}

/// The tag of an image; `broken` is one whose pods are never ready.
fn tag(image: &str) -> u8 {
    let tag = match image {
        "broken" => BROKEN.trim_start_matches("web:"),
        tag => tag,
    };
    tag.parse().unwrap()
}

/// How long the simulated pods of the recordings took to start, in milliseconds.
const START: i64 = 1_000;

/// How long an evicted one took to go, in milliseconds.
const STOP: i64 = 500;

/// How soon the ReplicaSet controller follows, in milliseconds.
const FOLLOW: i64 = 4;

/// What was seen in one hundredth of a second came in the order of the lines, so many milliseconds apart.
const APART: i64 = 4;

/// What is under way when a recording ends comes to its end within this time, in milliseconds.
const REST: i64 = 2_000;
