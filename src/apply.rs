//! Manifests → cluster: ordered server-side apply, and again when the files change.
//!
//! An object carries the fingerprint of the manifest it was last applied from. One that has not changed since is left alone, also
//! after a restart: what `set image` or an autoscaler has written in the meantime stays until somebody edits the file.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use sidestep_control::local::kinds;

use crate::commands::rollouts::is_not_found;
use crate::manifest::{self, Id, Object, manifests_in};
use crate::settings::Source;

/// Who owns the fields that manifests set.
const FIELD_MANAGER: &str = "sidestep-run";

/// Annotation: fingerprint of the manifest that the object was last applied from.
const APPLIED: &str = "sidestep.dev/applied";

/// How often the files are looked at. People do not notice half a second.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Applies manifests, and remembers what it has applied.
#[derive(Clone)]
pub(crate) struct Applier {
    client: Client,
    applied: BTreeMap<Id, String>,
}

/// What applying a set of manifests has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    /// Objects that were made or changed, in the order in which it was done.
    pub(crate) applied: Vec<Id>,
    /// Objects that had not changed.
    pub(crate) unchanged: Vec<Id>,
    /// Objects that have left the manifests since the last time, and were deleted.
    pub(crate) deleted: Vec<Id>,
}

/// One line per object that was changed: `Service default/web applied`.
impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let applied = self.applied.iter().map(|id| format!("{id} applied"));
        let deleted = self.deleted.iter().map(|id| format!("{id} deleted"));
        f.write_str(&applied.chain(deleted).collect::<Vec<_>>().join("\n"))
    }
}

impl Applier {
    /// One that has applied nothing yet.
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            applied: BTreeMap::new(),
        }
    }

    /// Makes the cluster as the manifests want it. Only objects that this applier has applied before are deleted.
    ///
    /// # Errors
    /// The first object that the API server refused; those before it stay applied, and applying again goes on from there.
    pub(crate) async fn apply(&mut self, mut objects: Vec<Object>) -> anyhow::Result<Changes> {
        objects.sort_by_key(|object| rank(&object.id.kind));
        let mut changes = Changes::default();
        for object in &objects {
            let fingerprint = fingerprint(&object.value);
            let done = self.apply_one(object, &fingerprint).await;
            let changed = done.with_context(|| {
                format!(
                    "{}:{}: {}",
                    object.origin.file, object.origin.line, object.id
                )
            })?;
            let list = if changed {
                &mut changes.applied
            } else {
                &mut changes.unchanged
            };
            list.push(object.id.clone());
            self.applied.insert(object.id.clone(), fingerprint);
        }
        changes.deleted = self.delete_what_left(&objects).await?;
        Ok(changes)
    }

    /// Applies an object unless it was applied from this very manifest; says whether it did.
    async fn apply_one(&self, object: &Object, fingerprint: &str) -> anyhow::Result<bool> {
        if self
            .applied
            .get(&object.id)
            .is_some_and(|applied| applied == fingerprint)
        {
            return Ok(false);
        }
        let api = self.api(&object.id)?;
        let found = api.get_opt(&object.id.name).await?;
        let is_same = |found: &DynamicObject| {
            found
                .annotations()
                .get(APPLIED)
                .is_some_and(|known| known == fingerprint)
        };
        if found.as_ref().is_some_and(is_same) {
            return Ok(false);
        }
        let wanted = with_fingerprint(&object.value, fingerprint);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        api.patch(&object.id.name, &params, &Patch::Apply(&wanted))
            .await?;
        Ok(true)
    }

    async fn delete_what_left(&mut self, objects: &[Object]) -> anyhow::Result<Vec<Id>> {
        let is_wanted = |id: &Id| objects.iter().any(|object| object.id == *id);
        let mut gone: Vec<Id> = self
            .applied
            .keys()
            .filter(|id| !is_wanted(id))
            .cloned()
            .collect();
        gone.sort_by_key(|id| std::cmp::Reverse(rank(&id.kind)));
        for id in &gone {
            match self
                .api(id)?
                .delete(&id.name, &DeleteParams::background())
                .await
            {
                Err(error) if !is_not_found(&error) => {
                    return Err(error).with_context(|| format!("deleting {id}"));
                }
                Ok(_) | Err(_) => drop(self.applied.remove(id)),
            }
        }
        Ok(gone)
    }

    fn api(&self, id: &Id) -> anyhow::Result<Api<DynamicObject>> {
        let row = kinds::named(&id.api_version, &id.kind)
            .with_context(|| format!("no kind {} here", id.kind))?;
        let resource = ApiResource {
            group: row.group.to_owned(),
            version: row.version.to_owned(),
            api_version: id.api_version.clone(),
            kind: id.kind.clone(),
            plural: row.plural.to_owned(),
        };
        Ok(match &id.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        })
    }
}

