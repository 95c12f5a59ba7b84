//! The file by which clients find the server: `kubectl` and all that read its configuration.

use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The name of cluster, user and context.
const NAME: &str = "sidestep";

/// Why the file was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is a file, and it is not one of ours.
    #[error("{0} exists and was not written by sidestep: choose another path, or remove it")]
    NotOurs(PathBuf),
    /// Reading or writing it.
    #[error("{doing} {path}")]
    Io {
        /// What was done.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What happened.
        source: std::io::Error,
    },
}

/// The configuration of a client. The token stands twice: as the user's, and in the URL, for those who send none over plain HTTP.
pub(super) fn kubeconfig(address: SocketAddr, token: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": {"server": format!("http://{NAME}:{token}@{address}")}}],
        "users": [{"name": NAME, "user": {"token": token}}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
    })
}

/// Writes a configuration for its owner's eyes only, over nothing but one of ours.
///
/// # Errors
/// [`Error`].
pub(super) fn write(path: &Path, config: &Value) -> Result<(), Error> {
    let at = |doing: &'static str| {
        move |source| Error::Io {
            doing,
            path: path.to_owned(),
            source,
        }
    };
    match std::fs::read_to_string(path) {
        Ok(present) if !is_ours(&present) => return Err(Error::NotOurs(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(at("reading")(error)),
    }
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    std::fs::create_dir_all(folder).map_err(at("making the folder of"))?;
    let mut file = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o600))
        .tempfile_in(folder)
        .map_err(at("making"))?;
    // JSON is YAML, and needs no second way of writing.
    let text = serde_json::to_string_pretty(config)
        .map_err(std::io::Error::other)
        .map_err(at("writing"))?;
    file.write_all(text.as_bytes())
        .and_then(|()| file.write_all(b"\n"))
        .map_err(at("writing"))?;
    file.persist(path)
        .map_err(|error| at("writing")(error.error))?;
    Ok(())
}

fn is_ours(text: &str) -> bool {
    let config: Option<Value> = serde_saphyr::from_str(text).ok();
    let Some(clusters) = config
        .as_ref()
        .and_then(|config| config["clusters"].as_array())
    else {
        return false;
    };
    matches!(&clusters[..], [only] if only["name"] == NAME)
}
