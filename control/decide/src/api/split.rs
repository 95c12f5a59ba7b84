//! `sidestep.dev/v1alpha1` Split: the seam between controller and proxies.
//!
//! A Split lists *versions* (where the pods of each are found) and *rules* that give Services weights over them. The controller
//! writes one per Rollout; one written by hand works without any Rollout. Its uid and generation are what a proxy reports back.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime, Time};
use kube::CustomResource;
use serde::{Deserialize, Serialize};

/// The fleet of a Split that names none.
pub const DEFAULT_FLEET: &str = "default";

/// What a Split asks of the proxies.
#[derive(Clone, Debug, Default, PartialEq, CustomResource, Serialize, Deserialize)]
#[kube(
    group = "sidestep.dev",
    version = "v1alpha1",
    kind = "Split",
    plural = "splits",
    namespaced,
    status = "SplitStatus",
    schema = "disabled",
    derive = "Default",
    derive = "PartialEq"
)]
#[serde(rename_all = "camelCase")]
pub struct SplitSpec {
    /// The versions that share the traffic; names are unique.
    #[serde(default)]
    pub versions: Vec<SplitVersion>,
    /// Which Services are split, and how. A Service stands in one rule only.
    #[serde(default)]
    pub rules: Vec<SplitRule>,
    /// What becomes of a share that a version cannot carry; absent means `redistribute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// The fleet of proxies that serves it; absent means `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fleet: Option<String>,
    /// Ports of the proxies that stand for ports of governed Services; each is given once in a fleet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apexes: Vec<Apex>,
}

/// A port of every proxy of the fleet that stands for one port of a Service: what connects there meant that Service, whatever host it
/// names. The EndpointSlices of an apex Service, one without a selector, lead there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Apex {
    /// The Service, in the Split's namespace.
    pub service: String,
    /// Its port, by name or number.
    pub port: String,
    /// The port that the proxies listen at.
    pub listen: u16,
}

/// One member of a Split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitVersion {
    /// `stable`, `canary`, or a name of the writer's choice.
    pub name: String,
    /// The pod-template hash of its revision; absent in a Split written by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The Service whose EndpointSlices list its pods.
    pub service: String,
    /// Ready pods needed to carry its whole weight; absent means 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needed: Option<u32>,
}

/// Services, and their weights over the versions.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitRule {
    /// Names of the Services this rule governs, in the Split's namespace.
    pub services: Vec<String>,
    /// Ports of those Services, by name or number; absent means all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ports: Option<Vec<String>>,
    /// Version name → weight. A share is its weight ÷ the sum; a version that is not named gets none.
    pub weights: BTreeMap<String, u32>,
    /// Requests that are treated apart from the weights; the first route that matches counts. No proxy of this version serves them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<SplitRoute>,
}

/// Requests that are treated apart from the weights.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SplitRoute {
    /// Its name, for people.
    pub name: String,
    /// The version they go to, or that gets a copy of them.
    pub version: String,
    /// Percent of them that are copied; the requests themselves follow the weights. Absent means that they go to the version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<u32>,
    /// Which requests: those that meet any of these.
    pub matches: Vec<RequestMatch>,
}

/// What a request must have, all of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestMatch {
    /// Its method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<TextMatch>,
    /// Its path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<TextMatch>,
    /// Its headers, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, TextMatch>,
}

/// How a text is compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum TextMatch {
    /// It is this.
    Exact(String),
    /// It begins with this.
    Prefix(String),
    /// All of it matches this regular expression.
    Regex(String),
}

/// What becomes of a share that a version cannot carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fallback {
    /// Other versions with spare capacity take it.
    #[default]
    Redistribute,
    /// It is answered with 503.
    Refuse,
}

/// What became of a Split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SplitStatus {
    /// The generation that the rest of the status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Accepted`, `Verified`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// What the proxies serve of the weighted rules: of several proxies, the one farthest from the weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<EffectiveShares>,
    /// What the controller remembers of the Rollout beyond Argo's status fields.
    #[serde(flatten)]
    pub memory: Memory,
}

/// What the versions of one rule can carry, as the proxies see it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EffectiveShares {
    /// The rule's Services.
    pub services: Vec<String>,
    /// Version name → share, as a fraction of 1.
    pub shares: BTreeMap<String, f64>,
}

/// What a rollout remembers that Argo's status has no field for.
///
/// It stands in `Split.status`, or in the annotation `sidestep.dev/state` where there is no Split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Memory {
    /// The generation whose weights every proxy acknowledged with effective equal to desired, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
    /// What the rollout waits for, and until when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<Waiting>,
    /// Why the last update was aborted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_abort: Option<LastAbort>,
    /// The Split's generation after the controller's last write: another one means that a write of its own was not noted, or that
    /// somebody else has written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<i64>,
    /// Revisions that still have pods and that no proxy serves any more, by hash, and since when: their drain began then.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub left: BTreeMap<String, Time>,
    /// Revisions that were stable before and still have pods: going back to one of them is fast (blue-green).
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub proven: BTreeSet<String>,
    /// Pods that the Deployment of `workloadRef` was last scaled to for the Rollout's sake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workload_pods: Option<i32>,
    /// A revision that another controller named, and that is the spec's template nonetheless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub adopted: Option<Adopted>,
}

/// A revision that another controller named by a hash of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Adopted {
    /// The hash we would have given its template.
    pub template: String,
    /// The hash it has.
    pub revision: String,
}

/// A weight change that every proxy acknowledged. Latched: later changes of capacity do not undo it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The Split's generation.
    pub generation: i64,
    /// When the last proxy acknowledged it, in microseconds: a measurement window starts no earlier.
    pub at: MicroTime,
}

/// What a rollout waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// `pods`, `acknowledgement`, `pause`, `person`, `analysis`, `deadline`, `drain`, `service`, `spec`, `router`.
    pub reason: String,
    /// The same for a person: which pods, which proxy, until when.
    pub message: String,
    /// When the rollout looks again by itself, if by time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Time>,
}

/// Why an update was aborted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LastAbort {
    /// The revision that was aborted.
    pub revision: String,
    /// Index of the step it was at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<i32>,
    /// In words.
    pub reason: String,
    /// The metric that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<String>,
    /// The value it had.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// The condition it broke.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// When.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Time>,
}
