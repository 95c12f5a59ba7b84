//! Tables that change under load.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::support::*;
use crate::live::Outcome;
use crate::table::Protocol;

#[tokio::test]
async fn no_request_fails_while_weights_flip() {
    let (stable, canary) = (Origin::named("v0").await, Origin::named("v1").await);
    let weights = |canary_weight: u32| {
        let (stable, canary) = ([stable.address], [canary.address]);
        table(split(
            &[(100 - canary_weight, &stable), (canary_weight, &canary)],
            Protocol::Http1,
        ))
    };
    let mut config = config();
    config.workers = NonZeroUsize::new(2).unwrap();
    let proxy = proxy_with(config, weights(0)).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..16 {
        let (address, done) = (proxy.local_addr(), Arc::clone(&done));
        clients.spawn(async move {
            let mut client = Http1::open(address).await;
            let mut requests = 0_u64;
            while !done.load(Ordering::Relaxed) {
                let request = if number % 2 == 0 {
                    get("/")
                } else {
                    post("/", text("x"))
                };
                let (status, _, body) = client.ask(request).await;
                assert!(
                    status == 200 && (body == "v0" || body == "v1"),
                    "{status} {body:?}"
                );
                requests += 1;
            }
            requests
        });
    }
    let handle = proxy.handle();
    for flip in 0..2_000 {
        soon(handle.publish(weights([0, 1, 50, 99, 100][flip % 5]))).await;
    }
    done.store(true, Ordering::Relaxed);
    let requests: u64 = soon(clients.join_all()).await.iter().sum();
    assert_eq!(outcomes(&proxy, Outcome::Ok), requests);
    let report = proxy.report();
    assert_eq!(report.serial, 2_001);
    assert!(
        report.splits[0]
            .versions
            .iter()
            .all(|version| version.counts.requests() > 0 && version.counts.in_flight == 0)
    );
}

#[tokio::test]
async fn an_answered_publication_governs_every_later_request() {
    let (stable, canary) = (Origin::named("v0").await, Origin::named("v1").await);
    let all_to = |version: usize| {
        let (stable, canary) = ([stable.address], [canary.address]);
        let weights = [u32::from(version == 0), u32::from(version == 1)];
        table(split(
            &[(weights[0], &stable), (weights[1], &canary)],
            Protocol::Http1,
        ))
    };
    let mut config = config();
    config.workers = NonZeroUsize::new(2).unwrap();
    let proxy = proxy_with(config, all_to(0)).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(Http1::open(proxy.local_addr()).await);
    }
    for round in 0..50 {
        soon(proxy.handle().publish(all_to(round % 2))).await;
        for client in &mut clients {
            assert_eq!(client.ask(get("/")).await.2, ["v0", "v1"][round % 2]);
        }
    }
}

#[tokio::test]
async fn no_request_fails_while_endpoints_come_and_go() {
    let mut config = config();
    config.workers = NonZeroUsize::new(2).unwrap();
    let mut old = Origin::named("v0").await;
    let proxy = proxy_with(config, to(&[old.address])).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (address, done) = (proxy.local_addr(), Arc::clone(&done));
        clients.spawn(async move {
            let mut client = Http1::open(address).await;
            while !done.load(Ordering::Relaxed) {
                let request = if number % 2 == 0 {
                    get("/")
                } else {
                    post("/", text("x"))
                };
                let (status, headers, _) = client.ask(request).await;
                assert_eq!(status, 200, "{}", reason(&headers));
            }
        });
    }
    for _ in 0..40 {
        let new = Origin::named("v0").await;
        soon(proxy.handle().publish(to(&[old.address, new.address]))).await;
        new.until(|seen| seen.ever > 0).await;
        soon(proxy.handle().publish(to(&[new.address]))).await;
        // The old one serves until nobody is connected to it any more, as a pod does that drains; then it is gone.
        old.until(|seen| seen.open == 0).await;
        old = new;
    }
    done.store(true, Ordering::Relaxed);
    soon(clients.join_all()).await;
    assert_eq!(outcomes(&proxy, Outcome::Ok), counts(&proxy, 0).requests());
    assert_eq!(counts(&proxy, 0).retries, 0);
}

#[tokio::test]
async fn no_get_fails_while_endpoints_die() {
    let steady = Origin::named("v0").await;
    let proxy = proxy(to(&[steady.address])).await;
    let done = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let (address, done) = (proxy.local_addr(), Arc::clone(&done));
        clients.spawn(async move {
            let mut client = Http1::open(address).await;
            while !done.load(Ordering::Relaxed) {
                let (status, headers, _) = client.ask(get("/")).await;
                assert_eq!(status, 200, "{}", reason(&headers));
            }
        });
    }
    for _ in 0..20 {
        let doomed = Origin::named("v0").await;
        soon(
            proxy
                .handle()
                .publish(to(&[steady.address, doomed.address])),
        )
        .await;
        doomed.until(|seen| seen.ever > 1).await;
        drop(doomed); // at once, and the table does not know
        let before = counts(&proxy, 0).requests();
        eventually(|| counts(&proxy, 0).requests() > before + 20).await;
        soon(proxy.handle().publish(to(&[steady.address]))).await;
    }
    done.store(true, Ordering::Relaxed);
    soon(clients.join_all()).await;
    assert!(counts(&proxy, 0).retries > 0, "something did die");
}
