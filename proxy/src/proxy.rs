//! The proxy as its owner sees it: start, publish, listen, watch, drain.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};

use http::HeaderValue;
use prometheus::Registry;
use rand::random;
use socket2::Socket;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use tracing::info;

use crate::access;
use crate::config::{Apexes, Config};
use crate::connection::Entrance;
use crate::listener::{self, Receiver};
use crate::live::{self, Seat, TableHandle};
use crate::metrics;
use crate::report::Report;
use crate::tls::Certificates;
use crate::worker::{self, Accepted, Common, Local, Stage};

/// Why a proxy cannot start, or has failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// An address cannot be listened at, most often because another process does.
    #[error("listening at {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// No address to listen at was given.
    #[error("no address to listen at")]
    NoAddress,
    /// The access log cannot be opened.
    #[error("opening the access log")]
    AccessLog(#[source] Arc<io::Error>),
    /// A thread cannot be started.
    #[error("starting {thread}")]
    Thread {
        /// Its name.
        thread: String,
        /// What the system says.
        source: Arc<io::Error>,
    },
    /// A thread has ended that should not have: the proxy no longer serves as it should and has to be restarted.
    #[error("{thread} has died")]
    Died {
        /// Its name.
        thread: String,
    },
}

/// A running proxy. Dropping it without [`Proxy::drain`] closes everything at once.
#[derive(Debug)]
pub struct Proxy {
    handle: TableHandle,
    registry: Registry,
    instance: String,
    addresses: Vec<SocketAddr>,
    door: Mutex<Option<Door>>,
    listening: watch::Sender<bool>,
    certificates: Certificates,
    config: Arc<Config>,
    stage: watch::Sender<Stage>,
    drain_began: OnceLock<Instant>,
    failure: watch::Receiver<Option<Error>>,
    access_dropped: Option<Arc<AtomicU64>>,
    threads: Mutex<Threads>,
}

#[derive(Debug, Default)]
struct Threads {
    running: Vec<JoinHandle<()>>,
    access: Option<access::Writer>,
}

/// What is bound and not yet listened at.
#[derive(Debug)]
struct Door {
    sockets: Vec<Bound>,
    /// To whom the listeners are given.
    acceptor: oneshot::Sender<Vec<Listener>>,
}

impl Proxy {
    /// Binds every address and starts the workers. Returns once all threads run; connections are refused until [`Proxy::listen`].
    ///
    /// # Errors
    /// When an address is in use or may not be bound, the access log cannot be opened, or a thread cannot be started.
    pub fn start(config: Config) -> Result<Self, Error> {
        let config = Arc::new(config);
        let (sockets, addresses) = bind_all(&config)?;
        let epoch = Instant::now();
        let opened = access::open(&config.access_log, epoch)
            .map_err(|error| Error::AccessLog(Arc::new(error)))?;
        let (access, writer) = opened.unzip();
        let access_dropped = writer.as_ref().map(access::Writer::dropped);
        let (handle, seats) = live::open(config.workers, config.pick, epoch);
        let registry = Registry::new();
        metrics::register(&registry, handle.clone()).expect("a new registry has no names yet");
        let instance = format!("{:016x}", random::<u64>());
        let certificates = Certificates::default();
        let common = Common {
            config: Arc::clone(&config),
            tls: certificates.server(),
            instance: HeaderValue::from_str(&instance).expect("hexadecimal digits"),
            epoch,
            access,
        };
        let (stage, _) = watch::channel(Stage::Serving);
        let (alarm, failure) = watch::channel(None);
        let starter = Starter {
            stage: stage.subscribe(),
            alarm,
        };
        let (acceptor, listeners) = oneshot::channel();
        let running = starter.start_all(&common, seats, listeners)?;
        let threads = Mutex::new(Threads {
            running,
            access: writer,
        });
        Ok(Self {
            handle,
            registry,
            instance,
            addresses,
            door: Mutex::new(Some(Door { sockets, acceptor })),
            listening: watch::Sender::new(false),
            certificates,
            config,
            stage,
            drain_began: OnceLock::new(),
            failure,
            access_dropped,
            threads,
        })
    }

