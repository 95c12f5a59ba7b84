//! The next table: made as a whole, or out of the one before where the change is of a few Splits and endpoints.
//!
//! A small change is answered by the same rules as the whole ([`mod@super::build`]), over nothing but the objects that it concerns: Splits, the
//! Services that they and their versions name, and the slices of those. Whatever might move a route, an index or somebody else's
//! share, and whatever there is something new to be said of, has the whole made anew. So a table that was patched any number of times is
//! the table that would have been built.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use sidestep_proxy::table::{Patch, PlannedBackend, Source, Table};

use super::build::{self, Options, Portion, Snapshot};
use super::changes::{Changes, Name};
use super::endpoints::{Proxies, owner};
use super::notice::{Notice, Reason};
use super::split::{RawSplit, ReadSplit, read};

/// Where the objects are found.
pub trait Objects {
    /// All of them.
    fn snapshot(&self) -> Snapshot;
    /// A Service.
    fn service(&self, name: &Name) -> Option<Arc<Service>>;
    /// A Split.
    fn split(&self, name: &Name) -> Option<Arc<RawSplit>>;
    /// The EndpointSlices of a namespace.
    fn slices(&self, namespace: &str) -> Vec<Arc<EndpointSlice>>;
}

/// What was made.
#[derive(Debug)]
pub enum Built {
    /// Everything, out of these Ingresses, and what is to be said.
    Whole(Table, Vec<Arc<Ingress>>, Vec<Notice>),
    /// A table that differs in a part of which nothing else is to be said than before.
    Patched(Table),
}

/// Makes one table after the other.
#[derive(Debug)]
pub struct Builder {
    options: Options,
    last: Option<Last>,
}

/// The last table, and where in it things are.
#[derive(Debug)]
struct Last {
    table: Table,
    notices: Vec<Notice>,
    proxies: Proxies,
    fleets: BTreeSet<Name>,
    /// The table has refused objects: it is made whole until it refuses none.
    refused: bool,
    /// Per Split of the table: as it was read.
    splits: Vec<Arc<RawSplit>>,
    /// Split → its place.
    places: HashMap<Name, usize>,
    /// Service → the Splits of which it lists a version.
    versions: HashMap<Name, BTreeSet<usize>>,
    /// Service → its backends.
    backends: HashMap<Name, Vec<usize>>,
}

/// What a change concerns.
#[derive(Debug, Default)]
struct Concerned {
    /// Splits by their place, as they are now.
    splits: BTreeMap<usize, (Arc<RawSplit>, ReadSplit)>,
    /// Backends by their index.
    backends: BTreeSet<usize>,
}

/// The whole has to be made anew.
#[derive(Debug)]
struct Unclear;

impl Builder {
    /// Nothing is made yet.
    pub fn new(options: Options) -> Self {
        Self {
            options,
            last: None,
        }
    }

    /// The table after `changes`; `None` where the last one stands.
    pub fn build(&mut self, changes: &Changes, objects: &impl Objects) -> Option<Built> {
        if let Some(last) = self.last.as_mut().filter(|_| !changes.everything)
            && let Ok(patched) = last.patch(changes, objects, &self.options)
        {
            return patched.map(Built::Patched);
        }
        let snapshot = objects.snapshot();
        let last = Last::build(&snapshot, &self.options, self.last.take());
        let built = Built::Whole(last.table.clone(), snapshot.ingresses, last.notices.clone());
        self.last = Some(last);
        Some(built)
    }
}

