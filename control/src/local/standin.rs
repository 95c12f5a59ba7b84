//! The server that stands in for a pod whose image we cannot run: HTTP/1.1 and h2c on one port.
//!
//! `/color` answers the image's tag as Argo's rollouts demo does; every other path answers, in JSON, who was asked and what. How it
//! misbehaves is [`Behaviour`]'s to say. While its pod terminates it keeps serving until nothing is in flight any more.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rand::RngExt as _;
use serde_json::{Map, Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::behaviour::Behaviour;

/// Who a stand-in says it is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// The pod's name.
    pub pod: String,
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's revision: its pod-template hash, empty if it has none.
    pub revision: String,
    /// The image it stands in for.
    pub image: String,
}

/// A stand-in that is bound to its port and waits to serve.
#[derive(Debug)]
pub struct StandIn {
    listener: TcpListener,
    address: SocketAddr,
}

impl StandIn {
    /// Takes this address; port 0 is a free one.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        Ok(Self { listener, address })
    }

    /// The port it took.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Serves until `drain` says otherwise and what follows from it is done. Dropping the future ends everything at once.
    pub async fn serve(
        self,
        identity: Identity,
        behaviour: Behaviour,
        mut drain: watch::Receiver<Option<Drain>>,
    ) {
        let server = Arc::new(Server {
            identity,
            behaviour,
            in_flight: watch::Sender::new(0),
        });
        let goodbye = CancellationToken::new();
        let mut connections = JoinSet::new();
        let end = {
            let mut draining = pin!(drained(&mut drain, server.in_flight.subscribe()));
            loop {
                tokio::select! {
                    biased;
                    end = &mut draining => break end,
                    Some(_) = connections.join_next() => {}
                    accepted = self.listener.accept() => match accepted {
                        Ok((stream, _)) => {
                            connections.spawn(connection(stream, Arc::clone(&server), goodbye.clone()));
                        }
                        Err(error) => {
                            // Out of file descriptors, most likely; those who wait stay in the backlog.
                            tracing::warn!(port = self.address.port(), %error, "accept failed");
                            sleep(ACCEPT_PAUSE).await;
                        }
                    },
                }
            }
        };
        drop(self.listener);
        goodbye.cancel();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout_at(end, all_ended).await.is_err() {
            tracing::debug!(
                port = self.address.port(),
                "connections were cut at the end of the grace period"
            );
        }
    }
}

/// How long a stand-in goes on serving once its pod terminates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Drain {
    /// It serves until here in any case, so that those who send to it have learnt to leave it.
    pub at_least_until: Instant,
    /// It is gone by here in any case.
    pub until: Instant,
}

/// Waits until the stand-in may stop accepting; returns the moment by which its connections must have ended.
async fn drained(
    drain: &mut watch::Receiver<Option<Drain>>,
    mut in_flight: watch::Receiver<usize>,
) -> Instant {
    let now = Instant::now();
    let Ok(begun) = drain.wait_for(Option::is_some).await.map(|drain| *drain) else {
        return now; // Nobody is left who could ask for a drain: the pod's task is gone.
    };
    let Some(Drain {
        at_least_until,
        until,
    }) = begun
    else {
        return now;
    };
    sleep_until(at_least_until.min(until)).await;
    let idle = in_flight.wait_for(|&requests| requests == 0);
    let (Ok(_) | Err(_)) = tokio::time::timeout_at(until, idle).await;
    until
}

#[derive(Debug)]
struct Server {
    identity: Identity,
    behaviour: Behaviour,
    in_flight: watch::Sender<usize>,
}

/// Counts a request for as long as it lives.
struct InFlight<'a>(&'a watch::Sender<usize>);

impl<'a> InFlight<'a> {
    fn begin(requests: &'a watch::Sender<usize>) -> Self {
        requests.send_modify(|requests| *requests += 1);
        Self(requests)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|requests| *requests -= 1);
    }
}

