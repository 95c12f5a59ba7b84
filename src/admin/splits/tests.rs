//! The stream of a proxy with one worker, by a clock that stands still while anything is to be done.

use std::num::NonZeroUsize;
use std::pin::Pin;
use std::rc::Rc;

use futures::StreamExt;
use sidestep_proxy::live::{Choice, Worker};
use sidestep_proxy::table::{
    Backend, Endpoint, HostMatch, Parts, PathMatch, Protocol, Route, Rule, Source, Split, Table,
    Target, Version,
};

use super::*;

struct Scene {
    tables: TableHandle,
    worker: Rc<Worker>,
    _draining: watch::Sender<bool>,
    lines: Pin<Box<dyn Stream<Item = Result<String, Infallible>>>>,
    begin: Instant,
}

impl Scene {
    async fn start(every: Option<Duration>) -> Self {
        let begin = Instant::now();
        let (tables, mut seats) = sidestep_proxy::live::open(NonZeroUsize::MIN, None, begin);
        let worker = seats.remove(0).take(1);
        let (sender, draining) = watch::channel(false);
        let hello = hello("i".into(), Timestamp::UNIX_EPOCH, false, every);
        let lines = stream(hello, tables.clone(), draining, every);
        let scene = Self {
            tables,
            worker,
            _draining: sender,
            lines: Box::pin(lines),
            begin,
        };
        scene.publish(1).await;
        scene
    }

    async fn publish(&self, generation: i64) {
        let take_up = async {
            self.worker.changed().await;
            self.worker.take_up();
        };
        tokio::join!(self.tables.publish(table(generation)), take_up);
    }

    /// One that begins and ends now.
    fn request(&self) {
        let serving = self.worker.current();
        let Choice::Serve(chosen) = serving.choose(0) else {
            panic!("refused")
        };
        chosen
            .begin(Instant::now())
            .finish(Outcome::Ok, Instant::now());
    }

    /// The next line but pings, in short: a Split's generation and requests; and after how many milliseconds it came.
    async fn next(&mut self) -> (String, u128) {
        loop {
            let Ok(line) = self.lines.next().await.unwrap();
            let text = match serde_json::from_str(&line).unwrap() {
                Line::Ping(_) => continue,
                Line::Hello(hello) => format!("hello {:?}", hello.every_ms),
                Line::Told(_) => "told".to_owned(),
                Line::Split(split) => {
                    let requests = split.versions[0].counters.requests;
                    format!(
                        "{} {requests} {}",
                        split.generation,
                        split.unknown.join(",")
                    )
                }
                Line::Gone(_) | Line::Draining(_) => panic!("{line}"),
            };
            return (text, self.begin.elapsed().as_millis());
        }
    }

    async fn says(&mut self, expected: &[&str]) {
        for expected in expected {
            assert_eq!(self.next().await.0, *expected);
        }
    }
}

/// A Split of one version with one endpoint, with a field that is not known.
fn table(generation: i64) -> Table {
    let endpoint = Endpoint {
        address: ([127, 0, 0, 1], 80).into(),
        pod: "p".into(),
        ready: true,
        terminating: false,
    };
    Table::build(Parts {
        routes: vec![Route {
            host: HostMatch::Any,
            path: PathMatch::Prefix("/".into()),
            target: Target::Backend(0),
        }],
        backends: vec![Backend {
            namespace: "n".into(),
            service: "web".into(),
            port: "http".into(),
            protocol: Protocol::Http1,
            source: Source::Split {
                split: 0,
                rule: 0,
                endpoints: vec![vec![endpoint]],
            },
        }],
        splits: vec![Split {
            namespace: "n".into(),
            name: "web".into(),
            uid: "u".into(),
            generation,
            unknown: vec!["spec.new".into()],
            versions: vec![Version {
                name: "stable".into(),
                ready: 1,
                ..Version::default()
            }],
            rules: vec![Rule {
                services: vec!["web".into()],
                weights: vec![Some(1)],
            }],
            ..Split::default()
        }],
        ..Parts::default()
    })
    .unwrap()
}

#[tokio::test(start_paused = true)]
async fn acknowledgements_come_at_once_and_counters_in_rounds() {
    let mut scene = Scene::start(Some(Duration::from_secs(10))).await;
    scene
        .says(&["hello Some(10000)", "1 0 spec.new", "told"])
        .await;
    scene.request();
    scene.publish(2).await;
    assert_eq!(scene.next().await, ("2 1 spec.new".into(), 0));
    scene.request();
    let (line, first) = scene.next().await;
    assert_eq!(line, "2 2 spec.new");
    assert!((1..=10_000).contains(&first), "a part of the time: {first}");
    assert_eq!(scene.next().await, ("told".into(), first));
    assert_eq!(scene.next().await.0, "told", "nothing had changed");
    scene.request();
    let (line, third) = scene.next().await;
    assert_eq!(line, "2 3 spec.new");
    assert!((20_000..20_010).contains(&(third - first)), "{third}");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_asks_for_no_rounds_hears_counters_within_200_ms() {
    let mut scene = Scene::start(None).await;
    scene.says(&["hello None", "1 0 spec.new"]).await;
    for round in 1..5_u128 {
        scene.request();
        let (line, at) = scene.next().await;
        assert_eq!(line, format!("1 {round} spec.new"));
        assert!((1..=round * 200 + 10).contains(&at), "{at}");
    }
}

/// At 200 ms a round that has nothing to tell says so once a second.
#[tokio::test(start_paused = true)]
async fn quiet_rounds_are_told_once_a_second() {
    let mut scene = Scene::start(Some(pace::SHORTEST)).await;
    scene
        .says(&["hello Some(200)", "1 0 spec.new", "told"])
        .await;
    let mut before = 0;
    for _ in 0..10 {
        let (line, at) = scene.next().await;
        assert_eq!(line, "told");
        assert!((1_000..=1_250).contains(&(at - before)), "{before} {at}");
        before = at;
    }
}
