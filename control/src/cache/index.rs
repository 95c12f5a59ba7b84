//! Objects found by words that they hold, such as the Services they name, without looking through all of a namespace.

use std::collections::{BTreeMap, BTreeSet};

/// The words by which an object can be found.
pub type Words<K> = fn(&K) -> BTreeSet<String>;

/// Which objects hold which word.
pub(super) struct Index<K> {
    words: Words<K>,
    /// By namespace.
    holders: BTreeMap<String, BTreeSet<Held>>,
}

/// A word, and the name of an object that holds it.
type Held = (Box<str>, Box<str>);

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
        let from = (Box::from(word), Box::from(""));
        let pairs = self.holders.get(namespace);
        let pairs = pairs
            .into_iter()
            .flat_map(move |pairs| pairs.range(from.clone()..));
        pairs
            .take_while(move |(held, _)| **held == *word)
            .map(|(_, name)| name.as_ref())
    }

    /// All objects have gone.
    pub(super) fn clear(&mut self) {
        self.holders.clear();
    }

    /// An object has come.
    pub(super) fn add(&mut self, namespace: &str, name: &str, object: &K) {
        for word in (self.words)(object) {
            let pairs = self.holders.entry(namespace.to_owned()).or_default();
            pairs.insert((word.into(), name.into()));
        }
    }

    /// An object has gone.
    pub(super) fn remove(&mut self, namespace: &str, name: &str, object: &K) {
        let Some(pairs) = self.holders.get_mut(namespace) else {
            return;
        };
        for word in (self.words)(object) {
            pairs.remove(&(word.into(), name.into()));
        }
        if pairs.is_empty() {
            self.holders.remove(namespace);
        }
    }
}
