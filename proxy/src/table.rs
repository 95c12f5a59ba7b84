//! The routing state as a plain value: routes, backends, splits.
//!
//! [`Table::build`] refuses what cannot be served, by name (`check`), and works out everything a request will ask: the host and path maps
//! (`matching`) and the lots of every weighted rule (`split`). Nothing here counts or connects; the table in service is `live`'s.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

pub use self::check::{Error, Part, Problem};
pub use self::matching::Routes;
pub use self::patch::Patch;
pub use crate::split::Fallback;
use crate::split::{Member, Plan};

mod check;
pub mod matching;
mod patch;

/// What a table is made of. Indices in it refer to its own lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Which requests go where; see [`Routes`] for precedence.
    pub routes: Vec<Route>,
    /// What is served on ports of its own, whatever the host and the path.
    pub apexes: Vec<Apex>,
    /// The targets of the routes.
    pub backends: Vec<Backend>,
    /// The Splits that backends refer to, and those that no backend refers to yet: they are reported all the same.
    pub splits: Vec<Split>,
    /// Addresses at which proxies of ours listen: an endpoint that is one of them is refused, since requests would go round.
    /// An unspecified address stands for the loopback ones.
    pub own: Vec<SocketAddr>,
}

/// One route: requests that match go to the target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Which hosts it serves.
    pub host: HostMatch,
    /// Which paths it serves.
    pub path: PathMatch,
    /// What becomes of the requests.
    pub target: Target,
}

/// A port of the proxy's that stands for one port of one Service: callers inside the cluster are sent there by the Service's own
/// EndpointSlices, so that they keep its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Apex {
    /// One of [`crate::config::Apexes::ports`].
    pub port: u16,
    /// What becomes of the requests.
    pub target: Target,
}

/// Which hosts a route serves. Case and a trailing dot of the request's host play no part, nor does its port unless a route names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMatch {
    /// Every host, and a request without one.
    Any,
    /// This host. With a port (`name:80`) it serves requests that name that very port, before the host without one.
    Exact(String),
    /// Every host that has one label more than this domain: `example.com` stands for `*.example.com` as Ingresses write it, which is
    /// `a.example.com` and not `b.a.example.com`. Comes before [`Self::Suffix`].
    Label(String),
    /// Every host below this domain: `example.com` stands for `*.example.com`, at any depth, not for `example.com` itself.
    Suffix(String),
}

/// Which paths a route serves; the query plays no part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// The path itself and everything below it, element by element: `/a` and `/a/` serve `/a`, `/a/` and `/a/b`, not `/ab`.
    Prefix(String),
    /// This path, to the letter.
    Exact(String),
}

/// What becomes of the requests of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// They go to this backend, an index into [`Parts::backends`].
    Backend(usize),
    /// They are answered by the proxy.
    Refuse(Refusal),
}

/// An answer of the proxy's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status, 400 to 599.
    pub status: u16,
    /// One word for machines, sent as `x-sidestep-reason` and counted: visible ASCII, from a bounded set.
    pub reason: String,
    /// A sentence for people, sent as the body.
    pub message: String,
}

/// The endpoints behind one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Namespace of the Service.
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    /// The Service's port, by name or number.
    pub port: String,
    /// What its endpoints speak.
    pub protocol: Protocol,
    /// Where its endpoints come from.
    pub source: Source,
}

/// What endpoints speak.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, with prior knowledge.
    H2c,
}

/// Where a backend's endpoints come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// These, all of one kind.
    Endpoints(Vec<Endpoint>),
    /// The versions of a Split, by one of its rules.
    Split {
        /// Index into [`Parts::splits`].
        split: usize,
        /// Index into [`Split::rules`].
        rule: usize,
        /// Per version of the Split: its endpoints for this port.
        endpoints: Vec<Vec<Endpoint>>,
    },
}

/// One address of one pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Where to connect.
    pub address: SocketAddr,
    /// Whose it is, a pod's uid for one. Address and pod together are its identity from table to table.
    pub pod: String,
    /// Whether it takes requests.
    pub ready: bool,
    /// Whether it is about to go: it takes no new requests and its idle connections are closed.
    pub terminating: bool,
}

impl Endpoint {
    /// Whether new requests may go to it.
    #[must_use]
    pub fn admits(&self) -> bool {
        self.ready && !self.terminating
    }
}

/// Versions, and rules that give Services weights over them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid: its identity from table to table.
    pub uid: String,
    /// Its generation, reported back once every worker serves it.
    pub generation: i64,
    /// Fields of it, as paths, that are not served: they are reported back, lest it be taken for what was asked for.
    pub unknown: Vec<String>,
    /// What becomes of a share that a version cannot carry.
    pub fallback: Fallback,
    /// The version that takes deficits first, an index into `versions`.
    pub stable: Option<usize>,
    /// The versions.
    pub versions: Vec<Version>,
    /// The rules.
    pub rules: Vec<Rule>,
    /// Where its points come from.
    pub pick: Pick,
}

