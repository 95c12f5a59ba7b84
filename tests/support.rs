//! What tests of several subjects share: the command line as a user drives it, `sidestep run` under load, and the examples' manifests.

pub(crate) mod load;
pub(crate) mod machine;
pub(crate) mod manifests;
pub(crate) mod processes;
pub(crate) mod session;
pub(crate) mod terminal;
