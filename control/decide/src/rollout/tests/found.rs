//! What the simulation found: each a small scene of what a seed had met.

use serde_json::json;

use super::Model;
use crate::rollout::Action;

fn waits_for(model: &Model) -> String {
    let waiting = model.memory.waiting.as_ref();
    waiting.map_or_else(String::new, |waiting| {
        format!("{}: {}", waiting.reason, waiting.message)
    })
}

fn half() -> serde_json::Value {
    json!([{"setWeight": 50}, {"pause": {}}])
}

#[test]
fn a_promoted_rollout_that_a_person_pauses_comes_to_rest() {
    // Seed 1: Progressing went from RolloutPaused to NewReplicaSetAvailable and back in every look.
    let mut model = Model::routed(3, &half()).deployed();
    model.edit(|spec| spec["paused"] = json!(true));
    model.run();
    assert_eq!(model.message(), "manually paused");
    assert_eq!(
        waits_for(&model),
        "person: a person to resume, since spec.paused is set"
    );
}

#[test]
fn a_deadline_on_an_empty_replica_set_does_not_put_off_the_progress_deadline() {
    // Seed 24: observed point 7 leaves the annotation on an aborted canary for ever.
    let mut model = Model::routed(2, &half()).deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    model.wait(31);
    model.run();
    assert!(model.set("2").wanted == 0 && model.set("2").deadline().is_some());
    model.image("3");
    model.run();
    model.wait(700);
    model.run();
    assert_eq!(model.phase(), "Degraded", "{}", model.message());
}

#[test]
fn a_count_that_is_older_than_a_size_is_not_counted_twice() {
    // Seed 0: the status of a ReplicaSet that was just scaled down still counted its last pods.
    let mut model = Model::basic(8, &half()).deployed();
    model.image("2");
    model.run_ready();
    model.image("3");
    for _ in 0..12 {
        model.turn();
        let name = model.set("2").name.clone();
        let mut stale = model.observed();
        for set in stale.revisions.iter_mut().filter(|set| set.name == name) {
            set.available = set.available.max(4);
        }
        let plan = model.plan().unwrap();
        let decision = crate::rollout::decide(&plan, &model.state(), &stale, model.now);
        let mut sure: i32 = model
            .sets
            .iter()
            .map(|set| set.available.min(set.wanted))
            .sum();
        for action in &decision.actions {
            if let Action::ScaleReplicaSet { name, to, .. } = action {
                let set = model.sets.iter().find(|set| set.name == *name).unwrap();
                sure -= (set.available - to).max(0);
            }
        }
        assert!(
            sure >= 6,
            "25 % of 8 may be missing, not {}: {decision:#?}",
            8 - sure
        );
    }
}

#[test]
fn a_canary_that_its_steps_scale_to_nothing_finishes_its_requests() {
    // Seed 30: it was scaled to 0 with requests in flight, and while its own Service still led to it.
    let steps = json!([{"setWeight": 50}, {"setWeight": 0}, {"pause": {}}]);
    let mut model = Model::routed(4, &steps).deployed();
    model.image("2");
    let hash = |model: &Model| model.set("2").hash.clone();
    model.run();
    model.in_flight.insert(hash(&model), 1);
    model.run_ready();
    assert_eq!(model.weights(), Some((0, 100)));
    assert!(!model.split.as_ref().unwrap().split.lists(&hash(&model)));
    assert_eq!(model.set("2").wanted, 2);
    assert!(
        waits_for(&model).starts_with("drain: 1 requests in flight"),
        "{}",
        waits_for(&model)
    );
    model.in_flight.clear();
    model.run();
    assert_eq!(
        (model.set("2").wanted, model.message()),
        (0, "CanaryPauseStep")
    );
}

