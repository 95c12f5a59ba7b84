//! Every number of reference 2.7, and what must hold for all numbers.

use proptest::prelude::*;

use super::*;

fn set(wanted: i32, available: i32) -> Revision {
    Revision {
        wanted,
        available,
        pods: wanted,
        ready: available,
        ..Revision::default()
    }
}

#[test]
fn weights_are_approximated_by_counts() {
    // R7.3: replicas, weight, surge → canary, stable
    let rows = [
        (1, 49, 0, 0, 1),
        (1, 50, 0, 1, 0),
        (1, 1, 1, 1, 1),
        (2, 1, 0, 1, 1),
        (2, 99, 1, 2, 1),
        (3, 10, 1, 1, 3),
        (3, 50, 0, 2, 1),
        (3, 50, 1, 2, 2),
        (10, 15, 0, 2, 8),
        (10, 23, 1, 2, 8),
        (10, 24, 1, 3, 8),
        (10, 99, 1, 10, 1),
        (10, 0, 1, 0, 10),
        (10, 100, 1, 10, 0),
    ];
    for (replicas, weight, surge, canary, stable) in rows {
        let sizes = approximate(replicas, weight, 100, surge);
        assert_eq!(
            sizes,
            Sizes { canary, stable },
            "n={replicas} w={weight} s={surge}"
        );
    }
}

#[test]
fn slack_is_resolved() {
    // R7.1: replicas, surge, unavailable → surge, unavailable
    let quarter = Amount::Percent(25);
    let rows = [
        (1, quarter, quarter, 1, 0),
        (3, quarter, quarter, 1, 0),
        (5, quarter, quarter, 2, 1),
        (10, quarter, quarter, 3, 2),
        (0, quarter, quarter, 0, 0),
        (3, Amount::Percent(0), Amount::Percent(25), 0, 1),
        (4, Amount::Pods(1), Amount::Pods(0), 1, 0),
        (2, Amount::Pods(0), Amount::Pods(5), 0, 2),
    ];
    for (replicas, surge, unavailable, s, u) in rows {
        let expected = Slack {
            surge: s,
            unavailable: u,
        };
        assert_eq!(
            slack(replicas, surge, unavailable),
            expected,
            "n={replicas}"
        );
    }
}

#[test]
fn moves_keep_within_surge_and_unavailability() {
    // R7.4: (replicas, weight, slack), canary, stable → canary, stable
    let quarter = Slack {
        surge: 3,
        unavailable: 2,
    };
    let rows = [
        ((10, 20, quarter), (0, 0), (10, 10), (2, 8)),
        ((10, 50, quarter), (2, 2), (8, 8), (5, 6)),
        ((10, 50, quarter), (5, 5), (6, 6), (5, 5)),
        ((10, 0, quarter), (5, 5), (5, 5), (3, 8)),
        ((10, 0, quarter), (3, 3), (8, 5), (3, 10)),
        ((10, 0, quarter), (3, 3), (10, 10), (0, 10)),
        (
            (
                4,
                100,
                Slack {
                    surge: 4,
                    unavailable: 1,
                },
            ),
            (0, 0),
            (4, 4),
            (4, 3),
        ),
        (
            (
                4,
                100,
                Slack {
                    surge: 4,
                    unavailable: 1,
                },
            ),
            (4, 4),
            (3, 3),
            (4, 0),
        ),
        (
            (
                1,
                50,
                Slack {
                    surge: 1,
                    unavailable: 0,
                },
            ),
            (0, 0),
            (1, 1),
            (1, 1),
        ),
        (
            (
                4,
                100,
                Slack {
                    surge: 1,
                    unavailable: 0,
                },
            ),
            (1, 1),
            (4, 1),
            (1, 3),
        ),
        // argo-traces/basic-weight-down: n=5, 100 % to 20 %.
        (
            (
                5,
                20,
                Slack {
                    surge: 2,
                    unavailable: 1,
                },
            ),
            (5, 5),
            (0, 0),
            (4, 2),
        ),
        (
            (
                5,
                20,
                Slack {
                    surge: 2,
                    unavailable: 1,
                },
            ),
            (4, 4),
            (2, 0),
            (4, 3),
        ),
        (
            (
                5,
                20,
                Slack {
                    surge: 2,
                    unavailable: 1,
                },
            ),
            (4, 4),
            (3, 2),
            (2, 3),
        ),
    ];
    for ((replicas, weight, slack), canary, stable, expected) in rows {
        let (canary, stable) = (set(canary.0, canary.1), set(stable.0, stable.1));
        let step = Move {
            replicas,
            slack,
            canary: &canary,
            stable: Some(&stable),
            older: 0,
        };
        let sizes = step.towards(approximate(replicas, weight, 100, slack.surge));
        assert_eq!(
            (sizes.canary, sizes.stable),
            expected,
            "n={replicas} w={weight} {canary:?} {stable:?}"
        );
    }
}

#[test]
fn older_revisions_go_first() {
    // R7.4, n=10 w=50: canary, stable, older → canary, stable; what grows shares what the older leave, and nothing goes down
    let slack = Slack {
        surge: 3,
        unavailable: 2,
    };
    for (canary, stable, older, expected) in [
        ((0, 0), (8, 8), 2, (3, 8)),
        ((3, 3), (8, 8), 2, (3, 8)),
        ((2, 2), (4, 4), 5, (3, 5)),
    ] {
        let (canary, stable) = (set(canary.0, canary.1), set(stable.0, stable.1));
        let step = Move {
            replicas: 10,
            slack,
            canary: &canary,
            stable: Some(&stable),
            older,
        };
        let sizes = step.towards(approximate(10, 50, 100, slack.surge));
        assert_eq!((sizes.canary, sizes.stable), expected, "older={older}");
    }
}

