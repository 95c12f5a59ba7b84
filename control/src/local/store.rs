//! The objects of the one-machine cluster, and what was lately done to them.
//!
//! One lock over a sorted map, one counter for all resource versions, one bounded ring of changes that every watcher reads at its own
//! pace: a watcher is a cursor, so a slow one costs no memory and learns that it is [`Expired`]. What an API server does to every
//! object whoever writes it is done here: uid, times, generation, parts that a write may not touch, finalizers, grace. What a client
//! may ask for, and how it is refused, is `http`'s.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::kinds::{self, Generation, Kind};

/// An object as JSON. It never changes; a write replaces it.
pub type Object = Arc<Value>;

/// Changes kept for watchers. A watcher reads within moments, and one that comes too late lists again; a Rollout with its managed
/// fields takes some 30 KB as a tree, so this is 30 MB at the worst.
pub const HISTORY: usize = 1024;

/// Changes handed to a watcher at once, so that one far behind does not hold the lock for long.
const BATCH: usize = 256;

/// Tries to find a free name for `generateName`: as many as a real API server makes.
const NAME_TRIES: usize = 8;

/// Letters of a generated suffix: no vowels, and nothing that looks like another (Kubernetes, `util/rand`).
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Why a read or write of the store was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is no such object.
    #[error("{resource} \"{name}\" not found")]
    NotFound {
        /// Plural and group.
        resource: String,
        /// The object's name.
        name: String,
    },
    /// There is one already.
    #[error("{resource} \"{name}\" already exists")]
    AlreadyExists {
        /// Plural and group.
        resource: String,
        /// The object's name.
        name: String,
    },
    /// The object is not the one the write was decided on.
    #[error("Operation cannot be fulfilled on {resource} \"{name}\": {message}")]
    Conflict {
        /// Plural and group.
        resource: String,
        /// The object's name.
        name: String,
        /// What differs.
        message: String,
    },
    /// The namespace is being deleted, and takes nothing new.
    #[error(
        "{resource} \"{name}\" is forbidden: unable to create new content in namespace {namespace} because it is being terminated"
    )]
    Terminating {
        /// Plural and group.
        resource: String,
        /// The object's name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// The object has no name, or is no object.
    #[error("{0}")]
    Malformed(String),
}

/// The version asked for is older than the history, or of another life of this store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Expired {
    /// The version asked for.
    pub asked: u64,
    /// The oldest version that could still be had.
    pub oldest: u64,
}

/// What happened to an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// It is new.
    Added,
    /// It was replaced.
    Modified,
    /// It is gone.
    Deleted,
}

/// One write.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resource version of the write.
    pub version: u64,
    /// What happened.
    pub what: What,
    /// The kind, as it is stored.
    pub kind: &'static Kind,
    /// The object as written, or as it was last, with the version of its deletion.
    pub object: Object,
    /// The object before, unless it is new.
    pub previous: Option<Object>,
}

/// All objects of a kind at one version.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The version.
    pub version: u64,
    /// The objects, by namespace and name.
    pub objects: Vec<Object>,
}

/// What becomes of the objects that an object owns, when it is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted after it.
    Background,
    /// They are deleted before it: it waits under the finalizer `foregroundDeletion`.
    Foreground,
    /// They stay and lose their owner: it waits under the finalizer `orphan`.
    Orphan,
}

/// How an object is to be deleted. The default is at once, or, for a pod that runs, within its own grace period.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Seconds a pod is given; absent means `spec.terminationGracePeriodSeconds`.
    pub grace_seconds: Option<i64>,
    /// What becomes of dependents; absent means in the background.
    pub propagation: Option<Propagation>,
    /// Only if it is the object with this uid.
    pub uid: Option<String>,
    /// Only if it is at this version.
    pub version: Option<u64>,
}

impl Deletion {
    /// At once: what a kubelet sends when a pod's processes have ended.
    pub fn now() -> Self {
        Self {
            grace_seconds: Some(0),
            ..Self::default()
        }
    }
}

/// What a deletion did.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// The object is gone; this is its last state.
    Gone(Object),
    /// It carries a `deletionTimestamp` and waits for its finalizers, or for its pod to end.
    Waiting(Object),
}

