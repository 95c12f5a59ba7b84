//! What following a fleet costs the leader: `cargo bench -p sidestep-control --bench fleet [-- PROXIES SPLITS SECONDS]`.
//!
//! 1,000 proxies with 300 active Splits, and a minute for each figure, unless told otherwise. The proxies are stand-ins of one further
//! process (`fakes`), each at a loopback address of its own, which say on `GET /splits?watch=1` what proxies say: every counter of every
//! Split is another one each time they tell them. This process is the leader's side: it finds them in an EndpointSlice, follows them, and
//! asks for the view of every Split that it is woken for. Printed:
//!
//! - starting: from the first look until every proxy has said everything once;
//! - at rest: the fakes' counters go on, and nothing else;
//! - while weights change: ten Splits a second get another generation at every proxy at once;
//! - for each: lines a second, CPU as a share of a core, and the heap; and the time from the moment a generation is given out until the
//!   view verifies it.
//!
//! The bar is one core. What the leader does with its API server is measured by the bench `scale` of the program.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod asking;
mod fakes;
mod figures;
mod follower;
mod slice;

use std::alloc::System;

use anyhow::Context;
use cap::Cap;

/// How the fleet is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) proxies: usize,
    pub(crate) splits: usize,
    /// Length of each measurement.
    pub(crate) seconds: u64,
}

/// Counts what is on the heap.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments.split_first() {
        Some((role, rest)) if role == "fakes" => fakes::serve(shape(rest)?).await,
        _ => follower::measure(shape(&arguments)?).await,
    }
}

fn shape(arguments: &[String]) -> anyhow::Result<Shape> {
    let number = |index: usize, default: usize| match arguments.get(index) {
        Some(text) => text.parse().with_context(|| format!("{text} is no number")),
        None => Ok(default),
    };
    Ok(Shape {
        proxies: number(0, 1_000)?,
        splits: number(1, 300)?,
        seconds: u64::try_from(number(2, 60)?)?,
    })
}

/// Says a line to whoever reads this process.
pub(crate) fn say(line: &str) {
    println!("{line}");
}
