//! What is known of the cluster → the table. Pure.
//!
//! Nothing here fails as a whole: an object that cannot be served is answered for on its own routes, and said in a [`Notice`].

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use sidestep_proxy::table::{
    Backend, Endpoint, Error, Fallback, Part, Parts, Pick, Protocol, Refusal, Rule, Source, Split,
    Table, Target, Version,
};

use super::endpoints::{Listed, Proxies, Slices};
use super::govern::Governed;
use super::names::{self, Answers};
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
    /// The namespace whose Services have the first right to their bare name.
    pub default_namespace: String,
    /// Namespace and name of the Service that answers for every other host.
    pub default_service: Option<(String, String)>,
    /// The last part of a Service's full name: `cluster.local` unless the cluster was set up otherwise.
    pub cluster_domain: String,
    /// Listeners of this proxy, which must not become endpoints.
    pub own: Vec<SocketAddr>,
    /// Where the points of weighted picks come from.
    pub pick: Pick,
}

/// The table for what is known, and what is to be said of objects that cannot be served as written.
pub fn build(snapshot: &Snapshot, options: &Options) -> (Table, Vec<Notice>) {
    let mut excluded = Excluded::default();
    loop {
        let (parts, notices) = assemble(snapshot, options, &excluded);
        let names = Names::of(&parts);
        match Table::build(parts) {
            Ok(table) => return (table, notices),
            // What the table refuses is answered for by itself; each turn excludes one object more.
            Err(error) => excluded.add(&names, &error),
        }
    }
}

fn assemble(snapshot: &Snapshot, options: &Options, excluded: &Excluded) -> (Parts, Vec<Notice>) {
    let mut splits: Vec<ReadSplit> = snapshot.splits.iter().map(|raw| read(raw)).collect();
    splits.retain(|split| split.fleet == options.fleet);
    for split in &mut splits {
        let key = (split.namespace.clone(), split.name.clone());
        if let Some(problem) = excluded.splits.get(&key) {
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
    parts: Parts,
    notices: Vec<Notice>,
}

impl<'a> Assembly<'a> {
    fn run(mut self) -> (Parts, Vec<Notice>) {
        for split in self.splits {
            let index = split
                .spec
                .as_ref()
                .ok()
                .map(|spec| self.add_split(split, spec));
            self.indices.push(index);
        }
        let mut answers = BTreeMap::new();
        for (key, service) in self.services.clone() {
            if !is_fleet(key, service, self.options) && !ports::is_revision_service(service) {
                let answer = self.answers(key, service);
                answers.insert(key, answer);
            }
        }
        self.answer_for_what_is_missing(&mut answers);
        self.parts.routes = names::routes(&answers, self.options);
        self.say_what_is_malformed();
        self.notices.sort();
        self.notices.dedup();
        (self.parts, self.notices)
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
        if let Some(problem) = self.excluded.services.get(&owned(key)) {
            self.note(key, Reason::Invalid, problem.clone());
            return Answers::refused(refusal(503, "invalid-object", problem));
        }
        if is_external_name(service) {
            let message = format!(
                "Service {}/{} is an ExternalName; only pods are routed to",
                key.0, key.1
            );
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
    fn answer_for_what_is_missing(&mut self, answers: &mut BTreeMap<(&'a str, &'a str), Answers>) {
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
        if let Some((namespace, name)) = &self.options.default_service {
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

    fn note(&mut self, (namespace, name): (&str, &str), reason: Reason, message: String) {
        self.notices.push(Notice {
            kind: "Service",
            namespace: namespace.to_owned(),
            name: name.to_owned(),
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

/// Objects that the table refused, and why.
#[derive(Debug, Default)]
struct Excluded {
    services: BTreeMap<(String, String), String>,
    splits: BTreeMap<(String, String), String>,
}

/// Whose each part of a table is.
struct Names {
    backends: Vec<(String, String)>,
    splits: Vec<(String, String)>,
    routes: Vec<Option<(String, String)>>,
}

impl Names {
    fn of(parts: &Parts) -> Self {
        let backends: Vec<_> = parts
            .backends
            .iter()
            .map(|b| (b.namespace.clone(), b.service.clone()))
            .collect();
        let owner = |target: &Target| match target {
            Target::Backend(index) => backends.get(*index).cloned(),
            Target::Refuse(_) => None,
        };
        Self {
            routes: parts
                .routes
                .iter()
                .map(|route| owner(&route.target))
                .collect(),
            splits: parts
                .splits
                .iter()
                .map(|s| (s.namespace.clone(), s.name.clone()))
                .collect(),
            backends,
        }
    }
}

impl Excluded {
    fn add(&mut self, names: &Names, error: &Error) {
        let problem = error.to_string();
        match error.part {
            Part::Split(index) => self.splits.insert(names.splits[index].clone(), problem),
            Part::Backend(index) => self.services.insert(names.backends[index].clone(), problem),
            Part::Route(index) => names.routes[index]
                .clone()
                .and_then(|key| self.services.insert(key, problem)),
        };
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

fn key_of(service: &Service) -> (&str, &str) {
    let metadata = &service.metadata;
    (
        metadata.namespace.as_deref().unwrap_or_default(),
        metadata.name.as_deref().unwrap_or_default(),
    )
}

fn owned(key: (&str, &str)) -> (String, String) {
    (key.0.to_owned(), key.1.to_owned())
}

fn refusal(status: u16, reason: &str, message: &str) -> Refusal {
    Refusal {
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}
