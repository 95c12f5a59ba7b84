//! Connections to endpoints: one pool per worker, the only outgoing sockets.
//!
//! HTTP/1 connections wait in a stack per endpoint, the last used on top; HTTP/2 connections carry several requests each.
//! Taking one out never waits: what is not ready at once is dropped. Which endpoint, and whether a failure may be repeated, is
//! decided elsewhere.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::error::Error as _;
use std::rc::Rc;
use std::sync::Arc;

use futures::future::Either;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tracing::debug;

use crate::body::{RequestBody, RequestBodyError};
use crate::config::{Config, millis};
use crate::error::Error;
use crate::live::{self, EndpointState};
use crate::table::Protocol;
use crate::ticker::CoarseClock;
use crate::worker::Tasks;

/// The connections of one worker, by endpoint.
#[derive(Debug)]
pub(crate) struct Pool {
    /// In the order of the endpoints' ids: found by halving, which costs less than a hash.
    lines: RefCell<Vec<Rc<Line>>>,
    shared: Rc<Shared>,
}

/// What the lines of a pool have in common.
#[derive(Debug)]
struct Shared {
    config: Arc<Config>,
    tasks: Tasks,
    clock: CoarseClock,
    live: Rc<live::Worker>,
    /// Idle HTTP/1 connections this worker may keep: its part of what the process may, so that no request counts on shared memory.
    idle_max: u64,
    closing: Cell<bool>,
}

impl Shared {
    /// Drives a connection to its end, counted as open meanwhile.
    fn drive(self: &Rc<Self>, connection: impl Future<Output = hyper::Result<()>> + 'static) {
        let shared = Rc::clone(self);
        shared.live.front().upstream_open.add(1);
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection to an endpoint ended");
            }
            shared.live.front().upstream_open.take(1);
        });
    }

    fn idles(&self) {
        self.live.front().upstream_idle.add(1);
    }

    fn idle_no_more(&self, connections: usize) {
        self.live.front().upstream_idle.take(connections as u64);
    }
}

impl Pool {
    /// An empty pool.
    pub(crate) fn new(
        config: Arc<Config>,
        tasks: Tasks,
        clock: CoarseClock,
        live: Rc<live::Worker>,
    ) -> Self {
        let closing = Cell::new(false);
        let idle_max = (config.limits.idle_per_process.get() / config.workers.get()).max(1);
        let shared = Shared {
            config,
            tasks,
            clock,
            live,
            idle_max: idle_max as u64,
            closing,
        };
        Self {
            lines: RefCell::default(),
            shared: Rc::new(shared),
        }
    }

    /// The connections to an endpoint.
    pub(crate) fn line(&self, endpoint: &Arc<EndpointState>) -> Rc<Line> {
        let mut lines = self.lines.borrow_mut();
        match lines.binary_search_by_key(&endpoint.id, |line| line.endpoint.id) {
            Ok(at) => Rc::clone(&lines[at]),
            Err(at) => {
                let line = Line::new(endpoint, &self.shared);
                lines.insert(at, Rc::clone(&line));
                line
            }
        }
    }

    /// Closes idle connections whose time is over or whose endpoint is leaving; called at every tick and for every new table.
    pub(crate) fn sweep(&self) {
        self.lines.borrow_mut().retain(|line| {
            line.sweep();
            !line.endpoint.leaving()
        });
    }

    /// Closes all idle connections and keeps none from now on.
    pub(crate) fn close(&self) {
        self.shared.closing.set(true);
        self.lines
            .borrow_mut()
            .drain(..)
            .for_each(|line| line.clear());
    }
}

/// The connections to one endpoint.
#[derive(Debug)]
pub(crate) struct Line {
    endpoint: Arc<EndpointState>,
    shared: Rc<Shared>,
    idle: RefCell<VecDeque<Idle>>,
    multiplexed: RefCell<Vec<Rc<Multiplexed>>>,
    /// Held while an HTTP/2 connection is being made, so that a crowd of requests makes one and not one each.
    connecting: Mutex<()>,
}

#[derive(Debug)]
struct Idle {
    sender: http1::SendRequest<RequestBody>,
    since_ms: u64,
}

/// One HTTP/2 connection.
#[derive(Debug)]
struct Multiplexed {
    sender: http2::SendRequest<RequestBody>,
    streams: Cell<u32>,
    idle_since_ms: Cell<u64>,
    /// A request on it failed: it finishes what it has and gets no more.
    failed: Cell<bool>,
}

/// The right to send one request on a connection; for HTTP/1 the connection itself.
#[derive(Debug)]
pub(crate) struct Lease {
    line: Rc<Line>,
    channel: Channel,
    reused: bool,
}

#[derive(Debug)]
enum Channel {
    Http1(http1::SendRequest<RequestBody>),
    Http2(Stream),
}

/// One stream's place on an HTTP/2 connection; given back when dropped.
#[derive(Debug)]
struct Stream {
    connection: Rc<Multiplexed>,
    clock: CoarseClock,
}

