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
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::build::{Attached, Options, Snapshot};
use super::certificates::{SecretScope, Shelf};
use super::changes::{Journal, Name};
use super::ingress;
use super::notice::Notice;
use super::rebuild::{Builder, Built, Objects};
use super::split::RawSplit;
use crate::cache::{Cache, Malformed, Manner, feed};
use crate::wire::Collection;

/// How long changes are gathered before a table is built: one write of ours often causes several events, on several watches.
const GATHER: Duration = Duration::from_millis(2);

/// What a proxy is to serve from now on.
#[derive(Debug)]
pub struct Published {
    /// Where requests go.
    pub table: Table,
    /// Host and identity, of two for one host the first counts; none where they are as before.
    pub certificates: Option<Vec<(String, Identity)>>,
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
        let mut builder = Builder::new(options.clone());
        let (mut said, mut shelf) = (BTreeSet::new(), Shelf::default());
        loop {
            let changes = sources.journal.take();
            match builder.build(&changes, &sources) {
                Some(Built::Whole(table, ingresses, mut notices)) => {
                    let (certificates, about) =
                        sources.certificates(&mut shelf, &ingresses, &options);
                    notices.extend(about);
                    say(&mut said, notices);
                    let certificates = Some(certificates);
                    publish(Published {
                        table,
                        certificates,
                    })
                    .await;
                }
                Some(Built::Patched(table)) => {
                    publish(Published {
                        table,
                        certificates: None,
                    })
                    .await;
                }
                None => {}
            }
            sources.journal.news().await;
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

/// What routing knows.
pub(super) struct Sources {
    pub(super) services: Cache<Service>,
    pub(super) slices: Cache<EndpointSlice>,
    pub(super) splits: Cache<RawSplit>,
    ingresses: Cache<Ingress>,
    /// One watch for each scope.
    secrets: Vec<(SecretScope, Cache<Secret>)>,
    pub(super) journal: Journal,
}

impl Sources {
    pub(super) fn new(attached: &Attached) -> Self {
        let journal = Journal::default();
        let scopes = match attached {
            Attached::Ingresses { secrets, .. } => secrets.clone().unwrap_or_default(),
            Attached::Services(_) => Vec::new(),
        };
        let secrets = scopes.into_iter();
        let secrets = secrets.map(|scope| {
            (
                scope,
                Cache::new(Manner::typed(), vec![journal.of_secrets()]),
            )
        });
        Self {
            services: Cache::new(Manner::typed(), vec![journal.of_services()]),
            slices: Cache::new(Manner::typed(), vec![journal.of_slices()]),
            splits: Cache::new(Manner::typed(), vec![journal.of_splits()]),
            ingresses: Cache::new(Manner::typed(), vec![journal.of_ingresses()]),
            secrets: secrets.collect(),
            journal,
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
        ingresses: &[Arc<Ingress>],
        options: &Options,
    ) -> (Vec<(String, Identity)>, Vec<Notice>) {
        match &options.attached {
            Attached::Ingresses {
                class,
                secrets: Some(_),
            } => {
                let secrets: Vec<_> = self.secrets.iter().flat_map(|(_, all)| all.all()).collect();
                shelf.certificates(&ingress::of_class(ingresses, class), &secrets)
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
}

impl Objects for Sources {
    fn snapshot(&self) -> Snapshot {
        let of_kind =
            |kind, malformed: Vec<Malformed>| malformed.into_iter().map(move |m| (kind, m));
        let slices = of_kind("EndpointSlice", self.slices.malformed());
        let splits = of_kind("Split", self.splits.malformed());
        let ingresses = of_kind("Ingress", self.ingresses.malformed());
        Snapshot {
            services: self.services.all().collect(),
            slices: self.slices.all().collect(),
            splits: self.splits.all().collect(),
            ingresses: self.ingresses.all().collect(),
            malformed_services: self.services.malformed(),
            malformed: slices.chain(splits).chain(ingresses).collect(),
        }
    }

    fn service(&self, (namespace, name): &Name) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn split(&self, (namespace, name): &Name) -> Option<Arc<RawSplit>> {
        self.splits.get(namespace, name)
    }

    fn slices(&self, namespace: &str) -> Vec<Arc<EndpointSlice>> {
        self.slices.list(namespace).collect()
    }
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
