//! What is known of the cluster → the table. Pure.
//!
//! Nothing here fails as a whole: an object that cannot be served is answered for on its own routes, and said in a [`Notice`].

mod apexes;
mod ingresses;
mod services;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sidestep_proxy::table::{
    Backend, Endpoint, Error, Fallback, Part, Parts, Pick, Protocol, Refusal, Rule, Source, Split,
    Table, Target, Version,
};

use super::certificates::SecretScope;
use super::endpoints::{Listed, Proxies, Slices};
use super::govern::Governed;
use super::names::ServiceNames;
use super::notice::{self, Notice, Reason};
use super::ports::{self, Speaks};
use super::split::{RawSplit, ReadSplit, read};
use crate::api::labels;
use crate::api::split::{Fallback as WrittenFallback, SplitRule, SplitSpec};
use crate::cache::Malformed;

/// The version that takes deficits first.
const STABLE: &str = "stable";

/// What is known of the cluster.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Services.
    pub services: Vec<Arc<Service>>,
    /// EndpointSlices.
    pub slices: Vec<Arc<EndpointSlice>>,
    /// Splits of all fleets.
    pub splits: Vec<Arc<RawSplit>>,
    /// Ingresses of all classes, where they are served.
    pub ingresses: Vec<Arc<Ingress>>,
    /// Services that do not parse.
    pub malformed_services: Vec<Malformed>,
    /// Other objects that do not parse, by kind.
    pub malformed: Vec<(&'static str, Malformed)>,
}

/// How the table is to be built. Already valid.
#[derive(Clone, Debug)]
pub struct Options {
    /// The one namespace that is read; none means all.
    pub namespace: Option<String>,
    /// The fleet this proxy belongs to: Splits of others are none of its business.
    pub fleet: String,
    /// Namespace and name of the headless Service that lists the proxies.
    pub fleet_service: (String, String),
    /// What the listeners serve.
    pub attached: Attached,
    /// Ports at which this proxy listens for apexes.
    pub apexes: Option<RangeInclusive<u16>>,
    /// Listeners of this proxy, which must not become endpoints.
    pub own: Vec<SocketAddr>,
    /// Where the points of weighted picks come from.
    pub pick: Pick,
}

/// What a listener serves: nothing but what is attached to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attached {
    /// Every Service, by its name in the host: one machine.
    Services(ServiceNames),
    /// What Ingresses of this class say: a cluster.
    Ingresses {
        /// The class.
        class: String,
        /// The Secrets that TLS is ended with; `None` means that no listener speaks TLS.
        secrets: Option<Vec<SecretScope>>,
    },
}

/// The table for what is known, and what is to be said of objects that cannot be served as written.
pub fn build(snapshot: &Snapshot, options: &Options) -> (Table, Vec<Notice>) {
    let whole = whole(snapshot, options);
    (whole.table, whole.notices)
}

/// A table, and what its parts can be made anew with.
pub(super) struct Whole {
    pub(super) table: Table,
    pub(super) notices: Vec<Notice>,
    /// The proxies, which are no endpoints.
    pub(super) proxies: Proxies,
    /// The Services that list the proxies.
    pub(super) fleets: BTreeSet<(String, String)>,
    /// The table has refused objects, which are answered for by themselves.
    pub(super) refused: bool,
}

/// The table for what is known.
pub(super) fn whole(snapshot: &Snapshot, options: &Options) -> Whole {
    let slices = Slices::new(&snapshot.slices);
    let services = snapshot.services.iter().map(|s| (key_of(s), s.as_ref()));
    let fleets = services.filter(|(key, service)| is_fleet(*key, service, options));
    let fleets: BTreeSet<Key<'_>> = fleets.map(|(key, _)| key).collect();
    let proxies = Proxies::new(&slices, fleets.iter().copied(), options.own.clone());
    let fleets = fleets.into_iter();
    let fleets = fleets.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
    let fleets = fleets.collect();
    let mut excluded = Excluded::default();
    loop {
        let splits = splits(snapshot, options, &excluded);
        let assembly = Assembly::new(snapshot, options, &excluded, &splits, &proxies);
        let (parts, owners, notices) = assembly.run();
        let names = Names::of(&parts, owners);
        match Table::build(parts) {
            Ok(table) => {
                return Whole {
                    table,
                    notices,
                    proxies,
                    fleets,
                    refused: !excluded.0.is_empty(),
                };
            }
            // What the table refuses is answered for by itself; each turn excludes one object more.
            Err(error) => excluded.add(&names, &error),
        }
    }
}