/// What becomes of a request that was sent: the response head, or hyper's error.
pub(crate) type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// A request that failed: why, and the request if none of it was written.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    pub(crate) unsent: Option<Box<Request<RequestBody>>>,
}

impl Line {
    fn new(endpoint: &Arc<EndpointState>, shared: &Rc<Shared>) -> Rc<Self> {
        Rc::new(Self {
            endpoint: Arc::clone(endpoint),
            shared: Rc::clone(shared),
            idle: RefCell::default(),
            multiplexed: RefCell::default(),
            connecting: Mutex::new(()),
        })
    }

    /// A connection that is open and ready now.
    pub(crate) fn checkout(self: &Rc<Self>) -> Option<Lease> {
        let channel = match self.endpoint.protocol {
            Protocol::Http1 => Channel::Http1(self.pop_idle()?),
            Protocol::H2c => Channel::Http2(self.open_stream()?),
        };
        Some(Lease {
            line: Rc::clone(self),
            channel,
            reused: true,
        })
    }

    /// Makes a connection, within the connect deadline.
    ///
    /// # Errors
    /// Those that [`Error::is_refused_connection`] names.
    pub(crate) async fn connect(self: &Rc<Self>) -> Result<Lease, Error> {
        let limit = self.shared.config.deadlines.connect;
        let connected = match self.endpoint.protocol {
            Protocol::Http1 => timeout(limit, self.connect_http1()).await,
            Protocol::H2c => timeout(limit, self.connect_http2()).await,
        };
        connected.unwrap_or(Err(Error::ConnectTimeout))
    }

    async fn connect_http1(self: &Rc<Self>) -> Result<Lease, Error> {
        let io = TokioIo::new(self.dial().await?);
        let limits = &self.shared.config.limits;
        let mut builder = http1::Builder::new();
        builder
            .writev(false) // most requests are a head and nothing else: one buffer, one plain write
            .max_buf_size(limits.head_bytes.get().max(HYPER_BUFFER_MIN_BYTES));
        if limits.headers.get() != HYPER_HEADERS {
            builder.max_headers(limits.headers.get());
        }
        let (sender, connection) = builder.handshake(io).await.map_err(Error::Handshake)?;
        self.shared.drive(connection.with_upgrades());
        Ok(Lease {
            line: Rc::clone(self),
            channel: Channel::Http1(sender),
            reused: false,
        })
    }

    async fn connect_http2(self: &Rc<Self>) -> Result<Lease, Error> {
        let turn = self.connecting.lock().await;
        if let Some(lease) = self.checkout() {
            return Ok(lease); // made by the request before this one in the queue
        }
        let io = TokioIo::new(self.dial().await?);
        let h2 = &self.shared.config.h2;
        let (sender, connection) = http2::Builder::new(self.shared.tasks.clone())
            .timer(TokioTimer::new())
            .initial_stream_window_size(h2.stream_window_bytes.get())
            .initial_connection_window_size(h2.connection_window_bytes.get())
            .max_header_list_size(h2.header_list_bytes.get())
            .handshake(io)
            .await
            .map_err(Error::Handshake)?;
        self.shared.drive(connection);
        let connection = Rc::new(Multiplexed::new(sender));
        self.multiplexed.borrow_mut().push(Rc::clone(&connection));
        drop(turn);
        let channel = Channel::Http2(Stream::open(connection, &self.shared.clock));
        Ok(Lease {
            line: Rc::clone(self),
            channel,
            reused: false,
        })
    }

    async fn dial(&self) -> Result<TcpStream, Error> {
        let stream = TcpStream::connect(self.endpoint.address)
            .await
            .map_err(Error::Connect)?;
        stream.set_nodelay(true).map_err(Error::Connect)?;
        Ok(stream)
    }

    fn pop_idle(&self) -> Option<http1::SendRequest<RequestBody>> {
        let mut idle = self.idle.borrow_mut();
        loop {
            let top = idle.pop_back()?;
            self.shared.idle_no_more(1);
            if top.sender.is_ready() && !self.is_over(top.since_ms) {
                return Some(top.sender);
            }
        }
    }

    fn push_idle(&self, sender: http1::SendRequest<RequestBody>) {
        let limits = &self.shared.config.limits;
        let mut idle = self.idle.borrow_mut();
        if self.is_closing()
            || idle.len() >= limits.idle_per_endpoint.get()
            || self.shared.live.front().upstream_idle.value() >= self.shared.idle_max
        {
            return;
        }
        self.shared.idles();
        idle.push_back(Idle {
            sender,
            since_ms: self.shared.clock.now_ms(),
        });
    }

    fn open_stream(&self) -> Option<Stream> {
        let connections = self.multiplexed.borrow();
        let free = connections
            .iter()
            .find(|connection| connection.has_room())?;
        Some(Stream::open(Rc::clone(free), &self.shared.clock))
    }

