//! `spec.strategy`: steps, sizes, delays and routing.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Deserialize;
use serde_json::Value;

use super::invalid::Complaints;
use super::{
    AbortDelay, Amount, Background, Canary, CanaryScale, Delays, PauseFor, Routing, Step, Strategy,
    Threshold,
};
use super::{arguments, bluegreen};
use super::{routers, routes};
use crate::analysis::duration;
use crate::api::labels;
use crate::api::rollout::{
    CanaryStep, CanaryStrategy, PLUGIN, PauseStep, ProxyRouting, ReplicaProgressThreshold, Rollout,
    RolloutSpec, SetCanaryScale, TrafficRouting,
};
use crate::api::split::DEFAULT_FLEET;
use crate::rollout::hash;

/// `spec` is the Rollout's, with plain Services in place of ping and pong.
pub(super) fn parse(
    rollout: &Rollout,
    spec: &RolloutSpec,
    complaints: &mut Complaints,
) -> Option<Strategy> {
    let field = "spec.strategy.strategy";
    let written = &spec.strategy;
    match (&written.canary, &written.blue_green) {
        (Some(canary), None) => {
            bluegreen::refuse_annotation(rollout, complaints);
            Some(Strategy::Canary(parse_canary(canary, complaints)))
        }
        (None, Some(blue_green)) => Some(Strategy::BlueGreen(bluegreen::parse(
            rollout, blue_green, complaints,
        ))),
        (Some(_), Some(_)) => {
            complaints.text(
                field,
                "blueGreen: true canary: true",
                "Multiple Strategies can not be listed",
            );
            None
        }
        (None, None) => {
            let detail =
                "Rollout has missing field '.spec.strategy.canary or .spec.strategy.blueGreen'";
            complaints.required(field, detail);
            None
        }
    }
}

fn parse_canary(canary: &CanaryStrategy, complaints: &mut Complaints) -> Canary {
    let max_surge = amount("maxSurge", canary.max_surge.as_ref(), complaints);
    let max_unavailable = amount(
        "maxUnavailable",
        canary.max_unavailable.as_ref(),
        complaints,
    );
    check_slack(canary, max_surge, max_unavailable, complaints);
    check_services(canary, complaints);
    check_delays(canary, complaints);
    let routing = canary
        .traffic_routing
        .as_ref()
        .map(|block| parse_routing(canary, block, complaints));
    let whole = routing.as_ref().map_or(100, |routing| routing.whole);
    let steps = canary.steps.as_deref().unwrap_or_default();
    let parsed = steps.iter().enumerate();
    let parsed = parsed
        .filter_map(|(index, step)| parse_step(canary, index, step, whole, complaints))
        .collect();
    Canary {
        steps: parsed,
        step_hash: step_hash(steps),
        stable_service: named(canary.stable_service.as_ref()),
        canary_service: named(canary.canary_service.as_ref()),
        max_surge,
        max_unavailable,
        threshold: canary
            .replica_progress_threshold
            .as_ref()
            .and_then(|threshold| parse_threshold(threshold, complaints)),
        background: canary.analysis.as_ref().map(|background| Background {
            analysis: background.analysis.clone(),
            starting_step: background
                .starting_step
                .map_or(0, |index| usize::try_from(index).unwrap_or(0)),
        }),
        routing,
        delays: delays(canary),
    }
}

pub(super) fn named(service: Option<&String>) -> Option<String> {
    service.filter(|service| !service.is_empty()).cloned()
}

/// An empty list has no steps to name (R2.3).
fn step_hash(steps: &[CanaryStep]) -> String {
    let steps = match steps.is_empty() {
        true => Value::Null,
        false => serde_json::to_value(steps).unwrap_or_default(),
    };
    hash::of_steps(&steps)
}