async fn connection(stream: TcpStream, server: Arc<Server>, goodbye: CancellationToken) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "a connection without TCP_NODELAY");
    }
    let first = tokio::select! {
        first = timeout(PREFACE_MAX, is_h2(&stream)) => first,
        () = goodbye.cancelled() => return,
    };
    let Ok(Ok(h2)) = first else { return };
    let io = TokioIo::new(stream);
    let service = service_fn(move |request| answer(Arc::clone(&server), request));
    let ended = if h2 {
        let mut connection =
            pin!(http2::Builder::new(TokioExecutor::new()).serve_connection(io, service));
        tokio::select! {
            ended = &mut connection => ended,
            () = goodbye.cancelled() => { connection.as_mut().graceful_shutdown(); connection.await }
        }
    } else {
        let mut connection = pin!(http1::Builder::new().serve_connection(io, service));
        tokio::select! {
            ended = &mut connection => ended,
            () = goodbye.cancelled() => { connection.as_mut().graceful_shutdown(); connection.await }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to a stand-in broke");
    }
}

/// Whether the client begins with the HTTP/2 preface: no HTTP/1 method begins with `PRI`.
async fn is_h2(stream: &TcpStream) -> io::Result<bool> {
    let mut head = [0; 3];
    loop {
        let seen = stream.peek(&mut head).await?;
        let seen = head.get(..seen).unwrap_or(&head);
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if !b"PRI".starts_with(seen) {
            return Ok(false);
        }
        if seen.len() == head.len() {
            return Ok(true);
        }
        sleep(PEEK_PAUSE).await; // The rest of three bytes is under way; a peek would return at once for ever.
    }
}

