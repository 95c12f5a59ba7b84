//! Keeps the EndpointSlices of one apex Service.

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::ResourceExt;
use kube::api::{DeleteParams, Preconditions};
use tracing::info;

use super::super::objects::{Key, Name, rollout_of};
use super::super::observe::raw;
use super::super::writes::Place;
use super::super::{Context, Error};
use super::slices::{self, Lead, is_ready};
use super::{Policy, age, is_apex, spread};
use crate::api::split::{Apex, DEFAULT_FLEET};
use crate::api::{Split, labels};
use crate::fleet::state::Standing;
use crate::rollout::split::STABLE;
use crate::routing::endpoints::{is_of_apex, manager, pod_uid};
use crate::routing::ports;
use crate::routing::split::read;
use crate::wire::Collection;

/// Who keeps the slices of Services with a selector, and those made of an Endpoints object.
const OTHERS: [&str; 2] = [
    "endpointslice-controller.k8s.io",
    "endpointslicemirroring-controller.k8s.io",
];

/// Looks at one Service: gives an apex its slices, and takes them away from one that is none any more. A controller that does not lead
/// only takes proxies that have left out of them.
///
/// # Errors
///
/// When the API server refuses, or a slice has changed meanwhile.
pub async fn reconcile(
    context: &Context,
    name: &Name,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let key = Key::Apex(name.clone());
    if let Some(wait) = context.writes.catch_up(&key).await? {
        return Ok(now.checked_add(wait).ok());
    }
    let Some(service) = context.objects.services.get(&name.namespace, &name.name) else {
        context.writes.forget(&key);
        return Ok(None); // its slices go with it
    };
    let keeper = Keeper::new(context, key, name, &service);
    if !context.apexes.is_leading() || !matches!(context.apexes.policy, Policy::Ports(_)) {
        return keeper.prune().await;
    }
    let governs = |split: &&Arc<Split>| keeper.governs(split);
    let splits = &context.objects.splits;
    let mut splits = splits.holding(&name.namespace, &name.name);
    splits.sort_by_key(|split| age(split));
    match splits.iter().find(governs) {
        Some(split) if is_apex(&service) && is_ours(context, split) => keeper.keep(split).await,
        Some(_) if is_apex(&service) => Ok(None), // another controller's
        Some(_) if !keeper.have_others_taken_over() => keeper.prune().await,
        Some(_) | None => keeper.leave().await,
    }
}

/// Whether a Split is this controller's to serve: one of its Rollouts', or of nobody's.
fn is_ours(context: &Context, split: &Split) -> bool {
    let owner = rollout_of(&split.metadata);
    let namespace = split.namespace().unwrap_or_default();
    owner.is_none_or(|owner| {
        context
            .objects
            .rollouts
            .get(&namespace, &owner.name)
            .is_some()
    })
}

struct Keeper<'a> {
    context: &'a Context,
    key: Key,
    name: &'a Name,
    service: &'a Service,
    /// Slices of the Service that we keep.
    ours: Vec<Arc<EndpointSlice>>,
    /// Those of all others.
    theirs: Vec<Arc<EndpointSlice>>,
}

impl<'a> Keeper<'a> {
    fn new(context: &'a Context, key: Key, name: &'a Name, service: &'a Service) -> Self {
        let all = slices_of(context, &name.namespace, &name.name);
        let (ours, theirs) = all.into_iter().partition(|slice| is_of_apex(slice));
        Self {
            context,
            key,
            name,
            service,
            ours,
            theirs,
        }
    }

    /// Whether a Split means to serve the Service as an apex: that of a Rollout governs it, one written by hand names it as one.
    fn governs(&self, split: &Split) -> bool {
        let names = |apex: &Apex| apex.service == self.name.name;
        let governs = || read(&raw(split)).services.contains(&self.name.name);
        split.spec.apexes.iter().any(names) || rollout_of(&split.metadata).is_some() && governs()
    }

    /// Ours first, each before the one in whose place it stands; then what others had made while it was no apex.
    async fn keep(&self, split: &Split) -> Result<Option<Timestamp>, Error> {
        let Some(leads) = self.leads(split) else {
            return Ok(None); // nobody knows yet who the proxies are
        };
        let wanted = slices::slices(self.service, &leads);
        for wanted in &wanted {
            let name = wanted.name_any();
            match self.ours.iter().find(|slice| slice.name_any() == name) {
                Some(slice) if slices::is_as_wanted(slice, wanted) => {}
                Some(slice) => self.replace(slice, wanted.clone()).await?,
                None => self.create(wanted).await?,
            }
        }
        let is_wanted = |slice: &Arc<EndpointSlice>| {
            wanted
                .iter()
                .any(|wanted| wanted.name_any() == slice.name_any())
        };
        for slice in self.ours.iter().filter(|slice| !is_wanted(slice)) {
            self.delete(slice).await?;
        }
        self.take_over(&leads).await?;
        Ok(None)
    }

