//! A real cluster at a terminal: what `support/terminal.rs` is for the embedded one.

use std::net::SocketAddr;
use std::ops::Deref;
use std::path::Path;

use serde_json::{Value, json};

use super::World;
use super::role::{Controller, Proxies};
use crate::support::session::Session;

/// A namespace of the real cluster with a controller, a proxy, and who talks to them.
pub(crate) struct Terminal {
    session: Session,
    world: World,
    controller: Controller,
    proxies: Proxies,
}

impl Terminal {
    /// Starts a controller and a proxy, and applies a manifest. The proxy answers for every Service of the manifest by its name, and
    /// for all other hosts if a Service is named for them.
    pub(crate) async fn open(folder: &Path, manifest: &Path, default: Option<&str>) -> Self {
        Self::with_proxies(1, folder, manifest, default).await
    }

    async fn with_proxies(
        count: usize,
        folder: &Path,
        manifest: &Path,
        default: Option<&str>,
    ) -> Self {
        let world = World::start().await;
        let (controller, proxies) =
            tokio::join!(world.controller("controller"), world.proxies(count));
        let text = std::fs::read_to_string(manifest).unwrap();
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        // As Helm does: what others refer to comes first.
        objects.sort_by_key(|object| object["kind"] == "Rollout" || object["kind"] == "Split");
        for object in &objects {
            world.create(object).await;
        }
        world
            .create(&ingress(&world.namespace, &objects, default))
            .await;
        let kubeconfig = folder.join("kubeconfig");
        world.write_kubeconfig(&kubeconfig);
        let proxy = *proxies.addresses.first().unwrap();
        Self {
            session: Session {
                proxy,
                kubeconfig,
                namespace: world.namespace.clone(),
            },
            world,
            controller,
            proxies,
        }
    }

    /// Ends it all; nobody may have complained of anything.
    pub(crate) async fn interrupt(self) {
        self.controller.stop(&self.world).await;
        self.proxies.assert_calm(&self.world);
    }
}

impl Deref for Terminal {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// A namespace of the real cluster under load: with a controller and two proxies.
pub(crate) struct Machine {
    /// Where proxies listen.
    pub(crate) proxies: Vec<SocketAddr>,
    terminal: Terminal,
}

impl Machine {
    /// Starts all of them, and applies manifests. The proxies answer for every Service by its name.
    pub(crate) async fn start(folder: &Path, manifests: &Path) -> Self {
        let terminal = Terminal::with_proxies(2, folder, manifests, None).await;
        Self {
            proxies: terminal.proxies.addresses.clone(),
            terminal,
        }
    }

    /// Ends it all; nobody may have complained of anything.
    pub(crate) async fn end(self) {
        self.terminal.interrupt().await;
    }
}

impl Deref for Machine {
    type Target = World;

    fn deref(&self) -> &World {
        &self.terminal.world
    }
}

/// Routes of a host for each Service, to its first port.
fn ingress(class: &str, objects: &[Value], default: Option<&str>) -> Value {
    let services = objects.iter().filter(|object| object["kind"] == "Service");
    let backend = |service: &Value| {
        let port = &service["spec"]["ports"][0]["port"];
        json!({"service": {"name": service["metadata"]["name"], "port": {"number": port}}})
    };
    let rule = |service: &Value| {
        let path = json!({"path": "/", "pathType": "Prefix", "backend": backend(service)});
        json!({"host": service["metadata"]["name"], "http": {"paths": [path]}})
    };
    let mut spec = json!({
        "ingressClassName": class,
        "rules": services.clone().map(rule).collect::<Vec<_>>(),
    });
    let is_default = |service: &&Value| service["metadata"]["name"].as_str() == default;
    if let Some(service) = services.clone().find(is_default) {
        spec["defaultBackend"] = backend(service);
    }
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {"name": "all"}, "spec": spec,
    })
}
