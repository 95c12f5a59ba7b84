//! For tests: an API server that answers from a script and remembers what it was asked.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use kube::client::Body;
use serde_json::{Value, json};

use super::rollouts::Rollouts;
use crate::client::Session;

/// A script: what each method and path is answered with. Several answers to one are given in turn; the last one stays.
#[derive(Clone, Default)]
pub(crate) struct Script {
    answers: Arc<Mutex<Vec<(String, StatusCode, Value)>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

/// What the API server says of a rollout that is not there.
pub(crate) fn not_found(name: &str) -> (StatusCode, Value) {
    let message = format!("rollouts.argoproj.io \"{name}\" not found");
    let status = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound", "message": message});
    (StatusCode::NOT_FOUND, status)
}

/// What the API server says of a write that was decided on an old version.
pub(crate) fn conflict() -> (StatusCode, Value) {
    let status = json!({"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "changed"});
    (StatusCode::CONFLICT, status)
}

impl Script {
    /// Answers with an object.
    pub(crate) fn answer(self, method: &str, path: &str, object: Value) -> Self {
        self.fail(method, path, (StatusCode::OK, object))
    }

    /// Answers with a status and an object.
    pub(crate) fn fail(
        self,
        method: &str,
        path: &str,
        (status, object): (StatusCode, Value),
    ) -> Self {
        self.answers
            .lock()
            .unwrap()
            .push((format!("{method} {path}"), status, object));
        self
    }

    /// A session with this server.
    pub(crate) fn session(&self) -> Session {
        let script = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let script = script.clone();
            async move { Ok::<_, Infallible>(script.serve(request).await) }
        });
        Session {
            client: kube::Client::new(service, "there"),
            namespace: "there".to_owned(),
        }
    }

    /// The rollouts of namespace `there`.
    pub(crate) fn rollouts(&self) -> Rollouts {
        Rollouts::of(&self.session())
    }

    /// What it was asked: method, path, content type and body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// Compares what it was asked with what it should have been.
    #[track_caller]
    pub(crate) fn saw(&self, requests: &[&str]) {
        assert_eq!(self.requests(), requests);
    }

    async fn serve(&self, request: Request<Body>) -> Response<Body> {
        let (head, body) = request.into_parts();
        let asked = format!("{} {}", head.method, head.uri.path());
        let body = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
        let kind = head
            .headers
            .get(http::header::CONTENT_TYPE)
            .map_or("", |kind| kind.to_str().unwrap());
        self.requests
            .lock()
            .unwrap()
            .push(format!("{asked} {kind} {body}").trim_end().to_owned());
        let (status, object) = self.next(&asked).unwrap_or_else(|| {
            (
                StatusCode::NOT_FOUND,
                json!({"message": "404 page not found", "code": 404, "reason": "NotFound"}),
            )
        });
        Response::builder()
            .status(status)
            .body(Body::from(object.to_string().into_bytes()))
            .unwrap()
    }

    fn next(&self, asked: &str) -> Option<(StatusCode, Value)> {
        let mut answers = self.answers.lock().unwrap();
        let matching: Vec<usize> = (0..answers.len())
            .filter(|index| answers[*index].0 == asked)
            .collect();
        let (_, status, object) = match matching.as_slice() {
            [] => return None,
            [last] => answers[*last].clone(),
            [first, ..] => answers.remove(*first),
        };
        Some((status, object))
    }
}
