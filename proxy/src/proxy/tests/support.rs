//! What the tests of the whole proxy need: origins, clients, tables.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::live::{Counts, Outcome};
use crate::table::{
    Backend, Endpoint, HostMatch, Parts, PathMatch, Protocol, Route, Rule, Source, Split, Table,
    Target, Version,
};
use crate::{Config, Proxy};

/// Longer than anything here takes, short enough to notice what hangs.
pub(super) const LONG: Duration = Duration::from_secs(20);

/// Fails instead of hanging.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(LONG, future).await.expect("did not happen in time")
}

/// Looks until something is so.
pub(super) async fn eventually(condition: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(2));
    soon(async {
        while !condition() {
            looks.tick().await;
        }
    })
    .await;
}

/// A body that is sent frame by frame.
pub(super) struct Frames(mpsc::Receiver<Frame<Bytes>>);

impl Frames {
    pub(super) fn open() -> (mpsc::Sender<Frame<Bytes>>, Self) {
        let (sender, receiver) = mpsc::channel(16);
        (sender, Self(receiver))
    }

    pub(super) fn of(frames: impl IntoIterator<Item = Frame<Bytes>>) -> Self {
        let (sender, body) = Self::open();
        frames
            .into_iter()
            .for_each(|frame| sender.try_send(frame).unwrap());
        body
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(Ok))
    }
}

pub(super) type AnyBody = http_body_util::combinators::UnsyncBoxBody<Bytes, Infallible>;

pub(super) fn text(text: impl Into<Bytes>) -> AnyBody {
    http_body_util::Full::new(text.into()).boxed_unsync()
}

pub(super) fn empty() -> AnyBody {
    http_body_util::Empty::new().boxed_unsync()
}

pub(super) fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

pub(super) fn trailers(name: &'static str, value: &'static str) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert(name, value.parse().unwrap());
    Frame::trailers(trailers)
}

/// A server in this process.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    connections: watch::Receiver<Connections>,
    task: JoinHandle<()>,
}

/// Connections an origin has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Connections {
    pub(super) ever: usize,
    pub(super) open: usize,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Origin {
    /// Answers by `answer`, over HTTP/1.
    pub(super) async fn http1<A, F>(answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::raw(move |stream| {
            let answer = Arc::clone(&answer);
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .auto_date_header(false)
                    .serve_connection(TokioIo::new(stream), service);
                drop(connection.with_upgrades().await);
            }
        })
        .await
    }

    /// Answers by `answer`, over HTTP/2. Each connection says that it leaves once `leave_after` requests have come.
    pub(super) async fn h2c<A, F>(leave_after: usize, answer: A) -> Self
    where
        A: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
        F: Future<Output = Response<AnyBody>> + Send + 'static,
    {
        let answer = Arc::new(answer);
        Self::raw(move |stream| {
            let answer = Arc::clone(&answer);
            let (count, mut counted) = watch::channel(0);
            let service = service_fn(move |request| {
                count.send_modify(|count| *count += 1);
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            async move {
                let mut connection = pin!(
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .auto_date_header(false)
                        .serve_connection(TokioIo::new(stream), service)
                );
                let left = tokio::select! {
                    ended = connection.as_mut() => return drop(ended),
                    left = counted.wait_for(|&count| count >= leave_after) => left.is_ok(),
                };
                assert!(left, "the service lives as long as the connection");
                connection.as_mut().graceful_shutdown();
                drop(connection.await);
            }
        })
        .await
    }

    /// Does with every connection as `serve` says.
    pub(super) async fn raw<S, F>(serve: S) -> Self
    where
        S: Fn(TcpStream) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (seen, connections) = watch::channel(Connections::default());
        let task = tokio::spawn(async move {
            let seen = Arc::new(seen);
            let mut open = JoinSet::new(); // ends with the origin
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                seen.send_modify(|seen| {
                    seen.ever += 1;
                    seen.open += 1;
                });
                let (served, seen) = (serve(stream), Arc::clone(&seen));
                open.spawn(async move {
                    served.await;
                    seen.send_modify(|seen| seen.open -= 1);
                });
            }
        });
        Self {
            address,
            connections,
            task,
        }
    }

    /// Answers every request with its name, whatever the request's body.
    pub(super) async fn named(name: &'static str) -> Self {
        Self::http1(move |request| async move {
            drop(request.into_body().collect().await);
            Response::new(text(name))
        })
        .await
    }

    pub(super) fn connections(&self) -> Connections {
        *self.connections.borrow()
    }

    pub(super) async fn until(&self, so: impl Fn(&Connections) -> bool) {
        let mut connections = self.connections.clone();
        soon(connections.wait_for(so)).await.unwrap();
    }
}

/// An address at which nothing listens.
pub(super) async fn nowhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap()
}

/// A configuration with one worker that looks at its deadlines often.
pub(super) fn config() -> Config {
    let mut config = Config::new(vec![SocketAddr::from(([127, 0, 0, 1], 0))]);
    config.workers = NonZeroUsize::MIN;
    config.deadlines.tick = Duration::from_millis(20);
    config
}

