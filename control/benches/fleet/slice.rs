//! Where the stand-ins are: an address each, and the EndpointSlice that lists them.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tower::Service;

/// The admin port of each.
const ADMIN: u16 = 9901;
/// Namespace and name of their Service.
pub(crate) const NAMESPACE: &str = "sidestep";
pub(crate) const SERVICE: &str = "sidestep-proxy";

/// The admin address of a proxy.
///
/// # Errors
/// There are no more than 60,000 addresses.
pub(crate) fn address(proxy: usize) -> anyhow::Result<SocketAddr> {
    let ip = Ipv4Addr::new(
        127,
        1,
        u8::try_from(proxy / 250)?,
        u8::try_from(proxy % 250)? + 1,
    );
    Ok(SocketAddr::new(IpAddr::V4(ip), ADMIN))
}

/// An API server that knows the slice and nothing else.
#[derive(Clone, Debug)]
pub(crate) struct Server {
    slice: Value,
}

impl Server {
    pub(crate) fn new(proxies: usize) -> anyhow::Result<Self> {
        let endpoint = |proxy: usize| -> anyhow::Result<Value> {
            Ok(json!({
                "addresses": [address(proxy)?.ip()], "conditions": {"ready": true, "serving": true},
                "targetRef": {"kind": "Pod", "name": format!("proxy-{proxy}"), "uid": format!("pod-{proxy}")},
            }))
        };
        let endpoints: anyhow::Result<Vec<Value>> = (0..proxies).map(endpoint).collect();
        let labels = json!({"kubernetes.io/service-name": SERVICE});
        let metadata = json!({"namespace": NAMESPACE, "name": "proxies", "labels": labels, "resourceVersion": "1"});
        let ports = json!([{"name": "admin", "port": ADMIN}]);
        let slice = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints?});
        Ok(Self { slice })
    }
}

impl Service<Request<Body>> for Server {
    type Response = Response<BoxBody<Bytes, Infallible>>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let query = request.uri().query();
        let response = if query.is_some_and(|query| query.contains("watch=true")) {
            let never = futures::stream::pending::<Result<Frame<Bytes>, Infallible>>();
            Response::new(BodyExt::boxed(StreamBody::new(never)))
        } else {
            let list = json!({"metadata": {"resourceVersion": "1"}, "items": [self.slice]});
            Response::new(Full::new(Bytes::from(list.to_string())).boxed())
        };
        Box::pin(std::future::ready(Ok(response)))
    }
}
