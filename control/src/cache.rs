//! One kind's objects as last seen, kept current by a watch.
//!
//! Beside the objects a cache knows how far it has seen, so that whoever has just written can wait until its own write is in view
//! ([`Cache::mark`], [`Cache::has_seen`]). An object that does not parse never stops the watch: it is kept apart with the reason.
//! Nobody here reads `managedFields` and what `kubectl apply` applied last, often the larger part of an object: they are not kept. Whoever
//! has many objects and seldom looks at one keeps them as text ([`Manner::packed`]). kube's own reflector store has none of these, nor an
//! index by namespace.
//!
//! | file | what |
//! |---|---|
//! | [`mod@index`] | objects found by words |
//! | [`kept`] | one object as it is kept |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use futures::StreamExt;
use kube::Resource;
use kube::api::ObjectMeta;
use kube::runtime::watcher::{self, Event};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::watch;
use tracing::{debug, warn};

use self::index::{Index, Words};
use self::kept::{Keep, Kept};
use crate::api::labels;
use crate::wire::{Collection, Object};

pub mod index;
pub mod kept;

/// One kind's objects as last seen. Cloning shares them.
pub struct Cache<K>(Arc<Shared<K>>);

/// Called after the cache has taken up a change, in order, by the task that feeds it; it must not block.
pub type Listener<K> = Box<dyn Fn(&Change<'_, K>) + Send + Sync>;

/// One object's change. An object that does not parse counts as absent.
#[derive(Debug)]
pub struct Change<'a, K> {
    /// The cache, which has taken it up.
    pub cache: &'a Cache<K>,
    /// Its namespace; empty where the kind has none.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// As it was.
    pub old: Option<&'a Arc<K>>,
    /// As it is.
    pub new: Option<&'a Arc<K>>,
    /// It does not parse, or did not.
    pub is_malformed: bool,
}

/// What a cache must have seen before a decision may rest on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    version: u64,
    lists_begun: u64,
}

/// An object that does not parse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Its namespace; empty where the kind has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Why.
    pub error: String,
}

/// How a cache goes about its objects.
#[derive(Debug)]
pub struct Manner<K> {
    /// By what they are found: see [`Cache::holding`].
    pub words: Words<K>,
    /// Takes out of an object, which is JSON, what nobody reads.
    pub trim: fn(&mut Value),
    /// As what they are kept.
    pub keep: Keep<K>,
}

struct Shared<K> {
    objects: RwLock<Objects<K>>,
    ready: watch::Sender<bool>,
    listeners: Vec<Listener<K>>,
    manner: Manner<K>,
}

struct Objects<K> {
    namespaces: Namespaces<K>,
    index: Index<K>,
    /// What a list under way has brought so far.
    listing: Namespaces<K>,
    /// The highest resourceVersion seen.
    version: u64,
    lists_begun: u64,
    /// Number of the last list that was completed, counted by `lists_begun`.
    list_completed: u64,
}

type Namespaces<K> = BTreeMap<String, BTreeMap<String, Parsed<K>>>;
type Parsed<K> = Result<Kept<K>, String>;

impl<K: DeserializeOwned> Manner<K> {
    /// Objects that are looked at often: as their type.
    pub fn typed() -> Self {
        Self {
            words: |_| BTreeSet::new(),
            trim: |_| {},
            keep: kept::typed,
        }
    }

    /// Many objects, of which now and then one is looked at: as text, read each time.
    pub fn packed() -> Self {
        Self {
            keep: kept::text,
            ..Self::typed()
        }
    }
}

impl<K> Cache<K> {
    /// An empty cache that is not ready, and tells `listeners` of every change.
    pub fn new(manner: Manner<K>, listeners: Vec<Listener<K>>) -> Self {
        Self(Arc::new(Shared {
            objects: RwLock::new(Objects::new(manner.words)),
            ready: watch::Sender::new(false),
            listeners,
            manner,
        }))
    }

    /// The object of that name.
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<K>> {
        let kept = self.read().get(namespace, name).cloned();
        kept?.read()
    }

