//! Plays the namespace controller: a namespace that is to go is emptied first.

use jiff::Timestamp;
use serde_json::json;

use super::kinds::{self, Kind};
use super::owners;
use super::store::{self, Change, Error, Store, What};
use super::workloads::{Again, Key, Player};

/// The namespace controller.
#[derive(Debug)]
pub(super) struct Namespaces;

impl Player for Namespaces {
    fn all(&mut self, store: &Store) -> Vec<Key> {
        store
            .list(&kinds::NAMESPACE, None)
            .objects
            .iter()
            .map(Key::of)
            .collect()
    }

    fn concerned(&mut self, _: &Store, change: &Change) -> Vec<Key> {
        if change.kind == &kinds::NAMESPACE {
            return vec![Key::of(&change.object)];
        }
        let left = change.kind.namespaced && change.what == What::Deleted;
        let name = store::text(&change.object, "namespace").to_owned();
        left.then(|| Key {
            namespace: String::new(),
            name,
        })
        .into_iter()
        .collect()
    }

    fn settle(&mut self, store: &Store, key: &Key, _: Timestamp) -> Result<Again, Error> {
        let Some(namespace) = store.get(&kinds::NAMESPACE, "", &key.name) else {
            return Ok(None);
        };
        if !store::is_deleting(&namespace) {
            return Ok(None);
        }
        let mut empty = true;
        for kind in contents() {
            for object in store.list(kind, Some(&key.name)).objects {
                if !store::is_deleting(&object) {
                    owners::delete(store, kind, &object)?;
                }
                empty &= store
                    .get(kind, &key.name, store::text(&object, "name"))
                    .is_none();
            }
        }
        if empty {
            store.update(&kinds::NAMESPACE, "", &key.name, None, |namespace| {
                namespace["spec"]["finalizers"] = json!([])
            })?;
        }
        Ok(None)
    }
}

/// The kinds whose objects live in namespaces.
fn contents() -> impl Iterator<Item = &'static Kind> {
    kinds::ALL
        .iter()
        .copied()
        .filter(|kind| kind.namespaced && kind.view.is_none())
}
