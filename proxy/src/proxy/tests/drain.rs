//! The end of a proxy.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use tokio::sync::Notify;

use super::support::*;
use crate::live::Outcome;

#[tokio::test]
async fn a_drain_fails_no_request() {
    let origin = Origin::named("v0").await;
    let mut config = config();
    config.workers = NonZeroUsize::new(2).unwrap();
    config.drain.grace = Duration::from_millis(200);
    let proxy = Arc::new(proxy_with(config, to(&[origin.address])).await);
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let address = proxy.local_addr();
        clients.spawn(async move {
            let (mut asked, mut told) = (0, false);
            // A client that opens connections anew while they are taken, and leaves one that says close.
            while let Some(mut client) = Http1::try_open(address).await {
                loop {
                    let Ok(response) = client.send(get("/")).await else {
                        return Err(format!("request {asked} failed, told = {told}"));
                    };
                    let (status, headers, _) = read(response).await;
                    assert_eq!(status, 200);
                    asked += 1;
                    if headers
                        .get("connection")
                        .is_some_and(|value| value == "close")
                    {
                        told = true;
                        break;
                    }
                }
                if told {
                    break;
                }
            }
            Ok(told)
        });
    }
    eventually(|| counts(&proxy, 0).requests() > 100).await;
    let draining = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move { proxy.drain().await }
    });
    let told = soon(clients.join_all()).await;
    assert!(told.iter().all(|told| *told == Ok(true)), "{told:?}");
    soon(draining).await.unwrap();
    assert!(Http1::try_open(proxy.local_addr()).await.is_none());
    assert_eq!(outcomes(&proxy, Outcome::Ok), counts(&proxy, 0).requests());
}

#[tokio::test]
async fn what_is_in_flight_is_finished_and_what_is_idle_closed() {
    let go = Arc::new(Notify::new());
    let origin = Origin::http1({
        let go = Arc::clone(&go);
        move |_| {
            let go = Arc::clone(&go);
            async move {
                go.notified().await;
                Response::new(text("late"))
            }
        }
    })
    .await;
    let mut config = config();
    config.drain.grace = Duration::ZERO;
    let proxy = Arc::new(proxy_with(config, to(&[origin.address])).await);
    let mut idle = Http1::open(proxy.local_addr()).await;
    let missing = Request::get("/").header("host", "@").body(empty()).unwrap();
    assert_eq!(idle.ask(missing).await.0, 400);
    let mut busy = Http1::open(proxy.local_addr()).await;
    let answer = tokio::spawn(async move { busy.ask(get("/")).await });
    let mut h2 = Http2::open(proxy.local_addr()).await;
    let h2_answer = tokio::spawn(async move {
        let response = h2
            .send(Request::get("http://web/").body(empty()).unwrap())
            .await
            .unwrap();
        read(response).await
    });
    origin.until(|seen| seen.open == 2).await;
    let draining = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move { proxy.drain().await }
    });
    eventually(|| idle.0.is_closed()).await;
    assert!(!answer.is_finished() && !draining.is_finished());
    go.notify_waiters();
    let (status, headers, body) = soon(answer).await.unwrap();
    assert_eq!((status.as_u16(), &*body), (200, &b"late"[..]));
    assert_eq!(headers["connection"], "close");
    assert_eq!(soon(h2_answer).await.unwrap().2, "late");
    soon(draining).await.unwrap();
}

#[tokio::test]
async fn the_deadline_cuts_what_does_not_end() {
    let origin = Origin::raw(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut config = config();
    config.drain.grace = Duration::ZERO;
    config.drain.deadline = Duration::from_millis(50);
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let mut client = Http1::open(proxy.local_addr()).await;
    let answer = tokio::spawn(async move { client.send(get("/")).await.map(drop) });
    origin.until(|seen| seen.open == 1).await;
    soon(proxy.drain()).await;
    assert!(soon(answer).await.unwrap().is_err());
    assert_eq!(outcomes(&proxy, Outcome::ClientAbort), 1);
}

#[tokio::test]
async fn draining_is_told_at_once() {
    let mut config = config();
    config.drain.grace = Duration::from_millis(50);
    let proxy = Arc::new(proxy_with(config, to(&[])).await);
    assert!(!proxy.is_draining());
    let draining = tokio::spawn({
        let proxy = Arc::clone(&proxy);
        async move { proxy.drain().await }
    });
    soon(proxy.draining()).await;
    assert!(proxy.is_draining());
    let (_, headers, _) = Http1::open(proxy.local_addr()).await.ask(get("/")).await;
    assert_eq!(headers["connection"], "close", "it still accepts");
    soon(draining).await.unwrap();
}
