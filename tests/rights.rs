//! What the chart lets the program do is what the program does: after a run in which it does all it can, each right that was granted
//! has been used, as the API server's audit log tells, and nothing was asked for that is not granted.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::ValidatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use sidestep_control::api::{AnalysisRun, Rollout, Split};
use tokio::time::{interval, timeout};

use crate::controller::{phase, service};
use crate::ingress::ingress;
use crate::support::cluster::World;
use crate::support::cluster::audit::{lines, right};
use crate::support::session::DEADLINE;

/// The release's namespace, and that of applications.
struct Stage {
    system: World,
    app: World,
}

/// Granted, and seen in no request: the API server's admission asks for it when somebody is to own what blocks a deletion.
const ASKED_BY_ADMISSION: &str = "update rollouts/finalizers.argoproj.io";

#[tokio::test(flavor = "multi_thread")]
async fn every_right_is_used_and_nothing_else_is_asked_for() {
    let stage = Stage {
        system: World::start().await,
        app: World::start().await,
    };
    let (system, app) = (&stage.system.namespace, &stage.app.namespace);
    let secrets = format!(
        "--set=controller.secrets[0].namespace={app},proxy.tls.enabled=true,proxy.tls.secrets[0].namespace={app},\
         proxy.tls.secrets[1].namespace={system},proxy.tls.secrets[1].names[0]=edge"
    );
    let ports = stage.system.apex_ports();
    let apexes = format!("--set=apex.enabled=true,apex.ports={ports}");
    stage.system.install(&[&secrets, &apexes]).await;
    stage.say_where_callers_go().await;
    stage.lead_callers_inside().await;
    stage.release_a_canary().await;
    stage.give_back_a_selector().await;
    stage.take_over_workloads().await;
    stage.judge_by_a_secret().await;
    stage.meet_other_routers().await;
    stage.lose_answers().await;
    stage.lose_an_answer_about_slices().await;

    let rules = stage.system.render(&[&secrets, &apexes]).await;
    stage.refuse_the_rest().await;
    stage.system.stop().await;
    for account in ["sidestep-controller", "sidestep-proxy"] {
        let requests = stage.system.requests(account);
        let forbidden = lines(requests.iter().filter(|request| request.is_forbidden()));
        assert_eq!(forbidden, "", "{account}");
        let used: BTreeSet<_> = requests
            .iter()
            .filter_map(|request| request.right())
            .collect();
        let mut granted = granted(&rules, account);
        granted.remove(ASKED_BY_ADMISSION);
        let unused: Vec<_> = granted.difference(&used).collect();
        assert!(unused.is_empty(), "{account} does not need: {unused:#?}");
    }
}

/// Callers are led astray by whoever may write slices and the status of Ingresses.
#[tokio::test(flavor = "multi_thread")]
async fn what_not_everybody_needs_is_granted_by_value_alone() {
    let world = World::start().await;
    for (value, extra) in [
        (
            "apex.enabled=true",
            ["create", "update", "delete"]
                .map(|verb| right(verb, "discovery.k8s.io", "endpointslices"))
                .into_iter()
                .chain([right("get", "discovery.k8s.io", "endpointslices")])
                .chain([right("delete", "", "endpoints")])
                .collect::<BTreeSet<_>>(),
        ),
        (
            "ingressClass.status=true",
            [
                "list ingresses",
                "watch ingresses",
                "patch ingresses/status",
            ]
            .map(|right| format!("{right}.networking.k8s.io"))
            .into(),
        ),
    ] {
        let plain = "--set=apex.enabled=false,ingressClass.status=false";
        let without = granted(&world.render(&[plain]).await, "sidestep-controller");
        let with = format!("{plain},{value}");
        let with = granted(&world.render(&[&with]).await, "sidestep-controller");
        let found: BTreeSet<_> = with.difference(&without).cloned().collect();
        assert_eq!(found, extra, "{value}");
    }
}

