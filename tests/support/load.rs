//! Clients that never send a request twice and count every failure by its cause.
//!
//! Each client keeps a connection, as a browser or a service would, and takes a new one after [`REQUESTS_PER_CONNECTION`]. GET and
//! POST alternate. An answer counts as good when a version gave it and it shows that the whole request had arrived.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Connections at work.
pub(crate) const CONNECTIONS: u32 = 64;
/// All clients together, unless `SIDESTEP_LOAD` says otherwise: it leaves room on two cores for a debug build's proxy and pods.
const REQUESTS_PER_SECOND: u32 = 1_280;
/// A request without an answer for so long has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a POST carries: more than one read of most servers.
const BODY: Bytes = Bytes::from_static(&[b'x'; 20_000]);
/// Then a client takes a new connection.
const REQUESTS_PER_CONNECTION: u32 = 200;

/// Why a request was not answered by a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Cause {
    /// No connection to the proxy: the request was not begun.
    NoConnection(String),
    /// The connection broke before the answer was complete.
    Broken(String),
    /// An answer that is not that of a version, with what it says.
    Answer(String),
    /// No answer in time.
    Late,
}

/// What clients saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    /// Requests with a good answer, by the version that gave it.
    pub(crate) versions: BTreeMap<String, u64>,
    /// All others, by method and cause.
    pub(crate) failures: BTreeMap<(String, Cause), u64>,
}

impl Tally {
    /// Requests with a good answer.
    pub(crate) fn answered(&self) -> u64 {
        self.versions.values().sum()
    }

    /// Failures that a condition holds for.
    pub(crate) fn failed(&self, counts: impl Fn(&str, &Cause) -> bool) -> u64 {
        let matching = self.failures.iter().filter(|((m, c), _)| counts(m, c));
        matching.map(|(_, count)| count).sum()
    }
}

/// `1234 requests, 2 failed: POST Broken("connection reset") × 2`.
impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed = self.failed(|_, _| true);
        write!(f, "{} requests, {failed} failed", self.answered() + failed)?;
        for (index, ((method, cause), count)) in self.failures.iter().enumerate() {
            let before = if index == 0 { ": " } else { ", " };
            write!(f, "{before}{method} {cause:?} × {count}")?;
        }
        Ok(())
    }
}

/// Where clients go, as is known at the moment.
pub(crate) type Places = watch::Receiver<Vec<SocketAddr>>;

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    book: watch::Sender<Tally>,
    stop: CancellationToken,
    clients: TaskTracker,
}

impl Load {
    /// Starts [`CONNECTIONS`] clients of a Service, spread over its proxies.
    pub(crate) fn start(proxies: &[SocketAddr], host: &'static str) -> Self {
        let places: Vec<Places> = proxies.iter().copied().map(only).collect();
        Self::of(CONNECTIONS, &places, host)
    }

    /// Starts so many clients of a Service, spread over `places`; each stays with its own.
    pub(crate) fn of(clients: u32, places: &[Places], host: &'static str) -> Self {
        let load = Self {
            book: watch::Sender::new(Tally::default()),
            stop: CancellationToken::new(),
            clients: TaskTracker::new(),
        };
        let period = Duration::from_secs(1) * CONNECTIONS / requests_per_second();
        for (client, places) in (0..clients).zip(places.iter().cycle()) {
            let first = Instant::now() + period * client / clients;
            let client = Client {
                places: places.clone(),
                host,
                period,
                connection: None,
                sent: 0,
            };
            load.clients
                .spawn(client.run(first, load.book.clone(), load.stop.clone()));
        }
        load.clients.close();
        load
    }

    /// Waits until so many more requests have ended.
    pub(crate) async fn more(&self, requests: u64) {
        let mut book = self.book.subscribe();
        let ended = |tally: &Tally| tally.answered() + tally.failed(|_, _| true);
        let enough = ended(&book.borrow()) + requests;
        let waited = timeout(
            Duration::from_secs(60),
            book.wait_for(|t| ended(t) >= enough),
        )
        .await;
        waited.expect("the load goes on").expect("the book is ours");
    }

    /// What was seen so far.
    pub(crate) fn so_far(&self) -> Tally {
        self.book.borrow().clone()
    }

