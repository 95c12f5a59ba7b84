//! Specs: Rollouts of every kind that the plan takes. What it refuses as not implemented is not made, so that a feature is taken up by
//! the simulation in the commit that lands it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::dice::Dice;
use super::workload::Workload;
use crate::analysis::template::Templates;
use crate::api::labels;
use crate::api::rollout::Rollout;
use crate::rollout::observed::Service;
use crate::rollout::plan::{Fault, References, plan};

/// What the plan takes of that which it may refuse.
#[derive(Clone, Debug)]
pub(super) struct Features(Vec<&'static str>);

impl Features {
    /// Asks the plan.
    pub(super) fn known() -> Self {
        let taken = probes()
            .into_iter()
            .filter(|(_, change)| is_taken(change))
            .map(|(name, _)| name);
        Self(taken.collect())
    }

    fn has(&self, name: &str) -> bool {
        self.0.contains(&name)
    }
}

/// Features, each with what makes a spec ask for it.
fn probes() -> Vec<(&'static str, Value)> {
    let canary = |change: Value| json!({"strategy": {"canary": change}});
    let route = |kind: &str, step: Value| {
        canary(json!({
            "trafficRouting": {"managedRoutes": [{"name": "route"}]},
            "steps": [{kind: step}],
        }))
    };
    vec![
        (
            "dynamicStableScale",
            canary(json!({"dynamicStableScale": true})),
        ),
        (
            "rollbackWindow",
            json!({"rollbackWindow": {"revisions": 3}}),
        ),
        (
            "metadata",
            canary(json!({"canaryMetadata": {"labels": {"role": "canary"}}})),
        ),
        ("antiAffinity", canary(anti_affinity())),
        ("headerRoute", route("setHeaderRoute", header_route())),
        ("mirrorRoute", route("setMirrorRoute", mirror_route())),
    ]
}

fn is_taken(change: &Value) -> bool {
    let mut spec = skeleton(4);
    merge(
        &mut spec,
        &json!({"strategy": {"canary": routed(&json!({}))}}),
    );
    merge(&mut spec, change);
    match plan(&rollout(&spec, None), &references(&services(&spec), None)) {
        Ok(_) => true,
        Err(complaints) => complaints
            .iter()
            .all(|complaint| complaint.fault != Fault::NotImplemented),
    }
}

/// Merges a change into a value, as a merge patch does.
pub(super) fn merge(target: &mut Value, change: &Value) {
    let Value::Object(change) = change else {
        *target = change.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in change {
        match value.is_null() {
            true => drop(target.as_object_mut().unwrap().remove(key)),
            false => merge(&mut target[key], value),
        }
    }
}

/// The Rollout of a spec, with the annotation that asks for routing where a strategy has no block for it.
pub(super) fn rollout(spec: &Value, proxy: Option<&str>) -> Rollout {
    let mut object = json!({
        "apiVersion": "argoproj.io/v1alpha1",
        "kind": "Rollout",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u-rollout"},
        "spec": spec,
    });
    if let Some(proxy) = proxy {
        object["metadata"]["annotations"] = json!({(labels::PROXY): proxy});
    }
    serde_json::from_value(object).unwrap()
}

/// The Services that a spec may name.
pub(super) fn services(spec: &Value) -> Vec<Service> {
    let service = |name: &str| Service {
        name: name.to_owned(),
        selector: BTreeMap::from([("app".to_owned(), "web".to_owned())]),
        managed_by: None,
        apex: false,
    };
    let names = match spec["strategy"]["blueGreen"].is_object() {
        true => ["web-active", "web-preview"],
        false => ["web-stable", "web-canary"],
    };
    names.map(service).to_vec()
}

/// What a spec may refer to.
pub(super) fn references(services: &[Service], workload: Option<&Workload>) -> References {
    let template = |metric: Value| serde_json::from_value(json!({"metrics": [metric]})).unwrap();
    let provider = json!({"web": {"url": "http://figures"}});
    let once = template(json!({"name": "once", "count": 1, "provider": provider}));
    let beside = template(json!({"name": "beside", "interval": "10s", "provider": provider}));
    let mut templates = Templates::default();
    templates.namespaced.insert("once".to_owned(), once);
    templates.namespaced.insert("beside".to_owned(), beside);
    References {
        services: services.to_vec(),
        templates,
        workload: workload.map(Workload::found),
        ..References::default()
    }
}

pub(super) fn skeleton(replicas: i64) -> Value {
    json!({
        "replicas": replicas,
        "selector": {"matchLabels": {"app": "web"}},
        "template": template(),
    })
}

/// The pod template that everything begins with.
pub(super) fn template() -> Value {
    json!({
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]},
    })
}

