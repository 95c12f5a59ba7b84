//! Arguments of a step's analysis that are taken from the Rollout's metadata (R2.22). What a background analysis is given shows when
//! it runs, as with Argo.

use super::invalid::Complaints;
use crate::analysis::build;
use crate::api::rollout::{AnalysisRunArgument, CanaryStep};

/// Complains of paths into the metadata that the downward API does not have.
pub(super) fn check(field: &str, step: &CanaryStep, complaints: &mut Complaints) {
    let analysis = step.analysis.iter();
    let own = analysis.flat_map(|analysis| analysis.args.iter().cloned());
    let all: Vec<AnalysisRunArgument> = of_experiment(step).into_iter().chain(own).collect();
    if !all.iter().all(is_known) {
        let value = serde_json::to_string(&all).unwrap_or_default();
        let detail =
            "Analyses arguments must refer to valid object metadata supported by downwardAPI";
        complaints.value(format!("{field}.analyses"), value, detail);
    }
}

fn is_known(argument: &AnalysisRunArgument) -> bool {
    let from = argument.value_from.as_ref();
    let path = from.and_then(|from| from.field_ref.as_ref());
    path.is_none_or(|path| build::is_known_field(&path.field_path))
}

/// Those of an experiment's analyses, as far as they can be read.
fn of_experiment(step: &CanaryStep) -> Vec<AnalysisRunArgument> {
    let analyses = step.experiment.as_ref();
    let analyses = analyses.and_then(|experiment| experiment["analyses"].as_array());
    let args = analyses.into_iter().flatten();
    let args = args.filter_map(|analysis| analysis["args"].as_array());
    args.flatten()
        .filter_map(|argument| serde_json::from_value(argument.clone()).ok())
        .collect()
}
