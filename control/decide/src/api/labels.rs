//! The keys of the labels and annotations that carry meaning between objects (reference: Argo Rollouts, `utils/annotations`).

/// Label on ReplicaSets, their pods, AnalysisRuns and Service selectors: the revision's pod-template hash.
pub const POD_TEMPLATE_HASH: &str = "rollouts-pod-template-hash";
/// Annotation on Services whose selector a Rollout keeps: that Rollout's name.
pub const MANAGED_BY: &str = "argo-rollouts.argoproj.io/managed-by-rollouts";
/// Annotation on Rollouts, ReplicaSets and AnalysisRuns: the revision number, decimal.
pub const REVISION: &str = "rollout.argoproj.io/revision";
/// Annotation on ReplicaSets: earlier revision numbers of a template that came back, comma separated.
pub const REVISION_HISTORY: &str = "rollout.argoproj.io/revision-history";
/// Annotation on ReplicaSets: `spec.replicas` of the Rollout when this ReplicaSet was last scaled, decimal.
pub const DESIRED_REPLICAS: &str = "rollout.argoproj.io/desired-replicas";
/// Annotation on ReplicaSets: JSON of the labels and annotations that its pods carry for the part they play.
pub const EPHEMERAL_METADATA: &str = "rollout.argoproj.io/ephemeral-metadata";
/// Annotation on ReplicaSets: RFC 3339 time from which it may be scaled to zero. Argo gives it no prefix.
pub const SCALE_DOWN_DEADLINE: &str = "scale-down-deadline";
/// Annotation on Rollouts: generation of the workload that `workloadRef` names.
pub const WORKLOAD_GENERATION: &str = "rollout.argoproj.io/workload-generation";
/// Label on AnalysisRuns: `Step`, `Background`, `PrePromotion` or `PostPromotion`.
pub const ROLLOUT_TYPE: &str = "rollout-type";
/// Label on the AnalysisRun of a step: the step's index, decimal.
pub const STEP_INDEX: &str = "step-index";
/// Annotation that `kubectl apply` writes; never copied to a ReplicaSet.
pub const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotation that Argo's notification engine writes; never copied to a ReplicaSet.
pub const NOTIFIED: &str = "notified.notifications.argoproj.io";
/// Prefix of our own annotations; never copied to a ReplicaSet.
pub const OURS: &str = "sidestep.dev/";
/// Annotation on a Rollout without a Split: what Argo's status has no field for, as JSON of [`super::split::Memory`].
pub const STATE: &str = "sidestep.dev/state";
/// Annotation on a blue-green Rollout: routing by our proxies, as JSON of [`super::rollout::ProxyRouting`]; `{}` will do.
pub const PROXY: &str = "sidestep.dev/proxy";
/// Label on revision Services: the ReplicaSet's name.
pub const REVISION_OF: &str = "sidestep.dev/revision-of";
/// Label on Rollouts, copied to their AnalysisRuns: which controller they belong to, where there are several.
pub const INSTANCE_ID: &str = "argo-rollouts.argoproj.io/controller-instance-id";
/// Annotation on EndpointSlices of an apex Service that list proxies: the namespace of their fleet's Services.
pub const PROXIES: &str = "sidestep.dev/proxies-of";
/// Label on the headless Service that lists the proxies of a fleet: the fleet's name.
pub const FLEET: &str = "sidestep.dev/fleet";

/// Label of a Service that is the way in for the Ingresses of a class: which class. They carry its addresses.
pub const INGRESS_CLASS: &str = "sidestep.dev/ingress-class";

/// Annotation of such a Service: the addresses that Ingresses carry, separated by commas, in place of those it has.
pub const ADDRESSES: &str = "sidestep.dev/addresses";
