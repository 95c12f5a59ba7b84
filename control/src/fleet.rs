//! The proxies as the controller sees them: who is there, what each serves, and what each has counted.
//!
//! | file | what |
//! |---|---|
//! | [`report`] | what a proxy says, as it stands on the wire |
//! | [`mod@members`] | who the proxies are |
//! | [`stream`] | one proxy's stream |
//! | [`state`] | what is known of every proxy |
//! | [`verify`] | what their answers amount to |
//! | [`history`] | what they have counted, over time |
//! | [`cells`] | counters in few bytes |
//! | [`pace`] | how often they are to tell what they count |
//!
//! The fleet remembers nothing that matters: a controller that starts anew hears every proxy again within a moment.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::join;
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::runtime::watcher;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::members::{Key, Listed, Place, members};
use self::report::Line;
use self::state::{Standing, State, Wake};
use crate::api::labels;
use crate::api::split::{EffectiveShares, SplitSpec};
use crate::cache::{Cache, Manner, feed};
use crate::measure::counters::{Counters, Told, VersionKey, Window};
use crate::rollout::observed::Fleet as View;
use crate::routing::endpoints::SERVICE_NAME;
use crate::wire::Collection;

pub mod cells;
pub mod history;
pub mod members;
pub mod pace;
pub mod report;
pub mod state;
pub mod stream;
pub mod verify;

/// First wait before a broken stream is tried again; it doubles each time.
const RETRY_MIN: Duration = Duration::from_millis(100);
/// Longest such wait: a proxy that comes back is heard within this, and a gone one costs a connect per wait.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often those are woken who wait for the word of many proxies, and for whom not all of them have said the same.
const WAKE_EVERY: Duration = Duration::from_millis(100);
/// How often history that no window can reach is dropped.
const PRUNE: Duration = Duration::from_secs(10);

/// Where the proxies are found. Already valid.
#[derive(Clone, Debug)]
pub struct Config {
    /// The namespace of their headless Services.
    pub namespace: String,
    /// The name of the headless Service of the default fleet; Services of others carry the fleet label.
    pub service: String,
}

/// Called with whom a change concerns; it must not block.
pub type Listener = Box<dyn Fn(&Wake) + Send + Sync>;

/// The proxies. Cloning shares them.
#[derive(Clone)]
pub struct Fleet(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// Tells of [`State::is_known`] once it is true.
    known: watch::Sender<bool>,
    /// Tells of every change of which somebody is woken.
    heard: watch::Sender<()>,
    /// How often each proxy is to tell its counters.
    pace: watch::Sender<Duration>,
    listener: Listener,
    /// Somebody is still to be woken.
    waiting: Notify,
}

