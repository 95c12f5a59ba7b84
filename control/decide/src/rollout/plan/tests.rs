//! What Argo says of invalid specs, as recorded.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;
use crate::rollout::observed::Service;

fn rollout() -> Value {
    json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "web", "image": "nginx:1"}]},
            },
            "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}},
        },
    })
}

fn service(name: &str, managed_by: Option<&str>) -> Service {
    Service {
        name: name.to_owned(),
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        managed_by: managed_by.map(str::to_owned),
        apex: false,
    }
}

fn references() -> References {
    let template = |spec: Value| serde_json::from_value(spec).unwrap();
    let metric = |count: Value| json!({"name": "m", "interval": "1m", "count": count, "provider": {"web": {"url": "http://x"}}});
    let mut references = References {
        services: vec![
            service("s", None),
            service("c", None),
            service("other", Some("api")),
        ],
        ..References::default()
    };
    references.services.push(Service {
        selector: BTreeMap::from([("app".to_owned(), "db".to_owned())]),
        ..service("odd", None)
    });
    let templates = &mut references.templates.namespaced;
    for (name, host) in [("argconflict", "a"), ("argconflict2", "b")] {
        let metrics = json!([{"name": name, "provider": {"web": {"url": "http://x"}}}]);
        let args = json!([{"name": "host", "value": host}]);
        templates.insert(
            name.to_owned(),
            template(json!({"metrics": metrics, "args": args})),
        );
    }
    templates.insert(
        "forever".to_owned(),
        template(json!({"metrics": [metric(Value::Null)]})),
    );
    templates.insert(
        "needs-arg".to_owned(),
        template(json!({"metrics": [metric(json!(1))], "args": [{"name": "host"}]})),
    );
    templates.insert(
        "dup".to_owned(),
        template(json!({"metrics": [metric(json!(1)), metric(json!(1))]})),
    );
    references
}

/// Merges `change` into the rollout's spec and compares all complaints.
fn check(change: &Value, expected: &[&str]) {
    let mut rollout = rollout();
    merge(&mut rollout["spec"], change);
    let parsed: Rollout = serde_json::from_value(rollout).unwrap();
    let complaints = match plan(&parsed, &references()) {
        Ok(_) => Vec::new(),
        Err(complaints) => complaints.iter().map(ToString::to_string).collect(),
    };
    assert_eq!(complaints, expected, "{change}");
}

/// As a merge patch does.
fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    for (key, value) in change {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else if target[key].is_object() {
            merge(&mut target[key], value);
        } else {
            target[key] = value.clone();
        }
    }
}

fn canary(canary: &Value) -> Value {
    json!({"strategy": {"canary": canary}})
}

fn steps(step: &Value) -> Value {
    canary(&json!({"steps": [step]}))
}

const STEP: &str = "Step must have one of the following set: experiment, setWeight, setCanaryScale, plugin or pause";
const SERVICES: &str = r#"spec.strategy.stableService: Invalid value: "": Canary service and Stable service must to be set to use Traffic Routing"#;

#[test]
fn a_good_spec_has_no_complaints() {
    check(&json!({}), &[]);
    let ours = json!({"plugins": {"sidestep/proxy": {"services": ["s"], "fallback": "refuse"}}});
    check(
        &canary(&json!({"trafficRouting": ours, "stableService": "s", "canaryService": "c"})),
        &[],
    );
    check(
        &canary(&json!({"trafficRouting": {}, "stableService": "s", "canaryService": "c"})),
        &[],
    );
    let beside = json!({"plugins": {"sidestep/proxy": null, "x/y": {}}, "istio": {}});
    check(
        &canary(&json!({"trafficRouting": beside, "stableService": "s"})),
        &[],
    );
}

