//! Shares, lots, and the accuracy that section 1 of the data-plane rules promises.

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

fn member(weight: u32, ready: u32, needed: u32) -> Member {
    Member {
        weight,
        needed,
        ready,
    }
}

fn ready_plan(weights: &[u32]) -> Plan {
    let members: Vec<Member> = weights.iter().map(|&weight| member(weight, 1, 1)).collect();
    Plan::new(&members, None, Fallback::Redistribute)
}

fn sequence(random: &mut StdRng) -> Sequence {
    Sequence::new(random.random(), random.random())
}

/// How many of `count` points of `sequence` go to `version`.
fn served(plan: &Plan, sequence: &mut Sequence, count: u32, version: usize) -> u32 {
    let hit = |_: &u32| plan.lot(sequence.advance()).and_then(|lot| lot.served) == Some(version);
    u32::try_from((0..count).filter(hit).count()).unwrap()
}

#[track_caller]
fn check_shares(
    stable: Option<usize>,
    fallback: Fallback,
    members: &[Member],
    expected: &[f64],
    overcommit: f64,
) {
    let plan = Plan::new(members, stable, fallback);
    for (effective, expected) in plan.effective.iter().zip(expected) {
        assert!(
            (effective - expected).abs() < 1e-9,
            "{members:?}: {:?}",
            plan.effective
        );
    }
    assert!(
        (plan.overcommit - overcommit).abs() < 1e-9,
        "{members:?}: {}",
        plan.overcommit
    );
    // The points do what the numbers say.
    let mut sequence = Sequence::new(7, 11);
    for (version, expected) in expected.iter().enumerate() {
        let count = f64::from(served(&plan, &mut sequence, 10_000, version));
        assert!(
            (count - expected * 10_000.0).abs() <= 20.0,
            "{members:?} version {version}: {count}"
        );
    }
}

#[test]
fn effective_shares_in_the_worked_cases() {
    use Fallback::{Redistribute, Refuse};
    let stable = Some(0);
    // Both too few: each carries what is ready, all of it overcommitted twofold.
    check_shares(
        stable,
        Redistribute,
        &[member(50, 3, 5), member(50, 2, 5)],
        &[0.6, 0.4],
        1.0,
    );
    // The canary has nothing ready, stable is scaled for all of the traffic.
    check_shares(
        stable,
        Redistribute,
        &[member(80, 5, 4), member(20, 0, 1)],
        &[1.0, 0.0],
        0.0,
    );
    // The same, with stable scaled for its own share only.
    check_shares(
        stable,
        Redistribute,
        &[member(80, 4, 4), member(20, 0, 1)],
        &[1.0, 0.0],
        0.25,
    );
    // Both at 0: nothing is left.
    check_shares(
        stable,
        Redistribute,
        &[member(80, 0, 4), member(20, 0, 1)],
        &[0.0, 0.0],
        0.0,
    );
    // By hand, without stable: in proportion to the spare, 0.6 to 0.2.
    check_shares(
        None,
        Redistribute,
        &[member(50, 0, 1), member(30, 3, 1), member(20, 2, 1)],
        &[0.0, 0.675, 0.325],
        0.0,
    );
    // Refused instead.
    check_shares(
        stable,
        Refuse,
        &[member(50, 3, 5), member(50, 9, 5)],
        &[0.3, 0.5],
        0.0,
    );
    // The spare does not suffice: filled first, the rest laid on all alike.
    check_shares(
        stable,
        Redistribute,
        &[member(60, 3, 6), member(40, 3, 2)],
        &[1.0 / 3.0, 2.0 / 3.0],
        1.0 / 9.0,
    );
    // Stable's spare comes before another's.
    check_shares(
        stable,
        Redistribute,
        &[member(60, 8, 6), member(20, 1, 2), member(20, 4, 2)],
        &[0.7, 0.1, 0.2],
        0.0,
    );
}