fn routed(block: &Value) -> Value {
    json!({
        "stableService": "web-stable",
        "canaryService": "web-canary",
        "trafficRouting": {"plugins": {"sidestep/proxy": block}},
    })
}

/// A spec.
pub(super) fn spec(dice: &mut Dice, features: &Features) -> Value {
    let mut spec = skeleton(replicas(dice));
    match dice.one_in(3) {
        true => {
            let strategy = blue_green(dice);
            merge(&mut spec, &json!({"strategy": {"blueGreen": strategy}}));
        }
        false => canary(dice, features, &mut spec),
    }
    around(dice, features, &mut spec);
    if dice.one_in(8) {
        refer(dice, &mut spec);
    }
    spec
}

/// The template is that of a workload.
fn refer(dice: &mut Dice, spec: &mut Value) {
    let mut reference = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
    let modes = [
        json!({}),
        json!({"scaleDown": "never"}),
        json!({"scaleDown": "onsuccess"}),
        json!({"scaleDown": "progressively"}),
    ];
    merge(&mut reference, &dice.pick(&modes));
    let change = json!({"template": null, "workloadRef": reference});
    merge(spec, &change);
    if dice.one_in(2) {
        merge(spec, &json!({"selector": null}));
    }
}

fn canary(dice: &mut Dice, features: &Features, spec: &mut Value) {
    let is_routed = dice.roll(3) > 0;
    let canary = match is_routed {
        true => routed_canary(dice, features),
        false => basic_canary(dice),
    };
    merge(spec, &json!({"strategy": {"canary": canary}}));
    let whole = whole_of(spec);
    spec["strategy"]["canary"]["steps"] = steps(dice, features, is_routed, whole);
}

/// The annotation that asks for routing of a blue-green spec.
pub(super) fn proxy(dice: &mut Dice, spec: &Value) -> Option<String> {
    let blocks = ["{}", "{\"drainTimeout\": \"20s\"}"];
    let is_routed = spec["strategy"]["blueGreen"].is_object() && dice.roll(3) > 0;
    is_routed.then(|| dice.pick(&blocks).to_owned())
}

fn blue_green(dice: &mut Dice) -> Value {
    let mut strategy = json!({"activeService": "web-active", "previewService": "web-preview"});
    merge(&mut strategy, &promotion(dice));
    let mut maybe = |change: Value, times: u64| {
        if dice.one_in(times) {
            merge(&mut strategy, &change);
        }
    };
    let once = json!({"templates": [{"templateName": "once"}]});
    maybe(json!({"previewService": null}), 5);
    maybe(json!({"prePromotionAnalysis": once}), 3);
    maybe(json!({"postPromotionAnalysis": once}), 3);
    maybe(json!({"scaleDownDelaySeconds": 0}), 6);
    maybe(json!({"scaleDownDelaySeconds": 120}), 4);
    maybe(json!({"scaleDownDelayRevisionLimit": 1}), 4);
    maybe(json!({"abortScaleDownDelaySeconds": 0}), 6);
    maybe(json!({"abortScaleDownDelaySeconds": 90}), 4);
    strategy
}

