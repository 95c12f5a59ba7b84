//! The API server as its clients see it: `kube::Client` over real loopback, and `kubectl` where it is on the PATH.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use ::http::{Method, Request, Uri};
use futures::{Stream, StreamExt};
use http_body_util::BodyExt;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Namespace, Pod, Secret, Service};
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, ResourceExt, WatchEvent,
    WatchParams,
};
use kube::runtime::watcher::{self, watcher};
use kube::{Client, Error, Resource};
use serde_json::{Value, json};

use super::store::{text, version_of};
use super::*;
use crate::api::{AnalysisRun, Rollout};

const ROLLOUTS: &str = "/apis/argoproj.io/v1alpha1/namespaces/default/rollouts";
const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";
const JSON: &str = "application/json";

struct Cluster {
    local: Local,
    client: Client,
}

async fn cluster() -> Cluster {
    start(Config {
        history: 32,
        ..Config::default()
    })
    .await
    .unwrap()
    .into()
}

impl From<Local> for Cluster {
    fn from(local: Local) -> Self {
        let mut config = local.client_config();
        // A 504 is an answer here, and not to be asked again for minutes.
        config.default_retry = false;
        let client = Client::try_from(config).unwrap();
        Self { local, client }
    }
}

impl Cluster {
    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Sends a request, and returns the code and the body of the answer.
    async fn ask(&self, method: Method, path: &str, media: &str, body: &Value) -> (u16, Value) {
        let (code, _, text) = self.ask_as(method, path, media, body, JSON).await;
        (
            code,
            serde_json::from_str(&text).unwrap_or(Value::String(text)),
        )
    }

    async fn ask_as(
        &self,
        method: Method,
        path: &str,
        media: &str,
        body: &Value,
        accept: &str,
    ) -> (u16, Vec<String>, String) {
        let body = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media)
            .header("accept", accept)
            .body(body.into())
            .unwrap();
        let response = self.client.send(request).await.unwrap();
        let warnings = response
            .headers()
            .get_all("warning")
            .iter()
            .map(|value| value.to_str().unwrap().to_owned())
            .collect();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, warnings, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        let (code, body) = self.ask(Method::GET, path, JSON, &Value::Null).await;
        assert_eq!(code, 200, "{path}: {body}");
        body
    }

    async fn create(&self, path: &str, object: &Value) -> Value {
        let (code, body) = self.ask(Method::POST, path, JSON, object).await;
        assert_eq!(code, 201, "{path}: {body}");
        body
    }

    /// The lines of a watch.
    async fn watch(&self, path: &str) -> impl Stream<Item = Value> + Unpin + use<> {
        let request = Request::get(path).body(Vec::new()).unwrap();
        let lines = self.client.request_stream(request).await.unwrap();
        let lines = futures::AsyncBufReadExt::lines(lines);
        Box::pin(lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap()))
    }
}

/// Waits for the next item, but not for ever.
async fn next<T>(stream: &mut (impl Stream<Item = T> + Unpin)) -> T {
    tokio::time::timeout(Duration::from_secs(10), stream.next())
        .await
        .expect("something should come")
        .expect("the stream goes on")
}

fn code(error: &Error) -> (u16, &str) {
    let Error::Api(status) = error else {
        panic!("{error}")
    };
    (status.code, &status.reason)
}

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"name": name}}, "data": {"a": "1"}}),
    )
    .unwrap()
}

fn rollout(name: &str) -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": name},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}},
        },
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [
                {"name": "app", "image": "app:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]},
            ]}},
        },
    })
}

#[tokio::test]
async fn nobody_asks_without_the_token() {
    let cluster = cluster().await;
    let url: Uri = format!("http://{}", cluster.local.address).parse().unwrap();
    for token in [None, Some("wrong")] {
        let mut config = kube::Config::new(url.clone());
        config.auth_info.token = token.map(|token| token.to_owned().into());
        let error = Client::try_from(config)
            .unwrap()
            .list_core_api_versions()
            .await
            .unwrap_err();
        assert_eq!(code(&error), (401, "Unauthorized"), "{token:?}");
    }
    let outside = Config {
        listen: "0.0.0.0:0".parse().unwrap(),
        ..Config::default()
    };
    assert!(matches!(
        start(outside).await,
        Err(super::Error::NotLoopback(_))
    ));
}

