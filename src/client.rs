//! The connection to a cluster, chosen as kubectl chooses it, with one place more to look: what `sidestep run` has written.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cli::Connection;
use crate::settings::local_kubeconfig;

/// A client, and where it works.
#[derive(Clone)]
pub(crate) struct Session {
    /// The client.
    pub(crate) client: Client,
    /// The namespace of commands that name none.
    pub(crate) namespace: String,
}

/// Connects as the flags, the environment and the files of the user say.
///
/// # Errors
/// When there is no kubeconfig, or it is not usable.
pub(crate) async fn connect(connection: &Connection) -> anyhow::Result<Session> {
    let mut config = match find(connection, &Surroundings::here())? {
        Found::Kubeconfig(kubeconfig) => from_kubeconfig(*kubeconfig, connection).await?,
        Found::InCluster => Config::incluster().context("using the service account of this pod")?,
        Found::Server(server) => Config::new(server),
    };
    if let Some(server) = &connection.server {
        config.cluster_url = server_url(server)?;
    }
    verify_as_said(&mut config, connection);
    identify_as_said(&mut config.auth_info, connection)?;
    let limit = Some(connection.request_timeout).filter(|limit| !limit.is_zero());
    if limit.is_some() {
        (config.connect_timeout, config.write_timeout) = (limit, limit);
        config.read_timeout = limit;
        config.reset_reader_on_write = true;
    }
    let namespace = connection
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = sidestep_control::client::connect(config)
        .context("setting up the connection to the API server")?;
    Ok(Session { client, namespace })
}

/// What the flags say of the API server's certificate.
fn verify_as_said(config: &mut Config, connection: &Connection) {
    if let Some(file) = &connection.certificate_authority {
        config.root_cert_file = Some(file.clone());
        config.accept_invalid_certs = false;
    }
    config.accept_invalid_certs |= connection.insecure_skip_tls_verify;
    if let Some(name) = &connection.tls_server_name {
        config.tls_server_name = Some(name.clone());
    }
}

/// Who the flags say we are.
fn identify_as_said(who: &mut AuthInfo, connection: &Connection) -> anyhow::Result<()> {
    if let Some(token) = &connection.token {
        who.token = Some(token.clone().into());
        who.token_file = None;
    }
    let name = |file: &Path| {
        let name = file.to_str().map(str::to_owned);
        name.with_context(|| format!("{}: the name is not UTF-8", file.display()))
    };
    if let Some(file) = &connection.client_certificate {
        who.client_certificate = Some(name(file)?);
        who.client_certificate_data = None;
    }
    if let Some(file) = &connection.client_key {
        who.client_key = Some(name(file)?);
        who.client_key_data = None;
    }
    let groups = &connection.impersonate_groups;
    if connection.impersonate.is_none()
        && (connection.impersonate_uid.is_some() || !groups.is_empty())
    {
        bail!("--as-group and --as-uid go with --as");
    }
    if connection.impersonate.is_some() {
        who.impersonate.clone_from(&connection.impersonate);
        who.impersonate_uid.clone_from(&connection.impersonate_uid);
        who.impersonate_groups = Some(groups.clone());
        who.impersonate_user_extra = None;
    }
    Ok(())
}

/// What is around this process that may name a cluster.
struct Surroundings {
    home: Option<PathBuf>,
    /// `$KUBECONFIG`, read.
    kubeconfig_env: Result<Option<Kubeconfig>, kube::config::KubeconfigError>,
    in_cluster: bool,
}

impl Surroundings {
    fn here() -> Self {
        Self {
            home: std::env::home_dir(),
            kubeconfig_env: Kubeconfig::from_env(),
            in_cluster: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some(),
        }
    }
}

/// Where the way to the cluster was found.
enum Found {
    Kubeconfig(Box<Kubeconfig>),
    InCluster,
    Server(http::Uri),
}

/// `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, `--server` alone, the pod's service account, the file of `sidestep run`.
fn find(connection: &Connection, around: &Surroundings) -> anyhow::Result<Found> {
    let read = |path: &Path| {
        Kubeconfig::read_from(path).map(|kubeconfig| Found::Kubeconfig(Box::new(kubeconfig)))
    };
    if let Some(path) = &connection.kubeconfig {
        return read(path).with_context(|| format!("--kubeconfig {}", path.display()));
    }
    match &around.kubeconfig_env {
        Ok(Some(kubeconfig)) => return Ok(Found::Kubeconfig(Box::new(kubeconfig.clone()))),
        Ok(None) => {}
        Err(error) => bail!("$KUBECONFIG: {error}"),
    }
    let home = |file: fn(&Path) -> PathBuf| {
        around
            .home
            .as_deref()
            .map(file)
            .filter(|path| path.is_file())
    };
    if let Some(path) = home(|home| home.join(".kube").join("config")) {
        return read(&path).with_context(|| path.display().to_string());
    }
    if let Some(server) = &connection.server {
        return server_url(server).map(Found::Server);
    }
    if around.in_cluster {
        return Ok(Found::InCluster);
    }
    match home(local_kubeconfig) {
        Some(path) => read(&path).with_context(|| path.display().to_string()),
        None => bail!("no kubeconfig: start `sidestep run` or pass --kubeconfig"),
    }
}

async fn from_kubeconfig(
    kubeconfig: Kubeconfig,
    connection: &Connection,
) -> anyhow::Result<Config> {
    let options = KubeConfigOptions {
        context: connection.context.clone(),
        cluster: connection.cluster.clone(),
        user: connection.user.clone(),
    };
    Ok(Config::from_custom_kubeconfig(kubeconfig, &options).await?)
}