/// Backends and Splits made anew.
pub(super) struct Portion {
    /// As asked for. Indices of Splits are those in `splits`.
    pub(super) backends: Vec<Backend>,
    /// Those of the snapshot.
    pub(super) splits: Vec<Split>,
    /// What is to be said of them.
    pub(super) notices: Vec<Notice>,
}

/// What a snapshot of the objects concerned makes of some ports of Services; `None` if one of them leads to no backend any more, or if
/// a Split cannot be served.
pub(super) fn portion<'a>(
    snapshot: &Snapshot,
    options: &Options,
    proxies: &Proxies,
    ports: impl Iterator<Item = (Key<'a>, &'a str)>,
) -> Option<Portion> {
    let excluded = Excluded::default();
    let splits = splits(snapshot, options, &excluded);
    let assembly = Assembly::new(snapshot, options, &excluded, &splits, proxies);
    assembly.run_for(ports)
}

/// The Splits of our fleet.
fn splits(snapshot: &Snapshot, options: &Options, excluded: &Excluded) -> Vec<ReadSplit> {
    let mut splits: Vec<ReadSplit> = snapshot.splits.iter().map(|raw| read(raw)).collect();
    splits.retain(|split| split.fleet == options.fleet);
    for split in &mut splits {
        let name = Name::new("Split", (&split.namespace, &split.name));
        if let Some(problem) = excluded.0.get(&name) {
            split.spec = Err(problem.clone());
        }
    }
    splits
}

/// The work in progress.
struct Assembly<'a> {
    snapshot: &'a Snapshot,
    options: &'a Options,
    excluded: &'a Excluded,
    splits: &'a [ReadSplit],
    services: BTreeMap<(&'a str, &'a str), &'a Service>,
    slices: Slices<'a>,
    proxies: &'a Proxies,
    governed: Governed<'a>,
    /// Per Split: its index in the table, if it can be served.
    indices: Vec<Option<usize>>,
    owners: Owners,
    /// Where requests for a Service's port go, once that was asked: a port is one backend, whoever leads to it.
    targets: BTreeMap<(Key<'a>, String), Target>,
    parts: Parts,
    notices: Vec<Notice>,
}

impl<'a> Assembly<'a> {
    fn new(
        snapshot: &'a Snapshot,
        options: &'a Options,
        excluded: &'a Excluded,
        splits: &'a [ReadSplit],
        proxies: &'a Proxies,
    ) -> Self {
        let services = snapshot.services.iter().map(|s| (key_of(s), s.as_ref()));
        let services: BTreeMap<_, _> = services.collect();
        let governed = Governed::new(splits);
        let notices = notice::on_splits(splits, &governed, |namespace, name| {
            services.contains_key(&(namespace, name))
        });
        Self {
            snapshot,
            options,
            excluded,
            splits,
            services,
            slices: Slices::new(&snapshot.slices),
            proxies,
            governed,
            indices: Vec::new(),
            owners: Owners::default(),
            targets: BTreeMap::new(),
            parts: Parts {
                own: options.own.clone(),
                ..Parts::default()
            },
            notices,
        }
    }

    fn run(mut self) -> (Parts, Owners, Vec<Notice>) {
        self.add_splits();
        match &self.options.attached {
            Attached::Services(names) => self.attach_services(names),
            Attached::Ingresses { class, secrets } => {
                self.attach_ingresses(class, secrets.is_some());
            }
        }
        if let Some(ports) = &self.options.apexes {
            self.attach_apexes(ports);
        }
        self.say_what_is_malformed();
        self.notices.sort();
        self.notices.dedup();
        (self.parts, self.owners, self.notices)
    }

