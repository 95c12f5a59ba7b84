//! Tables in service: what is carried over, when a publication is done, what is counted.

use std::pin::pin;
use std::sync::atomic::AtomicU16;
use std::task::Poll;
use std::time::Duration;

use super::fixture::{Shop, endpoint, open_shop, parts, poll, shop, table};
use super::*;
use crate::table::{Endpoint, Source};

#[track_caller]
fn chosen(table: &LiveTable, backend: usize) -> Chosen<'_> {
    match table.choose(backend) {
        Choice::Serve(chosen) => chosen,
        Choice::Refuse(_, refused) => panic!("refused: {}", refused.name()),
    }
}

fn port(chosen: &Chosen<'_>) -> u16 {
    chosen.endpoints()[0].address.port()
}

#[tokio::test]
async fn a_publication_is_done_when_the_last_worker_has_taken_it_up() {
    let shop = shop(2, [100, 0]);
    let mut publish = pin!(shop.handle.publish(table([0, 100])));
    assert_eq!(poll(publish.as_mut()), Poll::Pending);
    shop.workers[0].take_up();
    assert_eq!(poll(publish.as_mut()), Poll::Pending);
    assert_eq!(shop.handle.acknowledged().serial, 1);
    shop.workers[1].take_up();
    assert_eq!(poll(publish), Poll::Ready(()));
    assert_eq!(shop.handle.acknowledged().serial, 2);
}

#[tokio::test]
async fn a_publication_nobody_waits_for_is_acknowledged_all_the_same() {
    let shop = shop(1, [100, 0]);
    {
        let mut publish = pin!(shop.handle.publish(table([0, 100])));
        assert_eq!(poll(publish.as_mut()), Poll::Pending);
    }
    assert_eq!(shop.handle.acknowledged().serial, 1);
    assert_eq!(port(&chosen(&shop.workers[0].current(), 0)), 8002);
    assert_eq!(shop.handle.acknowledged().serial, 2);
}

#[tokio::test]
async fn a_worker_that_is_gone_is_not_waited_for() {
    let mut shop = shop(2, [100, 0]);
    drop(shop.workers.pop());
    shop.publish(table([0, 100]));
}

#[tokio::test]
async fn a_worker_is_told_of_each_publication_once() {
    let shop = shop(1, [100, 0]);
    let worker = &shop.workers[0];
    assert_eq!(poll(pin!(worker.changed())), Poll::Ready(()));
    assert_eq!(poll(pin!(worker.changed())), Poll::Pending);
    let mut told = pin!(worker.changed());
    assert_eq!(poll(told.as_mut()), Poll::Pending);
    assert!(poll(pin!(shop.handle.publish(table([50, 50])))).is_pending());
    assert_eq!(poll(told), Poll::Ready(()));
}

#[tokio::test]
async fn the_next_request_sees_the_new_weights() {
    let shop = shop(1, [100, 0]);
    for round in 0..50 {
        let weights = if round % 2 == 0 { [0, 100] } else { [100, 0] };
        assert!(poll(pin!(shop.handle.publish(table(weights)))).is_pending());
        let expected = if round % 2 == 0 { 8002 } else { 8001 };
        assert_eq!(
            port(&chosen(&shop.workers[0].current(), 0)),
            expected,
            "round {round}"
        );
    }
}

/// Asks on, table after table, on a thread of its own, until the table without routes comes. Returns what it saw against the
/// rules: a version that no table in service at that moment names.
fn ask_until_the_end(seat: Seat, served: &AtomicU16) -> Vec<(u16, u16)> {
    let worker = seat.take(1);
    let mut wrong = Vec::new();
    loop {
        // What was published and taken up by all before this request began, and so the least it may see.
        let before = served.load(Ordering::Acquire);
        let table = worker.current();
        if table.route("web", "/").is_none() {
            if table.is_published() {
                return wrong;
            }
            continue;
        }
        let Choice::Serve(chosen) = table.choose(0) else {
            return vec![(0, 0)];
        };
        let (port, request) = (port(&chosen), chosen.begin(Instant::now()));
        if before != 0 && port < before {
            wrong.push((before, port));
        }
        drop(request);
    }
}

