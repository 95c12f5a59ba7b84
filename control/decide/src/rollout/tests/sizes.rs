//! Edges of the sizes of a canary's ReplicaSets: what holds a step back, what shrinks when, and what is left alone.

use serde_json::json;

use super::Model;
use super::traces::{ABORTED, pause_at, scaled, seen};
use crate::api::labels;
use crate::rollout::decision::{Action, Decision};

/// Updated to V2, as far as the steps go by themselves.
fn updated(model: Model) -> Model {
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    model
}

/// A canary without pods, and a step that is a person's.
fn empty() -> Model {
    let steps = json!([{"setCanaryScale": {"replicas": 0}}, {"pause": {}}]);
    updated(Model::routed(5, &steps))
}

fn hash(model: &Model, tag: &str) -> String {
    model.set(tag).hash.clone()
}

/// The wait that is named.
fn waits_for(decision: &Decision) -> (&str, &str) {
    let waiting = decision.memory.waiting.as_ref().unwrap();
    (&waiting.reason, &waiting.message)
}

/// New sizes of a ReplicaSet.
fn sizes(decision: &Decision, model: &Model, tag: &str) -> Vec<i32> {
    let of = &model.set(tag).name;
    let mut sizes = Vec::new();
    for action in &decision.actions {
        if let Action::ScaleReplicaSet { name, to, .. } = action
            && name == of
        {
            sizes.push(*to);
        }
    }
    sizes
}

// Steps: R7.7.

#[test]
fn a_step_waits_for_old_pods_to_go() {
    // Stable has its size, but not all of its pods have gone.
    let mut model = Model::basic(5, &pause_at(&[20, 40])).deployed();
    model.image("2");
    while seen(&model) != "1 Paused CanaryPauseStep" {
        assert!(model.turn());
        model.all_ready();
    }
    model.status.current_step_index = Some(0);
    model.status.pause_conditions.clear();
    model.status.controller_pause = false;
    let step = |model: &Model| model.decide().status.current_step_index;
    assert_eq!(step(&model), Some(1));
    let old = model.sets.iter_mut().find(|set| set.wanted == 4).unwrap();
    old.pods = 5;
    assert_eq!(step(&model), Some(0));
}

#[test]
fn a_step_waits_for_the_pods_of_overtaken_revisions_to_go() {
    let mut model = updated(Model::basic(10, &pause_at(&[40])));
    model.image("3");
    let mut before = None;
    for index in [0, 1] {
        while model.status.current_step_index != Some(index) {
            before = Some(model.set("2").available);
            assert!(model.turn());
            model.all_ready();
        }
    }
    assert_eq!(before, Some(0));
}

// Overtaken revisions without routing: R7.8.

#[test]
fn overtaken_pods_go_as_fast_as_others_come() {
    // Of ten pods two may be missing and three more be there. V2 had four.
    let mut model = updated(Model::basic(10, &pause_at(&[40])));
    scaled(&mut model);
    model.image("3");
    model.run_ready();
    assert_eq!(scaled(&mut model), ["V3 0-3", "V2 4-0", "V3 3-4"]);
}

#[test]
fn the_newest_goes_first_and_the_others_give_what_is_left() {
    // Ten pods are wanted, two of them may be missing, and V4 has none yet: of the fourteen that are there six are too many, of which V3
    // has four.
    let mut model = updated(Model::basic(10, &pause_at(&[40])));
    for tag in ["3", "4"] {
        model.image(tag);
        model.turn();
    }
    for (tag, pods, ready) in [("1", 6, 6), ("2", 4, 4), ("3", 4, 4), ("4", 4, 0)] {
        let name = model.set(tag).name.clone();
        let set = model.sets.iter_mut().find(|set| set.name == name).unwrap();
        (set.wanted, set.pods, set.ready, set.available) = (pods, pods, ready, ready);
        let noted = (labels::DESIRED_REPLICAS.to_owned(), "10".to_owned());
        set.annotations.extend([noted]);
    }
    while model.decide().actions.is_empty() {
        assert!(model.turn()); // it begins anew
    }
    let decision = model.decide();
    let of = |tag| sizes(&decision, &model, tag);
    assert_eq!((of("3"), of("2")), (vec![0], vec![2]));
}

// Behind acknowledged traffic: control-plane rules, section 4.

#[test]
fn what_has_its_size_waits_for_nobody() {
    // A proxy that comes later has acknowledged nothing yet, and nothing is to shrink.
    let mut model = updated(Model::routed(5, &pause_at(&[20])));
    model.proxies.push("proxy-3".to_owned());
    let decision = model.decide();
    assert_eq!(waits_for(&decision), ("pause", "a person to promote"));
}

#[test]
fn a_pause_waits_for_a_person_and_is_seldom_looked_at() {
    for model in [empty(), updated(Model::routed(5, &pause_at(&[20])))] {
        let decision = model.decide();
        assert_eq!(waits_for(&decision), ("pause", "a person to promote"));
        assert_eq!(
            decision.again,
            Some(crate::rollout::time::after(model.now, 300))
        );
    }
}

