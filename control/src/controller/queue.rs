//! The keys that are to be looked at: each once, none twice at a time, failed ones again after a growing wait.
//!
//! kube's own scheduler hangs on a reflector store, drops a key whose object is gone (we have to clean up after those) and knows no
//! back-off per key.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

/// First wait after a failure; it doubles with each: 1 ms to 10 s, as Argo's rate limiter (observed: 13 tries in the first 17 s).
const RETRY_MIN: Duration = Duration::from_millis(1);
/// Longest wait after a failure.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// Keys to be looked at. Bounded by the number of objects: a key stands in it once.
pub struct Queue<K> {
    entries: Mutex<HashMap<K, Entry>>,
    changed: Notify,
}

/// Queues apart, so that keys whose looks wait for the answers of others never stand before those whose looks do not.
pub struct Lanes<K> {
    /// Keys whose looks are short.
    pub quick: Queue<K>,
    /// Keys whose looks may take minutes.
    pub slow: Queue<K>,
    /// Keys that are looked at by a controller that does not lead, too.
    pub constant: Queue<K>,
}

/// One of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// [`Lanes::quick`].
    Quick,
    /// [`Lanes::slow`].
    Slow,
    /// [`Lanes::constant`].
    Constant,
}

/// A key that knows its lane.
pub trait Laned {
    /// Where it is queued.
    fn lane(&self) -> Lane;
}

/// What is known of one key.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    /// When to look at it next.
    due: Option<Instant>,
    running: bool,
    /// Failures in a row.
    failures: u32,
}

/// What came of a look at a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to do until something changes.
    Done,
    /// To be looked at again by itself after a time.
    Again(Duration),
    /// To be looked at again after a wait that grows from failure to failure.
    Failed,
    /// It is gone: nothing of it is remembered.
    Gone,
}

impl<K> Default for Queue<K> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl<K> Default for Lanes<K> {
    fn default() -> Self {
        Self {
            quick: Queue::default(),
            slow: Queue::default(),
            constant: Queue::default(),
        }
    }
}

impl<K: Laned + Clone + Eq + Hash> Lanes<K> {
    /// Something about the key has changed: see [`Queue::add`].
    pub fn add(&self, key: K) {
        self.lane(key.lane()).add(key);
    }

    /// One of the queues.
    pub fn lane(&self, lane: Lane) -> &Queue<K> {
        match lane {
            Lane::Quick => &self.quick,
            Lane::Slow => &self.slow,
            Lane::Constant => &self.constant,
        }
    }
}

impl<K: Clone + Eq + Hash> Queue<K> {
    /// Something about the key has changed: it is looked at now, or once more after the look under way.
    pub fn add(&self, key: K) {
        let now = Instant::now();
        self.entries().entry(key).or_default().due = Some(now);
        self.changed.notify_one();
    }

    /// The next key that is due and not looked at already. Every key handed out comes back through [`Queue::finish`].
    ///
    /// Cancel safe: a key is marked as running only when it is returned.
    pub async fn next(&self) -> K {
        loop {
            let changed = self.changed.notified();
            match self.take(Instant::now()) {
                Ok(key) => return key,
                Err(Some(due)) => {
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep_until(due) => {}
                    }
                }
                Err(None) => changed.await,
            }
        }
    }

    /// Takes back a key after the look at it.
    pub fn finish(&self, key: &K, outcome: Outcome) {
        let now = Instant::now();
        let mut entries = self.entries();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        entry.running = false;
        let wait = match outcome {
            Outcome::Done | Outcome::Gone => None,
            Outcome::Again(wait) => Some(wait),
            Outcome::Failed => {
                let wait = RETRY_MIN.saturating_mul(1 << entry.failures.min(16));
                entry.failures += 1;
                Some(wait.min(RETRY_MAX))
            }
        };
        if outcome != Outcome::Failed {
            entry.failures = 0;
        }
        let again = wait.map(|wait| now + wait);
        // A change that came meanwhile is due at once.
        entry.due = [entry.due, again].into_iter().flatten().min();
        if entry.due.is_none() {
            entries.remove(key);
        }
        self.changed.notify_one();
    }

    /// The key that has been due for longest, or when the first will be.
    fn take(&self, now: Instant) -> Result<K, Option<Instant>> {
        let mut entries = self.entries();
        let waiting = entries.iter().filter(|(_, entry)| !entry.running);
        let first = waiting
            .filter_map(|(key, entry)| Some((entry.due?, key)))
            .min_by_key(|(due, _)| *due);
        let Some((due, key)) = first else {
            return Err(None);
        };
        if due > now {
            return Err(Some(due));
        }
        let key = key.clone();
        if let Some(entry) = entries.get_mut(&key) {
            entry.running = true;
            entry.due = None;
        }
        Ok(key)
    }

    fn entries(&self) -> MutexGuard<'_, HashMap<K, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: fmt::Debug> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue")
            .field("entries", &self.entries)
            .finish_non_exhaustive()
    }
}

