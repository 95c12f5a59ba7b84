//! What the proxy says of itself: a plain snapshot for the controller, and a plain rendering of the table for people.
//!
//! A [`Report`] speaks of the newest table that every worker has taken up: that a generation stands in it is the acknowledgement.
//! Turning it into JSON is the binary's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::live::{
    Counts, Glance, Owner, Served, ServedBackend, ServedSplit, ServedVersion, TableHandle,
    VersionState,
};
use crate::split::Plan;
use crate::table::{PlannedSplit, Protocol, Route, Source, Split, Target};

/// A snapshot of all Splits in service and of what was counted.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// Counts publications; 0 before the first table: the proxy is not ready.
    pub serial: u64,
    /// Every Split of the table, in its order.
    pub splits: Vec<SplitReport>,
}

/// One Split as this proxy serves it.
#[derive(Clone, Debug, PartialEq)]
pub struct SplitReport {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The generation that every worker serves.
    pub generation: i64,
    /// Its rules, with the shares they make.
    pub rules: Vec<RuleReport>,
    /// Its versions in their order, then those that left the table and are still spoken of.
    pub versions: Vec<VersionReport>,
    /// The ports of its own at which its rules answer, ascending.
    pub apexes: Vec<u16>,
    /// As [`Split::unknown`].
    pub unknown: Vec<String>,
}

/// The shares of one rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleReport {
    /// Names of the Services it governs.
    pub services: Vec<String>,
    /// One per version.
    pub shares: Vec<Share>,
    /// By how much the ready endpoints carry more than they are said to: 0 within capacity.
    pub overcommit: f64,
}

/// The share of one version, as fractions of 1. The two are the very same number where nothing is missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Share {
    /// The version's name.
    pub version: String,
    /// What the weights say.
    pub desired: f64,
    /// What it gets.
    pub effective: f64,
}

/// One version as this proxy counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VersionReport {
    /// Its name.
    pub name: String,
    /// Its revision; may be empty.
    pub revision: String,
    /// Whether it is in the table that every worker serves. One that left is reported until nothing is in flight, and 10 minutes.
    pub live: bool,
    /// Ready pods of it, as the table says; 0 once it left.
    pub ready: u32,
    /// How long its oldest request in flight has been so.
    pub oldest_in_flight: Option<Duration>,
    /// What all workers counted, ever since it was first served.
    pub counts: Counts,
}

/// The table in service, for people.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    /// Counts publications.
    pub serial: u64,
    /// Serial of the newest table that every worker has taken up; below `serial` while a publication is under way.
    pub acknowledged: u64,
    /// The routes, in order.
    pub routes: Vec<Route>,
    /// What answers at ports of its own.
    pub apexes: Vec<(u16, Target)>,
    /// The backends that the indices of routes and apexes speak of.
    pub backends: Vec<BackendReport>,
    /// The Splits.
    pub splits: Vec<SplitReport>,
}

/// One backend of the table.
#[derive(Clone, Debug, PartialEq)]
pub struct BackendReport {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// Its port.
    pub port: String,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// Name of the Split that governs it, if one does.
    pub split: Option<String>,
    /// What each version gets for this port; empty without a Split.
    pub shares: Vec<Share>,
    /// Its versions; without a Split the one and nameless.
    pub versions: Vec<BackendVersion>,
}

/// The endpoints of one version for one backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendVersion {
    /// Name of the version; empty without a Split.
    pub name: String,
    /// Its revision; may be empty.
    pub revision: String,
    /// The endpoints that take requests.
    pub endpoints: Vec<EndpointReport>,
}

/// One endpoint that takes requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointReport {
    /// Where to connect.
    pub address: SocketAddr,
    /// Whose it is.
    pub pod: String,
    /// Requests in flight to it, from all workers and through all backends.
    pub in_flight: u32,
}

