//! The chart against a real control plane, installed by Helm itself: what it makes, and whom it lets do what.

use std::path::Path;

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ListParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::api::{AnalysisRun, Rollout};

use crate::controller::{percent, phase, service, until_healthy, until_paused_at};
use crate::support::cluster::audit::lines;
use crate::support::cluster::helm::{CHART, RELEASE, is_available};
use crate::support::cluster::{World, enclave};

/// The sets of values that are tried.
fn sets() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART).join("ci");
    let files = std::fs::read_dir(folder).unwrap();
    let arguments = files.map(|file| format!("--values={}", file.unwrap().path().display()));
    arguments.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_takes_what_every_set_of_values_gives() {
    let world = World::start().await;
    world.create(&service_monitors()).await;
    let sets = sets();
    assert_eq!(sets.len(), 4);
    for set in sets {
        world.helm(&["lint", "--strict", CHART, &set]).await;
        let objects = world.render(&[&set]).await;
        assert!(objects.len() > 10, "{set}");
        for object in objects {
            if let Err(error) = world.would_take(&object).await {
                panic!("{set}: {error}: {object:#}");
            }
        }
    }
}

/// The definition of Prometheus Operator's kind, as far as the chart goes.
fn service_monitors() -> Value {
    let strings = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let endpoint = json!({"type": "object", "properties": {
        "port": {"type": "string"}, "interval": {"type": "string"}, "honorLabels": {"type": "boolean"},
    }});
    let spec = json!({"type": "object", "required": ["selector", "endpoints"], "properties": {
        "selector": {"type": "object", "properties": {"matchLabels": strings}},
        "endpoints": {"type": "array", "items": endpoint},
    }});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "servicemonitors.monitoring.coreos.com"},
        "spec": {
            "group": "monitoring.coreos.com", "scope": "Namespaced",
            "names": {"kind": "ServiceMonitor", "listKind": "ServiceMonitorList", "plural": "servicemonitors", "singular": "servicemonitor"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}},
            }],
        },
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_make_no_sense_are_refused_by_name() {
    let world = World::start().await;
    for (values, complaint) in [
        (
            "controller.replica=3",
            "'/controller': additional properties 'replica' not allowed",
        ),
        ("proxy.kind=StatefulSet", "'/proxy/kind'"),
        ("proxy.config.drain.grace=5s", "'/proxy/config/drain'"),
        ("crds.argo=yes", "'/crds/argo'"),
        (
            "proxy.kind=DaemonSet,proxy.autoscaling.enabled=true",
            "proxy.autoscaling: a DaemonSet has one pod on every node",
        ),
        (
            "namespaced=true,controller.secrets[0].namespace=shop",
            "secrets of the controller: namespaced is set, and shop is another namespace",
        ),
    ] {
        let answer = world
            .try_helm(&["template", "x", CHART, "--set", values])
            .await;
        let said = String::from_utf8_lossy(&answer.stderr);
        assert!(!answer.status.success(), "{values}");
        assert!(said.contains(complaint), "{values}: {said}");
    }
}

/// A cluster that has the definitions keeps them as they are, unless asked; those that were made stay when the release goes.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_are_made_where_they_are_absent_and_stay() {
    let world = World::start().await;
    let parts = "--set=controller.enabled=false,proxy.enabled=false";
    let made = async |arguments: &[&str]| {
        let own = [parts, "--dry-run=server"];
        let printed = world.helm(&[arguments, &own].concat()).await;
        printed.matches("kind: CustomResourceDefinition\n").count()
    };
    let install = ["install", "definitions", CHART];
    assert_eq!(made(&install).await, 0, "the test cluster has them all");
    let refused = ["--set=crds.argo=always", parts];
    let refused = world.try_helm(&[&install[..], &refused].concat()).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("invalid ownership metadata"), "{said}");

    let all = "--set=crds.argo=always,crds.sidestep=always";
    let taken = [parts, all, "--take-ownership"];
    world.helm(&[&install[..], &taken].concat()).await;
    let upgrade = ["upgrade", "definitions", CHART];
    assert_eq!(made(&upgrade).await, 6, "they belong to the release now");
    let said = world.helm(&["uninstall", "definitions"]).await;
    assert_eq!(said.matches("[CustomResourceDefinition]").count(), 6);
    assert_eq!(made(&install).await, 6, "they are there, as its own");
    let another = ["install", "another", CHART];
    assert_eq!(made(&another).await, 0);
}

