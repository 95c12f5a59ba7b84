//! How many retries a version may cost: 20 % of its requests of the last 10 s plus 10 a second (data-plane.md section 5).
//!
//! Arithmetic on shared counts; the caller brings the time. Counts are relaxed: a request more or less at the turn of a
//! second is of no account.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{Retry, millis};

/// The retry budget of one version, shared by all workers.
#[derive(Debug, Default)]
pub struct Budget {
    requests: Window,
    retries: Window,
}

impl Budget {
    /// Counts a request at `now_ms` of a clock that all workers share.
    pub(crate) fn deposit(&self, now_ms: u64, terms: &Retry) {
        self.requests.add(turn(now_ms, terms));
    }

    /// Takes a retry at `now_ms` if the budget allows one.
    pub(crate) fn withdraw(&self, now_ms: u64, terms: &Retry) -> bool {
        let turn = turn(now_ms, terms);
        let earned = u64::from(self.requests.sum(turn)) * u64::from(terms.percent) / 100;
        let given = u64::from(terms.per_second) * millis(terms.window) / 1_000;
        let affordable = u64::from(self.retries.sum(turn)) < earned + given;
        if affordable {
            self.retries.add(turn);
        }
        affordable
    }
}

/// Which tenth of a window `now_ms` falls into, counted from the clock's start.
fn turn(now_ms: u64, terms: &Retry) -> u32 {
    let length_ms = (millis(terms.window) / u64::from(SLOTS)).max(1);
    low_half(now_ms / length_ms)
}

/// Counts of the last ten turns, one slot each; a slot holds the turn it is for (high half) and its count.
#[derive(Debug, Default)]
struct Window {
    slots: [AtomicU64; SLOTS as usize],
}

impl Window {
    fn add(&self, turn: u32) {
        let slot = &self.slots[(turn % SLOTS) as usize];
        let seen = slot.load(Ordering::Relaxed);
        if stamp(seen) != turn {
            // Of those who find an old turn one starts the new count and the others add to it.
            let fresh = u64::from(turn) << 32;
            slot.compare_exchange(seen, fresh, Ordering::Relaxed, Ordering::Relaxed)
                .ok();
        }
        slot.fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self, turn: u32) -> u32 {
        let recent = |slot: &AtomicU64| {
            let seen = slot.load(Ordering::Relaxed);
            let in_window = turn.wrapping_sub(stamp(seen)) < SLOTS;
            if in_window { low_half(seen) } else { 0 }
        };
        self.slots.iter().map(recent).fold(0, u32::saturating_add)
    }
}

fn stamp(slot: u64) -> u32 {
    low_half(slot >> 32)
}

fn low_half(bits: u64) -> u32 {
    u32::try_from(bits & u64::from(u32::MAX)).expect("32 bits are left")
}

/// Slots of a window: the budget is accurate to a tenth of it.
const SLOTS: u32 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    fn retries_granted(budget: &Budget, second: u64) -> u32 {
        let granted = (0..).take_while(|_| budget.withdraw(second * 1_000, &Retry::default()));
        granted.count().try_into().unwrap()
    }

    #[track_caller]
    fn check(requests: &[(u64, u32)], second: u64, granted: u32) {
        let budget = Budget::default();
        for &(at, number) in requests {
            (0..number).for_each(|_| budget.deposit(at * 1_000, &Retry::default()));
        }
        let found = retries_granted(&budget, second);
        assert_eq!(found, granted, "requests = {requests:?}, second = {second}");
    }

    #[test]
    fn a_fifth_of_ten_seconds_and_ten_a_second() {
        check(&[], 100, 100);
        check(&[(100, 1000)], 100, 300);
        check(&[(91, 500), (100, 500)], 100, 300);
        check(&[(90, 500), (100, 500)], 100, 200); // second 90 is out of the window
        check(&[(0, 50)], 5, 110);
    }

    #[test]
    fn spent_retries_come_back_after_the_window() {
        let budget = Budget::default();
        assert_eq!(retries_granted(&budget, 100), 100);
        assert_eq!(retries_granted(&budget, 109), 0);
        assert_eq!(retries_granted(&budget, 110), 100);
    }
}
