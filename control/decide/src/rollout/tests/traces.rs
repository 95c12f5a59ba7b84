//! Canaries at the level of decisions, with pods that become ready when told: what Argo's recordings (`sim/replay`) do not show.

use serde_json::json;

use super::Model;
use crate::rollout::observed::{Failure, RunPhase};

/// Events since the last call, the revisions' hashes replaced by their image tags.
pub(super) fn told(model: &mut Model) -> Vec<String> {
    let mut events = model.take_events();
    for event in &mut events {
        for set in &model.sets {
            let tag = &set.template["spec"]["containers"][0]["image"];
            let tag = tag.as_str().unwrap().replace("nginx:", "V");
            *event = event.replace(&set.name, &tag).replace(&set.hash, &tag);
        }
    }
    events
}

/// Only what was scaled: `V1 10-8`.
pub(super) fn scaled(model: &mut Model) -> Vec<String> {
    let events = told(model);
    let scaling = events
        .iter()
        .filter_map(|event| event.split_once("ReplicaSet: Scaled "));
    let words = scaling.map(|(_, text)| {
        let words: Vec<&str> = text.split(' ').collect();
        format!("{} {}-{}", words[2], words[6], words[8])
    });
    words.collect()
}

pub(super) fn reasons(model: &mut Model) -> Vec<String> {
    let events = told(model);
    events
        .iter()
        .map(|event| {
            event
                .split(' ')
                .nth(1)
                .unwrap()
                .trim_end_matches(':')
                .to_owned()
        })
        .collect()
}

pub(super) fn seen(model: &Model) -> String {
    let index = model
        .status
        .current_step_index
        .map_or_else(|| "-".to_owned(), |index| index.to_string());
    format!("{index} {} {}", model.phase(), model.message())
        .trim_end()
        .to_owned()
}

pub(super) fn pause_at(weights: &[i32]) -> serde_json::Value {
    weights
        .iter()
        .flat_map(|weight| [json!({"setWeight": weight}), json!({"pause": {}})])
        .collect()
}

pub(super) const ABORTED: &str = "0 Degraded RolloutAborted: Rollout aborted update to revision 2";

#[test]
fn an_abort_is_remembered_with_its_step() {
    let mut model = Model::basic(10, &pause_at(&[20, 50])).deployed();
    model.image("2");
    model.run_ready();
    model.promote();
    model.run_ready();
    assert_eq!(seen(&model), "3 Paused CanaryPauseStep");
    model.status.abort = true;
    model.turn();
    assert_eq!(seen(&model), ABORTED);
    let last = model.memory.last_abort.as_ref().unwrap();
    assert_eq!(
        (last.step, last.reason.as_str()),
        (Some(3), "aborted by a person")
    );
    model.status.abort = false;
    model.run_ready();
    assert!(model.memory.last_abort.is_some(), "and after a retry");
}

#[test]
fn a_pause_ends_with_its_last_second() {
    // R10.1: startTime has whole seconds.
    let steps = json!([{"setWeight": 20}, {"pause": {"duration": "3"}}, {"setWeight": 60}]);
    let mut model = Model::basic(2, &steps).deployed();
    model.image("2");
    model.run_ready();
    let again = model.decide().again.unwrap();
    assert_eq!(again.to_string(), "2026-01-01T00:00:03Z");
    model.wait(2);
    model.run();
    assert_eq!(seen(&model), "1 Paused CanaryPauseStep");
    model.wait(1);
    model.turn();
    assert_eq!(model.status.current_step_index, Some(2));
}

#[test]
fn a_progress_deadline_is_looked_at_when_it_has_passed() {
    let mut model = Model::basic(4, &json!([])).deployed();
    model.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(4);
        spec["progressDeadlineAbort"] = json!(true);
    });
    model.run();
    model.image("none");
    model.run();
    let again = model.decide().again.unwrap();
    assert_eq!(again.to_string(), "2026-01-01T00:00:05Z");
    model.wait(5);
    model.turn();
    assert!(
        seen(&model).starts_with("- Degraded RolloutAborted"),
        "{}",
        seen(&model)
    );
}

