//! The rollouts of a namespace, and the ways in which the verbs read and write them.

use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams};
use kube::core::Status;
use kube::{Client, ResourceExt};
use serde_json::Value;
use sidestep_control::api::Rollout;
use sidestep_control::wire::Collection;

use crate::client::Session;

/// The rollouts of a namespace.
///
/// Objects are written as the JSON they are, never through our types, so that fields we do not know survive.
#[derive(Clone)]
pub(crate) struct Rollouts {
    /// The client.
    pub(crate) client: Client,
    /// The namespace.
    pub(crate) namespace: String,
}

impl Rollouts {
    /// Those of a session's namespace.
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            client: session.client.clone(),
            namespace: session.namespace.clone(),
        }
    }

    /// Reads one.
    pub(crate) async fn get(&self, name: &str) -> kube::Result<Rollout> {
        Collection::within(&self.client, &self.namespace)
            .get(name)
            .await
    }

    /// Reads one as the JSON it is.
    pub(crate) async fn get_json(&self, name: &str) -> kube::Result<DynamicObject> {
        self.json().get(name).await
    }

    /// Merges into the object and answers its name.
    pub(crate) async fn patch(&self, name: &str, patch: &Value) -> kube::Result<String> {
        let patched = self
            .json()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(patched.name_any())
    }

    /// Merges into the status and answers the object's name; where there is no such subresource, merges into the object.
    pub(crate) async fn patch_status(&self, name: &str, patch: &Value) -> kube::Result<String> {
        let patched = self
            .json()
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await;
        match patched {
            Err(error) if is_not_found(&error) => self.patch(name, patch).await,
            patched => Ok(patched?.name_any()),
        }
    }

    /// The objects as JSON.
    pub(crate) fn json(&self) -> Api<DynamicObject> {
        Api::namespaced_with(
            self.client.clone(),
            &self.namespace,
            &ApiResource::erase::<Rollout>(&()),
        )
    }
}

/// How often a write is tried when someone else has changed the object in between, as in Argo (`cmd/set`, `maxAttempts`).
const ATTEMPTS: usize = 5;

/// Reads, judges and writes; once more from the start, five times in all, as long as what was read has been changed in between.
pub(crate) async fn undisputed<T>(
    mut attempt: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    for _ in 1..ATTEMPTS {
        match attempt().await {
            Err(error) if error.downcast_ref().is_some_and(is_conflict) => {}
            done => return done,
        }
    }
    attempt().await
}

/// Whether the API server answered 404.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the object was changed by someone else in between.
fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

/// What the API server says of a rollout that is not there.
pub(crate) fn not_found(name: &str) -> kube::Error {
    let message = format!("rollouts.argoproj.io \"{name}\" not found");
    kube::Error::Api(Status::failure(&message, "NotFound").with_code(404).boxed())
}
