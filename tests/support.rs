//! What tests of several subjects share: the command line as a user drives it, `sidestep run` under load, and the examples' manifests.

pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod manifests;
pub(crate) mod session;
pub(crate) mod terminal;

use std::num::NonZeroU32;

/// How often a journey does what it does: 2 in `./test`, 20 for the bar of the project, by `SIDESTEP_ROUNDS`.
pub(crate) fn rounds() -> u32 {
    let chosen = std::env::var("SIDESTEP_ROUNDS").ok().map(|text| {
        let rounds: NonZeroU32 = text.parse().expect("SIDESTEP_ROUNDS is a number above 0");
        rounds.get()
    });
    chosen.unwrap_or(2)
}
