//! `sidestep controller`: the controller of a cluster, until SIGTERM or until it no longer leads.
//!
//! Of several, one writes; the others are warm standbys that answer probes. One that loses its Lease ends: whatever runs it starts it
//! anew, as client-go has it.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::StatusCode;
use sidestep_control::controller::{self, Controller};
use sidestep_control::fleet;
use sidestep_control::lease::{self, Leadership};
use sidestep_control::reconcile::apex;
use sidestep_control::reconcile::objects::Scope;
use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::admin;
use crate::cli::Connection;
use crate::client::{Session, connect};
use crate::parts::{Parts, bind};
use crate::run::signalled;
use crate::settings::{ControllerSettings, Election};

/// How long looks that have begun may take to end once the controller is to stop: the next leader waits for them.
const END_LIMIT: Duration = Duration::from_secs(1);

/// Runs until a signal, a failure, or the loss of leadership.
///
/// # Errors
/// No way to the cluster, a port in use, another controller's lock, or a part that failed.
pub(crate) async fn run(
    settings: ControllerSettings,
    connection: Connection,
) -> anyhow::Result<()> {
    let session = connect(&connection).await?;
    let controller = Controller::new(session.client.clone(), config(&settings, &session));
    let mut parts = Parts::default();
    serve(&mut parts, &settings, &controller).await?;
    let (lead, leading) = oneshot::channel();
    parts.until_stopped("the controller", |stop| async move {
        let leading = async {
            if leading.await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        controller.run(leading, stop).await;
        Ok(())
    });
    let mut leadership = settings
        .election
        .as_ref()
        .map(|election| Leadership::new(session.client.clone(), contest(election, &session)));
    tokio::select! {
        signal = signalled() => signal?,
        error = parts.failed() => return Err(error),
        lost = lead_on(&settings, &session, leadership.as_mut(), lead) => return Err(lost),
    }
    if timeout(END_LIMIT, parts.stop()).await.is_err() {
        info!("looks that take longer are left to the next leader");
    }
    if let Some(leadership) = leadership {
        leadership.release().await;
    }
    Ok(())
}

/// Leads as soon as it may; returns why it no longer does.
async fn lead_on(
    settings: &ControllerSettings,
    session: &Session,
    leadership: Option<&mut Leadership>,
    lead: oneshot::Sender<()>,
) -> anyhow::Error {
    let Some(leadership) = leadership else {
        // Whoever listens is there until the role stops.
        let _heard = lead.send(());
        return std::future::pending().await;
    };
    if let Err(refusal) = look_around(settings, session, leadership).await {
        return refusal.into();
    }
    info!("standing by for the Lease");
    leadership.acquire().await;
    info!("leading");
    let _heard = lead.send(());
    leadership.keep().await.into()
}

/// Refuses to lead beside a controller that holds the lock in another namespace, where it can be seen.
async fn look_around(
    settings: &ControllerSettings,
    session: &Session,
    leadership: &Leadership,
) -> Result<(), lease::Error> {
    if settings.namespaced {
        info!(
            "looking after one namespace: ClusterAnalysisTemplates and Leases elsewhere are not seen"
        );
        return Ok(());
    }
    match lease::refuse_rivals(&session.client, leadership.config()).await {
        Err(lease::Error::Api(error)) => {
            warn!(
                error = &error as &dyn std::error::Error,
                "Leases of other namespaces cannot be read: a controller that keeps its lock elsewhere is not noticed"
            );
            Ok(())
        }
        result => result,
    }
}

async fn serve(
    parts: &mut Parts,
    settings: &ControllerSettings,
    controller: &Controller,
) -> anyhow::Result<()> {
    let registry = admin::registry()?;
    controller.metrics().register(&registry)?;
    let metrics = bind(settings.metrics, "--metrics-port").await?;
    let health = bind(settings.health, "--healthz-port").await?;
    info!(metrics = %metrics.local_addr()?, health = %health.local_addr()?, "serving");
    parts.serve("the metrics port", metrics, admin::metrics_only(registry));
    let readiness = controller.readiness();
    let ready = async move || match readiness() {
        true => (StatusCode::OK, "ok\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "objects are not listed yet\n",
        ),
    };
    let probes = Router::new()
        .route("/healthz", get(async || "ok"))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(ready));
    parts.serve("the health port", health, probes);
    Ok(())
}

fn config(settings: &ControllerSettings, session: &Session) -> controller::Config {
    let fleet = settings.fleet_namespace.clone();
    controller::Config {
        scope: Scope {
            namespace: settings.namespaced.then(|| session.namespace.clone()),
            instance: settings.instance.clone(),
        },
        fleet: fleet::Config {
            namespace: fleet.unwrap_or_else(|| session.namespace.clone()),
            service: settings.fleet_service.clone(),
        },
        apexes: match &settings.apex_ports {
            Some(ports) => apex::Policy::Ports(ports.clone()),
            None => apex::Policy::NoPorts,
        },
        foreign_routers: settings.foreign_routers,
        ingress_class: settings.ingress_class.clone(),
        ingress_status: settings.ingress_status,
        workers: settings.workers,
        run_workers: settings.run_workers,
        resync: settings.resync,
    }
}

fn contest(election: &Election, session: &Session) -> lease::Config {
    let namespace = election.namespace.clone();
    lease::Config {
        namespace: namespace.unwrap_or_else(|| session.namespace.clone()),
        name: election.lease.clone(),
        identity: identity(),
        duration: election.duration,
        renew: election.renew,
        retry: election.retry,
    }
}

/// The pod's name, which Kubernetes gives as `HOSTNAME`, and what tells this process from an earlier one in the same pod.
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "sidestep".to_owned());
    format!("{host}_{:016x}", rand::random::<u64>())
}

/// Whether the holder of a Lease is a controller of ours. Argo's append a UUID to the pod's name, as client-go's users do.
pub(crate) fn is_ours(identity: &str) -> bool {
    let (_, tail) = identity.rsplit_once('_').unwrap_or_default();
    tail.len() == 16 && tail.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_controller_of_ours_is_known_by_its_identity() {
        assert!(is_ours(&identity()));
        for theirs in [
            "argo-rollouts-6f7b_8d1f0a52-5d3f-4c57-9d7e-0a52b1f0c3d4",
            "argo-rollouts-6f7b",
            "",
        ] {
            assert!(!is_ours(theirs), "{theirs}");
        }
    }
}
