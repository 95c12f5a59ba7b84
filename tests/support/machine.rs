//! `sidestep run` as a process of its own, the verbs against it, and waiting for what its objects say.

use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use k8s_openapi::NamespaceResourceScope;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config, Resource};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::session::DEADLINE;
use super::terminal::{Terminal, tail};

/// `sidestep run` at work, and its cluster as a client has it.
pub(crate) struct Machine {
    /// Where proxies listen: one, here.
    pub(crate) proxies: Vec<SocketAddr>,
    /// The embedded cluster.
    pub(crate) client: Client,
    terminal: Terminal,
    log: PathBuf,
}

impl Machine {
    /// Starts `sidestep run -f manifests --state folder/state` and waits until it says that it serves.
    pub(crate) async fn start(folder: &Path, manifests: &Path) -> Self {
        let state = folder.join("state");
        let arguments = ["-f", text(manifests), "--state", text(&state)];
        let terminal = Terminal::run(folder, &arguments).await;
        Self {
            proxies: vec![terminal.proxy],
            client: connect(&folder.join("kubeconfig")).await,
            terminal,
            log: folder.join("log"),
        }
    }

    /// Runs one of the everyday verbs, which must succeed.
    pub(crate) async fn verb(&self, line: &str) {
        let answer = self.terminal.sidestep(line).await;
        assert_eq!(answer.code, Some(0), "{line}: {answer:?}");
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
        let found = Box::pin(await_condition(api.clone(), name, holds));
        let found = timeout(DEADLINE, found).await;
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
        let own = self.terminal.pid().as_raw_nonzero().to_string();
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
    pub(crate) async fn kill_9(self) {
        self.terminal.end(Signal::KILL).await;
    }

    /// SIGTERM, upon which it must end well.
    pub(crate) async fn end(self) {
        assert!(self.terminal.end(Signal::TERM).await.success());
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

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

async fn connect(kubeconfig: &Path) -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    let options = KubeConfigOptions::default();
    let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
    Client::try_from(config.unwrap()).unwrap()
}
