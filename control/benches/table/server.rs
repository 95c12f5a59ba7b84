//! A stand-in for the API server: it lists the world, and sends what the bench has it send to whoever watches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::Ready;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use anyhow::Context as _;
use bytes::Bytes;
use futures::channel::mpsc;
use futures::{SinkExt, StreamExt};
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::Value;
use tower::Service;

use crate::world::Collection;

/// The server. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Server {
    rollouts: usize,
    watches: Arc<Mutex<BTreeMap<Collection, mpsc::Sender<Bytes>>>>,
}

impl Server {
    pub(crate) fn new(rollouts: usize) -> Self {
        Self {
            rollouts,
            watches: Arc::default(),
        }
    }

    /// Sends an event to whoever watches the collection.
    pub(crate) async fn send(&self, collection: Collection, event: &Value) -> anyhow::Result<()> {
        let watch = self.watches().get(&collection).cloned();
        let mut watch = watch.context("nobody watches")?;
        Ok(watch.send(format!("{event}\n").into()).await?)
    }

    fn answer(&self, request: &Request<Body>) -> Response<BoxBody<Bytes, Infallible>> {
        let (path, query) = (request.uri().path(), request.uri().query());
        let Some(collection) = Collection::at(path) else {
            let mut response = Response::new(Full::default().boxed());
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            return response;
        };
        if query.is_some_and(|query| query.contains("watch=true")) {
            let (sender, events) = mpsc::channel(1);
            self.watches().insert(collection, sender);
            let frames = events.map(|event| Ok(Frame::data(event)));
            return Response::new(BodyExt::boxed(StreamBody::new(frames)));
        }
        let list = collection.list(self.rollouts).to_string();
        Response::new(Full::new(Bytes::from(list)).boxed())
    }

    fn watches(&self) -> std::sync::MutexGuard<'_, BTreeMap<Collection, mpsc::Sender<Bytes>>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<BoxBody<Bytes, Infallible>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        std::future::ready(Ok(self.answer(&request)))
    }
}
