//! Weights of an experiment (R8.1 d and f, R8.3, R17.6): they come from stable's share. Nothing runs Experiments yet; here one would.

use serde_json::json;

use super::Model;
use super::traces::told;
use crate::rollout::observed::Experimental;

fn version(name: &str, weight: i32) -> Experimental {
    Experimental {
        name: name.to_owned(),
        service: format!("web-{name}"),
        hash: format!("hash-{name}"),
        pods: 2,
        weight,
    }
}

/// Updated as far as a pause with the canary at 20.
fn updated() -> Model {
    let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}, {"pause": {}}]);
    let mut model = Model::routed(10, &steps).deployed();
    model.image("2");
    model.run_ready();
    model.events.clear();
    model
}

/// With an experiment that begins there.
fn tried(versions: &[(&str, i32)]) -> Model {
    let mut model = updated();
    model.experiment = versions
        .iter()
        .map(|(name, weight)| version(name, *weight))
        .collect();
    model.run();
    model
}

/// Weights of the weighted rule.
type Rule = Vec<(String, u32)>;

/// Weights of the status: canary, stable, the others.
type Recorded = (i32, i32, Vec<i32>);

fn weights(model: &Model) -> (Rule, Recorded) {
    let rule = &model.split.as_ref().unwrap().split.rules[0];
    let rule = rule.weights.iter();
    let recorded = model.status.canary.weights.clone().unwrap();
    let others = recorded.additional.iter().map(|other| other.weight);
    (
        rule.map(|(name, weight)| (name.clone(), *weight)).collect(),
        (
            recorded.canary.weight,
            recorded.stable.weight,
            others.collect(),
        ),
    )
}

#[test]
fn an_experiment_takes_from_stable() {
    // R8.3: weights asked for → stable's, the experiment's. What stable does not have nobody gets.
    for (asked, stable, got) in [
        (vec![], 80, vec![]),
        (vec![("baseline", 5)], 75, vec![5]),
        (vec![("baseline", 5), ("canary", 5)], 70, vec![5, 5]),
        (vec![("a", 0), ("b", 80)], 0, vec![0, 80]),
        (vec![("a", 50), ("b", 50), ("c", 1)], 0, vec![50, 30, 0]),
        (vec![("a", -5)], 80, vec![0]),
    ] {
        let model = tried(&asked);
        let (rule, recorded) = weights(&model);
        assert_eq!(recorded, (20, stable, got.clone()), "{asked:?}");
        let mut expected: Vec<(String, u32)> = vec![
            ("canary".to_owned(), 20),
            ("stable".to_owned(), stable.try_into().unwrap()),
        ];
        expected.extend(asked.iter().zip(got).map(|((name, _), weight)| {
            let weight = weight.try_into().unwrap();
            (format!("experiment-{name}"), weight)
        }));
        expected.sort();
        assert_eq!(rule, expected, "{asked:?}");
    }
}

#[test]
fn the_split_leads_to_the_experiments_own_service() {
    let mut model = tried(&[("canary", 5)]);
    let split = model.split.clone().unwrap().split;
    let revisions = split.revisions().map(|version| version.revision.clone());
    let services = revisions.map(|hash| (hash.clone(), format!("rev-{hash}")));
    let spec = split.spec(&services.collect());
    assert_eq!(crate::rollout::Split::read(&spec), split, "there and back");
    let (stable, canary) = (&model.set("1").hash, &model.set("2").hash);
    let expected = json!([
        {"name": "stable", "revision": stable, "service": format!("rev-{stable}"), "needed": 10},
        {"name": "canary", "revision": canary, "service": format!("rev-{canary}"), "needed": 2},
        {"name": "experiment-canary", "revision": "hash-canary", "service": "web-canary", "needed": 2},
    ]);
    assert_eq!(serde_json::to_value(&spec.versions).unwrap(), expected);
    assert_eq!(
        told(&mut model),
        [
            "Normal TrafficWeightUpdated: Traffic weight updated additional: [{5 web-canary hash-canary}]"
        ]
    );
}

