//! `get rollout`: a picture of a rollout, once or live.

use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

use kube::api::ListParams;
use kube::core::Selector;
use sidestep_control::api::Rollout;
use sidestep_control::wire::Collection;
use tokio::time::Instant;

use super::live::Live;
use super::rollouts::{Rollouts, is_not_found};
use super::{now, print};
use crate::cli::GetRolloutArgs;
use crate::client::Session;
use crate::view::info::{Info, Objects};
use crate::view::paint::Paint;
use crate::view::rollout;

/// Pictures are drawn at most this often, so that the terminal does not flicker (Argo, `cmd/get`).
const LEAST_BETWEEN: Duration = Duration::from_millis(200);

/// Pictures are drawn at least this often, so that ages go on.
const MOST_BETWEEN: Duration = Duration::from_secs(1);

/// Clears the terminal and goes to its corner.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[0;0H";

/// Prints a rollout, or watches it.
pub(crate) async fn run(session: &Session, args: &GetRolloutArgs) -> anyhow::Result<()> {
    let objects = read(session, &args.name).await?;
    let canvas = Canvas::new(args.no_color);
    if !args.watch {
        return print(&canvas.picture(&objects));
    }
    let timeout = (args.timeout_seconds > 0)
        .then(|| Instant::now() + Duration::from_secs(args.timeout_seconds));
    let live = Live::start(session, &args.name, &selector(&objects.rollout)?);
    tokio::select! {
        end = draw(live, &canvas) => end,
        () = until(timeout) => Ok(()),
        interrupt = tokio::signal::ctrl_c() => Ok(interrupt?),
    }
}

/// Reads a rollout and what belongs to it.
///
/// # Errors
/// When the rollout is not there, or something cannot be read. A cluster without our kinds has no Splits and that is well.
pub(crate) async fn read(session: &Session, name: &str) -> anyhow::Result<Objects> {
    let rollout = Rollouts::of(session).get(name).await?;
    let (client, namespace) = (&session.client, &session.namespace);
    let own = ListParams::default().labels(&selector(&rollout)?);
    let none = ListParams::default();
    let (replica_sets, pods, analysis_runs, split) = tokio::join!(
        async { Collection::within(client, namespace).list(&own).await },
        async { Collection::within(client, namespace).list(&own).await },
        async { Collection::within(client, namespace).list(&none).await },
        async { Collection::within(client, namespace).get_opt(name).await },
    );
    Ok(Objects {
        rollout,
        replica_sets: replica_sets?,
        pods: pods?,
        analysis_runs: analysis_runs.or_else(|error| none_if_not_found(error, Vec::new()))?,
        split: split?,
    })
}

fn none_if_not_found<T>(error: kube::Error, none: T) -> kube::Result<T> {
    if is_not_found(&error) {
        Ok(none)
    } else {
        Err(error)
    }
}

/// The label selector of a rollout's pods; empty for a rollout that has none of its own, which selects all.
fn selector(rollout: &Rollout) -> anyhow::Result<String> {
    let selector: Selector = rollout
        .spec
        .selector
        .clone()
        .unwrap_or_default()
        .try_into()?;
    Ok(selector.to_string())
}

/// Draws picture after picture until the rollout is gone.
async fn draw(mut live: Live, canvas: &Canvas) -> anyhow::Result<()> {
    let mut objects = live.ready().await?;
    loop {
        canvas.draw(&objects)?;
        let drawn = Instant::now();
        let mut next = drawn + MOST_BETWEEN;
        loop {
            tokio::select! {
                () = live.changed() => next = drawn + LEAST_BETWEEN,
                () = tokio::time::sleep_until(next) => break,
            }
        }
        objects = live.objects()?;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Standard output as something to draw on.
struct Canvas {
    paint: Paint,
    is_terminal: bool,
}

impl Canvas {
    fn new(no_color: bool) -> Self {
        let variable = |name| std::env::var(name).ok();
        let is_terminal = stdout().is_terminal();
        let paint = Paint::wanted(
            no_color,
            variable("NO_COLOR").as_deref(),
            variable("TERM").as_deref(),
            is_terminal,
        );
        Self { paint, is_terminal }
    }

    fn picture(&self, objects: &Objects) -> String {
        rollout::text(&Info::of(objects), now(), self.paint)
    }

    /// Draws over the last picture on a terminal, below it elsewhere.
    fn draw(&self, objects: &Objects) -> anyhow::Result<()> {
        let (before, after) = if self.is_terminal {
            (CLEAR, "")
        } else {
            ("", "\n")
        };
        let mut out = stdout().lock();
        write!(out, "{before}{}{after}", self.picture(objects))?;
        Ok(out.flush()?)
    }
}