    /// All objects of a namespace, by name, each read when it is its turn.
    pub fn list(&self, namespace: &str) -> impl Iterator<Item = Arc<K>> + use<K> {
        let names = self.read().namespaces.get(namespace).map(valid);
        opened(names.unwrap_or_default())
    }

    /// The objects of a namespace that hold a word, by name.
    pub fn holding(&self, namespace: &str, word: &str) -> Vec<Arc<K>> {
        let found = self.read().holding(namespace, word);
        opened(found).collect()
    }

    /// All objects that hold a word, by namespace and name.
    pub fn all_holding(&self, word: &str) -> Vec<Arc<K>> {
        let objects = self.read();
        let namespaces = objects.namespaces.keys();
        let found = namespaces.flat_map(|namespace| objects.holding(namespace, word));
        let found: Vec<_> = found.collect();
        drop(objects);
        opened(found).collect()
    }

    /// All objects, by namespace and name, each read when it is its turn: at once they would take many times the room that they are
    /// kept in.
    pub fn all(&self) -> impl Iterator<Item = Arc<K>> + use<K> {
        let all: Vec<_> = self.read().namespaces.values().flat_map(valid).collect();
        opened(all)
    }

    /// All objects that do not parse, by namespace and name.
    pub fn malformed(&self) -> Vec<Malformed> {
        let objects = self.read();
        let mut found = Vec::new();
        for (namespace, names) in &objects.namespaces {
            for (name, parsed) in names {
                if let Err(error) = parsed {
                    found.push(Malformed {
                        namespace: namespace.clone(),
                        name: name.clone(),
                        error: error.clone(),
                    });
                }
            }
        }
        found
    }

    /// What the cache must have seen to know of a write that returned `resource_version`.
    pub fn mark(&self, resource_version: &str) -> Mark {
        Mark {
            // A version that is no number is never reached by number, only by a later list.
            version: resource_version.parse().unwrap_or(u64::MAX),
            lists_begun: self.read().lists_begun,
        }
    }

    /// Whether the cache has caught up with `mark`: it has seen that version, or a list that began later.
    ///
    /// Versions of one kind grow: the API server has always handed out numbers that do, and has promised it since Kubernetes 1.35.
    pub fn has_seen(&self, mark: Mark) -> bool {
        let objects = self.read();
        objects.version >= mark.version || objects.list_completed > mark.lists_begun
    }

    /// Nobody feeds it: it is ready as it is.
    pub fn leave_empty(&self) {
        self.0.ready.send_replace(true);
    }

    /// Whether a first list is complete.
    pub fn is_ready(&self) -> bool {
        *self.0.ready.borrow()
    }