#[test]
fn nothing_is_kept_where_nothing_is_wanted() {
    // With `spec.replicas` of 0 a canary goes though it is listed, and has requests.
    let mut model = updated(Model::routed(5, &pause_at(&[20])));
    model.in_flight.insert(hash(&model, "2"), 1);
    model.edit(|spec| spec["replicas"] = json!(0));
    model.run();
    assert_eq!(model.set("2").wanted, 0);
}

#[test]
fn requests_have_their_time_and_no_more() {
    // At the end of the drain timeout, which begins when every proxy has left V1.
    let mut model = updated(Model::routed(5, &json!([{"setWeight": 50}])));
    model.in_flight.insert(hash(&model, "1"), 1);
    let left = model.memory.left[&hash(&model, "1")].0;
    let deadline = model.set("1").deadline().unwrap();
    model.now = left + jiff::SignedDuration::from_secs(300);
    assert!(model.now > deadline);
    assert_eq!(sizes(&model.decide(), &model, "1"), [0]);
}

#[test]
fn ready_pods_of_an_overtaken_revision_stay_until_it_goes() {
    // A pod that is ready works before it counts as available: of V2's four three are ready, and one is available.
    let mut model = updated(Model::routed(10, &pause_at(&[40])));
    model.image("3");
    model.run();
    model.ready("3", 1);
    model.run();
    let of_v2 = hash(&model, "2");
    let set = model.sets.iter_mut().find(|set| set.hash == of_v2).unwrap();
    (set.wanted, set.pods, set.ready, set.available) = (4, 4, 3, 1);
    let left = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(model.now);
    model.memory.left.insert(of_v2, left);
    assert_eq!(sizes(&model.decide(), &model, "2"), [3]);
}

// After an abort: R7.10.

#[test]
fn an_aborted_canary_goes_at_its_deadline() {
    let mut model = updated(Model::routed(5, &pause_at(&[20])));
    model.status.abort = true;
    model.run();
    model.now = model.set("2").deadline().unwrap();
    model.run();
    assert_eq!(model.set("2").wanted, 0);
}

#[test]
fn an_aborted_canary_without_pods_has_no_deadline() {
    let mut model = empty();
    model.status.abort = true;
    model.run();
    assert_eq!(
        (seen(&model).as_str(), model.set("2").deadline()),
        (ABORTED, None)
    );
}

#[test]
fn an_aborted_canary_is_drained_where_sizes_follow_weights() {
    let mut model = updated(Model::dynamic(5, &pause_at(&[20])));
    model.status.abort = true;
    model.in_flight.insert(hash(&model, "2"), 1);
    model.run_ready();
    let named = |model: &Model| waits_for(&model.decide()).0.to_owned();
    assert_eq!(
        (model.set("2").wanted, named(&model).as_str()),
        (1, "drain")
    );
    model.in_flight.clear();
    model.run_ready();
    assert_eq!(
        (model.set("2").wanted, named(&model).as_str()),
        (0, "person")
    );
    // A proxy that counts late counts for nothing: there are no pods to keep for it.
    model.in_flight.insert(hash(&model, "2"), 1);
    assert_eq!(named(&model), "person");
}

// At the end: R7.9.

#[test]
fn what_has_no_pods_has_no_deadline() {
    let mut model = updated(Model::routed(5, &json!([{"setWeight": 50}])));
    model.wait(31);
    model.run();
    let old = model.set("1");
    assert_eq!((old.wanted, old.deadline()), (0, None));
    assert!(model.memory.waiting.is_none());
}

#[test]
fn an_old_revision_goes_at_its_deadline() {
    let mut model = updated(Model::routed(5, &json!([{"setWeight": 50}])));
    model.now = model.set("1").deadline().unwrap();
    model.run();
    assert_eq!(model.set("1").wanted, 0);
}

#[test]
fn a_deadline_that_begins_counts_for_the_limit() {
    // Of one that may wait V2 is the one: in the turn that gives it a deadline V1 goes, whose own is not over.
    let mut model = Model::routed(5, &json!([{"setWeight": 50}]));
    model.edit(|spec| spec["strategy"]["canary"]["scaleDownDelayRevisionLimit"] = json!(1));
    let mut model = updated(model);
    assert!(model.set("1").deadline().is_some());
    model.image("3");
    for _ in 0..40 {
        let decision = model.decide();
        let begins = decision.actions.iter().any(|action| {
            matches!(action, Action::AnnotateReplicaSet { name, set, .. }
                if *name == model.set("2").name && set.contains_key(labels::SCALE_DOWN_DEADLINE))
        });
        if begins {
            return assert_eq!(sizes(&decision, &model, "1"), [0]);
        }
        model.turn();
        model.all_ready();
    }
    panic!("V2 gets no deadline");
}
