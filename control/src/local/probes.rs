//! Asking a process whether it is well: the probes of its container.
//!
//! `httpGet` and `tcpSocket` as the kubelet does them, on one machine on the pod's own port whatever port the probe names; `exec` and
//! `grpc` are refused. One difference: until a probe has succeeded for the first time it is also asked early, after 10 ms, 20 ms, 40 ms and so
//! on, then every half second, so that a process that is up in no time is ready in no time. An early failure does not count.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Request};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::place::{self, Place};

/// What is asked, and how the answers count.
#[derive(Clone, Debug, PartialEq)]
pub struct Probe {
    /// What is asked.
    pub check: Check,
    /// Time from the container's start to the first question.
    pub initial_delay: Duration,
    /// Time from question to question.
    pub period: Duration,
    /// Time for an answer.
    pub timeout: Duration,
    /// Good answers in a row after which a failing probe succeeds.
    pub success_threshold: u32,
    /// Bad answers in a row after which a succeeding probe fails.
    pub failure_threshold: u32,
}

/// A question.
#[derive(Clone, Debug, PartialEq)]
pub enum Check {
    /// GET this path with these headers; 200 to 399 is good.
    Http {
        /// The port that is named.
        port: Option<u16>,
        /// Path and query.
        path: String,
        /// Headers to send besides Host.
        headers: Vec<(HeaderName, HeaderValue)>,
    },
    /// A connection is good.
    Tcp {
        /// The port that is named.
        port: Option<u16>,
    },
}

impl Check {
    fn port(&self) -> Option<u16> {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
        }
    }
}

/// Which probe of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// `startupProbe`: the others wait for it; failing ends the container.
    Startup,
    /// `livenessProbe`: failing ends the container.
    Liveness,
    /// `readinessProbe`: failing takes the pod out of its Services.
    Readiness,
}

impl Purpose {
    /// As the kubelet's events begin.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

impl Probe {
    /// What is asked where no readiness probe is given: a connection, until the first succeeds.
    pub const CONNECT: Self = Self {
        check: Check::Tcp { port: None },
        initial_delay: Duration::ZERO,
        period: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        success_threshold: 1,
        failure_threshold: 3,
    };

    /// Reads a probe as it stands in `container`.
    ///
    /// # Errors
    /// What of it cannot be done here, beginning with `field`.
    pub fn parse(probe: &Value, container: &Value, field: &str) -> Result<Self, String> {
        let check = if let Some(get) = probe.get("httpGet") {
            http_check(get, container, field)?
        } else if let Some(tcp) = probe.get("tcpSocket") {
            own_host(tcp, &format!("{field}.tcpSocket"))?;
            Check::Tcp {
                port: place::named(&tcp["port"], container),
            }
        } else {
            let kind = if probe.get("grpc").is_some() {
                "grpc"
            } else {
                "exec"
            };
            return Err(format!(
                "{field}.{kind} is not supported on one machine; use httpGet or tcpSocket"
            ));
        };
        let number = |name: &str, default: u64| {
            probe
                .get(name)
                .and_then(Value::as_u64)
                .filter(|&n| n > 0)
                .unwrap_or(default)
        };
        let count =
            |name: &str, default: u64| u32::try_from(number(name, default)).unwrap_or(u32::MAX);
        Ok(Self {
            check,
            initial_delay: Duration::from_secs(number("initialDelaySeconds", 0)),
            period: Duration::from_secs(number("periodSeconds", 10)),
            timeout: Duration::from_secs(number("timeoutSeconds", 1)),
            success_threshold: count("successThreshold", 1),
            failure_threshold: count("failureThreshold", 3),
        })
    }
}

fn http_check(get: &Value, container: &Value, field: &str) -> Result<Check, String> {
    let field = format!("{field}.httpGet");
    own_host(get, &field)?;
    if get
        .get("scheme")
        .and_then(Value::as_str)
        .is_some_and(|scheme| !scheme.eq_ignore_ascii_case("http"))
    {
        return Err(format!(
            "{field}.scheme: only HTTP is supported on one machine"
        ));
    }
    let path = get
        .get("path")
        .and_then(Value::as_str)
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let path = if path.starts_with('/') {
        path.to_owned()
    } else {
        format!("/{path}")
    };
    path.parse::<http::uri::PathAndQuery>()
        .map_err(|error| format!("{field}.path: {path:?}: {error}"))?;
    let headers = get
        .get("httpHeaders")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let headers = headers
        .map(header)
        .collect::<Option<_>>()
        .ok_or_else(|| format!("{field}.httpHeaders: not a valid header"))?;
    Ok(Check::Http {
        port: place::named(&get["port"], container),
        path,
        headers,
    })
}

fn header(header: &Value) -> Option<(HeaderName, HeaderValue)> {
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    Some((
        text("name")?.parse().ok()?,
        text("value").unwrap_or_default().parse().ok()?,
    ))
}

fn own_host(action: &Value, field: &str) -> Result<(), String> {
    match action.get("host").and_then(Value::as_str) {
        None | Some("" | "localhost" | "127.0.0.1") => Ok(()),
        Some(host) => Err(format!(
            "{field}.host: {host:?} is not the pod; leave it out"
        )),
    }
}

/// What a probe has to say: it changed its mind, or it got a bad answer that does not change it yet.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// Which probe.
    pub purpose: Purpose,
    /// The probe's opinion, thresholds applied. A start-up probe says it when it succeeds, and the others begin.
    pub well: bool,
    /// The last bad answer, if this is about one.
    pub complaint: Option<String>,
}

