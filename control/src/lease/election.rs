//! What follows from the record of a Lease: synchronous, `now` as an argument.
//!
//! As client-go has it: a record is respected for its duration since it was *seen* to change, whatever times it holds, so that clocks
//! that disagree cannot make two leaders.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::LeaseSpec;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// One contender.
#[derive(Debug)]
pub(super) struct Election {
    identity: String,
    duration: Duration,
    seen: Option<Seen>,
}

/// A record, and when it was first seen as it stands.
#[derive(Debug)]
struct Seen {
    record: LeaseSpec,
    since: Instant,
}

/// What a contender does next.
#[derive(Debug, PartialEq)]
pub(super) enum Move {
    /// Write this record: it takes the Lease, or renews it.
    Write(LeaseSpec),
    /// Nothing: this other one leads.
    Wait(String),
}

impl Election {
    pub(super) fn new(identity: String, duration: Duration) -> Self {
        Self {
            identity,
            duration,
            seen: None,
        }
    }

    /// What follows from the record; `None` means that there is no Lease.
    pub(super) fn next(
        &mut self,
        record: Option<&LeaseSpec>,
        now: Instant,
        wall: Timestamp,
    ) -> Move {
        let Some(record) = record else {
            self.seen = None;
            return Move::Write(self.record(wall, wall, 0));
        };
        let since = match &self.seen {
            Some(seen) if seen.record == *record => seen.since,
            Some(_) | None => now,
        };
        self.seen = Some(Seen {
            record: record.clone(),
            since,
        });
        let holder = record.holder_identity.as_deref().unwrap_or_default();
        let transitions = record.lease_transitions.unwrap_or(0);
        if holder == self.identity {
            let acquired = record.acquire_time.as_ref().map_or(wall, |time| time.0);
            return Move::Write(self.record(acquired, wall, transitions));
        }
        if !holder.is_empty() && now < since + respected(record) {
            return Move::Wait(holder.to_owned());
        }
        Move::Write(self.record(wall, wall, transitions.saturating_add(1)))
    }

    /// The record with which a Lease of ours is given back; none where it is not ours.
    pub(super) fn release(&self, record: Option<&LeaseSpec>, wall: Timestamp) -> Option<LeaseSpec> {
        let record = record
            .filter(|record| record.holder_identity.as_deref() == Some(self.identity.as_str()))?;
        let transitions = record.lease_transitions.unwrap_or(0);
        Some(LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            ..self.record(wall, wall, transitions)
        })
    }

    fn record(&self, acquired: Timestamp, renewed: Timestamp, transitions: i32) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(acquired)),
            renew_time: Some(MicroTime(renewed)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }
}

/// How long its holder asks for.
fn respected(record: &LeaseSpec) -> Duration {
    let seconds = record.lease_duration_seconds.unwrap_or(0);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(15);

    fn wall(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn election(identity: &str) -> Election {
        Election::new(identity.to_owned(), DURATION)
    }

    fn contenders() -> (Election, Election, Instant) {
        (election("a"), election("b"), Instant::now())
    }

    fn written(next: Move) -> LeaseSpec {
        match next {
            Move::Write(record) => record,
            other => panic!("{other:?}"),
        }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_lease_that_is_not_there_is_made() {
        let record = written(election("a").next(None, Instant::now(), wall(100)));
        assert_eq!(record.holder_identity.as_deref(), Some("a"));
        assert_eq!(record.lease_duration_seconds, Some(15));
        assert_eq!(record.lease_transitions, Some(0));
    }

    /// The holder's clock is an hour behind: what counts is that its record changes.
    #[test]
    fn a_holder_is_respected_while_its_record_changes() {
        let (mut holder, mut other, start) = contenders();
        let mut record = written(holder.next(None, start, wall(-3600)));
        for second in (0..60).step_by(10) {
            let now = at(start, second);
            assert_eq!(
                other.next(Some(&record), now, wall(0)),
                Move::Wait("a".to_owned())
            );
            let renewed = wall(-3600 + i64::try_from(second).unwrap() + 1);
            record = written(holder.next(Some(&record), now, renewed));
        }
    }

    #[test]
    fn a_record_that_no_longer_changes_is_respected_for_its_duration_and_no_longer() {
        let (mut holder, mut other, start) = contenders();
        let record = written(holder.next(None, start, wall(0)));
        for second in [3, 10, 17] {
            let next = other.next(Some(&record), at(start, second), wall(1_000_000));
            assert_eq!(next, Move::Wait("a".to_owned()), "{second}");
        }
        let taken = written(other.next(Some(&record), at(start, 18), wall(18)));
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
        assert_eq!(taken.lease_transitions, Some(1));
        assert_eq!(taken.acquire_time, Some(MicroTime(wall(18))));
    }

    #[test]
    fn a_renewal_keeps_when_it_was_acquired() {
        let (mut holder, start) = (election("a"), Instant::now());
        let record = written(holder.next(None, start, wall(7)));
        let renewed = written(holder.next(Some(&record), at(start, 2), wall(9)));
        assert_eq!(renewed.acquire_time, Some(MicroTime(wall(7))));
        assert_eq!(renewed.renew_time, Some(MicroTime(wall(9))));
        assert_eq!(renewed.lease_transitions, Some(0));
    }

    #[test]
    fn what_was_given_back_is_taken_at_once_and_only_its_holder_gives_it_back() {
        let (mut holder, mut other, start) = contenders();
        let record = written(holder.next(None, start, wall(0)));
        assert_eq!(other.release(Some(&record), wall(1)), None);
        let free = holder.release(Some(&record), wall(1)).unwrap();
        assert_eq!(free.holder_identity.as_deref(), Some(""));
        let taken = written(other.next(Some(&free), start, wall(1)));
        assert_eq!(taken.holder_identity.as_deref(), Some("b"));
        assert_eq!(taken.lease_transitions, Some(1));
    }
}
