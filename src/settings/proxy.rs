//! What a proxy needs to know: that of `sidestep proxy`, and the one within `sidestep run`.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::Path;

use sidestep_control::routing::certificates::SecretScope;
use sidestep_proxy::Config;
use sidestep_proxy::config::{AccessLog, Apexes};

use super::{
    Complaints, address, complain_of_shared_addresses, label, optional, port_range, writable_file,
};
use crate::cli::{ProxyArgs, ProxyFlags};
use crate::proxy_config;

/// Usable, but for the names that only the cluster knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProxySettings {
    /// Addresses, limits, deadlines, access log.
    pub(crate) proxy: Config,
    /// Where metrics, probes and the table are served.
    pub(crate) admin: SocketAddr,
    /// The Secrets that TLS is ended with; none where no listener speaks TLS.
    pub(crate) tls_secrets: Option<Vec<SecretScope>>,
    /// Serve the namespace of the session only.
    pub(crate) namespaced: bool,
    /// The class of the Ingresses to serve.
    pub(crate) ingress_class: String,
    /// The fleet whose Splits are served.
    pub(crate) fleet: String,
    /// The namespace of the proxies' Services; none means that of the session.
    pub(crate) fleet_namespace: Option<String>,
    /// The Service that lists the proxies of this fleet.
    pub(crate) fleet_service: String,
}

impl ProxySettings {
    /// Makes the arguments usable.
    ///
    /// # Errors
    /// Every complaint, not only the first.
    pub(crate) fn new(args: &ProxyArgs) -> Result<Self, Complaints> {
        let mut complaints = Complaints::default();
        let (admin, proxy) = addresses(&mut complaints, args);
        let tls_secrets = secrets(&mut complaints, args);
        let ingress_class = complaints.take("--ingress-class", label(&args.ingress_class));
        let fleet = complaints.take("--fleet", label(&args.fleet));
        let fleet_namespace = complaints.take(
            "--fleet-namespace",
            optional(args.fleet_namespace.as_deref(), label),
        );
        let fleet_service = complaints.take("--fleet-service", label(&args.fleet_service));
        let settings = || {
            Some(Self {
                proxy: proxy?,
                tls_secrets,
                admin: admin?,
                namespaced: args.namespaced,
                ingress_class: ingress_class?,
                fleet: fleet?,
                fleet_namespace: fleet_namespace?,
                fleet_service: fleet_service?,
            })
        };
        complaints.or(settings())
    }
}

/// Where metrics and probes are served, and the proxy with all its listeners.
fn addresses(
    complaints: &mut Complaints,
    args: &ProxyArgs,
) -> (Option<SocketAddr>, Option<Config>) {
    let listen = complaints.take("--listen", address(&args.listen));
    let admin = complaints.take("--admin", address(&args.admin));
    let listen_tls = complaints.take(
        "--listen-tls",
        optional(args.listen_tls.as_deref(), address),
    );
    let taken = [
        ("--listen", listen),
        ("--listen-tls", listen_tls.flatten()),
        ("--admin", admin),
    ];
    complain_of_shared_addresses(complaints, taken);
    let ports = optional(args.apex_ports.as_deref(), port_range);
    let ports = complaints.take("--apex-ports", ports);
    for ports in ports.iter().flatten() {
        for (flag, address) in taken {
            if address.is_some_and(|address| ports.contains(&address.port())) {
                complaints.add("--apex-ports", format!("they hold the port of {flag}"));
            }
        }
    }
    let proxy = config(complaints, &args.proxy, Config::default(), listen);
    let proxy = || {
        let address = listen?.ip();
        Some(Config {
            listen_tls: listen_tls?.into_iter().collect(),
            apexes: ports?.map(|ports| Apexes { address, ports }),
            ..proxy?
        })
    };
    (admin, proxy())
}

/// The Secrets to read; none where no listener speaks TLS.
fn secrets(complaints: &mut Complaints, args: &ProxyArgs) -> Option<Vec<SecretScope>> {
    args.listen_tls.as_ref()?;
    if args.tls_secrets.is_empty() {
        complaints.add(
            "--listen-tls",
            "say with --tls-secrets which Secrets hold certificates",
        );
    }
    let scopes = args.tls_secrets.iter();
    let scopes = scopes.filter_map(|scope| complaints.take("--tls-secrets", secret_scope(scope)));
    Some(scopes.collect())
}