/// The probes of one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Probes {
    /// `startupProbe`.
    pub startup: Option<Probe>,
    /// `livenessProbe`.
    pub liveness: Option<Probe>,
    /// `readinessProbe`; without one a connection is enough.
    pub readiness: Option<Probe>,
}

impl Probes {
    /// Asks for as long as the returned tasks live (dropping them ends it) and tells `verdicts`.
    pub fn start(&self, place: Place, verdicts: &mpsc::Sender<Verdict>) -> JoinSet<()> {
        let Self {
            startup,
            liveness,
            readiness,
        } = self.clone();
        let verdicts = verdicts.clone();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            if let Some(startup) = startup {
                ask(Purpose::Startup, &startup, place, &verdicts, true).await;
            }
            let living = async {
                if let Some(liveness) = liveness {
                    ask(Purpose::Liveness, &liveness, place, &verdicts, false).await;
                }
            };
            let once = readiness.is_none();
            let readiness = readiness.unwrap_or(Probe::CONNECT);
            tokio::join!(
                living,
                ask(Purpose::Readiness, &readiness, place, &verdicts, once)
            );
        });
        tasks
    }
}

/// Asks until nobody listens any more, or, if `once`, until the first success.
async fn ask(
    purpose: Purpose,
    probe: &Probe,
    place: Place,
    verdicts: &mpsc::Sender<Verdict>,
    once: bool,
) {
    sleep(probe.initial_delay).await;
    let mut tally = Tally::of(purpose);
    let mut next = Instant::now();
    loop {
        next += probe.period;
        let mut answer = attempt(&probe.check, place, probe.timeout).await;
        let mut pause = EARLY_FIRST;
        while answer.is_err() && !tally.succeeded && Instant::now() + pause < next {
            sleep(pause).await;
            pause = (pause * 2).min(EARLY_MAX);
            answer = attempt(&probe.check, place, probe.timeout).await;
        }
        let changed = tally.count(answer.is_ok(), probe);
        let verdict = Verdict {
            purpose,
            well: tally.well,
            complaint: answer.err(),
        };
        let last = once && tally.succeeded;
        let telling = changed || last || verdict.complaint.is_some();
        if telling && verdicts.send(verdict).await.is_err() || last {
            return;
        }
        next = next.max(Instant::now());
        sleep_until(next).await;
    }
}

/// Answers in a row.
#[derive(Debug, PartialEq)]
struct Tally {
    well: bool,
    succeeded: bool,
    same: u32,
}

impl Tally {
    /// A process is alive until a probe says otherwise, and is not ready before one says so.
    fn of(purpose: Purpose) -> Self {
        Self {
            well: purpose != Purpose::Readiness,
            succeeded: false,
            same: 0,
        }
    }

    /// Counts an answer; says whether that changed the opinion.
    fn count(&mut self, good: bool, probe: &Probe) -> bool {
        if good == self.well {
            self.same = 0;
            self.succeeded |= good;
            return false;
        }
        self.same += 1;
        let threshold = if good {
            probe.success_threshold
        } else {
            probe.failure_threshold
        };
        if self.same < threshold {
            return false;
        }
        *self = Self {
            well: good,
            succeeded: self.succeeded || good,
            same: 0,
        };
        true
    }
}

/// Asks once.
///
/// # Errors
/// The kubelet's words for what was wrong.
pub(super) async fn attempt(check: &Check, place: Place, limit: Duration) -> Result<(), String> {
    let address = place.of(check.port());
    let asked = async {
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|error| format!("dial tcp {address}: {error}"))?;
        match check {
            Check::Tcp { .. } => Ok(()),
            Check::Http { path, headers, .. } => get(stream, address, path, headers).await,
        }
    };
    timeout(limit, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
}