#[test]
fn once_a_publication_is_done_no_request_sees_the_table_before() {
    let (handle, seats) = open(NonZeroUsize::new(2).unwrap(), None, Instant::now());
    let served = &AtomicU16::new(0);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    std::thread::scope(|scope| {
        let worker = |seat| scope.spawn(move || ask_until_the_end(seat, served));
        let workers: Vec<_> = seats.into_iter().map(worker).collect();
        for port in 10_000..10_300 {
            let mut parts = parts([100, 0]);
            if let Source::Split { endpoints, .. } = &mut parts.backends[0].source {
                endpoints[0] = vec![endpoint(port)];
            }
            runtime.block_on(handle.publish(Table::build(parts).unwrap()));
            served.store(port, Ordering::Release);
        }
        runtime.block_on(handle.publish(Table::default()));
        for worker in workers {
            assert_eq!(worker.join().unwrap(), []);
        }
    });
    let counted: u64 = handle
        .versions(Instant::now())
        .iter()
        .map(|version| version.counts().in_flight)
        .sum();
    assert_eq!(counted, 0);
    assert_eq!(handle.shared.ledger().history.len(), 1);
}

#[tokio::test]
async fn a_request_keeps_its_table() {
    let shop = shop(1, [100, 0]);
    let before = shop.workers[0].current();
    shop.publish(table([0, 100]));
    assert_eq!(port(&chosen(&before, 0)), 8001);
}

#[tokio::test]
async fn before_the_first_table_nothing_is_published() {
    let shop = open_shop(1, None);
    assert!(!shop.workers[0].current().is_published());
    assert!(shop.workers[0].current().route("web", "/").is_none());
    assert_eq!(shop.handle.acknowledged().serial, 0);
}

#[tokio::test]
async fn old_tables_are_dropped_by_the_publisher() {
    let shop = shop(1, [100, 0]);
    let first = Arc::downgrade(&shop.handle.newest());
    let request = shop.workers[0].current();
    shop.publish(table([0, 100]));
    drop(request);
    assert!(
        first.upgrade().is_some(),
        "a worker must not be the last to hold a table"
    );
    shop.publish(table([50, 50]));
    assert!(first.upgrade().is_none());
    assert!(shop.handle.shared.ledger().history.len() <= 2);
}

#[tokio::test]
async fn the_sequence_runs_on_over_tables() {
    let ports = |republished: bool| {
        let shop = shop(1, [70, 30]);
        let mut ports = Vec::new();
        for round in 0..200_u32 {
            if republished && round % 3 == 0 {
                let mut parts = parts([70, 30]);
                parts.splits[0].generation = i64::from(round) + 2;
                shop.publish(Table::build(parts).unwrap());
            }
            ports.push(port(&chosen(&shop.workers[0].current(), 0)));
        }
        ports
    };
    assert_eq!(ports(false), ports(true));
}

#[tokio::test]
async fn endpoints_and_versions_are_found_again() {
    let shop = shop(1, [100, 0]);
    let before = shop.workers[0].current();
    let (endpoint, version) = (
        &chosen(&before, 0).endpoints()[0],
        chosen(&before, 0).state(),
    );
    let guard = endpoint.begin();
    let mut changed = parts([100, 0]);
    changed.backends.remove(1);
    changed.routes.clear();
    changed.splits[0].generation = 2;
    shop.publish(Table::build(changed).unwrap());
    let after = shop.workers[0].current();
    assert!(Arc::ptr_eq(endpoint, &chosen(&after, 0).endpoints()[0]));
    assert!(Arc::ptr_eq(version, chosen(&after, 0).state()));
    assert_eq!(chosen(&after, 0).endpoints()[0].in_flight(), 1);
    drop(guard);
    assert_eq!(endpoint.in_flight(), 0);
}

