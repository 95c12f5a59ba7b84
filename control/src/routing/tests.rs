//! What is known → where a request ends up, as tables of cases.

mod ingress;
mod rebuild;

use std::sync::Arc;

use serde_json::{Value, json};
use sidestep_proxy::table::{Pick, Protocol, Source, Table, Target};

use super::build::{Attached, Options, Snapshot, build};
use super::names::ServiceNames;
use crate::api::labels;

fn options() -> Options {
    Options {
        namespace: None,
        fleet: "default".into(),
        fleet_service: ("sidestep-system".into(), "sidestep-proxy".into()),
        attached: Attached::Services(names(None)),
        apexes: None,
        own: Vec::new(),
        pick: Pick::Sequence,
    }
}

fn names(default_service: Option<(String, String)>) -> ServiceNames {
    ServiceNames {
        default_namespace: "default".into(),
        default_service,
        cluster_domain: "cluster.local".into(),
    }
}

fn service(snapshot: &mut Snapshot, key: &str, ports: Value) {
    let (namespace, name) = key.split_once('/').unwrap();
    let service =
        json!({"metadata": {"namespace": namespace, "name": name}, "spec": {"ports": ports}});
    snapshot
        .services
        .push(Arc::new(serde_json::from_value(service).unwrap()));
}

/// One slice per pod, as on one machine; `pods` are ports of 127.0.0.1.
fn pods(snapshot: &mut Snapshot, key: &str, port_name: &str, pods: &[u16]) {
    let (namespace, name) = key.split_once('/').unwrap();
    for pod in pods {
        let slice = json!({
            "metadata": {"namespace": namespace, "name": format!("{name}-{pod}"), "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": port_name, "port": pod}],
            "endpoints": [{"addresses": ["127.0.0.1"], "targetRef": {"kind": "Pod", "uid": format!("pod-{pod}")}}],
        });
        snapshot
            .slices
            .push(Arc::new(serde_json::from_value(slice).unwrap()));
    }
}

fn split(snapshot: &mut Snapshot, name: &str, created: &str, spec: Value) {
    let split = json!({
        "metadata": {"namespace": "default", "name": name, "uid": format!("uid-{name}"), "generation": 3, "creationTimestamp": created},
        "spec": spec,
    });
    snapshot
        .splits
        .push(Arc::new(serde_json::from_value(split).unwrap()));
}

const EARLY: &str = "2026-01-01T00:00:00Z";
const LATE: &str = "2026-01-02T00:00:00Z";

fn http() -> Value {
    json!([{"name": "http", "port": 80}])
}

/// What becomes of a request: `service:port=endpoint ports`, per version where there is a Split, or status and reason.
fn asked(table: &Table, url: &str) -> String {
    let (host, path) = url.split_at(url.find('/').unwrap_or(url.len()));
    let path = if path.is_empty() { "/" } else { path };
    let index = match table.route(host, path) {
        None => return "404".into(),
        Some(Target::Refuse(refusal)) => return format!("{} {}", refusal.status, refusal.reason),
        Some(Target::Backend(index)) => *index,
    };
    let backend = &table.backends().nth(index).unwrap().backend;
    let ports = |endpoints: &Vec<sidestep_proxy::table::Endpoint>| {
        let ports: Vec<String> = endpoints
            .iter()
            .map(|e| e.address.port().to_string())
            .collect();
        ports.join(",")
    };
    let endpoints = match &backend.source {
        Source::Endpoints(endpoints) => ports(endpoints),
        Source::Split {
            split,
            rule,
            endpoints,
        } => {
            let split = &table.splits().nth(*split).unwrap().split;
            let versions = split
                .versions
                .iter()
                .zip(&split.rules[*rule].weights)
                .zip(endpoints);
            let versions: Vec<String> = versions
                .map(|((v, w), e)| {
                    let weight = w.map_or_else(|| "-".to_owned(), |w| w.to_string());
                    format!("{}*{weight}[{}]", v.name, ports(e))
                })
                .collect();
            versions.join("+")
        }
    };
    format!(
        "{}.{}:{}={endpoints}",
        backend.service, backend.namespace, backend.port
    )
}

