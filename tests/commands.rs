//! The everyday verbs: the real binary against the embedded API server. Nobody plays controller here; the tests write the status.

use std::path::PathBuf;
use std::process::{Output, Stdio};

use kube::Api;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sidestep_control::api::{ReplicaSet, Rollout};
use sidestep_control::local::{self, Local};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

/// An embedded cluster with one rollout, paused at its first step.
struct Cluster {
    local: Local,
    rollouts: Api<Rollout>,
    kubeconfig: PathBuf,
    _folder: tempfile::TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        let config = local::Config {
            kubeconfig: Some(kubeconfig.clone()),
            ..local::Config::default()
        };
        let local = local::start(config).await.unwrap();
        let client = local.client().unwrap();
        let rollouts: Api<Rollout> = Api::namespaced(client.clone(), "default");
        let rollout = rollouts
            .create(&PostParams::default(), &rollout())
            .await
            .unwrap();
        let resource = ApiResource::erase::<ReplicaSet>(&());
        let replica_sets: Api<DynamicObject> = Api::namespaced_with(client, "default", &resource);
        for (hash, revision, color) in [("aaa", "1", "blue"), ("bbb", "2", "yellow")] {
            let replica_set = replica_set(&rollout, hash, revision, color);
            replica_sets
                .create(&PostParams::default(), &replica_set)
                .await
                .unwrap();
        }
        let cluster = Self {
            local,
            rollouts,
            kubeconfig,
            _folder: folder,
        };
        let pause = json!([{"reason": "CanaryPauseStep", "startTime": "2026-11-21T08:00:00Z"}]);
        cluster
            .status(json!({
                "phase": "Paused", "message": "CanaryPauseStep", "currentStepIndex": 1, "currentPodHash": "bbb", "stableRS": "aaa",
                "observedGeneration": "1", "pauseConditions": pause, "controllerPause": true,
            }))
            .await;
        cluster
    }

    /// Merges into the rollout's status, as a controller would.
    async fn status(&self, status: Value) -> Rollout {
        let patch = Patch::Merge(json!({"status": status}));
        self.rollouts
            .patch_status("demo", &PatchParams::default(), &patch)
            .await
            .unwrap()
    }

    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sidestep"));
        command
            .args(line.split(' '))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, line: &str) -> Output {
        self.command(line).output().await.unwrap()
    }

    /// Runs a command and compares what it prints and its exit code.
    async fn check(&self, line: &str, stdout: &str, stderr: &str, code: i32) {
        let output = self.run(line).await;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let got = (
            text(&output.stdout),
            text(&output.stderr),
            output.status.code(),
        );
        assert_eq!(
            got,
            (stdout.to_owned(), stderr.to_owned(), Some(code)),
            "{line}"
        );
    }

    async fn rollout(&self) -> Rollout {
        self.rollouts.get("demo").await.unwrap()
    }
}

fn rollout() -> Rollout {
    let object = json!({
        "apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "metadata": {"name": "demo"},
        "spec": {
            "replicas": 5, "selector": {"matchLabels": {"app": "demo"}}, "template": template(None, "yellow"),
            "strategy": {"canary": {"steps": [{"setWeight": 20}, {"pause": {}}, {"setWeight": 40}]}},
        },
    });
    serde_json::from_value(object).unwrap()
}

fn template(hash: Option<&str>, color: &str) -> Value {
    let mut labels = json!({"app": "demo"});
    if let Some(hash) = hash {
        labels["rollouts-pod-template-hash"] = json!(hash);
    }
    json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "app", "image": format!("demo:{color}")}]}})
}

