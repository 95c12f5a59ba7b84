//! `sidestep demo`: the story a newcomer sees, told with the same parts that run in a cluster.

mod load;
mod scene;
mod story;

use std::io::IsTerminal;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, bail};
use sidestep_control::reconcile::routers::Policy;
use sidestep_proxy::{Config, TableHandle};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::apply::Applier;
use crate::client::Session;
use crate::commands::live::Live;
use crate::commands::print;
use crate::machine::{Machine, Settings};
use crate::manifest;
use crate::proxy_config;
use crate::rates::Rates;
use crate::run::{end, signalled};
use crate::settings::{DemoSettings, ServiceName};
use crate::view::info::{Info, Objects};
use crate::view::steps;
use load::{Load, Target};
use scene::{Row, Scene};
use story::{NAME, Story};

/// The manifests of the demo.
const MANIFESTS: &str = include_str!("../examples/demo.yaml");
/// Clients of the load, and requests per second over all of them: enough for 5,000 in a step of 5 s on a small machine.
const CLIENTS: u32 = 32;
const RATE: u32 = 1_500;
/// How often the terminal is drawn: ages and rates change by the second, a weight at once.
const DRAW_EVERY: Duration = Duration::from_millis(500);

/// Tells the story; with `--once` it ends with it, else it runs until Ctrl-C.
///
/// # Errors
/// When something cannot be started, or the story did not go as promised.
pub(crate) async fn demo(settings: DemoSettings) -> anyhow::Result<()> {
    let mut machine = Machine::start(parts(&settings)).await?;
    let stage = Stage {
        session: machine.session.clone(),
        listen: machine.listen,
        page: machine
            .dashboard
            .map_or_else(|| "off".to_owned(), |address| format!("http://{address}")),
        tables: machine.tables.clone(),
        lines: watch::Sender::default(),
        seen: watch::Sender::default(),
    };
    let ended = tokio::select! {
        told = play(&stage, &settings) => told,
        signal = signalled() => signal.and_then(|()| interrupted(&settings)),
        error = machine.failed() => Err(error),
    };
    end(machine).await?;
    ended
}

/// Whoever asked for the whole story is told that it was not.
fn interrupted(settings: &DemoSettings) -> anyhow::Result<()> {
    if settings.once {
        bail!("interrupted before the story had ended");
    }
    Ok(())
}

fn parts(settings: &DemoSettings) -> Settings {
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Settings {
        namespace: "default".to_owned(),
        proxy: Config {
            listen: vec![settings.listen],
            ..proxy_config::alone()
        },
        admin: any_port,
        api: any_port,
        dashboard: settings.dashboard,
        state: None,
        kubeconfig_out: settings.kubeconfig_out.clone(),
        default_service: Some(ServiceName {
            namespace: "default".to_owned(),
            name: NAME.to_owned(),
        }),
        foreign_routers: Policy::Translate,
    }
}

/// What the story plays on, and what is known of it for the picture.
struct Stage {
    session: Session,
    listen: SocketAddr,
    page: String,
    tables: TableHandle,
    lines: watch::Sender<Vec<String>>,
    seen: watch::Sender<Objects>,
}

async fn play(stage: &Stage, settings: &DemoSettings) -> anyhow::Result<()> {
    let objects = manifest::parse("examples/demo.yaml", MANIFESTS, &stage.session.namespace)?;
    Applier::new(stage.session.client.clone())
        .apply(objects)
        .await?;
    let mut live = Live::start(&stage.session, NAME, "");
    story::first_version(&mut live, &stage.tables).await?;
    stage.seen.send_replace(live.objects()?);
    let load = Load::start(&Target {
        address: stage.listen,
        host: NAME.to_owned(),
        path: "/color".to_owned(),
        clients: CLIENTS,
        rate: RATE,
    });
    let told = tokio::select! {
        told = tell(stage, live, &load, settings) => told,
        shown = show(stage, &load, settings) => shown,
    };
    load.stop().await;
    told
}