/// Who promotes, and how much is previewed, as a merge patch.
pub(super) fn promotion(dice: &mut Dice) -> Value {
    let who = [
        json!({"autoPromotionEnabled": null, "autoPromotionSeconds": null}),
        json!({"autoPromotionEnabled": true, "autoPromotionSeconds": 4}),
        json!({"autoPromotionEnabled": null, "autoPromotionSeconds": 90}),
        json!({"autoPromotionEnabled": false}),
    ];
    let pods = [
        json!(null),
        json!(null),
        json!(0),
        json!(1),
        json!(2),
        json!(20),
    ];
    let mut change = dice.pick(&who);
    change["previewReplicaCount"] = dice.pick(&pods);
    change
}

/// What a weight of this spec is a part of.
pub(super) fn whole_of(spec: &Value) -> i64 {
    let routing = &spec["strategy"]["canary"]["trafficRouting"];
    routing["maxTrafficWeight"].as_i64().unwrap_or(100)
}

/// A number of pods, as a person or an autoscaler sets it.
pub(super) fn replicas(dice: &mut Dice) -> i64 {
    dice.pick(&[0, 1, 1, 2, 3, 3, 4, 5, 7, 10, 13])
}

fn basic_canary(dice: &mut Dice) -> Value {
    let mut canary = json!({});
    let slacks = [
        json!({}),
        json!({"maxSurge": 1, "maxUnavailable": 0}),
        json!({"maxSurge": 0, "maxUnavailable": 1}),
        json!({"maxSurge": "50%", "maxUnavailable": "10%"}),
        json!({"maxSurge": "100%"}),
        json!({"maxSurge": 0, "maxUnavailable": "34%"}),
        json!({"maxSurge": 3, "maxUnavailable": 2}),
    ];
    merge(&mut canary, &dice.pick(&slacks));
    if dice.one_in(3) {
        merge(
            &mut canary,
            &json!({"stableService": "web-stable", "canaryService": "web-canary"}),
        );
    }
    canary
}

fn routed_canary(dice: &mut Dice, features: &Features) -> Value {
    let blocks = [
        json!({}),
        json!({"drainTimeout": "20s"}),
        json!({"services": ["web-stable"]}),
    ];
    let mut canary = routed(&dice.pick(&blocks));
    let mut maybe = |change: Value, times: u64| {
        if dice.one_in(times) {
            merge(&mut canary, &change);
        }
    };
    maybe(json!({"canaryService": null}), 6);
    maybe(json!({"trafficRouting": {"maxTrafficWeight": 1000}}), 6);
    maybe(json!({"minPodsPerReplicaSet": 2}), 4);
    maybe(json!({"abortScaleDownDelaySeconds": 0}), 6);
    maybe(json!({"abortScaleDownDelaySeconds": 90}), 6);
    maybe(json!({"scaleDownDelayRevisionLimit": 1}), 6);
    if features.has("dynamicStableScale") && dice.one_in(3) {
        merge(&mut canary, &json!({"dynamicStableScale": true}));
        return canary;
    }
    let delays = [
        json!({}),
        json!({"scaleDownDelaySeconds": 0}),
        json!({"scaleDownDelaySeconds": 120}),
    ];
    merge(&mut canary, &dice.pick(&delays));
    canary
}

/// What stands around the strategy.
fn around(dice: &mut Dice, features: &Features, spec: &mut Value) {
    let mut maybe = |change: Value, times: u64| {
        if dice.one_in(times) {
            merge(spec, &change);
        }
    };
    maybe(json!({"minReadySeconds": 5}), 4);
    maybe(json!({"progressDeadlineSeconds": 60}), 3);
    maybe(json!({"progressDeadlineAbort": true}), 3);
    maybe(json!({"revisionHistoryLimit": 1}), 4);
    maybe(
        json!({"analysis": {"successfulRunHistoryLimit": 1, "unsuccessfulRunHistoryLimit": 1}}),
        3,
    );
    if features.has("rollbackWindow") {
        maybe(json!({"rollbackWindow": {"revisions": 2}}), 3);
    }
    match spec["strategy"]["canary"].is_object() {
        true => around_canary(dice, features, spec),
        false => around_blue_green(dice, features, spec),
    }
}

