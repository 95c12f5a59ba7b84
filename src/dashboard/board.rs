//! Every rollout of the cluster and what belongs to it, kept up to date by watches, as the page shows it.

use std::collections::BTreeMap;

use futures::future::join_all;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sidestep_control::api::{AnalysisRun, ReplicaSet, Rollout, Split};
use sidestep_control::wire::Collection;

use crate::rates::{Figures, SplitName};
use crate::view::info::{Info, Objects, Strategy};
use crate::view::steps;

/// What the page is told.
#[derive(Clone, Debug, Serialize)]
pub(super) struct BoardState {
    rollouts: Vec<Card>,
}

/// One rollout.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Card {
    namespace: String,
    name: String,
    phase: String,
    message: String,
    waiting: Option<String>,
    steps: Vec<String>,
    step_index: Option<i32>,
    set_weight: i32,
    actual_weight: i32,
    versions: Vec<Figures>,
    runs: Vec<Run>,
}

/// An AnalysisRun of the newest revision.
#[derive(Clone, Debug, Serialize)]
struct Run {
    name: String,
    phase: String,
    message: String,
}

/// Every rollout and what belongs to it.
#[derive(Clone, Debug)]
pub(super) struct Board {
    rollouts: Store<Rollout>,
    replica_sets: Store<ReplicaSet>,
    pods: Store<Pod>,
    analysis_runs: Store<AnalysisRun>,
    splits: Store<Split>,
    services: Store<Service>,
}

impl Board {
    /// A board, and what keeps it up to date for as long as it is polled.
    pub(super) fn start(client: &Client) -> (Self, impl Future<Output = ()> + use<>) {
        let mut watches = Vec::new();
        let board = Self {
            rollouts: watch(client, &mut watches),
            replica_sets: watch(client, &mut watches),
            pods: watch(client, &mut watches),
            analysis_runs: watch(client, &mut watches),
            splits: watch(client, &mut watches),
            services: watch(client, &mut watches),
        };
        (board, join_all(watches).map(drop))
    }

    /// What the page is told now.
    pub(super) fn state(&self, figures: &BTreeMap<SplitName, Vec<Figures>>) -> BoardState {
        let mut rollouts: Vec<Card> = self
            .rollouts
            .state()
            .iter()
            .map(|rollout| self.card(rollout, figures))
            .collect();
        rollouts.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        BoardState { rollouts }
    }

    fn card(&self, rollout: &Rollout, figures: &BTreeMap<SplitName, Vec<Figures>>) -> Card {
        let info = Info::of(&self.objects(rollout));
        let (set_weight, actual_weight) = match &info.strategy {
            Strategy::Canary(canary) => (canary.set_weight, canary.actual_weight),
            Strategy::BlueGreen | Strategy::Unknown => (0, 0),
        };
        let newest = info.revisions.first();
        let runs = newest.map(|revision| {
            revision
                .analysis_runs
                .iter()
                .map(|run| self.run(&info.namespace, &run.name))
                .collect()
        });
        Card {
            versions: figures
                .get(&(info.namespace.clone(), info.name.clone()))
                .cloned()
                .unwrap_or_default(),
            namespace: info.namespace,
            name: info.name,
            phase: info.status,
            message: info.message,
            waiting: info.waiting.map(|waiting| waiting.message),
            steps: steps::words(rollout),
            step_index: rollout
                .status
                .as_ref()
                .and_then(|status| status.current_step_index),
            set_weight,
            actual_weight,
            runs: runs.unwrap_or_default(),
        }
    }

    fn run(&self, namespace: &str, name: &str) -> Run {
        let found = self
            .analysis_runs
            .find(|run| run.name_any() == name && run.namespace().as_deref() == Some(namespace));
        let status = found.and_then(|run| run.status.clone()).unwrap_or_default();
        Run {
            name: name.to_owned(),
            phase: status.phase,
            message: status.message.unwrap_or_default(),
        }
    }

    fn objects(&self, rollout: &Rollout) -> Objects {
        let namespace = rollout.metadata.namespace.clone();
        let name = rollout.metadata.name.clone();
        Objects {
            rollout: rollout.clone(),
            replica_sets: within(&self.replica_sets, namespace.as_deref()),
            pods: within(&self.pods, namespace.as_deref()),
            analysis_runs: within(&self.analysis_runs, namespace.as_deref()),
            split: within(&self.splits, namespace.as_deref())
                .into_iter()
                .find(|split: &Split| split.metadata.name == name),
        }
    }

    /// The Host under which the proxy serves a rollout: a Service that its Split splits, else one that selects its pods.
    pub(super) fn host(&self, namespace: &str, name: &str) -> Option<String> {
        let split = self.splits.find(|split| {
            split.name_any() == name && split.namespace().as_deref() == Some(namespace)
        });
        let split_service = split.and_then(|split| {
            let rules = &split.spec.rules;
            let shared = rules.iter().find(|rule| rule.weights.len() > 1);
            shared.or_else(|| rules.first())?.services.first().cloned()
        });
        let service = split_service.or_else(|| self.service_of(namespace, name))?;
        Some(format!("{service}.{namespace}"))
    }

    fn service_of(&self, namespace: &str, name: &str) -> Option<String> {
        let rollout = self.rollouts.find(|rollout| {
            rollout.name_any() == name && rollout.namespace().as_deref() == Some(namespace)
        })?;
        let labels = rollout
            .spec
            .template
            .pointer("/metadata/labels")?
            .as_object()?
            .clone();
        let selects = |service: &Service| {
            let selector = service
                .spec
                .as_ref()
                .and_then(|spec| spec.selector.as_ref());
            selector.is_some_and(|selector| {
                !selector.is_empty()
                    && selector.iter().all(|(key, value)| {
                        labels.get(key).and_then(|label| label.as_str()) == Some(value)
                    })
            })
        };
        let service = self.services.find(|service| {
            service.namespace().as_deref() == Some(namespace) && selects(service)
        })?;
        Some(service.name_any())
    }
}

fn within<K>(store: &Store<K>, namespace: Option<&str>) -> Vec<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: std::hash::Hash + Eq + Clone + Default,
{
    let all = store.state();
    all.iter()
        .filter(|object| object.meta().namespace.as_deref() == namespace)
        .map(|object| (**object).clone())
        .collect()
}

fn watch<K>(client: &Client, watches: &mut Vec<futures::future::BoxFuture<'static, ()>>) -> Store<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = Collection::<K>::all(client).watch(watcher::Config::default());
    let keeping = changes.reflect(writer).for_each(|_| std::future::ready(()));
    watches.push(keeping.boxed());
    store
}
