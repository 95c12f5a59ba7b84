//! One machine as a whole: embedded cluster, proxy, controller, admin port and dashboard in this process, wired and ended together.
//!
//! `run` and `demo` differ in what they do with it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use prometheus::Registry;
use sidestep_control::controller::{self, Controller};
use sidestep_control::fleet;
use sidestep_control::local::workloads::Workloads;
use sidestep_control::local::{self, Local};
use sidestep_control::reconcile::routers::Policy;
use sidestep_control::routing::{self, Attached, ServiceNames};
use sidestep_proxy::table::Pick;
use sidestep_proxy::{Config, Proxy, TableHandle};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::admin::{self, Admin, started_at};
use crate::client::Session;
use crate::dashboard::Dashboard;
use crate::membership;
use crate::parts::{Parts, bind, not_listening, proxy_complaint};
use crate::settings::ServiceName;

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
    parts: Parts,
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
            parts: Parts::default(),
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
        let registry = admin::registry()?;
        sidestep_proxy::metrics::register(&registry, self.tables.clone())?;
        membership::announce(&client, self.admin).await?;

        let controller =
            Controller::new(client.clone(), controller_config(settings.foreign_routers));
        controller.metrics().register(&registry)?;
        self.parts
            .until_stopped("the controller", |stop| async move {
                controller.run(std::future::ready(()), stop).await;
                Ok(())
            });
        let options = routing_options(settings, self.proxy.local_addrs());
        self.parts.route(client.clone(), options, &self.proxy);
        self.parts.serve(
            "the admin port",
            admin,
            self.admin_routes(registry).router(),
        );
        if let Some(listener) = dashboard {
            let (dashboard, keeping) = Dashboard::new(client, self.listen, self.tables.clone());
            self.parts
                .serve("the dashboard", listener, dashboard.router());
            self.parts
                .until_stopped("the dashboard's watches", |stop| async move {
                    stop.run_until_cancelled(keeping).await;
                    Ok(())
                });
        }
        self.until_it_listens().await
    }

    fn admin_routes(&self, registry: Registry) -> Admin {
        Admin {
            tables: self.tables.clone(),
            registry,
            listening: self.proxy.listening(),
            draining: self.draining.subscribe(),
            instance: self.proxy.instance().to_owned(),
            since: started_at(),
        }
    }

    async fn until_it_listens(&mut self) -> anyhow::Result<()> {
        let mut listening = self.proxy.listening();
        let ready = listening.wait_for(|listening| *listening);
        tokio::select! {
            ready = ready => ready.map(drop).context("the proxy ended before its first table"),
            failed = self.parts.failed() => Err(failed),
        }
    }

    /// Returns when a part has failed, with its error.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        tokio::select! {
            error = self.parts.failed() => error,
            () = self.local.broken() => anyhow!("the embedded API server has failed"),
            () = self.workloads.broken() => anyhow!("the embedded cluster has failed"),
        }
    }

    /// Ends everything: the proxy drains while its endpoints still serve, then the rest stops, pods last.
    pub(crate) async fn stop(self) {
        self.draining.send_replace(true);
        self.proxy.drain().await;
        self.parts.stop().await;
        self.workloads.stop().await;
        self.local.stop().await;
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
        foreign_routers,
        ..controller::Config::new(fleet::Config {
            namespace: membership::NAMESPACE.to_owned(),
            service: membership::SERVICE.to_owned(),
        })
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
        namespace: None,
        fleet: membership::FLEET.to_owned(),
        fleet_service: (
            membership::NAMESPACE.to_owned(),
            membership::SERVICE.to_owned(),
        ),
        attached: Attached::Services(ServiceNames {
            default_namespace: settings.namespace.clone(),
            default_service: settings
                .default_service
                .clone()
                .map(|service| (service.namespace, service.name)),
            cluster_domain: "cluster.local".to_owned(),
        }),
        apexes: None,
        own: own.to_vec(),
        pick: Pick::default(),
    }
}
