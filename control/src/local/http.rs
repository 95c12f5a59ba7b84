//! The server: who may ask, what is asked, and who answers.
//!
//! Loopback only. Every request carries the token, as `Authorization: Bearer`, or as the password of `Basic`: `kubectl` sends no
//! bearer token over plain HTTP (client-go drops a kubeconfig's user when the server's URL is not `https`; seen with kubectl 1.32),
//! but it does send what stands in the URL, and hides it in its error messages. So the kubeconfig says both (see
//! [`super::kubeconfig`]). The price: `kubectl config view` and `kubectl cluster-info` print the URL whole.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::deletion;
use super::discovery;
use super::logs::{self, PodLogs};
use super::persist::Durability;
use super::read::{self, View};
use super::refusal::Refusal;
use super::request::{self, Query, Shape, Target};
use super::store::{Object, Store, text, version_of};
use super::watch;
use super::write::{self, Patch, Writer, Written};

/// Longest body, in bytes: what a real API server takes (3 MiB).
const BODY_MAX: usize = 3 << 20;

/// Makes a patch of a body.
type Wrap = fn(Value) -> Patch;

/// Patches, by media type.
const PATCHES: &[(&str, Wrap)] = &[
    ("application/json-patch+json", Patch::Json),
    ("application/merge-patch+json", Patch::Merge),
    ("application/strategic-merge-patch+json", Patch::Strategic),
    ("application/apply-patch+yaml", Patch::Apply),
];

/// What every request needs.
#[derive(Clone, Debug)]
pub(super) struct Server {
    pub(super) store: Store,
    pub(super) logs: PodLogs,
    pub(super) token: String,
    pub(super) durability: Option<Durability>,
    pub(super) closing: CancellationToken,
}

/// What is asked of the objects of a kind.
#[derive(Debug)]
struct Asked<'a> {
    head: &'a Parts,
    target: Target,
    query: Query,
    view: View,
}

impl<'a> Asked<'a> {
    fn new(head: &'a Parts) -> Result<Self, Refusal> {
        let query = Query::parse(&head.uri)?;
        let target = Target::parse(head.uri.path())?;
        let view = View {
            kind: target.kind,
            shape: request::shape(&head.headers)?,
            include: query.include()?,
        };
        Ok(Self {
            head,
            target,
            query,
            view,
        })
    }

    fn subresource(&self) -> Option<&str> {
        self.target.subresource.as_deref()
    }

    fn is_named(&self) -> bool {
        self.target.name.is_some()
    }

    /// Objects are created in the collection of their namespace.
    fn is_for_creation(&self) -> bool {
        let is_placed = !self.target.kind.namespaced || self.target.namespace.is_some();
        !self.is_named() && is_placed
    }

    fn not_allowed(&self) -> Refusal {
        Refusal::method_not_allowed(&self.head.method, self.head.uri.path())
    }
}

/// The server as axum serves it.
pub(super) fn router(server: Server) -> Router {
    Router::new().fallback(answer).with_state(Arc::new(server))
}

async fn answer(State(server): State<Arc<Server>>, request: Request) -> Response {
    match server.respond(request).await {
        Ok(response) => response,
        Err(refusal) => {
            let ask = refusal.code == StatusCode::UNAUTHORIZED;
            let mut response = refusal.into_response();
            if ask {
                let challenge = HeaderValue::from_static("Basic realm=\"sidestep\"");
                response
                    .headers_mut()
                    .insert(header::WWW_AUTHENTICATE, challenge);
            }
            response
        }
    }
}

/// Whether it lives, and what it serves.
fn about_the_server(head: &Parts) -> Option<Result<Response, Refusal>> {
    let path = head.uri.path();
    if matches!(path, "/livez" | "/readyz" | "/healthz") {
        return Some(Ok("ok".into_response()));
    }
    let document = discovery::document(path, &head.headers)?;
    Some(match head.method {
        Method::GET => {
            Ok(([(header::CONTENT_TYPE, document.media)], document.body).into_response())
        }
        _ => Err(Refusal::method_not_allowed(&head.method, path)),
    })
}

