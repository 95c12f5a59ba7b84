//! What the server tells about itself: its kinds, in the old form and the aggregated one, its version, and an OpenAPI document.
//!
//! The OpenAPI v3 documents say that writes take `fieldValidation` and what kinds there are, and leave every object open: that is what
//! `kubectl apply` needs to leave validation to the server (seen with kubectl 1.29 to 1.33). `kubectl explain` therefore knows the
//! kinds and not their fields. The v2 document is empty: older `kubectl`, and any for a `kind: List`, then skip their own validation,
//! and the server's warnings are shown.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::kinds::{self, Kind};
use super::request;

/// The Kubernetes version whose rules the kinds follow: that of our types.
const VERSION: (&str, &str) = ("1", "33");

const VERBS: &[&str] = &[
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];

/// Kinds that are questions and are not stored: group, kind, plural.
const QUESTIONS: &[(&str, &str, &str)] = &[
    ("authentication.k8s.io", "TokenReview", "tokenreviews"),
    (
        "authorization.k8s.io",
        "SelfSubjectAccessReview",
        "selfsubjectaccessreviews",
    ),
];

/// The aggregated form's media type.
const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

/// OpenAPI v2 as `kubectl` asks for it, and as a real server calls it, since `@` may not stand in a media type.
const OPENAPI_V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// A document, and its media type.
#[derive(Debug)]
pub(super) struct Document {
    pub(super) media: &'static str,
    pub(super) body: String,
}

/// The document at a path, if there is one.
pub(super) fn document(path: &str, headers: &HeaderMap) -> Option<Document> {
    let of = |media: &'static str, body: String| Some(Document { media, body });
    let plain = |body: Value| of("application/json", body.to_string());
    let aggregated = request::accepted(headers).first().is_some_and(|media| {
        media.parameter("as") == "APIGroupDiscoveryList" && media.parameter("v") == "v2"
    });
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    match &segments[..] {
        ["version"] => plain(version()),
        ["api"] if aggregated => of(AGGREGATED, aggregate(&[""]).to_string()),
        ["apis"] if aggregated => of(AGGREGATED, aggregate(&groups()).to_string()),
        ["api"] => plain(
            json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}),
        ),
        ["apis"] => {
            let groups: Vec<Value> = groups().into_iter().map(group).collect();
            plain(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] if groups().contains(name) => {
            let mut group = group(name);
            group["kind"] = json!("APIGroup");
            group["apiVersion"] = json!("v1");
            plain(group)
        }
        ["api", "v1"] => plain(resources("", "v1")),
        ["apis", name, version] if groups().contains(name) && version_of(name) == *version => {
            plain(resources(name, version))
        }
        // A protobuf message without fields has no bytes.
        ["openapi", "v2"] if request::accepts(headers, OPENAPI_V2_ASKED) => {
            of(OPENAPI_V2, String::new())
        }
        ["openapi", "v2"] => {
            plain(json!({"swagger": "2.0", "info": about(), "paths": {}, "definitions": {}}))
        }
        ["openapi", "v3"] => plain(openapi_index()),
        ["openapi", "v3", "api", "v1"] => plain(openapi("", "v1")),
        ["openapi", "v3", "apis", name, version]
            if groups().contains(name) && version_of(name) == *version =>
        {
            plain(openapi(name, version))
        }
        _ => None,
    }
}