impl TableHandle {
    /// What every worker serves, and what was counted. `now` tells how old requests are and which figures are too old to keep.
    #[must_use]
    pub fn report(&self, now: Instant) -> Report {
        let served = self.acknowledged();
        let left = self.left(now);
        let left = by_split(&left);
        let clock_ms = self.clock_ms(now);
        let apexes = apexes_by_split(&served);
        let splits = served.splits.iter().zip(apexes);
        let splits = splits.map(|(split, apexes)| split_report(split, apexes, &left, clock_ms));
        Report {
            serial: served.serial,
            splits: splits.collect(),
        }
    }

    /// What has changed of the Splits since `told` was told of last. A look at Splits of which nothing has changed costs next to nothing.
    #[must_use]
    pub fn news(&self, told: &mut Told, look: Look, now: Instant) -> Vec<News> {
        let served = self.acknowledged();
        let left = self.left(now);
        let left = by_split(&left);
        let clock_ms = self.clock_ms(now);
        let mut news = Vec::new();
        let mut before = std::mem::take(&mut told.0);
        for (split, apexes) in served.splits.iter().zip(apexes_by_split(&served)) {
            let uid = &split.planned.split.uid;
            let seen = Seen::of(split, &apexes, &left, clock_ms);
            let (uid, known) = before.remove_entry(uid).unzip();
            let uid = uid.unwrap_or_else(|| split.planned.split.uid.clone());
            let is_told = |known: &Seen| match look {
                Look::All => *known == seen,
                Look::State => known.is_of_same_state(&seen),
            };
            let seen = match known {
                Some(known) if is_told(&known) => known,
                Some(_) | None => {
                    let report = split_report(split, apexes, &left, clock_ms);
                    news.push(News::Split(Box::new(report)));
                    seen
                }
            };
            told.0.insert(uid, seen);
        }
        let gone = before.into_values();
        news.extend(gone.map(|seen| News::Gone(Arc::clone(&seen.split.planned))));
        news
    }

    /// The newest table, with what its endpoints have in flight.
    #[must_use]
    pub fn table(&self, now: Instant) -> TableReport {
        let served = self.newest();
        let left = self.left(now);
        let left = by_split(&left);
        let clock_ms = self.clock_ms(now);
        TableReport {
            serial: served.serial,
            acknowledged: self.acknowledged().serial,
            routes: served.table.routes().to_vec(),
            apexes: served
                .table
                .apexes()
                .map(|(port, target)| (port, target.clone()))
                .collect(),
            backends: served
                .backends
                .iter()
                .map(|backend| backend_report(backend, &served))
                .collect(),
            splits: served
                .splits
                .iter()
                .zip(apexes_by_split(&served))
                .map(|(split, apexes)| split_report(split, apexes, &left, clock_ms))
                .collect(),
        }
    }
}

/// Per Split of the table: the apexes' ports that lead to a backend of its own. One that is refused leads nowhere.
fn apexes_by_split(served: &Served) -> Vec<Vec<u16>> {
    let mut ports = vec![Vec::new(); served.splits.len()];
    for (port, target) in served.table.apexes() {
        let Target::Backend(index) = target else {
            continue;
        };
        let backend = served.backends.get(*index);
        if let Some(Source::Split { split, .. }) = backend.map(|b| &b.planned.backend.source)
            && let Some(of_split) = ports.get_mut(*split)
        {
            of_split.push(port);
        }
    }
    ports
}

/// What a reader has been told of every Split, by uid.
#[derive(Debug, Default)]
pub struct Told(HashMap<String, Seen>);

/// What a look is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// How Splits are served: all that an acknowledgement says, and whether versions that left the table still have requests in flight.
    State,
    /// That, and all that is counted.
    All,
}

/// What has become of a Split.
#[derive(Clone, Debug, PartialEq)]
pub enum News {
    /// It is served or counted otherwise than was told.
    Split(Box<SplitReport>),
    /// It is served no more.
    Gone(Arc<PlannedSplit>),
}

/// What a report of a Split is made of.
#[derive(Debug)]
struct Seen {
    split: Arc<ServedSplit>,
    apexes: Vec<u16>,
    /// Those that are served, then those that left: id, what was counted, and for how many seconds the oldest request has been in
    /// flight.
    versions: Vec<(u64, Glance, Option<u64>)>,
}

