//! The kinds of ours and of Argo Rollouts as CustomResourceDefinitions, for a real API server.
//!
//! A definition is the kind's row in [`kinds`] with its schema written out in full: every field and every list type that the CRDs of
//! Argo Rollouts 1.10 have. An API server drops a field that its CRD lacks, and treats a list of unknown type as one value, so that
//! a sidecar of another manager would be lost.

use serde_json::{Map, Value, json};

use super::kinds::{self, Kind};
use super::schema;

/// Fields that Argo's CRDs leave open, although their type is known: a quantity may be a fraction (`cpu: 0.001`) and is kept as it was
/// written, and a kind of volume may be newer than we are.
const OPEN: &[(&str, &[&str])] = &[
    ("io.k8s.api.core.v1.PodSpec", &["/properties/volumes"]),
    ("io.k8s.api.core.v1.Container", RESOURCES),
    ("io.k8s.api.core.v1.EphemeralContainer", RESOURCES),
];

const RESOURCES: &[&str] = &[
    "/properties/resources/properties/limits",
    "/properties/resources/properties/requests",
];

/// What a definition does not say: how a strategic merge patch treats lists, which no custom kind understands.
const PATCHES: &[&str] = &[
    "x-kubernetes-patch-merge-key",
    "x-kubernetes-patch-strategy",
];

/// The `apiextensions.k8s.io/v1` CustomResourceDefinition of every custom kind, each at most 100 KB as JSON.
pub fn manifests() -> Vec<Value> {
    kinds::ALL
        .iter()
        .filter(|kind| !kind.strategic)
        .map(|kind| manifest(kind))
        .collect()
}

fn manifest(kind: &Kind) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{}.{}", kind.plural, kind.group)},
        "spec": {
            "group": kind.group,
            "names": names(kind),
            "scope": if kind.namespaced { "Namespaced" } else { "Cluster" },
            "versions": [{
                "name": kind.version,
                "served": true,
                "storage": true,
                "subresources": subresources(kind),
                "additionalPrinterColumns": printer_columns(kind),
                "schema": {"openAPIV3Schema": root(kind)},
            }],
        },
    })
}

fn names(kind: &Kind) -> Value {
    let mut names = json!({
        "kind": kind.kind,
        "listKind": format!("{}List", kind.kind),
        "plural": kind.plural,
        "singular": kind.singular,
    });
    if !kind.short_names.is_empty() {
        names["shortNames"] = json!(kind.short_names);
    }
    names
}

fn subresources(kind: &Kind) -> Value {
    let mut subresources = Map::new();
    if kind.status {
        subresources.insert("status".to_owned(), json!({}));
    }
    if let Some(scale) = kind.scale {
        let paths = json!({
            "specReplicasPath": format!(".{}", scale.spec),
            "statusReplicasPath": format!(".{}", scale.status),
            "labelSelectorPath": format!(".{}", scale.selector),
        });
        subresources.insert("scale".to_owned(), paths);
    }
    Value::Object(subresources)
}

fn printer_columns(kind: &Kind) -> Value {
    let columns = kind.columns.iter().filter_map(|column| column.printed());
    columns.collect()
}

/// The schema of whole objects. Their metadata is the API server's own business.
fn root(kind: &Kind) -> Value {
    let mut root = written_out(kind.schema);
    root["properties"]["metadata"] = json!({"type": "object"});
    root
}

/// A definition with every reference replaced by what it refers to.
fn written_out(name: &str) -> Value {
    let mut schema = expand(schema::text(name));
    let open = OPEN.iter().filter(|(definition, _)| *definition == name);
    for field in open.flat_map(|(_, fields)| *fields) {
        if let Some(field) = schema.pointer_mut(field) {
            *field = json!({"x-kubernetes-preserve-unknown-fields": true});
        }
    }
    schema
}