#[test]
fn stable_stands_by_at_weight_0_and_no_other_version_does() {
    use Fallback::{Redistribute, Refuse};
    let canary_gone = [member(0, 5, 5), member(100, 0, 5)];
    // A canary at 100 % has lost its last pod.
    check_shares(Some(0), Redistribute, &canary_gone, &[1.0, 0.0], 0.0);
    // Stable is smaller than the whole needs.
    let smaller = [member(0, 2, 5), member(100, 0, 5)];
    check_shares(Some(0), Redistribute, &smaller, &[1.0, 0.0], 1.5);
    // Stable is gone too.
    let both_gone = [member(0, 0, 5), member(100, 0, 5)];
    check_shares(Some(0), Redistribute, &both_gone, &[0.0, 0.0], 0.0);
    // One pod left is enough to stay where the weights say.
    let one_left = [member(0, 5, 5), member(100, 1, 5)];
    check_shares(Some(0), Redistribute, &one_left, &[0.0, 1.0], 4.0);
    // Another version with a weight comes before it.
    let third = [member(0, 5, 5), member(60, 0, 1), member(40, 1, 1)];
    check_shares(Some(0), Redistribute, &third, &[0.0, 0.0, 1.0], 1.5);
    // Refused instead.
    check_shares(Some(0), Refuse, &canary_gone, &[0.0, 0.0], 0.0);
    // The rule does not name stable: a pinned canary.
    check_shares(None, Redistribute, &canary_gone, &[0.0, 0.0], 0.0);
    // A canary at weight 0 never takes over.
    let stable_gone = [member(100, 0, 5), member(0, 5, 5)];
    check_shares(Some(0), Redistribute, &stable_gone, &[0.0, 0.0], 0.0);
}

#[test]
fn what_stable_takes_while_standing_by_is_the_canarys_fallback() {
    let members = [member(0, 5, 5), member(100, 0, 5)];
    let plan = Plan::new(&members, Some(0), Fallback::Redistribute);
    let expected = Lot {
        meant: 1,
        served: Some(0),
        shortage: Some(Shortage::NoneReady),
    };
    for point in [0, 1 << 63, u64::MAX] {
        assert_eq!(plan.lot(point), Some(expected));
    }
}

#[test]
fn all_weights_0_pick_nothing() {
    let plan = ready_plan(&[0, 0]);
    assert_eq!(plan.lot(0), None);
    assert_eq!(plan.lot(u64::MAX), None);
}

#[test]
fn a_deficit_names_the_version_it_was_meant_for_and_why() {
    let members = [member(80, 5, 4), member(20, 1, 2)];
    let plan = Plan::new(&members, Some(0), Fallback::Redistribute);
    let last = plan.lot(u64::MAX).unwrap();
    let expected = Lot {
        meant: 1,
        served: Some(0),
        shortage: Some(Shortage::TooFewReady),
    };
    assert_eq!(last, expected);
    let members = [member(80, 5, 4), member(20, 0, 2)];
    let refused = Plan::new(&members, Some(0), Fallback::Refuse)
        .lot(u64::MAX)
        .unwrap();
    let expected = Lot {
        meant: 1,
        served: None,
        shortage: Some(Shortage::NoneReady),
    };
    assert_eq!(refused, expected);
}

#[test]
fn effective_is_the_same_number_as_desired_when_nothing_is_missing() {
    let plan = Plan::new(
        &[member(1, 4, 3), member(2, 7, 7)],
        None,
        Fallback::Redistribute,
    );
    assert_eq!(plan.desired, plan.effective);
}

#[test]
fn the_widest_weights_and_counts_do_not_overflow() {
    let all = u32::MAX;
    let members = [member(all, all, 1), member(all, 0, all), member(1, all, 1)];
    let plan = Plan::new(&members, None, Fallback::Redistribute);
    let sum: f64 = plan.effective.iter().sum();
    assert!((sum - 1.0).abs() < 1e-9, "{:?}", plan.effective);
}

#[test]
fn one_worker_is_within_six_of_the_share() {
    let mut random = StdRng::seed_from_u64(1);
    for weights in [[99, 1], [95, 5], [80, 20], [50, 50], [1, 2]] {
        let plan = ready_plan(&weights);
        for _ in 0..20 {
            let mut sequence = sequence(&mut random);
            let mut count = 0;
            for picks in 1..=20_000_u32 {
                count += served(&plan, &mut sequence, 1, 1);
                let error = f64::from(count) - f64::from(picks) * plan.desired[1];
                assert!(error.abs() <= 6.0, "{weights:?} after {picks}: {error}");
            }
        }
    }
}

