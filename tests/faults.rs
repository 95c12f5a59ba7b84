//! What is promised about requests and decisions when parts of Sidestep, or the API server, are killed in the middle of a rollout.
//!
//! Two controllers and two proxies are installed by the chart. A rollout goes through its steps under the eyes of clients from outside and
//! of callers inside the cluster, and a part is killed at some moments of it ([`stage::Moment`]), and again after an abort. A rollout that
//! nobody disturbs comes first: the other must write the same weights in the same order, as often.

mod callers;
mod record;
mod stage;

use tokio::time::sleep;

use self::stage::{CLIENTS, Seen, Stage, gap};
use crate::support::cluster::World;
use crate::support::load::Cause;

/// Kills in [`Stage::releases`] at most.
const KILLS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_killed_is_replaced_and_nobody_notices() {
    let mut stage = Stage::set(World::start().await).await;
    let kill = async |stage: &Stage| {
        let leader = stage.leader().await;
        let pod = leader.split('_').next().unwrap().to_owned();
        stage.kill_9(&[pod]).await;
        stage.until_led_by_another(&leader).await;
    };
    stage.releases(kill).await;
    stage.assert_nothing_was_forbidden();
    nobody_noticed("leader killed", &stage.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_both_controllers_killed_nobody_notices_until_one_is_back() {
    let mut stage = Stage::set(World::start().await).await;
    let kill = async |stage: &Stage| {
        let leader = stage.leader().await;
        let killed = stage.kill_9(&stage.controllers().await).await;
        stage.until_led_by_another(&leader).await;
        stage.until_back(&killed).await;
    };
    stage.releases(kill).await;
    stage.assert_nothing_was_forbidden();
    nobody_noticed("both controllers killed", &stage.end().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_that_is_killed_is_waited_for_and_nobody_notices() {
    let test = "faults::an_api_server_that_is_killed_is_waited_for_and_nobody_notices";
    let Some(world) = World::alone(test).await else {
        return;
    };
    let mut stage = Stage::set(world).await;
    let kill = async |stage: &Stage| {
        stage.system.kill_api_server().await;
        sleep(gap()).await; // What is waited for is time.
        stage.system.start_api_server().await;
    };
    stage.releases(kill).await;
    nobody_noticed("API server killed", &stage.end().await);
}

fn nobody_noticed(what: &str, seen: &Seen) {
    println!("{what}: {seen}");
    let failed = seen.all().map(|tally| tally.failed(|_, _| true));
    assert_eq!(failed.sum::<u64>(), 0, "{seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_that_is_killed_takes_its_own_connections_with_it_and_no_other() {
    let mut stage = Stage::set(World::start().await).await;
    let kill = async |stage: &Stage| {
        let killed = stage.kill_9(&stage.proxies[..1]).await;
        stage.until_back(&killed).await;
    };
    stage.releases(kill).await;
    stage.assert_nothing_was_forbidden();
    let seen = stage.end().await;
    println!("proxy killed: {seen}");
    let [insisting, others] = seen.insisting.as_slice() else {
        panic!("two proxies")
    };
    assert_eq!(others.failed(|_, _| true), 0, "{others}");
    for tally in [insisting, &seen.way_in, &seen.inside] {
        // Whoever goes there loses what was under way, and is refused until it is back, with a table.
        let other = tally.failed(|_, cause| !died(cause) && !refused(cause));
        assert_eq!(other, 0, "{tally}");
        let requests = tally.failed(|_, cause| died(cause));
        assert!(
            requests <= KILLS * u64::from(CLIENTS),
            "one of each connection: {tally}"
        );
    }
}

/// With its connection.
fn died(cause: &Cause) -> bool {
    matches!(cause, Cause::Broken(_))
}

/// Before it was sent.
fn refused(cause: &Cause) -> bool {
    matches!(cause, Cause::NoConnection(_))
}