#[test]
fn strategies_and_times() {
    check(
        &json!({"strategy": {"canary": null}}),
        &[
            "spec.strategy.strategy: Required value: Rollout has missing field '.spec.strategy.canary or .spec.strategy.blueGreen'",
        ],
    );
    check(
        &json!({"strategy": {"blueGreen": {"activeService": "s"}}}),
        &[
            r#"spec.strategy.strategy: Invalid value: "blueGreen: true canary: true": Multiple Strategies can not be listed"#,
        ],
    );
    for ready in [10, 20] {
        check(
            &json!({"minReadySeconds": ready, "progressDeadlineSeconds": 10}),
            &[
                "spec.progressDeadlineSeconds: Invalid value: 10: must be greater than minReadySeconds",
            ],
        );
    }
    check(
        &canary(&json!({"maxSurge": 0, "maxUnavailable": 0})),
        &[
            "spec.strategy.maxSurge: Invalid value: 0: MaxSurge and MaxUnavailable both can not be zero",
        ],
    );
    check(
        &canary(&json!({"replicaProgressThreshold": {"type": "Half", "value": -1}})),
        &[
            "spec.strategy.canary.replicaProgressThreshold.value: Invalid value: -1: must be greater than or equal to 0",
            r#"spec.strategy.canary.replicaProgressThreshold.type: Unsupported value: "Half": supported values: "Percent", "Pods""#,
        ],
    );
    check(
        &canary(&json!({"maxSurge": "abc"})),
        &[
            r#"spec.strategy.maxSurge: Invalid value: "abc": must be a number of pods or a percentage"#,
        ],
    );
}

#[test]
fn services_and_routing() {
    check(
        &canary(&json!({"stableService": "s", "canaryService": "s"})),
        &[
            r#"spec.strategy.stableService: Invalid value: "s": This rollout uses the same service for the stable and canary services, but two different services are required."#,
        ],
    );
    check(
        &canary(&json!({"trafficRouting": {"istio": {}}})),
        &[SERVICES],
    );
    check(
        &canary(&json!({"trafficRouting": {"plugins": {"sidestep/proxy": {}}}})),
        &[SERVICES],
    );
    check(
        &canary(&json!({"scaleDownDelaySeconds": 10})),
        &[
            "spec.strategy.scaleDownDelaySeconds: Invalid value: 10: Canary scaleDownDelaySeconds can only be used with traffic routing",
        ],
    );
    check(
        &canary(&json!({"dynamicStableScale": true})),
        &[
            "spec.strategy.dynamicStableScale: Invalid value: true: Canary dynamicStableScale can only be used with traffic routing",
        ],
    );
    check(
        &canary(
            &json!({"dynamicStableScale": true, "scaleDownDelaySeconds": 10, "trafficRouting": {}, "stableService": "s"}),
        ),
        &[
            "spec.strategy.dynamicStableScale: Invalid value: true: Canary dynamicStableScale cannot be used with scaleDownDelaySeconds",
        ],
    );
    check(
        &canary(
            &json!({"trafficRouting": {"istio": {}, "maxTrafficWeight": 200}, "stableService": "s", "canaryService": "c"}),
        ),
        &[
            "spec.strategy.trafficRouting.maxTrafficWeight: Invalid value: 200: Canary maxTrafficWeight in traffic routing only supported in Nginx and Plugins",
        ],
    );
    check(
        &canary(
            &json!({"trafficRouting": {"plugins": {"sidestep/proxy": {"sticky": true}}}, "stableService": "s"}),
        ),
        &[
            r#"spec.strategy.canary.trafficRouting.plugins[sidestep/proxy]: Invalid value: {"sticky":true}: must be {services: [NAME…], fallback: redistribute|refuse, drainTimeout: DURATION, fleet: NAME}"#,
        ],
    );
}

