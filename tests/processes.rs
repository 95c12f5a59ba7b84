//! Pods that are processes: with the real binary as the launcher, and this test binary as the server that runs.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::{Value, json};
use sidestep_control::local::kinds::{self, Kind};
use sidestep_control::local::launcher::{Launch, Launcher};
use sidestep_control::local::logs::{Part, PodLogs};
use sidestep_control::local::podstatus::condition_is_true;
use sidestep_control::local::store::{self, Deletion, HISTORY, Object, Store};
use sidestep_control::local::workloads::Workloads;

use crate::support::machine::ended;

/// Says to [`played_role`] what this binary is to be.
const ROLE: &str = "SIDESTEP_TEST_ROLE";
const NS: &str = "shop";

/// Not a test of its own: what this binary does when one of the tests below starts it again.
#[test]
fn played_role() {
    match std::env::var(ROLE).as_deref() {
        Ok("parent") => be_parent(),
        Ok("server") => be_server(),
        _ => {}
    }
}

/// The command that makes this binary play a role.
fn role() -> Vec<String> {
    let program = std::env::current_exe().unwrap().display().to_string();
    [&program, "--exact", "processes::played_role", "--nocapture"]
        .map(str::to_owned)
        .to_vec()
}

fn sidestep() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_sidestep"))
}

/// Starts a shell with a child of its own, says the process ids of both, and waits to be killed.
fn be_parent() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let launcher = Launcher::start(sidestep()).unwrap();
        let script = "sleep 3600 & echo children $$ $!; wait";
        let command = ["sh", "-c", script].map(str::to_owned).to_vec();
        let mut process = launcher
            .spawn(Launch {
                command,
                ..Launch::default()
            })
            .await
            .unwrap();
        let (stdout, _stderr) = process.output().unwrap();
        let mut lines = tokio::io::BufReader::new(stdout);
        let mut line = String::new();
        tokio::io::AsyncBufReadExt::read_line(&mut lines, &mut line)
            .await
            .unwrap();
        print!("\n{line}");
        std::io::stdout().flush().unwrap();
        process.wait().await.unwrap();
    });
}

