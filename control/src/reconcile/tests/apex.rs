//! Services without a selector, whose EndpointSlices lead to the proxies.

use serde_json::{Value, json};

use super::stage::{NS, Stage, rollout};
use crate::local::kinds;

/// What the slices of a Service list, sorted: `manager: port name→address:number`, `@proxies` where they are annotated as such.
fn listed(stage: &Stage, service: &str) -> Vec<String> {
    let slices = stage.list(&kinds::ENDPOINT_SLICE);
    let of = |slice: &&std::sync::Arc<Value>| {
        slice["metadata"]["labels"]["kubernetes.io/service-name"] == service
    };
    let mut all = Vec::new();
    for slice in slices.iter().filter(of) {
        let manager = &slice["metadata"]["labels"]["endpointslice.kubernetes.io/managed-by"];
        let who = match manager.as_str() {
            Some("sidestep.dev") if is_of_proxies(slice) => "proxy",
            Some("sidestep.dev") => "pod",
            _ => "other",
        };
        let ports = slice["ports"].as_array().unwrap();
        for endpoint in slice["endpoints"].as_array().unwrap() {
            for port in ports {
                let name = port["name"].as_str().unwrap();
                let number = match who {
                    "proxy" => format!(" {}", port["port"]),
                    _ => String::new(),
                };
                assert_eq!(endpoint["addresses"], json!(["127.0.0.1"]));
                all.push(format!("{who} {name}{number}"));
            }
        }
    }
    all.sort();
    all
}

fn is_of_proxies(slice: &Value) -> bool {
    slice["metadata"]["annotations"]["sidestep.dev/proxies-of"] == "sidestep-system"
}

async fn until_listed(stage: &mut Stage, service: &str, expected: &[&str]) {
    let mut changes = stage.local.store.subscribe(stage.local.store.version());
    let waiting = async {
        while listed(stage, service) != expected {
            changes.stirred().await;
            changes.ready().unwrap();
        }
    };
    if tokio::time::timeout(super::stage::LIMIT, waiting)
        .await
        .is_err()
    {
        let split = stage.seen("web").split;
        panic!(
            "not in time: {:?}, not {expected:?}; {split:#}",
            listed(stage, service)
        );
    }
}

fn take_selector(stage: &Stage, name: &str) {
    stage.edit(&kinds::SERVICE, name, |service| {
        service["spec"].as_object_mut().unwrap().remove("selector");
    });
}

fn selector(stage: &Stage, name: &str) -> Value {
    let service = stage.local.store.get(&kinds::SERVICE, NS, name).unwrap();
    service["spec"]["selector"].clone()
}

fn ports(seen: &super::Seen) -> Value {
    seen.split["spec"]["apexes"].clone()
}

#[tokio::test]
async fn a_service_becomes_an_apex_and_stops_being_one() {
    let mut stage = Stage::with_apexes(10_001..=10_009).await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &super::steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    let others = ["other http", "other http", "other http"];
    until_listed(&mut stage, "web", &others).await;

    take_selector(&stage, "web");
    until_listed(&mut stage, "web", &["proxy http 10001"]).await;
    assert_eq!(
        ports(&stage.seen("web")),
        json!([{"service": "web", "port": "80", "listen": 10_001}])
    );

    // An update goes its way, and nobody gives the Service a selector.
    stage.set_image("web", "yellow");
    let paused = stage.until("web", |seen| seen.phase() == "Paused").await;
    assert_eq!(paused.served("web"), "canary=20 stable=80");
    stage.promote("web");
    stage
        .until("web", |seen| {
            seen.weights("web") == "canary=60 stable=40" && seen.phase() == "Paused"
        })
        .await;
    stage.promote("web");
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    assert_eq!(selector(&stage, "web"), Value::Null);
    assert_eq!(listed(&stage, "web"), ["proxy http 10001"]);

    // Ours go when others list somebody; what callers hold on to is answered for a while.
    stage.edit(&kinds::SERVICE, "web", |service| {
        service["spec"]["selector"] = json!({"app": "web"});
    });
    until_listed(&mut stage, "web", &others).await;
    assert_eq!(ports(&stage.seen("web"))[0]["listen"], 10_001);
    stage.close().await;
}

