//! One thread, one runtime, one pool: where connections are served once they are accepted.

use std::cell::Cell;
use std::future::{Future, pending};
use std::io;
use std::net::TcpStream;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderValue;
use rustls::ServerConfig;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::access;
use crate::config::Config;
use crate::connection::{Arrival, serve};
use crate::error::Error;
use crate::listener::Place;
use crate::live::{self, Seat};
use crate::parcel::Spare;
use crate::ticker::Ticker;
use crate::upstream::Pool;

/// How far the proxy has gone towards its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Serves.
    Serving,
    /// Serves, and asks clients to go elsewhere.
    Draining,
    /// Takes no new connections and finishes what it has.
    Closing,
    /// Ends at once.
    Cut,
}

/// What all tasks of one worker share.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) config: Arc<Config>,
    /// Takes TLS connections.
    pub(crate) tls: Arc<ServerConfig>,
    /// What this process writes into requests that pass, to know them again.
    pub(crate) instance: HeaderValue,
    pub(crate) live: Rc<live::Worker>,
    pub(crate) pool: Pool,
    pub(crate) ticker: Rc<Ticker>,
    pub(crate) tasks: Tasks,
    pub(crate) access: Option<access::Log>,
    pub(crate) spare: Spare,
    stage: Cell<Stage>,
}

/// What is handed to every worker.
#[derive(Debug, Clone)]
pub(crate) struct Common {
    pub(crate) config: Arc<Config>,
    /// Takes TLS connections.
    pub(crate) tls: Arc<ServerConfig>,
    pub(crate) instance: HeaderValue,
    /// Where the clocks of all workers begin.
    pub(crate) epoch: Instant,
    pub(crate) access: Option<access::Log>,
}

/// An accepted connection on its way to a worker.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: TcpStream,
    pub(crate) arrival: Arrival,
    pub(crate) place: Place,
}

/// The tasks of one worker: every one is spawned here, so that all can be waited for. Clones speak of the same tasks.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tasks(TaskTracker);

impl Tasks {
    /// Runs a task on this thread.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        drop(self.0.spawn_local(task));
    }

    /// Returns when no task is left.
    async fn finished(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + 'static,
{
    fn execute(&self, task: F) {
        self.spawn(async move {
            task.await;
        });
    }
}

impl Local {
    /// On the worker's own thread.
    pub(crate) fn new(common: Common, seat: Seat, seed: u64) -> Rc<Self> {
        let Common {
            config,
            tls,
            instance,
            epoch,
            access,
        } = common;
        let (ticker, tasks, live) = (Ticker::new(epoch), Tasks::default(), seat.take(seed));
        let clock = ticker.clock().clone();
        // A copy of the bytes: clones of one value would be counted on memory that all workers share, twice a request.
        let instance = HeaderValue::from_bytes(instance.as_bytes()).unwrap_or(instance);
        let pool = Pool::new(Arc::clone(&config), tasks.clone(), clock, Rc::clone(&live));
        let stage = Cell::new(Stage::Serving);
        Rc::new(Self {
            config,
            tls,
            instance,
            live,
            pool,
            ticker,
            tasks,
            access,
            spare: Spare::default(),
            stage,
        })
    }

    /// How far the proxy has gone towards its end.
    pub(crate) fn stage(&self) -> Stage {
        self.stage.get()
    }

    /// Moves on, and lets every connection know.
    pub(crate) fn enter(&self, stage: Stage) {
        self.stage.set(stage);
        if stage >= Stage::Closing {
            self.pool.close();
        }
        self.ticker.wake_all();
    }

    /// Counts a request that waits for a connection or a response head.
    ///
    /// # Errors
    /// [`Error::Overloaded`] when as many wait as may.
    pub(crate) fn pending(self: &Rc<Self>) -> Result<Pending, Error> {
        let waiting = &self.live.front().pending;
        if waiting.value() >= self.config.limits.pending_per_worker.get() as u64 {
            return Err(Error::Overloaded);
        }
        waiting.add(1);
        Ok(Pending(Rc::clone(self)))
    }

    /// Looks at what has become due.
    pub(crate) fn tick(&self, now: Instant) {
        self.ticker.tick(now);
        self.pool.sweep();
    }
}

/// A request that waits, until dropped.
#[derive(Debug)]
pub(crate) struct Pending(Rc<Local>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.live.front().pending.take(1);
    }
}

/// The runtime of a worker.
///
/// # Errors
/// When the system has no room for another poll set.
pub(crate) fn runtime() -> io::Result<LocalRuntime> {
    Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
}

/// Runs a worker until the proxy has closed and its connections have ended, or their deadline has.
pub(crate) async fn run(
    local: Rc<Local>,
    mut accepted: mpsc::Receiver<Accepted>,
    stage: watch::Receiver<Stage>,
) {
    let work = async {
        while let Some(connection) = accepted.recv().await {
            admit(&local, connection);
        }
        local.enter(Stage::Closing);
        local.tasks.finished().await;
    };
    let deadline = async {
        let mut stage = stage.clone();
        closing(&mut stage).await;
        let cut = stage.wait_for(|stage| *stage == Stage::Cut);
        timeout(local.config.drain.deadline, cut).await.is_ok()
    };
    tokio::select! {
        () = work => debug!("worker has finished"),
        dropped = deadline => if !dropped {
            warn!("connections are cut: the drain's deadline has passed");
        },
        () = keep_time(&local) => {}
        () = keep_tables(&local) => {}
        () = follow(&local, stage.clone()) => {}
    }
}

fn admit(local: &Rc<Local>, connection: Accepted) {
    let Accepted {
        stream,
        arrival,
        place,
    } = connection;
    match tokio::net::TcpStream::from_std(stream) {
        Ok(stream) => local
            .tasks
            .spawn(serve(Rc::clone(local), stream, arrival, place)),
        Err(error) => warn!(%error, "an accepted connection cannot be served"),
    }
}

/// Looks at deadlines at every tick; never returns.
pub(crate) async fn keep_time(local: &Local) {
    let mut ticks = interval(local.config.deadlines.tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        local.tick(ticks.tick().await);
    }
}

/// Takes up every table that is published; never returns.
pub(crate) async fn keep_tables(local: &Local) {
    loop {
        local.live.changed().await;
        local.live.take_up();
        local.pool.sweep();
    }
}

/// Enters `Draining` when the proxy does; never returns. `Closing` is entered once the accept queue is empty.
async fn follow(local: &Local, mut stage: watch::Receiver<Stage>) {
    if stage
        .wait_for(|stage| *stage >= Stage::Draining)
        .await
        .is_ok()
        && local.stage() == Stage::Serving
    {
        local.enter(Stage::Draining);
    }
    pending().await
}

/// Returns when the proxy closes, or is gone.
pub(crate) async fn closing(stage: &mut watch::Receiver<Stage>) {
    if stage
        .wait_for(|stage| *stage >= Stage::Closing)
        .await
        .is_err()
    {
        debug!("the proxy was dropped without a drain");
    }
}
