//! The wire types of the objects Sidestep works on, as they stand in YAML and on the API server.
//!
//! `argoproj.io/v1alpha1` keeps Argo Rollouts' field names, so that the manifests people have keep working; `sidestep.dev/v1alpha1`
//! is ours. No logic here: what a spec *means* is decided in [`crate::rollout::plan`] and [`crate::analysis`].

pub mod analysis;
pub mod experiment;
pub mod labels;
pub mod replicaset;
pub mod rollout;
pub mod split;

pub use analysis::{AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate};
pub use experiment::Experiment;
pub use replicaset::ReplicaSet;
pub use rollout::Rollout;
pub use split::Split;
