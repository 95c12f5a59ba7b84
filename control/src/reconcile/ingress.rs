//! The load-balancer status of Ingresses: where callers find the proxies that serve them.
//!
//! A Service of the fleet's namespace that is labelled with a class is the way in for the Ingresses of that class: they carry its
//! addresses, chosen as ingress-nginx chooses those of its `--publish-service`. What stands in an Ingress of a class without such a
//! Service is somebody else's, and nothing is taken off when a controller ends: the proxies serve on.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::{Ingress, IngressLoadBalancerIngress};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::objects::{Name, Objects};
use super::{Context, Error};
use crate::api::labels;
use crate::routing::ingress::class;
use crate::wire::Collection;

/// Writes into an Ingress where its callers are to go, if it says otherwise.
///
/// # Errors
///
/// When the API server refuses, or the Ingress has changed meanwhile.
pub async fn reconcile(context: &Context, name: &Name) -> Result<(), Error> {
    let Some(ingress) = context.objects.ingresses.get(&name.namespace, &name.name) else {
        return Ok(());
    };
    let entrance = class(&ingress).and_then(|class| entrance(&context.objects, class));
    let Some(wanted) = entrance.map(|service| addresses(&service)) else {
        return Ok(());
    };
    if wanted == standing(&ingress) {
        return Ok(());
    }
    let patch = json!({
        "metadata": {"resourceVersion": ingress.metadata.resource_version},
        "status": {"loadBalancer": {"ingress": wanted}},
    });
    let api = Collection::<Ingress>::within(&context.client, &name.namespace);
    api.patch_status(&name.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|source| Error::api(format!("Ingress {name}"), source))?;
    Ok(())
}

/// The class whose Ingresses carry the addresses of a Service.
pub fn class_of(service: &Service) -> Option<&str> {
    let label = service.labels().get(labels::INGRESS_CLASS);
    label.map(String::as_str)
}

/// Leaves of an Ingress what is looked at: its class, and what its status says.
pub fn trim(ingress: &mut Value) {
    if let Some(Value::Object(spec)) = ingress.pointer_mut("/spec") {
        spec.retain(|field, _| field == "ingressClassName");
    }
}

/// The way in for a class; of several Services the oldest.
fn entrance(objects: &Objects, class: &str) -> Option<Arc<Service>> {
    let all = objects.entrances.all();
    let of_class = all.filter(|service| class_of(service) == Some(class));
    of_class.min_by_key(|service| {
        let created = service.metadata.creation_timestamp.as_ref();
        (created.map(|time| time.0), service.name_any())
    })
}

fn standing(ingress: &Ingress) -> Vec<IngressLoadBalancerIngress> {
    let status = ingress.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let addresses = balancer.and_then(|balancer| balancer.ingress.clone());
    addresses.unwrap_or_default()
}

/// Where callers reach a Service, sorted: what its annotation says, else by its type.
fn addresses(service: &Service) -> Vec<IngressLoadBalancerIngress> {
    let mut found = match service.annotations().get(labels::ADDRESSES) {
        Some(said) => said.split(',').map(str::trim).map(address).collect(),
        None => by_type(service),
    };
    found.retain(|address| *address != IngressLoadBalancerIngress::default());
    found.sort_by(|a, b| (&a.ip, &a.hostname).cmp(&(&b.ip, &b.hostname)));
    found.dedup();
    found
}

fn by_type(service: &Service) -> Vec<IngressLoadBalancerIngress> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let external = spec.external_ips.iter().flatten();
    let external: Vec<_> = external.map(|ip| address(ip)).collect();
    let cluster = spec.cluster_ip.iter().filter(|ip| *ip != "None");
    let cluster = || cluster.map(|ip| address(ip)).collect();
    match spec.type_.as_deref() {
        Some("LoadBalancer") => [balanced(service), external].concat(),
        Some("ExternalName") => spec
            .external_name
            .iter()
            .map(|name| address(name))
            .collect(),
        Some("NodePort") if !external.is_empty() => external,
        Some(_) | None => cluster(),
    }
}

