//! Ping-pong, taken for two plain Services.

use serde_json::json;

use super::Model;
use super::traces::seen;

fn paired(stable: Option<&str>) -> Model {
    let strategy = json!({
        "steps": [{"setWeight": 50}, {"pause": {}}], "trafficRouting": {"plugins": {"sidestep/proxy": {}}},
        "pingPong": {"pingService": "web-canary", "pongService": "web-stable"},
    });
    let mut model = Model::new(2, &strategy);
    model.status.canary.stable_ping_pong = stable.map(str::to_owned);
    model.deployed()
}

#[test]
fn the_services_keep_the_roles_that_they_are_found_in() {
    for (role, stable, trial) in [
        (None, "web-stable", "web-canary"),
        (Some("pong"), "web-stable", "web-canary"),
        (Some("ping"), "web-canary", "web-stable"),
    ] {
        let mut model = paired(role);
        model.image("2");
        model.run_ready();
        assert_eq!(seen(&model), "1 Paused CanaryPauseStep", "{role:?}");
        assert!(model.selects(stable, "1") && model.selects(trial, "2"));
        let split = &model.split.as_ref().unwrap().split;
        assert_eq!(split.rules[0].services, [stable]);
        model.promote();
        model.run_ready();
        assert_eq!(seen(&model), "2 Healthy", "{role:?}");
        assert!(model.selects(stable, "2") && model.selects(trial, "2"));
        let kept = model.status.canary.stable_ping_pong.as_deref();
        assert_eq!(kept, role, "as Argo would find it");
    }
}

#[test]
fn the_role_is_forgotten_with_the_pair() {
    let mut model = paired(Some("ping"));
    model.edit(|spec| {
        let canary = spec["strategy"]["canary"].as_object_mut().unwrap();
        canary.remove("pingPong");
        canary.insert("stableService".to_owned(), json!("web-canary"));
        canary.insert("canaryService".to_owned(), json!("web-stable"));
    });
    model.run_ready();
    assert_eq!(model.status.canary.stable_ping_pong, None);
    assert_eq!(seen(&model), "2 Healthy");
}
