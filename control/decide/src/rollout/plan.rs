//! Spec → [`Plan`]: the parse of a Rollout, and all of its complaints.
//!
//! After this nothing asks again whether a field is allowed, what its default is or how its text reads.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::hash::Names;
use super::observed::Service;
use super::replicas::{self, Slack};
use super::time;
use crate::analysis::template::Templates;
use crate::api::rollout::{Rollout, RolloutAnalysis, RolloutSpec};
use crate::api::split::{Fallback, SplitRoute};

mod arguments;
mod bluegreen;
mod invalid;
mod pingpong;
mod pods;
mod references;
mod roles;
mod routers;
mod routes;
mod strategy;
mod unsupported;

pub use invalid::{Fault, Invalid, refuse};
pub use roles::{Apart, Marks, Roles};
pub use routers::{Foreign, RouterObject, named as named_routers, root_services};
pub(super) use strategy::DRAIN_TIMEOUT_SECONDS;

use invalid::Complaints;
use pods::Pods;

/// What a Rollout refers to, as far as it exists.
#[derive(Clone, Debug, Default)]
pub struct References {
    /// The Services that its spec names (stable, canary, and those of our routing block).
    pub services: Vec<Service>,
    /// The analysis templates that it names, and those that they name.
    pub templates: Templates,
    /// What `workloadRef` leads to, where it is set.
    pub workload: Option<Workload>,
    /// Objects of other routers that it names and that are live.
    pub live_routers: Vec<RouterObject>,
    /// The fleet's proxies serve header and mirror routes.
    pub serves_routes: bool,
    /// A Split of the Rollout's name exists and belongs to someone else.
    pub split_taken: bool,
}

/// What a `workloadRef` leads to.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// The workload, with its pod template and selector.
    Found {
        /// Its pod template, as JSON.
        template: Value,
        /// Its selector.
        selector: Option<LabelSelector>,
        /// Counts changes of its spec; 0 where its kind has none.
        generation: i64,
        /// Pods wanted of a Deployment; none of another kind.
        replicas: Option<i32>,
    },
    /// Why it cannot be used, in the API server's words: `deployments.apps "ns/name" not found`.
    Missing(String),
}

/// A Rollout's spec, understood.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Pods wanted; none where the spec leaves it open.
    pub replicas: Option<i32>,
    /// Which pods are its own.
    pub selector: LabelSelector,
    /// The pod template, as JSON.
    pub template: Value,
    /// What a revision of it is called.
    pub names: Names,
    /// Seconds a pod must be ready before it counts as available.
    pub min_ready_seconds: i32,
    /// Old ReplicaSets kept.
    pub history_limit: usize,
    /// Pods created before this time are to be replaced; in whole seconds.
    pub restart_at: Option<Timestamp>,
    /// A rollback skips the steps where fewer revisions than this lie between its revision and stable; none means never.
    pub rollback_window: Option<usize>,
    /// Steps and promotion stand still.
    pub paused: bool,
    /// Time without progress after which the rollout is Degraded.
    pub progress_deadline: SignedDuration,
    /// … and aborted.
    pub abort_at_deadline: bool,
    /// Finished runs kept.
    pub run_history: RunHistory,
    /// How the new revision takes over.
    pub strategy: Strategy,
    /// What pods carry for the part they play.
    pub roles: Roles,
    /// The workload whose template this is, where it is another's.
    pub workload: Option<Referred>,
    /// What becomes of `trafficRouting` blocks of other routers.
    pub foreign: Foreign,
    /// The Rollout itself, for the arguments of its analyses.
    pub rollout: Rollout,
    /// The templates of its analyses.
    pub templates: Templates,
}

/// The workload that a `workloadRef` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referred {
    /// Its name.
    pub name: String,
    /// Counts changes of its spec.
    pub generation: i64,
    /// Pods wanted of a Deployment; none of another kind.
    pub replicas: Option<i32>,
    /// When a Deployment is scaled down.
    pub scale_down: ScaleDown,
}

/// When a Deployment is scaled down in favour of the Rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScaleDown {
    /// That is for a person.
    Never,
    /// When the first revision is Healthy.
    OnSuccess,
    /// Pod by pod, as the first revision's become ready.
    Progressively,
}