#[test]
fn progress_deadline_without_abort() {
    let mut model = Model::basic(4, &pause_at(&[50])).deployed();
    model.edit(|spec| spec["progressDeadlineSeconds"] = json!(4));
    model.run();
    model.image("none");
    model.run();
    model.wait(5);
    model.run();
    assert!(
        seen(&model).starts_with("0 Degraded ProgressDeadlineExceeded: ReplicaSet"),
        "{}",
        seen(&model)
    );
    model.all_ready(); // it keeps trying
    model.run();
    assert_eq!(seen(&model), "1 Paused CanaryPauseStep");
    model.wait(1000);
    model.run();
    assert_eq!(
        seen(&model),
        "1 Paused CanaryPauseStep",
        "a pause is no lack of progress"
    );
}

#[test]
fn a_revision_that_comes_back_keeps_its_old_number() {
    // R1.3
    let mut model = Model::basic(2, &json!([{"setWeight": 50}])).deployed();
    model.image("none");
    model.run();
    model.image("1");
    model.turn();
    assert_eq!(
        model.set("1").annotations["rollout.argoproj.io/revision-history"],
        "1"
    );
    model.run();
    assert_eq!(model.metadata.revision(), Some(3));
}

#[test]
fn an_aborted_canary_has_a_deadline_until_a_retry() {
    // R7.10, R11.3
    let mut model = Model::routed(10, &pause_at(&[60])).deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    assert_eq!(
        model.set("2").deadline().unwrap().to_string(),
        "2026-01-01T00:00:30Z"
    );
    model.status.abort = false;
    model.run();
    assert_eq!(model.set("2").deadline(), None);
}

#[test]
fn aborted_canary_goes_after_its_delay() {
    let mut model = Model::routed(10, &pause_at(&[20])).deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    model.in_flight.insert(model.set("2").hash.clone(), 3);
    model.wait(31);
    model.run();
    assert_eq!(model.set("2").wanted, 2, "it still has requests");
    assert_eq!(model.memory.waiting.as_ref().unwrap().reason, "drain");
    model.in_flight.clear();
    model.run();
    assert_eq!(model.set("2").wanted, 0);
    assert!(model.set("2").deadline().is_some(), "observed point 7");
}

#[test]
fn a_broken_third_revision_runs_into_its_deadline() {
    // Long after the end of the recording routed-v1-v2-broken-v3: V2 stays up, since the canary Service cannot leave it.
    let mut model = Model::routed(5, &pause_at(&[40])).deployed();
    model.image("2");
    model.run_ready();
    model.image("none");
    model.run();
    assert_eq!(model.memory.waiting.as_ref().unwrap().reason, "pods");
    model.wait(601);
    model.run();
    assert!(
        seen(&model).starts_with("0 Degraded ProgressDeadlineExceeded"),
        "{}",
        seen(&model)
    );
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((0, 100)), 2)
    );
    assert!(model.selects("web-canary", "2"));
}

#[test]
fn lower_weight_comes_before_smaller_size() {
    // Observed point 9, not copied.
    let mut model = Model::routed(4, &pause_at(&[100, 0])).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.weights(), Some((100, 0)));
    model.prompt = false;
    model.promote();
    model.run();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((0, 100)), 4)
    );
    assert_eq!(
        seen(&model),
        "2 Progressing waiting for all steps to complete"
    );
    let waiting = model.memory.waiting.clone().unwrap();
    assert_eq!(waiting.reason, "acknowledgement");
    assert!(
        waiting.message.contains("proxy-1, proxy-2"),
        "{}",
        waiting.message
    );
    model.acknowledge();
    model.prompt = true;
    model.run();
    assert_eq!(
        (seen(&model).as_str(), model.set("2").wanted),
        ("3 Paused CanaryPauseStep", 0)
    );
}

#[test]
fn a_weight_never_leads_its_pods() {
    // R8.6, with the acknowledgement as a pass of its own.
    let mut model = Model::routed(10, &pause_at(&[20, 40])).deployed();
    model.image("2");
    model.run_ready();
    model.promote();
    model.run();
    assert_eq!(
        (
            model.weights(),
            model.set("2").wanted,
            seen(&model).as_str()
        ),
        (
            Some((20, 80)),
            4,
            "2 Progressing more replicas need to be updated"
        )
    );
    model.ready("2", 3);
    model.run();
    assert_eq!(model.weights(), Some((20, 80)));
    model.ready("2", 4);
    model.turn();
    assert_eq!(
        (model.weights(), model.status.current_step_index),
        (Some((40, 60)), Some(2))
    );
    model.turn();
    assert_eq!(model.status.current_step_index, Some(3));
    model.status.abort = true;
    model.turn();
    assert_eq!(model.weights(), Some((0, 100)), "the way down is at once");
}