/// An application of another namespace than the release's, with an Ingress and a Rollout that its class and its controller serve.
async fn application(system: &World, app: &World) {
    for name in ["web", "web-canary"] {
        app.create(&service(name)).await;
    }
    let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": {"name": "web", "port": {"name": "http"}}}});
    app.create(&json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": {"name": "web"},
        "spec": {"ingressClassName": system.namespace, "rules": [{"host": "web.example", "http": {"paths": [path]}}]},
    }))
    .await;
    let labels = json!({"app": "web"});
    let container =
        json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
    app.create(&json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
        "metadata": {"name": "web", "labels": {"argo-rollouts.argoproj.io/controller-instance-id": system.namespace}},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            "strategy": {"canary": {
                "stableService": "web", "canaryService": "web-canary", "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
                "steps": [{"setWeight": 20}, {"pause": {}}],
            }},
        },
    }))
    .await;
}

/// Panics unless each of the two proxies gives yellow its share.
async fn assert_percent(system: &World, expected: usize) {
    assert_percent_of(2, system, expected).await;
}

/// Panics unless there are so many proxies and each gives yellow its share, within what one of its workers may be off.
async fn assert_percent_of(count: usize, system: &World, expected: usize) {
    let proxies = system.installed_proxies().await;
    assert_eq!(proxies.len(), count);
    for proxy in proxies {
        let found = percent(&proxy, "yellow").await;
        assert!(found.abs_diff(expected) <= 6, "{found} of {expected} %");
    }
}

