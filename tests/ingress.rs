//! What Ingresses say of themselves on a real cluster: where their callers go.
//!
//! Nobody plays the cloud here: who is to have a load balancer is told its address by the test.

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::cluster::World;

/// An Ingress of a class that leads nowhere.
pub(crate) fn ingress(name: &str, class: &str) -> Value {
    let service = json!({"name": "nobody", "port": {"number": 80}});
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": name},
        "spec": {"ingressClassName": class, "defaultBackend": {"service": service}},
    })
}

fn addresses(ingress: &Ingress) -> Value {
    let status = ingress.status.as_ref();
    let balancer = status.and_then(|status| status.load_balancer.as_ref());
    let addresses = balancer.and_then(|balancer| balancer.ingress.as_ref());
    addresses.map_or(json!([]), |all| json!(all))
}

impl World {
    /// Says at which addresses the load balancer of the proxies' Service answers.
    pub(crate) async fn balance(&self, addresses: &Value) {
        let services: Api<Service> = self.api();
        let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": addresses}}}));
        let how = PatchParams::default();
        let patched = services.patch_status("sidestep-ingress", &how, &status);
        patched.await.unwrap();
    }

    /// Waits until an Ingress says that its callers go there.
    pub(crate) async fn until_callers_go_to(&self, ingress: &str, expected: &Value) {
        let what = format!("says {expected}");
        let is_said = |ingress: &Ingress| addresses(ingress) == *expected;
        self.eventually(ingress, &what, is_said).await;
    }

    async fn edit_status(&self, ingress: &str, addresses: &Value) {
        let api: Api<Ingress> = self.api();
        let status = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": addresses}}}));
        let how = PatchParams::default();
        api.patch_status(ingress, &how, &status).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ingresses_of_the_class_say_where_the_proxies_are_and_others_are_left_alone() {
    let world = World::start().await;
    let class = world.namespace.clone();
    world.install(&[]).await;
    let foreign = json!([{"ip": "192.0.2.1"}]);
    for (name, class) in [("web", class.as_str()), ("foreign", "another")] {
        world.create(&ingress(name, class)).await;
    }
    world.edit_status("foreign", &foreign).await;

    let first = json!([{"ip": "203.0.113.7"}]);
    world.balance(&first).await;
    world.until_callers_go_to("web", &first).await;
    world.create(&ingress("later", &class)).await;
    world.until_callers_go_to("later", &first).await;
    // What somebody else writes there does not stay.
    world.edit_status("web", &foreign).await;
    world.until_callers_go_to("web", &first).await;
    world.balance(&json!([{"hostname": "lb.example"}])).await;
    let named = json!([{"hostname": "lb.example"}]);
    for name in ["web", "later"] {
        world.until_callers_go_to(name, &named).await;
    }
    world.balance(&json!([])).await;
    world.until_callers_go_to("web", &json!([])).await;

    // By value, and without a load balancer.
    let ours = [
        format!("--set=ingressClass.name={class},controller.instanceId={class}"),
        "--set=proxy.service.type=ClusterIP".to_owned(),
    ];
    let upgrade = async |more: &str| {
        let chart = crate::support::cluster::helm::CHART;
        let mut line = vec!["upgrade", "sidestep", chart, more];
        line.extend(ours.iter().map(String::as_str));
        world.helm(&line).await;
    };
    upgrade("--set=proxy.service.addresses={203.0.113.9,edge.example}").await;
    let said = json!([{"hostname": "edge.example"}, {"ip": "203.0.113.9"}]);
    world.until_callers_go_to("web", &said).await;
    upgrade("--set=proxy.service.addresses=null").await;
    let services: Api<Service> = world.api();
    let service = services.get("sidestep-ingress").await.unwrap();
    let address = service.spec.and_then(|spec| spec.cluster_ip).unwrap();
    let own = json!([{"ip": address}]);
    world.until_callers_go_to("later", &own).await;
    let api: Api<Ingress> = world.api();
    assert_eq!(addresses(&api.get("foreign").await.unwrap()), foreign);
    world.stop().await;
}
