//! What is known of every proxy, as its stream tells it. No I/O.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

use super::history::History;
use super::members::{Key, Listed, Place};
use super::report::{Counters, Hello, Line, SCHEMA, SplitReport, VersionReport};
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
    /// By uid of a Split, what a proxy said of it last: what all say is kept once.
    shared: HashMap<Arc<str>, Arc<SplitReport>>,
    /// How many proxies each fleet lists that serve.
    sizes: HashMap<String, usize>,
    /// Who is still to be woken.
    waiting: BTreeSet<Wake>,
}

/// In a fleet of up to so many proxies, every word of any wakes whom it concerns at once.
const FEW: usize = 16;

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
    splits: HashMap<Arc<str>, Said>,
}

/// What a proxy said last of a Split.
#[derive(Debug)]
struct Said {
    /// Without what every request changes: the counters are in the history, and in flight stands here.
    report: Arc<SplitReport>,
    /// In flight, by version.
    in_flight: Box<[u64]>,
    /// It was said since the hello.
    is_current: bool,
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
        /// Its uid.
        uid: Arc<str>,
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
        self.sizes.clear();
        for listed in listed.values().filter(|listed| listed.serves) {
            *self.sizes.entry(listed.fleet.clone()).or_default() += 1;
        }
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

    /// Takes up what a proxy says; returns whom to wake now. With many proxies that is whoever waits for the last of them to say the same;
    /// others wait, see [`State::waiting`]: each of them looks at all proxies.
    pub fn hear(&mut self, key: &Key, line: Line, now: Timestamp) -> Option<Wake> {
        let wake = self.take_up(key, line, now)?;
        let fleet = &self.members.get(key)?.listed.fleet;
        let size = self.sizes.get(fleet).copied().unwrap_or_default();
        if size <= FEW || self.all_agree(&wake, key, size) {
            return Some(wake);
        }
        self.waiting.insert(wake);
        None
    }

    /// Whether all proxies of a fleet of that size say the same of a Split as one of them.
    fn all_agree(&self, wake: &Wake, key: &Key, size: usize) -> bool {
        let Wake::Split { uid, .. } = wake else {
            return false;
        };
        let said = self
            .members
            .get(key)
            .and_then(|member| member.splits.get(uid));
        // One more is shared by all.
        said.is_some_and(|said| Arc::strong_count(&said.report) > size)
    }

    /// Who is still to be woken, and is no longer. Empty for a fleet of a few.
    pub fn waiting(&mut self) -> BTreeSet<Wake> {
        let waiting = std::mem::take(&mut self.waiting);
        match waiting.contains(&Wake::All) {
            true => BTreeSet::from([Wake::All]),
            false => waiting,
        }
    }

    /// Whether somebody is still to be woken.
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    fn take_up(&mut self, key: &Key, line: Line, now: Timestamp) -> Option<Wake> {
        let member = self.members.get_mut(key)?;
        match line {
            Line::Hello(hello) => member.greet(hello, &mut self.history, now),
            Line::Split(report) => {
                let instance = &member.hello.as_ref()?.instance;
                self.history.report(instance, &report, now);
                member.take_up(*report, &mut self.shared, now)
            }
            Line::Gone(gone) => {
                let instance = &member.hello.as_ref()?.instance;
                self.history.gone(instance, &gone.uid, now);
                member.splits.remove(gone.uid.as_str());
                Some(Wake::Split {
                    namespace: gone.namespace,
                    name: gone.name,
                    uid: Arc::from(gone.uid),
                })
            }
            // A draining proxy still serves what it has and counts as before, but nobody new is sent to it.
            Line::Draining(draining) => {
                let before = std::mem::replace(&mut member.draining, draining);
                (before != draining).then_some(Wake::All)
            }
            Line::Ping(_) if member.told_all => None,
            Line::Ping(_) => {
                member.told_all = true;
                let instance = &member.hello.as_ref()?.instance;
                let unsaid = member.splits.extract_if(|_, said| !said.is_current);
                let unsaid: Vec<Arc<str>> = unsaid.map(|(uid, _)| uid).collect();
                for uid in &unsaid {
                    self.history.gone(instance, uid, now);
                }
                self.history.said_all(instance, now);
                (!unsaid.is_empty()).then_some(Wake::All)
            }
            Line::Told(_) => {
                self.history.told(&member.hello.as_ref()?.instance, now);
                None
            }
        }
    }

    /// Forgets what nobody can ask for any more.
    pub fn prune(&mut self, now: Timestamp) {
        self.history.prune(now);
        self.shared
            .retain(|_, report| Arc::strong_count(report) > 1);
    }

