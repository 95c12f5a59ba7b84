//! The control plane as a child of ours: `tests/cluster/` at work. It ends when we do, however we do, because its input ends then.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::{audit, enclave};

/// A control plane that answers, unless it was killed.
pub(super) struct ControlPlane {
    kubeconfig: PathBuf,
    /// Holds its input open.
    child: Mutex<Child>,
}

impl ControlPlane {
    /// Starts it with these CRDs; returns when it is of use.
    pub(super) async fn start(crds: &[Value]) -> Self {
        let documents: Vec<String> = crds.iter().map(Value::to_string).collect();
        std::fs::write(definitions(), documents.join("\n---\n")).unwrap();
        let (child, kubeconfig) = spawn().await;
        Self {
            kubeconfig,
            child: Mutex::new(child),
        }
    }

    /// `kill -9`: nothing of it gets a chance to do anything more.
    pub(super) async fn kill_9(&self) {
        self.child.lock().await.kill().await.unwrap();
    }

    /// Starts it anew on the data, the keys and the port of the one that was killed; returns when it is of use.
    pub(super) async fn start_again(&self) {
        let mut child = self.child.lock().await;
        let (again, kubeconfig) = spawn().await;
        assert_eq!(kubeconfig, self.kubeconfig);
        *child = again;
    }

    /// The file by which clients find it.
    pub(super) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// What that file says.
    pub(super) fn settings(&self) -> Kubeconfig {
        Kubeconfig::read_from(&self.kubeconfig).unwrap()
    }

    /// A client on the present runtime, for whoever may do everything.
    pub(super) async fn client(&self) -> Client {
        let kubeconfig = self.settings();
        let options = KubeConfigOptions::default();
        let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
        Client::try_from(config.unwrap()).unwrap()
    }
}

/// Its process, and the file by which clients find it.
async fn spawn() -> (Child, PathBuf) {
    let mut child = Command::new(enclave::program())
        .arg("--dir")
        .arg(enclave::folder().join("cluster"))
        .arg("--crds")
        .arg(definitions())
        .args(audit::flags().map(|flag| format!("--apiserver-arg={flag}")))
        .args(["--address", enclave::MACHINE, "--until-stdin-closes"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let first = timeout(START_MAX, lines.next_line()).await;
    let Ok(Ok(Some(line))) = first else {
        panic!("the control plane does not start; its log: {}", log());
    };
    let kubeconfig = line.strip_prefix("ready ").expect("ready KUBECONFIG");
    (child, PathBuf::from(kubeconfig))
}

fn definitions() -> PathBuf {
    enclave::folder().join("crds.yaml")
}

fn log() -> String {
    let log = std::fs::read_to_string(enclave::folder().join("cluster/testcluster.log"));
    log.unwrap_or_else(|error| error.to_string())
}

/// It takes some seconds; the program itself gives up after a minute.
const START_MAX: Duration = Duration::from_secs(90);
