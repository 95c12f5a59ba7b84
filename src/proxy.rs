//! `sidestep proxy`: a proxy of a cluster, until SIGTERM.
//!
//! It reads Services, EndpointSlices, Splits and Ingresses itself, and tells whoever asks at its admin port what it serves and has
//! counted. It listens, and is ready, from its first table on, as Envoy does, and goes on serving its last one without API server or
//! controller. Until then its ports are taken and refuse connections, so that whoever comes by their addresses goes elsewhere.

use std::sync::Arc;

use sidestep_control::routing::{self, Attached};
use sidestep_proxy::Proxy;
use sidestep_proxy::table::Pick;
use tokio::sync::watch;
use tracing::info;

use crate::admin::{self, Admin, started_at};
use crate::cli::Connection;
use crate::client::{Session, connect};
use crate::parts::{Parts, bind, proxy_complaint};
use crate::run::signalled;
use crate::settings::ProxySettings;

/// Runs until a signal or a failure.
///
/// # Errors
/// No way to the cluster, a port in use, or a part that failed.
pub(crate) async fn run(settings: ProxySettings, connection: Connection) -> anyhow::Result<()> {
    let session = connect(&connection).await?;
    let proxy = Arc::new(Proxy::start(settings.proxy.clone()).map_err(proxy_complaint)?);
    let admin = bind(settings.admin, "--admin").await?;
    info!(listen = %proxy.local_addr(), admin = %admin.local_addr()?, "waiting for the first table");
    let draining = watch::Sender::new(false);
    let registry = admin::registry()?;
    sidestep_proxy::metrics::register(&registry, proxy.handle())?;
    let pages = Admin {
        tables: proxy.handle(),
        registry,
        listening: proxy.listening(),
        draining: draining.subscribe(),
        instance: proxy.instance().to_owned(),
        since: started_at(),
    };
    let mut parts = Parts::default();
    parts.serve("the admin port", admin, pages.router());
    parts.route(
        session.client.clone(),
        options(&settings, &session, &proxy),
        &proxy,
    );
    tokio::select! {
        signal = signalled() => signal?,
        error = parts.failed() => return Err(error),
    }
    draining.send_replace(true);
    tokio::select! {
        () = proxy.drain() => {}
        again = signalled() => again?,
    }
    parts.stop().await;
    Ok(())
}

fn options(settings: &ProxySettings, session: &Session, proxy: &Proxy) -> routing::Options {
    let fleet_namespace = settings.fleet_namespace.clone();
    let fleet_namespace = fleet_namespace.unwrap_or_else(|| session.namespace.clone());
    routing::Options {
        namespace: settings.namespaced.then(|| session.namespace.clone()),
        fleet: settings.fleet.clone(),
        fleet_service: (fleet_namespace, settings.fleet_service.clone()),
        attached: Attached::Ingresses {
            class: settings.ingress_class.clone(),
            secrets: settings.tls_secrets.clone(),
        },
        apexes: settings
            .proxy
            .apexes
            .as_ref()
            .map(|apexes| apexes.ports.clone()),
        own: proxy.local_addrs().to_vec(),
        pick: Pick::default(),
    }
}