#[test]
fn unready_pods_of_an_overtaken_revision_stay_while_a_proxy_serves_it() {
    // Seed 37: they were cut as idle, and were back by the time the cut was done.
    let mut model = Model::routed(4, &half()).deployed();
    model.image("2");
    model.run_ready();
    model.ready("2", 1);
    model.prompt = false;
    model.image("3");
    model.run();
    assert_eq!(model.set("2").wanted, 2);
    model.prompt = true;
    model.acknowledge();
    model.run();
    assert!(model.set("2").wanted < 2);
}

#[test]
fn a_stable_that_loses_its_pods_is_waited_for_by_name() {
    // Seed 1: Progressing, and nothing was named.
    let mut model = Model::basic(4, &json!([])).deployed();
    model.ready("1", 3);
    model.run();
    let name = model.set("1").name.clone();
    assert_eq!(
        waits_for(&model),
        format!("pods: 4 available pods of ReplicaSet \"{name}\"")
    );
    assert!(model.decide().again.is_some());
}

#[test]
fn an_aborted_canary_that_may_not_go_yet_says_so() {
    // Seed 3: without routing, stable too small to let the canary go.
    let mut model = Model::basic(2, &half()).deployed();
    model.image("2");
    model.run_ready();
    model.ready("1", 0);
    model.run();
    model.status.abort = true;
    model.run();
    assert_eq!(model.phase(), "Degraded");
    assert!(model.set("2").wanted > 0);
    assert!(
        waits_for(&model).starts_with("pods: 2 available pods of ReplicaSet"),
        "{}",
        waits_for(&model)
    );
}

#[test]
fn stable_takes_nothing_back_that_it_has_no_pods_for() {
    // Seed 61: the status write of a weight was lost, so that the weight of the step was the one that the status had.
    let mut model = Model::routed(4, &half()).deployed();
    model.image("2");
    model.run_ready();
    let weights = model.status.canary.weights.as_mut().unwrap();
    (weights.canary.weight, weights.stable.weight) = (0, 100);
    model.status.pause_conditions.clear();
    model.status.controller_pause = false;
    model.status.current_step_index = Some(0);
    model.edit(|spec| spec["replicas"] = json!(8));
    model.ready("1", 0);
    model.run();
    assert_eq!(model.weights(), Some((50, 50)));
    assert_eq!(model.split.as_ref().unwrap().generation, 3);
    model.all_ready();
    model.run();
    assert_eq!(model.message(), "CanaryPauseStep");
}

#[test]
fn a_pause_whose_time_is_over_is_not_looked_at_over_and_over() {
    // Seed 146: an inconclusive analysis held the steps after the pause, which asked for a look at a time that was past.
    let steps = json!([{"setWeight": 50}, {"pause": {"duration": "3m"}}, {"setWeight": 60}]);
    let mut model = Model::routed(4, &steps).deployed();
    model.image("2");
    model.run_ready();
    let mut inconclusive = model.status.pause_conditions[0].clone();
    inconclusive.reason = "InconclusiveAnalysisRun".to_owned();
    model.status.pause_conditions.push(inconclusive);
    model.run();
    assert_eq!(waits_for(&model), "pause: the pause of 3m");
    model.wait(181);
    model.run();
    assert_eq!(model.decide().again, None);
    assert_eq!(
        waits_for(&model),
        "person: a person to judge an inconclusive analysis: promote or abort"
    );
    model.promote();
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
}

#[test]
fn a_canary_of_no_replicas_is_not_waited_for_at_the_proxies() {
    // Seed 131: the canary had the one pod of its own scale and stable none, so that no proxy could ever give stable its share.
    let steps = json!([{"setCanaryScale": {"replicas": 1}}, {"setWeight": 50}, {"pause": {}}]);
    let mut model = Model::routed(2, &steps).deployed();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.image("2");
    model.run_ready();
    assert_eq!(model.message(), "CanaryPauseStep");
    model.promote();
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
}

