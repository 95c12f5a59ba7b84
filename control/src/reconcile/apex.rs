//! Apex Services: Services without a selector whose EndpointSlices lead callers inside the cluster to the proxies.
//!
//! A Service that a Rollout governs and that has no selector is an apex. Each of its HTTP ports gets a port of the proxies, which goes
//! into the Split (`reserve`); once a proxy has said that it answers there, the Service's slices list it ([`reconcile`]). Until one
//! does, and for ports that are not HTTP, they list the ready pods of the stable version: a caller always finds somebody.
//!
//! | file | what |
//! |---|---|
//! | `ports` | who has which port of the proxies |
//! | `slices` | the slices that an apex is to have |
//! | `spread` | which proxies an apex lists |
//! | `keeper` | writes the slices |

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use tracing::warn;

use self::ports::{Asked, Book, Port, Reserved};
use super::objects::Name;
use super::observe::Scene;
use super::{Context, lock, words};
use crate::api::Split;
use crate::api::split::DEFAULT_FLEET;
use crate::rollout::Plan;
use crate::rollout::decision::{Event, EventKind};
use crate::rollout::observed::Observed;
use crate::routing::endpoints::owner;
use crate::routing::ports::{is_http, tcp_ports};

mod keeper;
mod ports;
mod slices;
mod spread;

pub use keeper::reconcile;
pub use slices::trim;

/// Whether there are apexes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Nobody asks: the proxies serve every Service by its name, as on one machine.
    #[default]
    None,
    /// The proxies have no ports for them, which is said where one is asked for.
    NoPorts,
    /// These ports of the proxies are to be had.
    Ports(RangeInclusive<u16>),
}

/// What looks at apexes share.
#[derive(Debug)]
pub struct Apexes {
    policy: Policy,
    /// The namespace of the proxies' Services: slices that list proxies of another are none of ours.
    fleet: String,
    book: Mutex<Book>,
    /// What was said last, by Rollout.
    said: Mutex<BTreeMap<Name, String>>,
    leads: AtomicBool,
}

impl Apexes {
    /// Nothing reserved yet.
    pub fn new(policy: Policy, fleet_namespace: &str) -> Self {
        Self {
            policy,
            fleet: fleet_namespace.to_owned(),
            book: Mutex::default(),
            said: Mutex::default(),
            leads: AtomicBool::new(false),
        }
    }

    /// From now on this controller adds to slices; before, it only removes from them.
    pub fn lead(&self) {
        self.leads.store(true, Ordering::Release);
    }

    /// Forgets a Rollout that is gone.
    pub(super) fn forget(&self, rollout: &Name) {
        lock(&self.book).forget(rollout);
        lock(&self.said).remove(rollout);
    }

    fn is_leading(&self) -> bool {
        self.leads.load(Ordering::Acquire)
    }
}

/// Whether a Service has no selector, and an address of its own at which its slices are asked: its callers go where those lead.
pub fn is_apex(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let has_address = spec.cluster_ip.as_deref() != Some("None");
    has_address && has_no_selector(service)
}

fn has_no_selector(service: &Service) -> bool {
    let Some(spec) = &service.spec else {
        return false;
    };
    let is_name = spec.type_.as_deref() == Some("ExternalName");
    !is_name && spec.selector.as_ref().is_none_or(BTreeMap::is_empty)
}

/// Reserves ports for the apexes among the Services of a Rollout: they enter what is observed, as ports to be written into the Split.
/// Returns when to look again by itself.
pub(super) fn reserve(
    context: &Context,
    scene: &Scene,
    plan: &Plan,
    observed: &mut Observed,
    now: Timestamp,
) -> Option<Timestamp> {
    let split = scene.own_split();
    let fleet = match (plan.routing(), split) {
        (Some(routing), _) => routing.fleet.as_deref(),
        // Routing was taken out: its ports are served as long as somebody may ask there.
        (None, Some(split)) => split.spec.fleet.as_deref(),
        (None, None) => return None,
    };
    let Policy::Ports(range) = &context.apexes.policy else {
        say(context, scene, about_no_ports(context, scene), now);
        if plan.routing().is_none() {
            observed.apexes.clear(); // nobody keeps them
        }
        return None;
    };
    let mut wanted: Vec<Port> = Vec::new();
    for service in scene.services.iter().filter(|service| is_apex(service)) {
        let name = service.name_any();
        for known in &mut observed.services {
            known.apex |= known.name == name;
        }
        let ports = tcp_ports(service).into_iter().filter(|port| is_http(port));
        wanted.extend(ports.map(|port| (name.clone(), port.port.to_string())));
    }
    let fleet = fleet.unwrap_or(DEFAULT_FLEET);
    let reserved = reserved(context, scene, fleet, range, &wanted, now);
    let message = about_missing(&reserved.missing, range).or_else(|| about_headless(scene));
    say(context, scene, message, now);
    observed.apexes = reserved.apexes;
    reserved.again
}

