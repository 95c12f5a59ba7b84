//! Blue-green: the trace of R2.28, the rules R14 and R7.11 one by one, and what Argo does not do.

use serde_json::{Value, json};

use super::Model;
use super::traces::{reasons, scaled, seen, told, with_template};
use crate::rollout::observed::{Failure, RunPhase};
use crate::rollout::split::CANARY;

/// A rollout that a person promotes.
fn manual(replicas: i32) -> Model {
    Model::blue_green(replicas, &json!({"autoPromotionEnabled": false}))
}

/// An update of it, ready to be promoted.
pub(super) fn paused(replicas: i32) -> Model {
    let mut model = manual(replicas).deployed();
    update(&mut model, "2");
    assert_eq!(seen(&model), PAUSED);
    model.events.clear();
    model
}

pub(super) fn update(model: &mut Model, tag: &str) {
    model.image(tag);
    model.run_ready();
}

pub(super) fn analysed(before: bool, more: &Value) -> Model {
    let key = if before {
        "prePromotionAnalysis"
    } else {
        "postPromotionAnalysis"
    };
    let mut strategy = json!({(key): {"templates": [{"templateName": "good"}]}});
    strategy
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    with_template(Model::blue_green(3, &strategy)).deployed()
}

/// Where active and preview lead: `V1 V2`.
pub(super) fn led(model: &Model) -> String {
    let tag = |service: &str| {
        let found = ["1", "2", "3"].into_iter().filter(|tag| {
            let image = json!(format!("nginx:{tag}"));
            let exists = |set: &crate::rollout::observed::Revision| {
                set.template["spec"]["containers"][0]["image"] == image
            };
            model.sets.iter().any(exists) && model.selects(service, tag)
        });
        found
            .map(|tag| format!("V{tag}"))
            .next()
            .unwrap_or_else(|| "-".to_owned())
    };
    format!("{} {}", tag("web-active"), tag("web-preview"))
}

pub(super) fn waiting(model: &Model) -> &str {
    model
        .memory
        .waiting
        .as_ref()
        .map_or("", |waiting| waiting.reason.as_str())
}

pub(super) const PAUSED: &str = "- Paused BlueGreenPause";
const PENDING: &str = "- Progressing active service cutover pending";
const MORE: &str = "- Progressing more replicas need to be updated";
const ABORTED: &str = "- Degraded RolloutAborted: Rollout aborted update to revision 2";

// The trace of R2.28.

#[test]
fn first_deploy_turn_by_turn() {
    let mut model = manual(3);
    model.turn();
    assert_eq!(
        reasons(&mut model),
        ["RolloutUpdated", "NewReplicaSetCreated"]
    );
    model.turn();
    assert_eq!(
        told(&mut model),
        [
            "Normal SwitchService: Switched selector for service 'web-preview' from '' to 'V1'",
            "Normal ScalingReplicaSet: Scaled up ReplicaSet V1 (revision 1) from 0 to 3",
            "Normal RolloutCompleted: Rollout completed update to revision 1 (V1): Initial deploy",
        ]
    );
    assert_eq!(seen(&model), MORE);
    model.run();
    assert_eq!(
        seen(&model),
        "- Progressing updated replicas are still becoming available"
    );
    model.ready("1", 2);
    model.run();
    assert_eq!(
        (led(&model), model.status.available_replicas),
        ("- V1".to_owned(), 2)
    );
    assert_eq!(waiting(&model), "pods");
    model.ready("1", 3);
    model.turn();
    assert_eq!(
        told(&mut model),
        ["Normal SwitchService: Switched selector for service 'web-active' from '' to 'V1'"]
    );
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V1 V1".to_owned())
    );
    model.run();
}

