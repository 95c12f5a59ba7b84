//! Blue-green as a person has it: `examples/bluegreen.yaml`, with selectors that switch and with proxies that do.

use tempfile::tempdir;

use crate::Terminal;
use crate::support::session::example;

const HEALTHY: &str = "Status:          ✔ Healthy";
const PAUSED: [&str; 2] = [
    "Status:          ॥ Paused",
    "Message:         BlueGreenPause",
];

/// Sets a colour, and waits until it can be previewed.
async fn preview(terminal: &Terminal, colour: &str) {
    let image = format!("set image bluegreen app=argoproj/rollouts-demo:{colour}");
    terminal
        .says(&image, "rollout \"bluegreen\" image updated\n")
        .await;
    terminal.until_shown("bluegreen", &PAUSED).await;
    terminal
        .until_percent("bluegreen-preview", colour, 100.0)
        .await;
}

/// The INFO column of ReplicaSets, newest revision first.
async fn parts(terminal: &Terminal) -> Vec<String> {
    let shown = terminal.sidestep("get rollout bluegreen").await;
    let sets = shown.stdout.lines().filter(|line| line.contains('⧉'));
    sets.filter_map(|line| line.split_whitespace().last())
        .map(|info| info.split(",delay:").next().unwrap_or(info).to_owned())
        .collect()
}

async fn told(changes: &[(&str, &str)]) {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), "bluegreen.yaml", changes);
    let terminal = Terminal::open(folder.path(), &manifest, None).await;
    terminal.until_shown("bluegreen", &[HEALTHY]).await;
    terminal.until_percent("bluegreen", "blue", 100.0).await;
    assert_eq!(parts(&terminal).await, ["stable,active"]);

    preview(&terminal, "green").await;
    terminal.answers_only("bluegreen", "blue").await;
    assert_eq!(parts(&terminal).await, ["preview", "stable,active"]);

    terminal
        .says("abort bluegreen", "rollout 'bluegreen' aborted\n")
        .await;
    let aborted = terminal.sidestep("status bluegreen --timeout 60s").await;
    assert_eq!(aborted.code, Some(1), "{aborted:?}");
    terminal.answers_only("bluegreen", "blue").await;

    terminal
        .says("retry rollout bluegreen", "rollout 'bluegreen' retried\n")
        .await;
    terminal.until_shown("bluegreen", &PAUSED).await;
    terminal
        .says("promote bluegreen", "rollout 'bluegreen' promoted\n")
        .await;
    terminal.until_shown("bluegreen", &[HEALTHY]).await;
    terminal.until_percent("bluegreen", "green", 100.0).await;
    assert_eq!(parts(&terminal).await[0], "stable,active");

    // The old version is still up: there is nothing to wait for.
    terminal
        .says("undo bluegreen", "rollout 'bluegreen' undo\n")
        .await;
    let back = terminal
        .until_shown("bluegreen", &[HEALTHY, "  Updated:       3"])
        .await;
    assert!(
        back.contains("rollouts-demo:blue (active, stable)"),
        "{back}"
    );
    terminal.until_percent("bluegreen", "blue", 100.0).await;
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn selectors_switch() {
    told(&[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn proxies_switch() {
    told(&[("# annotations:", "annotations:")]).await;
}
