//! What pods carry for the part they play (R19, R20), and making room for the first revision (R18).

use serde_json::{Value, json};

use super::Model;
use crate::api::labels;
use crate::rollout::plan::Workload;

fn steps() -> Value {
    json!([{"setWeight": 50}, {"pause": {}}])
}

fn marked() -> Model {
    let strategy = json!({
        "steps": steps(),
        "canaryMetadata": {"labels": {"role": "canary", "tier": "try"}, "annotations": {"a": "1"}},
        "stableMetadata": {"labels": {"role": "stable"}},
    });
    Model::new(2, &strategy).deployed()
}

/// The marks of an image's pods: labels of the template, and what the annotation says.
fn check(model: &Model, tag: &str, role: Option<&str>, note: Option<&str>) {
    let set = model.set(tag);
    let metadata = &set.template["metadata"];
    assert_eq!(metadata["labels"]["role"].as_str(), role, "{metadata}");
    assert_eq!(metadata["labels"]["app"], "web");
    let noted = set.annotations.get(labels::EPHEMERAL_METADATA);
    assert_eq!(noted.map(String::as_str), note);
}

const CANARY: &str = r#"{"labels":{"role":"canary","tier":"try"},"annotations":{"a":"1"}}"#;
const STABLE: &str = r#"{"labels":{"role":"stable"}}"#;

/// R19.1
#[test]
fn pods_carry_the_marks_of_their_part() {
    let mut model = marked();
    check(&model, "1", Some("stable"), Some(STABLE));
    model.image("2");
    model.run_ready();
    check(&model, "1", Some("stable"), Some(STABLE));
    check(&model, "2", Some("canary"), Some(CANARY));
    model.promote();
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
    check(&model, "1", None, None);
    check(&model, "2", Some("stable"), Some(STABLE));
    assert_eq!(
        model.set("2").template["metadata"]["annotations"],
        json!({})
    );
}

/// R2.4(c): marks do not make another template.
#[test]
fn a_marked_revision_is_found_by_its_template() {
    let mut model = marked();
    let stable = model.sets[0].hash.clone();
    model.sets[0].hash = "another".to_owned();
    model.status.stable_rs = Some("another".to_owned());
    model.status.current_pod_hash = Some("another".to_owned());
    model.edit(|spec| spec["revisionHistoryLimit"] = json!(3));
    model.run_ready();
    assert_eq!(model.sets.len(), 1, "no second one beside {stable}");
}

#[test]
fn what_the_template_says_itself_is_back_when_the_part_is_over() {
    let mut model = marked();
    model.edit(|spec| {
        spec["template"]["metadata"]["labels"]["role"] = json!("own");
        spec["strategy"]["canary"]["stableMetadata"] = Value::Null;
    });
    model.run_ready();
    model.promote();
    model.run_ready();
    let set = model
        .sets
        .iter()
        .find(|set| Some(&set.hash) == model.status.stable_rs.as_ref());
    assert_eq!(set.unwrap().template["metadata"]["labels"]["role"], "own");
}

