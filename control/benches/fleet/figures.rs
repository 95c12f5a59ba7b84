//! What a stretch of time cost.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::HEAP;
use super::follower::Fakes;

/// Where the counts stood at the beginning of a stretch.
pub(crate) struct Meter {
    begin: Instant,
    cpu: Duration,
    lines: u64,
}

pub(crate) struct Figures {
    seconds: f64,
    /// Of a core.
    share: f64,
    lines_per_second: f64,
    heap_kib: usize,
    /// From the moment a generation was given out until the view verified it, sorted.
    verified: Vec<Duration>,
}

impl Meter {
    pub(crate) async fn start(fakes: &mut Fakes) -> anyhow::Result<Self> {
        Ok(Self {
            lines: fakes.lines().await?,
            begin: Instant::now(),
            cpu: cpu()?,
        })
    }

    pub(crate) async fn read(
        self,
        fakes: &mut Fakes,
        verified: Vec<Duration>,
    ) -> anyhow::Result<Figures> {
        let seconds = self.begin.elapsed().as_secs_f64();
        let used = cpu()?.saturating_sub(self.cpu);
        let lines = u32::try_from(fakes.lines().await? - self.lines)?;
        Ok(Figures {
            seconds,
            share: used.as_secs_f64() / seconds,
            lines_per_second: f64::from(lines) / seconds,
            heap_kib: HEAP.allocated() / 1024,
            verified,
        })
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            seconds,
            share,
            lines_per_second,
            heap_kib,
            verified,
        } = self;
        let heap_mib = heap_kib / 1024;
        write!(
            f,
            "  {seconds:.1} s, {lines_per_second:.0} lines/s, CPU {share:.3} of a core, heap {heap_mib} MiB"
        )?;
        if verified.is_empty() {
            return Ok(());
        }
        let at = |percent: usize| {
            let index = (verified.len() - 1) * percent / 100;
            verified[index].as_secs_f64() * 1e3
        };
        write!(
            f,
            "\n  verified after p50 {:.1} ms, p99 {:.1} ms, at most {:.1} ms; n {}",
            at(50),
            at(99),
            at(100),
            verified.len()
        )
    }
}

/// What this process has used so far: user and system time.
fn cpu() -> anyhow::Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = fields.split(' ').skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.collect::<Result<Vec<u64>, _>>()?.into_iter().sum();
    // USER_HZ is 100 on every Linux that we run on.
    Ok(Duration::from_millis(ticks * 10))
}
