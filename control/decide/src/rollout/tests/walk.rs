//! Random walks: users who change their minds, pods that come and go, proxies that lag, a controller that dies between any two writes.
//! After every write what must always hold is checked; at the end the rollout must come to rest where its spec wants it.

use serde_json::json;

use super::Model;
use super::traces::with_template;
use crate::analysis::build::Role;
use crate::rollout::decision::{Action, Decision};
use crate::rollout::observed::{Revision, Run, RunPhase, Service};
use crate::rollout::plan::Step;
use crate::rollout::split::{CANARY, Split};

/// Splitmix64: small, seeded, good enough to choose from a list.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let sides = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.roll(sides)).unwrap()].clone()
    }
}

#[test]
fn routed_rollouts_are_safe_and_end_healthy() {
    for seed in 0..80 {
        walk(seed, true, |dice, replicas| {
            Model::routed(replicas, &dice.pick(&lists()))
        });
    }
}

#[test]
fn rollouts_with_dynamic_sizes_are_safe_and_end_healthy() {
    for seed in 0..80 {
        walk(seed, true, |dice, replicas| {
            Model::dynamic(replicas, &dice.pick(&lists()))
        });
    }
}

#[test]
fn basic_rollouts_are_safe_and_end_healthy() {
    for seed in 0..40 {
        walk(seed, false, |dice, replicas| {
            Model::basic(replicas, &dice.pick(&lists()))
        });
    }
}

#[test]
fn blue_green_rollouts_are_safe_and_end_healthy() {
    for seed in 0..80 {
        walk(seed, false, |dice, replicas| {
            with_template(Model::blue_green(replicas, &dice.pick(&blue_greens())))
        });
    }
}

#[test]
fn routed_blue_green_rollouts_are_safe_and_end_healthy() {
    for seed in 0..80 {
        walk(seed, true, |dice, replicas| {
            with_template(Model::blue_green_routed(
                replicas,
                &dice.pick(&blue_greens()),
            ))
        });
    }
}

fn walk(seed: u64, routed: bool, begin: impl Fn(&mut Dice, i32) -> Model) {
    let mut dice = Dice(seed);
    let replicas = dice.pick(&[1, 2, 3, 5, 10]);
    let mut model = begin(&mut dice, replicas);
    model.prompt = false;
    for step in 0..150 {
        let what = act(&mut model, &mut dice, routed);
        check(&model, routed, &format!("seed {seed}, step {step}: {what}"));
    }
    come_to_rest(&mut model, seed, routed);
}

fn lists() -> [serde_json::Value; 5] {
    [
        json!([]),
        json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}]),
        json!([{"setWeight": 100}, {"pause": {"duration": 5}}, {"setWeight": 10}, {"pause": {}}]),
        json!([{"setWeight": 50}, {"setWeight": 0}, {"setWeight": 34}, {"pause": {"duration": "1m"}}]),
        json!([{"pause": {}}, {"setWeight": 5}, {"setWeight": 95}]),
    ]
}

fn blue_greens() -> [serde_json::Value; 7] {
    let good = json!({"templates": [{"templateName": "good"}]});
    [
        json!({"prePromotionAnalysis": good, "postPromotionAnalysis": good, "autoPromotionSeconds": 3}),
        json!({"prePromotionAnalysis": good, "previewReplicaCount": 1}),
        json!({}),
        json!({"autoPromotionEnabled": false}),
        json!({"autoPromotionSeconds": 5, "scaleDownDelaySeconds": 60}),
        json!({"autoPromotionEnabled": false, "previewReplicaCount": 1, "scaleDownDelayRevisionLimit": 1}),
        json!({"previewReplicaCount": 2, "abortScaleDownDelaySeconds": 5, "scaleDownDelaySeconds": 0}),
    ]
}

/// One thing happens.
fn act(model: &mut Model, dice: &mut Dice, routed: bool) -> &'static str {
    match dice.roll(32) {
        0..=12 => turn(model, dice, routed),
        13..=19 => pods(model, dice),
        20..=23 => proxies(model, dice),
        24..=25 => {
            model.wait(i64::try_from(dice.roll(40)).unwrap());
            "time"
        }
        _ => user(model, dice),
    }
}

/// A turn, whole or broken off.
fn turn(model: &mut Model, dice: &mut Dice, routed: bool) -> &'static str {
    let decision = model.decide();
    allowed(model, &decision, routed);
    if dice.roll(4) > 0 {
        model.turn();
        return "turn";
    }
    let count = u64::try_from(decision.actions.len()).unwrap();
    let done = usize::try_from(dice.roll(count + 1)).unwrap();
    model.apply(decision, done);
    "half a turn"
}