fn reserved(
    context: &Context,
    scene: &Scene,
    fleet: &str,
    range: &RangeInclusive<u16>,
    wanted: &[Port],
    now: Timestamp,
) -> Reserved {
    let own = scene.own_split();
    let standing = own.map(|split| split.spec.apexes.as_slice());
    let standing = standing.unwrap_or_default();
    if wanted.is_empty() && standing.is_empty() {
        lock(&context.apexes.book).forget(&scene.name);
        return Reserved::default();
    }
    let mut asked = Asked {
        split: &scene.name,
        fleet,
        wanted,
        standing,
        older: BTreeSet::new(),
        younger: BTreeSet::new(),
        listed: BTreeSet::new(),
    };
    // The lock is held while the caches are read: of two that ask at once the second sees what the first was given.
    let mut book = lock(&context.apexes.book);
    let is_own = |split: &Split| Name::of(&split.metadata) == scene.name;
    for split in context.objects.splits.all_holding(words::APEXES) {
        let of_fleet = split.spec.fleet.as_deref().unwrap_or(DEFAULT_FLEET) == fleet;
        if !of_fleet || is_own(&split) {
            continue;
        }
        let is_older = own.is_none_or(|own| age(&split) < age(own));
        let ports = match is_older {
            true => &mut asked.older,
            false => &mut asked.younger,
        };
        ports.extend(split.spec.apexes.iter().map(|apex| apex.listen));
    }
    asked.listed = listed(context, scene, wanted);
    book.reserve(range, &asked, now)
}

/// As routing has it: of two Splits that ask for one port the older has it.
fn age(split: &Split) -> (Option<Timestamp>, String, String) {
    let created = split.metadata.creation_timestamp.as_ref();
    let namespace = split.namespace().unwrap_or_default();
    (created.map(|time| time.0), split.name_any(), namespace)
}

/// The ports that slices of ours lead to, but for those of these Services.
fn listed(context: &Context, scene: &Scene, wanted: &[Port]) -> BTreeSet<u16> {
    let own = |namespace: &str, name: &str| {
        namespace == scene.name.namespace && wanted.iter().any(|(service, _)| service == name)
    };
    let slices = context.objects.slices.all_holding(words::APEXES);
    let of_others = slices
        .iter()
        .filter(|slice| owner(slice).is_some_and(|(namespace, name)| !own(namespace, name)));
    let ports = of_others.flat_map(|slice| slice.ports.iter().flatten());
    ports
        .filter_map(|port| u16::try_from(port.port?).ok())
        .collect()
}

fn about_no_ports(context: &Context, scene: &Scene) -> Option<String> {
    if context.apexes.policy == Policy::None {
        return None;
    }
    let mut services = scene.services.iter();
    let service = services.find(|service| has_no_selector(service))?;
    Some(format!(
        "Service {} has no selector, but there are no ports of the proxies to send its callers to: give the controller and the proxies \
         --apex-ports FIRST-LAST",
        service.name_any()
    ))
}

fn about_missing(missing: &[Port], range: &RangeInclusive<u16>) -> Option<String> {
    let (service, port) = missing.first()?;
    let (first, last) = (range.start(), range.end());
    Some(format!(
        "no port is left for port {port} of Service {service}: all of --apex-ports {first}-{last} are taken, and its callers go to the \
         stable version; give the controller and the proxies a wider range"
    ))
}

fn about_headless(scene: &Scene) -> Option<String> {
    let mut services = scene.services.iter();
    let service = services.find(|service| has_no_selector(service) && !is_apex(service))?;
    Some(format!(
        "Service {} has no selector and is headless: its callers choose the port themselves and cannot be sent to the proxies; make it \
         a Service with a cluster IP",
        service.name_any()
    ))
}

/// Says what stands in the way, once.
fn say(context: &Context, scene: &Scene, message: Option<String>, now: Timestamp) {
    let mut said = lock(&context.apexes.said);
    let Some(message) = message else {
        said.remove(&scene.name);
        return;
    };
    if said.get(&scene.name) == Some(&message) {
        return;
    }
    warn!(rollout = %scene.name, "{message}");
    let event = Event {
        kind: EventKind::Warning,
        reason: "NoApexPort",
        message: message.clone(),
    };
    context.events.tell(scene.rollout.as_ref(), &event, now);
    said.insert(scene.name.clone(), message);
}
