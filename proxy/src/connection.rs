//! One client connection, from its first byte to its close: protocol, deadlines, drain. What becomes of each request is
//! `forward`'s.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures::FutureExt as _;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tracing::debug;

use crate::config::{Deadlines, millis};
use crate::forward::forward;
use crate::headers::Peer;
use crate::sniff::{Replay, Spoken, sniff};
use crate::ticker::{CoarseClock, Watch};
use crate::tls;
use crate::upstream::{HYPER_BUFFER_MIN_BYTES, HYPER_HEADERS};
use crate::worker::{Local, Stage};

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    /// Whose it is.
    pub(crate) address: SocketAddr,
    /// Where it came in.
    pub(crate) at: Entrance,
}

/// What a listener is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entrance {
    /// Host and path say where a request goes.
    Http,
    /// The same, within TLS.
    Https,
    /// The port says where a request goes: this one.
    Apex(u16),
}

/// Serves a connection until it closes. `held` is kept that long.
pub(crate) async fn serve<T, H>(local: Rc<Local>, io: T, arrival: Arrival, held: H)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let front = local.live.front();
    front.downstream_open.add(1);
    front.downstream_total.add(1);
    let ended = match arrival.at {
        Entrance::Http | Entrance::Apex(_) => serve_counted(Rc::clone(&local), io, arrival).await,
        Entrance::Https => match tls::accept(&local, io).await {
            Ok(io) => serve_counted(Rc::clone(&local), io, arrival).await,
            Err(reason) => Err(reason),
        },
    };
    front.downstream_open.take(1);
    if let Err(reason) = ended {
        front.downstream_error(reason);
    }
    drop(held);
}

async fn serve_counted<T>(local: Rc<Local>, io: T, arrival: Arrival) -> Result<(), &'static str>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let watch = local.ticker.watch();
    let Some((spoken, io)) = sniff_in_time(&local, &watch, io).await? else {
        return Ok(()); // came and went without a word
    };
    let activity = Arc::new(Activity::new(local.ticker.clock(), spoken));
    let io = TokioIo::new(Watched {
        io,
        activity: Arc::clone(&activity),
    });
    let client = Rc::new(Client::new(&local, arrival, spoken, Arc::clone(&activity)));
    match spoken {
        Spoken::Http1 => serve_http1(local, io, client, watch).await,
        Spoken::Http2 => serve_http2(local, io, client, watch).await,
    }
}

async fn sniff_in_time<T>(
    local: &Local,
    watch: &Watch,
    io: T,
) -> Result<Option<(Spoken, Replay<T>)>, &'static str>
where
    T: AsyncRead + Unpin,
{
    let mut sniffed = pin!(sniff(io));
    let limit = local.config.deadlines.head;
    poll_fn(|cx| {
        if let Poll::Ready(sniffed) = sniffed.as_mut().poll(cx) {
            return Poll::Ready(sniffed.map_err(|_| "reset-before-head"));
        }
        // A connection whose bytes are still on their way is given a moment even when all close.
        let limit = if local.stage() >= Stage::Closing {
            limit.min(CLOSING_HEAD)
        } else {
            limit
        };
        watch
            .poll_overdue(limit, u64::MAX, cx)
            .map(|()| Err("head-timeout"))
    })
    .await
}

async fn serve_http1<T>(
    local: Rc<Local>,
    io: TokioIo<Watched<T>>,
    client: Rc<Client>,
    watch: Watch,
) -> Result<(), &'static str>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &local.config.limits;
    let mut builder = http1::Builder::new();
    builder
        .header_read_timeout(None)
        .auto_date_header(false)
        .max_buf_size(limits.head_bytes.get().max(HYPER_BUFFER_MIN_BYTES));
    if limits.headers.get() != HYPER_HEADERS {
        builder.max_headers(limits.headers.get());
    }
    let service = service_fn(|request: Request<Incoming>| {
        forward(Rc::clone(&local), Rc::clone(&client), request).map(Ok::<_, Infallible>)
    });
    let mut connection = pin!(builder.serve_connection(io, service).with_upgrades());
    let mut told = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(|error| reason(&error)));
            }
            // Told before it has read, hyper would close over a request that is here already.
            if told || local.stage() < Stage::Closing {
                return client.poll_overdue(&local, &watch, cx).map(Err);
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
    })
    .await
}

