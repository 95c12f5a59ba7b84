//! What a table refuses, and what it works out.

use super::check::is_at;
use super::*;

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: SocketAddr::from(([10, 0, 0, 1], port)),
        pod: format!("pod-{port}"),
        ready: true,
        terminating: false,
    }
}

fn split() -> Split {
    let version = |name: &str| Version {
        name: name.to_owned(),
        ready: 1,
        ..Version::default()
    };
    Split {
        namespace: "shop".to_owned(),
        name: "web".to_owned(),
        uid: "uid-1".to_owned(),
        generation: 3,
        unknown: Vec::new(),
        stable: Some(0),
        versions: vec![version("stable"), version("canary")],
        rules: vec![Rule {
            services: vec!["web".to_owned()],
            weights: vec![Some(90), Some(10)],
        }],
        ..Split::default()
    }
}

fn parts() -> Parts {
    let endpoints = vec![vec![endpoint(8001)], vec![endpoint(8002)]];
    Parts {
        routes: vec![Route {
            host: HostMatch::Exact("web".to_owned()),
            path: PathMatch::Prefix("/".to_owned()),
            target: Target::Backend(0),
        }],
        backends: vec![Backend {
            namespace: "shop".to_owned(),
            service: "web".to_owned(),
            port: "80".to_owned(),
            protocol: Protocol::Http1,
            source: Source::Split {
                split: 0,
                rule: 0,
                endpoints,
            },
        }],
        apexes: Vec::new(),
        splits: vec![split()],
        own: Vec::new(),
    }
}

#[track_caller]
fn check_refused(change: impl FnOnce(&mut Parts), part: Part, expected: &str) {
    let mut parts = parts();
    change(&mut parts);
    let error = Table::build(parts).unwrap_err();
    assert_eq!(error.to_string(), expected);
    assert_eq!(error.part, part);
}

#[test]
fn what_cannot_be_served_is_refused_by_name() {
    let (route, backend, the_split) = (Part::Route(0), Part::Backend(0), Part::Split(0));
    check_refused(
        |parts| parts.routes[0].target = Target::Backend(1),
        route,
        "route 0 (web/*): backend 1 is not in the table",
    );
    check_refused(
        |parts| parts.routes[0].host = HostMatch::Suffix("*.web".to_owned()),
        route,
        "route 0 (**.*.web/*): \"*.web\" is no host name",
    );
    check_refused(
        |parts| parts.routes[0].host = HostMatch::Exact("web:http".to_owned()),
        route,
        "route 0 (web:http/*): \"web:http\" is no host name",
    );
    check_refused(
        |parts| parts.routes[0].path = PathMatch::Exact("a".to_owned()),
        route,
        "route 0 (weba): path \"a\" does not start with /",
    );
    check_refused(
        |parts| {
            parts.routes[0].target = Target::Refuse(Refusal {
                status: 200,
                reason: "no".to_owned(),
                message: String::new(),
            });
        },
        route,
        "route 0 (web/*): status 200 is not between 400 and 599",
    );
    check_refused(
        |parts| {
            parts.routes[0].target = Target::Refuse(Refusal {
                status: 503,
                reason: "a\nb".to_owned(),
                message: String::new(),
            });
        },
        route,
        "route 0 (web/*): reason \"a\\nb\" is not one word of visible ASCII",
    );
    check_refused(
        |parts| parts.splits.clear(),
        backend,
        "backend shop/web:80: split 0 is not in the table",
    );
    check_refused(
        |parts| parts.splits[0].rules.clear(),
        backend,
        "backend shop/web:80: rule 0 is not in the table",
    );
    check_refused(
        |parts| parts.own = vec![SocketAddr::from(([10, 0, 0, 1], 8002))],
        backend,
        "backend shop/web:80: endpoint 10.0.0.1:8002 is a proxy of ours: requests would go round",
    );
    check_refused(
        |parts| parts.splits[0].rules[0].weights = vec![Some(1)],
        the_split,
        "split shop/web: 1 weights for 2 versions",
    );
    check_refused(
        |parts| parts.splits[0].versions[1].name = "stable".to_owned(),
        the_split,
        "split shop/web: version \"stable\" stands twice",
    );
    check_refused(
        |parts| parts.splits[0].stable = Some(2),
        the_split,
        "split shop/web: stable version 2 is not in the table",
    );
    check_refused(
        |parts| parts.splits[0].uid.clear(),
        the_split,
        "split shop/web: uid is empty",
    );
    check_refused(
        |parts| parts.splits.push(split()),
        Part::Split(1),
        "split shop/web: uid \"uid-1\" stands twice",
    );
    check_refused(
        |parts| {
            parts.splits.push(Split {
                uid: "uid-2".to_owned(),
                ..split()
            })
        },
        Part::Split(1),
        "split shop/web: name \"web\" stands twice",
    );
}

#[track_caller]
fn check_endpoints_refused(endpoints: Vec<Vec<Endpoint>>, expected: &str) {
    let change = |parts: &mut Parts| {
        parts.backends[0].source = Source::Split {
            split: 0,
            rule: 0,
            endpoints,
        }
    };
    check_refused(change, Part::Backend(0), expected);
}

#[test]
fn endpoints_that_cannot_be_served_are_refused() {
    check_endpoints_refused(
        vec![],
        "backend shop/web:80: 0 endpoint lists for 2 versions",
    );
    check_endpoints_refused(
        vec![vec![endpoint(0)], vec![]],
        "backend shop/web:80: endpoint 10.0.0.1:0 cannot be connected to",
    );
}

