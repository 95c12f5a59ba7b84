//! A pod as a process of this machine: started, asked how it is, started again, ended.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use jiff::Timestamp;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::pod::{Pod, Wish};
use crate::local::container::{PreStop, Program, Restart};
use crate::local::environment::expand;
use crate::local::launcher::{Launch, Process};
use crate::local::logs::PodLog;
use crate::local::notes::Tone;
use crate::local::place::Place;
use crate::local::podstatus::{LOST, Outcome, State, Terminated};
use crate::local::ports::Port;
use crate::local::probes::{self, Purpose, Verdict};
use crate::local::store;

/// Runs a pod's process until the pod should end or its process has done what it was to do.
pub(super) async fn live(pod: &mut Pod, program: &Program, ports: &[u16], restart: Restart) {
    if let Some(last) = pod.tale.last.clone()
        && !restart.restarts(last.exit_code)
    {
        return finish(pod, last).await; // It was lost with an earlier process of ours, and is not to run twice.
    }
    pod.tale.restarts += u64::from(pod.tale.has_lived());
    let mut back_off = BackOff::default();
    let mut port = None;
    loop {
        let Some(place) = place(pod, ports, &mut port) else {
            return pod.refuse("no loopback port is free").await;
        };
        let Some(environment) = pod.wait_for_environment(&given(pod, place)).await else {
            return pod.leave(pod.wish());
        };
        let begun = Instant::now();
        let ended = run(pod, program, environment, place).await;
        if pod.wish() != Wish::Run {
            return pod.leave(pod.wish());
        }
        if !restart.restarts(ended.exit_code) {
            return finish(pod, ended).await;
        }
        pod.tale.last = Some(ended.clone());
        let pause = back_off.after(begun.elapsed());
        if !wait(pod, pause, ended).await {
            return pod.leave(pod.wish());
        }
        pod.tale.restarts += 1;
    }
}

/// Where the pod is to listen. Where pods share an address that is on the port it has, unless somebody else took that while its process
/// was down; else on the container's own first port.
fn place(pod: &Pod, ports: &[u16], given: &mut Option<Port>) -> Option<Place> {
    let address = pod.address;
    let Some(shared) = pod.machine.cluster.shared_ports() else {
        let port = ports.first().copied().unwrap_or(UNNAMED_PORT);
        return Some(Place {
            address,
            port,
            is_given: false,
        });
    };
    if !given.as_ref().is_some_and(Port::is_free) {
        *given = shared.take().ok();
        let port = given.as_ref()?.number();
        pod.machine.cluster.listens(&pod.name, port);
    }
    given.as_ref().map(|port| Place {
        address,
        port: port.number(),
        is_given: true,
    })
}

/// What every process is given: what we were given, and who and where it is.
fn given(pod: &Pod, place: Place) -> Vec<(String, String)> {
    let inherited = std::env::vars_os()
        .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
    inherited.chain(identity(pod, place)).collect()
}

fn identity(pod: &Pod, place: Place) -> [(String, String); 4] {
    [
        ("PORT", place.port.to_string()),
        ("POD_NAME", pod.name.name.clone()),
        ("POD_NAMESPACE", pod.name.namespace.clone()),
        ("POD_IP", place.address.to_string()),
    ]
    .map(|(name, value)| (name.to_owned(), value))
}

/// One life of the container; returns how it ended.
async fn run(
    pod: &mut Pod,
    program: &Program,
    environment: Vec<(String, String)>,
    place: Place,
) -> Terminated {
    let launch = launch(pod, program, environment, place);
    let launch = pod.machine.cluster.launch(&pod.name, launch);
    let since = store::now();
    let ended = match pod.machine.launcher.clone().spawn(launch).await {
        Ok(process) => {
            Life {
                pod,
                program,
                place,
                since,
            }
            .live(process)
            .await
        }
        Err(error) => {
            let message = std::iter::successors(Some(&error as &dyn std::error::Error), |error| {
                error.source()
            });
            let message = message
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join(": ");
            pod.note(Tone::Warning, "Failed", &format!("Error: {message}"));
            terminated(128, "StartError", message, since, String::new())
        }
    };
    (pod.tale.ready, pod.tale.started) = (false, false);
    ended
}

