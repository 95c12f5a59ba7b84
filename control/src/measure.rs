//! The I/O of analysis: asking a metric's provider. One file per provider.

pub mod counters;
