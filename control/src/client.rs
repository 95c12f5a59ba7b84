//! Clients of an API server that notice when it is gone.
//!
//! kube's own client waits for ever on a connection whose other end vanished without a word, as with a node that loses its power: a
//! watch hears nothing and asks nothing (kube gives it up after 295 s), and a request is repeated by the system for a quarter of an hour.
//! client-go asks by HTTP/2 pings after 30 s of silence and gives an answer 15 s. kube speaks HTTP/1, one connection a watch, so here
//! the system asks, by TCP keepalive, in the same time. For a request on its way `TCP_USER_TIMEOUT` is the limit.
//!
//! What is layered over the connections is what kube layers over its own, but for its traces.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::client::retry::RetryPolicy;
use kube::{Client, Config};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// How long a connection is silent before the other end is asked whether it is there: client-go's `ReadIdleTimeout`.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may leave that, or anything else that was sent, without an acknowledgement after that: client-go's `PingTimeout`.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often it is asked in that time.
const QUESTIONS: u32 = 3;

/// A client. What leads through a proxy of the user's is left to kube.
///
/// # Errors
/// When certificates or credentials cannot be read, or are of no use.
pub fn connect(config: Config) -> kube::Result<Client> {
    if config.proxy_url.is_some() {
        return Client::try_from(config);
    }
    let secured = config.rustls_https_connector_with_connector(connector())?;
    let mut connector = TimeoutConnector::new(secured);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let retries = || RetryLayer::new(RetryPolicy::server_retry());
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(retries))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(legacy::Builder::new(TokioExecutor::new()).build(connector));
    Ok(Client::new(service, config.default_namespace))
}

/// Connects, and has the system look after the connection. Small requests are not held back for larger packets, as Go has it.
fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false); // TLS comes on top
    connector.set_nodelay(true);
    connector.set_keepalive(Some(SILENCE));
    connector.set_keepalive_interval(Some(PATIENCE / QUESTIONS));
    connector.set_keepalive_retries(Some(QUESTIONS));
    #[cfg(target_os = "linux")]
    connector.set_tcp_user_timeout(Some(SILENCE + PATIENCE));
    connector
}

#[cfg(test)]
mod tests {
    use socket2::SockRef;
    use tokio::net::TcpListener;
    use tower::ServiceExt as _;

    use super::*;

    #[tokio::test]
    async fn the_system_looks_after_a_connection_as_client_go_does() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let connection = connector().oneshot(url.parse().unwrap()).await.unwrap();
        let socket = SockRef::from(connection.inner());
        assert!(socket.keepalive().unwrap() && socket.tcp_nodelay().unwrap());
        let idle = socket.tcp_keepalive_time().unwrap();
        let interval = socket.tcp_keepalive_interval().unwrap();
        let questions = socket.tcp_keepalive_retries().unwrap();
        let limit = socket.tcp_user_timeout().unwrap();
        assert_eq!((idle, limit), (SILENCE, Some(SILENCE + PATIENCE)));
        assert_eq!((interval * questions, questions), (PATIENCE, QUESTIONS));
    }
}