/// One member of a Split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// `stable`, `canary`, or another word; unique within the Split.
    pub name: String,
    /// Its pod-template hash; may be empty.
    pub revision: String,
    /// Ready pods it needs to carry its whole weight; `None` means 1.
    pub needed: Option<u32>,
    /// Distinct pods of it that are ready.
    pub ready: u32,
}

/// Weights of some Services over the versions of a Split.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Names of the Services, in the Split's namespace.
    pub services: Vec<String>,
    /// One weight per version; `None`: the rule does not name it. Both get nothing, but a stable version that is named with 0 stands
    /// by (see [`crate::split::Plan::new`]). None above 0: every request is answered with 503.
    pub weights: Vec<Option<u32>>,
}

/// Where the points of weighted picks come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pick {
    /// A low-discrepancy sequence: counts stay within a few of the share.
    #[default]
    Sequence,
    /// Random draws, independent of one another.
    Random,
}

/// A routing state that can be served. Immutable; parts that equal those of the table before are shared with it.
#[derive(Clone, Debug, Default)]
pub struct Table {
    pub(crate) routes: Arc<Routes>,
    apexes: Arc<BTreeMap<u16, Target>>,
    pub(crate) backends: Vec<Arc<PlannedBackend>>,
    pub(crate) splits: Vec<Arc<PlannedSplit>>,
}

/// A backend, and who gets which points of it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedBackend {
    /// The backend as given.
    pub backend: Backend,
    /// Its lots; `None` without a Split.
    pub plan: Option<Plan>,
}

/// A Split, and the shares of its rules.
#[derive(Clone, Debug, PartialEq)]
pub struct PlannedSplit {
    /// The Split as given.
    pub split: Split,
    /// Per rule: the shares as they are reported.
    pub plans: Vec<Plan>,
}

impl Table {
    /// Checks the parts and works out what requests will ask.
    ///
    /// A version's readiness is what the Split says, or less where fewer of its pods have a ready endpoint for the backend's port.
    /// A rule's reported shares take the least of its ports, but for ports that no version serves at all.
    ///
    /// # Errors
    ///
    /// Names the first object that cannot be served.
    pub fn build(parts: Parts) -> Result<Self, Error> {
        check::check(&parts)?;
        Ok(Self::plan(parts))
    }

    fn plan(parts: Parts) -> Self {
        let splits = plan_splits(parts.splits, &parts.backends);
        let apexes = parts.apexes.into_iter();
        let apexes = apexes.map(|apex| (apex.port, apex.target));
        let backends = parts
            .backends
            .into_iter()
            .map(|backend| plan_backend(backend, &splits))
            .collect();
        Self {
            routes: Arc::new(Routes::new(parts.routes)),
            apexes: Arc::new(apexes.collect()),
            backends,
            splits,
        }
    }

    /// The target of a request; `None`: 404. Does not allocate.
    #[must_use]
    pub fn route(&self, host: &str, path: &str) -> Option<&Target> {
        self.routes.find(host, path).map(|route| &route.target)
    }

    /// The target of what comes in at an apex's port; `None`: nobody has the port. Does not allocate.
    #[must_use]
    pub fn apex(&self, port: u16) -> Option<&Target> {
        self.apexes.get(&port)
    }

    /// The apexes, by port.
    pub fn apexes(&self) -> impl ExactSizeIterator<Item = (u16, &Target)> {
        self.apexes.iter().map(|(port, target)| (*port, target))
    }

    /// The routes, in the order given.
    #[must_use]
    pub fn routes(&self) -> &[Route] {
        self.routes.list()
    }

    /// The backends, in the order given.
    pub fn backends(&self) -> impl ExactSizeIterator<Item = &PlannedBackend> {
        self.backends.iter().map(AsRef::as_ref)
    }

    /// The backend at an index that a target of this table names.
    ///
    /// # Panics
    ///
    /// When the table has fewer.
    #[must_use]
    pub fn backend(&self, index: usize) -> &PlannedBackend {
        &self.backends[index]
    }

    /// The Splits, in the order given.
    pub fn splits(&self) -> impl ExactSizeIterator<Item = &PlannedSplit> {
        self.splits.iter().map(AsRef::as_ref)
    }

