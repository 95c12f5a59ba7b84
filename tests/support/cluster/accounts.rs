//! What a pod may do: its service account's token, in a kubeconfig of its own.
//!
//! A real kubelet mounts the token and names the API server in variables. Processes here see this machine's files, so each gets a file
//! of its own, and `KUBECONFIG` says where.

use std::path::PathBuf;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::{AuthInfo, Kubeconfig};
use kube::{Api, Client};
use serde_json::Value;
use sidestep_control::local::pods::cluster::{News, PodName};

use super::enclave;

/// Who issues tokens.
pub(super) struct Accounts {
    client: Client,
    /// The way to the API server, for whoever may do everything.
    settings: Kubeconfig,
}

impl Accounts {
    pub(super) fn new(client: Client, settings: Kubeconfig) -> Self {
        std::fs::create_dir_all(folder()).unwrap();
        Self { client, settings }
    }

    /// Gets the token of each pod that is seen for the first time.
    pub(super) async fn admit(&self, news: &News) {
        let pods = match news {
            News::Pods(pods) => pods.as_slice(),
            News::Pod(pod) => std::slice::from_ref(pod),
            News::Gone(_) | News::Configuration => &[],
        };
        for pod in pods {
            let name = PodName::of(pod);
            if wants_token(pod)
                && !file(&name).exists()
                && let Err(error) = self.issue(&name, pod).await
            {
                tracing::warn!(?name, %error, "a pod goes without the token of its service account");
            }
        }
    }

    /// Where the pod finds its token.
    pub(super) fn variable(&self, pod: &PodName) -> Option<(String, String)> {
        let file = file(pod);
        let name = file.to_str().unwrap().to_owned();
        file.exists().then(|| ("KUBECONFIG".to_owned(), name))
    }

    async fn issue(&self, name: &PodName, pod: &Value) -> kube::Result<()> {
        let account = pod["spec"]["serviceAccountName"].as_str();
        let request = TokenRequest {
            spec: TokenRequestSpec {
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: Some(name.name.clone()),
                    uid: Some(name.uid.clone()),
                }),
                expiration_seconds: Some(VALID_SECONDS),
                ..TokenRequestSpec::default()
            },
            ..TokenRequest::default()
        };
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), &name.namespace);
        let issued = api
            .create_token_request(
                account.unwrap_or("default"),
                &PostParams::default(),
                &request,
            )
            .await?;
        let token = issued.status.expect("a token that was issued").token;
        let settings = self.settings_of(&name.namespace, &token);
        std::fs::write(file(name), serde_json::to_vec(&settings).unwrap()).unwrap();
        Ok(())
    }

    fn settings_of(&self, namespace: &str, token: &str) -> Kubeconfig {
        let mut settings = self.settings.clone();
        for user in &mut settings.auth_infos {
            user.auth_info = Some(AuthInfo {
                token: Some(token.to_owned().into()),
                ..AuthInfo::default()
            });
        }
        for context in settings
            .contexts
            .iter_mut()
            .filter_map(|named| named.context.as_mut())
        {
            context.namespace = Some(namespace.to_owned());
        }
        settings
    }
}

/// Whether the API server has added the mount of the token to a pod that runs as a process.
fn wants_token(pod: &Value) -> bool {
    let container = &pod["spec"]["containers"][0];
    let mut mounts = container["volumeMounts"].as_array().into_iter().flatten();
    container["command"].is_array()
        && mounts.any(|mount| mount["mountPath"] == "/var/run/secrets/kubernetes.io/serviceaccount")
}

fn file(pod: &PodName) -> PathBuf {
    file_of(&pod.uid)
}

/// What `KUBECONFIG` says to the process of the pod with that uid.
pub(super) fn file_of(uid: &str) -> PathBuf {
    folder().join(uid)
}

fn folder() -> PathBuf {
    enclave::folder().join("accounts")
}

/// Longer than any test.
const VALID_SECONDS: i64 = 6 * 3600;