fn version() -> Value {
    let (major, minor) = VERSION;
    json!({
        "major": major,
        "minor": minor,
        "gitVersion": format!("v{major}.{minor}.0+sidestep.{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "",
        "gitTreeState": "",
        "buildDate": "",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The groups besides the core, each once.
fn groups() -> Vec<&'static str> {
    let mut groups: Vec<&str> = kinds::ALL
        .iter()
        .map(|kind| kind.group)
        .filter(|group| !group.is_empty())
        .collect();
    groups.extend(QUESTIONS.iter().map(|(group, ..)| *group));
    groups.sort_unstable();
    groups.dedup();
    groups
}

fn version_of(group: &str) -> &'static str {
    of_group(group).next().map_or("v1", |kind| kind.version)
}

fn of_group(group: &str) -> impl Iterator<Item = &'static Kind> {
    kinds::ALL
        .iter()
        .copied()
        .filter(move |kind| kind.group == group)
}

fn group(name: &str) -> Value {
    let version = version_of(name);
    let version = json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({"name": name, "versions": [version], "preferredVersion": version})
}

/// A kind's subresources: name, verbs, and the kind they speak, if another.
fn subresources(kind: &Kind) -> Vec<(&'static str, &'static [&'static str], Value)> {
    let own = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
    let scale = json!({"group": "autoscaling", "version": "v1", "kind": "Scale"});
    let writes: &[&str] = &["get", "patch", "update"];
    let mut found = Vec::new();
    if kind.status {
        found.push(("status", writes, own.clone()));
    }
    if kind.scale.is_some() {
        found.push(("scale", writes, scale));
    }
    if kind.log {
        found.push(("log", &["get"][..], own));
    }
    if *kind == kinds::POD {
        let eviction = json!({"group": "policy", "version": "v1", "kind": "Eviction"});
        found.push(("eviction", &["create"][..], eviction));
    }
    found
}

fn resources(group: &str, version: &str) -> Value {
    let mut list = Vec::new();
    for kind in of_group(group) {
        list.push(json!({
            "name": kind.plural,
            "singularName": kind.singular,
            "namespaced": kind.namespaced,
            "kind": kind.kind,
            "verbs": VERBS,
            "shortNames": kind.short_names,
            "categories": kind.categories,
        }));
        for (name, verbs, speaks) in subresources(kind) {
            let mut resource = json!({
                "name": format!("{}/{name}", kind.plural),
                "singularName": "",
                "namespaced": kind.namespaced,
                "kind": speaks["kind"],
                "verbs": verbs,
            });
            if speaks["group"] != group {
                resource["group"] = speaks["group"].clone();
                resource["version"] = speaks["version"].clone();
            }
            list.push(resource);
        }
    }
    for (_, kind, plural) in QUESTIONS.iter().filter(|(of, ..)| *of == group) {
        list.push(json!({
            "name": plural, "singularName": kind.to_lowercase(), "namespaced": false, "kind": kind, "verbs": ["create"],
        }));
    }
    let group_version = if group.is_empty() {
        version.to_owned()
    } else {
        format!("{group}/{version}")
    };
    json!({"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": list})
}

fn aggregate(groups: &[&str]) -> Value {
    let items: Vec<Value> = groups
        .iter()
        .map(|group| {
            let version = version_of(group);
            let stored = of_group(group).map(aggregated_resource);
            let questions = QUESTIONS.iter().filter(|(of, ..)| of == group).map(|(group, kind, plural)| {
                json!({
                    "resource": plural, "responseKind": {"group": group, "version": "v1", "kind": kind},
                    "scope": "Cluster", "singularResource": kind.to_lowercase(), "verbs": ["create"],
                })
            });
            let resources: Vec<Value> = stored.chain(questions).collect();
            let metadata = if group.is_empty() { json!({}) } else { json!({"name": group}) };
            let versions = [json!({"version": version, "freshness": "Current", "resources": resources})];
            json!({"metadata": metadata, "versions": versions})
        })
        .collect();
    json!({"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items})
}

fn aggregated_resource(kind: &'static Kind) -> Value {
    let parts: Vec<Value> = subresources(kind)
        .into_iter()
        .map(|(name, verbs, speaks)| json!({"subresource": name, "responseKind": speaks, "verbs": verbs}))
        .collect();
    json!({
        "resource": kind.plural,
        "responseKind": {"group": kind.group, "version": kind.version, "kind": kind.kind},
        "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": kind.singular,
        "verbs": VERBS,
        "shortNames": kind.short_names,
        "categories": kind.categories,
        "subresources": parts,
    })
}

/// `api/v1` or `apis/group/version`.
fn root(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

fn about() -> Value {
    json!({"title": "Sidestep", "version": env!("CARGO_PKG_VERSION")})
}

fn openapi_index() -> Value {
    let stored = groups()
        .into_iter()
        .filter(|group| of_group(group).next().is_some());
    let paths: Map<String, Value> = std::iter::once("")
        .chain(stored)
        .map(|group| {
            let root = root(group, version_of(group));
            let url = format!("/openapi/v3/{root}");
            (root, json!({"serverRelativeURL": url}))
        })
        .collect();
    json!({"paths": paths})
}

fn openapi(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for kind in of_group(group) {
        let named = json!({"group": kind.group, "version": kind.version, "kind": kind.kind});
        let scope = if kind.namespaced {
            "/namespaces/{namespace}"
        } else {
            ""
        };
        let collection = format!("/{}{scope}/{}", root(group, version), kind.plural);
        let write = |action: &str| {
            json!({
                "parameters": [
                    {"name": "dryRun", "in": "query", "schema": {"type": "string", "uniqueItems": true}},
                    {"name": "fieldManager", "in": "query", "schema": {"type": "string", "uniqueItems": true}},
                    {"name": "fieldValidation", "in": "query", "schema": {"type": "string", "uniqueItems": true}},
                ],
                "responses": {"200": {"description": "OK"}},
                "x-kubernetes-action": action,
                "x-kubernetes-group-version-kind": named,
            })
        };
        paths.insert(
            format!("{collection}/{{name}}"),
            json!({"put": write("put"), "patch": write("patch")}),
        );
        paths.insert(collection, json!({"post": write("post")}));
        let schema = json!({
            "type": "object",
            "x-kubernetes-group-version-kind": [named],
            "x-kubernetes-preserve-unknown-fields": true,
        });
        schemas.insert(
            format!(
                "{}.{version}.{}",
                if group.is_empty() { "core" } else { group },
                kind.kind
            ),
            schema,
        );
    }
    json!({
        "openapi": "3.0.0",
        "info": about(),
        "paths": paths,
        "components": {"schemas": schemas},
    })
}