#[tokio::test]
async fn what_cannot_be_is_refused_with_a_reason() {
    let cluster = cluster().await;
    cluster.create(ROLLOUTS, &rollout("r")).await;
    cluster
        .create(
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment("d"),
        )
        .await;
    let check =
        async |method: Method, path: &str, media: &str, body: Value, wanted: (u16, &str)| {
            let path = path
                .replace("{ro}", ROLLOUTS)
                .replace("{ns}", "/api/v1/namespaces/default");
            let (code, answer) = cluster.ask(method.clone(), &path, media, &body).await;
            assert_eq!(
                (code, answer["reason"].as_str().unwrap_or_default()),
                wanted,
                "{method} {path} {body}: {answer}"
            );
            assert_eq!(answer["kind"], "Status", "{answer}");
        };
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}});
    let with = |path: &str, value: Value| {
        let mut object = rollout("x");
        let (holder, key) = path.rsplit_once('/').unwrap();
        object.pointer_mut(holder).unwrap()[key] = value;
        object
    };
    #[rustfmt::skip] // A row a line.
    let cases = [
        // Places that are not.
        (Method::GET, "/api/v1/nodes", JSON, json!(null), (404, "NotFound")),
        (Method::GET, "{ro}/nope", JSON, json!(null), (404, "NotFound")),
        (Method::POST, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", JSON, json!({}), (404, "NotFound")),
        (Method::GET, "{ns}/pods/x/exec", JSON, json!(null), (404, "NotFound")),
        (Method::POST, "/api/v1/namespaces/nope/configmaps", JSON, map.clone(), (404, "NotFound")),
        (Method::POST, "/api/v1/configmaps", JSON, map.clone(), (405, "MethodNotAllowed")),
        (Method::PUT, "{ns}/configmaps", JSON, map.clone(), (405, "MethodNotAllowed")),
        (Method::DELETE, "/api/v1/namespaces/default", JSON, json!(null), (403, "Forbidden")),
        // Options that are not.
        (Method::GET, "{ns}/pods?fieldSelector=spec.color%3Dred", JSON, json!(null), (400, "BadRequest")),
        (Method::GET, "{ns}/pods?labelSelector=a%20in%20b", JSON, json!(null), (400, "BadRequest")),
        (Method::GET, "{ns}/pods?frobnicate=1", JSON, json!(null), (400, "BadRequest")),
        (Method::GET, "{ns}/pods?limit=many", JSON, json!(null), (400, "BadRequest")),
        (Method::GET, "{ns}/pods?continue=xyz", JSON, json!(null), (400, "BadRequest")),
        (Method::GET, "{ns}/pods?resourceVersion=x", JSON, json!(null), (400, "BadRequest")),
        (Method::GET, "{ns}/pods?resourceVersion=999999", JSON, json!(null), (504, "Timeout")),
        (Method::GET, "{ns}/pods?resourceVersionMatch=Exact", JSON, json!(null), (422, "Invalid")),
        (Method::GET, "{ns}/pods?watch=1&sendInitialEvents=true", JSON, json!(null), (422, "Invalid")),
        (Method::GET, "{ns}/pods?watch=1&resourceVersionMatch=NotOlderThan", JSON, json!(null), (422, "Invalid")),
        (Method::POST, "{ns}/configmaps?dryRun=Some", JSON, map.clone(), (400, "BadRequest")),
        (Method::POST, "{ns}/configmaps?fieldValidation=Lax", JSON, map.clone(), (400, "BadRequest")),
        (Method::DELETE, "{ro}/r?propagationPolicy=Sideways", JSON, json!(null), (400, "BadRequest")),
        (Method::DELETE, "{ro}/r", JSON, json!({"color": "red"}), (400, "BadRequest")),
        (Method::DELETE, "{ro}/r", JSON, json!({"preconditions": {"uid": "other"}}), (409, "Conflict")),
        // Bodies that are not.
        (Method::POST, "{ns}/configmaps", "application/vnd.kubernetes.protobuf", map.clone(), (415, "UnsupportedMediaType")),
        (Method::POST, "{ns}/configmaps", JSON, json!([]), (400, "BadRequest")),
        (Method::POST, "{ns}/configmaps", JSON, json!({"metadata": {"name": "c"}}), (400, "BadRequest")),
        (Method::POST, "{ns}/configmaps", JSON, rollout("c"), (400, "BadRequest")),
        (Method::POST, "{ro}", JSON, rollout("r"), (409, "AlreadyExists")),
        (Method::POST, "{ro}", JSON, with("/metadata/name", json!("Not_A_Name")), (422, "Invalid")),
        (Method::POST, "{ro}", JSON, with("/metadata", json!({})), (422, "Invalid")),
        (Method::POST, "{ro}", JSON, with("/spec", json!(null)), (422, "Invalid")),
        (Method::POST, "{ro}", JSON, with("/spec/replicas", json!("two")), (422, "Invalid")),
        (Method::POST, "{ro}", JSON, with("/metadata/namespace", json!("other")), (400, "BadRequest")),
        (Method::PUT, "{ro}/r", JSON, rollout("r"), (422, "Invalid")),
        // Patches that are not.
        (Method::PATCH, "{ro}/r", STRATEGIC, json!({}), (415, "UnsupportedMediaType")),
        (Method::PATCH, "{ro}/r", JSON, json!({}), (415, "UnsupportedMediaType")),
        (Method::PATCH, "{ro}/r", APPLY, rollout("r"), (422, "Invalid")),
        (Method::PATCH, "{ro}/r?force=true", MERGE, json!({}), (422, "Invalid")),
        (Method::PATCH, "{ro}/r", MERGE, json!({"metadata": {"resourceVersion": "1"}}), (409, "Conflict")),
        (Method::PATCH, "{ro}/r", MERGE, json!({"spec": {"selector": {"matchLabels": {"app": "s"}}}}), (422, "Invalid")),
        (Method::PATCH, "{ro}/r/scale", MERGE, json!({"spec": {"replicas": -1}}), (422, "Invalid")),
        (Method::PATCH, "{ro}/r", "application/json-patch+json", json!([{"op": "remove", "path": "/spec/nope"}]), (422, "Invalid")),
        (Method::PATCH, "{ro}/nope", MERGE, json!({}), (404, "NotFound")),
    ];
    for (method, path, media, body, wanted) in cases {
        check(method, path, media, body, wanted).await;
    }
    let mut typed = deployment("e");
    typed["spec"]["replicas"] = json!("two");
    check(
        Method::POST,
        "/apis/apps/v1/namespaces/default/deployments",
        JSON,
        typed,
        (400, "BadRequest"),
    )
    .await;
    let mut unmatched = deployment("e");
    unmatched["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    check(
        Method::POST,
        "/apis/apps/v1/namespaces/default/deployments",
        JSON,
        unmatched,
        (422, "Invalid"),
    )
    .await;
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_dropped() {
    let cluster = cluster().await;
    let check = async |name: &str, path: &str, validation: &str, wanted: (u16, usize)| {
        let mut object = rollout(name);
        let (holder, key) = path.rsplit_once('/').unwrap();
        object.pointer_mut(holder).unwrap()[key] = json!(1);
        let url = format!("{ROLLOUTS}?fieldValidation={validation}");
        let (code, warnings, text) = cluster
            .ask_as(Method::POST, &url, JSON, &object, JSON)
            .await;
        assert_eq!(
            (code, warnings.len()),
            wanted,
            "{path} {validation}: {text}"
        );
        let answer: Value = serde_json::from_str(&text).unwrap();
        let dotted = path
            .trim_start_matches('/')
            .replace("/0/", "[0].")
            .replace('/', ".");
        if code == 400 {
            assert!(
                answer["message"]
                    .as_str()
                    .unwrap()
                    .contains(&format!("unknown field \"{dotted}\"")),
                "{text}"
            );
        } else {
            assert_eq!(answer.pointer(path), None, "it is dropped: {text}");
        }
    };
    for (index, path) in [
        "/color",
        "/spec/color",
        "/metadata/color",
        "/spec/strategy/canary/steps/0/setWieght",
        "/spec/strategy/canary/trafficRuoting",
        "/spec/template/spec/contianers",
        "/spec/template/spec/containers/0/imag",
    ]
    .into_iter()
    .enumerate()
    {
        check(&format!("s{index}"), path, "Strict", (400, 0)).await;
        check(&format!("w{index}"), path, "Warn", (201, 1)).await;
        check(&format!("i{index}"), path, "Ignore", (201, 0)).await;
    }
}

#[test]
fn checking_names_every_field_that_is_wrong() {
    let check = |object: Value, wanted: &[&str]| {
        let found: Vec<String> = kinds::check(&object)
            .err()
            .unwrap_or_default()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(found, wanted);
    };
    check(rollout("r"), &[]);
    check(deployment("d"), &[]);
    let mut numbers = deployment("d");
    numbers["spec"]["template"]["spec"]["containers"][0]["resources"] =
        json!({"limits": {"cpu": 1, "memory": "1Gi"}});
    check(numbers, &[]);
    check(
        json!({"apiVersion": "v1", "kind": "Pot"}),
        &["apiVersion: Unsupported value: no kind \"Pot\" in \"v1\" here"],
    );
    check(
        json!({}),
        &["kind: Unsupported value: no kind \"\" in \"\" here"],
    );
    check(
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "1x"}, "spec": {"ports": [{"port": 70000}]}}),
        &[
            "metadata.name: Invalid value: \"1x\": a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character",
            "spec.ports[0].port: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ],
    );
    check(
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "a"}], "nodeNam": "x"}}),
        &[
            "unknown field \"spec.nodeNam\"",
            "spec.containers[0].image: Required value",
        ],
    );
    let mut routed = rollout("r");
    routed["spec"]["strategy"]["canary"]["trafficRouting"] =
        json!({"plugins": {"sidestep/proxy": {}}, "nginx": {}, "ngnix": {}});
    routed["spec"]["strategy"]["canary"]["analysis"] =
        json!({"templates": [{"templateNam": "x"}], "startingStep": 2});
    check(
        routed,
        &[
            "unknown field \"spec.strategy.canary.analysis.templates[0].templateNam\"",
            "unknown field \"spec.strategy.canary.trafficRouting.ngnix\"",
        ],
    );
}