#[test]
fn our_block_is_read_or_refused_by_field() {
    let block = |block: Value| {
        canary(
            &json!({"trafficRouting": {"plugins": {"sidestep/proxy": block}}, "stableService": "s"}),
        )
    };
    for timeout in ["-1s", "300", "soon", ""] {
        let text = format!(
            r#"spec.strategy.canary.trafficRouting.plugins[sidestep/proxy].drainTimeout: Invalid value: "{timeout}": must be a duration of 0s or more, such as "300s" or "5m""#
        );
        check(&block(json!({"drainTimeout": timeout})), &[&text]);
    }
    let long = "x".repeat(64);
    for fleet in ["", "-edge", "a b", long.as_str()] {
        let text = format!(
            r#"spec.strategy.canary.trafficRouting.plugins[sidestep/proxy].fleet: Invalid value: "{fleet}": must be the value of the label sidestep.dev/fleet on the Service that lists the fleet's proxies; leave it out to mean "default""#
        );
        check(&block(json!({"fleet": fleet})), &[&text]);
    }
    let read = |written: Value, timeout: i64, fleet: Option<&str>| {
        let mut model = super::super::tests::Model::routed(1, &json!([]));
        model.edit(|spec| {
            spec["strategy"]["canary"]["trafficRouting"]["plugins"]["sidestep/proxy"] = written;
        });
        let routing = model.plan().unwrap().routing().unwrap().clone();
        assert_eq!(
            (routing.drain_timeout, routing.fleet.as_deref()),
            (timeout, fleet)
        );
    };
    read(json!({}), 300, None);
    read(
        json!({"drainTimeout": "1m30.5s", "fleet": "edge"}),
        91,
        Some("edge"),
    );
    read(json!({"drainTimeout": "0", "fleet": "default"}), 0, None);
}

#[test]
fn steps_one_by_one() {
    let empty = format!(
        r#"spec.strategy.steps[0]: Invalid value: "step.Experiment: true step.Pause: true step.SetWeight: true step.Analysis: true step.SetCanaryScale: true step.SetHeaderRoute: true step.SetMirrorRoute: true step.Plugin: true": {STEP}"#
    );
    check(&steps(&json!({})), &[&empty]);
    let two = format!(
        r#"spec.strategy.steps[0]: Invalid value: "step.Experiment: false step.Pause: true step.SetWeight: true step.Analysis: false": {STEP}"#
    );
    check(&steps(&json!({"setWeight": 1, "pause": {}})), &[&two]);
    for weight in [101, -1] {
        let text = format!(
            "spec.strategy.steps[0].setWeight: Invalid value: {weight}: SetWeight needs to be between 0 and 100"
        );
        check(&steps(&json!({"setWeight": weight})), &[&text]);
    }
    for (duration, printed) in [(json!(-3), -3), (json!("soon"), -1)] {
        let text = format!(
            "spec.strategy.steps[0].pause.duration: Invalid value: {printed}: Duration needs to be greater than 0"
        );
        check(&steps(&json!({"pause": {"duration": duration}})), &[&text]);
    }
    check(
        &steps(&json!({"setCanaryScale": {"replicas": 1}})),
        &[
            "spec.strategy.trafficRouting: Required value: SetCanaryScale requires TrafficRouting to be set",
        ],
    );
    check(
        &steps(&json!({"setHeaderRoute": {"name": "h"}})),
        &[
            r#"spec.strategy.steps[0].setHeaderRoute: Invalid value: {"name":"h"}: SetHeaderRoute requires TrafficRouting, supports Istio and ALB and Apisix"#,
            "spec.strategy.canary.steps[0].setHeaderRoute: not supported by this version",
        ],
    );
    check(
        &steps(&json!({"setMirrorRoute": {"name": "h"}})),
        &[
            r#"spec.strategy.steps[0].setMirrorRoute: Invalid value: {"name":"h"}: SetMirrorRoute requires TrafficRouting, supports Istio and Plugins"#,
            "spec.strategy.canary.steps[0].setMirrorRoute: not supported by this version",
        ],
    );
    check(
        &steps(&json!({"experiment": {"templates": [{"name": "t", "weight": 5}]}})),
        &[
            "spec.strategy.steps[0].experiment.templates[0].weight: Invalid value: 5: Experiment template weight cannot be set unless TrafficRouting is enabled",
            "spec.strategy.canary.steps[0].experiment: not supported by this version",
        ],
    );
}