#[tokio::test]
async fn nobody_is_led_to_a_proxy_that_has_not_acknowledged() {
    let mut stage = Stage::with_apexes(10_001..=10_009).await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &super::steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.silence(true);
    take_selector(&stage, "web");
    // Callers go to stable's pods meanwhile, whom we know, rather than to what others left.
    until_listed(&mut stage, "web", &["pod http"; 3]).await;
    stage
        .until("web", |seen| ports(seen)[0]["listen"] == 10_001)
        .await;
    assert_eq!(listed(&stage, "web"), ["pod http"; 3]);
    stage.silence(false);
    until_listed(&mut stage, "web", &["proxy http 10001"]).await;
    stage.close().await;
}

#[tokio::test]
async fn ports_of_other_protocols_lead_to_stable_and_a_range_may_be_too_small() {
    let mut stage = Stage::with_apexes(10_001..=10_001).await;
    let ports = json!([
        {"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 81, "targetPort": 8080},
        {"name": "db", "port": 5432, "targetPort": 8080, "appProtocol": "postgres"},
    ]);
    let service = json!({"metadata": {"name": "web"}, "spec": {"ports": ports}});
    stage.create(&kinds::SERVICE, service);
    stage.create_services(&["web-canary"]);
    let mut web = rollout("web", "blue", &super::steps());
    web["spec"]["replicas"] = json!(1);
    stage.create(&kinds::ROLLOUT, web);
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    until_listed(
        &mut stage,
        "web",
        &["pod admin", "pod db", "proxy http 10001"],
    )
    .await;
    let events = stage.list(&kinds::EVENT);
    let about = |event: &&std::sync::Arc<Value>| event["reason"] == "NoApexPort";
    let messages: Vec<&str> = events
        .iter()
        .filter(about)
        .filter_map(|event| event["message"].as_str())
        .collect();
    assert_eq!(
        messages,
        [
            "no port is left for port 81 of Service web: all of --apex-ports 10001-10001 are taken, and its callers go to the stable \
         version; give the controller and the proxies a wider range"
        ]
    );
    stage.close().await;
}

#[tokio::test]
async fn a_split_written_by_hand_has_its_slices_too_until_it_goes() {
    let mut stage = Stage::with_apexes(10_001..=10_009).await;
    stage.create_services(&["v1"]);
    let apex =
        json!({"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80}]}});
    stage.create(&kinds::SERVICE, apex);
    stage.create(
        &kinds::SPLIT,
        json!({
            "metadata": {"name": "web"},
            "spec": {
                "versions": [{"name": "v1", "service": "v1"}],
                "rules": [{"services": ["web"], "weights": {"v1": 1}}],
                "apexes": [{"service": "web", "port": "http", "listen": 10_005}],
            },
        }),
    );
    until_listed(&mut stage, "web", &["proxy http 10005"]).await;
    stage
        .local
        .store
        .delete(&kinds::SPLIT, NS, "web", &Default::default())
        .unwrap();
    until_listed(&mut stage, "web", &[]).await;
    stage.close().await;
}

#[tokio::test]
async fn a_standby_takes_out_a_proxy_that_goes_and_does_nothing_else() {
    let mut stage = Stage::with_apexes(10_001..=10_009).await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &super::steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    take_selector(&stage, "web");
    until_listed(&mut stage, "web", &["proxy http 10001"]).await;
    stage.stop_controller().await;

    let is_slice = |object: &Value| object["kind"] == "EndpointSlice";
    let before = stage.local.store.version();
    let mut changes = stage.local.store.subscribe(before);
    stage.start_standby();
    stage.end_proxy();
    until_listed(&mut stage, "web", &[]).await;
    let written = changes.ready().unwrap();
    assert!(written.iter().all(|change| is_slice(&change.object)));

    // Where callers go instead is the leader's to say.
    stage.stop_controller().await;
    stage.start_controller();
    until_listed(&mut stage, "web", &["pod http"; 3]).await;
    stage.close().await;
}