#[test]
fn manual_promotion_turn_by_turn() {
    let mut model = manual(3).deployed();
    model.image("2");
    model.turn();
    assert_eq!(
        reasons(&mut model),
        ["RolloutUpdated", "NewReplicaSetCreated"]
    );
    model.turn();
    assert_eq!(
        told(&mut model),
        [
            "Normal SwitchService: Switched selector for service 'web-preview' from 'V1' to 'V2'",
            "Normal RolloutNotCompleted: Rollout not completed, started update to revision 2 (V2)",
        ]
    );
    assert_eq!(
        (seen(&model), led(&model)),
        (MORE.to_owned(), "V1 V2".to_owned())
    );
    model.turn();
    assert_eq!(scaled(&mut model), ["V2 0-3"]);
    model.turn();
    assert_eq!(seen(&model), PENDING);
    let counts = (
        model.status.replicas,
        model.status.updated_replicas,
        model.status.available_replicas,
    );
    assert_eq!(
        counts,
        (6, 3, 3),
        "R2.4: available are those of the active revision"
    );
    model.ready("2", 3);
    model.turn();
    assert_eq!(
        told(&mut model),
        ["Normal RolloutPaused: Rollout is paused (BlueGreenPause)"]
    );
    assert_eq!(seen(&model), PAUSED);
    model.run();
    assert_eq!(waiting(&model), "pause");
    assert!(model.status.controller_pause);

    model.promote();
    model.turn();
    assert_eq!(seen(&model), PENDING);
    model.turn();
    assert_eq!(
        told(&mut model),
        [
            "Normal SwitchService: Switched selector for service 'web-active' from 'V1' to 'V2'",
            "Normal RolloutCompleted: Rollout completed update to revision 2 (V2): Completed blue-green update",
        ]
    );
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
    model.run();
    assert_eq!(
        model.set("1").deadline().unwrap().to_string(),
        "2026-01-01T00:00:30Z"
    );
    model.wait(30);
    model.run();
    assert_eq!(scaled(&mut model), ["V1 3-0"]);
    assert_eq!(
        (seen(&model), model.status.replicas),
        ("- Healthy".to_owned(), 3)
    );
    assert_eq!(model.set("1").deadline(), None);
}

#[test]
fn an_automatic_promotion_comes_with_its_last_second() {
    let mut model = Model::blue_green(2, &json!({"autoPromotionSeconds": 3})).deployed();
    update(&mut model, "2");
    assert_eq!(
        model.decide().again.unwrap().to_string(),
        "2026-01-01T00:00:03Z"
    );
    model.wait(2);
    model.run();
    assert_eq!(seen(&model), PAUSED);
    model.wait(1);
    model.turn();
    assert_eq!(seen(&model), "- Healthy");
}

// R7.11, R14.4.

#[test]
fn a_preview_is_small_until_it_is_promoted() {
    let strategy = json!({"autoPromotionEnabled": false, "previewReplicaCount": 1});
    let mut model = Model::blue_green(5, &strategy).deployed();
    assert_eq!(model.set("1").wanted, 5, "a first deploy is no preview");
    update(&mut model, "2");
    assert_eq!(scaled(&mut model), ["V2 0-1"]);
    assert_eq!(seen(&model), PAUSED);
    model.promote();
    model.run();
    assert!(model.status.blue_green.scale_up_preview_check_point);
    assert_eq!(
        (scaled(&mut model), led(&model)),
        (vec!["V2 1-5".to_owned()], "V1 V2".to_owned())
    );
    model.ready("2", 4);
    model.run();
    assert_eq!((led(&model).as_str(), waiting(&model)), ("V1 V2", "pods"));
    model.ready("2", 5);
    model.run();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
    assert!(!model.status.blue_green.scale_up_preview_check_point);
}

#[test]
fn a_promotion_survives_pods_that_were_gone_when_it_came() {
    // Argo forgets it and pauses again.
    for strategy in [json!({}), json!({"previewReplicaCount": 2})] {
        let mut strategy = strategy;
        strategy["autoPromotionEnabled"] = json!(false);
        let mut model = Model::blue_green(3, &strategy).deployed();
        update(&mut model, "2");
        model.ready("2", 1);
        model.run();
        model.promote();
        model.run();
        assert_eq!((led(&model).as_str(), waiting(&model)), ("V1 V2", "pods"));
        model.run_ready();
        assert_eq!(seen(&model), "- Healthy", "{strategy}");
    }
}

