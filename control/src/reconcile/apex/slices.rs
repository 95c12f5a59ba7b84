//! The EndpointSlices that an apex Service is to have. Pure.
//!
//! A slice is named after what it leads to, so that one that leads elsewhere is made before the other goes.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use kube::api::ObjectMeta;
use serde_json::Value;

use crate::api::labels;
use crate::fleet::members::Place;
use crate::routing::endpoints::{MANAGED_BY, SERVICE_NAME, US};
use crate::routing::ports;

/// Most endpoints of a slice (the API server's own limit).
const MOST: usize = 1000;

/// Where a port of a Service leads to: at one number, for one family of addresses.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Lead {
    /// The Service's port.
    pub(super) port: ServicePort,
    /// `IPv4` or `IPv6`.
    pub(super) family: String,
    /// The port that is connected to.
    pub(super) number: i32,
    /// Who is there.
    pub(super) endpoints: Vec<Endpoint>,
    /// The namespace of the proxies' fleet, where these are proxies.
    pub(super) fleet: Option<String>,
}

/// The families that a Service has addresses of; all where it does not say.
pub(super) fn families(service: &Service) -> Vec<String> {
    let said = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ip_families.clone());
    let said = said.filter(|families| !families.is_empty());
    said.unwrap_or_else(|| vec!["IPv4".to_owned(), "IPv6".to_owned()])
}

/// Leads a port to a port of proxies.
pub(super) fn to_proxies(
    service: &Service,
    port: &ServicePort,
    listen: u16,
    fleet: &str,
    proxies: &[Place],
) -> Vec<Lead> {
    let lead = |family: String| {
        let of_family = |address: &&IpAddr| address.is_ipv6() == (family == "IPv6");
        let endpoints = proxies.iter().filter_map(|place| {
            let address = place.addresses.iter().find(of_family)?;
            Some(endpoint(Endpoint {
                addresses: vec![address.to_string()],
                node_name: place.node.clone(),
                zone: place.zone.clone(),
                target_ref: place.pod.clone(),
                ..Endpoint::default()
            }))
        });
        let endpoints: Vec<Endpoint> = endpoints.collect();
        (!endpoints.is_empty()).then(|| Lead {
            port: port.clone(),
            endpoints,
            family,
            number: listen.into(),
            fleet: Some(fleet.to_owned()),
        })
    };
    families(service).into_iter().filter_map(lead).collect()
}

/// Leads a port to the ready pods of another Service: those that its slices list for the port of that name.
pub(super) fn to_pods(
    service: &Service,
    port: &ServicePort,
    of: &[&EndpointSlice],
    name: &str,
) -> Vec<Lead> {
    let families = families(service);
    let mut leads: BTreeMap<(&str, i32), Vec<Endpoint>> = BTreeMap::new();
    for slice in of
        .iter()
        .filter(|slice| families.contains(&slice.address_type))
    {
        let is_it = |found: &&EndpointPort| {
            found.name.as_deref().unwrap_or_default() == name
                && found.protocol.as_deref().unwrap_or("TCP") == ports::protocol(port)
        };
        let Some(number) = slice
            .ports
            .iter()
            .flatten()
            .find(is_it)
            .and_then(|port| port.port)
        else {
            continue;
        };
        let ready = slice.endpoints.iter().filter(|endpoint| is_ready(endpoint));
        let ready = ready.map(|ready| {
            endpoint(Endpoint {
                hints: None,
                deprecated_topology: None,
                ..ready.clone()
            })
        });
        leads
            .entry((&slice.address_type, number))
            .or_default()
            .extend(ready);
    }
    let lead = |((family, number), endpoints): ((&str, i32), Vec<Endpoint>)| Lead {
        port: port.clone(),
        family: family.to_owned(),
        number,
        endpoints,
        fleet: None,
    };
    let leads = leads
        .into_iter()
        .filter(|(_, endpoints)| !endpoints.is_empty());
    leads.map(lead).collect()
}

/// Whether new connections may go there.
pub(super) fn is_ready(endpoint: &Endpoint) -> bool {
    let conditions = endpoint.conditions.as_ref();
    let ready = conditions.and_then(|conditions| conditions.ready);
    let terminating = conditions.and_then(|conditions| conditions.terminating);
    ready.unwrap_or(true) && !terminating.unwrap_or(false)
}

fn endpoint(of: Endpoint) -> Endpoint {
    Endpoint {
        conditions: Some(EndpointConditions {
            ready: Some(true),
            serving: Some(true),
            terminating: Some(false),
        }),
        ..of
    }
}

/// The slices that say so.
pub(super) fn slices(service: &Service, leads: &[Lead]) -> Vec<EndpointSlice> {
    let mut all = Vec::new();
    for lead in leads {
        let mut endpoints = lead.endpoints.clone();
        endpoints.sort_by(|a, b| a.addresses.cmp(&b.addresses));
        endpoints.dedup_by(|a, b| a.addresses == b.addresses);
        let parts = endpoints.chunks(MOST).enumerate();
        all.extend(parts.map(|(part, endpoints)| slice(service, lead, part, endpoints)));
    }
    all
}

