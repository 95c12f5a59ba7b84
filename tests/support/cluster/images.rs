//! The images that the nodes have, beside those that are stood in for: that of the chart, which is the program under test.

use serde_json::{Value, json};

use super::PROGRAM;

/// The pod with the command that its image brings.
pub(super) fn opened(mut pod: Value) -> Value {
    let containers = pod["spec"]["containers"].as_array_mut();
    for container in containers.into_iter().flatten() {
        let image = container["image"].as_str().unwrap_or_default();
        if image.starts_with(OURS) && container.get("command").is_none() {
            container["command"] = json!([PROGRAM]);
        }
    }
    pod
}

/// As `charts/sidestep/values.yaml` has it, before the tag.
const OURS: &str = "ghcr.io/sidestep-dev/sidestep:";