#[tokio::test]
async fn objects_are_made_changed_listed_and_deleted() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    let made = api
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert!(made.uid().is_some() && made.creation_timestamp().is_some());

    let mut stale = made.clone();
    let mut fresh = made;
    fresh.data = Some(BTreeMap::from([("a".to_owned(), "2".to_owned())]));
    let fresh = api
        .replace("a", &PostParams::default(), &fresh)
        .await
        .unwrap();
    stale.data = None;
    let error = api
        .replace("a", &PostParams::default(), &stale)
        .await
        .unwrap_err();
    assert_eq!(code(&error), (409, "Conflict"));

    let same = api
        .replace("a", &PostParams::default(), &fresh)
        .await
        .unwrap();
    assert_eq!(
        same.resource_version(),
        fresh.resource_version(),
        "nothing changed"
    );

    let error = api
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap_err();
    assert_eq!(code(&error), (409, "AlreadyExists"));
    let mut generated = config_map("");
    generated.metadata.generate_name = Some("gen-".to_owned());
    generated.metadata.labels = None;
    generated.metadata.name = None;
    let name = api
        .create(&PostParams::default(), &generated)
        .await
        .unwrap()
        .name_any();
    assert!(name.starts_with("gen-") && name.len() == 9, "{name}");

    let gone = api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(gone.is_right(), "a Status says success");
    assert_eq!(code(&api.get("a").await.unwrap_err()), (404, "NotFound"));
}

#[tokio::test]
async fn a_dry_run_answers_and_leaves_nothing() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    assert!(
        api.create(&dry, &config_map("a"))
            .await
            .unwrap()
            .uid()
            .is_some()
    );
    assert_eq!(api.get_opt("a").await.unwrap(), None);
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    api.delete(
        "a",
        &DeleteParams {
            dry_run: true,
            ..DeleteParams::default()
        },
    )
    .await
    .unwrap();
    assert!(api.get_opt("a").await.unwrap().is_some());
}

#[tokio::test]
async fn selectors_narrow_lists() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    let pods: Api<Pod> = cluster.api();
    for (name, node) in [("p", "here"), ("q", "there")] {
        let pod = json!({"metadata": {"name": name}, "spec": {"nodeName": node, "containers": [{"name": "a", "image": "b"}]}});
        pods.create(
            &PostParams::default(),
            &serde_json::from_value(pod).unwrap(),
        )
        .await
        .unwrap();
    }
    let check = async |kind: &str, labels: &str, fields: &str, wanted: &str| {
        let query = format!("labelSelector={labels}&fieldSelector={fields}").replace(' ', "%20");
        let list = cluster
            .get(&format!("/api/v1/namespaces/default/{kind}?{query}"))
            .await;
        let names: Vec<&str> = list["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| text(item, "name"))
            .collect();
        assert_eq!(names.join(","), wanted, "{kind} {labels} {fields}");
    };
    for (kind, labels, fields, wanted) in [
        ("configmaps", "", "", "a,b,c"),
        ("configmaps", "name=a", "", "a"),
        ("configmaps", "name!=a", "", "b,c"),
        ("configmaps", "name in (a, c)", "", "a,c"),
        ("configmaps", "name notin (a,c)", "", "b"),
        ("configmaps", "name,!other", "", "a,b,c"),
        ("configmaps", "other", "", ""),
        ("configmaps", "name==a,name!=b", "metadata.name=a", "a"),
        (
            "configmaps",
            "",
            "metadata.name!=a,metadata.namespace=default",
            "b,c",
        ),
        ("pods", "", "spec.nodeName=here", "p"),
        ("pods", "", "status.phase=Pending,spec.nodeName!=here", "q"),
        ("pods", "", "status.phase=Running", ""),
    ] {
        check(kind, labels, fields, wanted).await;
    }
}

#[tokio::test]
async fn pages_of_a_list_are_of_one_version() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    for name in ["a", "b", "c", "d", "e"] {
        api.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    let first = api.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.metadata.remaining_item_count, Some(3));
    api.delete("d", &DeleteParams::default()).await.unwrap();
    api.create(&PostParams::default(), &config_map("c2"))
        .await
        .unwrap();
    let token = first.metadata.continue_.clone().unwrap();
    let second = api
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap();
    let third = api
        .list(&ListParams::default().continue_token(second.metadata.continue_.as_deref().unwrap()))
        .await
        .unwrap();
    let names: Vec<String> = [&first, &second, &third]
        .into_iter()
        .flat_map(|page| &page.items)
        .map(ResourceExt::name_any)
        .collect();
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert_eq!(
        (&first.metadata.resource_version, &third.metadata.continue_),
        (&third.metadata.resource_version, &None)
    );

    for index in 0..40 {
        api.create(&PostParams::default(), &config_map(&format!("x{index}")))
            .await
            .unwrap();
    }
    let error = api
        .list(&ListParams::default().continue_token(&token))
        .await
        .unwrap_err();
    assert_eq!(code(&error), (410, "Expired"));
}

#[tokio::test]
async fn a_watch_goes_on_where_it_was_and_ends_where_history_does() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let version = api
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    api.create(&PostParams::default(), &config_map("b"))
        .await
        .unwrap();
    api.delete("a", &DeleteParams::default()).await.unwrap();

    let mut events = Box::pin(api.watch(&WatchParams::default(), &version).await.unwrap());
    let WatchEvent::Added(added) = next(&mut events).await.unwrap() else {
        panic!("b comes first")
    };
    let WatchEvent::Deleted(deleted) = next(&mut events).await.unwrap() else {
        panic!("then a goes")
    };
    assert_eq!(
        (added.name_any(), deleted.name_any()),
        ("b".to_owned(), "a".to_owned())
    );
    assert_ne!(
        deleted.resource_version(),
        Some(version.clone()),
        "the version of the deletion"
    );

    for index in 0..40 {
        api.create(&PostParams::default(), &config_map(&format!("x{index}")))
            .await
            .unwrap();
    }
    for old in [version.as_str(), "1", "99999"] {
        let mut events = Box::pin(api.watch(&WatchParams::default(), old).await.unwrap());
        let WatchEvent::Error(error) = next(&mut events).await.unwrap() else {
            panic!("{old} is gone")
        };
        assert_eq!((error.code, error.reason.as_str()), (410, "Expired"));
    }
}