#[test]
fn unready_pods_of_an_overtaken_revision_finish_their_requests() {
    // Seed 107: as soon as no proxy served it any more they were cut, with requests in flight.
    let mut model = Model::routed(4, &half()).deployed();
    model.image("2");
    model.run_ready();
    model.ready("2", 1);
    let hash = model.set("2").hash.clone();
    model.in_flight.insert(hash, 1);
    model.image("3");
    model.run();
    assert_eq!(model.set("2").wanted, 2);
    model.in_flight.clear();
    model.run();
    assert!(model.set("2").wanted < 2);
}

#[test]
fn an_abort_does_not_stop_half_way_at_the_least_pods() {
    // Seed 243: the canary had `minPodsPerReplicaSet`, more than its last weight needed, and was waited for to have fewer.
    let steps = json!([{"setWeight": 10}, {"setWeight": 75}, {"pause": {}}]);
    let mut model = Model::dynamic(3, &steps);
    model.edit(|spec| spec["strategy"]["canary"]["minPodsPerReplicaSet"] = json!(2));
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.weights(), Some((75, 25)));
    model.status.abort = true;
    model.run_ready();
    assert_eq!(model.weights(), Some((0, 100)));
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (3, 0));
}

#[test]
fn nobody_waits_for_waiting() {
    // Seed 146: "waits for waiting for all steps to complete".
    for mut model in [Model::routed(2, &half()), Model::basic(2, &half())] {
        model = model.deployed();
        model.image("2");
        for _ in 0..40 {
            model.turn();
            model.all_ready();
            let waits = waits_for(&model);
            let is_what = !["waiting", "pending", " are ", " need "]
                .iter()
                .any(|word| waits.contains(word));
            assert!(is_what, "{waits}");
            if !model.status.pause_conditions.is_empty() {
                model.promote();
            }
        }
        assert_eq!(model.phase(), "Healthy");
    }
}

#[test]
fn a_canary_that_comes_back_has_no_more_than_its_step() {
    // Seed 564: on a step that lowers the weight it got that of the step before, as far as its pods carried it.
    let steps = json!([{"setWeight": 99}, {"setWeight": 1}, {"pause": {}}]);
    let mut model = Model::routed(2, &steps).deployed();
    model.image("2");
    for _ in 0..20 {
        if model.status.current_step_index != Some(1) {
            model.turn();
            model.all_ready();
        }
    }
    assert_eq!(model.weights(), Some((99, 1)));
    model.ready("2", 0);
    model.turn();
    assert_eq!(model.weights(), Some((0, 100)));
    model.ready("2", 1);
    model.turn();
    assert_eq!(model.weights(), Some((1, 99)));
}

#[test]
fn a_restart_goes_on_while_the_clock_is_behind() {
    // Seed 448: pods that were ready "in future" did not count as available, so that each eviction waited for the clock to get there.
    let mut model = Model::basic(4, &json!([])).deployed();
    model.wait(10);
    model.restart();
    model.wait(10);
    let mut observed = model.observed();
    for pod in observed.pods.iter_mut().flatten() {
        pod.ready_since = Some(model.now + jiff::SignedDuration::from_mins(10));
    }
    let plan = model.plan().unwrap();
    let decision = crate::rollout::decide(&plan, &model.state(), &observed, model.now);
    let mut actions = decision.actions.iter();
    assert!(actions.any(|action| matches!(action, Action::EvictPod { .. })));
}

#[test]
fn stable_grows_for_a_lower_weight_beside_a_canary_that_is_scaled_apart() {
    // Seeds 1407 and 1860: `setCanaryScale` of 100 left stable one pod, and the weight waited for ever for the pods of its 80.
    let steps = json!([{"setWeight": 100}, {"setCanaryScale": {"weight": 100}}, {"setWeight": 20}, {"pause": {}}]);
    let mut model = Model::dynamic(3, &steps).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.message(), "CanaryPauseStep", "{}", waits_for(&model));
    assert_eq!(model.weights(), Some((20, 80)));
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (3, 3));
}

