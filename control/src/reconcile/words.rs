//! The words by which caches find objects: what each names that others ask for.

use std::collections::BTreeSet;

use kube::Resource;

use k8s_openapi::api::discovery::v1::EndpointSlice;

use super::objects::{controller_of, services_of};
use crate::api::{Rollout, Split};
use crate::routing::endpoints::{is_of_apex, owner};

/// The word of what nobody controls, which is no uid.
pub const NOBODY: &str = "nobody";
/// The word of what has to do with ports of the proxies; no Service is called so.
pub const APEXES: &str = "/apexes";

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

/// A Split is found by the Services that it governs or names as apexes, by those of its versions, and by having apexes at all.
pub fn of_split(split: &Split) -> BTreeSet<String> {
    let versions = split.spec.versions.iter();
    let versions = versions.map(|version| of_version(&version.service));
    let apexes = split.spec.apexes.iter();
    let apexes = apexes.flat_map(|apex| [apex.service.clone(), APEXES.to_owned()]);
    let governed = governed(split).cloned();
    governed.chain(apexes).chain(versions).collect()
}

/// An EndpointSlice is found by its Service, and by being one that leads to proxies.
pub fn of_slice(slice: &EndpointSlice) -> BTreeSet<String> {
    let service = owner(slice).map(|(_, service)| service.to_owned());
    let apexes = is_of_apex(slice).then(|| APEXES.to_owned());
    service.into_iter().chain(apexes).collect()
}

/// A Service as the Splits that have it as a version are found.
pub fn of_version(service: &str) -> String {
    format!("version/{service}")
}

/// The Services that a Split governs, or would.
pub fn governed(split: &Split) -> impl Iterator<Item = &String> {
    split.spec.rules.iter().flat_map(|rule| &rule.services)
}
