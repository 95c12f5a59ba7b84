//! Watches what the table is made of and hands over each new one.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Client;
use kube::runtime::watcher::Config;
use sidestep_proxy::table::Table;
use sidestep_proxy::tls::Identity;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::build::{Attached, Options, Snapshot, build};
use super::certificates::{SecretScope, Shelf};
use super::ingress;
use super::notice::Notice;
use super::split::RawSplit;
use crate::cache::{Cache, Change, Listener, Malformed, feed};
use crate::wire::Collection;

/// How long changes are gathered before a table is built: one write of ours often causes several events, on several watches.
const GATHER: Duration = Duration::from_millis(2);

/// What a proxy is to serve from now on.
#[derive(Debug)]
pub struct Published {
    /// Where requests go.
    pub table: Table,
    /// Host and identity; of two for one host the first counts.
    pub certificates: Vec<(String, Identity)>,
}

/// Hands `publish` a table as soon as everything that it is made of has been listed completely, and another whenever they
/// change, until `cancel`. While `publish` has not returned, changes gather; the next table holds them all.
///
/// The API server's absence is no error here: the last table stands, and the watches are resumed when it is back.
pub async fn run<P, F>(client: Client, options: Options, mut publish: P, cancel: CancellationToken)
where
    P: FnMut(Published) -> F,
    F: Future<Output = ()>,
{
    let sources = Sources::new(&options.attached);
    let publishing = async {
        sources.ready().await;
        let (mut said, mut shelf) = (BTreeSet::new(), Shelf::default());
        loop {
            let snapshot = sources.snapshot();
            let (table, mut notices) = build(&snapshot, &options);
            let (certificates, about) = sources.certificates(&mut shelf, &snapshot, &options);
            notices.extend(about);
            say(&mut said, notices);
            publish(Published {
                table,
                certificates,
            })
            .await;
            sources.changed.notified().await;
            tokio::time::sleep(GATHER).await;
        }
    };
    let namespace = options.namespace.as_deref();
    tokio::select! {
        () = cancel.cancelled() => {}
        () = publishing => {}
        () = feed(sources.services.clone(), Collection::scoped(&client, namespace), Config::default()) => {}
        () = feed(sources.slices.clone(), Collection::scoped(&client, namespace), Config::default()) => {}
        () = feed(sources.splits.clone(), Collection::scoped(&client, namespace), Config::default()) => {}
        () = sources.feed_ingresses(&client, &options) => {}
        () = sources.feed_secrets(&client) => {}
    }
}

struct Sources {
    services: Cache<Service>,
    slices: Cache<EndpointSlice>,
    splits: Cache<RawSplit>,
    ingresses: Cache<Ingress>,
    /// One watch for each scope.
    secrets: Vec<(SecretScope, Cache<Secret>)>,
    changed: Arc<Notify>,
}

impl Sources {
    fn new(attached: &Attached) -> Self {
        let changed = Arc::new(Notify::new());
        let scopes = match attached {
            Attached::Ingresses { secrets, .. } => secrets.clone().unwrap_or_default(),
            Attached::Services(_) => Vec::new(),
        };
        let secrets = scopes.into_iter().map(|scope| {
            let is_same = |old: &Secret, new: &Secret| old.data == new.data;
            (scope, Cache::new(vec![on_change(&changed, is_same)]))
        });
        Self {
            services: Cache::new(vec![on_change(&changed, |old: &Service, new: &Service| {
                old.spec == new.spec && old.metadata.labels == new.metadata.labels
            })]),
            slices: Cache::new(vec![on_change(&changed, |_, _| false)]),
            ingresses: Cache::new(vec![on_change(&changed, |old: &Ingress, new: &Ingress| {
                old.spec == new.spec && old.metadata.annotations == new.metadata.annotations
            })]),
            // A Split's status is written by the controller in answer to what we report: it must not cause another table.
            splits: Cache::new(vec![on_change(
                &changed,
                |old: &RawSplit, new: &RawSplit| {
                    old.spec == new.spec
                        && old.metadata.uid == new.metadata.uid
                        && old.metadata.generation == new.metadata.generation
                },
            )]),
            secrets: secrets.collect(),
            changed,
        }
    }

