//! The tutorial that newcomers to Argo Rollouts follow, typed into a terminal: `examples/canary-demo.yaml` and its twin with routing.
//! It goes the same on the embedded cluster and on a real one.

use tempfile::tempdir;

use crate::Terminal;
use crate::support::session::example;

const YELLOW: &str = "app=argoproj/rollouts-demo:yellow";

/// At a step, as the header of `get rollout` shows it.
fn paused_at(step: u32, weight: u32) -> [String; 4] {
    [
        "Status:          ॥ Paused".to_owned(),
        format!("  Step:          {step}/8"),
        format!("  SetWeight:     {weight}"),
        format!("  ActualWeight:  {weight}"),
    ]
}

async fn until_paused_at(terminal: &Terminal, rollout: &str, step: u32, weight: u32) -> String {
    let lines = paused_at(step, weight);
    terminal
        .until_shown(rollout, &lines.each_ref().map(String::as_str))
        .await
}

/// Walks the first three steps, each with so many requests and so many percentage points of slack.
async fn walk(terminal: &Terminal, rollout: &str, requests: u32, slack: f64) {
    let image = format!("set image {rollout} {YELLOW}");
    terminal
        .says(&image, &format!("rollout \"{rollout}\" image updated\n"))
        .await;
    for (step, weight) in [(1, 20), (3, 40), (5, 60)] {
        until_paused_at(terminal, rollout, step, weight).await;
        for host in [rollout, "anything.example"] {
            let share = terminal.percent(host, "yellow", requests).await;
            assert!(
                (share - f64::from(weight)).abs() <= slack,
                "{share} % yellow at weight {weight}, Host {host}"
            );
        }
        terminal
            .says(
                &format!("promote {rollout}"),
                &format!("rollout '{rollout}' promoted\n"),
            )
            .await;
    }
    let ended = terminal
        .sidestep(&format!("status {rollout} --timeout 60s"))
        .await;
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.ends_with("Healthy\n"), "{ended:?}");
}

/// The pauses of the example with a time, so that each step but the last waits for us.
const PAUSES: [(&str, &str); 3] = [
    ("pause: {duration: 10}", "pause: {}"),
    ("pause: {duration: 10}", "pause: {}"),
    ("pause: {duration: 10}", "pause: {duration: 1}"),
];

