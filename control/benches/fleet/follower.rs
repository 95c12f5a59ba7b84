//! The leader's side: the real fleet, followed through three stretches of time.

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use kube::Client;
use sidestep_control::fleet::{Config, Fleet};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::asking::{Asking, Woken};
use super::figures::{Figures, Meter};
use super::slice::{NAMESPACE, SERVICE, Server};
use super::{Shape, say};

/// A Split gets another generation this often.
const CHANGE_EVERY: Duration = Duration::from_millis(100);
/// Until streams that were reopened for another pace have settled too.
const SETTLE: Duration = Duration::from_secs(30);

/// The last of the generations must be verified by then.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts the fakes, follows them, and prints what it cost.
pub(crate) async fn measure(shape: Shape) -> anyhow::Result<()> {
    let mut fakes = Fakes::start(shape).await?;
    say(&format!(
        "{} proxies, {} Splits, {} s each",
        shape.proxies, shape.splits, shape.seconds
    ));
    let woken = Arc::new(Woken::default());
    let listener = Arc::clone(&woken);
    let fleet = Fleet::new(Box::new(move |wake| listener.note(wake, shape.splits)));
    let config = Config {
        namespace: NAMESPACE.to_owned(),
        service: SERVICE.to_owned(),
    };
    let client = Client::new(Server::new(shape.proxies)?, "default");
    let stop = CancellationToken::new();
    let meter = Meter::start(&mut fakes).await?;
    let running = {
        let (fleet, stop) = (fleet.clone(), stop.clone());
        tokio::spawn(async move { fleet.run(client, config, stop).await })
    };
    let mut asking = Asking::new(fleet.clone(), woken, shape);
    fleet.known().await;
    show("starting", &meter.read(&mut fakes, Vec::new()).await?);

    asking.until(Instant::now() + SETTLE).await;
    let length = Duration::from_secs(shape.seconds);
    let meter = Meter::start(&mut fakes).await?;
    asking.until(Instant::now() + length).await;
    show("at rest", &meter.read(&mut fakes, Vec::new()).await?);

    let meter = Meter::start(&mut fakes).await?;
    let took = change(&mut fakes, &mut asking, length).await?;
    show("while weights change", &meter.read(&mut fakes, took).await?);
    stop.cancel();
    running.await?;
    fakes.process.kill().await?;
    Ok(())
}

/// Gives out one generation after the other; how long each took to be verified.
async fn change(
    fakes: &mut Fakes,
    asking: &mut Asking,
    length: Duration,
) -> anyhow::Result<Vec<Duration>> {
    let end = Instant::now() + length;
    let mut took = Vec::new();
    let mut next = Instant::now();
    for split in (0..asking.splits())
        .cycle()
        .take_while(|_| Instant::now() < end)
    {
        next += CHANGE_EVERY;
        asking.expect(split);
        fakes.order(&split.to_string()).await?;
        took.extend(asking.until(next).await);
    }
    let limit = Instant::now() + LIMIT;
    while asking.missing() > 0 {
        anyhow::ensure!(
            Instant::now() < limit,
            "{} generations were not verified within {LIMIT:?}",
            asking.missing()
        );
        took.extend(asking.until(Instant::now() + CHANGE_EVERY).await);
    }
    took.sort();
    Ok(took)
}

fn show(what: &str, figures: &Figures) {
    say(&format!("{what}\n{figures}"));
}

/// The process of the fakes.
pub(crate) struct Fakes {
    process: Child,
    orders: ChildStdin,
    said: Lines<BufReader<ChildStdout>>,
}

impl Fakes {
    /// Returns once all of them listen.
    async fn start(shape: Shape) -> anyhow::Result<Self> {
        let numbers = [shape.proxies, shape.splits].map(|number| number.to_string());
        let mut process = Command::new(std::env::current_exe()?)
            .arg("fakes")
            .args(numbers)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let orders = process.stdin.take().context("no input")?;
        let said = BufReader::new(process.stdout.take().context("no output")?).lines();
        let mut fakes = Self {
            process,
            orders,
            said,
        };
        fakes
            .said
            .next_line()
            .await?
            .context("the fakes do not start")?;
        Ok(fakes)
    }

    async fn order(&mut self, order: &str) -> anyhow::Result<()> {
        self.orders
            .write_all(format!("{order}\n").as_bytes())
            .await?;
        Ok(self.orders.flush().await?)
    }

    /// How many lines they have said so far.
    pub(crate) async fn lines(&mut self) -> anyhow::Result<u64> {
        self.order("").await?;
        let said = self
            .said
            .next_line()
            .await?
            .context("the fakes are silent")?;
        Ok(said.parse()?)
    }
}