#[test]
fn a_promotion_survives_a_new_size_and_a_pause() {
    let mut model = paused(3);
    model.promote();
    model.edit(|spec| spec["replicas"] = json!(5));
    model.run_ready();
    assert_eq!(seen(&model), "- Healthy");
    let mut model = paused(3);
    model.edit(|spec| spec["paused"] = json!(true));
    model.promote();
    model.run();
    assert_eq!(led(&model), "V1 V2");
    model.edit(|spec| spec["paused"] = json!(false));
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn what_is_created_paused_has_no_pods() {
    // R10.2, observed point 18
    let mut model = manual(2);
    model.edit(|spec| spec["paused"] = json!(true));
    model.run();
    assert_eq!(
        (seen(&model).as_str(), led(&model).as_str()),
        ("- Paused manually paused", "- -")
    );
    assert_eq!(
        (model.set("1").wanted, model.status.stable_rs.is_some()),
        (0, true)
    );
    model.edit(|spec| spec["paused"] = json!(false));
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), led(&model).as_str()),
        ("- Healthy", "V1 V1")
    );
}

#[test]
fn sizes_follow_the_spec() {
    let strategy = json!({"autoPromotionEnabled": false, "previewReplicaCount": 1});
    let mut model = Model::blue_green(3, &strategy).deployed();
    update(&mut model, "2");
    told(&mut model);
    model.edit(|spec| spec["replicas"] = json!(5));
    model.run_ready();
    assert_eq!(scaled(&mut model), ["V1 3-5"]);
    assert_eq!(
        (seen(&model), led(&model)),
        (PAUSED.to_owned(), "V1 V2".to_owned())
    );
    model.edit(|spec| spec["strategy"]["blueGreen"]["previewReplicaCount"] = json!(2));
    model.run_ready();
    assert_eq!(scaled(&mut model), ["V2 1-2"]);
}

#[test]
fn without_pods_nobody_is_kept_waiting() {
    let mut model = manual(3).deployed();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    update(&mut model, "2");
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
}

#[test]
fn pods_taken_away_in_mid_update_open_no_gate() {
    let mut model = manual(3).deployed();
    model.image("2");
    model.run();
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    assert_eq!(
        (seen(&model).as_str(), led(&model).as_str()),
        (PAUSED, "V1 V2")
    );
    model.edit(|spec| spec["replicas"] = json!(2));
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), led(&model).as_str()),
        (PAUSED, "V1 V2")
    );
}

#[test]
fn pods_taken_away_in_mid_update_leave_an_automatic_promotion_nothing_to_wait_for() {
    // As docs/differences.md says: nothing but pods stood before the switch.
    let mut model = Model::blue_green(3, &json!({})).deployed();
    model.image("2");
    model.run();
    assert_eq!(led(&model), "V1 V2");
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
}

// R14.3, R14.5.

#[test]
fn the_switch_waits_for_every_pod() {
    let mut model = Model::blue_green(3, &json!({})).deployed();
    model.image("2");
    model.run();
    model.ready("2", 2);
    model.run();
    assert_eq!((led(&model).as_str(), waiting(&model)), ("V1 V2", "pods"));
    model.ready("2", 3);
    model.turn();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
}

#[test]
fn a_user_pause_holds_the_switch() {
    // R10.2
    let mut model = Model::blue_green(3, &json!({})).deployed();
    model.image("2");
    model.run();
    model.edit(|spec| spec["paused"] = json!(true));
    model.run_ready();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Paused manually paused".to_owned(), "V1 V2".to_owned())
    );
    model.edit(|spec| spec["paused"] = json!(false));
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn a_full_promotion_has_no_gate_but_needs_its_pods() {
    // R11.1
    let mut model = paused(3);
    model.ready("2", 2);
    model.status.promote_full = true;
    model.run();
    assert_eq!((led(&model).as_str(), waiting(&model)), ("V1 V2", "pods"));
    model.ready("2", 3);
    model.run();
    assert_eq!(seen(&model), "- Healthy");
    let events = told(&mut model);
    assert!(
        events
            .iter()
            .any(|event| event.ends_with("(V2): Full promotion requested")),
        "{events:?}"
    );
}

// Aborts: R14.6, R7.10.

#[test]
fn an_abort_leaves_the_preview_up_for_its_delay() {
    let mut model = paused(3);
    model.status.abort = true;
    model.turn();
    assert_eq!(
        (seen(&model), led(&model)),
        (ABORTED.to_owned(), "V1 V2".to_owned())
    );
    model.run();
    assert_eq!(waiting(&model), "deadline");
    model.wait(30);
    model.run();
    assert_eq!(scaled(&mut model), ["V2 3-0"]);
    assert_eq!(seen(&model), ABORTED);
    // R11.3
    model.status.abort = false;
    model.run_ready();
    assert_eq!(seen(&model), PAUSED);
    model.promote();
    model.run();
    assert_eq!(seen(&model), "- Healthy");
}

