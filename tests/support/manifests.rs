//! The examples' own manifests, with the pods and steps that a journey needs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// The example server, as `cargo test` and `./test` build it beside the binary. With `--test` cargo leaves it as it is.
pub(crate) fn origin() -> PathBuf {
    let folder = Path::new(env!("CARGO_BIN_EXE_sidestep")).parent().unwrap();
    let origin = folder.join("examples/origin");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/origin.rs");
    let written = |file: &Path| file.metadata().and_then(|file| file.modified()).ok();
    assert!(
        written(&origin) >= written(&source),
        "{origin:?} is missing or old: cargo build --example origin"
    );
    origin
}

/// The objects of an example.
fn example(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("examples")
        .join(name);
    let text = std::fs::read_to_string(path).unwrap();
    serde_saphyr::from_multiple(&text).unwrap()
}

/// Writes objects to a file that `sidestep run -f` takes: JSON is YAML.
fn write(folder: &Path, objects: &[Value]) -> PathBuf {
    let path = folder.join("manifests.yaml");
    let documents: Vec<String> = objects.iter().map(Value::to_string).collect();
    std::fs::write(&path, documents.join("\n---\n")).unwrap();
    path
}

/// `examples/processes.yaml` with the steps of a journey, and more arguments for its server.
pub(crate) fn processes(folder: &Path, arguments: &[&str], steps: &Value) -> PathBuf {
    let mut objects = example("processes.yaml");
    for rollout in objects
        .iter_mut()
        .filter(|object| object["kind"] == "Rollout")
    {
        let container = &mut rollout["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            container["command"],
            json!(["./target/release/examples/origin"])
        );
        container["command"] = json!([origin()]);
        container["args"] = json!(arguments);
        rollout["spec"]["strategy"]["canary"]["steps"] = steps.clone();
    }
    write(folder, &objects)
}

/// `examples/split.yaml`, with processes as pods that answer with their colour.
pub(crate) fn split(folder: &Path, arguments: &[&str]) -> PathBuf {
    let mut objects = example("split.yaml");
    for object in objects
        .iter_mut()
        .filter(|object| object["kind"] == "Deployment")
    {
        let template = &mut object["spec"]["template"];
        let color = template["metadata"]["labels"]["color"].clone();
        let container = &mut template["spec"]["containers"][0];
        container["command"] = json!([origin()]);
        container["args"] = json!(arguments);
        container["env"] = json!([{"name": "VERSION", "value": color}]);
    }
    write(folder, &objects)
}
