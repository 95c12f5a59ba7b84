//! The hosts that Services answer to.
//!
//! A Service answers to `name`, `name.namespace`, `name.namespace.svc` and `name.namespace.svc.DOMAIN`. A port in the host selects the
//! Service port of that number; with any other port, or none, the primary port answers (the one called `http`, else the first).
//!
//! A bare `name` that Services of several namespaces have belongs to the default namespace if one of them lives there; else nobody has
//! it, and it is answered with 409 and the names to use instead.

use std::collections::BTreeMap;

use sidestep_proxy::table::{HostMatch, PathMatch, Refusal, Route, Target};

use super::build::Options;

/// What a Service answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Where the host names no port of the Service.
    pub primary: Option<Target>,
    /// By port number.
    pub ports: Vec<(u16, Target)>,
}

impl Answers {
    /// The same refusal on every port.
    pub fn refused(refusal: Refusal) -> Self {
        Self {
            primary: Some(Target::Refuse(refusal)),
            ports: Vec::new(),
        }
    }
}

/// The routes to all Services that answer, by (namespace, name).
pub fn routes(answers: &BTreeMap<(&str, &str), Answers>, options: &Options) -> Vec<Route> {
    let mut routes = Vec::new();
    let mut bare: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (&(namespace, name), answers) in answers {
        bare.entry(name).or_default().push(namespace);
        for host in full_names(namespace, name, &options.cluster_domain) {
            add(&mut routes, &host, answers);
        }
    }
    for (name, namespaces) in bare {
        match bare_owner(&namespaces, &options.default_namespace) {
            Some(namespace) => add(&mut routes, name, &answers[&(namespace, name)]),
            None => add(
                &mut routes,
                name,
                &Answers::refused(ambiguous(name, &namespaces)),
            ),
        }
    }
    if let Some((namespace, name)) = &options.default_service
        && let Some(target) = answers
            .get(&(namespace.as_str(), name.as_str()))
            .and_then(|a| a.primary.clone())
    {
        routes.push(route(HostMatch::Any, target));
    }
    routes
}

fn full_names(namespace: &str, name: &str, domain: &str) -> [String; 3] {
    [
        format!("{name}.{namespace}"),
        format!("{name}.{namespace}.svc"),
        format!("{name}.{namespace}.svc.{domain}"),
    ]
}

/// Who has a bare name, if anybody.
fn bare_owner<'a>(namespaces: &[&'a str], default: &str) -> Option<&'a str> {
    let at_home = namespaces.iter().find(|namespace| **namespace == default);
    match (at_home, namespaces) {
        (Some(namespace), _) | (None, [namespace]) => Some(namespace),
        (None, _) => None,
    }
}

fn ambiguous(name: &str, namespaces: &[&str]) -> Refusal {
    let hosts: Vec<String> = namespaces
        .iter()
        .map(|namespace| format!("{name}.{namespace}"))
        .collect();
    Refusal {
        status: 409,
        reason: "ambiguous-host".to_owned(),
        message: format!(
            "several namespaces have a Service {name}; say one of {}",
            hosts.join(", ")
        ),
    }
}

fn add(routes: &mut Vec<Route>, host: &str, answers: &Answers) {
    for (port, target) in &answers.ports {
        let host = HostMatch::Exact(format!("{host}:{port}"));
        routes.push(route(host, target.clone()));
    }
    if let Some(target) = &answers.primary {
        routes.push(route(HostMatch::Exact(host.to_owned()), target.clone()));
    }
}

fn route(host: HostMatch, target: Target) -> Route {
    Route {
        host,
        path: PathMatch::Prefix("/".to_owned()),
        target,
    }
}
