//! Restarts, turn by turn, and what goes before them.

use jiff::SignedDuration;
use serde_json::json;

use super::Model;
use crate::rollout::decision::Action;

/// The pods that the next decision evicts: `V2 pod-7`.
fn evicted(model: &Model) -> Vec<String> {
    let decision = model.decide();
    let names = decision.actions.iter().filter_map(|action| {
        let Action::EvictPod { name, .. } = action else {
            return None;
        };
        Some(name)
    });
    let tag = |name: &String| {
        let pod = model.pods.iter().find(|pod| pod.name == *name).unwrap();
        let mut sets = model.sets.iter();
        let set = sets.find(|set| set.uid == pod.replica_set).unwrap();
        let image = &set.template["spec"]["containers"][0]["image"];
        format!("{} {name}", image.as_str().unwrap().replace("nginx:", "V"))
    };
    names.map(tag).collect()
}

/// Phase, message and counts, in a line.
fn seen(model: &Model) -> String {
    let status = &model.status;
    let (replicas, available) = (status.replicas, status.available_replicas);
    let text = format!(
        "{} {} {replicas}/{available}",
        model.phase(),
        model.message()
    );
    text.replace("  ", " ")
}

fn at_the_pause(model: Model) -> Model {
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.phase(), "Paused");
    model
}

#[test]
fn one_pod_goes_after_the_other() {
    let steps = json!([{"setWeight": 50}, {"pause": {}}]);
    let mut model = Model::basic(4, &steps).deployed();
    model.wait(5);
    model.restart();
    let mut gone = Vec::new();
    for round in 1..=4 {
        model.turn();
        assert_eq!(
            seen(&model),
            "Progressing rollout is restarting 4/4",
            "{round}"
        );
        model.turn();
        assert_eq!(
            seen(&model),
            "Progressing rollout is restarting 4/3",
            "{round}"
        );
        model.assert_still(); // until its replacement is available
        gone.extend(
            model
                .pods
                .iter()
                .filter(|pod| pod.terminating)
                .map(|pod| pod.name.clone()),
        );
        if round < 4 {
            model.wait(1);
            model.all_ready();
        }
    }
    assert_eq!(gone, ["pod-1", "pod-2", "pod-3", "pod-4"]);
    let again = model.decide().again.unwrap();
    assert!(again <= model.now + SignedDuration::from_secs(2), "{again}");
    model.bury();
    model.turn();
    assert_eq!(
        seen(&model),
        "Progressing updated replicas are still becoming available 4/3"
    );
    model.all_ready();
    model.run();
    assert_eq!(seen(&model), "Healthy 4/4");
    assert_eq!(model.status.restarted_at, model.rollout.spec.restart_at);
    assert_eq!(model.status.current_step_index, Some(2));
}

#[test]
fn stable_goes_first_then_the_new_one_then_older_ones() {
    let steps = json!([{"setWeight": 50}, {"pause": {}}]);
    let mut model = at_the_pause(Model::routed(2, &steps));
    model.wait(5);
    model.image("3");
    model.run();
    model.wait(5);
    model.restart();
    let mut order = Vec::new();
    for _ in 0..20 {
        order.extend(
            evicted(&model)
                .iter()
                .filter_map(|pod| Some(pod.split_once(' ')?.0.to_owned())),
        );
        model.turn();
        model.all_ready();
    }
    order.dedup();
    // What nobody needs any more is gone before anything is evicted.
    assert_eq!(order, ["V1", "V3"]);
    assert_eq!(model.status.restarted_at, model.rollout.spec.restart_at);
}

#[test]
fn what_may_be_missing_is_missing_and_no_more() {
    let strategy = json!({"maxUnavailable": 3, "steps": []});
    let mut model = Model::new(10, &strategy).deployed();
    model.wait(5);
    model.restart();
    assert_eq!(evicted(&model).len(), 3);
    model.ready("1", 9);
    assert_eq!(evicted(&model).len(), 2);
    model.ready("1", 7);
    assert_eq!(evicted(&model).len(), 0);
}

#[test]
fn counts_that_lag_behind_the_pods_are_not_believed() {
    let mut model = Model::basic(4, &json!([])).deployed();
    model.wait(5);
    model.restart();
    model.turn();
    let name = model.set("1").name.clone();
    let set = model.sets.iter_mut().find(|set| set.name == name).unwrap();
    set.available = 4;
    let mut observed = model.observed();
    for pod in observed.pods.iter_mut().flatten() {
        pod.ready_since = pod.ready_since.filter(|_| pod.name != "pod-5");
    }
    let plan = model.plan().unwrap();
    let decision = crate::rollout::decide(&plan, &model.state(), &observed, model.now);
    assert_eq!(decision.actions, []);
}

#[test]
fn a_refused_eviction_is_tried_again_after_30_seconds() {
    let mut model = Model::basic(4, &json!([])).deployed();
    model.wait(5);
    model.restart();
    model.turn();
    model.all_ready();
    let before = (model.decide(), evicted(&model));
    assert_eq!(before.1, ["V1 pod-2"]);
    assert_eq!(
        before.0.again,
        Some(model.now + SignedDuration::from_secs(30))
    );
    model.wait(30);
    assert_eq!(evicted(&model), before.1, "nothing has changed");
    assert_eq!(model.memory.waiting.as_ref().unwrap().reason, "pods");
}

#[test]
fn an_abort_comes_first() {
    let steps = json!([{"setWeight": 50}, {"pause": {}}]);
    let mut model = at_the_pause(Model::routed(4, &steps));
    model.wait(5);
    model.restart();
    model.status.abort = true;
    while model.weights() != Some((0, 100)) {
        assert_eq!(evicted(&model), [""; 0], "{}", seen(&model));
        assert!(model.turn(), "{}", seen(&model));
    }
    model.run();
    assert_eq!(model.pods.iter().filter(|pod| pod.terminating).count(), 1);
}

#[test]
fn a_later_time_is_waited_for_and_another_template_is_a_restart() {
    let steps = json!([{"setWeight": 50}, {"pause": {}}]);
    let mut model = Model::basic(4, &steps).deployed();
    let at = model.now + SignedDuration::from_secs(60);
    model.edit(|spec| spec["restartAt"] = json!(at.to_string()));
    model.run();
    assert_eq!(seen(&model), "Progressing rollout is restarting 4/4");
    assert_eq!(evicted(&model), [""; 0]);
    let again = model.decide().again.unwrap();
    assert!(
        again > at && again <= at + SignedDuration::from_secs(1),
        "{again}"
    );
    model.image("2");
    model.run_ready();
    assert_eq!(model.phase(), "Paused");
    model.wait(120);
    assert_eq!(evicted(&model), [""; 0]);
}
