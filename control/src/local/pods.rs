//! The kubelet of the one machine: a task for every pod, as long as the pod is there.
//!
//! This file keeps the set: it sees pods come, being asked to go, and go, and tells each task what is wanted of it. What a task does
//! is in `pod` (what all have in common), `process` and `stand_in`.
//!
//! A pod that was recorded by an earlier process of ours is dead: its container is started again in place, with its restart counted,
//! so that ReplicaSets and their hashes stay as they are.

pub mod cluster;
pub mod embedded;
mod pod;
mod process;
mod stand_in;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::cluster::{Cluster, News};
pub(super) use self::embedded::PORT;
use self::pod::{Pod, Seen, Wanted, Wish};
use super::container::{Container, Run};
use super::kinds;
use super::launcher::Launcher;
use super::logs::PodLogs;
use super::owners;
use super::podstatus::{self, Report, Tale};
use super::store::{self, Object, Store};

/// What pods need to live.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The cluster they are pods of.
    pub cluster: Arc<dyn Cluster>,
    /// Starts processes.
    pub launcher: Arc<Launcher>,
    /// Takes what they write.
    pub logs: PodLogs,
}

/// Runs all pods until `shutdown`, then ends them; returns when none is left.
pub async fn run(machine: Machine, shutdown: CancellationToken) {
    let mut news = machine.cluster.news();
    let (configured, configuration) = watch::channel(());
    let mut set = Pods {
        machine,
        tasks: JoinSet::new(),
        pods: BTreeMap::new(),
        configured,
        configuration,
    };
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = set.tasks.join_next() => ended_well(ended),
            next = news.next() => match next {
                Some(news) => set.hear(news),
                None => break,
            },
        }
    }
    set.end().await;
}

/// Says of all pods that an earlier process of ours ran that they run no more, so that nobody is sent to them.
pub(super) fn declare_lost(store: &Store) {
    let now = store::now();
    for pod in store.list(&kinds::POD, None).objects {
        let tale = Tale::carried_over(&pod, now);
        if owners::has_ended(&pod) || !tale.has_lived() {
            continue;
        }
        let container = &pod["spec"]["containers"][0];
        let text = |field: &str| container[field].as_str().unwrap_or_default().to_owned();
        let report = Report {
            container: text("name"),
            image: text("image"),
            address: Ipv4Addr::LOCALHOST.into(),
            tale,
            now,
        };
        let (namespace, pod) = (store::text(&pod, "namespace"), store::text(&pod, "name"));
        let written = store.update_status(&kinds::POD, namespace, pod, None, |pod| {
            podstatus::write(pod, &report);
        });
        if let Err(error) = written {
            tracing::debug!(pod, %error, "a pod went while it was written");
        }
    }
}

fn ended_well(task: Result<(), tokio::task::JoinError>) {
    if let Err(error) = task {
        tracing::error!(%error, "the task of a pod died; its pod no longer runs");
    }
}

struct Pods {
    machine: Machine,
    tasks: JoinSet<()>,
    /// By uid: what is wanted of each.
    pods: BTreeMap<String, watch::Sender<Seen>>,
    /// Tells pods that wait for a ConfigMap or Secret that one was written.
    configured: watch::Sender<()>,
    configuration: watch::Receiver<()>,
}

impl Pods {
    fn hear(&mut self, news: News) {
        match news {
            News::Pods(all) => {
                let is_listed =
                    |uid: &str| all.iter().any(|listed| store::text(listed, "uid") == uid);
                let gone = self.pods.extract_if(.., |uid, _| !is_listed(uid));
                gone.for_each(|(_, pod)| tell(&pod, Wish::Gone));
                all.iter().for_each(|pod| self.present(pod));
                self.configured.send_replace(());
            }
            News::Pod(pod) => self.present(&pod),
            News::Gone(pod) => {
                if let Some(pod) = self.pods.remove(store::text(&pod, "uid")) {
                    tell(&pod, Wish::Gone);
                }
            }
            News::Configuration => self.configured.send_replace(()),
        }
    }

    fn present(&mut self, pod: &Object) {
        let wanted = Wanted {
            wish: wish(pod),
            gates_met: podstatus::gates_met(pod),
        };
        let seen = Seen {
            wanted,
            object: Arc::clone(pod),
        };
        if let Some(known) = self.pods.get(store::text(pod, "uid")) {
            known.send_if_modified(|known| std::mem::replace(known, seen).wanted != wanted);
            return;
        }
        let (sender, receiver) = watch::channel(seen);
        self.pods.insert(store::text(pod, "uid").to_owned(), sender);
        self.tasks.spawn(live(
            self.machine.clone(),
            receiver,
            self.configuration.clone(),
        ));
    }

    /// Ends all pods; their objects stay, for a next process of ours to take up.
    async fn end(mut self) {
        self.pods.values().for_each(|pod| tell(pod, Wish::Shutdown));
        while let Some(ended) = self.tasks.join_next().await {
            ended_well(ended);
        }
    }
}

fn tell(pod: &watch::Sender<Seen>, wish: Wish) {
    pod.send_modify(|seen| seen.wanted.wish = wish);
}

/// What a pod's object wants of its task.
fn wish(pod: &Value) -> Wish {
    if store::is_deleting(pod) {
        let seconds = pod["metadata"]["deletionGracePeriodSeconds"]
            .as_u64()
            .unwrap_or(0);
        return Wish::End(Duration::from_secs(seconds));
    }
    Wish::Run
}

/// One pod, from its first sight to its end.
async fn live(machine: Machine, seen: watch::Receiver<Seen>, configuration: watch::Receiver<()>) {
    let mut pod = Pod::new(machine, seen, configuration);
    let object = pod.object();
    let over = owners::has_ended(&object) || pod.wish() != Wish::Run;
    match Container::parse(&object) {
        _ if over => pod.wait_for_the_end().await,
        Err(complaints) => pod.refuse(&complaints.join("; ")).await,
        Ok(container) => match container.run {
            Run::StandIn { pre_stop } => {
                stand_in::live(&mut pod, &container.ports, pre_stop).await;
            }
            Run::Process(program) => {
                let ports = &container.ports;
                process::live(&mut pod, &program, ports, container.restart).await;
            }
        },
    }
}