#[test]
fn promote_full_after_an_abort() {
    let mut model = Model::routed(5, &pause_at(&[20])).deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    model.status.promote_full = true;
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy"); // R11.1
}

#[test]
fn a_rollout_without_proxies_says_so() {
    let mut model = Model::routed(10, &pause_at(&[20])).deployed();
    model.proxies.clear();
    model.image("2");
    model.run_ready();
    assert_eq!(
        seen(&model),
        "0 Progressing more replicas need to be updated"
    );
    let waiting = model.memory.waiting.clone().unwrap();
    assert_eq!(waiting.reason, "acknowledgement");
    assert!(
        waiting.message.contains("none is there"),
        "{}",
        waiting.message
    );
    model.status.abort = true; // an abort waits for nobody
    model.turn();
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        (ABORTED, Some((0, 100)))
    );
}

#[test]
fn old_stable_waits_for_the_last_proxy_whatever_the_time() {
    let mut model = Model::routed(5, &json!([{"setWeight": 50}])).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(seen(&model), "1 Healthy");
    model.proxies.push("proxy-3".to_owned());
    model.prompt = false;
    model.memory.left.clear();
    model.wait(10_000);
    model.run();
    assert_eq!(model.set("1").wanted, 5);
    let waiting = model.memory.waiting.clone().unwrap();
    assert!(waiting.message.contains("proxy-3"), "{}", waiting.message);
    assert_eq!(
        seen(&model),
        "1 Healthy",
        "clearing up is no lack of progress"
    );
    model.prompt = true;
    model.acknowledge();
    model.run();
    assert_eq!(model.set("1").wanted, 0);
}

#[test]
fn drain_has_a_limit() {
    let mut model = Model::routed(5, &json!([{"setWeight": 50}])).deployed();
    model.image("2");
    model.run_ready();
    model.in_flight.insert(model.set("1").hash.clone(), 1);
    model.wait(299);
    model.run();
    assert_eq!(model.set("1").wanted, 5);
    model.wait(2);
    model.run();
    assert_eq!(model.set("1").wanted, 0);
}

#[test]
fn drain_has_the_limit_that_is_asked_for() {
    let mut model = Model::routed(5, &json!([{"setWeight": 50}]));
    ours(&mut model, json!({"drainTimeout": "60s"}));
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model.in_flight.insert(model.set("1").hash.clone(), 1);
    model.wait(59);
    model.run();
    assert_eq!(model.set("1").wanted, 5);
    model.wait(2);
    model.run();
    assert_eq!(model.set("1").wanted, 0);
}

#[test]
fn another_fleet_has_to_acknowledge_anew() {
    let mut model = Model::routed(5, &pause_at(&[20])).deployed();
    model.image("2");
    model.run_ready();
    let verified = |model: &Model| model.status.canary.weights.as_ref().unwrap().verified;
    assert_eq!(verified(&model), Some(true));
    model.prompt = false;
    ours(&mut model, json!({"fleet": "edge"}));
    model.run();
    let written = model.split.clone().unwrap();
    assert_eq!(written.split.fleet.as_deref(), Some("edge"));
    assert_eq!(
        (verified(&model), model.weights()),
        (Some(false), Some((20, 80)))
    );
    model.prompt = true;
    model.acknowledge();
    model.run();
    assert_eq!(verified(&model), Some(true));
}

/// Writes our routing block.
fn ours(model: &mut Model, block: serde_json::Value) {
    model.edit(|spec| {
        spec["strategy"]["canary"]["trafficRouting"]["plugins"]["sidestep/proxy"] = block;
    });
}

#[test]
fn a_split_edited_by_hand_is_restored() {
    let mut model = Model::routed(5, &pause_at(&[20])).deployed();
    model.image("2");
    model.run_ready();
    let split = model.split.clone().unwrap().split;
    model.split.as_mut().unwrap().split.rules[0]
        .weights
        .insert("canary".to_owned(), 99);
    model.run();
    assert_eq!(model.split.clone().unwrap().split, split);
}

