//! What a person should know of an object that cannot be served as it is written.

use std::fmt;

use super::govern::Governed;
use super::split::ReadSplit;
use crate::api::split::SplitSpec;

/// A remark on one object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Notice {
    /// The object's kind.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// In one word, as a condition's reason.
    pub reason: Reason,
    /// In words.
    pub message: String,
}

/// Why an object cannot be served as it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// It does not parse or contradicts itself: its routes answer 503.
    Invalid,
    /// An older Split has the Service.
    Conflict,
    /// A Service that a rule or version names does not exist.
    ServiceNotFound,
    /// A Secret that an Ingress names does not exist, or may not be read.
    SecretNotFound,
    /// A version's Service has no port that answers for the governed one.
    PortNotFound,
    /// It lists proxies of ours as endpoints; they are left out.
    ProxyEndpoint,
    /// It is of a type that we do not route to: its routes answer 501.
    Unsupported,
}

impl Reason {
    /// As a condition's reason.
    pub fn name(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::Conflict => "Conflict",
            Self::ServiceNotFound => "ServiceNotFound",
            Self::SecretNotFound => "SecretNotFound",
            Self::PortNotFound => "PortNotFound",
            Self::ProxyEndpoint => "ProxyEndpoint",
            Self::Unsupported => "Unsupported",
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
            reason,
            message,
        } = self;
        write!(f, "{kind} {namespace}/{name}: {}: {message}", reason.name())
    }
}

/// A remark on a Split.
pub fn on_split(split: &ReadSplit, reason: Reason, message: String) -> Notice {
    Notice {
        kind: "Split",
        namespace: split.namespace.clone(),
        name: split.name.clone(),
        reason,
        message,
    }
}

/// Header and mirror routes are not served by proxies of this version; the weights are.
fn on_routes(split: &ReadSplit, spec: &SplitSpec) -> Option<Notice> {
    let mut rules = spec.rules.iter();
    let index = rules.position(|rule| !rule.routes.is_empty())?;
    let message = format!("spec.rules[{index}].routes: proxies of this version serve no routes");
    Some(on_split(split, Reason::Unsupported, message))
}

/// What is to be said of Splits of one fleet: what does not parse, who lost which Service, which Services do not exist.
pub fn on_splits(
    splits: &[ReadSplit],
    governed: &Governed<'_>,
    exists: impl Fn(&str, &str) -> bool,
) -> Vec<Notice> {
    let mut notices = Vec::new();
    for split in splits {
        match &split.spec {
            Err(message) => notices.push(on_split(split, Reason::Invalid, message.clone())),
            Ok(spec) => {
                notices.extend(on_routes(split, spec));
                let versions = spec.versions.iter().map(|v| v.service.as_str());
                let services = split.services.iter().map(String::as_str).chain(versions);
                for service in services.filter(|service| !exists(&split.namespace, service)) {
                    let message = format!("Service {service} does not exist");
                    notices.push(on_split(split, Reason::ServiceNotFound, message));
                }
            }
        }
    }
    for lost in &governed.lost {
        let message = format!(
            "Service {} is governed by the older Split {}",
            lost.service, splits[lost.to].name
        );
        notices.push(on_split(&splits[lost.split], Reason::Conflict, message));
    }
    notices.sort();
    notices.dedup();
    notices
}