impl Server {
    async fn respond(&self, request: Request) -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        if !self.admits(&head.headers) {
            return Err(Refusal::unauthorized());
        }
        let path = head.uri.path();
        if let Some(answer) = about_the_server(&head) {
            return answer;
        }
        if head.method == Method::POST
            && let Some(review) = self.review(path)
        {
            return Ok(created(review(json_body(&head.headers, body).await?)?));
        }
        let asked = Asked::new(&head)?;
        match (&head.method, asked.subresource()) {
            (&Method::GET, _) => self.read(&asked),
            (&Method::POST, Some("eviction")) if asked.is_named() => {
                let body = json_body(&head.headers, body).await?;
                self.evict(&asked.target, &asked.query, &body).await
            }
            (&Method::POST, None) if asked.is_for_creation() => {
                let body = json_body(&head.headers, body).await?;
                self.write(&asked, |writer| writer.create(body)).await
            }
            (&Method::PUT, None | Some("status" | "scale")) if asked.is_named() => {
                let body = json_body(&head.headers, body).await?;
                self.write(&asked, |writer| writer.replace(body)).await
            }
            (&Method::PATCH, None | Some("status" | "scale")) if asked.is_named() => {
                let patch = patch_body(&head.headers, body).await?;
                self.write(&asked, |writer| writer.patch(&patch)).await
            }
            (&Method::DELETE, None) => {
                let options = optional_body(&head.headers, body).await?;
                self.delete(&asked, options.as_ref()).await
            }
            _ => Err(Refusal::method_not_allowed(&head.method, path)),
        }
    }

    /// The two kinds that are asked and not kept.
    fn review(&self, path: &str) -> Option<impl FnOnce(Value) -> Result<Value, Refusal>> {
        let is_token = match path {
            "/apis/authentication.k8s.io/v1/tokenreviews" => true,
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews" => false,
            _ => return None,
        };
        Some(move |body| match is_token {
            true => self.token_review(body),
            false => access_review(body),
        })
    }

    fn read(&self, asked: &Asked<'_>) -> Result<Response, Refusal> {
        let Asked {
            target,
            query,
            view,
            ..
        } = asked;
        match (asked.subresource(), asked.is_named()) {
            (Some("log"), true) => self.log(target, query),
            (Some("scale"), true) => self.scale(target),
            (Some("eviction"), _) => Err(asked.not_allowed()),
            (None, _) if query.flag("watch")? == Some(true) => {
                watch::watch(&self.store, target, query, *view, self.closing.clone())
            }
            (_, true) => read::get(&self.store, target, *view),
            (_, false) => read::list(&self.store, target, query, *view),
        }
    }

    /// Whether the request carries the token.
    fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let token = match given.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                token.trim().to_owned()
            }
            Some((scheme, pair)) if scheme.eq_ignore_ascii_case("basic") => {
                password(pair).unwrap_or_default()
            }
            _ => return false,
        };
        same(token.as_bytes(), self.token.as_bytes())
    }

    async fn write(
        &self,
        asked: &Asked<'_>,
        act: impl FnOnce(Writer<'_>) -> Result<Written, Refusal>,
    ) -> Result<Response, Refusal> {
        let Asked {
            target,
            query,
            view,
            head,
        } = asked;
        let is_dry = query.is_dry_run()?;
        let store = if is_dry {
            self.store.rehearsal()
        } else {
            self.store.clone()
        };
        let written = act(Writer::new(&store, target, query, &head.headers)?)?;
        if !is_dry {
            self.settle(version_of(&written.object)).await?;
        }
        let shown = match target.subresource.as_deref() {
            Some("scale") => Value::clone(&written.object),
            _ => view.object(&written.object),
        };
        let code = if written.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        let mut response = (code, Json(shown)).into_response();
        warn(response.headers_mut(), &written.warnings);
        Ok(response)
    }

    async fn delete(
        &self,
        asked: &Asked<'_>,
        options: Option<&Value>,
    ) -> Result<Response, Refusal> {
        let Asked {
            target,
            query,
            view,
            ..
        } = asked;
        let (deletion, is_dry) = deletion::options(query, options)?;
        let store = if is_dry {
            self.store.rehearsal()
        } else {
            self.store.clone()
        };
        let response = if target.name.is_some() {
            Json(write::delete(&store, target, &deletion)?).into_response()
        } else {
            if target.kind.namespaced && target.namespace.is_none() {
                return Err(asked.not_allowed());
            }
            let gone = write::delete_all(
                &store,
                target,
                &read::filter(target.kind, query)?,
                &deletion,
            )?;
            Json(list_of(*view, &gone, store.version())).into_response()
        };
        if !is_dry {
            self.settle(Some(store.version())).await?;
        }
        Ok(response)
    }

    /// Deletes a pod as its grace period says. There are no disruption budgets here that could refuse it.
    async fn evict(
        &self,
        target: &Target,
        query: &Query,
        body: &Value,
    ) -> Result<Response, Refusal> {
        let options = deletion::of_eviction(target, body)?;
        let (deletion, is_dry) = deletion::options(query, options)?;
        let store = if is_dry {
            self.store.rehearsal()
        } else {
            self.store.clone()
        };
        write::delete(&store, target, &deletion)?;
        if !is_dry {
            self.settle(Some(store.version())).await?;
        }
        Ok(created(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "code": 201,
        })))
    }

    /// Waits until a write is on disk, if anything is written to disk.
    async fn settle(&self, version: Option<u64>) -> Result<(), Refusal> {
        match (&self.durability, version) {
            (Some(durability), Some(version)) => durability
                .reached(version)
                .await
                .map_err(|error| Refusal::internal(error.to_string())),
            _ => Ok(()),
        }
    }

    fn scale(&self, target: &Target) -> Result<Response, Refusal> {
        let object = read::find(&self.store, target)?;
        let Some(scale) = target.kind.scale else {
            return Err(Refusal::not_found(target.kind, target.name()));
        };
        Ok(Json(write::scale_of(scale, &object)).into_response())
    }

    fn log(&self, target: &Target, query: &Query) -> Result<Response, Refusal> {
        let pod = read::find(&self.store, target)?;
        if query.flag("follow")?.unwrap_or(false) {
            return Err(Refusal::bad_request(
                "follow: logs of this server are not followed; ask again without it",
            ));
        }
        let container = container_of(&pod, query.text("container"))?;
        let since = match (
            query.number::<i64>("sinceSeconds")?,
            query.text("sinceTime"),
        ) {
            (Some(_), Some(_)) => {
                return Err(Refusal::bad_request(
                    "sinceSeconds and sinceTime exclude each other",
                ));
            }
            (Some(seconds), None) => {
                Some(super::store::now() - jiff::SignedDuration::from_secs(seconds))
            }
            (None, Some(time)) => Some(
                time.parse()
                    .map_err(|_| Refusal::bad_request(format!("sinceTime: {time:?} is no time")))?,
            ),
            (None, None) => None,
        };
        let part = logs::Part {
            previous: query.flag("previous")?.unwrap_or(false),
            tail_lines: query.number("tailLines")?,
            since,
            timestamps: query.flag("timestamps")?.unwrap_or(false),
            limit_bytes: query.number("limitBytes")?,
        };
        let log = self.logs.find(target.namespace(), target.name());
        let text = match log {
            Some(log) => log.read(part),
            None if part.previous => None,
            None => Some(String::new()),
        };
        let none = || {
            Refusal::bad_request(format!(
                "previous terminated container {container:?} in pod {:?} not found",
                target.name()
            ))
        };
        Ok((
            [(header::CONTENT_TYPE, "text/plain")],
            text.ok_or_else(none)?,
        )
            .into_response())
    }

    fn token_review(&self, mut review: Value) -> Result<Value, Refusal> {
        let Some(token) = review["spec"]["token"].as_str() else {
            return Err(Refusal::bad_request("spec.token: Required value"));
        };
        review["status"] = if same(token.as_bytes(), self.token.as_bytes()) {
            json!({"authenticated": true, "user": {"username": "sidestep", "groups": ["system:masters", "system:authenticated"]}})
        } else {
            json!({"authenticated": false})
        };
        Ok(review)
    }
}

