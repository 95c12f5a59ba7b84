//! What an experiment's versions get of the traffic: of stable's share, as long as the experiment runs (R8.1 d and f, R8.3, R17.6).
//!
//! Stable keeps the pods for that share: when the experiment ends, it is stable's again at once.

use super::observed::Experimental;
use super::split::{Split, Version};
use super::turn::Turn;
use crate::api::rollout::WeightDestination;

/// A version of an experiment, and the weight it gets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beside<'a> {
    of: &'a Experimental,
    /// At most the one it asks for.
    pub(super) weight: i32,
}

impl Beside<'_> {
    /// For the status.
    pub(super) fn destination(&self) -> WeightDestination {
        WeightDestination {
            pod_template_hash: Some(self.of.hash.clone()),
            service_name: Some(self.of.service.clone()),
            weight: self.weight,
        }
    }

    /// For the Split.
    pub(super) fn version(&self) -> Version {
        Version {
            name: name(self.of),
            revision: self.of.hash.clone(),
            service: Some(self.of.service.clone()),
            needed: u32::try_from(self.of.pods.max(1)).unwrap_or(1),
        }
    }

    /// For the weighted rule of the Split.
    pub(super) fn share(&self) -> (String, u32) {
        (name(self.of), u32::try_from(self.weight).unwrap_or(0))
    }
}

/// Templates are often called `canary`, too.
fn name(version: &Experimental) -> String {
    format!("experiment-{}", version.name)
}

/// What a running experiment gets beside the canary, in its order, where `left` is what the canary leaves. An update that is over,
/// aborted or promoted in full has none.
pub(super) fn beside<'a>(turn: &Turn<'a>, left: i32) -> Vec<Beside<'a>> {
    let over = turn.is_promoted() || turn.is_aborted() || turn.next.promote_full;
    if over || turn.is_past_steps() {
        return Vec::new();
    }
    let mut left = left.max(0);
    let versions = turn.observed.experiment.iter().map(|of| {
        let weight = of.weight.clamp(0, left);
        left -= weight;
        Beside { of, weight }
    });
    versions.collect()
}

/// Who gets what, of the experiments in a Split.
pub(super) fn shares(split: &Split) -> Vec<(&str, &str, u32)> {
    let weights = split.rules.first().map(|rule| &rule.weights);
    let weight =
        |version: &Version| weights.and_then(|weights| weights.get(&version.name).copied());
    let versions = split.versions.iter().filter_map(|version| {
        let service = version.service.as_deref()?;
        let weight = weight(version).filter(|weight| *weight > 0)?;
        Some((service, version.revision.as_str(), weight))
    });
    versions.collect()
}

/// `additional: [{5 web-baseline 674d8cf959}]`, as Argo prints it.
pub(super) fn printed(additional: &[WeightDestination]) -> String {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let one = |to: &WeightDestination| {
        let (service, hash) = (text(&to.service_name), text(&to.pod_template_hash));
        format!("{{{} {service} {hash}}}", to.weight)
    };
    let all: Vec<String> = additional.iter().map(one).collect();
    format!("additional: [{}]", all.join(" "))
}