fn slice(service: &Service, lead: &Lead, part: usize, endpoints: &[Endpoint]) -> EndpointSlice {
    let port = &lead.port;
    let name = service.name_any();
    let protocol = ports::protocol(port);
    let full = format!(
        "{name}-sidestep-{}-{}-{}-{}-{part}",
        lead.family, protocol, port.port, lead.number
    );
    let kept_by = [(SERVICE_NAME, name.as_str()), (MANAGED_BY, US)];
    let kept_by = kept_by.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let fleet = lead.fleet.iter();
    let fleet = fleet.map(|fleet| (labels::PROXIES.to_owned(), fleet.clone()));
    EndpointSlice {
        metadata: ObjectMeta {
            name: Some(full.to_ascii_lowercase()),
            namespace: service.namespace(),
            labels: Some(kept_by.into()),
            annotations: lead.fleet.is_some().then(|| fleet.collect()),
            owner_references: Some(vec![OwnerReference {
                api_version: "v1".to_owned(),
                kind: "Service".to_owned(),
                name,
                uid: service.uid().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(false),
            }]),
            ..ObjectMeta::default()
        },
        address_type: lead.family.clone(),
        endpoints: endpoints.to_vec(),
        ports: Some(vec![EndpointPort {
            name: Some(ports::name(port).to_owned()),
            port: Some(lead.number),
            protocol: Some(protocol.to_owned()),
            app_protocol: port.app_protocol.clone(),
        }]),
    }
}

/// Leaves of a slice what is looked at: of one of ours all that is written back, of others where they lead and for whom.
pub fn trim(slice: &mut Value) {
    if slice["metadata"]["labels"][MANAGED_BY] == US {
        return;
    }
    if let Some(Value::Object(metadata)) = slice.pointer_mut("/metadata") {
        for unread in ["annotations", "ownerReferences", "generateName"] {
            metadata.remove(unread);
        }
    }
    if let Some(Value::Object(labels)) = slice.pointer_mut("/metadata/labels") {
        labels.retain(|label, _| [SERVICE_NAME, MANAGED_BY].contains(&label.as_str()));
    }
    let endpoints = slice
        .pointer_mut("/endpoints")
        .and_then(Value::as_array_mut);
    for endpoint in endpoints
        .into_iter()
        .flatten()
        .filter_map(Value::as_object_mut)
    {
        endpoint.remove("hints");
        endpoint.remove("deprecatedTopology");
    }
}

