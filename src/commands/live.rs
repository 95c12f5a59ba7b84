//! A rollout and what belongs to it, kept up to date by watches.

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::Resource;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher;
use serde::de::DeserializeOwned;
use sidestep_control::api::{AnalysisRun, ReplicaSet, Rollout, Split};
use sidestep_control::wire::Collection;

use super::rollouts::not_found;
use crate::client::Session;
use crate::view::info::Objects;

/// A rollout and what belongs to it; see [`Live::objects`].
pub(crate) struct Live {
    rollout: Store<Rollout>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    analysis_runs: Store<AnalysisRun>,
    splits: Store<Split>,
    key: ObjectRef<Rollout>,
    changes: SelectAll<BoxStream<'static, ()>>,
}

impl Live {
    /// Begins to watch. `selector` is the label selector of the rollout's ReplicaSets and pods; empty selects all.
    pub(crate) fn start(session: &Session, name: &str, selector: &str) -> Self {
        let by_name = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let by_label = watcher::Config::default().labels(selector);
        let (rollout, rollout_changes) = watch(session, by_name.clone());
        let (replica_sets, replica_set_changes) = watch(session, by_label.clone());
        let (pods, pod_changes) = watch(session, by_label);
        let (analysis_runs, analysis_run_changes) = watch(session, watcher::Config::default());
        let (splits, split_changes) = watch(session, by_name);
        let changes = [
            rollout_changes.boxed(),
            replica_set_changes.boxed(),
            pod_changes.boxed(),
            analysis_run_changes.boxed(),
            split_changes.boxed(),
        ];
        let key = ObjectRef::new(name).within(&session.namespace);
        Self {
            rollout,
            replica_sets,
            pods,
            analysis_runs,
            splits,
            key,
            changes: changes.into_iter().collect(),
        }
    }

    /// Waits until something has changed. Cancel safe: a change that was not awaited is in [`Self::objects`] all the same.
    pub(crate) async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for the first full view of the rollout, its ReplicaSets and its pods.
    ///
    /// # Errors
    /// When the rollout is not there (any more).
    pub(crate) async fn ready(&mut self) -> anyhow::Result<Objects> {
        let stores = (
            self.rollout.clone(),
            self.replica_sets.clone(),
            self.pods.clone(),
        );
        let ready = async {
            stores.0.wait_until_ready().await?;
            stores.1.wait_until_ready().await?;
            stores.2.wait_until_ready().await
        };
        let mut ready = std::pin::pin!(ready);
        loop {
            tokio::select! {
                done = &mut ready => { done?; break }
                () = self.changed() => {}
            }
        }
        Ok(self.objects()?)
    }

    /// What there is now.
    ///
    /// # Errors
    /// When the rollout is not there (any more).
    pub(crate) fn objects(&self) -> kube::Result<Objects> {
        let rollout = self
            .rollout
            .get(&self.key)
            .ok_or_else(|| not_found(&self.key.name))?;
        Ok(Objects {
            rollout: (*rollout).clone(),
            replica_sets: all(&self.replica_sets),
            pods: all(&self.pods),
            analysis_runs: all(&self.analysis_runs),
            split: all(&self.splits).into_iter().next(),
        })
    }
}

/// A store, and the stream that fills it for as long as it is polled.
fn watch<K>(
    session: &Session,
    config: watcher::Config,
) -> (Store<K>, impl Stream<Item = ()> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static,
{
    let objects = Collection::<K>::within(&session.client, &session.namespace);
    let (store, writer) = reflector::store();
    let changes = reflector::reflector(writer, objects.watch(config)).map(|change| {
        if let Err(error) = change {
            tracing::debug!(%error, "watching again");
        }
    });
    (store, changes)
}

fn all<K: Resource<DynamicType = ()> + Clone + 'static>(store: &Store<K>) -> Vec<K> {
    store
        .state()
        .iter()
        .map(|object| (**object).clone())
        .collect()
}
