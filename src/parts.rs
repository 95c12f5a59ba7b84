//! The parts of a long-running role: they run side by side, one that fails ends the role, and all are joined at its end.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use axum::Router;
use kube::Client;
use sidestep_control::routing::{self, Published};
use sidestep_control::streams::prompt;
use sidestep_proxy::{Proxy, proxy};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Parts at work.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Parts {
    /// Runs a part until the role stops; its error ends the role.
    pub(crate) fn until_stopped<F>(
        &mut self,
        what: &'static str,
        part: impl FnOnce(CancellationToken) -> F,
    ) where
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

    /// Serves pages until the role stops.
    pub(crate) fn serve(&mut self, what: &'static str, listener: TcpListener, router: Router) {
        self.until_stopped(what, |stop| async move {
            // Streams have no end of their own: what is open when the role stops is closed.
            tokio::select! {
                served = axum::serve(prompt(listener), router).into_future() => Ok(served?),
                () = stop.cancelled() => Ok(()),
            }
        });
    }

    /// Keeps the tables of a proxy, which listens from the first one on, and watches over its workers.
    pub(crate) fn route(&mut self, client: Client, options: routing::Options, proxy: &Arc<Proxy>) {
        let (tables, certificates) = (proxy.handle(), proxy.certificates());
        let publish = move |published: Published| {
            if let Some(new) = published.certificates {
                certificates.publish(new);
            }
            let tables = tables.clone();
            async move { tables.publish(published.table).await }
        };
        self.until_stopped("routing", |stop| async move {
            routing::run(client, options, publish, stop).await;
            Ok(())
        });
        let proxy = Arc::clone(proxy);
        self.until_stopped("the proxy", |stop| async move {
            let listening = async {
                proxy.listen().await.map_err(proxy_complaint)?;
                std::future::pending().await
            };
            tokio::select! {
                refused = listening => refused,
                error = proxy.failed() => Err(error.into()),
                () = stop.cancelled() => Ok(()),
            }
        });
    }

    /// Returns when a part has failed, with its error. Cancel safe.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error,
            Some(Ok(Ok(()))) | None => anyhow!("a part has ended by itself"),
            Some(Err(panic)) => anyhow!(panic).context("a part has panicked"),
        }
    }

    /// Stops all parts; returns when the last has ended.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            if let Ok(Err(error)) = ended {
                tracing::warn!("{error:#}");
            }
        }
    }
}

/// Listens at an address that a flag has named.
///
/// # Errors
/// Which flag is to be changed, and why.
pub(crate) async fn bind(address: SocketAddr, flag: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .await
        .map_err(|error| not_listening(flag, address, &error))
}

/// Which flag is to be changed, and why.
pub(crate) fn not_listening(flag: &str, address: SocketAddr, error: &io::Error) -> anyhow::Error {
    if error.kind() == io::ErrorKind::AddrInUse {
        return anyhow!(
            "{flag}: {address} is in use by another process; end it, or choose another address"
        );
    }
    anyhow!("{flag}: listening at {address}: {error}")
}

/// What a proxy that does not start complains of, by flag.
pub(crate) fn proxy_complaint(error: proxy::Error) -> anyhow::Error {
    match &error {
        proxy::Error::Listen { address, source } => not_listening("--listen", *address, source),
        proxy::Error::AccessLog(_) => anyhow!(error).context("--access-log"),
        proxy::Error::NoAddress | proxy::Error::Thread { .. } | proxy::Error::Died { .. } => {
            anyhow!(error).context("starting the proxy")
        }
    }
}