fn expand(schema: &Value) -> Value {
    let Value::Object(keywords) = schema else {
        return schema.clone();
    };
    let referred = keywords.get("$ref").and_then(Value::as_str);
    let mut expanded = match referred.map(written_out) {
        Some(Value::Object(referred)) => referred,
        _ => Map::new(),
    };
    for (keyword, value) in keywords {
        let value = match (keyword.as_str(), value) {
            ("$ref", _) => continue,
            (patch, _) if PATCHES.contains(&patch) => continue,
            ("properties", Value::Object(fields)) => fields
                .iter()
                .map(|(name, field)| (name.clone(), expand(field)))
                .collect(),
            ("items" | "additionalProperties", value) => expand(value),
            (_, value) => value.clone(),
        };
        expanded.insert(keyword.clone(), value);
    }
    Value::Object(expanded)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashMap};
    use std::iter::Peekable;
    use std::str::Lines;

    use super::*;

    /// What the CRDs of Argo Rollouts 1.10 say of their fields: a tree by indentation, one field a line, `[]` for the items of a
    /// list, `{}` for the values of a map. A subtree that stands in more than one place is written once, as `&name`. Defaults,
    /// formats, list and map types are those of the CRDs; patterns are left out.
    const ARGO: &str = include_str!("crds/argo-1.10-fields.txt");

    /// Facts that are not the same in ours: path, Argo's, ours.
    const DIFFERENCES: &[(&str, &str, &str)] = &[
        // Kubernetes merges these two by field; Argo's CRDs take them as one value, by an accident of how they are generated.
        (".envFrom[].configMapRef", "object map=atomic", "object"),
        (".envFrom[].secretRef", "object map=atomic", "object"),
    ];

    /// A line of the tree, and the lines below it.
    #[derive(Clone, Debug)]
    struct Node {
        name: String,
        facts: String,
        below: Vec<Self>,
    }

    fn nodes(lines: &mut Peekable<Lines<'_>>, depth: usize) -> Vec<Node> {
        let mut found = Vec::new();
        while let Some(line) = lines.next_if(|line| indentation(line) == depth) {
            let (name, facts) = line.trim().split_once(' ').unwrap_or_default();
            found.push(Node {
                name: name.to_owned(),
                facts: facts.to_owned(),
                below: nodes(lines, depth + 1),
            });
        }
        found
    }

    fn indentation(line: &str) -> usize {
        line.len() - line.trim_start().len()
    }

    /// Facts of Argo's CRDs by path, for each kind.
    fn argo() -> BTreeMap<String, BTreeMap<String, String>> {
        let all = nodes(&mut ARGO.lines().peekable(), 0);
        let (shared, kinds): (Vec<Node>, Vec<Node>) =
            all.into_iter().partition(|node| node.name.starts_with('&'));
        let shared: HashMap<String, Node> = shared
            .into_iter()
            .map(|node| (node.name.clone(), node))
            .collect();
        kinds
            .into_iter()
            .map(|kind| {
                let mut facts = BTreeMap::new();
                spread(&kind, "", &shared, &mut facts);
                (kind.name, facts)
            })
            .collect()
    }

    fn spread(
        node: &Node,
        path: &str,
        shared: &HashMap<String, Node>,
        facts: &mut BTreeMap<String, String>,
    ) {
        let node = shared.get(&node.facts).unwrap_or(node);
        facts.insert(path.to_owned(), node.facts.clone());
        for below in &node.below {
            let path = match below.name.as_str() {
                part @ ("[]" | "{}") => format!("{path}{part}"),
                field => format!("{path}.{field}"),
            };
            spread(below, &path, shared, facts);
        }
    }

    /// Facts of a schema of ours by path, in the words of [`ARGO`].
    fn ours(schema: &Value, path: &str, facts: &mut BTreeMap<String, String>) {
        facts.insert(path.to_owned(), said(schema));
        for (field, below) in schema["properties"].as_object().into_iter().flatten() {
            ours(below, &format!("{path}.{field}"), facts);
        }
        for (keyword, part) in [("items", "[]"), ("additionalProperties", "{}")] {
            if schema[keyword].is_object() {
                ours(&schema[keyword], &format!("{path}{part}"), facts);
            }
        }
    }

    fn said(schema: &Value) -> String {
        let words = |value: &Value| {
            let mut words: Vec<&str> = value
                .as_array()
                .unwrap()
                .iter()
                .filter_map(Value::as_str)
                .collect();
            words.sort_unstable();
            words.join(",")
        };
        let plain = |value: &Value| {
            value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned)
        };
        let mut facts = vec![schema["type"].as_str().unwrap_or("any").to_owned()];
        for (keyword, value) in schema.as_object().unwrap() {
            facts.extend(match keyword.as_str() {
                "required" => Some(format!("required={}", words(value))),
                "enum" => Some(format!("enum={}", words(value))),
                "format" | "default" => Some(format!("{keyword}={}", plain(value))),
                "x-kubernetes-list-map-keys" => Some(format!("keys={}", words(value))),
                "x-kubernetes-list-type" => Some(format!("list={}", plain(value))),
                "x-kubernetes-map-type" => Some(format!("map={}", plain(value))),
                "x-kubernetes-int-or-string" => Some("int-or-string".to_owned()),
                "x-kubernetes-preserve-unknown-fields" => Some("open".to_owned()),
                "x-kubernetes-validations" => Some("rule=self==oldSelf".to_owned()),
                _ => None,
            });
        }
        sorted(&facts.join(" "))
    }

    /// The same facts in an order of ours, and what is listed sorted as well.
    fn sorted(facts: &str) -> String {
        let mut facts: Vec<String> = facts
            .split_whitespace()
            .map(|fact| match fact.split_once('=') {
                Some((word @ ("required" | "keys" | "enum"), list)) => {
                    let mut list: Vec<&str> = list.split(',').collect();
                    list.sort_unstable();
                    format!("{word}={}", list.join(","))
                }
                _ => fact.to_owned(),
            })
            .collect();
        facts.sort_unstable();
        facts.join(" ")
    }

    fn schema_of(manifest: &Value) -> &Value {
        &manifest["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    }

    fn named(kind: &str) -> Value {
        let mut manifests = manifests().into_iter();
        manifests
            .find(|manifest| manifest["spec"]["names"]["kind"] == kind)
            .unwrap()
    }

    #[test]
    fn every_field_and_list_type_of_argos_definitions_is_in_ours() {
        let argo = argo();
        assert_eq!(argo.len(), 5);
        for (kind, theirs) in argo {
            let mut facts = BTreeMap::new();
            ours(schema_of(&named(&kind)), "", &mut facts);
            let differing: Vec<_> = theirs
                .iter()
                .map(|(path, fact)| {
                    (
                        path,
                        sorted(fact),
                        facts.get(path).map_or("absent", String::as_str),
                    )
                })
                .filter(|(path, theirs, ours)| {
                    let excepted = |(end, argo, own): &(&str, &str, &str)| {
                        path.ends_with(end) && sorted(argo) == *theirs && own == ours
                    };
                    theirs != ours && !DIFFERENCES.iter().any(excepted)
                })
                .collect();
            assert!(theirs.len() > 1_000, "{kind}: {}", theirs.len());
            assert!(differing.is_empty(), "{kind}: {differing:#?}");
        }
    }

    #[test]
    fn a_definition_is_small_enough_to_be_applied() {
        for manifest in manifests() {
            let size = manifest.to_string().len();
            assert!(size <= 100_000, "{}: {size}", manifest["metadata"]["name"]);
        }
    }

    /// Reference 1.1: names, scope, subresources and columns of each kind.
    #[test]
    fn a_definition_says_what_argos_does_beside_the_schema() {
        let rollout = named("Rollout");
        assert_eq!(rollout["metadata"]["name"], "rollouts.argoproj.io");
        assert_eq!(
            rollout["spec"]["names"],
            json!({"kind": "Rollout", "listKind": "RolloutList", "plural": "rollouts", "singular": "rollout", "shortNames": ["ro"]})
        );
        let version = &rollout["spec"]["versions"][0];
        assert_eq!(
            version["subresources"],
            json!({"status": {}, "scale": {
                "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.HPAReplicas", "labelSelectorPath": ".status.selector"
            }})
        );
        let integer =
            |name: &str, path: &str| json!({"name": name, "type": "integer", "jsonPath": path});
        assert_eq!(
            version["additionalPrinterColumns"],
            json!([
                integer("Desired", ".spec.replicas"),
                integer("Current", ".status.replicas"),
                integer("Up-to-date", ".status.updatedReplicas"),
                integer("Available", ".status.availableReplicas"),
                {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
            ])
        );
        assert_eq!(named("ClusterAnalysisTemplate")["spec"]["scope"], "Cluster");
        for without_status in ["AnalysisRun", "Experiment", "AnalysisTemplate"] {
            let definition = named(without_status);
            assert_eq!(definition["spec"]["versions"][0]["subresources"], json!({}));
        }
    }
}