#[test]
fn many_workers_are_within_three_and_three_roots() {
    let plans = [ready_plan(&[95, 5]), ready_plan(&[99, 1])];
    for (seed, plan) in (0..100).zip(plans.iter().cycle()) {
        let mut random = StdRng::seed_from_u64(seed);
        for (workers, bound) in [(4, 9.0), (16, 15.0), (48, 23.78)] {
            let mut sequences: Vec<Sequence> =
                (0..workers).map(|_| sequence(&mut random)).collect();
            let mut count = 0;
            for picks in 1..=20_000_u32 {
                count += served(plan, &mut sequences[picks as usize % workers], 1, 1);
                let error = f64::from(count) - f64::from(picks) * plan.desired[1];
                assert!(
                    error.abs() <= bound,
                    "seed {seed}, {workers} workers, {picks} picks: {error}"
                );
            }
        }
    }
}

#[test]
fn one_in_a_hundred_thousand_is_hit() {
    let plan = ready_plan(&[99_999, 1]);
    let mut sequence = sequence(&mut StdRng::seed_from_u64(5));
    let end = plan.ends()[0];
    let count = (0..10_000_000)
        .filter(|_| sequence.advance() >= end)
        .count();
    assert!(count.abs_diff(100) <= 6, "{count}");
}

#[test]
fn two_splits_in_a_row_are_independent() {
    let plan = ready_plan(&[90, 10]);
    for seed in 0..50 {
        let mut random = StdRng::seed_from_u64(seed);
        let (mut first, mut second) = (sequence(&mut random), sequence(&mut random));
        let joint = (0..5_000)
            .filter(|_| {
                let (a, b) = (plan.lot(first.advance()), plan.lot(second.advance()));
                a.unwrap().served == Some(1) && b.unwrap().served == Some(1)
            })
            .count();
        assert!(
            joint.abs_diff(50) <= 50,
            "seed {seed}: {joint} of 5,000 instead of 50"
        );
    }
}

proptest! {
    #[test]
    fn shares_are_whole_and_zero_weights_get_nothing(
        members in prop::collection::vec((0_u32..5, 0_u32..6, 0_u32..6), 1..5),
        stable in prop::option::of(0_usize..5),
        points in prop::collection::vec(any::<u64>(), 50),
    ) {
        let members: Vec<Member> = members.iter().map(|&(weight, ready, needed)| member(weight, ready, needed)).collect();
        let plan = Plan::new(&members, stable, Fallback::Redistribute);
        let sum: f64 = plan.effective.iter().sum();
        let able = members.iter().any(|member| member.weight > 0 && member.ready > 0);
        let weighted = members.iter().any(|member| member.weight > 0);
        let standing_by = stable.filter(|&stable| !able && weighted && members.get(stable).is_some_and(|member| member.ready > 0));
        let able = able || standing_by.is_some();
        let whole = if able { 1.0 } else { 0.0 };
        prop_assert!((sum - whole).abs() < 1e-9);
        for point in points {
            let Some(lot) = plan.lot(point) else { continue };
            prop_assert!(members[lot.meant].weight > 0);
            prop_assert_eq!(lot.served.is_some(), able);
            if let Some(served) = lot.served {
                prop_assert!(members[served].ready > 0);
                prop_assert!(members[served].weight > 0 || standing_by == Some(served));
            }
            prop_assert_eq!(lot.shortage.is_none(), lot.served == Some(lot.meant));
        }
    }

    #[test]
    fn refusing_never_gives_a_version_more_than_its_share(
        members in prop::collection::vec((0_u32..5, 0_u32..6, 0_u32..6), 1..5),
    ) {
        let members: Vec<Member> = members.iter().map(|&(weight, ready, needed)| member(weight, ready, needed)).collect();
        let plan = Plan::new(&members, None, Fallback::Refuse);
        for (effective, desired) in plan.effective.iter().zip(&plan.desired) {
            prop_assert!(effective <= desired);
        }
    }
}