fn replica_set(rollout: &Rollout, hash: &str, revision: &str, color: &str) -> DynamicObject {
    let uid = rollout.metadata.uid.clone().unwrap();
    let object = json!({
        "apiVersion": "apps/v1", "kind": "ReplicaSet",
        "metadata": {
            "name": format!("demo-{hash}"), "labels": {"app": "demo", "rollouts-pod-template-hash": hash},
            "annotations": {"rollout.argoproj.io/revision": revision},
            "ownerReferences": [{"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "demo", "uid": uid, "controller": true}],
        },
        "spec": {
            "replicas": 0, "selector": {"matchLabels": {"app": "demo", "rollouts-pod-template-hash": hash}},
            "template": template(Some(hash), color),
        },
    });
    serde_json::from_value(object).unwrap()
}

fn image(rollout: &Rollout) -> &str {
    rollout
        .spec
        .template
        .pointer("/spec/containers/0/image")
        .unwrap()
        .as_str()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_verb_writes_what_it_says() {
    let cluster = Cluster::start().await;

    cluster
        .check("promote demo", "rollout 'demo' promoted\n", "", 0)
        .await;
    assert!(
        cluster
            .rollout()
            .await
            .status
            .unwrap()
            .pause_conditions
            .is_empty()
    );
    cluster
        .check(
            "promote demo --full",
            "rollout 'demo' fully promoted\n",
            "",
            0,
        )
        .await;
    assert!(cluster.rollout().await.status.unwrap().promote_full);

    cluster
        .check("abort demo", "rollout 'demo' aborted\n", "", 0)
        .await;
    assert!(cluster.rollout().await.status.unwrap().abort);
    cluster
        .check("retry rollout demo", "rollout 'demo' retried\n", "", 0)
        .await;
    assert!(!cluster.rollout().await.status.unwrap().abort);

    cluster
        .check("pause demo", "rollout 'demo' paused\n", "", 0)
        .await;
    assert_eq!(cluster.rollout().await.spec.paused, Some(true));
    cluster
        .check("promote demo", "rollout 'demo' promoted\n", "", 0)
        .await;
    assert_eq!(cluster.rollout().await.spec.paused, Some(false));

    cluster
        .check(
            "restart demo -i 10s",
            "rollout 'demo' restarts in 10s\n",
            "",
            0,
        )
        .await;
    assert!(cluster.rollout().await.spec.restart_at.is_some());

    cluster
        .check("undo demo", "rollout 'demo' undo\n", "", 0)
        .await;
    let undone = cluster.rollout().await;
    assert_eq!(
        (
            image(&undone),
            undone.spec.template.pointer("/metadata/labels")
        ),
        ("demo:blue", Some(&json!({"app": "demo"})))
    );

    cluster
        .check(
            "set image demo app=demo:green",
            "rollout \"demo\" image updated\n",
            "",
            0,
        )
        .await;
    assert_eq!(image(&cluster.rollout().await), "demo:green");
    cluster.local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_said_and_fails() {
    let cluster = Cluster::start().await;
    let missing = "Error: rollouts.argoproj.io \"nosuch\" not found\n";
    for line in [
        "get rollout nosuch",
        "get rollout nosuch -w",
        "status nosuch",
        "promote nosuch",
        "abort nosuch",
        "retry nosuch",
        "pause nosuch",
        "restart nosuch",
        "undo nosuch",
        "set image nosuch app=a:b",
        "get rollout demo -n nosuch",
    ] {
        let missing = if line.contains("-n") {
            missing.replace("nosuch", "demo")
        } else {
            missing.to_owned()
        };
        cluster.check(line, "", &missing, 1).await;
    }
    cluster.check("abort nosuch demo", "", missing, 1).await;
    assert!(!cluster.rollout().await.status.unwrap().abort);
    let history = "Error: unable to find specified revision 7 in history\n";
    cluster
        .check("undo demo --to-revision 7", "", history, 1)
        .await;
    let skipped = "skipped rollback (current template already matches revision 2)\n";
    cluster
        .check("undo demo --to-revision 2", skipped, "", 0)
        .await;
    cluster
        .check(
            "set image demo web=a:b",
            "",
            "Error: unable to find container named \"web\"\n",
            1,
        )
        .await;
    cluster
        .check("list rollouts -n nosuch", "", "No resources found.\n", 0)
        .await;
    cluster.local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_shown_as_it_is() {
    let cluster = Cluster::start().await;
    let shown = cluster.run("get rollout demo").await;
    let shown = String::from_utf8(shown.stdout).unwrap();
    for line in [
        "Status:          ॥ Paused",
        "Message:         CanaryPauseStep",
        "  Step:          1/3",
        "  SetWeight:     20",
        "├──# revision:2",
        "└──# revision:1",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{line}:\n{shown}");
    }
    assert!(
        !shown.contains('\u{1b}'),
        "a pipe is not coloured: {shown:?}"
    );

    let listed = cluster.run("list rollouts").await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        [
            "demo", "Canary", "Paused", "1/3", "20", "0/0", "5", "0", "0"
        ]
    );
    cluster.local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_ends_with_the_rollout() {
    let cluster = Cluster::start().await;
    cluster
        .check(
            "status demo --watch=false",
            "Paused - CanaryPauseStep\n",
            "",
            0,
        )
        .await;
    cluster
        .check(
            "status demo -t 10ms",
            "Paused - CanaryPauseStep\n",
            "Error: Rollout status watch exceeded timeout\n",
            1,
        )
        .await;

    let (child, mut lines) = watching(&cluster, "status demo");
    assert_eq!(
        lines.next_line().await.unwrap().unwrap(),
        "Paused - CanaryPauseStep"
    );
    let none = Value::Null;
    cluster.status(json!({"phase": "Progressing", "message": "more replicas need to be updated", "pauseConditions": none, "controllerPause": none})).await;
    assert_eq!(
        lines.next_line().await.unwrap().unwrap(),
        "Progressing - more replicas need to be updated"
    );
    cluster
        .status(json!({"phase": "Healthy", "message": none}))
        .await;
    assert_eq!(lines.next_line().await.unwrap().unwrap(), "Healthy");
    assert_eq!(
        child.wait_with_output().await.unwrap().status.code(),
        Some(0)
    );

    cluster
        .status(json!({"phase": "Degraded", "message": "RolloutAborted: no"}))
        .await;
    let message = "Error: The rollout is in a degraded state with message: RolloutAborted: no\n";
    cluster
        .check("status demo", "Degraded - RolloutAborted: no\n", message, 1)
        .await;
    cluster.local.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_follows_the_rollout_and_ends_well_when_interrupted() {
    let cluster = Cluster::start().await;
    for (line, first, second) in [
        (
            "get rollout demo -w",
            "Message:         CanaryPauseStep",
            "Message:         waiting for all steps to complete",
        ),
        (
            "list ro -w",
            "demo        Canary     Paused        1/3   20",
            "demo        Canary     Progressing   1/3   20",
        ),
    ] {
        let (child, mut lines) = watching(&cluster, line);
        until(&mut lines, first).await;
        let none = Value::Null;
        let going = json!({"phase": "Progressing", "message": "waiting for all steps to complete", "pauseConditions": none, "controllerPause": none});
        cluster.status(going).await;
        until(&mut lines, second).await;
        let pid = Pid::from_raw(child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        drop(lines);
        assert_eq!(
            child.wait_with_output().await.unwrap().status.code(),
            Some(0),
            "{line}"
        );
        cluster
            .status(json!({"phase": "Paused", "message": "CanaryPauseStep"}))
            .await;
    }
    cluster.local.stop().await;
}

fn watching(cluster: &Cluster, line: &str) -> (Child, Lines<BufReader<ChildStdout>>) {
    let mut child = cluster
        .command(line)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    (child, lines)
}

/// Reads lines until one begins so.
async fn until(lines: &mut Lines<BufReader<ChildStdout>>, start: &str) {
    while let Some(line) = lines.next_line().await.unwrap() {
        if line.starts_with(start) {
            return;
        }
    }
    panic!("no line begins with {start:?}");
}
