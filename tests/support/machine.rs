//! `sidestep run` as a process of its own, the verbs against it, and waiting for what its objects say.

use std::fmt::Debug;
use std::fs::File;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, Resource};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// Everything that is waited for comes long before, also on a busy machine; a wait that ends here is a failed test.
pub(crate) const DEADLINE: Duration = Duration::from_secs(90);

/// `sidestep run` at work.
pub(crate) struct Machine {
    /// Where the proxy listens.
    pub(crate) proxy: SocketAddr,
    /// The embedded cluster.
    pub(crate) client: Client,
    child: Child,
    kubeconfig: PathBuf,
    log: PathBuf,
    /// Kept open: what is printed must find a reader.
    _stdout: Lines<BufReader<ChildStdout>>,
}

impl Machine {
    /// Starts `sidestep run -f manifests --state folder/state` and waits until it says that it serves.
    pub(crate) async fn start(folder: &Path, manifests: &Path) -> Self {
        let kubeconfig = folder.join("kubeconfig");
        let log = folder.join("log");
        let any_port = "127.0.0.1:0";
        let mut child = Command::new(env!("CARGO_BIN_EXE_sidestep"))
            .args(["run", "--dashboard", "off", "--listen", any_port])
            .args(["--admin", any_port, "--api", any_port])
            .arg("-f")
            .arg(manifests)
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--kubeconfig-out")
            .arg(&kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&log)
                    .unwrap(),
            )
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let proxy = timeout(DEADLINE, listening(&mut stdout)).await;
        let Ok(Some(proxy)) = proxy else {
            panic!("it does not serve; its log: {}", tail(&log));
        };
        let client = connect(&kubeconfig).await;
        Self {
            proxy,
            client,
            child,
            kubeconfig,
            log,
            _stdout: stdout,
        }
    }

    /// Runs one of the everyday verbs, which must succeed.
    pub(crate) async fn verb(&self, line: &str) {
        let output = Command::new(env!("CARGO_BIN_EXE_sidestep"))
            .args(line.split(' '))
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
    }

    /// Objects of a kind in namespace `default`.
    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), "default")
    }

    /// Waits until a condition holds for an object, and returns the object.
    pub(crate) async fn eventually<K>(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&K) -> bool,
    ) -> K
    where
        K: Clone + Debug + Send + DeserializeOwned + 'static,
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>();
        let holds = |object: Option<&K>| object.is_some_and(&holds);
        let found = timeout(DEADLINE, await_condition(api.clone(), name, holds)).await;
        match found {
            Ok(found) => found.unwrap().expect("the condition asks for it"),
            Err(_) => {
                let now = api.get_opt(name).await;
                panic!(
                    "not in time: {what}; {now:#?}; the log: {}",
                    tail(&self.log)
                )
            }
        }
    }

    /// The processes of its pods that run now.
    pub(crate) fn pods(&self) -> Vec<OwnedFd> {
        let own = self.child.id().expect("it runs").to_string();
        let folders = std::fs::read_dir("/proc").unwrap();
        let processes = folders.filter_map(|folder| {
            let folder = folder.unwrap().path();
            let pid = folder.file_name()?.to_str()?.parse().ok()?;
            // `pid (name) state parent …`, proc_pid_stat(5). One that has just ended has no such file.
            let stat = std::fs::read_to_string(folder.join("stat")).ok()?;
            let (before, after) = stat.rsplit_once(") ")?;
            let is_ours = before.ends_with("(origin") && after.split(' ').nth(1) == Some(&own);
            is_ours.then(|| pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok())?
        });
        processes.collect()
    }

    /// `kill -9`: nothing of it gets a chance to do anything more.
    pub(crate) async fn kill_9(mut self) {
        self.child.kill().await.unwrap();
    }

    /// SIGTERM; returns how it ended.
    pub(crate) async fn terminate(mut self) -> ExitStatus {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::TERM).unwrap();
        let ended = timeout(DEADLINE, self.child.wait()).await;
        ended.expect("it ends on SIGTERM").unwrap()
    }
}

/// Waits until a process has ended, whoever its parent is.
pub(crate) async fn ended(process: OwnedFd) {
    let wait = move || {
        let limit = Timespec {
            tv_sec: 10,
            tv_nsec: 0,
        };
        poll(&mut [PollFd::new(&process, PollFlags::IN)], Some(&limit)).unwrap()
    };
    assert_eq!(
        tokio::task::spawn_blocking(wait).await.unwrap(),
        1,
        "the process still runs"
    );
}

/// The address in `traffic    http://127.0.0.1:8080 (…)`; the greeting is the last that is printed.
async fn listening(stdout: &mut Lines<BufReader<ChildStdout>>) -> Option<SocketAddr> {
    let mut proxy = None;
    while let Some(line) = stdout.next_line().await.unwrap() {
        if let Some(address) = line.strip_prefix("traffic    http://") {
            proxy = address.split(' ').next().unwrap().parse().ok();
        }
        if line.starts_with("kubectl ") {
            return proxy;
        }
    }
    None
}

async fn connect(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}

/// The end of what it logged, for the message of a failed test.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
