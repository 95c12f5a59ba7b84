//! One machine as a cluster: an API server of our own inside the process, and players of the cluster's controllers and pods.
//!
//! | file | what |
//! |---|---|
//! | `http` | the server: who may ask, what is asked, who answers |
//! | `request` | what a request asks for: path, query, accepted types |
//! | `read`, `watch`, `write` | lists and objects; changes as they come; the way from a body to a stored object |
//! | `patch`, `apply` | merge, JSON and strategic merge patches; server-side apply and `managedFields` |
//! | [`table`] | what `kubectl get` shows |
//! | `discovery` | what the server tells about itself |
//! | `refusal` | every way of saying no |
//! | [`persist`] | keeps all objects on disk |
//! | [`kubeconfig`] | the file by which clients find the server |
//! | [`store`] | the objects, their versions, and what lately happened to them |
//! | [`kinds`] | what kinds there are: one row each |
//! | [`crds`] | our kinds and Argo's as a real API server is told of them |
//! | `strict` | is an object what its kind says? |
//! | `defaults` | what the server fills in |
//! | `selector` | label and field selectors |
//! | [`workloads`] | plays the cluster's other controllers, and starts the pods |
//! | `replicasets`, `deployments`, `jobs`, `slices`, `garbage`, `namespaces` | one controller each |
//! | `owners` | owner references, and pods as their owners see them |
//! | [`pods`] | the kubelet: a task for every pod, which is a process or a stand-in |
//! | [`container`] | what of a pod's spec can be run, and how |
//! | [`environment`] | a container's environment, and `$(NAME)` |
//! | [`launcher`], `guard` | starts processes that die with us; ends their children |
//! | [`standin`], [`behaviour`] | the server that stands in for an image, and how it misbehaves |
//! | [`probes`] | asks a process how it is |
//! | [`podstatus`] | what is known of a pod, as the kubelet says it |
//! | [`place`], [`ports`] | where a pod listens; the loopback ports of processes |
//! | [`logs`] | what pods have written |
//! | [`notes`] | Events |

mod apply;
pub mod behaviour;
pub mod container;
pub mod crds;
mod defaults;
mod deletion;
mod deployments;
mod discovery;
pub mod environment;
mod garbage;
mod guard;
mod http;
mod jobs;
pub mod kinds;
pub mod kubeconfig;
pub mod launcher;
pub mod logs;
mod namespaces;
pub mod notes;
mod owners;
mod patch;
pub mod persist;
pub mod place;
pub mod pods;
pub mod podstatus;
pub mod ports;
pub mod probes;
mod read;
mod refusal;
mod replicasets;
mod request;
mod schema;
mod selector;
mod slices;
pub mod standin;
pub mod store;
mod strict;
pub mod table;
mod watch;
pub mod workloads;
mod write;

use std::net::SocketAddr;
use std::path::PathBuf;

use rand::RngExt;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::logs::PodLogs;
use self::persist::{Damage, Folder};
use self::store::Store;
pub use self::strict::{FieldError, Problem};
use crate::streams::prompt;

/// Namespaces that are there from the beginning.
const NAMESPACES: &[&str] = &["default", "kube-system", "sidestep-system"];

/// What the API server is to be.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where it listens: a loopback address; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written, if anywhere.
    pub kubeconfig: Option<PathBuf>,
    /// The folder that keeps the objects; absent keeps them in memory only.
    pub state: Option<PathBuf>,
    /// Changes kept for watchers; [`store::HISTORY`].
    pub history: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            kubeconfig: None,
            state: None,
            history: store::HISTORY,
        }
    }
}

