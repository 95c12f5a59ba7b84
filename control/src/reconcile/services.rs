//! Revision Services, and the selectors of Services that a Rollout no longer names.
//!
//! A revision Service lists one revision's ready pods and never changes its selector, so no request depends on a selector being
//! re-pointed. It is headless, owned by its ReplicaSet, and carries no label but ours: copied ones would make monitors scrape twice.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ObjectMeta, Patch, PatchParams};
use serde_json::json;

use super::objects::{Name, controller_of, services_of};
use super::{Context, Error};
use crate::api::{ReplicaSet, Rollout, labels};
use crate::routing::ports;
use crate::wire::Collection;

/// The longest part of the ReplicaSet's name that is kept: with `-rev-`, six characters of its uid and a letter in front it fits 63.
const NAME_KEPT: usize = 50;
/// Longest label value.
const LABEL_MAX: usize = 63;

/// A target port that a revision must be reachable on: protocol and target, as text for a stable order.
pub type Target = (String, String);

/// The targets of all ports of the governed Services.
pub fn targets<'a>(governed: impl Iterator<Item = &'a Service>) -> BTreeSet<Target> {
    let ports = governed.flat_map(|service| {
        service
            .spec
            .iter()
            .flat_map(|spec| spec.ports.iter().flatten())
    });
    ports
        .map(|port| {
            (
                ports::protocol(port).to_owned(),
                target_text(&ports::target(port)),
            )
        })
        .collect()
}

