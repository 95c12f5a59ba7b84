//! The cells of a latency histogram: which one a duration falls into, and what a cell stands for.
//!
//! Bounds grow geometrically by 12.4 % from 1 ms to 60 s: 94 cells between, one below and one above. Whoever reads a cell as
//! [`estimate_us`] says is at most 5.9 % off. (Eight linear steps per doubling would be as accurate and need 128 cells.)

use std::sync::LazyLock;
use std::time::Duration;

/// Cells of a histogram: `CELLS - 1` bounds, and one cell for what is above the last.
pub const CELLS: usize = 96;

/// Lowest and highest bound, in microseconds: 1 ms and 60 s (data-plane rules, section 7).
const RANGE_US: (u64, u64) = (1_000, 60_000_000);

static BOUNDS_US: LazyLock<[u64; CELLS - 1]> = LazyLock::new(bounds_us);

/// Upper bounds of all cells but the last, in microseconds; a cell holds what is below its bound and not below the one before.
#[must_use]
pub fn bounds() -> &'static [u64] {
    BOUNDS_US.as_slice()
}

/// The cell that a latency falls into.
#[must_use]
pub fn cell(latency: Duration) -> usize {
    let us = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
    BOUNDS_US.partition_point(|&bound| bound <= us)
}

/// The latency a cell stands for, in microseconds: the value whose largest relative error within the cell is least.
#[must_use]
pub fn estimate_us(cell: usize) -> u64 {
    match (cell.checked_sub(1), BOUNDS_US.get(cell)) {
        (None, _) => RANGE_US.0 / 2,
        (Some(_), None) => RANGE_US.1,
        (Some(before), Some(&high)) => {
            let low = BOUNDS_US[before];
            2 * low * high / (low + high)
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "between 1,000 and 60,000,000"
)]
#[expect(clippy::cast_precision_loss, reason = "small whole numbers")]
fn bounds_us() -> [u64; CELLS - 1] {
    let (low, high) = (RANGE_US.0 as f64, RANGE_US.1 as f64);
    let steps = (CELLS - 2) as f64;
    std::array::from_fn(|i| (low * (high / low).powf(i as f64 / steps)).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_run_from_1_ms_to_60_s() {
        assert_eq!(bounds().first(), Some(&1_000));
        assert_eq!(bounds().last(), Some(&60_000_000));
        assert!(bounds().is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn an_estimate_is_within_six_percent() {
        for us in (1_000..100_000).chain((100_000..60_000_000).step_by(997)) {
            let estimate = estimate_us(cell(Duration::from_micros(us)));
            assert!(
                estimate.abs_diff(us) * 100 <= us * 6,
                "{us} µs read as {estimate} µs"
            );
        }
    }

    #[test]
    fn a_bound_belongs_to_the_cell_above() {
        assert_eq!(cell(Duration::from_micros(999)), 0);
        assert_eq!(cell(Duration::from_millis(1)), 1);
        assert_eq!(cell(Duration::from_secs(60)), CELLS - 1);
        assert_eq!(cell(Duration::MAX), CELLS - 1);
    }
}
