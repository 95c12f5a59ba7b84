//! The integration tests on the embedded cluster and of the rest: one binary, a module per subject.

#[cfg(test)]
mod bluegreen;
#[cfg(test)]
mod commands;
#[cfg(test)]
mod crds;
#[cfg(test)]
mod demo;
#[cfg(test)]
mod image;
#[cfg(test)]
mod journeys;
#[cfg(test)]
mod manifests;
#[cfg(test)]
mod processes;
#[cfg(test)]
mod proxy;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod releases;
#[cfg(test)]
mod support;
#[cfg(test)]
mod tidy;
#[cfg(test)]
mod tutorial;

/// Where tests of both clusters run: here, on the embedded one.
#[cfg(test)]
use support::{machine::Machine, terminal::Terminal};