async fn tell(
    stage: &Stage,
    live: Live,
    load: &Load,
    settings: &DemoSettings,
) -> anyhow::Result<()> {
    let mut story = Story {
        session: &stage.session,
        live,
        load,
        seen: stage.seen.clone(),
        lines: stage.lines.clone(),
    };
    let report = story.tell().await?;
    if let Some(path) = &settings.report {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("--report: writing {}", path.display()))?;
    }
    if settings.once {
        return report.verdict();
    }
    story.say("that was the story; the traffic goes on. In another terminal, try:".to_owned());
    story.say(format!(
        "sidestep set image demo app=rollouts-demo:green --kubeconfig {}",
        settings.kubeconfig_out.display()
    ));
    story.follow().await
}

/// Draws the picture again and again; without a terminal, or with `--plain`, prints the lines of the story as they come.
async fn show(stage: &Stage, load: &Load, settings: &DemoSettings) -> anyhow::Result<()> {
    if settings.plain || !std::io::stdout().is_terminal() {
        return print_lines(stage).await;
    }
    let colour = !settings.no_color && std::env::var_os("NO_COLOR").is_none();
    let mut rates = Rates::new(stage.tables.clone(), Instant::now());
    let mut ticks = interval(DRAW_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let picture = scene::draw(&moment(stage, load, &mut rates), colour);
        print(&format!("\x1b[H\x1b[J{picture}"))?;
    }
}

async fn print_lines(stage: &Stage) -> anyhow::Result<()> {
    let mut lines = stage.lines.subscribe();
    let mut printed = 0;
    loop {
        let new = lines.borrow_and_update()[printed..].to_vec();
        for line in &new {
            print(&format!("{line}\n"))?;
        }
        printed += new.len();
        lines.changed().await?;
    }
}

/// Why the rollout is as it is: what went wrong, else what it waits for.
fn why(info: &Info) -> &str {
    match &info.waiting {
        Some(waiting) if info.status != "Degraded" => &waiting.message,
        Some(_) | None => &info.message,
    }
}

/// One moment, as it is drawn.
fn moment(stage: &Stage, load: &Load, rates: &mut Rates) -> Scene {
    let objects = stage.seen.borrow().clone();
    let info = Info::of(&objects);
    let total = load.total();
    let failures = story::failures(&total);
    let figures = rates
        .look(Instant::now())
        .remove(&(info.namespace.clone(), info.name.clone()))
        .unwrap_or_default();
    let canary = figures.iter().find(|figures| figures.name == "canary");
    let image_of = |revision: &str| {
        let mut sets = info
            .revisions
            .iter()
            .flat_map(|revision| &revision.replica_sets);
        let images = sets
            .find(|set| set.name.ends_with(revision))
            .map(|set| set.images.join(", "));
        images.unwrap_or_default().replace("rollouts-demo:", "")
    };
    Scene {
        traffic: format!("http://{}", stage.listen),
        page: stage.page.clone(),
        message: why(&info).to_owned(),
        steps: steps::words(&objects.rollout),
        step: objects
            .rollout
            .status
            .as_ref()
            .and_then(|status| usize::try_from(status.current_step_index?).ok())
            .unwrap_or(0),
        weight: canary.map_or(0.0, |canary| canary.desired * 100.0),
        effective: canary.map_or(0.0, |canary| canary.effective * 100.0),
        versions: figures
            .iter()
            .map(|figures| Row {
                name: figures.name.clone(),
                image: image_of(&figures.revision),
                rate: figures.rps,
                error_rate: figures.error_rate,
                p99: figures.p99,
            })
            .collect(),
        requests: total.requests(),
        canary_failures: failures.canary,
        unexpected: failures.unexpected,
        lines: stage.lines.borrow().clone(),
        phase: info.status,
    }
}
