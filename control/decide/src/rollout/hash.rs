//! Names for pod templates and step lists, byte for byte those that Argo gives (R2.1 to R2.3), so that neither a takeover nor a way
//! back renames anything.
//!
//! A name is a hash of what Go's JSON encoder writes (`go`). Kubernetes libraries up to 0.29, in Argo up to 1.8, wrote one thing
//! more, so a template has two names: revisions are made under the first and found under both. What stands on an object is never
//! computed again, and a revision that was named otherwise is found by what its template says (`template`).

use serde_json::Value;

mod go;

use go::Generation;

/// The names of a pod template, before collisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    today: Fnv,
    before: Fnv,
}

impl Names {
    /// Names a pod template.
    #[must_use]
    pub fn of(template: &Value) -> Self {
        let hash = |generation| Fnv::of(go::template(template, generation).as_bytes());
        Self {
            today: hash(Generation::Omits),
            before: hash(Generation::WritesNull),
        }
    }

    /// The name that a new revision gets. `collisions` counts how often its names were taken by other templates (R2.5).
    #[must_use]
    pub fn today(self, collisions: Option<i32>) -> String {
        self.today.with(collisions).encoded()
    }

    /// The name that Argo up to 1.8 would have given it.
    #[must_use]
    pub fn before(self, collisions: Option<i32>) -> String {
        self.before.with(collisions).encoded()
    }
}

/// The name of a step list (R2.3).
pub(super) fn of_steps(steps: &Value) -> String {
    Fnv::of(go::steps(steps).as_bytes()).encoded()
}

/// A value of one of Argo's types as Go prints it in an error.
pub(super) fn as_go(kind: &str, value: &Value) -> String {
    go::written(kind, value, Generation::Omits)
}

/// FNV-1a, 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fnv(u32);

impl Fnv {
    fn of(bytes: &[u8]) -> Self {
        Self(0x811c_9dc5).and(bytes)
    }

    fn and(self, bytes: &[u8]) -> Self {
        let step = |hash: u32, byte: &u8| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        Self(bytes.iter().fold(self.0, step))
    }

    /// Eight bytes more: the count, little-endian, and four zeros.
    fn with(self, collisions: Option<i32>) -> Self {
        match collisions {
            None => self,
            Some(count) => self.and(&count.to_le_bytes()).and(&[0; 4]),
        }
    }

    /// The decimal number with each digit replaced by a letter or digit of an alphabet without vowels (Kubernetes, `rand.SafeEncodeString`).
    fn encoded(self) -> String {
        let digits = self.0.to_string();
        digits
            .bytes()
            .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
            .collect()
    }
}

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

#[cfg(test)]
mod tests;