#[test]
fn an_experiment_made_of_stables_template_is_another_version() {
    // R17.1: the hash is that of its template, and `specRef: stable` takes stable's.
    let mut model = updated();
    let hash = model.set("1").hash.clone();
    let same = Experimental {
        hash: hash.clone(),
        ..version("baseline", 30)
    };
    model.experiment = vec![same];
    model.run();
    assert_eq!(weights(&model).1, (20, 50, vec![30]));
    let split = &model.split.as_ref().unwrap().split;
    assert_eq!(split.needed(&hash), Some(10), "stable's own");
    model.promote();
    model.experiment.clear();
    model.run_ready();
    model.promote();
    model.run_ready();
    assert_eq!(model.phase(), "Healthy");
    model.wait(31);
    model.run();
    assert_eq!(model.set("1").wanted, 0, "it is drained as ever");
}

#[test]
fn its_weights_are_verified_like_others() {
    let mut model = updated();
    let verified = |model: &Model| model.status.canary.weights.clone().unwrap().verified;
    assert_eq!(verified(&model), Some(true));
    model.prompt = false;
    for asked in [vec![version("a", 5)], vec![version("b", 5)], vec![]] {
        model.experiment = asked;
        model.run();
        assert_eq!(verified(&model), Some(false), "{:?}", model.experiment);
        assert!(model.memory.verified.is_none());
        model.acknowledge();
        model.run();
        assert_eq!(verified(&model), Some(true), "{:?}", model.experiment);
    }
}

#[test]
fn it_ends_with_what_it_is_part_of() {
    // R8.1 b, c, e: an update that is over, aborted or promoted in full has no experiment.
    for end in ["abort", "full", "end"] {
        let mut model = tried(&[("baseline", 5)]);
        match end {
            "abort" => model.status.abort = true,
            "full" => model.status.promote_full = true,
            _ => {
                let goes_on = std::mem::take(&mut model.experiment);
                model.promote();
                model.run_ready();
                model.experiment = goes_on;
                model.promote();
            }
        }
        model.turn();
        assert_eq!(weights(&model).1.2, [0_i32; 0], "{end}");
    }
}

#[test]
fn it_stands_beside_a_canary_that_has_no_pods() {
    // R8.1 d
    let steps = json!([{"setCanaryScale": {"replicas": 0}}, {"setWeight": 0}, {"pause": {}}]);
    let mut model = Model::routed(4, &steps).deployed();
    model.image("2");
    model.experiment = vec![version("baseline", 10)];
    model.run();
    let (rule, recorded) = weights(&model);
    let expected = [("experiment-baseline", 10), ("stable", 90)];
    assert_eq!(
        rule,
        expected.map(|(name, weight)| (name.to_owned(), weight))
    );
    assert_eq!(recorded, (0, 90, vec![10]));
}

#[test]
fn stable_keeps_the_pods_for_its_share() {
    // R7.6: its share is stable's again at once when it ends, so that sizes which follow weights do not follow this one.
    let steps = json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 40}, {"pause": {}}]);
    let mut model = Model::dynamic(10, &steps).deployed();
    model.image("2");
    model.run_ready();
    assert_eq!(model.set("1").wanted, 8);
    model.experiment = vec![version("baseline", 30)];
    model.run_ready();
    assert_eq!(weights(&model).1, (20, 50, vec![30]));
    model.promote();
    for _ in 0..20 {
        model.turn();
        let canary = model.weights().unwrap().0;
        let stable = model.set("1").wanted;
        assert!(stable * 10 >= 100 - canary, "{stable} pods at {canary}");
    }
    model.run_ready();
    assert_eq!(weights(&model).1, (40, 30, vec![30]));
    assert_eq!(model.set("1").wanted, 6);
}

#[test]
fn what_an_experiment_was_served_with_by_hand_was_not_verified() {
    // R8.5: somebody has given all of the experiment's share to one version; nobody else has more or less. A version without a share
    // is served nothing, and may come and go.
    for (asked, weights, verified) in [
        ([("a", 5), ("b", 5)], [Some(10), Some(0)], false),
        ([("a", 5), ("b", 0)], [Some(5), None], true),
    ] {
        let mut model = tried(&asked);
        let written = model.split.as_mut().unwrap();
        for (name, weight) in ["experiment-a", "experiment-b"].into_iter().zip(weights) {
            let rule = &mut written.split.rules[0].weights;
            match weight {
                Some(weight) => drop(rule.insert(name.to_owned(), weight)),
                None => drop(rule.remove(name)),
            }
        }
        written.generation += 1;
        let generation = Some(written.generation);
        model.memory.generation = generation;
        model.acknowledge();
        model.prompt = false;
        model.turn();
        let recorded = model.status.canary.weights.clone().unwrap();
        assert_eq!(recorded.verified, Some(verified), "{asked:?}");
    }
}
