//! What the kubelet needs of the cluster whose pods it runs: news of them, a way to say how they are, and addresses.
//!
//! Nothing here waits: a pod must end in time also while an API server is slow or gone. What is written is in order, and the last
//! word about a pod wins.

use std::fmt;
use std::net::IpAddr;

use futures::stream::BoxStream;

use crate::local::environment::Source;
use crate::local::launcher::Launch;
use crate::local::notes::Tone;
use crate::local::podstatus::Report;
use crate::local::ports::Ports;
use crate::local::store::{self, Object};

/// One pod. One that has its name later, under another uid, is another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name there.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl PodName {
    /// The name of a pod as its object says it.
    pub fn of(pod: &Object) -> Self {
        Self {
            namespace: store::text(pod, "namespace").to_owned(),
            name: store::text(pod, "name").to_owned(),
            uid: store::text(pod, "uid").to_owned(),
        }
    }
}

/// News of a cluster.
#[derive(Clone, Debug)]
pub enum News {
    /// These are all the pods there are: others that were seen have gone.
    Pods(Vec<Object>),
    /// A pod came, or was written.
    Pod(Object),
    /// A pod went.
    Gone(Object),
    /// A ConfigMap or a Secret came or was written: a pod may wait for it.
    Configuration,
}

/// A cluster, as its kubelet has it.
pub trait Cluster: fmt::Debug + Send + Sync {
    /// News from now on, [`News::Pods`] first. It ends only with the cluster.
    fn news(&self) -> BoxStream<'static, News>;

    /// A ConfigMap or Secret as last seen.
    fn configuration(&self, source: Source, namespace: &str, name: &str) -> Option<Object>;

    /// The address of a pod, for as long as the pod is there.
    fn address(&self, pod: &PodName) -> IpAddr;

    /// Where pods share an address: the ports of which each is given one. `None` where each has an address, and all ports of it.
    fn shared_ports(&self) -> Option<&Ports>;

    /// The pod listens on this port of its address.
    fn listens(&self, pod: &PodName, port: u16);

    /// How the pod is.
    fn report(&self, pod: &PodName, report: Report);

    /// How the pod's process is to be started: with what its container says, and whatever else a pod of this cluster has.
    fn launch(&self, pod: &PodName, launch: Launch) -> Launch;

    /// Something about a pod for people to read.
    fn note(&self, pod: &Object, tone: Tone, reason: &str, message: &str);

    /// Nothing of the pod runs any more: its object may go.
    fn remove(&self, pod: &PodName);
}
