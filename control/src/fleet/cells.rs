//! Counters in few bytes: what is 0 takes none, and what is small takes one.
//!
//! A fleet of 1,000 proxies with 300 Splits says 600,000 sets of counters; as maps of strings each would take more than a kilobyte.

use std::collections::HashMap;
use std::sync::Arc;

use super::report::Counters;
use crate::measure::counters::{Latency, Tally};

/// Counts by cell, in the order of the cells: the distance to the cell before and the count, each in 7-bit groups, lowest first, of which
/// all but the last have the top bit set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cells(Box<[u8]>);

/// The names of cells that have one, by index. There are as many as there are codes, outcomes and reasons in use: some dozens.
#[derive(Debug, Default)]
pub struct Names {
    names: Vec<Arc<str>>,
    indices: HashMap<Arc<str>, u32>,
}

/// Room to begin with, which is usually enough.
const USUAL_BYTES: usize = 128;

/// A cell's number is an index times this, plus what it counts: requests, …
const KINDS: u32 = 8;
const REQUESTS: u32 = 0;
/// … the sum of their latencies in µs, …
const SUM: u32 = 1;
/// … those of the latency bucket with this index, …
const LATENCY: u32 = 2;
/// … or those of the code, the outcome or the fallback whose name has this index.
const CODE: u32 = 3;
const OUTCOME: u32 = 4;
const FALLBACK: u32 = 5;

impl Cells {
    fn of(cells: impl Iterator<Item = (u32, u64)>) -> Self {
        let mut bytes = Vec::with_capacity(USUAL_BYTES);
        let mut before = 0;
        for (cell, count) in cells.filter(|(_, count)| *count > 0) {
            write(&mut bytes, u64::from(cell - before));
            write(&mut bytes, count);
            before = cell;
        }
        Self(bytes.into_boxed_slice())
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What was counted since `before`. Counters only rise; one that fell counts as unchanged.
    pub fn since(&self, before: &Self) -> Self {
        Self::of(merged(self, before).map(|(cell, now, then)| (cell, now.saturating_sub(then))))
    }

    /// Both together.
    pub fn plus(&self, other: &Self) -> Self {
        Self::of(merged(self, other).map(|(cell, a, b)| (cell, a.saturating_add(b))))
    }

    fn iter(&self) -> Iter<'_> {
        Iter {
            bytes: self.0.iter(),
            cell: 0,
        }
    }
}

/// The counts of both, by cell.
fn merged<'a>(a: &'a Cells, b: &'a Cells) -> impl Iterator<Item = (u32, u64, u64)> + 'a {
    let (mut a, mut b) = (a.iter().peekable(), b.iter().peekable());
    std::iter::from_fn(move || {
        let cell = match (a.peek(), b.peek()) {
            (Some((a, _)), Some((b, _))) => *a.min(b),
            (Some((cell, _)), None) | (None, Some((cell, _))) => *cell,
            (None, None) => return None,
        };
        let take = |of: &mut std::iter::Peekable<Iter<'_>>| {
            of.next_if(|(next, _)| *next == cell)
                .map_or(0, |(_, count)| count)
        };
        Some((cell, take(&mut a), take(&mut b)))
    })
}

struct Iter<'a> {
    bytes: std::slice::Iter<'a, u8>,
    cell: u32,
}

impl Iterator for Iter<'_> {
    type Item = (u32, u64);

    fn next(&mut self) -> Option<(u32, u64)> {
        let distance = u32::try_from(read(&mut self.bytes)?).ok()?;
        self.cell += distance;
        Some((self.cell, read(&mut self.bytes)?))
    }
}

fn write(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    bytes.push(number.to_le_bytes()[0]);
}

fn read(bytes: &mut std::slice::Iter<'_, u8>) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let byte = *bytes.next()?;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    Some(number)
}

impl Names {
    /// What a proxy reports of a version.
    pub fn pack(&mut self, counters: &Counters) -> Cells {
        let Counters {
            requests,
            codes,
            outcomes,
            fallback,
            latency,
        } = counters;
        let mut cells = Vec::with_capacity(USUAL_BYTES);
        cells.push((cell(REQUESTS, 0), *requests));
        cells.push((cell(SUM, 0), microseconds(latency.sum_ms)));
        let named = [(CODE, codes), (OUTCOME, outcomes), (FALLBACK, fallback)];
        for (kind, counts) in named {
            let counts = counts.iter();
            cells.extend(counts.map(|(name, count)| (cell(kind, self.index(name)), *count)));
        }
        let buckets = (0..).zip(&latency.counts);
        cells.extend(buckets.map(|(bucket, count)| (cell(LATENCY, bucket), *count)));
        cells.sort_unstable();
        Cells::of(cells.into_iter())
    }

