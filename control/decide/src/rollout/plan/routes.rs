//! Header and mirror routes: `setHeaderRoute`, `setMirrorRoute` and the `managedRoutes` that they name (R27).

use serde_json::Value;

use super::RouteStep;
use super::invalid::Complaints;
use crate::api::rollout::{CanaryStep, CanaryStrategy};
use crate::api::split::{RequestMatch, SplitRoute, TextMatch};
use crate::rollout::hash;
use crate::rollout::split::CANARY;

/// The step as the Split will have it; none if it sets no route.
pub(super) fn parse(step: &CanaryStep) -> Option<RouteStep> {
    let (kind, written) = match (&step.set_header_route, &step.set_mirror_route) {
        (Some(route), _) => ("setHeaderRoute", route),
        (None, Some(route)) => ("setMirrorRoute", route),
        (None, None) => return None,
    };
    let is_mirror = kind == "setMirrorRoute";
    let matches = list(&written["match"]).map(|(_, one)| match is_mirror {
        true => request(one),
        false => header(one),
    });
    let name = written["name"].as_str().unwrap_or_default().to_owned();
    let route = SplitRoute {
        name: name.clone(),
        version: CANARY.to_owned(),
        mirror: is_mirror.then(|| percentage(written)),
        matches: matches.collect(),
    };
    Some(RouteStep {
        kind,
        name,
        route: (!route.matches.is_empty()).then_some(route),
    })
}

fn percentage(route: &Value) -> u32 {
    let written = route["percentage"].as_u64();
    written.map_or(100, |part| u32::try_from(part).unwrap_or(100))
}

fn header(written: &Value) -> RequestMatch {
    let name = written["headerName"].as_str().unwrap_or_default();
    let value = text(&written["headerValue"]);
    RequestMatch {
        headers: value
            .map(|value| (name.to_owned(), value))
            .into_iter()
            .collect(),
        ..RequestMatch::default()
    }
}

fn request(written: &Value) -> RequestMatch {
    let headers = written["headers"].as_object().into_iter().flatten();
    let headers = headers.filter_map(|(name, value)| Some((name.clone(), text(value)?)));
    RequestMatch {
        method: text(&written["method"]),
        path: text(&written["path"]),
        headers: headers.collect(),
    }
}

fn text(written: &Value) -> Option<TextMatch> {
    let given = |key: &str| written[key].as_str().map(str::to_owned);
    let exact = given("exact").map(TextMatch::Exact);
    let prefix = || given("prefix").map(TextMatch::Prefix);
    let regex = || given("regex").map(TextMatch::Regex);
    exact.or_else(prefix).or_else(regex)
}

/// Says what is wrong with a step's routes, in Argo's words.
pub(super) fn check(
    canary: &CanaryStrategy,
    field: &str,
    step: &CanaryStep,
    complaints: &mut Complaints,
) {
    let header = "SetHeaderRoute requires TrafficRouting, supports Istio and ALB and Apisix";
    let mirror = "SetMirrorRoute requires TrafficRouting, supports Istio and Plugins";
    if let Some(route) = &step.set_header_route {
        let field = format!("{field}.setHeaderRoute");
        check_name(
            canary,
            &field,
            ("SetHeaderRoute", route),
            header,
            complaints,
        );
        for (index, one) in list(&route["match"]) {
            check_text(
                &format!("{field}.match[{index}]"),
                &one["headerValue"],
                complaints,
            );
        }
    }
    if let Some(route) = &step.set_mirror_route {
        let field = format!("{field}.setMirrorRoute");
        check_name(
            canary,
            &field,
            ("SetMirrorRoute", route),
            mirror,
            complaints,
        );
        for (index, one) in list(&route["match"]) {
            check_request(&format!("{field}.match[{index}]"), one, complaints);
        }
        if let Some(percentage) = route["percentage"]
            .as_i64()
            .filter(|part| !(0..=100).contains(part))
        {
            let detail = "must be between 0 and 100";
            complaints.value(format!("{field}.percentage"), percentage, detail);
        }
    }
}

fn list(value: &Value) -> impl Iterator<Item = (usize, &Value)> {
    value.as_array().into_iter().flatten().enumerate()
}

/// A route needs routing, and a place among the managed ones, which gives it its precedence.
fn check_name(
    canary: &CanaryStrategy,
    field: &str,
    (kind, route): (&str, &Value),
    unrouted: &str,
    complaints: &mut Complaints,
) {
    let Some(routing) = &canary.traffic_routing else {
        return complaints.value(field, hash::as_go(kind, route), unrouted);
    };
    let Some(managed) = &routing.managed_routes else {
        let field = "spec.strategy.trafficRouting.managedRoutes";
        let detail =
            "Rollout has missing field 'spec.strategy.canary.trafficRouting.managedRoutes'";
        return complaints.required(field, detail);
    };
    let name = route["name"].as_str().unwrap_or_default();
    if managed.iter().all(|route| route.name != name) {
        let detail = "Steps define a route that does not exist in spec.strategy.canary.trafficRouting.managedRoutes";
        complaints.text(field, name, detail);
    }
}

/// A method, a path and headers, each of them optional.
fn check_request(field: &str, request: &Value, complaints: &mut Complaints) {
    for key in ["method", "path"] {
        if !request[key].is_null() {
            check_text(&format!("{field}.{key}"), &request[key], complaints);
        }
    }
    for (header, text) in request["headers"].as_object().into_iter().flatten() {
        check_text(&format!("{field}.headers[{header}]"), text, complaints);
    }
}

/// Exactly one way to compare.
fn check_text(field: &str, text: &Value, complaints: &mut Complaints) {
    let ways = ["exact", "regex", "prefix"];
    let given = |way: &&&str| text[**way].as_str().is_some_and(|text| !text.is_empty());
    let detail = match ways.iter().filter(given).count() {
        0 => {
            "StringMatch value missed, match value must have one of the following: exact, regex, prefix"
        }
        1 => return check_pattern(field, &text["regex"], complaints),
        _ => "StringMatch match value must have exactly one of the following: exact, regex, prefix",
    };
    complaints.value(field, hash::as_go("StringMatch", text), detail);
}

/// The proxy would not know what to do with a pattern that does not parse.
fn check_pattern(field: &str, pattern: &Value, complaints: &mut Complaints) {
    let pattern = pattern.as_str().unwrap_or_default();
    if let Err(error) = regex::Regex::new(pattern) {
        let error = error.to_string();
        let last = error.lines().last().unwrap_or_default().to_owned();
        complaints.text(format!("{field}.regex"), pattern, last);
    }
}
