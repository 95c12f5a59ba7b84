//! The API server does what it is asked, and its answer is lost on the way; or it refuses one write in the middle of a decision.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::body::Body;
use futures::StreamExt;
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use serde_json::json;
use tokio::sync::watch;

use super::stage::{Seen, Stage, rollout};
use super::steps;
use crate::api::labels;
use crate::local::kinds;
use crate::local::store::{Change, Subscription};

/// A way to the API server that loses the answer to the first ReplicaSet made on it, and holds back events of ReplicaSets meanwhile.
#[derive(Clone, Debug, Default)]
struct Way(Arc<Events>);

#[derive(Debug, Default)]
struct Events {
    /// A ReplicaSet is being made, whose answer will be lost.
    losing: watch::Sender<bool>,
    /// The controller hears of the green image.
    green: watch::Sender<bool>,
    /// A ReplicaSet is read past the cache.
    read: watch::Sender<bool>,
    /// Events of ReplicaSets arrive again.
    open: watch::Sender<bool>,
}

impl Way {
    async fn send(
        self,
        inner: Client,
        request: Request<kube::client::Body>,
    ) -> Result<Response<Body>, Lost> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let loses = method == Method::POST
            && uri.path().ends_with("/replicasets")
            && !self.0.losing.send_replace(true);
        if method == Method::GET && uri.path().contains("/replicasets/") {
            self.0.read.send_replace(true);
        }
        let response = inner.send(request).await.map_err(|_| Lost)?.map(Body::new);
        if loses {
            reached(&self.0.green).await;
            return Err(Lost);
        }
        let watches = uri
            .query()
            .is_some_and(|query| query.contains("watch=true"));
        Ok(match watches {
            true if uri.path().ends_with("/replicasets") => response.map(|body| self.held(body)),
            true if uri.path().ends_with("/rollouts") => response.map(|body| self.overheard(body)),
            _ => response,
        })
    }

    fn held(self, body: Body) -> Body {
        Body::from_stream(body.into_data_stream().then(move |events| {
            let way = self.clone();
            async move {
                if *way.0.losing.borrow() {
                    reached(&way.0.open).await;
                }
                events
            }
        }))
    }

    fn overheard(self, body: Body) -> Body {
        Body::from_stream(body.into_data_stream().inspect(move |events| {
            let text = events
                .as_ref()
                .map(|events| String::from_utf8_lossy(events));
            if text.is_ok_and(|text| text.contains(r#""green""#)) {
                self.0.green.send_replace(true);
            }
        }))
    }
}

async fn reached(event: &watch::Sender<bool>) {
    event
        .subscribe()
        .wait_for(|reached| *reached)
        .await
        .unwrap();
}

#[derive(Debug, thiserror::Error)]
#[error("the connection broke")]
struct Lost;

/// Two ReplicaSets got one number: the second was made before the first, which was there, had come into view.
#[tokio::test]
async fn no_decision_is_made_without_a_write_whose_answer_is_lost() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.stop_controller().await;
    let way = Way::default();
    let through = way.clone();
    stage.start_controller_through(move |direct, request| through.clone().send(direct, request));
    let mut changes = stage.local.store.subscribe(stage.local.store.version());

    stage.set_image("web", "yellow");
    reached(&way.0.losing).await;
    stage.set_image("web", "green");
    tokio::select! {
        _ = stage.until("web", |seen| seen.sets() == 3) => {}
        () = reached(&way.0.read) => {}
    }
    way.0.open.send_replace(true);
    stage.until("web", |seen| seen.sets() == 3).await;
    assert_eq!(numbers_at_first(&mut changes), ["2", "3"]);
    let paused =
        |seen: &Seen| seen.phase() == "Paused" && seen.served("web") == "canary=20 stable=80";
    stage.until("web", paused).await;
    stage.close().await;
}

/// The revision that each new ReplicaSet was made with, in their order.
fn numbers_at_first(changes: &mut Subscription) -> Vec<String> {
    let changes = changes.ready().unwrap();
    let made = changes
        .iter()
        .filter(|change| change.kind.kind == "ReplicaSet" && change.previous.is_none());
    let number = |change: &Arc<Change>| {
        let annotations = &change.object["metadata"]["annotations"];
        annotations[labels::REVISION].as_str().unwrap().to_owned()
    };
    made.map(number).collect()
}

/// A way to the API server on which the first status of the Rollout after a new ReplicaSet meets a conflict.
#[derive(Clone, Debug, Default)]
struct Conflicting {
    made: Arc<AtomicBool>,
    refused: Arc<AtomicBool>,
}

impl Conflicting {
    async fn send(
        self,
        direct: Client,
        request: Request<kube::client::Body>,
    ) -> kube::Result<Response<Body>> {
        let path = request.uri().path();
        if *request.method() == Method::POST && path.ends_with("/replicasets") {
            self.made.store(true, Ordering::Relaxed);
        }
        let is_status = path.ends_with("/rollouts/web/status") && self.made.load(Ordering::Relaxed);
        match is_status && !self.refused.swap(true, Ordering::Relaxed) {
            true => Ok(conflict()),
            false => Ok(direct.send(request).await?.map(Body::new)),
        }
    }
}

fn conflict() -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 409, "reason": "Conflict",
        "message": "the object has been modified",
    });
    let mut response = Response::new(Body::from(status.to_string()));
    *response.status_mut() = StatusCode::CONFLICT;
    response
}

/// Nothing of it was told: the next decision found the ReplicaSet there, and had nothing to tell.
#[tokio::test]
async fn what_was_done_is_told_though_the_status_is_refused() {
    let mut stage = Stage::new().await;
    stage.create_services(&["web", "web-canary"]);
    stage.create(&kinds::ROLLOUT, rollout("web", "blue", &steps()));
    stage.until("web", |seen| seen.phase() == "Healthy").await;
    stage.stop_controller().await;
    let way = Conflicting::default();
    stage.start_controller_through(move |direct, request| way.clone().send(direct, request));
    stage.set_image("web", "yellow");
    let paused = stage.until("web", |seen| seen.phase() == "Paused").await;
    let made = format!("Created ReplicaSet web-{} (revision 2)", paused.current());
    stage
        .until_told("RolloutUpdated", "Rollout updated to revision 2")
        .await;
    stage.until_told("NewReplicaSetCreated", &made).await;
    stage.close().await;
}
