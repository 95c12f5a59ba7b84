//! The network of Services, as far as it goes: whom the EndpointSlices of a Service list, kept as kube-proxy keeps it. What was known
//! last stands while the API server is away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt as _;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::watch;
use tokio::time::interval;

use crate::support::cluster::World;
use crate::support::load::Places;

/// How long an API server that does not answer is left alone.
pub(super) const RETRY: Duration = Duration::from_millis(100);

type Slices = BTreeMap<String, Vec<SocketAddr>>;

/// Where callers of a Service go at the moment.
pub(super) fn places(world: &World, service: &str) -> Places {
    let slices: Api<EndpointSlice> = world.api();
    let of_service = format!("kubernetes.io/service-name={service}");
    let (told, places) = watch::channel(Vec::new());
    tokio::spawn(async move {
        let mut events = watcher(slices, watcher::Config::default().labels(&of_service)).boxed();
        let (mut known, mut listing) = (Slices::new(), Slices::new());
        let mut retry = interval(RETRY);
        while let Some(event) = events.next().await {
            match event {
                Ok(event) => take_up(&mut known, &mut listing, event),
                Err(_) => drop(retry.tick().await),
            }
            told.send_replace(known.values().flatten().copied().collect());
        }
    });
    places
}

fn take_up(known: &mut Slices, listing: &mut Slices, event: Event<EndpointSlice>) {
    match event {
        Event::Init => listing.clear(),
        Event::InitApply(slice) => drop(listing.insert(slice.name_any(), ready(&slice))),
        Event::InitDone => *known = std::mem::take(listing),
        Event::Apply(slice) => drop(known.insert(slice.name_any(), ready(&slice))),
        Event::Delete(slice) => drop(known.remove(&slice.name_any())),
    }
}

/// The ready endpoints of a slice.
fn ready(slice: &EndpointSlice) -> Vec<SocketAddr> {
    let ports = slice.ports.iter().flatten().filter_map(|port| port.port);
    let ready = slice.endpoints.iter().filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.and_then(|c| c.ready).unwrap_or(true)
    });
    let addresses: Vec<&String> = ready.map(|endpoint| &endpoint.addresses[0]).collect();
    let at = |port: i32| {
        let address = move |text: &&String| format!("{text}:{port}").parse().unwrap();
        addresses.iter().map(address).collect::<Vec<_>>()
    };
    ports.flat_map(at).collect()
}
