//! What a weight needs, and what is noted beside it: edges of `traffic` that whole updates pass by.

use serde_json::json;

use super::Model;
use super::traces::pause_at;
use crate::rollout::decision::Action;
use crate::rollout::observed::Revision;
use crate::rollout::split::{CANARY, STABLE, Split};

fn written(model: &Model) -> &Split {
    &model.split.as_ref().unwrap().split
}

fn needed(model: &Model, tag: &str) -> Option<u32> {
    written(model).needed(&model.set(tag).hash)
}

fn waits_for(model: &Model) -> (&str, &str) {
    let waiting = model.memory.waiting.as_ref().unwrap();
    (waiting.reason.as_str(), waiting.message.as_str())
}

/// Ten pods, at the first pause of these steps.
fn paused(steps: &serde_json::Value) -> Model {
    let mut model = Model::routed(10, steps).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.phase(), "Paused");
    model
}

#[test]
fn a_weight_that_stands_waits_for_no_pods_of_stable() {
    // R8.1: stable has lost pods, and nothing is asked of it.
    let mut model = paused(&pause_at(&[20]));
    model.ready("1", 5);
    model.run();
    assert_eq!(model.weights(), Some((20, 80)));
    assert_eq!(waits_for(&model), ("pause", "a person to promote"));
}

#[test]
fn a_version_without_weight_is_listed_and_changes_nothing_that_is_served() {
    // R7.5 before the first setWeight; R8.5: what was verified is what is still served.
    let steps = json!([{"setCanaryScale": {"replicas": 1}}, {"pause": {}}]);
    let mut model = Model::routed(4, &steps).deployed();
    model.image("2");
    model.run();
    assert_eq!(needed(&model, "2"), None, "it has no pods yet");
    model.prompt = false;
    model.ready("2", 1);
    model.run();
    assert_eq!(needed(&model, "2"), Some(1));
    let weights = &written(&model).rules[0].weights;
    assert_eq!((weights[STABLE], weights[CANARY]), (100, 0));
    let verified = model.status.canary.weights.as_ref().unwrap().verified;
    assert_eq!(verified, Some(true));
}

#[test]
fn a_weight_held_over_a_canary_scaled_to_nothing_needs_what_it_needed() {
    // R8.2, R7.5
    let steps = json!([{"setWeight": 50}, {"pause": {}}, {"setCanaryScale": {"replicas": 0}}, {"pause": {}}]);
    let mut model = paused(&steps);
    model.ready("1", 2);
    model.promote();
    model.run();
    assert_eq!(model.weights(), Some((50, 50)), "stable cannot carry more");
    assert_eq!((needed(&model, "2"), model.set("2").wanted), (Some(5), 5));
}

#[test]
fn a_version_that_leaves_needs_what_its_weight_needs() {
    // R7.6: the floor is for the step's own version; R8.4: what stable cannot carry stays with V2.
    let mut model = Model::dynamic(10, &pause_at(&[50]));
    model.edit(|spec| spec["strategy"]["canary"]["minPodsPerReplicaSet"] = json!(8));
    let mut model = model.deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(needed(&model, "2"), Some(8));
    model.ready("1", 5);
    model.image("3");
    model.run();
    assert_eq!(model.weights(), Some((50, 50)));
    assert_eq!(needed(&model, "2"), Some(5));
}

/// A deployed rollout, with an older revision of so many pods that no Service lists.
fn with_leftover(pods: i32, wanted: i32) -> Model {
    let mut model = Model::routed(2, &pause_at(&[50])).deployed();
    let leftover = Revision {
        name: "web-old".to_owned(),
        uid: "u-old".to_owned(),
        hash: "old".to_owned(),
        pods,
        wanted,
        ..model.set("1").clone()
    };
    let leftover = Revision {
        has_service: false,
        ..leftover
    };
    model.sets.push(leftover);
    model
}

#[test]
fn a_revision_counts_while_it_has_pods_or_is_to_have_some() {
    // R7.9: when it was left is noted, and a Service lists its pods (control-plane rules, section 3).
    for (pods, wanted, counts) in [(0, 0, false), (1, 0, true), (0, 1, true), (1, 1, true)] {
        let decision = with_leftover(pods, wanted).decide();
        let row = format!("{pods} pods of {wanted}");
        assert_eq!(decision.memory.left.contains_key("old"), counts, "{row}");
        let listed = |action: &Action| matches!(action, Action::EnsureRevisionService { hash, .. } if hash == "old");
        assert_eq!(decision.actions.iter().any(listed), counts, "{row}");
    }
}

#[test]
fn a_revision_that_comes_back_has_not_been_left() {
    let mut model = paused(&pause_at(&[50, 60]));
    model.promote();
    model.run_ready();
    model.promote();
    model.run_ready();
    let hash = model.set("1").hash.clone();
    assert!(model.memory.left.contains_key(&hash), "in its delay");
    model.prompt = false;
    model.image("1");
    while !written(&model).lists(&hash) {
        assert!(model.turn());
    }
    assert!(!model.memory.left.contains_key(&hash));
}

#[test]
fn a_weight_that_somebody_wrote_by_hand_is_no_weight_in_force() {
    // R8.1: the step asks for 60, its pods are not there, and somebody has not waited for them.
    let mut model = Model::routed(10, &pause_at(&[20, 60])).deployed();
    model.image("2");
    model.run_ready();
    model.promote();
    model.run();
    assert_eq!(
        (model.set("2").wanted, model.weights()),
        (6, Some((20, 80)))
    );
    let rule = &mut model.split.as_mut().unwrap().split.rules[0];
    rule.weights = [("canary".to_owned(), 60), ("stable".to_owned(), 40)].into();
    model.run();
    let rule = &model.split.as_ref().unwrap().split.rules[0];
    assert_eq!(rule.weights["canary"], 20);
}

#[test]
fn ports_of_the_proxies_are_written_into_the_split_of_either_strategy() {
    for (model, service) in [
        (Model::routed(2, &json!([])), "web-stable"),
        (Model::blue_green_routed(2, &json!({})), "web-active"),
    ] {
        let apex = crate::api::split::Apex {
            service: service.to_owned(),
            port: "http".to_owned(),
            listen: 10001,
        };
        let model = model.deployed();
        let mut observed = model.observed();
        observed.apexes = vec![apex.clone()];
        let plan = model.plan().unwrap();
        let decision = crate::rollout::decide(&plan, &model.state(), &observed, model.now);
        let mut actions = decision.actions.iter();
        let writes = |action: &Action| matches!(action, Action::WriteSplit(split) if split.apexes == [apex.clone()]);
        assert!(actions.any(writes), "{decision:#?}");
    }
}
