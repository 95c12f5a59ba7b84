//! The program under test in its roles, as pods of a test's namespace: the real binary, each role with a service account of its own.

use std::net::SocketAddr;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::local::logs::{Part, PodLog};

use super::audit::lines;
use super::{PROGRAM, World};

/// A controller at work.
pub(crate) struct Controller {
    name: String,
    log: PodLog,
}

/// Proxies at work, listed by the headless Service `sidestep-proxy`.
pub(crate) struct Proxies {
    /// Where each serves Ingresses of the test's class.
    pub(crate) addresses: Vec<SocketAddr>,
    logs: Vec<PodLog>,
}

impl World {
    /// Starts a controller that looks after the test's namespace, where it may do what it has to, and nothing elsewhere; returns when
    /// it is ready.
    pub(crate) async fn controller(&self, name: &str) -> Controller {
        for object in [account(name), role("Role", name, &controller_rules())] {
            self.create(&object).await;
        }
        self.create(&self.binding("Role", name, name)).await;
        let ports = json!([{"name": "health", "containerPort": 8080}, {"name": "metrics", "containerPort": 8090}]);
        let arguments = [
            "controller",
            "--namespaced",
            "--apex-ports",
            &self.apex_ports(),
        ];
        let spec = pod_spec(name, &arguments, &ports, "health");
        self.create(&json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec,
        }))
        .await;
        self.eventually::<Pod>(name, "is ready", is_ready).await;
        Controller {
            name: name.to_owned(),
            log: self.log(name),
        }
    }

    /// Starts so many proxies, which serve Ingresses whose class is the test's namespace; returns when all are ready.
    pub(crate) async fn proxies(&self, count: usize) -> Proxies {
        let name = "sidestep-proxy";
        let shared = format!("{name}-{}", self.namespace);
        self.create(&account(name)).await;
        self.create(&role("ClusterRole", &shared, &proxy_rules()))
            .await;
        self.create(&self.binding("ClusterRole", &shared, name))
            .await;
        self.create(&json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "clusterIP": "None", "publishNotReadyAddresses": true,
                "selector": {"app": name}, "ports": [{"name": "admin", "port": 9901}],
            },
        }))
        .await;
        let arguments = [
            "proxy",
            "--ingress-class",
            &self.namespace,
            "--apex-ports",
            &self.apex_ports(),
        ];
        let ports = json!([{"name": "http", "containerPort": 8000}, {"name": "admin", "containerPort": 9901}]);
        let labels = json!({"app": name});
        self.create(&json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
            "spec": {
                "replicas": count, "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": pod_spec(name, &arguments, &ports, "admin")},
            },
        }))
        .await;
        let available = |proxies: &Deployment| {
            let available = proxies.status.as_ref().and_then(|s| s.available_replicas);
            available.is_some_and(|available| usize::try_from(available) == Ok(count))
        };
        self.eventually(name, "are available", available).await;
        let selected = ListParams::default().labels(&format!("app={name}"));
        let pods = self.api::<Pod>().list(&selected).await.unwrap();
        Proxies {
            addresses: pods.iter().map(traffic_address).collect(),
            logs: pods.iter().map(|pod| self.log(&pod.name_any())).collect(),
        }
    }

    fn binding(&self, kind: &str, role: &str, account: &str) -> Value {
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": format!("{kind}Binding"),
            "metadata": {"name": role},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.namespace}],
        })
    }
}

impl Controller {
    /// Ends it as a cluster does (SIGTERM); panics if it has complained of anything, or the API server of it.
    pub(crate) async fn stop(self, world: &World) {
        let api: Api<Pod> = world.api();
        api.delete(&self.name, &DeleteParams::default())
            .await
            .unwrap();
        world.eventually_gone::<Pod>(&self.name).await;
        assert_calm(world, &self.log);
        let requests = world.requests(&self.name);
        let refused = lines(requests.iter().filter(|request| request.is_refused()));
        assert_eq!(refused, "", "what the API server refused");
    }
}

