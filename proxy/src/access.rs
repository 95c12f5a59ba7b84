//! The access log: one JSON object a line, written by a thread of its own.
//!
//! Workers fill a [`Line`] and hand it over; when the writer is behind, lines are dropped and counted, never waited for.

use std::fmt::{self, Write as _};
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::uri::{Authority, PathAndQuery};
use http::{HeaderValue, Method, header, request};
use tokio::time::Instant;
use tracing::warn;

use crate::config::AccessLog;
use crate::connection::Client;
use crate::live::{Chosen, EndpointState, Outcome, Owner, VersionState};

/// Where workers write to. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    lines: SyncSender<Box<Line>>,
    dropped: Arc<AtomicU64>,
    epoch: Instant,
    /// Wall time at `epoch`, since 1970.
    epoch_wall: Duration,
}

/// The thread that writes; it ends when every [`Log`] is dropped.
#[derive(Debug)]
pub(crate) struct Writer {
    thread: JoinHandle<()>,
    dropped: Arc<AtomicU64>,
}

/// What is known of a request when it is read and routed.
#[derive(Debug)]
pub(crate) struct Line {
    begun: Duration,
    client: std::net::SocketAddr,
    method: Method,
    path: Option<PathAndQuery>,
    host: Option<HeaderValue>,
    authority: Option<Authority>,
    version: Option<Arc<VersionState>>,
    generation: Option<i64>,
    why: Option<&'static str>,
    endpoint: Option<Arc<EndpointState>>,
    reason: Option<Box<str>>,
    outcome: Outcome,
    answer: Answer,
}

/// What is known of a request at its end.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answer {
    /// 0 when none was sent.
    pub(crate) status: u16,
    /// Of the response body.
    pub(crate) bytes: u64,
    /// At endpoints.
    pub(crate) attempts: u32,
    /// From the request's begin to the response head.
    pub(crate) head: Option<Duration>,
    /// From begin to end.
    pub(crate) total: Duration,
}

/// Opens the log; `None` when it is off.
///
/// # Errors
/// When the file cannot be opened or the thread not be started.
pub(crate) fn open(to: &AccessLog, epoch: Instant) -> io::Result<Option<(Log, Writer)>> {
    let out: Box<dyn Write + Send> = match to {
        AccessLog::Off => return Ok(None),
        AccessLog::Stdout => Box::new(io::stdout()),
        AccessLog::File(path) => Box::new(OpenOptions::new().create(true).append(true).open(path)?),
    };
    let (lines, queue) = sync_channel(QUEUE);
    let dropped = Arc::<AtomicU64>::default();
    let thread = std::thread::Builder::new()
        .name("access-log".into())
        .spawn(move || write_all(&queue, out))?;
    let epoch_wall = wall_now().saturating_sub(epoch.elapsed());
    let log = Log {
        lines,
        dropped: Arc::clone(&dropped),
        epoch,
        epoch_wall,
    };
    Ok(Some((log, Writer { thread, dropped })))
}

impl Log {
    /// The line of a request that begins.
    pub(crate) fn line(&self, client: &Client, head: &request::Parts, start: Instant) -> Box<Line> {
        Box::new(Line {
            begun: self.epoch_wall + start.saturating_duration_since(self.epoch),
            client: client.address,
            method: head.method.clone(),
            path: head.uri.path_and_query().cloned(),
            host: head.headers.get(header::HOST).cloned(),
            authority: head.uri.authority().cloned(),
            version: None,
            generation: None,
            why: None,
            endpoint: None,
            reason: None,
            outcome: Outcome::ClientAbort,
            answer: Answer::default(),
        })
    }