/// What the load balancer answers at.
fn balanced(service: &Service) -> Vec<IngressLoadBalancerIngress> {
    let status = service.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let places = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let places = places.into_iter().flatten();
    let places = places.filter_map(|place| place.ip.as_deref().or(place.hostname.as_deref()));
    places.map(address).collect()
}

/// An IP address, or else a name.
fn address(text: &str) -> IngressLoadBalancerIngress {
    let is_ip = text.parse::<std::net::IpAddr>().is_ok();
    let text = (!text.is_empty()).then(|| text.to_owned());
    let (ip, hostname) = if is_ip { (text, None) } else { (None, text) };
    IngressLoadBalancerIngress {
        ip,
        hostname,
        ports: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn shown(service: Value) -> Vec<String> {
        let service: Service = serde_json::from_value(service).unwrap();
        let show = |address: IngressLoadBalancerIngress| match (address.ip, address.hostname) {
            (Some(ip), None) => ip,
            (None, Some(name)) => format!("name {name}"),
            other => format!("{other:?}"),
        };
        addresses(&service).into_iter().map(show).collect()
    }

    #[test]
    fn callers_go_where_the_service_is_reached() {
        let balancer = |places: Value| json!({"loadBalancer": {"ingress": places}});
        let two = json!([{"ip": "203.0.113.9"}, {"hostname": "lb.example"}, {"ip": "203.0.113.1", "hostname": "x.example"}]);
        for (type_, more, status, expected) in [
            (
                "LoadBalancer",
                json!({}),
                balancer(two),
                vec!["name lb.example", "203.0.113.1", "203.0.113.9"],
            ),
            ("LoadBalancer", json!({}), json!({}), vec![]),
            (
                "LoadBalancer",
                json!({"externalIPs": ["198.51.100.1"]}),
                balancer(json!([{"ip": "203.0.113.1"}])),
                vec!["198.51.100.1", "203.0.113.1"],
            ),
            (
                "NodePort",
                json!({"externalIPs": ["198.51.100.1"]}),
                json!({}),
                vec!["198.51.100.1"],
            ),
            ("NodePort", json!({}), json!({}), vec!["10.96.0.1"]),
            (
                "ClusterIP",
                json!({"externalIPs": ["198.51.100.1"]}),
                json!({}),
                vec!["10.96.0.1"],
            ),
            ("ClusterIP", json!({"clusterIP": "None"}), json!({}), vec![]),
            (
                "ExternalName",
                json!({"clusterIP": null, "externalName": "edge.example"}),
                json!({}),
                vec!["name edge.example"],
            ),
        ] {
            let mut spec = json!({"type": type_, "clusterIP": "10.96.0.1"});
            let more = more.as_object().unwrap().clone();
            spec.as_object_mut().unwrap().extend(more);
            let service = json!({"metadata": {"name": "edge"}, "spec": spec, "status": status});
            assert_eq!(shown(service.clone()), expected, "{service}");
        }
    }

    #[test]
    fn what_the_annotation_says_counts() {
        let service = |said: &str| {
            json!({
                "metadata": {"name": "edge", "annotations": {"sidestep.dev/addresses": said}},
                "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.1"},
            })
        };
        let said = "edge.example, 203.0.113.1,2001:db8::1";
        let expected = ["name edge.example", "2001:db8::1", "203.0.113.1"];
        assert_eq!(shown(service(said)), expected);
        assert_eq!(shown(service("")), [""; 0]);
    }

    #[test]
    fn of_an_ingress_class_and_status_are_kept() {
        let mut ingress = json!({
            "metadata": {"name": "web", "resourceVersion": "7", "annotations": {"kubernetes.io/ingress.class": "old"}},
            "spec": {"ingressClassName": "sidestep", "rules": [{"host": "web.example"}], "tls": [{"secretName": "web"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}},
        });
        trim(&mut ingress);
        let ingress: Ingress = serde_json::from_value(ingress).unwrap();
        assert_eq!(class(&ingress), Some("sidestep"));
        assert_eq!(standing(&ingress), [address("203.0.113.1")]);
        let spec = ingress.spec.unwrap();
        assert_eq!((spec.rules, spec.tls), (None, None));
    }
}
