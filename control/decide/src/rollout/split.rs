//! The Split that a rollout wants. Its versions are named by revision; which Service lists a revision's pods is for the writer to say.

use std::collections::BTreeMap;

use crate::api::split::{Fallback, SplitRule, SplitSpec, SplitVersion};

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
}

/// One version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// [`STABLE`] or [`CANARY`].
    pub name: String,
    /// Pod-template hash of its revision.
    pub revision: String,
    /// Ready pods needed to carry its whole weight.
    pub needed: u32,
}

impl Split {
    /// Reads a spec as it stands in the API.
    #[must_use]
    pub fn read(spec: &SplitSpec) -> Self {
        let versions = spec.versions.iter().map(|version| Version {
            name: version.name.clone(),
            revision: version.revision.clone().unwrap_or_default(),
            needed: version.needed.unwrap_or(1),
        });
        Self {
            versions: versions.collect(),
            rules: spec.rules.clone(),
            fallback: spec.fallback,
            fleet: spec.fleet.clone(),
        }
    }

    /// The spec to write; `services` gives the revision Service of each revision.
    #[must_use]
    pub fn spec(&self, services: &BTreeMap<String, String>) -> SplitSpec {
        let versions = self.versions.iter().map(|version| SplitVersion {
            name: version.name.clone(),
            revision: Some(version.revision.clone()),
            service: services.get(&version.revision).cloned().unwrap_or_default(),
            needed: Some(version.needed),
        });
        SplitSpec {
            versions: versions.collect(),
            rules: self.rules.clone(),
            fallback: self.fallback,
            fleet: self.fleet.clone(),
        }
    }

    /// Whether a revision is one of its versions.
    #[must_use]
    pub fn lists(&self, revision: &str) -> bool {
        self.versions
            .iter()
            .any(|version| version.revision == revision)
    }

    /// Ready pods that a revision needs, as a version of either name; none if it is not listed.
    #[must_use]
    pub fn needed(&self, revision: &str) -> Option<u32> {
        let version = self
            .versions
            .iter()
            .find(|version| version.revision == revision)?;
        Some(version.needed)
    }
}
