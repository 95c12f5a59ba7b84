//! One look at an object: read what is, let the pure modules decide, write what follows.
//!
//! | file | what |
//! |---|---|
//! | [`rollout`] | the driver for Rollouts |
//! | [`analysis`] | the driver for AnalysisRuns |
//! | [`observe`] | reads everything one decision looks at |
//! | [`apply`] | one action → one write |
//! | [`writes`] | what a key has written and must have in view before it is decided again |
//! | [`status`] | the status patch, and the memory beside it |
//! | [`services`] | revision Services, and Service selectors that nobody keeps any more |
//! | [`split`] | the conditions of Splits, and who competes with whom |
//! | [`apex`] | Services without a selector, whose EndpointSlices lead to the proxies |
//! | [`ingress`] | where callers go, in the status of Ingresses |
//! | [`routers`] | objects of other routers |
//! | [`events`] | Events |
//! | [`objects`] | the caches all of this reads |
//! | [`words`] | by what objects are found in them |
//! | `concern` | which keys a change concerns |
//!
//! Every write carries the resourceVersion it was decided on; a conflict means looking again.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::{Client, ResourceExt};

use self::apex::Apexes;
use self::events::Events;
use self::objects::{Instance, Key, Name, Objects};
use self::routers::Routers;
use self::writes::Writes;
use crate::api::Rollout;
use crate::controller::queue::Outcome;
use crate::fleet::Fleet;
use crate::measure::Providers;
use crate::measure::proxy::Proxy;
use crate::measure::web::Web;

pub mod analysis;
pub mod apex;
pub mod apply;
mod behind;
mod concern;
pub mod events;
pub mod ingress;
pub mod objects;
pub mod observe;
pub mod rollout;
pub mod routers;
pub mod services;
pub mod split;
pub mod status;
pub mod words;
pub mod writes;

/// What every look needs.
pub struct Context {
    /// The way to the API server.
    pub client: Client,
    /// What is.
    pub objects: Objects,
    /// Which of it is ours to look after.
    pub instance: Instance,
    /// The proxies.
    pub fleet: Fleet,
    /// Where Events go.
    pub events: Events,
    /// Who answers the metrics of AnalysisRuns.
    pub providers: Providers,
    /// Objects of other routers.
    pub routers: Routers,
    /// Ports of the proxies that stand for Services.
    pub apexes: Apexes,
    /// What keys wait for.
    writes: Writes,
    /// The uids of Rollouts that were looked at, so that something can still be said of one that is gone.
    known: Mutex<HashMap<Name, String>>,
    /// ReplicaSet names that others have taken, by Rollout.
    taken: Mutex<HashMap<Name, BTreeSet<String>>>,
}

/// Why a look ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or did not answer.
    #[error("{doing}")]
    Api {
        /// What we were about.
        doing: String,
        /// What came back.
        source: kube::Error,
    },
    /// What the decision rested on has changed meanwhile.
    #[error("{0} has changed meanwhile")]
    Stale(String),
    /// The spec is invalid, which stands in a condition: tried again, as what it refers to may appear.
    #[error("the spec is invalid: {0}")]
    Invalid(String),
    /// What we have to write has the name of something that is not ours.
    #[error("{0}")]
    InTheWay(String),
}

impl Error {
    /// An answer of the API server: a conflict, or an object that is gone or there already, means that our view was old.
    pub fn api(doing: impl Into<String>, source: kube::Error) -> Self {
        let doing = doing.into();
        let is_old =
            matches!(&source, kube::Error::Api(status) if matches!(status.code, 404 | 409));
        if is_old {
            Self::Stale(doing)
        } else {
            Self::Api { doing, source }
        }
    }

    /// Whether it is worth a line in the log: a stale view is everyday business, and an invalid spec is told when its condition is.
    pub fn is_trouble(&self) -> bool {
        match self {
            Self::Api { .. } | Self::InTheWay(_) => true,
            Self::Stale(_) | Self::Invalid(_) => false,
        }
    }
}

impl Context {
    /// What every look needs.
    pub fn new(
        client: Client,
        objects: Objects,
        instance: Instance,
        fleet: Fleet,
        events: Events,
        routers: Routers,
        apexes: Apexes,
    ) -> Self {
        let proxy = Proxy::new(client.clone(), Arc::new(fleet.clone()));
        Self {
            client,
            objects,
            instance,
            fleet,
            events,
            providers: Providers {
                web: Web::default(),
                proxy,
            },
            routers,
            apexes,
            writes: Writes::default(),
            known: Mutex::default(),
            taken: Mutex::default(),
        }
    }

    fn taken(&self, rollout: &Name) -> BTreeSet<String> {
        lock(&self.taken).get(rollout).cloned().unwrap_or_default()
    }

    fn take_name(&self, rollout: &Name, name: &str) {
        lock(&self.taken)
            .entry(rollout.clone())
            .or_default()
            .insert(name.to_owned());
    }

    fn meet(&self, rollout: &Name, object: &Rollout) {
        let uid = object.uid().unwrap_or_default();
        lock(&self.known).insert(rollout.clone(), uid);
    }

    /// Forgets a Rollout that is gone; returns its uid.
    fn forget(&self, rollout: &Name) -> Option<String> {
        lock(&self.taken).remove(rollout);
        self.apexes.forget(rollout);
        self.writes.forget(&Key::Rollout(rollout.clone()));
        lock(&self.known).remove(rollout)
    }
}

/// The queue's word for what came of a look; `again` is when to look by itself.
pub fn outcome(result: &Result<Option<Timestamp>, Error>, now: Timestamp) -> Outcome {
    match result {
        Ok(None) => Outcome::Done,
        Ok(Some(again)) => {
            let wait = again.duration_since(now);
            Outcome::Again(wait.try_into().unwrap_or(Duration::ZERO))
        }
        Err(Error::Api { .. } | Error::Stale(_) | Error::Invalid(_) | Error::InTheWay(_)) => {
            Outcome::Failed
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context")
            .field("objects", &self.objects)
            .finish_non_exhaustive()
    }
}

/// What every look needs, shared.
pub type Shared = Arc<Context>;

#[cfg(test)]
mod tests;
