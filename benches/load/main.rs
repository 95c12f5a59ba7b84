//! Proxies side by side on the same work: `cargo bench -p sidestep-proxy --bench load`.
//!
//! The work: HTTP/1.1 keep-alive, 64 connections, 128-byte answers, every request split 90/10 over two endpoints, one worker each.
//! Contenders: the direct path to the origin, a bare hyper proxy without any of our features (`probe.rs`, the yardstick), nginx where it
//! is installed, and Sidestep with its split and metrics on. Every contender is a process of its own; rounds are interleaved, so that
//! what else the machine does falls on all alike. Reported: CPU time per request (user + system, of the proxy's process alone),
//! throughput in a closed loop, latency in an open loop counted from the intended send time, resident memory.
//!
//! A run in which the direct path is not clearly faster than every proxy measures the generator; it says so and exits with 1.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a bench prints its table, and its parts their addresses"
)]

mod contenders;
mod figures;
mod generator;
mod origin;
mod probe;
mod sidestep;

use std::time::Duration;

use contenders::Contender;
use figures::{Figures, Sample};

/// Interleaved rounds; the spread over them is reported. Many and short: what else the machine does comes and goes in seconds, and two
/// contenders can be compared only within a round.
const ROUNDS: usize = 25;
/// Connections of the closed loop, as the bar asks for.
const CONNECTIONS: usize = 64;
/// Length of one closed-loop or open-loop measurement.
const MEASURE: Duration = Duration::from_secs(1);
/// Thrown away before each measurement: connections are made, caches are warm.
const WARM_UP: Duration = Duration::from_millis(300);
/// Rate of the open loop in requests per second: well below what any contender can do, so that queues are theirs and not the load's.
const OPEN_RATE: u32 = 4000;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args()
        .skip(1)
        .filter(|argument| argument != "--bench")
        .collect();
    match arguments.split_first() {
        Some((role, rest)) if role == "origin" => origin::serve(rest),
        Some((role, rest)) if role == "probe" => probe::serve(rest),
        Some((role, rest)) if role == "sidestep" => sidestep::serve(rest),
        _ => compare(),
    }
}

fn compare() -> anyhow::Result<()> {
    let origins = [contenders::origin("a")?, contenders::origin("b")?];
    let contenders = contenders::all(&origins)?;
    let mut figures = Figures::new(contenders.iter().map(|contender| contender.name));
    for round in 0..ROUNDS {
        for contender in &contenders {
            let sample = measure(contender)?;
            eprintln!("round {} {:9} {sample}", round + 1, contender.name);
            figures.add(contender.name, sample);
        }
    }
    println!("{figures}");
    figures.verdict()
}

fn measure(contender: &Contender) -> anyhow::Result<Sample> {
    generator::closed_loop(contender.address, CONNECTIONS, WARM_UP)?;
    let before = contender.cpu()?;
    let closed = generator::closed_loop(contender.address, CONNECTIONS, MEASURE)?;
    let cpu = contender.cpu()?.saturating_sub(before);
    let open = generator::open_loop(contender.address, CONNECTIONS, OPEN_RATE, MEASURE)?;
    Ok(Sample::new(&closed, cpu, &open, contender.memory()?))
}
