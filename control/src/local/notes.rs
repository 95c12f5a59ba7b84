//! Events: what is noted about an object for people to read, and forgotten after an hour.

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::kinds;
use super::store::{self, Deletion, Error, Store, whole_seconds};

/// What kind of news it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Normal,
    /// Somebody should look.
    Warning,
}

/// Notes something about an object; the same again is counted, not repeated.
pub fn note(
    store: &Store,
    about: &Value,
    component: &str,
    tone: Tone,
    reason: &str,
    message: &str,
) {
    let namespace = match store::text(about, "namespace") {
        "" => "default",
        namespace => namespace,
    };
    let now = whole_seconds(store::now());
    let name = name(about, reason, message);
    let again = store.update(&kinds::EVENT, namespace, &name, None, |event| {
        event["count"] = json!(event["count"].as_u64().unwrap_or(1) + 1);
        event["lastTimestamp"] = json!(now);
    });
    let written = match again {
        Err(Error::NotFound { .. }) => store.create(&kinds::EVENT, json!({
            "metadata": {"namespace": namespace, "name": name},
            "involvedObject": {
                "apiVersion": about["apiVersion"], "kind": about["kind"], "namespace": namespace,
                "name": about["metadata"]["name"], "uid": about["metadata"]["uid"],
                "resourceVersion": about["metadata"]["resourceVersion"],
            },
            "reason": reason, "message": message,
            "type": match tone { Tone::Normal => "Normal", Tone::Warning => "Warning" },
            "count": 1, "firstTimestamp": now, "lastTimestamp": now,
            "source": {"component": component}, "reportingComponent": component, "reportingInstance": "",
        })),
        other => other,
    };
    if let Err(error) = written {
        // A namespace that is going takes no events, on a real cluster either.
        tracing::debug!(reason, message, %error, "event not written");
    }
}

/// A name that is the same for the same note.
fn name(about: &Value, reason: &str, message: &str) -> String {
    let mut hash = fnv1a(FNV_START, store::text(about, "uid").as_bytes());
    hash = fnv1a(hash, reason.as_bytes());
    hash = fnv1a(hash, message.as_bytes());
    format!("{}.{hash:016x}", store::text(about, "name"))
}

/// FNV-1a, 64 bit: short names for long texts.
fn fnv1a(start: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(start, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Forgets what was last noted over an hour ago, whoever noted it.
pub(super) fn forget_old(store: &Store, now: Timestamp) {
    for event in store.list(&kinds::EVENT, None).objects {
        let last = [
            &event["lastTimestamp"],
            &event["series"]["lastObservedTime"],
            &event["eventTime"],
            &event["metadata"]["creationTimestamp"],
        ];
        let last = last
            .into_iter()
            .find_map(|time| time.as_str()?.parse::<Timestamp>().ok());
        if last.is_some_and(|last| now.duration_since(last) > KEPT) {
            let (namespace, name) = (
                store::text(&event, "namespace"),
                store::text(&event, "name"),
            );
            if let Err(error) = store.delete(&kinds::EVENT, namespace, name, &Deletion::default()) {
                tracing::debug!(%error, "an old event was gone already");
            }
        }
    }
}

/// How long events are kept: an API server's default, `--event-ttl`.
const KEPT: SignedDuration = SignedDuration::from_hours(1);
/// FNV-1a's offset basis.
const FNV_START: u64 = 0xcbf2_9ce4_8422_2325;
