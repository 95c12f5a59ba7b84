//! Sidestep: canary routing without the mesh.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | what the user typed |
//! | [`settings`] | typed → usable |
//! | [`client`] | the connection to a cluster |
//! | [`commands`] | one read or patch each |
//! | [`manifest`] | files → objects, or complaints with file, line and field |
//! | [`apply`] | objects → cluster |
//! | [`view`] | objects → text |

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "what `run -f` does, which is wired next")
)]
mod apply;
mod cli;
mod client;
mod commands;
mod manifest;
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "what `run` and `demo` take, which are wired next")
)]
mod settings;
mod view;

use std::io::{Write, stderr};
use std::process::ExitCode;

use clap::Parser;
use sidestep_control::local::launcher;

/// What the user typed cannot be done, as clap and most commands have it.
const USAGE: u8 = 2;

/// There is no such command, as shells have it.
const NOT_STARTED: u8 = 127;

fn main() -> ExitCode {
    if let Some(invocation) = launcher::invoked(std::env::args_os()) {
        return internal(invocation);
    }
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(usage) => {
            let printed = usage.print();
            let is_help = !usage.use_stderr() && printed.is_ok();
            return if is_help {
                ExitCode::SUCCESS
            } else {
                ExitCode::from(USAGE)
            };
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if commands::failure::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => complain(&error),
    }
}

/// Does what a process of this program asked its own program for: see `sidestep_control::local::launcher`.
fn internal(invocation: launcher::Invocation) -> ExitCode {
    let Err(error) = invocation.run() else {
        return ExitCode::SUCCESS;
    };
    match writeln!(stderr(), "sidestep: {:#}", anyhow::Error::new(error)) {
        Ok(()) | Err(_) => ExitCode::from(NOT_STARTED),
    }
}

/// Runs a command on this thread.
fn run(cli: cli::Cli) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(commands::run(cli))
}

fn complain(error: &anyhow::Error) -> ExitCode {
    match writeln!(stderr(), "Error: {}", commands::failure::text(error)) {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}
