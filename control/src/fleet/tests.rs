//! The fleet against proxies that lag, vanish and come back as another process.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawQuery, State as Shared};
use axum::routing::get;
use futures::{StreamExt, poll};
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
    /// What it was asked for.
    asked: watch::Sender<Vec<String>>,
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
            every_ms: None,
        };
        let said = Arc::new(Said {
            hello,
            last: Mutex::default(),
            lines: broadcast::Sender::new(16),
            asked: watch::Sender::default(),
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

/// The version that [`report`] speaks of.
fn canary() -> VersionKey {
    VersionKey {
        namespace: "ns".into(),
        split: "web".into(),
        uid: "u".into(),
        version: "canary".into(),
        revision: "abc".into(),
    }
}

async fn stream(Shared(said): Shared<Arc<Said>>, RawQuery(query): RawQuery) -> Body {
    let lines = said.lines.subscribe();
    said.asked
        .send_modify(|asked| asked.push(query.unwrap_or_default()));
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
        unknown: Vec::new(),
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

    let fleet = scene.fleet.clone();
    let mut verified = pin!(fleet.verifies("default", "u", 2));
    assert_eq!(poll!(&mut verified), Poll::Pending);
    slow.say(report(2, 0.1, 0));
    scene
        .becomes(2, |view| view.acknowledges() && view.short == ["slow"])
        .await;
    assert_eq!(poll!(&mut verified), Poll::Pending);
    slow.say(report(2, 0.2, 0));
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, verified).await.unwrap();
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

    let window = scene.fleet.window(&canary(), begin, now()).unwrap();
    assert_eq!(window.proxies, 2);
    assert_eq!(window.gone, ["first"]);
    assert_eq!(window.in_flight, 1);
    scene.streams.end().await;
}

/// The fleet has grown: each proxy is asked anew for its counters, which is no loss.
#[tokio::test]
async fn a_stream_that_is_opened_again_for_another_pace_forgets_nothing() {
    let stub = Stub::start("a", "127.0.0.1:0").await;
    stub.say(report(1, 0.2, 10));
    let mut scene = Scene::new();
    scene.list(&[stub.listed("proxy")]);
    let before = scene.becomes(1, View::verifies).await;
    scene.fleet.0.pace.send_replace(Duration::from_millis(400));
    let mut asked = stub.said.asked.subscribe();
    let limit = Duration::from_secs(10);
    let both = tokio::time::timeout(limit, asked.wait_for(|asked| asked.len() == 2)).await;
    let both = both.unwrap().unwrap().clone();
    assert_eq!(both, ["watch=1&every=200", "watch=1&every=400"]);
    let during = scene.fleet.view("default", "u", 1);
    assert_eq!(during.verified_at, before.verified_at);
    stub.say(report(2, 0.2, 12));
    scene.becomes(2, View::verifies).await;
    scene.streams.end().await;
}

/// A proxy, as it is heard.
struct Heard {
    state: State,
    key: Key,
}

impl Heard {
    fn new() -> Self {
        let key = Key {
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            pod: "1".into(),
        };
        let listed = Listed {
            fleet: "default".into(),
            name: "proxy".into(),
            serves: true,
            ..Listed::default()
        };
        let mut state = State::default();
        state.list(BTreeMap::from([(key.clone(), listed)]), at(0));
        Self { state, key }
    }

    fn hears(&mut self, second: i64, lines: impl IntoIterator<Item = Line>) -> Vec<Option<Wake>> {
        let lines = lines.into_iter();
        lines
            .map(|line| self.state.hear(&self.key, line, at(second)))
            .collect()
    }

    fn view(&self, generation: i64) -> View {
        self.state.view("default", "u", generation)
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn hello(instance: &str) -> Line {
    Line::Hello(Hello {
        instance: instance.into(),
        since: at(0),
        schema: report::SCHEMA.into(),
        latency_bounds_ms: vec![1.0],
        draining: false,
        every_ms: None,
    })
}

fn split(report: SplitReport) -> Line {
    Line::Split(Box::new(report))
}

/// data-plane.md 3: the fleet is every proxy whose entry still exists, draining ones included.
#[test]
fn a_draining_proxy_still_counts() {
    let mut proxy = Heard::new();
    let ping = Line::Ping(Ping {});
    proxy.hears(1, [hello("a"), split(report(1, 0.2, 10)), ping]);
    assert_eq!(proxy.hears(2, [Line::Draining(true)]), [Some(Wake::All)]);
    assert!(proxy.view(1).verifies());
    assert_eq!(proxy.view(2).behind, ["proxy"]);
    proxy.hears(3, [split(report(2, 0.2, 25))]);
    assert!(proxy.view(2).verifies());
    let window = proxy.state.history.window(&canary(), at(2), at(4)).unwrap();
    assert_eq!((window.tally.requests, window.gone.len()), (15, 0));
}

/// Counters wake nobody, and neither does what is in flight, unless it is the last of a version that has left the table.
#[test]
fn who_waits_is_woken_by_what_it_waits_for() {
    let in_flight = |live: bool, in_flight: u64| {
        let mut report = report(1, 0.2, in_flight);
        report.versions[0].live = live;
        report.versions[0].in_flight = in_flight;
        report
    };
    let cases = [
        (in_flight(true, 0), true, "the first word"),
        (in_flight(true, 3), false, "in flight"),
        (in_flight(true, 0), false, "and no more"),
        (in_flight(false, 2), true, "has left the table"),
        (in_flight(false, 1), false, "still in flight"),
        (in_flight(false, 0), true, "done"),
        (report(2, 0.2, 9), true, "another generation"),
        (report(2, 0.1, 9), true, "other shares"),
    ];
    let mut proxy = Heard::new();
    proxy.hears(1, [hello("a"), Line::Ping(Ping {})]);
    for (report, wakes, what) in cases {
        let woken = proxy.hears(2, [split(report)]);
        assert_eq!(woken[0].is_some(), wakes, "{what}");
    }
}

/// Every look at a Split asks all proxies: those who wait for a large fleet are woken when the last proxy has said the same, and for what
/// becomes of the others once in a while.
#[test]
fn a_large_fleet_wakes_when_all_have_said_the_same() {
    let count: u16 = 20;
    let key = |number: u16| Key {
        address: SocketAddr::from(([127, 0, 0, 1], 1 + number)),
        pod: number.to_string(),
    };
    let listed = Listed {
        fleet: "default".into(),
        serves: true,
        ..Listed::default()
    };
    let mut state = State::default();
    let all = (0..count).map(|number| (key(number), listed.clone()));
    state.list(all.collect(), at(0));
    for number in 0..count {
        state.hear(&key(number), hello(&number.to_string()), at(1));
    }
    assert_eq!(
        state.waiting(),
        std::collections::BTreeSet::from([Wake::All])
    );
    for generation in 1..3 {
        let mut woken = Vec::new();
        for number in 0..count {
            let line = split(report(generation, 0.2, 0));
            woken.push(state.hear(&key(number), line, at(2)).is_some());
            let verified = state.view("default", "u", generation).verifies();
            assert_eq!(verified, number + 1 == count);
        }
        let last = woken.pop();
        assert_eq!(last, Some(true));
        assert!(!woken.contains(&true));
        assert_eq!(state.waiting().len(), 1, "the Split");
        assert!(!state.has_waiting());
    }
}

/// … but a Split that it does not say again is served no more.
#[test]
fn what_a_reopened_stream_does_not_say_again_is_gone() {
    let mut proxy = Heard::new();
    let other = SplitReport {
        uid: "v".into(),
        ..report(1, 0.2, 0)
    };
    let ping = || Line::Ping(Ping {});
    proxy.hears(
        1,
        [
            hello("a"),
            split(report(1, 0.2, 0)),
            split(other.clone()),
            ping(),
        ],
    );
    assert_eq!(proxy.hears(2, [hello("a")]), [None], "nothing new");
    assert!(proxy.view(1).verifies(), "its word stands");
    let woken = proxy.hears(2, [split(other), ping()]);
    assert_eq!(woken, [None, Some(Wake::All)]);
    assert_eq!(proxy.view(1).behind, ["proxy"]);

    proxy.hears(3, [split(report(1, 0.2, 0))]);
    proxy.state.lose(&proxy.key, at(4));
    proxy.hears(5, [hello("a")]);
    assert_eq!(
        proxy.view(1).behind,
        ["proxy"],
        "what was said before the stream broke is to be said again"
    );
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
        every_ms: None,
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
