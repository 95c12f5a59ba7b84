//! What is known of the cluster → the table. Pure.
//!
//! Nothing here fails as a whole: an object that cannot be served is answered for on its own routes, and said in a [`Notice`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressBackend};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use sidestep_proxy::table::{
    Backend, Endpoint, Error, Fallback, Part, Parts, Pick, Protocol, Refusal, Route, Rule, Source,
    Split, Table, Target, Version,
};

use super::endpoints::{Listed, Proxies, Slices};
use super::govern::Governed;
use super::ingress;
use super::names::{self, Answers, ServiceNames};
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
    /// The fleet this proxy belongs to: Splits of others are none of its business.
    pub fleet: String,
    /// Namespace and name of the headless Service that lists the proxies.
    pub fleet_service: (String, String),
    /// What the listeners serve.
    pub attached: Attached,
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
    },
}

/// The table for what is known, and what is to be said of objects that cannot be served as written.
pub fn build(snapshot: &Snapshot, options: &Options) -> (Table, Vec<Notice>) {
    let mut excluded = Excluded::default();
    loop {
        let (parts, owners, notices) = assemble(snapshot, options, &excluded);
        let names = Names::of(&parts, owners);
        match Table::build(parts) {
            Ok(table) => return (table, notices),
            // What the table refuses is answered for by itself; each turn excludes one object more.
            Err(error) => excluded.add(&names, &error),
        }
    }
}

fn assemble(
    snapshot: &Snapshot,
    options: &Options,
    excluded: &Excluded,
) -> (Parts, Vec<Name>, Vec<Notice>) {
    let mut splits: Vec<ReadSplit> = snapshot.splits.iter().map(|raw| read(raw)).collect();
    splits.retain(|split| split.fleet == options.fleet);
    for split in &mut splits {
        let name = Name::new("Split", (&split.namespace, &split.name));
        if let Some(problem) = excluded.0.get(&name) {
            split.spec = Err(problem.clone());
        }
    }
    let slices = Slices::new(&snapshot.slices);
    let services: BTreeMap<_, _> = snapshot
        .services
        .iter()
        .map(|s| (key_of(s), s.as_ref()))
        .collect();
    let fleets = services
        .iter()
        .filter(|(key, service)| is_fleet(**key, service, options));
    let proxies = Proxies::new(&slices, fleets.map(|(key, _)| *key), options.own.clone());
    let governed = Governed::new(&splits);
    let notices = notice::on_splits(&splits, &governed, |namespace, name| {
        services.contains_key(&(namespace, name))
    });

    let assembly = Assembly {
        snapshot,
        options,
        excluded,
        splits: &splits,
        services,
        slices,
        proxies,
        governed,
        indices: Vec::new(),
        owners: Vec::new(),
        parts: Parts {
            own: options.own.clone(),
            ..Parts::default()
        },
        notices,
    };
    assembly.run()
}

/// The work in progress.
struct Assembly<'a> {
    snapshot: &'a Snapshot,
    options: &'a Options,
    excluded: &'a Excluded,
    splits: &'a [ReadSplit],
    services: BTreeMap<(&'a str, &'a str), &'a Service>,
    slices: Slices<'a>,
    proxies: Proxies,
    governed: Governed<'a>,
    /// Per Split: its index in the table, if it can be served.
    indices: Vec<Option<usize>>,
    /// Per route: the Service or the Ingress it is there for.
    owners: Vec<Name>,
    parts: Parts,
    notices: Vec<Notice>,
}

impl<'a> Assembly<'a> {
    fn run(mut self) -> (Parts, Vec<Name>, Vec<Notice>) {
        for split in self.splits {
            let index = split
                .spec
                .as_ref()
                .ok()
                .map(|spec| self.add_split(split, spec));
            self.indices.push(index);
        }
        match &self.options.attached {
            Attached::Services(names) => self.attach_services(names),
            Attached::Ingresses { class } => self.attach_ingresses(class),
        }
        self.say_what_is_malformed();
        self.notices.sort();
        self.notices.dedup();
        (self.parts, self.owners, self.notices)
    }

