//! `dynamicStableScale`: scale and traffic together, forward and back.

use serde_json::json;

use super::Model;
use super::traces::{ABORTED, pause_at, seen, with_template};
use crate::rollout::observed::RunPhase;

/// Pods wanted of V1 and V2, and the weights of canary and stable.
fn balance(model: &Model) -> (i32, i32, (i32, i32)) {
    let (stable, canary) = (model.set("1").wanted, model.set("2").wanted);
    (stable, canary, model.weights().unwrap())
}

/// Deployed, and updated as far as the first pause.
fn updated(replicas: i32, weights: &[i32]) -> Model {
    let mut model = Model::dynamic(replicas, &pause_at(weights)).deployed();
    model.image("2");
    model.run_ready();
    model
}

#[test]
fn an_abort_waits_for_the_pods_of_stable() {
    let mut model = updated(5, &[20]);
    assert_eq!(balance(&model), (4, 1, (20, 80)));
    model.status.abort = true;
    model.run();
    assert_eq!(
        balance(&model),
        (5, 1, (20, 80)),
        "stable has no pod for it yet"
    );
    assert!(model.selects("web-canary", "2"), "R8.1 c");
    assert_eq!(model.memory.waiting.as_ref().unwrap().reason, "pods");
    model.ready("1", 5);
    model.run();
    assert_eq!(balance(&model), (5, 0, (0, 100)));
}

#[test]
fn both_sizes_follow_the_weight() {
    // R7.6, all the way.
    let mut model = updated(10, &[10, 20, 100]);
    assert_eq!(balance(&model), (9, 1, (10, 90)));
    model.promote();
    model.run_ready();
    assert_eq!(balance(&model), (8, 2, (20, 80)));
    model.promote();
    model.run();
    assert_eq!(balance(&model), (8, 10, (20, 80)), "up before the weight");
    model.all_ready();
    model.prompt = false;
    model.run();
    assert_eq!(
        balance(&model),
        (8, 10, (100, 0)),
        "down after its acknowledgement"
    );
    model.prompt = true;
    model.acknowledge();
    model.run_ready();
    assert_eq!(balance(&model), (1, 10, (100, 0)), "one pod stands by");
    model.promote();
    model.run_ready();
    assert_eq!(
        (seen(&model).as_str(), model.set("1").wanted),
        ("6 Healthy", 0)
    );
    assert_eq!(model.set("1").deadline(), None, "there is no delay");
}

#[test]
fn a_lower_weight_waits_for_stable() {
    let mut model = updated(10, &[60, 20]);
    assert_eq!(balance(&model), (4, 6, (60, 40)));
    model.promote();
    model.run();
    assert_eq!(balance(&model), (8, 6, (60, 40)));
    model.ready("1", 8);
    model.run();
    assert_eq!(balance(&model), (8, 2, (20, 80)));
}

#[test]
fn an_abort_takes_back_what_stable_can_carry() {
    // R8.4 with the steps 20 and 60.
    let mut model = updated(10, &[20, 60]);
    model.promote();
    model.run_ready();
    model.status.abort = true;
    model.run();
    assert_eq!(balance(&model), (8, 6, (60, 40)));
    model.ready("1", 7);
    model.run();
    assert_eq!(balance(&model), (8, 6, (60, 40)));
    model.ready("1", 8);
    model.run();
    assert_eq!(balance(&model), (10, 2, (20, 80)));
    model.ready("1", 9);
    model.run();
    assert_eq!(balance(&model), (10, 1, (10, 90)));
    model.ready("1", 10);
    model.run();
    assert_eq!(balance(&model), (10, 0, (0, 100)));
}

#[test]
fn an_abort_delay_that_is_asked_for_keeps_the_canary() {
    // R7.10
    let mut model = Model::dynamic(10, &pause_at(&[60]));
    model.edit(|spec| spec["strategy"]["canary"]["abortScaleDownDelaySeconds"] = json!(40));
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    assert_eq!(balance(&model), (10, 6, (60, 40)));
    assert_eq!(model.set("2").deadline(), None);
    model.run_ready();
    assert_eq!(balance(&model), (10, 6, (0, 100)));
    assert!(model.set("2").deadline().is_some());
    model.wait(41);
    model.run_ready();
    assert_eq!(balance(&model), (10, 0, (0, 100)));
}

