//! One machine as a cluster.

pub mod launcher;
pub mod logs;
