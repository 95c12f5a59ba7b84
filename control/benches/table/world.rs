//! What is there: Rollouts in the middle of an update, as an API server hands their objects out.

use std::sync::Arc;

use anyhow::Context;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sidestep_control::routing::Snapshot;

/// A kind that routing reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Collection {
    Services,
    Slices,
    Splits,
    Ingresses,
}

/// A change of one object.
pub(crate) struct Change {
    /// What it is, for people.
    pub(crate) name: &'static str,
    /// Whose watch tells it.
    pub(crate) collection: Collection,
    /// The object as it is after that many changes, and what has become of it.
    pub(crate) event: fn(usize) -> Value,
}

/// The changes that are measured.
pub(crate) const CHANGES: [Change; 4] = [
    Change {
        name: "a pod of a canary becomes unready (EndpointSlice)",
        collection: Collection::Slices,
        event: |number| modified(&slice(number, VERSIONS[1], false, number)),
    },
    Change {
        name: "a weight (Split)",
        collection: Collection::Splits,
        event: |number| modified(&split(number, 10 + number % 50, number)),
    },
    Change {
        name: "a port of a revision's Service (Service)",
        collection: Collection::Services,
        event: |number| modified(&revision_service(number, VERSIONS[1], 8081, number)),
    },
    Change {
        name: "a path (Ingress)",
        collection: Collection::Ingresses,
        event: |number| modified(&ingress(number, &format!("/at-{number}"), number)),
    },
];

/// Name of a version and the hash of its revision.
type Version = (&'static str, &'static str);

const VERSIONS: [Version; 2] = [("stable", "65b9bbf8c9"), ("canary", "7d9f8c6b5d")];
const PODS: usize = 2;

impl Collection {
    /// The one at a path of the API.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path {
            "/api/v1/services" => Some(Self::Services),
            "/apis/discovery.k8s.io/v1/endpointslices" => Some(Self::Slices),
            "/apis/sidestep.dev/v1alpha1/splits" => Some(Self::Splits),
            "/apis/networking.k8s.io/v1/ingresses" => Some(Self::Ingresses),
            _ => None,
        }
    }

    /// All objects of it, for that many Rollouts.
    pub(crate) fn objects(self, rollouts: usize) -> Vec<Value> {
        let of = |number: usize| match self {
            Self::Services => services(number),
            Self::Slices => VERSIONS
                .map(|version| slice(number, version, true, 0))
                .to_vec(),
            Self::Splits => vec![split(number, 5, 0)],
            Self::Ingresses => vec![ingress(number, "/", 0)],
        };
        (0..rollouts).flat_map(of).collect()
    }

    /// The answer to a list.
    pub(crate) fn list(self, rollouts: usize) -> Value {
        json!({"metadata": {"resourceVersion": "1000"}, "items": self.objects(rollouts)})
    }
}

/// What routing would know of that many Rollouts.
///
/// # Errors
/// An object of ours that does not fit its type.
pub(crate) fn snapshot(rollouts: usize) -> anyhow::Result<Snapshot> {
    Ok(Snapshot {
        services: typed(Collection::Services, rollouts)?,
        slices: typed(Collection::Slices, rollouts)?,
        splits: typed(Collection::Splits, rollouts)?,
        ingresses: typed(Collection::Ingresses, rollouts)?,
        ..Snapshot::default()
    })
}

fn typed<K: DeserializeOwned>(
    collection: Collection,
    rollouts: usize,
) -> anyhow::Result<Vec<Arc<K>>> {
    let objects = collection.objects(rollouts).into_iter();
    let typed = objects.map(|object| serde_json::from_value(object).map(Arc::new));
    typed
        .collect::<Result<_, _>>()
        .context("an object of the bench's own")
}

fn modified(object: &Value) -> Value {
    json!({"type": "MODIFIED", "object": object})
}

/// The Services that people call, and one per revision.
fn services(number: usize) -> Vec<Value> {
    let stable = called_service(number, "", VERSIONS[0]);
    let canary = called_service(number, "-canary", VERSIONS[1]);
    let revisions = VERSIONS.map(|version| revision_service(number, version, 8080, 0));
    [stable, canary].into_iter().chain(revisions).collect()
}