    /// How many proxies there are, and the most Splits that any serves; none before one has said all.
    pub fn size(&self) -> (usize, Option<usize>) {
        let told = self.members.values().filter(|member| member.told_all);
        let splits = told.map(|member| member.splits.len()).max();
        (self.members.len(), splits)
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
        let reports: Vec<&SplitReport> = said.map(|said| &*said.report).collect();
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

    /// A process that was heard already says the same again, as its stream was opened again: until it has, its word stands.
    fn greet(&mut self, hello: Hello, history: &mut History, now: Timestamp) -> Option<Wake> {
        let before = self.hello.as_ref();
        let is_same = before.is_some_and(|before| before.instance == hello.instance);
        if let Some(before) = before.filter(|_| !is_same) {
            history.left(&before.instance, now);
        }
        let is_reopened = is_same && self.heard;
        if is_reopened {
            let said = self.splits.values_mut();
            said.for_each(|said| said.is_current = false);
        } else {
            self.splits.clear();
        }
        let drained = std::mem::replace(&mut self.draining, hello.draining);
        self.heard = true;
        self.told_all = false;
        history.hello(&hello);
        let is_news = !is_reopened || drained != hello.draining;
        self.hello = Some(hello);
        is_news.then_some(Wake::All)
    }

    fn take_up(
        &mut self,
        mut report: SplitReport,
        shared: &mut HashMap<Arc<str>, Arc<SplitReport>>,
        now: Timestamp,
    ) -> Option<Wake> {
        let in_flight = take_counts(&mut report);
        let (uid, report) = share(report, shared);
        let before = self.splits.get(&uid);
        let since_before = before
            .filter(|before| before.report.generation == report.generation)
            .and_then(|before| before.as_desired_since);
        let is_as_before = before.is_some_and(|before| Arc::ptr_eq(&before.report, &report));
        let as_desired_since = match is_as_before {
            true => since_before,
            false => verify::is_as_desired(&report).then(|| since_before.unwrap_or(now)),
        };
        let said = Said {
            report,
            in_flight,
            is_current: true,
            as_desired_since,
        };
        let concerns = before.is_none_or(|before| is_news(before, &said));
        let wake = concerns.then(|| Wake::Split {
            namespace: said.report.namespace.clone(),
            name: said.report.name.clone(),
            uid: Arc::clone(&uid),
        });
        self.splits.insert(uid, said);
        wake
    }

    fn word(&self, uid: &str) -> Word<'_> {
        let hello = self.hello.as_ref();
        Word {
            proxy: &self.listed.name,
            heard: self.heard,
            schema: hello
                .map(|hello| hello.schema.as_str())
                .filter(|schema| *schema != SCHEMA),
            said: self.splits.get(uid).map(|said| verify::Said {
                report: &said.report,
                in_flight: &said.in_flight,
                as_desired_since: said.as_desired_since,
            }),
        }
    }
}

/// Takes out what every request changes; returns what is in flight, by version.
fn take_counts(report: &mut SplitReport) -> Box<[u64]> {
    let take = |version: &mut VersionReport| {
        version.counters = Counters::default();
        version.oldest_in_flight_ms = None;
        std::mem::take(&mut version.in_flight)
    };
    report.versions.iter_mut().map(take).collect()
}

/// The same report, kept once for all who say it.
fn share(
    report: SplitReport,
    shared: &mut HashMap<Arc<str>, Arc<SplitReport>>,
) -> (Arc<str>, Arc<SplitReport>) {
    let known = shared.get_key_value(report.uid.as_str());
    let (uid, known) = match known {
        Some((uid, known)) => (Arc::clone(uid), Some(known)),
        None => (Arc::from(report.uid.as_str()), None),
    };
    if let Some(known) = known.filter(|known| ***known == report) {
        return (uid, Arc::clone(known));
    }
    let report = Arc::new(report);
    shared.insert(Arc::clone(&uid), Arc::clone(&report));
    (uid, report)
}

/// Whether anything but the counters has changed; of what is in flight only whether there is any in a version that has left.
fn is_news(before: &Said, now: &Said) -> bool {
    let has_left_in_flight = |said: &Said| {
        let mut versions = said.report.versions.iter().zip(&said.in_flight);
        versions.any(|(version, in_flight)| !version.live && *in_flight > 0)
    };
    !Arc::ptr_eq(&before.report, &now.report) && before.report != now.report
        || has_left_in_flight(before) != has_left_in_flight(now)
}