/// Watches the files of the sources and applies them again whenever they have changed and rest; never ends by itself.
///
/// `say` is told what was changed, or what is wrong with the files; then the cluster stays as it is.
pub(crate) async fn watch(
    sources: &[Source],
    namespace: &str,
    mut applier: Applier,
    mut say: impl FnMut(anyhow::Result<Changes>),
) {
    // They are looked at once in any case: they may have changed while they were applied for the first time.
    let mut applied = None;
    let mut last = stamps(sources);
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    loop {
        ticks.tick().await;
        let now = stamps(sources);
        let rests = now == last;
        last = now;
        if !rests || applied.as_ref() == Some(&last) {
            continue;
        }
        applied = Some(last.clone());
        match again(sources, namespace, &mut applier).await {
            Ok(changes) if changes.applied.is_empty() && changes.deleted.is_empty() => {}
            told => say(told),
        }
    }
}

async fn again(
    sources: &[Source],
    namespace: &str,
    applier: &mut Applier,
) -> anyhow::Result<Changes> {
    applier.apply(manifest::read(sources, namespace)?).await
}

/// What tells that a file has changed: its time and size, and that it is there at all.
fn stamps(sources: &[Source]) -> BTreeMap<PathBuf, Option<(SystemTime, u64)>> {
    let paths = sources.iter().flat_map(|source| match source {
        Source::File(path) => vec![path.clone()],
        Source::Folder(path) => manifests_in(path).unwrap_or_default(),
        Source::Stdin => Vec::new(),
    });
    paths.map(|path| (path.clone(), stamp(&path))).collect()
}

fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// What others refer to comes first; rollouts, which begin to act at once, come last.
fn rank(kind: &str) -> u8 {
    match kind {
        "Namespace" => 0,
        "Secret" | "ConfigMap" | "ServiceAccount" => 1,
        "Service" => 2,
        "AnalysisTemplate" | "ClusterAnalysisTemplate" => 3,
        "Split" => 5,
        "AnalysisRun" | "Experiment" | "Rollout" => 6,
        _ => 4,
    }
}

fn with_fingerprint(value: &Value, fingerprint: &str) -> Value {
    let mut value = value.clone();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if annotations.is_null() {
            *annotations = json!({});
        }
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(APPLIED.to_owned(), fingerprint.into());
        }
    }
    value
}