    /// Hands a line over, or drops it when the writer is behind.
    pub(crate) fn write(&self, mut line: Box<Line>, outcome: Outcome, answer: Answer) {
        line.outcome = outcome;
        line.answer = answer;
        match self.lines.try_send(line) {
            Ok(()) => {}
            Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

impl Line {
    /// The version that was chosen.
    pub(crate) fn chosen(&mut self, chosen: &Chosen<'_>) {
        self.version = Some(Arc::clone(chosen.state()));
        self.generation = chosen.split().map(|split| split.generation);
        self.why = Some(chosen.why.name());
    }

    /// The endpoint that was tried last.
    pub(crate) fn endpoint(&mut self, endpoint: &Arc<EndpointState>) {
        self.endpoint = Some(Arc::clone(endpoint));
    }

    /// Why the proxy answered by itself.
    pub(crate) fn reason(&mut self, reason: &str) {
        self.reason = Some(reason.into());
    }
}

impl Writer {
    /// The count of lines that were dropped.
    pub(crate) fn dropped(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.dropped)
    }

    /// Waits until all lines are written. Every [`Log`] has to be dropped before.
    pub(crate) fn join(self) {
        let dropped = self.dropped.load(Ordering::Relaxed);
        if dropped > 0 {
            warn!(
                dropped,
                "access log lines were dropped: the writer was behind"
            );
        }
        if self.thread.join().is_err() {
            warn!("the access log's thread panicked");
        }
    }
}

fn write_all(queue: &Receiver<Box<Line>>, out: impl Write) {
    let mut out = BufWriter::new(out);
    let mut text = String::new();
    while let Ok(line) = queue.recv() {
        let mut next = Some(line);
        while let Some(line) = next {
            text.clear();
            line.render(&mut text);
            if let Err(error) = out.write_all(text.as_bytes()) {
                return warn!(%error, "the access log cannot be written and ends here");
            }
            next = queue.try_recv().ok();
        }
        if let Err(error) = out.flush() {
            return warn!(%error, "the access log cannot be written and ends here");
        }
    }
}

impl Line {
    fn render(&self, text: &mut String) {
        let answer = &self.answer;
        let mut object = Object { text, first: true };
        object.text.push('{');
        object.field("time", format_args!("{:.3}", self.begun.as_secs_f64()));
        object.text_field("client", self.client);
        object.text_field("method", &self.method);
        if let Some(authority) = &self.authority {
            object.text_field("host", authority);
        } else if let Some(host) = &self.host {
            object.text_field("host", String::from_utf8_lossy(host.as_bytes()));
        }
        if let Some(path) = &self.path {
            object.text_field("path", path);
        }
        if let Some(version) = &self.version {
            object.version(version);
        }
        if let Some(generation) = self.generation {
            object.field("generation", format_args!("{generation}"));
        }
        if let Some(why) = self.why {
            object.text_field("why", why);
        }
        if let Some(endpoint) = &self.endpoint {
            object.text_field("endpoint", endpoint.address);
        }
        object.field("attempts", format_args!("{}", answer.attempts));
        object.field("status", format_args!("{}", answer.status));
        object.text_field("outcome", self.outcome.name());
        if let Some(reason) = &self.reason {
            object.text_field("reason", reason);
        }
        object.field("bytes", format_args!("{}", answer.bytes));
        if let Some(head) = answer.head {
            object.field("headMs", format_args!("{:.3}", head.as_secs_f64() * 1e3));
        }
        object.field(
            "totalMs",
            format_args!("{:.3}", answer.total.as_secs_f64() * 1e3),
        );
        text.push_str("}\n");
    }
}

/// A JSON object being written.
struct Object<'a> {
    text: &'a mut String,
    first: bool,
}

impl Object<'_> {
    fn field(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.name(name);
        self.text.write_fmt(value).expect("a String takes all");
    }

    fn text_field(&mut self, name: &str, value: impl fmt::Display) {
        self.name(name);
        self.text.push('"');
        write!(Escaped(self.text), "{value}").expect("a String takes all");
        self.text.push('"');
    }

    fn version(&mut self, version: &VersionState) {
        match &version.key.owner {
            Owner::Split {
                namespace, name, ..
            } => {
                self.text_field("namespace", namespace);
                self.text_field("split", name);
                self.text_field("version", &version.key.name);
                self.text_field("revision", &version.key.revision);
            }
            Owner::Route {
                namespace,
                service,
                port,
            } => {
                self.text_field("namespace", namespace);
                self.text_field("service", service);
                self.text_field("port", port);
            }
        }
    }

    fn name(&mut self, name: &str) {
        if !std::mem::replace(&mut self.first, false) {
            self.text.push(',');
        }
        write!(self.text, "\"{name}\":").expect("a String takes all");
    }
}

/// Writes into a JSON string.
struct Escaped<'a>(&'a mut String);

impl fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for letter in text.chars() {
            match letter {
                '"' => self.0.push_str("\\\""),
                '\\' => self.0.push_str("\\\\"),
                control if control < ' ' => write!(self.0, "\\u{:04x}", u32::from(control))?,
                plain => self.0.push(plain),
            }
        }
        Ok(())
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "read once at the start; lines are stamped by the monotonic clock from there"
)]
fn wall_now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// Lines that may wait for the writer: a second's worth at a few thousand requests a second. Full: dropped and counted.
const QUEUE: usize = 8192;