#[track_caller]
fn check(snapshot: &Snapshot, options: &Options, cases: &[(&str, &str)]) -> Vec<String> {
    let (table, notices) = build(snapshot, options);
    for (host, expected) in cases {
        assert_eq!(asked(&table, host), *expected, "{host}; {notices:?}");
    }
    notices.iter().map(ToString::to_string).collect()
}

#[test]
fn a_service_answers_to_its_names_and_ports() {
    let mut known = Snapshot::default();
    service(
        &mut known,
        "default/web",
        json!([{"name": "admin", "port": 81}, {"name": "http", "port": 80}]),
    );
    pods(&mut known, "default/web", "http", &[8001]);
    pods(&mut known, "default/web", "admin", &[8101]);
    let http = "web.default:http=8001";
    let said = check(
        &known,
        &options(),
        &[
            ("web", http),
            ("web.default", http),
            ("web.default.svc", http),
            ("web.default.svc.cluster.local", http),
            ("web:80", http),
            ("web:8080", http),
            ("web:81", "web.default:admin=8101"),
            ("web.default.svc:81", "web.default:admin=8101"),
            ("web.other", "404"),
            ("localhost:8080", "404"),
        ],
    );
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn a_bare_name_belongs_to_the_default_namespace_else_to_its_only_service() {
    let mut known = Snapshot::default();
    for key in ["default/a", "x/a", "x/b", "x/c", "y/c"] {
        service(&mut known, key, json!([{"port": 80}]));
    }
    let cases = [
        ("a", "a.default:80="),
        ("b", "b.x:80="),
        ("c", "409 ambiguous-host"),
        ("c:80", "409 ambiguous-host"),
        ("c.y", "c.y:80="),
    ];
    check(&known, &options(), &cases);
}

#[test]
fn one_service_may_answer_for_every_other_host() {
    let mut known = Snapshot::default();
    service(&mut known, "default/web", http());
    let mut options = options();
    options.attached = Attached::Services(names(Some(("default".into(), "web".into()))));
    check(
        &known,
        &options,
        &[
            ("anything.example:8080", "web.default:http="),
            ("", "web.default:http="),
        ],
    );
    options.attached = Attached::Services(names(Some(("default".into(), "none".into()))));
    check(
        &known,
        &options,
        &[
            ("anything.example", "503 no-service"),
            ("web", "web.default:http="),
        ],
    );
}

#[test]
fn what_is_no_http_service_says_so() {
    let mut known = Snapshot::default();
    service(
        &mut known,
        "default/dns",
        json!([{"port": 53, "protocol": "UDP"}]),
    );
    service(
        &mut known,
        "default/tls",
        json!([{"name": "https", "port": 443, "appProtocol": "https"}, {"name": "plain", "port": 80}]),
    );
    service(&mut known, "default/headless", http());
    pods(&mut known, "default/headless", "http", &[8001]);
    let external = json!({"metadata": {"namespace": "default", "name": "ext"}, "spec": {"type": "ExternalName", "externalName": "example.com"}});
    known
        .services
        .push(Arc::new(serde_json::from_value(external).unwrap()));
    check(
        &known,
        &options(),
        &[
            ("dns", "501 no-tcp-port"),
            ("ext", "501 external-name"),
            ("tls", "tls.default:plain="),
            ("tls:443", "501 tls-upstream"),
            ("headless", "headless.default:http=8001"),
        ],
    );
}

#[test]
fn h2c_is_spoken_where_the_port_says_so() {
    let mut known = Snapshot::default();
    service(
        &mut known,
        "default/grpc",
        json!([{"port": 80, "appProtocol": "kubernetes.io/h2c"}]),
    );
    let (table, _) = build(&known, &options());
    assert_eq!(
        table.backends().next().unwrap().backend.protocol,
        Protocol::H2c
    );
}

fn versions() -> Value {
    json!([{"name": "stable", "service": "v1"}, {"name": "canary", "service": "v2", "needed": 2}])
}

fn known_with_versions() -> Snapshot {
    let mut known = Snapshot::default();
    for (name, number) in [("web", 80), ("v1", 8080), ("v2", 8080)] {
        service(
            &mut known,
            &format!("default/{name}"),
            json!([{"name": "http", "port": number}, {"name": "admin", "port": 81}]),
        );
    }
    for (port_name, base) in [("http", 8000), ("admin", 8100)] {
        pods(&mut known, "default/web", port_name, &[base + 1, base + 2]);
        pods(&mut known, "default/v1", port_name, &[base + 1]);
        pods(&mut known, "default/v2", port_name, &[base + 2]);
    }
    known
}

#[test]
fn a_split_expands_the_services_and_ports_of_its_rules() {
    let mut known = known_with_versions();
    let rule =
        json!({"services": ["web"], "ports": ["http"], "weights": {"stable": 90, "canary": 10}});
    let pinned = json!({"services": ["v2"], "weights": {"canary": 1}});
    split(
        &mut known,
        "web",
        EARLY,
        json!({"versions": versions(), "rules": [rule, pinned]}),
    );
    let said = check(
        &known,
        &options(),
        &[
            ("web", "web.default:http=stable*90[8001]+canary*10[8002]"),
            ("web:81", "web.default:admin=8101,8102"),
            ("v1", "v1.default:http=8001"),
            ("v2", "v2.default:http=stable*-[8001]+canary*1[8002]"),
        ],
    );
    assert!(said.is_empty(), "{said:?}");

    let (table, _) = build(&known, &options());
    let split = &table.splits().next().unwrap().split;
    assert_eq!(
        (split.uid.as_str(), split.generation, split.stable),
        ("uid-web", 3, Some(0))
    );
    // A pod is two addresses here, but pod-8002 and pod-8102 are two uids: what counts are distinct uids.
    assert_eq!(split.versions[1].ready, 2);
    assert_eq!(split.versions[1].needed, Some(2));
}

#[test]
fn the_oldest_split_has_the_service_and_the_loser_is_told() {
    let mut known = known_with_versions();
    let rule = |weight: u32| json!([{"services": ["web"], "weights": {"canary": weight}}]);
    split(
        &mut known,
        "late",
        LATE,
        json!({"versions": versions(), "rules": rule(7)}),
    );
    split(
        &mut known,
        "early",
        EARLY,
        json!({"versions": versions(), "rules": rule(5)}),
    );
    let said = check(
        &known,
        &options(),
        &[("web", "web.default:http=stable*-[8001]+canary*5[8002]")],
    );
    assert_eq!(
        said,
        ["Split default/late: Conflict: Service web is governed by the older Split early"]
    );
}

#[test]
fn a_split_that_is_broken_is_answered_for_on_its_own_routes_only() {
    let mut known = known_with_versions();
    let broken = json!({"versions": versions(), "rules": [{"services": ["web"], "weights": {"canary": "ten"}}]});
    split(&mut known, "broken", EARLY, broken);
    let said = check(
        &known,
        &options(),
        &[("web", "503 invalid-split"), ("v1", "v1.default:http=8001")],
    );
    assert!(
        said[0].starts_with("Split default/broken: Invalid: spec: "),
        "{said:?}"
    );
}

#[test]
fn a_service_that_is_missing_is_said_and_answered_for_on_its_own_routes_only() {
    let mut known = known_with_versions();
    let versions =
        json!([{"name": "stable", "service": "v1"}, {"name": "canary", "service": "v3"}]);
    let rules = json!([{"services": ["web", "nosuch"], "weights": {"stable": 1, "canary": 1}}]);
    split(
        &mut known,
        "s",
        EARLY,
        json!({"versions": versions, "rules": rules}),
    );
    let said = check(
        &known,
        &options(),
        &[
            ("web", "web.default:http=stable*1[8001]+canary*1[]"),
            ("nosuch", "503 no-service"),
            ("nosuch.default:80", "503 no-service"),
        ],
    );
    assert_eq!(
        said,
        [
            "Split default/s: ServiceNotFound: Service nosuch does not exist",
            "Split default/s: ServiceNotFound: Service v3 does not exist",
        ]
    );
}

#[test]
fn splits_of_another_fleet_are_none_of_our_business() {
    let mut known = known_with_versions();
    let rules = json!([{"services": ["web"], "weights": {"canary": 1}}]);
    split(
        &mut known,
        "s",
        EARLY,
        json!({"versions": versions(), "rules": rules, "fleet": "edge"}),
    );
    check(&known, &options(), &[("web", "web.default:http=8001,8002")]);
    let mut edge = options();
    edge.fleet = "edge".into();
    check(
        &known,
        &edge,
        &[("web", "web.default:http=stable*-[8001]+canary*1[8002]")],
    );
}

#[test]
fn revision_services_and_proxies_have_no_name_here() {
    let mut known = Snapshot::default();
    for (name, label) in [("web-rev-1", labels::REVISION_OF), ("fleet", labels::FLEET)] {
        let service = json!({"metadata": {"namespace": "default", "name": name, "labels": {label: "x"}}, "spec": {"ports": http()}});
        known
            .services
            .push(Arc::new(serde_json::from_value(service).unwrap()));
    }
    service(&mut known, "sidestep-system/sidestep-proxy", http());
    check(
        &known,
        &options(),
        &[
            ("web-rev-1", "404"),
            ("fleet", "404"),
            ("sidestep-proxy.sidestep-system", "404"),
        ],
    );
}

#[test]
fn a_proxy_that_stands_in_a_slice_is_left_out_and_said() {
    let mut known = Snapshot::default();
    service(&mut known, "default/web", http());
    pods(&mut known, "default/web", "http", &[8080, 8001]);
    let mut options = options();
    options.own = vec!["127.0.0.1:8080".parse().unwrap()];
    let said = check(&known, &options, &[("web", "web.default:http=8001")]);
    assert_eq!(
        said,
        ["Service default/web: ProxyEndpoint: 1 of its endpoints are proxies of ours"]
    );
}

#[test]
fn what_the_table_refuses_is_answered_for_alone() {
    let mut known = known_with_versions();
    let rules = json!([{"services": ["web"], "weights": {"canary": 1}}]);
    split(
        &mut known,
        "no-uid",
        EARLY,
        json!({"versions": versions(), "rules": rules}),
    );
    let mut raw = (*known.splits[0]).clone();
    raw.metadata.uid = None;
    known.splits = vec![Arc::new(raw)];
    let said = check(
        &known,
        &options(),
        &[("web", "503 invalid-split"), ("v1", "v1.default:http=8001")],
    );
    assert_eq!(
        said,
        ["Split default/no-uid: Invalid: split default/no-uid: uid is empty"]
    );
}

#[test]
fn an_apex_is_a_port_of_the_proxies_for_a_service_without_a_selector() {
    let mut known = Snapshot::default();
    service(&mut known, "default/web", http());
    service(&mut known, "default/web-a", http());
    pods(&mut known, "default/web-a", "http", &[8001]);
    let spec = |apexes: Value| {
        json!({
            "versions": [{"name": "stable", "service": "web-a"}],
            "rules": [{"services": ["web"], "weights": {"stable": 1}}],
            "apexes": apexes,
        })
    };
    let apex = |listen: u16, port: &str| json!({"service": "web", "port": port, "listen": listen});
    let first = json!([apex(10001, "http"), apex(10002, "gone"), apex(9, "80")]);
    split(&mut known, "web", EARLY, spec(first));
    split(&mut known, "late", LATE, spec(json!([apex(10001, "80")])));
    let options = Options {
        apexes: Some(10000..=10010),
        ..options()
    };
    let (table, notices) = build(&known, &options);
    let answers: Vec<_> = table
        .apexes()
        .map(|(port, target)| match target {
            Target::Backend(_) => format!("{port} serves"),
            Target::Refuse(refusal) => format!("{port} {}", refusal.reason),
        })
        .collect();
    assert_eq!(answers, ["10001 serves", "10002 no-port"]);
    assert_eq!(
        table.backends().len(),
        2,
        "a port is one backend, whoever leads there"
    );
    let said: Vec<String> = notices.iter().map(ToString::to_string).collect();
    assert_eq!(
        said,
        [
            "Split default/late: Conflict: Service web is governed by the older Split web",
            "Split default/late: Conflict: spec.apexes: port 10001 is that of Split default/web",
            "Split default/web: PortNotFound: spec.apexes: Service web has no TCP port gone",
            "Split default/web: Unsupported: spec.apexes: port 9 is none of this proxy's for apexes, 10000-10010",
        ]
    );
}