fn pods(model: &mut Model, dice: &mut Dice) -> &'static str {
    model.follow();
    let count = model.sets.len();
    for set in model.sets.iter_mut().skip(count.saturating_sub(3)) {
        match dice.roll(5) {
            0 => set.ready = (set.ready - 1).max(0),
            1 => set.ready = set.pods,
            _ => set.ready = (set.ready + 1).min(set.pods),
        }
        set.available = set.ready;
    }
    verdicts(model, dice);
    "pods"
}

/// Most analyses are good.
fn verdicts(model: &mut Model, dice: &mut Dice) {
    let open = |run: &&mut Run| !run.phase.is_finished();
    for run in model.runs.iter_mut().filter(open) {
        run.phase = match dice.roll(8) {
            0..=3 => RunPhase::Successful,
            4 => RunPhase::Failed,
            5 => RunPhase::Inconclusive,
            _ => run.phase,
        };
    }
}

fn proxies(model: &mut Model, dice: &mut Dice) -> &'static str {
    match dice.roll(3) {
        0 => {
            let proxy = dice.pick(&model.proxies);
            model
                .serving
                .extend(model.split.clone().map(|split| (proxy, split)));
        }
        1 => model.acknowledge(),
        _ => {
            let set = dice.pick(
                &model
                    .sets
                    .iter()
                    .map(|set| set.hash.clone())
                    .chain([String::new()])
                    .collect::<Vec<_>>(),
            );
            let requests = dice.roll(2);
            model.in_flight.insert(set, requests);
        }
    }
    "proxies"
}

fn user(model: &mut Model, dice: &mut Dice) -> &'static str {
    match dice.roll(12) {
        0..=2 => model.image(dice.pick(&["1", "2", "3", "4"])),
        3 => model.status.abort = true,
        4 => model.status.abort = false,
        5 => model.status.promote_full = model.status.current_pod_hash != model.status.stable_rs,
        6 => {
            let replicas = dice.pick(&[0, 1, 2, 4, 8]);
            model.edit(|spec| spec["replicas"] = json!(replicas));
        }
        7 => {
            let paused = dice.roll(3) == 0;
            model.edit(|spec| spec["paused"] = json!(paused));
        }
        8 => {
            let steps = dice.pick(&lists());
            model.edit(|spec| match spec["strategy"].get_mut("canary") {
                Some(canary) => canary["steps"] = steps,
                None => {
                    let automatic = json!(dice.roll(2) == 0);
                    spec["strategy"]["blueGreen"]["autoPromotionEnabled"] = automatic;
                }
            });
        }
        9 => model.restart(),
        10 => {
            let revisions = dice.roll(3);
            model.edit(|spec| spec["rollbackWindow"] = json!({"revisions": revisions}));
        }
        _ => model.status.pause_conditions.clear(),
    }
    "user"
}

fn served(model: &Model) -> impl Iterator<Item = &Split> {
    model
        .proxies
        .iter()
        .filter_map(|proxy| model.serving.get(proxy))
        .map(|written| &written.split)
}

/// Weight of a revision in a table's weighted rule.
fn weight(split: &Split, hash: &str) -> u32 {
    let of_hash = split
        .versions
        .iter()
        .filter(|version| version.revision == hash);
    of_hash
        .map(|version| {
            split.rules[0]
                .weights
                .get(&version.name)
                .copied()
                .unwrap_or(0)
        })
        .sum()
}

/// What no decision may do.
fn allowed(model: &Model, decision: &Decision, routed: bool) {
    evictions_leave_enough(model, decision);
    for action in &decision.actions {
        if let Action::WriteSplit(split) = action {
            raise_is_carried(model, decision, split);
            stable_is_not_overrun(model, split);
        }
        if let Action::ScaleReplicaSet { name, from, to, .. } = action
            && to < from
        {
            if routed {
                shrink_is_safe(model, name, *to);
            }
            active_keeps_its_pods(model, name, *to);
        }
        if let Action::SwitchService { name, hash } = action
            && name == "web-active"
        {
            switch_is_carried(model, hash);
        }
    }
}

/// What the active Service leads to keeps all pods that are wanted.
fn active_keeps_its_pods(model: &Model, name: &str, to: i32) {
    let set = model.sets.iter().find(|set| set.name == name).unwrap();
    let mut services = model.services.iter();
    let active = services.find(|service| service.name == "web-active");
    if active.and_then(Service::hash) == Some(&set.hash) {
        let replicas = model.rollout.spec.replicas.unwrap();
        assert!(to >= replicas.min(set.available), "{name} to {to}");
    }
}

