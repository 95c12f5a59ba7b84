//! Leadership: of several controllers one writes, chosen by a Lease.
//!
//! The protocol is that of client-go's `leaderelection`, and the Lease is the one that Argo Rollouts takes, so that its controllers and
//! ours exclude each other. Who holds it is judged by this process's own clock: a holder is alive while its record keeps changing
//! (`election`); the times that stand in the record are for people. Standbys watch the Lease as well as poll it, so that
//! one that is given back is taken at once.

mod election;

use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::api::{ListParams, ObjectMeta};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use self::election::{Election, Move};
use crate::cache::{Cache, Change, Manner, feed};
use crate::wire::Collection;

/// What the lock is called; an instance id is added behind a `-`.
pub const LOCK: &str = "argo-rollouts-controller-lock";

/// Whom a controller competes with, and how fast. Already valid: `retry < renew < duration`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where the Lease is.
    pub namespace: String,
    /// What it is called.
    pub name: String,
    /// Who we are: no other process, before or beside us, is called the same.
    pub identity: String,
    /// How long a record that no longer changes is respected.
    pub duration: Duration,
    /// How long the leader goes on without a renewal.
    pub renew: Duration,
    /// How long to wait between attempts.
    pub retry: Duration,
}

/// Why there is no leadership, or no more.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another controller has written itself into the Lease.
    #[error("leadership was taken by {0}")]
    Taken(String),
    /// The API server did not take a renewal in time.
    #[error("leadership was lost: no renewal within {within:?}")]
    NotRenewed {
        /// The limit.
        within: Duration,
        /// The last refusal; none if there was no answer at all.
        #[source]
        source: Option<kube::Error>,
    },
    /// A controller elsewhere holds a lock of the same name.
    #[error(
        "a controller in namespace {namespace} holds a Lease of the same name ({holder}): two would write the same Rollouts. Stop it, \
         or give both the same --leader-election-namespace, or each an --instance-id"
    )]
    Rival {
        /// Where.
        namespace: String,
        /// Who.
        holder: String,
    },
    /// The API server refuses.
    #[error("reading Leases")]
    Api(#[from] kube::Error),
}

/// The Lease, held or wanted.
pub struct Leadership {
    client: Client,
    config: Config,
    election: Election,
    /// When the last renewal that was taken had been begun: others respect it from some later moment on.
    renewed: Instant,
}

/// What came of an attempt to hold the Lease.
#[derive(Debug)]
enum Attempt {
    /// It is ours.
    Held,
    /// It is this other one's.
    Led(String),
    /// Somebody else wrote at the same time.
    Raced,
}

impl Leadership {
    /// Not yet held.
    pub fn new(client: Client, config: Config) -> Self {
        let election = Election::new(config.identity.clone(), config.duration);
        Self {
            client,
            config,
            election,
            renewed: Instant::now(),
        }
    }

    /// Whom it competes with, and how fast.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Returns once the Lease is held. Cancel safe: a Lease that was taken and is not kept is free again after its duration.
    pub async fn acquire(&mut self) {
        let freed = Arc::new(Notify::new());
        let mut watching = pin!(watch(self.collection(), self.config.name.clone(), &freed));
        loop {
            match timeout(self.config.renew, self.attempt()).await {
                Ok(Ok(Attempt::Held)) => return,
                Ok(Ok(Attempt::Led(_) | Attempt::Raced)) => {}
                Ok(Err(error)) => warn!(
                    error = &error as &dyn std::error::Error,
                    "reading or writing the Lease"
                ),
                // It may be that the way to it is dead: another attempt takes another.
                Err(_) => {
                    warn!(limit = ?self.config.renew, "the API server is silent about the Lease")
                }
            }
            tokio::select! {
                () = sleep(self.config.retry) => {}
                () = freed.notified() => {}
                () = &mut watching => {}
            }
        }
    }

    /// Keeps the Lease; returns when it is lost.
    pub async fn keep(&mut self) -> Error {
        let mut refused = None;
        loop {
            sleep(self.config.retry).await;
            let deadline = self.renewed + self.config.renew;
            match timeout_at(deadline, self.attempt()).await {
                Ok(Ok(Attempt::Held | Attempt::Raced)) | Err(_) => {}
                Ok(Ok(Attempt::Led(holder))) => return Error::Taken(holder),
                Ok(Err(error)) => refused = Some(error),
            }
            if Instant::now() >= self.renewed + self.config.renew {
                return Error::NotRenewed {
                    within: self.config.renew,
                    source: refused,
                };
            }
        }
    }