/// Why the API server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Others could reach it.
    #[error("the API server listens on loopback addresses only, and {0} is none")]
    NotLoopback(SocketAddr),
    /// The address is taken, or not ours.
    #[error("listening on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What happened.
        source: std::io::Error,
    },
    /// The state folder.
    #[error(transparent)]
    State(#[from] persist::Error),
    /// The kubeconfig.
    #[error(transparent)]
    Kubeconfig(#[from] kubeconfig::Error),
}

/// A running API server.
#[derive(Debug)]
pub struct Local {
    /// The objects, for the players inside the process.
    pub store: Store,
    /// What pods write; the players fill it.
    pub logs: PodLogs,
    /// Where it listens.
    pub address: SocketAddr,
    /// What every request carries.
    pub token: String,
    /// What in the state folder could not be read, and was set aside.
    pub damage: Vec<Damage>,
    closing: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

/// Starts the API server. The state folder is read, and the port is bound, before this returns.
///
/// # Errors
/// [`Error`]. Nothing is left running.
///
/// # Panics
/// Outside a tokio runtime.
pub async fn start(config: Config) -> Result<Local, Error> {
    if !config.listen.ip().is_loopback() {
        return Err(Error::NotLoopback(config.listen));
    }
    let address = config.listen;
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| Error::Listen { address, source })?;
    let address = listener
        .local_addr()
        .map_err(|source| Error::Listen { address, source })?;
    let closing = CancellationToken::new();
    let mut tasks = Vec::new();
    let mut damage = Vec::new();
    let (store, durability) = match &config.state {
        None => (Store::new(config.history), None),
        Some(path) => {
            let folder = Folder::open(path)?;
            let recovered = folder.recover()?;
            for found in &recovered.damage {
                tracing::error!(path = %found.path.display(), message = found.message, "damaged state was set aside");
            }
            damage = recovered.damage;
            let store = Store::restore(config.history, recovered.version, recovered.objects);
            let (durability, task) =
                persist::follow(folder, store.clone(), closing.clone()).await?;
            tasks.push(task);
            (store, Some(durability))
        }
    };
    furnish(&store);
    let token = token();
    if let Some(path) = &config.kubeconfig {
        kubeconfig::write(path, &kubeconfig::kubeconfig(address, &token))?;
    }
    let server = http::Server {
        store: store.clone(),
        logs: PodLogs::default(),
        token: token.clone(),
        durability,
        closing: closing.clone(),
    };
    let logs = server.logs.clone();
    tasks.push(tokio::spawn(serve(listener, server, closing.clone())));
    Ok(Local {
        store,
        logs,
        address,
        token,
        damage,
        closing,
        tasks,
    })
}

impl Local {
    /// The configuration of a client, as it is written to the kubeconfig file.
    pub fn kubeconfig(&self) -> Value {
        kubeconfig::kubeconfig(self.address, &self.token)
    }

    /// How a client inside the process finds the server.
    ///
    /// # Panics
    /// Never: an address makes a URL.
    pub fn client_config(&self) -> kube::Config {
        let url = format!("http://{}", self.address);
        let mut config = kube::Config::new(url.parse().expect("an address makes a URL"));
        config.auth_info.token = Some(self.token.clone().into());
        config
    }

    /// A client inside the process.
    ///
    /// # Errors
    /// When the client cannot be made: no TLS provider, for one.
    pub fn client(&self) -> Result<kube::Client, kube::Error> {
        kube::Client::try_from(self.client_config())
    }

    /// Returns when a task of the server has ended that should not have. The rest should then be stopped.
    pub async fn broken(&mut self) {
        let (_, which, _) = futures::future::select_all(&mut self.tasks).await;
        tracing::error!(which, "a part of the API server ended");
    }

    /// Ends all requests, writes what is not yet on disk, and returns.
    pub async fn stop(self) {
        self.closing.cancel();
        for task in self.tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a part of the API server died");
            }
        }
    }
}

async fn serve(listener: TcpListener, server: http::Server, closing: CancellationToken) {
    let served = axum::serve(prompt(listener), http::router(server))
        .with_graceful_shutdown(closing.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(%error, "the API server ended");
    }
}

/// What every cluster has.
fn furnish(store: &Store) {
    for name in NAMESPACES {
        match store.create(&kinds::NAMESPACE, json!({"metadata": {"name": name}})) {
            Ok(_) | Err(store::Error::AlreadyExists { .. }) => {}
            Err(error) => tracing::error!(%error, name, "making a namespace"),
        }
    }
}

/// 128 random bits, in hexadecimal.
fn token() -> String {
    let bits: u128 = rand::rng().random();
    format!("{bits:032x}")
}

#[cfg(test)]
mod tests;
