//! EndpointSlices → the endpoints of one Service port, each pod once.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::api::labels;

/// Label on an EndpointSlice: the Service it belongs to.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// Label on an EndpointSlice: who keeps it.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// What slices of ours carry as [`MANAGED_BY`].
pub const US: &str = "sidestep.dev";

/// The address of a pod for one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Where it answers.
    pub address: SocketAddr,
    /// The pod's uid, or the address where the slice names no pod.
    pub pod: String,
    /// The pod's name, or the address where the slice names no pod.
    pub name: String,
    /// Whether it is ready.
    pub ready: bool,
    /// Whether it is on its way out.
    pub terminating: bool,
}

/// Slices by namespace and Service.
#[derive(Debug)]
pub struct Slices<'a> {
    by_service: HashMap<(&'a str, &'a str), Vec<&'a EndpointSlice>>,
}

/// The proxies themselves, which must never be endpoints: a request would go round in circles.
#[derive(Debug, Default)]
pub struct Proxies {
    pods: HashSet<String>,
    addresses: HashSet<SocketAddr>,
    /// Listeners of this process, as bound.
    own: Vec<SocketAddr>,
}

impl<'a> Slices<'a> {
    /// Sorts slices by their Service; one without a Service belongs to nobody, and those of an apex Service, which lead to proxies, are
    /// nobody's endpoints.
    pub fn new(slices: &'a [Arc<EndpointSlice>]) -> Self {
        let mut by_service: HashMap<_, Vec<_>> = HashMap::new();
        for slice in slices.iter().filter(|slice| !is_of_apex(slice)) {
            if let Some(key) = owner(slice) {
                by_service.entry(key).or_default().push(slice.as_ref());
            }
        }
        Self { by_service }
    }

    /// The endpoints of the port called `port_name` (empty where it has no name), by pod; and how many were refused as proxies.
    ///
    /// A pod that is listed twice (while slices are rebalanced, or once per address family) counts once: ready before not ready,
    /// IPv4 before IPv6.
    pub fn endpoints(
        &self,
        namespace: &str,
        service: &str,
        port_name: &str,
        proxies: &Proxies,
    ) -> (Vec<Listed>, usize) {
        let mut by_pod: BTreeMap<String, Listed> = BTreeMap::new();
        let mut refused = 0;
        for slice in self.of(namespace, service) {
            let Some(port) = port_number(slice, port_name) else {
                continue;
            };
            for endpoint in &slice.endpoints {
                let Some(listed) = listed(endpoint, port) else {
                    continue;
                };
                if proxies.include(&listed) {
                    refused += 1;
                    continue;
                }
                match by_pod.get(&listed.pod) {
                    Some(known) if preference(known) <= preference(&listed) => {}
                    Some(_) | None => {
                        by_pod.insert(listed.pod.clone(), listed);
                    }
                }
            }
        }
        (by_pod.into_values().collect(), refused)
    }

    /// Distinct pods of a Service that take requests, whatever the port.
    pub fn ready_pods(&self, namespace: &str, service: &str, proxies: &Proxies) -> u32 {
        let mut pods = HashSet::new();
        for slice in self.of(namespace, service) {
            let ports = slice.ports.iter().flatten();
            for port in ports.filter_map(|port| u16::try_from(port.port?).ok()) {
                let listed = slice
                    .endpoints
                    .iter()
                    .filter_map(|endpoint| listed(endpoint, port));
                let admitting = listed.filter(|l| l.ready && !l.terminating && !proxies.include(l));
                pods.extend(admitting.map(|l| l.pod));
            }
        }
        u32::try_from(pods.len()).unwrap_or(u32::MAX)
    }

    /// Those of one Service.
    pub fn of<'s>(&'s self, namespace: &'s str, service: &'s str) -> &'s [&'a EndpointSlice] {
        let slices = self.by_service.get(&(namespace, service));
        slices.map(Vec::as_slice).unwrap_or_default()
    }
}