#[test]
fn needed_is_lowered_by_scaling_and_never_raised() {
    let mut model = Model::routed(10, &pause_at(&[50])).deployed();
    model.image("2");
    model.run_ready();
    let needed = |model: &Model| -> Vec<u32> {
        model
            .split
            .as_ref()
            .unwrap()
            .split
            .versions
            .iter()
            .map(|version| version.needed)
            .collect()
    };
    assert_eq!(needed(&model), [10, 5]);
    model.edit(|spec| spec["replicas"] = json!(20));
    model.run_ready();
    assert_eq!((needed(&model), model.set("2").wanted), (vec![10, 5], 10));
    model.edit(|spec| spec["replicas"] = json!(4));
    model.prompt = false;
    model.run_ready();
    assert_eq!(
        (needed(&model), model.set("1").wanted),
        (vec![4, 2], 20),
        "needs first, then sizes"
    );
    model.prompt = true;
    model.acknowledge();
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (4, 2));
    assert_eq!(
        model.status.canary.weights.as_ref().unwrap().verified,
        Some(true),
        "latched"
    );
}

#[test]
fn set_canary_scale_stands_apart_from_the_weight() {
    let steps = json!([
        {"setCanaryScale": {"replicas": 3}}, {"pause": {}}, {"setWeight": 50}, {"pause": {}},
        {"setCanaryScale": {"matchTrafficWeight": true}}, {"pause": {}},
    ]);
    let mut model = Model::routed(10, &steps).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((0, 100)), 3)
    );
    model.promote();
    model.run_ready();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((50, 50)), 3)
    );
    model.promote();
    model.run_ready();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((50, 50)), 5)
    );
    let told = told(&mut model).join("\n");
    assert!(
        told.contains("completed (setCanaryScale{replicas: 3})"),
        "{told}"
    );
    assert!(
        told.contains("completed (setCanaryScale{matchTrafficWeight: true})"),
        "{told}"
    );
}

#[test]
fn without_steps_all_goes_at_once_when_all_is_there() {
    let mut model = Model::routed(4, &json!([])).deployed();
    model.image("2");
    model.run();
    model.ready("2", 3);
    model.run();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((0, 100)), 4)
    ); // R8.1 g
    model.ready("2", 4);
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn a_lost_canary_pod_does_not_move_the_weight_back() {
    let mut model = Model::routed(10, &pause_at(&[20])).deployed();
    model.image("2");
    model.run_ready();
    model.ready("2", 1);
    model.run();
    assert_eq!(
        model.weights(),
        Some((20, 80)),
        "the proxies' effective share follows"
    );
    model.ready("2", 0);
    model.run();
    assert_eq!(model.weights(), Some((0, 100))); // R8.1 d
    model.ready("2", 1);
    model.run();
    assert_eq!(model.weights(), Some((10, 90)), "never ahead of the pods");
    model.ready("2", 2);
    model.run();
    assert_eq!(model.weights(), Some((20, 80)));
}

#[test]
fn replicas_are_filled_in_and_may_be_none() {
    let mut model = Model::basic(1, &json!([]));
    model.edit(|spec| spec["replicas"] = json!(null));
    model.run();
    assert_eq!(model.rollout.spec.replicas, Some(1));
    let mut model = Model::routed(0, &pause_at(&[20]));
    model.run();
    assert_eq!(seen(&model), "2 Healthy");
    told(&mut model);
    model.image("2");
    model.run();
    assert_eq!(seen(&model), "2 Healthy", "there is nothing to try");
    let told = told(&mut model).join("\n");
    assert!(told.contains("SkipSteps: No replicas are wanted"), "{told}");
}

#[test]
fn replicas_taken_away_in_mid_update_promote_nothing() {
    let mut model = Model::routed(4, &pause_at(&[50])).deployed();
    model.image("2");
    model.run_ready();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run_ready();
    assert_eq!(seen(&model), "1 Paused CanaryPauseStep");
    model.edit(|spec| spec["replicas"] = json!(4));
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        ("1 Paused CanaryPauseStep", Some((50, 50)))
    );
}

#[test]
fn template_and_replicas_in_one_edit() {
    // Observed point 11, not copied: the new revision begins at its weight.
    let mut model = Model::basic(2, &pause_at(&[20])).deployed();
    model.edit(|spec| {
        spec["replicas"] = json!(3);
        spec["template"]["spec"]["containers"][0]["image"] = json!("nginx:2");
    });
    model.run_ready();
    assert_eq!(seen(&model), "1 Paused CanaryPauseStep");
    let scaled = scaled(&mut model);
    let mut ups = scaled.iter().filter(|text| text.starts_with("V2"));
    assert_eq!(
        (ups.next().map(String::as_str), ups.next()),
        (Some("V2 0-1"), None),
        "{scaled:?}"
    );
}

