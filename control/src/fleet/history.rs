//! What the proxies have counted, over time: the answers to "how much since then".
//!
//! Proxies send cumulative counters. Of each proxy the last ones are kept; what they have grown by is added to the history of the version,
//! which is one for the whole fleet, at the time it was heard. A proxy tells its counters in rounds, so that what is heard was counted at
//! most a round earlier: see [`told`](crate::measure::counters::Told).

mod growth;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};

use self::growth::Growth;
use super::cells::{Cells, Names};
use super::report::{Hello, SplitReport};
use crate::measure::counters::{Start, Told, VersionKey, Window};

/// How far back a window may begin.
pub const REACH: SignedDuration = SignedDuration::from_mins(10);

/// For how long a proxy's last counters of a version are kept that it no longer reports: it forgets them sooner itself, and the version
/// that comes back later counts from 0.
const KEPT: SignedDuration = SignedDuration::from_mins(15);

/// A proxy that was not asked for rounds tells changed counters after at most 200 ms.
const UNASKED: SignedDuration = SignedDuration::from_millis(200);

/// A round without changes ends without a word, as long as the last one is no older.
const QUIET: SignedDuration = SignedDuration::from_secs(1);

/// What is heard was written no longer ago.
const WAY: SignedDuration = SignedDuration::from_millis(200);

/// What the proxies have counted over the last [`REACH`].
#[derive(Debug, Default)]
pub struct History {
    names: Names,
    /// By what they call themselves.
    numbers: HashMap<String, u32>,
    /// By number. A vanished one is kept for as long as a window may reach it.
    instances: HashMap<u32, Instance>,
    /// By uid.
    splits: HashMap<String, Split>,
    /// The next instance's.
    next: u32,
}

/// One process of a proxy.
#[derive(Debug)]
struct Instance {
    name: String,
    /// When it began to count.
    since: Timestamp,
    /// When it had first told all that it had counted.
    heard_from: Option<Timestamp>,
    /// While nobody heard it.
    gaps: Vec<Gap>,
    /// When it left the fleet.
    left: Option<Timestamp>,
    bounds_ms: Arc<[f64]>,
    /// Between two rounds; none where it was not asked for any, or is of a version that knows none.
    every: Option<SignedDuration>,
    /// All that it had counted until then has been heard.
    told: Timestamp,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    from: Timestamp,
    until: Option<Timestamp>,
}

/// A Split, as far as it is counted.
#[derive(Debug, Default)]
struct Split {
    /// The instances that have reported it: since when they no longer serve it.
    serving: HashMap<u32, Option<Timestamp>>,
    versions: Vec<Version>,
}

#[derive(Debug)]
struct Version {
    name: String,
    revision: String,
    /// What each instance said last.
    words: HashMap<u32, Word>,
    /// What all have counted.
    growth: Growth,
}

#[derive(Debug, Default)]
struct Word {
    cells: Cells,
    in_flight: u64,
    oldest_in_flight_ms: Option<f64>,
    /// Since when the instance no longer reports the version.
    absent_since: Option<Timestamp>,
}

impl History {
    /// A proxy has introduced itself, for the first time or again.
    pub fn hello(&mut self, hello: &Hello) {
        let number = self.numbers.get(&hello.instance).copied();
        let number = number.unwrap_or_else(|| {
            self.next += 1;
            self.numbers.insert(hello.instance.clone(), self.next);
            self.next
        });
        let instance = self
            .instances
            .entry(number)
            .or_insert_with(|| Instance::new(hello));
        instance.left = None;
        let every = hello.every_ms.and_then(|ms| i64::try_from(ms).ok());
        instance.every = every.map(SignedDuration::from_millis);
    }

    /// A proxy has told all that it had counted.
    pub fn told(&mut self, instance: &str, now: Timestamp) {
        if let Some(instance) = self.instance(instance) {
            instance.told(now);
        }
    }

    /// A proxy has said all that it had to say at first; one that is to tell of rounds is still to tell of the first.
    pub fn said_all(&mut self, instance: &str, now: Timestamp) {
        if let Some(instance) = self.instance(instance)
            && instance.every.is_none()
        {
            instance.told(now);
        }
    }

    /// A proxy's stream broke.
    pub fn lost(&mut self, instance: &str, now: Timestamp) {
        if let Some(instance) = self.instance(instance) {
            let from = instance.told_until(now);
            instance.gaps.push(Gap { from, until: None });
        }
    }