impl Seen {
    fn of(split: &Arc<ServedSplit>, apexes: &[u16], left: &Left<'_>, clock_ms: u64) -> Self {
        let versions = split.versions.iter().chain(left_of(split, left));
        let versions = versions.map(|version| {
            let glance = version.glance();
            let age_s = |start_ms| clock_ms.saturating_sub(start_ms) / 1000;
            (version.id, glance, glance.oldest_start_ms.map(age_s))
        });
        Self {
            split: Arc::clone(split),
            apexes: apexes.to_vec(),
            versions: versions.collect(),
        }
    }

    /// Whether the Split is served alike, whatever was counted.
    fn is_of_same_state(&self, other: &Self) -> bool {
        let left = |seen: &Self| {
            let left = seen.versions.iter().skip(seen.split.versions.len());
            let left = left.map(|(id, glance, _)| (*id, glance.is_in_flight()));
            left.collect::<Vec<_>>()
        };
        Arc::ptr_eq(&self.split, &other.split)
            && self.apexes == other.apexes
            && left(self) == left(other)
    }
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.split, &other.split)
            && self.apexes == other.apexes
            && self.versions == other.versions
    }
}

/// Versions that left the table, by the uid of their Split.
type Left<'a> = HashMap<&'a str, Vec<&'a Arc<VersionState>>>;

fn by_split(left: &[Arc<VersionState>]) -> Left<'_> {
    let mut by_split = Left::new();
    for version in left {
        if let Owner::Split { uid, .. } = &version.key.owner {
            by_split.entry(uid).or_default().push(version);
        }
    }
    by_split
}

/// Those of a Split that it does not serve.
fn left_of<'a>(
    split: &ServedSplit,
    left: &'a Left<'_>,
) -> impl Iterator<Item = &'a Arc<VersionState>> {
    let left = left.get(split.planned.split.uid.as_str());
    let left = left.into_iter().flatten().copied();
    left.filter(|left| !split.versions.iter().any(|version| version.id == left.id))
}

fn split_report(
    served: &ServedSplit,
    apexes: Vec<u16>,
    left: &Left<'_>,
    clock_ms: u64,
) -> SplitReport {
    let split = &served.planned.split;
    let live = served.versions.iter().zip(&split.versions);
    let live = live.map(|(state, version)| version_report(state, Some(version.ready), clock_ms));
    let left = left_of(served, left).map(|state| version_report(state, None, clock_ms));
    SplitReport {
        namespace: split.namespace.clone(),
        name: split.name.clone(),
        uid: split.uid.clone(),
        generation: split.generation,
        rules: rule_reports(served),
        versions: live.chain(left).collect(),
        apexes,
        unknown: split.unknown.clone(),
    }
}

/// `ready` is `None` for a version that left the table.
fn version_report(state: &VersionState, ready: Option<u32>, clock_ms: u64) -> VersionReport {
    let counts = state.counts();
    let age = |start_ms| Duration::from_millis(clock_ms.saturating_sub(start_ms));
    VersionReport {
        name: state.key.name.clone(),
        revision: state.key.revision.clone(),
        live: ready.is_some(),
        ready: ready.unwrap_or(0),
        oldest_in_flight: counts.oldest_start_ms.map(age),
        counts,
    }
}

fn rule_reports(served: &ServedSplit) -> Vec<RuleReport> {
    let split = &served.planned.split;
    let report = |(rule, plan): (&crate::table::Rule, &Plan)| RuleReport {
        services: rule.services.clone(),
        shares: shares(split, plan),
        overcommit: plan.overcommit,
    };
    split
        .rules
        .iter()
        .zip(&served.planned.plans)
        .map(report)
        .collect()
}

fn shares(split: &Split, plan: &Plan) -> Vec<Share> {
    let shares = plan.desired.iter().zip(&plan.effective);
    let share = |(version, (&desired, &effective)): (&crate::table::Version, (&f64, &f64))| Share {
        version: version.name.clone(),
        desired,
        effective,
    };
    split.versions.iter().zip(shares).map(share).collect()
}