/// A file's, or `otherwise`, and what the flags change in it.
pub(super) fn config(
    complaints: &mut Complaints,
    flags: &ProxyFlags,
    otherwise: Config,
    listen: Option<SocketAddr>,
) -> Option<Config> {
    let given = complaints.take(
        "--proxy-config",
        optional(flags.proxy_config.as_deref(), read),
    );
    let workers = complaints.take(
        "--proxy-workers",
        optional(flags.proxy_workers.as_deref(), workers),
    );
    let access_log = complaints.take(
        "--access-log",
        optional(flags.access_log.as_deref(), access_log),
    );
    let mut proxy = given?.unwrap_or(otherwise);
    proxy.listen = vec![listen?];
    proxy.workers = workers?.unwrap_or(proxy.workers);
    proxy.access_log = access_log?.unwrap_or_default();
    Some(proxy)
}

/// `*`, `NAMESPACE` or `NAMESPACE/NAME`.
fn secret_scope(text: &str) -> Result<SecretScope, String> {
    if text == "*" {
        return Ok(SecretScope::All);
    }
    let Some((namespace, name)) = text.split_once('/') else {
        return label(text).map(SecretScope::Namespace);
    };
    // A Secret's name is a DNS subdomain: labels with dots between them.
    name.split('.').try_for_each(|part| label(part).map(drop))?;
    Ok(SecretScope::Named {
        namespace: label(namespace)?,
        name: name.to_owned(),
    })
}

fn workers(text: &str) -> Result<NonZeroUsize, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is no number of threads: 1 or more"))
}

fn read(path: &Path) -> Result<Config, String> {
    proxy_config::read(path).map_err(|faults| faults.to_string())
}

fn access_log(path: &Path) -> Result<AccessLog, String> {
    match path == Path::new("-") {
        true => Ok(AccessLog::Stdout),
        false => writable_file(path).map(AccessLog::File),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ProxyArgs,
    }

    fn settings(line: &str) -> Result<ProxySettings, Complaints> {
        let words = std::iter::once("proxy").chain(line.split_whitespace());
        ProxySettings::new(&Line::try_parse_from(words).unwrap().args)
    }

    fn said(line: &str) -> String {
        settings(line).unwrap_err().to_string()
    }

    #[test]
    fn without_flags_it_serves_ingresses_over_plain_http() {
        let found = settings("").unwrap();
        assert_eq!(found.proxy.listen, [SocketAddr::from(([0, 0, 0, 0], 8000))]);
        assert!(found.proxy.listen_tls.is_empty());
        assert_eq!((found.proxy.apexes, found.tls_secrets), (None, None));
        assert_eq!(found.ingress_class, "sidestep");
    }

    #[test]
    fn secrets_are_named_by_scope() {
        let found = settings(
            "--listen-tls 0.0.0.0:8443 --tls-secrets * --tls-secrets shop --tls-secrets shop/a.b",
        )
        .unwrap();
        let named = SecretScope::Named {
            namespace: "shop".into(),
            name: "a.b".into(),
        };
        let shop = SecretScope::Namespace("shop".into());
        assert_eq!(found.tls_secrets, Some(vec![SecretScope::All, shop, named]));
    }

    #[test]
    fn what_cannot_be_is_complained_of_by_flag_all_at_once() {
        assert_eq!(
            said("--listen 0.0.0.0:9901 --listen-tls 0.0.0.0:8443 --apex-ports 10-5"),
            "--admin: 0.0.0.0:9901 is already that of --listen; give one of them another port\n\
             --apex-ports: `10-5` is no range of ports such as 10000-10511\n\
             --listen-tls: say with --tls-secrets which Secrets hold certificates"
        );
        assert_eq!(
            said("--apex-ports 8000-9000"),
            "--apex-ports: they hold the port of --listen"
        );
    }
}
