//! What a version's counters have grown by, by the time it was heard: finely for what is young, coarsely for what is old.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use super::KEPT;
use crate::fleet::cells::Cells;

/// Length of the shortest step.
const STEP_MS: i64 = 200;

/// A step is at most this part of its age: a window of any length loses as much of it at most.
const PART: i64 = 10;

/// Oldest first.
#[derive(Debug, Default)]
pub(super) struct Growth(VecDeque<Step>);

#[derive(Debug)]
struct Step {
    /// Its beginning: all in it was heard then or later, and before the next step.
    begin: Timestamp,
    grown: Cells,
}

impl Growth {
    /// Takes up what was heard just now.
    pub(super) fn add(&mut self, grown: &Cells, now: Timestamp) {
        let begin = floor(now, STEP_MS);
        match self.0.back_mut() {
            // The clock may have been set back: time stands still until it has caught up.
            Some(last) if last.begin >= begin => last.grown = last.grown.plus(grown),
            _ => self.0.push_back(Step {
                begin,
                grown: grown.clone(),
            }),
        }
    }

    /// What was heard after `from`: whole steps, so from a little later on; from when exactly, and what.
    pub(super) fn after(&self, from: Timestamp, now: Timestamp) -> (Timestamp, Cells) {
        let length = length_ms(from, now);
        let begin = later(floor(from, length), length);
        let first = self.0.partition_point(|step| step.begin < begin);
        let steps = self.0.iter().skip(first);
        let sum = steps.fold(Cells::default(), |sum, step| sum.plus(&step.grown));
        (begin, sum)
    }

    /// Makes fewer steps of old ones, and forgets what no window can reach.
    pub(super) fn thin(&mut self, now: Timestamp) {
        let mut kept: VecDeque<Step> = VecDeque::new();
        for mut step in self.0.drain(..) {
            if now.duration_since(step.begin) > KEPT {
                continue;
            }
            step.begin = floor(step.begin, length_ms(step.begin, now));
            match kept.back_mut() {
                Some(last) if last.begin >= step.begin => {
                    last.grown = last.grown.plus(&step.grown);
                }
                _ => kept.push_back(step),
            }
        }
        kept.shrink_to_fit();
        self.0 = kept;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    #[cfg(test)]
    pub(super) fn steps(&self) -> usize {
        self.0.len()
    }
}

/// How long a step is that began then: doubled as often as its age allows, so that shorter steps make up longer ones.
fn length_ms(begin: Timestamp, now: Timestamp) -> i64 {
    let age_ms = now.as_millisecond().saturating_sub(begin.as_millisecond());
    let mut length = STEP_MS;
    while length * 2 * PART <= age_ms {
        length *= 2;
    }
    length
}

fn floor(time: Timestamp, length_ms: i64) -> Timestamp {
    let ms = time.as_millisecond().div_euclid(length_ms) * length_ms;
    Timestamp::from_millisecond(ms).unwrap_or(time)
}

fn later(time: Timestamp, ms: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_millis(ms))
        .unwrap_or(Timestamp::MAX)
}
