//! What cannot be served, and what is said of it.

use std::collections::{HashMap, HashSet};
use std::net::{Ipv6Addr, SocketAddr};

use super::{
    Apex, Backend, Endpoint, HostMatch, Parts, Patch, PathMatch, PlannedSplit, Refusal, Route,
    Source, Split, Table, Target, matching,
};

/// Which object of the parts an error speaks of, so that it can be answered for alone and the rest be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// An index into [`Parts::routes`].
    Route(usize),
    /// An apex, by its index.
    Apex(usize),
    /// An index into [`Parts::backends`].
    Backend(usize),
    /// An index into [`Parts::splits`].
    Split(usize),
}

/// Why a table cannot be served.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {problem}")]
pub struct Error {
    /// The object in question.
    pub part: Part,
    /// Its name, for people.
    pub object: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a part of a table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// A host that no request can have.
    #[error("{0:?} is no host name")]
    Host(String),
    /// A path that no request can have.
    #[error("path {0:?} does not start with /")]
    Path(String),
    /// A status that is no refusal.
    #[error("status {0} is not between 400 and 599")]
    Status(u16),
    /// A reason that cannot stand in a header.
    #[error("reason {0:?} is not one word of visible ASCII")]
    Reason(String),
    /// An index that points at nothing.
    #[error("{kind} {index} is not in the table")]
    Missing {
        /// What it should point at.
        kind: &'static str,
        /// The index.
        index: usize,
    },
    /// A name that is needed and empty.
    #[error("{0} is empty")]
    Empty(&'static str),
    /// A list that has to have one entry per version.
    #[error("{found} {kind} for {versions} versions")]
    PerVersion {
        /// What the list holds.
        kind: &'static str,
        /// How many it has.
        found: usize,
        /// How many versions there are.
        versions: usize,
    },
    /// Two of one name.
    #[error("{kind} {name:?} stands twice")]
    Twice {
        /// What stands twice.
        kind: &'static str,
        /// Its name.
        name: String,
    },
    /// An address nobody can connect to.
    #[error("endpoint {0} cannot be connected to")]
    Address(SocketAddr),
    /// An endpoint that is a proxy of ours.
    #[error("endpoint {0} is a proxy of ours: requests would go round")]
    Own(SocketAddr),
    /// A patch puts one object in another's place.
    #[error("would stand in the place of {0}")]
    Misplaced(String),
    /// A patch replaces the Split of a backend and leaves the backend.
    #[error("its Split is replaced and it is not")]
    LeftBehind,
}

/// Checks every part, Splits first, since backends speak of them, and backends before routes.
pub(super) fn check(parts: &Parts) -> Result<(), Error> {
    for (index, split) in parts.splits.iter().enumerate() {
        check_split(split).map_err(|problem| split_error(index, split, problem))?;
    }
    check_unique(&parts.splits)?;
    let own = by_port(&parts.own);
    for (index, backend) in parts.backends.iter().enumerate() {
        check_backend(backend, &|split| parts.splits.get(split), &own)
            .map_err(|problem| backend_error(index, backend, problem))?;
    }
    for (index, route) in parts.routes.iter().enumerate() {
        check_route(route, parts.backends.len())
            .map_err(|problem| route_error(index, route, problem))?;
    }
    let mut ports = HashSet::new();
    for (index, apex) in parts.apexes.iter().enumerate() {
        check_target(&apex.target, parts.backends.len())
            .and_then(|()| match ports.insert(apex.port) {
                true => Ok(()),
                false => Err(Problem::Twice {
                    kind: "apex port",
                    name: apex.port.to_string(),
                }),
            })
            .map_err(|problem| apex_error(index, apex, problem))?;
    }
    Ok(())
}

/// Checks what is new in a patched table: each part stands for what stood in its place before.
pub(super) fn check_patch(table: &Table, patch: &Patch, own: &[SocketAddr]) -> Result<(), Error> {
    for (index, split) in &patch.splits {
        let before = table.splits.get(*index).map(AsRef::as_ref);
        check_replaces(split, before)
            .and_then(|()| check_split(split))
            .map_err(|problem| split_error(*index, split, problem))?;
    }
    for (index, planned) in table.backends.iter().enumerate() {
        let backend = &planned.backend;
        if let Source::Split { split, .. } = &backend.source
            && patch.splits.contains_key(split)
            && !patch.backends.contains_key(&index)
        {
            return Err(backend_error(index, backend, Problem::LeftBehind));
        }
    }
    let own = by_port(own);
    let split_at = |index: usize| {
        let kept = || table.splits.get(index).map(|planned| &planned.split);
        patch.splits.get(&index).or_else(kept)
    };
    for (index, backend) in &patch.backends {
        check_place(*index, backend, table)
            .and_then(|()| check_backend(backend, &split_at, &own))
            .map_err(|problem| backend_error(*index, backend, problem))?;
    }
    Ok(())
}

fn check_replaces(split: &Split, before: Option<&PlannedSplit>) -> Result<(), Problem> {
    let name = |split: &Split| format!("{}/{} {}", split.namespace, split.name, split.uid);
    let before = before.map(|before| name(&before.split));
    match before {
        Some(before) if before == name(split) => Ok(()),
        Some(before) => Err(Problem::Misplaced(before)),
        None => Err(Problem::Misplaced("nothing".to_owned())),
    }
}

fn check_place(index: usize, backend: &Backend, table: &Table) -> Result<(), Problem> {
    let name =
        |backend: &Backend| format!("{}/{}:{}", backend.namespace, backend.service, backend.port);
    let before = table.backends.get(index);
    match before.map(|planned| name(&planned.backend)) {
        Some(before) if before == name(backend) => Ok(()),
        Some(before) => Err(Problem::Misplaced(before)),
        None => Err(Problem::Misplaced("nothing".to_owned())),
    }
}

fn check_split(split: &Split) -> Result<(), Problem> {
    check_named("namespace", &split.namespace)?;
    check_named("name", &split.name)?;
    check_named("uid", &split.uid)?;
    let mut names = HashSet::new();
    for version in &split.versions {
        check_named("a version's name", &version.name)?;
        if !names.insert(&version.name) {
            return Err(Problem::Twice {
                kind: "version",
                name: version.name.clone(),
            });
        }
    }
    check_index(
        "stable version",
        split.stable.unwrap_or(0),
        split
            .versions
            .len()
            .max(usize::from(split.stable.is_none())),
    )?;
    let versions = split.versions.len();
    split
        .rules
        .iter()
        .try_for_each(|rule| check_per_version("weights", rule.weights.len(), versions))
}

fn check_unique(splits: &[Split]) -> Result<(), Error> {
    let (mut uids, mut names) = (HashSet::new(), HashSet::new());
    for (index, split) in splits.iter().enumerate() {
        let twice = |kind, name: &String| {
            let problem = Problem::Twice {
                kind,
                name: name.clone(),
            };
            Err(split_error(index, split, problem))
        };
        if !uids.insert(&split.uid) {
            return twice("uid", &split.uid);
        }
        if !names.insert((&split.namespace, &split.name)) {
            return twice("name", &split.name);
        }
    }
    Ok(())
}

/// Our own listeners by port: a proxy has hundreds, with apexes.
type Own = HashMap<u16, Vec<SocketAddr>>;

fn by_port(own: &[SocketAddr]) -> Own {
    let mut ports = Own::new();
    for address in own {
        ports.entry(address.port()).or_default().push(*address);
    }
    ports
}

fn check_backend<'a>(
    backend: &Backend,
    split_at: &dyn Fn(usize) -> Option<&'a Split>,
    own: &Own,
) -> Result<(), Problem> {
    check_named("namespace", &backend.namespace)?;
    check_named("service", &backend.service)?;
    match &backend.source {
        Source::Endpoints(endpoints) => check_endpoints(endpoints, own),
        Source::Split {
            split,
            rule,
            endpoints,
        } => {
            let missing = || Problem::Missing {
                kind: "split",
                index: *split,
            };
            let split = split_at(*split).ok_or_else(missing)?;
            check_index("rule", *rule, split.rules.len())?;
            check_per_version("endpoint lists", endpoints.len(), split.versions.len())?;
            endpoints
                .iter()
                .try_for_each(|endpoints| check_endpoints(endpoints, own))
        }
    }
}