    async fn ready(&self) {
        self.services.ready().await;
        self.slices.ready().await;
        self.splits.ready().await;
        self.ingresses.ready().await;
        for (_, secrets) in &self.secrets {
            secrets.ready().await;
        }
    }

    fn certificates(
        &self,
        shelf: &mut Shelf,
        snapshot: &Snapshot,
        options: &Options,
    ) -> (Vec<(String, Identity)>, Vec<Notice>) {
        match &options.attached {
            Attached::Ingresses {
                class,
                secrets: Some(_),
            } => {
                let secrets: Vec<_> = self.secrets.iter().flat_map(|(_, all)| all.all()).collect();
                shelf.certificates(&ingress::of_class(&snapshot.ingresses, class), &secrets)
            }
            Attached::Ingresses { .. } | Attached::Services(_) => Default::default(),
        }
    }

    async fn feed_secrets(&self, client: &Client) {
        let watches = self.secrets.iter().map(|(scope, cache)| {
            let tls = Config::default().fields("type=kubernetes.io/tls");
            let (collection, config) = match scope {
                SecretScope::All => (Collection::all(client), tls),
                SecretScope::Namespace(namespace) => (Collection::within(client, namespace), tls),
                SecretScope::Named { namespace, name } => (
                    Collection::within(client, namespace),
                    Config::default().fields(&format!("metadata.name={name}")),
                ),
            };
            feed(cache.clone(), collection, config)
        });
        join_all(watches).await;
        std::future::pending().await
    }

    /// Ingresses are read only where they are served.
    async fn feed_ingresses(&self, client: &Client, options: &Options) {
        match options.attached {
            Attached::Ingresses { .. } => {
                let ingresses = self.ingresses.clone();
                let namespace = options.namespace.as_deref();
                let collection = Collection::scoped(client, namespace);
                feed(ingresses, collection, Config::default()).await;
            }
            Attached::Services(_) => {
                self.ingresses.leave_empty();
                std::future::pending().await
            }
        }
    }

    fn snapshot(&self) -> Snapshot {
        let of_kind =
            |kind, malformed: Vec<Malformed>| malformed.into_iter().map(move |m| (kind, m));
        let slices = of_kind("EndpointSlice", self.slices.malformed());
        let splits = of_kind("Split", self.splits.malformed());
        let ingresses = of_kind("Ingress", self.ingresses.malformed());
        Snapshot {
            services: self.services.all(),
            slices: self.slices.all(),
            splits: self.splits.all(),
            ingresses: self.ingresses.all(),
            malformed_services: self.services.malformed(),
            malformed: slices.chain(splits).chain(ingresses).collect(),
        }
    }
}

/// Wakes the builder, unless the change is one that no table shows.
fn on_change<K: 'static>(
    changed: &Arc<Notify>,
    is_same: impl Fn(&K, &K) -> bool + Send + Sync + 'static,
) -> Listener<K> {
    let changed = Arc::clone(changed);
    Box::new(move |change: &Change<'_, K>| {
        let same = match (change.old, change.new) {
            (Some(old), Some(new)) => is_same(old, new),
            _ => false,
        };
        if !same {
            changed.notify_one();
        }
    })
}

/// Logs what is new among the notices, and what is settled.
fn say(said: &mut BTreeSet<Notice>, notices: Vec<Notice>) {
    let now: BTreeSet<Notice> = notices.into_iter().collect();
    for notice in now.difference(said) {
        warn!(%notice, "not served as written");
    }
    for notice in said.difference(&now) {
        info!(%notice, "settled");
    }
    *said = now;
}
