//! The pure middle of Sidestep: what a rollout or an analysis does next is a function of values, and this crate has nothing else.
//!
//! It has no runtime, no HTTP and no client among its dependencies, reads no clock and throws no dice: whoever calls it observes, hands
//! in the time, and writes what it answers. `sidestep-control` does that, and shows these modules as its own.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the wire types of the objects |
//! | [`rollout`] | what a rollout does next |
//! | [`analysis`] | what an analysis does next; the condition language |

pub mod analysis;
pub mod api;
pub mod rollout;
