//! What cannot be done is refused: which file or flag, which field, what to do; a non-zero exit, and nothing half-applied.

use std::fs;
use std::path::Path;

use tempfile::tempdir;

use crate::support::session::{example, finish, sidestep};
use crate::support::terminal::{Terminal, run};

/// Runs `sidestep run` on one manifest, which it must refuse in these words.
async fn check_manifest(name: &str, change: (&str, &str), said: &str) {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), name, &[change]);
    let state = folder.path().join("state");
    let arguments = [
        "-f",
        manifest.to_str().unwrap(),
        "--state",
        state.to_str().unwrap(),
    ];
    let answer = finish(run(&folder.path().join("kubeconfig"), &arguments), "")
        .await
        .unwrap();
    assert_eq!(
        (answer.code, answer.stdout.as_str()),
        (Some(1), ""),
        "{change:?}: {answer:?}"
    );
    let said = format!("{}:{said}", manifest.display());
    assert!(
        answer.stderr.contains(&said),
        "{change:?}: {} has no {said}",
        answer.stderr
    );
    let kept = fs::read_dir(&state).unwrap().count();
    assert_eq!(
        (kept, folder.path().join("kubeconfig").exists()),
        (0, false),
        "{change:?}: something was begun"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_manifest_is_refused_with_file_line_and_field() {
    let demo = "canary-demo.yaml";
    let rollout = "Rollout default/canary-demo";
    for (name, change, said) in [
        (demo, ("kind: Rollout", "kind: Rollout: Service"), "10: mapping values are not allowed in this context".to_owned()),
        (demo, ("kind: Rollout", "kind: Rolout"), "10: kind: Unsupported value: there is no kind Rolout of argoproj.io/v1alpha1 here; there are AnalysisRun,".to_owned()),
        (demo, ("replicas: 5", "replica: 5"), format!("14: {rollout}: unknown field \"spec.replica\"")),
        (demo, ("replicas: 5", "replicas: five"), format!("14: {rollout}: spec.replicas: Invalid value")),
        (demo, ("setWeight: 40", "setWeight: 101"), format!("34: {rollout}: spec.strategy.steps[2].setWeight: Invalid value: 101: SetWeight needs to be between 0 and 100")),
        (
            "analysis.yaml",
            ("result.requests > 0 && result.successRate >= {{args.at-least}}", "result.requests > > 0"),
            "19: AnalysisTemplate default/success-rate: spec.metrics[0].successCondition: unexpected \">\" (1:19)".to_owned(),
        ),
        ("split.yaml", ("green: 10", "green: -1"), "20: Split default/web: spec.rules[0].weights.green: Invalid value".to_owned()),
    ] {
        check_manifest(name, change, &said).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_missing_is_a_condition_until_it_comes() {
    let folder = tempdir().unwrap();
    let change = (
        "canaryService: canary-demo-routed-canary",
        "canaryService: later",
    );
    let manifest = example(folder.path(), "canary-demo-routed.yaml", &[change]);
    let terminal = Terminal::run(folder.path(), &["-f", manifest.to_str().unwrap()]).await;
    let message = "InvalidSpec: The Rollout \"canary-demo-routed\" is invalid: spec.strategy.canary.canaryService: Invalid value: \"later\": service \"later\" not found";
    terminal
        .until_shown(
            "canary-demo-routed",
            &[
                "Status:          ✖ Degraded",
                &format!("Message:         {message}"),
            ],
        )
        .await;
    let log = fs::read_to_string(folder.path().join("log")).unwrap();
    let told = log
        .matches("the spec is invalid: spec.strategy.canary.canaryService")
        .count();
    assert_eq!(told, 1, "it is said once: {log}");
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_taken_or_cannot_be_written_names_its_flag() {
    let folder = tempdir().unwrap();
    let state = folder.path().join("state");
    let state = state.to_str().unwrap();
    let terminal = Terminal::run(folder.path(), &["--state", state]).await;
    let taken = terminal.proxy.to_string();
    let in_use = |flag: &str| {
        format!(
            "Error: {flag}: {taken} is in use by another process; end it, or choose another address\n"
        )
    };
    let file = folder.path().join("file");
    fs::write(&file, "mine").unwrap();
    let file = file.to_str().unwrap();
    for (arguments, said) in [
        (["--listen", &taken], in_use("--listen")),
        (["--admin", &taken], in_use("--admin")),
        (["--api", &taken], in_use("--api")),
        (["--dashboard", &taken], in_use("--dashboard")),
        (
            ["--state", state],
            format!(
                "Error: --state: the state folder {state} is in use by another process: end it, or choose another folder\n"
            ),
        ),
        (
            ["--state", file],
            format!(
                "Error: --state: {file} is no folder that can be written: File exists (os error 17)\n"
            ),
        ),
        (
            ["--state", "/proc/nosuch"],
            "Error: --state: /proc/nosuch is no folder that can be written: ".to_owned(),
        ),
        (
            ["--kubeconfig-out", file],
            format!(
                "Error: --kubeconfig-out: {file} exists and was not written by sidestep: choose another path, or remove it\n"
            ),
        ),
        (
            ["--kubeconfig-out", "/proc/nosuch"],
            "Error: --kubeconfig-out: /proc/nosuch cannot be written: ".to_owned(),
        ),
        (
            ["--filename", "nosuch.yaml"],
            "Error: --filename: nosuch.yaml: No such file or directory (os error 2)\n".to_owned(),
        ),
    ] {
        let own = folder.path().join("own");
        let answer = finish(run(&own, &arguments), "").await.unwrap();
        assert_eq!(answer.code, Some(1), "{arguments:?}: {answer:?}");
        assert!(answer.stderr.contains(&said), "{arguments:?}: {answer:?}");
    }
    assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_that_cannot_be_written_is_refused_before_the_story() {
    let mut demo = sidestep();
    demo.args(["demo", "--once", "--report", "/proc/nosuch/report.json"]);
    let answer = finish(demo, "").await.unwrap();
    assert_eq!((answer.code, answer.stdout.as_str()), (Some(1), ""));
    assert!(
        answer
            .stderr
            .starts_with("Error: --report: /proc/nosuch/report.json cannot be written: "),
        "{answer:?}"
    );
    assert!(!Path::new("/proc/nosuch").exists());
}
