//! How many pods: the arithmetic of R7.1 to R7.7. Numbers in, numbers out.

use super::observed::Revision;
use super::plan::{Amount, CanaryScale, Step, Threshold};

/// Pods of the two revisions of an update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sizes {
    pub(super) canary: i32,
    pub(super) stable: i32,
}

/// Pods above and below the wanted number that an update without routing may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slack {
    pub(super) surge: i32,
    pub(super) unavailable: i32,
}

/// R7.1.
pub(super) fn slack(replicas: i32, surge: Amount, unavailable: Amount) -> Slack {
    let surge = match surge {
        Amount::Pods(pods) => pods,
        Amount::Percent(percent) => share_up(replicas, percent, 100),
    };
    let unavailable = match unavailable {
        Amount::Pods(pods) => pods,
        Amount::Percent(percent) => share_down(replicas, percent, 100),
    };
    let unavailable = if surge == 0 && unavailable == 0 {
        1
    } else {
        unavailable
    };
    Slack {
        surge,
        unavailable: unavailable.min(replicas),
    }
}

/// `⌈replicas · weight ÷ whole⌉`.
pub(super) fn share_up(replicas: i32, weight: i32, whole: i32) -> i32 {
    let product = i64::from(replicas) * i64::from(weight);
    let whole = i64::from(whole.max(1));
    narrow((product + whole - 1).div_euclid(whole))
}

/// `⌊replicas · weight ÷ whole⌋`.
pub(super) fn share_down(replicas: i32, weight: i32, whole: i32) -> i32 {
    let product = i64::from(replicas) * i64::from(weight);
    narrow(product.div_euclid(i64::from(whole.max(1))))
}

fn narrow(pods: i64) -> i32 {
    i32::try_from(pods).unwrap_or(i32::MAX)
}

/// The counts that come closest to a weight (R7.3).
pub(super) fn approximate(replicas: i32, weight: i32, whole: i32, surge: i32) -> Sizes {
    if weight >= whole {
        return Sizes {
            canary: replicas,
            stable: 0,
        };
    }
    let (up, down) = (
        share_up(replicas, weight, whole),
        share_down(replicas, weight, whole),
    );
    let doubled = 2 * i64::from(replicas) * i64::from(weight);
    let halfway = doubled == i64::from(up + down) * i64::from(whole);
    let totals = if surge > 0 {
        vec![replicas, replicas + 1]
    } else {
        vec![replicas]
    };
    let lone = replicas == 1 && surge == 0;
    let candidates = totals
        .into_iter()
        .flat_map(|total| [(up, total), (down, total)]);
    let allowed = candidates
        .filter(|(canary, _)| *canary == up || !halfway)
        .filter(|(canary, total)| lone || (*canary > 0 && canary < total));
    let (canary, total) = allowed
        .min_by(|one, other| {
            distance(*one, weight, whole).total_cmp(&distance(*other, weight, whole))
        })
        .unwrap_or((up, replicas));
    Sizes {
        canary,
        stable: total - canary,
    }
}

/// How far a count's share is from the weight.
fn distance((canary, total): (i32, i32), weight: i32, whole: i32) -> f64 {
    (f64::from(canary) * f64::from(whole) / f64::from(total) - f64::from(weight)).abs()
}

/// What the next move of an update without routing starts from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Move<'a> {
    pub(super) replicas: i32,
    pub(super) slack: Slack,
    pub(super) canary: &'a Revision,
    pub(super) stable: Option<&'a Revision>,
    /// Pods wanted of older revisions.
    pub(super) older: i32,
}

