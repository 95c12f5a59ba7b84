//! Helm itself, at work on the chart of this repository.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Output, Stdio};

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::role::traffic_address;
use super::{World, enclave};
use crate::support::session::DEADLINE;

/// What the chart's release is called.
pub(crate) const RELEASE: &str = "sidestep";

impl World {
    /// Installs the chart in the test's namespace; returns when controller and proxies are available.
    ///
    /// The cluster is shared with other tests: the class of Ingresses and the instance of Rollouts are the namespace's name.
    pub(crate) async fn install(&self, values: &[&str]) {
        self.demand_restricted_pods().await;
        self.release(values).await;
        for part in ["sidestep-controller", "sidestep-proxy"] {
            self.eventually(part, "is available", is_available).await;
        }
    }

    /// Installs the chart, and waits for nothing.
    pub(crate) async fn release(&self, values: &[&str]) {
        let mut arguments = vec!["install", RELEASE, CHART];
        let own = [
            format!("--set=ingressClass.name={}", self.namespace),
            format!("--set=controller.instanceId={}", self.namespace),
        ];
        arguments.extend(own.iter().map(String::as_str));
        arguments.extend(values);
        self.helm(&arguments).await;
    }

    /// Has the API server refuse pods that ask for more than they need.
    async fn demand_restricted_pods(&self) {
        self.admit_pods("restricted").await;
    }

    /// Has the API server take all pods again, those of an application too.
    pub(crate) async fn take_all_pods(&self) {
        self.admit_pods("privileged").await;
    }

    async fn admit_pods(&self, standard: &str) {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let label =
            json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": standard}}});
        let how = PatchParams::default();
        let patch = Patch::Merge(label);
        let patched = namespaces.patch(&self.namespace, &how, &patch);
        patched.await.unwrap();
    }

    /// Where each proxy that is installed serves Ingresses.
    pub(crate) async fn installed_proxies(&self) -> Vec<SocketAddr> {
        let selected = ListParams::default().labels("app.kubernetes.io/component=proxy");
        let pods = self.api::<Pod>().list(&selected).await.unwrap();
        pods.iter().map(traffic_address).collect()
    }

    /// Ends controllers and proxies while their roles are still there; returns when every request of theirs is in the audit log, which
    /// has a watch when it has ended.
    pub(crate) async fn stop(&self) {
        let selected = ListParams::default().labels("app.kubernetes.io/name=sidestep");
        let pods = self.api::<Pod>().list(&selected).await.unwrap();
        let how = DeleteParams::default();
        let deployments = self.api::<Deployment>();
        let deleted = deployments.delete_collection(&how, &selected).await;
        drop(deleted.unwrap());
        let sets = self.api::<DaemonSet>();
        drop(sets.delete_collection(&how, &selected).await.unwrap());
        for pod in pods {
            let name = pod.metadata.name.unwrap();
            self.eventually_gone::<Pod>(&name).await;
        }
    }

    /// Renders the chart without a look at the cluster.
    pub(crate) async fn render(&self, values: &[&str]) -> Vec<Value> {
        let arguments = ["template", RELEASE, CHART];
        let text = self.helm(&[&arguments, values].concat()).await;
        let documents: Vec<Option<Value>> = serde_saphyr::from_multiple(&text).unwrap();
        documents.into_iter().flatten().collect()
    }

    /// Runs Helm, which must succeed, and returns what it prints.
    pub(crate) async fn helm(&self, arguments: &[&str]) -> String {
        let answer = self.try_helm(arguments).await;
        assert!(answer.status.success(), "{arguments:?}: {answer:?}");
        String::from_utf8(answer.stdout).unwrap()
    }

    /// Runs Helm.
    pub(crate) async fn try_helm(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(enclave::helm());
        command
            .args(arguments)
            .args(["--namespace", &self.namespace, "--kubeconfig"])
            .arg(self.cluster.control_plane.kubeconfig())
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
            .env("HOME", enclave::folder())
            .stdin(Stdio::null());
        timeout(DEADLINE, command.output())
            .await
            .expect("it ends")
            .unwrap()
    }
}

/// The chart, from the root of the repository.
pub(crate) const CHART: &str = "charts/sidestep";

/// Whether as many pods are available as are wanted.
pub(crate) fn is_available(deployment: &Deployment) -> bool {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas);
    let status = deployment.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    observed == deployment.metadata.generation
        && status.and_then(|status| status.available_replicas) == wanted
}