#[test]
fn an_endpoint_leaves_with_the_last_backend_that_lists_it() {
    let with = |in_split: bool, plain: bool| {
        let mut parts = parts([0, 100]);
        if let Source::Split { endpoints, .. } = &mut parts.backends[0].source
            && !in_split
        {
            endpoints[1].clear();
        }
        let listed = if plain { vec![endpoint(8002)] } else { vec![] };
        parts.backends[1].source = Source::Endpoints(listed);
        Table::build(parts).unwrap()
    };
    let shop = shop(1, [0, 100]);
    shop.publish(with(true, true));
    let table = shop.workers[0].current();
    let endpoint = &chosen(&table, 0).endpoints()[0];
    for (in_split, plain) in [
        (false, true),
        (true, true),
        (true, false),
        (false, false),
        (true, true),
    ] {
        shop.publish(with(in_split, plain));
        assert_eq!(
            endpoint.leaving(),
            !in_split && !plain,
            "{in_split}, {plain}"
        );
    }
}

#[track_caller]
fn check_leaving(change: impl Fn(&mut Endpoint), expected: bool) {
    let shop = shop(1, [0, 100]);
    let table = shop.workers[0].current();
    let endpoint = &chosen(&table, 0).endpoints()[0];
    let mut changed = parts([0, 100]);
    if let Source::Split { endpoints, .. } = &mut changed.backends[0].source {
        change(&mut endpoints[1][0]);
    }
    shop.publish(Table::build(changed).unwrap());
    assert_eq!(endpoint.leaving(), expected);
    shop.publish(self::table([0, 100]));
    assert!(!endpoint.leaving(), "it came back");
}

#[tokio::test]
async fn an_endpoint_leaves_when_it_terminates_or_is_listed_no_more() {
    check_leaving(|_| {}, false);
    check_leaving(|endpoint| endpoint.ready = false, false);
    check_leaving(|endpoint| endpoint.terminating = true, true);
    check_leaving(|endpoint| endpoint.pod = "another".to_owned(), true);
}

#[tokio::test]
async fn an_endpoint_listed_twice_stands_once() {
    let shop = shop(1, [100, 0]);
    let mut twice = parts([100, 0]);
    twice.backends[1].source = Source::Endpoints(vec![endpoint(8003), endpoint(8003)]);
    shop.publish(Table::build(twice).unwrap());
    assert_eq!(chosen(&shop.workers[0].current(), 1).endpoints().len(), 1);
}

#[tokio::test]
async fn a_request_is_counted_from_begin_to_end() {
    let shop = shop(2, [100, 0]);
    let tables: Vec<_> = shop.workers.iter().map(|worker| worker.current()).collect();
    let at = |ms| shop.now + Duration::from_millis(ms);
    let mut first = chosen(&tables[0], 0).begin(at(10));
    let second = chosen(&tables[1], 0).begin(at(25));
    let counts = shop.counts("stable");
    assert_eq!((counts.in_flight, counts.oldest_start_ms), (2, Some(10)));
    first.answered(200);
    first.finish(Outcome::Ok, at(15));
    let counts = shop.counts("stable");
    assert_eq!((counts.in_flight, counts.oldest_start_ms), (1, Some(25)));
    drop(second);
    let counts = shop.counts("stable");
    assert_eq!((counts.in_flight, counts.oldest_start_ms), (0, None));
    assert_eq!(counts.codes[cells::code_slot(200)], 1);
    assert_eq!(counts.codes[cells::code_slot(499)], 1);
    assert_eq!(counts.outcomes[Outcome::Ok.index()], 1);
    assert_eq!(counts.outcomes[Outcome::ClientAbort.index()], 1);
    assert_eq!((counts.timed(), counts.latency_sum_us), (1, 5_000));
}

#[tokio::test]
async fn an_upgrade_counts_without_its_length() {
    let shop = shop(1, [100, 0]);
    let table = shop.workers[0].current();
    let mut tunnel = chosen(&table, 0).begin(shop.now);
    tunnel.answered(101);
    tunnel.finish(Outcome::Ok, shop.now + Duration::from_secs(3_600));
    let counts = shop.counts("stable");
    assert_eq!((counts.requests(), counts.timed()), (1, 0));
}