impl<K: fmt::Debug> fmt::Debug for Lanes<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lanes")
            .field("quick", &self.quick)
            .field("slow", &self.slow)
            .field("constant", &self.constant)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    /// What is due now, without waiting.
    fn due(queue: &Queue<&'static str>) -> Option<&'static str> {
        queue.next().now_or_never()
    }

    async fn advance(ms: u64) {
        tokio::time::advance(Duration::from_millis(ms)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_is_looked_at_once_however_often_it_was_added() {
        let queue = Queue::default();
        queue.add("a");
        queue.add("a");
        assert_eq!(due(&queue), Some("a"));
        assert_eq!(due(&queue), None);
        queue.finish(&"a", Outcome::Done);
        assert_eq!(due(&queue), None);
        assert!(
            queue.entries().is_empty(),
            "nothing is kept of what is done"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_during_the_look_is_looked_at_after_it() {
        let queue = Queue::default();
        queue.add("a");
        assert_eq!(due(&queue), Some("a"));
        queue.add("a");
        assert_eq!(due(&queue), None, "not twice at a time");
        queue.finish(&"a", Outcome::Again(Duration::from_secs(9)));
        assert_eq!(due(&queue), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_comes_back_by_itself_when_it_said_so_or_earlier() {
        let queue = Queue::default();
        queue.add("a");
        due(&queue);
        queue.finish(&"a", Outcome::Again(Duration::from_millis(50)));
        advance(49).await;
        assert_eq!(due(&queue), None);
        advance(1).await;
        assert_eq!(due(&queue), Some("a"));
        queue.finish(&"a", Outcome::Again(Duration::from_secs(50)));
        queue.add("a");
        assert_eq!(due(&queue), Some("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn failures_wait_longer_and_longer_until_one_succeeds() {
        let queue = Queue::default();
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..16 {
            assert_eq!(due(&queue), Some("a"));
            queue.finish(&"a", Outcome::Failed);
            let begin = Instant::now();
            while due(&queue).is_none() {
                advance(1).await;
            }
            waits.push(begin.elapsed().as_millis());
            queue.add("a");
            queue.entries().get_mut("a").unwrap().running = false;
        }
        assert_eq!(waits[..4], [1, 2, 4, 8]);
        assert_eq!(waits[15], 10_000);
        due(&queue);
        queue.finish(&"a", Outcome::Done);
        assert!(queue.entries().is_empty());
    }

    impl Laned for &'static str {
        fn lane(&self) -> Lane {
            match self.starts_with("run") {
                true => Lane::Slow,
                false => Lane::Quick,
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn quick_keys_never_wait_behind_slow_ones() {
        let lanes = Lanes::default();
        for key in ["run-1", "run-2", "run-3"] {
            lanes.add(key);
            advance(1).await;
        }
        assert_eq!(
            due(&lanes.quick),
            None,
            "slow keys have workers of their own"
        );
        assert_eq!(due(&lanes.slow), Some("run-1")); // and all of those are busy now
        advance(60_000).await;
        lanes.add("rollout");
        assert_eq!(due(&lanes.quick), Some("rollout"));
        lanes.slow.finish(&"run-1", Outcome::Done);
        assert_eq!(due(&lanes.slow), Some("run-2"));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_waited_longest_comes_first() {
        let queue = Queue::default();
        for key in ["a", "b", "c"] {
            queue.add(key);
            advance(1).await;
        }
        assert_eq!(
            [due(&queue), due(&queue), due(&queue)],
            [Some("a"), Some("b"), Some("c")]
        );
    }
}
