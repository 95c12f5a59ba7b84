//! The fleet against proxies that lag, vanish and come back as another process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::body::Body;
use axum::extract::State as Shared;
use axum::routing::get;
use futures::StreamExt;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

use super::report::{Counters as Counted, Hello, Ping, RuleReport, SplitReport, VersionReport};
use super::*;

/// A stand-in for a proxy's admin port: says what it is told to, to everyone who listens.
struct Stub {
    address: SocketAddr,
    said: Arc<Said>,
    server: JoinHandle<()>,
}

struct Said {
    hello: Hello,
    /// The last word per Split, for those who come later.
    last: Mutex<BTreeMap<String, Line>>,
    lines: broadcast::Sender<Line>,
    /// Ends every answer: the server's own end leaves its connections alone.
    killed: CancellationToken,
}

impl Stub {
    async fn start(instance: &str, address: &str) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let hello = Hello {
            instance: instance.into(),
            since: now(),
            schema: report::SCHEMA.into(),
            latency_bounds_ms: vec![1.0],
            draining: false,
        };
        let said = Arc::new(Said {
            hello,
            last: Mutex::default(),
            lines: broadcast::Sender::new(16),
            killed: CancellationToken::new(),
        });
        let app = Router::new()
            .route("/splits", get(stream))
            .with_state(Arc::clone(&said));
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self {
            address,
            said,
            server,
        }
    }

    fn say(&self, report: SplitReport) {
        let line = Line::Split(Box::new(report.clone()));
        self.said
            .last
            .lock()
            .unwrap()
            .insert(report.uid, line.clone());
        // Nobody may listen yet: whoever comes is told the last word.
        self.said.lines.send(line).ok();
    }

    fn listed(&self, name: &str) -> (Key, Listed) {
        let key = Key {
            address: self.address,
            pod: name.into(),
        };
        let listed = Listed {
            fleet: "default".into(),
            name: name.into(),
            serves: true,
            ..Listed::default()
        };
        (key, listed)
    }

    /// Ends as a killed process does: every connection at once.
    async fn kill(self) -> SocketAddr {
        self.said.killed.cancel();
        self.server.abort();
        assert!(self.server.await.unwrap_err().is_cancelled());
        self.address
    }
}

async fn stream(Shared(said): Shared<Arc<Said>>) -> Body {
    let lines = said.lines.subscribe();
    let first = [Line::Hello(said.hello.clone())];
    let last: Vec<Line> = said.last.lock().unwrap().values().cloned().collect();
    let later = futures::stream::unfold(lines, |mut lines| async {
        Some((lines.recv().await.ok()?, lines))
    });
    let ping = [Line::Ping(Ping {})];
    let told = first.into_iter().chain(last).chain(ping);
    let all = futures::stream::iter(told).chain(later);
    let all = all.take_until(said.killed.clone().cancelled_owned());
    Body::from_stream(all.map(|line| serde_json::to_string(&line).map(|text| text + "\n")))
}

fn report(generation: i64, effective: f64, requests: u64) -> SplitReport {
    let shares = |share| BTreeMap::from([("canary".to_owned(), share)]);
    SplitReport {
        namespace: "ns".into(),
        name: "web".into(),
        uid: "u".into(),
        generation,
        rules: vec![RuleReport {
            services: vec!["web".into()],
            desired: shares(0.2),
            effective: shares(effective),
        }],
        versions: vec![VersionReport {
            name: "canary".into(),
            revision: "abc".into(),
            live: true,
            in_flight: 1,
            counters: Counted {
                requests,
                ..Counted::default()
            },
            ..VersionReport::default()
        }],
        apexes: Vec::new(),
    }
}

/// A fleet, and a count of its wake-ups to wait on.
struct Scene {
    fleet: Fleet,
    streams: Streams,
    woken: watch::Receiver<u64>,
}

impl Scene {
    fn new() -> Self {
        let (wake, woken) = watch::channel(0);
        Self {
            fleet: Fleet::new(Box::new(move |_| wake.send_modify(|count| *count += 1))),
            streams: Streams::default(),
            woken,
        }
    }

    fn list(&mut self, listed: &[(Key, Listed)]) {
        self.fleet
            .follow(listed.iter().cloned().collect(), &mut self.streams);
    }

    /// Waits for the view to become as expected: nothing but wake-ups makes it look again.
    async fn becomes(&mut self, generation: i64, expected: impl Fn(&View) -> bool) -> View {
        let waiting = async {
            loop {
                let view = self.fleet.view("default", "u", generation);
                if expected(&view) {
                    return view;
                }
                self.woken.changed().await.unwrap();
            }
        };
        match tokio::time::timeout(Duration::from_secs(10), waiting).await {
            Ok(view) => view,
            Err(_) => panic!("{:?}", self.fleet.view("default", "u", generation)),
        }
    }
}