fn previewed(replicas: i32, strategy: &serde_json::Value) -> Model {
    let model = Model::blue_green_routed(replicas, strategy);
    super::traces::with_template(model).deployed()
}

/// With an analysis after the switch.
fn analysed() -> serde_json::Value {
    json!({"postPromotionAnalysis": {"templates": [{"templateName": "good"}]}})
}

/// An update that has switched and is analysed, and the revision it has switched to.
fn switched() -> (Model, String) {
    let mut model = previewed(2, &analysed());
    model.image("2");
    model.run_ready();
    let hash = model.set("2").hash.clone();
    assert_eq!(led(&model), hash);
    (model, hash)
}

/// The revision that the active rule leads to.
fn led(model: &Model) -> String {
    let split = &model.split.as_ref().unwrap().split;
    let (name, _) = split.rules[0].weights.first_key_value().unwrap();
    let mut versions = split.versions.iter();
    let version = versions.find(|version| version.name == *name);
    version.unwrap().revision.clone()
}

#[test]
fn a_preview_of_no_pods_is_not_waited_for_at_the_proxies() {
    // Seed 12 of blue-green: the gate waited for a Split with the preview in it, which one without pods never is.
    let strategy = json!({"previewReplicaCount": 0, "autoPromotionEnabled": false});
    let mut model = previewed(2, &strategy);
    model.image("2");
    model.run_ready();
    assert_eq!(model.message(), "BlueGreenPause", "{}", waits_for(&model));
    model.promote();
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
}

#[test]
fn a_preview_that_shrinks_to_nothing_finishes_its_requests() {
    // Seed 180 of blue-green: with another previewReplicaCount it went at once, while proxies still led the preview to it.
    let mut model = previewed(2, &json!({"autoPromotionEnabled": false}));
    model.image("2");
    model.run_ready();
    let hash = model.set("2").hash.clone();
    model.in_flight.insert(hash.clone(), 1);
    model.edit(|spec| spec["strategy"]["blueGreen"]["previewReplicaCount"] = json!(0));
    model.run();
    assert!(!model.split.as_ref().unwrap().split.lists(&hash));
    assert_eq!(model.set("2").wanted, 2, "{}", waits_for(&model));
    model.in_flight.clear();
    model.run();
    assert_eq!(model.set("2").wanted, 0);
}

#[test]
fn an_overtaken_revision_keeps_the_active_rule_while_stable_has_no_pod() {
    // Seed 157 of blue-green: a third image, after the switch to the second, led the active rule back to a stable without pods.
    let (mut model, hash) = switched();
    model.ready("1", 0);
    model.image("3");
    model.run();
    assert_eq!(led(&model), hash);
    model.ready("3", 2);
    model.run();
    assert!(
        model
            .split
            .as_ref()
            .unwrap()
            .split
            .lists(&model.set("3").hash)
    );
    model.ready("1", 1);
    model.run();
    assert_ne!(led(&model), hash);
}

#[test]
fn replicas_that_come_back_find_no_gate_open() {
    // Seed 1311 of blue-green: an update of nothing was waved through, and still was when replicas were wanted again.
    for mut model in [
        Model::blue_green(2, &json!({"autoPromotionEnabled": false})),
        Model::routed(2, &half()),
    ] {
        model = model.deployed();
        model.edit(|spec| spec["replicas"] = json!(0));
        model.run();
        model.edit(|spec| spec["paused"] = json!(true));
        model.image("2");
        model.run();
        model.edit(|spec| spec["replicas"] = json!(2));
        model.run();
        model.edit(|spec| spec["paused"] = json!(false));
        model.run_ready();
        assert_eq!(model.phase(), "Paused", "{}", model.message());
        model.promote();
        model.run_ready();
        assert_eq!(model.phase(), "Healthy");
    }
}

