//! The objects the controller decides on, as caches.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::FutureExt as _;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use kube::runtime::watcher;
use kube::{Client, Resource};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::concern::{
    on_apex, on_deployment, on_entrance, on_ingress, on_replica_set, on_rollout, on_run,
    on_service, on_slice, on_split, on_split_of_apexes, on_template,
};
use super::{apex, ingress, words};
use crate::api::rollout::{PLUGIN, ProxyRouting};
use crate::api::{
    AnalysisRun, AnalysisTemplate, ClusterAnalysisTemplate, ReplicaSet, Rollout, Split, labels,
};
use crate::cache::index::Words;
use crate::cache::{Cache, Listener, Manner, feed};
use crate::controller::queue::{Lane, Laned, Lanes};
use crate::rollout::plan::root_services;
use crate::wire::Collection;

/// What is looked at by itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// A Rollout.
    Rollout(Name),
    /// An AnalysisRun.
    AnalysisRun(Name),
    /// A Service that a Rollout has its hash in, or had.
    Service(Name),
    /// A Split without a Rollout: the conditions of one that has a Rollout are written with the Rollout's memory.
    Split(Name),
    /// A Service that may be an apex.
    Apex(Name),
    /// An Ingress whose status says where callers go.
    Ingress(Name),
}

/// An object's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
}

/// Which objects a controller looks after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Those of this namespace; none means all.
    pub namespace: Option<String>,
    /// Those that this instance answers for.
    pub instance: Instance,
}

/// Which Rollouts, AnalysisRuns and AnalysisTemplates are a controller's own, by the instance-id label. Other kinds have none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Instance {
    /// All: there is one controller.
    #[default]
    Any,
    /// Those without the label, as Argo has it where no id is given.
    Unlabelled,
    /// Those labelled with this id.
    Named(String),
}

impl Instance {
    /// Whether an object with these labels is ours.
    pub fn is_own(&self, metadata: &ObjectMeta) -> bool {
        let labels = metadata.labels.as_ref();
        let id = labels.and_then(|labels| labels.get(labels::INSTANCE_ID));
        match self {
            Self::Any => true,
            Self::Unlabelled => id.is_none(),
            Self::Named(own) => id == Some(own),
        }
    }

    /// The label selector of those that are ours; none means all.
    pub fn selector(&self) -> Option<String> {
        match self {
            Self::Any => None,
            Self::Unlabelled => Some(format!("!{}", labels::INSTANCE_ID)),
            Self::Named(id) => Some(format!("{}={id}", labels::INSTANCE_ID)),
        }
    }
}

/// An `apps/v1` Deployment, as a `workloadRef` needs it: its template stays as it was written.
#[derive(Clone, Debug, Default, PartialEq, Resource, Deserialize)]
#[resource(inherit = k8s_openapi::api::apps::v1::Deployment)]
pub struct Deployment {
    /// Standard metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(default)]
    pub spec: DeploymentSpec,
}

/// What is wanted of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct DeploymentSpec {
    /// Pods wanted; absent means 1.
    #[serde(default)]
    pub replicas: Option<i32>,
    /// Which pods are its own.
    #[serde(default)]
    pub selector: Option<LabelSelector>,
    /// The pod template, as JSON.
    #[serde(default)]
    pub template: Value,
}

/// Everything the controller decides on.
#[derive(Clone, Debug)]
pub struct Objects {
    /// Rollouts.
    pub rollouts: Cache<Rollout>,
    /// ReplicaSets that carry a pod-template hash: those of plain Deployments are none of our business (R1.4).
    pub replica_sets: Cache<ReplicaSet>,
    /// Services.
    pub services: Cache<Service>,
    /// Splits.
    pub splits: Cache<Split>,
    /// AnalysisRuns.
    pub runs: Cache<AnalysisRun>,
    /// AnalysisTemplates.
    pub templates: Cache<AnalysisTemplate>,
    /// ClusterAnalysisTemplates.
    pub cluster_templates: Cache<ClusterAnalysisTemplate>,
    /// Deployments, for `workloadRef`.
    pub deployments: Cache<Deployment>,
    /// EndpointSlices, where there are apexes.
    pub slices: Cache<EndpointSlice>,
    /// Ingresses, where their status is ours to write.
    pub ingresses: Cache<Ingress>,
    /// The Services whose addresses they carry.
    pub entrances: Cache<Service>,
}