#[test]
fn a_canary_that_has_failed_leaves_at_once() {
    let steps = json!([{"setWeight": 60}, {"analysis": {"templates": [{"templateName": "good"}]}}]);
    for (phase, weights) in [(RunPhase::Failed, (0, 100)), (RunPhase::Error, (60, 40))] {
        let mut model = with_template(Model::dynamic(10, &steps)).deployed();
        model.image("2");
        model.run_ready();
        assert_eq!(balance(&model), (4, 6, (60, 40)));
        model.runs[0].phase = phase;
        model.run();
        assert_eq!(balance(&model).2, weights, "{phase:?}");
        model.run_ready();
        assert_eq!(balance(&model), (10, 0, (0, 100)));
        assert!(seen(&model).starts_with(ABORTED), "{}", seen(&model));
    }
}

#[test]
fn back_to_stable_in_mid_update_waits_for_stable() {
    // R8.1 a
    let mut model = updated(10, &[60]);
    model.image("1");
    model.run();
    assert_eq!(balance(&model), (10, 6, (60, 40)));
    assert_eq!(seen(&model), "2 Progressing traffic cutover pending");
    model.ready("1", 7);
    model.run();
    assert_eq!(balance(&model), (10, 6, (30, 70)));
    model.ready("1", 10);
    model.run();
    assert_eq!(balance(&model), (10, 0, (0, 100)));
    assert_eq!(seen(&model), "2 Healthy");
}

#[test]
fn a_third_template_waits_until_the_second_has_left() {
    let mut model = updated(10, &[60]);
    model.image("3");
    model.run();
    assert_eq!((model.set("1").wanted, model.set("3").wanted), (10, 6));
    assert_eq!(balance(&model), (10, 6, (60, 40)));
    model.ready("3", 6);
    model.run();
    assert_eq!(
        (balance(&model).2, model.status.current_step_index),
        ((60, 40), Some(0)),
        "the weight is V2's"
    );
    model.run_ready();
    assert_eq!(seen(&model), "1 Paused CanaryPauseStep");
    assert_eq!((model.set("1").wanted, model.set("3").wanted), (4, 6));
    assert_eq!(balance(&model), (4, 0, (60, 40)));
}

#[test]
fn a_full_promotion_moves_what_the_pods_can_carry() {
    // R8.1 e
    let mut model = updated(10, &[20]);
    model.status.promote_full = true;
    model.run();
    assert_eq!(balance(&model), (8, 10, (20, 80)));
    model.ready("2", 7);
    model.run();
    assert_eq!(balance(&model), (3, 10, (70, 30)));
    model.status.abort = true;
    model.run();
    assert_eq!(balance(&model).2, (70, 30), "stable has 3 pods");
    model.run_ready();
    assert_eq!(balance(&model), (10, 0, (0, 100)));
}

#[test]
fn a_canary_scale_keeps_stable_as_argo_does() {
    // R7.5: a number of pods leaves stable at full size, a weight shrinks it, but never below its own weight.
    let steps = json!([
        {"setCanaryScale": {"replicas": 9}}, {"setWeight": 20}, {"pause": {}},
        {"setCanaryScale": {"weight": 50}}, {"pause": {}},
        {"setCanaryScale": {"matchTrafficWeight": true}}, {"pause": {}},
    ]);
    let mut model = Model::dynamic(10, &steps).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(balance(&model), (10, 9, (20, 80)));
    model.promote();
    model.run_ready();
    assert_eq!(balance(&model), (8, 5, (20, 80)));
    model.promote();
    model.run_ready();
    assert_eq!(balance(&model), (8, 2, (20, 80)));
}

// What the walks found.