fn server_url(server: &str) -> anyhow::Result<http::Uri> {
    let with_scheme = if server.contains("://") {
        server.to_owned()
    } else {
        format!("http://{server}")
    };
    with_scheme
        .parse()
        .with_context(|| format!("--server: `{server}` is no URL"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, server: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let kubeconfig = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": server}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c", "namespace": "there"}}],
            "users": [{"name": "c", "user": {"token": "t"}}],
        });
        std::fs::write(path, kubeconfig.to_string()).unwrap();
    }

    fn around(home: &Path, in_cluster: bool) -> Surroundings {
        Surroundings {
            home: Some(home.to_owned()),
            kubeconfig_env: Ok(None),
            in_cluster,
        }
    }

    async fn found(connection: &Connection, around: &Surroundings) -> String {
        match find(connection, around) {
            Ok(Found::Kubeconfig(kubeconfig)) => {
                let config = from_kubeconfig(*kubeconfig, connection).await.unwrap();
                format!("{} {}", config.cluster_url, config.default_namespace)
            }
            Ok(Found::InCluster) => "in cluster".to_owned(),
            Ok(Found::Server(server)) => server.to_string(),
            Err(error) => format!("{error:#}"),
        }
    }

    #[tokio::test]
    async fn places_are_looked_at_in_kubectls_order_and_ours_last() {
        let home = tempfile::tempdir().unwrap();
        let plain = Connection::default();
        let nothing = "no kubeconfig: start `sidestep run` or pass --kubeconfig";
        assert_eq!(found(&plain, &around(home.path(), false)).await, nothing);
        write(&local_kubeconfig(home.path()), "http://local");
        assert_eq!(
            found(&plain, &around(home.path(), false)).await,
            "http://local/ there"
        );
        assert_eq!(
            found(&plain, &around(home.path(), true)).await,
            "in cluster"
        );
        let server = Connection {
            server: Some("localhost:6440".to_owned()),
            ..Connection::default()
        };
        assert_eq!(
            found(&server, &around(home.path(), false)).await,
            "http://localhost:6440/"
        );
        write(&home.path().join(".kube/config"), "http://home");
        assert_eq!(
            found(&plain, &around(home.path(), true)).await,
            "http://home/ there"
        );
        let file = home.path().join("given");
        write(&file, "http://given");
        let env = Surroundings {
            kubeconfig_env: Kubeconfig::read_from(&file).map(Some),
            ..around(home.path(), false)
        };
        assert_eq!(found(&plain, &env).await, "http://given/ there");
    }

    #[tokio::test]
    async fn a_file_that_was_named_must_exist() {
        let connection = Connection {
            kubeconfig: Some("no/such/file".into()),
            ..Connection::default()
        };
        let said = found(&connection, &around(Path::new("/nowhere"), true)).await;
        assert!(said.starts_with("--kubeconfig no/such/file: "), "{said}");
    }

    /// What the API server is told of who asks, header by header.
    async fn told(connection: Connection) -> Vec<String> {
        let (heard, mut hearing) = tokio::sync::mpsc::channel(1);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let listen = async move |headers: http::HeaderMap| {
            heard.send(headers).await.unwrap();
            "{}"
        };
        let server = axum::Router::new().fallback(listen);
        let serving = tokio::spawn(async { axum::serve(listener, server).await.unwrap() });
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("kubeconfig");
        write(&file, &format!("http://{address}"));
        let connection = Connection {
            kubeconfig: Some(file),
            ..connection
        };
        let session = connect(&connection).await.unwrap();
        let request = http::Request::get("/version").body(Vec::new()).unwrap();
        session.client.request_text(request).await.unwrap();
        serving.abort();
        let headers = hearing.recv().await.unwrap();
        let who = |name: &str| name == "authorization" || name.starts_with("impersonate-");
        let told = headers.iter().filter(|(name, _)| who(name.as_str()));
        let mut told: Vec<_> = told
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        told.sort();
        told
    }

    #[tokio::test]
    async fn the_api_server_is_told_who_asks() {
        let groups = || vec!["shop".to_owned(), "edge".to_owned()];
        let uid = Some("u-1".to_owned());
        for (connection, expected) in [
            (Connection::default(), &["authorization: Bearer t"][..]),
            (
                Connection {
                    token: Some("mine".to_owned()),
                    impersonate: Some("eve".to_owned()),
                    impersonate_groups: groups(),
                    impersonate_uid: uid.clone(),
                    ..Connection::default()
                },
                &[
                    "authorization: Bearer mine",
                    "impersonate-group: edge",
                    "impersonate-group: shop",
                    "impersonate-uid: u-1",
                    "impersonate-user: eve",
                ],
            ),
        ] {
            assert_eq!(told(connection).await, expected);
        }
        let nobody = Connection {
            server: Some("http://127.0.0.1:1".to_owned()),
            impersonate_uid: uid,
            ..Connection::default()
        };
        let refused = identify_as_said(&mut AuthInfo::default(), &nobody).unwrap_err();
        assert_eq!(refused.to_string(), "--as-group and --as-uid go with --as");
    }

    #[tokio::test]
    async fn an_api_server_that_says_nothing_is_given_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("kubeconfig");
        let server = format!("http://{}", listener.local_addr().unwrap());
        write(&file, &server);
        let connection = Connection {
            kubeconfig: Some(file),
            request_timeout: std::time::Duration::from_millis(50),
            ..Connection::default()
        };
        let session = connect(&connection).await.unwrap();
        let asked = session.client.apiserver_version().await;
        assert!(asked.is_err(), "{asked:?}");
    }
}
