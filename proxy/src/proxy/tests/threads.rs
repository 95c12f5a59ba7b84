//! Workers: who gets which connection, and what a death means.

use std::num::NonZeroUsize;

use tokio::sync::watch;

use super::super::{Error, Starter};
use super::support::*;
use crate::worker::Stage;

#[tokio::test]
async fn connections_go_to_the_worker_with_the_fewest() {
    let origin = Origin::named("v0").await;
    let mut config = config();
    config.workers = NonZeroUsize::new(4).unwrap();
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = Http2::open(proxy.local_addr()).await;
        let request = http::Request::get("http://web/").body(empty()).unwrap();
        assert_eq!(client.send(request).await.unwrap().status(), 200);
        clients.push(client);
    }
    let fronts = proxy.handle().fronts();
    let open: Vec<_> = fronts
        .iter()
        .map(|front| front.downstream_open.value())
        .collect();
    assert_eq!(open, [5, 5, 5, 5]);
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let origin = Origin::named("v0").await;
    let mut config = config();
    config.limits.connections_per_worker = NonZeroUsize::MIN;
    let proxy = proxy_with(config, to(&[origin.address])).await;
    let mut first = Http1::open(proxy.local_addr()).await;
    assert_eq!(first.ask(get("/")).await.2, "v0");
    let mut second = Http1::open(proxy.local_addr()).await;
    let waits = tokio::spawn(async move { second.ask(get("/")).await.2 });
    assert_eq!(first.ask(get("/")).await.2, "v0");
    assert!(!waits.is_finished());
    drop(first);
    assert_eq!(soon(waits).await.unwrap(), "v0");
}

#[tokio::test]
async fn a_thread_that_panics_raises_the_alarm() {
    let (_stage, stage) = watch::channel(Stage::Serving);
    let (alarm, mut failure) = watch::channel(None);
    let starter = Starter { stage, alarm };
    let thread = starter
        .start("proxy-7", |_, _alarm| panic!("as the test wants"))
        .unwrap();
    let raised = soon(failure.wait_for(Option::is_some))
        .await
        .unwrap()
        .clone();
    assert!(matches!(raised, Some(Error::Died { thread }) if thread == "proxy-7"));
    assert!(thread.join().is_err());
}