/// A quoted number without a percent sign is percent all the same, as in Argo (R7.1).
pub(super) fn amount(
    key: &str,
    value: Option<&IntOrString>,
    complaints: &mut Complaints,
) -> Amount {
    let parsed = match value {
        None => Some(Amount::Percent(25)),
        Some(IntOrString::Int(pods)) => Some(Amount::Pods(*pods)),
        Some(IntOrString::String(text)) => {
            let digits = text.strip_suffix('%').unwrap_or(text);
            digits.parse().ok().map(Amount::Percent)
        }
    };
    let valid = parsed.filter(|amount| !matches!(amount, Amount::Pods(..0) | Amount::Percent(..0)));
    valid.unwrap_or_else(|| {
        let value = value.map_or(String::new(), printed);
        complaints.value(
            format!("spec.strategy.{key}"),
            value,
            "must be a number of pods or a percentage",
        );
        Amount::Percent(25)
    })
}

fn printed(value: &IntOrString) -> String {
    match value {
        IntOrString::Int(number) => number.to_string(),
        IntOrString::String(text) => format!("{text:?}"),
    }
}

fn check_slack(
    canary: &CanaryStrategy,
    surge: Amount,
    unavailable: Amount,
    complaints: &mut Complaints,
) {
    let none = |amount| matches!(amount, Amount::Pods(0) | Amount::Percent(0));
    if none(surge) && none(unavailable) {
        let value = canary
            .max_surge
            .as_ref()
            .map_or_else(|| "0".to_owned(), printed);
        complaints.value(
            "spec.strategy.maxSurge",
            value,
            "MaxSurge and MaxUnavailable both can not be zero",
        );
    }
}

fn check_services(canary: &CanaryStrategy, complaints: &mut Complaints) {
    let stable = canary.stable_service.as_deref().unwrap_or_default();
    let preview = canary.canary_service.as_deref().unwrap_or_default();
    let field = "spec.strategy.stableService";
    if !stable.is_empty() && stable == preview {
        let detail = "This rollout uses the same service for the stable and canary services, but two different services are required.";
        complaints.text(field, stable, detail);
    }
    let Some(routing) = &canary.traffic_routing else {
        return;
    };
    let needs_both = !is_ours(routing) && routing.plugins.is_none();
    let needs_stable =
        is_ours(routing) && block(routing).is_some_and(|block| block.services.is_empty());
    if (needs_both && (stable.is_empty() || preview.is_empty()))
        || (needs_stable && stable.is_empty())
    {
        complaints.text(
            field,
            stable,
            "Canary service and Stable service must to be set to use Traffic Routing",
        );
    }
}

fn check_delays(canary: &CanaryStrategy, complaints: &mut Complaints) {
    let routed = canary.traffic_routing.is_some();
    let dynamic = canary.dynamic_stable_scale == Some(true);
    if let Some(delay) = canary.scale_down_delay_seconds.filter(|_| !routed) {
        let detail = "Canary scaleDownDelaySeconds can only be used with traffic routing";
        complaints.value("spec.strategy.scaleDownDelaySeconds", delay, detail);
    }
    let field = "spec.strategy.dynamicStableScale";
    if dynamic && !routed {
        complaints.value(
            field,
            true,
            "Canary dynamicStableScale can only be used with traffic routing",
        );
    }
    if dynamic && canary.scale_down_delay_seconds.is_some() {
        complaints.value(
            field,
            true,
            "Canary dynamicStableScale cannot be used with scaleDownDelaySeconds",
        );
    }
}

/// The block is ours, or names no router at all.
pub(super) fn is_ours(routing: &TrafficRouting) -> bool {
    let plugins = routing.plugins.as_ref();
    let named = plugins.is_some_and(|plugins| plugins.contains_key(PLUGIN));
    let bare =
        routing.others.is_empty() && plugins.is_none_or(std::collections::BTreeMap::is_empty);
    named || bare
}

/// Our block; none if it cannot be read.
fn block(routing: &TrafficRouting) -> Option<ProxyRouting> {
    let block = routing
        .plugins
        .as_ref()
        .and_then(|plugins| plugins.get(PLUGIN));
    match block {
        None | Some(Value::Null) => Some(ProxyRouting::default()),
        Some(block) => ProxyRouting::deserialize(block).ok(),
    }
}

