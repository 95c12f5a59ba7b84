//! Edges of a blue-green switch: what must not open the gate, what must not close it, and who keeps the requests meanwhile.

use serde_json::{Value, json};

use super::Model;
use super::bluegreen::{PAUSED, analysed, fail, led, paused, routed, sent, update, waiting};
use super::traces::seen;
use crate::api::labels;
use crate::rollout::decision::Action;
use crate::rollout::observed::RunPhase;

/// The active Service leads nowhere (none) or to a revision of that hash.
fn lead_astray(model: &mut Model, hash: Option<&str>) {
    let mut services = model.services.iter_mut();
    let active = services.find(|service| service.name == "web-active");
    let selector = &mut active.unwrap().selector;
    selector.remove(labels::POD_TEMPLATE_HASH);
    selector.extend(hash.map(|hash| (labels::POD_TEMPLATE_HASH.to_owned(), hash.to_owned())));
}

#[test]
fn a_selector_that_is_lost_opens_no_gate() {
    // R14.3: a Service without a hash is a first deploy only where stable is not there.
    let mut model = paused(3);
    lead_astray(&mut model, None);
    model.run();
    assert_eq!(
        (seen(&model).as_str(), led(&model).as_str()),
        (PAUSED, "V1 V2")
    );
}

#[test]
fn what_is_promoted_is_no_preview() {
    // R7.11: whatever its Service leads to.
    let strategy = json!({"previewReplicaCount": 1, "autoPromotionEnabled": false});
    let mut model = Model::blue_green(5, &strategy).deployed();
    lead_astray(&mut model, Some("gone"));
    let before = model.set("1").wanted;
    model.run();
    assert_eq!((before, model.set("1").wanted), (5, 5));
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn a_service_led_astray_takes_any_pod() {
    // R14.5: of three pods so many are there → where the active Service leads.
    for (pods, expected) in [(0, "- V1"), (1, "V1 V1"), (3, "V1 V1")] {
        let mut model = Model::blue_green(3, &json!({})).deployed();
        model.ready("1", pods);
        lead_astray(&mut model, Some("gone"));
        model.run();
        assert_eq!(led(&model), expected, "{pods} pods");
    }
}

#[test]
fn a_paused_spec_switches_no_service() {
    // R10.2
    let mut model = paused(2);
    model.edit(|spec| spec["paused"] = json!(true));
    lead_astray(&mut model, Some("gone"));
    model.run();
    assert_eq!(led(&model), "- V2");
    let mut first = Model::blue_green(2, &json!({}));
    first.edit(|spec| spec["paused"] = json!(true));
    first.run();
    assert_eq!(waiting(&first), "person", "and not for pods");
}

#[test]
fn an_automatic_pause_is_over_after_its_time_and_not_at_it() {
    // R14.3, as R10.1
    let mut model = Model::blue_green(2, &json!({"autoPromotionSeconds": 3})).deployed();
    update(&mut model, "2");
    model.now = model.status.pause_conditions[0].start_time.0;
    model.wait(3);
    model.run();
    assert_eq!(seen(&model), PAUSED);
}

#[test]
fn an_abort_does_not_take_the_last_pods_that_answer() {
    // R14.6: stable has lost all of its pods since the switch.
    for proxied in [false, true] {
        let mut model = analysed(false, &json!({}));
        if proxied {
            let annotations = model.rollout.metadata.annotations.get_or_insert_default();
            annotations.insert(labels::PROXY.to_owned(), "{}".to_owned());
            model.run();
        }
        update(&mut model, "2");
        model.ready("1", 0);
        fail(&mut model);
        model.run();
        assert_eq!(led(&model), "V2 V2");
        let expected = format!("available pods of ReplicaSet \"{}\"", model.set("1").name);
        assert_eq!(model.memory.waiting.as_ref().unwrap().message, expected);
        if proxied {
            assert!(sent(&model).starts_with("web-active V2"));
        }
        model.ready("1", 1);
        model.run();
        assert!(led(&model).starts_with("V1"));
    }
}

#[test]
fn a_paused_spec_makes_nothing_stable() {
    // R10.2: the analysis after the switch is good, but the update stands still.
    let mut model = analysed(false, &json!({}));
    update(&mut model, "2");
    model.edit(|spec| spec["paused"] = json!(true));
    model.runs[0].phase = RunPhase::Successful;
    model.run();
    assert_eq!(model.status.stable_rs.as_ref(), Some(&model.set("1").hash));
    model.edit(|spec| spec["paused"] = json!(false));
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn a_full_promotion_asks_no_analysis() {
    // R11.1: the verdict comes in the turn that promotes.
    let mut model = analysed(true, &json!({}));
    update(&mut model, "2");
    model.status.promote_full = true;
    fail(&mut model);
    model.run();
    assert_eq!(seen(&model), "- Healthy");
    assert!(model.selects("web-active", "2"));
}

#[test]
fn the_analysis_after_the_switch_is_begun_after_it() {
    // R14.7, R8.5: after the Service, and after every proxy.
    let mut model = analysed(false, &json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    assert_eq!((seen(&model).as_str(), model.runs.len()), (PAUSED, 0));
    let annotations = model.rollout.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::PROXY.to_owned(), "{}".to_owned());
    model.run_ready();
    model.prompt = false;
    model.promote();
    model.run();
    assert_eq!((led(&model).as_str(), model.runs.len()), ("V2 V2", 0));
    model.prompt = true;
    model.acknowledge();
    model.run();
    assert_eq!(model.runs.len(), 1);
}

#[test]
fn counts_are_those_of_the_active_revision() {
    // R2.4: both have all of their pods.
    let model = paused(3);
    let status = &model.status;
    assert_eq!((status.replicas, status.available_replicas), (6, 3));
    assert_eq!((status.ready_replicas, status.hpa_replicas), (3, 3));
    assert!(
        status
            .selector
            .as_ref()
            .unwrap()
            .contains(&model.set("1").hash)
    );
}

#[test]
fn a_preview_of_nothing_is_nothing() {
    // R7.11 with `spec.replicas` of 0
    let strategy = json!({"previewReplicaCount": 1, "autoPromotionEnabled": false});
    let mut model = Model::blue_green(3, &strategy).deployed();
    update(&mut model, "2");
    assert_eq!(model.set("2").wanted, 1);
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run_ready();
    assert_eq!(model.set("2").wanted, 0);
}

/// Turns until nothing is written, and every write that notes a deadline.
fn deadlines(model: &mut Model) -> Vec<String> {
    let mut noted = Vec::new();
    for _ in 0..30 {
        for action in model.decide().actions {
            if let Action::AnnotateReplicaSet { name, set, .. } = action
                && set.contains_key(labels::SCALE_DOWN_DEADLINE)
            {
                noted.push(name);
            }
        }
        model.turn();
        model.all_ready();
    }
    noted
}

#[test]
fn what_is_not_to_wait_gets_no_deadline() {
    // R7.9: strategy → old revisions that get one
    let check = |strategy: &Value, tags: &[&str]| {
        let mut model = Model::blue_green(2, strategy).deployed();
        model.image("2");
        let mut noted = deadlines(&mut model);
        model.image("3");
        noted.extend(deadlines(&mut model));
        let names: Vec<&str> = tags
            .iter()
            .map(|tag| model.set(tag).name.as_str())
            .collect();
        assert_eq!(noted, names, "{strategy}");
    };
    check(&json!({}), &["1", "2"]);
    check(&json!({"scaleDownDelayRevisionLimit": 0}), &[]);
    check(&json!({"scaleDownDelaySeconds": 0}), &[]);
}

#[test]
fn an_old_revision_goes_at_its_deadline() {
    // R7.9
    let mut model = Model::blue_green(2, &json!({})).deployed();
    update(&mut model, "2");
    model.now = model.set("1").deadline().unwrap();
    model.run();
    assert_eq!(model.set("1").wanted, 0);
}

#[test]
fn a_revision_in_its_delay_follows_the_spec() {
    // R7.9: it was stable, and the way back is to stay fast.
    for replicas in [2, 4] {
        let mut model = Model::blue_green(3, &json!({})).deployed();
        update(&mut model, "2");
        model.edit(|spec| spec["replicas"] = json!(replicas));
        model.run_ready();
        assert_eq!(model.set("1").wanted, replicas);
        assert!(model.set("1").deadline().is_some());
    }
}

#[test]
fn a_rollback_is_not_healthy_before_every_proxy_has_it() {
    // R2.6, point 7: the preview still leads to V2.
    let mut model = routed(&json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    model.prompt = false;
    model.image("1");
    model.run();
    assert_eq!(seen(&model), "- Progressing traffic cutover pending");
    model.prompt = true;
    model.acknowledge();
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}
