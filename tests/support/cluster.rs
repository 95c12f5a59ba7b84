//! A real Kubernetes control plane for tests: one for a whole test binary, with nodes and pods of ours, and a namespace for each test.
//!
//! | file | what |
//! |---|---|
//! | [`enclave`] | the network namespace in which pods have addresses |
//! | [`control_plane`] | etcd, kube-apiserver and kube-controller-manager, of `tests/cluster/` |
//! | [`nodes`] | fake nodes, and who sends pods to them |
//! | [`accounts`] | what a pod may do |
//! | [`audit`] | what a service account has asked of the API server |
//! | [`role`] | the program under test as a pod |
//! | [`terminal`] | verbs and requests, as tests of the embedded cluster have them |
//! | [`helm`] | Helm itself, and the chart |
//! | [`volumes`] | ConfigMaps as files of a pod |
//! | [`images`] | the program under test as an image |
//! | [`faults`] | what is killed |
//! | [`kubelet`] | the cluster as `sidestep_control::local::pods` needs it, which runs the pods |
//!
//! [`World`] is to the real cluster what `machine::Machine` is to the embedded one, and [`terminal::Terminal`] what
//! `support/terminal.rs` is.

mod accounts;
pub(crate) mod audit;
mod control_plane;
pub(crate) mod enclave;
pub(crate) mod faults;
pub(crate) mod helm;
mod images;
mod kubelet;
mod nodes;
pub(crate) mod role;
pub(crate) mod terminal;
mod volumes;

use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{ApiResource, DynamicObject, ObjectMeta, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, TypeMeta};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Resource, ResourceExt as _};
use rustls::crypto::aws_lc_rs;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sidestep_control::local::crds;
use sidestep_control::local::launcher::Launcher;
use sidestep_control::local::logs::{PodLog, PodLogs};
use sidestep_control::local::pods::{self, Machine};
use tokio::process::Command;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{OnceCell, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use self::accounts::Accounts;
use self::audit::Request;
use self::control_plane::ControlPlane;
use self::kubelet::Remote;
use crate::support::session::DEADLINE;

/// Kinds that live in no namespace, beside those that say so.
const IN_NO_NAMESPACE: [&str; 3] = [
    "CustomResourceDefinition",
    "IngressClass",
    "ValidatingWebhookConfiguration",
];

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_sidestep");

/// A namespace of a real cluster, for one test.
pub(crate) struct World {
    /// The cluster, for whoever may do everything.
    pub(crate) client: Client,
    /// The test's own namespace.
    pub(crate) namespace: String,
    /// The first of the ports that proxies of the test have for Services without a selector. No two tests have the same: proxies see the
    /// Splits of all.
    pub(crate) apex_port: u16,
    cluster: &'static Cluster,
}

/// The cluster of this process. It goes with the process: its control plane reads our end of a pipe.
struct Cluster {
    control_plane: ControlPlane,
    /// What pods write.
    logs: PodLogs,
    /// Where nodes and pods live: a test's own runtime ends with the test.
    runtime: Handle,
}

static CLUSTER: OnceCell<Cluster> = OnceCell::const_new();

/// The first of the ports of the next test.
static PORTS: AtomicU16 = AtomicU16::new(10_000);
/// So many ports each test has.
const PORTS_EACH: u16 = 16;

impl World {
    /// A new namespace; the first one starts the cluster.
    pub(crate) async fn start() -> Self {
        enclave::enter();
        say_what_goes_wrong();
        let cluster = CLUSTER.get_or_init(Cluster::start).await;
        let client = cluster.control_plane.client().await;
        let world = Self {
            namespace: namespace(&client).await,
            apex_port: PORTS.fetch_add(PORTS_EACH, Ordering::Relaxed),
            client,
            cluster,
        };
        // Without it no pod is admitted, and controllers that are refused try again later and later.
        world
            .eventually::<ServiceAccount>("default", "the namespace's service account", |_| true)
            .await;
        world
    }

    /// All of its ports for Services without a selector, as flags have them.
    pub(crate) fn apex_ports(&self) -> String {
        format!("{}-{}", self.apex_port, self.apex_port + PORTS_EACH - 1)
    }

    /// Objects of a kind in the test's namespace.
    pub(crate) fn api<K: Resource<DynamicType = (), Scope = NamespaceResourceScope>>(
        &self,
    ) -> Api<K> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Creates an object, whatever its kind, in the test's namespace if it lives in one.
    pub(crate) async fn create(&self, object: &Value) {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let types = object.types.clone().expect("apiVersion and kind");
        let api = self.of_type(&types);
        api.create(&PostParams::default(), &object).await.unwrap();
    }

    fn of_type(&self, types: &TypeMeta) -> Api<DynamicObject> {
        self.of_type_in(types, &self.namespace)
    }

    fn of_type_in(&self, types: &TypeMeta, namespace: &str) -> Api<DynamicObject> {
        let kind = GroupVersionKind::try_from(types).unwrap();
        let resource = ApiResource::from_gvk(&kind);
        if kind.kind.starts_with("Cluster") || IN_NO_NAMESPACE.contains(&kind.kind.as_str()) {
            return Api::all_with(self.client.clone(), &resource);
        }
        Api::namespaced_with(self.client.clone(), namespace, &resource)
    }

    /// The API server's URL.
    pub(crate) fn server(&self) -> String {
        let mut clusters = self.cluster.control_plane.settings().clusters;
        clusters.remove(0).cluster.unwrap().server.unwrap()
    }

    /// Writes a kubeconfig whose namespace is the test's, for whoever may do everything.
    pub(crate) fn write_kubeconfig(&self, file: &Path) {
        let mut settings = self.cluster.control_plane.settings();
        let contexts = settings.contexts.iter_mut();
        for context in contexts.filter_map(|named| named.context.as_mut()) {
            context.namespace = Some(self.namespace.clone());
        }
        std::fs::write(file, serde_json::to_vec(&settings).unwrap()).unwrap();
    }

    /// Runs one of the everyday verbs in the test's namespace, which must succeed.
    pub(crate) async fn verb(&self, line: &str) {
        let answer = self.try_verb(line).await;
        assert!(answer.status.success(), "{line}: {answer:?}");
    }

    /// Runs one of the everyday verbs in the test's namespace.
    pub(crate) async fn try_verb(&self, line: &str) -> Output {
        let mut command = Command::new(PROGRAM);
        command
            .args(line.split(' '))
            .args(["--namespace", &self.namespace, "--kubeconfig"])
            .arg(self.cluster.control_plane.kubeconfig())
            .stdin(Stdio::null());
        let answer = timeout(DEADLINE, command.output()).await;
        answer.expect("it ends").unwrap()
    }

    /// Asks the API server whether it would take an object, every field of it, whatever its kind.
    pub(crate) async fn would_take(&self, object: &Value) -> kube::Result<()> {
        let object: DynamicObject = serde_json::from_value(object.clone()).unwrap();
        let types = object.types.clone().expect("apiVersion and kind");
        let namespace = object.metadata.namespace.as_deref();
        let api = self.of_type_in(&types, namespace.unwrap_or(&self.namespace));
        let how = PatchParams {
            dry_run: true,
            ..PatchParams::apply("helm").force().validation_strict()
        };
        let name = object.name_any();
        api.patch(&name, &how, &Patch::Apply(&object)).await?;
        Ok(())
    }

    /// Everything that a service account of the test's namespace has asked of the API server.
    pub(crate) fn requests(&self, account: &str) -> Vec<Request> {
        audit::requests(&self.namespace, account)
    }

    /// What a pod that runs has written and goes on to write; it can be read when the pod is gone.
    pub(crate) fn log(&self, pod: &str) -> PodLog {
        let log = self.cluster.logs.find(&self.namespace, pod);
        log.expect("the pod runs as a process")
    }

    /// Waits until a condition holds for an object, and returns the object.
    pub(crate) async fn eventually<K>(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&K) -> bool,
    ) -> K
    where
        K: Clone + Debug + Send + DeserializeOwned + 'static,
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let holds = |object: Option<&K>| object.is_some_and(&holds);
        self.awaited(name, what, holds)
            .await
            .expect("the condition asks for it")
    }

    /// Waits until an object is gone.
    pub(crate) async fn eventually_gone<K>(&self, name: &str)
    where
        K: Clone + Debug + Send + DeserializeOwned + 'static,
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        self.awaited(name, "gone", |object: Option<&K>| object.is_none())
            .await;
    }

    async fn awaited<K>(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(Option<&K>) -> bool,
    ) -> Option<K>
    where
        K: Clone + Debug + Send + DeserializeOwned + 'static,
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        let api = self.api::<K>();
        let found = Box::pin(await_condition(api.clone(), name, holds));
        match timeout(DEADLINE, found).await {
            Ok(found) => found.unwrap(),
            Err(_) => panic!("not in time: {name} {what}; {:#?}", api.get_opt(name).await),
        }
    }
}

