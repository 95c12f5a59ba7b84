//! What a rollout does next. Pure: no kube client, no clock, no chance, no await.
//!
//! `plan` parses the spec, `decide` compares it with what is remembered and what is seen, and answers with writes:
//!
//! ```text
//! plan(&Rollout, &References) -> Plan | [Invalid]
//! decide(&Plan, &State, &Observed, now) -> Decision { actions, status, memory, events, again }
//! ```
//!
//! One decision is one of Argo's reconciles, so that the versions of a status seen from outside are Argo's too. R numbers in comments
//! and tests are the rules of the reference on Argo Rollouts.
//!
//! | module | what |
//! |---|---|
//! | [`plan`] | spec → [`Plan`]: the parse and all of its complaints |
//! | [`state`], [`memory`] | what is remembered, from and to `.status`; where that is found for which it has no field |
//! | [`observed`] | what is: ReplicaSets, Services, runs, the Split as written, the fleet |
//! | [`mod@decide`] | the driver: calls the files below in the order of R3.4 |
//! | [`decision`] | what follows: one [`Action`] is one write |
//! | [`split`] | the Split a rollout wants, its versions named by revision |
//! | `turn` | what is known and what has been decided so far, handed from file to file |
//! | `revision`, `hash`, `template` | which ReplicaSet the spec asks for, its number, its name |
//! | `routes` | header and mirror routes |
//! | `traffic`, `acknowledgement`, `services` | weights; what the proxies have taken up; selectors |
//! | `experiment` | what an experiment's versions get |
//! | `scale`, `replicas` | which ReplicaSet may grow or shrink now; the arithmetic |
//! | `dynamic` | stable's size with `dynamicStableScale`, and how a version leaves it |
//! | [`restart`] | which old pods go next |
//! | `runs`, `pause`, `promotion`, `rollback`, `history` | analysis, pauses, steps and promotion, aborts, old revisions |
//! | `bluegreen` | the other strategy: its driver, gate, sizes, Services, Split and runs |
//! | `marks`, [`affinity`], `workload` | what pods carry for their part; the workload that is taken over |
//! | `hold` | waiting for a router of others |
//! | `release` | giving the traffic back: the Split and what belongs to it go |
//! | `conditions`, `phase`, `arrival`, `duration`, `waits` | what the status says of all this |

mod acknowledgement;
pub mod affinity;
mod arrival;
mod bluegreen;
mod conditions;
pub mod decide;
pub mod decision;
mod duration;
mod dynamic;
mod experiment;
pub mod hash;
mod history;
mod hold;
pub mod marks;
pub mod memory;
pub mod observed;
mod pause;
mod phase;
pub mod plan;
mod promotion;
mod quantity;
mod release;
mod replicas;
pub mod restart;
mod revision;
mod rollback;
mod routes;
mod runs;
mod scale;
mod selector;
mod services;
pub mod split;
pub mod state;
mod template;
mod time;
mod traffic;
mod turn;
mod waits;
mod workload;

pub use decide::decide;
pub use decision::{Action, Decision};
pub use observed::Observed;
pub use plan::Plan;
pub use split::Split;
pub use state::State;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod tests;