    fn sweep(&self) {
        if self.is_closing() {
            return self.clear();
        }
        let mut idle = self.idle.borrow_mut();
        let before = idle.len();
        idle.retain(|waiting| !waiting.sender.is_closed() && !self.is_over(waiting.since_ms));
        self.shared.idle_no_more(before - idle.len());
        self.multiplexed.borrow_mut().retain(|connection| {
            let idle_over =
                connection.streams.get() == 0 && self.is_over(connection.idle_since_ms.get());
            !(connection.failed.get() || connection.sender.is_closed() || idle_over)
        });
    }

    fn clear(&self) {
        let idle = std::mem::take(&mut *self.idle.borrow_mut());
        self.shared.idle_no_more(idle.len());
        self.multiplexed.borrow_mut().clear();
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.get() || self.endpoint.leaving()
    }

    fn is_over(&self, since_ms: u64) -> bool {
        let limit_ms = millis(self.shared.config.deadlines.upstream_idle);
        self.shared.clock.now_ms() >= since_ms + limit_ms
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Multiplexed {
    fn new(sender: http2::SendRequest<RequestBody>) -> Self {
        Self {
            sender,
            streams: Cell::new(0),
            idle_since_ms: Cell::new(0),
            failed: Cell::new(false),
        }
    }

    fn has_room(&self) -> bool {
        self.streams.get() < STREAMS_PER_CONNECTION
            && !self.failed.get()
            && !self.sender.is_closed()
    }
}

impl Stream {
    fn open(connection: Rc<Multiplexed>, clock: &CoarseClock) -> Self {
        connection.streams.set(connection.streams.get() + 1);
        Self {
            connection,
            clock: clock.clone(),
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let connection = &self.connection;
        connection.streams.set(connection.streams.get() - 1);
        connection.idle_since_ms.set(self.clock.now_ms());
    }
}

impl Lease {
    /// Whether the connection has carried requests before, so that its end may cross with ours.
    pub(crate) fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the response head; no deadline. Dropping the future closes an HTTP/1 connection and
    /// resets an HTTP/2 stream. [`Lease::failed`] says what its error means.
    pub(crate) fn send(
        &mut self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Sent> + use<> {
        match &mut self.channel {
            Channel::Http1(sender) => Either::Left(sender.try_send_request(request)),
            Channel::Http2(stream) => {
                let mut sender = stream.connection.sender.clone();
                Either::Right(sender.try_send_request(request))
            }
        }
    }

    /// What went wrong; the connection is closed to further requests.
    pub(crate) fn failed(&self, error: TrySendError<Request<RequestBody>>) -> Failure {
        if let Channel::Http2(stream) = &self.channel
            && is_of_connection(&error)
        {
            stream.connection.failed.set(true);
        }
        Failure::from(error)
    }

    /// Gives the connection back once the response has been read to its end. One that is not ready by then (its request is
    /// still being sent) is closed.
    pub(crate) fn give_back(self) {
        match self.channel {
            Channel::Http1(sender) if sender.is_ready() => self.line.push_idle(sender),
            Channel::Http1(_) | Channel::Http2(_) => {}
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            error,
            unsent: None,
        }
    }
}

impl From<TrySendError<Request<RequestBody>>> for Failure {
    fn from(mut failed: TrySendError<Request<RequestBody>>) -> Self {
        let unsent = failed.take_message().map(Box::new);
        let error = failed.into_error();
        let error = if unsent.is_some() {
            Error::Unsent(error)
        } else {
            classify(error)
        };
        Self { error, unsent }
    }
}

/// What an error of hyper's client means for a request that was written at least in part.
fn classify(error: hyper::Error) -> Error {
    if let Some(body) = find::<RequestBodyError>(&error) {
        return match body {
            RequestBodyError::Idle => Error::BodyIdle,
            RequestBodyError::Client(_) | RequestBodyError::Superseded => Error::ClientGone,
        };
    }
    if let Some(h2) = find::<h2::Error>(&error) {
        let refused = h2.reason() == Some(h2::Reason::REFUSED_STREAM);
        // A GOAWAY from the other side fails only the streams above its last id.
        let unprocessed = refused || (h2.is_go_away() && h2.is_remote());
        return if unprocessed {
            Error::NotProcessed(error)
        } else {
            Error::Closed(error)
        };
    }
    if error.is_parse() {
        Error::NotHttp(error)
    } else {
        Error::Closed(error)
    }
}

/// Whether a failure is the connection's and not one stream's.
fn is_of_connection(failed: &TrySendError<Request<RequestBody>>) -> bool {
    !find::<h2::Error>(failed.error()).is_some_and(h2::Error::is_reset)
}

fn find<E: std::error::Error + 'static>(error: &hyper::Error) -> Option<&E> {
    let mut source = error.source();
    while let Some(error) = source {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        source = error.source();
    }
    None
}

/// hyper's default, which it keeps on the stack; any other number moves its parser to the heap.
pub(crate) const HYPER_HEADERS: usize = 100;

/// hyper panics below this.
pub(crate) const HYPER_BUFFER_MIN_BYTES: usize = 8192;

/// Streams on one HTTP/2 connection before another is made: the least that servers should allow (RFC 9113 section 6.5.2).
const STREAMS_PER_CONNECTION: u32 = 100;
