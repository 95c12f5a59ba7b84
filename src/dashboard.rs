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
use crate::commands::{abort, failure, pause, promote, restart, retry};
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
        // The proxy speaks plain HTTP, also on a machine that has no certificates of authorities.
        let http = reqwest::Client::builder().tls_certs_only([]).build();
        let http = http.expect("nothing is read that could be wrong");
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
        Err(error) => refused(error).into_response(),
    }
}

/// The API server's own words.
fn refused(error: impl Into<anyhow::Error>) -> (StatusCode, String) {
    let error = error.into();
    let status = match error.downcast_ref::<kube::Error>() {
        Some(kube::Error::Api(status)) if status.code == 404 => StatusCode::NOT_FOUND,
        Some(_) | None => StatusCode::BAD_GATEWAY,
    };
    (status, failure::text(&error) + "\n")
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use serde_json::{Value, json};
    use sidestep_proxy::{Config, Proxy};
    use tower::ServiceExt;

    use super::*;
    use crate::commands::script::{Script, not_found};

    const ABORT: &str = "/api/rollouts/default/demo/abort";
    const STATUS: &str = "/apis/argoproj.io/v1alpha1/namespaces/default/rollouts/demo/status";

    /// A request to the page of a proxy that has no table, and of an API server that follows a script.
    async fn ask(script: &Script, request: Request<Body>) -> (StatusCode, String) {
        // The first test of the process installs it; the others find it there.
        let (Ok(()) | Err(_)) = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let proxy = Proxy::start(Config::new(vec![([127, 0, 0, 1], 0).into()])).unwrap();
        let client = script.session().client;
        let (dashboard, _keeping) = Dashboard::new(client, proxy.local_addr(), proxy.handle());
        let answer = dashboard.router().oneshot(request).await.unwrap();
        let status = answer.status();
        let body = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn request(method: &str, path: &str, host: &str) -> http::request::Builder {
        Request::builder()
            .method(method)
            .uri(path)
            .header("host", host)
    }

    fn found() -> Value {
        json!({"metadata": {"name": "demo"}})
    }

    #[tokio::test]
    async fn the_page_and_what_it_loads_are_served_to_this_machine_only() {
        for (path, host, status, holds) in [
            (
                "/",
                "localhost:3100",
                StatusCode::OK,
                "<title>Sidestep</title>",
            ),
            ("/", "127.0.0.1:3100", StatusCode::OK, "app.js"),
            ("/", "[::1]:3100", StatusCode::OK, "style.css"),
            ("/app.js", "localhost", StatusCode::OK, "EventSource"),
            ("/style.css", "localhost", StatusCode::OK, "body"),
            ("/nosuch", "localhost", StatusCode::NOT_FOUND, ""),
            (
                "/",
                "rebound.example:3100",
                StatusCode::FORBIDDEN,
                "localhost only",
            ),
            (
                "/api/events",
                "rebound.example",
                StatusCode::FORBIDDEN,
                "localhost only",
            ),
        ] {
            let request = request("GET", path, host).body(Body::empty()).unwrap();
            let (got, body) = ask(&Script::default(), request).await;
            assert!(
                got == status && body.contains(holds),
                "{host}{path}: {got} {body}"
            );
        }
    }

    #[tokio::test]
    async fn an_action_needs_our_header_and_sends_the_commands_patch() {
        let script = Script::default().answer("PATCH", STATUS, found());
        let foreign = request("POST", ABORT, "localhost")
            .body(Body::empty())
            .unwrap();
        let (status, body) = ask(&script, foreign).await;
        assert_eq!(
            (status, script.requests().len()),
            (StatusCode::FORBIDDEN, 0),
            "{body}"
        );

        let ours = request("POST", ABORT, "localhost").header(OURS, "page");
        let (status, body) = ask(&script, ours.body(Body::empty()).unwrap()).await;
        assert_eq!(
            (status, body.as_str()),
            (StatusCode::OK, "rollout 'demo' aborted")
        );
        let sent = script.requests();
        assert!(
            sent.iter()
                .any(|sent| sent.contains(r#"{"status":{"abort":true}}"#)),
            "{sent:?}"
        );
    }

    #[tokio::test]
    async fn what_cannot_be_done_is_said_in_the_api_servers_words() {
        let message = "rollouts.argoproj.io \"demo\" not found";
        let main = STATUS.trim_end_matches("/status");
        let script = Script::default()
            .fail("PATCH", STATUS, not_found("demo"))
            .fail("PATCH", main, not_found("demo"));
        for (path, said) in [
            (ABORT, format!("{message}\n")),
            (
                "/api/rollouts/default/demo/nosuch",
                "no action nosuch\n".to_owned(),
            ),
            (
                "/api/tiles?namespace=default&name=demo&count=3",
                "no Service leads to that rollout\n".to_owned(),
            ),
        ] {
            let request = request("POST", path, "localhost").header(OURS, "page");
            let answer = ask(&script, request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer, (StatusCode::NOT_FOUND, said), "{path}");
        }
    }
}
