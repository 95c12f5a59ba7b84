//! What Ingresses ask for (`networking.k8s.io/v1`).
//!
//! Hosts and paths mean what the API says: a wildcard stands for one label, `Prefix` goes element by element, and `ImplementationSpecific`
//! is `Prefix`. An exact host comes before a wildcard and that before none, an exact path before the longest prefix. Where two Ingresses
//! ask for the same host and path, the older one has it. What no rule matches goes to the oldest default backend.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressRule};
use sidestep_proxy::table::{HostMatch, PathMatch};

/// The annotation that named a class before `spec.ingressClassName` did.
const CLASS: &str = "kubernetes.io/ingress.class";

/// Requests that an Ingress sends to a backend.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule<'a> {
    /// To which hosts.
    pub host: HostMatch,
    /// Below which paths.
    pub path: PathMatch,
    /// Where they go; none where the Ingress does not say.
    pub backend: Option<&'a IngressBackend>,
}

/// The Ingresses of a class, the oldest first.
pub fn of_class<'a>(ingresses: &'a [Arc<Ingress>], class: &str) -> Vec<&'a Ingress> {
    let mut ours: Vec<&Ingress> = ingresses
        .iter()
        .map(AsRef::as_ref)
        .filter(|ingress| self::class(ingress) == Some(class))
        .collect();
    ours.sort_by_key(|ingress| {
        let metadata = &ingress.metadata;
        let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
        (created, metadata.namespace.as_ref(), metadata.name.as_ref())
    });
    ours
}

/// The class an Ingress names.
pub fn class(ingress: &Ingress) -> Option<&str> {
    let named = ingress
        .spec
        .as_ref()
        .and_then(|spec| spec.ingress_class_name.as_deref());
    let annotations = ingress.metadata.annotations.as_ref();
    named.or_else(|| annotations.and_then(|all| all.get(CLASS).map(String::as_str)))
}

/// The rules of an Ingress, in its order. A rule without paths sends its host's requests to the default backend.
pub fn rules(ingress: &Ingress) -> Vec<Rule<'_>> {
    let Some(spec) = &ingress.spec else {
        return Vec::new();
    };
    let default = spec.default_backend.as_ref();
    let mut found = Vec::new();
    for rule in spec.rules.iter().flatten() {
        let host = host(rule);
        match &rule.http {
            Some(http) => found.extend(http.paths.iter().map(|path| Rule {
                host: host.clone(),
                path: path_match(path),
                backend: Some(&path.backend),
            })),
            None => found.push(everything(host, default)),
        }
    }
    found
}

/// What goes to the default backend, if there is one: whatever no rule of any Ingress matches.
pub fn rest(ingress: &Ingress) -> Option<Rule<'_>> {
    let default = ingress.spec.as_ref()?.default_backend.as_ref()?;
    Some(everything(HostMatch::Any, Some(default)))
}

/// Rules that an older Ingress has already, by host and path.
#[derive(Debug, Default)]
pub struct Taken(BTreeMap<String, String>);

impl Taken {
    /// Takes host and path for an Ingress.
    ///
    /// # Errors
    /// By whom they are taken.
    pub fn take(&mut self, rule: &Rule<'_>, ingress: &Ingress) -> Result<(), String> {
        let metadata = &ingress.metadata;
        let name = format!(
            "{}/{}",
            metadata.namespace.as_deref().unwrap_or_default(),
            metadata.name.as_deref().unwrap_or_default()
        );
        match self.0.entry(what(rule)) {
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(name);
                Ok(())
            }
            // An Ingress that says the same twice means the first.
            std::collections::btree_map::Entry::Occupied(taken) if *taken.get() == name => {
                Err(format!("{}: stands twice", what(rule)))
            }
            std::collections::btree_map::Entry::Occupied(taken) => Err(format!(
                "{}: the older Ingress {} has it",
                what(rule),
                taken.get()
            )),
        }
    }
}

fn what(rule: &Rule<'_>) -> String {
    let host = match &rule.host {
        HostMatch::Any => "*".to_owned(),
        HostMatch::Exact(host) => host.to_ascii_lowercase(),
        HostMatch::Label(domain) | HostMatch::Suffix(domain) => {
            format!("*.{}", domain.to_ascii_lowercase())
        }
    };
    match &rule.path {
        PathMatch::Exact(path) => format!("host {host}, path {path}"),
        PathMatch::Prefix(path) => {
            format!("host {host}, paths below {}/", path.trim_end_matches('/'))
        }
    }
}

fn everything(host: HostMatch, backend: Option<&IngressBackend>) -> Rule<'_> {
    Rule {
        host,
        path: PathMatch::Prefix("/".to_owned()),
        backend,
    }
}

fn host(rule: &IngressRule) -> HostMatch {
    match rule.host.as_deref() {
        None | Some("") => HostMatch::Any,
        Some(host) => match host.strip_prefix("*.") {
            Some(domain) => HostMatch::Label(domain.to_owned()),
            None => HostMatch::Exact(host.to_owned()),
        },
    }
}

fn path_match(path: &HTTPIngressPath) -> PathMatch {
    let text = path.path.clone().unwrap_or_else(|| "/".to_owned());
    match path.path_type.as_str() {
        "Exact" => PathMatch::Exact(text),
        _ => PathMatch::Prefix(text),
    }
}