#[tokio::test]
async fn a_watch_tells_who_enters_and_who_leaves_its_selection() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    let mut events = cluster
        .watch("/api/v1/namespaces/default/configmaps?watch=1&labelSelector=on")
        .await;
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let label = async |value: Value| {
        let patch = json!({"metadata": {"labels": {"on": value}}});
        api.patch("a", &PatchParams::default(), &Patch::Merge(patch))
            .await
            .unwrap()
            .resource_version()
            .unwrap()
    };
    label(json!("1")).await;
    label(json!("2")).await;
    let left = label(json!(null)).await;
    for (what, value) in [("ADDED", "1"), ("MODIFIED", "2"), ("DELETED", "2")] {
        let event = next(&mut events).await;
        assert_eq!(
            (
                event["type"].as_str(),
                event["object"]["metadata"]["labels"]["on"].as_str()
            ),
            (Some(what), Some(value))
        );
        if what == "DELETED" {
            assert_eq!(text(&event["object"], "resourceVersion"), left);
        }
    }
}

#[tokio::test]
async fn a_watch_can_begin_with_everything_and_say_where_that_ends() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let path = "/api/v1/namespaces/default/configmaps?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1";
    let events: Vec<Value> = cluster.watch(path).await.collect().await;
    let told: Vec<(&str, bool)> = events
        .iter()
        .map(|event| {
            let end =
                event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"] == "true";
            (event["type"].as_str().unwrap(), end)
        })
        .collect();
    assert_eq!(
        told,
        [("ADDED", false), ("BOOKMARK", true), ("BOOKMARK", false)],
        "the last one where the watch ends"
    );
    assert_eq!(
        text(&events[1]["object"], "resourceVersion"),
        cluster.local.store.version().to_string()
    );
}

#[tokio::test]
async fn watchers_of_both_strategies_see_the_same() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    api.create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    for config in [
        watcher::Config::default(),
        watcher::Config::default().streaming_lists(),
    ] {
        let name = format!("b{}", cluster.local.store.version());
        let mut events = Box::pin(watcher(api.clone(), config));
        let mut seen = Vec::new();
        loop {
            match next(&mut events).await.unwrap() {
                watcher::Event::Init => {}
                watcher::Event::InitApply(object) => seen.push(object.name_any()),
                watcher::Event::InitDone => break,
                other @ (watcher::Event::Apply(_) | watcher::Event::Delete(_)) => {
                    panic!("{other:?}")
                }
            }
        }
        assert!(seen.contains(&"a".to_owned()), "{seen:?}");
        api.create(&PostParams::default(), &config_map(&name))
            .await
            .unwrap();
        let watcher::Event::Apply(applied) = next(&mut events).await.unwrap() else {
            panic!("b is new")
        };
        assert_eq!(applied.name_any(), name);
    }
}

#[tokio::test]
async fn the_patches_of_the_everyday_commands_do_what_they_say() {
    let cluster = cluster().await;
    cluster.create(ROLLOUTS, &rollout("r")).await;
    let check =
        async |subresource: &str, patch: Value, path: &str, wanted: Value, generation: i64| {
            let media = if patch.is_array() {
                "application/json-patch+json"
            } else {
                MERGE
            };
            let (code, object) = cluster
                .ask(
                    Method::PATCH,
                    &format!("{ROLLOUTS}/r{subresource}"),
                    media,
                    &patch,
                )
                .await;
            assert_eq!(code, 200, "{patch}: {object}");
            assert_eq!(
                object.pointer(path).cloned().unwrap_or_default(),
                wanted,
                "{patch}"
            );
            assert_eq!(object["metadata"]["generation"], generation, "{patch}");
        };
    let paused = json!({"status": {"pauseConditions": [{"reason": "CanaryPauseStep", "startTime": "2026-01-01T00:00:00Z"}], "currentStepIndex": 1}});
    let template = json!({"metadata": {"labels": {"app": "r"}}, "spec": {"containers": [{"name": "app", "image": "app:0"}]}});
    for (subresource, patch, path, wanted, generation) in [
        ("/status", paused, "/status/currentStepIndex", json!(1), 1),
        (
            "/status",
            json!({"status": {"pauseConditions": null}}),
            "/status/pauseConditions",
            json!(null),
            1,
        ),
        (
            "/status",
            json!({"status": {"pauseConditions": null, "currentStepIndex": 2}}),
            "/status/currentStepIndex",
            json!(2),
            1,
        ),
        (
            "/status",
            json!({"status": {"promoteFull": true}}),
            "/status/promoteFull",
            json!(true),
            1,
        ),
        (
            "/status",
            json!({"status": {"abort": true}}),
            "/status/abort",
            json!(true),
            1,
        ),
        (
            "/status",
            json!({"status": {"abort": false}, "spec": {"paused": true}}),
            "/spec/paused",
            json!(null),
            1,
        ),
        (
            "",
            json!({"spec": {"paused": true}, "status": {"phase": "Degraded"}}),
            "/status/phase",
            json!(null),
            2,
        ),
        (
            "",
            json!({"spec": {"paused": false}}),
            "/spec/paused",
            json!(false),
            3,
        ),
        (
            "",
            json!({"spec": {"restartAt": "2026-01-01T00:00:00Z"}}),
            "/spec/restartAt",
            json!("2026-01-01T00:00:00Z"),
            4,
        ),
        (
            "",
            json!([{"op": "replace", "path": "/spec/template", "value": template}]),
            "/spec/template/spec/containers/0/image",
            json!("app:0"),
            5,
        ),
        (
            "",
            json!({"metadata": {"labels": {"a": "b"}}}),
            "/metadata/labels/a",
            json!("b"),
            5,
        ),
    ] {
        check(subresource, patch, path, wanted, generation).await;
    }
}

#[tokio::test]
async fn kinds_without_a_status_subresource_take_their_status_with_the_object() {
    let cluster = cluster().await;
    let runs: Api<AnalysisRun> = cluster.api();
    let run = json!({"metadata": {"name": "run"}, "spec": {"metrics": []}});
    runs.create(
        &PostParams::default(),
        &serde_json::from_value(run).unwrap(),
    )
    .await
    .unwrap();
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    let run = runs
        .patch("run", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        (run.status.unwrap().phase.as_str(), run.metadata.generation),
        ("Running", Some(2))
    );
    assert_eq!(
        code(
            &runs
                .patch_status("run", &PatchParams::default(), &status)
                .await
                .unwrap_err()
        ),
        (404, "NotFound")
    );

    let path = "/apis/argoproj.io/v1alpha1/namespaces/default/experiments";
    let experiment = json!({"apiVersion": "argoproj.io/v1alpha1", "kind": "Experiment", "metadata": {"name": "e"}, "spec": {"templates": []}, "status": {"phase": "Failed"}});
    assert_eq!(
        cluster.create(path, &experiment).await["status"]["phase"],
        "Failed"
    );
    let (code, retried) = cluster
        .ask(
            Method::PATCH,
            &format!("{path}/e"),
            MERGE,
            &json!({"status": null}),
        )
        .await;
    assert_eq!((code, &retried["status"]), (200, &Value::Null));
}

