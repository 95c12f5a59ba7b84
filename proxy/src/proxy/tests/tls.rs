//! TLS: which certificate, which protocol, and certificates that change while connections are open.

use std::sync::Arc;

use http::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::support::*;
use crate::table::Protocol;
use crate::tls::{Error, Identity};
use crate::{Config, Proxy};

/// A certificate for these hosts that trusts itself.
fn certificate(hosts: &[&str]) -> CertifiedKey<rcgen::KeyPair> {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    generate_simple_self_signed(hosts).unwrap()
}

fn identity(certified: &CertifiedKey<rcgen::KeyPair>) -> Identity {
    let key = certified.signing_key.serialize_pem();
    Identity::read(certified.cert.pem().as_bytes(), key.as_bytes()).unwrap()
}

/// A client that trusts one certificate and offers these protocols.
fn client(trusted: &CertifiedKey<rcgen::KeyPair>, alpn: &[&str]) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.cert.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    TlsConnector::from(Arc::new(config))
}

async fn connect(
    proxy: &Proxy,
    client: &TlsConnector,
    host: &str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let address = *proxy.local_addrs().last().unwrap();
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from(host.to_owned()).unwrap();
    soon(client.connect(name, stream)).await
}

/// The origin answers with what it was told of the client's scheme.
async fn start() -> (Proxy, Origin) {
    let origin = Origin::http1(async |request| {
        let scheme = request.headers()["x-forwarded-proto"].to_str().unwrap();
        http::Response::new(text(scheme.to_owned()))
    })
    .await;
    let mut config: Config = config();
    config.listen_tls = config.listen.clone();
    let parts = split(&[(1, &[origin.address])], Protocol::Http1);
    let proxy = proxy_with(config, table(parts)).await;
    (proxy, origin)
}

fn request(host: &str) -> Request<AnyBody> {
    let uri = format!("https://{host}/");
    Request::get(uri)
        .header("host", host)
        .body(empty())
        .unwrap()
}

async fn ask_http1(stream: TlsStream<TcpStream>, host: &str) -> String {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut request = request(host);
    *request.uri_mut() = "/".parse().unwrap();
    let answer = soon(sender.send_request(request)).await.unwrap();
    driver.abort();
    body(answer).await
}

async fn body(answer: http::Response<hyper::body::Incoming>) -> String {
    use http_body_util::BodyExt;
    let bytes = soon(answer.into_body().collect()).await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[tokio::test]
async fn a_client_is_shown_the_certificate_of_its_host_and_the_origin_hears_https() {
    let (proxy, _origin) = start().await;
    let (own, wild) = (
        certificate(&["shop.example"]),
        certificate(&["*.shop.example"]),
    );
    proxy.certificates().publish([
        ("Shop.example".to_owned(), identity(&own)),
        ("*.shop.example".to_owned(), identity(&wild)),
    ]);
    for (certified, host) in [(&own, "shop.example"), (&wild, "a.shop.example")] {
        let client = client(certified, &["http/1.1"]);
        let stream = connect(&proxy, &client, host).await.unwrap();
        assert_eq!(ask_http1(stream, host).await, "https", "{host}");
    }
    let client = client(&wild, &["h2", "http/1.1"]);
    let stream = connect(&proxy, &client, "b.shop.example").await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let answer = soon(sender.send_request(request("b.shop.example"))).await;
    assert_eq!(body(answer.unwrap()).await, "https");
    driver.abort();
}

#[tokio::test]
async fn nobody_is_shown_a_certificate_of_another_host() {
    let (proxy, _origin) = start().await;
    let own = certificate(&["shop.example"]);
    let client = client(&own, &["http/1.1"]);
    let refused = |proxy: &Proxy| {
        proxy.handle().fronts()[0]
            .downstream_errors()
            .get("tls-handshake")
            .copied()
            .unwrap_or_default()
    };
    assert!(connect(&proxy, &client, "shop.example").await.is_err());
    eventually(|| refused(&proxy) == 1).await;
    let wildcard = ("*.shop.example".to_owned(), identity(&own));
    proxy.certificates().publish([wildcard]);
    for host in ["shop.example", "b.a.shop.example", "other.example"] {
        assert!(connect(&proxy, &client, host).await.is_err(), "{host}");
    }
    eventually(|| refused(&proxy) == 4).await;
}

#[tokio::test]
async fn a_new_certificate_counts_for_the_next_handshake_and_open_connections_stay() {
    let (proxy, _origin) = start().await;
    let (old, new) = (
        certificate(&["shop.example"]),
        certificate(&["shop.example"]),
    );
    let publish = |certified| {
        let identity = identity(certified);
        proxy
            .certificates()
            .publish([("shop.example".to_owned(), identity)]);
    };
    publish(&old);
    let (old, new_client) = (client(&old, &["http/1.1"]), client(&new, &["http/1.1"]));
    let open = connect(&proxy, &old, "shop.example").await.unwrap();
    assert!(connect(&proxy, &new_client, "shop.example").await.is_err());
    publish(&new);
    let fresh = connect(&proxy, &new_client, "shop.example").await.unwrap();
    assert_eq!(ask_http1(fresh, "shop.example").await, "https");
    assert_eq!(ask_http1(open, "shop.example").await, "https");
}

#[test]
fn what_is_no_identity_says_why() {
    let (one, other) = (certificate(&["a"]), certificate(&["a"]));
    let (chain, key) = (one.cert.pem(), other.signing_key.serialize_pem());
    let said = |chain: &str, key: &str| {
        Identity::read(chain.as_bytes(), key.as_bytes())
            .unwrap_err()
            .to_string()
    };
    assert!(said(&chain, &key).starts_with("the private key cannot be used"));
    assert_eq!(said("", &key), Error::Empty.to_string());
    assert!(said(&chain, "nonsense").starts_with("the private key is no PEM"));
}