/// R19.1, blue-green.
#[test]
fn preview_and_active_pods_carry_theirs() {
    let strategy = json!({
        "autoPromotionEnabled": false,
        "previewMetadata": {"labels": {"role": "preview"}},
        "activeMetadata": {"labels": {"role": "active"}},
    });
    let mut model = Model::blue_green(2, &strategy).deployed();
    model.image("2");
    model.run_ready();
    check(
        &model,
        "1",
        Some("active"),
        Some(r#"{"labels":{"role":"active"}}"#),
    );
    check(
        &model,
        "2",
        Some("preview"),
        Some(r#"{"labels":{"role":"preview"}}"#),
    );
    model.promote();
    model.run_ready();
    check(
        &model,
        "2",
        Some("active"),
        Some(r#"{"labels":{"role":"active"}}"#),
    );
}

fn apart(way: &Value) -> Model {
    Model::new(2, &json!({"steps": steps(), "antiAffinity": way})).deployed()
}

/// R20.1
#[test]
fn the_canary_keeps_away_from_stable_until_it_is_stable() {
    let term = |hash: &str| {
        json!({
            "labelSelector": {"matchExpressions": [{"key": "rollouts-pod-template-hash", "operator": "In", "values": [hash]}]},
            "namespaces": ["shop"],
            "topologyKey": "kubernetes.io/hostname",
        })
    };
    for (way, list) in [
        (
            json!({"requiredDuringSchedulingIgnoredDuringExecution": {}}),
            "requiredDuringSchedulingIgnoredDuringExecution",
        ),
        (
            json!({"preferredDuringSchedulingIgnoredDuringExecution": {"weight": 7}}),
            "preferredDuringSchedulingIgnoredDuringExecution",
        ),
    ] {
        let mut model = apart(&way);
        let terms = |model: &Model, tag: &str| {
            model.set(tag).template["spec"]["affinity"]["podAntiAffinity"][list].clone()
        };
        assert_eq!(terms(&model, "1"), Value::Null);
        model.image("2");
        model.run_ready();
        let term = term(&model.set("1").hash);
        let expected = match list.starts_with("required") {
            true => json!([term]),
            false => json!([{"weight": 7, "podAffinityTerm": term}]),
        };
        assert_eq!(terms(&model, "2"), expected);
        model.promote();
        model.run_ready();
        assert_eq!(model.phase(), "Healthy");
        assert_eq!(terms(&model, "2"), json!([]));
    }
}

/// A Rollout that takes over a Deployment of 4 pods.
fn migrating(scale_down: &str) -> Model {
    let mut model = Model::new(4, &json!({"steps": steps()}));
    let template = model.rollout.spec.template.clone();
    model.edit(|spec| {
        spec["template"] = Value::Null;
        spec["workloadRef"] = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web", "scaleDown": scale_down});
    });
    model.workload = Some(Workload::Found {
        template,
        selector: None,
        generation: 3,
        replicas: Some(4),
    });
    model
}

fn deployment(model: &Model) -> Option<i32> {
    match &model.workload {
        Some(Workload::Found { replicas, .. }) => *replicas,
        Some(Workload::Missing(_)) | None => None,
    }
}

/// R18.2
#[test]
fn the_generation_of_the_workload_is_noted() {
    let mut model = migrating("never");
    model.run_ready();
    let noted = model.metadata.annotations.get(labels::WORKLOAD_GENERATION);
    assert_eq!(noted.map(String::as_str), Some("3"));
    assert_eq!(
        model.status.workload_observed_generation.as_deref(),
        Some("3")
    );
    assert_eq!(deployment(&model), Some(4));
}

/// R18.3
#[test]
fn a_deployment_makes_room_for_the_first_revision() {
    let mut model = migrating("onsuccess");
    model.run();
    model.ready("1", 3);
    model.run();
    assert_eq!(deployment(&model), Some(4));
    model.run_ready();
    assert_eq!(deployment(&model), Some(0));

    let mut model = migrating("progressively");
    for (ready, left) in [(0, 4), (1, 3), (3, 1), (2, 2), (4, 0)] {
        model.run();
        model.ready("1", ready);
        model.run();
        assert_eq!(deployment(&model), Some(left), "{ready} ready");
    }
}

#[test]
fn a_second_revision_scales_no_deployment() {
    let mut model = migrating("onsuccess");
    model.run();
    let Some(Workload::Found { template, .. }) = &mut model.workload else {
        panic!("a Deployment");
    };
    template["spec"]["containers"][0]["image"] = json!("nginx:2");
    model.run_ready();
    model.promote();
    model.run_ready();
    assert_eq!((model.phase(), deployment(&model)), ("Healthy", Some(4)));
}

/// A Deployment that was at 0 before stays there.
#[test]
fn pods_that_were_not_taken_away_do_not_come_back() {
    let mut model = migrating("progressively");
    if let Some(Workload::Found { replicas, .. }) = &mut model.workload {
        *replicas = Some(0);
    }
    model.run();
    model.ready("1", 1);
    model.run();
    assert_eq!(deployment(&model), Some(0));
}