/// The container's own variables come last, but a port that is given is ours to choose: one that names another is told.
fn launch(
    pod: &Pod,
    program: &Program,
    mut environment: Vec<(String, String)>,
    place: Place,
) -> Launch {
    let ours = place.port.to_string();
    if place.is_given
        && let Some((_, other)) = environment
            .iter()
            .rev()
            .find(|(name, value)| name == "PORT" && *value != ours)
    {
        let message = format!(
            "PORT={other} is not used: on one machine each pod has its own port, this one {ours}"
        );
        pod.note(Tone::Warning, "PortAssigned", &message);
        environment.push(("PORT".to_owned(), ours));
    }
    let command = program
        .command
        .iter()
        .map(|word| expand(word, &environment))
        .collect();
    Launch {
        command,
        environment,
        directory: program.directory.clone(),
    }
}

fn terminated(
    exit_code: i32,
    reason: &str,
    message: String,
    started: Timestamp,
    id: String,
) -> Terminated {
    Terminated {
        exit_code,
        reason: reason.to_owned(),
        message,
        started: Some(started),
        finished: store::now(),
        id,
    }
}

/// A process that runs, and the pod it runs for.
struct Life<'a> {
    pod: &'a mut Pod,
    program: &'a Program,
    place: Place,
    since: Timestamp,
}

/// How far the end of a process has come.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Ending {
    /// Nobody wants it to end.
    No,
    /// Its preStop hook runs; afterwards it is asked.
    Hook { kill_at: Instant },
    /// It was asked.
    Asked { kill_at: Instant },
    /// It was killed.
    Killed,
}

impl Ending {
    fn kill_at(self) -> Option<Instant> {
        match self {
            Self::Hook { kill_at } | Self::Asked { kill_at } => Some(kill_at),
            Self::No | Self::Killed => None,
        }
    }
}