#[test]
fn header_and_mirror_routes() {
    let routed = |step: Value, managed: Value| {
        canary(&json!({
            "trafficRouting": {"plugins": {"sidestep/proxy": {}}, "managedRoutes": managed},
            "stableService": "s", "steps": [step],
        }))
    };
    let refused =
        |kind: &str| format!("spec.strategy.canary.steps[0].{kind}: not supported by this version");
    let (header, mirror) = (refused("setHeaderRoute"), refused("setMirrorRoute"));
    let managed =
        "spec.strategy.canary.trafficRouting.managedRoutes: not supported by this version";
    let listed = || json!([{"name": "h"}]);
    let values = |value: Value| json!({"setHeaderRoute": {"name": "h", "match": [{"headerName": "A", "headerValue": value}]}});
    let at = "spec.strategy.steps[0].setHeaderRoute";
    check(
        &routed(values(json!({"exact": "1"})), Value::Null),
        &[
            "spec.strategy.trafficRouting.managedRoutes: Required value: Rollout has missing field 'spec.strategy.canary.trafficRouting.managedRoutes'",
            &header,
        ],
    );
    let unlisted = format!(
        r#"{at}: Invalid value: "h": Steps define a route that does not exist in spec.strategy.canary.trafficRouting.managedRoutes"#
    );
    check(
        &routed(values(json!({"exact": "1"})), json!([{"name": "x"}])),
        &[&unlisted, &header, managed],
    );
    for (value, text) in [
        (
            json!({"prefix": "2", "exact": "1"}),
            r#".match[0]: Invalid value: {"exact":"1","prefix":"2"}: StringMatch match value must have exactly one of the following: exact, regex, prefix"#,
        ),
        (
            json!({}),
            ".match[0]: Invalid value: {}: StringMatch value missed, match value must have one of the following: exact, regex, prefix",
        ),
        (
            json!({"regex": "("}),
            r#".match[0].regex: Invalid value: "(": error: unclosed group"#,
        ),
    ] {
        check(
            &routed(values(value), listed()),
            &[&format!("{at}{text}"), &header, managed],
        );
    }
    let odd = json!({"setMirrorRoute": {"name": "h", "percentage": 101, "match": [{"path": {}, "headers": {"A": {"exact": "1", "regex": "2"}}}]}});
    check(
        &routed(odd, listed()),
        &[
            "spec.strategy.steps[0].setMirrorRoute.match[0].path: Invalid value: {}: StringMatch value missed, match value must have one of the following: exact, regex, prefix",
            r#"spec.strategy.steps[0].setMirrorRoute.match[0].headers[A]: Invalid value: {"exact":"1","regex":"2"}: StringMatch match value must have exactly one of the following: exact, regex, prefix"#,
            "spec.strategy.steps[0].setMirrorRoute.percentage: Invalid value: 101: must be between 0 and 100",
            &mirror,
            managed,
        ],
    );
}

#[test]
fn affinity() {
    let both = json!({
        "preferredDuringSchedulingIgnoredDuringExecution": {"weight": 1},
        "requiredDuringSchedulingIgnoredDuringExecution": {},
    });
    check(
        &canary(&json!({"antiAffinity": both})),
        &[
            r#"spec.strategy.antiAffinity: Invalid value: "antiAffinity.PreferredDuringSchedulingIgnoredDuringExecution: true antiAffinity.RequiredDuringSchedulingIgnoredDuringExecution: true": AntiAffinity must have exactly one strategy listed"#,
        ],
    );
    let heavy = json!({"preferredDuringSchedulingIgnoredDuringExecution": {"weight": 101}});
    check(
        &canary(&json!({"antiAffinity": heavy})),
        &[
            "spec.strategy.antiAffinity.weight: Invalid value: 101: AntiAffinity weight must be between 1-100",
        ],
    );
}

#[test]
fn marks_leave_selected_labels_alone() {
    let metadata = json!({"labels": {"app": "other", "role": "canary"}});
    check(
        &canary(&json!({"canaryMetadata": metadata, "stableMetadata": {}})),
        &[
            r#"spec.strategy.canary.canaryMetadata.labels[app]: Invalid value: "other": must not be a label that pods are selected by"#,
        ],
    );
}