#[tokio::test]
async fn a_proxy_that_lags_is_named_until_it_has_caught_up() {
    let (quick, slow) = (
        Stub::start("q", "127.0.0.1:0").await,
        Stub::start("s", "127.0.0.1:0").await,
    );
    quick.say(report(2, 0.2, 0));
    slow.say(report(1, 0.2, 0));
    let mut scene = Scene::new();
    scene.list(&[quick.listed("quick"), slow.listed("slow")]);
    let view = scene.becomes(2, |view| view.behind == ["slow"]).await;
    assert!(!view.verifies());
    assert_eq!(view.proxies.len(), 2);

    slow.say(report(2, 0.1, 0));
    scene
        .becomes(2, |view| view.acknowledges() && view.short == ["slow"])
        .await;
    slow.say(report(2, 0.2, 0));
    let view = scene.becomes(2, View::verifies).await;
    assert!(view.verified_at.is_some());
    assert_eq!(view.in_flight["abc"], 2);
    scene.streams.end().await;
}

#[tokio::test]
async fn a_proxy_that_vanishes_is_behind_until_its_entry_goes() {
    let (a, b) = (
        Stub::start("a", "127.0.0.1:0").await,
        Stub::start("b", "127.0.0.1:0").await,
    );
    a.say(report(1, 0.2, 0));
    b.say(report(1, 0.2, 0));
    let mut scene = Scene::new();
    let (entry_a, entry_b) = (a.listed("a"), b.listed("b"));
    scene.list(&[entry_a.clone(), entry_b]);
    scene.becomes(1, View::verifies).await;
    b.kill().await;
    scene.becomes(1, |view| view.behind == ["b"]).await;
    scene.list(&[entry_a]);
    scene.becomes(1, View::verifies).await;
    scene.list(&[]);
    assert!(
        !scene.fleet.view("default", "u", 1).verifies(),
        "nobody is there"
    );
    scene.streams.end().await;
}

#[tokio::test]
async fn a_proxy_that_restarts_acknowledges_anew_and_counts_from_zero() {
    let begin = now();
    let first = Stub::start("first", "127.0.0.1:0").await;
    first.say(report(3, 0.2, 40));
    let mut scene = Scene::new();
    let entry = first.listed("proxy");
    scene.list(std::slice::from_ref(&entry));
    scene.becomes(3, View::verifies).await;

    let address = first.kill().await;
    scene.becomes(3, |view| view.behind == ["proxy"]).await;
    let second = Stub::start("second", &address.to_string()).await;
    second.say(report(2, 0.2, 5));
    scene.becomes(2, View::verifies).await;
    assert_eq!(
        scene.fleet.view("default", "u", 3).behind,
        ["proxy"],
        "the word of the process before is not its own"
    );
    second.say(report(3, 0.2, 6));
    scene.becomes(3, View::verifies).await;

    let key = VersionKey {
        namespace: "ns".into(),
        split: "web".into(),
        uid: "u".into(),
        version: "canary".into(),
        revision: "abc".into(),
    };
    let mut spans = scene.fleet.between(&key, begin, now());
    spans.sort_by(|a, b| a.instance.cmp(&b.instance));
    let summary: Vec<_> = spans
        .iter()
        .map(|s| (s.instance.as_str(), s.end.requests, s.gone))
        .collect();
    assert_eq!(summary, [("first", 40, true), ("second", 6, false)]);
    scene.streams.end().await;
}

#[test]
fn a_fleet_is_known_when_all_who_have_begun_have_told_all() {
    let mut state = State::default();
    let key = |port| Key {
        address: SocketAddr::from(([127, 0, 0, 1], port)),
        pod: port.to_string(),
    };
    let listed = |serves| Listed {
        serves,
        ..Listed::default()
    };
    let hello = Line::Hello(Hello {
        instance: "a".into(),
        since: now(),
        schema: report::SCHEMA.into(),
        latency_bounds_ms: vec![1.0],
        draining: false,
    });
    assert!(!state.is_known(), "nobody has been listed");
    state.list(
        BTreeMap::from([(key(1), listed(true)), (key(2), listed(false))]),
        now(),
    );
    assert!(
        !state.is_known(),
        "one says nothing; the other has not begun"
    );
    state.hear(&key(1), hello.clone(), now());
    state.hear(&key(1), Line::Split(Box::new(report(1, 0.2, 0))), now());
    assert!(!state.is_known(), "there may be more");
    state.hear(&key(1), Line::Ping(Ping {}), now());
    assert!(state.is_known());
    state.hear(&key(2), hello, now());
    assert!(!state.is_known(), "the other has begun");
}