/// The revision Service that a ReplicaSet should have.
pub fn wanted(set: &ReplicaSet, targets: &BTreeSet<Target>) -> Service {
    let metadata = &set.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let mut label = name.clone();
    label.truncate(LABEL_MAX);
    let label = label
        .trim_end_matches(|c: char| !c.is_ascii_alphanumeric())
        .to_owned();
    Service {
        metadata: ObjectMeta {
            name: Some(name_of(set)),
            namespace: metadata.namespace.clone(),
            labels: Some(BTreeMap::from([(labels::REVISION_OF.to_owned(), label)])),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "ReplicaSet".to_owned(),
                name,
                uid: metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(false),
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            type_: Some("ClusterIP".to_owned()),
            selector: set.spec.selector.match_labels.clone(),
            publish_not_ready_addresses: Some(false),
            ip_family_policy: Some("SingleStack".to_owned()),
            ports: Some(service_ports(targets)),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

/// The name of a ReplicaSet's revision Service: a DNS-1035 label, which the ReplicaSet's own name need not be.
pub fn name_of(set: &ReplicaSet) -> String {
    let name = set.metadata.name.as_deref().unwrap_or_default();
    let uid = set.metadata.uid.as_deref().unwrap_or_default();
    let kept: String = name.chars().take(NAME_KEPT).map(label_character).collect();
    let short: String = uid
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .take(6)
        .collect();
    let front = if kept.starts_with(|c: char| c.is_ascii_lowercase()) {
        ""
    } else {
        "r"
    };
    format!("{front}{kept}-rev-{}", short.to_ascii_lowercase())
}

/// Whether an existing Service is what is wanted; fields that an API server fills in are left alone.
pub fn is_as_wanted(existing: &Service, wanted: &Service) -> bool {
    let part = |service: &Service| {
        let spec = service.spec.clone().unwrap_or_default();
        let ports = spec.ports.unwrap_or_default();
        let ports: BTreeSet<_> = ports
            .iter()
            .map(|port| {
                (
                    ports::name(port).to_owned(),
                    ports::protocol(port).to_owned(),
                    port.port,
                    target_text(&ports::target(port)),
                )
            })
            .collect();
        (
            spec.selector,
            ports,
            spec.publish_not_ready_addresses.unwrap_or(false),
        )
    };
    is_owned_alike(existing, wanted) && part(existing) == part(wanted)
}

/// Whether an existing Service belongs to the ReplicaSet that the wanted one belongs to.
pub fn is_owned_alike(existing: &Service, wanted: &Service) -> bool {
    let owner = |service: &Service| controller_of(&service.metadata).map(|owner| owner.uid.clone());
    owner(existing) == owner(wanted)
}

/// Takes the hash out of a Service's selector once no Rollout names the Service any more (R15.4).
///
/// # Errors
///
/// When the API server refuses, or the Service has changed meanwhile.
pub async fn release(context: &Context, name: &Name) -> Result<Option<Timestamp>, Error> {
    let objects = &context.objects;
    let Some(service) = objects.services.get(&name.namespace, &name.name) else {
        return Ok(None);
    };
    let annotations = service.metadata.annotations.as_ref();
    let Some(manager) = annotations.and_then(|annotations| annotations.get(labels::MANAGED_BY))
    else {
        return Ok(None);
    };
    if let Some(rollout) = manager_of(context, &name.namespace, manager).await?
        && services_of(&rollout).contains(&name.name)
    {
        return Ok(None);
    }
    let patch = json!({
        "metadata": {"resourceVersion": service.metadata.resource_version, "annotations": {labels::MANAGED_BY: null}},
        "spec": {"selector": {labels::POD_TEMPLATE_HASH: null}},
    });
    let api = Collection::<Service>::within(&context.client, &name.namespace);
    api.patch(&name.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .map_err(|source| Error::api(format!("Service {name}"), source))?;
    Ok(None)
}

/// The Rollout that a Service is annotated with. One that is not ours to look after, by its instance id, is there all the same.
async fn manager_of(
    context: &Context,
    namespace: &str,
    name: &str,
) -> Result<Option<Arc<Rollout>>, Error> {
    if let Some(known) = context.objects.rollouts.get(namespace, name) {
        return Ok(Some(known));
    }
    let rollouts = Collection::<Rollout>::within(&context.client, namespace);
    let found = rollouts.get_opt(name).await;
    let found =
        found.map_err(|source| Error::api(format!("Rollout {namespace}/{name}"), source))?;
    Ok(found.map(Arc::new))
}

/// One port per target, with a name that says which: so a port keeps its name when others come and go.
fn service_ports(targets: &BTreeSet<Target>) -> Vec<ServicePort> {
    let mut used = BTreeSet::new();
    let mut ports = Vec::new();
    for (protocol, target) in targets {
        let number: Option<i32> = target.parse().ok();
        // Nobody connects to a headless Service's port number; it only has to be unique.
        let free = || (1..).find(|port| !used.contains(&(protocol.clone(), *port)));
        let Some(port) = number.or_else(free) else {
            continue;
        };
        used.insert((protocol.clone(), port));
        ports.push(ServicePort {
            name: Some(format!("{}-{target}", protocol.to_ascii_lowercase())),
            protocol: Some(protocol.clone()),
            port,
            target_port: Some(
                number.map_or_else(|| IntOrString::String(target.clone()), IntOrString::Int),
            ),
            ..ServicePort::default()
        });
    }
    ports
}

fn target_text(target: &IntOrString) -> String {
    match target {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(name) => name.clone(),
    }
}

fn label_character(c: char) -> char {
    let c = c.to_ascii_lowercase();
    if c.is_ascii_alphanumeric() { c } else { '-' }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(name: &str) -> ReplicaSet {
        let mut set = ReplicaSet::default();
        set.metadata.name = Some(name.to_owned());
        set.metadata.namespace = Some("ns".to_owned());
        set.metadata.uid = Some("1A2b3c4d-5e".to_owned());
        set.spec.selector.match_labels =
            Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        set
    }

    #[test]
    fn names_are_dns_labels_whatever_the_replica_set_is_called() {
        let check = |name: &str, expected: &str| {
            let found = name_of(&set(name));
            assert_eq!(found, expected);
            assert!(found.len() <= 63);
        };
        check("web-abc", "web-abc-rev-1a2b3c");
        check("9.web", "r9-web-rev-1a2b3c");
        let long = format!("7{}", "x".repeat(80));
        check(&long, &format!("r7{}-rev-1a2b3c", "x".repeat(49)));
    }

    fn governed() -> Vec<Service> {
        let service = |ports: serde_json::Value| {
            serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": {"ports": ports}}))
                .unwrap()
        };
        vec![
            service(
                json!([{"name": "http", "port": 80, "targetPort": "web"}, {"name": "admin", "port": 81}]),
            ),
            service(
                json!([{"port": 8080, "targetPort": "web"}, {"port": 1, "targetPort": 9, "protocol": "UDP"}]),
            ),
        ]
    }

    #[test]
    fn its_ports_are_those_of_all_governed_services_once() {
        let service = wanted(&set("web-abc"), &targets(governed().iter()));
        let spec = service.spec.as_ref().unwrap();
        let ports: Vec<_> = spec
            .ports
            .iter()
            .flatten()
            .map(|p| (p.name.clone().unwrap(), p.port))
            .collect();
        assert_eq!(
            ports,
            [
                ("tcp-81".into(), 81),
                ("tcp-web".into(), 1),
                ("udp-9".into(), 9)
            ]
        );
        assert_eq!(spec.cluster_ip.as_deref(), Some("None"));
        for governed in governed() {
            for port in ports::tcp_ports(&governed) {
                assert!(ports::counterpart(port, &service).is_some(), "{port:?}");
            }
        }
    }

    #[test]
    fn what_the_server_fills_in_is_no_difference_and_a_new_port_is() {
        let set = set("web-abc");
        let first = wanted(&set, &targets(governed()[..1].iter()));
        let mut stored = first.clone();
        let spec = stored.spec.as_mut().unwrap();
        spec.session_affinity = Some("None".to_owned());
        spec.cluster_ips = Some(vec!["None".to_owned()]);
        spec.publish_not_ready_addresses = None;
        assert!(is_as_wanted(&stored, &first));
        assert!(!is_as_wanted(
            &stored,
            &wanted(&set, &targets(governed().iter()))
        ));
        let mut foreign = stored;
        foreign.metadata.owner_references = None;
        assert!(!is_as_wanted(&foreign, &first));
    }
}
