//! What the proxy says by itself, and when.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::support::*;
use crate::config::{Apexes, Config};
use crate::live::Outcome;
use crate::proxy::Error;
use crate::table::{Apex, HostMatch, PathMatch, Protocol, Refusal, Route, Target};
use crate::{Proxy, Table};

/// Sends bytes as they are, and reads until the proxy has closed.
async fn raw(proxy: &Proxy, sent: &str) -> String {
    let mut stream = TcpStream::connect(proxy.local_addr()).await.unwrap();
    stream.write_all(sent.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

#[track_caller]
fn check(sent: &str, answer: &str, status: &str, reason: &str) {
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .unwrap_or_else(|| panic!("{sent:?} got {answer:?}"));
    assert!(
        head.starts_with(&format!("HTTP/1.1 {status} "))
            || head.starts_with(&format!("HTTP/1.0 {status} ")),
        "{sent:?} got {answer:?}"
    );
    assert!(
        head.contains(&format!("\r\nx-sidestep-reason: {reason}\r\n")),
        "{sent:?} got {answer:?}"
    );
    assert!(
        !body.is_empty() && body.len() < 100,
        "{sent:?} got {answer:?}"
    );
}

#[tokio::test]
async fn every_refusal_has_its_status_and_reason() {
    let origin = Origin::named("v0").await;
    let mut parts = split(&[(1, &[origin.address])], Protocol::Http1);
    parts.routes = vec![
        Route {
            host: HostMatch::Exact("web".into()),
            path: PathMatch::Prefix("/".into()),
            target: Target::Backend(0),
        },
        Route {
            host: HostMatch::Exact("closed".into()),
            path: PathMatch::Prefix("/".into()),
            target: Target::Refuse(Refusal {
                status: 503,
                reason: "no-service".into(),
                message: "the Service is gone".into(),
            }),
        },
    ];
    let proxy = proxy(table(parts)).await;
    let long = format!(
        "GET /{} HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n",
        "a".repeat(9_000)
    );
    let round = format!(
        "GET / HTTP/1.1\r\nhost: web\r\nx-sidestep-hop: {}\r\nconnection: close\r\n\r\n",
        proxy.instance()
    );
    let cases = [
        (
            "GET / HTTP/1.1\r\nconnection: close\r\n\r\n",
            "400",
            "host-missing",
        ),
        (
            "GET / HTTP/1.1\r\nhost: web\r\nhost: web\r\nconnection: close\r\n\r\n",
            "400",
            "host-duplicate",
        ),
        (
            "GET / HTTP/1.1\r\nhost: a@web\r\nconnection: close\r\n\r\n",
            "400",
            "host-malformed",
        ),
        (
            "GET / HTTP/1.1\r\nhost: other\r\nconnection: close\r\n\r\n",
            "404",
            "no-route",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "404", "no-route"),
        (
            "CONNECT web:80 HTTP/1.1\r\nhost: web:80\r\nconnection: close\r\n\r\n",
            "405",
            "method-refused",
        ),
        (
            "TRACE / HTTP/1.1\r\nhost: web\r\nconnection: close\r\n\r\n",
            "405",
            "method-refused",
        ),
        (&long, "414", "uri-too-long"),
        (
            "POST / HTTP/1.1\r\nhost: web\r\ntransfer-encoding: gzip, chunked\r\nconnection: close\r\n\r\n0\r\n\r\n",
            "501",
            "transfer-coding",
        ),
        (&round, "508", "loop"),
        (
            "GET / HTTP/1.1\r\nhost: closed\r\nconnection: close\r\n\r\n",
            "503",
            "no-service",
        ),
    ];
    for (sent, status, reason) in cases {
        let answer = raw(&proxy, sent).await;
        check(sent, &answer, status, reason);
    }
    assert_eq!(
        origin.connections().ever,
        0,
        "none of these goes to an endpoint"
    );
}

#[tokio::test]
async fn http_1_0_without_host_goes_to_the_default_route() {
    let origin = Origin::named("v0").await;
    let proxy = proxy(to(&[origin.address])).await;
    let answer = raw(&proxy, "GET / HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("\r\n\r\nv0"),
        "{answer:?}"
    );
}

#[tokio::test]
async fn before_the_first_table_connections_are_refused() {
    let proxy = Proxy::start(config()).unwrap();
    let mut listens = Box::pin(proxy.listen());
    assert!(futures::poll!(&mut listens).is_pending());
    let refused = TcpStream::connect(proxy.local_addr()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(
        (proxy.report().serial, *proxy.listening().borrow()),
        (0, false)
    );

    soon(proxy.handle().publish(Table::default())).await;
    soon(listens).await.unwrap();
    assert!(*proxy.listening().borrow());
    let mut client = Http1::open(proxy.local_addr()).await;
    let (status, headers, _) = client.ask(get("/")).await;
    assert_eq!((status.as_u16(), reason(&headers)), (404, "no-route"));
}

#[tokio::test]
async fn a_proxy_that_never_listened_drains_at_once() {
    let mut config = config();
    config.drain.grace = std::time::Duration::from_secs(3600);
    let proxy = Proxy::start(config).unwrap();
    soon(proxy.drain()).await;
}

#[tokio::test]
async fn a_version_that_cannot_take_a_request_refuses_it() {
    let origin = Origin::named("v0").await;
    let cases: [(&[(u32, &[_])], &str); 3] = [
        (&[(0, &[origin.address])], "no-weight"),
        (&[(1, &[])], "no-ready-endpoints"),
        (&[(1, &[]), (0, &[origin.address])], "no-ready-endpoints"),
    ];
    for (versions, expected) in cases {
        let proxy = proxy(table(split(versions, Protocol::Http1))).await;
        let (status, headers, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
        assert_eq!(
            (status.as_u16(), reason(&headers)),
            (503, expected),
            "versions = {versions:?}"
        );
    }
}

#[tokio::test]
async fn a_silent_endpoint_is_a_504() {
    let origin = Origin::raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut config = config();
    config.deadlines.response_head = std::time::Duration::from_millis(50);
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let (status, headers, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!(
        (status.as_u16(), reason(&headers)),
        (504, "upstream-timeout")
    );
    assert_eq!(outcomes(&proxy, Outcome::UpstreamTimeout), 1);
    assert_eq!(counts(&proxy, 0).in_flight, 0);
}

#[tokio::test]
async fn an_endpoint_that_takes_too_long_in_all_is_a_504() {
    let origin = Origin::raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut config = config();
    config.deadlines.total = Some(std::time::Duration::from_millis(50));
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let (status, headers, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!((status.as_u16(), reason(&headers)), (504, "total-timeout"));
}

#[tokio::test]
async fn what_is_over_the_limit_of_waiting_requests_is_refused() {
    let origin = Origin::raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut config = config();
    config.limits.pending_per_worker = std::num::NonZeroUsize::MIN;
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let mut first = Http1::open(proxy.local_addr()).await;
    let waits = tokio::spawn(async move { first.send(get("/")).await });
    origin.until(|seen| seen.open == 1).await;
    let (status, headers, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!((status.as_u16(), reason(&headers)), (503, "overloaded"));
    waits.abort();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let first = Proxy::start(config()).unwrap();
    let mut taken = config();
    taken.listen = vec![first.local_addr()];
    let named = |error: Error| {
        let said = format!("listening at {}", first.local_addr());
        assert_eq!(error.to_string(), said);
        let Error::Listen { source, .. } = error else {
            panic!("{error:?}")
        };
        assert_eq!(source.kind(), ErrorKind::AddrInUse);
    };
    // The address of one that does not listen yet can be taken once more, but only one can listen there.
    let second = Proxy::start(taken.clone()).unwrap();
    for proxy in [&first, &second] {
        soon(proxy.handle().publish(Table::default())).await;
    }
    first.listen().await.unwrap();
    named(second.listen().await.unwrap_err());
    named(Proxy::start(taken).unwrap_err());
}

#[tokio::test]
async fn garbage_is_answered_by_hyper_and_counted() {
    let proxy = proxy(Table::default()).await;
    let answer = raw(&proxy, "GARBAGE\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer:?}");
    let errors = || proxy.handle().fronts()[0].downstream_errors();
    eventually(|| errors().contains_key("malformed")).await;
}

/// A port that is free now, as an apex.
fn apexes() -> (u16, Apexes) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let port = address.port();
    let apexes = Apexes {
        address: address.ip(),
        ports: port..=port,
    };
    (port, apexes)
}

#[tokio::test]
async fn at_an_apex_the_port_says_where_a_request_goes() {
    let origin = Origin::named("v0").await;
    let (port, apexes) = apexes();
    let config = Config {
        apexes: Some(apexes),
        ..config()
    };
    let mut parts = split(&[(1, &[origin.address])], Protocol::Http1);
    parts.routes.clear();
    let proxy = proxy_with(config, table(parts.clone())).await;
    let ask = async |port: u16, host: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET /x HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        soon(stream.read_to_string(&mut answer)).await.unwrap();
        answer
    };
    let nobody = ask(port, "web").await;
    check("an apex that nobody has", &nobody, "503", "no-split");
    parts.apexes = vec![Apex {
        port,
        target: Target::Backend(0),
    }];
    proxy.handle().publish(table(parts)).await;
    for host in ["web", "anything.example:80"] {
        let answer = ask(port, host).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{host}: {answer}");
    }
    let elsewhere = ask(proxy.local_addr().port(), "web").await;
    check("another listener", &elsewhere, "404", "no-route");
    proxy.drain().await;
    let closed = TcpStream::connect(("127.0.0.1", port)).await;
    assert!(closed.is_err(), "its listener is closed");
}