/// R14.5: the active Service goes forward to all pods, and back to at least one where there is a choice.
fn switch_is_carried(model: &Model, hash: &str) {
    let set = |hash: &str| model.sets.iter().find(|set| set.hash == hash).unwrap();
    let replicas = model.rollout.spec.replicas.unwrap();
    let is_stable = model.status.stable_rs.as_deref() == Some(hash);
    let others: i32 = model.sets.iter().map(|set| set.available).sum();
    let least = if is_stable { 1.min(others) } else { replicas };
    assert!(
        set(hash).available >= least || replicas == 0,
        "to {:?}",
        set(hash)
    );
    assert!(is_stable || is_judged(model, hash), "{hash} was not judged");
}

/// R14.5: an analysis before the switch was good, where one is asked for and nothing goes without.
fn is_judged(model: &Model, hash: &str) -> bool {
    let spec = &model.rollout.spec;
    let strategy = spec.strategy.blue_green.as_ref().unwrap();
    let window = spec
        .rollback_window
        .as_ref()
        .and_then(|window| window.revisions);
    let fast = model.status.promote_full
        || model.memory.proven.contains(hash)
        || model.status.blue_green.scale_up_preview_check_point
        || window.is_some_and(|revisions| revisions > 0)
        || model.status.blue_green.active_selector.is_none();
    let good = |run: &Run| {
        run.hash == hash
            && run.role == Some(Role::PrePromotion)
            && run.phase == RunPhase::Successful
    };
    strategy.pre_promotion_analysis.is_none() || fast || model.runs.iter().any(good)
}

/// R21.1: with the evicted pods gone there are as many as are wanted, but for those that may be missing.
fn evictions_leave_enough(model: &Model, decision: &Decision) {
    let evictions = decision.actions.iter();
    let evictions = evictions.filter(|action| matches!(action, Action::EvictPod { .. }));
    let count = i32::try_from(evictions.count()).unwrap();
    if count == 0 {
        return;
    }
    let sum = |count: fn(&Revision) -> i32| model.sets.iter().map(count).sum::<i32>();
    let replicas = model.rollout.spec.replicas.unwrap();
    let missing = (replicas / 4).max(1); // the default of 25 %
    let least = replicas.max(sum(|set| set.wanted)) - missing;
    let left = sum(|set| set.available) - count;
    assert!(left >= least, "{left} of {least} left: {decision:#?}");
}

/// A higher weight than before is at most the step's, and has its pods. A rollback within the window skips the steps as it is seen.
fn raise_is_carried(model: &Model, decision: &Decision, split: &Split) {
    let Some(canary) = split.versions.iter().find(|version| version.name == CANARY) else {
        return;
    };
    let after = split.rules[0].weights.get(CANARY).copied().unwrap_or(0);
    let before = model
        .split
        .as_ref()
        .map_or(0, |written| weight(&written.split, &canary.revision));
    let set = model
        .sets
        .iter()
        .find(|set| set.hash == canary.revision)
        .unwrap();
    let available = u32::try_from(set.available).unwrap();
    if after <= before {
        return; // R8.2: held while stable cannot carry the rest
    }
    assert!(
        available >= canary.needed,
        "{split:?} with {available} pods"
    );
    let plan = model.plan().unwrap();
    let index = model
        .status
        .current_step_index
        .map_or(0, |index| usize::try_from(index).unwrap());
    let last = i32::try_from(plan.steps().len()).ok();
    if decision.status.current_step_index == last {
        return;
    }
    if index < plan.steps().len() && !model.status.promote_full {
        let mut weights = plan.steps()[..=index].iter().filter_map(|step| match step {
            Step::SetWeight(weight) => Some(*weight),
            Step::SetCanaryScale(_) | Step::Pause(_) | Step::Analysis(_) | Step::SetRoute(_) => {
                None
            }
        });
        let asked = u32::try_from(weights.next_back().unwrap_or(0)).unwrap();
        assert!(after <= asked, "{after} above the step's {asked}");
    }
}

