//! Names for pod templates and step lists: short, stable, the same for the same content.
//!
//! The hash is Argo's construction (R2.1: FNV-1a of 32 bits, written with letters that spell no words) over a canonical form of our
//! own: keys sorted, nulls left out. Argo hashes Go's field order instead, so the two give one template two names; revisions that
//! Argo made are therefore found by what their template says ([`super::template`]) and by `status.currentPodHash`, and a hash that
//! stands on an object is never computed again.

use serde_json::Value;

/// The name of a pod template. `collisions` counts how often its names were taken by other templates.
pub(super) fn of_template(template: &Value, collisions: Option<i32>) -> String {
    let mut hash = Fnv::new();
    hash.json(template);
    if let Some(collisions) = collisions {
        hash.bytes(&i64::from(collisions).to_le_bytes());
    }
    hash.encoded()
}

/// The name of a step list.
pub(super) fn of_steps(steps: &Value) -> String {
    let mut hash = Fnv::new();
    hash.json(steps);
    hash.encoded()
}

/// FNV-1a, 32 bits.
struct Fnv(u32);

impl Fnv {
    const fn new() -> Self {
        Self(0x811c_9dc5)
    }

    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    /// Compact JSON with sorted keys and without nulls.
    fn json(&mut self, value: &Value) {
        match value {
            Value::Object(map) => {
                let mut entries: Vec<_> =
                    map.iter().filter(|(_, value)| !value.is_null()).collect();
                entries.sort_by_key(|(key, _)| key.as_str());
                self.list(b"{", b"}", entries, |hash, (key, value)| {
                    hash.bytes(Value::from(key.as_str()).to_string().as_bytes());
                    hash.bytes(b":");
                    hash.json(value);
                });
            }
            Value::Array(items) => self.list(b"[", b"]", items, Self::json),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                self.bytes(value.to_string().as_bytes());
            }
        }
    }

    fn list<T>(
        &mut self,
        open: &[u8],
        close: &[u8],
        items: impl IntoIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.bytes(open);
        for (index, part) in items.into_iter().enumerate() {
            if index > 0 {
                self.bytes(b",");
            }
            item(self, part);
        }
        self.bytes(close);
    }

    /// The decimal number with each digit replaced by a letter or digit of an alphabet without vowels (Kubernetes, `rand.SafeEncodeString`).
    fn encoded(&self) -> String {
        let digits = self.0.to_string();
        digits
            .bytes()
            .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
            .collect()
    }
}

const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn order_of_keys_and_nulls_do_not_matter() {
        let one = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}});
        let other = json!({"spec": {"containers": [{"image": "b", "name": "a"}], "volumes": null}, "metadata": {"labels": {"app": "web"}}});
        assert_eq!(of_template(&one, None), of_template(&other, None));
    }

    #[test]
    fn content_order_of_lists_and_collisions_do() {
        let one = json!({"spec": {"args": ["a", "b"]}});
        for other in [
            json!({"spec": {"args": ["b", "a"]}}),
            json!({"spec": {"args": ["a", "b", ""]}}),
        ] {
            assert_ne!(
                of_template(&one, None),
                of_template(&other, None),
                "{other}"
            );
        }
        assert_ne!(of_template(&one, None), of_template(&one, Some(1)));
    }

    /// The worked example of R2.2: the same bytes have the same name as in Argo.
    #[test]
    fn bytes_are_hashed_as_argo_does() {
        let text = r#"{"metadata":{"labels":{"app":"canary-scaledowndelay"}},"spec":{"containers":[{"name":"canary-scaledowndelay","image":"nginx:1.19-alpine","ports":[{"name":"http","containerPort":80,"protocol":"TCP"}],"resources":{"requests":{"cpu":"5m","memory":"16Mi"}}}]}}"#;
        let mut hash = Fnv::new();
        hash.bytes(text.as_bytes());
        assert_eq!(hash.encoded(), "674d8cf959");
    }

    /// Hash stability is a feature (R2.2): these names stand on people's ReplicaSets.
    #[test]
    fn names_never_change() {
        let template = json!({"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "web", "image": "nginx:1"}]}});
        assert_eq!(of_template(&template, None), "75f67448f4");
    }
}
