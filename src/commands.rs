//! What the user asks of a cluster: one read or patch each.
//!
//! The patches are those of `kubectl argo rollouts` (reference 2.11), so that any controller that knows the one understands the
//! other. The verbs are plain functions over a [`Rollouts`]; the command line prints around them, the dashboard calls them.

pub(crate) mod abort;
pub(crate) mod crds;
pub(crate) mod failure;
pub(crate) mod get;
pub(crate) mod lint;
pub(crate) mod list;
pub(crate) mod live;
pub(crate) mod pause;
pub(crate) mod preflight;
pub(crate) mod promote;
pub(crate) mod release;
pub(crate) mod restart;
pub(crate) mod retry;
pub(crate) mod rollouts;
pub(crate) mod set_image;
pub(crate) mod status;
pub(crate) mod undo;
pub(crate) mod version;

#[cfg(test)]
pub(crate) mod script;

use std::io::{Write, stdout};

use jiff::Timestamp;

use crate::cli::{Connection, GetArgs, GetKind, ListArgs, ListKind, SetArgs, SetPart, Verb};
use crate::client::connect;
use crate::completion;
use rollouts::Rollouts;

/// Does what the user typed.
///
/// # Errors
/// What could not be done; [`failure::text`] says it to a person.
pub(crate) async fn run(verb: Verb, at: &Connection) -> anyhow::Result<()> {
    match verb {
        Verb::Get(GetArgs {
            kind: GetKind::Rollout(args),
        }) => get::run(&connect(at).await?, &args).await,
        Verb::List(ListArgs {
            kind: ListKind::Rollouts(args),
        }) => list::run(&connect(at).await?, &args).await,
        Verb::Status(args) => status::run(&connect(at).await?, &args).await,
        Verb::Promote(args) => promote::run(&rollouts(at).await?, &args).await,
        Verb::Abort(args) => abort::run(&rollouts(at).await?, &args.names).await,
        Verb::Retry(args) => retry::run(&rollouts(at).await?, &args.into_names()).await,
        Verb::Undo(args) => undo::run(&rollouts(at).await?, &args).await,
        Verb::Pause(args) => pause::run(&rollouts(at).await?, &args.names).await,
        Verb::Restart(args) => restart::run(&rollouts(at).await?, &args).await,
        Verb::Set(SetArgs {
            part: SetPart::Image(args),
        }) => set_image::run(&rollouts(at).await?, &args).await,
        Verb::Lint(args) => lint::run(&args, at.namespace.as_deref()),
        Verb::Preflight(args) => preflight::run(&connect(at).await?, at, &args).await,
        Verb::Release(args) => release::run(&connect(at).await?, &args).await,
        Verb::Crds(args) => crds::run(&args),
        Verb::Completion(args) => {
            let script = completion::script(args.shell);
            print(&String::from_utf8_lossy(&script))
        }
        Verb::Version(args) => print(&version::text(args.short)),
    }
}

async fn rollouts(at: &Connection) -> anyhow::Result<Rollouts> {
    Ok(Rollouts::of(&connect(at).await?))
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The time, once a picture or a patch.
#[expect(
    clippy::disallowed_methods,
    reason = "the command line is an edge: it reads the clock once per picture or patch"
)]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