/// Whoever has the token may do everything.
fn access_review(mut review: Value) -> Result<Value, Refusal> {
    if !review["spec"].is_object() {
        return Err(Refusal::bad_request("spec: Required value"));
    }
    review["status"] =
        json!({"allowed": true, "reason": "the one user of this server may do everything"});
    Ok(review)
}

fn created(object: Value) -> Response {
    (StatusCode::CREATED, Json(object)).into_response()
}

fn list_of(view: View, objects: &[Object], version: u64) -> Value {
    let kind = view.kind;
    let items: Vec<Value> = objects
        .iter()
        .map(|object| match view.shape {
            Shape::Metadata => super::table::metadata_only(object),
            Shape::Object | Shape::Table => Value::clone(object),
        })
        .collect();
    json!({
        "kind": format!("{}List", kind.kind),
        "apiVersion": kind.api_version(),
        "metadata": {"resourceVersion": version.to_string()},
        "items": items,
    })
}

/// The container whose log is wanted: the one named, or the only one. Only the first one of a pod is run.
fn container_of(pod: &Value, wanted: Option<&str>) -> Result<String, Refusal> {
    let containers = pod["spec"]["containers"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let names: Vec<&str> = containers
        .iter()
        .filter_map(|container| container["name"].as_str())
        .collect();
    let name = text(pod, "name");
    match (wanted, &names[..]) {
        (None, [only]) => Ok((*only).to_owned()),
        (None, names) => Err(Refusal::bad_request(format!(
            "a container name must be specified for pod {name}, choose one of: {names:?}"
        ))),
        (Some(wanted), [first, ..]) if wanted == *first => Ok(wanted.to_owned()),
        (Some(wanted), names) if names.contains(&wanted) => Err(Refusal::bad_request(format!(
            "container {wanted} of pod {name} has no log: only the first container of a pod is run here"
        ))),
        (Some(wanted), _) => Err(Refusal::bad_request(format!(
            "container {wanted} is not valid for pod {name}"
        ))),
    }
}

fn warn(headers: &mut HeaderMap, warnings: &[String]) {
    for warning in warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            headers.append(HeaderName::from_static("warning"), value);
        }
    }
}