impl Proxies {
    /// The proxies that the slices of `services` list, and this process with the listeners `own`.
    pub fn new<'a>(
        slices: &Slices<'_>,
        services: impl Iterator<Item = (&'a str, &'a str)>,
        own: Vec<SocketAddr>,
    ) -> Self {
        let mut proxies = Self {
            own,
            ..Self::default()
        };
        for (namespace, service) in services {
            for slice in slices.of(namespace, service) {
                proxies.add(slice);
            }
        }
        proxies
    }

    fn add(&mut self, slice: &EndpointSlice) {
        for endpoint in &slice.endpoints {
            self.pods.extend(pod_uid(endpoint).map(str::to_owned));
            for port in slice.ports.iter().flatten() {
                let number = port.port.and_then(|port| u16::try_from(port).ok());
                let address = number.and_then(|port| address(endpoint, port));
                self.addresses.extend(address);
            }
        }
    }

    fn include(&self, listed: &Listed) -> bool {
        let own = |own: &SocketAddr| {
            let ip = listed.address.ip();
            own.port() == listed.address.port()
                && (own.ip() == ip || own.ip().is_unspecified() && ip.is_loopback())
        };
        self.pods.contains(&listed.pod)
            || self.addresses.contains(&listed.address)
            || self.own.iter().any(own)
    }
}

/// The namespace and Service a slice belongs to.
pub fn owner(slice: &EndpointSlice) -> Option<(&str, &str)> {
    let labels = slice.metadata.labels.as_ref()?;
    let namespace = slice.metadata.namespace.as_deref()?;
    Some((namespace, labels.get(SERVICE_NAME)?.as_str()))
}

/// Who keeps a slice.
pub fn manager(slice: &EndpointSlice) -> &str {
    let labels = slice.metadata.labels.as_ref();
    let manager = labels.and_then(|labels| labels.get(MANAGED_BY));
    manager.map(String::as_str).unwrap_or_default()
}

/// Whether the controller keeps a slice for an apex Service. That which lists the proxy of one machine is of a fleet instead.
pub fn is_of_apex(slice: &EndpointSlice) -> bool {
    let labels = slice.metadata.labels.as_ref();
    manager(slice) == US && !labels.is_some_and(|labels| labels.contains_key(labels::FLEET))
}

/// The number of the TCP port of that name.
pub fn port_number(slice: &EndpointSlice, name: &str) -> Option<u16> {
    let mut ports = slice.ports.iter().flatten();
    let port = ports.find(|port| {
        port.name.as_deref().unwrap_or_default() == name
            && port.protocol.as_deref().unwrap_or("TCP") == "TCP"
    })?;
    u16::try_from(port.port?).ok()
}

/// The endpoint's first address, which is the only one that consumers may use, with a port; `None` if nobody can connect to it.
pub fn address(endpoint: &Endpoint, port: u16) -> Option<SocketAddr> {
    let ip: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    let usable = port != 0 && !ip.is_unspecified() && !ip.is_multicast();
    usable.then(|| SocketAddr::new(ip, port))
}

/// What an endpoint says of the pod behind it; `None` if nobody can connect to it.
pub fn listed(endpoint: &Endpoint, port: u16) -> Option<Listed> {
    let address = address(endpoint, port)?;
    let conditions = endpoint.conditions.as_ref();
    Some(Listed {
        address,
        pod: pod_uid(endpoint).map_or_else(|| address.to_string(), str::to_owned),
        name: pod_name(endpoint).map_or_else(|| address.to_string(), str::to_owned),
        // An absent condition means ready (EndpointConditions in the API reference).
        ready: conditions.and_then(|c| c.ready).unwrap_or(true),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
    })
}

/// The uid of the pod behind an endpoint, where there is one.
pub fn pod_uid(endpoint: &Endpoint) -> Option<&str> {
    let target = endpoint.target_ref.as_ref()?;
    (target.kind.as_deref() == Some("Pod"))
        .then_some(target.uid.as_deref()?)
        .filter(|uid| !uid.is_empty())
}