/// FNV-1a over the manifest as JSON, in the order it was written (<http://www.isthe.com/chongo/tech/comp/fnv/>).
fn fingerprint(value: &Value) -> String {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = value.to_string().bytes().fold(OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::script::Script;

    const MANIFEST: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 80}]}\n---\n\
                            apiVersion: v1\nkind: Namespace\nmetadata: {name: there}\n";
    const NAMESPACE: &str = "/api/v1/namespaces/there";
    const SERVICE: &str = "/api/v1/namespaces/there/services/web";

    fn objects(text: &str) -> Vec<Object> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), text).unwrap();
        manifest::read(&[Source::File(file.path().to_owned())], "there").unwrap()
    }

    fn answering() -> Script {
        let found = json!({"metadata": {"name": "x"}});
        Script::default()
            .answer("PATCH", NAMESPACE, found.clone())
            .answer("PATCH", SERVICE, found.clone())
            .answer("DELETE", SERVICE, found)
    }

    /// The requests that write, without their bodies.
    fn writes(script: &Script) -> Vec<String> {
        let requests = script
            .requests()
            .into_iter()
            .filter(|request| !request.starts_with("GET"));
        requests
            .map(|request| {
                request
                    .split_whitespace()
                    .take(3)
                    .collect::<Vec<_>>()
                    .join(" ")
            })
            .collect()
    }

    #[tokio::test]
    async fn namespaces_come_before_what_is_in_them() {
        let script = answering();
        let changes = Applier::new(script.session().client)
            .apply(objects(MANIFEST))
            .await
            .unwrap();
        assert_eq!(
            changes.to_string(),
            "Namespace there applied\nService there/web applied"
        );
        let patch = |path: &str| format!("PATCH {path} application/apply-patch+yaml");
        assert_eq!(writes(&script), [patch(NAMESPACE), patch(SERVICE)]);
    }

    #[tokio::test]
    async fn what_has_not_changed_is_left_alone_and_what_left_is_deleted() {
        let script = answering();
        let mut applier = Applier::new(script.session().client);
        applier.apply(objects(MANIFEST)).await.unwrap();
        let asked = script.requests().len();
        let again = applier.apply(objects(MANIFEST)).await.unwrap();
        assert_eq!(
            (
                again.applied.len(),
                again.unchanged.len(),
                script.requests().len()
            ),
            (0, 2, asked)
        );
        let (_, namespace) = MANIFEST.split_once("---\n").unwrap();
        let fewer = applier.apply(objects(namespace)).await.unwrap();
        assert_eq!(fewer.to_string(), "Service there/web deleted");
        assert_eq!(
            writes(&script).last().unwrap(),
            &format!("DELETE {SERVICE} application/json")
        );
        assert_eq!(applier.apply(objects(namespace)).await.unwrap().deleted, []);
    }

    #[tokio::test]
    async fn another_process_that_applied_the_same_manifest_is_believed() {
        let objects =
            objects("apiVersion: v1\nkind: Namespace\nmetadata: {name: there, annotations: }\n");
        let fingerprint = fingerprint(&objects[0].value);
        let script = answering().answer(
            "GET",
            NAMESPACE,
            json!({"metadata": {"name": "there", "annotations": {APPLIED: fingerprint}}}),
        );
        let changes = Applier::new(script.session().client)
            .apply(objects.clone())
            .await
            .unwrap();
        assert_eq!((changes.unchanged.len(), writes(&script).len()), (1, 0));
        let script = answering().answer(
            "GET",
            NAMESPACE,
            json!({"metadata": {"name": "there", "annotations": {APPLIED: "other"}}}),
        );
        let changes = Applier::new(script.session().client)
            .apply(objects)
            .await
            .unwrap();
        assert_eq!((changes.applied.len(), writes(&script).len()), (1, 1));
    }

    #[tokio::test]
    async fn a_refusal_names_the_file_and_the_object() {
        let refusal = json!({"kind": "Status", "status": "Failure", "code": 403, "reason": "Forbidden", "message": "namespaces is forbidden"});
        let script =
            Script::default().fail("PATCH", NAMESPACE, (http::StatusCode::FORBIDDEN, refusal));
        let error = Applier::new(script.session().client)
            .apply(objects(MANIFEST))
            .await
            .unwrap_err();
        let said = crate::commands::failure::text(&error);
        assert!(
            said.ends_with(":6: Namespace there: namespaces is forbidden"),
            "{said}"
        );
    }

    #[test]
    fn stamps_tell_of_new_changed_and_missing_files() {
        let folder = tempfile::tempdir().unwrap();
        let sources = [
            Source::Folder(folder.path().to_owned()),
            Source::File(folder.path().join("b.txt")),
        ];
        let empty = stamps(&sources);
        fs::write(folder.path().join("a.yaml"), "a").unwrap();
        let one = stamps(&sources);
        fs::write(folder.path().join("a.yaml"), "ab").unwrap();
        let longer = stamps(&sources);
        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        assert!(empty != one && one != longer && longer != empty);
        assert_eq!(stamps(&sources), empty);
    }

    #[tokio::test]
    async fn the_embedded_api_server_takes_all_examples_once() {
        let local = sidestep_control::local::start(sidestep_control::local::Config::default())
            .await
            .unwrap();
        let client = local.client().unwrap();
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
        let objects = manifest::read(&[Source::Folder(folder)], "default").unwrap();
        let first = Applier::new(client.clone())
            .apply(objects.clone())
            .await
            .unwrap();
        assert_eq!(
            (first.applied.len(), first.unchanged.len()),
            (objects.len(), 0)
        );
        let after_restart = Applier::new(client).apply(objects.clone()).await.unwrap();
        assert_eq!(
            (after_restart.applied.len(), after_restart.unchanged.len()),
            (0, objects.len())
        );
        local.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn files_that_change_and_rest_are_applied_again() {
        let folder = tempfile::tempdir().unwrap();
        let write = |text: &str| fs::write(folder.path().join("web.yaml"), text).unwrap();
        write(MANIFEST);
        let sources = [Source::Folder(folder.path().to_owned())];
        let mut applier = Applier::new(answering().session().client);
        applier
            .apply(manifest::read(&sources, "there").unwrap())
            .await
            .unwrap();
        let (said, mut hears) = tokio::sync::mpsc::channel::<String>(1);
        let story = async {
            write(&MANIFEST.replace("80", "8080"));
            assert_eq!(hears.recv().await.unwrap(), "Service there/web applied");
            write("kind: [");
            let fault = hears.recv().await.unwrap();
            assert!(fault.contains("web.yaml:1: "), "{fault}");
            write(MANIFEST.split_once("---\n").unwrap().1);
            assert_eq!(hears.recv().await.unwrap(), "Service there/web deleted");
        };
        tokio::select! {
            () = watch(&sources, "there", applier, |told| {
                let text = told.map_or_else(|error| error.to_string(), |changes| changes.to_string());
                said.try_send(text).unwrap();
            }) => {}
            () = story => {}
        }
    }
}