#[test]
fn a_weight_that_was_not_noted_waits_for_stable_all_the_same() {
    // A turn died between the Split, with weight 60, and the status, with 20; then the steps asked for 0.
    let mut model = updated(10, &[20, 60]);
    model.promote();
    model.run_ready();
    model.status.canary.weights.as_mut().unwrap().canary.weight = 0;
    model.edit(|spec| spec["strategy"]["canary"]["steps"] = pause_at(&[0]));
    model.run();
    assert_eq!(balance(&model), (10, 6, (60, 40)));
    model.run_ready();
    assert_eq!(balance(&model), (10, 0, (0, 100)));
}

#[test]
fn a_canary_that_has_failed_stays_while_stable_has_no_pod() {
    // R8.4: somebody has to answer.
    let steps = json!([{"setWeight": 60}, {"analysis": {"templates": [{"templateName": "good"}]}}]);
    let mut model = with_template(Model::dynamic(10, &steps)).deployed();
    model.image("2");
    model.run_ready();
    model.ready("1", 0);
    model.runs[0].phase = RunPhase::Failed;
    model.run();
    assert_eq!(balance(&model).2, (60, 40));
    model.ready("1", 1);
    model.run();
    assert_eq!(balance(&model).2, (0, 100));
}

#[test]
fn a_canary_without_pods_leaves_at_once() {
    // R8.4: it carries nothing that stable would have to take.
    let mut model = updated(10, &[60]);
    model.ready("2", 0);
    model.status.abort = true;
    model.run();
    assert_eq!(balance(&model).2, (0, 100));
}

#[test]
fn only_an_abort_goes_back_in_steps() {
    // R8.4 with the steps 20 and 60: seven pods of stable → what V2 keeps. A third template takes as much as they can carry; an abort
    // stops at 20, which needs eight.
    let mut superseded = updated(10, &[20, 60]);
    superseded.promote();
    superseded.run_ready();
    let mut aborted = superseded.clone();
    superseded.image("3");
    aborted.status.abort = true;
    for (mut model, weights) in [(superseded, (30, 70)), (aborted, (60, 40))] {
        model.run();
        model.ready("1", 7);
        model.run();
        assert_eq!(balance(&model).2, weights);
    }
}

#[test]
fn an_abort_with_a_delay_stops_where_stable_has_the_pods() {
    // R7.6, R7.10: stable lacks six; the last step whose canary has fewer is 20, and eight pods carry the rest.
    let mut model = Model::dynamic(10, &pause_at(&[20, 60]));
    model.edit(|spec| spec["strategy"]["canary"]["abortScaleDownDelaySeconds"] = json!(30));
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model.promote();
    model.run_ready();
    assert_eq!(balance(&model), (4, 6, (60, 40)));
    model.status.abort = true;
    model.run();
    assert_eq!(balance(&model), (8, 6, (60, 40)));
}

#[test]
fn a_failed_analysis_condemns_what_it_judged_alone() {
    // R8.4: V3's has failed while V2 is on its way out.
    let mut model = with_template(Model::dynamic(10, &pause_at(&[60])));
    model.edit(|spec| {
        let analysis = json!({"templates": [{"templateName": "good"}]});
        spec["strategy"]["canary"]["analysis"] = analysis;
    });
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(balance(&model), (4, 6, (60, 40)));
    model.image("3");
    model.run();
    let hash = model.set("3").hash.clone();
    let mut runs = model.runs.iter_mut();
    runs.find(|run| run.hash == hash).unwrap().phase = RunPhase::Failed;
    model.run();
    assert!(model.status.abort);
    assert_eq!(balance(&model), (10, 6, (60, 40)));
}

#[test]
fn an_abort_first_gives_stable_what_it_had() {
    // R7.6 with the steps 20 and 60: V1 has lost five of its eight pods, and seven are more than V2 has at 20.
    let mut model = updated(10, &[20, 60]);
    model.ready("1", 3);
    model.status.abort = true;
    model.run();
    assert_eq!(balance(&model), (8, 2, (20, 80)));
}