fn pod_name(endpoint: &Endpoint) -> Option<&str> {
    endpoint.target_ref.as_ref()?.name.as_deref()
}

fn preference(listed: &Listed) -> (bool, bool, SocketAddr) {
    (!listed.ready, listed.address.is_ipv6(), listed.address)
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases are written in place")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn slice(service: &str, port: Value, endpoints: Value) -> Arc<EndpointSlice> {
        Arc::new(
            serde_json::from_value(json!({
                "metadata": {"namespace": "ns", "name": "x", "labels": {SERVICE_NAME: service}},
                "addressType": "IPv4", "ports": [port], "endpoints": endpoints,
            }))
            .unwrap(),
        )
    }

    fn pod(uid: &str, address: &str, ready: bool) -> Value {
        json!({"addresses": [address], "conditions": {"ready": ready}, "targetRef": {"kind": "Pod", "uid": uid}})
    }

    fn found(slices: &[Arc<EndpointSlice>], port: &str, proxies: &Proxies) -> Vec<String> {
        let (listed, _) = Slices::new(slices).endpoints("ns", "web", port, proxies);
        listed
            .iter()
            .map(|l| format!("{} {} {}", l.pod, l.address, l.ready))
            .collect()
    }

    #[test]
    fn a_pod_counts_once_however_often_it_is_listed() {
        let port = json!({"name": "http", "port": 80});
        let slices = [
            slice(
                "web",
                port.clone(),
                json!([pod("a", "fd00::1", true), pod("b", "10.0.0.2", false)]),
            ),
            slice(
                "web",
                port.clone(),
                json!([pod("a", "10.0.0.1", true), pod("b", "10.0.0.3", true)]),
            ),
            slice("other", port, json!([pod("c", "10.0.0.4", true)])),
        ];
        assert_eq!(
            found(&slices, "http", &Proxies::default()),
            ["a 10.0.0.1:80 true", "b 10.0.0.3:80 true"]
        );
        assert!(found(&slices, "grpc", &Proxies::default()).is_empty());
    }

    #[test]
    fn conditions_and_pods_that_are_not_said_are_taken_as_the_api_says() {
        let slices = [slice(
            "web",
            json!({"port": 80}),
            json!([{"addresses": ["10.0.0.1", "10.0.0.9"]}]),
        )];
        assert_eq!(
            found(&slices, "", &Proxies::default()),
            ["10.0.0.1:80 10.0.0.1:80 true"]
        );
    }

    #[test]
    fn what_an_apex_leads_to_is_never_an_endpoint() {
        let of = |labels: Value| {
            let pods = json!([pod("a", "10.0.0.1", true)]);
            let mut slice = EndpointSlice::clone(&slice("web", json!({"port": 80}), pods));
            let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
            slice.metadata.labels.get_or_insert_default().extend(labels);
            found(&[Arc::new(slice)], "", &Proxies::default()).len()
        };
        assert_eq!(
            of(json!({MANAGED_BY: "endpointslice-controller.k8s.io"})),
            1
        );
        assert_eq!(of(json!({MANAGED_BY: US})), 0);
        assert_eq!(of(json!({MANAGED_BY: US, labels::FLEET: "default"})), 1);
    }

    #[test]
    fn a_proxy_is_never_an_endpoint() {
        let web = slice(
            "web",
            json!({"port": 80}),
            json!([
                pod("proxy", "10.0.0.1", true),
                pod("a", "127.0.0.1", true),
                pod("b", "10.0.0.2", true)
            ]),
        );
        let fleet = slice(
            "fleet",
            json!({"name": "admin", "port": 9000}),
            json!([pod("proxy", "10.0.0.7", true)]),
        );
        let slices = [web, fleet];
        let sorted = Slices::new(&slices);
        let own = vec!["0.0.0.0:80".parse().unwrap()];
        let proxies = Proxies::new(&sorted, [("ns", "fleet")].into_iter(), own);
        assert_eq!(found(&slices, "", &proxies), ["b 10.0.0.2:80 true"]);
    }
}