async fn get(
    stream: TcpStream,
    address: SocketAddr,
    path: &str,
    headers: &[(HeaderName, HeaderValue)],
) -> Result<(), String> {
    let broken = |error: hyper::Error| format!("Get \"http://{address}{path}\": {error}");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let mut request = Request::get(path)
        .header(http::header::USER_AGENT, "kube-probe/sidestep")
        .header(http::header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| error.to_string())?;
    for (name, value) in headers {
        request.headers_mut().insert(name, value.clone());
    }
    let own_host = HeaderValue::try_from(address.to_string()).map_err(|error| error.to_string())?;
    request
        .headers_mut()
        .entry(http::header::HOST)
        .or_insert(own_host);
    let response = tokio::select! {
        response = sender.send_request(request) => response.map_err(broken)?,
        Err(error) = connection => return Err(broken(error)),
    };
    let code = response.status().as_u16();
    if (200..400).contains(&code) {
        Ok(())
    } else {
        Err(format!("HTTP probe failed with statuscode: {code}"))
    }
}

/// The first pause between two early questions; each is twice the one before.
const EARLY_FIRST: Duration = Duration::from_millis(10);
/// The longest pause between two early questions.
const EARLY_MAX: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_probe_has_the_kubelets_defaults() {
        let probe = Probe::parse(
            &json!({"httpGet": {"port": "http"}}),
            &json!({"ports": [{"name": "http", "containerPort": 8001}]}),
            "readinessProbe",
        )
        .unwrap();
        let seconds = Duration::from_secs;
        let expected = Probe {
            check: Check::Http {
                port: Some(8001),
                path: "/".to_owned(),
                headers: vec![],
            },
            initial_delay: seconds(0),
            period: seconds(10),
            timeout: seconds(1),
            success_threshold: 1,
            failure_threshold: 3,
        };
        assert_eq!(probe, expected);
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_name() {
        let check = |probe: Value, complaint: &str| {
            assert_eq!(
                Probe::parse(&probe, &Value::Null, "livenessProbe").unwrap_err(),
                complaint
            );
        };
        check(
            json!({"exec": {"command": ["true"]}}),
            "livenessProbe.exec is not supported on one machine; use httpGet or tcpSocket",
        );
        check(
            json!({"grpc": {"port": 1}}),
            "livenessProbe.grpc is not supported on one machine; use httpGet or tcpSocket",
        );
        check(
            json!({"httpGet": {"port": 1, "scheme": "HTTPS"}}),
            "livenessProbe.httpGet.scheme: only HTTP is supported on one machine",
        );
        check(
            json!({"tcpSocket": {"port": 1, "host": "example.org"}}),
            "livenessProbe.tcpSocket.host: \"example.org\" is not the pod; leave it out",
        );
    }

    /// Answers as letters, `+` good and `-` bad; the opinion after each, `+` well and `-` not.
    fn opinions(purpose: Purpose, answers: &str) -> String {
        let probe = Probe {
            success_threshold: 2,
            failure_threshold: 3,
            ..Probe::CONNECT
        };
        let mut tally = Tally::of(purpose);
        let mut opinion = |answer| {
            tally.count(answer == '+', &probe);
            if tally.well { '+' } else { '-' }
        };
        answers.chars().map(&mut opinion).collect()
    }

    #[test]
    fn thresholds_count_answers_in_a_row() {
        let check = |purpose: Purpose, answers: &str, expected: &str| {
            assert_eq!(
                opinions(purpose, answers),
                expected,
                "{purpose:?} {answers}"
            );
        };
        check(Purpose::Readiness, "---+-++", "------+");
        check(Purpose::Readiness, "++--+---++", "-++++++--+");
        check(Purpose::Liveness, "--+---", "+++++-");
    }

    #[tokio::test]
    async fn a_server_that_listens_later_is_ready_as_soon_as_it_does() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let (verdicts, mut said) = mpsc::channel(1);
        let slow = Probe {
            period: Duration::from_secs(3600),
            ..Probe::CONNECT
        };
        let probes = Probes {
            startup: None,
            liveness: None,
            readiness: Some(slow),
        };
        let place = Place {
            address: Ipv4Addr::LOCALHOST.into(),
            port,
            is_given: true,
        };
        let asking = probes.start(place, &verdicts);
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let verdict = said.recv().await.unwrap();
        assert_eq!(
            verdict,
            Verdict {
                purpose: Purpose::Readiness,
                well: true,
                complaint: None
            }
        );
        drop(asking);
    }
}