    /// Lets every client finish its request, and returns what was seen.
    pub(crate) async fn stop(self) -> Tally {
        self.stop.cancel();
        self.clients.wait().await;
        self.so_far()
    }
}

/// One place that stays.
pub(crate) fn only(place: SocketAddr) -> Places {
    watch::Sender::new(vec![place]).subscribe()
}

struct Client {
    places: Places,
    host: &'static str,
    period: Duration,
    connection: Option<SendRequest<Full<Bytes>>>,
    sent: u32,
}

impl Client {
    async fn run(mut self, first: Instant, book: watch::Sender<Tally>, stop: CancellationToken) {
        let mut ticks = interval_at(first, self.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            self.sent += 1;
            if self.sent.is_multiple_of(REQUESTS_PER_CONNECTION) {
                self.connection = None;
            }
            let method = if self.sent.is_multiple_of(2) {
                Method::GET
            } else {
                Method::POST
            };
            let answer = timeout(PATIENCE, self.ask(&method)).await;
            let answer = answer.unwrap_or(Err(Cause::Late));
            book.send_modify(|tally| {
                let count = match answer {
                    Ok(version) => tally.versions.entry(version).or_default(),
                    Err(cause) => tally
                        .failures
                        .entry((method.to_string(), cause))
                        .or_default(),
                };
                *count += 1;
            });
        }
    }

    /// Sends one request, once; returns the version that answered.
    async fn ask(&mut self, method: &Method) -> Result<String, Cause> {
        let body = if method == Method::POST {
            BODY
        } else {
            Bytes::new()
        };
        let length = body.len();
        let request = Request::builder()
            .method(method)
            .uri("/")
            .header(header::HOST, self.host)
            .body(Full::new(body))
            .expect("a request");
        let mut connection = self.connected().await?;
        let broken = |error: hyper::Error| Cause::Broken(chain(&error));
        let response = connection.send_request(request).await.map_err(broken)?;
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(broken)?.to_bytes();
        self.connection = Some(connection);
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        match answer["version"].as_str() {
            Some(version) if head.status == StatusCode::OK && answer["bodyBytes"] == length => {
                Ok(version.to_owned())
            }
            Some(_) | None => {
                let reason = head.headers.get("x-sidestep-reason");
                let text = String::from_utf8_lossy(&body);
                Err(Cause::Answer(format!(
                    "{} {reason:?} {}",
                    head.status,
                    text.trim()
                )))
            }
        }
    }

    /// The kept connection if it still stands, else a new one.
    async fn connected(&mut self) -> Result<SendRequest<Full<Bytes>>, Cause> {
        if let Some(mut kept) = self.connection.take()
            && kept.ready().await.is_ok()
        {
            return Ok(kept);
        }
        let stream = TcpStream::connect(self.place()?).await;
        let stream = stream.map_err(|error| Cause::NoConnection(error.to_string()))?;
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| Cause::NoConnection(chain(&error)))?;
        // Ends by itself when the sender is dropped.
        tokio::spawn(connection);
        Ok(sender)
    }

    /// Another with each request, of those that are known now.
    fn place(&self) -> Result<SocketAddr, Cause> {
        let places = self.places.borrow();
        let turn = usize::try_from(self.sent).unwrap_or_default();
        let place = places.get(turn % places.len().max(1)).copied();
        place.ok_or_else(|| Cause::NoConnection("nobody is listed".to_owned()))
    }
}

/// An error with all that caused it.
fn chain(error: &dyn Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {}", chain(source)),
        None => error.to_string(),
    }
}

/// How often a test does what it does: 2 in `./test`, 20 for the bar of the project, by `SIDESTEP_ROUNDS`.
pub(crate) fn rounds() -> u32 {
    chosen("SIDESTEP_ROUNDS").unwrap_or(2)
}

fn requests_per_second() -> u32 {
    chosen("SIDESTEP_LOAD").unwrap_or(REQUESTS_PER_SECOND)
}

/// What whoever runs the tests asks for.
pub(crate) fn chosen(variable: &str) -> Option<u32> {
    let text = std::env::var(variable).ok()?;
    let number: Result<NonZeroU32, _> = text.parse();
    let number = number.unwrap_or_else(|_| panic!("{variable} is a number above 0, not {text:?}"));
    Some(number.get())
}
