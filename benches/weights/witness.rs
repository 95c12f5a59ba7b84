//! Hears proxies as the controller does, by streams of its own, and remembers when each generation was served by all.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use sidestep_control::fleet::report::Line;
use sidestep_control::fleet::{pace, stream, verify};
use tokio::task::JoinSet;

use super::Times;

/// Listens to proxies for as long as it lives.
pub(crate) struct Witness {
    heard: Vec<Arc<Mutex<Times>>>,
    _streams: JoinSet<()>,
}

impl Witness {
    pub(crate) fn listen(admins: &[SocketAddr], split: &'static str) -> Self {
        let heard: Vec<Arc<Mutex<Times>>> = admins.iter().map(|_| Arc::default()).collect();
        let mut streams = JoinSet::new();
        for (&admin, heard) in admins.iter().zip(heard.clone()) {
            streams.spawn(async move {
                let broken =
                    stream::listen(admin, pace::SHORTEST, |line| note(&heard, split, &line)).await;
                panic!("the stream of {admin}: {broken}");
            });
        }
        Self {
            heard,
            _streams: streams,
        }
    }

    /// When the last of them said that it serves a generation, for each that all have said so of.
    pub(crate) fn all(&self) -> Times {
        let mut by_generation: BTreeMap<i64, Vec<Timestamp>> = BTreeMap::new();
        for heard in &self.heard {
            for (generation, at) in heard.lock().unwrap_or_else(PoisonError::into_inner).iter() {
                by_generation.entry(*generation).or_default().push(*at);
            }
        }
        by_generation.retain(|_, at| at.len() == self.heard.len());
        let last = by_generation.into_iter();
        last.filter_map(|(generation, at)| Some((generation, at.into_iter().max()?)))
            .collect()
    }
}

fn note(heard: &Mutex<Times>, split: &str, line: &Line) {
    let Line::Split(report) = line else {
        return;
    };
    if report.name == split && verify::is_as_desired(report) {
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.entry(report.generation).or_insert_with(now);
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: when it was heard")]
fn now() -> Timestamp {
    Timestamp::now()
}
