//! What the user asks of a cluster: one read or patch each.
//!
//! The patches are those of `kubectl argo rollouts` (reference 2.11), so that any controller that knows the one understands the
//! other. The verbs are plain functions over a [`Rollouts`]; the command line prints around them, the dashboard calls them.

pub(crate) mod abort;
pub(crate) mod failure;
pub(crate) mod get;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod pause;
pub(crate) mod promote;
pub(crate) mod restart;
pub(crate) mod retry;
pub(crate) mod rollouts;
pub(crate) mod set_image;
pub(crate) mod status;
pub(crate) mod undo;
pub(crate) mod version;

#[cfg(test)]
mod script;

use std::io::{Write, stdout};

use jiff::Timestamp;

use crate::cli::{Cli, Command, GetKind, ListKind, SetPart};
use crate::client::connect;
use rollouts::Rollouts;

/// Does what the user typed.
///
/// # Errors
/// What could not be done; [`failure::text`] says it to a person.
pub(crate) async fn run(cli: Cli) -> anyhow::Result<()> {
    if let Command::Version(args) = &cli.command {
        return print(&version::text(args.short));
    }
    let session = connect(&cli.connection).await?;
    let rollouts = Rollouts::of(&session);
    match cli.command {
        Command::Get(args) => match args.kind {
            GetKind::Rollout(args) => get::run(&session, &args).await,
        },
        Command::List(args) => match args.kind {
            ListKind::Rollouts(args) => list::run(&session, &args).await,
        },
        Command::Status(args) => status::run(&session, &args).await,
        Command::Promote(args) => promote::run(&rollouts, &args).await,
        Command::Abort(args) => abort::run(&rollouts, &args.names).await,
        Command::Retry(args) => retry::run(&rollouts, &args.into_names()).await,
        Command::Undo(args) => undo::run(&rollouts, &args).await,
        Command::Pause(args) => pause::run(&rollouts, &args.names).await,
        Command::Restart(args) => restart::run(&rollouts, &args).await,
        Command::Set(args) => match args.part {
            SetPart::Image(args) => set_image::run(&rollouts, &args).await,
        },
        Command::Version(_) => Ok(()),
    }
}

/// Prints to standard output.
fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The time, once a picture or a patch.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is an edge: it reads the clock once per picture or patch"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
