//! What all pods have in common, however they run: they are told what is wanted, and tell how they are.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Machine;
use super::cluster::PodName;
use crate::local::environment;
use crate::local::notes::Tone;
use crate::local::podstatus::{self, Report, State, Tale};
use crate::local::store::{self, Object};

/// What is wanted of a pod's task, and its object as last seen.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) wanted: Wanted,
    pub(super) object: Object,
}

/// What is wanted of a pod's task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) wish: Wish,
    /// Whether the pod's readiness gates are open.
    pub(super) gates_met: bool,
}

/// Whether a pod should run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// It should.
    Run,
    /// It should end within this time, and then its object goes.
    End(Duration),
    /// Its object is gone already: it should end at once.
    Gone,
    /// The program ends: it should end soon, and its object stays.
    Shutdown,
}

/// A pod as its task sees it.
#[derive(Debug)]
pub(super) struct Pod {
    pub(super) machine: Machine,
    pub(super) name: PodName,
    pub(super) address: IpAddr,
    pub(super) container: String,
    pub(super) image: String,
    /// What is told of its container; write it by [`Pod::report`].
    pub(super) tale: Tale,
    seen: watch::Receiver<Seen>,
    told: Wanted,
    configuration: watch::Receiver<()>,
}

impl Pod {
    pub(super) fn new(
        machine: Machine,
        seen: watch::Receiver<Seen>,
        configuration: watch::Receiver<()>,
    ) -> Self {
        let object = seen.borrow().object.clone();
        let container = &object["spec"]["containers"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let told = Wanted {
            wish: Wish::Run,
            gates_met: podstatus::gates_met(&object),
        };
        let name = PodName::of(&object);
        Self {
            address: machine.cluster.address(&name),
            machine,
            name,
            container: text(&container["name"]),
            image: text(&container["image"]),
            tale: Tale::carried_over(&object, store::now()),
            seen,
            told,
            configuration,
        }
    }

    /// The object as last seen.
    pub(super) fn object(&self) -> Object {
        self.seen.borrow().object.clone()
    }

    /// What is wanted now.
    pub(super) fn wish(&self) -> Wish {
        self.seen.borrow().wanted.wish
    }

    /// Waits until something else is wanted than was last told; returns it. Cancel safe.
    pub(super) async fn another_wish(&mut self) -> Wish {
        loop {
            let wanted = self.seen.borrow_and_update().wanted;
            if wanted.wish != self.told.wish {
                self.told = wanted;
                return wanted.wish;
            }
            if wanted != self.told {
                self.told = wanted;
                self.report(); // A readiness gate has moved.
            }
            if self.seen.changed().await.is_err() {
                std::future::pending::<()>().await; // The last wish was told: there will be no other.
            }
        }
    }

    /// Waits until it should no longer run; returns what is wanted instead. Cancel safe.
    pub(super) async fn ending(&mut self) -> Wish {
        while self.told.wish == Wish::Run {
            self.another_wish().await;
        }
        self.told.wish
    }

    /// Writes the status.
    pub(super) fn report(&self) {
        let report = Report {
            container: self.container.clone(),
            image: self.image.clone(),
            address: self.address,
            tale: self.tale.clone(),
            now: store::now(),
        };
        self.machine.cluster.report(&self.name, report);
    }

    /// Writes what its container does now.
    pub(super) fn report_state(&mut self, state: State) {
        self.tale.state = state;
        self.report();
    }

    /// Notes something for people to read.
    pub(super) fn note(&self, tone: Tone, reason: &str, message: &str) {
        let Seen { object, wanted } = self.seen.borrow().clone();
        if wanted.wish != Wish::Gone {
            self.machine.cluster.note(&object, tone, reason, message);
        }
    }

    /// Its container's environment.
    pub(super) fn environment(
        &self,
        given: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, environment::Error> {
        let mut object = Value::clone(&self.object());
        object["status"]["podIP"] = json!(self.address);
        environment::resolve(
            &object,
            &object["spec"]["containers"][0],
            given,
            |source, name| {
                self.machine
                    .cluster
                    .configuration(source, &self.name.namespace, name)
            },
        )
    }

    /// Its container's environment, as soon as all it refers to is there; `None` if the pod should end before.
    pub(super) async fn wait_for_environment(
        &mut self,
        given: &[(String, String)],
    ) -> Option<Vec<(String, String)>> {
        loop {
            self.configuration.mark_unchanged();
            let complaint = match self.environment(given.to_vec()) {
                Ok(environment) => return Some(environment),
                Err(complaint) => complaint.to_string(),
            };
            self.note(Tone::Warning, "Failed", &format!("Error: {complaint}"));
            self.report_state(State::Waiting {
                reason: CONFIG_ERROR,
                message: complaint,
            });
            let mut configuration = self.configuration.clone();
            tokio::select! {
                _ = self.ending() => return None,
                changed = configuration.changed() => if changed.is_err() { return None },
            }
        }
    }

    /// Says that the pod cannot be run here, and why, until it is deleted.
    pub(super) async fn refuse(&mut self, complaint: &str) {
        self.note(Tone::Warning, "Failed", &format!("Error: {complaint}"));
        self.report_state(State::Waiting {
            reason: CONFIG_ERROR,
            message: complaint.to_owned(),
        });
        self.wait_for_the_end().await;
    }

    /// Nothing of it runs; its object stays until it is deleted.
    pub(super) async fn wait_for_the_end(&mut self) {
        let wish = self.ending().await;
        self.leave(wish);
    }

    /// Nothing of it runs any more: its object goes, if it was asked to.
    pub(super) fn leave(&self, wish: Wish) {
        let forget = || {
            self.machine
                .logs
                .remove(&self.name.namespace, &self.name.name);
        };
        match wish {
            Wish::Run | Wish::Shutdown => {}
            Wish::Gone => forget(),
            Wish::End(_) => {
                forget();
                self.machine.cluster.remove(&self.name);
            }
        }
    }
}

/// The kubelet's word for a container that cannot be made from its spec.
pub(super) const CONFIG_ERROR: &str = "CreateContainerConfigError";