    /// A proxy is no longer of the fleet, or another process has taken its place: there is nothing more to be heard of it.
    pub fn left(&mut self, instance: &str, now: Timestamp) {
        if let Some(instance) = self.instance(instance) {
            instance.left.get_or_insert(now);
            instance.close_gap(now);
        }
    }

    /// A proxy has reported a Split.
    pub fn report(&mut self, instance: &str, report: &SplitReport, now: Timestamp) {
        let Some(&number) = self.numbers.get(instance) else {
            return;
        };
        if !self.splits.contains_key(&report.uid) {
            self.splits.insert(report.uid.clone(), Split::default());
        }
        let Some(split) = self.splits.get_mut(&report.uid) else {
            return;
        };
        split.serving.insert(number, None);
        split.mark_absent(number, now);
        for reported in &report.versions {
            let version = split.version(&reported.name, &reported.revision);
            let cells = self.names.pack(&reported.counters);
            let word = version.words.entry(number).or_default();
            if word.cells != cells {
                version.growth.add(&cells.since(&word.cells), now);
            }
            *word = Word {
                cells,
                in_flight: reported.in_flight,
                oldest_in_flight_ms: reported.oldest_in_flight_ms,
                absent_since: None,
            };
        }
    }

    /// A proxy no longer serves a Split.
    pub fn gone(&mut self, instance: &str, uid: &str, now: Timestamp) {
        let split = self.splits.get_mut(uid);
        if let Some((&number, split)) = self.numbers.get(instance).zip(split) {
            split.serving.insert(number, Some(now));
            split.mark_absent(number, now);
        }
    }

    /// Forgets what no window can reach any more.
    pub fn prune(&mut self, now: Timestamp) {
        let reachable =
            |end: Option<Timestamp>, reach| end.is_none_or(|end| now.duration_since(end) < reach);
        self.instances
            .retain(|_, instance| reachable(instance.left, REACH));
        let instances = &self.instances;
        self.numbers
            .retain(|_, number| instances.contains_key(number));
        for instance in self.instances.values_mut() {
            instance.gaps.retain(|gap| reachable(gap.until, REACH));
        }
        let instances = &self.instances;
        for split in self.splits.values_mut() {
            split.serving.retain(|number, absent_since| {
                instances.contains_key(number) && reachable(*absent_since, REACH)
            });
            for version in &mut split.versions {
                version.words.retain(|number, word| {
                    instances.contains_key(number) && reachable(word.absent_since, KEPT)
                });
                version.growth.thin(now);
            }
            split
                .versions
                .retain(|version| !(version.words.is_empty() && version.growth.is_empty()));
        }
        self.splits
            .retain(|_, split| !(split.serving.is_empty() && split.versions.is_empty()));
    }

    /// How far the proxies have told what they count for a Split; none where no proxy serves it.
    pub fn told_until(&self, uid: &str, now: Timestamp) -> Option<Told> {
        let serving = self.splits.get(uid)?.serving.iter();
        let serving = serving.filter(|(_, absent_since)| absent_since.is_none());
        let instances = serving.filter_map(|(number, _)| self.instances.get(number));
        let told = instances
            .filter(|instance| instance.left.is_none())
            .map(|instance| Told {
                until: instance.told_until(now),
                lag: instance.lag(),
            });
        told.reduce(|a, b| Told {
            until: a.until.min(b.until),
            lag: a.lag.max(b.lag),
        })
    }

    /// What has been heard after `from` of what the proxies have counted for a version. None where no proxy has served the Split since.
    pub fn window(&self, version: &VersionKey, from: Timestamp, now: Timestamp) -> Option<Window> {
        let split = self.splits.get(&version.uid)?;
        let instances = self.serving_after(split, from);
        let (_, first) = instances.first()?;
        let counted = split.find(&version.version, &version.revision);
        let (begin, cells) = match counted {
            Some(counted) => counted.growth.after(from, now),
            None => (from, Cells::default()),
        };
        let mut window = Window {
            from: begin,
            tally: self.names.unpack(&cells, &first.bounds_ms),
            proxies: instances.len(),
            ..Window::default()
        };
        for (number, instance) in &instances {
            window.start = window.start.max(instance.start(from));
            window.mixed_buckets |= instance.bounds_ms != first.bounds_ms;
            if instance.left.is_some() {
                window.gone.push(instance.name.clone());
            } else if let Some(word) = counted.and_then(|counted| counted.words.get(number)) {
                window.in_flight += word.in_flight;
                let ages = [window.oldest_in_flight_ms, word.oldest_in_flight_ms];
                window.oldest_in_flight_ms = ages.into_iter().flatten().reduce(f64::max);
            }
        }
        window.gone.sort();
        Some(window)
    }