#[tokio::test]
async fn scale_reads_and_writes_through_its_paths() {
    let cluster = cluster().await;
    let api: Api<Rollout> = cluster.api();
    api.create(
        &PostParams::default(),
        &serde_json::from_value(rollout("r")).unwrap(),
    )
    .await
    .unwrap();
    let status = json!({"status": {"HPAReplicas": 3, "selector": "app=r"}});
    api.patch_status("r", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let mut scale = api.get_scale("r").await.unwrap();
    let counted = scale.status.clone().unwrap();
    assert_eq!(
        (
            scale.spec.clone().unwrap().replicas,
            counted.replicas,
            counted.selector.as_deref()
        ),
        (Some(2), 3, Some("app=r"))
    );
    scale.spec.as_mut().unwrap().replicas = Some(7);
    api.replace_scale("r", &PostParams::default(), &scale)
        .await
        .unwrap();
    let scaled = api.get("r").await.unwrap();
    assert_eq!(
        (scaled.spec.replicas, scaled.metadata.generation),
        (Some(7), Some(2))
    );
    let error = api
        .replace_scale("r", &PostParams::default(), &scale)
        .await
        .unwrap_err();
    assert_eq!(code(&error), (409, "Conflict"), "its version is old");

    cluster
        .create(
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment("d"),
        )
        .await;
    let scale = cluster
        .get("/apis/apps/v1/namespaces/default/deployments/d/scale")
        .await;
    assert_eq!(
        (&scale["spec"]["replicas"], &scale["status"]["selector"]),
        (&json!(1), &json!("app=d"))
    );
}

#[tokio::test]
async fn strategic_patches_merge_containers_by_name() {
    let cluster = cluster().await;
    cluster
        .create(
            "/apis/apps/v1/namespaces/default/deployments",
            &deployment("d"),
        )
        .await;
    let api: Api<Deployment> = cluster.api();
    let patch = json!({"spec": {"template": {"spec": {"containers": [{"name": "app", "image": "app:2"}, {"name": "side", "image": "side:1"}]}}}});
    let patched = api
        .patch("d", &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .unwrap();
    let containers = patched.spec.unwrap().template.spec.unwrap().containers;
    let told: Vec<_> = containers
        .iter()
        .map(|container| {
            (
                container.name.as_str(),
                container.image.as_deref().unwrap(),
                container.env.is_some(),
            )
        })
        .collect();
    assert_eq!(told, [("app", "app:2", true), ("side", "side:1", false)]);
}

#[tokio::test]
async fn apply_removes_what_is_no_longer_said_and_respects_others() {
    let cluster = cluster().await;
    let api: Api<Rollout> = cluster.api();
    let mut wanted = rollout("r");
    wanted["metadata"]["labels"] = json!({"a": "1", "b": "2"});
    let mine = PatchParams::apply("mine");
    api.patch("r", &mine, &Patch::Apply(&wanted)).await.unwrap();

    wanted["metadata"]["labels"] = json!({"a": "1"});
    let applied = api.patch("r", &mine, &Patch::Apply(&wanted)).await.unwrap();
    assert_eq!(applied.labels().keys().collect::<Vec<_>>(), ["a"]);
    let again = api.patch("r", &mine, &Patch::Apply(&wanted)).await.unwrap();
    assert_eq!(
        again.resource_version(),
        applied.resource_version(),
        "applied twice is applied once"
    );

    let theirs = Patch::Merge(json!({"spec": {"replicas": 9}}));
    api.patch(
        "r",
        &PatchParams {
            field_manager: Some("theirs".to_owned()),
            ..PatchParams::default()
        },
        &theirs,
    )
    .await
    .unwrap();
    let error = api
        .patch("r", &mine, &Patch::Apply(&wanted))
        .await
        .unwrap_err();
    let Error::Api(status) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (status.code, status.message.as_str()),
        (
            409,
            "Apply failed with 1 conflict: conflict with \"theirs\" using argoproj.io/v1alpha1: .spec.replicas"
        )
    );
    let forced = api
        .patch("r", &mine.clone().force(), &Patch::Apply(&wanted))
        .await
        .unwrap();
    assert_eq!(forced.spec.replicas, Some(2));
}

#[tokio::test]
async fn events_are_one_kind_under_two_names() {
    let cluster = cluster().await;
    let event = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "Done", "note": "all is done", "type": "Normal", "action": "Work",
        "reportingController": "sidestep", "reportingInstance": "s-1",
        "regarding": {"apiVersion": "v1", "kind": "Pod", "name": "p", "namespace": "default"},
    });
    let path = "/apis/events.k8s.io/v1/namespaces/default/events";
    assert_eq!(cluster.create(path, &event).await["note"], "all is done");
    let events: Api<Event> = cluster.api();
    let params = ListParams::default().fields("involvedObject.name=p,type=Normal");
    let found = events.list(&params).await.unwrap().items;
    assert_eq!(
        (found.len(), found[0].message.as_deref()),
        (1, Some("all is done"))
    );
    let again = cluster
        .get(&format!("{path}?fieldSelector=regarding.name%3Dp"))
        .await;
    assert_eq!(
        (
            &again["items"][0]["kind"],
            &again["items"][0]["regarding"]["name"]
        ),
        (&json!("Event"), &json!("p"))
    );
}

#[tokio::test]
async fn an_eviction_is_a_deletion_of_the_pod_that_was_meant() {
    let cluster = cluster().await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "finalizers": ["test.dev/hold"]},
        "spec": {"nodeName": "n", "containers": [{"name": "app", "image": "x"}], "terminationGracePeriodSeconds": 7},
    });
    let uid = cluster.create(pods, &pod).await["metadata"]["uid"].clone();
    let evict = async |change: fn(&mut Value), wanted: u16| {
        let options = json!({"preconditions": {"uid": uid}});
        let mut eviction = json!({
            "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}, "deleteOptions": options,
        });
        change(&mut eviction);
        let path = format!("{pods}/p/eviction");
        let (code, answer) = cluster.ask(Method::POST, &path, JSON, &eviction).await;
        assert_eq!(code, wanted, "{answer}");
        answer
    };
    evict(
        |e| e["deleteOptions"]["preconditions"]["uid"] = json!("another"),
        409,
    )
    .await;
    evict(|e| e["metadata"]["name"] = json!("q"), 400).await;
    evict(|e| e["kind"] = json!("Pod"), 400).await;
    evict(|e| e["delete_options"] = json!({}), 400).await;
    evict(|e| e["deleteOptions"]["dryRun"] = json!(["All"]), 201).await;
    let path = format!("{pods}/p");
    let deleted_at = "/metadata/deletionTimestamp";
    assert_eq!(cluster.get(&path).await.pointer(deleted_at), None);
    assert_eq!(evict(|_| {}, 201).await["status"], "Success");
    let going = cluster.get(&path).await;
    assert!(going.pointer(deleted_at).is_some(), "{going:#}");
    assert_eq!(going["metadata"]["deletionGracePeriodSeconds"], json!(7));
}

