//! Which version a request goes to: shares, points and the pick. Pure arithmetic.
//!
//! A [`Plan`] is computed once per table from weights and readiness; a [`Sequence`] gives one point per request; [`pick`] brings
//! the two together. Choosing an endpoint within the version is `balance`'s; counting is `live`'s.

/// The whole of a Split in the unit of every width here: 2⁻⁶⁴.
const WHOLE: u128 = 1 << 64;

/// Picks the lot a point falls into; returns its index.
///
/// `ends` holds the running sums of the widths in 2⁻⁶⁴ units; the last lot takes the remainder, and its end is not stored.
/// `point` is spread evenly over all of `u64`. The caller draws it, so a test can choose it.
#[must_use]
pub fn pick(ends: &[u64], point: u64) -> usize {
    ends.partition_point(|&end| end <= point)
}

/// What becomes of a share that a version cannot carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fallback {
    /// Other versions with spare capacity take it; when nothing is spare, all that is ready is overcommitted alike.
    #[default]
    Redistribute,
    /// It is answered with 503.
    Refuse,
}

/// One version as the arithmetic sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its weight; its desired share is weight ÷ the sum of all weights.
    pub weight: u32,
    /// Ready endpoints it needs to carry that share; 0 is read as 1.
    pub needed: u32,
    /// Ready endpoints it has.
    pub ready: u32,
}

impl Member {
    fn needed(self) -> u128 {
        u128::from(self.needed.max(1))
    }

    fn ready(self) -> u128 {
        u128::from(self.ready)
    }

    /// Why it cannot carry its share, given that it cannot.
    fn shortage(self) -> Shortage {
        if self.ready == 0 {
            Shortage::NoneReady
        } else {
            Shortage::TooFewReady
        }
    }
}

/// Why a version does not get all of its desired share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// None of its endpoints is ready.
    NoneReady,
    /// Fewer endpoints are ready than its weight needs.
    TooFewReady,
}

impl Shortage {
    /// Every shortage, in the order of [`Shortage::index`].
    pub const ALL: [Self; 2] = [Self::NoneReady, Self::TooFewReady];

    /// Its name in metrics, reports and `x-sidestep-reason`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoneReady => "no-ready-endpoints",
            Self::TooFewReady => "too-few-ready-endpoints",
        }
    }

    /// Its place in [`Shortage::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::NoneReady => 0,
            Self::TooFewReady => 1,
        }
    }
}

/// A stretch of points that are treated alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lot {
    /// The version that the weights meant.
    pub meant: usize,
    /// The version that gets the request; `None`: it is refused with 503.
    pub served: Option<usize>,
    /// Why the two differ; `None` where they do not.
    pub shortage: Option<Shortage>,
}

/// Weights and readiness of one rule, worked out: who gets which points, and what share that makes.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    ends: Box<[u64]>,
    lots: Box<[Lot]>,
    /// Desired share of each version, as a fraction of 1.
    pub desired: Box<[f64]>,
    /// Effective share of each version, as a fraction of 1; the very same number as the desired one where nothing is missing.
    pub effective: Box<[f64]>,
    /// By how much the ready endpoints carry more than they are said to: 0 within capacity, 0.25 for a quarter more.
    pub overcommit: f64,
}

impl Plan {
    /// Works out the shares of `members`. `stable` is the version that takes deficits first, if the rule names it.
    ///
    /// Each version can carry cap = weight · min(1, ready ÷ needed). What is missing goes to versions with spare capacity
    /// (ready ÷ needed above 1), to `stable` first, to the others in proportion to their spare; what is missing even then is laid
    /// on all in proportion to what they carry, and is the overcommit.
    ///
    /// A version of weight 0 gets nothing, not even another's deficit, with one exception: when no version with a weight has anything
    /// ready, a `stable` of weight 0 stands by and takes it all, as a deficit. So a canary at 100 % that loses its last pod does not
    /// turn into 503 while the version it replaces is still there. A canary of weight 0 never gets anything.
    #[must_use]
    pub fn new(members: &[Member], stable: Option<usize>, fallback: Fallback) -> Self {
        let desired = desired_widths(members);
        let caps: Vec<u128> = caps(members, &desired);
        let (effective, overcommit) = match fallback {
            Fallback::Refuse => (caps, 0.0),
            Fallback::Redistribute => redistribute(members, &desired, caps, stable),
        };
        let (ends, lots) = lay_out(members, &desired, &effective);
        let shares = desired_shares(members);
        let effective = effective_shares(&shares, &desired, &effective);
        Self {
            ends,
            lots,
            desired: shares,
            effective,
            overcommit,
        }
    }