#[test]
fn a_smaller_rollout_is_cut_to_its_surge() {
    // R7.4, n=4 w=50 s=1: unavailable, canary, stable → canary, stable. Too many pods are cut, but never so that fewer than n − u are
    // available, and none at all while no more than that are.
    for (unavailable, canary, stable, expected) in [
        (1, (3, 3), (8, 8), (2, 3)),
        (1, (3, 0), (8, 8), (2, 3)),
        (1, (3, 0), (8, 2), (2, 3)),
        (0, (3, 0), (8, 8), (2, 4)),
        (0, (3, 3), (6, 1), (3, 6)),
    ] {
        let (canary, stable) = (set(canary.0, canary.1), set(stable.0, stable.1));
        let step = Move {
            replicas: 4,
            slack: Slack {
                surge: 1,
                unavailable,
            },
            canary: &canary,
            stable: Some(&stable),
            older: 0,
        };
        let sizes = step.towards(approximate(4, 50, 100, 1));
        let seen = (sizes.canary, sizes.stable);
        assert_eq!(seen, expected, "u={unavailable} {canary:?} {stable:?}");
    }
}

#[test]
fn routed_counts_follow_the_weight_and_its_floor() {
    // R7.6: replicas, weight, floor → canary
    for (replicas, weight, floor, canary) in [
        (10, 5, 1, 1),
        (10, 5, 2, 2),
        (10, 0, 2, 0),
        (1, 5, 3, 1),
        (10, 100, 1, 10),
        (3, 34, 1, 2),
    ] {
        assert_eq!(
            routed(replicas, weight, 100, floor),
            canary,
            "n={replicas} w={weight} min={floor}"
        );
    }
}

#[test]
fn canary_scale_is_the_nearest_before_the_step() {
    // R7.5
    let steps = [
        Step::SetCanaryScale(CanaryScale::Replicas(9)),
        Step::SetWeight(5),
        Step::SetCanaryScale(CanaryScale::Weight(25)),
        Step::SetCanaryScale(CanaryScale::MatchTrafficWeight),
        Step::SetWeight(50),
    ];
    let expected = [Some(9), Some(9), Some(3), None, None, None];
    for (index, scale) in expected.into_iter().enumerate() {
        let position = Position {
            steps: &steps,
            index: Some(index),
        };
        assert_eq!(position.scale(10, 100), scale, "step {index}");
    }
    let done = Position {
        steps: &steps[..3],
        index: Some(3),
    };
    assert_eq!(done.scale(10, 100), None, "the steps are done");
}

#[test]
fn weight_is_the_nearest_before_the_step() {
    let steps = [
        Step::SetWeight(20),
        Step::SetCanaryScale(CanaryScale::MatchTrafficWeight),
        Step::SetWeight(60),
    ];
    for (index, weight, before) in [
        (0, Some(20), 0),
        (1, Some(20), 20),
        (2, Some(60), 20),
        (3, None, 60),
    ] {
        let position = Position {
            steps: &steps,
            index: Some(index),
        };
        assert_eq!(
            (position.weight(), position.weight_before()),
            (weight, before),
            "step {index}"
        );
    }
}

#[test]
fn thresholds_lower_what_is_enough() {
    // R7.7
    for (target, threshold, pods) in [
        (10, None, 10),
        (10, Some(Threshold::Percent(75)), 8),
        (0, Some(Threshold::Percent(75)), 0),
        (10, Some(Threshold::Percent(101)), 10),
        (10, Some(Threshold::Pods(3)), 3),
        (2, Some(Threshold::Pods(3)), 2),
    ] {
        assert_eq!(enough(target, threshold), pods, "{target} {threshold:?}");
    }
}

proptest! {
    /// Repeated moves with pods that all become available end at the target, never above the surge, and never leave fewer pods
    /// available than allowed once that many are there.
    #[test]
    fn moves_end_at_the_target(
        replicas in 1..30_i32, surge in 0..10_i32, unavailable in 0..10_i32,
        from in 0..=100_i32, to in 0..=100_i32,
    ) {
        prop_assume!(surge > 0 || unavailable > 0);
        let slack = Slack { surge, unavailable: unavailable.min(replicas) };
        let start = approximate(replicas, from, 100, surge);
        let goal = approximate(replicas, to, 100, surge);
        let (mut canary, mut stable) = (set(start.canary, start.canary), set(start.stable, start.stable));
        for _ in 0..200 {
            let step = Move { replicas, slack, canary: &canary, stable: Some(&stable), older: 0 };
            let sizes = step.towards(goal);
            prop_assert!(sizes.canary + sizes.stable <= replicas + surge, "{sizes:?}");
            let available = sizes.canary.min(canary.available) + sizes.stable.min(stable.available);
            prop_assert!(available >= replicas - slack.unavailable, "{sizes:?} from {canary:?} {stable:?}");
            (canary, stable) = (set(sizes.canary, sizes.canary), set(sizes.stable, sizes.stable));
        }
        prop_assert_eq!(Sizes { canary: canary.wanted, stable: stable.wanted }, goal);
    }
}
