//! What tests of several subjects share.

pub(crate) mod terminal;