fn parse_routing(
    canary: &CanaryStrategy,
    routing: &TrafficRouting,
    complaints: &mut Complaints,
) -> Routing {
    let place = Place {
        field: block_field(),
        whole: parse_whole(routing, complaints),
        min_pods: canary.min_pods_per_replica_set.unwrap_or(1),
        dynamic: canary.dynamic_stable_scale == Some(true),
    };
    let mut block = parse_block(routing, complaints);
    if block.services.is_empty() {
        let stable = || named(canary.stable_service.as_ref()).into_iter().collect();
        block.services = [routers::root_services(routing), stable()]
            .into_iter()
            .find(|services| !services.is_empty())
            .unwrap_or_default();
    }
    let routes = routing.managed_routes.iter().flatten();
    Routing {
        managed_routes: routes.map(|route| route.name.clone()).collect(),
        ..route(block, &place, complaints)
    }
}

/// Where a block of ours stands, and what beside it bears on routing.
pub(super) struct Place {
    /// Path of the block.
    pub(super) field: String,
    /// What a weight is a part of.
    pub(super) whole: i32,
    /// Least pods of a ReplicaSet that has any.
    pub(super) min_pods: i32,
    /// Sizes follow weights.
    pub(super) dynamic: bool,
}

/// Parses a block whose Services are known.
pub(super) fn route(block: ProxyRouting, place: &Place, complaints: &mut Complaints) -> Routing {
    let drain = block.drain_timeout.as_deref();
    Routing {
        services: block.services,
        fallback: block.fallback,
        drain_timeout: parse_drain_timeout(&place.field, drain, complaints),
        fleet: parse_fleet(&place.field, block.fleet.as_deref(), complaints),
        managed_routes: Vec::new(),
        whole: place.whole,
        min_pods: place.min_pods,
        dynamic: place.dynamic,
    }
}

/// The annotation that holds our block where the strategy has no place for it.
pub(super) fn annotated(rollout: &Rollout) -> Option<&str> {
    let annotations = rollout.metadata.annotations.as_ref()?;
    annotations.get(labels::PROXY).map(String::as_str)
}

pub(super) fn annotation_field() -> String {
    format!("metadata.annotations[{}]", labels::PROXY)
}

fn delays(canary: &CanaryStrategy) -> Delays {
    let dynamic = canary.dynamic_stable_scale == Some(true);
    let delay = canary.scale_down_delay_seconds;
    let limit = canary.scale_down_delay_revision_limit;
    Delays {
        scale_down: match dynamic {
            true => 0,
            false => delay.map_or(30, |seconds| i64::from(seconds.max(0))),
        },
        limit: limit.map(|limit| usize::try_from(limit).unwrap_or(0)),
        abort: match canary.abort_scale_down_delay_seconds {
            None if dynamic => AbortDelay::WithTraffic,
            None => AbortDelay::After(30),
            Some(..=0) => AbortDelay::Never,
            Some(seconds) => AbortDelay::After(i64::from(seconds)),
        },
    }
}

/// What a weight is a part of.
fn parse_whole(routing: &TrafficRouting, complaints: &mut Complaints) -> i32 {
    let whole = routing.max_traffic_weight.unwrap_or(100);
    let field = "spec.strategy.trafficRouting.maxTrafficWeight";
    let foreign = routing.plugins.is_none() && !routing.others.is_empty();
    if routing.max_traffic_weight.is_some() && foreign && !routing.others.contains_key("nginx") {
        let detail =
            "Canary maxTrafficWeight in traffic routing only supported in Nginx and Plugins";
        complaints.value(field, whole, detail);
    }
    if whole < 1 {
        complaints.value(field, whole, "must be greater than 0");
    }
    whole
}

fn parse_block(routing: &TrafficRouting, complaints: &mut Complaints) -> ProxyRouting {
    block(routing).unwrap_or_else(|| {
        let plugins = routing.plugins.as_ref();
        let written = plugins
            .and_then(|plugins| plugins.get(PLUGIN))
            .cloned()
            .unwrap_or_default();
        complaints.value(block_field(), written, BLOCK_FORM);
        ProxyRouting::default()
    })
}