#[test]
fn a_delay_of_zero_keeps_an_aborted_preview() {
    let strategy = json!({"autoPromotionEnabled": false, "abortScaleDownDelaySeconds": 0});
    let mut model = Model::blue_green(2, &strategy).deployed();
    update(&mut model, "2");
    model.status.abort = true;
    model.run();
    model.wait(1000);
    model.run();
    assert_eq!(model.set("2").wanted, 2);
}

#[test]
fn a_retry_has_its_gate_again() {
    // In Argo the deadline of the abort makes the retry a fast rollback, and the checkpoint stays latched.
    for strategy in [json!({}), json!({"previewReplicaCount": 1})] {
        let mut strategy = strategy;
        strategy["autoPromotionEnabled"] = json!(false);
        let mut model = Model::blue_green(2, &strategy).deployed();
        update(&mut model, "2");
        model.promote();
        model.turn();
        model.status.abort = true;
        model.run();
        assert!(!model.status.blue_green.scale_up_preview_check_point);
        assert!(model.set("2").deadline().is_some());
        model.status.abort = false;
        model.run_ready();
        assert_eq!(
            (seen(&model), led(&model)),
            (PAUSED.to_owned(), "V1 V2".to_owned()),
            "{strategy}"
        );
        assert_eq!(model.set("2").deadline(), None);
    }
}

#[test]
fn a_full_promotion_can_be_aborted() {
    let mut model = paused(3);
    model.ready("2", 2);
    model.status.promote_full = true;
    model.run();
    model.status.abort = true;
    model.run_ready();
    assert_eq!(
        (seen(&model), led(&model)),
        (ABORTED.to_owned(), "V1 V2".to_owned())
    );
    assert!(!model.status.promote_full);
    // R11.1: promote --full takes an abort back.
    model.status.promote_full = true;
    model.run_ready();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
}

#[test]
fn a_progress_deadline_aborts() {
    // R5.4
    let mut model = Model::blue_green(2, &json!({})).deployed();
    model.edit(|spec| {
        spec["progressDeadlineSeconds"] = json!(4);
        spec["progressDeadlineAbort"] = json!(true);
    });
    model.image("2");
    model.run();
    model.wait(6);
    model.run();
    assert!(seen(&model).starts_with(ABORTED), "{}", seen(&model));
    assert_eq!(led(&model), "V1 V2");
}

// R13.2.

/// V2 is promoted, and V1 still up.
fn promoted(strategy: &Value) -> Model {
    let mut model = with_template(Model::blue_green(3, strategy)).deployed();
    update(&mut model, "2");
    model.status.promote_full = true;
    model.run_ready();
    assert_eq!(seen(&model), "- Healthy");
    assert!(model.set("1").deadline().is_some());
    model.events.clear();
    model
}

#[test]
fn the_way_back_within_the_delay_is_fast() {
    let strategy = json!({
        "autoPromotionEnabled": false,
        "previewReplicaCount": 1,
        "prePromotionAnalysis": {"templates": [{"templateName": "good"}]},
        "postPromotionAnalysis": {"templates": [{"templateName": "good"}]},
    });
    let mut model = promoted(&strategy);
    model.runs.clear();
    model.image("1");
    model.ready("1", 2);
    model.run();
    assert_eq!(
        (led(&model).as_str(), waiting(&model)),
        ("V2 V1", "pods"),
        "one pod is missing"
    );
    assert_eq!(model.set("1").deadline(), None);
    model.ready("1", 3);
    model.run();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V1 V1".to_owned())
    );
    assert_eq!((model.metadata.revision(), model.runs.len()), (Some(3), 0));
    // … and forward again.
    update(&mut model, "2");
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V2 V2".to_owned())
    );
    model.wait(31);
    model.run();
    assert!(
        model.memory.proven.is_empty(),
        "nothing is remembered of what is gone"
    );
}

#[test]
fn a_fast_rollback_can_be_aborted() {
    let mut model = promoted(&json!({"autoPromotionEnabled": false}));
    model.image("1");
    model.ready("1", 2);
    model.run();
    model.status.abort = true;
    model.run_ready();
    assert!(
        seen(&model).starts_with("- Degraded RolloutAborted"),
        "{}",
        seen(&model)
    );
    assert_eq!(led(&model), "V2 V1");
    model.wait(31);
    model.run();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (0, 3));
}

