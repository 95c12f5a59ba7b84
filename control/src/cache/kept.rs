//! One object as a cache keeps it: as its type, or as its JSON text, which takes a quarter of the room and some microseconds to read.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_json::Value;

/// How a cache keeps an object that is JSON; why not, where it does not fit its type.
pub type Keep<K> = fn(&Value) -> Result<Kept<K>, serde_json::Error>;

/// One object.
#[derive(Debug)]
pub enum Kept<K> {
    /// Ready to be read.
    Typed(Arc<K>),
    /// To be read by this.
    Text(Arc<[u8]>, fn(&[u8]) -> serde_json::Result<K>),
}

/// Keeps it as its type.
pub(super) fn typed<K: DeserializeOwned>(json: &Value) -> Result<Kept<K>, serde_json::Error> {
    Ok(Kept::Typed(Arc::new(K::deserialize(json)?)))
}

/// Keeps it as text, which has been read once.
pub(super) fn text<K: DeserializeOwned>(json: &Value) -> Result<Kept<K>, serde_json::Error> {
    let text = serde_json::to_vec(json)?;
    let _: K = serde_json::from_slice(&text)?;
    Ok(Kept::Text(text.into(), |text| serde_json::from_slice(text)))
}

impl<K> Kept<K> {
    /// The object; it has been read before, so there is one.
    pub(super) fn read(&self) -> Option<Arc<K>> {
        match self {
            Self::Typed(object) => Some(Arc::clone(object)),
            Self::Text(text, read) => read(text).ok().map(Arc::new),
        }
    }
}

impl<K> Clone for Kept<K> {
    fn clone(&self) -> Self {
        match self {
            Self::Typed(object) => Self::Typed(Arc::clone(object)),
            Self::Text(text, read) => Self::Text(Arc::clone(text), *read),
        }
    }
}