/// What a block of ours looks like.
pub(super) const BLOCK_FORM: &str = "must be {services: [NAME…], fallback: redistribute|refuse, drainTimeout: DURATION, fleet: NAME}";

fn block_field() -> String {
    format!("spec.strategy.canary.trafficRouting.plugins[{PLUGIN}]")
}

/// Whole seconds, rounded up; what cannot be read counts as the default.
fn parse_drain_timeout(field: &str, written: Option<&str>, complaints: &mut Complaints) -> i64 {
    let Some(written) = written else {
        return DRAIN_TIMEOUT_SECONDS;
    };
    let parsed = duration::parse(written);
    if let Some(length) = parsed.ok().filter(|length| !length.is_negative()) {
        return length.as_secs() + i64::from(length.subsec_nanos() > 0);
    }
    complaints.text(
        format!("{field}.drainTimeout"),
        written,
        "must be a duration of 0s or more, such as \"300s\" or \"5m\"",
    );
    DRAIN_TIMEOUT_SECONDS
}

/// A fleet is named by a label's value.
fn parse_fleet(field: &str, written: Option<&str>, complaints: &mut Complaints) -> Option<String> {
    let written = written?;
    if !is_label_value(written) {
        let detail = format!(
            "must be the value of the label {} on the Service that lists the fleet's proxies; leave it out to mean {DEFAULT_FLEET:?}",
            labels::FLEET
        );
        complaints.text(format!("{field}.fleet"), written, detail);
    }
    Some(written.to_owned()).filter(|fleet| fleet != DEFAULT_FLEET)
}

fn is_label_value(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let outer = |c: char| c.is_ascii_alphanumeric();
    text.len() <= 63 && text.chars().all(inner) && text.starts_with(outer) && text.ends_with(outer)
}

/// 300 s (data-plane rules, section 4).
pub(in crate::rollout) const DRAIN_TIMEOUT_SECONDS: i64 = 300;

fn parse_threshold(
    threshold: &ReplicaProgressThreshold,
    complaints: &mut Complaints,
) -> Option<Threshold> {
    let field = "spec.strategy.canary.replicaProgressThreshold";
    if threshold.value < 0 {
        complaints.value(
            format!("{field}.value"),
            threshold.value,
            "must be greater than or equal to 0",
        );
    }
    match threshold.kind.as_str() {
        "Percent" => Some(Threshold::Percent(threshold.value)),
        "Pods" => Some(Threshold::Pods(threshold.value)),
        other => {
            complaints.not_one_of(format!("{field}.type"), other, &["Percent", "Pods"]);
            None
        }
    }
}

fn parse_step(
    canary: &CanaryStrategy,
    index: usize,
    step: &CanaryStep,
    whole: i32,
    complaints: &mut Complaints,
) -> Option<Step> {
    let field = format!("spec.strategy.steps[{index}]");
    check_kinds(&field, step, complaints);
    check_foreign(canary, &field, step, complaints);
    arguments::check(&field, step, complaints);
    if let Some(weight) = step.set_weight {
        if !(0..=whole).contains(&weight) {
            let detail = format!("SetWeight needs to be between 0 and {whole}");
            complaints.value(format!("{field}.setWeight"), weight, detail);
        }
        return Some(Step::SetWeight(weight));
    }
    if let Some(pause) = &step.pause {
        return Some(Step::Pause(parse_pause(&field, pause, complaints)));
    }
    if let Some(analysis) = &step.analysis {
        return Some(Step::Analysis(Box::new(analysis.clone())));
    }
    if let Some(route) = routes::parse(step) {
        return Some(Step::SetRoute(Box::new(route)));
    }
    let scale = step.set_canary_scale.as_ref()?;
    if canary.traffic_routing.is_none() {
        complaints.required(
            "spec.strategy.trafficRouting",
            "SetCanaryScale requires TrafficRouting to be set",
        );
    }
    Some(Step::SetCanaryScale(parse_scale(&field, scale, complaints)))
}

