//! The control plane as a child of ours: `tests/cluster/` at work. It ends when we do, however we do, because its input ends then.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{audit, enclave};

/// A control plane that answers.
pub(super) struct ControlPlane {
    kubeconfig: PathBuf,
    /// Holds its input open.
    _child: Child,
}

impl ControlPlane {
    /// Starts it with these CRDs; returns when it is of use.
    pub(super) async fn start(crds: &[Value]) -> Self {
        let folder = enclave::folder();
        let manifest = folder.join("crds.yaml");
        let documents: Vec<String> = crds.iter().map(Value::to_string).collect();
        std::fs::write(&manifest, documents.join("\n---\n")).unwrap();
        let mut child = Command::new(enclave::program())
            .arg("--dir")
            .arg(folder.join("cluster"))
            .arg("--crds")
            .arg(manifest)
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
            panic!(
                "the control plane does not start; its log: {}",
                log(&folder)
            );
        };
        let kubeconfig = line.strip_prefix("ready ").expect("ready KUBECONFIG");
        Self {
            kubeconfig: PathBuf::from(kubeconfig),
            _child: child,
        }
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

fn log(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("cluster/testcluster.log"));
    log.unwrap_or_else(|error| error.to_string())
}

/// It takes some seconds; the program itself gives up after a minute.
const START_MAX: Duration = Duration::from_secs(90);