#[test]
fn a_revision_that_was_never_stable_has_no_fast_way_back() {
    // Argo goes by the deadline alone.
    let mut model = paused(3);
    update(&mut model, "3");
    assert_eq!(seen(&model), PAUSED);
    assert!(model.set("2").deadline().is_some(), "R7.9");
    update(&mut model, "2");
    assert_eq!(
        (seen(&model), led(&model)),
        (PAUSED.to_owned(), "V1 V2".to_owned())
    );
}

#[test]
fn a_rollback_within_the_window_has_no_gate() {
    // R13.1, R13.2
    let mut model = promoted(&json!({"autoPromotionEnabled": false}));
    model.edit(|spec| spec["rollbackWindow"] = json!({"revisions": 1}));
    model.wait(31);
    model.run_ready();
    assert_eq!(model.set("1").wanted, 0);
    told(&mut model);
    update(&mut model, "1");
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V1 V1".to_owned())
    );
    let events = told(&mut model);
    assert!(
        events
            .iter()
            .any(|event| event.ends_with("(V1): Rollback within window")),
        "{events:?}"
    );
}

#[test]
fn back_to_stable_is_back_at_once() {
    let mut model = paused(3);
    model.image("1");
    model.run();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V1 V1".to_owned())
    );
    assert!(model.status.pause_conditions.is_empty());
    model.wait(30);
    model.run();
    assert_eq!(model.set("2").wanted, 0);
}

// R7.9.

#[test]
fn old_revisions_wait_within_their_limit() {
    let check = |strategy: &Value, expected: &[i32]| {
        let mut model = Model::blue_green(2, strategy).deployed();
        update(&mut model, "2");
        update(&mut model, "3");
        assert_eq!(seen(&model), "- Healthy");
        let wanted: Vec<i32> = model.sets.iter().map(|set| set.wanted).collect();
        assert_eq!(wanted, expected, "{strategy}");
        model.wait(31);
        model.run();
        let wanted: Vec<i32> = model.sets.iter().map(|set| set.wanted).collect();
        assert_eq!(wanted, [0, 0, 2], "{strategy}");
    };
    check(&json!({}), &[2, 2, 2]);
    check(&json!({"scaleDownDelayRevisionLimit": 1}), &[0, 2, 2]);
    check(&json!({"scaleDownDelayRevisionLimit": 0}), &[0, 0, 2]);
    check(&json!({"scaleDownDelaySeconds": 0}), &[0, 0, 2]);
}

// Analyses: R14.7, R14.9, R11.4.

#[test]
fn the_switch_waits_for_a_good_analysis() {
    let mut model = analysed(true, &json!({"autoPromotionSeconds": 5}));
    model.image("2");
    model.run();
    model.ready("2", 2);
    model.run();
    assert_eq!(model.runs.len(), 0, "R14.9");
    model.run_ready();
    let hash = model.set("2").hash.clone();
    assert_eq!(model.runs[0].name, format!("web-{hash}-2-pre")); // R16.1
    assert_eq!(
        (seen(&model), waiting(&model)),
        (PENDING.to_owned(), "analysis")
    );
    model.ready("2", 1);
    model.run();
    model.run_ready();
    assert_eq!(model.runs.len(), 1, "pods that come and go begin no other");
    model.wait(60);
    model.runs[0].phase = RunPhase::Successful;
    model.run();
    assert_eq!(seen(&model), PAUSED, "the pause counts from the verdict");
    model.wait(6);
    model.run();
    assert_eq!(seen(&model), "- Healthy");
    let kept = model
        .status
        .blue_green
        .pre_promotion_analysis_run_status
        .clone()
        .unwrap();
    assert_eq!(kept.status, "Successful", "R2.4: kept after completion");
}

#[test]
fn a_long_analysis_is_no_lack_of_progress() {
    // Argo says ProgressDeadlineExceeded.
    let mut model = analysed(true, &json!({}));
    update(&mut model, "2");
    model.wait(1000);
    model.run();
    assert_eq!(seen(&model), PENDING);
}

