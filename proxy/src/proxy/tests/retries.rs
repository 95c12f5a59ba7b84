//! What is sent again, and what is not.

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
async fn an_endpoint_that_closes_without_an_answer_is_asked_once() {
    let origin = closes_after(0).await;
    let proxy = proxy(to(&[origin.address])).await;
    let (status, headers, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!((status.as_u16(), reason(&headers)), (502, "upstream-reset"));
    assert_eq!(
        origin.connections().ever,
        1,
        "the connection was new: it did not cross with a close"
    );
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
