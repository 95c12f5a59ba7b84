//! Sidestep: canary routing without the mesh.
//!
//! | module | what |
//! |---|---|
//! | [`cli`] | what the user typed |
//! | [`settings`] | typed → usable |
//! | [`proxy_config`] | the proxy's configuration file |
//! | [`client`] | the connection to a cluster |
//! | [`commands`] | one read or patch each |
//! | [`completion`] | what shells offer |
//! | [`manifest`] | files → objects, or complaints with file, line and field |
//! | [`apply`] | objects → cluster |
//! | [`view`] | objects → text |
//! | [`mod@run`], [`demo`] | the long-running roles |
//! | [`controller`], [`proxy`] | the roles of a cluster |
//! | [`parts`] | what a role is made of, ended together |
//! | [`machine`] | what they run: cluster, proxy and controller in this process |
//! | [`admin`], [`dashboard`] | what they serve beside traffic |
//! | [`membership`] | this proxy as a member of its fleet |
//! | [`rates`] | what the proxy measured lately, for pages |
//! | [`telemetry`] | logs |

mod admin;
mod apply;
mod cli;
mod client;
mod commands;
mod completion;
mod controller;
mod dashboard;
mod demo;
mod machine;
mod manifest;
mod membership;
mod parts;
mod proxy;
mod proxy_config;
mod rates;
mod run;
mod settings;
mod telemetry;
mod view;

use std::io::{Write, stderr};
use std::process::ExitCode;

use cli::Command;
use settings::{ControllerSettings, DemoSettings, ProxySettings, RunSettings};
use sidestep_control::local::launcher;

/// What the user typed cannot be done, as clap and most commands have it.
const USAGE: u8 = 2;

/// There is no such command, as shells have it.
const NOT_STARTED: u8 = 127;

fn main() -> ExitCode {
    if let Some(invocation) = launcher::invoked(std::env::args_os()) {
        return internal(invocation);
    }
    let mut words = std::env::args_os();
    if words
        .next()
        .is_some_and(|program| cli::is_called(program, completion::FOR_KUBECTL))
    {
        return match commands::print(&completion::answer(words)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error),
        };
    }
    let cli = match cli::Cli::read(std::env::args_os()) {
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

/// Threads of the control plane: the proxy has its own.
const CONTROL_THREADS: usize = 2;

fn run(cli: cli::Cli) -> anyhow::Result<()> {
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        anyhow::bail!("a TLS provider was chosen before us: this is a bug of ours");
    }
    let home = std::env::home_dir();
    match cli.command {
        Command::Demo(args) => {
            telemetry::start("warn")?;
            long_running(demo::demo(DemoSettings::new(&args, home.as_deref())?))
        }
        Command::Run(args) => {
            telemetry::start("info")?;
            let namespace = cli.connection.namespace.as_deref();
            long_running(run::run(RunSettings::new(
                &args,
                namespace,
                home.as_deref(),
            )?))
        }
        Command::Controller(args) => {
            telemetry::start("info")?;
            let settings = ControllerSettings::new(&args)?;
            long_running(controller::run(settings, cli.connection))
        }
        Command::Proxy(args) => {
            telemetry::start("info")?;
            long_running(proxy::run(ProxySettings::new(&args)?, cli.connection))
        }
        Command::Verb(verb) => on_this_thread(commands::run(verb, &cli.connection)),
    }
}

fn long_running(role: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .enable_all()
        .build()?;
    runtime.block_on(role)
}

fn on_this_thread(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(command)
}

fn complain(error: &anyhow::Error) -> ExitCode {
    match writeln!(stderr(), "Error: {}", commands::failure::text(error)) {
        Ok(()) | Err(_) => ExitCode::FAILURE,
    }
}
