//! Every rule can fail: for each there is a way to break decisions that it notices, and that it is the first to notice.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::spec::Features;
use super::world::ACTIVE;
use super::{Scene, Script, Tamper, guards, rules};
use crate::rollout::decision::{Action, Decision};
use crate::rollout::observed::{Observed, Revision, Service};
use crate::rollout::split::{CANARY, STABLE, Split};
use crate::rollout::state::State;

/// Walks seeds until the rule breaks.
fn check(rule: &str, tamper: Tamper) {
    let features = Features::known();
    let mut others = Vec::new();
    for seed in 0..SEEDS {
        let script = Script::new(seed, &features, 300);
        match script.walk(Some(tamper)) {
            Err((broken, _)) if broken.rule == rule => return,
            Err((broken, _)) => others.push(broken.rule),
            Ok(_) => {}
        }
    }
    panic!("{rule} is never broken; these are: {others:?}");
}

/// More than any rule needs.
const SEEDS: u64 = 60;

fn splits(decision: &mut Decision) -> impl Iterator<Item = &mut Split> {
    let actions = decision.actions.iter_mut();
    actions.filter_map(|action| {
        let Action::WriteSplit(split) = action else {
            return None;
        };
        Some(split)
    })
}

/// Gives the canary of every Split that is written all of the weight.
fn all_to_canary(decision: &mut Decision) {
    for split in splits(decision) {
        let Some(rule) = split
            .rules
            .first_mut()
            .filter(|rule| rule.weights.len() > 1)
        else {
            continue;
        };
        let sum = rule.weights.values().sum();
        rule.weights.insert(CANARY.to_owned(), sum);
        rule.weights.insert(STABLE.to_owned(), 0);
    }
}

fn scale(decision: &mut Decision, set: &Revision, to: i32) {
    decision.actions.push(Action::ScaleReplicaSet {
        name: set.name.clone(),
        from: set.wanted,
        to,
        set: std::collections::BTreeMap::new(),
        remove: Vec::new(),
    });
}

fn stable<'a>(state: &State, observed: &'a Observed) -> Option<&'a Revision> {
    let mut sets = observed.revisions.iter();
    sets.find(|set| Some(&set.hash) == state.stable.as_ref() && set.wanted > 1)
}