/// The password of `Basic` credentials.
fn password(pair: &str) -> Option<String> {
    let bytes = BASE64_STANDARD.decode(pair.trim()).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':')
        .map(|(_, password)| password.to_owned())
}

/// Whether two secrets are equal, in a time that does not tell where they differ.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.iter()
            .zip(b)
            .fold(0, |differences, (a, b)| differences | (a ^ b))
            == 0
}

async fn bytes(body: Body) -> Result<Bytes, Refusal> {
    match Limited::new(body, BODY_MAX).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Refusal::too_large(BODY_MAX))
        }
        Err(error) => Err(Refusal::bad_request(format!("reading the body: {error}"))),
    }
}

async fn json_body(headers: &HeaderMap, body: Body) -> Result<Value, Refusal> {
    parse(headers, &bytes(body).await?)
}

async fn optional_body(headers: &HeaderMap, body: Body) -> Result<Option<Value>, Refusal> {
    let body = bytes(body).await?;
    if body.is_empty() {
        return Ok(None);
    }
    parse(headers, &body).map(Some)
}

fn parse(headers: &HeaderMap, body: &[u8]) -> Result<Value, Refusal> {
    match media_type(headers).as_str() {
        "" | "application/json" => from_json(body),
        "application/yaml" => from_yaml(body),
        other => Err(Refusal::unsupported_media(
            other,
            &["application/json", "application/yaml"],
        )),
    }
}

async fn patch_body(headers: &HeaderMap, body: Body) -> Result<Patch, Refusal> {
    let media = media_type(headers);
    let accepted: Vec<&str> = PATCHES.iter().map(|(name, _)| *name).collect();
    let Some((_, patch)) = PATCHES.iter().find(|(name, _)| *name == media) else {
        return Err(Refusal::unsupported_media(&media, &accepted));
    };
    let body = bytes(body).await?;
    let is_yaml = media.ends_with("+yaml");
    // JSON is YAML, and clients mostly send it: it is tried first because it keeps numbers as they are.
    let value = from_json(&body).or_else(|refusal| {
        if is_yaml {
            from_yaml(&body)
        } else {
            Err(refusal)
        }
    })?;
    Ok(patch(value))
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    value
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_lowercase()
}

fn from_json(body: &[u8]) -> Result<Value, Refusal> {
    serde_json::from_slice(body)
        .map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
}

fn from_yaml(body: &[u8]) -> Result<Value, Refusal> {
    let text =
        std::str::from_utf8(body).map_err(|_| Refusal::bad_request("the body is no UTF-8"))?;
    serde_saphyr::from_str(text)
        .map_err(|error| Refusal::bad_request(format!("the body is no YAML: {error}")))
}
