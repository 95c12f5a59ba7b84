//! The control plane of Sidestep: Argo-compatible rollouts and analysis, and a cluster that fits on one machine.
//!
//! What decides is a crate of its own, `sidestep-decide`, whose modules are shown here as if they were this one's.
//!
//! | module | what |
//! |---|---|
//! | [`analysis`] | what an analysis does next: `sidestep-decide` |
//! | [`api`] | the wire types of the objects: `sidestep-decide` |
//! | [`cache`] | one kind's objects as last seen, kept current by a watch |
//! | [`client`] | clients of an API server that notice when it is gone |
//! | [`controller`] | the kinds' drivers, wired to watches and a queue |
//! | [`fleet`] | the proxies as the controller sees them |
//! | [`lease`] | leadership: of several controllers one writes |
//! | [`local`] | one machine as a cluster: an API server, and what plays the cluster's other controllers and its pods |
//! | [`measure`] | the I/O of analysis: one file per provider |
//! | [`metrics`] | the controller's metrics |
//! | [`reconcile`] | one driver per kind: observe, decide, write |
//! | [`rollout`] | what a rollout does next: `sidestep-decide` |
//! | [`routing`] | Services, EndpointSlices and Splits → the proxy's table |
//! | [`streams`] | listeners of servers that stream |
//! | [`wire`] | objects as they come off the wire: JSON first, then their type |

pub mod cache;
pub mod client;
pub mod controller;
pub mod fleet;
pub mod lease;
pub mod local;
pub mod measure;
pub mod metrics;
pub mod reconcile;
pub mod routing;
pub mod streams;
pub mod wire;

pub use sidestep_decide::{analysis, api, rollout};