#[test]
fn user_pause_stops_steps_but_not_scaling() {
    // R10.2
    let mut model = Model::routed(4, &json!([{"setWeight": 25}, {"setWeight": 50}])).deployed();
    model.image("2");
    model.run();
    model.edit(|spec| spec["paused"] = json!(true));
    model.run_ready();
    assert_eq!(seen(&model), "0 Paused manually paused");
    model.edit(|spec| spec["replicas"] = json!(8));
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (8, 2));
    assert_eq!(seen(&model), "0 Paused manually paused");
    model.edit(|spec| spec["paused"] = json!(false));
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy");
}

#[test]
fn an_autoscaler_sees_all_pods_and_is_followed() {
    // R24.1, R24.2, in mid-update and after an abort.
    let mut model = Model::routed(4, &pause_at(&[50])).deployed();
    assert_eq!(model.status.selector.as_deref(), Some("app=web"));
    model.image("2");
    model.run_ready();
    assert_eq!(model.status.hpa_replicas, 6);
    model.edit(|spec| spec["replicas"] = json!(8));
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (8, 4));
    assert_eq!(
        (model.status.hpa_replicas, model.weights()),
        (12, Some((50, 50)))
    );
    model.status.abort = true;
    model.run_ready();
    model.edit(|spec| spec["replicas"] = json!(6));
    model.run_ready();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (6, 4));
    assert_eq!(
        model.set("2").desired(),
        Some(6),
        "or every look would be a scaling"
    );
}

#[test]
fn a_threshold_is_enough_for_a_step_and_for_the_promotion() {
    // R7.7, R12.3
    let mut model = Model::routed(10, &json!([{"setWeight": 50}]));
    model.edit(|spec| {
        spec["strategy"]["canary"]["replicaProgressThreshold"] =
            json!({"type": "Percent", "value": 80});
    });
    let mut model = model.deployed();
    model.image("2");
    model.run();
    model.ready("2", 3);
    model.run();
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        (
            "0 Progressing more replicas need to be updated",
            Some((0, 100))
        )
    );
    model.ready("2", 4);
    model.run();
    assert_eq!(model.weights(), Some((50, 50)));
    model.ready("2", 8);
    model.run();
    assert_eq!(model.status.stable_rs, model.status.current_pod_hash);
}

#[test]
fn history_is_limited() {
    let mut model = Model::basic(1, &json!([]));
    model.edit(|spec| spec["revisionHistoryLimit"] = json!(2));
    for tag in ["1", "2", "3", "4", "5", "6"] {
        model.image(tag);
        model.wait(1);
        model.run_ready();
    }
    let kept: Vec<i64> = model.sets.iter().filter_map(|set| set.number()).collect();
    assert_eq!(kept, [4, 5, 6]); // R7.12
}

#[test]
fn a_taken_name_gets_another() {
    // R2.5
    let mut model = Model::basic(1, &json!([]));
    let plan = model.plan().unwrap();
    let mut observed = model.observed();
    let first = crate::rollout::decide(&plan, &model.state(), &observed, model.now);
    let crate::rollout::Action::CreateReplicaSet(new) = &first.actions[0] else {
        panic!("{:?}", first.actions);
    };
    observed.taken.push(new.name.clone());
    let second = crate::rollout::decide(&plan, &model.state(), &observed, model.now);
    assert_eq!(
        (second.actions.len(), second.status.collision_count),
        (0, Some(1))
    );
    model.status = second.status;
    model.run();
    assert_ne!(model.sets[0].name, new.name);
}

#[test]
fn revisions_of_another_controller_are_taken_over() {
    let mut model = Model::routed(4, &pause_at(&[25])).deployed();
    // As Argo left it: its own hashes everywhere.
    let ours = model.set("1").hash.clone();
    let text = |value: &serde_json::Value| value.to_string().replace(&ours, "argo5f9c");
    let status = serde_json::to_value(&model.status).unwrap();
    model.status = serde_json::from_str(&text(&status)).unwrap();
    model.status.current_step_hash = Some("theirs".to_owned());
    model.sets[0].hash = "argo5f9c".to_owned();
    model.sets[0].template["spec"]["schedulerName"] = json!("changed by a webhook");
    for service in &mut model.services {
        service.selector.insert(
            "rollouts-pod-template-hash".to_owned(),
            "argo5f9c".to_owned(),
        );
    }
    model.split = None;
    model.run();
    assert_eq!(
        (seen(&model), model.sets.len()),
        ("2 Healthy".to_owned(), 1)
    );
    model.edit(|spec| spec["replicas"] = json!(5)); // a new generation: the status alone would not do any more
    model.run_ready();
    assert_eq!(
        (seen(&model), model.sets.len()),
        ("2 Healthy".to_owned(), 1)
    );
}