/// A proxy of one worker that serves `table`.
pub(super) async fn proxy(table: Table) -> Proxy {
    proxy_with(config(), table).await
}

pub(super) async fn proxy_with(config: Config, table: Table) -> Proxy {
    let proxy = Proxy::start(config).unwrap();
    soon(proxy.handle().publish(table)).await;
    soon(proxy.listen()).await.unwrap();
    proxy
}

pub(super) fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint {
        address,
        pod: format!("pod-{address}"),
        ready: true,
        terminating: false,
    }
}

/// All requests go to versions `v0`, `v1` and so on, by weight.
pub(super) fn split(versions: &[(u32, &[SocketAddr])], protocol: Protocol) -> Parts {
    let version = |(index, (_, endpoints)): (usize, &(u32, &[SocketAddr]))| Version {
        name: format!("v{index}"),
        ready: endpoints.len().try_into().unwrap(),
        ..Version::default()
    };
    let weights = versions.iter().map(|(weight, _)| Some(*weight)).collect();
    let split = Split {
        namespace: "shop".into(),
        name: "web".into(),
        uid: "uid-web".into(),
        generation: 3,
        unknown: Vec::new(),
        versions: versions.iter().enumerate().map(version).collect(),
        rules: vec![Rule {
            services: vec!["web".into()],
            weights,
        }],
        ..Split::default()
    };
    let endpoints = versions
        .iter()
        .map(|(_, endpoints)| endpoints.iter().copied().map(endpoint).collect());
    let backend = Backend {
        namespace: "shop".into(),
        service: "web".into(),
        port: "80".into(),
        protocol,
        source: Source::Split {
            split: 0,
            rule: 0,
            endpoints: endpoints.collect(),
        },
    };
    let route = Route {
        host: HostMatch::Any,
        path: PathMatch::Prefix("/".into()),
        target: Target::Backend(0),
    };
    Parts {
        routes: vec![route],
        backends: vec![backend],
        apexes: Vec::new(),
        splits: vec![split],
        own: Vec::new(),
    }
}

pub(super) fn table(parts: Parts) -> Table {
    Table::build(parts).unwrap()
}

/// One version of these endpoints.
pub(super) fn to(endpoints: &[SocketAddr]) -> Table {
    table(split(&[(1, endpoints)], Protocol::Http1))
}

pub(super) fn to_h2c(endpoints: &[SocketAddr]) -> Table {
    table(split(&[(1, endpoints)], Protocol::H2c))
}

/// What the proxy has counted of a version.
pub(super) fn counts(proxy: &Proxy, version: usize) -> Counts {
    proxy.report().splits[0].versions[version].counts.clone()
}

pub(super) fn outcomes(proxy: &Proxy, outcome: Outcome) -> u64 {
    let report = proxy.report();
    report.splits[0]
        .versions
        .iter()
        .map(|version| version.counts.outcomes[outcome.index()])
        .sum()
}

pub(super) fn get(path: &str) -> Request<AnyBody> {
    Request::get(path)
        .header("host", "web")
        .body(empty())
        .unwrap()
}

pub(super) fn post(path: &str, body: AnyBody) -> Request<AnyBody> {
    Request::post(path)
        .header("host", "web")
        .body(body)
        .unwrap()
}

/// A client's connection over HTTP/1.
pub(super) struct Http1(pub(super) http1::SendRequest<AnyBody>);

impl Http1 {
    pub(super) async fn open(address: SocketAddr) -> Self {
        Self::try_open(address)
            .await
            .expect("the proxy takes connections")
    }

    pub(super) async fn try_open(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(async move { drop(connection.with_upgrades().await) });
        Some(Self(sender))
    }

    pub(super) async fn send(
        &mut self,
        request: Request<AnyBody>,
    ) -> hyper::Result<Response<Incoming>> {
        soon(self.0.ready()).await?;
        soon(self.0.send_request(request)).await
    }

    /// Sends a request and reads the answer to its end.
    pub(super) async fn ask(
        &mut self,
        request: Request<AnyBody>,
    ) -> (StatusCode, HeaderMap, Bytes) {
        let response = self.send(request).await.unwrap();
        read(response).await
    }
}

/// A client's connection over HTTP/2.
#[derive(Clone)]
pub(super) struct Http2(pub(super) http2::SendRequest<AnyBody>);

impl Http2 {
    pub(super) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(async move { drop(connection.await) });
        Self(sender)
    }

    /// Sends a request; its target has to be absolute.
    pub(super) async fn send(
        &mut self,
        request: Request<AnyBody>,
    ) -> hyper::Result<Response<Incoming>> {
        soon(self.0.send_request(request)).await
    }
}

pub(super) async fn read(response: Response<Incoming>) -> (StatusCode, HeaderMap, Bytes) {
    let (head, body) = response.into_parts();
    let body = soon(body.collect()).await.unwrap().to_bytes();
    (head.status, head.headers, body)
}

pub(super) fn reason(headers: &HeaderMap) -> &str {
    headers
        .get("x-sidestep-reason")
        .map_or("", |reason| reason.to_str().unwrap())
}