    /// Gives the Lease back, so that another may take it at once.
    pub async fn release(self) {
        let lease = self.collection().get_opt(&self.config.name).await;
        let Ok(Some(mut lease)) = lease else {
            return;
        };
        let Some(spec) = self.election.release(lease.spec.as_ref(), now()) else {
            return;
        };
        lease.spec = Some(spec);
        match self.collection().replace(&self.config.name, &lease).await {
            Ok(_) => info!(lease = self.config.name, "leadership given back"),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "giving back the Lease: the next leader waits until it ends"
            ),
        }
    }

    /// Reads the Lease and does what follows.
    async fn attempt(&mut self) -> kube::Result<Attempt> {
        let begun = Instant::now();
        let api = self.collection();
        let found = api.get_opt(&self.config.name).await?;
        let record = found
            .as_ref()
            .map(|lease| lease.spec.clone().unwrap_or_default());
        let record = match self.election.next(record.as_ref(), Instant::now(), now()) {
            Move::Write(record) => record,
            Move::Wait(holder) => return Ok(Attempt::Led(holder)),
        };
        let written = match found {
            Some(mut lease) => {
                lease.spec = Some(record);
                api.replace(&self.config.name, &lease).await
            }
            None => api.create(&self.fresh(record)).await,
        };
        match written {
            Ok(_) => {
                self.renewed = begun;
                Ok(Attempt::Held)
            }
            Err(kube::Error::Api(refusal)) if refusal.code == 409 => Ok(Attempt::Raced),
            Err(error) => Err(error),
        }
    }

    fn fresh(&self, record: LeaseSpec) -> Lease {
        Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                namespace: Some(self.config.namespace.clone()),
                ..ObjectMeta::default()
            },
            spec: Some(record),
        }
    }

    fn collection(&self) -> Collection<Lease> {
        Collection::within(&self.client, &self.config.namespace)
    }
}

impl fmt::Debug for Leadership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leadership")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// Tells `freed` when the Lease has no holder any more.
async fn watch(leases: Collection<Lease>, name: String, freed: &Arc<Notify>) {
    let notify = Arc::clone(freed);
    let on_change = move |change: &Change<'_, Lease>| {
        if change.new.and_then(|lease| holder(lease)).is_none() {
            notify.notify_one();
        }
    };
    let one = watcher::Config::default().fields(&format!("metadata.name={name}"));
    feed(
        Cache::new(Manner::typed(), vec![Box::new(on_change)]),
        leases,
        one,
    )
    .await;
}

/// Complains of a controller in another namespace that holds a lock of our name: one whose record changes while we look, for as long as
/// a record is respected.
///
/// # Errors
/// [`Error::Rival`], or what the API server says.
pub async fn refuse_rivals(client: &Client, config: &Config) -> Result<(), Error> {
    let begin = Instant::now();
    let first = rivals(client, config).await?;
    let mut others = first.clone();
    while !others.is_empty() && begin.elapsed() < config.duration {
        sleep(config.retry).await;
        others = rivals(client, config).await?;
        let renewed = |rival: &&Record| !first.contains(rival);
        if let Some(rival) = others.iter().find(renewed) {
            return Err(Error::Rival {
                namespace: rival.namespace.clone(),
                holder: rival.holder.clone(),
            });
        }
    }
    Ok(())
}

/// What a held Lease says.
#[derive(Clone, Debug, PartialEq)]
struct Record {
    namespace: String,
    holder: String,
    version: Option<String>,
}

async fn rivals(client: &Client, config: &Config) -> kube::Result<Vec<Record>> {
    let same_name = ListParams::default().fields(&format!("metadata.name={}", config.name));
    let leases = Collection::<Lease>::all(client).list(&same_name).await?;
    let elsewhere = leases.iter().filter_map(|lease| {
        let record = Record {
            namespace: lease.namespace().unwrap_or_default(),
            holder: holder(lease)?.to_owned(),
            version: lease.resource_version(),
        };
        (record.namespace != config.namespace).then_some(record)
    });
    Ok(elsewhere.collect())
}

fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref()?;
    (!holder.is_empty()).then_some(holder)
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: the times that people read in the record"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
