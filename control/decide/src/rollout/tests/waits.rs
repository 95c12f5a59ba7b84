//! What a rollout says that it waits for, where no single file has named it (control-plane rules, section 1).

use serde_json::json;

use super::Model;
use super::traces::{pause_at, seen, with_template};
use crate::rollout::observed::RunPhase;

/// Reason and message, the revisions' names replaced by their image tags.
fn waits_for(model: &Model) -> String {
    let decision = model.decide();
    let Some(waiting) = decision.memory.waiting else {
        return "nothing".to_owned();
    };
    let mut message = waiting.message;
    for set in &model.sets {
        let tag = set.template["spec"]["containers"][0]["image"].as_str();
        message = message.replace(&set.name, &tag.unwrap().replace("nginx:", "V"));
    }
    format!("{}: {message}", waiting.reason)
}

fn paused(mut model: Model) -> Model {
    model.image("2");
    model.run_ready();
    assert!(seen(&model).contains("Paused"), "{}", seen(&model));
    model
}

#[test]
fn pods_are_named_with_their_number() {
    let mut model = Model::basic(3, &pause_at(&[20]));
    model.run();
    assert_eq!(
        waits_for(&model),
        "pods: 3 available pods of ReplicaSet \"V1\""
    );
    let model = model.deployed();
    assert_eq!(waits_for(&model), "nothing");
}

#[test]
fn old_pods_that_are_to_go_are_named() {
    // R2.6: "old replicas are pending termination" is what the phase says.
    let mut model = Model::basic(2, &json!([])).deployed();
    model.image("2");
    model.run_ready();
    let old = model.sets.iter_mut().find(|set| set.wanted == 0).unwrap();
    old.pods = 1;
    model.status.message = None;
    assert_eq!(waits_for(&model), "pods: old replicas to be gone");
}

#[test]
fn a_person_is_named_with_what_to_do() {
    let steps = pause_at(&[20]);
    let mut halted = Model::basic(5, &steps).deployed();
    halted.edit(|spec| spec["paused"] = json!(true));
    halted.run();
    let message = "person: a person to resume, since spec.paused is set";
    assert_eq!(waits_for(&halted), message);

    let analysis =
        json!([{"setWeight": 20}, {"analysis": {"templates": [{"templateName": "good"}]}}]);
    let mut unclear = with_template(Model::basic(5, &analysis)).deployed();
    unclear.image("2");
    unclear.run_ready();
    unclear.runs[0].phase = RunPhase::Inconclusive;
    unclear.run();
    let message = "person: a person to judge an inconclusive analysis: promote or abort";
    assert_eq!(waits_for(&unclear), message);
    assert_eq!(seen(&unclear), "1 Paused InconclusiveAnalysisRun");
}

#[test]
fn after_an_abort_pods_are_named_and_then_a_person() {
    // R11.2: without routing V2's pods go as fast as stable's come.
    let mut model = paused(Model::basic(5, &pause_at(&[60])).deployed());
    model.status.abort = true;
    model.run();
    assert!(model.set("2").wanted > 0);
    assert_eq!(
        waits_for(&model),
        "pods: 5 available pods of ReplicaSet \"V1\""
    );
    model.run_ready();
    assert_eq!(model.set("2").wanted, 0);
    assert_eq!(waits_for(&model), "person: a retry, or another template");

    let mut routed = Model::routed(5, &pause_at(&[60]));
    routed.edit(|spec| spec["strategy"]["canary"]["abortScaleDownDelaySeconds"] = json!(0));
    let mut routed = paused(routed.deployed());
    routed.status.abort = true;
    routed.run_ready();
    assert!(routed.set("2").wanted > 0, "R7.10: 0 keeps it");
    assert_eq!(waits_for(&routed), "person: a retry, or another template");
}

#[test]
fn an_older_revision_that_stays_is_named() {
    // R7.8: of four pods that have to be available V2 has two, which are enough for it (R7.7), and V1 the others.
    let mut model = Model::routed(4, &pause_at(&[50]));
    model.edit(|spec| spec["strategy"]["canary"]["scaleDownDelaySeconds"] = json!(0));
    model.edit(|spec| spec["strategy"]["canary"]["maxUnavailable"] = json!(0));
    let enough = json!({"type": "Percent", "value": 50});
    model.edit(|spec| spec["strategy"]["canary"]["replicaProgressThreshold"] = enough);
    let mut model = paused(model.deployed());
    model.promote();
    while model.status.stable_rs.as_ref() != Some(&model.set("2").hash) {
        assert!(model.turn());
        model.all_ready();
    }
    model.ready("2", 2);
    model.ready("1", 2);
    model.run();
    assert_eq!(seen(&model), "2 Healthy");
    assert_eq!(
        waits_for(&model),
        "pods: the pods of ReplicaSet \"V1\" to go"
    );
}

#[test]
fn a_pause_is_named_in_the_turn_that_scales_too() {
    // R3.3: the step is not looked at then.
    let mut model = paused(Model::basic(5, &pause_at(&[20])).deployed());
    model.edit(|spec| spec["replicas"] = json!(6));
    assert_eq!(waits_for(&model), "pause: the next look at the pause");
}

#[test]
fn pods_beyond_those_that_are_enough_are_named() {
    // R7.7: two of four are enough to go on, and four to be Healthy; a deadline that has passed changes nothing of that.
    let expected = "pods: 4 available pods of ReplicaSet \"V1\"";
    for mut model in [Model::basic(4, &json!([])), Model::routed(4, &json!([]))] {
        let enough = json!({"type": "Percent", "value": 50});
        model.edit(|spec| spec["strategy"]["canary"]["replicaProgressThreshold"] = enough);
        model.run();
        model.ready("1", 2);
        model.run();
        assert_eq!(waits_for(&model), expected);
        model.wait(700);
        model.run();
        assert_eq!((model.phase(), &*waits_for(&model)), ("Degraded", expected));
    }
}

#[test]
fn a_healthy_rollout_waits_for_nothing() {
    let mut model = Model::basic(2, &json!([])).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.set("1").wanted, 0);
    assert_eq!(waits_for(&model), "nothing");
}

#[test]
fn after_an_abort_revisions_without_pods_change_nothing() {
    // R11.2: V1 is long gone, and V3 is to go.
    let mut model = paused(Model::basic(5, &pause_at(&[60])).deployed());
    model.promote();
    model.run_ready();
    model.image("3");
    model.run_ready();
    model.status.abort = true;
    model.run();
    assert_eq!(
        (model.set("1").wanted, model.set("3").wanted > 0),
        (0, true)
    );
    let expected = "pods: 5 available pods of ReplicaSet \"V2\"";
    assert_eq!(waits_for(&model), expected);
}
