//! Chance: seeded, small, the same on every machine (Splitmix64); or none.

/// A stream of numbers.
#[derive(Clone, Debug)]
pub(super) enum Dice {
    /// Drawn one after the other from a state.
    Drawn(u64),
    /// So many hundredths of the way from the least to the most, always.
    Steady(i64),
}

impl Dice {
    /// The stream of a seed for one purpose: streams of different purposes do not disturb each other.
    pub(super) fn new(seed: u64, purpose: &str) -> Self {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        for byte in purpose.bytes() {
            let drawn = step(&mut state);
            state ^= drawn ^ u64::from(byte);
        }
        Self::Drawn(state)
    }

    /// From 0 to below `sides`; 0 where nothing is drawn.
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        match self {
            Self::Drawn(state) => step(state) % sides.max(1),
            Self::Steady(_) => 0,
        }
    }

    /// From `least` to `most`, both included.
    pub(super) fn between(&mut self, least: i64, most: i64) -> i64 {
        if let Self::Steady(hundredths) = self {
            return least + (most - least) * *hundredths / 100;
        }
        let span = u64::try_from(most - least + 1).unwrap();
        least + i64::try_from(self.roll(span)).unwrap()
    }

    /// True once in so many times.
    pub(super) fn one_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }

    /// One of a list.
    pub(super) fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        let sides = u64::try_from(from.len()).unwrap();
        from[usize::try_from(self.roll(sides)).unwrap()].clone()
    }
}

/// The next number of a stream.
fn step(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