#[tokio::test]
async fn figures_outlive_the_table_by_ten_minutes_and_by_what_is_in_flight() {
    let shop = shop(1, [0, 100]);
    let request = chosen(&shop.workers[0].current(), 0).begin(shop.now);
    let mut without = parts([100, 0]);
    without.splits[0].versions[1].revision = "next-hash".to_owned();
    shop.publish(Table::build(without).unwrap());
    let known = |after_s| {
        let versions = shop
            .handle
            .versions(Instant::now() + Duration::from_secs(after_s));
        versions
            .iter()
            .any(|version| version.key.revision == "canary-hash")
    };
    assert!(known(0));
    assert!(known(700), "one is in flight");
    request.finish(Outcome::Ok, shop.now);
    assert!(known(590));
    assert!(!known(700));
}

#[tokio::test]
async fn a_version_that_comes_back_goes_on_counting() {
    let shop = shop(1, [0, 100]);
    drop(chosen(&shop.workers[0].current(), 0).begin(shop.now));
    let mut without = parts([100, 0]);
    without.splits[0].versions[1].name = "other".to_owned();
    shop.publish(Table::build(without).unwrap());
    shop.publish(table([0, 100]));
    drop(chosen(&shop.workers[0].current(), 0).begin(shop.now));
    assert_eq!(shop.counts("canary").requests(), 2);
}

/// Of 1,000 requests at 90/10 while one version has nothing ready.
#[track_caller]
fn check_fallback(fallback: crate::table::Fallback, unready: usize, expected: [usize; 3]) -> Shop {
    let shop = shop(1, [90, 10]);
    let mut parts = parts([90, 10]);
    parts.splits[0].fallback = fallback;
    parts.splits[0].versions[unready].ready = 0;
    shop.publish(Table::build(parts).unwrap());
    let table = shop.workers[0].current();
    let mut seen = [0_usize; 3];
    for _ in 0..1_000 {
        match table.choose(0) {
            Choice::Serve(chosen) => seen[usize::from(port(&chosen) - 8001)] += 1,
            Choice::Refuse(..) => seen[2] += 1,
        }
    }
    for (seen, expected) in seen.iter().zip(expected) {
        assert!(seen.abs_diff(expected) <= 6, "{seen} instead of {expected}");
    }
    shop
}

#[tokio::test]
async fn a_fallback_is_counted_in_the_version_that_was_meant() {
    use crate::table::Fallback::{Redistribute, Refuse};
    let fell_back = |shop: &Shop, name: &str| shop.counts(name).fallback.iter().sum::<u64>();
    let shop = check_fallback(Redistribute, 1, [1_000, 0, 0]);
    assert!(fell_back(&shop, "canary").abs_diff(100) <= 6);
    assert_eq!(fell_back(&shop, "stable"), 0);
    let shop = check_fallback(Refuse, 0, [0, 100, 900]);
    assert!(fell_back(&shop, "stable").abs_diff(900) <= 6);
    assert_eq!(fell_back(&shop, "canary"), 0);
}

#[tokio::test]
async fn nothing_to_choose_from_is_refused() {
    let shop = shop(1, [0, 0]);
    assert!(matches!(
        shop.workers[0].current().choose(0),
        Choice::Refuse(None, Refused::NoWeight)
    ));
    let mut empty = parts([0, 0]);
    empty.backends[1].source = Source::Endpoints(vec![]);
    shop.publish(Table::build(empty).unwrap());
    let table = shop.workers[0].current();
    let Choice::Refuse(Some(_), refused) = table.choose(1) else {
        panic!("served without endpoints");
    };
    assert_eq!(refused.name(), "no-ready-endpoints");
}

#[tokio::test]
async fn picks_are_random_when_told() {
    let shop = open_shop(1, Some(Pick::Random));
    shop.publish(table([50, 50]));
    let table = shop.workers[0].current();
    let canary = (0..1_000)
        .filter(|_| port(&chosen(&table, 0)) == 8002)
        .count();
    assert!(canary.abs_diff(500) < 80, "{canary}");
}

#[test]
fn errors_are_counted_under_a_bounded_set_of_reasons() {
    let front = Front::default();
    (0..100).for_each(|i| front.downstream_error(&format!("reason-{i}")));
    front.downstream_error("reason-0");
    let errors = front.downstream_errors();
    assert_eq!(errors.len(), Front::REASONS_MAX + 1);
    assert_eq!((errors["reason-0"], errors["other"]), (2, 36));
}