impl Drop for World {
    /// The namespace goes with all that is in it. Nobody waits for that: it takes seconds.
    fn drop(&mut self) {
        let (control_plane, namespace) = (&self.cluster.control_plane, self.namespace.clone());
        self.cluster.runtime.spawn(async move {
            let api: Api<Namespace> = Api::all(control_plane.client().await);
            if let Err(error) = api.delete(&namespace, &Default::default()).await {
                tracing::warn!(namespace, %error, "a namespace stays");
            }
        });
    }
}

/// Warnings of ours stand among what a failed test has printed; `RUST_LOG` asks for more.
fn say_what_goes_wrong() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    let said = tracing_subscriber::fmt().with_test_writer();
    let (Ok(()) | Err(_)) = said.with_env_filter(filter).try_init(); // The first test has done it for all.
}

async fn namespace(client: &Client) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            generate_name: Some("test-".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let made = api.create(&PostParams::default(), &namespace).await;
    made.unwrap().name_any()
}

impl Cluster {
    /// Starts everything on a thread of its own, which ends with the process.
    async fn start() -> Self {
        let (started, cluster) = oneshot::channel();
        let live = move || {
            let runtime = Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (cluster, machine) = Self::bring_up(Handle::current()).await;
                assert!(started.send(cluster).is_ok(), "somebody waits for it");
                // For ever: processes of pods end with us, see `launcher`.
                pods::run(machine, CancellationToken::new()).await;
            });
        };
        std::thread::Builder::new()
            .name("cluster".to_owned())
            .spawn(live)
            .unwrap();
        cluster.await.expect("the cluster starts")
    }

    async fn bring_up(runtime: Handle) -> (Self, Machine) {
        let (Ok(()) | Err(_)) = aws_lc_rs::default_provider().install_default();
        let control_plane = ControlPlane::start(&crds::manifests()).await;
        let client = control_plane.client().await;
        nodes::make(&client).await;
        runtime.spawn(nodes::schedule(client.clone()));
        let accounts = Accounts::new(client.clone(), control_plane.settings());
        let logs = PodLogs::default();
        let machine = Machine {
            cluster: Arc::new(Remote::new(client, accounts)),
            launcher: Launcher::start(PathBuf::from(PROGRAM)).unwrap(),
            logs: logs.clone(),
        };
        let cluster = Self {
            control_plane,
            logs,
            runtime,
        };
        (cluster, machine)
    }
}
