//! Windows over proxies that come, go, fall silent and tell at their own pace.

use super::*;
use crate::fleet::report::{Counters as Reported, VersionReport};

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millisecond(ms).unwrap()
}

fn hello(instance: &str, since_ms: i64, every_ms: Option<u64>) -> Hello {
    Hello {
        instance: instance.into(),
        since: at(since_ms),
        schema: String::new(),
        latency_bounds_ms: vec![1.0],
        draining: false,
        every_ms,
    }
}

fn report(requests: u64) -> SplitReport {
    SplitReport {
        uid: "u".into(),
        versions: vec![VersionReport {
            name: "canary".into(),
            in_flight: 1,
            counters: Reported {
                requests,
                ..Reported::default()
            },
            ..VersionReport::default()
        }],
        ..SplitReport::default()
    }
}

fn canary() -> VersionKey {
    VersionKey {
        namespace: String::new(),
        split: String::new(),
        uid: "u".into(),
        version: "canary".into(),
        revision: String::new(),
    }
}

/// A proxy introduces itself and says what it has counted.
fn begin(history: &mut History, name: &str, since_ms: i64, requests: u64, ms: i64) {
    history.hello(&hello(name, since_ms, None));
    history.report(name, &report(requests), at(ms));
    history.said_all(name, at(ms));
}

fn heard(reports: &[(i64, u64)]) -> History {
    let mut history = History::default();
    begin(&mut history, "a", 0, 0, 0);
    for (ms, requests) in reports {
        history.report("a", &report(*requests), at(*ms));
    }
    history
}

/// `how much of how many proxies`, with those that left; or why it is not known.
fn window(history: &History, from_ms: i64, now_ms: i64) -> String {
    let Some(window) = history.window(&canary(), at(from_ms), at(now_ms)) else {
        return "none".into();
    };
    let gone = window.gone.iter().map(|name| format!(", {name} left"));
    let gone: String = gone.collect();
    match window.start {
        Start::Known => format!("{} of {}{gone}", window.tally.requests, window.proxies),
        Start::HeardFrom(time) => format!("from {}{gone}", time.as_millisecond()),
        Start::Unheard => "unheard".into(),
    }
}

#[test]
fn a_window_never_begins_before_it_was_asked_to() {
    let history = heard(&[(1_000, 10), (1_200, 20), (3_000, 30)]);
    for (from, expected) in [
        (500, "30 of 1"),
        (900, "30 of 1"),
        (1_000, "20 of 1"),
        (1_100, "20 of 1"),
        (1_200, "10 of 1"),
        (2_700, "10 of 1"),
        (3_000, "0 of 1"),
    ] {
        assert_eq!(window(&history, from, 3_100), expected, "{from}");
    }
    let begin = history.window(&canary(), at(1_100), at(3_100)).unwrap();
    assert_eq!(begin.from, at(1_200), "where it does begin");
}

#[test]
fn a_window_sums_over_proxies_and_one_that_appears_counts_from_0() {
    let mut history = heard(&[(1_000, 10), (2_000, 15)]);
    begin(&mut history, "b", 1_900, 7, 2_100);
    history.report("b", &report(9), at(2_500));
    assert_eq!(window(&history, 1_500, 3_000), "14 of 2");
    let sum = history.window(&canary(), at(1_500), at(3_000)).unwrap();
    assert_eq!(sum.in_flight, 2);
    assert!(!sum.mixed_buckets);
}

#[test]
fn what_a_proxy_counted_before_it_was_heard_is_not_known() {
    let mut history = History::default();
    begin(&mut history, "a", 0, 100, 5_000);
    assert_eq!(window(&history, 4_000, 6_000), "from 5000");
    assert_eq!(window(&history, 5_000, 6_000), "0 of 1");
    history.report("a", &report(110), at(5_600));
    history.lost("a", at(6_000));
    assert_eq!(window(&history, 5_000, 7_000), "10 of 1");
    assert_eq!(window(&history, 6_500, 7_000), "unheard");
    begin(&mut history, "a", 0, 150, 7_000);
    assert_eq!(window(&history, 6_500, 8_000), "from 7000");
    assert_eq!(
        window(&history, 5_700, 8_000),
        "from 7000",
        "it had last told of the time before 5.6 s"
    );
    assert_eq!(
        window(&history, 5_500, 8_000),
        "50 of 1",
        "counters run on through a gap"
    );
}

#[test]
fn a_proxy_that_vanished_is_named_until_no_window_reaches_it() {
    let mut history = heard(&[(1_000, 10)]);
    history.left("a", at(2_000));
    assert_eq!(window(&history, 500, 3_000), "10 of 1, a left");
    assert_eq!(window(&history, 1_500, 3_000), "0 of 1, a left");
    assert_eq!(window(&history, 2_500, 3_000), "none");
    history.prune(at(2_000_000));
    assert!(history.instances.is_empty() && history.numbers.is_empty());
    assert!(history.splits.is_empty());
}

