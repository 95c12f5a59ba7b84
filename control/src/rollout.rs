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
//! | [`state`] | what is remembered, from and to `.status` |
//! | [`observed`] | what is: ReplicaSets, Services, runs, the Split as written, the fleet |
//! | [`decision`] | what follows: one [`Action`] is one write |
//! | [`split`] | the Split a rollout wants, its versions named by revision |

pub mod decision;
pub mod observed;
pub mod plan;
pub mod split;
pub mod state;

pub use decision::{Action, Decision};
pub use observed::Observed;
pub use plan::Plan;
pub use split::Split;
pub use state::State;