    /// Nothing but these ports of Services.
    fn run_for<'p>(mut self, ports: impl Iterator<Item = (Key<'p>, &'p str)>) -> Option<Portion> {
        self.add_splits();
        if self.indices.iter().any(Option::is_none) {
            return None;
        }
        for (key, label) in ports {
            let (&key, &service) = self.services.get_key_value(&key)?;
            let mut ports = ports::tcp_ports(service).into_iter();
            let port = ports.find(|port| ports::label(port) == label)?;
            match self.new_target(key, service, port) {
                Target::Backend(_) => {}
                Target::Refuse(_) => return None,
            }
        }
        self.notices.sort();
        self.notices.dedup();
        Some(Portion {
            backends: self.parts.backends,
            splits: self.parts.splits,
            notices: self.notices,
        })
    }

    fn add_splits(&mut self) {
        for split in self.splits {
            let spec = split.spec.as_ref().ok();
            let index = spec.map(|spec| self.add_split(split, spec));
            self.indices.push(index);
        }
    }

    fn add_split(&mut self, split: &ReadSplit, spec: &SplitSpec) -> usize {
        let version = |version: &crate::api::split::SplitVersion| Version {
            name: version.name.clone(),
            revision: version.revision.clone().unwrap_or_default(),
            needed: version.needed,
            ready: self
                .slices
                .ready_pods(&split.namespace, &version.service, self.proxies),
        };
        self.parts.splits.push(Split {
            namespace: split.namespace.clone(),
            name: split.name.clone(),
            uid: split.uid.clone(),
            generation: split.generation,
            unknown: split.unknown.clone(),
            fallback: match spec.fallback.unwrap_or_default() {
                WrittenFallback::Redistribute => Fallback::Redistribute,
                WrittenFallback::Refuse => Fallback::Refuse,
            },
            stable: spec
                .versions
                .iter()
                .position(|version| version.name == STABLE),
            versions: spec.versions.iter().map(version).collect(),
            rules: spec
                .rules
                .iter()
                .map(|rule| table_rule(rule, spec))
                .collect(),
            pick: self.options.pick,
        });
        self.parts.splits.len() - 1
    }

    fn target(&mut self, key: Key<'a>, service: &'a Service, port: &'a ServicePort) -> Target {
        let label = ports::label(port);
        if let Some(known) = self.targets.get(&(key, label.clone())) {
            return known.clone();
        }
        let target = self.new_target(key, service, port);
        self.targets.insert((key, label), target.clone());
        target
    }

    fn new_target(&mut self, key: (&str, &str), service: &Service, port: &ServicePort) -> Target {
        let protocol = match ports::speaks(port) {
            Speaks::Http1 => Protocol::Http1,
            Speaks::H2c => Protocol::H2c,
            Speaks::Tls => {
                let message = format!(
                    "port {} of Service {}/{} speaks TLS, which is not spoken to pods",
                    ports::label(port),
                    key.0,
                    key.1
                );
                self.note(key, Reason::Unsupported, message.clone());
                return Target::Refuse(refusal(501, "tls-upstream", &message));
            }
        };
        let source = match self.governing(key, port) {
            Governing::None => Source::Endpoints(self.endpoints(key, ports::name(port))),
            Governing::Rule { split, rule } => self.split_source(split, rule, service, port),
            Governing::Invalid(split) => {
                let message = format!(
                    "Split {}/{} governs this Service and is invalid",
                    key.0, self.splits[split].name
                );
                return Target::Refuse(refusal(503, "invalid-split", &message));
            }
        };
        self.parts.backends.push(Backend {
            namespace: key.0.to_owned(),
            service: key.1.to_owned(),
            port: ports::label(port),
            protocol,
            source,
        });
        Target::Backend(self.parts.backends.len() - 1)
    }

    fn governing(&self, (namespace, service): (&str, &str), port: &ServicePort) -> Governing {
        let Some(split) = self.governed.owner(namespace, service) else {
            return Governing::None;
        };
        let Ok(spec) = &self.splits[split].spec else {
            return Governing::Invalid(split);
        };
        let governs = |rule: &SplitRule| {
            let port_meant =
                |wanted: &Vec<String>| wanted.iter().any(|wanted| ports::is_meant(port, wanted));
            rule.services.iter().any(|name| name == service)
                && rule.ports.as_ref().is_none_or(port_meant)
        };
        match spec.rules.iter().position(governs) {
            Some(rule) => Governing::Rule { split, rule },
            None => Governing::None,
        }
    }

    fn split_source(
        &mut self,
        split: usize,
        rule: usize,
        service: &Service,
        port: &ServicePort,
    ) -> Source {
        let read = &self.splits[split];
        let versions = read.spec.iter().flat_map(|spec| &spec.versions);
        let endpoints = versions
            .map(|version| self.version_endpoints(read, &version.service, service, port))
            .collect();
        match self.indices[split] {
            Some(split) => Source::Split {
                split,
                rule,
                endpoints,
            },
            // Not reached: a rule was found in the spec, so the Split stands in the table.
            None => Source::Endpoints(Vec::new()),
        }
    }

    fn version_endpoints(
        &mut self,
        split: &ReadSplit,
        version: &str,
        service: &Service,
        port: &ServicePort,
    ) -> Vec<Endpoint> {
        let key = (split.namespace.as_str(), version);
        let Some(&version_service) = self.services.get(&key) else {
            return Vec::new(); // said by notice::on_splits
        };
        // A Service that is its own version answers on the very same port.
        let same = std::ptr::eq(version_service, service);
        let counterpart = if same {
            Some(port)
        } else {
            ports::counterpart(port, version_service)
        };
        match counterpart {
            Some(counterpart) => self.endpoints(key, ports::name(counterpart)),
            None => {
                let message = format!(
                    "Service {version} has no port that answers for port {} of the governed Service",
                    ports::label(port)
                );
                self.notices
                    .push(notice::on_split(split, Reason::PortNotFound, message));
                Vec::new()
            }
        }
    }

    fn endpoints(&mut self, key: (&str, &str), port_name: &str) -> Vec<Endpoint> {
        let (listed, refused) = self.slices.endpoints(key.0, key.1, port_name, self.proxies);
        if refused > 0 {
            self.note(
                key,
                Reason::ProxyEndpoint,
                format!("{refused} of its endpoints are proxies of ours"),
            );
        }
        listed.into_iter().map(table_endpoint).collect()
    }

    fn say_what_is_malformed(&mut self) {
        let services = self
            .snapshot
            .malformed_services
            .iter()
            .map(|malformed| ("Service", malformed));
        let others = self
            .snapshot
            .malformed
            .iter()
            .map(|(kind, malformed)| (*kind, malformed));
        for (kind, malformed) in services.chain(others) {
            self.notices.push(Notice {
                kind,
                namespace: malformed.namespace.clone(),
                name: malformed.name.clone(),
                reason: Reason::Invalid,
                message: malformed.error.clone(),
            });
        }
    }

    fn note(&mut self, key: Key<'_>, reason: Reason, message: String) {
        self.say(&Name::new("Service", key), reason, message);
    }

    fn say(&mut self, name: &Name, reason: Reason, message: String) {
        self.notices.push(Notice {
            kind: name.kind,
            namespace: name.namespace.clone(),
            name: name.name.clone(),
            reason,
            message,
        });
    }
}