/// The proxy is killed at 2 s; another process answers in its place at 4 s.
#[test]
fn what_a_killed_proxy_counted_is_not_waited_for_once_it_is_replaced() {
    let mut history = heard(&[(1_000, 10)]);
    history.lost("a", at(2_000));
    assert_eq!(window(&history, 500, 3_000), "10 of 1");
    assert_eq!(window(&history, 2_500, 3_000), "unheard");
    history.left("a", at(4_000));
    begin(&mut history, "b", 3_900, 0, 4_000);
    history.report("b", &report(5), at(4_300));
    assert_eq!(window(&history, 2_500, 5_000), "from 4000, a left");
    assert_eq!(window(&history, 4_050, 5_000), "5 of 1");
}

#[test]
fn a_version_without_requests_has_a_window_and_an_unknown_split_has_none() {
    let mut history = heard(&[(1_000, 10)]);
    let mut key = canary();
    key.version = "stable".into();
    let stable = history.window(&key, at(1_500), at(2_000)).unwrap();
    assert_eq!((stable.proxies, stable.tally.requests), (1, 0));
    key.uid = "other".into();
    assert_eq!(history.window(&key, at(1_500), at(2_000)), None);
    assert_eq!(history.told_until("other", at(2_000)), None);
    history.gone("a", "u", at(3_000));
    assert_eq!(window(&history, 3_500, 4_000), "none");
    assert_eq!(history.told_until("u", at(4_000)), None);
}

/// Of several proxies the one that told longest ago, and the slowest pace.
#[test]
fn figures_reach_as_far_as_all_proxies_have_told() {
    let mut history = History::default();
    begin(&mut history, "older", 0, 0, 1_000);
    let told = |history: &History, now: i64| {
        let told = history.told_until("u", at(now)).unwrap();
        (told.until.as_millisecond(), told.lag.as_millis())
    };
    assert_eq!(
        told(&history, 9_000),
        (8_600, 400),
        "it tells at once, as far as is known"
    );
    history.hello(&hello("slow", 0, Some(5_000)));
    history.report("slow", &report(0), at(9_000));
    history.said_all("slow", at(9_000));
    assert_eq!(
        window(&history, 9_000, 9_100),
        "unheard",
        "there may be more to come of the first round"
    );
    history.told("slow", at(9_100));
    assert_eq!(told(&history, 9_200), (8_800, 5_200));
    assert_eq!(told(&history, 14_000), (8_900, 5_200));
    history.told("slow", at(14_100));
    assert_eq!(told(&history, 14_200), (13_800, 5_200));
    history.left("slow", at(14_300));
    assert_eq!(told(&history, 14_400), (14_000, 400));
}

/// A round that comes late brings what was counted long before it.
#[test]
fn a_window_that_begins_while_a_proxy_is_late_is_not_known_from_its_beginning() {
    let mut history = History::default();
    history.hello(&hello("a", 0, Some(1_000)));
    history.report("a", &report(0), at(1_000));
    history.told("a", at(1_000));
    history.report("a", &report(10), at(2_000));
    history.told("a", at(2_000));
    assert_eq!(window(&history, 1_500, 2_100), "10 of 1");
    history.report("a", &report(30), at(9_000));
    history.told("a", at(9_000));
    assert_eq!(window(&history, 1_500, 9_100), "30 of 1");
    assert_eq!(window(&history, 5_000, 9_100), "from 9000");
    assert_eq!(window(&history, 9_000, 9_100), "0 of 1");
}

/// As often as counters are told, for longer than a window reaches.
#[test]
fn old_steps_become_few_and_a_window_loses_a_tenth_at_most() {
    let mut history = heard(&[]);
    let rounds: i64 = 5_000;
    for round in 1..=rounds {
        history.report("a", &report(round.unsigned_abs() * 10), at(round * 200));
        if round % 50 == 0 {
            history.prune(at(round * 200));
        }
    }
    let now = rounds * 200;
    let steps = history.splits["u"].versions[0].growth.steps();
    assert!((60..130).contains(&steps), "{steps}");
    for seconds in [1, 5, 30, 60, 300, 600] {
        let from = at(now - seconds * 1_000);
        let found = history.window(&canary(), from, at(now)).unwrap();
        let lost = found.from.duration_since(from).as_millis();
        let most = i128::from(seconds * 100).max(200);
        assert!((1..=most).contains(&lost), "{seconds} s: {lost} ms");
        let length_ms = at(now).duration_since(found.from).as_millis();
        let counted = (length_ms / 200 + 1) * 10;
        assert_eq!(i128::from(found.tally.requests), counted, "{seconds} s");
    }
}

#[test]
fn a_proxy_that_reports_a_version_again_goes_on_counting() {
    let mut history = heard(&[(1_000, 10)]);
    let without = SplitReport {
        versions: Vec::new(),
        ..report(0)
    };
    history.report("a", &without, at(2_000));
    history.prune(at(400_000));
    history.report("a", &report(15), at(400_000));
    assert_eq!(window(&history, 390_000, 400_500), "5 of 1");
}