/// Whether a slice that stands says what is wanted; what others have added to its metadata is left alone.
pub(super) fn is_as_wanted(existing: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let holds = |existing: &Option<BTreeMap<String, String>>, wanted: &Option<BTreeMap<_, _>>| {
        let mut wanted = wanted.iter().flatten();
        wanted.all(|(key, value)| existing.as_ref().and_then(|e| e.get(key)) == Some(value))
    };
    let (is, should) = (&existing.metadata, &wanted.metadata);
    existing.endpoints == wanted.endpoints
        && existing.ports == wanted.ports
        && holds(&is.labels, &should.labels)
        && holds(&is.annotations, &should.annotations)
        && is.owner_references == should.owner_references
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Value, json};

    use super::*;

    fn service(families: &Value) -> Service {
        let ports = json!([
            {"name": "http", "port": 80, "targetPort": 8080},
            {"name": "db", "port": 5432, "appProtocol": "postgres"},
        ]);
        let spec = json!({"ports": ports, "ipFamilies": families});
        let metadata = json!({"namespace": "ns", "name": "web", "uid": "u"});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn port(service: &Service, index: usize) -> ServicePort {
        let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
        ports.unwrap()[index].clone()
    }

    fn proxies() -> Vec<Place> {
        let place = |number: u16, both: bool| Place {
            addresses: BTreeSet::from_iter(
                [format!("10.0.0.{number}")]
                    .into_iter()
                    .chain(both.then(|| format!("fd00::{number}")))
                    .map(|address| address.parse().unwrap()),
            ),
            node: Some(format!("node-{number}")),
            zone: Some("a".into()),
            ..Place::default()
        };
        vec![place(2, true), place(1, false)]
    }

    /// Name, who is annotated as its fleet, port name and number, endpoints.
    fn shown(slices: &[EndpointSlice]) -> Vec<String> {
        let show = |slice: &EndpointSlice| {
            let ports = slice.ports.as_ref().unwrap();
            let addresses = slice.endpoints.iter().map(|e| e.addresses[0].clone());
            let addresses: Vec<String> = addresses.collect();
            let fleet = slice.annotations().get(labels::PROXIES).cloned();
            format!(
                "{} {} {}:{} {}",
                slice.name_any(),
                fleet.unwrap_or_else(|| "-".into()),
                ports[0].name.as_deref().unwrap(),
                ports[0].port.unwrap(),
                addresses.join(",")
            )
        };
        slices.iter().map(show).collect()
    }

    #[test]
    fn proxies_are_listed_by_family() {
        let check = |families: Value, expected: &[&str]| {
            let service = service(&families);
            let leads = to_proxies(&service, &port(&service, 0), 10_001, "sys", &proxies());
            assert_eq!(shown(&slices(&service, &leads)), expected, "{families}");
        };
        let four = "web-sidestep-ipv4-tcp-80-10001-0 sys http:10001 10.0.0.1,10.0.0.2";
        let six = "web-sidestep-ipv6-tcp-80-10001-0 sys http:10001 fd00::2";
        check(json!(["IPv4"]), &[four]);
        check(json!(["IPv6"]), &[six]);
        check(json!(["IPv6", "IPv4"]), &[six, four]);
        check(Value::Null, &[four, six]);
    }

    #[test]
    fn an_endpoint_says_where_it_is_and_a_slice_whose_it_is() {
        let service = service(&json!(["IPv4"]));
        let leads = to_proxies(&service, &port(&service, 0), 10_001, "sys", &proxies());
        let slice = slices(&service, &leads).remove(0);
        let first = &slice.endpoints[0];
        assert_eq!(
            (first.node_name.as_deref(), first.zone.as_deref()),
            (Some("node-1"), Some("a"))
        );
        assert!(is_ready(first));
        let labels = slice.labels();
        assert_eq!(
            (labels[SERVICE_NAME].as_str(), labels[MANAGED_BY].as_str()),
            ("web", US)
        );
        assert_eq!(slice.owner_references()[0].uid, "u");
        let mut stored = slice.clone();
        stored.metadata.resource_version = Some("7".into());
        assert!(is_as_wanted(&stored, &slice));
        stored.endpoints.pop();
        assert!(!is_as_wanted(&stored, &slice));
    }

    #[test]
    fn of_others_slices_only_what_leads_somewhere_is_kept_and_of_ours_what_is_written() {
        let slice = |manager: &str| -> Value {
            let kept_by = json!({SERVICE_NAME: "web", MANAGED_BY: manager, "team": "shop"});
            json!({
                "metadata": {
                    "name": "web-1", "uid": "u", "resourceVersion": "7", "generateName": "web-", "labels": kept_by,
                    "annotations": {"x": "y"},
                    "ownerReferences": [{"apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s"}],
                },
                "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
                "endpoints": [{
                    "addresses": ["10.0.0.1"], "nodeName": "node-1", "zone": "a", "hints": {"forZones": [{"name": "a"}]},
                    "targetRef": {"kind": "Pod", "name": "web-x", "uid": "p"},
                }],
            })
        };
        let mut theirs = slice("endpointslice-controller.k8s.io");
        trim(&mut theirs);
        let kept = json!({
            "name": "web-1", "uid": "u", "resourceVersion": "7",
            "labels": {SERVICE_NAME: "web", MANAGED_BY: "endpointslice-controller.k8s.io"},
        });
        assert_eq!(theirs["metadata"], kept);
        let endpoint = json!({
            "addresses": ["10.0.0.1"], "nodeName": "node-1", "zone": "a", "targetRef": {"kind": "Pod", "name": "web-x", "uid": "p"},
        });
        assert_eq!(theirs["endpoints"], json!([endpoint]));
        let mut ours = slice(US);
        trim(&mut ours);
        assert_eq!(ours, slice(US));
    }

    #[test]
    fn pods_are_listed_by_their_own_ports_if_they_are_ready() {
        let pods = |number: i32, pods: Value| -> EndpointSlice {
            let ports = json!([{"name": "tcp-5432", "port": number, "protocol": "TCP"}, {"name": "x", "port": 1}]);
            serde_json::from_value(
                json!({"addressType": "IPv4", "ports": ports, "endpoints": pods}),
            )
            .unwrap()
        };
        let ready =
            |address: &str| json!({"addresses": [address], "hints": {"forZones": [{"name": "a"}]}});
        let gone = json!({"addresses": ["10.1.0.8"], "conditions": {"ready": false}});
        let leaving =
            json!({"addresses": ["10.1.0.9"], "conditions": {"ready": true, "terminating": true}});
        let all = [
            pods(5432, json!([ready("10.1.0.2"), gone, leaving])),
            pods(5432, json!([ready("10.1.0.1"), ready("10.1.0.2")])),
            pods(5433, json!([ready("10.1.0.3")])),
        ];
        let service = service(&json!(["IPv4"]));
        let all: Vec<&EndpointSlice> = all.iter().collect();
        let leads = to_pods(&service, &port(&service, 1), &all, "tcp-5432");
        let made = slices(&service, &leads);
        assert_eq!(
            shown(&made),
            [
                "web-sidestep-ipv4-tcp-5432-5432-0 - db:5432 10.1.0.1,10.1.0.2",
                "web-sidestep-ipv4-tcp-5432-5433-0 - db:5433 10.1.0.3",
            ]
        );
        assert!(made[0].endpoints[0].hints.is_none());
        assert!(to_pods(&service, &port(&service, 1), &all, "other").is_empty());
    }
}