fn check_endpoints(endpoints: &[Endpoint], own: &Own) -> Result<(), Problem> {
    for Endpoint { address, .. } in endpoints {
        if address.port() == 0 || address.ip().is_unspecified() || address.ip().is_multicast() {
            return Err(Problem::Address(*address));
        }
        let mut listeners = own.get(&address.port()).into_iter().flatten();
        if listeners.any(|own| is_at(*own, *address)) {
            return Err(Problem::Own(*address));
        }
    }
    Ok(())
}

/// Whether a listener bound to `listener` answers at `address`, as far as addresses tell.
pub(super) fn is_at(listener: SocketAddr, address: SocketAddr) -> bool {
    let (bound, ip) = (listener.ip().to_canonical(), address.ip().to_canonical());
    listener.port() == address.port() && (bound == ip || bound.is_unspecified() && ip.is_loopback())
}

fn check_route(route: &Route, backends: usize) -> Result<(), Problem> {
    match &route.host {
        HostMatch::Any => {}
        HostMatch::Exact(host) => check_host(matching::split_port(host).0)?,
        HostMatch::Label(host) | HostMatch::Suffix(host) => check_host(host)?,
    }
    match &route.path {
        PathMatch::Prefix(path) | PathMatch::Exact(path) if path.starts_with('/') => {}
        PathMatch::Prefix(path) | PathMatch::Exact(path) => {
            return Err(Problem::Path(path.clone()));
        }
    }
    check_target(&route.target, backends)
}

