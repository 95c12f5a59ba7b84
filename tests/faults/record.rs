//! What was written in the course of a rollout, as the API server tells whoever watches.

use futures::StreamExt as _;
use kube::Api;
use kube::runtime::{WatchStreamExt as _, watcher};
use sidestep_control::api::{Rollout, Split};
use tokio::sync::watch;
use tokio::time::{interval, timeout};

use super::callers::RETRY;
use super::stage::NAME;
use crate::support::cluster::World;
use crate::support::session::DEADLINE;

/// What was seen so far. One that watches an API server that is gone may miss what it wrote last.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    /// The canary's weights, one for each generation that was seen of the Split.
    splits: Vec<(i64, u32)>,
    /// The steps that each revision was at.
    steps: Vec<(String, i32)>,
}

impl History {
    fn split(&mut self, split: &Split) {
        let generation = split.metadata.generation.unwrap();
        if self
            .splits
            .last()
            .is_none_or(|(last, _)| *last < generation)
        {
            self.splits.push((generation, canary_weight(split)));
        }
    }

    fn rollout(&mut self, rollout: &Rollout) {
        let Some(status) = &rollout.status else {
            return;
        };
        let hash = status.current_pod_hash.clone();
        if let (Some(hash), Some(step)) = (hash, status.current_step_index) {
            self.steps.push((hash, step));
        }
    }

    /// The canary's weights from a generation on, in order.
    pub(super) fn weights_since(&self, generation: i64) -> Vec<u32> {
        let since = self.splits.iter().filter(|(of, _)| *of > generation);
        since.map(|(_, weight)| *weight).collect()
    }

    /// The steps of a revision, in order.
    pub(super) fn steps_of(&self, hash: &str) -> Vec<i32> {
        let of_hash = self.steps.iter().filter(|(of, _)| of == hash);
        of_hash.map(|(_, step)| *step).collect()
    }
}

/// The share of a Split's canary, of 100.
fn canary_weight(split: &Split) -> u32 {
    let mut rules = split.spec.rules.iter();
    let rule = rules.find(|rule| rule.services.iter().any(|service| service == NAME));
    let weights = rule.map(|rule| &rule.weights);
    weights
        .and_then(|weights| weights.get("canary"))
        .copied()
        .unwrap_or(0)
}

/// Keeps a history, for as long as the test runs.
pub(super) struct Record(watch::Receiver<History>);

impl Record {
    pub(super) fn keep(world: &World) -> Self {
        let (book, reader) = watch::channel(History::default());
        let (splits, rollouts): (Api<Split>, Api<Rollout>) = (world.api(), world.api());
        tokio::spawn(async move {
            let default = watcher::Config::default;
            let splits = watcher(splits, default()).touched_objects();
            let rollouts = watcher(rollouts, default()).touched_objects();
            let mut splits = splits.boxed();
            let mut rollouts = rollouts.boxed();
            let mut retry = interval(RETRY);
            loop {
                let took_up = tokio::select! {
                    Some(split) = splits.next() => {
                        split.map(|split| book.send_modify(|history| history.split(&split)))
                    }
                    Some(rollout) = rollouts.next() => {
                        rollout.map(|rollout| book.send_modify(|history| history.rollout(&rollout)))
                    }
                };
                if took_up.is_err() {
                    retry.tick().await;
                }
            }
        });
        Self(reader)
    }

    pub(super) fn so_far(&self) -> History {
        self.0.borrow().clone()
    }

    /// Waits until the canary's weight has come to `weight` since a generation.
    pub(super) async fn until_weight(&mut self, generation: i64, weight: u32) {
        let there = |history: &History| {
            history
                .weights_since(generation)
                .iter()
                .any(|w| *w >= weight)
        };
        let found = timeout(DEADLINE, self.0.wait_for(there)).await;
        drop(
            found
                .expect("the weight comes in time")
                .expect("the record is kept"),
        );
    }
}