/// What is read only where somebody asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extras {
    /// EndpointSlices: there are apexes.
    pub slices: bool,
    /// Ingresses, and the Services of this namespace whose addresses they carry.
    pub entrances: Option<String>,
}

/// The keys to look at.
pub type Keys = Arc<Lanes<Key>>;

impl Laned for Key {
    fn lane(&self) -> Lane {
        match self {
            Self::AnalysisRun(_) => Lane::Slow,
            Self::Apex(_) => Lane::Constant,
            Self::Rollout(_) | Self::Service(_) | Self::Split(_) | Self::Ingress(_) => Lane::Quick,
        }
    }
}

impl Objects {
    /// Empty caches that put what a change concerns into `keys`; `apexes` says whether there are any.
    pub fn new(keys: &Keys, apexes: bool) -> Self {
        let rollouts = Cache::new(found_by(words::of_rollout), vec![on_rollout(keys)]);
        let of_sets = vec![on_replica_set(keys, &rollouts)];
        let replica_sets = Cache::new(found_by(words::of_owned), of_sets);
        let mut of_splits = vec![on_split(keys)];
        if apexes {
            of_splits.push(on_split_of_apexes(keys));
        }
        let splits = Cache::new(found_by(words::of_split), of_splits);
        let mut of_services = vec![on_service(keys, &rollouts, &replica_sets, &splits)];
        if apexes {
            of_services.push(on_apex(keys));
        }
        let of_slices = Manner {
            trim: apex::trim,
            ..found_by(words::of_slice)
        };
        let of_ingresses = Manner {
            trim: ingress::trim,
            ..Manner::packed()
        };
        let ingresses = Cache::new(of_ingresses, vec![on_ingress(keys)]);
        let runs = found_by(words::of_owned);
        Self {
            entrances: packed(on_entrance(keys, &ingresses)),
            ingresses,
            services: Cache::new(Manner::packed(), of_services),
            slices: Cache::new(of_slices, vec![on_slice(keys, &splits)]),
            splits,
            runs: Cache::new(runs, vec![on_run(keys)]),
            templates: packed(on_template(keys, &rollouts)),
            cluster_templates: packed(on_template(keys, &rollouts)),
            deployments: packed(on_deployment(keys, &rollouts)),
            rollouts,
            replica_sets,
        }
    }

    /// Returns once every kind has been listed completely. Cancel safe.
    pub async fn ready(&self) {
        let Self {
            rollouts,
            replica_sets,
            services,
            splits,
            runs,
            templates,
            cluster_templates,
            deployments,
            slices,
            ingresses,
            entrances,
        } = self;
        rollouts.ready().await;
        replica_sets.ready().await;
        services.ready().await;
        splits.ready().await;
        runs.ready().await;
        templates.ready().await;
        cluster_templates.ready().await;
        deployments.ready().await;
        slices.ready().await;
        ingresses.ready().await;
        entrances.ready().await;
    }

    /// Whether every kind has been listed completely.
    pub fn is_ready(&self) -> bool {
        self.ready().now_or_never().is_some()
    }

    /// The keys of all Rollouts and AnalysisRuns, and of the Ingresses that are read.
    pub fn keys(&self) -> impl Iterator<Item = Key> {
        let rollouts = self.rollouts.all();
        let runs = self.runs.all();
        let rollouts = rollouts.map(|rollout| Key::Rollout(Name::of(&rollout.metadata)));
        let ingresses = self.ingresses.all();
        rollouts
            .chain(runs.map(|run| Key::AnalysisRun(Name::of(&run.metadata))))
            .chain(ingresses.map(|ingress| Key::Ingress(Name::of(&ingress.metadata))))
    }

    /// Starts the watches, until `cancel`. A scope of one namespace does without ClusterAnalysisTemplates, which are in none.
    pub fn feed(
        &self,
        client: &Client,
        scope: &Scope,
        extras: &Extras,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) {
        let Self {
            rollouts,
            replica_sets,
            services,
            splits,
            runs,
            templates,
            cluster_templates,
            deployments,
            slices,
            ingresses,
            entrances,
        } = self;
        let mut watches = Watches {
            client,
            namespace: scope.namespace.as_deref(),
            tasks,
            cancel,
        };
        let all = watcher::Config::default;
        let own = || watcher::Config {
            label_selector: scope.instance.selector(),
            ..all()
        };
        watches.keep(rollouts, own());
        watches.keep(replica_sets, all().labels(labels::POD_TEMPLATE_HASH));
        watches.keep(services, all());
        watches.keep(splits, all());
        watches.keep(runs, own());
        watches.keep(templates, own());
        watches.keep(deployments, all());
        watches.keep_if(scope.namespace.is_none(), cluster_templates, own());
        watches.keep_if(extras.slices, slices, all());
        watches.keep_if(extras.entrances.is_some(), ingresses, all());
        watches.namespace = extras.entrances.as_deref();
        let labelled = all().labels(labels::INGRESS_CLASS);
        watches.keep_if(extras.entrances.is_some(), entrances, labelled);
    }
}