/// What a write may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// All but the status, where the kind has a status subresource; all, where it has none.
    Main,
    /// The status alone.
    Status,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    group: &'static str,
    plural: &'static str,
    namespace: String,
    name: String,
}

impl Key {
    fn new(kind: &'static Kind, namespace: &str, name: &str) -> Self {
        let kind = kind.stored();
        Self {
            group: kind.group,
            plural: kind.plural,
            namespace: if kind.namespaced {
                namespace.to_owned()
            } else {
                String::new()
            },
            name: name.to_owned(),
        }
    }
}

#[derive(Clone, Debug)]
struct State {
    version: u64,
    objects: BTreeMap<Key, Object>,
    changes: VecDeque<Arc<Change>>,
    history: usize,
}

/// The objects. A clone is another handle on the same ones.
#[derive(Clone, Debug)]
pub struct Store {
    state: Arc<Mutex<State>>,
    written: watch::Sender<u64>,
}

impl Store {
    /// An empty store that keeps the last `history` changes for watchers.
    pub fn new(history: usize) -> Self {
        Self::restore(history, 0, [])
    }

    /// A store that goes on from `version` with `objects`, which were written by one of ours.
    pub(super) fn restore(
        history: usize,
        version: u64,
        objects: impl IntoIterator<Item = (&'static Kind, Object)>,
    ) -> Self {
        let objects = objects
            .into_iter()
            .map(|(kind, object)| {
                (
                    Key::new(kind, text(&object, "namespace"), text(&object, "name")),
                    object,
                )
            })
            .collect();
        let state = State {
            version,
            objects,
            changes: VecDeque::new(),
            history: history.max(1),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            written: watch::Sender::new(version),
        }
    }

    /// A copy with the same objects, whose writes nobody sees: `dryRun=All` is a write to it.
    pub fn rehearsal(&self) -> Self {
        let state = self.lock().clone();
        Self {
            written: watch::Sender::new(state.version),
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The version of the last write.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The object of that kind and name, if there is one. The namespace is ignored for kinds without.
    pub fn get(&self, kind: &'static Kind, namespace: &str, name: &str) -> Option<Object> {
        self.lock()
            .objects
            .get(&Key::new(kind, namespace, name))
            .cloned()
    }

    /// All objects of a kind, in one namespace or in all.
    pub fn list(&self, kind: &'static Kind, namespace: Option<&str>) -> Listing {
        let state = self.lock();
        Listing {
            version: state.version,
            objects: state.of_kind(kind, namespace).cloned().collect(),
        }
    }

    /// All objects of a kind as they were at `version`.
    ///
    /// # Errors
    /// [`Expired`] when the history does not reach back so far.
    pub fn list_at(
        &self,
        kind: &'static Kind,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Listing, Expired> {
        let mut past = self.rehearsal();
        past.rewind(version)?;
        Ok(past.list(kind, namespace))
    }

    /// Every object, at one version.
    pub(super) fn everything(&self) -> Listing {
        let state = self.lock();
        Listing {
            version: state.version,
            objects: state.objects.values().cloned().collect(),
        }
    }

    /// Writes a new object and returns it with its uid, version and defaults. Its status is dropped where the kind has a status
    /// subresource, as an API server does: write it with [`Store::update_status`].
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NotFound`] for its namespace, [`Error::Terminating`], [`Error::Malformed`].
    pub fn create(&self, kind: &'static Kind, object: Value) -> Result<Object, Error> {
        let mut object = object;
        prepare(kind, &mut object)?;
        let mut state = self.lock();
        state.admit(kind, &object)?;
        let key = state.name(kind, &mut object)?;
        (kind.stored().initial)(&mut object);
        (kind.stored().defaults)(&mut object);
        let version = state.write(kind, key, Some(object));
        self.written.send_replace(version.version);
        Ok(version.object.clone())
    }

    /// Changes all of an object but its status (all of it, where the kind has no status subresource) and returns the result.
    ///
    /// `change` gets the present object and may be called again when another write came between. With `expected`, it is only
    /// applied to the object at that version. A change that changes nothing writes nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when the object is not at `expected`.
    pub fn update(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        expected: Option<u64>,
        mut change: impl FnMut(&mut Value),
    ) -> Result<Object, Error> {
        self.try_update(kind, namespace, name, Part::Main, expected, |object| {
            change(object);
            Ok(())
        })
    }

    /// Changes an object's status and nothing else; otherwise as [`Store::update`].
    ///
    /// # Errors
    /// As [`Store::update`].
    pub fn update_status(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        expected: Option<u64>,
        mut change: impl FnMut(&mut Value),
    ) -> Result<Object, Error> {
        self.try_update(kind, namespace, name, Part::Status, expected, |object| {
            change(object);
            Ok(())
        })
    }

    /// Changes a part of an object by a change that may fail; otherwise as [`Store::update`].
    ///
    /// # Errors
    /// As [`Store::update`], and what `change` returns.
    pub fn try_update<E: From<Error>>(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        part: Part,
        expected: Option<u64>,
        mut change: impl FnMut(&mut Value) -> Result<(), E>,
    ) -> Result<Object, E> {
        loop {
            let old = self
                .get(kind, namespace, name)
                .ok_or_else(|| not_found(kind, name))?;
            if expected.is_some_and(|expected| version_of(&old) != Some(expected)) {
                return Err(modified(kind, name).into());
            }
            let mut new = Value::clone(&old);
            change(&mut new)?;
            let new = assemble(kind, part, &old, new);
            if new == *old {
                return Ok(old);
            }
            if let Some(written) = self.replace(kind, namespace, name, &old, new) {
                return Ok(written);
            }
        }
    }

    /// Deletes an object, or marks it for deletion while something holds it.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Conflict`] when a precondition fails.
    pub fn delete(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        deletion: &Deletion,
    ) -> Result<Deleted, Error> {
        let key = Key::new(kind, namespace, name);
        let mut state = self.lock();
        let old = state
            .objects
            .get(&key)
            .cloned()
            .ok_or_else(|| not_found(kind, name))?;
        deletion.check(kind, name, &old)?;
        let mut marked = Value::clone(&old);
        mark(kind, &mut marked, deletion);
        if is_free(&marked) {
            let change = state.write(kind, key, None);
            self.written.send_replace(change.version);
            return Ok(Deleted::Gone(change.object.clone()));
        }
        if marked == *old {
            return Ok(Deleted::Waiting(old));
        }
        let change = state.write(kind, key, Some(marked));
        self.written.send_replace(change.version);
        Ok(Deleted::Waiting(change.object.clone()))
    }

    /// All changes after `version`, of all kinds. Start from the version of a [`Listing`].
    pub fn subscribe(&self, version: u64) -> Subscription {
        Subscription {
            written: self.written.subscribe(),
            store: self.clone(),
            seen: version,
        }
    }

    /// Puts `new` in the place of `old`, or removes the object if this freed it for deletion. `None` if `old` is no longer there.
    fn replace(
        &self,
        kind: &'static Kind,
        namespace: &str,
        name: &str,
        old: &Object,
        new: Value,
    ) -> Option<Object> {
        let key = Key::new(kind, namespace, name);
        let mut state = self.lock();
        if !state
            .objects
            .get(&key)
            .is_some_and(|present| Arc::ptr_eq(present, old))
        {
            return None;
        }
        let gone = is_deleting(&new) && is_free(&new);
        let change = state.write(kind, key, (!gone).then_some(new));
        self.written.send_replace(change.version);
        Some(change.object.clone())
    }

    /// Undoes all changes after `version`.
    fn rewind(&mut self, version: u64) -> Result<(), Expired> {
        let mut state = self.lock();
        for change in state.after(version)?.into_iter().rev() {
            let key = Key::new(
                change.kind,
                text(&change.object, "namespace"),
                text(&change.object, "name"),
            );
            match &change.previous {
                Some(previous) => state.objects.insert(key, Arc::clone(previous)),
                None => state.objects.remove(&key),
            };
        }
        state.version = version;
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic under the lock leaves a map that is whole: every write is one insertion and one push.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn of_kind<'a>(
        &'a self,
        kind: &'static Kind,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = &'a Object> {
        let kind = kind.stored();
        let first = Key::new(kind, namespace.unwrap_or_default(), "");
        self.objects
            .range(first..)
            .take_while(move |(key, _)| {
                key.group == kind.group
                    && key.plural == kind.plural
                    && namespace
                        .is_none_or(|namespace| !kind.namespaced || key.namespace == namespace)
            })
            .map(|(_, object)| object)
    }

    /// Whether the object's namespace takes it.
    fn admit(&self, kind: &'static Kind, object: &Value) -> Result<(), Error> {
        if !kind.namespaced {
            return Ok(());
        }
        let namespace = text(object, "namespace");
        match self
            .objects
            .get(&Key::new(&kinds::NAMESPACE, "", namespace))
        {
            None => Err(not_found(&kinds::NAMESPACE, namespace)),
            Some(found) if is_deleting(found) => Err(Error::Terminating {
                resource: kind.resource(),
                name: text(object, "name").to_owned(),
                namespace: namespace.to_owned(),
            }),
            Some(_) => Ok(()),
        }
    }

    /// A free name for the object: its own, or one made from its `generateName`.
    fn name(&self, kind: &'static Kind, object: &mut Value) -> Result<Key, Error> {
        let namespace = text(object, "namespace").to_owned();
        let given = text(object, "name").to_owned();
        let prefix = text(object, "generateName").to_owned();
        if given.is_empty() && prefix.is_empty() {
            return Err(Error::Malformed(
                "name or generateName is required".to_owned(),
            ));
        }
        let tries = if given.is_empty() { NAME_TRIES } else { 1 };
        let mut key = Key::new(kind, &namespace, &given);
        for _ in 0..tries {
            if given.is_empty() {
                key.name = format!("{prefix}{}", suffix());
            }
            if !self.objects.contains_key(&key) {
                object["metadata"]["name"] = json!(key.name);
                return Ok(key);
            }
        }
        Err(Error::AlreadyExists {
            resource: kind.resource(),
            name: key.name,
        })
    }

    /// Puts an object (`None`: removes it) under the next version.
    fn write(&mut self, kind: &'static Kind, key: Key, object: Option<Value>) -> Arc<Change> {
        self.version += 1;
        let previous = self.objects.get(&key).cloned();
        let what = match (&previous, &object) {
            (None, _) => What::Added,
            (Some(_), Some(_)) => What::Modified,
            (Some(_), None) => What::Deleted,
        };
        let mut object = object.unwrap_or_else(|| previous.as_deref().cloned().unwrap_or_default());
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        match what {
            What::Added | What::Modified => self.objects.insert(key, Arc::clone(&object)),
            What::Deleted => self.objects.remove(&key),
        };
        let change = Arc::new(Change {
            version: self.version,
            what,
            kind: kind.stored(),
            object,
            previous,
        });
        if self.changes.len() == self.history {
            self.changes.pop_front();
        }
        self.changes.push_back(Arc::clone(&change));
        change
    }

    /// All changes after `version`, oldest first.
    fn after(&self, version: u64) -> Result<Vec<Arc<Change>>, Expired> {
        self.some_after(version, usize::MAX)
    }

    fn some_after(&self, version: u64, most: usize) -> Result<Vec<Arc<Change>>, Expired> {
        let oldest = self
            .changes
            .front()
            .map_or(self.version, |change| change.version - 1);
        if version < oldest || version > self.version {
            return Err(Expired {
                asked: version,
                oldest,
            });
        }
        // Every write is one change, so versions are consecutive.
        let skip = usize::try_from(version - oldest).unwrap_or(usize::MAX);
        Ok(self.changes.iter().skip(skip).take(most).cloned().collect())
    }
}

/// One reader of all changes.
#[derive(Debug)]
pub struct Subscription {
    store: Store,
    written: watch::Receiver<u64>,
    seen: u64,
}

impl Subscription {
    /// The version up to which changes were handed out.
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// The changes since the last call, oldest first, at least one; waits for it. Dropping the future loses nothing.
    ///
    /// # Errors
    /// [`Expired`] when the reader has fallen behind the history: list again.
    pub async fn next(&mut self) -> Result<Vec<Arc<Change>>, Expired> {
        loop {
            self.written.mark_unchanged();
            let changes = self.ready()?;
            if !changes.is_empty() {
                return Ok(changes);
            }
            // The sender lives in our own `store`, so this waits for a write and never fails.
            if self.written.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until there are changes after those handed out. Dropping the future loses nothing.
    pub async fn stirred(&mut self) {
        self.written.mark_unchanged();
        while self.store.version() == self.seen {
            if self.written.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// The changes since the last call, oldest first, without waiting; possibly none.
    ///
    /// # Errors
    /// As [`Subscription::next`].
    pub fn ready(&mut self) -> Result<Vec<Arc<Change>>, Expired> {
        let changes = self.store.lock().some_after(self.seen, BATCH)?;
        if let Some(last) = changes.last() {
            self.seen = last.version;
        }
        Ok(changes)
    }
}

impl Deletion {
    fn check(&self, kind: &'static Kind, name: &str, object: &Value) -> Result<(), Error> {
        let conflict = |message: String| Error::Conflict {
            resource: kind.resource(),
            name: name.to_owned(),
            message,
        };
        let uid = text(object, "uid");
        if let Some(wanted) = self.uid.as_deref().filter(|wanted| *wanted != uid) {
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {wanted}, UID in object meta: {uid}"
            )));
        }
        let version = text(object, "resourceVersion");
        if let Some(wanted) = self.version.filter(|wanted| wanted.to_string() != version) {
            return Err(conflict(format!(
                "Precondition failed: ResourceVersion in precondition: {wanted}, ResourceVersion in object meta: {version}"
            )));
        }
        Ok(())
    }
}

/// What every new object gets.
fn prepare(kind: &'static Kind, object: &mut Value) -> Result<(), Error> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Error::Malformed("an object is expected".to_owned()));
    };
    let stored = kind.stored();
    fields.insert("apiVersion".to_owned(), json!(stored.api_version()));
    fields.insert("kind".to_owned(), json!(stored.kind));
    if stored.status {
        fields.remove("status");
    }
    let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
    let Some(metadata) = metadata.as_object_mut() else {
        return Err(Error::Malformed(
            "metadata: an object is expected".to_owned(),
        ));
    };
    for key in [
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "generation",
    ] {
        metadata.remove(key);
    }
    if !stored.namespaced {
        metadata.remove("namespace");
    }
    metadata.insert("uid".to_owned(), json!(uid()));
    metadata.insert("creationTimestamp".to_owned(), json!(whole_seconds(now())));
    if stored.generation != Generation::Never {
        metadata.insert("generation".to_owned(), json!(1));
    }
    Ok(())
}

/// The object a write results in, with its defaults and its generation.
fn assemble(kind: &'static Kind, part: Part, old: &Value, new: Value) -> Value {
    let stored = kind.stored();
    let mut result = confine(stored, part, old, new);
    (stored.defaults)(&mut result);
    if generation_moves(stored, old, &result) {
        bump_generation(&mut result);
    }
    result
}

/// `new`, with everything that a write to this part may not change as it was in `old`.
pub(super) fn confine(kind: &Kind, part: Part, old: &Value, new: Value) -> Value {
    let mut result = match part {
        Part::Main => new,
        Part::Status => with_status_of(old, new),
    };
    if part == Part::Main && kind.status {
        copy_field(old, &mut result, "status");
    }
    copy_field(old, &mut result, "apiVersion");
    copy_field(old, &mut result, "kind");
    if !result["metadata"].is_object() {
        result["metadata"] = json!({});
    }
    let kept = [
        "name",
        "namespace",
        "generateName",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
    ];
    for key in kept {
        copy_field(&old["metadata"], &mut result["metadata"], key);
    }
    result
}

fn with_status_of(old: &Value, mut new: Value) -> Value {
    let mut result = old.clone();
    copy_field(&new, &mut result, "status");
    // A status write may say whose fields it wrote, and nothing else of the metadata.
    copy_field(
        &new["metadata"].take(),
        &mut result["metadata"],
        "managedFields",
    );
    result
}

fn copy_field(from: &Value, to: &mut Value, key: &str) {
    let Some(fields) = to.as_object_mut() else {
        return;
    };
    match from.get(key) {
        Some(value) => fields.insert(key.to_owned(), value.clone()),
        None => fields.shift_remove(key),
    };
}

/// Whether a write changed what the kind's generation counts.
fn generation_moves(kind: &Kind, old: &Value, new: &Value) -> bool {
    let counts = |key: &str| match kind.generation {
        Generation::Never => false,
        Generation::Spec => key != "metadata" && key != "status",
        Generation::Content => key != "metadata",
    };
    let differ = |a: &Map<String, Value>, b: &Map<String, Value>| {
        a.iter()
            .any(|(key, value)| counts(key) && b.get(key) != Some(value))
    };
    match (old.as_object(), new.as_object()) {
        (Some(old), Some(new)) => differ(old, new) || differ(new, old),
        _ => false,
    }
}

fn bump_generation(object: &mut Value) {
    let next = object["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
    object["metadata"]["generation"] = json!(next);
}

/// Puts a deletion's marks on an object: time, grace, the finalizers of its propagation.
fn mark(kind: &'static Kind, object: &mut Value, deletion: &Deletion) {
    let grace = grace_seconds(kind, object, deletion);
    let fresh = !is_deleting(object);
    let shorter = object["metadata"]["deletionGracePeriodSeconds"]
        .as_i64()
        .is_some_and(|present| grace < present);
    if fresh || shorter {
        let end = now() + jiff::SignedDuration::from_secs(grace);
        object["metadata"]["deletionTimestamp"] = json!(whole_seconds(end));
        object["metadata"]["deletionGracePeriodSeconds"] = json!(grace);
    }
    if fresh && kind.stored().generation != Generation::Never {
        bump_generation(object);
    }
    if fresh && kind.stored() == &kinds::NAMESPACE {
        object["status"]["phase"] = json!("Terminating");
    }
    if let Some(propagation) = deletion.propagation {
        set_propagation(object, propagation);
    }
}

/// Only a pod that has a node and has not ended takes time.
fn grace_seconds(kind: &'static Kind, object: &Value, deletion: &Deletion) -> i64 {
    let runs = kind.stored() == &kinds::POD
        && object["spec"]["nodeName"]
            .as_str()
            .is_some_and(|node| !node.is_empty())
        && !matches!(
            object["status"]["phase"].as_str(),
            Some("Succeeded" | "Failed")
        );
    if !runs {
        return 0;
    }
    let own = || {
        object["spec"]["terminationGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(30)
    };
    deletion.grace_seconds.unwrap_or_else(own).max(0)
}

fn set_propagation(object: &mut Value, propagation: Propagation) {
    let (add, drop): (Option<&str>, &[&str]) = match propagation {
        Propagation::Background => (None, &["foregroundDeletion", "orphan"]),
        Propagation::Foreground => (Some("foregroundDeletion"), &["orphan"]),
        Propagation::Orphan => (Some("orphan"), &["foregroundDeletion"]),
    };
    let present = object["metadata"]["finalizers"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut finalizers: Vec<Value> = present
        .into_iter()
        .filter(|finalizer| !finalizer.as_str().is_some_and(|name| drop.contains(&name)))
        .collect();
    if let Some(add) = add.filter(|add| !finalizers.iter().any(|present| present == add)) {
        finalizers.push(json!(add));
    }
    if finalizers.is_empty() {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.shift_remove("finalizers");
        }
    } else {
        object["metadata"]["finalizers"] = Value::Array(finalizers);
    }
}

/// Whether the object has been asked to go.
pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}

/// Whether nothing keeps an object that has been asked to go: no finalizer (a Namespace also has some in its spec), no grace.
fn is_free(object: &Value) -> bool {
    let holds = |finalizers: &Value| finalizers.as_array().is_some_and(|list| !list.is_empty());
    !holds(&object["metadata"]["finalizers"])
        && !holds(&object["spec"]["finalizers"])
        && object["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
}

/// The version of an object.
pub fn version_of(object: &Value) -> Option<u64> {
    text(object, "resourceVersion").parse().ok()
}

/// A string of the object's metadata; empty if it has none.
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object["metadata"][key].as_str().unwrap_or_default()
}

fn not_found(kind: &'static Kind, name: &str) -> Error {
    Error::NotFound {
        resource: kind.resource(),
        name: name.to_owned(),
    }
}

fn modified(kind: &'static Kind, name: &str) -> Error {
    Error::Conflict {
        resource: kind.resource(),
        name: name.to_owned(),
        message: "the object has been modified; please apply your changes to the latest version and try again".to_owned(),
    }
}

fn uid() -> String {
    let random: u128 = rand::random();
    // Version 4, variant 1 of RFC 9562.
    let bits = random & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    [0..8, 8..12, 12..16, 16..20, 20..32]
        .map(|range| hex.get(range).unwrap_or_default().to_owned())
        .join("-")
}

fn suffix() -> String {
    (0..5)
        .map(|_| {
            char::from(SUFFIX_LETTERS[usize::from(rand::random::<u8>()) % SUFFIX_LETTERS.len()])
        })
        .collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the API server is the clock of its objects: creation and deletion times"
)]
pub(super) fn now() -> Timestamp {
    Timestamp::now()
}

/// A time as metadata carries it: whole seconds.
pub(super) fn whole_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        let store = Store::new(8);
        store
            .create(&kinds::NAMESPACE, json!({"metadata": {"name": "default"}}))
            .unwrap();
        store
    }

    fn pod(name: &str) -> Value {
        json!({"metadata": {"namespace": "default", "name": name}, "spec": {"containers": [{"name": "a", "image": "b:1"}]}})
    }

    fn rollout() -> Value {
        json!({"metadata": {"namespace": "default", "name": "r"}, "spec": {"replicas": 1}, "status": {"phase": "Healthy"}})
    }

    #[test]
    fn creation_gives_uid_version_generation_and_drops_status() {
        let store = store();
        let made = store.create(&kinds::ROLLOUT, rollout()).unwrap();
        assert_eq!(text(&made, "uid").len(), 36);
        assert_eq!(version_of(&made), Some(store.version()));
        assert_eq!(made["metadata"]["generation"], 1);
        assert_eq!(made["status"], Value::Null);
        let error = store.create(&kinds::ROLLOUT, rollout()).unwrap_err();
        assert!(matches!(error, Error::AlreadyExists { .. }), "{error}");
    }

    #[test]
    fn unknown_namespace_takes_nothing() {
        let error = Store::new(8).create(&kinds::POD, pod("a")).unwrap_err();
        assert_eq!(error.to_string(), "namespaces \"default\" not found");
    }

    #[test]
    fn generation_counts_the_spec_and_the_status_stays_apart() {
        let store = store();
        store.create(&kinds::ROLLOUT, rollout()).unwrap();
        let write = |status: bool, replicas: i32, phase: &str| {
            let change = |object: &mut Value| {
                object["spec"]["replicas"] = json!(replicas);
                object["status"] = json!({"phase": phase});
            };
            let written = if status {
                store.update_status(&kinds::ROLLOUT, "default", "r", None, change)
            } else {
                store.update(&kinds::ROLLOUT, "default", "r", None, change)
            };
            let written = written.unwrap();
            (
                written["metadata"]["generation"].clone(),
                written["spec"]["replicas"].clone(),
                written["status"]["phase"].clone(),
            )
        };
        assert_eq!(
            write(false, 2, "ignored"),
            (json!(2), json!(2), Value::Null)
        );
        assert_eq!(
            write(true, 9, "Paused"),
            (json!(2), json!(2), json!("Paused"))
        );
        assert_eq!(
            write(false, 2, "ignored"),
            (json!(2), json!(2), json!("Paused"))
        );
    }

    #[test]
    fn stale_version_conflicts_and_nothing_changed_writes_nothing() {
        let store = store();
        let made = store.create(&kinds::POD, pod("a")).unwrap();
        let stale = store
            .update(&kinds::POD, "default", "a", Some(1), |_| {})
            .unwrap_err();
        assert!(matches!(stale, Error::Conflict { .. }), "{stale}");
        let same = store
            .update(&kinds::POD, "default", "a", version_of(&made), |_| {})
            .unwrap();
        assert!(Arc::ptr_eq(&same, &made));
    }

    #[test]
    fn running_pod_waits_for_its_grace_and_others_go_at_once() {
        let store = store();
        store.create(&kinds::POD, pod("pending")).unwrap();
        let gone = store
            .delete(&kinds::POD, "default", "pending", &Deletion::default())
            .unwrap();
        assert!(matches!(gone, Deleted::Gone(_)), "{gone:?}");

        store.create(&kinds::POD, pod("running")).unwrap();
        store
            .update(&kinds::POD, "default", "running", None, |pod| {
                pod["spec"]["nodeName"] = json!("here")
            })
            .unwrap();
        let Deleted::Waiting(waiting) = store
            .delete(&kinds::POD, "default", "running", &Deletion::default())
            .unwrap()
        else {
            panic!("it runs");
        };
        assert_eq!(waiting["metadata"]["deletionGracePeriodSeconds"], 30);
        let gone = store
            .delete(&kinds::POD, "default", "running", &Deletion::now())
            .unwrap();
        assert!(matches!(gone, Deleted::Gone(_)), "{gone:?}");
    }

    #[test]
    fn finalizers_hold_and_the_last_one_frees() {
        let store = store();
        let foreground = Deletion {
            propagation: Some(Propagation::Foreground),
            ..Deletion::default()
        };
        store.create(&kinds::ROLLOUT, rollout()).unwrap();
        let Deleted::Waiting(held) = store
            .delete(&kinds::ROLLOUT, "default", "r", &foreground)
            .unwrap()
        else {
            panic!("the finalizer holds");
        };
        assert_eq!(
            held["metadata"]["finalizers"],
            json!(["foregroundDeletion"])
        );
        store
            .update(&kinds::ROLLOUT, "default", "r", None, |object| {
                object["metadata"]["finalizers"] = json!([])
            })
            .unwrap();
        assert_eq!(store.get(&kinds::ROLLOUT, "default", "r"), None);
    }

    #[test]
    fn slow_reader_learns_that_it_is_expired() {
        let store = store();
        let mut slow = store.subscribe(store.version());
        for name in ["a", "b", "c", "d", "e", "f", "g", "h", "i"] {
            store.create(&kinds::POD, pod(name)).unwrap();
        }
        let expired = slow.ready().unwrap_err();
        assert_eq!(
            expired,
            Expired {
                asked: 1,
                oldest: 2
            }
        );
        assert_eq!(store.subscribe(2).ready().unwrap().len(), 8);
    }

    #[test]
    fn past_is_what_it_was() {
        let store = store();
        store.create(&kinds::POD, pod("a")).unwrap();
        store.create(&kinds::POD, pod("b")).unwrap();
        let then = store.list(&kinds::POD, None);
        store
            .update(&kinds::POD, "default", "a", None, |pod| {
                pod["metadata"]["labels"] = json!({"x": "y"})
            })
            .unwrap();
        store
            .delete(&kinds::POD, "default", "b", &Deletion::default())
            .unwrap();
        store.create(&kinds::POD, pod("c")).unwrap();
        assert_eq!(
            store
                .list_at(&kinds::POD, None, then.version)
                .unwrap()
                .objects,
            then.objects
        );
    }

    #[test]
    fn rehearsal_leaves_no_trace() {
        let store = store();
        store.rehearsal().create(&kinds::POD, pod("a")).unwrap();
        assert_eq!(
            (store.get(&kinds::POD, "default", "a"), store.version()),
            (None, 1)
        );
    }

    #[test]
    fn every_row_is_found_by_path_and_by_name() {
        for kind in kinds::ALL {
            assert_eq!(
                kinds::at(kind.group, kind.version, kind.plural),
                Some(*kind)
            );
            assert_eq!(kinds::named(&kind.api_version(), kind.kind), Some(*kind));
        }
    }
}