#[tokio::test]
async fn clients_find_the_defaults_they_rely_on() {
    let cluster = cluster().await;
    let services: Api<Service> = cluster.api();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}});
    let made = services
        .create(
            &PostParams::default(),
            &serde_json::from_value(service).unwrap(),
        )
        .await
        .unwrap();
    let port = made.spec.unwrap().ports.unwrap().remove(0);
    assert_eq!(
        (port.protocol.as_deref(), json!(port.target_port)),
        (Some("TCP"), json!(80))
    );

    let secrets: Api<Secret> = cluster.api();
    let secret = json!({"metadata": {"name": "s"}, "stringData": {"password": "geheim"}});
    let made = secrets
        .create(
            &PostParams::default(),
            &serde_json::from_value(secret).unwrap(),
        )
        .await
        .unwrap();
    assert_eq!(
        (made.type_.as_deref(), made.string_data),
        (Some("Opaque"), None)
    );
    assert_eq!(made.data.unwrap()["password"].0, b"geheim");

    let mut asked = deployment("d");
    asked["spec"]["template"]["spec"]["containers"][0]["resources"] = json!({"limits": {"cpu": 1}});
    cluster
        .create("/apis/apps/v1/namespaces/default/deployments", &asked)
        .await;
    let deployments: Api<Deployment> = cluster.api();
    let spec = deployments.get("d").await.unwrap().spec.unwrap();
    let container = &spec.template.spec.as_ref().unwrap().containers[0];
    assert_eq!(
        (
            spec.replicas,
            container.ports.as_ref().unwrap()[0].protocol.as_deref()
        ),
        (Some(1), Some("TCP"))
    );
    assert_eq!(
        container
            .resources
            .as_ref()
            .unwrap()
            .limits
            .as_ref()
            .unwrap()["cpu"]
            .0,
        "1",
        "a number is text"
    );
}

#[tokio::test]
async fn deletion_waits_for_what_holds_an_object() {
    let cluster = cluster().await;
    let api: Api<ConfigMap> = cluster.api();
    let mut held = config_map("held");
    held.metadata.finalizers = Some(vec!["example.com/hold".to_owned()]);
    api.create(&PostParams::default(), &held).await.unwrap();
    api.create(&PostParams::default(), &config_map("free"))
        .await
        .unwrap();
    let gone = api
        .delete_collection(&DeleteParams::default(), &ListParams::default())
        .await
        .unwrap();
    assert_eq!(gone.left().unwrap().items.len(), 2);
    assert_eq!(api.get_opt("free").await.unwrap(), None);
    assert!(
        api.get("held")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    api.patch(
        "held",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"finalizers": null}})),
    )
    .await
    .unwrap();
    assert_eq!(api.get_opt("held").await.unwrap(), None);

    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &serde_json::from_value(json!({"metadata": {"name": "n"}})).unwrap(),
        )
        .await
        .unwrap();
    namespaces
        .delete("n", &DeleteParams::default())
        .await
        .unwrap();
    let inside: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "n");
    let error = inside
        .create(&PostParams::default(), &config_map("late"))
        .await
        .unwrap_err();
    assert_eq!(code(&error), (403, "Forbidden"), "{error}");
}

#[tokio::test]
async fn tables_and_metadata_are_shapes_of_the_same_objects() {
    let cluster = cluster().await;
    cluster.create(ROLLOUTS, &rollout("r")).await;
    let ask = async |path: &str, accept: &str| -> Value {
        let (code, _, text) = cluster
            .ask_as(Method::GET, path, JSON, &Value::Null, accept)
            .await;
        assert_eq!(code, 200, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let table = "application/json;as=Table;v=v1;g=meta.k8s.io";
    for path in [ROLLOUTS.to_owned(), format!("{ROLLOUTS}/r")] {
        let shown = ask(&path, table).await;
        let names: Vec<&str> = shown["columnDefinitions"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(
            names,
            [
                "Name",
                "Desired",
                "Current",
                "Up-to-date",
                "Available",
                "Age"
            ]
        );
        assert_eq!(shown["rows"][0]["cells"][0], "r");
        assert_eq!(shown["rows"][0]["object"]["kind"], "PartialObjectMetadata");
        assert_eq!(shown["rows"][0]["object"]["spec"], Value::Null);
    }
    let metadata = ask(
        ROLLOUTS,
        "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
    )
    .await;
    assert_eq!(
        (&metadata["kind"], &metadata["items"][0]["spec"]),
        (&json!("PartialObjectMetadataList"), &Value::Null)
    );
    let (code, _, _) = cluster
        .ask_as(Method::GET, ROLLOUTS, JSON, &Value::Null, "text/html")
        .await;
    assert_eq!(code, 406);
}

#[tokio::test]
async fn kube_discovers_every_kind_both_ways() {
    let cluster = cluster().await;
    let plain = kube::discovery::Discovery::new(cluster.client.clone())
        .run()
        .await
        .unwrap();
    let aggregated = kube::discovery::Discovery::new(cluster.client.clone())
        .run_aggregated()
        .await
        .unwrap();
    for discovery in [plain, aggregated] {
        for kind in kinds::ALL {
            let gvk = kube::core::GroupVersionKind::gvk(kind.group, kind.version, kind.kind);
            let (resource, found) = discovery
                .resolve_gvk(&gvk)
                .unwrap_or_else(|| panic!("{kind:?}"));
            assert_eq!(resource.plural, kind.plural);
            assert_eq!(
                found.scope == kube::discovery::Scope::Namespaced,
                kind.namespaced,
                "{kind:?}"
            );
            assert_eq!(
                found
                    .subresources
                    .iter()
                    .any(|(part, _)| part.plural == "status"),
                kind.status,
                "{kind:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_token_is_vouched_for() {
    let cluster = cluster().await;
    let ask = async |token: &str| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        cluster
            .create("/apis/authentication.k8s.io/v1/tokenreviews", &review)
            .await["status"]["authenticated"]
            == true
    };
    assert!(ask(&cluster.local.token).await);
    assert!(!ask("another").await);
}

#[tokio::test]
async fn logs_are_what_the_pod_player_keeps() {
    let cluster = cluster().await;
    let pods: Api<Pod> = cluster.api();
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "b"}, {"name": "side", "image": "c"}]}});
    pods.create(
        &PostParams::default(),
        &serde_json::from_value(pod).unwrap(),
    )
    .await
    .unwrap();
    let log = cluster.local.logs.open("default", "p");
    for line in ["one", "two"] {
        log.write(store::now(), line.as_bytes());
    }
    let path = "/api/v1/namespaces/default/pods/p/log";
    for (query, wanted) in [
        ("container=app", (200, "one\ntwo\n")),
        ("container=app&tailLines=1", (200, "two\n")),
        ("container=app&limitBytes=2", (200, "on")),
    ] {
        let (code, answer) = cluster
            .ask(Method::GET, &format!("{path}?{query}"), JSON, &Value::Null)
            .await;
        assert_eq!(
            (code, answer.as_str().unwrap_or_default()),
            wanted,
            "{query}"
        );
    }
    for query in [
        "",
        "container=side",
        "container=nope",
        "container=app&follow=true",
        "container=app&previous=true",
        "container=app&sinceTime=x",
    ] {
        let (code, answer) = cluster
            .ask(Method::GET, &format!("{path}?{query}"), JSON, &Value::Null)
            .await;
        assert_eq!(code, 400, "{query}: {answer}");
    }
}

