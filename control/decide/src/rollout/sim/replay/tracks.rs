//! What is compared of two rollouts: for each thing that a person or a request can tell, the order of its values.

use std::collections::BTreeMap;

use super::facts::{Fact, RolloutSeen, Seen, ServiceSeen, SetSeen};

/// A value, and when it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// In milliseconds.
    pub(super) at: i64,
    pub(super) value: String,
}

/// Values in order, by track.
pub(super) type Tracks = BTreeMap<&'static str, Vec<Entry>>;

/// The tracks of what was seen; `edits` is how often users wrote the spec.
pub(super) fn tracks(seen: &[Seen], edits: i64) -> Tracks {
    let mut reader = Reader::default();
    for seen in seen {
        reader.at = seen.at;
        reader.read(&seen.fact);
    }
    reader.rest(edits);
    let mut tracks = reader.tracks;
    if let Some(states) = tracks.get_mut("states") {
        *states = standing(states);
    }
    tracks
}

/// Everything as it stands while the facts are read.
#[derive(Debug, Default)]
struct Reader {
    at: i64,
    rollout: RolloutSeen,
    sets: BTreeMap<String, SetSeen>,
    services: BTreeMap<String, String>,
    split: Option<BTreeMap<String, i32>>,
    /// The shares when they last changed.
    shares: Option<BTreeMap<String, i32>>,
    tracks: Tracks,
}

impl Reader {
    fn read(&mut self, fact: &Fact) {
        match fact {
            Fact::Rollout(rollout) => self.read_rollout(rollout),
            Fact::Set(set) => self.read_set(set),
            Fact::Service(service) => self.read_service(service),
            Fact::Split(shares) => self.split = Some(shares.clone()),
            Fact::Event(event) => self.add("events", event.clone()),
        }
        self.follow_traffic();
    }

    fn add(&mut self, track: &'static str, value: String) {
        let at = self.at;
        let entries = self.tracks.entry(track).or_default();
        entries.push(Entry { at, value });
    }

    /// What one write of the status changes is taken in the order of weight, stable, step.
    fn read_rollout(&mut self, rollout: &RolloutSeen) {
        let before = std::mem::replace(&mut self.rollout, rollout.clone());
        if let Some(weight) = rollout.weight
            && before.weight != rollout.weight
        {
            self.add("steps", format!("weight {weight}"));
        }
        for word in ["stable", "step"] {
            let value = rollout.value(word);
            if before.value(word) != value {
                self.add("steps", format!("{word} {}", value.unwrap_or("-")));
            }
        }
        if before.state != rollout.state {
            self.add("states", rollout.state.clone());
        }
    }

    fn read_set(&mut self, set: &SetSeen) {
        let name = &set.name;
        let before = self.sets.insert(name.clone(), set.clone());
        let before = before.unwrap_or_default();
        if before.revision != set.revision {
            self.add("revisions", format!("{name} is {}", set.revision));
        }
        if before.size != set.size {
            let carried = self.carried(name);
            self.add(
                "sizes",
                format!("{name} {}-{}{carried}", before.size, set.size),
            );
        }
        if set.available < before.available.min(set.size) {
            self.add(
                "losses",
                format!("{name} has {} of {}", set.available, set.size),
            );
        }
        if before.has_deadline != set.has_deadline {
            let word = if set.has_deadline { "has a" } else { "has no" };
            self.add("deadlines", format!("{name} {word} deadline"));
        }
    }

    /// The canary Service moves with the first available pod (R7.8); how many more are by then is a matter of milliseconds.
    fn read_service(&mut self, service: &ServiceSeen) {
        let ServiceSeen { name, set } = service;
        self.services.insert(name.clone(), set.clone());
        let is_there = self.sets.get(set).is_some_and(|set| set.available > 0);
        let what = match (name.as_str(), is_there) {
            ("web-canary", true) => format!("{set}, which has pods"),
            ("web-canary", false) => format!("{set}, which has none"),
            _ => self.counted(set),
        };
        self.add("services", format!("{name} to {what}"));
    }

