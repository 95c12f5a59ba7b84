//! The proxy of this process as a member of its fleet: the headless Service by which the controller finds it, and its slice.
//!
//! On a cluster the Service selects the proxies' pods; on one machine there is no pod, so the slice is written here.

use std::net::SocketAddr;

use anyhow::Context;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use sidestep_control::wire::Collection;

/// The namespace of Sidestep's own objects.
pub(crate) const NAMESPACE: &str = "sidestep-system";
/// The headless Service of the proxies.
pub(crate) const SERVICE: &str = "sidestep-proxy";
/// The fleet that a Split belongs to unless it names another.
pub(crate) const FLEET: &str = "default";

/// Lists this process's admin port as the one proxy of the fleet.
///
/// # Errors
/// When the API server refuses.
pub(crate) async fn announce(client: &Client, admin: SocketAddr) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": SERVICE, "labels": { "sidestep.dev/fleet": FLEET } },
        "spec": { "clusterIP": "None", "ports": [{ "name": "admin", "port": admin.port() }] },
    });
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": SERVICE,
            "labels": {
                "kubernetes.io/service-name": SERVICE,
                "endpointslice.kubernetes.io/managed-by": "sidestep.dev",
                "sidestep.dev/fleet": FLEET,
            },
        },
        "addressType": if admin.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{ "addresses": [admin.ip()], "conditions": { "ready": true, "serving": true, "terminating": false } }],
        "ports": [{ "name": "admin", "port": admin.port(), "protocol": "TCP" }],
    });
    let apply = PatchParams::apply("sidestep").force();
    let services = Collection::<Service>::within(client, NAMESPACE);
    services
        .patch(SERVICE, &apply, &Patch::Apply(&service))
        .await
        .context("writing the proxies' Service")?;
    let slices = Collection::<EndpointSlice>::within(client, NAMESPACE);
    slices
        .patch(SERVICE, &apply, &Patch::Apply(&slice))
        .await
        .context("writing the proxies' EndpointSlice")?;
    Ok(())
}
