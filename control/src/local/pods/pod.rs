//! What all pods have in common, however they run: they are told what is wanted, and tell how they are.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;

use super::Machine;
use crate::local::environment::{self, Source};
use crate::local::kinds;
use crate::local::notes::{self, Tone};
use crate::local::podstatus::{self, State, Tale};
use crate::local::store::{self, Deletion, Object};

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
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) container: String,
    pub(super) image: String,
    /// What is told of its container; write it by [`Pod::report`].
    pub(super) tale: Tale,
    uid: String,
    wanted: watch::Receiver<Wanted>,
    told: Wanted,
    configuration: watch::Receiver<()>,
}

impl Pod {
    pub(super) fn new(
        machine: Machine,
        object: &Object,
        wanted: watch::Receiver<Wanted>,
        configuration: watch::Receiver<()>,
    ) -> Self {
        let container = &object["spec"]["containers"][0];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let told = Wanted {
            wish: Wish::Run,
            gates_met: podstatus::gates_met(object),
        };
        Self {
            machine,
            namespace: store::text(object, "namespace").to_owned(),
            name: store::text(object, "name").to_owned(),
            container: text(&container["name"]),
            image: text(&container["image"]),
            tale: Tale::carried_over(object, store::now()),
            uid: store::text(object, "uid").to_owned(),
            wanted,
            told,
            configuration,
        }
    }

    /// The object as it is now, unless it is gone.
    pub(super) fn object(&self) -> Option<Object> {
        let found = self
            .machine
            .store
            .get(&kinds::POD, &self.namespace, &self.name);
        found.filter(|found| store::text(found, "uid") == self.uid)
    }

    /// What is wanted now.
    pub(super) fn wish(&self) -> Wish {
        self.wanted.borrow().wish
    }

    /// Waits until something else is wanted than was last told; returns it. Cancel safe.
    pub(super) async fn another_wish(&mut self) -> Wish {
        loop {
            let wanted = *self.wanted.borrow_and_update();
            if wanted.wish != self.told.wish {
                self.told = wanted;
                return wanted.wish;
            }
            if wanted != self.told {
                self.told = wanted;
                self.report(); // A readiness gate has moved.
            }
            if self.wanted.changed().await.is_err() {
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

    /// Takes the pod: its object says where it runs and on which port.
    pub(super) fn bind(&self, port: u16) {
        self.write(|pod| {
            pod["spec"]["nodeName"] = json!(NODE);
            pod["metadata"]["annotations"][PORT] = json!(port.to_string());
        });
    }

    /// Writes the status.
    pub(super) fn report(&self) {
        let now = store::now();
        let (store, uid) = (&self.machine.store, self.uid.as_str());
        let written = store.update_status(&kinds::POD, &self.namespace, &self.name, None, |pod| {
            if store::text(pod, "uid") == uid {
                podstatus::write(pod, &self.container, &self.image, &self.tale, now);
            }
        });
        self.log(written.map(drop));
    }

    /// Writes what its container does now.
    pub(super) fn report_state(&mut self, state: State) {
        self.tale.state = state;
        self.report();
    }

    /// Notes something for people to read.
    pub(super) fn note(&self, tone: Tone, reason: &str, message: &str) {
        if let Some(object) = self.object() {
            notes::note(
                &self.machine.store,
                &object,
                COMPONENT,
                tone,
                reason,
                message,
            );
        }
    }

    /// Its container's environment.
    pub(super) fn environment(
        &self,
        given: Vec<(String, String)>,
    ) -> Result<Vec<(String, String)>, environment::Error> {
        let Some(object) = self.object() else {
            return Err(environment::Error::Missing("the pod is gone".to_owned()));
        };
        environment::resolve(
            &object,
            &object["spec"]["containers"][0],
            given,
            |source, name| {
                let kind = match source {
                    Source::ConfigMap => &kinds::CONFIG_MAP,
                    Source::Secret => &kinds::SECRET,
                };
                self.machine.store.get(kind, &self.namespace, name)
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
        match wish {
            Wish::Run | Wish::Shutdown => {}
            Wish::Gone => self.machine.logs.remove(&self.namespace, &self.name),
            Wish::End(_) => {
                self.machine.logs.remove(&self.namespace, &self.name);
                let deletion = Deletion {
                    uid: Some(self.uid.clone()),
                    ..Deletion::now()
                };
                let deleted =
                    self.machine
                        .store
                        .delete(&kinds::POD, &self.namespace, &self.name, &deletion);
                self.log(deleted.map(drop));
            }
        }
    }

    fn write(&self, mut change: impl FnMut(&mut Value)) {
        let uid = self.uid.as_str();
        let written =
            self.machine
                .store
                .update(&kinds::POD, &self.namespace, &self.name, None, |pod| {
                    if store::text(pod, "uid") == uid {
                        change(pod);
                    }
                });
        self.log(written.map(drop));
    }

    /// A write fails only if the object has gone meanwhile, and then what is wanted will say so.
    fn log(&self, written: Result<(), store::Error>) {
        if let Err(error) = written {
            tracing::debug!(pod = %self.name, namespace = %self.namespace, %error, "a pod went while it was written");
        }
    }
}

/// The one node.
const NODE: &str = "sidestep";
/// Annotation on pods: the loopback port of the pod's process or stand-in, decimal.
pub(in crate::local) const PORT: &str = "sidestep.dev/port";
/// Who notes.
const COMPONENT: &str = "kubelet";
/// The kubelet's word for a container that cannot be made from its spec.
pub(super) const CONFIG_ERROR: &str = "CreateContainerConfigError";