#[test]
fn what_is_referred_to() {
    check(
        &canary(&json!({"stableService": "nosuch2"})),
        &[
            r#"spec.strategy.canary.stableService: Invalid value: "nosuch2": service "nosuch2" not found"#,
        ],
    );
    check(
        &canary(&json!({"canaryService": "odd"})),
        &[
            r#"spec.strategy.canary.canaryService: Invalid value: "odd": Service "odd" has unmatch label "app" in rollout"#,
        ],
    );
    check(
        &canary(&json!({"canaryService": "other"})),
        &[
            r#"spec.strategy.canary.canaryService: Invalid value: "other": Service "other" is managed by another Rollout"#,
        ],
    );
    let field = "spec.strategy.canary.steps[0].analysis.templates: Invalid value";
    let templates = |name: &str, cluster: bool| {
        steps(
            &json!({"analysis": {"templates": [{"templateName": name, "clusterScope": cluster}]}}),
        )
    };
    for (name, cluster, text) in [
        (
            "nosuch",
            false,
            r#""nosuch": AnalysisTemplate 'nosuch' not found"#,
        ),
        (
            "nosuch",
            true,
            r#""nosuch": ClusterAnalysisTemplate 'nosuch' not found"#,
        ),
        (
            "forever",
            false,
            r#""forever": AnalysisTemplate forever has metric m which runs indefinitely. Invalid value for count: <nil>"#,
        ),
        (
            "needs-arg",
            false,
            r#""templateNames: [needs-arg]": args.host was not resolved"#,
        ),
        (
            "dup",
            false,
            r#""templateNames: [dup]": two metrics have the same name 'm'"#,
        ),
    ] {
        check(&templates(name, cluster), &[&format!("{field}: {text}")]);
    }
    check(
        &canary(&json!({"analysis": {"templates": [{"templateName": "forever"}]}})),
        &[],
    );
    let both = json!([{"templateName": "argconflict"}, {"templateName": "argconflict2"}]);
    let text = r#""templateNames: [argconflict argconflict2]": Argument 'host' specified multiple times with different values: 'a', 'b'"#;
    check(
        &steps(&json!({"analysis": {"templates": both}})),
        &[&format!("{field}: {text}")],
    );
}

#[test]
fn arguments_of_a_steps_analysis() {
    // R2.22. Of a background analysis Argo says nothing until it runs (argo-observed, below the table).
    let argument = |path: &str| json!([{"name": "host", "value": "a"}, {"name": "x", "valueFrom": {"fieldRef": {"fieldPath": path}}}]);
    let text = |args: &Value| {
        format!(
            "spec.strategy.steps[0].analyses: Invalid value: {args}: Analyses arguments must refer to valid object metadata supported by downwardAPI"
        )
    };
    for (path, known) in [
        ("metadata.name", true),
        ("metadata.labels['team']", true),
        ("metadata.annotations", true),
        ("spec.template", true),
        ("metadata.foo", false),
        ("metadata", false),
        ("metadata.labels[team]", false),
        ("metadataname", false),
    ] {
        let args = argument(path);
        let expected: Vec<String> = (!known).then(|| text(&args)).into_iter().collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        let analysis = json!({"templates": [{"templateName": "argconflict"}], "args": args});
        check(&steps(&json!({"analysis": analysis})), &expected);
        check(&canary(&json!({"analysis": analysis})), &[]);
    }
    let args = argument("metadata.foo");
    let experiment =
        json!({"templates": [], "analyses": [{"name": "a", "templateName": "t", "args": args}]});
    check(
        &steps(&json!({"experiment": experiment})),
        &[
            &text(&args),
            "spec.strategy.canary.steps[0].experiment: not supported by this version",
        ],
    );
}

#[test]
fn pods() {
    check(
        &json!({"selector": {"matchLabels": {"app": "x"}}}),
        &[
            r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: 'selector' does not match template 'labels'"#,
        ],
    );
    check(
        &json!({"selector": null}),
        &["spec.selector: Required value: Rollout has missing field '.spec.selector'"],
    );
    check(
        &json!({"selector": {"matchLabels": null}}),
        &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
    );
    check(
        &json!({"template": {"spec": {"containers": [{"name": "web"}]}}}),
        &["spec.template.spec.containers[0].image: Required value"],
    );
    check(
        &json!({"template": {"spec": {"containers": []}}}),
        &["spec.template.spec.containers: Required value"],
    );
    check(
        &json!({"template": {"spec": {"restartPolicy": "Never"}}}),
        &[
            r#"spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always""#,
        ],
    );
}

