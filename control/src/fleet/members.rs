//! Who the proxies are: what the EndpointSlices of their headless Services list.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use crate::api::labels;
use crate::api::split::DEFAULT_FLEET;
use crate::routing::endpoints::{Proxies, Slices, listed, owner, port_number};

/// The name of the port that a proxy answers the controller on.
const PORT: &str = "admin";

/// One proxy, told from the one that takes its address later.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Where its admin port is.
    pub address: SocketAddr,
    /// Its pod's uid, or the address where there is no pod.
    pub pod: String,
}

/// What is known of a proxy without asking it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Listed {
    /// The fleet it belongs to.
    pub fleet: String,
    /// What people call it: its pod's name, or its address.
    pub name: String,
    /// It is listed as ready or as terminating: it serves, or may still serve. One that is neither has not begun.
    pub serves: bool,
    /// Where it is.
    pub place: Place,
}

/// Where a proxy is, as the slices of its fleet have it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// Its addresses, of one family or of both.
    pub addresses: BTreeSet<IpAddr>,
    /// Its node.
    pub node: Option<String>,
    /// Its node's zone.
    pub zone: Option<String>,
    /// Its pod.
    pub pod: Option<ObjectReference>,
    /// It is listed as able to take requests, and not as on its way out.
    pub serving: bool,
}

/// The proxies that `slices` list: those of the Service `service`, and of every other that carries the fleet label.
pub fn members(slices: &[Arc<EndpointSlice>], service: &str) -> BTreeMap<Key, Listed> {
    let sorted = Slices::new(slices);
    let owners: BTreeSet<_> = slices
        .iter()
        .filter_map(|slice| Some((owner(slice)?, fleet(slice, service)?)))
        .collect();
    let mut members = BTreeMap::new();
    for ((namespace, service), fleet) in owners {
        let (endpoints, _) = sorted.endpoints(namespace, service, PORT, &Proxies::default());
        let mut places = places(sorted.of(namespace, service));
        for endpoint in endpoints {
            let key = Key {
                address: endpoint.address,
                pod: endpoint.pod,
            };
            let place = places.remove(&key.pod).unwrap_or_default();
            let listed = Listed {
                fleet: fleet.to_owned(),
                name: endpoint.name,
                serves: endpoint.ready || endpoint.terminating,
                place,
            };
            members.insert(key, listed);
        }
    }
    members
}

/// Where each proxy is, by what it is told from others by. A Service that publishes all addresses lists all as ready: whether one can
/// take requests is said beside that.
fn places(slices: &[&EndpointSlice]) -> HashMap<String, Place> {
    let mut places: HashMap<String, Place> = HashMap::new();
    for slice in slices {
        let Some(port) = port_number(slice, PORT) else {
            continue;
        };
        for endpoint in &slice.endpoints {
            let Some(listed) = listed(endpoint, port) else {
                continue;
            };
            let conditions = endpoint.conditions.as_ref();
            let serving = conditions.and_then(|conditions| conditions.serving);
            let serving = serving.unwrap_or(listed.ready) && !listed.terminating;
            let place = places.entry(listed.pod).or_insert_with(|| Place {
                addresses: BTreeSet::new(),
                node: endpoint.node_name.clone(),
                zone: endpoint.zone.clone(),
                pod: endpoint.target_ref.clone(),
                serving,
            });
            place.addresses.insert(listed.address.ip());
            place.serving &= serving;
        }
    }
    places
}

fn fleet<'a>(slice: &'a EndpointSlice, service: &str) -> Option<&'a str> {
    let labelled = slice
        .metadata
        .labels
        .as_ref()
        .and_then(|l| l.get(labels::FLEET));
    let (_, owner) = owner(slice)?;
    labelled
        .map(String::as_str)
        .or_else(|| (owner == service).then_some(DEFAULT_FLEET))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(labels: &Value, endpoints: &Value) -> Arc<EndpointSlice> {
        let slice = json!({
            "metadata": {"namespace": "sidestep-system", "name": "x", "labels": labels},
            "addressType": "IPv4", "ports": [{"name": "admin", "port": 9000}, {"name": "http", "port": 80}], "endpoints": endpoints,
        });
        Arc::new(serde_json::from_value(slice).unwrap())
    }

    #[test]
    fn proxies_are_told_by_service_or_label() {
        let slices = [
            slice(
                &json!({"kubernetes.io/service-name": "sidestep-proxy"}),
                &json!([{"addresses": ["10.0.0.1"]}]),
            ),
            slice(
                &json!({"kubernetes.io/service-name": "edge", labels::FLEET: "edge"}),
                &json!([{"addresses": ["10.0.0.2"], "conditions": {"ready": false}, "targetRef": {"kind": "Pod", "name": "edge-0", "uid": "u"}}]),
            ),
            slice(
                &json!({"kubernetes.io/service-name": "web"}),
                &json!([{"addresses": ["10.0.0.3"]}]),
            ),
        ];
        let found: Vec<_> = members(&slices, "sidestep-proxy")
            .into_iter()
            .map(|(key, listed)| {
                (
                    key.address.to_string(),
                    listed.fleet,
                    listed.name,
                    listed.serves,
                )
            })
            .collect();
        let expected = [
            (
                "10.0.0.1:9000".into(),
                "default".into(),
                "10.0.0.1:9000".into(),
                true,
            ),
            (
                "10.0.0.2:9000".into(),
                "edge".into(),
                "edge-0".into(),
                false,
            ),
        ];
        assert_eq!(found, expected);
    }
}
