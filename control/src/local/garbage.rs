//! Plays the garbage collector: what has lost all of its owners goes, in the way its owner's deletion asked for.
//!
//! In the background: the owner goes, then its dependents. In the foreground: the owner waits under the finalizer
//! `foregroundDeletion` until those dependents are gone that block it. Orphaned: the owner waits under `orphan` until its dependents
//! no longer name it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::owners;
use super::store::{self, Change, Deletion, Error, Object, Propagation, Store, What};
use super::workloads::{Again, Key, Player};

/// The garbage collector. Its keys are uids, as names.
#[derive(Debug, Default)]
pub(super) struct Garbage {
    /// Every object, by uid.
    known: BTreeMap<String, Known>,
    /// By an owner's uid, there or not: the uids of those that name it.
    dependents: BTreeMap<String, BTreeSet<String>>,
}

#[derive(Debug)]
struct Known {
    kind: &'static Kind,
    key: Key,
    owners: Vec<String>,
}

impl Player for Garbage {
    fn all(&mut self, store: &Store) -> Vec<Key> {
        (self.known, self.dependents) = Default::default();
        for kind in super::kinds::ALL.iter().filter(|kind| kind.view.is_none()) {
            for object in store.list(kind, None).objects {
                self.learn(kind, &object);
            }
        }
        self.known.keys().map(|uid| by_uid(uid)).collect()
    }

    fn concerned(&mut self, _: &Store, change: &Change) -> Vec<Key> {
        let uid = store::text(&change.object, "uid");
        let before = self.forget(uid);
        if change.what == What::Deleted {
            // Those that name it may have lost their last owner, and those it names may have waited for it.
            let dependents = self.dependents.get(uid).into_iter().flatten();
            return dependents.chain(&before).map(|uid| by_uid(uid)).collect();
        }
        self.learn(change.kind, &change.object);
        let has_owners = !owners::references(&change.object).is_empty();
        let waits = store::is_deleting(&change.object);
        let concerned = (has_owners || waits).then(|| uid.to_owned());
        concerned
            .iter()
            .chain(&before)
            .map(|uid| by_uid(uid))
            .collect()
    }

    fn settle(&mut self, store: &Store, key: &Key, _: Timestamp) -> Result<Again, Error> {
        let Some((kind, object)) = self.find(store, &key.name) else {
            return Ok(None);
        };
        if store::is_deleting(&object) {
            if has_finalizer(&object, ORPHAN) {
                self.orphan_dependents(store, kind, &object)?;
            } else if has_finalizer(&object, FOREGROUND) {
                self.delete_dependents(store, kind, &object)?;
            }
            return Ok(None);
        }
        self.follow_owners(store, kind, &object)?;
        Ok(None)
    }
}

fn by_uid(uid: &str) -> Key {
    Key {
        namespace: String::new(),
        name: uid.to_owned(),
    }
}

impl Garbage {
    fn learn(&mut self, kind: &'static Kind, object: &Object) {
        let uid = store::text(object, "uid").to_owned();
        let owners = owners::references(object)
            .iter()
            .filter_map(|reference| reference["uid"].as_str());
        let owners: Vec<String> = owners.map(str::to_owned).collect();
        for owner in &owners {
            self.dependents
                .entry(owner.clone())
                .or_default()
                .insert(uid.clone());
        }
        self.known.insert(
            uid,
            Known {
                kind,
                key: Key::of(object),
                owners,
            },
        );
    }

    /// Forgets an object; returns the uids it named as owners.
    fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(Known { owners, .. }) = self.known.remove(uid) else {
            return Vec::new();
        };
        for owner in &owners {
            let Some(dependents) = self.dependents.get_mut(owner) else {
                continue;
            };
            dependents.remove(uid);
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
        owners
    }

    fn find(&self, store: &Store, uid: &str) -> Option<(&'static Kind, Object)> {
        let Known { kind, key, .. } = self.known.get(uid)?;
        let found = store.get(kind, &key.namespace, &key.name)?;
        (store::text(&found, "uid") == uid).then_some((*kind, found))
    }

    fn dependents(&self, store: &Store, owner: &Value) -> Vec<(&'static Kind, Object)> {
        let uids = self
            .dependents
            .get(store::text(owner, "uid"))
            .into_iter()
            .flatten();
        uids.filter_map(|uid| self.find(store, uid)).collect()
    }

