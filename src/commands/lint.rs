//! `lint`: what `run` would say of manifests, without a cluster.

use super::print;
use crate::cli::LintArgs;
use crate::manifest;
use crate::settings::source;

/// Checks manifests and says how many objects there are.
///
/// # Errors
/// Everything that is wrong with them.
pub(crate) fn run(args: &LintArgs, namespace: Option<&str>) -> anyhow::Result<()> {
    let sources: Result<Vec<_>, String> = args.files.iter().map(|file| source(file)).collect();
    let objects = manifest::read(
        &sources.map_err(anyhow::Error::msg)?,
        namespace.unwrap_or("default"),
    )?;
    print(&format!(
        "{} objects, nothing to complain about\n",
        objects.len()
    ))
}