    /// Where each port leads; none before the proxies are listed.
    fn leads(&self, split: &Split) -> Option<Vec<Lead>> {
        let ports = self
            .service
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.as_ref());
        let mut leads = Vec::new();
        for port in ports.into_iter().flatten() {
            let mut found = self.to_proxies(split, port)?;
            if found.is_empty() {
                found = self.to_stable(split, port);
            }
            leads.extend(found);
        }
        Some(leads)
    }

    fn to_proxies(&self, split: &Split, port: &ServicePort) -> Option<Vec<Lead>> {
        let fleet = split.spec.fleet.as_deref().unwrap_or(DEFAULT_FLEET);
        let uid = split.uid().unwrap_or_default();
        let is_meant =
            |apex: &&Apex| apex.service == self.name.name && ports::is_meant(port, &apex.port);
        // Of two ports the one that stands for ever comes first: the other is about to go.
        let range = |apex: &&Apex| match &self.context.apexes.policy {
            Policy::Ports(range) => !range.contains(&apex.listen),
            Policy::None | Policy::NoPorts => true,
        };
        let mut apexes: Vec<&Apex> = split.spec.apexes.iter().filter(is_meant).collect();
        apexes.sort_by_key(range);
        for apex in apexes
            .into_iter()
            .filter(|_| ports::protocol(port) == "TCP")
        {
            let proxies = self.context.fleet.standings(fleet, &uid, apex.listen)?;
            let may = proxies.into_iter().filter_map(|(place, standing)| {
                let listed = place
                    .addresses
                    .iter()
                    .any(|address| self.lists(address, apex.listen));
                let stays = standing == Standing::Serves || listed && standing == Standing::Unheard;
                stays.then_some((place, listed))
            });
            let chosen = spread::spread(&self.name.to_string(), may.collect());
            let (service, of) = (self.service, &self.context.apexes.fleet);
            let leads = slices::to_proxies(service, port, apex.listen, of, &chosen);
            if !leads.is_empty() {
                return Some(leads);
            }
        }
        Some(Vec::new())
    }

    /// Whether a slice of ours lists an address at a port.
    fn lists(&self, address: &IpAddr, listen: u16) -> bool {
        let at_port = |slice: &&Arc<EndpointSlice>| {
            let mut ports = slice.ports.iter().flatten();
            ports.any(|port| port.port == Some(listen.into()))
        };
        let text = address.to_string();
        let mut listed = self
            .ours
            .iter()
            .filter(at_port)
            .flat_map(|slice| &slice.endpoints);
        listed.any(|endpoint| endpoint.addresses.contains(&text))
    }

    /// To the ready pods of the stable version, which is the first where none is called so.
    fn to_stable(&self, split: &Split, port: &ServicePort) -> Vec<Lead> {
        let versions = &split.spec.versions;
        let stable = versions.iter().find(|version| version.name == STABLE);
        let Some(stable) = stable.or_else(|| versions.first()) else {
            return Vec::new();
        };
        let namespace = &self.name.namespace;
        let Some(version) = self
            .context
            .objects
            .services
            .get(namespace, &stable.service)
        else {
            return Vec::new();
        };
        let Some(counterpart) = ports::counterpart(port, &version) else {
            return Vec::new();
        };
        let all = slices_of(self.context, namespace, &stable.service);
        let all: Vec<&EndpointSlice> = all
            .iter()
            .map(AsRef::as_ref)
            .filter(|slice| !is_of_apex(slice))
            .collect();
        slices::to_pods(self.service, port, &all, ports::name(counterpart))
    }

    /// Deletes what others have left: addresses that nobody looks after any more. Not before every port leads somewhere, or nothing of
    /// theirs leads anywhere.
    async fn take_over(&self, leads: &[Lead]) -> Result<(), Error> {
        let left = self.theirs.iter();
        let left: Vec<_> = left
            .filter(|slice| OTHERS.contains(&manager(slice)))
            .collect();
        let ports = self
            .service
            .spec
            .as_ref()
            .and_then(|spec| spec.ports.as_ref());
        let mut ports = ports.into_iter().flatten();
        let is_whole = ports.all(|port| leads.iter().any(|lead| lead.port == *port));
        if left.is_empty() || !is_whole && left.iter().any(|slice| lists_any(slice)) {
            return Ok(());
        }
        info!(service = %self.name, "callers are led to the proxies");
        // Endpoints first: as long as they stand, slices are made of them again.
        let endpoints = Collection::<Endpoints>::within(&self.context.client, &self.name.namespace);
        let deleted = endpoints
            .delete(&self.name.name, &DeleteParams::default())
            .await;
        absent_is_fine(deleted)
            .map_err(|source| Error::api(format!("Endpoints {}", self.name), source))?;
        for slice in left {
            self.delete(slice).await?;
        }
        Ok(())
    }

    /// Whether others list somebody for the Service, which has a selector again.
    fn have_others_taken_over(&self) -> bool {
        let mut theirs = self.theirs.iter();
        theirs.any(|slice| manager(slice) == OTHERS[0] && lists_any(slice))
    }

    /// It is no apex any more.
    async fn leave(&self) -> Result<Option<Timestamp>, Error> {
        for slice in &self.ours {
            self.delete(slice).await?;
        }
        Ok(None)
    }

    /// Takes out proxies that are gone or about to go.
    async fn prune(&self) -> Result<Option<Timestamp>, Error> {
        for slice in &self.ours {
            if slice.annotations().get(labels::PROXIES) != Some(&self.context.apexes.fleet) {
                continue;
            }
            let mut pruned = EndpointSlice::clone(slice);
            pruned.endpoints.retain(|endpoint| !self.has_left(endpoint));
            if pruned.endpoints.len() < slice.endpoints.len() {
                self.replace(slice, pruned).await?;
            }
        }
        Ok(None)
    }

    fn has_left(&self, endpoint: &Endpoint) -> bool {
        let address = endpoint
            .addresses
            .first()
            .and_then(|text| text.parse().ok());
        address.is_some_and(|address| self.context.fleet.has_left(&address, pod_uid(endpoint)))
    }

    async fn create(&self, wanted: &EndpointSlice) -> Result<(), Error> {
        let (name, api) = (wanted.name_any(), self.api());
        let place = self.place(&name);
        let request = api.create(wanted);
        let sent = self.context.writes.send(&self.key, place, request).await;
        sent.map(drop).map_err(|source| self.error(&name, source))
    }

    async fn replace(&self, slice: &EndpointSlice, wanted: EndpointSlice) -> Result<(), Error> {
        let (name, api) = (slice.name_any(), self.api());
        let mut whole = slice.clone();
        whole.metadata.managed_fields = None;
        let metadata = &mut whole.metadata;
        let (labels, annotations) = (wanted.metadata.labels, wanted.metadata.annotations);
        metadata
            .labels
            .get_or_insert_default()
            .extend(labels.into_iter().flatten());
        let annotated = annotations.into_iter().flatten();
        metadata
            .annotations
            .get_or_insert_default()
            .extend(annotated);
        metadata.owner_references = wanted.metadata.owner_references;
        whole.endpoints = wanted.endpoints;
        whole.ports = wanted.ports;
        let request = api.replace(&name, &whole);
        let place = self.place(&name);
        let sent = self.context.writes.send(&self.key, place, request).await;
        sent.map(drop).map_err(|source| self.error(&name, source))
    }

    async fn delete(&self, slice: &EndpointSlice) -> Result<(), Error> {
        let (name, api) = (slice.name_any(), self.api());
        let how = DeleteParams {
            preconditions: Some(Preconditions {
                uid: slice.uid(),
                resource_version: slice.resource_version(),
            }),
            ..DeleteParams::default()
        };
        let request =
            async { absent_is_fine(api.delete(&name, &how).await).map(|()| Default::default()) };
        let place = self.place(&name);
        let sent = self.context.writes.send(&self.key, place, request).await;
        sent.map(drop).map_err(|source| self.error(&name, source))
    }

    fn error(&self, slice: &str, source: kube::Error) -> Error {
        Error::api(
            format!("EndpointSlice {slice} of Service {}", self.name),
            source,
        )
    }

    fn api(&self) -> Collection<EndpointSlice> {
        Collection::within(&self.context.client, &self.name.namespace)
    }

    fn place(&self, slice: &str) -> Place<EndpointSlice> {
        let name = Name {
            namespace: self.name.namespace.clone(),
            name: slice.to_owned(),
        };
        Place::new(&self.context.client, &self.context.objects, name)
    }
}

fn slices_of(context: &Context, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
    context.objects.slices.holding(namespace, service)
}

fn lists_any(slice: &EndpointSlice) -> bool {
    slice.endpoints.iter().any(is_ready)
}

fn absent_is_fine(deleted: kube::Result<()>) -> kube::Result<()> {
    match deleted {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other,
    }
}