/// Exactly one kind. The texts are Argo's, which prints every kind of an empty step as true.
fn check_kinds(field: &str, step: &CanaryStep, complaints: &mut Complaints) {
    let detail = "Step must have one of the following set: experiment, setWeight, setCanaryScale, plugin or pause";
    let (experiment, pause) = (step.experiment.is_some(), step.pause.is_some());
    let (weight, analysis) = (step.set_weight.is_some(), step.analysis.is_some());
    let others = [
        step.set_canary_scale.is_some(),
        step.set_header_route.is_some(),
        step.set_mirror_route.is_some(),
        step.plugin.is_some(),
    ];
    let count = |flags: &[bool]| flags.iter().filter(|flag| **flag).count();
    let (main, side) = (
        count(&[experiment, pause, weight, analysis]),
        count(&others),
    );
    if main + side == 0 {
        let value = "step.Experiment: true step.Pause: true step.SetWeight: true step.Analysis: true step.SetCanaryScale: true step.SetHeaderRoute: true step.SetMirrorRoute: true step.Plugin: true";
        complaints.text(field, value, detail);
    } else if main + side > 1 {
        let value = format!(
            "step.Experiment: {experiment} step.Pause: {pause} step.SetWeight: {weight} step.Analysis: {analysis}"
        );
        complaints.text(field, &value, detail);
    }
}

/// What Argo says of steps that this version does not do, so that the reason is the better one of the two.
fn check_foreign(
    canary: &CanaryStrategy,
    field: &str,
    step: &CanaryStep,
    complaints: &mut Complaints,
) {
    routes::check(canary, field, step, complaints);
    let routed = canary.traffic_routing.is_some();
    let templates = step
        .experiment
        .as_ref()
        .and_then(|experiment| experiment["templates"].as_array());
    for (index, template) in templates
        .into_iter()
        .flatten()
        .enumerate()
        .filter(|_| !routed)
    {
        if let Some(weight) = template["weight"].as_i64() {
            let detail =
                "Experiment template weight cannot be set unless TrafficRouting is enabled";
            complaints.value(
                format!("{field}.experiment.templates[{index}].weight"),
                weight,
                detail,
            );
        }
    }
}

/// Seconds as a number or as digits, or a Go duration. What cannot be read counts as -1, as Argo prints it.
fn parse_pause(field: &str, pause: &PauseStep, complaints: &mut Complaints) -> PauseFor {
    let (seconds, written) = match &pause.duration {
        None => return PauseFor::Person,
        Some(IntOrString::Int(seconds)) => (i64::from(*seconds), seconds.to_string()),
        Some(IntOrString::String(text)) => {
            let digits = text.parse::<i64>().ok();
            let seconds = digits.or_else(|| {
                duration::parse(text)
                    .ok()
                    .map(|duration| duration.as_secs())
            });
            (seconds.unwrap_or(-1), text.clone())
        }
    };
    if seconds < 0 {
        complaints.value(
            format!("{field}.pause.duration"),
            seconds,
            "Duration needs to be greater than 0",
        );
    }
    PauseFor::Time { seconds, written }
}

fn parse_scale(field: &str, scale: &SetCanaryScale, complaints: &mut Complaints) -> CanaryScale {
    let field = format!("{field}.setCanaryScale");
    let matching = scale.match_traffic_weight == Some(true);
    if let Some(number) = scale.replicas.or(scale.weight).filter(|number| *number < 0) {
        complaints.value(field.as_str(), number, "must be greater than or equal to 0");
    }
    match (matching, scale.replicas, scale.weight) {
        (false, Some(pods), _) => CanaryScale::Replicas(pods),
        (false, None, Some(weight)) => CanaryScale::Weight(weight),
        (true, _, _) | (false, None, None) => CanaryScale::MatchTrafficWeight,
    }
}
