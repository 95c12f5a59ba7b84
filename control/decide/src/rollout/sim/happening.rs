//! What happens to a rollout from outside: users, autoscalers, pods, proxies, the API server, the clock. Drawn from the seed before the
//! walk begins, so that a failing list can be made shorter.

use serde_json::Value;

use super::dice::Dice;
use super::spec::{self, Features};
use super::world::Kind;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) struct Happening {
    /// When, in milliseconds of the walk.
    pub(super) at: i64,
    /// What.
    pub(super) what: What,
}

/// What happens.
#[derive(Clone, Debug)]
pub(super) enum What {
    /// `set image`.
    Image(u8),
    /// `set image` and another size in one edit.
    ImageAndReplicas(u8, i64),
    /// An autoscaler, or a person.
    Replicas(i64),
    /// Other steps.
    Steps(Value),
    /// Another way to promote a blue-green update, as a merge patch of its strategy.
    Promotion(Value),
    /// Somebody scales the Deployment of a `workloadRef`.
    ScaleWorkload(i32),
    /// `spec.rollbackWindow`.
    Window(i32),
    /// `spec.paused`.
    Paused(bool),
    /// `restart`.
    Restart,
    /// `promote`.
    Promote,
    /// `promote --full`.
    PromoteFull,
    /// `abort`.
    Abort,
    /// `retry`.
    Retry,
    /// `undo`.
    Undo,
    /// Some pods are deleted.
    DeletePods(u64),
    /// Some pods stop being ready for a while.
    Crash(u64),
    /// No pod can be created, or they can again.
    Quota(bool),
    /// Somebody edits the Split.
    EditSplit,
    /// A Service that the spec names is gone, or is back.
    Service(bool),
    /// A proxy stops answering, or answers again.
    Silent(usize, bool),
    /// A proxy comes.
    ProxyJoins,
    /// A proxy goes.
    ProxyLeaves,
    /// Proxies take this long to follow, in milliseconds.
    Slow(i64),
    /// A cache falls behind by so many milliseconds.
    Lag(Kind, i64),
    /// Trouble with a write that is soon to come: the number of writes before it.
    Trouble(Trouble, u32),
    /// The clock of the controller's machine moves by so many seconds.
    Clock(i64),
}

/// What goes wrong with a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is not done, and nobody tells whether it is.
    Lost,
    /// Somebody else was faster.
    Conflict,
    /// It is done, and nobody tells whether it is.
    DoneButFailed,
    /// The controller dies before it.
    DiesBefore,
    /// The controller dies after it.
    DiesAfter,
}

/// A long list of things that happen to a spec.
pub(super) fn list(dice: &mut Dice, features: &Features, spec: &Value) -> Vec<Happening> {
    let mut at = 2_000;
    let mut list = Vec::new();
    for _ in 0..COUNT {
        let what = what(dice, features, spec);
        list.push(Happening { at, what });
        at += gap(dice);
    }
    list
}

/// More than any walk gets through.
const COUNT: usize = 600;

fn gap(dice: &mut Dice) -> i64 {
    match dice.roll(40) {
        0..=11 => dice.between(0, 60),
        12..=21 => dice.between(60, 1_500),
        22..=36 => dice.between(1_500, 20_000),
        37..=38 => dice.between(20_000, 150_000),
        _ => dice.between(150_000, 1_200_000),
    }
}

fn what(dice: &mut Dice, features: &Features, spec: &Value) -> What {
    match dice.roll(20) {
        0..=9 => user(dice, features, spec),
        10..=13 => nature(dice),
        14..=16 => proxies(dice),
        _ => control_plane(dice),
    }
}

fn user(dice: &mut Dice, features: &Features, spec: &Value) -> What {
    match dice.roll(40) {
        0..=9 => What::Image(image(dice)),
        10 => What::ImageAndReplicas(image(dice), spec::replicas(dice)),
        11..=14 => What::Replicas(spec::replicas(dice)),
        15..=16 => strategy(dice, features, spec),
        17..=25 => What::Promote,
        26..=27 => What::PromoteFull,
        28..=30 => What::Abort,
        31..=33 => What::Retry,
        34..=35 => What::Undo,
        36 => What::Paused(true),
        37 => What::Paused(false),
        38 => What::Restart,
        _ => match dice.roll(4) {
            0 => What::EditSplit,
            1 => What::Service(false),
            2 => What::Service(true),
            _ if spec["workloadRef"].is_null() => What::Window(dice.pick(&[0, 1, 2])),
            _ => What::ScaleWorkload(dice.pick(&[0, 3, 8])),
        },
    }
}

/// Another strategy of the same kind.
fn strategy(dice: &mut Dice, features: &Features, spec: &Value) -> What {
    if spec["strategy"]["blueGreen"].is_object() {
        return What::Promotion(spec::promotion(dice));
    }
    let routed = spec["strategy"]["canary"]["trafficRouting"].is_object();
    What::Steps(spec::steps(dice, features, routed, spec::whole_of(spec)))
}

fn image(dice: &mut Dice) -> u8 {
    u8::try_from(dice.between(1, 7)).unwrap()
}

fn nature(dice: &mut Dice) -> What {
    match dice.roll(8) {
        0..=3 => What::DeletePods(dice.roll(1 << 16)),
        4..=6 => What::Crash(dice.roll(1 << 16)),
        _ => What::Quota(dice.one_in(3)),
    }
}

fn proxies(dice: &mut Dice) -> What {
    match dice.roll(8) {
        0..=1 => What::Silent(usize::try_from(dice.roll(3)).unwrap(), true),
        2..=3 => What::Silent(usize::try_from(dice.roll(3)).unwrap(), false),
        4 => What::ProxyJoins,
        5 => What::ProxyLeaves,
        _ => What::Slow(dice.pick(&[5, 50, 400, 5_000, 40_000])),
    }
}

fn control_plane(dice: &mut Dice) -> What {
    let kinds = Kind::ALL;
    let troubles = [
        Trouble::Lost,
        Trouble::Conflict,
        Trouble::DoneButFailed,
        Trouble::DiesBefore,
        Trouble::DiesAfter,
    ];
    match dice.roll(12) {
        0..=1 => What::Lag(dice.pick(&kinds), dice.between(0, 4_000)),
        2 => What::Clock(dice.pick(&[-600, -40, -2, 2, 35, 400, 4_000])),
        _ => {
            let writes = u32::try_from(dice.roll(6)).unwrap();
            What::Trouble(dice.pick(&troubles), writes)
        }
    }
}