    /// The instances that served a Split then or later.
    fn serving_after(&self, split: &Split, from: Timestamp) -> Vec<(u32, &Instance)> {
        let after_from = |end: Option<Timestamp>| end.is_none_or(|end| end >= from);
        let serving = split.serving.iter();
        serving
            .filter(|(_, absent_since)| after_from(**absent_since))
            .filter_map(|(number, _)| Some((*number, self.instances.get(number)?)))
            .filter(|(_, instance)| after_from(instance.left))
            .collect()
    }

    fn instance(&mut self, name: &str) -> Option<&mut Instance> {
        self.instances.get_mut(self.numbers.get(name)?)
    }
}

impl Instance {
    fn new(hello: &Hello) -> Self {
        Self {
            name: hello.instance.clone(),
            since: hello.since,
            heard_from: None,
            gaps: Vec::new(),
            left: None,
            bounds_ms: Arc::from(hello.latency_bounds_ms.as_slice()),
            every: None,
            told: hello.since,
        }
    }

    /// What is heard was counted no longer ago, outside of gaps.
    fn lag(&self) -> SignedDuration {
        match self.every {
            None => UNASKED + WAY,
            Some(every) => every + WAY,
        }
    }

    /// It has told all. Where that took longer than it may, that was a gap: what it counted meanwhile is heard all at once.
    fn told(&mut self, now: Timestamp) {
        let late = self.lag() + QUIET * 2;
        if self.every.is_some() && self.is_heard() && now.duration_since(self.told) > late {
            let from = self.told;
            self.gaps.push(Gap { from, until: None });
        }
        self.heard_from.get_or_insert(now);
        self.close_gap(now);
        self.told = before(now, WAY);
    }

    /// All that it had counted until then has been heard.
    fn told_until(&self, now: Timestamp) -> Timestamp {
        match self.every {
            None if self.is_heard() => before(now, self.lag()),
            None | Some(_) => self.told,
        }
    }

    /// It has told all at least once, and goes on.
    fn is_heard(&self) -> bool {
        self.heard_from.is_some() && self.gaps.last().is_none_or(|gap| gap.until.is_some())
    }

    fn close_gap(&mut self, now: Timestamp) {
        if let Some(gap) = self.gaps.last_mut() {
            gap.until.get_or_insert(now);
        }
    }

    /// How much is known of what it counted from `from` on.
    fn start(&self, from: Timestamp) -> Start {
        if self.since >= from {
            return Start::Known;
        }
        let first = self.heard_from.is_none_or(|heard| heard > from);
        let in_gap = |gap: &&Gap| gap.from <= from && gap.until.is_none_or(|until| until > from);
        let until = match (first, self.gaps.iter().find(in_gap)) {
            (true, _) => self.heard_from,
            (false, Some(gap)) => gap.until,
            (false, None) => return Start::Known,
        };
        until.map_or(Start::Unheard, Start::HeardFrom)
    }
}

impl Split {
    fn find(&self, name: &str, revision: &str) -> Option<&Version> {
        let mut versions = self.versions.iter();
        versions.find(|version| version.name == name && version.revision == revision)
    }

    fn version(&mut self, name: &str, revision: &str) -> &mut Version {
        let is_it = |version: &Version| version.name == name && version.revision == revision;
        let place = self.versions.iter().position(is_it);
        let place = place.unwrap_or_else(|| {
            self.versions.push(Version {
                name: name.to_owned(),
                revision: revision.to_owned(),
                words: HashMap::new(),
                growth: Growth::default(),
            });
            self.versions.len() - 1
        });
        &mut self.versions[place]
    }

    /// Marks every version as absent at an instance; a report that follows takes back those it names.
    fn mark_absent(&mut self, instance: u32, now: Timestamp) {
        let words = self.versions.iter_mut();
        for word in words.filter_map(|version| version.words.get_mut(&instance)) {
            word.absent_since.get_or_insert(now);
        }
    }
}

fn before(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_sub(by).unwrap_or(Timestamp::MIN)
}
