//! `sidestep run`: proxy, controller and a one-machine cluster for the user's own manifests, until Ctrl-C or SIGTERM.

use tokio::signal::unix::{SignalKind, signal};

use crate::apply::{self, Applier, Changes};
use crate::commands::{failure, print};
use crate::machine::Machine;
use crate::manifest;
use crate::settings::RunSettings;

/// Runs until a signal or a failure.
///
/// # Errors
/// A manifest that is wrong (nothing is started or applied then), a port in use, or a part that failed.
pub(crate) async fn run(settings: RunSettings) -> anyhow::Result<()> {
    let objects = manifest::read(&settings.manifests, &settings.machine.namespace)?;
    let mut machine = Machine::start(settings.machine.clone()).await?;
    let mut applier = Applier::new(machine.session.client.clone());
    let told = async {
        let changes = applier.apply(objects).await?;
        print(&format!(
            "{}{}",
            lines(&changes),
            greeting(&machine, &settings)
        ))
    };
    let ended = match told.await {
        Ok(()) => until_ended(&mut machine, &settings, applier).await,
        Err(error) => Err(error),
    };
    end(machine).await?;
    ended
}

/// Ends a machine in order; a second signal leaves at once, and nothing survives that either.
pub(crate) async fn end(machine: Machine) -> anyhow::Result<()> {
    tokio::select! {
        () = machine.stop() => Ok(()),
        again = signalled() => again,
    }
}

async fn until_ended(
    machine: &mut Machine,
    settings: &RunSettings,
    applier: Applier,
) -> anyhow::Result<()> {
    let watching = async {
        if settings.watch {
            apply::watch(
                &settings.manifests,
                &settings.machine.namespace,
                applier,
                tell,
            )
            .await;
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        signal = signalled() => signal,
        error = machine.failed() => Err(error),
        () = watching => Ok(()),
    }
}

/// What a look at changed manifests has led to. What is wrong with them changes nothing.
fn tell(looked: anyhow::Result<Changes>) {
    match looked {
        Ok(changes) => {
            if let Err(error) = print(&lines(&changes)) {
                tracing::debug!("{error:#}");
            }
        }
        Err(error) => tracing::error!("{}", failure::text(&error)),
    }
}

/// One line per object that was changed.
fn lines(changes: &Changes) -> String {
    match changes.to_string() {
        nothing if nothing.is_empty() => nothing,
        text => text + "\n",
    }
}

/// Returns when the user or the system asks the process to end.
pub(crate) async fn signalled() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// What the user needs to go on.
fn greeting(machine: &Machine, settings: &RunSettings) -> String {
    let page = machine
        .dashboard
        .map_or_else(|| "off".to_owned(), |address| format!("http://{address}"));
    format!(
        "traffic    http://{} (the Host header names the Service)\ndashboard  {page}\nadmin      http://{}/metrics\nkubectl    --kubeconfig {}\n",
        machine.listen,
        machine.admin,
        settings.machine.kubeconfig_out.display()
    )
}