/// Finished AnalysisRuns kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunHistory {
    /// Successful ones.
    pub successful: usize,
    /// Others.
    pub unsuccessful: usize,
}

/// How the new revision takes over.
#[derive(Clone, Debug, PartialEq)]
pub enum Strategy {
    /// Step by step.
    Canary(Canary),
    /// All at once.
    BlueGreen(BlueGreen),
}

/// What both strategies have, so that code which does not care need not ask which it is.
impl Plan {
    /// The canary strategy, where it is that.
    #[must_use]
    pub const fn canary(&self) -> Option<&Canary> {
        match &self.strategy {
            Strategy::Canary(canary) => Some(canary),
            Strategy::BlueGreen(_) => None,
        }
    }

    /// The blue-green strategy, where it is that.
    #[must_use]
    pub const fn blue_green(&self) -> Option<&BlueGreen> {
        match &self.strategy {
            Strategy::Canary(_) => None,
            Strategy::BlueGreen(blue_green) => Some(blue_green),
        }
    }

    /// Service that selects the stable pods.
    #[must_use]
    pub const fn stable_service(&self) -> Option<&String> {
        match &self.strategy {
            Strategy::Canary(canary) => canary.stable_service.as_ref(),
            Strategy::BlueGreen(blue_green) => Some(&blue_green.active_service),
        }
    }

    /// Service that selects the new revision's pods.
    #[must_use]
    pub const fn new_service(&self) -> Option<&String> {
        match &self.strategy {
            Strategy::Canary(canary) => canary.canary_service.as_ref(),
            Strategy::BlueGreen(blue_green) => blue_green.preview_service.as_ref(),
        }
    }

    /// What to do, in order.
    #[must_use]
    pub fn steps(&self) -> &[Step] {
        self.canary().map_or(&[], |canary| &canary.steps)
    }

    /// Hash of the step list, where the strategy has steps.
    #[must_use]
    pub fn step_hash(&self) -> Option<&String> {
        Some(&self.canary()?.step_hash)
    }

    /// Pods that satisfy a step or a promotion, where fewer than all do.
    #[must_use]
    pub fn threshold(&self) -> Option<Threshold> {
        self.canary()?.threshold
    }

    /// Routing by our proxies, if it is asked for.
    #[must_use]
    pub const fn routing(&self) -> Option<&Routing> {
        match &self.strategy {
            Strategy::Canary(canary) => canary.routing.as_ref(),
            Strategy::BlueGreen(blue_green) => blue_green.routing.as_ref(),
        }
    }

    /// How long revisions stay up that get no traffic any more.
    #[must_use]
    pub const fn delays(&self) -> Delays {
        match &self.strategy {
            Strategy::Canary(canary) => canary.delays,
            Strategy::BlueGreen(blue_green) => blue_green.delays,
        }
    }

    /// Pods above and below the wanted number that an update may have.
    pub(super) fn slack(&self, replicas: i32) -> Slack {
        match &self.strategy {
            Strategy::Canary(canary) => {
                replicas::slack(replicas, canary.max_surge, canary.max_unavailable)
            }
            Strategy::BlueGreen(blue_green) => {
                replicas::slack(replicas, Amount::Pods(0), blue_green.max_unavailable)
            }
        }
    }
}

/// The canary strategy.
#[derive(Clone, Debug, PartialEq)]
pub struct Canary {
    /// What to do, in order.
    pub steps: Vec<Step>,
    /// Hash of the step list.
    pub step_hash: String,
    /// Service that selects the stable pods.
    pub stable_service: Option<String>,
    /// Service that selects the canary's pods.
    pub canary_service: Option<String>,
    /// Pods above `replicas` while updating without routing.
    pub max_surge: Amount,
    /// Pods that may be missing while updating without routing.
    pub max_unavailable: Amount,
    /// Pods that satisfy a step, where fewer than all do.
    pub threshold: Option<Threshold>,
    /// Analysis beside the steps.
    pub background: Option<Background>,
    /// Weighted routing; without it the share follows the counts.
    pub routing: Option<Routing>,
    /// How long revisions stay up that get no traffic any more. With routing only.
    pub delays: Delays,
}