#[test]
fn a_template_changed_while_the_spec_was_invalid_is_not_taken_for_the_old_one() {
    let mut model = Model::routed(2, &pause_at(&[50])).deployed();
    model.image("2");
    let services = std::mem::take(&mut model.services);
    model.run();
    assert_eq!(
        seen(&model),
        "2 Degraded InvalidSpec: The Rollout \"web\" is invalid: spec.strategy.canary.stableService: Invalid value: \"web-stable\": service \"web-stable\" not found"
    );
    assert_eq!(model.sets.len(), 1);
    model.services = services;
    model.run_ready();
    assert_eq!(
        (seen(&model), model.sets.len()),
        ("1 Paused CanaryPauseStep".to_owned(), 2)
    );
}

#[test]
fn routing_taken_out_gives_everything_back() {
    let mut model = Model::routed(2, &pause_at(&[50])).deployed();
    model.edit(|spec| {
        spec["strategy"]["canary"]
            .as_object_mut()
            .unwrap()
            .remove("trafficRouting");
    });
    model.run();
    assert_eq!((&model.split, model.weights()), (&None, None));
}

// Analysis.

pub(super) fn with_template(mut model: Model) -> Model {
    let spec =
        json!({"metrics": [{"name": "m", "count": 1, "provider": {"web": {"url": "http://x"}}}]});
    model
        .templates
        .namespaced
        .insert("good".to_owned(), serde_json::from_value(spec).unwrap());
    model
}

fn analysed() -> Model {
    let steps = json!([{"setWeight": 20}, {"analysis": {"templates": [{"templateName": "good"}]}}, {"pause": {}}]);
    let mut model = with_template(Model::routed(10, &steps)).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.runs.len(), 1);
    assert_eq!(model.memory.waiting.as_ref().unwrap().reason, "analysis");
    told(&mut model);
    model
}

#[test]
fn a_good_analysis_is_a_step() {
    let mut model = analysed();
    let hash = &model.set("2").hash;
    assert_eq!(model.runs[0].name, format!("web-{hash}-2-1")); // R16.1
    model.runs[0].phase = RunPhase::Successful;
    model.run();
    assert_eq!(seen(&model), "2 Paused CanaryPauseStep");
    assert_eq!(
        reasons(&mut model),
        [
            "AnalysisRunSuccessful",
            "RolloutStepCompleted",
            "RolloutPaused"
        ]
    );
}

#[test]
fn a_bad_analysis_aborts_in_the_turn_that_sees_it() {
    let mut model = analysed();
    model.runs[0].phase = RunPhase::Failed;
    model.runs[0].message =
        "Metric \"m\" assessed Failed due to failed (1) > failureLimit (0)".to_owned();
    model.runs[0].failure = Some(Failure {
        metric: "m".to_owned(),
        value: Some("0.1".to_owned()),
        condition: None,
    });
    model.turn();
    assert_eq!(model.weights(), Some((0, 100)), "at once");
    assert_eq!(
        seen(&model),
        format!(
            "{ABORTED}: Step-based analysis phase error/failed: {}",
            model.runs[0].message
        )
    );
    let last = model.memory.last_abort.clone().unwrap();
    assert_eq!(
        (last.step, last.metric.as_deref(), last.value.as_deref()),
        (Some(1), Some("m"), Some("0.1"))
    );
    model.run();
    // R11.3: a retry begins a new run and does not fall over the old one.
    model.status.abort = false;
    model.run_ready();
    assert_eq!(
        (model.runs.len(), seen(&model).as_str()),
        (2, "1 Progressing more replicas need to be updated")
    );
    assert!(model.runs[1].name.ends_with("-1.1"));
    assert!(model.memory.last_abort.is_some());
}

