//! Durations, and what is printed of them.

use std::fmt;
use std::time::Duration;

/// Durations of one kind.
#[derive(Clone, Debug, Default)]
pub(crate) struct Figures(Vec<Duration>);

impl Figures {
    pub(crate) fn add(&mut self, duration: Duration) {
        self.0.push(duration);
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort();
        let at = |percent: usize| {
            let index = sorted.len().saturating_sub(1) * percent / 100;
            let duration = sorted.get(index).copied().unwrap_or_default();
            format!("{:.2}", duration.as_secs_f64() * 1e3)
        };
        let (least, p25, p50, p75) = (at(0), at(25), at(50), at(75));
        write!(
            f,
            "{p50} ms (quartiles {p25} – {p75}, least {least}, p99 {}, most {})",
            at(99),
            at(100)
        )
    }
}