    /// The lot that `point` falls into; `None` when every weight is 0.
    #[must_use]
    pub fn lot(&self, point: u64) -> Option<Lot> {
        self.lots.get(pick(&self.ends, point)).copied()
    }

    /// The running ends of the lots, in 2⁻⁶⁴ units, without the last.
    #[must_use]
    pub fn ends(&self) -> &[u64] {
        &self.ends
    }
}

/// Widths of the desired shares. The last version with a weight takes the remainder of the division.
fn desired_widths(members: &[Member]) -> Vec<u128> {
    let total: u128 = members.iter().map(|member| u128::from(member.weight)).sum();
    if total == 0 {
        return vec![0; members.len()];
    }
    let mut sum = 0;
    let mut start = 0;
    let mut width = |member: &Member| {
        sum += u128::from(member.weight);
        let end = sum * WHOLE / total;
        let width = end - start;
        start = end;
        width
    };
    members.iter().map(&mut width).collect()
}

/// What each version can carry of its own share.
fn caps(members: &[Member], desired: &[u128]) -> Vec<u128> {
    let cap = |(member, width): (&Member, &u128)| {
        let needed = member.needed();
        width * member.ready().min(needed) / needed
    };
    members.iter().zip(desired).map(cap).collect()
}

/// Effective widths when others may take a deficit, and the overcommit.
fn redistribute(
    members: &[Member],
    desired: &[u128],
    caps: Vec<u128>,
    stable: Option<usize>,
) -> (Vec<u128>, f64) {
    let mut carried = caps;
    let mut missing = desired.iter().sum::<u128>() - carried.iter().sum::<u128>();
    let mut spares = spares(members, desired);
    if let Some(stable) = stable.filter(|&stable| stable < members.len()) {
        let taken = missing.min(spares[stable]);
        carried[stable] += taken;
        missing -= taken;
        spares[stable] = 0;
    }
    let taken = missing.min(spares.iter().sum());
    add_in_proportion(&mut carried, taken, &spares);
    missing -= taken;
    let capacity: u128 = carried.iter().sum();
    if missing == 0 {
        return (carried, 0.0);
    }
    if capacity == 0 {
        return stand_by(members, carried, missing, stable);
    }
    let proportions = carried.clone();
    add_in_proportion(&mut carried, missing, &proportions);
    (carried, fraction(missing, capacity))
}

/// Effective widths when no version with a weight has anything ready: stable takes what is missing, as if its weight were the whole.
fn stand_by(
    members: &[Member],
    mut carried: Vec<u128>,
    missing: u128,
    stable: Option<usize>,
) -> (Vec<u128>, f64) {
    let able = |&stable: &usize| members.get(stable).is_some_and(|member| member.ready > 0);
    let Some(stable) = stable.filter(able) else {
        return (carried, 0.0);
    };
    carried[stable] += missing;
    let (needed, ready) = (members[stable].needed(), members[stable].ready());
    (carried, fraction(needed.saturating_sub(ready), ready))
}

/// What each version could carry beyond its own share.
fn spares(members: &[Member], desired: &[u128]) -> Vec<u128> {
    let spare = |(member, width): (&Member, &u128)| {
        let needed = member.needed();
        width * member.ready().saturating_sub(needed) / needed
    };
    members.iter().zip(desired).map(spare).collect()
}

/// Adds `amount` (at most [`WHOLE`]) to `widths` in proportion to `parts`; the last part that is not 0 takes the remainder.
fn add_in_proportion(widths: &mut [u128], amount: u128, parts: &[u128]) {
    // A spare may be up to 2³² wholes; 63 bits of it keep the products within u128.
    let shift = 65_u32.saturating_sub(parts.iter().sum::<u128>().leading_zeros());
    let total: u128 = parts.iter().map(|part| part >> shift).sum();
    let Some(last) = parts.iter().rposition(|part| part >> shift > 0) else {
        return;
    };
    let mut left = amount;
    for (width, part) in widths.iter_mut().zip(parts) {
        let share = amount * (part >> shift) / total;
        *width += share;
        left -= share;
    }
    widths[last] += left;
}

