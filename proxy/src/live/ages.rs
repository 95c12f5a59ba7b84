//! Which request in flight is the oldest, exactly, in constant time.
//!
//! Requests of one worker begin in the order of its clock, so a doubly linked list in order of arrival has the oldest in front.
//! The list lives in one vector and its slots are used again: no allocation once a worker has seen its largest crowd.

/// No slot.
const NONE: usize = usize::MAX;

/// The requests that one worker has in flight to one version.
#[derive(Debug)]
pub(super) struct Ages {
    slots: Vec<Slot>,
    first: usize,
    last: usize,
    free: usize,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    start_ms: u64,
    before: usize,
    after: usize,
}

impl Default for Ages {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            first: NONE,
            last: NONE,
            free: NONE,
        }
    }
}

impl Ages {
    /// Adds a request that began at `start_ms`, not earlier than any before; returns its slot.
    pub(super) fn add(&mut self, start_ms: u64) -> usize {
        let slot = Slot {
            start_ms,
            before: self.last,
            after: NONE,
        };
        let index = self.place(slot);
        match self.slots.get_mut(self.last) {
            Some(last) => last.after = index,
            None => self.first = index,
        }
        self.last = index;
        index
    }

    /// Takes out the request in a slot that [`Ages::add`] returned.
    pub(super) fn remove(&mut self, index: usize) {
        let Slot { before, after, .. } = self.slots[index];
        match self.slots.get_mut(before) {
            Some(before) => before.after = after,
            None => self.first = after,
        }
        match self.slots.get_mut(after) {
            Some(after) => after.before = before,
            None => self.last = before,
        }
        self.slots[index].after = self.free;
        self.free = index;
    }

    /// When the oldest began.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        self.slots.get(self.first).map(|slot| slot.start_ms)
    }

    fn place(&mut self, slot: Slot) -> usize {
        let index = self.free;
        let Some(free) = self.slots.get_mut(index) else {
            self.slots.push(slot);
            return self.slots.len() - 1;
        };
        self.free = free.after;
        *free = slot;
        index
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_oldest_is_the_least_of_those_left(moves in prop::collection::vec(any::<(bool, prop::sample::Index)>(), 1..200)) {
            let mut ages = Ages::default();
            let mut left: Vec<(usize, u64)> = Vec::new();
            let mut most = 0;
            for (now, (leaves, which)) in moves.into_iter().enumerate() {
                if leaves && !left.is_empty() {
                    let (slot, _) = left.swap_remove(which.index(left.len()));
                    ages.remove(slot);
                } else {
                    left.push((ages.add(now as u64), now as u64));
                }
                most = most.max(left.len());
                prop_assert_eq!(ages.oldest_ms(), left.iter().map(|(_, start)| *start).min());
            }
            prop_assert!(ages.slots.len() <= most);
        }
    }
}
