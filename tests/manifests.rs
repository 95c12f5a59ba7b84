//! Where manifests come from: files, folders and stdin; watched files move traffic, and broken ones change nothing.

use std::fs::{self, File};

use tempfile::tempdir;

use crate::Terminal;
use crate::support::session::example;

#[tokio::test(flavor = "multi_thread")]
async fn editing_a_watched_split_moves_the_traffic() {
    let folder = tempdir().unwrap();
    let watched = folder.path().join("watched");
    fs::create_dir(&watched).unwrap();
    let manifest = example(&watched, "split.yaml", &[]);
    let original = fs::read_to_string(&manifest).unwrap();
    let edit = |from: &str, to: &str| fs::write(&manifest, original.replace(from, to)).unwrap();
    let arguments = ["--watch", "-f", watched.to_str().unwrap()];
    let mut terminal = Terminal::run(folder.path(), &arguments).await;
    terminal.until_percent("web", "green", 10.0).await;

    edit("blue: 90", "blue: 30");
    terminal.printed("Split default/web applied").await;
    terminal.until_percent("web", "green", 25.0).await;

    edit("blue: 90", "blue: [");
    let log = folder.path().join("log");
    let complaint = format!("ERROR {}:19: ", manifest.display());
    while !fs::read_to_string(&log).unwrap().contains(&complaint) {
        terminal.until_percent("web", "green", 25.0).await;
    }
    terminal.until_percent("web", "green", 25.0).await;

    let (without_green, _) = original.rsplit_once("---").unwrap();
    fs::write(&manifest, without_green).unwrap();
    terminal
        .printed("Deployment default/web-green deleted")
        .await;
    terminal.until_percent("web", "blue", 100.0).await;
    terminal.interrupt().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn manifests_come_from_stdin() {
    let folder = tempdir().unwrap();
    let manifest = example(folder.path(), "split.yaml", &[]);
    let stdin = File::open(&manifest).unwrap().into();
    let terminal = Terminal::run_with(folder.path(), &["-f", "-"], stdin).await;
    terminal.until_percent("web", "green", 10.0).await;
    terminal.interrupt().await;
}