/// The rights of all roles of an account.
fn granted(objects: &[Value], account: &str) -> BTreeSet<String> {
    let names = |object: &Value| -> BTreeSet<String> {
        let mut subjects = object["subjects"].as_array().into_iter().flatten();
        let is_its = subjects.any(|subject| subject["name"] == account);
        let role = object["roleRef"]["name"].as_str();
        role.filter(|_| is_its)
            .map(str::to_owned)
            .into_iter()
            .collect()
    };
    let roles: BTreeSet<String> = objects.iter().flat_map(names).collect();
    let is_role = |object: &&Value| {
        let kind = object["kind"].as_str();
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        matches!(kind, Some("Role" | "ClusterRole")) && roles.contains(name)
    };
    let rules = objects.iter().filter(is_role);
    let rules = rules.flat_map(|role| role["rules"].as_array().into_iter().flatten());
    rules.flat_map(rights).collect()
}

fn rights(rule: &Value) -> BTreeSet<String> {
    let list =
        |field: &str| -> Vec<String> { serde_json::from_value(rule[field].clone()).unwrap() };
    let mut all = BTreeSet::new();
    for group in list("apiGroups") {
        for resource in list("resources") {
            let of_verb = |verb: &String| right(verb, &group, &resource);
            all.extend(list("verbs").iter().map(of_verb));
        }
    }
    all
}