#[test]
fn an_update_of_nothing_is_promoted_in_the_turn_that_sees_it() {
    // Seed 1311 of blue-green: nothing may change between what is skipped and the promotion.
    for mut model in [
        Model::blue_green(2, &json!({"autoPromotionEnabled": false})),
        Model::routed(2, &half()),
    ] {
        model = model.deployed();
        model.edit(|spec| spec["replicas"] = json!(0));
        model.run();
        model.image("2");
        model.turn();
        model.turn();
        assert_eq!(model.status.stable_rs, model.status.current_pod_hash);
        assert_eq!(
            model.status.stable_rs.as_deref(),
            Some(model.set("2").hash.as_str())
        );
    }
}

#[test]
fn a_stable_without_pods_has_a_service_to_be_listed_by() {
    // Seed 5 of blue-green: promoted without pods and overtaken at once, it was listed in a Split without a Service of its own.
    let mut model = previewed(2, &json!({}));
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    model.image("2");
    model.turn();
    model.turn();
    model.image("3");
    model.edit(|spec| spec["replicas"] = json!(2));
    model.run_ready();
    assert!(model.set("2").has_service);
}

#[test]
fn active_goes_back_from_a_revision_that_has_lost_its_pods() {
    // Seeds 0 and 6 of blue-green: after the switch it led to no pod at all, while stable still had all of its own.
    let after = analysed();
    for mut model in [
        Model::blue_green(2, &after),
        Model::blue_green_routed(2, &after),
    ] {
        model = super::traces::with_template(model).deployed();
        model.image("2");
        model.run_ready();
        assert!(model.selects("web-active", "2"));
        model.ready("2", 0);
        model.run();
        assert!(model.selects("web-active", "1"), "{}", waits_for(&model));
        model.ready("2", 2);
        model.run();
        assert!(model.selects("web-active", "2"), "{}", waits_for(&model));
    }
}

#[test]
fn a_way_back_is_not_healthy_while_the_split_still_leads_away() {
    // Seed 1756: the status write of a weight was lost, and the spec went back to stable: Healthy, with the canary still served.
    let mut model = Model::routed(4, &half());
    model.edit(|spec| spec["strategy"]["canary"]["canaryService"] = json!(null));
    model = model.deployed();
    model.image("2");
    model.run_ready();
    let weights = model.status.canary.weights.as_mut().unwrap();
    (weights.canary.weight, weights.stable.weight) = (0, 100);
    weights.verified = Some(true);
    model.image("1");
    model.turn();
    assert_eq!(model.message(), "traffic cutover pending");
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
}

#[test]
fn a_service_without_a_selector_takes_the_active_rule_nowhere() {
    // Seed 4349 of blue-green: somebody made the active Service anew after the switch, and the rule went back to a stable without pods.
    let (mut model, hash) = switched();
    model.ready("1", 0);
    model.ready("2", 1);
    for service in &mut model.services {
        service
            .selector
            .remove(crate::api::labels::POD_TEMPLATE_HASH);
    }
    model.run();
    assert_eq!(led(&model), hash, "{}", waits_for(&model));
    model.ready("1", 1);
    model.run();
    assert_ne!(led(&model), hash, "{}", waits_for(&model));
}

#[test]
fn a_revision_that_becomes_active_again_has_its_deadline_taken_first() {
    // Seed 4656: the switch was written, the annotation conflicted; led away from at once, it went by the deadline of the time before.
    let strategy = json!({"scaleDownDelaySeconds": 600});
    let deadline = crate::api::labels::SCALE_DOWN_DEADLINE.to_owned();
    for mut model in [
        Model::blue_green(2, &strategy),
        Model::blue_green_routed(2, &strategy),
    ] {
        model = super::traces::with_template(model).deployed();
        model.image("2");
        model.run_ready();
        assert!(model.set("1").deadline().is_some());
        model.image("1");
        for _ in 0..20 {
            let is_taken = model.set("1").deadline().is_none();
            let takes = |action: &Action| matches!(action, Action::AnnotateReplicaSet { remove, .. } if remove.contains(&deadline));
            let switches = |action: &Action| {
                matches!(action, Action::SwitchService { name, .. } if name == "web-active")
                    || matches!(action, Action::WriteSplit(_))
            };
            let mut actions = model.decide().actions.into_iter();
            let first = actions.find(|action| takes(action) || switches(action));
            let is_ahead = first.as_ref().is_none_or(takes);
            assert!(is_taken || is_ahead, "{first:?}");
            model.turn();
            model.all_ready();
        }
        assert_eq!(model.phase(), "Healthy");
    }
}

