//! Where the server of a pod listens, and which of its ports a probe or hook means.

use std::net::{IpAddr, SocketAddr};

use serde_json::Value;

/// Where the server of a pod listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The pod's address.
    pub address: IpAddr,
    /// The port that `PORT` names: one it was given, or its container's first.
    pub port: u16,
    /// It was given its one port, whatever its container calls its ports.
    pub is_given: bool,
}

impl Place {
    /// Where to ask a question that names this port of the container, or none.
    pub fn of(self, named: Option<u16>) -> SocketAddr {
        let named = named.filter(|_| !self.is_given);
        SocketAddr::new(self.address, named.unwrap_or(self.port))
    }
}

/// The port that a probe or hook names, by number or by a name among the container's ports.
pub fn named(port: &Value, container: &Value) -> Option<u16> {
    let number = |port: &Value| port.as_u64().and_then(|port| u16::try_from(port).ok());
    match port.as_str() {
        None => number(port),
        Some(name) => {
            let mut ports = container["ports"].as_array().into_iter().flatten();
            let found = ports.find(|port| port["name"] == name);
            found.map_or_else(
                || name.parse().ok(),
                |found| number(&found["containerPort"]),
            )
        }
    }
}

/// All ports of a container, in its order.
pub fn all(container: &Value) -> Vec<u16> {
    let ports = container["ports"].as_array().into_iter().flatten();
    let tcp = ports.filter(|port| matches!(port["protocol"].as_str(), None | Some("TCP")));
    tcp.filter_map(|port| named(&port["containerPort"], container))
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_port_is_meant_by_its_number_or_its_name() {
        let container = json!({"ports": [
            {"name": "http", "containerPort": 8001}, {"containerPort": 8002},
            {"name": "dns", "containerPort": 53, "protocol": "UDP"},
        ]});
        let check = |port: Value, expected: Option<u16>| {
            assert_eq!(named(&port, &container), expected, "{port}");
        };
        check(json!(9000), Some(9000));
        check(json!("9000"), Some(9000));
        check(json!("http"), Some(8001));
        check(json!("admin"), None);
        check(json!(null), None);
        check(json!(70_000), None);
        assert_eq!(all(&container), [8001, 8002]);
    }

    #[test]
    fn a_pod_that_was_given_its_port_has_no_other() {
        let check = |is_given: bool, named: Option<u16>, expected: &str| {
            let place = Place {
                address: [10, 244, 0, 1].into(),
                port: 8001,
                is_given,
            };
            assert_eq!(
                place.of(named).to_string(),
                expected,
                "{is_given} {named:?}"
            );
        };
        check(true, Some(9000), "10.244.0.1:8001");
        check(false, Some(9000), "10.244.0.1:9000");
        check(false, None, "10.244.0.1:8001");
    }
}