fn keeping(state: &Path) -> Config {
    Config {
        state: Some(state.to_owned()),
        ..Config::default()
    }
}

/// What a machine that lost power, or a process that was killed, leaves.
fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.path().join(path.file_name().unwrap())).unwrap();
    }
    to
}

fn files(folder: &Path, containing: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains(containing))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_acknowledged_survives_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let first = Cluster::from(start(keeping(folder.path())).await.unwrap());
    let api: Api<ConfigMap> = first.api();
    let kept = api
        .create(&PostParams::default(), &config_map("kept"))
        .await
        .unwrap();
    api.create(&PostParams::default(), &config_map("gone"))
        .await
        .unwrap();
    api.delete("gone", &DeleteParams::default()).await.unwrap();
    let version = first.local.store.version();
    let killed = copy(folder.path());

    let second = Cluster::from(start(keeping(killed.path())).await.unwrap());
    assert_eq!(second.local.damage, []);
    let api: Api<ConfigMap> = second.api();
    assert_eq!(
        api.get("kept").await.unwrap(),
        kept,
        "uid and version included"
    );
    assert_eq!(api.get_opt("gone").await.unwrap(), None);
    let later = api
        .create(&PostParams::default(), &config_map("later"))
        .await
        .unwrap();
    assert!(
        later.resource_version().unwrap().parse::<u64>().unwrap() > version,
        "versions go on"
    );
    second.local.stop().await;
    let third = start(keeping(killed.path())).await.unwrap();
    assert!(
        third
            .store
            .get(&kinds::CONFIG_MAP, "default", "later")
            .is_some()
    );
}

#[tokio::test]
async fn damage_is_reported_set_aside_and_costs_one_record() {
    let folder = tempfile::tempdir().unwrap();
    let first = Cluster::from(start(keeping(folder.path())).await.unwrap());
    let api: Api<ConfigMap> = first.api();
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    let damaged = copy(folder.path());
    let journal = damaged.path().join(&files(damaged.path(), "journal-")[0]);
    let text = std::fs::read_to_string(&journal)
        .unwrap()
        .replace("\"name\":\"b\"", "\"name\":\"x\"");
    std::fs::write(
        &journal,
        format!("{text}0123456789abcdef {{\"put\": unfini"),
    )
    .unwrap();

    let second = start(keeping(damaged.path())).await.unwrap();
    let there = |name: &str| {
        second
            .store
            .get(&kinds::CONFIG_MAP, "default", name)
            .is_some()
    };
    assert_eq!(
        (there("a"), there("b"), there("x"), there("c")),
        (true, false, false, true)
    );
    assert_eq!(second.damage.len(), 1);
    assert!(
        second.damage[0].message.contains("cannot be read"),
        "{:?}",
        second.damage
    );
    let aside = files(damaged.path(), ".damaged-1");
    assert_eq!(
        std::fs::read_to_string(damaged.path().join(&aside[0]))
            .unwrap()
            .lines()
            .count(),
        text.lines().count() + 1,
        "as it was found"
    );
}