/// The blue-green strategy.
#[derive(Clone, Debug, PartialEq)]
pub struct BlueGreen {
    /// Service that users are sent to.
    pub active_service: String,
    /// Service that leads to the new revision.
    pub preview_service: Option<String>,
    /// Pods of the new revision until its analysis and its pause are over, where that is another number.
    pub preview_replicas: Option<i32>,
    /// Who promotes, and when.
    pub promotion: Promotion,
    /// Analysis that must be good before the switch.
    pub before: Option<RolloutAnalysis>,
    /// Analysis that must be good after it.
    pub after: Option<RolloutAnalysis>,
    /// Pods that may be missing while pods are restarted.
    pub max_unavailable: Amount,
    /// How long revisions stay up that get no traffic any more.
    pub delays: Delays,
    /// Routing by our proxies; without it the Services' selectors switch.
    pub routing: Option<Routing>,
}

/// Who promotes the new revision of a blue-green update once it is ready and its analysis good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promotion {
    /// The controller, at once.
    AtOnce,
    /// The controller, after so many seconds.
    After(i64),
    /// A person.
    ByPerson,
}

/// One step.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The canary's share.
    SetWeight(i32),
    /// The canary's size apart from its share.
    SetCanaryScale(CanaryScale),
    /// Wait.
    Pause(PauseFor),
    /// Wait for a verdict.
    Analysis(Box<RolloutAnalysis>),
    /// A header or mirror route.
    SetRoute(Box<RouteStep>),
}

/// A step that sets a route or takes it away.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteStep {
    /// `setHeaderRoute` or `setMirrorRoute`.
    pub kind: &'static str,
    /// The route's name.
    pub name: String,
    /// What the Split is to have of it; none takes it away.
    pub route: Option<SplitRoute>,
}

/// The canary's size apart from its share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CanaryScale {
    /// Pods, literally.
    Replicas(i32),
    /// Percent of `spec.replicas`, rounded up.
    Weight(i32),
    /// As the weight asks for.
    MatchTrafficWeight,
}

/// How long a pause step waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PauseFor {
    /// Until a person says so.
    Person,
    /// For a time.
    Time {
        /// The time, in whole seconds.
        seconds: i64,
        /// As it was written: `3`, `10s`.
        written: String,
    },
}

/// Pods, or percent of `spec.replicas`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amount {
    /// Pods.
    Pods(i32),
    /// Percent.
    Percent(i32),
}

/// How many available pods satisfy a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Threshold {
    /// Percent of the target.
    Percent(i32),
    /// Pods.
    Pods(i32),
}

/// Analysis beside the steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Background {
    /// Templates and arguments.
    pub analysis: RolloutAnalysis,
    /// Index of the step at which it starts.
    pub starting_step: usize,
}

/// Weighted routing by our proxies.
#[derive(Clone, Debug, PartialEq)]
pub struct Routing {
    /// The Services that are split.
    pub services: Vec<String>,
    /// What becomes of a share that a version cannot carry.
    pub fallback: Option<Fallback>,
    /// Seconds a revision that no proxy serves any more may go on with the requests it has.
    pub drain_timeout: i64,
    /// The fleet of proxies that serves the Split; none means `default`.
    pub fleet: Option<String>,
    /// Names of header and mirror routes, in order of precedence.
    pub managed_routes: Vec<String>,
    /// What a weight is a part of.
    pub whole: i32,
    /// Least pods of a ReplicaSet that has any.
    pub min_pods: i32,
    /// Stable shrinks as the canary's weight grows.
    pub dynamic: bool,
}

/// How long revisions stay up that get no traffic any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// Seconds the previous stable stays up after promotion.
    pub scale_down: i64,
    /// Old ReplicaSets that may wait for their delay at once.
    pub limit: Option<usize>,
    /// How long the new revision stays up after an abort.
    pub abort: AbortDelay,
}

/// How long the new revision stays up after an abort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortDelay {
    /// Seconds.
    After(i64),
    /// As long as requests are sent to it: sizes follow weights.
    WithTraffic,
    /// For ever.
    Never,
}

