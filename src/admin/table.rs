//! The table in service, as JSON for people: what goes where, with which share, to which endpoints.

use serde_json::{Value, json};
use sidestep_proxy::report::{BackendReport, BackendVersion, Share, SplitReport, TableReport};
use sidestep_proxy::table::{HostMatch, PathMatch, Protocol, Route, Target};

/// `{serial, acknowledged, routes, apexes, backends, splits}`; routes and apexes name their backend as `namespace/service:port`.
pub(crate) fn render(table: &TableReport) -> Value {
    json!({
        "serial": table.serial,
        "acknowledged": table.acknowledged,
        "routes": table.routes.iter().map(|route| self::route(route, &table.backends)).collect::<Vec<_>>(),
        "apexes": table.apexes.iter().map(|apex| self::apex(apex, &table.backends)).collect::<Vec<_>>(),
        "backends": table.backends.iter().map(backend).collect::<Vec<_>>(),
        "splits": table.splits.iter().map(split).collect::<Vec<_>>(),
    })
}

fn route(route: &Route, backends: &[BackendReport]) -> Value {
    let host = match &route.host {
        HostMatch::Any => "*".to_owned(),
        HostMatch::Exact(host) => host.clone(),
        HostMatch::Label(domain) => format!("*.{domain}"),
        HostMatch::Suffix(domain) => format!("**.{domain}"),
    };
    let path = match &route.path {
        PathMatch::Prefix(prefix) => json!({ "prefix": prefix }),
        PathMatch::Exact(path) => json!({ "exact": path }),
    };
    with_target(
        json!({ "host": host, "path": path }),
        &route.target,
        backends,
    )
}

fn apex((port, target): &(u16, Target), backends: &[BackendReport]) -> Value {
    with_target(json!({ "port": port }), target, backends)
}

fn with_target(mut what: Value, target: &Target, backends: &[BackendReport]) -> Value {
    match target {
        Target::Backend(index) => what["backend"] = json!(backends.get(*index).map(name)),
        Target::Refuse(refusal) => {
            what["refuse"] = json!({ "status": refusal.status, "reason": refusal.reason, "message": refusal.message });
        }
    }
    what
}

fn name(backend: &BackendReport) -> String {
    format!("{}/{}:{}", backend.namespace, backend.service, backend.port)
}

fn backend(backend: &BackendReport) -> Value {
    json!({
        "name": name(backend),
        "protocol": match backend.protocol { Protocol::Http1 => "http/1.1", Protocol::H2c => "h2c" },
        "split": backend.split,
        "shares": shares(&backend.shares),
        "versions": backend.versions.iter().map(version).collect::<Vec<_>>(),
    })
}

fn version(version: &BackendVersion) -> Value {
    let endpoints = version.endpoints.iter().map(|endpoint| {
        json!({ "address": endpoint.address, "pod": endpoint.pod, "inFlight": endpoint.in_flight })
    });
    json!({ "name": version.name, "revision": version.revision, "endpoints": endpoints.collect::<Vec<_>>() })
}

fn split(split: &SplitReport) -> Value {
    let rules = split.rules.iter().map(|rule| {
        json!({ "services": rule.services, "shares": shares(&rule.shares), "overcommit": rule.overcommit })
    });
    let versions = split.versions.iter().map(|version| {
        json!({
            "name": version.name, "revision": version.revision, "live": version.live, "ready": version.ready,
            "inFlight": version.counts.in_flight, "requests": version.counts.requests(),
        })
    });
    json!({
        "namespace": split.namespace, "name": split.name, "uid": split.uid, "generation": split.generation,
        "rules": rules.collect::<Vec<_>>(), "versions": versions.collect::<Vec<_>>(),
    })
}

fn shares(shares: &[Share]) -> Value {
    let by_version = shares.iter().map(|share| {
        (
            share.version.clone(),
            json!({ "desired": share.desired, "effective": share.effective }),
        )
    });
    Value::Object(by_version.collect())
}