#[tokio::test(flavor = "multi_thread")]
async fn by_replica_ratio_about_as_many_requests_as_pods_are_yellow() {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), "canary-demo.yaml", &PAUSES);
    let terminal = Terminal::open(folder.path(), &manifest, Some("canary-demo")).await;
    terminal
        .until_shown("canary-demo", &["Status:          ✔ Healthy"])
        .await;
    terminal.until_percent("canary-demo", "blue", 100.0).await;
    // Each of 400 requests goes to one of five pods by chance: 10 points are five standard deviations.
    walk(&terminal, "canary-demo", 400, 10.0).await;
    // Pods that go are asked until EndpointSlices list them no more.
    terminal.until_percent("canary-demo", "yellow", 100.0).await;
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_routing_the_shares_are_those_of_the_steps() {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), "canary-demo-routed.yaml", &PAUSES);
    let terminal = Terminal::open(folder.path(), &manifest, Some("canary-demo-routed")).await;
    terminal
        .until_shown("canary-demo-routed", &["Status:          ✔ Healthy"])
        .await;
    walk(&terminal, "canary-demo-routed", 500, 1.0).await;
    terminal.answers_only("canary-demo-routed", "yellow").await;
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_aborted_retried_promoted_whole_and_undone() {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), "canary-demo.yaml", &[]);
    let terminal = Terminal::open(folder.path(), &manifest, None).await;
    terminal
        .until_shown("canary-demo", &["Status:          ✔ Healthy"])
        .await;
    let image = format!("set image canary-demo {YELLOW}");
    terminal
        .says(&image, "rollout \"canary-demo\" image updated\n")
        .await;
    let header = until_paused_at(&terminal, "canary-demo", 1, 20).await;
    let header = header.replace(&terminal.namespace, "NAMESPACE");
    insta::assert_snapshot!(header.trim(), @r"
    Name:            canary-demo
    Namespace:       NAMESPACE
    Status:          ॥ Paused
    Message:         CanaryPauseStep
    Waiting:         a person to promote
    Strategy:        Canary
      Step:          1/8
      SetWeight:     20
      ActualWeight:  20
    Images:          argoproj/rollouts-demo:blue (stable)
                     argoproj/rollouts-demo:yellow (canary)
    Replicas:
      Desired:       5
      Current:       5
      Updated:       1
      Ready:         5
      Available:     5
    ");

    terminal
        .says("abort canary-demo", "rollout 'canary-demo' aborted\n")
        .await;
    let aborted = terminal.sidestep("status canary-demo --timeout 60s").await;
    let message = "RolloutAborted: Rollout aborted update to revision 2";
    assert_eq!(aborted.code, Some(1), "{aborted:?}");
    assert!(
        aborted.stdout.ends_with(&format!("Degraded - {message}\n")),
        "{aborted:?}"
    );
    assert_eq!(
        aborted.stderr,
        format!("Error: The rollout is in a degraded state with message: {message}\n")
    );
    terminal
        .until_shown("canary-demo", &["  Updated:       0", "  Available:     5"])
        .await;
    terminal.until_percent("canary-demo", "blue", 100.0).await;

    terminal
        .says(
            "retry rollout canary-demo",
            "rollout 'canary-demo' retried\n",
        )
        .await;
    until_paused_at(&terminal, "canary-demo", 1, 20).await;
    let waited = terminal.sidestep("status canary-demo --timeout 1s").await;
    assert_eq!(
        (waited.code, waited.stderr.as_str()),
        (Some(1), "Error: Rollout status watch exceeded timeout\n")
    );

    terminal
        .says(
            "promote canary-demo --full",
            "rollout 'canary-demo' fully promoted\n",
        )
        .await;
    assert_eq!(
        terminal
            .sidestep("status canary-demo --timeout 60s")
            .await
            .code,
        Some(0)
    );
    terminal.until_percent("canary-demo", "yellow", 100.0).await;

    terminal
        .says("undo canary-demo", "rollout 'canary-demo' undo\n")
        .await;
    until_paused_at(&terminal, "canary-demo", 1, 20).await;
    terminal
        .says(
            "undo canary-demo --to-revision 2",
            "rollout 'canary-demo' undo\n",
        )
        .await;
    let back = terminal
        .until_shown(
            "canary-demo",
            &["Status:          ✔ Healthy", "  Step:          8/8"],
        )
        .await;
    assert!(
        back.contains("argoproj/rollouts-demo:yellow (stable)"),
        "{back}"
    );
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_drives_a_rollout() {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), "canary-demo.yaml", &[]);
    let terminal = Terminal::open(folder.path(), &manifest, None).await;
    terminal
        .until_shown("canary-demo", &["Status:          ✔ Healthy"])
        .await;
    let patch = r#"[{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "argoproj/rollouts-demo:green"}]"#;
    let cases: &[(&[&str], &str)] = &[
        (
            &[
                "patch",
                "rollout",
                "canary-demo",
                "--type",
                "json",
                "-p",
                patch,
            ],
            "canary-demo patched",
        ),
        (
            &[
                "wait",
                "--for=condition=Paused",
                "rollout/canary-demo",
                "--timeout=60s",
            ],
            "condition met",
        ),
        (
            &["get", "ro"],
            "canary-demo   5         5         1            5",
        ),
        (
            &["describe", "rollout", "canary-demo"],
            "Rollout is paused (CanaryPauseStep)",
        ),
        (&["get", "pods", "-l", "app=canary-demo"], "Running"),
        (
            &["get", "events"],
            "Rollout step 1/8 completed (setWeight: 20)",
        ),
        (
            &["delete", "rollout", "canary-demo", "--wait=false"],
            "deleted",
        ),
        (
            &[
                "wait",
                "--for=delete",
                "pods",
                "-l",
                "app=canary-demo",
                "--timeout=60s",
            ],
            "",
        ),
    ];
    for (arguments, said) in cases {
        let Some(answer) = terminal.kubectl(arguments, "").await else {
            return; // ./test says that there is no kubectl.
        };
        assert_eq!(answer.code, Some(0), "{arguments:?}: {answer:?}");
        assert!(answer.stdout.contains(said), "{arguments:?}: {answer:?}");
    }
    terminal.interrupt().await;
}
