//! What is known of every proxy, as its stream tells it. No I/O.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use jiff::Timestamp;

use super::history::History;
use super::members::{Key, Listed, Place};
use super::report::{Counters, Hello, Line, SplitReport, VersionReport};
use super::verify::{self, Word};
use crate::api::split::{EffectiveShares, SplitSpec};
use crate::rollout::observed::Fleet as View;

/// All proxies, and what they have counted.
#[derive(Debug, Default)]
pub struct State {
    members: BTreeMap<Key, Member>,
    /// What they have counted.
    pub history: History,
    /// Who is there has been listed.
    pub is_listed: bool,
}

/// One proxy.
#[derive(Debug)]
struct Member {
    listed: Listed,
    /// Who spoke last.
    hello: Option<Hello>,
    /// Its stream is up.
    heard: bool,
    /// It has said, since its hello, all that it had to say of its Splits.
    told_all: bool,
    /// It has said that it is about to go.
    draining: bool,
    /// By uid.
    splits: HashMap<String, Said>,
}

/// What a proxy said last of a Split.
#[derive(Debug)]
struct Said {
    report: SplitReport,
    /// Since when it has said, at this generation, that effective is as desired.
    as_desired_since: Option<Timestamp>,
}

/// How a proxy stands to one of its ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has said that it answers there.
    Serves,
    /// It has not said anything of it yet: whoever is sent there may go on, and nobody else.
    Unheard,
    /// It does not answer there, is about to go, or is gone.
    Leaves,
}

/// Whom a change concerns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wake {
    /// The rollout of this Split.
    Split {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Everybody.
    All,
}

impl State {
    /// Whether anything of those who are listed differs from what is known.
    pub fn is_news(&self, listed: &BTreeMap<Key, Listed>) -> bool {
        let known = self
            .members
            .iter()
            .map(|(key, member)| (key, &member.listed));
        !self.is_listed || !known.eq(listed)
    }

    /// Takes up who is listed now; returns who has come and who has left.
    pub fn list(&mut self, listed: BTreeMap<Key, Listed>, now: Timestamp) -> (Vec<Key>, Vec<Key>) {
        self.is_listed = true;
        let left: Vec<Key> = self
            .members
            .keys()
            .filter(|key| !listed.contains_key(key))
            .cloned()
            .collect();
        for key in &left {
            if let Some(hello) = self.members.remove(key).and_then(|member| member.hello) {
                self.history.left(&hello.instance, now);
            }
        }
        let mut came = Vec::new();
        for (key, listed) in listed {
            match self.members.get_mut(&key) {
                Some(member) => member.listed = listed,
                None => {
                    came.push(key.clone());
                    self.members.insert(key, Member::new(listed));
                }
            }
        }
        (came, left)
    }

    /// Takes up what a proxy says; returns whom that concerns.
    pub fn hear(&mut self, key: &Key, line: Line, now: Timestamp) -> Option<Wake> {
        let member = self.members.get_mut(key)?;
        match line {
            Line::Hello(hello) => {
                member.greet(hello, &mut self.history, now);
                Some(Wake::All)
            }
            Line::Split(report) => {
                let instance = &member.hello.as_ref()?.instance;
                self.history.report(instance, &report, now);
                member.take_up(*report, now)
            }
            Line::Gone(gone) => {
                let instance = &member.hello.as_ref()?.instance;
                self.history.gone(instance, &gone.uid, now);
                member.splits.remove(&gone.uid);
                Some(Wake::Split {
                    namespace: gone.namespace,
                    name: gone.name,
                })
            }
            // A draining proxy still serves what it has and counts as before, but nobody new is sent to it.
            Line::Draining(draining) => {
                let before = std::mem::replace(&mut member.draining, draining);
                (before != draining).then_some(Wake::All)
            }
            Line::Ping(_) => {
                member.told_all = true;
                None
            }
        }
    }

    /// Whether all who are listed, and have begun, have said all that they had to say.
    pub fn is_known(&self) -> bool {
        let mut begun = self.members.values().filter(|member| member.has_begun());
        self.is_listed && begun.all(|member| member.told_all)
    }

    /// Takes up that a proxy's stream broke; returns whom that concerns.
    pub fn lose(&mut self, key: &Key, now: Timestamp) -> Option<Wake> {
        let member = self.members.get_mut(key)?;
        if !std::mem::take(&mut member.heard) {
            return None;
        }
        if let Some(hello) = &member.hello {
            self.history.lost(&hello.instance, now);
        }
        Some(Wake::All)
    }

    /// What the proxies of a fleet say of a Split at `generation`.
    pub fn view(&self, fleet: &str, uid: &str, generation: i64) -> View {
        let words = self.counted(fleet).map(|member| member.word(uid));
        View {
            listed: self.is_listed,
            ..verify::view(generation, words)
        }
    }

    /// Which proxies serve a Split of that name, as they said last.
    pub fn serving(&self, namespace: &str, name: &str) -> Vec<String> {
        let is_it = |said: &Said| said.report.namespace == namespace && said.report.name == name;
        let members = self.members.values();
        let serving = members.filter(|member| member.splits.values().any(is_it));
        serving.map(|member| member.listed.name.clone()).collect()
    }