    fn attach_services(&mut self, names: &'a ServiceNames) {
        let mut answers = BTreeMap::new();
        for (key, service) in self.services.clone() {
            if !is_fleet(key, service, self.options) && !ports::is_revision_service(service) {
                let answer = self.answers(key, service);
                answers.insert(key, answer);
            }
        }
        self.answer_for_what_is_missing(&mut answers, names);
        for (owner, route) in names::routes(&answers, names) {
            self.parts.routes.push(route);
            self.owners.push(Name::new("Service", owner));
        }
    }

    fn attach_ingresses(&mut self, class: &str) {
        let ingresses = ingress::of_class(&self.snapshot.ingresses, class);
        let mut taken = ingress::Taken::default();
        let mut targets = BTreeMap::new();
        let rules = ingresses.iter().map(|i| (*i, ingress::rules(i)));
        let rest = ingresses
            .iter()
            .map(|i| (*i, ingress::rest(i).into_iter().collect()));
        ingresses
            .iter()
            .for_each(|ingress| self.say_of_tls(ingress));
        for (ingress, rules) in rules.chain(rest).collect::<Vec<(&'a Ingress, Vec<_>)>>() {
            let name = Name::new("Ingress", metadata_key(&ingress.metadata));
            if let Some(problem) = self.excluded.0.get(&name) {
                self.say(&name, Reason::Invalid, problem.clone());
                continue;
            }
            for rule in rules {
                if let Err(by_whom) = taken.take(&rule, ingress) {
                    self.say(&name, Reason::Conflict, by_whom);
                    continue;
                }
                let target = self.ingress_target((ingress, &name), rule.backend, &mut targets);
                self.parts.routes.push(Route {
                    host: rule.host,
                    path: rule.path,
                    target,
                });
                self.owners.push(name.clone());
            }
        }
    }

    fn say_of_tls(&mut self, ingress: &Ingress) {
        let tls = ingress.spec.as_ref().and_then(|spec| spec.tls.as_ref());
        if tls.is_some_and(|tls| !tls.is_empty()) {
            let name = Name::new("Ingress", metadata_key(&ingress.metadata));
            let message = "spec.tls: proxies of this version do not end TLS; its rules are served over plain HTTP";
            self.say(&name, Reason::Unsupported, message.to_owned());
        }
    }

