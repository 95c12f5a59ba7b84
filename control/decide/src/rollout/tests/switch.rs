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

#[test]
fn what_is_promoted_is_no_preview_even_without_pods() {
    // R7.11, R14.1: no Service leads to it, since it has no pod.
    let strategy = json!({"previewReplicaCount": 1, "autoPromotionEnabled": false});
    let mut model = Model::blue_green(5, &strategy).deployed();
    model.ready("1", 0);
    lead_astray(&mut model, Some("gone"));
    model.run();
    assert_eq!(model.set("1").wanted, 5);
}

#[test]
fn an_update_that_never_comes_is_aborted_at_its_deadline() {
    // R5.4
    let mut model = Model::blue_green(2, &json!({}));
    model.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(60);
        spec["progressDeadlineAbort"] = json!(true);
    });
    let mut model = model.deployed();
    model.image("2");
    model.run();
    model.wait(62);
    model.run();
    assert!(model.status.abort, "{}", seen(&model));
}

/// Updated and switched, with an analysis after the switch under way.
fn switched() -> Model {
    let mut model = analysed(false, &json!({}));
    update(&mut model, "2");
    assert_eq!((led(&model).as_str(), model.runs.len()), ("V2 V2", 1));
    model
}

#[test]
fn where_nobody_has_pods_nothing_is_switched() {
    // R14.6: there is nobody to go back to.
    let mut model = switched();
    model.ready("1", 0);
    model.ready("2", 0);
    model.run();
    assert_eq!(led(&model), "V2 V2");
}

#[test]
fn where_nothing_is_wanted_nothing_is_switched() {
    // The new revision loses its pods in the turn that takes all of them.
    let mut model = switched();
    model.ready("2", 0);
    model.edit(|spec| spec["replicas"] = json!(0));
    model.turn();
    assert_eq!(led(&model), "V2 V2");
}