#[test]
fn a_listener_on_all_addresses_is_at_loopback() {
    let any = SocketAddr::from(([0, 0, 0, 0], 8080));
    assert!(is_at(any, SocketAddr::from(([127, 0, 0, 1], 8080))));
    assert!(!is_at(any, SocketAddr::from(([127, 0, 0, 1], 8001))));
    assert!(!is_at(any, SocketAddr::from(([10, 0, 0, 1], 8080))));
}

#[test]
fn a_version_without_the_port_has_nothing_ready_there() {
    let mut parts = parts();
    parts.backends[0].source = Source::Split {
        split: 0,
        rule: 0,
        endpoints: vec![vec![endpoint(8001)], vec![]],
    };
    let table = Table::build(parts).unwrap();
    let plan = table.backends().next().unwrap().plan.as_ref().unwrap();
    assert_eq!(*plan.effective, [1.0, 0.0]);
    assert_eq!(
        *table.splits().next().unwrap().plans[0].effective,
        [1.0, 0.0]
    );
}

#[test]
fn stable_stands_by_where_a_rule_names_it() {
    let check = |weights: [Option<u32>; 2], effective: &[f64]| {
        let mut parts = parts();
        parts.splits[0].rules[0].weights = weights.to_vec();
        parts.splits[0].versions[1].ready = 0;
        let table = Table::build(parts).unwrap();
        let plan = table.backends().next().unwrap().plan.as_ref().unwrap();
        assert_eq!(&*plan.effective, effective, "{weights:?}");
    };
    check([Some(0), Some(100)], &[1.0, 0.0]);
    check([None, Some(100)], &[0.0, 0.0]);
}

#[test]
fn a_port_that_no_version_serves_says_nothing_about_the_rule() {
    let mut parts = parts();
    let mut unserved = parts.backends[0].clone();
    unserved.source = Source::Split {
        split: 0,
        rule: 0,
        endpoints: vec![vec![], vec![]],
    };
    parts.backends.push(unserved);
    let table = Table::build(parts).unwrap();
    assert_eq!(
        *table.splits().next().unwrap().plans[0].effective,
        [0.9, 0.1]
    );
}

#[test]
fn equal_parts_are_shared_with_the_table_before() {
    let before = Table::build(parts()).unwrap();
    let mut changed = parts();
    changed.splits.push(Split {
        uid: "uid-2".to_owned(),
        name: "other".to_owned(),
        ..split()
    });
    let mut now = Table::build(changed).unwrap();
    now.share_with(&before);
    assert!(Arc::ptr_eq(&now.routes, &before.routes));
    assert!(Arc::ptr_eq(&now.backends[0], &before.backends[0]));
    assert!(Arc::ptr_eq(&now.splits[0], &before.splits[0]));
}

/// The table of [`parts`] with its Split at another generation, and the backend if it is to be replaced, too.
fn patched(change: impl FnOnce(&mut Patch)) -> Result<(Table, Table), Error> {
    let before = Table::build(parts()).unwrap();
    let Parts {
        backends, splits, ..
    } = parts();
    let mut patch = Patch {
        backends: backends.into_iter().enumerate().collect(),
        splits: splits.into_iter().enumerate().collect(),
    };
    change(&mut patch);
    let own = [SocketAddr::from(([10, 0, 0, 1], 9000))];
    before.patched(patch, &own).map(|now| (before, now))
}

#[test]
fn a_patched_table_is_the_one_that_would_be_built() {
    let weights = vec![Some(50), Some(50)];
    let (before, now) = patched(|patch| {
        patch.splits.get_mut(&0).unwrap().rules[0].weights = weights.clone();
    })
    .unwrap();
    let mut whole = parts();
    whole.splits[0].rules[0].weights = weights;
    let whole = Table::build(whole).unwrap();
    assert!(now.backends().eq(whole.backends()));
    assert!(now.splits().eq(whole.splits()));
    assert!(Arc::ptr_eq(&now.routes, &before.routes));
    assert!(!now.splits().eq(before.splits()));
}

#[test]
fn a_patch_that_does_not_fit_is_refused() {
    let check = |change: fn(&mut Patch), expected: &str| {
        assert_eq!(patched(change).unwrap_err().to_string(), expected);
    };
    check(
        |patch| patch.backends.clear(),
        "backend shop/web:80: its Split is replaced and it is not",
    );
    check(
        |patch| patch.splits.get_mut(&0).unwrap().uid = "uid-2".to_owned(),
        "split shop/web: would stand in the place of shop/web uid-1",
    );
    check(
        |patch| patch.backends.get_mut(&0).unwrap().port = "81".to_owned(),
        "backend shop/web:81: would stand in the place of shop/web:80",
    );
    check(
        |patch| {
            let backend = patch.backends[&0].clone();
            patch.backends.insert(1, backend);
        },
        "backend shop/web:80: would stand in the place of nothing",
    );
    check(
        |patch| patch.splits.get_mut(&0).unwrap().rules[0].weights = Vec::new(),
        "split shop/web: 0 weights for 2 versions",
    );
    check(
        |patch| {
            patch.backends.get_mut(&0).unwrap().source = Source::Endpoints(vec![endpoint(9000)]);
        },
        "backend shop/web:80: endpoint 10.0.0.1:9000 is a proxy of ours: requests would go round",
    );
}