pub(super) fn fail(model: &mut Model) {
    let run = model.runs.last_mut().unwrap();
    run.phase = RunPhase::Failed;
    run.message = "bad".to_owned();
    run.failure = Some(Failure {
        metric: "m".to_owned(),
        ..Failure::default()
    });
}

#[test]
fn a_bad_analysis_before_the_switch_aborts() {
    let mut model = analysed(true, &json!({}));
    update(&mut model, "2");
    fail(&mut model);
    model.turn();
    let cause = "Blue/green pre-promotion analysis phase error/failed: bad";
    assert_eq!(
        (seen(&model), led(&model)),
        (format!("{ABORTED}: {cause}"), "V1 V2".to_owned())
    );
    assert_eq!(
        model.memory.last_abort.as_ref().unwrap().metric.as_deref(),
        Some("m")
    );
    model.run();
    model.status.abort = false;
    model.run_ready();
    assert!(
        model.runs[1].name.ends_with("-pre.1"),
        "R11.3: {}",
        model.runs[1].name
    );
    assert_eq!(led(&model), "V1 V2", "the old verdict does not count");
}

#[test]
fn a_bad_analysis_after_the_switch_switches_back() {
    let mut model = analysed(false, &json!({}));
    update(&mut model, "2");
    assert_eq!(
        (seen(&model), led(&model)),
        (
            "- Progressing waiting for analysis to complete".to_owned(),
            "V2 V2".to_owned()
        )
    );
    assert!(model.runs[0].name.ends_with("-post"));
    assert_eq!(model.set("1").wanted, 3, "R14.7: the way back is kept");
    model.wait(100);
    model.run();
    fail(&mut model);
    model.ready("2", 2); // Argo would not switch back now: the new revision is not saturated.
    model.turn();
    let cause = "Blue/green post-promotion analysis phase error/failed: bad";
    assert_eq!(
        (seen(&model), led(&model)),
        (format!("{ABORTED}: {cause}"), "V1 V2".to_owned())
    );
    model.run();
    model.wait(31);
    model.run();
    assert_eq!((model.set("1").wanted, model.set("2").wanted), (3, 0));
}

#[test]
fn a_good_analysis_after_the_switch_makes_it_stable() {
    let mut model = analysed(false, &json!({}));
    update(&mut model, "2");
    model.runs[0].phase = RunPhase::Successful;
    model.run();
    assert_eq!(seen(&model), "- Healthy");
    assert_eq!(model.status.stable_rs, Some(model.set("2").hash.clone()));
}

#[test]
fn an_unclear_analysis_pauses_and_is_asked_again() {
    // R10.3
    for before in [true, false] {
        let mut model = analysed(before, &json!({}));
        update(&mut model, "2");
        model.runs[0].phase = RunPhase::Inconclusive;
        model.run();
        assert_eq!(seen(&model), "- Paused InconclusiveAnalysisRun");
        model.promote();
        model.run();
        assert_eq!(model.runs.len(), 2);
        model.runs[1].phase = RunPhase::Successful;
        model.run();
        assert_eq!(seen(&model), "- Healthy");
    }
}

#[test]
fn runs_end_with_what_they_were_for() {
    // R16.4
    let check = |end: fn(&mut Model)| {
        let mut model = analysed(true, &json!({}));
        update(&mut model, "2");
        end(&mut model);
        model.run_ready();
        assert!(model.runs[0].terminating);
    };
    check(|model| model.status.abort = true);
    check(|model| model.status.promote_full = true);
    check(|model| model.image("3"));
    check(|model| model.image("1"));
}

// R12.6.

#[test]
fn a_strategy_can_change_at_rest_and_under_way() {
    let blue_green = json!({"blueGreen": {"activeService": "web-active", "previewService": "web-preview", "autoPromotionEnabled": false}});
    let canary = json!({"canary": {"steps": [{"setWeight": 20}, {"pause": {}}]}});
    for under_way in [false, true] {
        let mut model = Model::basic(5, &canary["canary"]["steps"]).deployed();
        if under_way {
            update(&mut model, "2");
            assert_eq!(seen(&model), "1 Paused CanaryPauseStep");
        }
        model.edit(|spec| spec["strategy"] = blue_green.clone());
        model.run_ready();
        let (phase, shown) = match under_way {
            true => (PAUSED, "V1 V2"),
            false => ("- Healthy", "V1 V1"),
        };
        assert_eq!(
            (seen(&model).as_str(), led(&model).as_str()),
            (phase, shown)
        );
        assert_eq!(
            model.status.canary,
            crate::api::rollout::CanaryStatus::default()
        );
        model.edit(|spec| spec["strategy"] = canary.clone());
        model.run_ready();
        let phase = if under_way {
            "1 Paused CanaryPauseStep"
        } else {
            "2 Healthy"
        };
        assert_eq!(seen(&model), phase);
        assert_eq!(
            model.status.blue_green,
            crate::api::rollout::BlueGreenStatus::default()
        );
    }
}