/// Lays the effective widths over the desired ones so that no point moves that need not: what a version keeps stays in place, and
/// only the deficits change hands.
fn lay_out(members: &[Member], desired: &[u128], effective: &[u128]) -> (Box<[u64]>, Box<[Lot]>) {
    let mut gains: Vec<(usize, u128)> = (0..members.len())
        .filter(|&i| effective[i] > desired[i])
        .map(|i| (i, effective[i] - desired[i]))
        .collect();
    gains.reverse(); // the first gainer is popped first
    let mut cuts: Vec<(u128, Lot)> = Vec::with_capacity(members.len() * 2);
    for (meant, member) in members.iter().enumerate() {
        let kept = desired[meant].min(effective[meant]);
        cuts.push((
            kept,
            Lot {
                meant,
                served: Some(meant),
                shortage: None,
            },
        ));
        let shortage = Some(member.shortage());
        let handed = hand_over(desired[meant] - kept, &mut gains);
        cuts.extend(handed.into_iter().map(|(width, served)| {
            (
                width,
                Lot {
                    meant,
                    served,
                    shortage,
                },
            )
        }));
    }
    cuts.retain(|(width, _)| *width > 0);
    let lots = cuts.iter().map(|(_, lot)| *lot).collect();
    (ends(cuts.iter().map(|(width, _)| *width)), lots)
}

/// Hands a lost width to those who gain, the last of `gains` first; what none of them takes goes to nobody.
fn hand_over(mut lost: u128, gains: &mut Vec<(usize, u128)>) -> Vec<(u128, Option<usize>)> {
    let mut handed = Vec::new();
    while lost > 0 {
        let Some((gainer, room)) = gains.pop() else {
            handed.push((lost, None));
            break;
        };
        let width = room.min(lost);
        lost -= width;
        handed.push((width, Some(gainer)));
        if room > width {
            gains.push((gainer, room - width));
        }
    }
    handed
}

/// Running sums of widths that make up [`WHOLE`] or nothing; the last is not stored.
fn ends(widths: impl Iterator<Item = u128>) -> Box<[u64]> {
    let sums = widths.scan(0_u128, |sum, width| {
        *sum += width;
        Some(*sum)
    });
    sums.map_while(|end| u64::try_from(end).ok()).collect()
}

fn desired_shares(members: &[Member]) -> Box<[f64]> {
    let total: f64 = members.iter().map(|member| f64::from(member.weight)).sum();
    let share = |member: &Member| {
        if member.weight == 0 {
            0.0
        } else {
            f64::from(member.weight) / total
        }
    };
    members.iter().map(share).collect()
}

/// A share whose width did not change is the same number, so that "effective equals desired" may be asked with `==`.
fn effective_shares(shares: &[f64], desired: &[u128], effective: &[u128]) -> Box<[f64]> {
    let share = |i: usize| {
        if desired[i] == effective[i] {
            shares[i]
        } else {
            fraction(effective[i], WHOLE)
        }
    };
    (0..shares.len()).map(share).collect()
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share is shown with at most 15 digits"
)]
fn fraction(part: u128, whole: u128) -> f64 {
    part as f64 / whole as f64
}

/// Points spread evenly over all of `u64`: a Weyl sequence with a start and a multiplier of its own.
///
/// The multiplier is a continued fraction with random partial quotients in {1, 2}: badly approximable, so that counts stay within
/// a few of N · share for every N, and different from any other sequence's, so that two Splits in a row do not run in lock step
/// (data-plane rules, section 1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sequence {
    point: u64,
    step: u64,
}

impl Sequence {
    /// A sequence from random bits: `start` is its position, `quotients` one bit per partial quotient.
    #[must_use]
    pub fn new(start: u64, quotients: u128) -> Self {
        Self {
            point: start,
            step: multiplier(quotients),
        }
    }

    /// The next point. Call it once per weighted pick and for nothing else.
    pub fn advance(&mut self) -> u64 {
        self.point = self.point.wrapping_add(self.step);
        self.point
    }
}

/// 2⁶⁴ · [0; a₁, a₂, …] with aₙ = 1 or 2 by the bits of `quotients`, made odd for the full period.
fn multiplier(mut quotients: u128) -> u64 {
    let (mut before, mut now) = ((1_u64, 0_u64), (0_u64, 1_u64)); // (numerator, denominator) of the last two convergents
    while now.1 < 1 << 62 {
        let quotient = 1 + u64::from(quotients & 1 == 1);
        quotients >>= 1;
        let next = (quotient * now.0 + before.0, quotient * now.1 + before.1);
        (before, now) = (now, next);
    }
    let scaled = (u128::from(now.0) << 64) / u128::from(now.1);
    u64::try_from(scaled).expect("a fraction below 1") | 1
}

#[cfg(test)]
mod tests;
