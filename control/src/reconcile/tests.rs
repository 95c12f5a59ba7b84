//! The controller against the embedded cluster: real watches, real stand-in pods, and a proxy that takes up real tables.

mod analysis;
mod stage;

use serde_json::json;

use self::stage::{Stage, rollout};
use crate::local::kinds;

#[tokio::test]
async fn a_canary_walks_its_steps_behind_acknowledged_weights_and_is_promoted() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(
        &kinds::ROLLOUT,
        rollout(
            "web",
            "blue",
            json!([{"setWeight": 20}, {"pause": {}}, {"setWeight": 60}]),
        ),
    );
    let first = stage.until("web", |seen| seen.phase() == "Healthy").await;

    stage.set_image("web", "yellow");
    let paused = stage.until("web", |seen| seen.phase() == "Paused").await;
    assert_eq!(paused.message(), "CanaryPauseStep");
    assert_eq!(paused.weights("web"), "canary=20 stable=80");
    assert_eq!(paused.verified(), Some(true));
    assert_eq!(
        paused.served("web"),
        "canary=20 stable=80",
        "the proxy serves what is verified"
    );

    stage.promote("web");
    let done = stage.until("web", |seen| seen.phase() == "Healthy").await;
    assert_ne!(done.stable(), first.stable());
    stage
        .until("web", |seen| {
            seen.served("web") == "stable=100"
                && seen.served_revision("web", "stable") == seen.stable()
        })
        .await;
    stage.close().await;
}
