//! Which endpoint of a version a request goes to: of two random ones the one with less in flight.
//!
//! Endpoints whose breaker has ejected them are passed over, but never more than half of a version's, rounded down: so a
//! lone endpoint is never passed over, and a version that fails shows it (data-plane.md section 2).

use crate::breaker::Condition;

/// The endpoints a request has tried already; a retry prefers others.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Tried {
    indices: [usize; NOTED_MAX],
    count: usize,
}

impl Tried {
    /// Notes one more attempt; those above [`NOTED_MAX`] are not noted.
    pub(crate) fn add(&mut self, index: usize) {
        if let Some(slot) = self.indices.get_mut(self.count) {
            *slot = index;
            self.count += 1;
        }
    }

    fn contains(&self, index: usize) -> bool {
        self.indices[..self.count].contains(&index)
    }
}

/// What the pick needs to know of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Load {
    pub(crate) condition: Condition,
    pub(crate) in_flight: u32,
}

/// Picks one of `count` endpoints; `None` when there is none. `load` tells of the endpoint at an index, `draw` is spread
/// evenly over all of `u64`. An endpoint that waits to be tried again is taken if `probe` says that this request may.
pub(crate) fn pick(
    count: usize,
    draw: u64,
    tried: &Tried,
    load: impl Fn(usize) -> Load,
    probe: impl Fn(usize) -> bool,
) -> Option<Pick> {
    let (first, second) = two_of(count, draw)?;
    let (a, b) = (load(first), load(second));
    let fine = |index, load: Load| load.condition == Condition::Healthy && !tried.contains(index);
    let index = if fine(first, a) && fine(second, b) {
        less_loaded((first, a), (second, b))
    } else if let Some(index) = to_probe([(first, a), (second, b)], probe) {
        return Some(Pick {
            index,
            probing: true,
        });
    } else {
        pick_among_admitted(count, draw, tried, load)?
    };
    Some(Pick {
        index,
        probing: false,
    })
}

/// The endpoint a request goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) index: usize,
    /// This request is the one that tries an ejected endpoint again.
    pub(crate) probing: bool,
}

fn to_probe(two: [(usize, Load); 2], probe: impl Fn(usize) -> bool) -> Option<usize> {
    let waits = |(_, load): &(usize, Load)| load.condition == Condition::Probing;
    let waiting = two.into_iter().filter(waits).map(|(index, _)| index);
    waiting.into_iter().find(|&index| probe(index))
}

/// The slow path: some endpoint is ejected or was tried.
fn pick_among_admitted(
    count: usize,
    draw: u64,
    tried: &Tried,
    load: impl Fn(usize) -> Load,
) -> Option<usize> {
    let untried = admitted(count, &load).filter(|&index| !tried.contains(index));
    choose(untried, draw, &load).or_else(|| choose(admitted(count, &load), draw, &load))
}

/// Every endpoint but the first of those not healthy, up to half of all.
fn admitted(count: usize, load: &impl Fn(usize) -> Load) -> impl Iterator<Item = usize> + Clone {
    let mut skips_left = count / 2;
    (0..count).filter(move |&index| {
        let skip = skips_left > 0 && load(index).condition != Condition::Healthy;
        skips_left -= usize::from(skip);
        !skip
    })
}

fn choose(
    mut indices: impl Iterator<Item = usize> + Clone,
    draw: u64,
    load: &impl Fn(usize) -> Load,
) -> Option<usize> {
    let (first, second) = two_of(indices.clone().count(), draw)?;
    let (low, high) = (first.min(second), first.max(second));
    let a = indices.nth(low)?;
    let b = if high > low {
        indices.nth(high - low - 1)?
    } else {
        a
    };
    // Of two alike the one drawn first is taken, so that no place in the list is favoured.
    let (a, b) = if first > second { (b, a) } else { (a, b) };
    Some(less_loaded((a, load(a)), (b, load(b))))
}

fn less_loaded(a: (usize, Load), b: (usize, Load)) -> usize {
    if b.1.in_flight < a.1.in_flight {
        b.0
    } else {
        a.0
    }
}

/// Two different numbers below `count` (the same one twice when there is one only), from the halves of a draw.
fn two_of(count: usize, draw: u64) -> Option<(usize, usize)> {
    let others = count.checked_sub(1)?;
    let first = scale(draw >> 32, count);
    let second = scale(draw & u64::from(u32::MAX), others.max(1));
    Some((
        first,
        if others == 0 {
            0
        } else {
            second + usize::from(second >= first)
        },
    ))
}