#[test]
fn selectors_that_were_led_astray_come_back() {
    let mut model = manual(2).deployed();
    for service in &mut model.services {
        service.selector.insert(
            crate::api::labels::POD_TEMPLATE_HASH.to_owned(),
            "gone".to_owned(),
        );
    }
    model.run();
    assert_eq!(
        (seen(&model), led(&model)),
        ("- Healthy".to_owned(), "V1 V1".to_owned())
    );
}

#[test]
fn a_crash_between_any_two_writes_changes_nothing() {
    let mut model = paused(2);
    model.promote();
    model.turn();
    for _ in 0..3 {
        let decision = model.decide();
        for count in 0..decision.actions.len() {
            let mut broken = model.clone();
            broken.apply(&decision, count);
            broken.run_ready();
            assert_eq!(
                (seen(&broken), led(&broken)),
                ("- Healthy".to_owned(), "V2 V2".to_owned())
            );
        }
        model.turn();
    }
}

// By our proxies.

pub(super) fn routed(strategy: &Value) -> Model {
    Model::blue_green_routed(3, strategy).deployed()
}

/// Which image each rule's Services are sent to: `web-active V1, web-preview V2`.
pub(super) fn sent(model: &Model) -> String {
    let split = &model.split.as_ref().unwrap().split;
    let to = |name: &String| {
        let version = split
            .versions
            .iter()
            .find(|version| version.name == *name)
            .unwrap();
        let tag = ["1", "2", "3"].into_iter().find(|tag| {
            let image = json!(format!("nginx:{tag}"));
            model.sets.iter().any(|set| {
                set.hash == version.revision
                    && set.template["spec"]["containers"][0]["image"] == image
            })
        });
        format!("V{}", tag.unwrap())
    };
    let rules = split.rules.iter().map(|rule| {
        let (name, weight) = rule.weights.iter().next().unwrap();
        assert_eq!((rule.weights.len(), *weight), (1, 100));
        format!("{} {}", rule.services.join("+"), to(name))
    });
    rules.collect::<Vec<_>>().join(", ")
}

#[test]
fn both_rules_are_in_one_split() {
    let mut model = routed(&json!({"autoPromotionEnabled": false}));
    assert_eq!(sent(&model), "web-active V1, web-preview V1");
    model.image("2");
    model.run();
    assert_eq!(
        sent(&model),
        "web-active V1, web-preview V1",
        "a version with nothing ready gets nothing"
    );
    model.run_ready();
    assert_eq!(
        (sent(&model).as_str(), seen(&model).as_str()),
        ("web-active V1, web-preview V2", PAUSED)
    );
    model.promote();
    model.turn();
    let before = model.split.as_ref().unwrap().generation;
    model.turn();
    assert_eq!(sent(&model), "web-active V2, web-preview V2");
    assert_eq!(
        model.split.as_ref().unwrap().generation,
        before + 1,
        "one write"
    );
    assert_ne!(seen(&model), "- Healthy", "nobody has acknowledged it yet");
    model.run();
    assert_eq!(
        (sent(&model).as_str(), seen(&model).as_str()),
        ("web-active V2, web-preview V2", "- Healthy")
    );
    let versions = &model.split.as_ref().unwrap().split.versions;
    assert_eq!(
        (versions.len(), versions[0].needed),
        (1, 3),
        "promotion renames"
    );
}

