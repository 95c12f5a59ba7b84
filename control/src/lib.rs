//! The control plane of Sidestep: Argo-compatible rollouts and analysis, and a cluster that fits on one machine.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the wire types of the objects |

pub mod api;
