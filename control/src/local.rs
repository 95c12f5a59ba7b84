//! One machine as a cluster: an API server of our own inside the process.
//!
//! | file | what |
//! |---|---|
//! | [`store`] | the objects, their versions, and what lately happened to them |
//! | [`kinds`] | what kinds there are: one row each |
//! | `strict` | is an object what its kind says? |
//! | `defaults` | what the server fills in |
//! | `selector` | label and field selectors |
//! | [`workloads`] | plays the cluster's other controllers, and starts the pods |
//! | `replicasets`, `deployments`, `jobs`, `slices`, `garbage`, `namespaces` | one controller each |
//! | `owners` | owner references, and pods as their owners see them |
//! | [`pods`] | the kubelet: a task for every pod, which is a process or a stand-in |
//! | [`container`] | what of a pod's spec can be run, and how |
//! | [`environment`] | a container's environment, and `$(NAME)` |
//! | [`launcher`], `guard` | starts processes that die with us; ends their children |
//! | [`standin`], [`behaviour`] | the server that stands in for an image, and how it misbehaves |
//! | [`probes`] | asks a process how it is |
//! | [`podstatus`] | what is known of a pod, as the kubelet says it |
//! | [`ports`] | the loopback ports of processes |
//! | [`logs`] | what pods have written |
//! | [`notes`] | Events |

pub mod behaviour;
pub mod container;
mod defaults;
mod deployments;
pub mod environment;
mod garbage;
mod guard;
mod jobs;
pub mod kinds;
pub mod launcher;
pub mod logs;
mod namespaces;
pub mod notes;
mod owners;
pub mod pods;
pub mod podstatus;
pub mod ports;
pub mod probes;
mod replicasets;
mod selector;
mod slices;
pub mod standin;
pub mod store;
mod strict;
pub mod workloads;

pub use strict::{FieldError, Problem};