/// A way to break decisions for every rule.
const TAMPERS: &[(&str, Tamper)] = &[
    ("a_still_look_is_not_hot", |decision, Scene { now, .. }| {
        decision.again = Some(now - jiff::SignedDuration::from_secs(1));
    }),
    ("weights_sum_right", |decision, _| {
        for split in splits(decision) {
            *split.rules[0].weights.get_mut(STABLE).unwrap() += 1;
        }
    }),
    ("canary_weight_is_at_most_its_step", |decision, _| {
        if let Some(weights) = &mut decision.status.canary.weights {
            let more = i32::from(weights.stable.weight > 0);
            weights.canary.weight += more;
            weights.stable.weight -= more;
        }
    }),
    (
        "a_raised_weight_has_its_pods",
        |decision, Scene { observed, .. }| {
            if observed
                .revisions
                .iter()
                .any(|set| set.available > 0 && set.available < set.wanted)
            {
                all_to_canary(decision);
            }
        },
    ),
    (
        "nothing_ready_gets_nothing",
        |decision, Scene { observed, .. }| {
            let mut sets = observed.revisions.iter();
            let dead = sets.find(|set| set.available == 0 && set.wanted > 0);
            let Some(dead) = dead else { return };
            for split in splits(decision).filter(|split| split.versions.len() > 1) {
                split.versions[1].revision.clone_from(&dead.hash);
            }
        },
    ),
    (
        "an_abort_takes_all_traffic_back",
        |decision, Scene { state, .. }| {
            if state.abort {
                decision
                    .actions
                    .retain(|action| !matches!(action, Action::WriteSplit(_)));
            }
        },
    ),
    ("the_same_again_is_the_same", |decision, scene| {
        if scene.is_second {
            decision.again = None;
            decision.events.clear();
        }
    }),
    ("status_round_trips", |decision, _| {
        if let Some(condition) = decision.status.conditions.first_mut() {
            let odd = "2026-01-01T00:00:00.5Z".parse().unwrap();
            condition.last_update_time = Some(Time(odd));
        }
    }),
    ("waiting_is_named", |decision, _| {
        decision.memory.waiting = None
    }),
    ("trouble_has_a_reason", |decision, _| {
        decision.status.message = None
    }),
    ("healthy_is_true", |decision, _| {
        decision.status.phase = Some("Healthy".to_owned());
    }),
    ("surge_is_kept", |decision, Scene { observed, .. }| {
        for set in observed.revisions.iter().filter(|set| set.wanted > 0) {
            scale(decision, set, set.wanted + 3);
        }
    }),
    (
        "enough_stay_available",
        |decision,
         Scene {
             state, observed, ..
         }| {
            if observed.split.is_none()
                && let Some(stable) = stable(state, observed)
            {
                scale(decision, stable, 0);
            }
        },
    ),
    (
        "evictions_leave_enough",
        |decision, Scene { observed, .. }| {
            for pod in observed.pods.iter().flatten() {
                let (name, uid) = (pod.name.clone(), pod.uid.clone());
                decision.actions.push(Action::EvictPod { name, uid });
            }
        },
    ),
    ("scaling_starts_from_what_is", |decision, _| {
        for action in &mut decision.actions {
            if let Action::ScaleReplicaSet { from, .. } = action {
                *from += 1;
            }
        }
    }),
    (
        "served_weights_keep_their_pods",
        |decision,
         Scene {
             state, observed, ..
         }| {
            if observed.split.is_some()
                && let Some(stable) = stable(state, observed)
            {
                decision
                    .actions
                    .retain(|action| !matches!(action, Action::ScaleReplicaSet { .. }));
                scale(decision, stable, 0);
            }
        },
    ),
    (
        "busy_pods_stay",
        |decision,
         Scene {
             state, observed, ..
         }| {
            let Some(split) = &observed.split else { return };
            let idle = |set: &&Revision| !split.split.lists(&set.hash) && set.wanted > 0;
            let current = |set: &&Revision| Some(&set.hash) != state.current.as_ref();
            let mut sets = observed.revisions.iter().filter(idle).filter(current);
            if let Some(set) = sets.find(|set| set.available > 0) {
                decision
                    .actions
                    .retain(|action| !matches!(action, Action::ScaleReplicaSet { .. }));
                scale(decision, set, 0);
            }
        },
    ),
    ("listed_versions_have_services", |decision, _| {
        let ensures = |action: &Action| matches!(action, Action::EnsureRevisionService { .. });
        decision.actions.retain(|action| !ensures(action));
    }),
    (
        "no_pods_are_deleted_with_their_set",
        |decision, Scene { observed, .. }| {
            let set = observed.revisions.iter().find(|set| set.pods > 0);
            let delete = set.map(|set| Action::DeleteReplicaSet {
                name: set.name.clone(),
            });
            decision.actions.extend(delete);
        },
    ),
    ("revision_numbers_differ", |decision, _| {
        for action in &mut decision.actions {
            if let Action::CreateReplicaSet(new) = action {
                let key = crate::api::labels::REVISION.to_owned();
                new.annotations.insert(key, "1".to_owned());
            }
        }
    }),
    ("it_comes_to_rest", |decision, _| {
        let now = decision
            .again
            .map_or_else(String::new, |again| again.to_string());
        decision.status.message = Some(format!("{:?} {now}", decision.status.message));
        decision.status.replicas += 1;
    }),
    ("a_healthy_world_ends_healthy", |decision, _| {
        decision
            .actions
            .retain(|action| !matches!(action, Action::SwitchService { .. }));
        decision
            .actions
            .retain(|action| !matches!(action, Action::WriteSplit(_)));
    }),
    // Every quarter of an hour it writes something.
    (
        "a_steady_state_writes_nothing",
        |decision, Scene { now, .. }| {
            if decision.actions.is_empty() && decision.again.is_none() {
                let quarters = now.as_second() / 900 % 1000;
                decision.status.collision_count = i32::try_from(quarters).ok();
                decision.again = jiff::Timestamp::from_second(now.as_second() + 900).ok();
            }
        },
    ),
    ("an_unhealthy_world_says_so", |decision, _| {
        if decision.status.phase.as_deref() == Some("Degraded") {
            decision.status.phase = Some("Progressing".to_owned());
        }
    }),
    ("an_abort_ends_on_stable", |decision, _| {
        decision.status.abort = false
    }),
    (
        "stable_takes_back_what_it_carries",
        |decision,
         Scene {
             state, observed, ..
         }| {
            let current = decision.status.current_pod_hash.as_ref();
            let leaves = |split: &Split| {
                let mut versions = split.versions.iter();
                let canary = versions.find(|version| version.name == CANARY);
                state.abort || canary.map(|canary| &canary.revision) != current
            };
            let written = observed.split.as_ref().map(|written| &written.split);
            let Some(mut split) = written.filter(|split| leaves(split)).cloned() else {
                return;
            };
            let weights = &mut split.rules[0].weights;
            if weights.get(CANARY).is_some_and(|weight| *weight > 0) {
                let sum = weights.values().sum();
                *weights = [(STABLE.to_owned(), sum), (CANARY.to_owned(), 0)].into();
                decision.actions.push(Action::WriteSplit(split));
            }
        },
    ),
    ("the_workload_makes_room", |decision, _| {
        let name = "web".to_owned();
        decision.actions.push(Action::ScaleWorkload { name, to: 0 });
    }),
    ("an_abort_leads_back", |decision, Scene { state, .. }| {
        if state.abort && state.aborted_at.is_some() {
            lead_to_new(decision);
        }
    }),
    (
        "a_switch_has_its_pods",
        |decision, Scene { observed, .. }| {
            if new(decision, observed).is_some_and(|set| set.available == 0) {
                lead_to_new(decision);
            }
        },
    ),
    (
        "a_switch_was_allowed",
        |decision, Scene { observed, .. }| {
            let is_whole = |set: &Revision| set.wanted > 0 && set.available == set.wanted;
            if new(decision, observed).is_some_and(is_whole) {
                lead_to_new(decision);
            }
        },
    ),
    (
        "active_keeps_its_pods",
        |decision, Scene { observed, .. }| {
            let mut services = observed.services.iter();
            let active = services.find(|service| service.name == ACTIVE);
            let hash = active.and_then(Service::hash);
            let mut sets = observed.revisions.iter();
            let led = sets.find(|set| Some(set.hash.as_str()) == hash && set.wanted > 0);
            if let Some(set) = led {
                scale(decision, set, 0);
            }
        },
    ),
    (
        "active_leads_to_pods",
        |decision,
         Scene {
             state, observed, ..
         }| {
            let moves = |action: &Action| {
                matches!(action, Action::SwitchService { .. } | Action::WriteSplit(_))
            };
            if !state.abort && new(decision, observed).is_some_and(|set| set.available == 0) {
                decision.actions.retain(|action| !moves(action));
            }
        },
    ),
    ("the_preview_gets_nothing_of_active", |decision, _| {
        for split in splits(decision).filter(|split| split.versions.len() > 1) {
            let weights = [(STABLE.to_owned(), 99), (CANARY.to_owned(), 1)];
            split.rules[0].weights = weights.into();
        }
    }),
    ("what_becomes_stable_was_tried", |decision, _| {
        let status = &mut decision.status;
        status.stable_rs.clone_from(&status.current_pod_hash);
    }),
    (
        "the_old_active_stays_for_its_delay",
        |decision, Scene { observed, .. }| {
            let waits = |set: &&Revision| set.wanted > 0 && set.deadline().is_some();
            let scaled = |action: &Action| matches!(action, Action::ScaleReplicaSet { .. });
            if let Some(set) = observed.revisions.iter().find(waits) {
                decision.actions.retain(|action| !scaled(action));
                scale(decision, set, 0);
            }
        },
    ),
];

