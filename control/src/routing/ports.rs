//! Which port of one Service answers for a port of another, and what a port speaks.

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use crate::api::labels;

/// What a Service port speaks towards its pods, as far as we can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 without TLS.
    H2c,
    /// TLS, which we do not speak upstream.
    Tls,
}

/// The TCP ports of a Service; a port without a protocol is TCP.
pub fn tcp_ports(service: &Service) -> Vec<&ServicePort> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter(|port| protocol(port) == "TCP")
        .collect()
}

/// The port that answers where none is named: the one called `http`, else the first.
pub fn primary<'a>(ports: &[&'a ServicePort]) -> Option<&'a ServicePort> {
    let named = ports.iter().find(|port| name(port) == "http");
    named.or_else(|| ports.first()).copied()
}

/// What a port is called in metrics and rules: its name, else its number.
pub fn label(port: &ServicePort) -> String {
    match name(port) {
        "" => port.port.to_string(),
        name => name.to_owned(),
    }
}

/// Whether `wanted`, a name or a number, means this port.
pub fn is_meant(port: &ServicePort, wanted: &str) -> bool {
    name(port) == wanted || port.port.to_string() == wanted
}

/// What the port speaks, by its `appProtocol`. Unknown protocols are taken for HTTP/1.1, as most Services name none.
pub fn speaks(port: &ServicePort) -> Speaks {
    match port.app_protocol.as_deref().unwrap_or_default() {
        "kubernetes.io/h2c" => Speaks::H2c,
        "https" | "kubernetes.io/wss" => Speaks::Tls,
        _ => Speaks::Http1,
    }
}

/// Whether the port may be taken for one of HTTP that we speak to pods: it says so, or says nothing, as most do.
pub fn is_http(port: &ServicePort) -> bool {
    let said = port.app_protocol.as_deref().unwrap_or_default();
    protocol(port) == "TCP"
        && matches!(
            said.to_ascii_lowercase().as_str(),
            "" | "http" | "kubernetes.io/ws" | "kubernetes.io/h2c"
        )
}

/// The port of `version`, a version's Service, that answers for `port` of the governed Service.
///
/// A revision Service of ours lists the ports of all governed Services by protocol and target port, under generated names, so it is
/// matched by those. Any other Service is matched as a person would: the same port name, else the same number, else its only port.
pub fn counterpart<'a>(port: &ServicePort, version: &'a Service) -> Option<&'a ServicePort> {
    let ports = tcp_ports(version);
    let find = |meant: &dyn Fn(&ServicePort) -> bool| ports.iter().copied().find(|p| meant(p));
    if is_revision_service(version) {
        return find(&|p| target(p) == target(port));
    }
    let same_name = || find(&|p| name(p) == name(port) && !name(p).is_empty());
    let same_number = || find(&|p| p.port == port.port);
    let only = || match ports.as_slice() {
        [only] => Some(*only),
        _ => None,
    };
    same_name().or_else(same_number).or_else(only)
}

/// Whether the controller keeps this Service for a revision.
pub fn is_revision_service(service: &Service) -> bool {
    let labels = service.metadata.labels.as_ref();
    labels.is_some_and(|labels| labels.contains_key(labels::REVISION_OF))
}

/// The port's name; empty where it has none.
pub fn name(port: &ServicePort) -> &str {
    port.name.as_deref().unwrap_or_default()
}

/// The port's protocol.
pub fn protocol(port: &ServicePort) -> &str {
    port.protocol.as_deref().unwrap_or("TCP")
}

/// The port's target: what it says, else its own number.
pub fn target(port: &ServicePort) -> IntOrString {
    let own = IntOrString::Int(port.port);
    match &port.target_port {
        // An API server fills in the number; 0 and the empty string are how its types say "none".
        None | Some(IntOrString::Int(0)) => own,
        Some(IntOrString::String(text)) if text.is_empty() => own,
        Some(target) => target.clone(),
    }
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases are written in place")]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(ports: Value, revision: bool) -> Service {
        let labels = if revision {
            json!({labels::REVISION_OF: "web-abc"})
        } else {
            json!({})
        };
        serde_json::from_value(
            json!({"metadata": {"name": "s", "labels": labels}, "spec": {"ports": ports}}),
        )
        .unwrap()
    }

    fn check(port: Value, version: Value, revision: bool, expected: Option<i32>) {
        let governed = service(json!([port]), false);
        let version = service(version, revision);
        let found = counterpart(tcp_ports(&governed)[0], &version).map(|p| p.port);
        assert_eq!(found, expected, "{port} in {version:?}");
    }

    #[test]
    fn a_hand_written_version_answers_by_name_then_number_then_alone() {
        let two = json!([{"name": "http", "port": 8080}, {"name": "admin", "port": 80}]);
        check(
            json!({"name": "http", "port": 80}),
            two.clone(),
            false,
            Some(8080),
        );
        check(
            json!({"name": "web", "port": 80}),
            two.clone(),
            false,
            Some(80),
        );
        check(json!({"name": "web", "port": 90}), two, false, None);
        check(
            json!({"port": 90}),
            json!([{"port": 1234}]),
            false,
            Some(1234),
        );
        check(
            json!({"port": 90}),
            json!([{"port": 90, "protocol": "UDP"}]),
            false,
            None,
        );
    }

    #[test]
    fn a_revision_service_answers_by_target_port() {
        let ports = json!([{"name": "p-0", "port": 1, "targetPort": 8080}, {"name": "p-1", "port": 2, "targetPort": "web"}]);
        check(
            json!({"name": "http", "port": 80, "targetPort": 8080}),
            ports.clone(),
            true,
            Some(1),
        );
        check(
            json!({"name": "http", "port": 80, "targetPort": "web"}),
            ports.clone(),
            true,
            Some(2),
        );
        check(
            json!({"name": "http", "port": 8080}),
            ports.clone(),
            true,
            Some(1),
        );
        check(json!({"name": "http", "port": 80}), ports, true, None);
    }

    #[test]
    fn the_primary_port_is_http_else_the_first() {
        let named = service(
            json!([{"name": "admin", "port": 1}, {"name": "http", "port": 2}]),
            false,
        );
        assert_eq!(primary(&tcp_ports(&named)).unwrap().port, 2);
        let unnamed = service(
            json!([{"name": "a", "port": 1}, {"name": "b", "port": 2}]),
            false,
        );
        assert_eq!(primary(&tcp_ports(&unnamed)).unwrap().port, 1);
    }
}
