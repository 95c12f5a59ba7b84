//! The integration tests on a real control plane: one binary, a module per subject, some of them those of the embedded cluster as they
//! are. See `docs/testing.md`.

#[cfg(test)]
mod apex;
#[cfg(test)]
mod argo;
#[cfg(test)]
mod bluegreen;
#[cfg(test)]
mod chart;
#[cfg(test)]
mod connection;
#[cfg(test)]
mod controller;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod handback;
#[cfg(test)]
mod ingress;
#[cfg(test)]
mod kubelet;
#[cfg(test)]
mod releases;
#[cfg(test)]
mod rights;
#[cfg(test)]
#[path = "support"]
mod support {
    //! What these tests need: a real control plane.

    pub(crate) mod cluster;
    pub(crate) mod load;
    pub(crate) mod manifests;
    pub(crate) mod processes;
    pub(crate) mod session;
}
#[cfg(test)]
mod takeover;
#[cfg(test)]
mod tutorial;

/// Where tests of both clusters run.
#[cfg(test)]
use support::cluster::terminal::{Machine, Terminal};
