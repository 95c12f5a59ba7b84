//! `dynamicStableScale`: stable shrinks as the canary's weight grows (R7.6), and takes requests back only as fast as it grows again
//! (R8.4).
//!
//! A version leaves when the update is aborted, when the spec goes back to stable (R8.1 a) or on to another template. It keeps what
//! stable cannot carry yet. One whose analysis has failed leaves at once all the same, as long as stable has any pod.

use super::observed::Revision;
use super::plan::{AbortDelay, CanaryScale, Routing, Step};
use super::replicas::{self, Position};
use super::turn::Turn;
use super::{runs, scale, traffic};

/// What the sizes of an update are parts of.
#[derive(Clone, Copy, Debug)]
struct Whole {
    replicas: i32,
    /// What a weight is a part of.
    weight: i32,
    /// Least pods of a ReplicaSet that has any.
    min_pods: i32,
}

impl Whole {
    /// Pods of stable: enough for what a canary's weight leaves it, and for the weight that it has (R7.6). One stays to the end, so
    /// that whatever falls back to stable finds somebody.
    fn stable(self, canary: i32, has: i32) -> i32 {
        let least = self.replicas.min(1);
        self.pods(self.weight - canary)
            .max(self.exact(has))
            .max(least)
    }

    /// Pods of a version that leaves: enough for the weight it is to stop at next, and for the one that it has.
    fn leaving(self, through: i32, has: i32) -> i32 {
        self.pods(through).max(self.exact(has))
    }

    /// The weight that so many pods can carry; all of it where none are wanted.
    fn carried(self, pods: i32) -> i32 {
        if self.replicas == 0 {
            return self.weight;
        }
        replicas::share_down(self.weight, pods, self.replicas).min(self.weight)
    }

    fn pods(self, weight: i32) -> i32 {
        replicas::routed(self.replicas, weight, self.weight, self.min_pods)
    }

    fn exact(self, weight: i32) -> i32 {
        replicas::share_up(self.replicas, weight, self.weight)
    }

    /// R8.4: the weight of a version that leaves with weight `has`, with `ready` pods of stable there; never more than it has. On its
    /// way to 0 it stops at the weight `through`, so that both need not be complete at once.
    fn weight(self, through: i32, has: i32, ready: i32) -> i32 {
        let carried = self.carried(ready);
        if through <= 0 {
            return has.min(self.weight - carried);
        }
        match carried < self.weight - through {
            true => has,
            false => has.min(through),
        }
    }

    /// The last weight of the steps whose version has fewer pods than so many; 0 if none does.
    fn through(self, steps: &[Step], pods: i32) -> i32 {
        let weights = steps.iter().rev().filter_map(|step| match step {
            Step::SetWeight(weight) => Some(*weight),
            Step::SetCanaryScale(_) | Step::Pause(_) | Step::Analysis(_) | Step::SetRoute(_) => {
                None
            }
        });
        let mut smaller = weights.filter(|weight| self.pods(*weight) < pods);
        smaller.next().unwrap_or(0)
    }
}

fn whole(turn: &Turn<'_>, routing: &Routing) -> Whole {
    Whole {
        replicas: turn.replicas,
        weight: routing.whole,
        min_pods: routing.min_pods,
    }
}

/// The version that leaves and the weight it keeps for now; none when nothing leaves, or all of it may at once.
pub(super) fn leaving<'a>(turn: &Turn<'a>) -> Option<(&'a Revision, i32)> {
    let routing = turn.routing().filter(|routing| routing.dynamic)?;
    let stable = turn.stable?;
    let (set, has) = departure(turn)?;
    if stable.available > 0 && is_condemned(turn, set) {
        return None;
    }
    let through = through(turn, routing, set);
    let weight = whole(turn, routing).weight(through, has, stable.available);
    (weight > 0).then_some((set, weight))
}

/// The version that has a weight and is to have none, and that weight, as it is written: whatever was noted of it, proxies serve it.
fn departure<'a>(turn: &Turn<'a>) -> Option<(&'a Revision, i32)> {
    let shares = traffic::shares(&turn.observed.split.as_ref()?.split);
    let mut sets = turn.observed.revisions.iter();
    let set = sets.find(|set| {
        let stays = set.uid == turn.new.uid && !turn.is_aborted();
        let is_stable = turn.was.stable.as_ref() == Some(&set.hash);
        !stays && !is_stable && shares.contains_key(set.hash.as_str())
    })?;
    let has = i32::try_from(*shares.get(set.hash.as_str())?).ok()?;
    (set.available > 0).then_some((set, has))
}

/// An analysis of this version, which leaves, has failed. The new one leaves only where it is aborted.
fn is_condemned(turn: &Turn<'_>, set: &Revision) -> bool {
    set.uid == turn.new.uid && runs::has_failed(turn)
}

