//! `crds`: the definitions that a real cluster needs before it knows our kinds.

use serde_json::Value;
use sidestep_control::local::crds;

use super::print;
use crate::cli::CrdsArgs;

/// Prints the definitions as YAML documents, for `kubectl apply --server-side -f -`.
///
/// # Errors
/// A group without definitions.
pub(crate) fn run(args: &CrdsArgs) -> anyhow::Result<()> {
    let wanted = |definition: &Value| {
        let group = args.group.as_deref();
        group.is_none_or(|group| definition["spec"]["group"] == group)
    };
    let definitions: Vec<Value> = crds::manifests().into_iter().filter(wanted).collect();
    anyhow::ensure!(
        !definitions.is_empty(),
        "--group {}: there is argoproj.io and sidestep.dev",
        args.group.as_deref().unwrap_or_default()
    );
    print(&yaml(&definitions)?)
}

fn yaml(definitions: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for definition in definitions {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(definition)?);
    }
    Ok(text)
}