#[test]
fn a_run_that_ends_after_the_promotion_judges_nothing() {
    // R11.1: it was told to end, and ends as it will.
    let mut model = switched();
    model.status.promote_full = true;
    model.run();
    assert_eq!(seen(&model), "- Healthy");
    fail(&mut model);
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn a_switch_by_hand_leaves_nothing_to_analyse_before_it() {
    // R14.9: the Service leads to V2 before V2 is whole.
    let after = json!({"postPromotionAnalysis": {"templates": [{"templateName": "good"}]}});
    let mut model = analysed(true, &after);
    model.image("2");
    model.run();
    model.ready("2", 2);
    model.run();
    let hash = model.set("2").hash.clone();
    lead_astray(&mut model, Some(&hash));
    model.run_ready();
    assert_eq!((led(&model).as_str(), model.runs.len()), ("V2 V2", 1));
    assert!(model.runs[0].name.ends_with("-post"));
}

#[test]
fn a_gate_that_is_open_begins_no_analysis() {
    // R14.4: the run is gone, and a paused spec keeps the Service.
    let mut model = analysed(true, &json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    model.runs[0].phase = RunPhase::Successful;
    model.run();
    assert_eq!(seen(&model), PAUSED);
    model.edit(|spec| spec["paused"] = json!(true));
    model.promote();
    model.run();
    assert!(model.status.blue_green.scale_up_preview_check_point);
    model.runs.clear();
    model.run();
    assert_eq!((led(&model).as_str(), model.runs.len()), ("V1 V2", 0));
}

#[test]
fn what_a_service_leads_to_keeps_its_pods() {
    // R7.9: V2 is overtaken while it is active, and stable has no pods to go back to.
    let strategy = json!({"scaleDownDelaySeconds": 0});
    let mut model = analysed(false, &strategy);
    update(&mut model, "2");
    model.ready("1", 0);
    model.image("3");
    model.run();
    assert!(led(&model).starts_with("V2"));
    assert_eq!(model.set("2").wanted, 3);
    model.run_ready();
    assert_eq!(model.set("2").wanted, 0);
}

#[test]
fn a_preview_that_is_overtaken_goes_after_its_service_has_left_it() {
    // R7.9: never in the turn that points the Service elsewhere.
    let strategy = json!({"autoPromotionEnabled": false, "scaleDownDelaySeconds": 0});
    let mut model = Model::blue_green(3, &strategy).deployed();
    update(&mut model, "2");
    model.image("3");
    let is_led = |model: &Model| model.selects("web-preview", "2");
    while is_led(&model) {
        assert!(model.turn());
        assert_eq!(model.set("2").wanted, 3);
    }
    model.run_ready();
    assert_eq!(model.set("2").wanted, 0);
}

#[test]
fn a_revision_in_its_delay_is_looked_at_when_it_is_over() {
    // R7.9: whatever it has in flight until then; it is not to shrink.
    let strategy = json!({"scaleDownDelaySeconds": 500});
    let mut model = routed(&strategy);
    update(&mut model, "2");
    model.in_flight.insert(model.set("1").hash.clone(), 1);
    assert_eq!(seen(&model), "- Healthy");
    assert_eq!(model.decide().again, model.set("1").deadline());
}

#[test]
fn a_revision_in_its_delay_shrinks_behind_the_proxies() {
    // R7.9, control-plane rules, section 4: `spec.replicas` is lowered while a proxy has not left it.
    let mut model = routed(&json!({"scaleDownDelaySeconds": 500}));
    update(&mut model, "2");
    model.in_flight.insert(model.set("1").hash.clone(), 1);
    model.edit(|spec| spec["replicas"] = json!(2));
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (3, 2));
    model.in_flight.clear();
    model.run_ready();
    assert_eq!(model.set("1").wanted, 2);
}

// By our proxies.

/// `{}` in the annotation.
fn ask_for_proxies(model: &mut Model) {
    let annotations = model.rollout.metadata.annotations.get_or_insert_default();
    annotations.insert(labels::PROXY.to_owned(), "{}".to_owned());
}

#[test]
fn a_first_deploy_gets_its_split_with_its_pods() {
    // R8.2
    let mut model = Model::blue_green_routed(3, &json!({}));
    model.run();
    model.ready("1", 2);
    model.run();
    assert!(model.split.is_none());
    model.run_ready();
    assert!(model.split.is_some());
}

#[test]
fn a_split_is_written_whatever_pods_stable_has_lost() {
    // In mid-update, and where one stands already.
    let mut asked = paused(3);
    asked.ready("1", 2);
    ask_for_proxies(&mut asked);
    asked.run();
    assert_eq!(sent(&asked), "web-active V1, web-preview V2");
    let mut edited = routed(&json!({}));
    edited.ready("1", 2);
    let written = edited.split.as_mut().unwrap();
    written.split.rules.truncate(1);
    edited.run();
    assert_eq!(sent(&edited), "web-active V1, web-preview V1");
}

#[test]
fn who_has_no_pods_carries_nothing() {
    // R14.6: V2 is overtaken while it is active, and neither it nor stable has a pod. Then V2 has one.
    for (pods, expected) in [(0, "web-active V1"), (1, "web-active V2")] {
        let mut model = switched();
        ask_for_proxies(&mut model);
        model.run();
        assert!(sent(&model).starts_with("web-active V2"));
        model.image("3");
        model.ready("1", 0);
        model.ready("2", pods);
        model.run();
        assert!(sent(&model).starts_with(expected), "{}", sent(&model));
    }
}

#[test]
fn where_nothing_is_wanted_nobody_is_given_anything() {
    // A Split that is asked for then leads to stable until the new revision is whole again. One that led to it before stays.
    let mut before = switched();
    ask_for_proxies(&mut before);
    before.run();
    before.edit(|spec| spec["replicas"] = json!(0));
    before.run();
    assert_eq!(sent(&before), "web-active V2, web-preview V2");
    let mut model = switched();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    ask_for_proxies(&mut model);
    model.run();
    assert!(sent(&model).starts_with("web-active V1"));
    let waiting = model.memory.waiting.as_ref().unwrap();
    assert!(
        !waiting.message.starts_with("0 available"),
        "{}",
        waiting.message
    );
}

#[test]
fn an_aborted_preview_leaves_the_split_at_its_deadline() {
    // R7.10
    let mut model = routed(&json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    model.status.abort = true;
    model.run();
    assert_eq!(sent(&model), "web-active V1, web-preview V2");
    model.now = model.set("2").deadline().unwrap();
    model.run();
    assert_eq!(sent(&model), "web-active V1, web-preview V1");
}

#[test]
fn what_a_version_needs_is_lowered_and_never_raised() {
    // Control-plane rules, section 3.
    for (replicas, expected) in [(2, 2), (5, 3)] {
        let mut model = routed(&json!({}));
        model.edit(|spec| spec["replicas"] = json!(replicas));
        model.run_ready();
        let versions = &model.split.as_ref().unwrap().split.versions;
        assert_eq!(versions[0].needed, expected, "{replicas} pods");
    }
}

#[test]
fn a_version_without_a_share_is_not_led_to() {
    // Somebody has listed it in the active rule with a weight of 0, and pointed the Service at it before it is whole.
    let mut model = routed(&json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    model.ready("2", 1);
    let hash = model.set("2").hash.clone();
    lead_astray(&mut model, Some(&hash));
    let split = &mut model.split.as_mut().unwrap().split;
    split.rules[0].weights.insert("canary".to_owned(), 0);
    model.run();
    assert_eq!(sent(&model), "web-active V1, web-preview V2");
}

#[test]
fn what_every_proxy_has_served_is_verified_for_good() {
    // R8.5: a proxy that comes later takes nothing back.
    let mut model = routed(&json!({}));
    let verified = model.memory.verified.clone();
    model.prompt = false;
    model.proxies.push("proxy-3".to_owned());
    model.wait(5);
    model.run();
    assert_eq!((seen(&model).as_str(), waiting(&model)), ("- Healthy", ""));
    assert_eq!(model.memory.verified, verified);
}

/// Phases with their messages until it comes to rest.
fn phases(model: &mut Model) -> Vec<String> {
    let mut phases = Vec::new();
    for _ in 0..30 {
        model.turn();
        model.all_ready();
        phases.push(seen(model));
    }
    phases.dedup();
    phases
}

#[test]
fn a_rollback_is_healthy_when_nobody_is_sent_elsewhere() {
    // R2.6, point 7: the Split still leads to V2 in the turns that go back. Where nothing is wanted nobody is sent anywhere; where routing
    // is taken out with the same edit, somebody is until the proxies have followed.
    let pending = "- Progressing traffic cutover pending".to_owned();
    for (replicas, waits) in [(0, false), (3, true)] {
        let mut model = switched();
        ask_for_proxies(&mut model);
        model.run();
        model.edit(|spec| spec["replicas"] = json!(replicas));
        model.run_ready();
        if replicas > 0 {
            model.rollout.metadata.annotations = None;
        } else {
            let split = &mut model.split.as_mut().unwrap().split;
            split.versions[0].revision = model.sets[1].hash.clone();
        }
        model.image("1");
        let phases = phases(&mut model);
        assert_eq!(phases.contains(&pending), waits, "{phases:?}");
        assert_eq!(phases.last().unwrap(), "- Healthy");
    }
}