fn check_target(target: &Target, backends: usize) -> Result<(), Problem> {
    match target {
        Target::Backend(index) => check_index("backend", *index, backends),
        Target::Refuse(refusal) => check_refusal(refusal),
    }
}

/// A host name or an IPv4 address, without a port; or an IPv6 address in brackets, as it stands in `Host`.
fn check_host(host: &str) -> Result<(), Problem> {
    let name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    let good = match host.strip_prefix('[') {
        Some(rest) => rest
            .strip_suffix(']')
            .is_some_and(|ip| ip.parse::<Ipv6Addr>().is_ok()),
        None => {
            host.bytes().all(name)
                && !host.is_empty()
                && !host.starts_with('.')
                && !host.ends_with('.')
        }
    };
    if good && host.len() <= matching::HOST_MAX {
        Ok(())
    } else {
        Err(Problem::Host(host.to_owned()))
    }
}

fn check_refusal(refusal: &Refusal) -> Result<(), Problem> {
    if !(400..=599).contains(&refusal.status) {
        return Err(Problem::Status(refusal.status));
    }
    if refusal.reason.is_empty() || !refusal.reason.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Problem::Reason(refusal.reason.clone()));
    }
    Ok(())
}

fn check_named(what: &'static str, name: &str) -> Result<(), Problem> {
    if name.is_empty() {
        Err(Problem::Empty(what))
    } else {
        Ok(())
    }
}

fn check_index(kind: &'static str, index: usize, length: usize) -> Result<(), Problem> {
    if index < length {
        Ok(())
    } else {
        Err(Problem::Missing { kind, index })
    }
}

fn check_per_version(kind: &'static str, found: usize, versions: usize) -> Result<(), Problem> {
    if found == versions {
        Ok(())
    } else {
        Err(Problem::PerVersion {
            kind,
            found,
            versions,
        })
    }
}

fn split_error(index: usize, split: &Split, problem: Problem) -> Error {
    let object = format!("split {}/{}", split.namespace, split.name);
    Error {
        part: Part::Split(index),
        object,
        problem,
    }
}

fn backend_error(index: usize, backend: &Backend, problem: Problem) -> Error {
    let object = format!(
        "backend {}/{}:{}",
        backend.namespace, backend.service, backend.port
    );
    Error {
        part: Part::Backend(index),
        object,
        problem,
    }
}

fn apex_error(index: usize, apex: &Apex, problem: Problem) -> Error {
    let object = format!("apex port {}", apex.port);
    Error {
        part: Part::Apex(index),
        object,
        problem,
    }
}

fn route_error(index: usize, route: &Route, problem: Problem) -> Error {
    let object = format!("route {index} ({route})");
    Error {
        part: Part::Route(index),
        object,
        problem,
    }
}