#[test]
fn a_scale_down_deadline_that_has_passed_puts_off_nothing() {
    // Seed 4593: a canary that was aborted, taken up again while paused, and overtaken: its deadline had passed, and its Service still
    // led to it, waiting for the pods of the next, which never came.
    let mut model = Model::routed(2, &half()).deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    model.edit(|spec| {
        spec["paused"] = json!(true);
        spec["strategy"]["canary"]["steps"][0]["setWeight"] = json!(60);
    });
    model.run();
    assert!(model.selects("web-canary", "2"));
    model.wait(31);
    model.run();
    model.edit(|spec| spec["paused"] = json!(false));
    model.image("3");
    model.run();
    let overtaken = model.set("2");
    let deadline = overtaken.deadline();
    assert!(overtaken.wanted > 0 && deadline.is_some_and(|at| at < model.now));
    assert_eq!(model.phase(), "Progressing");
    model.wait(700);
    model.run();
    assert_eq!(model.phase(), "Degraded", "{}", waits_for(&model));
}

#[test]
fn a_scale_down_deadline_that_is_ahead_puts_off_the_progress_deadline() {
    // R5.3: seconds until the overtaken revision goes, its pods → phase 700 s after the last progress
    for (seconds, pods, expected) in [
        (1, 1, "Progressing"),
        (1, 0, "Degraded"),
        (0, 1, "Degraded"),
    ] {
        let mut model = Model::routed(2, &half()).deployed();
        model.image("2");
        model.run_ready();
        model.image("3");
        model.prompt = false;
        model.run();
        let name = model.set("2").name.clone();
        let mut sets = model.sets.iter_mut();
        let overtaken = sets.find(|set| set.name == name).unwrap();
        assert_eq!(overtaken.wanted, 1);
        (overtaken.wanted, overtaken.pods) = (pods, pods);
        model.run();
        model.wait(700);
        let at = model.now + jiff::SignedDuration::from_secs(seconds);
        let at = jiff::Timestamp::from_second(at.as_second()).unwrap();
        model.now = at - jiff::SignedDuration::from_secs(seconds);
        let mut sets = model.sets.iter_mut();
        let overtaken = sets.find(|set| set.name == name).unwrap();
        let key = crate::api::labels::SCALE_DOWN_DEADLINE.to_owned();
        overtaken.annotations.insert(key, at.to_string());
        let phase = model.decide().status.phase;
        assert_eq!(phase.as_deref(), Some(expected), "{seconds} {pods}");
    }
}

#[test]
fn a_service_and_the_split_lead_to_one_revision_where_nothing_is_wanted() {
    // Scaled to 0 after the switch, the active rule went back to stable while the Service stayed; the first pods of stable then answered.
    let (mut model, hash) = switched();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    assert!(model.selects("web-active", "2"), "{}", waits_for(&model));
    assert_eq!(led(&model), hash, "{}", waits_for(&model));
    model.edit(|spec| spec["replicas"] = json!(2));
    model.run();
    model.ready("2", 1);
    model.run();
    assert_eq!(led(&model), hash, "{}", waits_for(&model));
    model.all_ready();
    model.run();
    assert!(model.selects("web-active", "2"), "{}", waits_for(&model));
    assert_eq!(led(&model), hash, "{}", waits_for(&model));
}
