//! Ingresses on a cluster: only what they say is served.

use super::*;

fn attached() -> Options {
    Options {
        attached: Attached::Ingresses {
            class: "sidestep".into(),
            secrets: None,
        },
        ..options()
    }
}

/// `default/web` on port 80 (`http`) and 81, `default/api` on 80; one pod each.
fn cluster() -> Snapshot {
    let mut known = Snapshot::default();
    let web = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 81}]);
    service(&mut known, "default/web", web);
    service(&mut known, "default/api", http());
    pods(&mut known, "default/web", "http", &[8001]);
    pods(&mut known, "default/web", "admin", &[8101]);
    pods(&mut known, "default/api", "http", &[8002]);
    known
}

fn ingress(known: &mut Snapshot, name: &str, created: &str, mut spec: Value) {
    if spec.get("ingressClassName").is_none() {
        spec["ingressClassName"] = json!("sidestep");
    }
    let metadata = json!({"namespace": "default", "name": name, "creationTimestamp": created});
    let ingress = json!({"metadata": metadata, "spec": spec});
    known
        .ingresses
        .push(Arc::new(serde_json::from_value(ingress).unwrap()));
}

fn to(service: &str, port: Value) -> Value {
    json!({"service": {"name": service, "port": port}})
}

fn path(kind: &str, path: &str, backend: Value) -> Value {
    json!({"path": path, "pathType": kind, "backend": backend})
}

fn number(port: u16) -> Value {
    json!({"number": port})
}

const WEB: &str = "web.default:http=8001";
const API: &str = "api.default:http=8002";

#[test]
fn hosts_and_paths_mean_what_the_api_says() {
    let mut known = cluster();
    let rules = json!([
        {"host": "shop.example", "http": {"paths": [
            path("Prefix", "/", to("web", json!({"name": "http"}))),
            path("Prefix", "/api", to("api", number(80))),
            path("Exact", "/api/admin", to("web", number(81))),
            path("ImplementationSpecific", "/old", to("api", number(80))),
        ]}},
        {"host": "*.shop.example", "http": {"paths": [path("Prefix", "/", to("api", number(80)))]}},
    ]);
    ingress(&mut known, "shop", EARLY, json!({"rules": rules}));
    let cases = [
        ("shop.example", WEB),
        ("SHOP.example:443/x", WEB),
        ("shop.example/api", API),
        ("shop.example/api/", API),
        ("shop.example/apis", WEB),
        ("shop.example/api/admin", "web.default:admin=8101"),
        ("shop.example/api/admin/x", API),
        ("shop.example/old/x", API),
        ("a.shop.example", API),
        ("b.a.shop.example", "404"),
        ("other.example", "404"),
        // A Service's own name is served nowhere.
        ("web", "404"),
        ("web.default.svc.cluster.local", "404"),
    ];
    let said = check(&known, &attached(), &cases);
    assert!(said.is_empty(), "{said:?}");
}

#[test]
fn what_no_rule_matches_goes_to_the_oldest_default_backend() {
    let mut known = cluster();
    let young = json!({"defaultBackend": to("api", number(80))});
    ingress(&mut known, "young", LATE, young);
    let rules =
        json!([{"http": {"paths": [path("Exact", "/x", to("api", number(80)))]}}, {"host": "h"}]);
    let old = json!({"rules": rules, "defaultBackend": to("web", number(80))});
    ingress(&mut known, "old", EARLY, old);
    let cases = [
        ("", WEB),
        ("any.example/y", WEB),
        ("any.example/x", API),
        ("h/x", WEB),
    ];
    let said = check(&known, &attached(), &cases);
    assert_eq!(
        said,
        [
            "Ingress default/young: Conflict: host *, paths below /: the older Ingress default/old has it"
        ]
    );
}

#[test]
fn only_ingresses_of_the_class_count_and_the_older_has_what_two_ask_for() {
    let mut known = cluster();
    let all_to = |service: &str| {
        let paths = [path("Prefix", "/", to(service, number(80)))];
        json!([{"host": "shop.example", "http": {"paths": paths}}])
    };
    ingress(&mut known, "b", LATE, json!({"rules": all_to("api")}));
    ingress(&mut known, "a", EARLY, json!({"rules": all_to("web")}));
    let foreign = json!({"ingressClassName": "nginx", "defaultBackend": to("api", number(80))});
    ingress(&mut known, "foreign", EARLY, foreign);
    let cases = [("shop.example", WEB), ("other.example", "404")];
    let said = check(&known, &attached(), &cases);
    assert_eq!(
        said,
        [
            "Ingress default/b: Conflict: host shop.example, paths below /: the older Ingress default/a has it"
        ]
    );
}

#[test]
fn the_old_annotation_names_a_class_as_well() {
    let mut known = cluster();
    let annotated = json!({
        "metadata": {"namespace": "default", "name": "a", "annotations": {"kubernetes.io/ingress.class": "sidestep"}},
        "spec": {"defaultBackend": to("web", number(80))},
    });
    known
        .ingresses
        .push(Arc::new(serde_json::from_value(annotated).unwrap()));
    check(&known, &attached(), &[("", WEB)]);
}

#[test]
fn a_backend_that_cannot_be_served_is_answered_for_on_its_own_paths() {
    let mut known = cluster();
    let resource = json!({"resource": {"kind": "Bucket", "name": "b"}});
    let rules = json!([{"host": "h", "http": {"paths": [
        path("Prefix", "/gone", to("gone", number(80))),
        path("Prefix", "/port", to("web", number(82))),
        path("Prefix", "/resource", resource),
        path("Prefix", "/", to("web", number(80))),
    ]}}]);
    ingress(&mut known, "a", EARLY, json!({"rules": rules}));
    let bad = json!({"rules": [{"host": "bad host", "http": {"paths": [path("Prefix", "/", to("web", number(80)))]}}]});
    ingress(&mut known, "bad", EARLY, bad);
    let cases = [
        ("h/gone", "503 no-service"),
        ("h/port", "503 no-port"),
        ("h/resource", "501 no-backend"),
        ("h", WEB),
    ];
    assert_eq!(
        check(&known, &attached(), &cases),
        [
            "Ingress default/a: ServiceNotFound: Service default/gone does not exist",
            "Ingress default/a: PortNotFound: Service default/web has no such TCP port",
            "Ingress default/a: Unsupported: a backend is no Service; only Services are routed to",
            "Ingress default/bad: Invalid: route 4 (bad host/*): \"bad host\" is no host name",
        ]
    );
}

#[test]
fn a_split_moves_the_requests_of_an_ingress() {
    let mut known = cluster();
    for version in ["web-a", "web-b"] {
        service(&mut known, &format!("default/{version}"), http());
    }
    pods(&mut known, "default/web-a", "http", &[8001]);
    pods(&mut known, "default/web-b", "http", &[8003]);
    let spec = json!({
        "versions": [{"name": "stable", "service": "web-a"}, {"name": "canary", "service": "web-b"}],
        "rules": [{"services": ["web"], "weights": {"stable": 80, "canary": 20}}],
    });
    split(&mut known, "web", EARLY, spec);
    let all = json!({"defaultBackend": to("web", number(80))});
    ingress(&mut known, "all", EARLY, all);
    let split = "web.default:http=stable*80[8001]+canary*20[8003]";
    check(&known, &attached(), &[("", split)]);
}