    /// What the proxies of a fleet serve of a Split's weighted rules.
    pub fn effective(&self, fleet: &str, uid: &str, spec: &SplitSpec) -> Vec<EffectiveShares> {
        let heard = self.counted(fleet).filter(|member| member.heard);
        let said = heard.filter_map(|member| member.splits.get(uid));
        let reports: Vec<&SplitReport> = said.map(|said| &said.report).collect();
        verify::effective(spec, &reports)
    }

    /// The proxies of a fleet, and how each stands to the port that is to answer for the Split with that uid.
    pub fn standings(&self, fleet: &str, uid: &str, port: u16) -> Vec<(&Place, Standing)> {
        let of_fleet = self.members.values();
        let of_fleet = of_fleet.filter(|member| member.listed.fleet == fleet);
        let standing = |member: &Member| {
            let said = member.splits.get(uid);
            match said.filter(|_| member.heard) {
                _ if self.is_leaving(member) => Standing::Leaves,
                None => Standing::Unheard,
                Some(said) if said.report.apexes.contains(&port) => Standing::Serves,
                Some(_) => Standing::Leaves,
            }
        };
        of_fleet
            .map(|member| (&member.listed.place, standing(member)))
            .collect()
    }

    /// Whether nobody who stays is known at this address; false before anybody is.
    pub fn has_left(&self, address: &IpAddr, pod: Option<&str>) -> bool {
        let is_it = |(key, member): &(&Key, &Member)| {
            member.listed.place.addresses.contains(address) && pod.is_none_or(|pod| pod == key.pod)
        };
        let mut found = self.members.iter().filter(is_it);
        self.is_listed && found.all(|(_, member)| self.is_leaving(member))
    }

    /// Whether nobody new is to be sent to it. A stream that breaks while others of its fleet are heard is that of a dead proxy; where
    /// none is heard any more it is rather we who hear nothing.
    fn is_leaving(&self, member: &Member) -> bool {
        let is_lost = member.hello.is_some() && !member.heard;
        let speaks = |other: &Member| other.heard && other.listed.fleet == member.listed.fleet;
        !member.listed.place.serving
            || member.draining
            || is_lost && self.members.values().any(speaks)
    }

    fn counted(&self, fleet: &str) -> impl Iterator<Item = &Member> + Clone {
        let members = self.members.values().filter(|member| member.has_begun());
        members.filter(move |member| member.listed.fleet == fleet)
    }
}

impl Member {
    fn new(listed: Listed) -> Self {
        Self {
            listed,
            hello: None,
            heard: false,
            told_all: false,
            draining: false,
            splits: HashMap::new(),
        }
    }

    /// One that is listed as not ready and was never heard has not begun: it serves nothing.
    fn has_begun(&self) -> bool {
        self.listed.serves || self.hello.is_some()
    }

    fn greet(&mut self, hello: Hello, history: &mut History, now: Timestamp) {
        if let Some(before) = self
            .hello
            .as_ref()
            .filter(|before| before.instance != hello.instance)
        {
            history.left(&before.instance, now);
        }
        // What was said before is said again right after the hello.
        self.splits.clear();
        self.heard = true;
        self.told_all = false;
        self.draining = hello.draining;
        history.hello(&hello, now);
        self.hello = Some(hello);
    }

    fn take_up(&mut self, mut report: SplitReport, now: Timestamp) -> Option<Wake> {
        // The history has them.
        let versions = report.versions.iter_mut();
        versions.for_each(|version| version.counters = Counters::default());
        let before = self.splits.get(&report.uid);
        let since_before = before
            .filter(|before| before.report.generation == report.generation)
            .and_then(|before| before.as_desired_since);
        let as_desired_since = verify::is_as_desired(&report).then(|| since_before.unwrap_or(now));
        let concerns = before.is_none_or(|before| is_news(&before.report, &report));
        let wake = concerns.then(|| Wake::Split {
            namespace: report.namespace.clone(),
            name: report.name.clone(),
        });
        let said = Said {
            report,
            as_desired_since,
        };
        self.splits.insert(said.report.uid.clone(), said);
        wake
    }

    fn word(&self, uid: &str) -> Word<'_> {
        Word {
            proxy: &self.listed.name,
            heard: self.heard,
            said: self
                .splits
                .get(uid)
                .map(|said| (&said.report, said.as_desired_since)),
        }
    }
}

/// Whether anything but the counters has changed; of what is in flight only whether there is any.
fn is_news(before: &SplitReport, now: &SplitReport) -> bool {
    let mut versions = before.versions.iter().zip(&now.versions);
    before.generation != now.generation
        || before.rules != now.rules
        || before.apexes != now.apexes
        || before.versions.len() != now.versions.len()
        || !versions.all(|(before, now)| is_alike(before, now))
}

fn is_alike(before: &VersionReport, now: &VersionReport) -> bool {
    let VersionReport {
        name,
        revision,
        live,
        ready,
        in_flight,
        oldest_in_flight_ms: _,
        counters: _,
    } = before;
    (name, revision, *live, *ready, *in_flight > 0)
        == (
            &now.name,
            &now.revision,
            now.live,
            now.ready,
            now.in_flight > 0,
        )
}