/// The revision that the spec asks for, where it is not stable.
fn new<'a>(decision: &Decision, observed: &'a Observed) -> Option<&'a Revision> {
    let status = &decision.status;
    let mut sets = observed.revisions.iter();
    let new = sets.find(|set| Some(&set.hash) == status.current_pod_hash.as_ref());
    new.filter(|set| status.stable_rs.as_ref() != Some(&set.hash))
}

/// Points the active Service at the revision that the spec asks for.
fn lead_to_new(decision: &mut Decision) {
    let hash = decision.status.current_pod_hash.clone().unwrap_or_default();
    let name = ACTIVE.to_owned();
    decision.actions.push(Action::SwitchService { name, hash });
}

#[test]
fn every_rule_can_fail() {
    std::thread::scope(|scope| {
        let halves = TAMPERS.split_at(TAMPERS.len() / 2);
        for half in [halves.0, halves.1] {
            scope.spawn(move || half.iter().for_each(|(rule, tamper)| check(rule, *tamper)));
        }
    });
}

#[test]
fn every_rule_has_a_way_to_break_it() {
    let rules = rules::all().map(|(rule, _)| *rule);
    let guards = guards::GUARDS.iter().map(|(rule, _)| *rule);
    for rule in rules.chain(guards) {
        let known = TAMPERS.iter().any(|(tampered, _)| *tampered == rule);
        assert!(known, "{rule}");
    }
}
