//! Requests and responses on their way through.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use super::support::*;
use crate::config::AccessLog;
use crate::live::Outcome;
use crate::table::Protocol;

#[tokio::test]
async fn connections_are_kept_and_used_again() {
    let origin = Origin::http1(|request| async move {
        let chunked = request.uri().path() == "/chunked";
        let empty_body = request.uri().path() == "/empty";
        let sent = request.into_body().collect().await.unwrap().to_bytes();
        match (chunked, empty_body) {
            (true, _) => Response::new(BodyExt::boxed_unsync(Frames::of([data("a"), data("b")]))),
            (_, true) => Response::builder().status(204).body(empty()).unwrap(),
            (false, false) => Response::new(text(sent)),
        }
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    for _ in 0..5 {
        assert_eq!(client.ask(get("/")).await.2, "");
        assert_eq!(client.ask(get("/chunked")).await.2, "ab");
        assert_eq!(client.ask(get("/empty")).await.0, 204);
        assert_eq!(client.ask(post("/", text("hello"))).await.2, "hello");
        assert_eq!(
            client
                .ask(post(
                    "/",
                    BodyExt::boxed_unsync(Frames::of([data("a"), data("b")]))
                ))
                .await
                .2,
            "ab"
        );
        let head = Request::head("/chunked")
            .header("host", "web")
            .body(empty())
            .unwrap();
        assert_eq!(client.ask(head).await.0, 200);
    }
    assert_eq!(origin.connections().ever, 1);
    let counts = counts(&proxy, 0);
    assert_eq!(
        (counts.requests(), counts.connects, counts.in_flight),
        (30, 1, 0)
    );
    assert_eq!(counts.outcomes[Outcome::Ok.index()], 30);
}

#[tokio::test]
async fn idle_connections_close_after_their_time() {
    let origin = Origin::named("v0").await;
    let mut config = config();
    config.deadlines.upstream_idle = Duration::from_millis(50);
    let proxy = proxy_with(config, to(&[origin.address])).await;
    Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    origin.until(|seen| seen.ever == 1 && seen.open == 0).await;
}

#[tokio::test]
async fn connections_to_endpoints_that_leave_close_at_once() {
    let (leaving, staying) = (Origin::named("v0").await, Origin::named("v1").await);
    let parts = || {
        split(
            &[(1, &[leaving.address]), (1, &[staying.address])],
            Protocol::Http1,
        )
    };
    let proxy = proxy(table(parts())).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    for _ in 0..4 {
        client.ask(get("/")).await;
    }
    assert_eq!(
        (leaving.connections().open, staying.connections().open),
        (1, 1)
    );
    let mut terminating = parts();
    let crate::table::Source::Split { endpoints, .. } = &mut terminating.backends[0].source else {
        panic!()
    };
    endpoints[0][0].terminating = true;
    soon(proxy.handle().publish(table(terminating))).await;
    leaving.until(|seen| seen.open == 0).await;
    assert_eq!(staying.connections().open, 1);
}

#[tokio::test]
async fn what_an_endpoint_that_leaves_has_in_flight_is_finished() {
    let go = Arc::new(tokio::sync::Notify::new());
    let origin = Origin::http1({
        let go = Arc::clone(&go);
        move |request| {
            let go = Arc::clone(&go);
            async move {
                if request.uri().path() == "/slow" {
                    go.notified().await;
                }
                Response::new(text("v0"))
            }
        }
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut slow = Http1::open(proxy.local_addr()).await;
    let slow = tokio::spawn(async move { slow.ask(get("/slow")).await.2 });
    origin.until(|seen| seen.open == 1).await;
    assert_eq!(
        Http1::open(proxy.local_addr()).await.ask(get("/")).await.2,
        "v0"
    );
    assert_eq!(origin.connections().open, 2, "one busy, one idle");
    soon(proxy.handle().publish(to(&[]))).await;
    origin.until(|seen| seen.open == 1).await;
    go.notify_waiters();
    assert_eq!(soon(slow).await.unwrap(), "v0");
    origin.until(|seen| seen.open == 0).await;
}

/// Sends one request through and shows what the origin saw.
async fn seen_by_origin(
    request: Request<AnyBody>,
    over_http2: bool,
    protocol: Protocol,
) -> (Version, String, HeaderMap) {
    let (saw, mut seen) = mpsc::channel(1);
    let answer = move |request: Request<hyper::body::Incoming>| {
        let saw = saw.clone();
        async move {
            let (head, _) = request.into_parts();
            saw.send((head.version, head.uri.to_string(), head.headers))
                .await
                .unwrap();
            Response::new(empty())
        }
    };
    let origin = match protocol {
        Protocol::Http1 => Origin::http1(answer).await,
        Protocol::H2c => Origin::h2c(usize::MAX, answer).await,
    };
    let proxy = proxy(table(split(&[(1, &[origin.address])], protocol))).await;
    let status = if over_http2 {
        Http2::open(proxy.local_addr())
            .await
            .send(request)
            .await
            .unwrap()
            .status()
    } else {
        Http1::open(proxy.local_addr())
            .await
            .send(request)
            .await
            .unwrap()
            .status()
    };
    assert_eq!(status, 200);
    soon(seen.recv()).await.unwrap()
}

#[tokio::test]
async fn each_protocol_reaches_each_protocol() {
    let h1 = || {
        Request::get("/a?b")
            .header("host", "web:81")
            .body(empty())
            .unwrap()
    };
    let h2 = || Request::get("http://web:81/a?b").body(empty()).unwrap();
    let cases = [
        (h1(), false, Protocol::Http1, Version::HTTP_11, "/a?b"),
        (
            h1(),
            false,
            Protocol::H2c,
            Version::HTTP_2,
            "http://web:81/a?b",
        ),
        (h2(), true, Protocol::Http1, Version::HTTP_11, "/a?b"),
        (
            h2(),
            true,
            Protocol::H2c,
            Version::HTTP_2,
            "http://web:81/a?b",
        ),
    ];
    for (request, over_http2, protocol, version, target) in cases {
        let (got, uri, headers) = seen_by_origin(request, over_http2, protocol).await;
        let case = format!("over_http2 = {over_http2}, protocol = {protocol:?}");
        assert_eq!((got, uri.as_str()), (version, target), "{case}");
        assert_eq!(headers["x-forwarded-for"], "127.0.0.1", "{case}");
        assert_eq!(headers["x-forwarded-host"], "web:81", "{case}");
        let host = headers.get("host").map(|host| host.to_str().unwrap());
        assert_eq!(
            host,
            (protocol == Protocol::Http1).then_some("web:81"),
            "{case}"
        );
    }
}

#[tokio::test]
async fn frames_pass_as_they_come() {
    let (started, mut bodies) = mpsc::channel(1);
    let origin = Origin::http1(move |request| {
        let started = started.clone();
        async move {
            let (sender, body) = Frames::open();
            started.send((request.into_body(), sender)).await.unwrap();
            Response::new(BodyExt::boxed_unsync(body))
        }
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let (upload, body) = Frames::open();
    let mut client = Http1::open(proxy.local_addr()).await;
    let mut response = client
        .send(post("/", BodyExt::boxed_unsync(body)))
        .await
        .unwrap()
        .into_body();
    let (mut request, download) = soon(bodies.recv()).await.unwrap();
    for word in ["one", "two", "three"] {
        upload.send(data(word)).await.unwrap();
        assert_eq!(
            soon(request.frame())
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap(),
            word
        );
        download.send(data(word)).await.unwrap();
        assert_eq!(
            soon(response.frame())
                .await
                .unwrap()
                .unwrap()
                .into_data()
                .unwrap(),
            word
        );
    }
    drop((upload, download));
    assert!(soon(request.frame()).await.is_none());
    assert!(soon(response.frame()).await.is_none());
}

async fn echo_trailers(request: Request<hyper::body::Incoming>) -> Response<AnyBody> {
    let collected = request.into_body().collect().await.unwrap();
    let found = collected
        .trailers()
        .is_some_and(|trailers| trailers["x-sum"] == "up");
    let body = Frames::of([
        data(if found { "found" } else { "lost" }),
        trailers("x-sum", "down"),
    ]);
    Response::builder()
        .header("trailer", "x-sum")
        .body(BodyExt::boxed_unsync(body))
        .unwrap()
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let h1 = Origin::http1(echo_trailers).await;
    let h2 = Origin::h2c(usize::MAX, echo_trailers).await;
    let over_h1 = proxy(to(&[h1.address])).await;
    let over_h2 = proxy(to_h2c(&[h2.address])).await;
    let body = || BodyExt::boxed_unsync(Frames::of([data("x"), trailers("x-sum", "up")]));
    let request = |target: &str| {
        let request = Request::post(target)
            .header("te", "trailers")
            .header("trailer", "x-sum");
        let request = if target.starts_with('/') {
            request.header("host", "web")
        } else {
            request
        };
        request.body(body()).unwrap()
    };
    let responses = [
        Http1::open(over_h1.local_addr())
            .await
            .send(request("/"))
            .await
            .unwrap(),
        Http1::open(over_h2.local_addr())
            .await
            .send(request("/"))
            .await
            .unwrap(),
        Http2::open(over_h1.local_addr())
            .await
            .send(request("http://web/"))
            .await
            .unwrap(),
        Http2::open(over_h2.local_addr())
            .await
            .send(request("http://web/"))
            .await
            .unwrap(),
    ];
    for response in responses {
        let collected = soon(response.into_body().collect()).await.unwrap();
        assert_eq!(
            collected
                .trailers()
                .map(|trailers| trailers["x-sum"].clone())
                .unwrap(),
            "down"
        );
        assert_eq!(collected.to_bytes(), "found");
    }
}

#[tokio::test]
async fn trailers_that_are_not_announced_are_counted_as_lost() {
    let origin = Origin::h2c(usize::MAX, |_| async {
        Response::new(BodyExt::boxed_unsync(Frames::of([
            data("x"),
            trailers("grpc-status", "0"),
        ])))
    })
    .await;
    let proxy = proxy(to_h2c(&[origin.address])).await;
    Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!(
        proxy.handle().fronts()[0].downstream_errors()["undeclared-trailers"],
        1
    );
    let mut h2 = Http2::open(proxy.local_addr()).await;
    let response = h2
        .send(Request::get("http://web/").body(empty()).unwrap())
        .await
        .unwrap();
    let collected = soon(response.into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
    assert_eq!(
        proxy.handle().fronts()[0].downstream_errors()["undeclared-trailers"],
        1
    );
}

#[tokio::test]
async fn upgraded_connections_become_tunnels() {
    let origin = Origin::http1(|mut request: Request<hyper::body::Incoming>| async move {
        let asked = request.headers()["upgrade"] == "websocket"
            && request.headers()["connection"] == "upgrade";
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let (mut read, mut write) = tokio::io::split(TokioIo::new(upgraded.await.unwrap()));
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            write.shutdown().await.unwrap();
        });
        let status = if asked {
            StatusCode::SWITCHING_PROTOCOLS
        } else {
            StatusCode::BAD_REQUEST
        };
        let response = Response::builder()
            .status(status)
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        response.body(empty()).unwrap()
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    let request = Request::get("/chat")
        .header("host", "web")
        .header("connection", "Upgrade")
        .header("upgrade", "websocket");
    let mut response = client.send(request.body(empty()).unwrap()).await.unwrap();
    assert_eq!(
        (response.status().as_u16(), &response.headers()["upgrade"]),
        (101, &"websocket".parse().unwrap())
    );
    let mut tunnel = TokioIo::new(soon(hyper::upgrade::on(&mut response)).await.unwrap());
    for word in ["one", "two"] {
        tunnel.write_all(word.as_bytes()).await.unwrap();
        let mut echo = vec![0; word.len()];
        soon(tunnel.read_exact(&mut echo)).await.unwrap();
        assert_eq!(echo, word.as_bytes());
    }
    assert_eq!(counts(&proxy, 0).in_flight, 1, "a tunnel is in flight");
    tunnel.shutdown().await.unwrap();
    let mut rest = Vec::new();
    soon(tunnel.read_to_end(&mut rest)).await.unwrap();
    eventually(|| outcomes(&proxy, Outcome::Ok) == 1 && counts(&proxy, 0).in_flight == 0).await;
    assert_eq!(
        counts(&proxy, 0).timed(),
        0,
        "how long a tunnel lasts says nothing"
    );
}

#[tokio::test]
async fn a_switch_nobody_asked_for_is_refused() {
    let origin = Origin::raw(|mut stream| async move {
        let mut head = [0; 1024];
        drop(stream.read(&mut head).await);
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
            )
            .await
            .unwrap();
        drop(stream.read(&mut head).await);
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let (status, _, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!(status, 502);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin =
        Origin::http1(
            |request| async move { Response::new(text(request.uri().path().to_owned())) },
        )
        .await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut stream = TcpStream::connect(proxy.local_addr()).await.unwrap();
    let head = |path: &str, more: &str| format!("GET {path} HTTP/1.1\r\nhost: web\r\n{more}\r\n");
    let sent = [
        head("/1", ""),
        head("/2", ""),
        head("/3", "connection: close\r\n"),
    ]
    .concat();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    let bodies: Vec<_> = answer
        .split("HTTP/1.1 200 OK")
        .skip(1)
        .map(|part| part.split("\r\n\r\n").nth(1).unwrap())
        .collect();
    assert_eq!(bodies, ["/1", "/2", "/3"]);
}

#[tokio::test]
async fn a_client_that_leaves_is_counted_and_its_upstream_connection_closed() {
    let origin = Origin::raw(|mut stream| async move {
        let mut head = [0; 1024];
        while stream.read(&mut head).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut stream = TcpStream::connect(proxy.local_addr()).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        .await
        .unwrap();
    origin.until(|seen| seen.open == 1).await;
    drop(stream);
    origin.until(|seen| seen.open == 0).await;
    eventually(|| outcomes(&proxy, Outcome::ClientAbort) == 1 && counts(&proxy, 0).in_flight == 0)
        .await;
}

#[tokio::test]
async fn a_response_that_breaks_off_breaks_off_for_the_client() {
    let origin = Origin::raw(|mut stream| async move {
        let mut head = [0; 1024];
        drop(stream.read(&mut head).await);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await
            .unwrap();
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let response = Http1::open(proxy.local_addr())
        .await
        .send(get("/"))
        .await
        .unwrap();
    assert!(soon(response.into_body().collect()).await.is_err());
    assert_eq!(outcomes(&proxy, Outcome::UpstreamResetInBody), 1);
}

#[tokio::test]
async fn a_response_body_that_stalls_is_cut() {
    let origin = Origin::raw(|mut stream| async move {
        let mut head = [0; 1024];
        drop(stream.read(&mut head).await);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
            .await
            .unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut config = config();
    config.deadlines.body_idle = Duration::from_millis(50);
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let response = Http1::open(proxy.local_addr())
        .await
        .send(get("/"))
        .await
        .unwrap();
    assert!(soon(response.into_body().collect()).await.is_err());
    assert_eq!(outcomes(&proxy, Outcome::UpstreamTimeout), 1);
}

#[tokio::test]
async fn a_request_body_that_stalls_is_the_clients_fault() {
    let origin = Origin::named("v0").await;
    let mut config = config();
    config.deadlines.body_idle = Duration::from_millis(50);
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let (upload, body) = Frames::open();
    upload.send(data("half")).await.unwrap();
    let (status, headers, _) = Http1::open(proxy.local_addr())
        .await
        .ask(post("/", BodyExt::boxed_unsync(body)))
        .await;
    assert_eq!(
        (status.as_u16(), reason(&headers)),
        (408, "request-body-idle")
    );
    assert_eq!(outcomes(&proxy, Outcome::ClientAbort), 1);
}

#[tokio::test]
async fn an_answer_may_come_before_the_request_has_ended() {
    let origin = Origin::http1(|request| async move {
        if request.method() == Method::POST {
            return Response::builder()
                .status(413)
                .body(text("too much"))
                .unwrap();
        }
        Response::new(text("fine"))
    })
    .await;
    let proxy = proxy(to(&[origin.address])).await;
    let (upload, body) = Frames::open();
    upload.send(data("a beginning")).await.unwrap();
    let mut client = Http1::open(proxy.local_addr()).await;
    let (status, _, body) = client.ask(post("/", BodyExt::boxed_unsync(body))).await;
    assert_eq!((status.as_u16(), &*body), (413, &b"too much"[..]));
    drop(upload);
    let (status, _, body) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!((status.as_u16(), &*body), (200, &b"fine"[..]));
    assert_eq!(outcomes(&proxy, Outcome::Ok), 2);
}

#[tokio::test]
async fn many_streams_share_a_connection_each_side() {
    let waiting = Arc::new(tokio::sync::Barrier::new(50));
    let origin = Origin::h2c(usize::MAX, move |_| {
        let waiting = Arc::clone(&waiting);
        async move {
            waiting.wait().await; // all are in flight at once
            Response::new(text("v0"))
        }
    })
    .await;
    let proxy = proxy(to_h2c(&[origin.address])).await;
    let client = Http2::open(proxy.local_addr()).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let mut client = client.clone();
        requests.spawn(async move {
            let response = client
                .send(Request::get("http://web/").body(empty()).unwrap())
                .await
                .unwrap();
            read(response).await.2
        });
    }
    assert!(
        soon(requests.join_all())
            .await
            .iter()
            .all(|body| body == "v0")
    );
    assert_eq!(origin.connections().ever, 1);
}

#[tokio::test]
async fn the_access_log_tells_of_each_request() {
    let origin = Origin::named("v0").await;
    let path = std::env::temp_dir().join(format!("sidestep-access-{}.log", std::process::id()));
    let mut config = config();
    config.access_log = AccessLog::File(path.clone());
    config.drain.grace = Duration::ZERO;
    let proxy = proxy_with(config, to(&[origin.address])).await;
    Http1::open(proxy.local_addr())
        .await
        .ask(get("/a\"b?c"))
        .await;
    soon(proxy.drain()).await;
    let log = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(path).unwrap();
    let expected = format!(
        r#""method":"GET","host":"web","path":"/a\"b?c","namespace":"shop","split":"web","version":"v0","revision":"","generation":3,"why":"weight","endpoint":"{}","attempts":1,"status":200,"outcome":"ok","bytes":2,"headMs":"#,
        origin.address
    );
    assert!(log.contains(&expected), "{log}");
    assert_eq!(log.lines().count(), 1);
}
