//! The page in the browser: what the rollouts do, as a stream of states, and what a client of the proxy sees, as tiles.
//!
//! The page is for the person at this machine. Its actions ask for a header that another site's page cannot send without a
//! preflight, which is never granted, and the Host must be a loopback name, so that a rebound DNS name does not reach them.

mod board;
mod tiles;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use futures::Stream;
use http::{HeaderMap, Method, StatusCode, header};
use kube::Client;
use serde::Deserialize;
use sidestep_proxy::TableHandle;
use tokio::time::Instant;

use crate::client::Session;
use crate::commands::promote::Reach;
use crate::commands::rollouts::Rollouts;
use crate::commands::{abort, pause, promote, restart, retry};
use crate::rates::Rates;
use board::Board;

/// How often the page is told the state.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// The header that an action must carry.
const OURS: &str = "x-sidestep";

/// What the page speaks of.
#[derive(Clone)]
pub(crate) struct Dashboard {
    /// The cluster.
    pub(crate) client: Client,
    /// Where the proxy takes traffic.
    pub(crate) proxy: SocketAddr,
    /// What the proxy serves and counted.
    pub(crate) tables: TableHandle,
    /// Every rollout, kept up to date.
    board: Board,
    /// What the tiles' requests are sent with.
    http: reqwest::Client,
}

impl Dashboard {
    /// A dashboard, and the task that keeps its objects up to date for as long as it is polled.
    pub(crate) fn new(
        client: Client,
        proxy: SocketAddr,
        tables: TableHandle,
    ) -> (Self, impl Future<Output = ()>) {
        let (board, keeping) = Board::start(&client);
        let http = reqwest::Client::new();
        (
            Self {
                client,
                proxy,
                tables,
                board,
                http,
            },
            keeping,
        )
    }

    /// The routes of the page.
    pub(crate) fn router(self) -> Router {
        Router::new()
            .route(
                "/",
                get(async || {
                    file(
                        "text/html; charset=utf-8",
                        include_str!("dashboard/web/index.html"),
                    )
                }),
            )
            .route(
                "/app.js",
                get(async || {
                    file(
                        "text/javascript; charset=utf-8",
                        include_str!("dashboard/web/app.js"),
                    )
                }),
            )
            .route(
                "/style.css",
                get(async || {
                    file(
                        "text/css; charset=utf-8",
                        include_str!("dashboard/web/style.css"),
                    )
                }),
            )
            .route("/api/events", get(events))
            .route("/api/tiles", post(ask_for_tiles))
            .route("/api/rollouts/{namespace}/{name}/{action}", post(act))
            .layer(from_fn(from_this_machine))
            .with_state(self)
    }

    fn rollouts(&self, namespace: String) -> Rollouts {
        Rollouts::of(&Session {
            client: self.client.clone(),
            namespace,
        })
    }
}

fn file(kind: &'static str, text: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-cache"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'self'; img-src 'self' data:",
        ),
    ];
    (headers, text).into_response()
}

/// Refuses hosts that are not this machine, and actions that another site's page may have sent.
async fn from_this_machine(request: Request, next: Next) -> Response {
    if !names_this_machine(request.headers()) {
        return (
            StatusCode::FORBIDDEN,
            "the dashboard answers to localhost only\n",
        )
            .into_response();
    }
    if request.method() == Method::POST && !request.headers().contains_key(OURS) {
        return (
            StatusCode::FORBIDDEN,
            format!("an action needs the header {OURS}\n"),
        )
            .into_response();
    }
    next.run(request).await
}

fn names_this_machine(headers: &HeaderMap) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok())
        .unwrap_or_default();
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    };
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok()
}

async fn events(
    State(dashboard): State<Dashboard>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let rates = Rates::new(dashboard.tables.clone(), Instant::now());
    let states = futures::stream::unfold(
        (dashboard.board, rates, true),
        async |(board, mut rates, first)| {
            if !first {
                tokio::time::sleep(TELL_EVERY).await;
            }
            let state = board.state(&rates.look(Instant::now()));
            // Our own types of numbers and strings always encode.
            let text = serde_json::to_string(&state).unwrap_or_default();
            Some((Ok(Event::default().data(text)), (board, rates, false)))
        },
    );
    Sse::new(states).keep_alive(KeepAlive::default())
}

#[derive(Debug, Deserialize)]
struct Tiles {
    namespace: String,
    name: String,
    count: usize,
}

async fn ask_for_tiles(State(dashboard): State<Dashboard>, Query(query): Query<Tiles>) -> Response {
    match dashboard.board.host(&query.namespace, &query.name) {
        Some(host) => Json(tiles::ask(&dashboard.http, dashboard.proxy, &host, query.count).await)
            .into_response(),
        None => (StatusCode::NOT_FOUND, "no Service leads to that rollout\n").into_response(),
    }
}

async fn act(
    State(dashboard): State<Dashboard>,
    Path((namespace, name, action)): Path<(String, String, String)>,
) -> Response {
    let rollouts = dashboard.rollouts(namespace);
    let done = match action.as_str() {
        "promote" => promote::promote(&rollouts, &name, Reach::Next)
            .await
            .map(|()| format!("rollout '{name}' promoted")),
        "promote-full" => promote::promote(&rollouts, &name, Reach::End)
            .await
            .map(|()| format!("rollout '{name}' fully promoted")),
        "pause" => pause::pause(&rollouts, &name)
            .await
            .map(|name| format!("rollout '{name}' paused")),
        "abort" => abort::abort(&rollouts, &name)
            .await
            .map(|name| format!("rollout '{name}' aborted")),
        "retry" => retry::retry(&rollouts, &name)
            .await
            .map(|name| format!("rollout '{name}' retried")),
        "restart" => restart::restart(&rollouts, &name, crate::commands::now())
            .await
            .map(|_| format!("rollout '{name}' restarts")),
        other => return (StatusCode::NOT_FOUND, format!("no action {other}\n")).into_response(),
    };
    match done {
        Ok(text) => text.into_response(),
        Err(error) => (StatusCode::BAD_GATEWAY, format!("{error}\n")).into_response(),
    }
}