async fn serve_http2<T>(
    local: Rc<Local>,
    io: TokioIo<Watched<T>>,
    client: Rc<Client>,
    watch: Watch,
) -> Result<(), &'static str>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let h2 = &local.config.h2;
    let mut builder = http2::Builder::new(local.tasks.clone());
    builder
        .timer(TokioTimer::new())
        .auto_date_header(false)
        .max_concurrent_streams(h2.streams.get())
        .initial_stream_window_size(h2.stream_window_bytes.get())
        .initial_connection_window_size(h2.connection_window_bytes.get())
        .max_header_list_size(h2.header_list_bytes.get());
    let service = service_fn(|request: Request<Incoming>| {
        forward(Rc::clone(&local), Rc::clone(&client), request).map(Ok::<_, Infallible>)
    });
    let mut connection = pin!(builder.serve_connection(io, service));
    let mut told = false;
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended.map_err(|error| reason(&error)));
            }
            let leave = match local.stage() {
                Stage::Serving => false,
                Stage::Draining => client.activity.has_served(), // a new one may still send its first request
                Stage::Closing | Stage::Cut => true,
            };
            if told || !leave {
                break;
            }
            told = true;
            connection.as_mut().graceful_shutdown();
        }
        match client.poll_overdue(&local, &watch, cx) {
            Poll::Ready("idle") if !told => {
                told = true;
                connection.as_mut().graceful_shutdown();
                client.activity.idle_again();
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Ready(reason) => Poll::Ready(Err(reason)),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// What requests need to know of the connection they came on.
#[derive(Debug)]
pub(crate) struct Client {
    /// Where it comes from.
    pub(crate) address: SocketAddr,
    /// Where it came in.
    pub(crate) at: Entrance,
    /// What forwarded fields say of it.
    pub(crate) peer: Peer,
    /// What it speaks.
    pub(crate) spoken: Spoken,
    activity: Arc<Activity>,
    /// The deadline of one request after the other, which the same task waits for: its place among the worker's wakers stays.
    deadline: Rc<Watch>,
}

impl Client {
    fn new(
        local: &Local,
        Arrival { address, at }: Arrival,
        spoken: Spoken,
        activity: Arc<Activity>,
    ) -> Self {
        let ip = address.ip().to_canonical();
        let trusted = local.config.trusted.iter().any(|net| net.contains(&ip));
        Self {
            address,
            at,
            peer: Peer::new(ip, trusted, at == Entrance::Https),
            spoken,
            activity,
            deadline: Rc::new(local.ticker.watch()),
        }
    }

    /// A deadline for a request, not armed.
    pub(crate) fn deadline(&self, local: &Local) -> Rc<Watch> {
        if Rc::strong_count(&self.deadline) == 1 {
            Rc::clone(&self.deadline)
        } else {
            Rc::new(local.ticker.watch()) // another request is under way on this connection
        }
    }

    /// Marks the connection as busy with one more request until the guard is dropped.
    pub(crate) fn busy(self: &Rc<Self>) -> Busy {
        self.activity.begin();
        Busy(Rc::clone(self))
    }

    /// Ready with the reason when the connection has to be closed.
    fn poll_overdue(&self, local: &Local, watch: &Watch, cx: &Context<'_>) -> Poll<&'static str> {
        let (due_ms, reason) = self.activity.due(&local.config.deadlines);
        watch.poll_until(due_ms, cx).map(|()| reason)
    }
}

/// One request that a connection is busy with.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Client>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.activity.end();
    }
}

/// What a connection is doing, as its I/O and its requests see it. On one thread always, so that a load and a store are enough to
/// count; atomic only because hyper wants the I/O of upgradable connections to be `Send`. Times are those of the coarse clock.
#[derive(Debug)]
struct Activity {
    clock: CoarseClock,
    spoken: Spoken,
    active: AtomicU32,
    served: AtomicBool,
    idle_since_ms: AtomicU64,
    /// When the first bytes of a head came; 0 when none have.
    head_since_ms: AtomicU64,
    /// Since when the client takes no bytes; 0 when it does.
    stalled_since_ms: AtomicU64,
}

impl Activity {
    /// A connection that has begun a head: what was sniffed.
    fn new(clock: &CoarseClock, spoken: Spoken) -> Self {
        let now_ms = clock.now_ms();
        Self {
            clock: clock.clone(),
            spoken,
            active: AtomicU32::new(0),
            served: AtomicBool::new(false),
            idle_since_ms: AtomicU64::new(now_ms),
            head_since_ms: AtomicU64::new(now_ms),
            stalled_since_ms: AtomicU64::new(0),
        }
    }

    fn has_served(&self) -> bool {
        self.served.load(Ordering::Relaxed)
    }

    fn begin(&self) {
        let active = self.active.load(Ordering::Relaxed);
        self.active.store(active + 1, Ordering::Relaxed);
        self.served.store(true, Ordering::Relaxed);
    }

    fn end(&self) {
        let active = self.active.load(Ordering::Relaxed);
        self.active.store(active - 1, Ordering::Relaxed);
        self.idle_again();
    }

    fn idle_again(&self) {
        self.idle_since_ms
            .store(self.clock.now_ms(), Ordering::Relaxed);
        self.head_since_ms.store(0, Ordering::Relaxed);
    }

    fn read(&self) {
        let between = self.active.load(Ordering::Relaxed) == 0;
        if between && self.head_since_ms.load(Ordering::Relaxed) == 0 {
            self.head_since_ms
                .store(self.clock.now_ms(), Ordering::Relaxed);
        }
    }

    fn wrote(&self, blocked: bool) {
        let since_ms = self.stalled_since_ms.load(Ordering::Relaxed);
        if blocked != (since_ms != 0) {
            let since_ms = if blocked { self.clock.now_ms() } else { 0 };
            self.stalled_since_ms.store(since_ms, Ordering::Relaxed);
        }
    }

    /// When the connection has to be closed, and why.
    fn due(&self, deadlines: &Deadlines) -> (u64, &'static str) {
        let stalled_since_ms = self.stalled_since_ms.load(Ordering::Relaxed);
        if stalled_since_ms != 0 {
            return (
                stalled_since_ms + millis(deadlines.body_idle),
                "write-stalled",
            );
        }
        if self.active.load(Ordering::Relaxed) > 0 {
            return (u64::MAX, "");
        }
        let head_since_ms = self.head_since_ms.load(Ordering::Relaxed);
        if head_since_ms != 0 && self.spoken == Spoken::Http1 {
            return (head_since_ms + millis(deadlines.head), "head-timeout");
        }
        let idle_since_ms = self.idle_since_ms.load(Ordering::Relaxed);
        (idle_since_ms + millis(deadlines.keep_alive_idle), "idle")
    }
}

/// The client's stream, telling [`Activity`] what goes over it.
#[derive(Debug)]
struct Watched<T> {
    io: Replay<T>,
    activity: Arc<Activity>,
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if buf.filled().len() > before {
            self.activity.read();
        }
        polled
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write(cx, buf);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.activity.wrote(polled.is_pending());
        polled
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// The name under which the end of a connection is counted. hyper has answered some of these by itself (400, 431).
fn reason(error: &hyper::Error) -> &'static str {
    debug!(%error, "connection from a client ended");
    if error.is_parse_too_large() {
        "head-too-large"
    } else if error.is_parse() {
        "malformed"
    } else if error.is_incomplete_message() {
        "closed-by-client"
    } else if error.is_user() {
        "broken-off"
    } else {
        "io"
    }
}

/// How long a connection without a byte may stay once all close: 1 s, more than any usual round trip.
const CLOSING_HEAD: std::time::Duration = std::time::Duration::from_secs(1);

#[cfg(test)]
mod tests;
