//! The embedded cluster at a terminal: `sidestep run` at work.

use std::fs::File;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use super::session::{DEADLINE, Session, sidestep};

/// `sidestep run`, and who talks to it.
pub(crate) struct Terminal {
    session: Session,
    log: PathBuf,
    child: Child,
    /// Kept open: what is printed must find a reader.
    lines: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    /// Starts `sidestep run` with free ports and more arguments; returns when it serves. `folder` takes its kubeconfig and log.
    pub(crate) async fn run(folder: &Path, arguments: &[&str]) -> Self {
        Self::run_with(folder, arguments, Stdio::null()).await
    }

    /// Starts `sidestep run` on a manifest; a Service, if one is named, answers for hosts that name none.
    pub(crate) async fn open(folder: &Path, manifest: &Path, default: Option<&str>) -> Self {
        let mut arguments = vec!["-f".to_owned(), manifest.to_str().unwrap().to_owned()];
        if let Some(service) = default {
            arguments.extend(["--default-service".to_owned(), format!("default/{service}")]);
        }
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        Self::run(folder, &arguments).await
    }

    /// The same, with something to read.
    pub(crate) async fn run_with(folder: &Path, arguments: &[&str], stdin: Stdio) -> Self {
        let kubeconfig = folder.join("kubeconfig");
        let log = folder.join("log");
        let stderr = File::options()
            .create(true)
            .append(true)
            .open(&log)
            .unwrap();
        let mut child = run(&kubeconfig, arguments)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let session = Session {
            proxy: ([127, 0, 0, 1], 0).into(),
            kubeconfig,
            namespace: "default".to_owned(),
        };
        let mut terminal = Self {
            session,
            log,
            lines: BufReader::new(child.stdout.take().unwrap()).lines(),
            child,
        };
        let traffic = terminal.printed("traffic    http://").await;
        terminal.session.proxy = traffic.split(' ').next().unwrap().parse().unwrap();
        terminal.printed("kubectl ").await;
        terminal
    }

    /// Waits for a line that `run` prints; returns what follows its beginning.
    pub(crate) async fn printed(&mut self, begins: &str) -> String {
        let find = async {
            while let Some(line) = self.lines.next_line().await.unwrap() {
                if let Some(rest) = line.strip_prefix(begins) {
                    return rest.to_owned();
                }
            }
            panic!("it ended without {begins:?}: {}", tail(&self.log));
        };
        timeout(DEADLINE, find).await.expect("it is printed")
    }

    /// Ctrl-C; it must end well within the time that people wait.
    pub(crate) async fn interrupt(self) {
        let ended = timeout(Duration::from_secs(5), self.end(Signal::INT)).await;
        assert_eq!(ended.expect("it ends in 5 s").code(), Some(0));
    }

    /// Sends a signal; returns how it ended.
    pub(crate) async fn end(mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid(), signal).unwrap();
        let ended = timeout(DEADLINE, self.child.wait()).await;
        ended.expect("it ends").unwrap()
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        let id = self.child.id().expect("it runs");
        Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
    }
}

impl Deref for Terminal {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

/// The end of what it logged, for the message of a failed test.
pub(crate) fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// `sidestep run` with a free port for everything but what `arguments` name themselves, and without a dashboard.
pub(crate) fn run(kubeconfig: &Path, arguments: &[&str]) -> Command {
    let mut command = sidestep();
    command.arg("run").args(arguments);
    let defaults = [
        ("--listen", "127.0.0.1:0"),
        ("--admin", "127.0.0.1:0"),
        ("--api", "127.0.0.1:0"),
        ("--dashboard", "off"),
    ];
    for (flag, address) in defaults
        .iter()
        .filter(|(flag, _)| !arguments.contains(flag))
    {
        command.args([flag, address]);
    }
    if !arguments.contains(&"--kubeconfig-out") {
        command.arg("--kubeconfig-out").arg(kubeconfig);
    }
    command
}
