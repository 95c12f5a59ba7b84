//! Proxies: what each serves, what it still has in flight, and what the controller has last heard of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;

use super::world::{Due, World};
use crate::rollout::observed::{Fleet, WrittenSplit};
use crate::rollout::split::Split;

/// A proxy.
#[derive(Clone, Debug)]
pub(super) struct Proxy {
    pub(super) id: u32,
    pub(super) name: String,
    /// It takes up nothing and reports nothing.
    pub(super) silent: bool,
    /// What it serves.
    pub(super) table: Option<Arc<WrittenSplit>>,
    /// Requests in flight by revision: until when, none while it gets new ones.
    pub(super) busy: BTreeMap<String, Option<i64>>,
    /// What it said last.
    report: Report,
    takes: bool,
    reports: bool,
}

/// What a proxy said last.
#[derive(Clone, Debug, Default)]
struct Report {
    uid: String,
    generation: i64,
    /// Since when effective shares are as desired, if they are.
    verified: Option<Timestamp>,
    in_flight: BTreeMap<String, u64>,
}

impl World {
    /// A proxy comes.
    pub(super) fn add_proxy(&mut self) {
        self.made += 1;
        let id = self.made;
        self.proxies.push(Proxy {
            id,
            name: format!("proxy-{id}"),
            silent: false,
            table: None,
            busy: BTreeMap::new(),
            report: Report::default(),
            takes: false,
            reports: false,
        });
        self.hear(id);
    }

    /// All proxies hear that the Split has changed.
    pub(super) fn hear_all(&mut self) {
        let ids: Vec<u32> = self.proxies.iter().map(|proxy| proxy.id).collect();
        for id in ids {
            self.hear(id);
        }
    }

    fn hear(&mut self, id: u32) {
        let delay = self.dice.between(1, self.slowness);
        let Some(proxy) = self.proxy(id).filter(|proxy| !proxy.takes) else {
            return;
        };
        proxy.takes = true;
        self.after(delay, Due::Take(id));
    }

    fn proxy(&mut self, id: u32) -> Option<&mut Proxy> {
        self.proxies.iter_mut().find(|proxy| proxy.id == id)
    }

    /// A proxy takes up the Split as it stands.
    pub(super) fn take(&mut self, id: u32) {
        let now = self.now;
        let written = self
            .split
            .as_ref()
            .map(|split| Arc::new(split.written.clone()));
        let Some(proxy) = self.proxy(id) else { return };
        proxy.takes = false;
        if proxy.silent {
            return;
        }
        proxy.table = written;
        let table = proxy.table.clone();
        let served = |hash: &str| {
            table
                .as_ref()
                .is_some_and(|table| may_be_sent(&table.split, hash))
        };
        for version in table.iter().flat_map(|table| &table.split.versions) {
            if served(&version.revision) {
                proxy.busy.insert(version.revision.clone(), None);
            }
        }
        let left: Vec<String> = proxy
            .busy
            .iter()
            .filter(|(hash, until)| until.is_none() && !served(hash))
            .map(|(hash, _)| hash.clone())
            .collect();
        for hash in left {
            let tail = self.tail();
            if let Some(proxy) = self.proxy(id) {
                proxy.busy.insert(hash, Some(now + tail));
            }
            self.after(tail + 1, Due::Report(id));
        }
        self.report_soon(id);
        self.note(|world| {
            let proxy = world.proxies.iter().find(|proxy| proxy.id == id);
            let table = proxy.and_then(|proxy| proxy.table.as_ref());
            let table = table.map_or_else(|| "nothing".to_owned(), |table| shown(table));
            format!("proxy-{id} serves {table}")
        });
    }

    /// How long the last request of a version takes: mostly a moment, sometimes longer than any drain.
    fn tail(&mut self) -> i64 {
        match self.dice.roll(8) {
            0..=4 => self.dice.between(0, 800),
            5..=6 => self.dice.between(800, 60_000),
            _ => self.dice.between(60_000, 900_000),
        }
    }

    /// All proxies see that endpoints have come or gone.
    pub(super) fn report_all(&mut self) {
        let ids: Vec<u32> = self.proxies.iter().map(|proxy| proxy.id).collect();
        for id in ids {
            self.report_soon(id);
        }
    }

    fn report_soon(&mut self, id: u32) {
        let delay = self.dice.between(1, self.slowness);
        let Some(proxy) = self.proxy(id).filter(|proxy| !proxy.reports) else {
            return;
        };
        proxy.reports = true;
        self.after(delay, Due::Report(id));
    }