    /// Deletes an object whose owners are all gone; takes those from it that are gone while others are there.
    fn follow_owners(
        &self,
        store: &Store,
        kind: &'static Kind,
        object: &Value,
    ) -> Result<(), Error> {
        let references = owners::references(object);
        let is_there = |reference: &&Value| {
            reference["uid"]
                .as_str()
                .is_some_and(|uid| self.find(store, uid).is_some())
        };
        let there = references.iter().filter(is_there).count();
        if there == references.len() {
            return Ok(());
        }
        if there == 0 {
            let deletion = Deletion {
                uid: Some(store::text(object, "uid").to_owned()),
                propagation: Some(Propagation::Background),
                ..Deletion::default()
            };
            return owners::delete_as(store, kind, object, &deletion);
        }
        let gone: Vec<Value> = references
            .iter()
            .filter(|reference| !is_there(reference))
            .map(|gone| gone["uid"].clone())
            .collect();
        disown(store, kind, object, &gone)
    }

    /// Takes an owner from its dependents, and then lets it go.
    fn orphan_dependents(
        &self,
        store: &Store,
        kind: &'static Kind,
        owner: &Value,
    ) -> Result<(), Error> {
        for (kind, dependent) in self.dependents(store, owner) {
            disown(store, kind, &dependent, &[owner["metadata"]["uid"].clone()])?;
        }
        remove_finalizer(store, kind, owner, ORPHAN)
    }

    /// Deletes an owner's dependents, and lets it go once none is left that blocks it.
    fn delete_dependents(
        &self,
        store: &Store,
        kind: &'static Kind,
        owner: &Value,
    ) -> Result<(), Error> {
        let mut blocked = false;
        for (kind, dependent) in self.dependents(store, owner) {
            let references = owners::references(&dependent);
            let mut others = references
                .iter()
                .filter(|reference| reference["uid"] != owner["metadata"]["uid"]);
            if others.any(|other| self.keeps(store, other)) {
                disown(store, kind, &dependent, &[owner["metadata"]["uid"].clone()])?;
                continue;
            }
            blocked |= blocks(&dependent, owner);
            if !store::is_deleting(&dependent) {
                self.delete_dependent(store, kind, &dependent)?;
            }
        }
        if blocked {
            // What was deleted at once comes back as a change, and this is looked at again.
            return Ok(());
        }
        remove_finalizer(store, kind, owner, FOREGROUND)
    }

    /// Whether an owner is there and stays.
    fn keeps(&self, store: &Store, reference: &Value) -> bool {
        let found = reference["uid"]
            .as_str()
            .and_then(|uid| self.find(store, uid));
        found.is_some_and(|(_, owner)| {
            !(store::is_deleting(&owner) && has_finalizer(&owner, FOREGROUND))
        })
    }

    fn delete_dependent(
        &self,
        store: &Store,
        kind: &'static Kind,
        dependent: &Value,
    ) -> Result<(), Error> {
        let uid = store::text(dependent, "uid");
        let propagation = if self.dependents.contains_key(uid) {
            Propagation::Foreground
        } else {
            Propagation::Background
        };
        let deletion = Deletion {
            uid: Some(uid.to_owned()),
            propagation: Some(propagation),
            ..Deletion::default()
        };
        owners::delete_as(store, kind, dependent, &deletion)
    }
}

/// Whether the owner's deletion waits for the dependent.
fn blocks(dependent: &Value, owner: &Value) -> bool {
    let mut references = owners::references(dependent).iter();
    references.any(|reference| {
        reference["uid"] == owner["metadata"]["uid"] && reference["blockOwnerDeletion"] == true
    })
}

fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    object["metadata"]["finalizers"]
        .as_array()
        .is_some_and(|finalizers| finalizers.iter().any(|name| name == finalizer))
}

fn remove_finalizer(
    store: &Store,
    kind: &'static Kind,
    object: &Value,
    finalizer: &str,
) -> Result<(), Error> {
    change(store, kind, object, |object| {
        if let Some(finalizers) = object["metadata"]["finalizers"].as_array_mut() {
            finalizers.retain(|name| name != finalizer);
        }
    })
}

/// Takes owners from an object, by uid.
fn disown(
    store: &Store,
    kind: &'static Kind,
    object: &Value,
    owners: &[Value],
) -> Result<(), Error> {
    change(store, kind, object, |object| {
        let mut references = owners::references(object).to_vec();
        references.retain(|reference| !owners.contains(&reference["uid"]));
        object["metadata"]["ownerReferences"] = json!(references);
    })
}

fn change(
    store: &Store,
    kind: &'static Kind,
    object: &Value,
    change: impl FnMut(&mut Value),
) -> Result<(), Error> {
    let (namespace, name) = (
        store::text(object, "namespace"),
        store::text(object, "name"),
    );
    match store.update(kind, namespace, name, store::version_of(object), change) {
        Ok(_) | Err(Error::NotFound { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

const FOREGROUND: &str = "foregroundDeletion";
const ORPHAN: &str = "orphan";
