//! The kubelet of the one machine: a task for every pod, as long as the pod is there.
//!
//! This file keeps the set: it sees pods come, being asked to go, and go, and tells each task what is wanted of it. What a task does
//! is in `pod` (what all have in common), `process` and `stand_in`.
//!
//! A pod that was recorded by an earlier process of ours is dead: its container is started again in place, with its restart counted,
//! so that ReplicaSets and their hashes stay as they are.

mod pod;
mod process;
mod stand_in;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(super) use self::pod::PORT;
use self::pod::{Pod, Wanted, Wish};
use super::container::{Container, Run};
use super::kinds;
use super::launcher::Launcher;
use super::logs::PodLogs;
use super::owners;
use super::podstatus::{self, Tale};
use super::ports::Ports;
use super::store::{self, Change, Object, Store, Subscription, What};

/// What pods need to live.
#[derive(Clone, Debug)]
pub struct Machine {
    /// The objects.
    pub store: Store,
    /// Starts processes.
    pub launcher: Arc<Launcher>,
    /// Takes what they write.
    pub logs: PodLogs,
    /// Their ports.
    pub ports: Ports,
}

/// Runs all pods until `shutdown`, then ends them; returns when none is left.
pub async fn run(machine: Machine, shutdown: CancellationToken) {
    let (configured, configuration) = watch::channel(());
    let mut set = Pods {
        machine,
        tasks: JoinSet::new(),
        wishes: BTreeMap::new(),
        configured,
        configuration,
    };
    let mut changes = set.look();
    loop {
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(ended) = set.tasks.join_next() => ended_well(ended),
            next = changes.next() => match next {
                Ok(next) => next.iter().for_each(|change| set.take(change)),
                Err(expired) => {
                    tracing::debug!(%expired, "pods are listed again");
                    changes = set.look();
                }
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
        let (name, image) = (text("name"), text("image"));
        let (namespace, pod) = (store::text(&pod, "namespace"), store::text(&pod, "name"));
        let written = store.update_status(&kinds::POD, namespace, pod, None, |pod| {
            podstatus::write(pod, &name, &image, &tale, now);
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
    /// By the pod's uid.
    wishes: BTreeMap<String, watch::Sender<Wanted>>,
    /// Tells pods that wait for a ConfigMap or Secret that one was written.
    configured: watch::Sender<()>,
    configuration: watch::Receiver<()>,
}

impl Pods {
    /// Looks at all pods there are, and returns what follows.
    fn look(&mut self) -> Subscription {
        let listing = self.machine.store.list(&kinds::POD, None);
        let present: Vec<&str> = listing
            .objects
            .iter()
            .map(|pod| store::text(pod, "uid"))
            .collect();
        let gone = |uid: &String| !present.contains(&uid.as_str());
        let gone: Vec<String> = self
            .wishes
            .keys()
            .filter(|uid| gone(uid))
            .cloned()
            .collect();
        gone.iter().for_each(|uid| self.gone(uid));
        listing.objects.iter().for_each(|pod| self.present(pod));
        self.configured.send_replace(());
        self.machine.store.subscribe(listing.version)
    }

    fn take(&mut self, change: &Change) {
        if change.kind == &kinds::CONFIG_MAP || change.kind == &kinds::SECRET {
            self.configured.send_replace(());
        } else if change.kind == &kinds::POD {
            match change.what {
                What::Added | What::Modified => self.present(&change.object),
                What::Deleted => self.gone(store::text(&change.object, "uid")),
            }
        }
    }

    fn present(&mut self, pod: &Object) {
        let wanted = Wanted {
            wish: wish(pod),
            gates_met: podstatus::gates_met(pod),
        };
        if let Some(known) = self.wishes.get(store::text(pod, "uid")) {
            known.send_if_modified(|known| std::mem::replace(known, wanted) != wanted);
            return;
        }
        let (sender, receiver) = watch::channel(wanted);
        self.wishes
            .insert(store::text(pod, "uid").to_owned(), sender);
        self.tasks.spawn(live(
            self.machine.clone(),
            Arc::clone(pod),
            receiver,
            self.configuration.clone(),
        ));
    }

    fn gone(&mut self, uid: &str) {
        if let Some(wanted) = self.wishes.remove(uid) {
            wanted.send_modify(|wanted| wanted.wish = Wish::Gone);
        }
    }

    /// Ends all pods; their objects stay, for a next process of ours to take up.
    async fn end(mut self) {
        for wanted in self.wishes.values() {
            wanted.send_modify(|wanted| wanted.wish = Wish::Shutdown);
        }
        while let Some(ended) = self.tasks.join_next().await {
            ended_well(ended);
        }
    }
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
async fn live(
    machine: Machine,
    object: Object,
    wanted: watch::Receiver<Wanted>,
    configuration: watch::Receiver<()>,
) {
    let mut pod = Pod::new(machine, &object, wanted, configuration);
    let over = owners::has_ended(&object) || pod.wish() != Wish::Run;
    match Container::parse(&object) {
        _ if over => pod.wait_for_the_end().await,
        Err(complaints) => pod.refuse(&complaints.join("; ")).await,
        Ok(Container {
            run: Run::StandIn, ..
        }) => stand_in::live(&mut pod).await,
        Ok(Container {
            run: Run::Process(program),
            restart,
            ..
        }) => process::live(&mut pod, &program, restart).await,
    }
}
