//! Logs: one subscriber for the process, set once at start, to standard error.

use std::io::IsTerminal;

use anyhow::Context;
use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, as `tracing` writes it: `info`, `sidestep_control=debug,warn`.
const FILTER: &str = "SIDESTEP_LOG";

/// Starts logging at `level` or as `SIDESTEP_LOG` says.
///
/// # Errors
/// The variable does not parse.
pub(crate) fn start(level: &str) -> anyhow::Result<()> {
    let directives = std::env::var(FILTER).unwrap_or_else(|_| level.to_owned());
    let filter =
        EnvFilter::try_new(&directives).with_context(|| format!("{FILTER}={directives}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .init();
    std::panic::set_hook(Box::new(
        |panic| tracing::error!(%panic, "a task panicked: this is a bug of ours"),
    ));
    Ok(())
}
