//! Three nodes in three zones, which are this machine, and a scheduler that gives each pod the next one.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{Binding, Node, ObjectReference, Pod};
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use sidestep_control::wire::Collection;

/// Name and zone.
const NODES: [(&str, &str); 3] = [
    ("node-a", "zone-a"),
    ("node-b", "zone-b"),
    ("node-c", "zone-c"),
];

/// Makes the nodes, ready and open to all.
pub(super) async fn make(client: &Client) {
    let api: Api<Node> = Api::all(client.clone());
    for (name, zone) in NODES {
        let node = json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": {
                "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
                "topology.kubernetes.io/zone": zone, "topology.kubernetes.io/region": "region-1",
            }},
        });
        let node = serde_json::from_value(node).unwrap();
        api.create(&PostParams::default(), &node).await.unwrap();
        // The API server taints a new node as not ready; nobody here would take that away.
        let open = json!({"spec": {"taints": null}});
        let ready = json!({"status": {
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "capacity": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
            "allocatable": {"cpu": "64", "memory": "256Gi", "pods": "1000"},
        }});
        let how = PatchParams::default();
        api.patch(name, &how, &Patch::Merge(open)).await.unwrap();
        api.patch_status(name, &how, &Patch::Merge(ready))
            .await
            .unwrap();
    }
}

/// Sends every new pod to a node, for as long as it is polled.
pub(super) async fn schedule(client: Client) {
    let unbound = watcher::Config::default().fields("spec.nodeName=");
    let pods = Collection::<Pod>::all(&client).watch(unbound);
    let mut pods = pods.applied_objects().boxed();
    let mut turns = NODES.iter().cycle();
    while let Some(pod) = pods.next().await {
        let Ok(pod) = pod else { continue }; // Watched again from the beginning: what was missed comes then.
        let gated = pod.spec.as_ref().is_some_and(|spec| {
            let gates = spec.scheduling_gates.as_ref();
            gates.is_some_and(|gates| !gates.is_empty())
        });
        let next = turns.next().map_or("", |(name, _)| name);
        if !gated && pod.metadata.deletion_timestamp.is_none() {
            bind(&client, &pod, wanted_node(&pod).unwrap_or(next)).await;
        }
    }
}

/// The node that a DaemonSet's pod is for.
fn wanted_node(pod: &Pod) -> Option<&str> {
    let affinity = pod.spec.as_ref()?.affinity.as_ref()?;
    let node = affinity.node_affinity.as_ref()?;
    let required = node
        .required_during_scheduling_ignored_during_execution
        .as_ref()?;
    let fields = required
        .node_selector_terms
        .first()?
        .match_fields
        .as_ref()?;
    let name = fields.iter().find(|field| field.key == "metadata.name")?;
    name.values.as_ref()?.first().map(String::as_str)
}

async fn bind(client: &Client, pod: &Pod, node: &str) {
    let namespace = pod.namespace().unwrap_or_default();
    let binding = Binding {
        metadata: ObjectMeta {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            ..ObjectMeta::default()
        },
        target: ObjectReference {
            kind: Some("Node".to_owned()),
            name: Some(node.to_owned()),
            ..ObjectReference::default()
        },
    };
    let request = kube::core::Request::new(format!("/api/v1/namespaces/{namespace}/pods"));
    let body = serde_json::to_vec(&binding).unwrap();
    let request = request
        .create_subresource("binding", &pod.name_any(), &PostParams::default(), body)
        .unwrap();
    if let Err(error) = client.request::<serde_json::Value>(request).await {
        // It is bound already or gone, or is seen again with the next watch.
        tracing::debug!(pod = pod.name_any(), %error, "not bound");
    }
}
