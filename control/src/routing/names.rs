//! The hosts that Services answer to.
//!
//! A Service answers to `name`, `name.namespace`, `name.namespace.svc` and `name.namespace.svc.DOMAIN`. A port in the host selects the
//! Service port of that number; with any other port, or none, the primary port answers (the one called `http`, else the first).
//!
//! A bare `name` that Services of several namespaces have belongs to the default namespace if one of them lives there; else nobody has
//! it, and it is answered with 409 and the names to use instead.

use std::collections::BTreeMap;

use sidestep_proxy::table::{HostMatch, PathMatch, Refusal, Route, Target};

/// How hosts name Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceNames {
    /// The namespace whose Services have the first right to their bare name.
    pub default_namespace: String,
    /// Namespace and name of the Service that answers for every other host.
    pub default_service: Option<(String, String)>,
    /// The last part of a Service's full name: `cluster.local` unless the cluster was set up otherwise.
    pub cluster_domain: String,
}

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

/// The routes to all Services that answer, by (namespace, name): each with the Service it is there for.
pub fn routes<'a>(
    answers: &BTreeMap<(&'a str, &'a str), Answers>,
    names: &'a ServiceNames,
) -> Vec<((&'a str, &'a str), Route)> {
    let mut routes = Vec::new();
    let mut bare: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (&(namespace, name), answers) in answers {
        bare.entry(name).or_default().push(namespace);
        for host in full_names(namespace, name, &names.cluster_domain) {
            add(&mut routes, (namespace, name), &host, answers);
        }
    }
    for (name, namespaces) in bare {
        match bare_owner(&namespaces, &names.default_namespace) {
            Some(namespace) => {
                let key = (namespace, name);
                add(&mut routes, key, name, &answers[&key]);
            }
            None => {
                let refused = Answers::refused(ambiguous(name, &namespaces));
                add(&mut routes, (namespaces[0], name), name, &refused);
            }
        }
    }
    if let Some((namespace, name)) = &names.default_service
        && let Some((key, answers)) = answers.get_key_value(&(namespace.as_str(), name.as_str()))
        && let Some(target) = answers.primary.clone()
    {
        routes.push((*key, route(HostMatch::Any, target)));
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

fn add<'a>(
    routes: &mut Vec<((&'a str, &'a str), Route)>,
    owner: (&'a str, &'a str),
    host: &str,
    answers: &Answers,
) {
    for (port, target) in &answers.ports {
        let host = HostMatch::Exact(format!("{host}:{port}"));
        routes.push((owner, route(host, target.clone())));
    }
    if let Some(target) = &answers.primary {
        let host = HostMatch::Exact(host.to_owned());
        routes.push((owner, route(host, target.clone())));
    }
}

fn route(host: HostMatch, target: Target) -> Route {
    Route {
        host,
        path: PathMatch::Prefix("/".to_owned()),
        target,
    }
}