impl Last {
    fn build(snapshot: &Snapshot, options: &Options, before: Option<Self>) -> Self {
        let mut whole = build::whole(snapshot, options);
        if let Some(before) = before {
            whole.table.share_with(&before.table);
        }
        let by_name: HashMap<_, _> = snapshot.splits.iter().map(|raw| (name(raw), raw)).collect();
        let mut last = Self {
            table: whole.table,
            notices: whole.notices,
            proxies: whole.proxies,
            fleets: whole.fleets,
            refused: whole.refused,
            splits: Vec::new(),
            places: HashMap::new(),
            versions: HashMap::new(),
            backends: HashMap::new(),
        };
        for (place, planned) in last.table.splits().enumerate() {
            let name = (planned.split.namespace.clone(), planned.split.name.clone());
            if let Some(&raw) = by_name.get(&name) {
                last.splits.push(Arc::clone(raw));
                for service in version_services(&read(raw)) {
                    last.versions.entry(service).or_default().insert(place);
                }
            }
            last.places.insert(name, place);
        }
        for (index, planned) in last.table.backends().enumerate() {
            let of_service = last.backends.entry(service_of(planned)).or_default();
            of_service.push(index);
        }
        last
    }

    /// The table after a small change; `None` where it concerns nothing in the table.
    fn patch(
        &mut self,
        changes: &Changes,
        objects: &impl Objects,
        options: &Options,
    ) -> Result<Option<Table>, Unclear> {
        if self.refused || !changes.services.is_disjoint(&self.fleets) {
            return Err(Unclear);
        }
        let concerned = self.concerned(changes, objects, options)?;
        if concerned.splits.is_empty() && concerned.backends.is_empty() {
            return Ok(None);
        }
        let services = self.services(&concerned);
        let snapshot = snapshot(&concerned, &services, objects);
        let ports = concerned.backends.iter().map(|&index| {
            let backend = &self.backend(index).backend;
            let key = (backend.namespace.as_str(), backend.service.as_str());
            (key, backend.port.as_str())
        });
        let portion = build::portion(&snapshot, options, &self.proxies, ports).ok_or(Unclear)?;
        if !self.says_the_same(&portion, &concerned, &services) {
            return Err(Unclear);
        }
        let patch = place(portion, &concerned);
        self.table = self
            .table
            .patched(patch, &options.own)
            .map_err(|_| Unclear)?;
        self.take_up(concerned);
        Ok(Some(self.table.clone()))
    }

    fn concerned(
        &self,
        changes: &Changes,
        objects: &impl Objects,
        options: &Options,
    ) -> Result<Concerned, Unclear> {
        let mut concerned = Concerned::default();
        for name in &changes.splits {
            let raw = objects.split(name).ok_or(Unclear)?;
            let now = read(&raw);
            match self.places.get(name) {
                Some(&place) if stays_in_place(&read(&self.splits[place]), &now) => {
                    concerned.splits.insert(place, (raw, now));
                }
                None if now.fleet != options.fleet && !self.speaks_of("Split", name) => {}
                Some(_) | None => return Err(Unclear),
            }
        }
        for service in &changes.services {
            for &place in self.versions.get(service).into_iter().flatten() {
                let raw = &self.splits[place];
                let as_it_was = || (Arc::clone(raw), read(raw));
                concerned.splits.entry(place).or_insert_with(as_it_was);
            }
            let backends = self.backends.get(service).into_iter().flatten();
            let plain = |index: &&usize| {
                matches!(self.backend(**index).backend.source, Source::Endpoints(_))
            };
            concerned.backends.extend(backends.filter(plain));
        }
        for (_, split) in concerned.splits.values() {
            for service in &split.services {
                let service = (split.namespace.clone(), service.clone());
                let backends = self.backends.get(&service).into_iter().flatten();
                concerned.backends.extend(backends);
            }
        }
        Ok(concerned)
    }

    /// The Services that matter to what is concerned, and those that did before.
    fn services(&self, concerned: &Concerned) -> BTreeSet<Name> {
        let of_backends = concerned.backends.iter();
        let mut services: BTreeSet<Name> = of_backends
            .map(|&index| service_of(self.backend(index)))
            .collect();
        for (&place, (_, split)) in &concerned.splits {
            let governed = split.services.iter();
            services.extend(governed.map(|name| (split.namespace.clone(), name.clone())));
            services.extend(version_services(split));
            services.extend(version_services(&read(&self.splits[place])));
        }
        services
    }