/// Maps 32 random bits evenly to a number below `count` (Lemire's multiplication; the bias is below count ÷ 2³²).
fn scale(bits: u64, count: usize) -> usize {
    let scaled = (u128::from(bits) * (count as u128)) >> 32;
    usize::try_from(scaled).expect("the product of 32 bits and a usize, shifted by 32, is a usize")
}

/// Attempts that are noted; more than a request has.
const NOTED_MAX: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEALTHY: Condition = Condition::Healthy;
    const EJECTED: Condition = Condition::Ejected;

    fn loads(of: &[(Condition, u32)]) -> impl Fn(usize) -> Load {
        |index| Load {
            condition: of[index].0,
            in_flight: of[index].1,
        }
    }

    fn tried(indices: &[usize]) -> Tried {
        let mut tried = Tried::default();
        indices.iter().for_each(|&index| tried.add(index));
        tried
    }

    /// Which endpoints are ever picked, over evenly spaced draws.
    #[track_caller]
    fn check(endpoints: &[(Condition, u32)], tried_before: &[usize], picked: &[usize]) {
        let mut seen: Vec<usize> = (0..4096_u64)
            .filter_map(|i| {
                pick(
                    endpoints.len(),
                    i.wrapping_mul(0x9E37_79B9_7F4A_7C15),
                    &tried(tried_before),
                    loads(endpoints),
                    |_| false,
                )
                .map(|pick| pick.index)
            })
            .collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(
            seen, picked,
            "endpoints = {endpoints:?}, tried = {tried_before:?}"
        );
    }

    #[test]
    fn the_less_loaded_of_two() {
        check(&[], &[], &[]);
        check(&[(HEALTHY, 9)], &[], &[0]);
        check(&[(HEALTHY, 1), (HEALTHY, 0)], &[], &[1]);
        check(&[(HEALTHY, 2), (HEALTHY, 1), (HEALTHY, 0)], &[], &[1, 2]);
        check(&[(HEALTHY, 0), (HEALTHY, 0), (HEALTHY, 0)], &[], &[0, 1, 2]);
    }

    #[test]
    fn ejected_endpoints_are_passed_over_up_to_half() {
        check(&[(EJECTED, 0)], &[], &[0]);
        check(&[(EJECTED, 0), (HEALTHY, 0)], &[], &[1]);
        check(&[(EJECTED, 0), (EJECTED, 0)], &[], &[1]);
        check(&[(EJECTED, 0), (HEALTHY, 0), (HEALTHY, 0)], &[], &[1, 2]);
        check(&[(EJECTED, 0), (EJECTED, 0), (HEALTHY, 0)], &[], &[1, 2]);
        check(
            &[(EJECTED, 0), (EJECTED, 0), (EJECTED, 0), (HEALTHY, 9)],
            &[],
            &[2],
        );
    }

    #[test]
    fn a_retry_goes_elsewhere_while_there_is_an_elsewhere() {
        check(&[(HEALTHY, 0), (HEALTHY, 9)], &[0], &[1]);
        check(&[(HEALTHY, 0), (HEALTHY, 0), (EJECTED, 0)], &[0], &[1]);
        check(&[(HEALTHY, 0)], &[0], &[0]);
        check(&[(HEALTHY, 1), (HEALTHY, 0)], &[0, 1], &[1]);
    }

    #[test]
    fn one_request_tries_an_ejected_endpoint_again() {
        let endpoints = [(Condition::Probing, 9), (HEALTHY, 0)];
        let go = |wins| pick(2, 0, &Tried::default(), loads(&endpoints), |_| wins).unwrap();
        assert_eq!(
            go(true),
            Pick {
                index: 0,
                probing: true
            }
        );
        assert_eq!(
            go(false),
            Pick {
                index: 1,
                probing: false
            }
        );
    }

    proptest! {
        #[test]
        fn a_pick_is_an_admitted_endpoint(
            ejected in proptest::collection::vec(any::<bool>(), 1..12), draw in any::<u64>(), before in 0..12_usize,
        ) {
            let condition = |index: usize| if ejected[index] { EJECTED } else { HEALTHY };
            let load = |index| Load { condition: condition(index), in_flight: 0 };
            let picked = pick(ejected.len(), draw, &tried(&[before]), load, |_| false).unwrap().index;
            prop_assert!(picked < ejected.len());
            let all_ejected_fit = ejected.iter().filter(|&&e| e).count() <= ejected.len() / 2;
            prop_assert!(!(all_ejected_fit && ejected[picked]), "an ejected endpoint was picked without need");
        }

        #[test]
        fn two_are_different(count in 2..100_usize, draw in any::<u64>()) {
            let (a, b) = two_of(count, draw).unwrap();
            prop_assert!(a != b && a < count && b < count);
        }
    }
}
