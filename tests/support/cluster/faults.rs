//! What is killed: the process of a pod, the API server.

use std::fs;
use std::os::fd::OwnedFd;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::{World, accounts, enclave};

/// The process of a pod, held so that no other can be taken for it.
pub(crate) struct Process(OwnedFd);

impl World {
    /// A world whose API server may be killed, since nobody else has it. Whoever asks first gets none: the test named, which is its
    /// own, has been run in a process of its own then, and has passed.
    pub(crate) async fn alone(test: &str) -> Option<Self> {
        enclave::enter();
        if enclave::is_alone() {
            return Some(Self::start().await);
        }
        let run = enclave::alone(test).kill_on_drop(true).output().await;
        let run = run.unwrap();
        println!("{}", String::from_utf8_lossy(&run.stdout));
        let said = String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{said}");
        None
    }

    /// `kill -9` of the API server, and of etcd and the controller manager, which share its process.
    pub(crate) async fn kill_api_server(&self) {
        assert!(enclave::is_alone(), "others need it");
        self.cluster.control_plane.kill_9().await;
    }

    /// Starts what was killed on the data that it has left; returns when it is of use.
    pub(crate) async fn start_api_server(&self) {
        self.cluster.control_plane.start_again().await;
    }

    /// The process of a pod that has the token of a service account.
    pub(crate) async fn process(&self, pod: &str) -> Process {
        let uid = self.api::<Pod>().get(pod).await.unwrap().uid().unwrap();
        let variable = format!("KUBECONFIG={}", accounts::file_of(&uid).display());
        let folders = fs::read_dir("/proc").unwrap();
        let mut processes = folders.filter_map(|folder| {
            let folder = folder.unwrap().path();
            let pid = folder.file_name()?.to_str()?.parse().ok()?;
            let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
            // Read while it is held. Not every process lets us.
            let environment = fs::read(folder.join("environ")).ok()?;
            let mut variables = environment.split(|byte| *byte == 0);
            let is_it = variables.any(|found| found == variable.as_bytes());
            is_it.then_some(Process(process))
        });
        processes.next().expect("the pod has a process")
    }
}

impl Process {
    /// `kill -9`.
    pub(crate) fn kill_9(&self) {
        pidfd_send_signal(&self.0, Signal::KILL).unwrap();
    }
}
