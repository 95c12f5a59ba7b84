//! The demo's clients: they send at a fixed rate and count what *they* see, apart from anything the proxy counts.
//!
//! Each client keeps one connection and never sends a request twice: a request that breaks is counted as broken, not retried.
//! What a request counts for is decided when it is sent, by the window that is open then.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A request that takes longer than this is broken.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many messages of broken requests are kept for the report.
const MESSAGES_MAX: usize = 5;

/// Where the load goes, and how much of it.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The proxy's listener.
    pub(super) address: SocketAddr,
    /// The Service's name.
    pub(super) host: String,
    /// What is asked for; the answer's body names the version.
    pub(super) path: String,
    /// Connections.
    pub(super) clients: u32,
    /// Requests per second, over all clients.
    pub(super) rate: u32,
}

/// What was seen of one version, within one window.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    /// Answers.
    pub(super) requests: u64,
    /// Answers with a status of 500 or more.
    pub(super) errors: u64,
}

/// What was seen within one window.
#[derive(Clone, Debug, Default)]
pub(super) struct Tally {
    /// By the body of the answer, which names the version.
    pub(super) versions: BTreeMap<String, Seen>,
    /// Answers that came from no version, and requests without any answer.
    pub(super) broken: u64,
    /// What the first of those said.
    pub(super) messages: Vec<String>,
}

impl Tally {
    /// Answers of all versions.
    pub(super) fn requests(&self) -> u64 {
        self.versions.values().map(|seen| seen.requests).sum()
    }

    /// Answers of one version.
    pub(super) fn of(&self, version: &str) -> Seen {
        self.versions.get(version).copied().unwrap_or_default()
    }

    fn add(&mut self, other: &Self) {
        for (version, seen) in &other.versions {
            let own = self.versions.entry(version.clone()).or_default();
            own.requests += seen.requests;
            own.errors += seen.errors;
        }
        self.broken += other.broken;
        let room = MESSAGES_MAX.saturating_sub(self.messages.len());
        self.messages
            .extend(other.messages.iter().take(room).cloned());
    }
}

#[derive(Debug, Default)]
struct Book {
    windows: Vec<Tally>,
    last_answer: BTreeMap<String, Instant>,
}

/// Clients at work.
#[derive(Debug)]
pub(super) struct Load {
    book: Arc<Mutex<Book>>,
    stop: CancellationToken,
    clients: TaskTracker,
}

impl Load {
    /// Starts the clients, evenly spread over the period of one request each.
    pub(super) fn start(target: &Target) -> Self {
        let load = Self {
            book: Arc::new(Mutex::new(Book {
                windows: vec![Tally::default()],
                last_answer: BTreeMap::new(),
            })),
            stop: CancellationToken::new(),
            clients: TaskTracker::new(),
        };
        let period = Duration::from_secs(1) * target.clients / target.rate.max(1);
        let begin = Instant::now();
        for client in 0..target.clients {
            let first = begin + period * client / target.clients;
            let client = Client {
                target: target.clone(),
                book: Arc::clone(&load.book),
                tasks: load.clients.clone(),
                connection: None,
            };
            let stop = load.stop.clone();
            load.clients.spawn(async move {
                stop.run_until_cancelled(client.send_on(first, period))
                    .await;
            });
        }
        load.clients.close();
        load
    }

    /// Opens a new window: requests sent from now on count for it.
    pub(super) fn open_window(&self) -> usize {
        let mut book = lock(&self.book);
        book.windows.push(Tally::default());
        book.windows.len() - 1
    }

    /// What has been seen within a window so far.
    pub(super) fn window(&self, window: usize) -> Tally {
        lock(&self.book)
            .windows
            .get(window)
            .cloned()
            .unwrap_or_default()
    }

    /// What has been seen in all.
    pub(super) fn total(&self) -> Tally {
        let mut total = Tally::default();
        for window in &lock(&self.book).windows {
            total.add(window);
        }
        total
    }

    /// When a version last answered.
    pub(super) fn last_answer(&self, version: &str) -> Option<Instant> {
        lock(&self.book).last_answer.get(version).copied()
    }

    /// Ends the clients and waits for them.
    pub(super) async fn stop(&self) {
        self.stop.cancel();
        self.clients.wait().await;
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One client, with the connection it keeps.
struct Client {
    target: Target,
    book: Arc<Mutex<Book>>,
    /// Where its connections run.
    tasks: TaskTracker,
    connection: Option<Sender>,
}

type Sender = http1::SendRequest<Empty<Bytes>>;

impl Client {
    async fn send_on(mut self, first: Instant, period: Duration) {
        let mut ticks = interval_at(first, period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let window = lock(&self.book).windows.len() - 1;
            let answer = match tokio::time::timeout(PATIENCE, self.ask()).await {
                Ok(answer) => answer,
                Err(_) => Err(anyhow::anyhow!("no answer within {PATIENCE:?}")),
            };
            record(&mut lock(&self.book), window, answer);
        }
    }

    /// Keeps the connection only if the answer has come whole.
    async fn ask(&mut self) -> anyhow::Result<(StatusCode, String)> {
        let mut sender = match self.connection.take() {
            Some(mut kept) => match kept.ready().await {
                Ok(()) => kept,
                Err(_) => self.connect().await?,
            },
            None => self.connect().await?,
        };
        let request = Request::get(&self.target.path)
            .header(header::HOST, &self.target.host)
            .body(Empty::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        let text = String::from_utf8_lossy(&body)
            .trim()
            .trim_matches('"')
            .to_owned();
        self.connection = Some(sender);
        Ok((status, text))
    }

    async fn connect(&self) -> anyhow::Result<Sender> {
        let stream = TcpStream::connect(self.target.address).await?;
        stream.set_nodelay(true)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        // Ends by itself when the sender is dropped.
        self.tasks.spawn(connection);
        sender.ready().await?;
        Ok(sender)
    }
}

fn record(book: &mut Book, window: usize, answer: anyhow::Result<(StatusCode, String)>) {
    let tally = &mut book.windows[window];
    let complaint = match answer {
        Ok((status, version)) if names_a_version(&version) => {
            let seen = tally.versions.entry(version.clone()).or_default();
            seen.requests += 1;
            seen.errors += u64::from(status.is_server_error());
            book.last_answer.insert(version, Instant::now());
            return;
        }
        Ok((status, body)) => format!("{status}: {}", body.trim()),
        Err(error) => format!("{error:#}"),
    };
    tally.broken += 1;
    if tally.messages.len() < MESSAGES_MAX {
        tally.messages.push(complaint);
    }
}

/// A stand-in answers its image tag and nothing else; an answer of the proxy's own is a sentence.
fn names_a_version(body: &str) -> bool {
    !body.is_empty()
        && body.len() <= 32
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}