/// R8.4: with sizes that follow the weights, stable gets back what it has pods for, unless nobody else has any.
fn stable_is_not_overrun(model: &Model, split: &Split) {
    let canary = model.rollout.spec.strategy.canary.as_ref();
    let dynamic = canary.and_then(|canary| canary.dynamic_stable_scale);
    let Some(written) = model.split.as_ref().map(|written| &written.split) else {
        return;
    };
    let stable = &split.versions[0];
    let (before, after) = (
        weight(written, &stable.revision),
        weight(split, &stable.revision),
    );
    let replicas = u32::try_from(model.rollout.spec.replicas.unwrap()).unwrap();
    if dynamic != Some(true) || after <= before || replicas == 0 {
        return;
    }
    let available = |hash: &str| {
        let set = model.sets.iter().find(|set| set.hash == hash);
        set.map_or(0, |set| u32::try_from(set.available).unwrap())
    };
    let mut givers = written.versions.iter();
    let alone = givers.all(|version| {
        version.revision == stable.revision
            || weight(written, &version.revision) == 0
            || available(&version.revision) == 0
    });
    let carried = available(&stable.revision) * 100 / replicas;
    assert!(
        alone || after <= carried,
        "{after} of {carried}: {written:?} to {split:?}"
    );
}

/// No proxy still sends a revision what it is about to lose.
fn shrink_is_safe(model: &Model, name: &str, to: i32) {
    let set = model.sets.iter().find(|set| set.name == name).unwrap();
    let is_stable = model.status.stable_rs.as_ref() == Some(&set.hash);
    let is_new = model.plan().is_ok_and(|plan| {
        crate::rollout::revision::find(&plan, &model.state(), &model.observed())
            .is_some_and(|new| new.uid == set.uid)
    });
    let none = model.rollout.spec.replicas == Some(0);
    if set.ready <= to || none || (is_stable && is_new) || (is_new && model.status.promote_full) {
        return;
    }
    for split in served(model).filter(|split| weight(split, &set.hash) > 0) {
        let needed = split.needed(&set.hash).unwrap();
        assert!(
            to >= i32::try_from(needed).unwrap(),
            "{name} to {to}, but {split:?} is served"
        );
    }
    if to == 0 && !is_stable && !is_new {
        assert!(
            served(model).all(|split| !split.lists(&set.hash)),
            "{name} is still listed"
        );
    }
}

/// What always holds.
fn check(model: &Model, routed: bool, context: &str) {
    for rule in model.split.iter().flat_map(|written| &written.split.rules) {
        assert_eq!(
            rule.weights.values().sum::<u32>(),
            100,
            "{context}: {rule:?}"
        );
    }
    if let Some((canary, stable)) = model.weights() {
        assert!(
            routed && canary + stable == 100,
            "{context}: {canary}/{stable}"
        );
    }
    let numbers: std::collections::BTreeSet<_> =
        model.sets.iter().map(|set| set.number()).collect();
    assert_eq!(
        numbers.len(),
        model.sets.len(),
        "{context}: revision numbers"
    );
}

/// Everybody does their part, and the user lets it go on.
fn come_to_rest(model: &mut Model, seed: u64, routed: bool) {
    model.prompt = true;
    model.acknowledge();
    model.in_flight.clear();
    model.edit(|spec| spec["paused"] = json!(false));
    for _ in 0..20 {
        model.follow();
        model.all_ready();
        model.run_ready();
        for run in &mut model.runs {
            if !run.phase.is_finished() {
                run.phase = RunPhase::Successful;
            }
        }
        if model.phase() == "Healthy" {
            break;
        }
        model.status.pause_conditions.clear();
        model.status.abort = false;
        model.wait(400);
    }
    for _ in 0..2 {
        model.wait(400); // delays and drains
        model.run_ready();
    }
    assert_eq!(model.phase(), "Healthy", "seed {seed}: {}", model.message());
    assert_eq!(
        model.status.restarted_at, model.rollout.spec.restart_at,
        "seed {seed}"
    );
    let replicas = model.rollout.spec.replicas.unwrap();
    let hash = model.status.stable_rs.clone().unwrap();
    for set in &model.sets {
        assert_eq!(
            set.wanted,
            if set.hash == hash { replicas } else { 0 },
            "seed {seed}: {}",
            set.name
        );
    }
    let status = &model.status.blue_green;
    if model.rollout.spec.strategy.blue_green.is_some() {
        let led = [&status.active_selector, &status.preview_selector];
        assert_eq!(
            led,
            [&Some(hash.clone()), &Some(hash.clone())],
            "seed {seed}"
        );
    }
    if routed && replicas > 0 {
        let split = &model.split.as_ref().unwrap().split;
        assert_eq!(
            (split.versions.len(), split.versions[0].revision.as_str()),
            (1, hash.as_str()),
            "seed {seed}"
        );
    }
}