    /// What a ReplicaSet carries: `, carries 20 %, web-canary`.
    fn carried(&self, set: &str) -> String {
        let share = self.shares.as_ref().and_then(|shares| shares.get(set));
        let share = share.map(|share| format!("{share} %"));
        let services = self.services.iter();
        let services = services.filter(|(_, selected)| *selected == set);
        let services = services.map(|(name, _)| name.clone());
        let carried: Vec<String> = share.into_iter().chain(services).collect();
        match carried.is_empty() {
            true => String::new(),
            false => format!(", carries {}", carried.join(", ")),
        }
    }

    /// `V2 1/5`: available pods and size.
    fn counted(&self, set: &str) -> String {
        let counts = self.sets.get(set);
        let counts = counts.map(|set| format!("{}/{}", set.available, set.size));
        format!("{set} {}", counts.unwrap_or_default())
    }

    /// Where the traffic goes, and what is there to take it, when it moves.
    fn follow_traffic(&mut self) {
        let shares = self.decided_shares();
        if shares == self.shares {
            return;
        }
        let parts = shares.iter().flatten();
        let parts = parts.map(|(set, share)| format!("{share} % to {}", self.counted(set)));
        let parts: Vec<String> = parts.collect();
        self.shares = shares;
        self.add("traffic", parts.join(", "));
    }

    /// Shares of the traffic in percent, where somebody decides them.
    ///
    /// A Split says them. Where Istio has its place, the weight and the selectors of the two Services do; where there is an active
    /// Service, it has everything.
    fn decided_shares(&self) -> Option<BTreeMap<String, i32>> {
        if self.split.is_some() {
            return self.split.clone();
        }
        if let Some(active) = self.services.get("web-active") {
            return Some(BTreeMap::from([(active.clone(), 100)]));
        }
        let weight = self.rollout.weight?;
        let mut shares = BTreeMap::new();
        for (name, share) in [("web-canary", weight), ("web-stable", 100 - weight)] {
            *shares.entry(self.services.get(name)?.clone()).or_default() += share;
        }
        shares.retain(|_, share| *share > 0);
        Some(shares)
    }

    /// How everything is in the end, whenever that came.
    fn rest(&mut self, edits: i64) {
        self.at = 0;
        for _ in 1 + edits..self.rollout.generation {
            self.add("rewrites", "the controller writes the spec".to_owned());
        }
        let [replicas, updated, available] = self.rollout.counts;
        let counts = format!("{replicas} replicas, {updated} updated, {available} available");
        self.add("rest", counts);
        let sets: Vec<String> = self.sets.keys().map(|set| self.counted(set)).collect();
        for set in sets {
            self.add("rest", set);
        }
    }
}

/// States without those that only passed by: what a message counts (R2.6) may be read before or after a ReplicaSet is done, and tells
/// which it was for a moment.
fn standing(states: &[Entry]) -> Vec<Entry> {
    let mut kept: Vec<Entry> = Vec::new();
    for (index, state) in states.iter().enumerate() {
        let passes = states.get(index + 1).is_some_and(|next| {
            let counts = uncounted(&state.value).is_some();
            let same = uncounted(&state.value) == uncounted(&next.value);
            counts && same && next.at - state.at < MOMENT
        });
        let is_news = kept.last().is_none_or(|last| last.value != state.value);
        if !passes && is_news {
            kept.push(state.clone());
        }
    }
    kept
}

/// A state without its message, where that counts pods.
fn uncounted(state: &str) -> Option<&str> {
    COUNTING.iter().find_map(|text| state.strip_suffix(text))
}

/// Messages that count pods.
const COUNTING: &[&str] = &[
    "more replicas need to be updated",
    "updated replicas are still becoming available",
    "old replicas are pending termination",
    "waiting for all steps to complete",
];

/// A message that stands for less is not read by anybody, in milliseconds.
const MOMENT: i64 = 200;