    /// A proxy tells the controller. Returns whether that is news.
    pub(super) fn report(&mut self, id: u32) -> bool {
        let clock = self.clock();
        let Some(index) = self.proxies.iter().position(|proxy| proxy.id == id) else {
            return false;
        };
        let now = self.now;
        let fits = self.proxies[index]
            .table
            .as_ref()
            .is_some_and(|table| self.is_as_desired(table));
        let proxy = &mut self.proxies[index];
        proxy.reports = false;
        if proxy.silent {
            return false;
        }
        proxy
            .busy
            .retain(|_, until| until.is_none_or(|until| until > now));
        let table = proxy.table.as_ref();
        let generation = table.map_or(0, |table| table.generation);
        let since = proxy
            .report
            .verified
            .filter(|_| proxy.report.generation == generation);
        let report = Report {
            uid: table.map_or_else(String::new, |table| table.uid.clone()),
            generation,
            verified: fits.then(|| since.unwrap_or(clock)),
            in_flight: proxy.busy.keys().map(|hash| (hash.clone(), 1)).collect(),
        };
        let news = report.generation != proxy.report.generation
            || report.verified != proxy.report.verified
            || report.in_flight != proxy.report.in_flight;
        proxy.report = report;
        news
    }

    /// Effective shares are the desired ones: every weighted version has the pods it needs, or there is only one.
    fn is_as_desired(&self, table: &WrittenSplit) -> bool {
        let split = &table.split;
        let lacks = |hash: &str, needed: u32| {
            let ready = self.set(hash).map_or(0, |set| self.ready(set.id));
            ready < i32::try_from(needed).unwrap_or(i32::MAX)
        };
        let mut versions = split.versions.iter();
        // One version alone has all of it as soon as it has a pod.
        let alone = split.versions.len() < 2;
        versions.all(|version| {
            let needed = if alone { 1 } else { version.needed };
            weight(split, &version.revision) == 0 || !lacks(&version.revision, needed)
        })
    }

    /// What the controller knows of the fleet, by the Split it knows of.
    pub(super) fn fleet(&self, split: Option<&WrittenSplit>) -> Fleet {
        let mut fleet = Fleet {
            listed: true,
            ..Fleet::default()
        };
        let Some(split) = split else { return fleet };
        let mut verified_at = None;
        for proxy in &self.proxies {
            let report = &proxy.report;
            fleet.proxies.push(proxy.name.clone());
            let same = report.uid == split.uid;
            for (hash, count) in &report.in_flight {
                *fleet.in_flight.entry(hash.clone()).or_default() += count;
            }
            match report.verified {
                _ if !same || proxy.silent || report.generation < split.generation => {
                    fleet.behind.push(proxy.name.clone());
                }
                None => fleet.short.push(proxy.name.clone()),
                Some(since) => verified_at = verified_at.max(Some(since)),
            }
        }
        fleet.verified_at = verified_at.filter(|_| fleet.verifies());
        fleet
    }

    /// Requests of a revision are in flight somewhere.
    pub(super) fn is_busy(&self, hash: &str) -> bool {
        let busy = |proxy: &Proxy| {
            let until = proxy.busy.get(hash);
            until.is_some_and(|until| until.is_none_or(|until| until > self.now))
        };
        self.proxies.iter().any(busy)
    }

    /// The tables that are being served.
    pub(super) fn tables(&self) -> impl Iterator<Item = (&str, &WrittenSplit)> {
        let tables = self.proxies.iter();
        tables.filter_map(|proxy| Some((proxy.name.as_str(), proxy.table.as_deref()?)))
    }
}

/// Weight of a revision in the weighted rule.
pub(super) fn weight(split: &Split, hash: &str) -> u32 {
    let named = split
        .versions
        .iter()
        .filter(|version| version.revision == hash);
    let weights = split.rules.first().map(|rule| &rule.weights);
    let of = |name: &String| weights.and_then(|weights| weights.get(name)).copied();
    named.map(|version| of(&version.name).unwrap_or(0)).sum()
}

/// Some rule sends requests to the revision.
fn may_be_sent(split: &Split, hash: &str) -> bool {
    let mut named = split
        .versions
        .iter()
        .filter(|version| version.revision == hash);
    named.any(|version| {
        let mut rules = split.rules.iter();
        rules.any(|rule| {
            rule.weights
                .get(&version.name)
                .is_some_and(|weight| *weight > 0)
        })
    })
}

/// A table in a line: `generation 3: bcd 80 (needs 4), 567 20 (needs 1)`.
pub(super) fn shown(written: &WrittenSplit) -> String {
    format!(
        "generation {}: {}",
        written.generation,
        shares(&written.split)
    )
}

/// The shares of a Split in a line.
pub(super) fn shares(split: &Split) -> String {
    let versions = split.versions.iter().map(|version| {
        let weight = weight(split, &version.revision);
        format!("{} {weight} (needs {})", version.revision, version.needed)
    });
    versions.collect::<Vec<_>>().join(", ")
}