#[test]
fn an_unclear_analysis_pauses_and_is_asked_again() {
    // R10.3
    let mut model = analysed();
    model.runs[0].phase = RunPhase::Inconclusive;
    model.run();
    assert_eq!(seen(&model), "1 Paused InconclusiveAnalysisRun");
    model.promote();
    model.run();
    assert_eq!(
        (model.runs.len(), seen(&model).as_str()),
        (2, "1 Progressing more replicas need to be updated")
    );
}

#[test]
fn background_analysis_follows_the_update() {
    let strategy = json!({
        "steps": pause_at(&[20, 50]), "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
        "stableService": "web-stable", "canaryService": "web-canary",
        "analysis": {"templates": [{"templateName": "good"}], "startingStep": 1},
    });
    let mut model = with_template(Model::new(4, &strategy)).deployed();
    assert_eq!(model.runs.len(), 0, "no analysis of the first deploy");
    model.image("2");
    model.run();
    assert_eq!(model.runs.len(), 0, "before its step");
    model.run_ready();
    assert_eq!(model.runs.len(), 1);
    let mut promoted = model.clone();
    promoted.promote();
    promoted.run_ready();
    promoted.promote();
    promoted.run_ready();
    assert_eq!(
        (seen(&promoted).as_str(), promoted.runs[0].terminating),
        ("4 Healthy", true)
    ); // R16.4
    model.runs[0].phase = RunPhase::Error;
    model.run();
    assert!(
        seen(&model).starts_with(&format!(
            "{ABORTED}: Background analysis phase error/failed:"
        )),
        "{}",
        seen(&model)
    );
}

// What the walks found.

#[test]
fn a_split_write_that_was_not_noted_is_doubted() {
    let mut model = Model::routed(5, &pause_at(&[40])).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(
        model.status.canary.weights.as_ref().unwrap().verified,
        Some(true)
    );
    // Two turns that broke off: another weight and back again; a proxy took up the first.
    model.split.as_mut().unwrap().generation += 2;
    model.prompt = false;
    model.turn();
    assert_eq!(
        model.status.canary.weights.as_ref().unwrap().verified,
        Some(false)
    );
    model.acknowledge();
    model.run();
    assert_eq!(
        model.status.canary.weights.as_ref().unwrap().verified,
        Some(true)
    );
}

#[test]
fn a_weight_that_is_held_keeps_its_pods() {
    // R8.2 holds the weight while stable cannot carry the rest.
    let mut model = Model::routed(4, &pause_at(&[50, 0])).deployed();
    model.image("2");
    model.run_ready();
    model.ready("1", 1);
    model.promote();
    model.run();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((50, 50)), 2)
    );
    model.all_ready();
    model.run();
    assert_eq!(
        (model.weights(), model.set("2").wanted),
        (Some((0, 100)), 0)
    );
}

#[test]
fn a_canary_scaled_to_nothing_gets_nothing() {
    let steps = json!([{"setWeight": 50}, {"setCanaryScale": {"replicas": 0}}, {"pause": {}}]);
    let mut model = Model::routed(4, &steps).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(
        (
            seen(&model).as_str(),
            model.weights(),
            model.set("2").wanted
        ),
        ("2 Paused CanaryPauseStep", Some((0, 100)), 0)
    );
}

#[test]
fn a_rollback_to_stable_is_healthy_when_the_traffic_is_back() {
    let mut model = Model::routed(4, &pause_at(&[50])).deployed();
    model.image("2");
    model.run_ready();
    model.prompt = false;
    model.image("1");
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), model.weights()),
        ("2 Progressing traffic cutover pending", Some((0, 100)))
    );
    assert_eq!(
        model.memory.waiting.as_ref().unwrap().reason,
        "acknowledgement"
    );
    model.prompt = true;
    model.acknowledge();
    model.run_ready();
    assert_eq!(seen(&model), "2 Healthy");
}

#[test]
fn without_routing_a_promotion_ends_with_its_services() {
    let services = json!({"stableService": "web-stable", "canaryService": "web-canary"});
    let mut model = Model::new(2, &services).deployed();
    model.image("2");
    model.turn();
    model.turn();
    for _ in 0..20 {
        model.turn();
        model.all_ready();
        let both = model.selects("web-stable", "2") && model.selects("web-canary", "2");
        assert!(model.phase() != "Healthy" || both);
    }
    assert_eq!(seen(&model), "- Healthy");
}