/// Where a version stops on its way out. Only an abort goes in steps; else stable is brought to its full size at once.
fn through(turn: &Turn<'_>, routing: &Routing, set: &Revision) -> i32 {
    if set.uid != turn.new.uid || is_condemned(turn, set) {
        return 0;
    }
    let ready = turn.stable.map_or(0, |stable| stable.available);
    let missing = turn.replicas - ready;
    let pods = match turn.plan.delays().abort {
        AbortDelay::WithTraffic => missing.max(set.available),
        AbortDelay::After(_) | AbortDelay::Never => missing,
    };
    whole(turn, routing).through(turn.plan.steps(), pods)
}

/// Pods of stable that the present step, or the way back, asks for.
pub(super) fn stable(turn: &Turn<'_>, routing: &Routing) -> i32 {
    let departing = departure(turn).map(|(set, _)| set);
    if departing.is_some_and(|set| set.uid != turn.new.uid) {
        return turn.replicas;
    }
    let canary = match departing {
        Some(set) => through(turn, routing, set),
        None => asked(turn, routing),
    };
    let weights = turn.next.weights.as_ref();
    // What an experiment has of stable's share comes back to stable at once.
    let has = routing.whole - weights.map_or(0, |weights| weights.canary.weight);
    whole(turn, routing).stable(canary, has)
}

/// The canary's part of the pods (R7.2, R7.5): that of its own scale before that of its weight, but never more than its weight leaves
/// stable free of: a lower weight is set when stable has the pods for it. A number of pods says nothing of stable.
fn asked(turn: &Turn<'_>, routing: &Routing) -> i32 {
    let position = Position {
        steps: turn.plan.steps(),
        index: turn.step_index(),
    };
    let by_weight = position.weight().unwrap_or(routing.whole);
    match (scale::is_whole(turn), turn.is_aborted()) {
        (true, _) => routing.whole,
        (false, true) => 0,
        (false, false) => match position.nearest_scale() {
            Some(CanaryScale::Replicas(_)) => 0,
            Some(CanaryScale::Weight(weight)) => weight.min(by_weight),
            Some(CanaryScale::MatchTrafficWeight) | None => by_weight,
        },
    }
}

/// Pods of an aborted canary: as many as carry what it still gets.
pub(super) fn aborted(turn: &Turn<'_>, routing: &Routing) -> i32 {
    let Some((set, weight)) = leaving(turn).filter(|(set, _)| set.uid == turn.new.uid) else {
        return 0;
    };
    whole(turn, routing).leaving(through(turn, routing, set), weight)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN: Whole = Whole {
        replicas: 10,
        weight: 100,
        min_pods: 1,
    };

    fn steps() -> Vec<Step> {
        vec![Step::SetWeight(20), Step::SetWeight(60)]
    }

    #[test]
    fn stable_shrinks_behind_the_weight() {
        // R7.6: canary's weight asked for, stable's weight as recorded → stable's pods
        for (canary, has, pods) in [
            (10, 90, 9),
            (20, 90, 9),
            (60, 40, 4),
            (0, 40, 10),
            (100, 40, 4),
            (100, 0, 1),
        ] {
            assert_eq!(TEN.stable(canary, has), pods, "w={canary}, has {has}");
        }
        let floored = Whole { min_pods: 3, ..TEN };
        assert_eq!(floored.stable(90, 10), 3);
        let none = Whole { replicas: 0, ..TEN };
        assert_eq!(none.stable(50, 50), 0);
    }

    #[test]
    fn an_abort_goes_through_the_weights_of_the_steps() {
        // R7.6, R8.4: recorded weight, canary's and stable's available pods → stops at, sizes of canary and stable, weight
        for (has, canary, stable, expected) in [
            (20, 2, 8, (0, 2, 10, 20)),
            (20, 2, 9, (0, 2, 10, 10)),
            (20, 2, 10, (0, 2, 10, 0)),
            (60, 6, 4, (20, 6, 8, 60)),
            (60, 6, 7, (20, 6, 8, 60)),
            (60, 6, 8, (20, 6, 8, 20)),
            (20, 6, 8, (20, 2, 8, 20)),
            (20, 2, 3, (60, 6, 8, 20)),
        ] {
            let through = TEN.through(&steps(), (10 - stable).max(canary));
            let sizes = (TEN.leaving(through, has), TEN.stable(through, 100 - has));
            let weight = TEN.weight(through, has, stable);
            let seen = (through, sizes.0, sizes.1, weight);
            assert_eq!(seen, expected, "{has} with {canary} and {stable}");
        }
    }

    #[test]
    fn what_stable_cannot_carry_stays() {
        // R8.4 with t = 0: pods of stable → weight of a version that leaves with 60
        for (ready, weight) in [(0, 60), (4, 60), (5, 50), (7, 30), (10, 0), (12, 0)] {
            assert_eq!(TEN.weight(0, 60, ready), weight, "{ready} pods");
        }
        let thirds = Whole { replicas: 3, ..TEN };
        assert_eq!(thirds.weight(0, 50, 2), 34);
        let none = Whole { replicas: 0, ..TEN };
        assert_eq!(none.weight(0, 50, 0), 0, "no pods are wanted");
    }
}
