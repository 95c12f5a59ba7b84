//! A small server to roll out: `examples/processes.yaml` runs two versions of it as pods.
//!
//! `origin [--version VERSION] [--drain | --die-at-once]`
//!
//! It listens on $POD_IP:$PORT (127.0.0.1 without `POD_IP`), reads every request's body to its end, and answers who it is and how many
//! bytes it got. `VERSION` in the environment names its version, `--version` wins. On SIGTERM it goes on accepting for a second and
//! finishes what is in flight (`--drain`, the default), or it is gone (`--die-at-once`).

use std::env::VarError;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::time::Duration;

use anyhow::{Context as _, bail};
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

/// What was asked for.
#[derive(Clone, Debug)]
struct Origin {
    version: String,
    drains: bool,
}

impl Origin {
    fn parse(args: impl Iterator<Item = String>, version: Option<String>) -> anyhow::Result<Self> {
        let mut origin = Self {
            version: version.unwrap_or_else(|| "unknown".to_owned()),
            drains: true,
        };
        let mut args = args.skip(1);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--drain" => origin.drains = true,
                "--die-at-once" => origin.drains = false,
                "--version" => origin.version = args.next().context("--version wants a value")?,
                other => bail!(
                    "{other:?} is not known; usage: origin [--version VERSION] [--drain | --die-at-once]"
                ),
            }
        }
        Ok(origin)
    }
}

/// Where a pod is to listen.
fn address() -> anyhow::Result<SocketAddr> {
    let port = std::env::var("PORT").context("PORT is not set")?;
    let port = port.parse().context("PORT is no port")?;
    let address: IpAddr = match std::env::var("POD_IP") {
        Ok(address) => address.parse().context("POD_IP is no address")?,
        Err(VarError::NotPresent) => Ipv4Addr::LOCALHOST.into(),
        Err(error) => return Err(error).context("POD_IP"),
    };
    Ok(SocketAddr::new(address, port))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let origin = Origin::parse(std::env::args(), std::env::var("VERSION").ok())?;
    let address = address()?;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("listening on {address}"))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let (goodbye, leaving) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut end = None;
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted.context("accepting a connection")?;
                connections.spawn(serve(stream, origin.version.clone(), leaving.clone()));
            }
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => {
                if !origin.drains {
                    return Ok(());
                }
                end.get_or_insert_with(|| Instant::now() + STILL_ACCEPTING);
            }
            () = until(end) => break,
        }
    }
    drop(listener);
    goodbye.send_replace(true);
    while connections.join_next().await.is_some() {}
    Ok(())
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

async fn serve(stream: TcpStream, version: String, mut leaving: watch::Receiver<bool>) {
    let service = service_fn(move |request| answer(version.clone(), request));
    let mut connection =
        pin!(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = &mut connection => ended,
        () = async { drop(leaving.wait_for(|leaving| *leaving).await) } => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    // A client that went away is its own business.
    let (Ok(()) | Err(_)) = ended;
}

async fn answer(
    version: String,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let (head, body) = request.into_parts();
    let received = body.collect().await?.to_bytes().len();
    let answer = json!({
        "version": version, "pod": std::env::var("POD_NAME").ok(),
        "method": head.method.as_str(), "path": head.uri.path(), "bodyBytes": received,
    });
    let mut response = Response::new(Full::from(answer.to_string()));
    response.headers_mut().insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}

/// How long new connections are still taken after SIGTERM, so that those who send here have learnt to leave.
const STILL_ACCEPTING: Duration = Duration::from_secs(1);
