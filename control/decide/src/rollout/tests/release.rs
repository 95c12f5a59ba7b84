//! Control-plane rules, section 9: routing is taken out of the spec, and everything is given back without a ripple.

use serde_json::{Value, json};

use super::Model;
use crate::api::labels;

fn steps() -> Value {
    json!([{"setWeight": 25}, {"pause": {}}])
}

/// A canary of one pod with a quarter of the traffic, whose routing is taken out while the proxies say nothing.
fn let_go() -> Model {
    let mut model = Model::routed(4, &steps()).deployed();
    model.image("2");
    model.run_ready();
    model.prompt = false;
    take_out(&mut model);
    model
}

fn take_out(model: &mut Model) {
    model.edit(|spec| {
        let canary = spec["strategy"]["canary"].as_object_mut().unwrap();
        canary.remove("trafficRouting");
    });
    model.run();
}

/// Pods wanted of both revisions, and what the Split gives them.
fn seen(model: &Model) -> String {
    let sizes = (model.set("1").wanted, model.set("2").wanted);
    let split = model.split.as_ref().map(|written| &written.split);
    let shares = split.map(super::super::traffic::shares);
    let of = |tag: &str| {
        Some(
            *shares
                .as_ref()?
                .get(model.set(tag).hash.as_str())
                .unwrap_or(&0),
        )
    };
    match of("1").zip(of("2")) {
        Some((stable, canary)) => format!("{}/{} pods, {stable}/{canary}", sizes.0, sizes.1),
        None => format!("{}/{} pods, no Split", sizes.0, sizes.1),
    }
}

fn waiting(model: &Model) -> &str {
    let waiting = model.memory.waiting.as_ref();
    waiting.map_or("", |waiting| &waiting.message)
}

fn services(model: &Model) -> usize {
    model.sets.iter().filter(|set| set.service_stands).count()
}

#[test]
fn stable_gets_all_of_the_traffic_before_the_split_goes_and_nothing_shrinks_until_then() {
    let mut model = let_go();
    assert_eq!(seen(&model), "4/1 pods, 100/0");
    assert!(
        waiting(&model).contains("before the Split goes"),
        "{}",
        waiting(&model)
    );
    model.acknowledge();
    model.run();
    assert_eq!(seen(&model), "3/1 pods, no Split"); // R7.3: by counts from now on
    assert_eq!(
        services(&model),
        2,
        "a proxy that still has the Split asks for their endpoints"
    );
    assert_eq!(model.weights(), None);
    model.serving.clear();
    model.run();
    assert_eq!(services(&model), 0);
    assert_eq!(model.phase(), "Paused");
}

#[test]
fn stable_is_whole_before_it_gets_all_of_the_traffic() {
    let mut model = Model::routed(4, &steps()).deployed();
    model.image("2");
    model.run_ready();
    model.ready("1", 2);
    take_out(&mut model);
    assert_eq!(seen(&model), "4/1 pods, 75/25");
    assert!(
        waiting(&model).starts_with("4 available pods"),
        "{}",
        waiting(&model)
    );
    model.run_ready();
    assert_eq!(seen(&model), "3/1 pods, no Split");
}

#[test]
fn requests_that_were_begun_at_the_canary_are_waited_for_as_long_as_they_may_last() {
    let mut model = let_go();
    model.in_flight.insert(model.set("2").hash.clone(), 3);
    model.acknowledge();
    model.run();
    assert_eq!(seen(&model), "4/1 pods, 100/0");
    assert!(
        waiting(&model).starts_with("3 requests in flight"),
        "{}",
        waiting(&model)
    );
    model.wait(301);
    model.run();
    assert_eq!(seen(&model), "3/1 pods, no Split");
}

#[test]
fn a_service_without_a_selector_keeps_the_split() {
    // Its callers come through the proxies: without the Split they would reach nobody.
    let mut model = Model::routed(4, &steps()).deployed();
    let stable = |model: &mut Model| {
        let mut services = model.services.iter_mut();
        let found = services.position(|service| service.name == "web-stable");
        found.unwrap()
    };
    let index = stable(&mut model);
    let selector = std::mem::take(&mut model.services[index].selector);
    take_out(&mut model);
    assert!(model.split.is_some());
    assert!(
        waiting(&model).starts_with("a selector of Service \"web-stable\""),
        "{}",
        waiting(&model)
    );
    assert!(
        model.services[index].selector.is_empty(),
        "it is its owner's to give"
    );
    model.services[index].selector = selector;
    model.run();
    assert_eq!((&model.split, services(&model)), (&None, 0));
}

#[test]
fn a_service_selects_stable_before_the_split_goes() {
    let mut model = Model::routed(4, &steps()).deployed();
    let services = model.services.iter_mut();
    for service in services.filter(|service| service.name == "web-stable") {
        service.selector.remove(labels::POD_TEMPLATE_HASH);
    }
    model.edit(|spec| {
        let canary = spec["strategy"]["canary"].as_object_mut().unwrap();
        canary.remove("trafficRouting");
    });
    model.run();
    assert!(model.selects("web-stable", "1"));
    assert_eq!(model.split, None);
}

#[test]
fn where_no_proxy_is_left_nobody_is_waited_for() {
    let mut model = Model::routed(4, &steps()).deployed();
    model.proxies.clear();
    take_out(&mut model);
    assert_eq!((&model.split, services(&model)), (&None, 0));
}

#[test]
fn of_an_aborted_canary_nothing_is_lost_on_the_way() {
    let mut model = Model::routed(4, &steps()).deployed();
    model.image("2");
    model.run_ready();
    model.status.abort = true;
    model.run();
    assert_eq!(model.phase(), "Degraded");
    take_out(&mut model);
    assert_eq!(model.split, None);
    assert_eq!((model.phase(), model.set("1").wanted), ("Degraded", 4));
}
