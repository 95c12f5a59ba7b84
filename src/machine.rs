//! One machine as a whole: embedded cluster, proxy, controller, admin port and dashboard in this process, wired and ended together.
//!
//! `run` and `demo` differ in what they do with it.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use axum::Router;
use jiff::Timestamp;
use prometheus::Registry;
use sidestep_control::controller::{self, Controller};
use sidestep_control::local::workloads::Workloads;
use sidestep_control::local::{self, Local};
use sidestep_control::reconcile::routers::Policy;
use sidestep_control::{fleet, routing};
use sidestep_proxy::table::Pick;
use sidestep_proxy::{Config, Proxy, TableHandle, proxy};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::client::Session;
use crate::dashboard::Dashboard;
use crate::membership;
use crate::settings::ServiceName;

/// Rollouts looked at side by side: each waits for the API server most of the time.
const CONTROLLER_WORKERS: NonZeroUsize = NonZeroUsize::new(16).expect("16 is above 0");

/// What one machine is made of. Everything is usable; a port in use is found when it is bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    /// Namespace of commands that name none, and of Services' bare names.
    pub(crate) namespace: String,
    /// The proxy's part: addresses, limits, deadlines, access log.
    pub(crate) proxy: Config,
    /// Where metrics, probes and the table are served.
    pub(crate) admin: SocketAddr,
    /// Where the embedded API server listens.
    pub(crate) api: SocketAddr,
    /// Where the dashboard listens; `None` is off.
    pub(crate) dashboard: Option<SocketAddr>,
    /// The folder that keeps all objects; `None` keeps them in memory.
    pub(crate) state: Option<PathBuf>,
    /// Where the kubeconfig is written.
    pub(crate) kubeconfig_out: PathBuf,
    /// The Service that answers for hosts that name no Service.
    pub(crate) default_service: Option<ServiceName>,
    /// What to do about `trafficRouting` blocks of other routers.
    pub(crate) foreign_routers: Policy,
}

/// One machine at work.
pub(crate) struct Machine {
    /// The embedded cluster, as a command would see it.
    pub(crate) session: Session,
    /// Where the proxy takes traffic.
    pub(crate) listen: SocketAddr,
    /// Where the admin port is.
    pub(crate) admin: SocketAddr,
    /// Where the page is.
    pub(crate) dashboard: Option<SocketAddr>,
    /// What the proxy serves and counted.
    pub(crate) tables: TableHandle,
    proxy: Arc<Proxy>,
    local: Local,
    workloads: Workloads,
    draining: watch::Sender<bool>,
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Machine {
    /// Starts everything; returns when the proxy serves its first table.
    ///
    /// # Errors
    /// A port in use, a state folder that cannot be used: what, and what to do.
    pub(crate) async fn start(settings: Settings) -> anyhow::Result<Self> {
        let proxy = Arc::new(Proxy::start(settings.proxy.clone()).map_err(proxy_complaint)?);
        let admin = bind(settings.admin, "--admin").await?;
        let dashboard = match settings.dashboard {
            Some(address) => Some(bind(address, "--dashboard").await?),
            None => None,
        };
        let local = local::start(local_config(&settings))
            .await
            .map_err(local_complaint)?;
        let program = std::env::current_exe()
            .context("finding this program, which starts pods as processes")?;
        let workloads = Workloads::start(&local.store, &local.logs, program)?;
        let session = Session {
            client: local.client()?,
            namespace: settings.namespace.clone(),
        };
        let mut machine = Self {
            listen: proxy.local_addr(),
            admin: admin.local_addr()?,
            dashboard: dashboard
                .as_ref()
                .map(TcpListener::local_addr)
                .transpose()?,
            tables: proxy.handle(),
            session,
            proxy,
            local,
            workloads,
            draining: watch::Sender::new(false),
            stop: CancellationToken::new(),
            tasks: JoinSet::new(),
        };
        machine.wire(&settings, admin, dashboard).await?;
        Ok(machine)
    }

    async fn wire(
        &mut self,
        settings: &Settings,
        admin: TcpListener,
        dashboard: Option<TcpListener>,
    ) -> anyhow::Result<()> {
        let client = self.session.client.clone();
        let registry = Registry::new();
        sidestep_proxy::metrics::register(&registry, self.tables.clone())?;
        membership::announce(&client, self.admin).await?;

        let controller =
            Controller::new(client.clone(), controller_config(settings.foreign_routers));
        controller.metrics().register(&registry)?;
        self.until_stopped("the controller", |stop| async move {
            controller.run(stop).await;
            Ok(())
        });
        let tables = self.tables.clone();
        let options = routing_options(settings, self.proxy.local_addrs());
        let publish = move |table| {
            let tables = tables.clone();
            async move { tables.publish(table).await }
        };
        let routing_client = client.clone();
        self.until_stopped("routing", |stop| async move {
            routing::run(routing_client, options, publish, stop).await;
            Ok(())
        });
        let proxy = Arc::clone(&self.proxy);
        self.until_stopped("the proxy", |stop| async move {
            match stop.run_until_cancelled(proxy.failed()).await {
                Some(error) => Err(error.into()),
                None => Ok(()),
            }
        });
        self.serve(
            "the admin port",
            admin,
            self.admin_routes(registry).router(),
        );
        if let Some(listener) = dashboard {
            let (dashboard, keeping) = Dashboard::new(client, self.listen, self.tables.clone());
            self.serve("the dashboard", listener, dashboard.router());
            self.until_stopped("the dashboard's watches", |stop| async move {
                stop.run_until_cancelled(keeping).await;
                Ok(())
            });
        }
        self.first_table().await
    }

    fn admin_routes(&self, registry: Registry) -> Admin {
        Admin {
            tables: self.tables.clone(),
            registry,
            draining: self.draining.subscribe(),
            instance: self.proxy.instance().to_owned(),
            since: started_at(),
        }
    }

    async fn first_table(&mut self) -> anyhow::Result<()> {
        let mut changes = self.tables.changes();
        let ready = changes.wait_for(|serial| *serial > 0);
        tokio::select! {
            ready = ready => ready.map(drop).context("the proxy ended before its first table"),
            failed = ended(&mut self.tasks) => Err(failed),
        }
    }

    /// Runs a part until the machine stops; its error ends the machine.
    fn until_stopped<F>(&mut self, what: &'static str, part: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let part = part(self.stop.clone());
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            part.await.with_context(|| format!("{what} has failed"))?;
            if stop.is_cancelled() {
                Ok(())
            } else {
                Err(anyhow!("{what} has ended by itself"))
            }
        });
    }

    fn serve(&mut self, what: &'static str, listener: TcpListener, router: Router) {
        self.until_stopped(what, |stop| async move {
            // Streams have no end of their own: what is open when the machine stops is closed.
            tokio::select! {
                served = axum::serve(listener, router).into_future() => Ok(served?),
                () = stop.cancelled() => Ok(()),
            }
        });
    }

    /// Returns when a part has failed, with its error.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = ended(&mut self.tasks) => error,
            () = self.local.broken() => anyhow!("the embedded API server has failed"),
            () = self.workloads.broken() => anyhow!("the embedded cluster has failed"),
        }
    }

    /// Ends everything: the proxy drains while its endpoints still serve, then the rest stops, pods last.
    pub(crate) async fn stop(mut self) {
        self.draining.send_replace(true);
        self.proxy.drain().await;
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!("{error:#}");
            }
        }
        self.workloads.stop().await;
        self.local.stop().await;
    }
}