impl Fleet {
    /// No proxies yet; `listener` hears of every change that a rollout may wait for.
    pub fn new(listener: Listener) -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            known: watch::Sender::new(false),
            heard: watch::Sender::default(),
            pace: watch::Sender::new(pace::SHORTEST),
            listener,
            waiting: Notify::new(),
        }))
    }

    /// What the proxies of a fleet say of the Split with this uid, at this generation or a later one.
    pub fn view(&self, fleet: &str, uid: &str, generation: i64) -> View {
        self.state().view(fleet, uid, generation)
    }

    /// Returns once the proxies of a fleet serve the Split with this uid, at this generation or a later one, with effective shares as
    /// desired. Cancel safe.
    pub async fn verifies(&self, fleet: &str, uid: &str, generation: i64) {
        let mut heard = self.0.heard.subscribe();
        let verified = heard.wait_for(|()| self.view(fleet, uid, generation).verifies());
        // The sender lives as long as `self`.
        if verified.await.is_err() {
            warn!("a fleet went away while it was waited for");
        }
    }

    /// What the proxies of a fleet serve of a Split's weighted rules: of several proxies, the one farthest from the weights.
    pub fn effective(&self, fleet: &str, uid: &str, spec: &SplitSpec) -> Vec<EffectiveShares> {
        self.state().effective(fleet, uid, spec)
    }

    /// Which proxies, of whatever fleet, serve a Split of that name.
    pub fn serving(&self, namespace: &str, name: &str) -> Vec<String> {
        self.state().serving(namespace, name)
    }

    /// The proxies of a fleet, and how each stands to the port that is to answer for the Split with that uid; none before they are
    /// listed.
    pub fn standings(&self, fleet: &str, uid: &str, port: u16) -> Option<Vec<(Place, Standing)>> {
        let state = self.state();
        let found = state.standings(fleet, uid, port).into_iter();
        let found = found.map(|(place, standing)| (place.clone(), standing));
        state.is_listed.then(|| found.collect())
    }

    /// Whether the proxy of that address and pod is gone or about to go: nobody new is to be sent there.
    pub fn has_left(&self, address: &IpAddr, pod: Option<&str>) -> bool {
        self.state().has_left(address, pod)
    }

    /// Returns once the proxies are listed and each has said what it serves: whoever asks before would take what is unknown for what
    /// is missing. Cancel safe.
    pub async fn known(&self) {
        let mut known = self.0.known.subscribe();
        // The sender lives as long as `self`.
        if known.wait_for(|known| *known).await.is_err() {
            warn!("a fleet went away while it was waited for");
        }
    }

    /// Finds and hears the proxies until `cancel`. All tasks it starts have ended when it returns.
    pub async fn run(&self, client: Client, config: Config, cancel: CancellationToken) {
        let changed = Arc::new(Notify::new());
        let service = format!("{SERVICE_NAME}={}", config.service);
        let [of_service, of_label] = [&service, labels::FLEET].map(|which| {
            let notify = Arc::clone(&changed);
            let slices = Cache::new(
                Manner::typed(),
                vec![Box::new(move |_| notify.notify_one())],
            );
            let api = Collection::within(&client, &config.namespace);
            let which = watcher::Config::default().labels(which);
            (slices.clone(), feed(slices, api, which))
        });
        let (slices, feeds) = ([of_service.0, of_label.0], join(of_service.1, of_label.1));
        let mut feeding = pin!(feeds);
        let follow = |streams: &mut Streams| {
            let listed = slices.iter().flat_map(Cache::all).collect::<Vec<_>>();
            self.follow(members(&listed, &config.service), streams);
        };
        let mut waking = pin!(self.wake_those_who_wait());
        let mut streams = Streams::default();
        let mut prune = tokio::time::interval(PRUNE);
        let mut listed = false;
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = join(slices[0].ready(), slices[1].ready()), if !listed => {
                    listed = true; // also that nobody is there
                    follow(&mut streams);
                }
                _ = &mut feeding => {}
                () = &mut waking => {}
                () = changed.notified() => follow(&mut streams),
                _ = prune.tick() => {
                    self.state().prune(now());
                    self.set_pace();
                }
                Some(ended) = streams.tasks.join_next() => {
                    if let Err(error) = ended {
                        warn!(%error, "a proxy's stream died");
                    }
                }
            }
        }
        streams.end().await;
    }

    /// Starts a stream to whoever has come, and ends the streams of those who have left.
    fn follow(&self, listed: BTreeMap<Key, Listed>, streams: &mut Streams) {
        let is_news = self.state().is_news(&listed);
        let (came, left) = self.state().list(listed, now());
        self.set_pace();
        for key in left {
            info!(proxy = %key.address, "proxy left the fleet");
            streams.stop(&key);
        }
        for key in came {
            info!(proxy = %key.address, "proxy joined the fleet");
            streams.start(self.clone(), key);
        }
        self.note_if_known();
        if is_news {
            self.tell(&Wake::All);
        }
    }

    /// Hears one proxy, again and again.
    async fn hear(self, key: Key) {
        let mut wait = RETRY_MIN;
        let mut wanted = self.0.pace.subscribe();
        loop {
            let every = *wanted.borrow_and_update();
            let listening = stream::listen(key.address, every, |line| {
                if matches!(line, Line::Hello(_)) {
                    wait = RETRY_MIN;
                }
                self.take_up(&key, line);
            });
            let error = tokio::select! {
                error = listening => error,
                // It is not lost: its word stands until it has said everything anew.
                () = pace::is_wrong(every, &mut wanted) => continue,
            };
            let lost = self.state().lose(&key, now());
            if lost.is_some() {
                warn!(proxy = %key.address, error = &error as &dyn std::error::Error, "stream broke");
            }
            self.wake(lost);
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
    }

    fn take_up(&self, key: &Key, line: Line) {
        let may_be_all = matches!(line, Line::Ping(_));
        let wake = self.hear_line(key, line);
        if may_be_all {
            self.note_if_known();
            self.set_pace();
        }
        self.wake(wake);
    }

    fn hear_line(&self, key: &Key, line: Line) -> Option<Wake> {
        let mut state = self.state();
        let wake = state.hear(key, line, now());
        if state.has_waiting() {
            self.0.waiting.notify_one();
        }
        wake
    }

    /// Wakes those who are not woken at once. Never returns.
    async fn wake_those_who_wait(&self) {
        loop {
            self.0.waiting.notified().await;
            tokio::time::sleep(WAKE_EVERY).await;
            let waiting = self.state().waiting();
            waiting.iter().for_each(|wake| self.tell(wake));
        }
    }

    /// The pace that the size of the fleet allows.
    fn set_pace(&self) {
        let (proxies, splits) = self.state().size();
        let every = pace::every(proxies, splits);
        self.0
            .pace
            .send_if_modified(|pace| std::mem::replace(pace, every) != every);
    }

    fn note_if_known(&self) {
        if !*self.0.known.borrow() && self.state().is_known() {
            self.0.known.send_replace(true);
        }
    }

    fn wake(&self, wake: Option<Wake>) {
        if let Some(wake) = wake {
            self.tell(&wake);
        }
    }

    fn tell(&self, wake: &Wake) {
        self.0.heard.send_replace(());
        (self.0.listener)(wake);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters for Fleet {
    fn told(&self, version: &VersionKey, now: Timestamp) -> Option<Told> {
        self.state().history.told_until(&version.uid, now)
    }

    fn window(&self, version: &VersionKey, from: Timestamp, now: Timestamp) -> Option<Window> {
        self.state().history.window(version, from, now)
    }

    fn reach(&self) -> SignedDuration {
        history::REACH
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fleet").field(&*self.state()).finish()
    }
}

/// One task per proxy.
#[derive(Default)]
struct Streams {
    tasks: JoinSet<()>,
    stops: HashMap<Key, CancellationToken>,
}

impl Streams {
    fn start(&mut self, fleet: Fleet, key: Key) {
        let stop = CancellationToken::new();
        self.stops.insert(key.clone(), stop.clone());
        self.tasks.spawn(async move {
            stop.run_until_cancelled(fleet.hear(key)).await;
        });
    }

    fn stop(&mut self, key: &Key) {
        if let Some(stop) = self.stops.remove(key) {
            stop.cancel();
        }
    }

    async fn end(mut self) {
        self.stops.values().for_each(CancellationToken::cancel);
        while self.tasks.join_next().await.is_some() {}
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the edge: when a proxy was heard"
)]
fn now() -> Timestamp {
    Timestamp::now()
}

#[cfg(test)]
mod tests;
