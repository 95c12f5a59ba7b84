//! What was measured, round by round, and the table that is printed.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::generator::Closed;

/// One round of one contender.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    cpu_us: f64,
    rate: f64,
    p50_us: f64,
    p99_us: f64,
    memory_mib: f64,
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a few seconds fit a double exactly"
)]
impl Sample {
    /// From the closed loop and the CPU time it took, and from the sorted latencies of the open loop.
    pub(crate) fn new(closed: &Closed, cpu: Duration, open: &[Duration], memory: u64) -> Self {
        let at = |share: usize| {
            open.get(open.len() * share / 100)
                .map_or(f64::NAN, |latency| latency.as_secs_f64() * 1e6)
        };
        Self {
            cpu_us: cpu.as_secs_f64() * 1e6 / closed.requests as f64,
            rate: closed.requests as f64 / closed.elapsed.as_secs_f64(),
            p50_us: at(50),
            p99_us: at(99),
            memory_mib: memory as f64 / (1024.0 * 1024.0),
        }
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:6.2} µs CPU a request, {:7.0} requests/s, p50 {:5.0} µs, p99 {:6.0} µs, {:5.1} MiB",
            self.cpu_us, self.rate, self.p50_us, self.p99_us, self.memory_mib
        )
    }
}

/// Every round of every contender.
#[derive(Debug)]
pub(crate) struct Figures {
    order: Vec<&'static str>,
    samples: BTreeMap<&'static str, Vec<Sample>>,
}

impl Figures {
    pub(crate) fn new(names: impl Iterator<Item = &'static str>) -> Self {
        Self {
            order: names.collect(),
            samples: BTreeMap::new(),
        }
    }

    pub(crate) fn add(&mut self, name: &'static str, sample: Sample) {
        self.samples.entry(name).or_default().push(sample);
    }

    /// An error when the direct path was not clearly faster than every proxy: then the generator was measured.
    pub(crate) fn verdict(&self) -> anyhow::Result<()> {
        let slowest_direct = self
            .column("direct", |sample| sample.rate)
            .into_iter()
            .fold(f64::INFINITY, f64::min);
        for name in self.order.iter().filter(|name| **name != "direct") {
            let fastest = self
                .column(name, |sample| sample.rate)
                .into_iter()
                .fold(0.0, f64::max);
            anyhow::ensure!(
                slowest_direct > 1.2 * fastest,
                "void: the direct path ({slowest_direct:.0}/s) is not clearly faster than {name} ({fastest:.0}/s)"
            );
        }
        Ok(())
    }

    fn column(&self, name: &str, figure: impl Fn(&Sample) -> f64) -> Vec<f64> {
        self.samples
            .get(name)
            .map(|samples| samples.iter().map(figure).collect())
            .unwrap_or_default()
    }

    /// Ratios of the same round, so that what the machine did in that round cancels out.
    fn ratios(&self, name: &str, base: &str) -> Vec<f64> {
        let (own, other) = (
            self.column(name, |sample| sample.cpu_us),
            self.column(base, |sample| sample.cpu_us),
        );
        own.iter()
            .zip(&other)
            .map(|(own, other)| own / other)
            .collect()
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "median of the rounds (between which two the middle half of them lies)"
        )?;
        writeln!(
            f,
            "{:10} {:>24} {:>26} {:>20} {:>22} {:>10}",
            "", "CPU µs/request", "requests/s", "p50 µs", "p99 µs", "MiB"
        )?;
        for name in &self.order {
            let column =
                |figure: fn(&Sample) -> f64, digits| spread(self.column(name, figure), digits);
            let memory = spread(self.column(name, |sample| sample.memory_mib), 1);
            let memory = memory.split(' ').next().unwrap_or_default();
            writeln!(
                f,
                "{name:10} {:>24} {:>26} {:>20} {:>22} {memory:>10}",
                column(|sample| sample.cpu_us, 2),
                column(|sample| sample.rate, 0),
                column(|sample| sample.p50_us, 0),
                column(|sample| sample.p99_us, 0),
            )?;
        }
        for base in ["nginx", "probe"]
            .iter()
            .filter(|base| self.samples.contains_key(*base))
        {
            writeln!(
                f,
                "sidestep ÷ {base}, CPU a request, round by round: {}",
                spread(self.ratios("sidestep", base), 3)
            )?;
        }
        Ok(())
    }
}

/// The median and the quartiles.
fn spread(mut values: Vec<f64>, digits: usize) -> String {
    values.sort_by(f64::total_cmp);
    let quarter = |number: usize| values.get(values.len() * number / 4);
    match (quarter(1), quarter(2), quarter(3)) {
        (Some(lower), Some(median), Some(upper)) => {
            format!("{median:.digits$} ({lower:.digits$} – {upper:.digits$})")
        }
        _ => String::from("–"),
    }
}