/// Parses a Rollout.
///
/// # Errors
///
/// All complaints, the ones Argo has first and in its order; [`Invalid`] prints them in its words. Never empty.
pub fn plan(rollout: &Rollout, references: &References) -> Result<Plan, Vec<Invalid>> {
    let mut complaints = Complaints::default();
    let pods = pods::parse(rollout, references, &mut complaints);
    times(&rollout.spec, &mut complaints);
    let spec = pingpong::plain(rollout, &mut complaints);
    let strategy = strategy::parse(rollout, &spec, &mut complaints);
    let selector = pods.as_ref().map(|pods| &pods.selector);
    let roles = roles::parse(&rollout.spec, selector, &mut complaints);
    if let (true, Some(strategy), Some(pods)) = (complaints.are_none(), &strategy, &pods) {
        references::check(rollout, strategy, &pods.labels, references, &mut complaints);
    }
    unsupported::refuse(rollout, references, &mut complaints);
    match (strategy, pods) {
        (Some(strategy), Some(pods)) if complaints.are_none() => {
            Ok(assemble(rollout, references, strategy, pods, roles))
        }
        _ => Err(complaints.0),
    }
}

fn referred(spec: &RolloutSpec, references: &References) -> Option<Referred> {
    let reference = spec.workload_ref.as_ref()?;
    let Some(Workload::Found {
        generation,
        replicas,
        ..
    }) = &references.workload
    else {
        return None;
    };
    Some(Referred {
        name: reference.name.clone().unwrap_or_default(),
        generation: *generation,
        replicas: *replicas,
        scale_down: match reference.scale_down.as_deref() {
            Some("onsuccess") => ScaleDown::OnSuccess,
            Some("progressively") => ScaleDown::Progressively,
            Some(_) | None => ScaleDown::Never,
        },
    })
}

fn assemble(
    rollout: &Rollout,
    references: &References,
    strategy: Strategy,
    pods: Pods,
    roles: Roles,
) -> Plan {
    let spec = &rollout.spec;
    let count = |count: Option<i32>, default| {
        count.map_or(default, |count| usize::try_from(count).unwrap_or(0))
    };
    let kept = spec.analysis.clone().unwrap_or_default();
    let window = spec.rollback_window.as_ref();
    let window = window.and_then(|window| usize::try_from(window.revisions?).ok());
    Plan {
        replicas: spec.replicas,
        selector: pods.selector,
        names: Names::of(&pods.template),
        template: pods.template,
        min_ready_seconds: spec.min_ready_seconds.unwrap_or(0),
        history_limit: count(spec.revision_history_limit, 10),
        restart_at: spec.restart_at.as_ref().map(|at| time::whole_seconds(at.0)),
        rollback_window: window.filter(|revisions| *revisions > 0),
        paused: spec.paused == Some(true),
        progress_deadline: SignedDuration::from_secs(i64::from(progress_deadline(spec))),
        abort_at_deadline: spec.progress_deadline_abort == Some(true),
        run_history: RunHistory {
            successful: count(kept.successful_run_history_limit, 5),
            unsuccessful: count(kept.unsuccessful_run_history_limit, 5),
        },
        strategy,
        roles,
        workload: referred(spec, references),
        foreign: routers::judge(rollout, &references.live_routers),
        rollout: rollout.clone(),
        templates: references.templates.clone(),
    }
}

/// R1.2: 600 s unless the spec says otherwise.
fn progress_deadline(spec: &RolloutSpec) -> i32 {
    spec.progress_deadline_seconds.unwrap_or(600)
}

fn times(spec: &RolloutSpec, complaints: &mut Complaints) {
    let fields = [
        ("spec.replicas", spec.replicas),
        ("spec.minReadySeconds", spec.min_ready_seconds),
        ("spec.revisionHistoryLimit", spec.revision_history_limit),
        (
            "spec.progressDeadlineSeconds",
            spec.progress_deadline_seconds,
        ),
    ];
    for (field, value) in fields {
        if let Some(value) = value.filter(|value| *value < 0) {
            complaints.value(field, value, "must be greater than or equal to 0");
        }
    }
    let deadline = progress_deadline(spec);
    if deadline <= spec.min_ready_seconds.unwrap_or(0) {
        complaints.value(
            "spec.progressDeadlineSeconds",
            deadline,
            "must be greater than minReadySeconds",
        );
    }
}

#[cfg(test)]
mod tests;