impl Stage {
    /// A Rollout of one pod that the release's controller looks after.
    fn rollout(&self, name: &str, canary: &Value) -> Value {
        let labels = json!({"app": name});
        let container =
            json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout",
            "metadata": {"name": name, "labels": self.label()},
            "spec": {
                "replicas": 1, "revisionHistoryLimit": 0,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
                "strategy": {"canary": canary},
            },
        })
    }

    fn label(&self) -> Value {
        json!({"argo-rollouts.argoproj.io/controller-instance-id": self.system.namespace})
    }

    async fn create_services(&self, rollout: &str) {
        for name in [rollout.to_owned(), format!("{rollout}-canary")] {
            let mut service = service(&name);
            service["spec"]["selector"]["app"] = json!(rollout);
            self.app.create(&service).await;
        }
    }

    /// Traffic routing by our proxies, with Services called as the Rollout.
    fn routed(rollout: &str) -> Value {
        json!({
            "stableService": rollout, "canaryService": format!("{rollout}-canary"),
            "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
        })
    }

    async fn until_phase(&self, rollout: &str, wanted: &str) {
        let has_come = |rollout: &Rollout| {
            let generation = rollout.metadata.generation.map(|number| number.to_string());
            let status = rollout.status.as_ref();
            let observed = status.and_then(|status| status.observed_generation.clone());
            phase(rollout) == Some(wanted) && observed == generation
        };
        self.app.eventually(rollout, wanted, has_come).await;
    }

    async fn patch(&self, rollout: &str, patch: &Value) {
        let api: Api<Rollout> = self.app.api();
        let how = PatchParams::default();
        let patched = api.patch(rollout, &how, &Patch::Merge(patch)).await;
        patched.unwrap();
    }

    /// ReplicaSets, revision Services, a Split, Events, marked pods, analysis, and what of these is deleted; evictions.
    async fn release_a_canary(&self) {
        self.create_services("web").await;
        self.app
            .create(&json!({
                "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate",
                "metadata": {"name": "errors", "labels": self.label()},
                "spec": {"metrics": [{
                    "name": "errors", "interval": "1s", "successCondition": "result.errorRate < 1",
                    "provider": {"plugin": {"sidestep/proxy": {"window": "5s"}}},
                }]},
            }))
            .await;
        let mut canary = Self::routed("web");
        canary["steps"] = json!([{"setWeight": 50}, {"pause": {}}]);
        canary["canaryMetadata"] = json!({"labels": {"role": "canary"}});
        canary["stableMetadata"] = json!({"labels": {"role": "stable"}});
        canary["scaleDownDelaySeconds"] = json!(1);
        canary["analysis"] = json!({"templates": [{"templateName": "errors"}]});
        let mut rollout = self.rollout("web", &canary);
        rollout["spec"]["analysis"] =
            json!({"successfulRunHistoryLimit": 0, "unsuccessfulRunHistoryLimit": 0});
        self.app.create(&rollout).await;
        self.until_phase("web", "Healthy").await;
        let first = self.sets("web").await;
        for image in ["demo:yellow", "demo:green"] {
            self.app.verb(&format!("set image web app={image}")).await;
            self.until_phase("web", "Paused").await;
            self.app.verb("promote web --full").await;
            self.until_phase("web", "Healthy").await;
        }
        for set in first {
            self.app.eventually_gone::<ReplicaSet>(&set).await;
        }
        let pods = self.app.api::<Pod>();
        let selected = ListParams::default().labels("app=web,role=stable");
        let pods = pods.list(&selected).await.unwrap();
        assert!(!pods.items.is_empty());
        self.app.verb("restart web").await;
        for pod in pods {
            self.app.eventually_gone::<Pod>(&pod.name_any()).await;
        }
        let unrouted = json!({"spec": {"strategy": {"canary": {"trafficRouting": null, "scaleDownDelaySeconds": null}}}});
        self.patch("web", &unrouted).await;
        self.app.eventually_gone::<Split>("web").await;
        self.until_used("delete services").await;
    }

    async fn sets(&self, rollout: &str) -> Vec<String> {
        let api: Api<ReplicaSet> = self.app.api();
        let selected = ListParams::default().labels(&format!("app={rollout}"));
        let listed = api.list(&selected).await.unwrap();
        listed.iter().map(|set| set.name_any()).collect()
    }

    /// An Ingress of the class, and an address of the proxies.
    async fn say_where_callers_go(&self) {
        let class = &self.system.namespace;
        self.app.create(&ingress("web", class)).await;
        let addresses = json!([{"ip": "203.0.113.7"}]);
        self.system.balance(&addresses).await;
        self.app.until_callers_go_to("web", &addresses).await;
    }

    /// A Service that loses its selector, and a proxy that goes.
    async fn lead_callers_inside(&self) {
        self.create_services("inside").await;
        let inside = self.rollout("inside", &Self::routed("inside"));
        self.app.create(&inside).await;
        self.until_phase("inside", "Healthy").await;
        let services: Api<Service> = self.app.api();
        let without = Patch::Merge(json!({"spec": {"selector": null}}));
        let how = PatchParams::default();
        services.patch("inside", &how, &without).await.unwrap();
        for right in [
            right("create", "discovery.k8s.io", "endpointslices"),
            right("delete", "discovery.k8s.io", "endpointslices"),
            right("delete", "", "endpoints"),
        ] {
            self.until_used(&right).await;
        }
        self.lose_a_proxy().await;
        let update = right("update", "discovery.k8s.io", "endpointslices");
        self.until_used(&update).await;
    }

    async fn lose_a_proxy(&self) {
        let pods: Api<Pod> = self.system.api();
        let selected = ListParams::default().labels("app.kubernetes.io/component=proxy");
        let proxies = pods.list(&selected).await.unwrap();
        let proxy = proxies.items.first().unwrap().name_any();
        pods.delete(&proxy, &DeleteParams::default()).await.unwrap();
    }

    /// A Service that a Rollout had its hash in which is gone.
    async fn give_back_a_selector(&self) {
        let mut orphan = service("orphan");
        orphan["metadata"]["annotations"] =
            json!({"argo-rollouts.argoproj.io/managed-by-rollouts": "gone"});
        orphan["spec"]["selector"]["rollouts-pod-template-hash"] = json!("abc");
        self.app.create(&orphan).await;
        let is_free = |service: &Service| {
            let selector = service
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| !selector.contains_key("rollouts-pod-template-hash"))
        };
        self.app
            .eventually("orphan", "is given back", is_free)
            .await;
    }

    /// Templates of a Deployment, which is scaled down, and of a PodTemplate.
    async fn take_over_workloads(&self) {
        self.app.create(&deployment("workload")).await;
        self.app
            .create(&self.referring("workload", "apps/v1", "Deployment"))
            .await;
        let mut template = deployment("template")["spec"]["template"].clone();
        template["metadata"]["labels"] = json!({"app": "template"});
        self.app
            .create(&json!({
                "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template"}, "template": template,
            }))
            .await;
        self.app
            .create(&self.referring("template", "v1", "PodTemplate"))
            .await;
        self.until_phase("workload", "Healthy").await;
        self.until_phase("template", "Healthy").await;
    }

    fn referring(&self, name: &str, version: &str, kind: &str) -> Value {
        let mut rollout = self.rollout(name, &json!({}));
        let spec = rollout["spec"].as_object_mut().unwrap();
        spec.remove("template");
        spec.remove("selector");
        let mut reference = json!({"apiVersion": version, "kind": kind, "name": name});
        if kind == "Deployment" {
            reference["scaleDown"] = json!("onsuccess");
        } else {
            spec.insert("selector".to_owned(), json!({"matchLabels": {"app": name}}));
        }
        spec.insert("workloadRef".to_owned(), reference);
        rollout
    }

    /// An AnalysisRun by hand whose argument stands in a Secret, and which does not live long.
    async fn judge_by_a_secret(&self) {
        self.app
            .create(&json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "stringData": {"token": "t"},
            }))
            .await;
        let mut run = self.run("judged");
        run["spec"]["ttlStrategy"] = json!({"secondsAfterCompletion": 0});
        run["spec"]["args"] = json!([{"name": "token", "valueFrom": {"secretKeyRef": {"name": "token", "key": "token"}}}]);
        self.app.create(&run).await;
        self.app.eventually_gone::<AnalysisRun>("judged").await;
    }

    /// A run that asks nobody that answers.
    fn run(&self, name: &str) -> Value {
        json!({
            "apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisRun",
            "metadata": {"name": name, "labels": self.label()},
            "spec": {"metrics": [{
                "name": "nobody", "consecutiveErrorLimit": 0, "provider": {"web": {"url": "http://127.0.0.1:1/"}},
            }]},
        })
    }

    /// Blocks of routers that are not there: they are asked for.
    async fn meet_other_routers(&self) {
        for (name, block) in [
            (
                "istio",
                json!({"istio": {
                    "virtualService": {"name": "x"},
                    "destinationRule": {"name": "x", "canarySubsetName": "canary", "stableSubsetName": "stable"},
                }}),
            ),
            ("nginx", json!({"nginx": {"stableIngress": "x"}})),
            ("smi", json!({"smi": {"rootService": "smi"}})),
            (
                "traefik",
                json!({"traefik": {"weightedTraefikServiceName": "x"}}),
            ),
            ("ambassador", json!({"ambassador": {"mappings": ["x"]}})),
            (
                "apisix",
                json!({"apisix": {"route": {"name": "x", "rules": ["x"]}}}),
            ),
            (
                "mesh",
                json!({"appMesh": {
                    "virtualService": {"name": "x"},
                    "virtualNodeGroup": {"canaryVirtualNodeRef": {"name": "x"}, "stableVirtualNodeRef": {"name": "y"}},
                }}),
            ),
        ] {
            self.create_services(name).await;
            let mut canary = Self::routed(name);
            canary["trafficRouting"] = block;
            self.app.create(&self.rollout(name, &canary)).await;
            self.until_phase(name, "Healthy").await;
        }
    }

    /// Writes whose end is unknown are read back, of every kind.
    async fn lose_answers(&self) {
        self.create_services("doubt").await;
        let doubt = self.rollout("doubt", &Self::routed("doubt"));
        // resource, group → what makes the controller write one
        for (resource, group, cause) in [
            ("analysisruns", "argoproj.io", Some(self.run("doubt"))),
            (
                "deployments",
                "apps",
                Some(self.referring("scaled", "apps/v1", "Deployment")),
            ),
            ("rollouts/status", "argoproj.io", Some(doubt)),
            ("replicasets", "apps", None),
            ("services", "", None),
            ("splits", "sidestep.dev", None),
        ] {
            if resource == "deployments" {
                self.app.create(&deployment("scaled")).await;
            }
            self.break_writes(resource, group).await;
            if let Some(cause) = cause {
                self.app.create(&cause).await;
            } else {
                // Another revision: another ReplicaSet, Service, Split.
                let image = format!("app=demo:{resource}");
                self.app.verb(&format!("set image doubt {image}")).await;
            }
            let plain = resource.split('/').next().unwrap_or_default();
            self.until_used(&right("get", group, plain)).await;
            self.mend_writes().await;
        }
        self.until_phase("doubt", "Healthy").await;
    }

    /// As a proxy goes.
    async fn lose_an_answer_about_slices(&self) {
        self.break_writes("endpointslices", "discovery.k8s.io")
            .await;
        self.lose_a_proxy().await;
        let get = right("get", "discovery.k8s.io", "endpointslices");
        self.until_used(&get).await;
        self.mend_writes().await;
    }

    /// From now on the API server answers the controller's writes of a resource with an error of its own: nobody can know whether they
    /// were done.
    async fn break_writes(&self, resource: &str, group: &str) {
        let name = &self.system.namespace;
        let controller = format!("system:serviceaccount:{name}:sidestep-controller");
        let rule = |group: &str, resource: &str| json!({"apiGroups": [group], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE"], "resources": [resource]});
        self.system
            .create(&json!({
                "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
                "metadata": {"name": name},
                "webhooks": [{
                    "name": "nobody.sidestep.dev", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Fail",
                    "clientConfig": {"url": "https://127.0.0.1:1/"},
                    "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": self.app.namespace}},
                    "rules": [rule(group, resource), rule("", "configmaps")],
                    "matchConditions": [{
                        "name": "ours",
                        "expression": format!("request.userInfo.username == '{controller}' || request.resource.resource == 'configmaps'"),
                    }],
                }],
            }))
            .await;
        self.until_configmaps(false).await;
    }

    async fn mend_writes(&self) {
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.system.client.clone());
        let how = DeleteParams::default();
        api.delete(&self.system.namespace, &how).await.unwrap();
        self.until_configmaps(true).await;
    }

    /// Returns when ConfigMaps are taken, or are not: by them it is seen that a webhook has come or gone.
    async fn until_configmaps(&self, are_taken: bool) {
        let api: Api<ConfigMap> = self.app.api();
        let try_out = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let map = ConfigMap {
            metadata: ObjectMeta {
                name: Some("probe".to_owned()),
                ..ObjectMeta::default()
            },
            ..ConfigMap::default()
        };
        let mut retry = interval(RETRY);
        while api.create(&try_out, &map).await.is_ok() != are_taken {
            retry.tick().await;
        }
    }

    /// Returns when the controller has used a right. Nothing tells of a line in the audit log, so it is read again and again.
    async fn until_used(&self, right: &str) {
        let used = async {
            let mut retry = interval(RETRY);
            loop {
                let requests = self.system.requests("sidestep-controller");
                if requests
                    .iter()
                    .any(|request| request.right().as_deref() == Some(right))
                {
                    return;
                }
                retry.tick().await;
            }
        };
        let in_time = timeout(DEADLINE, used).await;
        assert!(in_time.is_ok(), "nobody asked to {right}");
    }

    /// What would be of use to whoever takes the program's tokens, and is not granted.
    async fn refuse_the_rest(&self) {
        for account in ["sidestep-controller", "sidestep-proxy"] {
            let user = format!("system:serviceaccount:{}:{account}", self.system.namespace);
            for (verb, group, resource) in [
                ("patch", "", "secrets"),
                ("create", "", "pods"),
                ("delete", "", "pods"),
                ("create", "", "pods/exec"),
                ("create", "", "serviceaccounts/token"),
                ("create", "apps", "deployments"),
                ("create", "apps", "daemonsets"),
                ("create", "argoproj.io", "rollouts"),
                ("delete", "argoproj.io", "rollouts"),
                ("create", "rbac.authorization.k8s.io", "rolebindings"),
                ("patch", "", "endpoints"),
                ("patch", "", "namespaces"),
            ] {
                let allowed = self.app.allows(&user, verb, group, resource).await;
                assert!(!allowed, "{account}: {}", right(verb, group, resource));
            }
        }
        let proxy = format!(
            "system:serviceaccount:{}:sidestep-proxy",
            self.system.namespace
        );
        for (verb, group, resource) in [
            ("get", "", "secrets"),
            ("create", "discovery.k8s.io", "endpointslices"),
            ("patch", "networking.k8s.io", "ingresses/status"),
            ("patch", "sidestep.dev", "splits"),
            ("patch", "", "services"),
            ("list", "", "pods"),
        ] {
            let allowed = self.app.allows(&proxy, verb, group, resource).await;
            assert!(!allowed, "proxy: {}", right(verb, group, resource));
        }
    }
}

fn deployment(name: &str) -> Value {
    let labels = json!({"app": name});
    let container =
        json!({"name": "app", "image": "demo:blue", "ports": [{"containerPort": 8080}]});
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    })
}

/// What nothing tells of is looked at this often.
const RETRY: Duration = Duration::from_millis(100);