#[tokio::test]
async fn a_damaged_snapshot_is_made_good_by_the_one_before() {
    let folder = tempfile::tempdir().unwrap();
    let first = Cluster::from(start(keeping(folder.path())).await.unwrap());
    let api: Api<ConfigMap> = first.api();
    for name in ["a", "b"] {
        api.create(&PostParams::default(), &config_map(name))
            .await
            .unwrap();
    }
    first.local.stop().await;
    start(keeping(folder.path())).await.unwrap().stop().await;
    let snapshots = files(folder.path(), "snapshot-");
    assert_eq!(snapshots.len(), 2, "{snapshots:?}");
    let newest = snapshots
        .iter()
        .max_by_key(|name| name.rsplit('-').next().unwrap().parse::<u64>().unwrap())
        .unwrap();
    std::fs::write(folder.path().join(newest), "garbage\n").unwrap();

    let third = start(keeping(folder.path())).await.unwrap();
    assert_eq!(third.damage.len(), 1, "{:?}", third.damage);
    for name in ["a", "b"] {
        assert!(
            third
                .store
                .get(&kinds::CONFIG_MAP, "default", name)
                .is_some(),
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_folder_is_used_by_one_and_must_be_usable() {
    let folder = tempfile::tempdir().unwrap();
    let _first = start(keeping(folder.path())).await.unwrap();
    let second = start(keeping(folder.path())).await.unwrap_err();
    assert!(
        matches!(second, super::Error::State(persist::Error::InUse(_))),
        "{second}"
    );

    let file = folder.path().join("file");
    std::fs::write(&file, "").unwrap();
    let third = start(keeping(&file.join("folder"))).await.unwrap_err();
    assert!(
        third.to_string().starts_with("making the state folder "),
        "{third}"
    );

    let newer = tempfile::tempdir().unwrap();
    let head = json!({"format": 2, "version": 1, "objects": 0});
    std::fs::write(newer.path().join("snapshot-1"), persist::line(&head)).unwrap();
    let fourth = start(keeping(newer.path())).await.unwrap_err();
    assert!(
        matches!(fourth, super::Error::State(persist::Error::Format { .. })),
        "{fourth}"
    );
}

#[tokio::test]
async fn the_kubeconfig_is_for_its_owner_and_writes_over_none_but_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("kube").join("config");
    let config = || Config {
        kubeconfig: Some(path.clone()),
        ..Config::default()
    };
    let _first = start(config()).await.unwrap();
    assert_eq!(
        std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let second = start(config()).await.unwrap();
    let read = kube::config::Kubeconfig::read_from(&path).unwrap();
    let client = kube::Config::from_custom_kubeconfig(read, &Default::default())
        .await
        .unwrap();
    let client = Client::try_from(client).unwrap();
    assert_eq!(client.apiserver_version().await.unwrap().compiler, "rustc");
    drop(second);

    std::fs::write(&path, "apiVersion: v1\nkind: Config\nclusters: [{name: production, cluster: {server: https://x}}]\n").unwrap();
    let refused = start(config()).await.unwrap_err();
    assert!(
        matches!(
            refused,
            super::Error::Kubeconfig(kubeconfig::Error::NotOurs(_))
        ),
        "{refused}"
    );
}

#[tokio::test]
async fn players_inside_see_what_clients_write() {
    let cluster = cluster().await;
    let mut changes = cluster.local.store.subscribe(cluster.local.store.version());
    let api: Api<ConfigMap> = cluster.api();
    let made = api
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let seen = tokio::time::timeout(Duration::from_secs(10), changes.next())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        version_of(&seen[0].object).map(|version| version.to_string()),
        made.resource_version()
    );
}

/// Runs `kubectl`; `None` where there is none.
async fn kubectl(config: &Path, arguments: &str, input: &str) -> Option<Output> {
    use tokio::io::AsyncWriteExt;
    let mut child = match tokio::process::Command::new("kubectl")
        .args(arguments.split(' '))
        .env("KUBECONFIG", config)
        .env("KUBE_CACHE_DIR", config.with_extension("cache"))
        .env("EDITOR", "sed -i s/app:3/app:4/")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
    {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => panic!("{error}"),
    };
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    Some(
        tokio::time::timeout(Duration::from_secs(60), child.wait_with_output())
            .await
            .unwrap()
            .unwrap(),
    )
}

#[tokio::test]
async fn kubectl_works_as_on_a_real_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config");
    let local = start(Config {
        kubeconfig: Some(config.clone()),
        ..Config::default()
    })
    .await
    .unwrap();
    let log = local.logs.open("default", "p");
    log.write(store::now(), b"it says this");
    let manifest = |image: &str| {
        let mut rollout = rollout("r");
        rollout["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let mut deployment = deployment("d");
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"selector": {"app": "r"}, "ports": [{"port": 80}]}});
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "app", "image": "app:1"}]}});
        json!({"apiVersion": "v1", "kind": "List", "items": [rollout, deployment, service, pod]})
            .to_string()
    };
    #[rustfmt::skip] // A row a line.
    let cases: &[(&str, &str, bool, &[&str])] = &[
        ("apply -f -", "app:1", true, &["rollout.argoproj.io/r created", "deployment.apps/d created", "service/s created", "pod/p created"]),
        ("apply -f -", "app:1", true, &["rollout.argoproj.io/r unchanged", "deployment.apps/d unchanged", "service/s unchanged"]),
        ("apply -f -", "app:2", true, &["rollout.argoproj.io/r configured", "deployment.apps/d configured"]),
        ("diff -f -", "app:3", false, &["image: app:3"]),
        ("apply --server-side --force-conflicts -f -", "app:3", true, &["rollout.argoproj.io/r serverside-applied"]),
        ("get rollouts,deploy,svc,pods", "", true, &["DESIRED CURRENT UP-TO-DATE AVAILABLE AGE", "0/1 Pending", "80/TCP"]),
        ("get deploy -o wide", "", true, &["CONTAINERS IMAGES SELECTOR", "app:3 app=d"]),
        ("get ro r -o yaml", "", true, &["setWeight: 20", "image: app:3"]),
        ("get ro -o custom-columns=N:.metadata.name,I:.spec.template.spec.containers[0].image", "", true, &["r app:3"]),
        ("get pods --sort-by=.metadata.name -A", "", true, &["default p"]),
        ("describe rollout r", "", true, &["Set Weight: 20", "Kind: Rollout"]),
        ("describe deploy d", "", true, &["Image: app:3", "Selector: app=d"]),
        ("describe svc s", "", true, &["80/TCP"]),
        ("describe pod p", "", true, &["Image: app:1", "Status: Pending"]),
        ("label ro r tier=front", "", true, &["labeled"]),
        ("get ro -l tier=front -o name", "", true, &["rollout.argoproj.io/r"]),
        ("get pods --field-selector status.phase=Pending -o name", "", true, &["pod/p"]),
        ("annotate svc s a=b", "", true, &["annotated"]),
        ("scale ro r --replicas=5", "", true, &["scaled"]),
        ("patch ro r --type=merge -p {\"spec\":{\"paused\":true}}", "", true, &["patched"]),
        ("patch ro r --subresource=status --type=merge -p {\"status\":{\"phase\":\"Paused\"}}", "", true, &["patched"]),
        ("wait ro/r --for=jsonpath={.status.phase}=Paused --timeout=10s", "", true, &["condition met"]),
        ("patch deploy d -p {\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"app\",\"image\":\"app:9\"}]}}}}", "", true, &["patched"]),
        ("set image deploy/d app=app:10", "", true, &["image updated"]),
        ("edit ro r", "", true, &["rollout.argoproj.io/r edited"]),
        ("get ro r -o jsonpath={.spec.replicas}/{.spec.paused}/{.spec.template.spec.containers[0].image}", "", true, &["5/true/app:4"]),
        ("logs p", "", true, &["it says this"]),
        ("logs p --previous", "", false, &["previous terminated container"]),
        ("get nodes", "", false, &["the server doesn't have a resource type \"nodes\""]),
        ("get ro nope", "", false, &["rollouts.argoproj.io \"nope\" not found"]),
        ("apply -f -", "{\"apiVersion\":\"argoproj.io/v1alpha1\",\"kind\":\"Rollout\",\"metadata\":{\"name\":\"x\"},\"spec\":{\"replica\":1}}", false, &["strict decoding error: unknown field \"spec.replica\""]),
        ("explain rollout", "", true, &["KIND: Rollout"]),
        ("delete pod p --now", "", true, &["pod \"p\" deleted"]),
        ("delete ro,deploy,svc --all", "", true, &["rollout.argoproj.io \"r\" deleted", "service \"s\" deleted"]),
        ("get all", "", true, &["No resources found"]),
    ];
    for (arguments, input, succeeds, wanted) in cases {
        let input = if input.starts_with("app:") {
            manifest(input)
        } else {
            (*input).to_owned()
        };
        let Some(output) = kubectl(&config, arguments, &input).await else {
            eprintln!("kubectl is not on the PATH: nothing was checked with it");
            return;
        };
        let said = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(
            output.status.success(),
            *succeeds,
            "kubectl {arguments}: {said}"
        );
        let squeezed = said.split_whitespace().collect::<Vec<_>>().join(" ");
        for wanted in *wanted {
            assert!(
                squeezed.contains(wanted),
                "kubectl {arguments}: {wanted:?} is not in: {said}"
            );
        }
    }
}