#[test]
fn selectors_may_be_expressions() {
    // R2.22, as the API server matches them: operator, values → whether the template's label `app: web` is selected
    for (operator, values, selected) in [
        ("In", json!(["web", "x"]), true),
        ("In", json!(["x"]), false),
        ("NotIn", json!(["x"]), true),
        ("NotIn", json!(["web"]), false),
        ("Exists", json!(null), true),
        ("DoesNotExist", json!(null), false),
        ("Near", json!(["web"]), false),
    ] {
        let expression = json!({"key": "app", "operator": operator, "values": values});
        let detail = r#"spec.template.metadata.labels: Invalid value: {"app":"web"}: 'selector' does not match template 'labels'"#;
        let expected = if selected { &[][..] } else { &[detail] };
        let selector = json!({"matchLabels": null, "matchExpressions": [expression]});
        check(&json!({"selector": selector}), expected);
    }
}

#[test]
fn workloads() {
    let reference = |kind: &str, api: &str| json!({"workloadRef": {"apiVersion": api, "kind": kind, "name": "nosuch"}});
    let mut bare = json!({"template": null});
    merge(&mut bare, &reference("StatefulSet", "apps/v1"));
    check(
        &reference("Deployment", "apps/v1"),
        &["template must be empty for workload reference rollout"],
    );
    check(
        &bare,
        &["workload of type apps/StatefulSet is not supported"],
    );
    let mut rollout = rollout();
    merge(&mut rollout["spec"], &json!({"template": null}));
    merge(&mut rollout["spec"], &reference("Deployment", "apps/v1"));
    let parsed: Rollout = serde_json::from_value(rollout).unwrap();
    let mut references = references();
    let missing = r#"deployments.apps "shop/nosuch" not found"#;
    references.workload = Some(Workload::Missing(missing.to_owned()));
    assert_eq!(
        plan(&parsed, &references).unwrap_err()[0].to_string(),
        missing
    );
    let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
    references.workload = Some(Workload::Found {
        template: template.clone(),
        selector: None,
        generation: 1,
        replicas: Some(2),
    });
    assert_eq!(plan(&parsed, &references).unwrap().template, template);
}

#[test]
fn a_workload_that_was_not_read_is_not_found() {
    let reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "nosuch", "scaleDown": "later"});
    check(
        &json!({"template": null, "workloadRef": reference}),
        &[
            r#"spec.workloadRef.scaleDown: Unsupported value: "later": supported values: "never", "onsuccess", "progressively""#,
            r#"Deployment "nosuch" not found"#,
        ],
    );
}

#[test]
fn numbers_of_pods_and_seconds_are_not_negative() {
    check(
        &json!({"replicas": -1, "minReadySeconds": -2, "revisionHistoryLimit": -3}),
        &[
            "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            "spec.minReadySeconds: Invalid value: -2: must be greater than or equal to 0",
            "spec.revisionHistoryLimit: Invalid value: -3: must be greater than or equal to 0",
        ],
    );
    check(
        &json!({"progressDeadlineSeconds": -4}),
        &[
            "spec.progressDeadlineSeconds: Invalid value: -4: must be greater than or equal to 0",
            "spec.progressDeadlineSeconds: Invalid value: -4: must be greater than minReadySeconds",
        ],
    );
}

