//! What is sent again, and what is not.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::support::*;
use crate::live::Outcome;
use crate::table::Protocol;

/// An origin whose every connection answers `answers` requests and then closes when the next has come, as a server does that
/// closes an idle connection at the same moment.
async fn closes_after(answers: usize) -> Origin {
    Origin::raw(move |mut stream| async move {
        let mut head = [0; 4096];
        for _ in 0..answers {
            if stream.read(&mut head).await.unwrap_or(0) == 0 {
                return;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                .await
                .unwrap();
        }
        drop(stream.read(&mut head).await);
    })
    .await
}

#[tokio::test]
async fn a_connection_that_closes_as_it_is_used_again_costs_no_get() {
    let origin = closes_after(1).await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    for _ in 0..10 {
        assert_eq!(client.ask(get("/")).await.0, 200);
    }
    assert_eq!(counts(&proxy, 0).retries, 9);
    assert_eq!(outcomes(&proxy, Outcome::Ok), 10);
}

#[tokio::test]
async fn what_may_have_been_done_is_not_done_twice() {
    let origin = closes_after(1).await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    assert_eq!(client.ask(get("/")).await.0, 200);
    let (status, headers, _) = client.ask(post("/", text("order"))).await;
    assert_eq!((status.as_u16(), reason(&headers)), (502, "upstream-reset"));
    assert_eq!(client.ask(get("/")).await.0, 200);
    let empty_post = client.ask(post("/", empty())).await;
    assert_eq!(empty_post.0, 502, "no body, but not idempotent");
    assert_eq!(outcomes(&proxy, Outcome::UpstreamResetBeforeHead), 2);
}

#[tokio::test]
async fn an_endpoint_that_closes_without_an_answer_is_asked_once_more() {
    let origin = closes_after(0).await;
    let proxy = proxy(to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    let (status, headers, _) = client.ask(get("/")).await;
    assert_eq!((status.as_u16(), reason(&headers)), (502, "upstream-reset"));
    assert_eq!(origin.connections().ever, 2);
    assert_eq!(client.ask(post("/", empty())).await.0, 502);
    assert_eq!(origin.connections().ever, 3, "a POST is not repeated");
}

#[tokio::test]
async fn a_refused_connection_is_retried_elsewhere_and_then_passed_over() {
    let (origin, dead) = (Origin::named("v0").await, nowhere().await);
    let proxy = proxy(to(&[dead, origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    for _ in 0..50 {
        assert_eq!(client.ask(post("/", text("x"))).await.0, 200);
    }
    let counts = counts(&proxy, 0);
    assert_eq!(counts.connect_failures, counts.retries);
    assert!((1..=2).contains(&counts.connect_failures), "{counts:?}");
}

#[tokio::test]
async fn a_lone_endpoint_is_never_passed_over() {
    let dead = nowhere().await;
    let proxy = proxy(to(&[dead])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    for _ in 0..5 {
        let (status, headers, _) = client.ask(get("/")).await;
        assert_eq!(
            (status.as_u16(), reason(&headers)),
            (502, "upstream-connect")
        );
    }
    let counts = counts(&proxy, 0);
    assert_eq!(outcomes(&proxy, Outcome::UpstreamConnect), 5);
    assert!(
        counts.connect_failures >= 15,
        "each is tried again twice: {counts:?}"
    );
}

#[tokio::test]
async fn a_version_fails_in_its_own_name() {
    let (good, dead) = (Origin::named("v0").await, nowhere().await);
    let proxy = proxy(table(split(
        &[(1, &[good.address]), (1, &[dead])],
        Protocol::Http1,
    )))
    .await;
    let mut client = Http1::open(proxy.local_addr()).await;
    for _ in 0..100 {
        client.ask(get("/")).await;
    }
    let (stable, canary) = (counts(&proxy, 0), counts(&proxy, 1));
    assert!(
        (45..=55).contains(&stable.outcomes[Outcome::Ok.index()]),
        "{stable:?}"
    );
    assert_eq!(
        canary.outcomes[Outcome::UpstreamConnect.index()],
        canary.requests()
    );
    assert_eq!(stable.requests() + canary.requests(), 100);
}

#[tokio::test]
async fn streams_above_a_goaway_are_sent_again_with_their_bodies() {
    let origin = Origin::h2c(7, |request| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(text(body))
    })
    .await;
    let proxy = proxy(to_h2c(&[origin.address])).await;
    let client = Http2::open(proxy.local_addr()).await;
    let mut requests = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = client.clone();
        requests.spawn(async move {
            for _ in 0..40 {
                let request = Request::post("http://web/").body(text("hello")).unwrap();
                let (status, headers, body) = read(client.send(request).await.unwrap()).await;
                assert_eq!(
                    (status.as_u16(), &*body),
                    (200, &b"hello"[..]),
                    "{headers:?}"
                );
            }
        });
    }
    soon(requests.join_all()).await;
    assert!(
        origin.connections().ever >= 10,
        "{:?}",
        origin.connections()
    );
}

#[tokio::test]
async fn retries_end_with_the_budget() {
    let origin = closes_after(1).await;
    let mut config = config();
    config.retry.percent = 0;
    config.retry.per_second = 0;
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    assert_eq!(client.ask(get("/")).await.0, 200);
    assert_eq!(client.ask(get("/")).await.0, 502);
    assert_eq!(counts(&proxy, 0).retries, 0);
}

/// An HTTP/2 origin that reads each request whole and then does with the first `times` as `refuse` says; the others it echoes.
async fn refuses(
    times: usize,
    refuse: fn(h2::server::SendResponse<Bytes>) -> bool,
) -> (Origin, Arc<AtomicUsize>) {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let origin = Origin::raw(move |stream| {
        let count = Arc::clone(&count);
        async move {
            let mut connection = h2::server::handshake(stream).await.unwrap();
            let mut streams = tokio::task::JoinSet::new();
            let (close, mut closed) = tokio::sync::mpsc::channel::<()>(1);
            loop {
                let accepted = tokio::select! {
                    accepted = connection.accept() => accepted,
                    _ = closed.recv() => return,
                };
                let Some(Ok((request, mut respond))) = accepted else {
                    return;
                };
                let (count, close) = (Arc::clone(&count), close.clone());
                streams.spawn(async move {
                    let mut body = request.into_body();
                    let mut read = Vec::new();
                    while let Some(Ok(chunk)) = body.data().await {
                        body.flow_control().release_capacity(chunk.len()).unwrap();
                        read.extend_from_slice(&chunk);
                    }
                    if count.fetch_add(1, Ordering::Relaxed) < times {
                        if refuse(respond) {
                            close.send(()).await.unwrap();
                        }
                        return;
                    }
                    let mut send = respond.send_response(Response::new(()), false).unwrap();
                    send.send_data(read.into(), true).unwrap();
                });
            }
        }
    })
    .await;
    (origin, seen)
}

fn refused_stream(mut respond: h2::server::SendResponse<Bytes>) -> bool {
    respond.send_reset(h2::Reason::REFUSED_STREAM);
    false
}

fn closed_connection(_: h2::server::SendResponse<Bytes>) -> bool {
    true
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_if_its_body_was_kept() {
    let (origin, seen) = refuses(1, refused_stream).await;
    let proxy = proxy(to_h2c(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    let small = "x".repeat(60 * 1024);
    let (status, _, body) = client.ask(post("/", text(small.clone()))).await;
    assert_eq!((status.as_u16(), body == small), (200, true));
    assert_eq!(
        (seen.load(Ordering::Relaxed), counts(&proxy, 0).retries),
        (2, 1)
    );

    let (origin, seen) = refuses(1, refused_stream).await;
    soon(proxy.handle().publish(to_h2c(&[origin.address]))).await;
    let large = text("x".repeat(70 * 1024));
    let (status, headers, _) = client.ask(post("/", large)).await;
    assert_eq!((status.as_u16(), reason(&headers)), (502, "upstream-reset"));
    assert_eq!(seen.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_post_that_an_http2_connection_has_taken_with_it_is_not_sent_again() {
    let (origin, seen) = refuses(1, closed_connection).await;
    let proxy = proxy(to_h2c(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    let (status, headers, _) = client.ask(post("/", text("order"))).await;
    assert_eq!((status.as_u16(), reason(&headers)), (502, "upstream-reset"));
    assert_eq!(seen.load(Ordering::Relaxed), 1);
    assert_eq!(client.ask(post("/", text("order"))).await.0, 200);
}

#[tokio::test]
async fn an_endpoint_that_comes_back_is_found_by_one_request() {
    let (origin, back) = (Origin::named("v0").await, nowhere().await);
    let mut config = config();
    config.ejection.first = Duration::from_millis(40);
    let proxy = proxy_with(config, to(&[origin.address, back])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    while counts(&proxy, 0).connect_failures == 0 {
        assert_eq!(client.ask(get("/")).await.0, 200);
    }
    let listener = tokio::net::TcpListener::bind(back).await.unwrap();
    let answering = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = [0; 4096];
        drop(stream.read(&mut head).await);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nback")
            .await
            .unwrap();
        stream
    };
    let asking = async { while client.ask(get("/")).await.2 != "back" {} };
    soon(Box::pin(async { tokio::join!(answering, asking) })).await;
}
