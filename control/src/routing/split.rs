//! A Split as it stands on the API server → one that can be served, or all the reasons why not.
//!
//! The spec is read as JSON first, so that a Split with a wrong type in it still says which Services it meant: those are refused
//! rather than served past their split.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_ignored::Path;
use serde_json::Value;

use crate::api::Split;
use crate::api::split::{DEFAULT_FLEET, SplitRule, SplitSpec};

/// A Split with its spec unread.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize)]
#[resource(inherit = Split)]
pub struct RawSplit {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// The spec, as JSON.
    #[serde(default)]
    pub spec: Value,
}

/// A Split that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct ReadSplit {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// Its generation.
    pub generation: i64,
    /// When it was created, then its name: who is older on a Service wins.
    pub age: (Option<jiff::Timestamp>, String),
    /// The fleet that serves it.
    pub fleet: String,
    /// The Services it governs, or means to.
    pub services: BTreeSet<String>,
    /// What to serve, or why it cannot be.
    pub spec: Result<SplitSpec, String>,
    /// Fields of the spec that are not served, by path: those of a newer version, and those that no proxy serves yet.
    pub unknown: Vec<String>,
}

/// Reads a Split; what is wrong with it ends up in `spec`.
pub fn read(raw: &RawSplit) -> ReadSplit {
    let metadata = &raw.metadata;
    let name = metadata.name.clone().unwrap_or_default();
    let mut unknown = Vec::new();
    let spec = parse(&raw.spec, &mut unknown);
    ReadSplit {
        namespace: metadata.namespace.clone().unwrap_or_default(),
        uid: metadata.uid.clone().unwrap_or_default(),
        generation: metadata.generation.unwrap_or_default(),
        age: (
            metadata.creation_timestamp.as_ref().map(|t| t.0),
            name.clone(),
        ),
        name,
        fleet: raw
            .spec
            .get("fleet")
            .and_then(Value::as_str)
            .unwrap_or(DEFAULT_FLEET)
            .to_owned(),
        services: services_meant(&raw.spec),
        spec,
        unknown,
    }
}

fn parse(spec: &Value, unknown: &mut Vec<String>) -> Result<SplitSpec, String> {
    let spec: SplitSpec = serde_ignored::deserialize(spec, |path| unknown.push(field(&path)))
        .map_err(|error| format!("spec: {error}"))?;
    let rules = spec.rules.iter().enumerate();
    let with_routes = rules.filter(|(_, rule)| !rule.routes.is_empty());
    unknown.extend(with_routes.map(|(index, _)| format!("spec.rules[{index}].routes")));
    let complaints = complaints(&spec);
    if complaints.is_empty() {
        Ok(spec)
    } else {
        Err(complaints.join("; "))
    }
}

/// A field of the spec, as `spec.rules[0].weights`.
fn field(path: &Path<'_>) -> String {
    match path {
        Path::Root => "spec".to_owned(),
        Path::Seq { parent, index } => format!("{}[{index}]", field(parent)),
        Path::Map { parent, key } => format!("{}.{key}", field(parent)),
        Path::Some { parent }
        | Path::NewtypeStruct { parent }
        | Path::NewtypeVariant { parent } => field(parent),
    }
}

/// Everything that keeps a Split from being served; each names its field.
pub fn complaints(spec: &SplitSpec) -> Vec<String> {
    let mut found = Vec::new();
    if spec.versions.is_empty() {
        found.push("spec.versions: at least one is needed".to_owned());
    }
    let mut names = BTreeSet::new();
    for (index, version) in spec.versions.iter().enumerate() {
        let field = format!("spec.versions[{index}]");
        if version.name.is_empty() {
            found.push(format!("{field}.name: must not be empty"));
        } else if !names.insert(version.name.as_str()) {
            found.push(format!("{field}.name: {} stands twice", version.name));
        }
        if version.service.is_empty() {
            found.push(format!("{field}.service: must not be empty"));
        }
        if version.needed == Some(0) {
            found.push(format!("{field}.needed: must be at least 1"));
        }
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        rule_complaints(index, rule, &names, &mut found);
        overlap_complaints(index, &spec.rules, &mut found);
    }
    apex_complaints(spec, &mut found);
    found
}

fn rule_complaints(
    index: usize,
    rule: &SplitRule,
    names: &BTreeSet<&str>,
    found: &mut Vec<String>,
) {
    let field = format!("spec.rules[{index}]");
    if rule.services.is_empty() {
        found.push(format!("{field}.services: at least one is needed"));
    }
    if rule.ports.as_ref().is_some_and(Vec::is_empty) {
        found.push(format!(
            "{field}.ports: at least one is needed; leave it out to mean all"
        ));
    }
    for version in rule.weights.keys() {
        if !names.contains(version.as_str()) {
            found.push(format!("{field}.weights: no version is called {version}"));
        }
    }
    if rule.weights.values().all(|&weight| weight == 0) {
        found.push(format!("{field}.weights: at least one must be above 0"));
    }
}

