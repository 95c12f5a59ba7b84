//! The connection to a cluster, chosen as kubectl chooses it, with one place more to look: what `sidestep run` has written.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};
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
    if let Some(token) = &connection.token {
        config.auth_info.token = Some(token.clone().into());
    }
    if connection.impersonate.is_some() || !connection.impersonate_groups.is_empty() {
        config
            .auth_info
            .impersonate
            .clone_from(&connection.impersonate);
        config.auth_info.impersonate_groups = Some(connection.impersonate_groups.clone());
    }
    let namespace = connection
        .namespace
        .clone()
        .unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).context("setting up the connection to the API server")?;
    Ok(Session { client, namespace })
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
}