/// Objects that are found by words.
fn found_by<K: DeserializeOwned>(words: Words<K>) -> Manner<K> {
    Manner {
        words,
        ..Manner::packed()
    }
}

/// Objects that are found by name.
fn packed<K: DeserializeOwned>(listener: Listener<K>) -> Cache<K> {
    Cache::new(Manner::packed(), vec![listener])
}

/// Tasks that keep caches current.
struct Watches<'a> {
    client: &'a Client,
    /// Objects of this namespace; none means all.
    namespace: Option<&'a str>,
    tasks: &'a mut JoinSet<()>,
    cancel: &'a CancellationToken,
}

impl Watches<'_> {
    fn keep<K>(&mut self, cache: &Cache<K>, which: watcher::Config)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
    {
        let objects = Collection::scoped(self.client, self.namespace);
        let (watch, cancel) = (feed(cache.clone(), objects, which), self.cancel.clone());
        self.tasks.spawn(async move {
            cancel.run_until_cancelled(watch).await;
        });
    }

    /// Leaves it empty otherwise.
    fn keep_if<K>(&mut self, is_read: bool, cache: &Cache<K>, which: watcher::Config)
    where
        K: Resource<DynamicType = ()> + DeserializeOwned + Send + Sync + 'static,
    {
        match is_read {
            true => self.keep(cache, which),
            false => cache.leave_empty(),
        }
    }
}

impl Name {
    /// The name of an object.
    pub fn of(metadata: &ObjectMeta) -> Self {
        Self {
            namespace: metadata.namespace.clone().unwrap_or_default(),
            name: metadata.name.clone().unwrap_or_default(),
        }
    }

    /// The name that is made of these.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

impl std::fmt::Display for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The names of the Services that a Rollout names: stable and canary, or active and preview, and those that our routing block, or
/// one of others, splits.
pub fn services_of(rollout: &Rollout) -> BTreeSet<String> {
    let strategy = &rollout.spec.strategy;
    let of_canary = strategy.canary.iter();
    let of_canary = of_canary.flat_map(|canary| [&canary.stable_service, &canary.canary_service]);
    let of_blue_green = strategy.blue_green.iter();
    let active = of_blue_green.clone().map(|one| &one.active_service);
    let preview = of_blue_green.filter_map(|one| one.preview_service.as_ref());
    let named = of_canary.flatten().chain(active).chain(preview).cloned();
    let pair = strategy.canary.iter();
    let pair = pair.filter_map(|canary| canary.ping_pong.clone());
    let pair = pair.flat_map(|pair| [pair.ping_service, pair.pong_service]);
    let roots = strategy.canary.iter();
    let roots = roots.filter_map(|canary| canary.traffic_routing.as_ref());
    named
        .chain(pair)
        .chain(roots.flat_map(root_services))
        .chain(block_of(rollout).unwrap_or_default().services)
        .filter(|name| !name.is_empty())
        .collect()
}

/// Our routing block, wherever it stands, if it can be read.
fn block_of(rollout: &Rollout) -> Option<ProxyRouting> {
    if let Some(canary) = &rollout.spec.strategy.canary {
        let plugins = canary.traffic_routing.as_ref()?.plugins.as_ref()?;
        return ProxyRouting::deserialize(plugins.get(PLUGIN)?).ok();
    }
    let annotations = rollout.metadata.annotations.as_ref()?;
    serde_json::from_str(annotations.get(labels::PROXY)?).ok()
}

/// The owner that controls an object, if it is a Rollout.
pub fn rollout_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    controller_of(metadata)
        .filter(|owner| owner.kind == "Rollout" && owner.api_version.starts_with("argoproj.io/"))
}

/// The owner that controls an object.
pub fn controller_of(metadata: &ObjectMeta) -> Option<&OwnerReference> {
    let owners = metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true))
}
