//! The bar of `sidestep demo`: one command tells the whole story, and its report says what the clients saw.

use std::fs;

use serde_json::{Value, json};
use tempfile::tempdir;

use crate::support::session::{finish, sidestep};

#[tokio::test(flavor = "multi_thread")]
async fn the_story_goes_as_promised() {
    let folder = tempdir().unwrap();
    let report = folder.path().join("report.json");
    let mut demo = sidestep();
    demo.args([
        "demo",
        "--once",
        "--listen",
        "127.0.0.1:0",
        "--dashboard",
        "off",
    ]);
    demo.arg("--report").arg(&report);
    demo.arg("--kubeconfig-out")
        .arg(folder.path().join("kubeconfig"));
    let answer = finish(demo, "").await.unwrap();
    assert_eq!(answer.code, Some(0), "{answer:?}");
    assert!(
        !answer.stdout.contains('\u{1b}'),
        "lines, where there is no terminal: {answer:?}"
    );

    let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
    let wanted = json!({"promoted": true, "rolledBack": true, "unexpected": 0});
    let seen = json!({
        "promoted": report["promoted"], "rolledBack": report["rolledBack"], "unexpected": report["failures"]["unexpected"],
    });
    assert_eq!(seen, wanted, "{report:#}");
    assert!(
        report["failures"]["canary"].as_u64().unwrap() > 0,
        "{report:#}"
    );
    assert!(
        report["verdictToLastCanaryRequestMs"].as_u64().unwrap() < 1_000,
        "{report:#}"
    );
    let steps = report["steps"].as_array().unwrap();
    let weights: Vec<&Value> = steps.iter().map(|step| &step["weight"]).collect();
    assert_eq!(weights, [20, 40, 60, 80]);
    for step in steps {
        let off = step["measured"].as_f64().unwrap() - step["expected"].as_f64().unwrap();
        assert!(off.abs() <= 0.01, "{report:#}");
        assert!(step["requests"].as_u64().unwrap() >= 5_000, "{report:#}");
    }
}
