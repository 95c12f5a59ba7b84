//! Plays the EndpointSlice controller, with one slice for each pod of a Service.
//!
//! All pods share the address 127.0.0.1 and differ by port, and a slice has one list of ports for all of its endpoints: hence a slice
//! per pod. A pod has one port, whatever its containers name. So every TCP port of a Service leads to it, under the Service's own name
//! for that port; a `targetPort` by name must be the name of a port of the container, as in Kubernetes, or that port is left out.
//!
//! A Service without selector is left alone, and so are slices of others.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds;
use super::owners;
use super::pods;
use super::podstatus::condition_is_true;
use super::store::{self, Change, Error, Object, Store};
use super::workloads::{Again, Key, Player};

/// The EndpointSlice controller.
#[derive(Debug)]
pub(super) struct Slices;

impl Player for Slices {
    fn all(&mut self, store: &Store) -> Vec<Key> {
        store
            .list(&kinds::SERVICE, None)
            .objects
            .iter()
            .map(Key::of)
            .collect()
    }

    fn concerned(&mut self, store: &Store, change: &Change) -> Vec<Key> {
        let namespace = store::text(&change.object, "namespace");
        if change.kind == &kinds::SERVICE {
            return vec![Key::of(&change.object)];
        }
        if change.kind == &kinds::ENDPOINT_SLICE {
            let service = change.object["metadata"]["labels"][SERVICE_NAME].as_str();
            let key = |name: &str| Key {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            };
            return service.map(key).into_iter().collect();
        }
        if change.kind != &kinds::POD {
            return Vec::new();
        }
        let states = [Some(&change.object), change.previous.as_ref()];
        let services = store.list(&kinds::SERVICE, Some(namespace)).objects;
        let concerned = services
            .iter()
            .filter(|service| states.iter().flatten().any(|pod| selects(service, pod)));
        concerned.map(Key::of).collect()
    }

    fn settle(&mut self, store: &Store, key: &Key, _: Timestamp) -> Result<Again, Error> {
        let Some(service) = store.get(&kinds::SERVICE, &key.namespace, &key.name) else {
            return Ok(None);
        };
        if store::is_deleting(&service)
            || service["spec"].get("selector").is_none_or(Value::is_null)
        {
            return Ok(None);
        }
        let pods = store.list(&kinds::POD, Some(&key.namespace)).objects;
        let wanted: Vec<Value> = pods
            .iter()
            .filter(|pod| selects(&service, pod))
            .filter_map(|pod| slice(&service, pod))
            .collect();
        let mut present = store
            .list(&kinds::ENDPOINT_SLICE, Some(&key.namespace))
            .objects;
        present.retain(|slice| is_ours(slice, &key.name));
        for slice in &present {
            if !wanted
                .iter()
                .any(|wanted| store::text(wanted, "name") == store::text(slice, "name"))
            {
                owners::delete(store, &kinds::ENDPOINT_SLICE, slice)?;
            }
        }
        for wanted in wanted {
            write(store, &present, wanted)?;
        }
        Ok(None)
    }
}

/// Whether a Service's selector selects a pod. An empty selector is none.
fn selects(service: &Value, pod: &Value) -> bool {
    let Some(wanted) = service["spec"]["selector"]
        .as_object()
        .filter(|wanted| !wanted.is_empty())
    else {
        return false;
    };
    if service["spec"]["type"] == "ExternalName" {
        return false;
    }
    let labels = pod.pointer("/metadata/labels");
    wanted
        .iter()
        .all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value))
}

fn is_ours(slice: &Value, service: &str) -> bool {
    let labels = &slice["metadata"]["labels"];
    labels[SERVICE_NAME] == service && labels[MANAGED_BY] == US
}

fn write(store: &Store, present: &[Object], wanted: Value) -> Result<(), Error> {
    let name = store::text(&wanted, "name").to_owned();
    if !present
        .iter()
        .any(|slice| store::text(slice, "name") == name)
    {
        return store.create(&kinds::ENDPOINT_SLICE, wanted).map(drop);
    }
    let update = store.update(
        &kinds::ENDPOINT_SLICE,
        store::text(&wanted, "namespace"),
        &name,
        None,
        |slice| {
            for field in ["endpoints", "ports"] {
                slice[field] = wanted[field].clone();
            }
            slice["metadata"]["labels"] = wanted["metadata"]["labels"].clone();
        },
    );
    match update {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()), // Gone meanwhile: its deletion brings us back here.
        Err(error) => Err(error),
    }
}

/// The slice for a pod, if the pod can have one: it has an address and has not ended.
fn slice(service: &Value, pod: &Value) -> Option<Value> {
    let port: u16 = pod["metadata"]["annotations"][pods::PORT]
        .as_str()?
        .parse()
        .ok()?;
    let address = pod["status"]["podIP"].as_str()?;
    if owners::has_ended(pod) {
        return None;
    }
    let serving = condition_is_true(pod, "Ready");
    let terminating = store::is_deleting(pod);
    let ready = service["spec"]["publishNotReadyAddresses"] == true || serving && !terminating;
    let mut labels = json!({SERVICE_NAME: service["metadata"]["name"], MANAGED_BY: US});
    if service["spec"]["clusterIP"] == "None" {
        labels[HEADLESS] = json!("");
    }
    Some(json!({
        "metadata": {
            "name": name(service, pod), "namespace": service["metadata"]["namespace"], "labels": labels,
            "ownerReferences": [owners::controller_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": [{
            "addresses": [address],
            "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
            "nodeName": pod["spec"]["nodeName"],
            "targetRef": {
                "kind": "Pod", "namespace": pod["metadata"]["namespace"],
                "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
            },
        }],
        "ports": ports(service, pod, port),
    }))
}