fn backend_report(backend: &ServedBackend, served: &Served) -> BackendReport {
    let planned = &backend.planned.backend;
    let split = match &planned.source {
        Source::Endpoints(_) => None,
        Source::Split { split, .. } => Some(&served.splits[*split].planned.split),
    };
    let shares = split
        .zip(backend.planned.plan.as_ref())
        .map(|(split, plan)| shares(split, plan));
    BackendReport {
        namespace: planned.namespace.clone(),
        service: planned.service.clone(),
        port: planned.port.clone(),
        protocol: planned.protocol,
        split: split.map(|split| split.name.clone()),
        shares: shares.unwrap_or_default(),
        versions: backend.versions.iter().map(backend_version).collect(),
    }
}

fn backend_version(version: &ServedVersion) -> BackendVersion {
    let endpoint = |endpoint: &Arc<crate::live::EndpointState>| EndpointReport {
        address: endpoint.address,
        pod: endpoint.pod.clone(),
        in_flight: endpoint.in_flight(),
    };
    BackendVersion {
        name: version.state.key.name.clone(),
        revision: version.state.key.revision.clone(),
        endpoints: version.endpoints.iter().map(endpoint).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use super::*;
    use crate::live::fixture::{Shop, open_shop, parts, poll, shop};
    use crate::live::{Choice, Outcome};
    use crate::table::Table;

    /// All weight on the canary, which is of this revision.
    fn table(generation: i64, canary_revision: &str) -> Table {
        let mut parts = parts([0, 5]);
        parts.splits[0].generation = generation;
        parts.splits[0].versions[1].revision = canary_revision.to_owned();
        Table::build(parts).unwrap()
    }

    fn seen(version: &VersionReport) -> (&str, &str, bool, u64) {
        (
            &version.name,
            &version.revision,
            version.live,
            version.counts.in_flight,
        )
    }

    #[tokio::test]
    async fn a_generation_is_reported_once_every_worker_serves_it() {
        let shop = open_shop(2, None);
        let report = || shop.handle.report(shop.now);
        assert_eq!(
            report(),
            Report {
                serial: 0,
                splits: vec![]
            }
        );
        let mut changes = shop.handle.changes();
        assert!(poll(pin!(shop.handle.publish(table(7, "b")))).is_pending());
        shop.workers[0].take_up();
        assert!(report().splits.is_empty(), "one worker of two");
        let shown = shop.handle.table(shop.now);
        assert_eq!((shown.serial, shown.acknowledged), (1, 0));
        changes.mark_unchanged();
        shop.workers[1].take_up();
        assert!(changes.has_changed().unwrap());
        assert_eq!(report().splits[0].generation, 7);
        let share = |version: &str, share| Share {
            version: version.to_owned(),
            desired: share,
            effective: share,
        };
        assert_eq!(
            report().splits[0].rules[0].shares,
            [share("stable", 0.0), share("canary", 1.0)]
        );
    }

    /// `generation:requests of the canary`, or `gone`, for each piece of news.
    fn told(shop: &Shop, told: &mut Told, after_ms: u64) -> Vec<String> {
        let news = shop
            .handle
            .news(told, Look::All, shop.now + Duration::from_millis(after_ms));
        let text = |news: News| match news {
            News::Split(split) => {
                let requests = split.versions[1].counts.requests();
                format!("{}:{requests}", split.generation)
            }
            News::Gone(planned) => format!("{} gone", planned.split.name),
        };
        news.into_iter().map(text).collect()
    }

    #[tokio::test]
    async fn a_reader_is_told_again_of_what_has_changed() {
        let shop = shop(1, [0, 5]);
        let mut reader = Told::default();
        let nothing: [&str; 0] = [];
        shop.publish(table(1, "b"));
        assert_eq!(told(&shop, &mut reader, 0), ["1:0"]);
        assert_eq!(told(&shop, &mut reader, 0), nothing);
        let serving = shop.workers[0].current();
        let Choice::Serve(chosen) = serving.choose(0) else {
            panic!("refused")
        };
        let request = chosen.begin(shop.now);
        assert_eq!(told(&shop, &mut reader, 0), ["1:0"], "in flight");
        assert_eq!(told(&shop, &mut reader, 900), nothing);
        assert_eq!(told(&shop, &mut reader, 1000), ["1:0"], "for a second");
        request.finish(Outcome::Ok, shop.now);
        assert_eq!(told(&shop, &mut reader, 1000), ["1:1"], "counted");
        shop.publish(table(2, "b"));
        assert_eq!(
            told(&shop, &mut reader, 1000),
            ["2:1"],
            "another generation"
        );
        shop.publish(table(2, "b"));
        assert_eq!(told(&shop, &mut reader, 1000), nothing, "the same");
        shop.publish(Table::default());
        assert_eq!(told(&shop, &mut reader, 1000), ["web gone"]);
        assert_eq!(told(&shop, &mut reader, 1000), nothing);
    }

    /// What a look at the state alone leaves out is told by the next that is not; what has left the table and is done is told at once.
    #[tokio::test]
    async fn a_look_at_the_state_passes_over_counters() {
        let shop = open_shop(1, None);
        let mut told = Told::default();
        let mut look = |look| {
            let news = shop.handle.news(&mut told, look, shop.now);
            let text = |news: News| match news {
                News::Split(split) => {
                    let last = split.versions.last().unwrap();
                    format!(
                        "{} {}/{}",
                        split.generation, last.revision, last.counts.in_flight
                    )
                }
                News::Gone(_) => "gone".to_owned(),
            };
            news.into_iter().map(text).collect::<Vec<String>>()
        };
        let nothing: [&str; 0] = [];
        shop.publish(table(1, "b"));
        assert_eq!(look(Look::State), ["1 b/0"]);
        let serving = shop.workers[0].current();
        let Choice::Serve(chosen) = serving.choose(0) else {
            panic!("refused")
        };
        let request = chosen.begin(shop.now);
        assert_eq!(look(Look::State), nothing);
        assert_eq!(look(Look::All), ["1 b/1"]);
        shop.publish(table(2, "c"));
        assert_eq!(look(Look::State), ["2 b/1"]);
        assert_eq!(look(Look::State), nothing);
        request.finish(Outcome::Ok, shop.now);
        assert_eq!(look(Look::State), ["2 b/0"], "nothing is in flight");
        assert_eq!(look(Look::All), nothing);
    }

    #[tokio::test]
    async fn a_version_that_left_is_reported_as_not_live() {
        let shop = shop(1, [0, 5]);
        shop.publish(table(1, "b"));
        let table_before = shop.workers[0].current();
        let Choice::Serve(chosen) = table_before.choose(0) else {
            panic!("refused")
        };
        let request = chosen.begin(shop.now);
        shop.publish(table(2, "c"));
        let later = shop.now + Duration::from_millis(250);
        let left = || {
            let report = shop.handle.report(later);
            let versions = &report.splits[0].versions;
            assert_eq!(seen(&versions[0]), ("stable", "stable-hash", true, 0));
            assert_eq!(seen(&versions[1]), ("canary", "c", true, 0));
            versions
                .iter()
                .find(|version| version.revision == "b")
                .unwrap()
                .clone()
        };
        assert_eq!(seen(&left()), ("canary", "b", false, 1));
        assert_eq!(
            (left().ready, left().oldest_in_flight),
            (0, Some(Duration::from_millis(250)))
        );
        request.finish(Outcome::Ok, later);
        assert_eq!(
            (left().counts.requests(), left().oldest_in_flight),
            (1, None)
        );
    }

    #[tokio::test]
    async fn the_table_shows_endpoints_and_what_they_have_in_flight() {
        let shop = shop(1, [0, 5]);
        let table = shop.workers[0].current();
        let Choice::Serve(chosen) = table.choose(0) else {
            panic!("refused")
        };
        let _guard = chosen.endpoints()[0].begin();
        let shown = shop.handle.table(shop.now);
        assert_eq!(shown.backends[0].split.as_deref(), Some("web"));
        let expected = EndpointReport {
            address: SocketAddr::from(([127, 0, 0, 1], 8002)),
            pod: "pod-8002".to_owned(),
            in_flight: 1,
        };
        assert_eq!(shown.backends[0].versions[1].endpoints, [expected]);
    }
}
