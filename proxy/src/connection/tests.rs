//! Deadlines of client connections, in virtual time over memory.

use std::num::NonZeroUsize;
use std::time::Duration;

use http::HeaderValue;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::Instant;

use super::*;
use crate::Config;
use crate::live;
use crate::tls::Certificates;
use crate::worker::{Common, keep_time};

/// Runs a test on a runtime like a worker's, in virtual time.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Local>) -> F) {
    let mut builder = Builder::new_current_thread();
    let runtime = builder
        .enable_all()
        .start_paused(true)
        .build_local(LocalOptions::default());
    runtime.unwrap().block_on(async {
        let epoch = Instant::now();
        let (_handle, mut seats) = live::open(NonZeroUsize::MIN, None, epoch);
        let common = Common {
            config: Arc::new(Config::new(Vec::new())),
            tls: Certificates::default().server(),
            instance: HeaderValue::from_static("a1"),
            epoch,
            access: None,
        };
        let local = Local::new(common, seats.remove(0), 1);
        let ticking = Rc::clone(&local);
        local.tasks.spawn(async move { keep_time(&ticking).await });
        test(local).await;
    });
}

/// A connection to `local`, from the client's end.
fn connect(local: &Rc<Local>) -> DuplexStream {
    let (client, server) = duplex(64 * 1024);
    let address = SocketAddr::from(([192, 0, 2, 7], 4321));
    local
        .tasks
        .spawn(serve(Rc::clone(local), server, arrival(address), ()));
    client
}

/// How long the proxy lets a client be that has sent `sent`, in seconds of virtual time, and what it got meanwhile.
fn arrival(address: SocketAddr) -> Arrival {
    Arrival {
        address,
        at: Entrance::Http,
    }
}

async fn patience(client: &mut DuplexStream, sent: &[u8]) -> (f64, Vec<u8>) {
    client.write_all(sent).await.unwrap();
    let begun = Instant::now();
    let mut got = Vec::new();
    drop(client.read_to_end(&mut got).await);
    (begun.elapsed().as_secs_f64(), got)
}

#[track_caller]
fn check(what: &str, found: f64, expected: Duration) {
    let expected = expected.as_secs_f64();
    assert!(
        (expected - 1.0..=expected + 1.0).contains(&found),
        "{what}: {found} s instead of {expected} s"
    );
}

#[test]
fn a_head_that_does_not_end_closes_after_10_s() {
    run(|local| async move {
        for sent in [
            "",
            "P",
            "PRI * HTTP/2.0",
            "GET",
            "GET / HTTP/1.1\r\nhost: a\r\n",
        ] {
            let (time, got) = patience(&mut connect(&local), sent.as_bytes()).await;
            check(sent, time, Duration::from_secs(10));
            assert!(got.is_empty(), "{sent:?} got {got:?}");
        }
    });
}

#[test]
fn an_idle_connection_closes_after_75_s() {
    run(|local| async move {
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let mut client = connect(&local);
        let (time, got) = patience(&mut client, request).await;
        check("keep-alive", time, Duration::from_secs(75));
        assert!(
            got.starts_with(b"HTTP/1.1 404 "),
            "{}",
            String::from_utf8_lossy(&got)
        );
    });
}

#[test]
fn a_second_head_has_10_s_again() {
    run(|local| async move {
        let mut client = connect(&local);
        let both = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        client.write_all(both).await.unwrap();
        let mut answer = [0; 1024];
        assert!(client.read(&mut answer).await.unwrap() > 0);
        for _ in 0..80 {
            tokio::time::advance(local.config.deadlines.tick).await; // 40 s in all
        }
        let (time, _) = patience(&mut client, b"GET / HT").await;
        check("second head", time, Duration::from_secs(10));
    });
}

#[test]
fn a_client_that_does_not_read_is_cut_after_60_s() {
    run(|local| async move {
        let (mut client, server) = duplex(16);
        let address = SocketAddr::from(([192, 0, 2, 7], 4321));
        let serving = serve(Rc::clone(&local), server, arrival(address), ());
        let begun = Instant::now();
        let writing = async {
            client
                .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
                .await
                .unwrap();
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = serving => {}
            () = writing => {}
        }
        check(
            "stalled",
            begun.elapsed().as_secs_f64(),
            Duration::from_secs(60),
        );
        assert_eq!(local.live.front().downstream_errors()["write-stalled"], 1);
    });
}

#[test]
fn an_idle_http2_connection_is_told_to_go() {
    run(|local| async move {
        let mut client = connect(&local);
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
        let (_, got) = patience(&mut client, &[&preface[..], &settings].concat()).await;
        const GOAWAY: u8 = 7;
        let mut frames = Vec::new();
        let mut rest = got.as_slice();
        while let [a, b, c, kind, ..] = rest {
            let length = usize::from(*a) << 16 | usize::from(*b) << 8 | usize::from(*c);
            frames.push(*kind);
            rest = &rest[9 + length..];
        }
        assert!(frames.contains(&GOAWAY), "{frames:?}");
    });
}

#[test]
fn closing_ends_idle_connections_at_once() {
    run(|local| async move {
        let mut client = connect(&local);
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
            .await
            .unwrap();
        let mut answer = [0; 1024];
        assert!(client.read(&mut answer).await.unwrap() > 0);
        local.enter(Stage::Closing);
        let (time, _) = patience(&mut client, b"").await;
        check("closing", time, Duration::ZERO);
    });
}

#[test]
fn a_first_request_that_comes_while_all_close_is_answered() {
    run(|local| async move {
        let mut client = connect(&local);
        tokio::task::yield_now().await;
        local.enter(Stage::Closing);
        let (_, got) = patience(&mut client, b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await;
        let got = String::from_utf8_lossy(&got);
        assert!(got.starts_with("HTTP/1.1 404 "), "{got:?}");
        assert!(got.contains("connection: close"), "{got:?}");
    });
}