async fn ended(tasks: &mut JoinSet<anyhow::Result<()>>) -> anyhow::Error {
    match tasks.join_next().await {
        Some(Ok(Err(error))) => error,
        Some(Ok(Ok(()))) | None => anyhow!("a part has ended by itself"),
        Some(Err(panic)) => anyhow!(panic).context("a part has panicked"),
    }
}

async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| not_listening(flag, address, &error))
}

/// Which flag is to be changed, and why.
fn not_listening(flag: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        return anyhow!(
            "{flag}: {address} is in use by another process; end it, or choose another address"
        );
    }
    anyhow!("{flag}: listening at {address}: {error}")
}

fn proxy_complaint(error: proxy::Error) -> anyhow::Error {
    match &error {
        proxy::Error::Listen { address, source } => not_listening("--listen", *address, source),
        proxy::Error::AccessLog(_) => anyhow!(error).context("--access-log"),
        proxy::Error::NoAddress | proxy::Error::Thread { .. } | proxy::Error::Died { .. } => {
            anyhow!(error).context("starting the proxy")
        }
    }
}

fn local_complaint(error: local::Error) -> anyhow::Error {
    match &error {
        local::Error::Listen { address, source } => not_listening("--api", *address, source),
        local::Error::NotLoopback(_) => anyhow!(error).context("--api"),
        local::Error::State(_) => anyhow!(error).context("--state"),
        local::Error::Kubeconfig(_) => anyhow!(error).context("--kubeconfig-out"),
    }
}

fn controller_config(foreign_routers: Policy) -> controller::Config {
    controller::Config {
        namespace: None,
        fleet: fleet::Config {
            namespace: membership::NAMESPACE.to_owned(),
            service: membership::SERVICE.to_owned(),
        },
        foreign_routers,
        workers: CONTROLLER_WORKERS,
    }
}

fn local_config(settings: &Settings) -> local::Config {
    local::Config {
        listen: settings.api,
        state: settings.state.clone(),
        kubeconfig: Some(settings.kubeconfig_out.clone()),
        ..local::Config::default()
    }
}

fn routing_options(settings: &Settings, own: &[SocketAddr]) -> routing::Options {
    routing::Options {
        fleet: membership::FLEET.to_owned(),
        fleet_service: (
            membership::NAMESPACE.to_owned(),
            membership::SERVICE.to_owned(),
        ),
        default_namespace: settings.namespace.clone(),
        default_service: settings
            .default_service
            .clone()
            .map(|service| (service.namespace, service.name)),
        cluster_domain: "cluster.local".to_owned(),
        own: own.to_vec(),
        pick: Pick::default(),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the process's start is an edge: it is read once"
)]
fn started_at() -> Timestamp {
    Timestamp::now()
}
