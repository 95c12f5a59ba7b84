//! Who plays the cluster's other controllers: one task that sees every change and settles what it concerns.
//!
//! A player looks at what is, never at what happened: a change only says where to look. Reads and writes of the store take no time
//! worth waiting for, so players run one after another and cannot get into each other's way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::deployments::Deployments;
use super::garbage::Garbage;
use super::jobs::Jobs;
use super::launcher::Launcher;
use super::logs::PodLogs;
use super::namespaces::Namespaces;
use super::notes;
use super::pods::embedded::Embedded;
use super::pods::{self, Machine};
use super::replicasets::ReplicaSets;
use super::slices::Slices;
use super::store::{self, Change, Error, Object, Store, Subscription};

/// The controllers and the pods, running.
#[derive(Debug)]
pub struct Workloads {
    shutdown: CancellationToken,
    tasks: JoinSet<()>,
}

impl Workloads {
    /// Starts playing on `store`. Before this returns, pods of an earlier process of ours are not ready any more. What pods write goes to `logs`. `program` is this program's own file: see [`Launcher::start`].
    ///
    /// # Errors
    /// When the operating system gives no thread.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(store: &Store, logs: &PodLogs, program: PathBuf) -> io::Result<Self> {
        let machine = Machine {
            cluster: Arc::new(Embedded::new(store.clone())),
            launcher: Launcher::start(program)?,
            logs: logs.clone(),
        };
        pods::declare_lost(store);
        let shutdown = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(play(store.clone(), shutdown.clone()));
        tasks.spawn(pods::run(machine, shutdown.clone()));
        Ok(Self { shutdown, tasks })
    }

    /// Returns when something has ended that should not have: by a panic, which is told. The rest should then be stopped.
    pub async fn broken(&mut self) {
        if let Some(Err(error)) = self.tasks.join_next().await {
            tracing::error!(%error, "a part of the local cluster died");
        }
    }

    /// Ends all pods (SIGTERM, and after at most 3 s SIGKILL) and returns when they have ended. Their objects stay.
    pub async fn stop(mut self) {
        self.shutdown.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a part of the local cluster died");
            }
        }
    }
}

/// What is to be looked at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) namespace: String,
    pub(super) name: String,
}

impl Key {
    pub(super) fn of(object: &Object) -> Self {
        Self {
            namespace: store::text(object, "namespace").to_owned(),
            name: store::text(object, "name").to_owned(),
        }
    }
}

/// When to look again although nothing changed.
pub(super) type Again = Option<Duration>;

/// One of the cluster's controllers.
pub(super) trait Player: fmt::Debug + Send {
    /// What is to be looked at first of all, and after changes were missed.
    fn all(&mut self, store: &Store) -> Vec<Key>;

    /// What is to be looked at because of a change.
    fn concerned(&mut self, store: &Store, change: &Change) -> Vec<Key>;

    /// Looks at one object and writes what follows.
    ///
    /// # Errors
    /// What the store refused; it is looked at again after a while.
    fn settle(&mut self, store: &Store, key: &Key, now: Timestamp) -> Result<Again, Error>;
}

async fn play(store: Store, shutdown: CancellationToken) {
    let mut stage = Stage::new(store);
    let mut changes = stage.look();
    let mut forget = Instant::now() + FORGET_EVERY;
    loop {
        let next = stage.settle().min(forget);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            seen = changes.next() => match seen {
                Ok(seen) => seen.iter().for_each(|change| stage.take(change)),
                Err(expired) => {
                    tracing::debug!(%expired, "everything is looked at again");
                    changes = stage.look();
                }
            },
            () = sleep_until(next) => {}
        }
        if Instant::now() >= forget {
            notes::forget_old(&stage.store, store::now());
            forget = Instant::now() + FORGET_EVERY;
        }
    }
}

/// The players and what they have to look at.
#[derive(Debug)]
struct Stage {
    store: Store,
    players: Vec<Box<dyn Player>>,
    /// By the player's place.
    due: BTreeSet<(usize, Key)>,
    later: BTreeMap<(usize, Key), Instant>,
}

impl Stage {
    fn new(store: Store) -> Self {
        let players: Vec<Box<dyn Player>> = vec![
            Box::new(Deployments),
            Box::new(ReplicaSets),
            Box::new(Jobs),
            Box::new(Slices),
            Box::new(Garbage::default()),
            Box::new(Namespaces),
        ];
        Self {
            store,
            players,
            due: BTreeSet::new(),
            later: BTreeMap::new(),
        }
    }

    /// Looks at everything; the changes from then on are returned.
    fn look(&mut self) -> Subscription {
        let changes = self.store.subscribe(self.store.version());
        for (place, player) in self.players.iter_mut().enumerate() {
            self.due
                .extend(player.all(&self.store).into_iter().map(|key| (place, key)));
        }
        changes
    }

    fn take(&mut self, change: &Change) {
        for (place, player) in self.players.iter_mut().enumerate() {
            self.due.extend(
                player
                    .concerned(&self.store, change)
                    .into_iter()
                    .map(|key| (place, key)),
            );
        }
    }

    /// Settles what is due; returns when something will be due again.
    fn settle(&mut self) -> Instant {
        let clock = Instant::now();
        let ripe = self
            .later
            .extract_if(.., |_, at| *at <= clock)
            .map(|(task, _)| task);
        self.due.extend(ripe);
        let now = store::now();
        for (place, key) in std::mem::take(&mut self.due) {
            let Some(player) = self.players.get_mut(place) else {
                continue;
            };
            let again = player
                .settle(&self.store, &key, now)
                .unwrap_or_else(|error| {
                    tracing::debug!(?player, ?key, %error, "looked at again in a while");
                    Some(AFTER_ERROR)
                });
            match again {
                Some(again) => self.later.insert((place, key), clock + again),
                None => self.later.remove(&(place, key)),
            };
        }
        self.later
            .values()
            .min()
            .copied()
            .unwrap_or(clock + FORGET_EVERY)
    }
}

/// How often old events are looked for.
const FORGET_EVERY: Duration = Duration::from_secs(60);
/// When a refused write is tried again, if no change asks for it before.
const AFTER_ERROR: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests;
