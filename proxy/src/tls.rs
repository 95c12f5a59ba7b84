//! Ending TLS: certificates, which of them a client is shown, and the handshake.
//!
//! Certificates are published as tables are, by one swap: connections keep what they began with, and the next handshake sees the new.
//! A client is shown the certificate of the host that it asks for (SNI, RFC 6066): that host's own before the wildcard of its domain,
//! which stands for one label (RFC 6125). One that asks for no host, or for one that nobody has, gets the alert `unrecognized_name`
//! or the like: there is no certificate that it could trust.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use crate::worker::Local;

/// A certificate with its chain and its key.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not PEM (RFC 7468).
    #[error("{what} is no PEM: {problem}")]
    Pem {
        /// Which part.
        what: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no certificate.
    #[error("there is no certificate in it")]
    Empty,
    /// The key is of no kind that we know, or not the certificate's.
    #[error("the private key cannot be used: {0}")]
    Key(#[source] rustls::Error),
}

impl Identity {
    /// Reads a chain, the server's own certificate first, and its private key (PKCS#8, PKCS#1 or SEC1), all in PEM.
    ///
    /// # Errors
    /// What is wrong with them, or that they do not belong together.
    pub fn read(chain: &[u8], key: &[u8]) -> Result<Self, Error> {
        let no_pem = |what| {
            move |problem: pem::Error| Error::Pem {
                what,
                problem: problem.to_string(),
            }
        };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<_, _>>()
            .map_err(no_pem("the certificate"))?;
        if chain.is_empty() {
            return Err(Error::Empty);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(no_pem("the private key"))?;
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(Error::Key)?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(Error::Key)?;
        Ok(Self(Arc::new(certified)))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl PartialEq for Identity {
    /// By the certificates.
    fn eq(&self, other: &Self) -> bool {
        self.0.cert == other.0.cert
    }
}

/// The certificates of a proxy. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Certificates(Arc<Shown>);

impl Certificates {
    /// Shows these from now on, each for its host: a name, or `*.` and a domain. Of two for one host the first counts.
    pub fn publish(&self, identities: impl IntoIterator<Item = (String, Identity)>) {
        let mut hosts = HashMap::new();
        for (host, Identity(key)) in identities {
            hosts.entry(host.to_ascii_lowercase()).or_insert(key);
        }
        self.0.hosts.store(Arc::new(hosts));
    }

    /// TLS 1.2 and 1.3, HTTP/2 before HTTP/1.1 (ALPN, RFC 7301).
    pub(crate) fn server(&self) -> Arc<ServerConfig> {
        let shown = Arc::clone(&self.0);
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider knows the versions that rustls does")
            .with_no_client_auth()
            .with_cert_resolver(shown);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Arc::new(config)
    }
}

/// What is shown, by host in lower case.
#[derive(Debug, Default)]
struct Shown {
    hosts: ArcSwap<HashMap<String, Arc<CertifiedKey>>>,
}

impl Shown {
    fn find(&self, host: &str) -> Option<Arc<CertifiedKey>> {
        let hosts = self.hosts.load();
        let host = host.to_ascii_lowercase();
        let wildcard = || hosts.get(&format!("*.{}", host.split_once('.')?.1));
        hosts.get(&host).or_else(wildcard).cloned()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.find(hello.server_name()?)
    }
}

/// Finishes the handshake, within the time that a request head may take.
///
/// # Errors
/// The reason under which it is counted.
pub(crate) async fn accept<T>(local: &Local, io: T) -> Result<TlsStream<T>, &'static str>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = TlsAcceptor::from(Arc::clone(&local.tls)).accept(io);
    match timeout(local.config.deadlines.head, handshake).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => {
            debug!(%error, "no TLS connection");
            Err("tls-handshake")
        }
        Err(_) => Err("tls-timeout"),
    }
}
