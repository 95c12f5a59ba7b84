//! Objects found by words that they hold, such as the Services they name, without looking through all of a namespace.

use std::collections::{BTreeMap, BTreeSet};

/// The words by which an object can be found.
pub type Words<K> = fn(&K) -> BTreeSet<String>;

/// Which objects hold which word.
pub(super) struct Index<K> {
    words: Words<K>,
    /// Namespace → word → names.
    holders: BTreeMap<String, BTreeMap<String, BTreeSet<String>>>,
}

impl<K> Index<K> {
    /// Nobody holds anything yet.
    pub(super) fn new(words: Words<K>) -> Self {
        Self {
            words,
            holders: BTreeMap::new(),
        }
    }

    /// The names of those that hold a word.
    pub(super) fn holders(&self, namespace: &str, word: &str) -> impl Iterator<Item = &str> {
        let words = self.holders.get(namespace);
        let names = words.and_then(|words| words.get(word));
        names.into_iter().flatten().map(String::as_str)
    }

    /// All objects have gone.
    pub(super) fn clear(&mut self) {
        self.holders.clear();
    }

    /// An object has come.
    pub(super) fn add(&mut self, namespace: &str, name: &str, object: &K) {
        for word in (self.words)(object) {
            let words = self.holders.entry(namespace.to_owned()).or_default();
            words.entry(word).or_default().insert(name.to_owned());
        }
    }

    /// An object has gone.
    pub(super) fn remove(&mut self, namespace: &str, name: &str, object: &K) {
        let Some(words) = self.holders.get_mut(namespace) else {
            return;
        };
        for word in (self.words)(object) {
            if let Some(names) = words.get_mut(&word) {
                names.remove(name);
                if names.is_empty() {
                    words.remove(&word);
                }
            }
        }
        if words.is_empty() {
            self.holders.remove(namespace);
        }
    }
}