#[test]
fn promotion_waits_for_every_proxy() {
    let mut model = routed(&json!({}));
    model.prompt = false;
    model.image("2");
    model.run_ready();
    assert_eq!(
        (sent(&model).as_str(), waiting(&model)),
        ("web-active V1, web-preview V2", "acknowledgement")
    );
    model.acknowledge();
    model.run();
    assert_eq!(
        (sent(&model).as_str(), waiting(&model)),
        ("web-active V2, web-preview V2", "acknowledgement")
    );
    assert_eq!(
        seen(&model),
        "- Progressing waiting for post-promotion verification to complete"
    );
    assert_ne!(model.status.stable_rs, model.status.current_pod_hash);
    model.acknowledge();
    model.run();
    assert_eq!(seen(&model), "- Healthy");
    // Old pods go behind acknowledged traffic.
    model.wait(31);
    model.run();
    assert_eq!(
        (model.set("1").wanted, waiting(&model)),
        (3, "acknowledgement")
    );
    model.acknowledge();
    let old = model.set("1").hash.clone();
    model.in_flight.insert(old, 1);
    model.run();
    assert_eq!((model.set("1").wanted, waiting(&model)), (3, "drain"));
    model.in_flight.clear();
    model.run();
    assert_eq!(model.set("1").wanted, 0);
}

#[test]
fn an_aborted_preview_leaves_the_split_before_its_pods() {
    let mut model = routed(&json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    model.status.abort = true;
    model.run();
    assert_eq!(
        sent(&model),
        "web-active V1, web-preview V2",
        "it can be looked at"
    );
    model.prompt = false;
    model.wait(31);
    model.run();
    assert_eq!(sent(&model), "web-active V1, web-preview V1");
    assert_eq!(
        (model.set("2").wanted, waiting(&model)),
        (3, "acknowledgement")
    );
    model.acknowledge();
    model.run();
    assert_eq!(model.set("2").wanted, 0);
}

#[test]
fn a_preview_needs_its_own_pods_and_the_active_rule_all() {
    let mut model = routed(&json!({"autoPromotionEnabled": false, "previewReplicaCount": 1}));
    let needed = |model: &Model| {
        let split = &model.split.as_ref().unwrap().split;
        split
            .versions
            .iter()
            .find(|version| version.name == CANARY)
            .map(|version| version.needed)
    };
    update(&mut model, "2");
    assert_eq!((seen(&model).as_str(), needed(&model)), (PAUSED, Some(1)));
    model.prompt = false;
    model.promote();
    model.run_ready();
    assert_eq!(
        (sent(&model).as_str(), needed(&model)),
        ("web-active V2, web-preview V2", Some(3))
    );
}

#[test]
fn routing_can_be_put_in_and_taken_out() {
    let mut model = manual(3).deployed();
    let annotations = model.rollout.metadata.annotations.get_or_insert_default();
    annotations.insert(crate::api::labels::PROXY.to_owned(), "{}".to_owned());
    model.run();
    assert_eq!(
        (sent(&model).as_str(), seen(&model).as_str()),
        ("web-active V1, web-preview V1", "- Healthy")
    );
    model.rollout.metadata.annotations = None;
    model.run();
    assert_eq!((&model.split, seen(&model).as_str()), (&None, "- Healthy"));
}

#[test]
fn routing_taken_out_after_the_switch_moves_nobody() {
    let strategy = json!({"postPromotionAnalysis": {"templates": [{"templateName": "good"}]}});
    let mut model = with_template(Model::blue_green_routed(3, &strategy)).deployed();
    update(&mut model, "2");
    assert_eq!(sent(&model), "web-active V2, web-preview V2");
    model.rollout.metadata.annotations = None;
    model.prompt = false;
    model.run();
    assert_eq!(sent(&model), "web-active V2, web-preview V2");
    model.acknowledge();
    model.run();
    assert_eq!((&model.split, led(&model).as_str()), (&None, "V2 V2"));
}

#[test]
fn proxies_do_not_follow_a_selector_that_is_ahead_of_the_pods() {
    let mut model = routed(&json!({"autoPromotionEnabled": false}));
    update(&mut model, "2");
    model.ready("2", 1);
    let hash = model.set("2").hash.clone();
    for service in &mut model.services {
        let key = crate::api::labels::POD_TEMPLATE_HASH.to_owned();
        service.selector.insert(key, hash.clone());
    }
    model.run();
    assert_eq!(
        (sent(&model).as_str(), waiting(&model)),
        ("web-active V1, web-preview V2", "pods")
    );
    assert_ne!(model.status.stable_rs, Some(hash));
    model.run_ready();
    assert_eq!(sent(&model), "web-active V2, web-preview V2");
}