/// What has the say over a port.
enum Governing {
    None,
    Rule { split: usize, rule: usize },
    Invalid(usize),
}

/// A namespace and a name.
type Key<'a> = (&'a str, &'a str);

/// An object of a kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    kind: &'static str,
    namespace: String,
    name: String,
}

impl Name {
    fn new(kind: &'static str, (namespace, name): Key<'_>) -> Self {
        Self {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

/// Objects that the table refused, and why.
#[derive(Debug, Default)]
struct Excluded(BTreeMap<Name, String>);

/// Whose each part of a table is.
struct Names {
    backends: Vec<Name>,
    splits: Vec<Name>,
    owners: Owners,
}

/// Whom routes and apexes are there for.
#[derive(Debug, Default)]
struct Owners {
    /// Per route: a Service or an Ingress.
    routes: Vec<Name>,
    /// Per apex: a Split.
    apexes: Vec<Name>,
}

impl Names {
    fn of(parts: &Parts, owners: Owners) -> Self {
        let backends = parts.backends.iter();
        let splits = parts.splits.iter();
        Self {
            owners,
            backends: backends
                .map(|b| Name::new("Service", (&b.namespace, &b.service)))
                .collect(),
            splits: splits
                .map(|s| Name::new("Split", (&s.namespace, &s.name)))
                .collect(),
        }
    }
}

impl Excluded {
    fn add(&mut self, names: &Names, error: &Error) {
        let name = match error.part {
            Part::Split(index) => &names.splits[index],
            Part::Backend(index) => &names.backends[index],
            Part::Route(index) => &names.owners.routes[index],
            Part::Apex(index) => &names.owners.apexes[index],
        };
        self.0.insert(name.clone(), error.to_string());
    }
}

fn table_rule(rule: &SplitRule, spec: &SplitSpec) -> Rule {
    Rule {
        services: rule.services.clone(),
        weights: spec
            .versions
            .iter()
            .map(|version| rule.weights.get(&version.name).copied())
            .collect(),
    }
}

fn table_endpoint(listed: Listed) -> Endpoint {
    let Listed {
        address,
        pod,
        name: _,
        ready,
        terminating,
    } = listed;
    Endpoint {
        address,
        pod,
        ready,
        terminating,
    }
}

fn is_fleet(key: (&str, &str), service: &Service, options: &Options) -> bool {
    let labelled = service
        .metadata
        .labels
        .as_ref()
        .is_some_and(|l| l.contains_key(labels::FLEET));
    labelled
        || (
            options.fleet_service.0.as_str(),
            options.fleet_service.1.as_str(),
        ) == key
}

fn is_external_name(service: &Service) -> bool {
    let kind = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
    kind == Some("ExternalName")
}

fn external_name((namespace, name): Key<'_>) -> String {
    format!("Service {namespace}/{name} is an ExternalName; only pods are routed to")
}

fn key_of(service: &Service) -> Key<'_> {
    metadata_key(&service.metadata)
}

fn metadata_key(metadata: &ObjectMeta) -> Key<'_> {
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

fn refusal(status: u16, reason: &str, message: &str) -> Refusal {
    Refusal {
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
