//! What routing costs a proxy: `cargo bench -p sidestep-control --bench table`.
//!
//! 2,000 Rollouts in the middle of an update, each with an Ingress, its two Services, two revision Services of two ready pods each and
//! a Split, as an API server hands them out (`world`). A stand-in for the API server (`server`) lists them and sends changes; routing
//! runs as in a proxy and publishes to two workers, who take every table up. Printed:
//!
//! - a full build: from objects to a table that every worker has taken up;
//! - a change: from the line of the watch to that point, on the clock and as CPU time of the thread that does it. The clock has
//!   the time for which changes are gathered in it, 2 ms and what a timer adds;
//! - memory: bytes on the heap per Rollout, all that routing holds and the table by itself.
//!
//! The bars: a full build under 200 ms, a change under 5 ms, 15 KiB per Rollout.

#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

mod figures;
mod server;
mod workers;
mod world;

use std::alloc::System;
use std::time::Duration;

use cap::Cap;
use kube::Client;
use sidestep_control::routing::{self, Attached, Options};
use sidestep_proxy::table::Pick;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use figures::Figures;
use server::Server;
use workers::Workers;

/// Rollouts, as the bar has them.
const ROLLOUTS: usize = 2_000;
/// Full builds.
const BUILDS: usize = 20;
/// Changes of each kind.
const CHANGES: usize = 200;
/// Longest wait for a table.
const LIMIT: Duration = Duration::from_secs(60);

/// Counts what is on the heap.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    full_builds().await?;
    changes().await
}

/// Objects that are there → a table that is served.
async fn full_builds() -> anyhow::Result<()> {
    let snapshot = world::snapshot(ROLLOUTS)?;
    let (mut built, mut served) = (Figures::default(), Figures::default());
    let mut table_bytes = 0;
    for _ in 0..BUILDS {
        let workers = Workers::start(2)?;
        let before = HEAP.allocated();
        let begin = Instant::now();
        let (table, notices) = routing::build(&snapshot, &options());
        built.add(begin.elapsed());
        workers.tables.publish(table).await;
        served.add(begin.elapsed());
        table_bytes = HEAP.allocated().saturating_sub(before);
        anyhow::ensure!(notices.is_empty(), "{notices:?}");
        workers.stop()?;
    }
    println!("{ROLLOUTS} Rollouts, {BUILDS} full builds");
    println!("  a table is built in     {built}");
    println!("  … and served in         {served}");
    println!("  the table, served       {}", per_rollout(table_bytes));
    Ok(())
}

/// One object changes → a table that is served.
async fn changes() -> anyhow::Result<()> {
    let server = Server::new(ROLLOUTS);
    let workers = Workers::start(2)?;
    let (published, mut tables) = watch::channel(0_u64);
    let stop = CancellationToken::new();
    let before = HEAP.allocated();
    let begin = Instant::now();
    let routing = routing::run(
        client(&server),
        options(),
        {
            let handle = workers.tables.clone();
            move |new| {
                let (handle, published) = (handle.clone(), published.clone());
                async move {
                    handle.publish(new.table).await;
                    published.send_modify(|count| *count += 1);
                }
            }
        },
        stop.clone(),
    );
    let routing = tokio::spawn(routing);
    tokio::time::timeout(LIMIT, tables.changed()).await??;
    println!("watches");
    println!(
        "  listed, read and served in {:.0} ms",
        begin.elapsed().as_secs_f64() * 1e3
    );
    println!(
        "  held by routing         {}",
        per_rollout(HEAP.allocated().saturating_sub(before))
    );
    for kind in world::CHANGES {
        let (mut clock, mut cpu) = (Figures::default(), Figures::default());
        for number in 0..CHANGES {
            let event = (kind.event)(1 + number);
            let (begin, used) = (Instant::now(), cpu_time()?);
            server.send(kind.collection, &event).await?;
            tokio::time::timeout(LIMIT, tables.changed()).await??;
            clock.add(begin.elapsed());
            cpu.add(cpu_time()?.saturating_sub(used));
        }
        println!("{CHANGES} times {}", kind.name);
        println!("  on the clock            {clock}");
        println!("  CPU                     {cpu}");
    }
    stop.cancel();
    routing.await?;
    workers.stop()
}

fn client(server: &Server) -> Client {
    Client::new(server.clone(), "default")
}

fn options() -> Options {
    Options {
        namespace: None,
        fleet: "default".to_owned(),
        fleet_service: ("sidestep".to_owned(), "sidestep-proxy".to_owned()),
        attached: Attached::Ingresses {
            class: "sidestep".to_owned(),
            secrets: None,
        },
        apexes: None,
        own: Vec::new(),
        pick: Pick::default(),
    }
}

fn per_rollout(bytes: usize) -> String {
    let each = bytes / ROLLOUTS;
    format!(
        "{}.{} KiB per Rollout",
        each / 1024,
        each % 1024 * 10 / 1024
    )
}

/// What this thread has run so far, as the scheduler counts it.
fn cpu_time() -> anyhow::Result<Duration> {
    let line = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = line.split(' ').next().unwrap_or_default();
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}