/// Panics if the API server has forbidden anything that the program asked for.
fn assert_nothing_was_forbidden(system: &World) {
    for account in ["sidestep-controller", "sidestep-proxy"] {
        let requests = system.requests(account);
        assert!(!requests.is_empty(), "{account} works");
        let forbidden = lines(requests.iter().filter(|request| request.is_forbidden()));
        assert_eq!(forbidden, "", "{account}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_canary_goes_through_with_the_chart_as_it_is_and_people_with_their_roles() {
    let (system, app) = (World::start().await, World::start().await);
    system.install(&[]).await;
    application(&system, &app).await;
    for (user, role) in [("bob", "view"), ("eve", "edit"), ("ada", "admin")] {
        let user = format!("{user}-{}", app.namespace);
        app.bind(role, &user).await;
    }
    until_healthy(&app).await;
    assert_percent(&system, 0).await;

    let verb = async |user: &str, line: &str| {
        let line = format!("{line} --as {user}-{}", app.namespace);
        app.try_verb(&line).await
    };
    let may = async |user: &str, line: &str| {
        let answer = verb(user, line).await;
        assert!(answer.status.success(), "{user} {line}: {answer:?}");
    };
    let may_not = async |user: &str, line: &str| {
        let answer = verb(user, line).await;
        let said = String::from_utf8_lossy(&answer.stderr);
        let refused = !answer.status.success() && said.contains("forbidden");
        assert!(refused, "{user} {line}: {answer:?}");
    };
    may_not("bob", "set image web app=demo:yellow").await;
    may("eve", "set image web app=demo:yellow").await;
    until_paused_at(&app, 1).await;
    assert_percent(&system, 20).await;
    for line in ["get rollout web --no-color", "list rollouts"] {
        for user in ["bob", "eve", "ada"] {
            may(user, line).await;
        }
    }
    for verb in [
        "promote",
        "abort",
        "retry rollout",
        "pause",
        "restart",
        "undo",
    ] {
        may_not("bob", &format!("{verb} web")).await;
    }
    may("ada", "abort web").await;
    let is_aborted = |rollout: &Rollout| phase(rollout) == Some("Degraded");
    app.eventually("web", "is aborted", is_aborted).await;
    may("eve", "retry rollout web").await;
    until_paused_at(&app, 1).await;
    may("eve", "promote web").await;
    until_healthy(&app).await;
    assert_percent(&system, 100).await;
    system.stop().await;
    assert_nothing_was_forbidden(&system);
    let said = system.helm(&["uninstall", RELEASE]).await;
    assert!(said.contains("uninstalled"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_for_one_namespace_needs_nothing_outside() {
    let world = World::start().await;
    let rendered = world.render(&["--set=namespaced=true"]).await;
    let is_cluster_wide = |object: &&Value| {
        let kind = object["kind"].as_str().unwrap_or_default();
        kind.starts_with("Cluster") || kind == "IngressClass"
    };
    assert_eq!(rendered.iter().find(is_cluster_wide), None);
    world.install(&["--set=namespaced=true"]).await;
    // The pods of the application are in the release's namespace here.
    world.take_all_pods().await;
    application(&world, &world).await;
    until_healthy(&world).await;
    world.verb("set image web app=demo:yellow").await;
    until_paused_at(&world, 1).await;
    assert_percent(&world, 20).await;
    world.verb("promote web").await;
    until_healthy(&world).await;
    assert_percent(&world, 100).await;
    world.stop().await;
    assert_nothing_was_forbidden(&world);
}

/// A canary goes to its first step, through so many proxies.
async fn assert_canary_goes(system: &World, proxies: usize) {
    let app = World::start().await;
    application(system, &app).await;
    until_healthy(&app).await;
    app.verb("set image web app=demo:yellow").await;
    until_paused_at(&app, 1).await;
    assert_percent_of(proxies, system, 20).await;
    system.stop().await;
    assert_nothing_was_forbidden(system);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_set_has_a_proxy_on_each_node() {
    let system = World::start().await;
    system.take_all_pods().await; // Ports of nodes are none of the standards' but the privileged one's.
    let values = "--set=proxy.kind=DaemonSet,proxy.hostPort=80,proxy.service.type=ClusterIP";
    system.release(&[values]).await;
    let name = "sidestep-controller";
    system.eventually(name, "is available", is_available).await;
    let is_everywhere = |set: &DaemonSet| {
        let status = set.status.as_ref();
        status
            .is_some_and(|status| status.number_ready == 3 && status.desired_number_scheduled == 3)
    };
    let name = "sidestep-proxy";
    system
        .eventually(name, "is on each node", is_everywhere)
        .await;
    assert_canary_goes(&system, 3).await;
}

/// The test network enforces no policy: whom the policies concern, and that their ports have names that pods know, is all there is to see.
async fn assert_policies_concern(system: &World, part: &str) {
    let policies = system.api::<NetworkPolicy>();
    let policy = policies.get(&format!("sidestep-{part}")).await.unwrap();
    let spec = policy.spec.unwrap();
    let selected = spec.pod_selector.unwrap().match_labels.unwrap();
    let selected: Vec<String> = selected.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let of_part = format!("app.kubernetes.io/component={part}");
    let pods = async |labels: &str| {
        let which = ListParams::default().labels(labels);
        system.api::<Pod>().list(&which).await.unwrap().items
    };
    let concerned = pods(&selected.join(",")).await;
    let names = |pods: &[Pod]| pods.iter().map(|pod| pod.name_any()).collect::<Vec<_>>();
    assert_eq!(names(&concerned), names(&pods(&of_part).await));
    let containers = concerned[0].spec.clone().unwrap().containers;
    let ports = containers[0].ports.iter().flatten();
    let ports: Vec<_> = ports.filter_map(|port| port.name.clone()).collect();
    let rules = spec.ingress.into_iter().flatten();
    let named = rules.flat_map(|rule| rule.ports).flatten();
    for port in named.filter_map(|port| port.port) {
        let IntOrString::String(name) = port else {
            continue; // a range for callers inside
        };
        assert!(ports.contains(&name), "{part}: {name} of {ports:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_autoscaler_has_its_way_behind_network_policies() {
    let system = World::start().await;
    let scaled = "--set=proxy.autoscaling.enabled=true,proxy.autoscaling.minReplicas=3";
    let guarded = "--set=networkPolicy.enabled=true,networkPolicy.metricsFrom[0].podSelector.matchLabels.app=prometheus";
    system.install(&[scaled, guarded]).await;
    let are_three = |proxies: &Deployment| {
        let wanted = proxies.spec.as_ref().and_then(|spec| spec.replicas);
        wanted == Some(3) && is_available(proxies)
    };
    let name = "sidestep-proxy";
    system.eventually(name, "are three", are_three).await;
    let is_at_work = |scaler: &HorizontalPodAutoscaler| {
        let status = scaler.status.as_ref();
        status.is_some_and(|status| status.desired_replicas == 3)
    };
    system.eventually(name, "has scaled", is_at_work).await;
    for part in ["controller", "proxy"] {
        assert_policies_concern(&system, part).await;
    }
    // An upgrade does not take back what the autoscaler has done.
    let again = [
        "upgrade",
        RELEASE,
        CHART,
        "--reuse-values",
        "--set=proxy.autoscaling.maxReplicas=9",
    ];
    system.helm(&again).await;
    let proxies = system.api::<Deployment>().get(name).await.unwrap();
    assert_eq!(proxies.spec.unwrap().replicas, Some(3));
    system.eventually(name, "are three", are_three).await;
    assert_canary_goes(&system, 3).await;
}

/// What comes of an analysis that asks the API server, which is of an authority of the cluster's own, for its version.
async fn asked_by_https(values: &[&str]) -> (String, String) {
    let system = World::start().await;
    let authority = enclave::folder().join("cluster/pki/ca.crt");
    let authority = std::fs::read_to_string(authority).unwrap();
    system
        .create(&json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "company"},
            "data": {"company.pem": authority, "other": "no certificate"},
        }))
        .await;
    system.install(values).await;
    let mine = json!({"argo-rollouts.argoproj.io/controller-instance-id": system.namespace});
    let web = json!({"url": format!("{}/version", system.server()), "jsonPath": "{$.major}"});
    let metric = json!({
        "name": "version", "count": 1, "consecutiveErrorLimit": 0, "successCondition": "result == \"1\"", "provider": {"web": web},
    });
    system
        .create(&json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun", "metadata": {"name": "asked", "labels": mine},
            "spec": {"metrics": [metric]},
        }))
        .await;
    let is_over = |run: &AnalysisRun| {
        let status = run.status.as_ref();
        status.is_some_and(|status| !matches!(status.phase.as_str(), "" | "Pending" | "Running"))
    };
    let run: AnalysisRun = system.eventually("asked", "is over", is_over).await;
    let status = run.status.unwrap();
    (status.phase, status.message.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn authorities_of_a_company_are_trusted_where_they_are_named() {
    let named = "--set=controller.certificateAuthorities.configMap=company,controller.certificateAuthorities.key=company.pem";
    let named = [named];
    let (trusted, otherwise) = tokio::join!(asked_by_https(&named), asked_by_https(&[]));
    assert_eq!(trusted.0, "Successful", "{trusted:?}");
    assert_eq!(otherwise.0, "Error", "{otherwise:?}");
    assert!(otherwise.1.contains("UnknownIssuer"), "{otherwise:?}");
}

impl World {
    /// Gives a user a ClusterRole in the test's namespace; returns when it holds for Rollouts.
    async fn bind(&self, role: &str, user: &str) {
        self.create(&json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": user},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }))
        .await;
        let verb = if role == "view" { "get" } else { "patch" };
        let mut retry = tokio::time::interval(std::time::Duration::from_millis(100));
        while !self.allows(user, verb, "argoproj.io", "rollouts").await {
            retry.tick().await;
        }
    }

    /// Whether a user may do something in the test's namespace.
    pub(crate) async fn allows(&self, user: &str, verb: &str, group: &str, resource: &str) -> bool {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource.to_owned())),
            None => (resource, None),
        };
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(user.to_owned()),
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(self.namespace.clone()),
                    verb: Some(verb.to_owned()),
                    group: Some(group.to_owned()),
                    resource: Some(resource.to_owned()),
                    subresource,
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let review = api.create(&PostParams::default(), &review).await.unwrap();
        review.status.unwrap().allowed
    }
}