fn around_blue_green(dice: &mut Dice, features: &Features, spec: &mut Value) {
    let mut maybe = |change: Value, times: u64| {
        if dice.one_in(times) {
            merge(spec, &json!({"strategy": {"blueGreen": change}}));
        }
    };
    if features.has("metadata") {
        maybe(
            json!({"previewMetadata": {"labels": {"role": "preview"}}, "activeMetadata": {"labels": {"role": "active"}}}),
            4,
        );
    }
    if features.has("antiAffinity") {
        maybe(anti_affinity(), 6);
    }
}

fn around_canary(dice: &mut Dice, features: &Features, spec: &mut Value) {
    let mut maybe = |change: Value, times: u64| {
        if dice.one_in(times) {
            merge(spec, &change);
        }
    };
    let canary = |change: Value| json!({"strategy": {"canary": change}});
    maybe(
        canary(json!({"replicaProgressThreshold": {"type": "Percent", "value": 60}})),
        8,
    );
    maybe(
        canary(json!({"replicaProgressThreshold": {"type": "Pods", "value": 1}})),
        8,
    );
    maybe(
        canary(json!({"analysis": {"templates": [{"templateName": "beside"}], "startingStep": 1}})),
        4,
    );
    if features.has("metadata") {
        maybe(
            canary(
                json!({"canaryMetadata": {"labels": {"role": "canary"}}, "stableMetadata": {"labels": {"role": "stable"}}}),
            ),
            4,
        );
    }
    if features.has("antiAffinity") {
        maybe(canary(anti_affinity()), 6);
    }
    if features.has("headerRoute") || features.has("mirrorRoute") {
        let routing = &mut spec["strategy"]["canary"]["trafficRouting"];
        if routing.is_object() {
            routing["managedRoutes"] = json!([{"name": "route"}]);
        }
    }
}

/// A list of steps.
pub(super) fn steps(dice: &mut Dice, features: &Features, routed: bool, whole: i64) -> Value {
    let count = dice.pick(&[0, 1, 2, 3, 3, 4, 5, 6]);
    let steps = (0..count).map(|_| step(dice, features, routed, whole));
    steps.collect()
}

fn step(dice: &mut Dice, features: &Features, routed: bool, whole: i64) -> Value {
    match dice.roll(20) {
        0..=9 => {
            json!({"setWeight": dice.pick(&[0, 1, 5, 10, 20, 25, 34, 50, 60, 75, 99, 100]) * whole / 100})
        }
        10..=11 => json!({"pause": {}}),
        12..=14 => json!({"pause": {"duration": dice.pick(&["0", "2", "15s", "3m"])}}),
        15 => json!({"analysis": {"templates": [{"templateName": "once"}]}}),
        16..=17 if routed => json!({"setCanaryScale": canary_scale(dice)}),
        18 if routed && features.has("headerRoute") => json!({"setHeaderRoute": header_route()}),
        19 if routed && features.has("mirrorRoute") => json!({"setMirrorRoute": mirror_route()}),
        _ => json!({"setWeight": whole / 2}),
    }
}

fn canary_scale(dice: &mut Dice) -> Value {
    let scales = [
        json!({"replicas": 0}),
        json!({"replicas": 1}),
        json!({"replicas": 4}),
        json!({"weight": 30}),
        json!({"weight": 100}),
        json!({"matchTrafficWeight": true}),
    ];
    dice.pick(&scales)
}

fn header_route() -> Value {
    json!({"name": "route", "match": [{"headerName": "x-canary", "headerValue": {"exact": "yes"}}]})
}

fn mirror_route() -> Value {
    json!({"name": "route", "percentage": 50, "match": [{"path": {"prefix": "/"}}]})
}

fn anti_affinity() -> Value {
    json!({"antiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {}}})
}
