//! The admin port: probes, metrics, the table, and what the controller's fleet listens to.
//!
//! | path | answer |
//! |---|---|
//! | `/livez` | 200 while the process runs |
//! | `/readyz` | 200 once a table is served and the proxy listens, until it drains; else 503 with the reason |
//! | `/metrics` | Prometheus text, format 0.0.4 |
//! | `/table` | the routes, backends and endpoints in service, as JSON |
//! | `/splits` | every Split as it is served; `?watch=1` streams one JSON line per change, of counters alone `&every=` so many ms |
//! | `/splits/{namespace}/{name}` | one Split, or 404 |

mod splits;
mod table;

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use http::{StatusCode, header};
use jiff::Timestamp;
#[cfg(target_os = "linux")]
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use serde::Deserialize;
use sidestep_control::fleet::pace;
use sidestep_control::fleet::report::Hello;
use sidestep_proxy::TableHandle;
use tokio::sync::watch;
use tokio::time::Instant;

/// What the admin port speaks of.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    /// The tables in service and what was counted.
    pub(crate) tables: TableHandle,
    /// Every metric of the process.
    pub(crate) registry: Registry,
    /// Whether the proxy listens, as it does from its first table on.
    pub(crate) listening: watch::Receiver<bool>,
    /// Whether the proxy has begun to drain.
    pub(crate) draining: watch::Receiver<bool>,
    /// Random per process, so that the controller knows counters that began anew.
    pub(crate) instance: String,
    /// When the process began to count.
    pub(crate) since: Timestamp,
}

impl Admin {
    /// The routes of the admin port.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route("/livez", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .route("/metrics", get(metrics))
            .route("/table", get(show_table))
            .route("/splits", get(list_splits))
            .route("/splits/{namespace}/{name}", get(one_split))
            .with_state(self)
    }

    fn hello(&self, every: Option<Duration>) -> Hello {
        let draining = *self.draining.borrow();
        splits::hello(self.instance.clone(), self.since, draining, every)
    }
}

async fn ready(State(admin): State<Admin>) -> Response {
    if *admin.draining.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    if !*admin.listening.borrow() {
        return (StatusCode::SERVICE_UNAVAILABLE, "no table yet\n").into_response();
    }
    "ok\n".into_response()
}

async fn metrics(State(admin): State<Admin>) -> Response {
    exposition(&admin.registry)
}

/// Where the metrics of a process are kept; those that Prometheus clients give of the process itself are there: `process_*`.
///
/// # Errors
/// None that is known: names would have to clash.
pub(crate) fn registry() -> prometheus::Result<Registry> {
    let registry = Registry::new();
    #[cfg(target_os = "linux")]
    registry.register(Box::new(ProcessCollector::for_self()))?;
    Ok(registry)
}

/// `/metrics` alone.
pub(crate) fn metrics_only(registry: Registry) -> Router {
    Router::new().route("/metrics", get(async move || exposition(&registry)))
}

fn exposition(registry: &Registry) -> Response {
    match TextEncoder::new().encode_to_string(&registry.gather()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("encoding metrics: {error}\n"),
        )
            .into_response(),
    }
}

async fn show_table(State(admin): State<Admin>) -> Response {
    Json(table::render(&admin.tables.table(Instant::now()))).into_response()
}

#[derive(Debug, Deserialize)]
struct Watch {
    #[serde(default)]
    watch: String,
    /// Time between two rounds of counters in milliseconds.
    every: Option<u64>,
}

async fn list_splits(State(admin): State<Admin>, Query(query): Query<Watch>) -> Response {
    let every = query.every.map(Duration::from_millis);
    if let Some(every) = every.filter(|every| !(pace::SHORTEST..=pace::LONGEST).contains(every)) {
        let (shortest, longest) = (pace::SHORTEST.as_millis(), pace::LONGEST.as_millis());
        let text = format!(
            "every: {} is not from {shortest} to {longest} ms\n",
            every.as_millis()
        );
        return (StatusCode::BAD_REQUEST, text).into_response();
    }
    if matches!(query.watch.as_str(), "1" | "true") {
        let lines = splits::stream(admin.hello(every), admin.tables, admin.draining, every);
        return (
            [(header::CONTENT_TYPE, "application/x-ndjson")],
            Body::from_stream(lines),
        )
            .into_response();
    }
    Json(splits::reports(&admin.tables)).into_response()
}

async fn one_split(
    State(admin): State<Admin>,
    Path((namespace, name)): Path<(String, String)>,
) -> Response {
    let reports = splits::reports(&admin.tables);
    match reports
        .into_iter()
        .find(|split| split.namespace == namespace && split.name == name)
    {
        Some(split) => Json(split).into_response(),
        None => (
            StatusCode::NOT_FOUND,
            format!("no Split {namespace}/{name} is served here\n"),
        )
            .into_response(),
    }
}

/// When this process began to count.
#[expect(
    clippy::disallowed_methods,
    reason = "the process's start is an edge: it is read once"
)]
pub(crate) fn started_at() -> Timestamp {
    Timestamp::now()
}