async fn answer(
    server: Arc<Server>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let _in_flight = InFlight::begin(&server.in_flight);
    let (head, body) = request.into_parts();
    let Ok(received) = length(body).await else {
        return Ok(plain(
            StatusCode::BAD_REQUEST,
            "the request body broke off\n",
        ));
    };
    let behaviour = &server.behaviour;
    let (luck, spread) = (rand::rng().random::<f64>(), rand::rng().random::<f64>());
    let latency = behaviour.latency + behaviour.jitter.mul_f64(spread);
    if !latency.is_zero() {
        sleep(latency).await;
    }
    let value = match head.uri.path() {
        "/color" => Value::from(behaviour.color.as_str()),
        _ => echo(
            &server.identity,
            &head.method,
            &head.uri,
            &head.headers,
            received,
        ),
    };
    // As the rollouts demo does: a failure still names who made it.
    let status = if luck < behaviour.errors {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    Ok(json_answer(status, &value))
}

/// Reads a body to its end; returns its length in bytes.
async fn length(mut body: Incoming) -> Result<u64, hyper::Error> {
    let mut length = 0;
    while let Some(frame) = body.frame().await {
        length += frame?.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(length)
}

fn echo(
    identity: &Identity,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    received: u64,
) -> Value {
    let Identity {
        pod,
        namespace,
        revision,
        image,
    } = identity;
    let mut shown = Map::new();
    for name in headers.keys() {
        let values: Vec<_> = headers
            .get_all(name)
            .iter()
            .map(|value| String::from_utf8_lossy(value.as_bytes()))
            .collect();
        shown.insert(name.to_string(), Value::from(values.join(", ")));
    }
    json!({
        "pod": pod, "namespace": namespace, "revision": revision, "image": image,
        "method": method.as_str(), "path": uri.path_and_query().map_or("/", |path| path.as_str()),
        "headers": shown, "bodyBytes": received,
    })
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Full<Bytes>> {
    whole(status, "application/json", value.to_string())
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    whole(status, "text/plain; charset=utf-8", text.to_owned())
}

fn whole(status: StatusCode, content_type: &'static str, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// After a failed accept: long enough not to spin, short enough not to be noticed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Between two looks at a connection of which only one or two bytes have come.
const PEEK_PAUSE: Duration = Duration::from_millis(1);
/// A client that has not sent three bytes by then is no client. As long as common servers keep an idle connection.
const PREFACE_MAX: Duration = Duration::from_secs(75);

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hyper::client::conn;
    use tokio::task::JoinHandle;

    use super::*;

    struct Served {
        port: u16,
        drain: watch::Sender<Option<Drain>>,
        task: JoinHandle<()>,
    }

    async fn serve(image: &str, environment: &[(&str, &str)]) -> Served {
        let standin = StandIn::bind((Ipv4Addr::LOCALHOST, 0).into())
            .await
            .unwrap();
        let (drain, draining) = watch::channel(None);
        let identity = Identity {
            pod: "web-x".to_owned(),
            namespace: "default".to_owned(),
            revision: "abc".to_owned(),
            image: image.to_owned(),
        };
        let environment: Vec<_> = environment
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        let behaviour = Behaviour::parse(image, &environment).unwrap();
        let port = standin.port();
        Served {
            port,
            drain,
            task: tokio::spawn(standin.serve(identity, behaviour, draining)),
        }
    }

    fn get(path: &str) -> Request<Full<Bytes>> {
        Request::get(path)
            .header("host", "web")
            .body(Full::default())
            .unwrap()
    }

    async fn h1(port: u16) -> conn::http1::SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))
            .await
            .unwrap();
        let (sender, connection) = conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        drop(tokio::spawn(connection));
        sender
    }

    async fn text(response: Response<Incoming>) -> (StatusCode, String) {
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn color_is_the_tag_on_both_protocols() {
        let served = serve("argoproj/rollouts-demo:blue", &[]).await;
        let mut client = h1(served.port).await;
        let answer = text(client.send_request(get("/color")).await.unwrap()).await;
        assert_eq!(answer, (StatusCode::OK, "\"blue\"".to_owned()));

        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, served.port))
            .await
            .unwrap();
        let (mut client, connection) =
            conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        drop(tokio::spawn(connection));
        let answer = text(client.send_request(get("http://web/color")).await.unwrap()).await;
        assert_eq!(answer, (StatusCode::OK, "\"blue\"".to_owned()));
    }

    #[tokio::test]
    async fn every_other_path_is_an_echo() {
        let served = serve("demo:v1", &[]).await;
        let request = Request::post("/cart?x=1")
            .header("host", "web")
            .body(Full::from("hello"))
            .unwrap();
        let (status, body) = text(h1(served.port).await.send_request(request).await.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        let echo: Value = serde_json::from_str(&body).unwrap();
        let expected = json!({
            "pod": "web-x", "namespace": "default", "revision": "abc", "image": "demo:v1",
            "method": "POST", "path": "/cart?x=1",
            "headers": {"host": "web", "content-length": "5"}, "bodyBytes": 5,
        });
        assert_eq!(echo, expected);
    }

    #[tokio::test]
    async fn error_rate_100_fails_every_request() {
        let served = serve("demo:blue", &[("ERROR_RATE", "100")]).await;
        let (status, _) = text(
            h1(served.port)
                .await
                .send_request(get("/color"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    }

    #[tokio::test]
    async fn while_it_drains_it_serves_and_what_is_in_flight_ends_well() {
        let served = serve("demo:blue", &[("LATENCY_MS", "100")]).await;
        let mut first = h1(served.port).await;
        let in_flight =
            tokio::spawn(
                async move { text(first.send_request(get("/color")).await.unwrap()).await },
            );
        let now = Instant::now();
        let drain = Drain {
            at_least_until: now + Duration::from_millis(50),
            until: now + Duration::from_secs(30),
        };
        served.drain.send(Some(drain)).unwrap();
        let (status, _) = text(
            h1(served.port)
                .await
                .send_request(get("/color"))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(status, StatusCode::OK, "a new connection while it drains");
        assert_eq!(in_flight.await.unwrap().0, StatusCode::OK);
        served.task.await.unwrap();
        assert!(
            TcpStream::connect((Ipv4Addr::LOCALHOST, served.port))
                .await
                .is_err(),
            "gone in the end"
        );
    }

    #[tokio::test]
    async fn a_request_longer_than_the_grace_period_is_cut() {
        let served = serve("demo:blue", &[("LATENCY_MS", "3600000")]).await;
        let mut client = h1(served.port).await;
        let cut = tokio::spawn(async move { client.send_request(get("/color")).await });
        let now = Instant::now();
        served
            .drain
            .send(Some(Drain {
                at_least_until: now,
                until: now + Duration::from_millis(50),
            }))
            .unwrap();
        served.task.await.unwrap();
        assert!(cut.await.unwrap().is_err());
    }
}
