//! R2.4: whatever a ReplicaSet is called, the one that the spec asks for is found, and nothing is deployed anew.

use serde_json::{Value, json};

use super::Model;
use crate::api::labels;
use crate::api::split::Memory;
use crate::rollout::hash::Names;

/// Lets every object of the rollout call its first revision by another name.
fn rename(model: &mut Model, name: &str) {
    let ours = model.set("1").hash.clone();
    let renamed = |value: Value| -> Value {
        serde_json::from_str(&value.to_string().replace(&ours, name)).unwrap()
    };
    model.status = serde_json::from_value(renamed(json!(model.status))).unwrap();
    let set = model.sets.iter_mut().find(|set| set.hash == ours).unwrap();
    set.hash = name.to_owned();
    set.name = format!("web-{name}");
    set.template = renamed(set.template.clone());
    for service in &mut model.services {
        if service.hash() == Some(&ours) {
            let label = labels::POD_TEMPLATE_HASH.to_owned();
            service.selector.insert(label, name.to_owned());
        }
    }
    let versions = |written: &mut crate::rollout::observed::WrittenSplit| {
        for version in &mut written.split.versions {
            if version.revision == ours {
                version.revision = name.to_owned();
            }
        }
    };
    model.split.iter_mut().for_each(versions);
    model.serving.values_mut().for_each(versions);
}

/// Another field is edited while nobody looks; then the rollout is where it was, with the same ReplicaSets.
fn check(mut model: Model, name: &str, alter: fn(&mut Value)) {
    rename(&mut model, name);
    let set = model.sets.iter_mut().find(|set| set.hash == name).unwrap();
    alter(&mut set.template);
    let count = model.sets.len();
    let (phase, weights) = (model.phase().to_owned(), model.weights());
    model.edit(|spec| spec["revisionHistoryLimit"] = json!(7));
    model.run_ready();
    assert_eq!(model.sets.len(), count, "{name}");
    assert_eq!(
        (model.phase(), model.weights()),
        (phase.as_str(), weights),
        "{name}"
    );
    assert_eq!(model.status.stable_rs.as_deref(), Some(name));
}

fn steps() -> Value {
    json!([{"setWeight": 25}, {"pause": {}}])
}

/// As the API server of R2.4(c) fills it in.
fn default(template: &mut Value) {
    template["spec"]["restartPolicy"] = json!("Always");
    template["spec"]["containers"][0]["imagePullPolicy"] = json!("IfNotPresent");
}

/// As a webhook does: the template does not say the same any more, only the name tells.
fn disguise(template: &mut Value) {
    template["spec"]["schedulerName"] = json!("theirs");
}

#[test]
fn a_revision_of_argo_before_1_9_is_found_by_its_name() {
    let model = Model::routed(4, &steps()).deployed();
    let before = Names::of(&model.rollout.spec.template).before(None);
    check(model, &before, disguise);
}

/// What Sidestep called this template before it used Argo's hash.
const FORMER: &str = "75f67448f4";

#[test]
fn a_revision_with_any_other_name_is_found_by_its_template() {
    for name in [FORMER, "upstream1"] {
        check(Model::routed(4, &steps()).deployed(), name, default);
        check(Model::basic(4, &steps()).deployed(), name, default);
    }
}

#[test]
fn in_the_middle_of_an_update_nothing_is_deployed_anew() {
    let mut model = Model::routed(4, &steps()).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.phase(), "Paused");
    check(model, FORMER, default);
}

/// A rollout that another controller left Healthy, behind a router of its own: there has never been a Split.
fn left_healthy(mut model: Model) -> Model {
    model.split = None;
    model.serving.clear();
    model.memory = Memory::default();
    if let Some(weights) = &mut model.status.canary.weights {
        weights.verified = None;
    }
    model.prompt = false;
    model
}

#[test]
fn a_healthy_rollout_stays_healthy_while_proxies_take_up_its_first_split() {
    for model in [
        Model::routed(4, &steps()).deployed(),
        Model::blue_green_routed(4, &json!({})).deployed(),
    ] {
        let mut model = left_healthy(model);
        let (conditions, weights) = (model.status.conditions.clone(), model.weights());
        for _ in 0..3 {
            model.turn();
            assert_eq!(model.phase(), "Healthy", "{}", model.message());
        }
        assert!(model.split.is_some(), "the Split is made");
        model.acknowledge();
        model.run_ready();
        assert_eq!(model.status.conditions, conditions);
        assert_eq!(model.weights(), weights);
    }
}

/// R8.7: one that is promoted waits for the proxies as ever.
#[test]
fn a_promotion_behind_a_first_split_is_waited_for() {
    let mut model = left_healthy(Model::routed(4, &steps()).deployed());
    model.image("2");
    model.prompt = true;
    model.run_ready();
    assert_eq!(model.phase(), "Paused");
    model.prompt = false;
    model.promote();
    for _ in 0..12 {
        model.turn();
        assert_ne!(model.phase(), "Healthy", "{}", model.message());
    }
}

/// R13.2, R7.9: what Argo leaves does not tell a revision that was stable from one that was aborted: both carry a deadline.
#[test]
fn a_revision_that_was_left_in_its_delay_has_to_pass_its_gate() {
    let by_person = json!({"autoPromotionEnabled": false, "scaleDownDelaySeconds": 7200});
    let mut model = Model::blue_green(4, &by_person).deployed();
    model.image("2");
    model.run_ready();
    model.promote();
    model.run_ready();
    model.memory = Memory::default();
    let annotations = &model.set("1").annotations;
    assert!(annotations.contains_key(labels::SCALE_DOWN_DEADLINE));

    model.edit(|spec| spec["replicas"] = json!(6));
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (4, 6));
    model.image("1");
    model.run_ready();
    assert_eq!(model.phase(), "Paused", "{}", model.message());
    assert!(model.selects("web-active", "2") && model.selects("web-preview", "1"));
    model.promote();
    model.run_ready();
    assert_eq!(model.phase(), "Healthy", "{}", model.message());
    assert!(model.selects("web-active", "1"));
}