    /// Returns once a first list is complete. Cancel safe.
    pub async fn ready(&self) {
        let mut ready = self.0.ready.subscribe();
        // The sender lives as long as `self`.
        if ready.wait_for(|ready| *ready).await.is_err() {
            debug!("a cache went away while it was waited for");
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Objects<K>> {
        self.0
            .objects
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Objects<K>> {
        self.0
            .objects
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps `cache` current for as long as it is polled; drop it to stop. Errors are logged and retried with back-off.
pub async fn feed<K>(cache: Cache<K>, objects: Collection<K>, config: watcher::Config)
where
    K: Resource<DynamicType = ()> + DeserializeOwned,
{
    let mut events = objects.events(config);
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => cache.take_up(event),
            Err(error) => warn!(kind = %K::kind(&()), %error, "watch interrupted"),
        }
    }
}

impl<K: Resource<DynamicType = ()> + DeserializeOwned> Cache<K> {
    /// Takes up what the watch tells.
    pub(crate) fn take_up(&self, event: Event<Object>) {
        match event {
            Event::Init => {
                let mut objects = self.write();
                objects.lists_begun += 1;
                objects.listing.clear();
            }
            Event::InitApply(object) => {
                let (metadata, parsed) = self.open(object);
                let mut objects = self.write();
                objects.note_version(&metadata);
                let (namespace, name) = key(metadata);
                objects
                    .listing
                    .entry(namespace)
                    .or_default()
                    .insert(name, parsed);
            }
            Event::InitDone => self.complete_list(),
            Event::Apply(object) => {
                let (metadata, parsed) = self.open(object);
                self.replace(metadata, Some(parsed));
            }
            Event::Delete(object) => {
                self.replace(object.metadata, None);
            }
        }
    }

    /// The object, without what nobody reads, as it is to be kept.
    fn open(&self, mut object: Object) -> (ObjectMeta, Parsed<K>) {
        trim(&mut object.json["metadata"]);
        (self.0.manner.trim)(&mut object.json);
        let parsed = (self.0.manner.keep)(&object.json).map_err(|error| error.to_string());
        let metadata = object.metadata;
        if let Err(error) = &parsed {
            let name = metadata.name.as_deref().unwrap_or_default();
            let namespace = metadata.namespace.as_deref().unwrap_or_default();
            warn!(kind = %K::kind(&()), namespace, name, error, "object does not parse");
        }
        (metadata, parsed)
    }

    fn replace(&self, metadata: ObjectMeta, new: Option<Parsed<K>>) {
        let mut objects = self.write();
        objects.note_version(&metadata);
        let (namespace, name) = key(metadata);
        let names = objects.namespaces.entry(namespace.clone()).or_default();
        let now = Seen::of(new.as_ref());
        let before = match new {
            Some(new) => names.insert(name.clone(), new),
            None => names.remove(&name),
        };
        if names.is_empty() {
            objects.namespaces.remove(&namespace);
        }
        let before = Seen::of(before.as_ref());
        if let Some(old) = &before.object {
            objects.index.remove(&namespace, &name, old);
        }
        if let Some(new) = &now.object {
            objects.index.add(&namespace, &name, new);
        }
        drop(objects);
        self.tell(&namespace, &name, &before, &now);
    }

    fn complete_list(&self) {
        let mut objects = self.write();
        objects.list_completed = objects.lists_begun;
        let listed = std::mem::take(&mut objects.listing);
        let mut before = std::mem::replace(&mut objects.namespaces, listed.clone());
        objects.index_anew();
        drop(objects);
        self.0.ready.send_replace(true);

        let tell = |namespace: &str, name: &str, old: Option<&_>, new: Option<&_>| {
            self.tell(namespace, name, &Seen::of(old), &Seen::of(new));
        };
        for (namespace, names) in listed {
            let mut names_before = before.remove(&namespace).unwrap_or_default();
            for (name, new) in names {
                let old = names_before.remove(&name);
                tell(&namespace, &name, old.as_ref(), Some(&new));
            }
            for (name, old) in names_before {
                tell(&namespace, &name, Some(&old), None);
            }
        }
        for (namespace, names) in before {
            for (name, old) in names {
                tell(&namespace, &name, Some(&old), None);
            }
        }
    }

    fn tell(&self, namespace: &str, name: &str, old: &Seen<K>, new: &Seen<K>) {
        let change = Change {
            cache: self,
            namespace,
            name,
            old: old.object.as_ref(),
            new: new.object.as_ref(),
            is_malformed: old.is_malformed || new.is_malformed,
        };
        for listener in &self.0.listeners {
            listener(&change);
        }
    }
}

/// What stands under a name at one moment.
struct Seen<K> {
    object: Option<Arc<K>>,
    is_malformed: bool,
}

impl<K> Seen<K> {
    fn of(parsed: Option<&Parsed<K>>) -> Self {
        Self {
            object: parsed.and_then(|parsed| parsed.as_ref().ok()?.read()),
            is_malformed: parsed.is_some_and(Result::is_err),
        }
    }
}

impl<K> Objects<K> {
    fn new(words: Words<K>) -> Self {
        Self {
            namespaces: BTreeMap::new(),
            index: Index::new(words),
            listing: BTreeMap::new(),
            version: 0,
            lists_begun: 0,
            list_completed: 0,
        }
    }

    fn get(&self, namespace: &str, name: &str) -> Option<&Kept<K>> {
        self.namespaces.get(namespace)?.get(name)?.as_ref().ok()
    }

    fn holding(&self, namespace: &str, word: &str) -> Vec<Kept<K>> {
        let names = self.index.holders(namespace, word);
        let found = names.filter_map(|name| self.get(namespace, name));
        found.cloned().collect()
    }

    fn index_anew(&mut self) {
        self.index.clear();
        for (namespace, names) in &self.namespaces {
            for (name, parsed) in names {
                if let Some(object) = Seen::of(Some(parsed)).object {
                    self.index.add(namespace, name, &object);
                }
            }
        }
    }

    fn note_version(&mut self, metadata: &ObjectMeta) {
        let version = metadata.resource_version.as_deref().unwrap_or_default();
        self.version = self.version.max(version.parse().unwrap_or(0));
    }
}

/// Takes out what nobody reads.
fn trim(metadata: &mut Value) {
    let Some(metadata) = metadata.as_object_mut() else {
        return;
    };
    metadata.remove("managedFields");
    let annotations = metadata.get_mut("annotations");
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.remove(labels::LAST_APPLIED);
    }
}

fn key(metadata: ObjectMeta) -> (String, String) {
    (
        metadata.namespace.unwrap_or_default(),
        metadata.name.unwrap_or_default(),
    )
}

fn valid<K>(names: &BTreeMap<String, Parsed<K>>) -> Vec<Kept<K>> {
    let kept = names.values().filter_map(|parsed| parsed.as_ref().ok());
    kept.cloned().collect()
}

/// Reads what was found, once the lock is free.
fn opened<K>(kept: Vec<Kept<K>>) -> impl Iterator<Item = Arc<K>> {
    kept.into_iter().filter_map(|kept| kept.read())
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K> fmt::Debug for Cache<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("ready", &self.is_ready())
            .field("version", &self.read().version)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(name: &str, version: &str) -> Object {
        let metadata = metadata(name, version);
        let json = json!({"metadata": metadata});
        Object { metadata, json }
    }

    fn metadata(name: &str, version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some(name.into()),
            namespace: Some("ns".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    fn broken(name: &str, version: &str) -> Object {
        let metadata = metadata(name, version);
        let json = json!({"metadata": metadata, "data": 1});
        Object { metadata, json }
    }

    type Log = Arc<Mutex<Vec<String>>>;

    fn recorded() -> (Cache<ConfigMap>, Log) {
        let log: Log = Arc::default();
        let inner = Arc::clone(&log);
        let version = |object: Option<&Arc<ConfigMap>>| {
            object.map_or_else(
                || "-".into(),
                |o| o.metadata.resource_version.clone().unwrap(),
            )
        };
        let listener: Listener<ConfigMap> = Box::new(move |change| {
            let line = format!(
                "{} {}>{}",
                change.name,
                version(change.old),
                version(change.new)
            );
            inner.lock().unwrap().push(line);
        });
        (Cache::new(Manner::packed(), vec![listener]), log)
    }

    fn take(log: &Log) -> Vec<String> {
        std::mem::take(&mut *log.lock().unwrap())
    }

    #[test]
    fn listeners_hear_of_what_a_second_list_no_longer_holds() {
        let (cache, log) = recorded();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitApply(object("b", "2")),
        ] {
            cache.take_up(event);
        }
        assert!(!cache.is_ready() && take(&log).is_empty());
        cache.take_up(Event::InitDone);
        assert!(cache.is_ready());
        assert_eq!(take(&log), ["a ->1", "b ->2"]);

        for event in [
            Event::Init,
            Event::InitApply(object("b", "3")),
            Event::InitDone,
        ] {
            cache.take_up(event);
        }
        assert_eq!(take(&log), ["b 2>3", "a 1>-"]);
        assert!(cache.get("ns", "a").is_none());
        assert_eq!(cache.list("ns").count(), 1);
    }

    #[test]
    fn an_object_is_found_by_what_it_holds_and_without_what_nobody_reads() {
        let words: Words<ConfigMap> = |map| {
            map.data
                .iter()
                .flatten()
                .map(|(key, _)| key.clone())
                .collect()
        };
        let manner = Manner {
            words,
            ..Manner::packed()
        };
        let cache = Cache::new(manner, Vec::new());
        let object = |name, version, words: &[&str]| {
            let mut object = object(name, version);
            object.json["data"] = words.iter().map(|word| (*word, "")).collect();
            object.json["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
            object.json["metadata"]["annotations"] =
                json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "own": "1"});
            object
        };
        let found = |word: &str| {
            let found = cache.holding("ns", word);
            found
                .iter()
                .map(|map| map.metadata.name.clone().unwrap())
                .collect::<Vec<_>>()
        };
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1", &["x", "y"])),
            Event::InitApply(object("b", "2", &["y"])),
            Event::InitDone,
        ] {
            cache.take_up(event);
        }
        assert_eq!(
            (found("x"), found("y")),
            (vec!["a".to_owned()], vec!["a".to_owned(), "b".to_owned()])
        );
        cache.take_up(Event::Apply(object("a", "3", &["z"])));
        cache.take_up(Event::Delete(object("b", "4", &["y"])));
        assert_eq!(
            (found("x").len(), found("y").len(), found("z").len()),
            (0, 0, 1)
        );
        assert!(cache.holding("other", "z").is_empty());
        for event in [
            Event::Init,
            Event::InitApply(object("b", "5", &["x"])),
            Event::InitDone,
        ] {
            cache.take_up(event);
        }
        assert_eq!((found("x").len(), found("z").len()), (1, 0));
        let metadata = &cache.get("ns", "b").unwrap().metadata;
        assert!(metadata.managed_fields.is_none());
        assert_eq!(metadata.resource_version.as_deref(), Some("5"));
        assert_eq!(metadata.annotations.as_ref().unwrap().len(), 1);
    }

    #[test]
    fn a_list_that_breaks_off_leaves_the_objects_alone() {
        let (cache, log) = recorded();
        for event in [
            Event::Init,
            Event::InitApply(object("a", "1")),
            Event::InitDone,
        ] {
            cache.take_up(event);
        }
        take(&log);
        cache.take_up(Event::Init);
        cache.take_up(Event::Init);
        assert!(cache.get("ns", "a").is_some());
        assert!(take(&log).is_empty());
    }

    #[test]
    fn an_object_that_does_not_parse_is_absent_but_named() {
        let (cache, log) = recorded();
        cache.take_up(Event::Apply(object("a", "1")));
        cache.take_up(Event::Apply(broken("a", "2")));
        assert!(cache.get("ns", "a").is_none());
        assert_eq!(cache.malformed()[0].name, "a");
        cache.take_up(Event::Apply(object("a", "3")));
        assert!(cache.malformed().is_empty());
        assert_eq!(take(&log), ["a ->1", "a 1>-", "a ->3"]);
    }

    #[test]
    fn a_write_is_in_view_once_its_version_or_a_later_list_came() {
        let (cache, _) = recorded();
        cache.take_up(Event::Init);
        cache.take_up(Event::InitDone);
        let mark = cache.mark("7");
        cache.take_up(Event::Apply(object("a", "6")));
        assert!(!cache.has_seen(mark));
        cache.take_up(Event::Delete(object("b", "8")));
        assert!(cache.has_seen(mark));

        let mark = cache.mark("20");
        cache.take_up(Event::Init);
        assert!(!cache.has_seen(mark), "begun");
        cache.take_up(Event::InitDone);
        assert!(cache.has_seen(mark), "a list after the write");
    }

    #[test]
    fn a_list_under_way_during_the_write_proves_nothing() {
        let (cache, _) = recorded();
        cache.take_up(Event::Init);
        let mark = cache.mark("5");
        cache.take_up(Event::InitDone);
        assert!(!cache.has_seen(mark));
    }
}
