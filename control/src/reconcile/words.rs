//! The words by which caches find objects: what each names that others ask for.

use std::collections::BTreeSet;

use kube::Resource;

use super::objects::{controller_of, services_of};
use crate::api::{Rollout, Split};

/// The word of what nobody controls, which is no uid.
pub const NOBODY: &str = "nobody";

/// A Rollout is found by the Services it names, and by its workload.
pub fn of_rollout(rollout: &Rollout) -> BTreeSet<String> {
    let workload = rollout.spec.workload_ref.iter();
    let workload = workload.filter_map(|workload| workload.name.as_deref().map(of_workload));
    services_of(rollout).into_iter().chain(workload).collect()
}

/// A workload, as a Rollout that refers to it is found.
pub fn of_workload(name: &str) -> String {
    format!("workload/{name}")
}

/// What may have a controller is found by its uid, or as [`NOBODY`]'s.
pub fn of_owned<K: Resource>(object: &K) -> BTreeSet<String> {
    let owner = controller_of(object.meta());
    BTreeSet::from([owner.map_or_else(|| NOBODY.to_owned(), |owner| owner.uid.clone())])
}

/// A Split is found by the Services that it governs, and by those of its versions.
pub fn of_split(split: &Split) -> BTreeSet<String> {
    let versions = split.spec.versions.iter();
    let versions = versions.map(|version| of_version(&version.service));
    governed(split).cloned().chain(versions).collect()
}

/// A Service as the Splits that have it as a version are found.
pub fn of_version(service: &str) -> String {
    format!("version/{service}")
}

/// The Services that a Split governs, or would.
pub fn governed(split: &Split) -> impl Iterator<Item = &String> {
    split.spec.rules.iter().flat_map(|rule| &rule.services)
}
