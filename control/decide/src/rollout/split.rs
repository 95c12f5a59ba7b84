//! The Split that a rollout wants. Its versions are named by revision; which Service lists a revision's pods is for the writer to say.

use std::collections::BTreeMap;

use crate::api::split::{Apex, Fallback, SplitRule, SplitSpec, SplitVersion};

/// Name of the version that carries what no other does.
pub const STABLE: &str = "stable";
/// Name of the version that is tried.
pub const CANARY: &str = "canary";

/// A Split's spec without the names of revision Services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Split {
    /// The versions.
    pub versions: Vec<Version>,
    /// Services and their weights over the versions.
    pub rules: Vec<SplitRule>,
    /// What becomes of a share that a version cannot carry.
    pub fallback: Option<Fallback>,
    /// The fleet that serves it; absent means `default`.
    pub fleet: Option<String>,
    /// Ports of the proxies that stand for ports of its Services.
    pub apexes: Vec<Apex>,
}

/// One version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// [`STABLE`], [`CANARY`], or a name that neither can have: an experiment's.
    pub name: String,
    /// Pod-template hash of its revision.
    pub revision: String,
    /// The Service that lists its pods, where that is not its revision's: an experiment has its own.
    pub service: Option<String>,
    /// Ready pods needed to carry its whole weight.
    pub needed: u32,
}

/// Those apexes that stand for Services of the rules: a Split with any other cannot be served.
pub(super) fn of_rules(apexes: &[Apex], rules: &[SplitRule]) -> Vec<Apex> {
    let governed = |apex: &&Apex| {
        rules
            .iter()
            .any(|rule| rule.services.contains(&apex.service))
    };
    apexes.iter().filter(governed).cloned().collect()
}

impl Split {
    /// Reads a spec as it stands in the API.
    #[must_use]
    pub fn read(spec: &SplitSpec) -> Self {
        let is_ours = |name: &str| [STABLE, CANARY].contains(&name);
        let versions = spec.versions.iter().map(|version| Version {
            name: version.name.clone(),
            revision: version.revision.clone().unwrap_or_default(),
            service: (!is_ours(&version.name)).then(|| version.service.clone()),
            needed: version.needed.unwrap_or(1),
        });
        Self {
            versions: versions.collect(),
            rules: spec.rules.clone(),
            fallback: spec.fallback,
            fleet: spec.fleet.clone(),
            apexes: spec.apexes.clone(),
        }
    }

    /// The spec to write; `services` gives the revision Service of each revision.
    #[must_use]
    pub fn spec(&self, services: &BTreeMap<String, String>) -> SplitSpec {
        let service = |version: &Version| {
            let own = version.service.as_ref();
            own.or_else(|| services.get(&version.revision))
                .cloned()
                .unwrap_or_default()
        };
        let versions = self.versions.iter().map(|version| SplitVersion {
            name: version.name.clone(),
            revision: Some(version.revision.clone()),
            service: service(version),
            needed: Some(version.needed),
        });
        SplitSpec {
            versions: versions.collect(),
            rules: self.rules.clone(),
            fallback: self.fallback,
            fleet: self.fleet.clone(),
            apexes: self.apexes.clone(),
        }
    }

    /// The versions that are revisions of the Rollout. An experiment's may have the hash of one of them, from whose template it was made.
    pub fn revisions(&self) -> impl Iterator<Item = &Version> {
        let versions = self.versions.iter();
        versions.filter(|version| version.service.is_none())
    }

    /// Whether a revision is one of its versions.
    #[must_use]
    pub fn lists(&self, revision: &str) -> bool {
        self.needed(revision).is_some()
    }

    /// Ready pods that a revision needs, as a version of either name; none if it is not listed.
    #[must_use]
    pub fn needed(&self, revision: &str) -> Option<u32> {
        let mut versions = self.revisions();
        let version = versions.find(|version| version.revision == revision)?;
        Some(version.needed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_written_is_what_is_read() {
        // Control-plane rules, section 1: a revision's Service is found again, an experiment's is its own.
        let spec = json!({
            "versions": [
                {"name": "stable", "revision": "1", "service": "web-1", "needed": 4},
                {"name": "canary", "revision": "2", "service": "web-2", "needed": 1},
                {"name": "trial", "revision": "2", "service": "web-trial", "needed": 1},
            ],
            "rules": [{"services": ["web"], "weights": {"stable": 80, "canary": 20}}],
            "fleet": "edge",
            "apexes": [{"service": "web", "port": "http", "listen": 10001}],
        });
        let spec: SplitSpec = serde_json::from_value(spec).unwrap();
        let split = Split::read(&spec);
        let names = [("1", "web-1"), ("2", "web-2")];
        let services = names.map(|(hash, name)| (hash.to_owned(), name.to_owned()));
        assert_eq!(split.spec(&BTreeMap::from(services)), spec);
        assert_eq!(
            (split.needed("1"), split.needed("2"), split.needed("3")),
            (Some(4), Some(1), None)
        );
    }
}