    /// Takes over every part of `before` that is equal, so that dropping `before` frees only what really changed.
    pub fn share_with(&mut self, before: &Self) {
        if Arc::ptr_eq(&self.routes, &before.routes) || self.routes.list() == before.routes.list() {
            self.routes = Arc::clone(&before.routes);
        }
        if self.apexes == before.apexes {
            self.apexes = Arc::clone(&before.apexes);
        }
        share(&mut self.backends, &before.backends);
        share(&mut self.splits, &before.splits);
    }
}

/// Replaces each of `now` by its equal at the same place of `before`.
fn share<T: PartialEq>(now: &mut [Arc<T>], before: &[Arc<T>]) {
    for (now, before) in now.iter_mut().zip(before) {
        // What a patch left alone is the same already.
        if !Arc::ptr_eq(now, before) && now == before {
            *now = Arc::clone(before);
        }
    }
}

fn plan_backend(backend: Backend, splits: &[Arc<PlannedSplit>]) -> Arc<PlannedBackend> {
    let plan = match &backend.source {
        Source::Endpoints(_) => None,
        Source::Split {
            split,
            rule,
            endpoints,
        } => {
            let split = &splits[*split].split;
            Some(plan_rule(split, *rule, &port_ready(split, endpoints)))
        }
    };
    Arc::new(PlannedBackend { backend, plan })
}

fn plan_splits(splits: Vec<Split>, backends: &[Backend]) -> Vec<Arc<PlannedSplit>> {
    let mut of_split: Vec<Vec<&Backend>> = vec![Vec::new(); splits.len()];
    for backend in backends {
        if let Source::Split { split, .. } = &backend.source {
            of_split[*split].push(backend);
        }
    }
    let both = splits.into_iter().zip(of_split);
    both.map(|(split, backends)| Arc::new(plan_split(split, &backends)))
        .collect()
}

/// `backends` are all of this Split.
fn plan_split(split: Split, backends: &[&Backend]) -> PlannedSplit {
    let ready = rules_ready(&split, backends);
    let rules = ready.iter().enumerate();
    let plans = rules
        .map(|(rule, ready)| plan_rule(&split, rule, ready))
        .collect();
    PlannedSplit { split, plans }
}

fn plan_rule(split: &Split, rule: usize, ready: &[u32]) -> Plan {
    let member = |((version, &weight), &ready): ((&Version, &Option<u32>), &u32)| Member {
        weight: weight.unwrap_or(0),
        needed: version.needed.unwrap_or(1),
        ready,
    };
    let weights = &split.rules[rule].weights;
    let members: Vec<Member> = split
        .versions
        .iter()
        .zip(weights)
        .zip(ready)
        .map(member)
        .collect();
    // A rule that names no stable version means its own: it must not answer with another.
    let is_named = |stable: &usize| weights.get(*stable).is_some_and(Option::is_some);
    let stable = split.stable.filter(is_named);
    Plan::new(&members, stable, split.fallback)
}

/// Per rule: ready pods per version, the least over the rule's ports; a port that no version serves says nothing.
fn rules_ready(split: &Split, backends: &[&Backend]) -> Vec<Vec<u32>> {
    let as_said: Vec<u32> = split.versions.iter().map(|version| version.ready).collect();
    let mut least = vec![as_said; split.rules.len()];
    for backend in backends {
        let Source::Split {
            rule, endpoints, ..
        } = &backend.source
        else {
            continue;
        };
        let ready = port_ready(split, endpoints);
        if ready.iter().any(|&ready| ready > 0) {
            least[*rule]
                .iter_mut()
                .zip(ready)
                .for_each(|(least, ready)| *least = ready.min(*least));
        }
    }
    least
}

/// Ready pods per version for one port: as the Split says, or fewer where endpoints are missing.
fn port_ready(split: &Split, endpoints: &[Vec<Endpoint>]) -> Vec<u32> {
    let ready = |(version, endpoints): (&Version, &Vec<Endpoint>)| {
        let pods: HashSet<&str> = endpoints
            .iter()
            .filter(|endpoint| endpoint.admits())
            .map(|endpoint| endpoint.pod.as_str())
            .collect();
        u32::try_from(pods.len())
            .unwrap_or(u32::MAX)
            .min(version.ready)
    };
    split.versions.iter().zip(endpoints).map(ready).collect()
}

impl std::fmt::Display for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.host {
            HostMatch::Any => f.write_str("*")?,
            HostMatch::Exact(host) => f.write_str(host)?,
            HostMatch::Label(domain) => write!(f, "*.{domain}")?,
            HostMatch::Suffix(domain) => write!(f, "**.{domain}")?,
        }
        match &self.path {
            PathMatch::Prefix(path) => write!(f, "{path}*"),
            PathMatch::Exact(path) => f.write_str(path),
        }
    }
}

#[cfg(test)]
mod tests;