fn called_service(number: usize, suffix: &str, (_, hash): Version) -> Value {
    let name = format!("{}{suffix}", rollout(number));
    json!({
        "metadata": metadata(&name, number, 0, "kubectl"),
        "spec": {
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "type": "ClusterIP", "sessionAffinity": "None",
            "selector": {"app": rollout(number), "rollouts-pod-template-hash": hash},
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

fn revision_service(number: usize, version: Version, port: u16, change: usize) -> Value {
    let name = revision(number, version);
    let mut metadata = metadata(&name, number, change, "sidestep");
    metadata["labels"] = json!({"sidestep.dev/revision-of": name});
    json!({
        "metadata": metadata,
        "spec": {
            "clusterIP": "None", "clusterIPs": ["None"], "internalTrafficPolicy": "Cluster", "ipFamilies": ["IPv4"],
            "ipFamilyPolicy": "SingleStack", "type": "ClusterIP", "sessionAffinity": "None",
            "selector": {"app": rollout(number), "rollouts-pod-template-hash": version.1},
            "ports": [{"name": "tcp-8080", "port": port, "protocol": "TCP", "targetPort": 8080}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// The ready pods of a revision.
fn slice(number: usize, version: Version, ready: bool, change: usize) -> Value {
    let service = revision(number, version);
    let name = format!("{service}-x7k2p");
    let mut metadata = metadata(&name, number, change, "kube-controller-manager");
    metadata["generateName"] = format!("{service}-").into();
    metadata["labels"] = json!({
        "kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "service.kubernetes.io/headless": "", "sidestep.dev/revision-of": service,
    });
    let endpoint = |pod: usize| {
        let ready = ready || pod > 0;
        let address = [
            number / 250,
            number % 250,
            pod + if version == VERSIONS[0] { 1 } else { 101 },
        ];
        json!({
            "addresses": [format!("10.{}.{}.{}", address[0], address[1], address[2])],
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
            "nodeName": format!("node-{}", number % 50), "zone": "zone-a",
            "targetRef": {
                "kind": "Pod", "namespace": namespace(number), "name": format!("{}-{}-{pod}xk2p", rollout(number), version.1),
                "uid": uid(&format!("{service}{pod}")),
            },
        })
    };
    json!({
        "metadata": metadata, "addressType": "IPv4", "ports": [{"name": "tcp-8080", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..PODS).map(endpoint).collect::<Vec<_>>(),
    })
}

fn split(number: usize, weight: usize, change: usize) -> Value {
    let name = rollout(number);
    let version = |version: Version| json!({"name": version.0, "revision": version.1, "service": revision(number, version), "needed": 1});
    let rules = json!([
        {"services": [name], "weights": {"stable": 100 - weight, "canary": weight}},
        {"services": [format!("{name}-canary")], "weights": {"canary": 100}},
    ]);
    let mut metadata = metadata(&name, number, change, "sidestep");
    metadata["generation"] = (3 + change).into();
    json!({
        "metadata": metadata,
        "spec": {"fleet": "default", "versions": VERSIONS.map(version), "rules": rules},
        "status": {"observedGeneration": 3, "verified": {"generation": 3, "at": "2026-01-01T00:00:00Z"}},
    })
}

fn ingress(number: usize, path: &str, change: usize) -> Value {
    let name = rollout(number);
    let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
    json!({
        "metadata": metadata(&name, number, change, "kubectl"),
        "spec": {
            "ingressClassName": "sidestep",
            "rules": [{"host": format!("{name}.example"), "http": {"paths": [{"path": path, "pathType": "Prefix", "backend": backend}]}}],
        },
        "status": {"loadBalancer": {}},
    })
}

/// Metadata as an API server keeps it, with the record of who has set which field.
fn metadata(name: &str, number: usize, change: usize, manager: &str) -> Value {
    let fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:app": {}}, "f:ownerReferences": {".": {}, "k:{\"uid\":\"9c5e\"}": {}}},
        "f:spec": {"f:internalTrafficPolicy": {}, "f:ports": {".": {}, "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {},
            "f:port": {}, "f:protocol": {}, "f:targetPort": {}}}, "f:selector": {}, "f:sessionAffinity": {}, "f:type": {}},
    });
    json!({
        "name": name, "namespace": namespace(number), "uid": uid(name), "resourceVersion": (1 + change).to_string(), "generation": 1,
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": {"app": rollout(number)},
        "managedFields": [{"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields}],
    })
}

fn rollout(number: usize) -> String {
    format!("app-{number:04}")
}

/// Twenty Rollouts each.
fn namespace(number: usize) -> String {
    format!("team-{:03}", number / 20)
}

fn revision(number: usize, (_, hash): Version) -> String {
    format!("{}-{hash}-rev-9c5e07", rollout(number))
}

/// As long as a uid.
fn uid(of: &str) -> String {
    format!("{of:-<36.36}")
}