/// A Service stands in one rule only, unless their ports differ.
fn overlap_complaints(index: usize, rules: &[SplitRule], found: &mut Vec<String>) {
    let rule = &rules[index];
    for (earlier, other) in rules.iter().enumerate().take(index) {
        let ports_overlap = match (&rule.ports, &other.ports) {
            (Some(ours), Some(theirs)) => ours.iter().any(|port| theirs.contains(port)),
            (None, _) | (_, None) => true,
        };
        let shared = rule
            .services
            .iter()
            .find(|service| other.services.contains(service));
        if let Some(service) = shared.filter(|_| ports_overlap) {
            found.push(format!(
                "spec.rules[{index}].services: {service} already stands in spec.rules[{earlier}]"
            ));
        }
    }
}

/// An apex stands for a governed Service, and no two for one port.
fn apex_complaints(spec: &SplitSpec, found: &mut Vec<String>) {
    for (index, apex) in spec.apexes.iter().enumerate() {
        let field = format!("spec.apexes[{index}]");
        let governs = |rule: &SplitRule| rule.services.contains(&apex.service);
        if !spec.rules.iter().any(governs) {
            found.push(format!("{field}.service: no rule names {}", apex.service));
        }
        if apex.listen == 0 {
            found.push(format!("{field}.listen: must be 1 to 65535"));
        }
        let mut earlier = spec.apexes.iter().take(index);
        if let Some(at) = earlier.position(|other| other.listen == apex.listen) {
            let port = apex.listen;
            found.push(format!(
                "{field}.listen: {port} already stands in spec.apexes[{at}]"
            ));
        }
    }
}

fn services_meant(spec: &Value) -> BTreeSet<String> {
    let rules = spec.get("rules").and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .filter_map(|rule| rule.get("services").and_then(Value::as_array))
        .flatten()
        .filter_map(|service| service.as_str().map(str::to_owned))
        .collect()
}

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases are written in place")]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(spec: Value, expected: &[&str]) {
        let raw = RawSplit {
            spec: spec.clone(),
            ..RawSplit::default()
        };
        let found = match read(&raw).spec {
            Ok(_) => String::new(),
            Err(message) => message,
        };
        assert_eq!(found, expected.join("; "), "{spec}");
    }

    #[test]
    fn a_split_that_cannot_be_served_says_all_its_reasons() {
        let version = json!({"name": "stable", "service": "a"});
        let rule = json!({"services": ["web"], "weights": {"stable": 1}});
        check(json!({"versions": [version], "rules": [rule]}), &[]);
        check(json!({"versions": [version], "rules": []}), &[]);
        check(
            json!({"versions": [version, version], "rules": [{"services": [], "weights": {"canary": 1}}]}),
            &[
                "spec.versions[1].name: stable stands twice",
                "spec.rules[0].services: at least one is needed",
                "spec.rules[0].weights: no version is called canary",
            ],
        );
        check(
            json!({"versions": [version], "rules": [rule, {"services": ["web"], "weights": {"stable": 0}}]}),
            &[
                "spec.rules[1].weights: at least one must be above 0",
                "spec.rules[1].services: web already stands in spec.rules[0]",
            ],
        );
        check(
            json!({"versions": [version], "rules": [
                {"services": ["web"], "ports": ["http"], "weights": {"stable": 1}},
                {"services": ["web"], "ports": ["grpc"], "weights": {"stable": 1}}]}),
            &[],
        );
    }

    #[test]
    fn an_apex_stands_for_a_service_of_a_rule_and_has_a_port_of_its_own() {
        let apex = |service: &str, listen: u16| json!({"service": service, "port": "http", "listen": listen});
        let split = |apexes: Value| {
            json!({
                "versions": [{"name": "stable", "service": "a"}],
                "rules": [{"services": ["web"], "weights": {"stable": 1}}],
                "apexes": apexes,
            })
        };
        check(split(json!([apex("web", 10001), apex("web", 10002)])), &[]);
        check(
            split(json!([
                apex("other", 10001),
                apex("web", 10001),
                apex("web", 0)
            ])),
            &[
                "spec.apexes[0].service: no rule names other",
                "spec.apexes[1].listen: 10001 already stands in spec.apexes[0]",
                "spec.apexes[2].listen: must be 1 to 65535",
            ],
        );
    }

    /// control-plane.md 1: such a Split is not verified where the field is not known.
    #[test]
    fn a_split_is_served_without_the_fields_that_are_not_known_and_they_are_named() {
        let version = json!({"name": "stable", "service": "a", "region": {"name": "eu"}});
        let route = json!({"name": "beta", "version": "stable", "matches": []});
        let rule = json!({"services": ["web"], "ports": ["http"], "weights": {"stable": 1}, "stickiness": "cookie", "routes": [route]});
        let raw = RawSplit {
            spec: json!({"versions": [version], "rules": [rule], "limits": [1]}),
            ..RawSplit::default()
        };
        let mut split = read(&raw);
        assert!(split.spec.is_ok());
        split.unknown.sort();
        let expected = [
            "spec.limits",
            "spec.rules[0].routes",
            "spec.rules[0].stickiness",
            "spec.versions[0].region",
        ];
        assert_eq!(split.unknown, expected);
    }

    #[test]
    fn a_split_of_the_wrong_shape_still_says_which_services_it_meant() {
        let raw = RawSplit {
            spec: json!({"rules": [{"services": ["web"], "weights": {"stable": -1}}], "versions": []}),
            ..RawSplit::default()
        };
        let split = read(&raw);
        assert!(split.spec.is_err());
        assert!(split.services.contains("web"));
        assert_eq!(split.fleet, DEFAULT_FLEET);
    }
}