    /// Takes connections from the moment on in which every worker serves a table; until then the system refuses them, so that clients
    /// go elsewhere. Returns when it listens at every address. Cancel safe.
    ///
    /// # Errors
    /// When somebody else listens at an address by now: two may take one that neither listens at.
    pub async fn listen(&self) -> Result<(), Error> {
        self.first_table().await;
        let door = self
            .door
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Door { sockets, acceptor }) = door else {
            return Ok(());
        };
        let listeners = sockets.into_iter().map(Bound::listen);
        let listeners = listeners.collect::<Result<_, _>>()?;
        if acceptor.send(listeners).is_ok() {
            info!(addresses = ?self.addresses, workers = self.config.workers, "proxy listens");
            self.listening.send_replace(true);
        }
        Ok(())
    }

    /// Whether it listens, from [`Proxy::listen`] on.
    #[must_use]
    pub fn listening(&self) -> watch::Receiver<bool> {
        self.listening.subscribe()
    }

    /// Returns when every worker serves a table.
    async fn first_table(&self) {
        let mut changes = self.handle.changes();
        while !self.handle.is_served() {
            if changes.changed().await.is_err() {
                std::future::pending().await // cannot be: the handle holds the sender
            }
        }
    }

    /// Publishes tables.
    #[must_use]
    pub fn handle(&self) -> TableHandle {
        self.handle.clone()
    }

    /// Publishes certificates; before that no TLS connection is taken.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        self.certificates.clone()
    }

    /// What every worker serves and what was counted. [`TableHandle::changes`] tells when the table's part changes.
    #[must_use]
    pub fn report(&self) -> Report {
        self.handle.report(Instant::now())
    }

    /// Every metric of the data plane.
    #[must_use]
    pub fn metrics(&self) -> &Registry {
        &self.registry
    }

    /// The first address to listen at, with the port the system chose where the configuration said 0.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Every address to listen at but for apexes, in the configuration's order, those for TLS last.
    #[must_use]
    pub fn local_addrs(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// A random name of this process; the mark by which requests that come round are known.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Whether [`Proxy::drain`] has been called: the proxy is not ready from then on.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.stage.borrow() != Stage::Serving
    }

    /// Returns once [`Proxy::drain`] has been called.
    pub async fn draining(&self) {
        let mut stage = self.stage.subscribe();
        if stage
            .wait_for(|stage| *stage != Stage::Serving)
            .await
            .is_err()
        {
            std::future::pending().await // cannot be: `self` holds the sender
        }
    }

    /// Access log lines that were dropped because the writer was behind.
    #[must_use]
    pub fn access_log_dropped(&self) -> u64 {
        let dropped = self.access_dropped.as_ref();
        dropped.map_or(0, |dropped| dropped.load(Ordering::Relaxed))
    }

    /// Returns when a thread of the proxy has died. Whoever runs the proxy should end the process with the error.
    pub async fn failed(&self) -> Error {
        let mut failure = self.failure.clone();
        match failure
            .wait_for(Option::is_some)
            .await
            .map(|failure| failure.clone())
        {
            Ok(Some(error)) => error,
            Ok(None) | Err(_) => std::future::pending().await, // all threads have ended in order
        }
    }

    /// Ends the proxy: asks clients to go elsewhere while still accepting for the grace time (none if it never listened), then closes the
    /// listeners, finishes what is in flight and cuts what is left at the deadline. Returns when all threads have ended.
    ///
    /// Cancel safe: called again, it goes on where it was.
    pub async fn drain(&self) {
        let began = *self.drain_began.get_or_init(Instant::now);
        if self.enter(Stage::Draining) {
            info!(grace = ?self.config.drain.grace, "proxy drains");
        }
        if *self.listening.borrow() {
            sleep_until(began + self.config.drain.grace).await;
        }
        self.enter(Stage::Closing);
        let mut failure = self.failure.clone();
        // Every thread holds a sender: the channel closes when the last has ended.
        while failure.changed().await.is_ok() {}
        self.join();
        info!("proxy has drained");
    }

    /// Moves on to `stage`, never back; true when that changed anything.
    fn enter(&self, stage: Stage) -> bool {
        self.stage.send_if_modified(|now| {
            let later = *now < stage;
            *now = (*now).max(stage);
            later
        })
    }

    /// Collects threads that have ended, or are about to.
    fn join(&self) {
        let threads =
            std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        for thread in threads.running {
            drop(thread.join()); // a panic has raised the alarm already
        }
        if let Some(writer) = threads.access {
            writer.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.enter(Stage::Cut);
        self.join();
    }
}

/// A listener, and what it is there for.
type Listener = (std::net::TcpListener, Entrance);

/// An address that is taken, and what it is there for.
#[derive(Debug)]
struct Bound {
    socket: Socket,
    address: SocketAddr,
    at: Entrance,
}

impl Bound {
    fn listen(self) -> Result<Listener, Error> {
        let Self {
            socket,
            address,
            at,
        } = self;
        let listener = listener::listen(socket).map_err(|source| not_listening(address, source))?;
        Ok((listener, at))
    }
}

