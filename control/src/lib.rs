//! The control plane of Sidestep: Argo-compatible rollouts and analysis, and a cluster that fits on one machine.
//!
//! | module | what |
//! |---|---|
//! | [`api`] | the wire types of the objects |
//! | [`measure`] | the I/O of analysis: one file per provider |
//! | [`fleet`] | the proxies as the controller sees them |

pub mod api;
pub mod measure;
pub mod fleet;
