//! Times as they stand in a status: whole seconds, rounded down (R10.1).

use jiff::{SignedDuration, Timestamp};

/// The start of the second.
pub(super) fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// A time some seconds later; the end of time if that is beyond it.
pub(super) fn after(time: Timestamp, seconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_secs(seconds))
        .unwrap_or(Timestamp::MAX)
}