/// Takes every address; returns those that are no apexes beside the sockets, plain ones first.
fn bind_all(config: &Config) -> Result<(Vec<Bound>, Vec<SocketAddr>), Error> {
    if config.listen.is_empty() {
        return Err(Error::NoAddress);
    }
    let (mut sockets, mut addresses) = (Vec::new(), Vec::new());
    let at = |at| move |address: &SocketAddr| (*address, at);
    let plain = config.listen.iter().map(at(Entrance::Http));
    for (address, at) in plain.chain(config.listen_tls.iter().map(at(Entrance::Https))) {
        let bound = bind(address, at)?;
        addresses.push(bound.address);
        sockets.push(bound);
    }
    for address in config.apexes.iter().flat_map(Apexes::listen) {
        sockets.push(bind(address, Entrance::Apex(address.port()))?);
    }
    Ok((sockets, addresses))
}

/// Takes an address; the system chooses the port where it is 0.
fn bind(address: SocketAddr, at: Entrance) -> Result<Bound, Error> {
    let bound = listener::bind(address).and_then(|socket| {
        let local = socket.local_addr()?.as_socket();
        let address = local.ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Bound {
            socket,
            address,
            at,
        })
    });
    bound.map_err(|source| not_listening(address, source))
}

fn not_listening(address: SocketAddr, source: io::Error) -> Error {
    Error::Listen {
        address,
        source: Arc::new(source),
    }
}

/// Starts threads that raise an alarm when they die.
struct Starter {
    stage: watch::Receiver<Stage>,
    alarm: watch::Sender<Option<Error>>,
}

impl Starter {
    fn start_all(
        self,
        common: &Common,
        seats: Vec<Seat>,
        listeners: oneshot::Receiver<Vec<Listener>>,
    ) -> Result<Vec<JoinHandle<()>>, Error> {
        let mut receivers = Vec::with_capacity(seats.len());
        let mut threads = Vec::with_capacity(seats.len() + 1);
        for (index, seat) in seats.into_iter().enumerate() {
            let (receiver, accepted) = Receiver::new();
            receivers.push(receiver);
            threads.push(self.start_worker(index, common.clone(), seat, accepted)?);
        }
        let limit = common
            .config
            .limits
            .connections_per_worker
            .get()
            .saturating_mul(receivers.len());
        let stage = self.stage.clone();
        threads.push(self.start("proxy-accept", move |runtime, alarm| {
            match runtime.block_on(listener::accept(listeners, receivers, limit, stage)) {
                Ok(()) => alarm.disarm(),
                Err(error) => tracing::error!(%error, "cannot accept connections"),
            }
        })?);
        Ok(threads)
    }

    fn start_worker(
        &self,
        index: usize,
        common: Common,
        seat: Seat,
        accepted: mpsc::Receiver<Accepted>,
    ) -> Result<JoinHandle<()>, Error> {
        let stage = self.stage.clone();
        let seed = random();
        self.start(&format!("proxy-{index}"), move |runtime, alarm| {
            let local = Local::new(common, seat, seed);
            runtime.block_on(worker::run(local, accepted, stage));
            alarm.disarm();
        })
    }

    /// Starts a thread with a runtime of its own; returns once it has one.
    fn start(
        &self,
        name: &str,
        body: impl FnOnce(tokio::runtime::LocalRuntime, Alarm) + Send + 'static,
    ) -> Result<JoinHandle<()>, Error> {
        let failed = |source: io::Error| Error::Thread {
            thread: name.to_owned(),
            source: Arc::new(source),
        };
        let (up, is_up) = std::sync::mpsc::sync_channel(1);
        let alarm = Alarm {
            thread: name.to_owned(),
            sender: self.alarm.clone(),
            armed: true,
        };
        let run = move || match worker::runtime() {
            Ok(runtime) => {
                let mut alarm = alarm;
                alarm.armed = up.send(Ok(())).is_ok();
                body(runtime, alarm);
            }
            Err(error) => {
                alarm.disarm();
                drop(up.send(Err(error)));
            }
        };
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(run)
            .map_err(failed)?;
        match is_up.recv() {
            Ok(Ok(())) => Ok(thread),
            Ok(Err(error)) => Err(failed(error)),
            Err(_) => Err(Error::Died {
                thread: name.to_owned(),
            }),
        }
    }
}

/// Says that a thread has died unless it was disarmed.
struct Alarm {
    thread: String,
    sender: watch::Sender<Option<Error>>,
    armed: bool,
}

impl Alarm {
    fn disarm(mut self) {
        self.armed = false;
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if self.armed {
            let error = Error::Died {
                thread: std::mem::take(&mut self.thread),
            };
            tracing::error!(%error, "the proxy has failed");
            self.sender.send_replace(Some(error));
        }
    }
}

#[cfg(test)]
mod tests;
