//! Sockets that clients connect to: bind, listen, accept, hand over to the worker with the fewest connections, close in order.
//!
//! One acceptor serves all listeners and workers. Long HTTP/2 connections hash unevenly onto `SO_REUSEPORT` sockets (8 on 8
//! workers: the busiest has 2.6 times the mean), and closing one of several such sockets resets what waits in its queue; one
//! acceptor has neither trouble and costs a thread switch per connection, not per request.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tracing::{debug, warn};

use crate::connection::{Arrival, Entrance};
use crate::worker::{Accepted, Stage, closing};

/// Takes an address. Nobody listens there yet: the system refuses connections.
///
/// # Errors
/// Those of the system; that somebody else listens at the address first among them.
pub(crate) fn bind(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Listens at the address that a socket has.
///
/// # Errors
/// Those of the system. Two may take one address (`SO_REUSEADDR`) as long as neither listens there: the second to listen fails.
pub(crate) fn listen(socket: Socket) -> io::Result<TcpListener> {
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A worker as the acceptor sees it.
#[derive(Debug)]
pub(crate) struct Receiver {
    sender: mpsc::Sender<Accepted>,
    connections: Arc<AtomicUsize>,
}

impl Receiver {
    /// A worker's end of the hand-over, and ours.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Accepted>) {
        let (sender, accepted) = mpsc::channel(HAND_OVER);
        let connections = Arc::default();
        (
            Self {
                sender,
                connections,
            },
            accepted,
        )
    }
}

/// A connection's place among those that are allowed; free again when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    connections: Arc<AtomicUsize>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Accepts from when it is given listeners until the proxy closes: then empties every queue, closes all listeners and lets the workers
/// know by hanging up. More connections than `limit` wait in the queues. Beside each listener stands what it is there for.
pub(crate) async fn accept(
    listeners: oneshot::Receiver<Vec<(TcpListener, Entrance)>>,
    receivers: Vec<Receiver>,
    limit: usize,
    mut stage: watch::Receiver<Stage>,
) -> io::Result<()> {
    let listeners = tokio::select! {
        biased;
        listeners = listeners => listeners.unwrap_or_default(), // none: the proxy was dropped
        () = closing(&mut stage) => Vec::new(),
    };
    let permits = Arc::new(Semaphore::new(limit.min(Semaphore::MAX_PERMITS)));
    let desk = Arc::new(Desk { permits, receivers });
    let mut loops = JoinSet::new();
    for (listener, at) in listeners {
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let (desk, stage) = (Arc::clone(&desk), stage.clone());
        loops.spawn(async move { (desk.keep(listener, at, stage).await, at) });
    }
    for (listener, at) in loops.join_all().await {
        desk.close(listener?, at).await;
    }
    Ok(())
}

/// Where connections are given a place and a worker.
struct Desk {
    permits: Arc<Semaphore>,
    receivers: Vec<Receiver>,
}

impl Desk {
    async fn keep(
        self: Arc<Self>,
        listener: tokio::net::TcpListener,
        at: Entrance,
        mut stage: watch::Receiver<Stage>,
    ) -> io::Result<TcpListener> {
        loop {
            // Handing over stands outside: what was accepted is not dropped because all close.
            let accepted = tokio::select! {
                biased;
                () = closing(&mut stage) => break,
                accepted = self.accept_one(&listener) => accepted,
            };
            match accepted {
                Ok((stream, address, permit)) => {
                    self.hand_over(stream, Arrival { address, at }, permit)
                        .await;
                }
                Err(error) => pause_after(&error).await,
            }
        }
        listener.into_std()
    }

    /// Accepts one connection once there is room. Cancel safe.
    async fn accept_one(
        &self,
        listener: &tokio::net::TcpListener,
    ) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
        let permit = Arc::clone(&self.permits).acquire_owned().await;
        let permit = permit.expect("the semaphore is never closed");
        let (stream, address) = listener.accept().await?;
        Ok((stream.into_std()?, address, permit))
    }

    /// Takes what has connected before the end, as far as there is room, and closes: nothing stands between the look that found the
    /// queue empty and the close, which resets what has connected meanwhile. Asks the system itself: the runtime may not have
    /// heard yet of what is in the queue.
    async fn close(&self, listener: TcpListener, at: Entrance) {
        while let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            match listener.accept() {
                Ok((stream, address)) => {
                    self.hand_over(stream, Arrival { address, at }, permit)
                        .await
                }
                Err(error) if is_of_one_connection(&error) => {}
                Err(_) => break,
            }
        }
        drop(listener);
    }

    async fn hand_over(&self, stream: TcpStream, arrival: Arrival, permit: OwnedSemaphorePermit) {
        let prepared = stream
            .set_nonblocking(true)
            .and_then(|()| stream.set_nodelay(true));
        if let Err(error) = prepared {
            return debug!(%error, "a connection ended before it began");
        }
        let load = |receiver: &&Receiver| receiver.connections.load(Ordering::Relaxed);
        let Some(receiver) = self.receivers.iter().min_by_key(load) else {
            return;
        };
        receiver.connections.fetch_add(1, Ordering::Relaxed);
        let place = Place {
            _permit: permit,
            connections: Arc::clone(&receiver.connections),
        };
        if receiver
            .sender
            .send(Accepted {
                stream,
                arrival,
                place,
            })
            .await
            .is_err()
        {
            warn!("a worker is gone"); // its own alarm has said why
        }
    }
}

/// Errors of `accept` that say nothing about the next one.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::ConnectionAborted | Kind::ConnectionReset | Kind::Interrupted
    )
}

/// Out of file descriptors or memory: waiting is all there is to do, and clients wait in the queue.
async fn pause_after(error: &io::Error) {
    if is_of_one_connection(error) {
        return;
    }
    warn!(%error, "cannot accept connections");
    sleep(PAUSE).await;
}

/// Connections the system keeps waiting for us; it caps the number at `net.core.somaxconn` (4,096 by default).
const BACKLOG: i32 = 4096;

/// Accepted connections on their way to one worker: as many as it takes up in one round; when full, accepting waits.
const HAND_OVER: usize = 64;

/// Long enough not to spin, short enough not to be noticed beside what caused it.
const PAUSE: Duration = Duration::from_millis(100);