impl Move<'_> {
    /// One move towards a target, within surge and unavailability (R7.4). Without another stable revision the new one gets all.
    pub(super) fn towards(&self, target: Sizes) -> Sizes {
        let target = match self.stable {
            Some(_) => target,
            None => Sizes {
                canary: self.replicas,
                stable: 0,
            },
        };
        let raised = self.up(target);
        if self.older > 0 {
            return raised;
        }
        self.down(target, raised)
    }

    fn wanted(&self) -> Sizes {
        Sizes {
            canary: self.canary.wanted,
            stable: self.stable.map_or(0, |set| set.wanted),
        }
    }

    fn most(&self) -> i32 {
        self.replicas + self.slack.surge
    }

    /// Stable first, then the canary, as far as the surge allows.
    fn up(&self, target: Sizes) -> Sizes {
        let wanted = self.wanted();
        let budget = (self.most() - wanted.canary - wanted.stable - self.older).max(0);
        let stable = (target.stable - wanted.stable).clamp(0, budget);
        let canary = (target.canary - wanted.canary).clamp(0, budget - stable);
        Sizes {
            canary: wanted.canary + canary,
            stable: wanted.stable + stable,
        }
    }

    /// The side that drains gives what is not needed to keep enough pods available.
    fn down(&self, target: Sizes, raised: Sizes) -> Sizes {
        let growing = target.canary >= self.canary.wanted;
        let least = self.replicas - self.slack.unavailable;
        let kept = match growing {
            true => sure(self.canary) + self.stable.map_or(0, |set| set.wanted),
            false => self.canary.wanted + self.stable.map_or(0, sure),
        };
        let surplus = kept - least;
        if surplus <= 0 {
            return raised;
        }
        match (growing, self.stable) {
            (true, None) => raised,
            (true, Some(stable)) => {
                let least = target.stable.max(stable.wanted - surplus);
                let draining = raised.stable.min(least);
                let canary = self.fit(stable, draining, Some(self.canary), raised.canary);
                Sizes {
                    canary,
                    stable: draining,
                }
            }
            (false, stable) => {
                let least = target.canary.max(self.canary.wanted - surplus);
                let draining = raised.canary.min(least);
                let stable = self.fit(self.canary, draining, stable, raised.stable);
                Sizes {
                    canary: draining,
                    stable,
                }
            }
        }
    }

    /// The other side's size, cut to what the surge leaves, but not so far that too few pods are available.
    fn fit(&self, draining: &Revision, drained: i32, other: Option<&Revision>, size: i32) -> i32 {
        let Some(other) = other else {
            return size;
        };
        let cut = (size + drained - self.most()).clamp(0, size.max(0));
        let fitted = size - cut;
        let available = draining.available.min(drained) + other.available.min(fitted);
        let missing = (self.replicas - self.slack.unavailable - available).max(0);
        let spare = (other.available - fitted).max(0);
        fitted + missing.min(spare).min(cut)
    }
}

/// Available pods, as far as they are still wanted.
fn sure(set: &Revision) -> i32 {
    set.available.min(set.wanted)
}

/// Where in the steps an update is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Position<'a> {
    pub(super) steps: &'a [Step],
    /// Index of the current step; the number of steps, or none at all, when they are done.
    pub(super) index: Option<usize>,
}

impl Position<'_> {
    /// The weight in force (R7.2): the last `setWeight` at or before the current step; none when the steps are done.
    pub(super) fn weight(self) -> Option<i32> {
        let index = self.index.filter(|index| *index < self.steps.len())?;
        Some(self.weight_in(index + 1))
    }

    /// The weight of the steps before the current one.
    pub(super) fn weight_before(self) -> i32 {
        self.weight_in(self.index.unwrap_or(0))
    }

    fn weight_in(self, count: usize) -> i32 {
        let mut weights = self.steps.iter().take(count).filter_map(|step| match step {
            Step::SetWeight(weight) => Some(*weight),
            Step::SetCanaryScale(_) | Step::Pause(_) | Step::Analysis(_) | Step::SetRoute(_) => {
                None
            }
        });
        weights.next_back().unwrap_or(0)
    }

    /// The canary's size apart from its weight (R7.5): the last `setCanaryScale` at or before the current step.
    pub(super) fn scale(self, replicas: i32, whole: i32) -> Option<i32> {
        match self.nearest_scale()? {
            CanaryScale::Replicas(pods) => Some(pods),
            CanaryScale::Weight(weight) => Some(share_up(replicas, weight, whole)),
            CanaryScale::MatchTrafficWeight => None,
        }
    }

    /// The last `setCanaryScale` at or before the current step; none when the steps are done.
    pub(super) fn nearest_scale(self) -> Option<CanaryScale> {
        let index = self.index.filter(|index| *index < self.steps.len())?;
        let steps = self.steps.iter().take(index + 1);
        let mut scales = steps.filter_map(|step| match step {
            Step::SetCanaryScale(scale) => Some(*scale),
            Step::SetWeight(_) | Step::Pause(_) | Step::Analysis(_) | Step::SetRoute(_) => None,
        });
        scales.next_back()
    }
}

/// Pods for a weight with routing, with the floor of `minPodsPerReplicaSet` (R7.6).
pub(super) fn routed(replicas: i32, weight: i32, whole: i32, min_pods: i32) -> i32 {
    match share_up(replicas, weight, whole) {
        0 => 0,
        pods => pods.max(min_pods.min(replicas)),
    }
}

/// Pods that satisfy a target (R7.7); never more than the target has, so that no threshold holds a rollout for ever.
pub(super) fn enough(target: i32, threshold: Option<Threshold>) -> i32 {
    match threshold {
        None => target,
        Some(Threshold::Percent(percent)) => share_up(target, percent, 100).min(target),
        Some(Threshold::Pods(pods)) => pods.min(target),
    }
}

#[cfg(test)]
mod tests;