    /// Whether there is nothing else to be said than before. Who has a Service that two want is not asked here.
    fn says_the_same(
        &self,
        portion: &Portion,
        concerned: &Concerned,
        services: &BTreeSet<Name>,
    ) -> bool {
        let splits = concerned.splits.values();
        let splits: BTreeSet<Name> = splits.map(|(raw, _)| name(raw)).collect();
        let is_of_them = |notice: &&Notice| {
            let name = (notice.namespace.clone(), notice.name.clone());
            notice.kind == "Split" && splits.contains(&name)
                || notice.kind == "Service" && services.contains(&name)
        };
        let said = self.notices.iter().filter(is_of_them);
        let undisputed = said.clone().all(|notice| notice.reason != Reason::Conflict);
        undisputed && said.eq(&portion.notices)
    }

    fn speaks_of(&self, kind: &str, (namespace, name): &Name) -> bool {
        let mut notices = self.notices.iter();
        notices.any(|notice| {
            notice.kind == kind && notice.namespace == *namespace && notice.name == *name
        })
    }

    /// Remembers the Splits as they are now.
    fn take_up(&mut self, concerned: Concerned) {
        for (place, (raw, split)) in concerned.splits {
            for service in version_services(&read(&self.splits[place])) {
                if let Entry::Occupied(mut places) = self.versions.entry(service) {
                    places.get_mut().remove(&place);
                    if places.get().is_empty() {
                        places.remove();
                    }
                }
            }
            for service in version_services(&split) {
                self.versions.entry(service).or_default().insert(place);
            }
            self.splits[place] = raw;
        }
    }

    fn backend(&self, index: usize) -> &PlannedBackend {
        self.table.backend(index)
    }
}

/// Whether a Split governs the same Services with the same right, and can be served as before.
fn stays_in_place(before: &ReadSplit, now: &ReadSplit) -> bool {
    let (Ok(spec_before), Ok(spec_now)) = (&before.spec, &now.spec) else {
        return false;
    };
    before.uid == now.uid
        && before.age == now.age
        && before.fleet == now.fleet
        && before.services == now.services
        && spec_before.apexes == spec_now.apexes
}

fn snapshot(concerned: &Concerned, services: &BTreeSet<Name>, objects: &impl Objects) -> Snapshot {
    let namespaces: BTreeSet<&str> = services.iter().map(|(n, _)| n.as_str()).collect();
    let is_theirs = |slice: &Arc<EndpointSlice>| {
        let owner = owner(slice).map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        owner.is_some_and(|owner| services.contains(&owner))
    };
    let slices = namespaces.into_iter().flat_map(|n| objects.slices(n));
    let splits = concerned.splits.values();
    Snapshot {
        services: services.iter().filter_map(|s| objects.service(s)).collect(),
        slices: slices.filter(is_theirs).collect(),
        splits: splits.map(|(raw, _)| Arc::clone(raw)).collect(),
        ..Snapshot::default()
    }
}

/// What was made anew, by its place in the table.
fn place(portion: Portion, concerned: &Concerned) -> Patch {
    let places: Vec<usize> = concerned.splits.keys().copied().collect();
    let mut backends = portion.backends;
    for backend in &mut backends {
        if let Source::Split { split, .. } = &mut backend.source {
            *split = places[*split];
        }
    }
    Patch {
        backends: concerned.backends.iter().copied().zip(backends).collect(),
        splits: places.into_iter().zip(portion.splits).collect(),
    }
}

fn version_services(split: &ReadSplit) -> impl Iterator<Item = Name> + use<'_> {
    let versions = split.spec.iter().flat_map(|spec| &spec.versions);
    versions.map(|version| (split.namespace.clone(), version.service.clone()))
}

fn service_of(planned: &PlannedBackend) -> Name {
    let backend = &planned.backend;
    (backend.namespace.clone(), backend.service.clone())
}

fn name(raw: &RawSplit) -> Name {
    let metadata = &raw.metadata;
    let namespace = metadata.namespace.clone().unwrap_or_default();
    (namespace, metadata.name.clone().unwrap_or_default())
}
