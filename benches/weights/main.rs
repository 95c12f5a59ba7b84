//! How long a weight takes on a real control plane: `cargo bench --bench weights`.
//!
//! A Rollout with as many steps as there are weights runs through them as fast as they are verified, with one controller and three
//! proxies, each a process with an account of its own. A weight begins when the API server receives the controller's write of the Split
//! (its audit log), and ends twice: when the last proxy has said that it serves the generation, effective as desired, as a listener of
//! the bench's own hears it on each proxy's stream; and when the controller has heard that (`status.verified` of the Split).
//!
//! The bar: 30 ms for half of the weights, 100 ms for 99 of 100, over 300.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a bench prints its figures, and ends where its cluster does not do as asked"
)]

mod scene;
mod witness;

#[expect(dead_code, reason = "a bench needs a part of what tests do")]
#[path = "../../tests/support"]
mod support {
    pub(crate) mod cluster;
    pub(crate) mod processes;
    pub(crate) mod session;
}

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use scene::Scene;
use support::cluster::terminal::Machine;

/// Proxies, as the bar has them.
const PROXIES: usize = 3;
/// Weights, as the bar has them.
const WEIGHTS: usize = 300;

/// Per generation of the Split.
type Times = BTreeMap<i64, Timestamp>;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let scene = Scene::set(PROXIES, WEIGHTS).await;
    let weights = scene.play().await;
    println!("{PROXIES} proxies, from the API server's receipt of the Split");
    println!(
        "  to the last proxy's word      {}",
        line(&weights.written, &weights.acknowledged)
    );
    println!(
        "  to the controller's knowledge {}",
        line(&weights.written, &weights.verified)
    );
    scene.end().await;
    Ok(())
}

/// How long it took from one to the other.
fn line(from: &Times, until: &Times) -> String {
    let took = from.iter().filter_map(|(generation, begin)| {
        let end = until.get(generation)?;
        Duration::try_from(end.duration_since(*begin)).ok()
    });
    let mut took: Vec<Duration> = took.collect();
    took.sort();
    let at = |percent: usize| {
        let index = (took.len() * percent / 100).min(took.len().saturating_sub(1));
        let duration = took.get(index).copied().unwrap_or_default();
        format!("{:.1}", duration.as_secs_f64() * 1e3)
    };
    let (p50, p90, p99, most) = (at(50), at(90), at(99), at(100));
    let count = took.len();
    format!("p50 {p50} ms, p90 {p90} ms, p99 {p99} ms, most {most} ms, n {count}")
}
