//! The controller with many Rollouts, on a real control plane: `cargo bench --bench scale [-- 300 1000 2000]`.
//!
//! Every Rollout has two pods, a stable and a canary Service, and a weighted step behind two proxies. At each size, when all are Healthy:
//! what the controller holds in memory, what it costs and writes while nothing happens, and then, for one Rollout after another, how long
//! a new template takes to become a canary's pod, and once that pod is ready, the weight to be served by every proxy, as the last one says, and
//! to be verified in the Rollout's status. Other times are taken from the watches of an observer, who sees things as late as everybody.
//!
//! The pods are simulated: a task of the bench that serves, and says at once that it is ready.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its figures, and ends where its cluster does not do as asked"
)]

mod figures;
mod release;
mod rollouts;
#[path = "../../tests/support"]
#[expect(dead_code, reason = "the tests need more")]
mod support {
    //! What the tests on this control plane need.

    pub(crate) mod cluster;
    pub(crate) mod session;
}

use std::time::Duration;

use figures::{Cost, Reading, Spread};
use support::cluster::World;
use tokio::time::sleep;

/// How long nothing happens, for the figures at rest.
const REST: Duration = Duration::from_secs(60);
/// How long what followed the last change may go on.
const SETTLE: Duration = Duration::from_secs(15);
/// Templates changed at each size, one after another, each of another Rollout.
const RELEASES: usize = 50;
/// The sizes that are asked for.
const SIZES: [usize; 3] = [300, 1000, 2000];

#[tokio::main]
async fn main() {
    let world = World::start().await;
    let _controller = world.controller(figures::CONTROLLER).await;
    let _proxies = world.proxies(2).await;
    println!("{}", figures::HEADER);
    let mut begun = 0;
    for size in sizes() {
        rollouts::grow(&world, begun..size).await;
        let at_rest = rest(&world).await;
        let mut pod = Spread::default();
        let mut served = Spread::default();
        let mut verified = Spread::default();
        for index in (begun..size).take(RELEASES) {
            let times = release::time(&world, index).await;
            pod.add(times.pod);
            served.add(times.served);
            verified.add(times.verified);
        }
        println!("{size:8}  {at_rest}  {pod}  {served}  {verified}");
        begun = size;
    }
}

/// What the controller costs while nothing happens.
async fn rest(world: &World) -> Cost {
    sleep(SETTLE).await;
    let before = Reading::now(world);
    sleep(REST).await;
    Reading::now(world).since(&before, REST)
}

/// Those of the command line, in its order; else [`SIZES`].
fn sizes() -> Vec<usize> {
    let asked = std::env::args().filter_map(|argument| argument.parse().ok());
    let asked: Vec<usize> = asked.collect();
    match asked.is_empty() {
        true => SIZES.to_vec(),
        false => asked,
    }
}