/// The name of a pod's slice: the Service's, and the pod's uid without its hyphens, which no other pod has.
fn name(service: &Value, pod: &Value) -> String {
    let uid: String = store::text(pod, "uid")
        .chars()
        .filter(|letter| *letter != '-')
        .collect();
    format!("{}-{uid}", store::text(service, "name"))
}

fn ports(service: &Value, pod: &Value, port: u16) -> Vec<Value> {
    let ports = service["spec"]["ports"].as_array().into_iter().flatten();
    let tcp = ports.filter(|port| matches!(port["protocol"].as_str(), None | Some("TCP")));
    tcp.filter(|port| has_target(pod, &port["targetPort"]))
        .map(|of_service| {
            let name = of_service["name"].as_str().unwrap_or_default();
            let mut of_slice = json!({"name": name, "protocol": "TCP", "port": port});
            if let Some(protocol) = of_service.get("appProtocol") {
                of_slice["appProtocol"] = protocol.clone();
            }
            of_slice
        })
        .collect()
}

/// A number always leads to the pod's port; a name must be one of its container's.
fn has_target(pod: &Value, target: &Value) -> bool {
    let Some(name) = target.as_str() else {
        return true;
    };
    let ports = pod["spec"]["containers"][0]["ports"]
        .as_array()
        .into_iter()
        .flatten();
    name.parse::<u16>().is_ok() || ports.into_iter().any(|port| port["name"] == name)
}

const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// Who manages these slices: the controller that is played here.
const US: &str = "endpointslice-controller.k8s.io";

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: &Value) -> Value {
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop", "uid": "s"}, "spec": spec})
    }

    fn pod(ready: &str, deleting: bool) -> Value {
        let mut pod = json!({
            "metadata": {"name": "web-x", "namespace": "shop", "uid": "0-1", "annotations": {"sidestep.dev/port": "8001"}},
            "spec": {"nodeName": "sidestep", "containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": {"podIP": "127.0.0.1", "phase": "Running", "conditions": [{"type": "Ready", "status": ready}]},
        });
        if deleting {
            pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        }
        pod
    }

    #[test]
    fn a_slice_has_its_pods_own_port() {
        let service =
            service(&json!({"ports": [{"name": "http", "port": 80, "targetPort": "http"}]}));
        insta::assert_snapshot!(slice(&service, &pod("True", false)).unwrap().to_string(), @r#"{"metadata":{"name":"web-01","namespace":"shop","labels":{"kubernetes.io/service-name":"web","endpointslice.kubernetes.io/managed-by":"endpointslice-controller.k8s.io"},"ownerReferences":[{"apiVersion":"v1","kind":"Service","name":"web","uid":"s","controller":true,"blockOwnerDeletion":true}]},"addressType":"IPv4","endpoints":[{"addresses":["127.0.0.1"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"sidestep","targetRef":{"kind":"Pod","namespace":"shop","name":"web-x","uid":"0-1"}}],"ports":[{"name":"http","protocol":"TCP","port":8001}]}"#);
    }

    #[test]
    fn conditions_are_those_of_kubernetes() {
        let conditions = |publish: bool, pod: &Value| {
            let service = service(&json!({"publishNotReadyAddresses": publish}));
            let of = slice(&service, pod).unwrap()["endpoints"][0]["conditions"].clone();
            ["ready", "serving", "terminating"].map(|condition| of[condition].as_bool().unwrap())
        };
        let check = |publish, pod: Value, expected: [bool; 3]| {
            assert_eq!(conditions(publish, &pod), expected, "{pod}")
        };
        check(false, pod("True", false), [true, true, false]);
        check(false, pod("False", false), [false, false, false]);
        check(false, pod("True", true), [false, true, true]);
        check(false, pod("False", true), [false, false, true]);
        check(true, pod("False", true), [true, false, true]);
    }

    #[test]
    fn every_port_that_the_pod_knows_leads_to_its_one_port() {
        let check = |ports: Value, expected: &[(&str, u16)]| {
            let service = service(&json!({"ports": ports}));
            let found = slice(&service, &pod("True", false)).unwrap()["ports"].clone();
            let expected: Vec<Value> = expected
                .iter()
                .map(|(name, port)| json!({"name": name, "protocol": "TCP", "port": port}))
                .collect();
            assert_eq!(found, Value::Array(expected), "{ports}");
        };
        check(json!([{"port": 80}]), &[("", 8001)]);
        check(
            json!([{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 9090}]),
            &[("a", 8001), ("b", 8001)],
        );
        check(
            json!([{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81, "targetPort": "grpc"}]),
            &[("a", 8001)],
        );
        check(json!([{"name": "dns", "port": 53, "protocol": "UDP"}]), &[]);
    }
}
