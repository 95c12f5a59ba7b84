//! Services, EndpointSlices, Splits and Ingresses → the table that the proxy serves.
//!
//! | file | what |
//! |---|---|
//! | [`mod@build`] | the table out of what is known: the driver |
//! | [`rebuild`] | the next table, out of the one before where little has changed |
//! | [`changes`] | what has changed |
//! | [`names`] | the hosts that Services answer to |
//! | [`ingress`] | what Ingresses ask for |
//! | [`certificates`] | the certificates that Ingresses ask for |
//! | [`split`] | a Split as written → one that can be served, or why not |
//! | [`govern`] | which Split has the say over which Service |
//! | [`ports`] | which port answers for which |
//! | [`endpoints`] | EndpointSlices → endpoints, each pod once |
//! | [`watch`] | the watches, and when a table is built |
//! | [`notice`] | what is to be said of objects that cannot be served as written |

pub mod build;
pub mod certificates;
pub mod changes;
pub mod endpoints;
pub mod govern;
pub mod ingress;
pub mod names;
pub mod notice;
pub mod ports;
pub mod rebuild;
pub mod split;
pub mod watch;

pub use build::{Attached, Options, Snapshot, build};
pub use names::ServiceNames;
pub use watch::{Published, run};

#[cfg(test)]
#[expect(clippy::needless_pass_by_value, reason = "cases are written in place")]
mod tests;