impl Life<'_> {
    async fn live(mut self, mut process: Process) -> Terminated {
        let id = format!("process://{}", process.id());
        let mut output = follow(
            &self
                .pod
                .machine
                .logs
                .open(&self.pod.name.namespace, &self.pod.name.name),
            &mut process,
            self.pod.tale.restarts,
        );
        let (sender, mut verdicts) = mpsc::channel(VERDICTS_MAX);
        let probing = self.program.probes.start(self.place, &sender);
        self.begin(&id);
        let mut ending = Ending::No;
        let mut hook = JoinSet::new();
        let status = loop {
            tokio::select! {
                status = process.wait() => break status,
                Some(verdict) = verdicts.recv() => {
                    if self.hear(&verdict) && ending == Ending::No {
                        ending = self.ask_to_end(&process, &mut hook, self.grace(), true);
                    }
                }
                wish = self.pod.another_wish() => ending = self.obey(wish, ending, &process, &mut hook),
                Some(_) = hook.join_next() => {
                    process.terminate();
                    ending = ending.kill_at().map_or(ending, |kill_at| Ending::Asked { kill_at });
                }
                () = until(ending.kill_at()) => {
                    process.kill();
                    ending = Ending::Killed;
                }
            }
        };
        drop(probing);
        // The group is gone, so its output ends; a process that left the group may hold it open.
        let read = timeout(OUTPUT_MAX, async {
            while output.join_next().await.is_some() {}
        });
        let (Ok(()) | Err(_)) = read.await;
        self.ended(status, id)
    }

    fn begin(&mut self, id: &str) {
        self.pod.tale.started = self.program.probes.startup.is_none();
        self.pod.report_state(State::Running {
            since: self.since,
            id: id.to_owned(),
        });
        self.pod.note(
            Tone::Normal,
            "Started",
            &format!("Started container {}", self.pod.container),
        );
    }

    /// Hears a probe; returns whether the process must end for it.
    fn hear(&mut self, verdict: &Verdict) -> bool {
        if let Some(complaint) = &verdict.complaint {
            let message = format!("{} probe failed: {complaint}", verdict.purpose.title());
            self.pod.note(Tone::Warning, "Unhealthy", &message);
        }
        let tale = &mut self.pod.tale;
        let before = (tale.ready, tale.started);
        match verdict.purpose {
            Purpose::Readiness => tale.ready = verdict.well,
            Purpose::Startup => tale.started = verdict.well && verdict.complaint.is_none(),
            Purpose::Liveness => {}
        }
        if before != (tale.ready, tale.started) {
            self.pod.report();
        }
        verdict.purpose != Purpose::Readiness && !verdict.well
    }

    /// Does what is wanted now; returns how far the end has come.
    fn obey(
        &mut self,
        wish: Wish,
        ending: Ending,
        process: &Process,
        hook: &mut JoinSet<()>,
    ) -> Ending {
        match wish {
            Wish::Run => ending,
            Wish::End(grace) => self.end_within(grace, ending, process, hook),
            Wish::Shutdown => {
                hook.abort_all();
                process.terminate();
                Ending::Asked {
                    kill_at: Instant::now() + SHUTDOWN_MAX.min(self.grace()),
                }
            }
            Wish::Gone => {
                process.kill();
                Ending::Killed
            }
        }
    }

    /// Begins the end, or shortens it.
    fn end_within(
        &mut self,
        grace: Duration,
        ending: Ending,
        process: &Process,
        hook: &mut JoinSet<()>,
    ) -> Ending {
        let sooner = |kill_at: Instant| kill_at.min(Instant::now() + grace);
        match ending {
            Ending::No => self.ask_to_end(process, hook, grace, false),
            Ending::Hook { kill_at } => Ending::Hook {
                kill_at: sooner(kill_at),
            },
            Ending::Asked { kill_at } => Ending::Asked {
                kill_at: sooner(kill_at),
            },
            Ending::Killed => Ending::Killed,
        }
    }

    fn ask_to_end(
        &mut self,
        process: &Process,
        hook: &mut JoinSet<()>,
        grace: Duration,
        unwell: bool,
    ) -> Ending {
        let name = &self.pod.container;
        let message = if unwell {
            format!("Container {name} failed its liveness or startup probe, will be restarted")
        } else {
            format!("Stopping container {name}")
        };
        self.pod.note(Tone::Normal, "Killing", &message);
        let kill_at = Instant::now() + grace;
        match self.program.pre_stop.clone() {
            Some(pre_stop) => {
                hook.spawn(run_hook(pre_stop, self.place, grace));
                Ending::Hook { kill_at }
            }
            None => {
                process.terminate();
                Ending::Asked { kill_at }
            }
        }
    }

    /// The pod's own grace period.
    fn grace(&self) -> Duration {
        let object = self.pod.object();
        let seconds = object["spec"]["terminationGracePeriodSeconds"].as_u64();
        Duration::from_secs(seconds.unwrap_or(GRACE_SECONDS))
    }

    fn ended(&self, status: io::Result<ExitStatus>, id: String) -> Terminated {
        match status {
            Ok(status) => {
                let code = status
                    .code()
                    .unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
                let reason = if code == 0 { "Completed" } else { "Error" };
                let message = status
                    .signal()
                    .map_or_else(String::new, |signal| format!("ended by signal {signal}"));
                terminated(code, reason, message, self.since, id)
            }
            Err(error) => terminated(
                LOST,
                "ContainerStatusUnknown",
                error.to_string(),
                self.since,
                id,
            ),
        }
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn run_hook(hook: PreStop, place: Place, grace: Duration) {
    match hook {
        PreStop::Sleep(time) => sleep(time).await,
        PreStop::Http(check) => {
            if let Err(complaint) = probes::attempt(&check, place, grace).await {
                tracing::debug!(
                    ?place,
                    complaint,
                    "a preStop request failed; the process is asked to end all the same"
                );
            }
        }
    }
}

/// Copies what a process writes to its pod's log.
fn follow(log: &PodLog, process: &mut Process, restarts: u64) -> JoinSet<()> {
    if restarts > 0 {
        log.restart();
    }
    let mut tasks = JoinSet::new();
    if let Some((stdout, stderr)) = process.output() {
        tasks.spawn(copy(stdout, log.clone()));
        tasks.spawn(copy(stderr, log.clone()));
    }
    tasks
}

async fn copy(from: impl AsyncRead + Unpin, log: PodLog) {
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        // A line without end is taken in pieces, so that memory stays bounded.
        let Ok(available) = reader.fill_buf().await else {
            return;
        };
        if available.is_empty() {
            break;
        }
        let end = available.iter().position(|byte| *byte == b'\n');
        let taken = end.unwrap_or(available.len());
        line.extend_from_slice(available.get(..taken).unwrap_or_default());
        reader.consume(taken + usize::from(end.is_some()));
        if end.is_some() || line.len() >= PIECE_MAX {
            log.write(store::now(), &line);
            line.clear();
        }
    }
    if !line.is_empty() {
        log.write(store::now(), &line);
    }
}