impl Controller {
    /// Ends it by SIGKILL.
    pub(crate) async fn kill_9(self, world: &World) {
        let api: Api<Pod> = world.api();
        let at_once = DeleteParams::default().grace_period(0);
        api.delete(&self.name, &at_once).await.unwrap();
        world.eventually_gone::<Pod>(&self.name).await;
    }
}

impl Proxies {
    /// Panics if one has complained of anything.
    pub(crate) fn assert_calm(&self, world: &World) {
        self.logs.iter().for_each(|log| assert_calm(world, log));
    }
}

fn assert_calm(world: &World, log: &PodLog) {
    let log = log.read(Part::default()).unwrap_or_default();
    // A proxy sees the namespaces of all tests, which come and go.
    let is_of_others = |line: &str| line.contains(" test-") && !line.contains(&world.namespace);
    let complains = |line: &str| line.contains(" WARN ") || line.contains(" ERROR ");
    let mut lines = log.lines().filter(|line| !is_of_others(line));
    assert!(!lines.any(complains), "{log}");
}

/// Whether a pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let status = pod.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

pub(super) fn traffic_address(pod: &Pod) -> SocketAddr {
    let address = pod.status.as_ref().and_then(|s| s.pod_ip.as_deref());
    SocketAddr::new(address.unwrap().parse().unwrap(), 8000)
}

/// A role of the program as a pod that says at `/readyz` and `/livez` of a port how it is.
fn pod_spec(account: &str, arguments: &[&str], ports: &Value, probed: &str) -> Value {
    let command: Vec<&str> = [PROGRAM].iter().chain(arguments).copied().collect();
    json!({
        "serviceAccountName": account,
        "terminationGracePeriodSeconds": 10,
        "containers": [{
            "name": "sidestep", "image": "sidestep", "command": command, "ports": ports,
            "env": [{"name": "NO_COLOR", "value": "1"}],
            "readinessProbe": {"httpGet": {"path": "/readyz", "port": probed}, "periodSeconds": 1},
            "livenessProbe": {"httpGet": {"path": "/livez", "port": probed}},
        }],
    })
}

fn controller_rules() -> Value {
    let read = ["get", "list", "watch"];
    let write = [
        "get", "list", "watch", "create", "update", "patch", "delete",
    ];
    json!([
        {"apiGroups": ["argoproj.io"], "resources": ["rollouts", "analysisruns", "experiments"], "verbs": write},
        {"apiGroups": ["argoproj.io"], "resources": ["rollouts/status", "rollouts/finalizers", "analysisruns/finalizers"], "verbs": ["update", "patch"]},
        {"apiGroups": ["argoproj.io"], "resources": ["analysistemplates"], "verbs": read},
        {"apiGroups": ["sidestep.dev"], "resources": ["splits"], "verbs": write},
        {"apiGroups": ["sidestep.dev"], "resources": ["splits/status"], "verbs": ["update", "patch"]},
        {"apiGroups": ["apps"], "resources": ["replicasets"], "verbs": write},
        {"apiGroups": ["apps"], "resources": ["replicasets/finalizers"], "verbs": ["update"]},
        {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": read},
        {"apiGroups": [""], "resources": ["services"], "verbs": write},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "patch"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["get", "list", "watch", "create", "update", "delete"]},
        {"apiGroups": [""], "resources": ["endpoints"], "verbs": ["delete"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "list", "watch", "create", "update"]},
    ])
}

fn proxy_rules() -> Value {
    let read = ["get", "list", "watch"];
    json!([
        {"apiGroups": [""], "resources": ["services"], "verbs": read},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": read},
        {"apiGroups": ["networking.k8s.io"], "resources": ["ingresses"], "verbs": read},
        {"apiGroups": ["sidestep.dev"], "resources": ["splits"], "verbs": read},
    ])
}

fn account(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
}

fn role(kind: &str, name: &str, rules: &Value) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": kind,
        "metadata": {"name": name}, "rules": rules,
    })
}
