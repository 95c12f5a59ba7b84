//! What a controller asks of its fleet: it looks at the view of each Split that it is woken for.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use sidestep_control::fleet::Fleet;
use sidestep_control::fleet::state::Wake;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::Shape;
use super::fakes::uid;

/// Splits that a change concerns.
#[derive(Debug, Default)]
pub(crate) struct Woken {
    splits: Mutex<BTreeSet<usize>>,
    news: Notify,
}

impl Woken {
    pub(crate) fn note(&self, wake: &Wake, splits: usize) {
        let mut noted = self.splits.lock().unwrap_or_else(PoisonError::into_inner);
        match wake {
            Wake::Split { name, .. } => {
                let number = name.strip_prefix("app-").map(str::parse::<usize>);
                noted.extend(number.into_iter().flatten());
            }
            Wake::All => noted.extend(0..splits),
        }
        self.news.notify_one();
    }

    fn take(&self) -> BTreeSet<usize> {
        std::mem::take(&mut *self.splits.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A Split, as far as it is asked for.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    generation: i64,
    /// Since when; none once it was verified.
    since: Option<Instant>,
}

pub(crate) struct Asking {
    fleet: Fleet,
    woken: Arc<Woken>,
    wanted: Vec<Wanted>,
}

impl Asking {
    pub(crate) fn new(fleet: Fleet, woken: Arc<Woken>, shape: Shape) -> Self {
        let first = Wanted {
            generation: 1,
            since: None,
        };
        Self {
            fleet,
            woken,
            wanted: vec![first; shape.splits],
        }
    }

    pub(crate) fn splits(&self) -> usize {
        self.wanted.len()
    }

    /// The next generation of a Split is given out now.
    pub(crate) fn expect(&mut self, split: usize) {
        let wanted = &mut self.wanted[split];
        wanted.generation += 1;
        wanted.since = Some(Instant::now());
    }

    /// How many Splits are at a generation that has not been verified.
    pub(crate) fn missing(&self) -> usize {
        let wanted = self.wanted.iter();
        wanted.filter(|wanted| wanted.since.is_some()).count()
    }

    /// Looks until then; how long each generation took to be verified.
    pub(crate) async fn until(&mut self, end: Instant) -> Vec<Duration> {
        let mut took = Vec::new();
        loop {
            tokio::select! {
                () = sleep_until(end) => return took,
                () = self.woken.news.notified() => {}
            }
            for split in self.woken.take() {
                took.extend(self.look(split));
            }
        }
    }

    fn look(&mut self, split: usize) -> Option<Duration> {
        let wanted = &mut self.wanted[split];
        let view = self.fleet.view("default", &uid(split), wanted.generation);
        let since = wanted.since.filter(|_| view.verifies())?;
        wanted.since = None;
        Some(since.elapsed())
    }
}