/// The process has ended for good: the pod has, too.
async fn finish(pod: &mut Pod, ended: Terminated) {
    let outcome = if ended.exit_code == 0 {
        Outcome::Succeeded
    } else {
        Outcome::Failed
    };
    pod.tale.outcome = Some(outcome);
    pod.tale.last = None;
    pod.report_state(State::Terminated(ended));
    pod.wait_for_the_end().await;
}

/// Waits before the next start; `false` if the pod should end meanwhile.
async fn wait(pod: &mut Pod, pause: Duration, ended: Terminated) -> bool {
    if pause.is_zero() {
        pod.report_state(State::Terminated(ended));
        return pod.wish() == Wish::Run;
    }
    let message = format!(
        "back-off {pause:?} restarting failed container={} pod={}_{}",
        pod.container, pod.name.name, pod.name.namespace
    );
    pod.note(
        Tone::Warning,
        "BackOff",
        &format!(
            "Back-off restarting failed container {} in pod {}",
            pod.container, pod.name.name
        ),
    );
    pod.report_state(State::Waiting {
        reason: "CrashLoopBackOff",
        message,
    });
    tokio::select! {
        _ = pod.ending() => false,
        () = sleep(pause) => true,
    }
}

/// Time before a start: none for the first restart, then 1 s, doubling to 5 min, as the kubelet does (which begins at 10 s: it
/// shields a node from the crashes of many, we have one machine and somebody who watches). Ten minutes of life begin it anew.
#[derive(Debug, Default)]
struct BackOff {
    next: Duration,
}

impl BackOff {
    /// The pause after a life of this length.
    fn after(&mut self, lived: Duration) -> Duration {
        let pause = if lived >= BACK_OFF_FORGET {
            Duration::ZERO
        } else {
            self.next
        };
        self.next = (pause * 2).clamp(BACK_OFF_MIN, BACK_OFF_MAX);
        pause
    }
}

/// `PORT` of a container that names no port and has an address of its own: what is usual.
const UNNAMED_PORT: u16 = 8080;
const BACK_OFF_MIN: Duration = Duration::from_secs(1);
const BACK_OFF_MAX: Duration = Duration::from_secs(300);
const BACK_OFF_FORGET: Duration = Duration::from_secs(600);
/// What a pod gets that names no grace period (Kubernetes).
const GRACE_SECONDS: u64 = 30;
/// What a process gets when the program ends: nobody waits half a minute for a demo to stop.
const SHUTDOWN_MAX: Duration = Duration::from_secs(3);
/// How long the rest of a process's output is waited for.
const OUTPUT_MAX: Duration = Duration::from_secs(1);
/// A longer line is cut into pieces: what container runtimes do (16 KiB).
const PIECE_MAX: usize = 16 * 1024;
/// Verdicts that may wait for the pod's task; a probe that is over waits with its next question.
const VERDICTS_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_back_off_doubles_and_is_forgotten_after_a_long_life() {
        let mut back_off = BackOff::default();
        let lives = [0, 0, 0, 0, 0, 599, 600, 0];
        let pauses = lives.map(|lived| back_off.after(Duration::from_secs(lived)).as_secs());
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 0, 1]);
        let longest = (0..20).map(|_| back_off.after(Duration::ZERO)).max();
        assert_eq!(longest, Some(BACK_OFF_MAX));
    }
}