    /// Where an Ingress sends requests: every port of a Service is a backend once.
    fn ingress_target(
        &mut self,
        (ingress, name): (&'a Ingress, &Name),
        backend: Option<&'a IngressBackend>,
        targets: &mut BTreeMap<(Key<'a>, String), Target>,
    ) -> Target {
        let found = match self.ingress_port(ingress, backend) {
            Ok(found) => found,
            Err((reason, refusal)) => {
                self.say(name, reason, refusal.message.clone());
                return Target::Refuse(refusal);
            }
        };
        let (key, service, port) = found;
        let label = ports::label(port);
        if let Some(known) = targets.get(&(key, label.clone())) {
            return known.clone();
        }
        let target = self.target(key, service, port);
        targets.insert((key, label), target.clone());
        target
    }

    /// The Service port that an Ingress names.
    fn ingress_port(
        &self,
        ingress: &'a Ingress,
        backend: Option<&'a IngressBackend>,
    ) -> Result<(Key<'a>, &'a Service, &'a ServicePort), (Reason, Refusal)> {
        let Some(named) = backend.and_then(|backend| backend.service.as_ref()) else {
            let message = "a backend is no Service; only Services are routed to";
            return Err((Reason::Unsupported, refusal(501, "no-backend", message)));
        };
        let key = (metadata_key(&ingress.metadata).0, named.name.as_str());
        let Some((&key, &service)) = self.services.get_key_value(&key) else {
            let message = format!("Service {}/{} does not exist", key.0, key.1);
            return Err((
                Reason::ServiceNotFound,
                refusal(503, "no-service", &message),
            ));
        };
        if let Some(problem) = self.excluded.0.get(&Name::new("Service", key)) {
            return Err((Reason::Invalid, refusal(503, "invalid-object", problem)));
        }
        if is_external_name(service) {
            let message = external_name(key);
            return Err((Reason::Unsupported, refusal(501, "external-name", &message)));
        }
        let wanted = named.port.as_ref();
        let is_wanted = |port: &&ServicePort| match wanted {
            Some(wanted) if wanted.name.is_some() => wanted.name == port.name,
            Some(wanted) => wanted.number == Some(port.port),
            None => false,
        };
        let Some(port) = ports::tcp_ports(service).into_iter().find(is_wanted) else {
            let message = format!("Service {}/{} has no such TCP port", key.0, key.1);
            return Err((Reason::PortNotFound, refusal(503, "no-port", &message)));
        };
        Ok((key, service, port))
    }

    fn add_split(&mut self, split: &ReadSplit, spec: &SplitSpec) -> usize {
        let version = |version: &crate::api::split::SplitVersion| Version {
            name: version.name.clone(),
            revision: version.revision.clone().unwrap_or_default(),
            needed: version.needed,
            ready: self
                .slices
                .ready_pods(&split.namespace, &version.service, &self.proxies),
        };
        self.parts.splits.push(Split {
            namespace: split.namespace.clone(),
            name: split.name.clone(),
            uid: split.uid.clone(),
            generation: split.generation,
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

    fn answers(&mut self, key: (&str, &str), service: &'a Service) -> Answers {
        if let Some(problem) = self.excluded.0.get(&Name::new("Service", key)) {
            self.note(key, Reason::Invalid, problem.clone());
            return Answers::refused(refusal(503, "invalid-object", problem));
        }
        if is_external_name(service) {
            let message = external_name(key);
            self.note(key, Reason::Unsupported, message.clone());
            return Answers::refused(refusal(501, "external-name", &message));
        }
        let tcp = ports::tcp_ports(service);
        if tcp.is_empty() {
            let message = format!("Service {}/{} has no TCP port", key.0, key.1);
            return Answers::refused(refusal(501, "no-tcp-port", &message));
        }
        let plain: Vec<&ServicePort> = tcp
            .iter()
            .copied()
            .filter(|port| ports::speaks(port) != Speaks::Tls)
            .collect();
        let primary = ports::primary(&plain).or_else(|| ports::primary(&tcp));
        let mut answers = Answers::default();
        for port in tcp {
            let target = self.target(key, service, port);
            if primary.is_some_and(|primary| std::ptr::eq(primary, port)) {
                answers.primary = Some(target.clone());
            }
            answers
                .ports
                .extend(u16::try_from(port.port).ok().map(|number| (number, target)));
        }
        answers
    }

    fn target(&mut self, key: (&str, &str), service: &Service, port: &ServicePort) -> Target {
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
        let (listed, refused) = self
            .slices
            .endpoints(key.0, key.1, port_name, &self.proxies);
        if refused > 0 {
            self.note(
                key,
                Reason::ProxyEndpoint,
                format!("{refused} of its endpoints are proxies of ours"),
            );
        }
        listed.into_iter().map(table_endpoint).collect()
    }

    /// Services that a Split governs but that do not exist, Services that do not parse, and a default that is missing: 503.
    fn answer_for_what_is_missing(
        &mut self,
        answers: &mut BTreeMap<Key<'a>, Answers>,
        names: &'a ServiceNames,
    ) {
        for (namespace, service, split) in self.governed.iter() {
            let message = format!(
                "Split {namespace}/{} governs Service {service}, which does not exist",
                self.splits[split].name
            );
            answers
                .entry((namespace, service))
                .or_insert_with(|| Answers::refused(refusal(503, "no-service", &message)));
        }
        for malformed in &self.snapshot.malformed_services {
            let message = format!(
                "Service {}/{} does not parse: {}",
                malformed.namespace, malformed.name, malformed.error
            );
            let key = (malformed.namespace.as_str(), malformed.name.as_str());
            answers.insert(
                key,
                Answers::refused(refusal(503, "invalid-object", &message)),
            );
        }
        if let Some((namespace, name)) = &names.default_service {
            let message = format!("the default Service {namespace}/{name} does not exist");
            answers
                .entry((namespace, name))
                .or_insert_with(|| Answers::refused(refusal(503, "no-service", &message)));
        }
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
    routes: Vec<Name>,
}

impl Names {
    fn of(parts: &Parts, routes: Vec<Name>) -> Self {
        let backends = parts.backends.iter();
        let splits = parts.splits.iter();
        Self {
            routes,
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
            Part::Route(index) => &names.routes[index],
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
