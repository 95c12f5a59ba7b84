//! What an analysis does next, and what its answers mean. Pure: no kube client, no clock, no await.
//!
//! | module | what |
//! |---|---|
//! | [`template`] | several templates, nested ones too → one spec |
//! | [`args`] | arguments: merged, resolved, substituted, masked |
//! | [`build`] | the AnalysisRun of a Rollout's step or background |
//! | [`duration`] | Go's durations, read and written |
//! | [`phase`] | the phases of runs, metrics and measurements |
//! | [`run`] | an AnalysisRun's next move |
//! | [`verdict`] | an answer and two conditions → a phase |
//! | [`jsonpath`] | where a value stands in a JSON answer |
//! | [`expr`] | the language of conditions |

pub mod args;
pub mod build;
pub mod duration;
pub mod expr;
pub mod jsonpath;
pub mod phase;
pub mod run;
pub mod template;
pub mod verdict;