#[test]
fn a_split_of_another_owner_is_left_alone() {
    // Control-plane rules, section 1: it is refused where the strategy asks for routing.
    let routed = json!({"canary": {"stableService": "s", "canaryService": "c", "trafficRouting": {"plugins": {"sidestep/proxy": {}}}}});
    let plain = json!({"blueGreen": {"activeService": "s"}});
    let field = "metadata.annotations[sidestep.dev/proxy]";
    for (strategy, annotation, field) in [
        (&routed, None, Some("spec.strategy.canary.trafficRouting")),
        (&plain, Some("{}"), Some(field)),
        (&plain, None, None),
    ] {
        let mut rollout = rollout();
        rollout["spec"]["strategy"] = strategy.clone();
        if let Some(annotation) = annotation {
            rollout["metadata"]["annotations"] = json!({"sidestep.dev/proxy": annotation});
        }
        let taken = References {
            split_taken: true,
            ..references()
        };
        let complaints = plan(&serde_json::from_value(rollout).unwrap(), &taken);
        let complaints = complaints.map_or_else(|complaints| complaints, |_| Vec::new());
        let complaints: Vec<String> = complaints.iter().map(ToString::to_string).collect();
        let expected = field.map(|field| {
            format!(r#"{field}: Invalid value: "web": Split "web" belongs to another owner"#)
        });
        assert_eq!(complaints, Vec::from_iter(expected));
    }
}

#[test]
fn what_is_not_done_is_refused() {
    check(
        &canary(
            &json!({"trafficRouting": {"managedRoutes": [{"name": "h"}]}, "stableService": "s"}),
        ),
        &["spec.strategy.canary.trafficRouting.managedRoutes: not supported by this version"],
    );
    check(
        &canary(
            &json!({"trafficRouting": {"envoy": {}}, "stableService": "s", "canaryService": "c"}),
        ),
        &["spec.strategy.canary.trafficRouting.envoy: not supported by this version"],
    );
}

/// R2.22: the first in Argo's form, all of them where the rollout says what it waits for.
#[test]
fn all_complaints_are_told() {
    let mut model =
        super::super::tests::Model::basic(1, &json!([{"setWeight": 101}, {"setWeight": -1}]));
    model.edit(|spec| spec["minReadySeconds"] = json!(0));
    model.turn();
    let of_step = |index: u8, weight: i32| {
        format!(
            "spec.strategy.steps[{index}].setWeight: Invalid value: {weight}: SetWeight needs to be between 0 and 100"
        )
    };
    let (one, other) = (of_step(0, 101), of_step(1, -1));
    let first = format!("InvalidSpec: The Rollout \"web\" is invalid: {one}");
    assert_eq!(
        (model.phase(), model.message()),
        ("Degraded", first.as_str())
    );
    let waiting = model.memory.waiting.unwrap();
    assert_eq!(waiting.message, format!("a valid spec: {one}; {other}"));
}

#[test]
fn all_complaints_are_found() {
    check(
        &json!({"minReadySeconds": 700, "strategy": {"canary": {"steps": [{"setWeight": 101}, {"setWeight": 20}, {"pause": {"duration": "x"}}]}}}),
        &[
            "spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
            "spec.strategy.steps[0].setWeight: Invalid value: 101: SetWeight needs to be between 0 and 100",
            "spec.strategy.steps[2].pause.duration: Invalid value: -1: Duration needs to be greater than 0",
        ],
    );
}

// Blue-green.

fn blue_green(strategy: &Value) -> Value {
    let mut whole = json!({"activeService": "s"});
    merge(&mut whole, strategy);
    json!({"strategy": {"canary": null, "blueGreen": whole}})
}

const ACTIVE_TWICE: &str = r#"spec.strategy.activeService: Invalid value: "s": This rollout uses the same service for the active and preview services, but two different services are required."#;

#[test]
fn blue_green_specs() {
    let analysis = |name: &str| json!({"templates": [{"templateName": name}]});
    let cases = [
        (json!({}), vec![]),
        (
            json!({
                "previewService": "c", "previewReplicaCount": 1, "autoPromotionEnabled": false, "autoPromotionSeconds": 5,
                "scaleDownDelaySeconds": 5, "scaleDownDelayRevisionLimit": 2, "abortScaleDownDelaySeconds": 0, "maxUnavailable": "10%",
            }),
            vec![],
        ),
        (
            json!({"activeService": null}),
            vec!["spec.strategy.blueGreen.activeService: Required value"],
        ),
        (json!({"previewService": "s"}), vec![ACTIVE_TWICE]),
        (
            json!({"scaleDownDelayRevisionLimit": 11}),
            vec![
                "spec.strategy.scaleDownDelayRevisionLimit: Invalid value: 11: This rollout's revision history limit can not be smaller than the rollout's scale down limit",
            ],
        ),
        (
            json!({"activeService": "nosuch"}),
            vec![
                r#"spec.strategy.blueGreen.activeService: Invalid value: "nosuch": service "nosuch" not found"#,
            ],
        ),
        (
            json!({"previewService": "odd"}),
            vec![
                r#"spec.strategy.blueGreen.previewService: Invalid value: "odd": Service "odd" has unmatch label "app" in rollout"#,
            ],
        ),
        (
            json!({"previewService": "other"}),
            vec![
                r#"spec.strategy.blueGreen.previewService: Invalid value: "other": Service "other" is managed by another Rollout"#,
            ],
        ),
        (
            json!({"prePromotionAnalysis": analysis("forever"), "postPromotionAnalysis": analysis("nosuch")}),
            vec![
                r#"spec.strategy.blueGreen.prePromotionAnalysis.templates: Invalid value: "forever": AnalysisTemplate forever has metric m which runs indefinitely. Invalid value for count: <nil>"#,
                r#"spec.strategy.blueGreen.postPromotionAnalysis.templates: Invalid value: "nosuch": AnalysisTemplate 'nosuch' not found"#,
            ],
        ),
        (
            json!({"previewReplicaCount": -1, "autoPromotionSeconds": -2, "maxUnavailable": "x"}),
            vec![
                "spec.strategy.blueGreen.previewReplicaCount: Invalid value: -1: must be greater than or equal to 0",
                "spec.strategy.blueGreen.autoPromotionSeconds: Invalid value: -2: must be greater than or equal to 0",
                r#"spec.strategy.maxUnavailable: Invalid value: "x": must be a number of pods or a percentage"#,
            ],
        ),
        (
            json!({"antiAffinity": {}}),
            vec![
                r#"spec.strategy.antiAffinity: Invalid value: "antiAffinity.PreferredDuringSchedulingIgnoredDuringExecution: false antiAffinity.RequiredDuringSchedulingIgnoredDuringExecution: false": AntiAffinity must have exactly one strategy listed"#,
            ],
        ),
    ];
    for (strategy, expected) in cases {
        check(&blue_green(&strategy), &expected);
    }
}

/// The complaints about a rollout with our annotation.
fn annotated(spec: &Value, annotation: &str) -> Result<Plan, Vec<String>> {
    let mut rollout = rollout();
    merge(&mut rollout["spec"], spec);
    rollout["metadata"]["annotations"] = json!({"sidestep.dev/proxy": annotation});
    let parsed: Rollout = serde_json::from_value(rollout).unwrap();
    plan(&parsed, &references())
        .map_err(|complaints| complaints.iter().map(ToString::to_string).collect())
}

#[test]
fn blue_green_is_routed_by_an_annotation() {
    let strategy = blue_green(&json!({"previewService": "c"}));
    let routing = |block: &str| {
        annotated(&strategy, block)
            .unwrap()
            .routing()
            .unwrap()
            .clone()
    };
    assert_eq!(routing("{}").services, ["s"]);
    let block = r#"{"drainTimeout": "5s", "fleet": "edge", "fallback": "refuse"}"#;
    let parsed = routing(block);
    assert_eq!(
        (parsed.drain_timeout, parsed.fleet.as_deref()),
        (5, Some("edge"))
    );
    assert_eq!(parsed.fallback, Some(Fallback::Refuse));
    let check = |spec: &Value, block: &str, expected: &str| {
        assert_eq!(annotated(spec, block).unwrap_err(), [expected], "{block}");
    };
    check(
        &strategy,
        r#"{"service": "s"}"#,
        r#"metadata.annotations[sidestep.dev/proxy]: Invalid value: "{\"service\": \"s\"}": must be {services: [NAME…], fallback: redistribute|refuse, drainTimeout: DURATION, fleet: NAME}"#,
    );
    check(
        &strategy,
        r#"{"services": ["nosuch"]}"#,
        r#"metadata.annotations[sidestep.dev/proxy].services: Invalid value: "nosuch": service "nosuch" not found"#,
    );
    check(
        &json!({}),
        "{}",
        r#"metadata.annotations[sidestep.dev/proxy]: Invalid value: "{}": annotation sidestep.dev/proxy is for blueGreen; a canary has spec.strategy.canary.trafficRouting.plugins[sidestep/proxy]"#,
    );
}