    /// As figures are made of it.
    pub fn unpack(&self, cells: &Cells, bounds_ms: &Arc<[f64]>) -> Tally {
        let mut tally = Tally {
            latency: Latency {
                bounds_ms: Arc::clone(bounds_ms),
                ..Latency::default()
            },
            ..Tally::default()
        };
        for (cell, count) in cells.iter() {
            let index = usize::try_from(cell / KINDS).unwrap_or(usize::MAX);
            let counts = match cell % KINDS {
                REQUESTS => {
                    tally.requests = count;
                    continue;
                }
                SUM => {
                    tally.latency.sum_ms = milliseconds(count);
                    continue;
                }
                LATENCY => {
                    tally.latency.counts.resize(index, 0);
                    tally.latency.counts.push(count);
                    continue;
                }
                CODE => &mut tally.codes,
                OUTCOME => &mut tally.outcomes,
                _ => &mut tally.fallback,
            };
            let name = self.names.get(index);
            counts.extend(name.map(|name| (name.to_string(), count)));
        }
        tally
    }

    fn index(&mut self, name: &str) -> u32 {
        if let Some(index) = self.indices.get(name) {
            return *index;
        }
        let index = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        let name: Arc<str> = Arc::from(name);
        self.names.push(Arc::clone(&name));
        self.indices.insert(name, index);
        index
    }
}

const fn cell(kind: u32, index: u32) -> u32 {
    index * KINDS + kind
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a sum of latencies is no negative number, and far below 2^53 µs"
)]
fn microseconds(milliseconds: f64) -> u64 {
    (milliseconds * 1e3).round() as u64
}

#[expect(clippy::cast_precision_loss, reason = "as above")]
const fn milliseconds(microseconds: u64) -> f64 {
    microseconds as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::fleet::report;

    fn counters() -> impl Strategy<Value = Counters> {
        let count = || prop_oneof![Just(0_u64), 1..200_u64, any::<u32>().prop_map(u64::from)];
        let named = |names: &'static [&'static str]| {
            prop::collection::btree_map(prop::sample::select(names), count(), 0..3).prop_map(
                |map| -> BTreeMap<String, u64> {
                    map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect()
                },
            )
        };
        let latency = (prop::collection::vec(count(), 0..97), 0..1_000_000_u32);
        let latency = latency.prop_map(|(counts, sum)| report::Latency {
            counts,
            sum_ms: f64::from(sum) / 8.0,
        });
        let maps = (
            named(&["200", "404", "5xx"]),
            named(&["ok", "client_abort"]),
            named(&["unready"]),
        );
        (count(), maps, latency).prop_map(|(requests, (codes, outcomes, fallback), latency)| {
            Counters {
                requests,
                codes,
                outcomes,
                fallback,
                latency,
            }
        })
    }

    /// Without what is 0.
    fn dense(mut tally: Tally) -> Tally {
        for map in [&mut tally.codes, &mut tally.outcomes, &mut tally.fallback] {
            map.retain(|_, count| *count > 0);
        }
        let counts = &mut tally.latency.counts;
        counts.truncate(
            counts
                .iter()
                .rposition(|&c| c > 0)
                .map_or(0, |last| last + 1),
        );
        tally
    }

    proptest! {
        #[test]
        fn what_is_packed_comes_out_again(counters in counters()) {
            let mut names = Names::default();
            let bounds: Arc<[f64]> = Arc::from([1.0]);
            let cells = names.pack(&counters);
            let Counters { requests, codes, outcomes, fallback, latency } = counters;
            let latency = Latency { bounds_ms: Arc::clone(&bounds), counts: latency.counts, sum_ms: latency.sum_ms };
            let expected = dense(Tally { requests, codes, outcomes, fallback, latency });
            prop_assert_eq!(names.unpack(&cells, &bounds), expected);
        }

        #[test]
        fn growth_and_what_was_before_make_what_is_now(a in counters(), b in counters()) {
            let mut names = Names::default();
            let (a, b) = (names.pack(&a), names.pack(&b));
            let both = a.plus(&b);
            prop_assert_eq!(&both.since(&a), &b);
            prop_assert_eq!(&both.since(&b), &a);
            prop_assert!(a.since(&both).is_empty());
            prop_assert_eq!(a.plus(&Cells::default()), a);
        }
    }

    #[test]
    fn counters_that_are_0_take_no_bytes_and_others_few() {
        let mut names = Names::default();
        assert!(names.pack(&Counters::default()).is_empty());
        let counters = Counters {
            requests: 100_000,
            codes: BTreeMap::from([("200".to_owned(), 100_000)]),
            outcomes: BTreeMap::from([("ok".to_owned(), 100_000)]),
            latency: report::Latency {
                counts: vec![3_000; 30],
                sum_ms: 1e6,
            },
            ..Counters::default()
        };
        assert!(names.pack(&counters).0.len() < 120);
    }
}