/// Answers every request with the pod's name (`/pid`: with its process id), until one asks it to die. With `SICK`, its health is bad.
fn be_server() {
    let name = std::env::var("POD_NAME").unwrap();
    println!("serving as {name}");
    let port = std::env::var("PORT").unwrap().parse().unwrap();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
    for stream in listener.incoming() {
        let mut stream = stream.unwrap();
        let mut head = [0; 1024];
        let read = stream.read(&mut head).unwrap_or(0);
        let head = String::from_utf8_lossy(&head[..read]);
        let path = head.split(' ').nth(1).unwrap_or_default();
        let sick = path == "/healthz" && std::env::var_os("SICK").is_some();
        let status = if sick { 503 } else { 200 };
        let answer = if path == "/pid" {
            std::process::id().to_string()
        } else {
            name.clone()
        };
        let head = format!(
            "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        drop(stream.write_all((head + &answer).as_bytes()));
        if path == "/die" {
            return;
        }
    }
}

fn watch(pid: i32) -> OwnedFd {
    pidfd_open(Pid::from_raw(pid).unwrap(), PidfdFlags::empty()).unwrap()
}

#[tokio::test]
async fn nothing_survives_a_kill_9_of_the_parent() {
    let role = role();
    let mut parent = Command::new(&role[0])
        .args(&role[1..])
        .env(ROLE, "parent")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(parent.stdout.take().unwrap()).lines();
    let children = lines
        .map(Result::unwrap)
        .find_map(|line| line.strip_prefix("children ").map(str::to_owned))
        .unwrap();
    let children: Vec<OwnedFd> = children
        .split(' ')
        .map(|pid| watch(pid.parse().unwrap()))
        .collect();
    assert_eq!(children.len(), 2, "the shell and its own child");
    kill_process(Pid::from_child(&parent), Signal::KILL).unwrap();
    parent.wait().unwrap();
    for child in children {
        ended(child).await;
    }
}

struct World {
    store: Store,
    logs: PodLogs,
    workloads: Workloads,
}

impl World {
    fn start() -> Self {
        let store = Store::new(HISTORY);
        store
            .create(&kinds::NAMESPACE, json!({"metadata": {"name": NS}}))
            .unwrap();
        Self::start_on(store)
    }

    fn start_on(store: Store) -> Self {
        let logs = PodLogs::default();
        let workloads = Workloads::start(&store, &logs, sidestep()).unwrap();
        Self {
            store,
            logs,
            workloads,
        }
    }

    fn create(&self, kind: &'static Kind, mut object: Value) -> Object {
        object["metadata"]["namespace"] = json!(NS);
        self.store.create(kind, object).unwrap()
    }

    fn pod(&self) -> Option<Object> {
        self.store.get(&kinds::POD, NS, "web")
    }

    fn container(&self) -> Value {
        self.pod().map_or(Value::Null, |pod| {
            pod["status"]["containerStatuses"][0].clone()
        })
    }

    fn is_ready(&self) -> bool {
        self.pod()
            .is_some_and(|pod| condition_is_true(&pod, "Ready"))
    }

    fn port(&self) -> u16 {
        self.pod().unwrap()["metadata"]["annotations"]["sidestep.dev/port"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap()
    }

    fn process(&self) -> OwnedFd {
        let id = self.container()["containerID"].as_str().unwrap().to_owned();
        watch(id.strip_prefix("process://").unwrap().parse().unwrap())
    }

    fn events(&self, reason: &str) -> Vec<String> {
        let events = self.store.list(&kinds::EVENT, Some(NS)).objects;
        let with_reason = events.iter().filter(|event| event["reason"] == reason);
        with_reason
            .map(|event| event["message"].as_str().unwrap().to_owned())
            .collect()
    }

    fn delete(&self, grace_seconds: Option<i64>) {
        let deletion = Deletion {
            grace_seconds,
            ..Deletion::default()
        };
        self.store
            .delete(&kinds::POD, NS, "web", &deletion)
            .unwrap();
    }

    async fn eventually(&self, what: &str, condition: impl Fn(&Self) -> bool) {
        let mut changes = self.store.subscribe(self.store.version());
        let holds = async {
            while !condition(self) {
                if changes.next().await.is_err() {
                    changes = self.store.subscribe(self.store.version());
                }
            }
        };
        let in_time = tokio::time::timeout(Duration::from_secs(30), holds).await;
        assert!(
            in_time.is_ok(),
            "not in time: {what}; pod: {:?}, events: {:?}",
            self.pod(),
            self.events("Failed")
        );
    }
}

/// Asks a server; returns what it answers.
fn ask(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: web\r\n\r\n").as_bytes())
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn pod(command: &[String], environment: &Value, more: &Value) -> Value {
    let mut container =
        json!({"name": "app", "image": "none", "command": command, "env": environment});
    for (field, value) in more.as_object().unwrap() {
        container[field] = value.clone();
    }
    json!({"metadata": {"name": "web"}, "spec": {"containers": [container]}})
}

fn server(environment: &[(&str, &str)], more: &Value) -> Value {
    let mut variables = vec![json!({"name": ROLE, "value": "server"})];
    variables.extend(
        environment
            .iter()
            .map(|(name, value)| json!({"name": name, "value": value})),
    );
    pod(&role(), &Value::Array(variables), more)
}

fn shell(script: &str) -> Vec<String> {
    ["sh", "-c", script].map(str::to_owned).to_vec()
}

#[tokio::test]
async fn a_process_serves_on_its_port_and_comes_back_when_it_dies() {
    let world = World::start();
    world.create(&kinds::POD, server(&[], &json!({})));
    world.eventually("it is ready", World::is_ready).await;
    let port = world.port();
    assert!(ask(port, "/die").ends_with("web"));
    world
        .eventually("it is back", |world| {
            world.is_ready() && world.container()["restartCount"] == 1
        })
        .await;
    assert_eq!(world.port(), port, "the port is kept");
    assert!(ask(port, "/").ends_with("web"));
    let last = world.container()["lastState"]["terminated"].clone();
    assert_eq!(
        (&last["exitCode"], &last["reason"]),
        (&json!(0), &json!("Completed"))
    );
    let log = world.logs.find(NS, "web").unwrap();
    assert!(
        log.read(Part::default())
            .unwrap()
            .contains("serving as web")
    );
    assert!(
        log.read(Part {
            previous: true,
            ..Part::default()
        })
        .unwrap()
        .contains("serving as web")
    );

    let process = world.process();
    world.delete(None);
    world
        .eventually("it is gone", |world| world.pod().is_none())
        .await;
    ended(process).await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_process_that_crashes_is_started_with_growing_pauses() {
    let world = World::start();
    world.create(
        &kinds::POD,
        pod(&shell("echo told >&2; exit 3"), &json!([]), &json!({})),
    );
    world
        .eventually("it is in a crash loop", |world| {
            let container = world.container();
            container["state"]["waiting"]["reason"] == "CrashLoopBackOff"
                && container["restartCount"] == 2
        })
        .await;
    assert_eq!(world.container()["lastState"]["terminated"]["exitCode"], 3);
    assert_eq!(world.pod().unwrap()["status"]["phase"], "Running");
    assert!(!world.is_ready());
    world.delete(None);
    world
        .eventually("it is gone", |world| world.pod().is_none())
        .await;
    world.workloads.stop().await;
}

#[tokio::test]
async fn sigterm_then_sigkill_ends_the_whole_group() {
    let world = World::start();
    // The server is a child that ignores SIGTERM; its shell says that it was asked, and stays.
    let script =
        r#"trap 'echo asked' TERM; (trap '' TERM; exec "$0" "$@") & while true; do wait; done"#;
    let environment = json!([{"name": ROLE, "value": "server"}]);
    let pod = pod(&shell(script), &environment, &json!({"args": role()}));
    world.create(&kinds::POD, pod);
    let log = world.logs.open(NS, "web");
    world.eventually("it is ready", World::is_ready).await;
    let shell = world.process();
    let answer = ask(world.port(), "/pid");
    let child = watch(answer.lines().last().unwrap().parse().unwrap());
    world.delete(Some(1));
    world
        .eventually("it is gone", |world| world.pod().is_none())
        .await;
    ended(shell).await;
    ended(child).await;
    assert!(log.read(Part::default()).unwrap().contains("asked"));
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_failing_readiness_probe_keeps_the_pod_out() {
    let world = World::start();
    let probe = json!({"readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1}});
    world.create(&kinds::POD, server(&[("SICK", "1")], &probe));
    world
        .eventually("the probe complains", |world| {
            world.events("Unhealthy").iter().any(|event| {
                event == "Readiness probe failed: HTTP probe failed with statuscode: 503"
            })
        })
        .await;
    assert!(!world.is_ready());
    assert!(world.container()["state"]["running"].is_object());
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_failing_liveness_probe_starts_the_process_again() {
    let world = World::start();
    let liveness = json!({"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1});
    world.create(
        &kinds::POD,
        server(&[("SICK", "1")], &json!({"livenessProbe": liveness})),
    );
    world
        .eventually("it was started again", |world| {
            world.container()["restartCount"].as_u64() >= Some(1)
        })
        .await;
    assert!(
        world
            .events("Killing")
            .iter()
            .any(|event| event.contains("liveness")),
        "{:?}",
        world.events("Killing")
    );
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_misspelt_command_is_told_without_starting_anything() {
    let world = World::start();
    world.create(
        &kinds::POD,
        pod(&["no-such-program".to_owned()], &json!([]), &json!({})),
    );
    world
        .eventually("it says so", |world| {
            world.container()["lastState"]["terminated"]["reason"] == "StartError"
        })
        .await;
    let last = world.container()["lastState"]["terminated"].clone();
    assert_eq!(last["exitCode"], 128);
    assert!(
        last["message"]
            .as_str()
            .unwrap()
            .contains("\"no-such-program\": no such program in PATH"),
        "{last}"
    );
    world.workloads.stop().await;
}

#[tokio::test]
async fn a_process_sees_its_environment_and_expanded_arguments() {
    let world = World::start();
    let environment = json!([
        {"name": "GREETING", "value": "hello from $(POD_NAME)"},
        {"name": "LABEL", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "PORT", "value": "8080"},
    ]);
    let script = shell("echo $GREETING, $LABEL, $0 $PORT in $(pwd)");
    let more = json!({"args": ["--port=$(PORT)"], "workingDir": "/"});
    let mut pod = pod(&script, &environment, &more);
    pod["metadata"]["labels"] = json!({"app": "shop-window"});
    pod["spec"]["restartPolicy"] = json!("Never");
    world.create(&kinds::POD, pod);
    world
        .eventually("it has ended", |world| {
            world.pod().unwrap()["status"]["phase"] == "Succeeded"
        })
        .await;
    assert!(
        !world.events("PortAssigned").is_empty(),
        "it is told that its port is ours to choose"
    );
    let port = world.port();
    let text = world
        .logs
        .find(NS, "web")
        .unwrap()
        .read(Part::default())
        .unwrap();
    assert_eq!(
        text,
        format!("hello from web, shop-window, --port={port} {port} in /\n")
    );
    world.workloads.stop().await;
}

#[tokio::test]
async fn stopping_the_program_ends_processes_and_a_next_one_starts_them_in_place() {
    let world = World::start();
    world.create(&kinds::POD, server(&[], &json!({})));
    world.eventually("it is ready", World::is_ready).await;
    let process = world.process();
    let World {
        store, workloads, ..
    } = world;
    workloads.stop().await;
    ended(process).await;
    let uid = store::text(&store.get(&kinds::POD, NS, "web").unwrap(), "uid").to_owned();

    let world = World::start_on(store);
    world
        .eventually("it runs again", |world| {
            world.container()["restartCount"] == 1 && world.is_ready()
        })
        .await;
    assert_eq!(store::text(&world.pod().unwrap(), "uid"), uid);
    assert!(ask(world.port(), "/").ends_with("web"));
    world.workloads.stop().await;
}

/// Runs a Job to its end; returns its condition's type and reason, and how many pods it took.
async fn job(script: &str, more: Value) -> (String, String, usize) {
    let world = World::start();
    let mut spec = json!({"template": {"spec": {
        "restartPolicy": "Never",
        "containers": [{"name": "app", "image": "none", "command": shell(script)}],
    }}});
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    world.create(
        &kinds::JOB,
        json!({"metadata": {"name": "check"}, "spec": spec}),
    );
    let condition = |world: &World| {
        world.store.get(&kinds::JOB, NS, "check").unwrap()["status"]["conditions"][0].clone()
    };
    world
        .eventually("the Job ends", |world| condition(world)["status"] == "True")
        .await;
    let text = |field: &str| condition(&world)[field].as_str().unwrap().to_owned();
    let ended = (
        text("type"),
        text("reason"),
        world.store.list(&kinds::POD, Some(NS)).objects.len(),
    );
    world.workloads.stop().await;
    ended
}

#[tokio::test]
async fn the_exit_code_decides_a_job() {
    let check = async |script: &str, more: Value, expected: (&str, &str, usize)| {
        let (kind, reason, pods) = job(script, more).await;
        assert_eq!((kind.as_str(), reason.as_str(), pods), expected, "{script}");
    };
    check("exit 0", json!({}), ("Complete", "CompletionsReached", 1)).await;
    check(
        "exit 1",
        json!({"backoffLimit": 0}),
        ("Failed", "BackoffLimitExceeded", 1),
    )
    .await;
    check(
        "exit 1",
        json!({"backoffLimit": 1}),
        ("Failed", "BackoffLimitExceeded", 2),
    )
    .await;
    check(
        "exit 0",
        json!({"completions": 2}),
        ("Complete", "CompletionsReached", 2),
    )
    .await;
    let (kind, reason, _) = job("sleep 3600", json!({"activeDeadlineSeconds": 1})).await;
    assert_eq!(
        (kind.as_str(), reason.as_str()),
        ("Failed", "DeadlineExceeded")
    );
}

#[tokio::test]
async fn many_processes_get_ports_of_their_own() {
    let world = World::start();
    let template = server(&[], &json!({}));
    world.create(&kinds::REPLICA_SET, json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 8, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}}, "spec": template["spec"]}},
    }));
    world
        .eventually("all are ready", |world| {
            world.store.get(&kinds::REPLICA_SET, NS, "web").unwrap()["status"]["readyReplicas"] == 8
        })
        .await;
    for pod in world.store.list(&kinds::POD, Some(NS)).objects {
        let port = pod["metadata"]["annotations"]["sidestep.dev/port"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        assert!(ask(port, "/").ends_with(store::text(&pod, "name")));
    }
    world.workloads.stop().await;
}
