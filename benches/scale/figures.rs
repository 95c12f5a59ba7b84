//! What is read, and how it is printed.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::cluster::World;

/// The controller's pod and service account.
pub(crate) const CONTROLLER: &str = "controller";

/// Names and units of a row's columns.
pub(crate) const HEADER: &str = "\
rollouts  MiB     CPU %   writes  template to pod, ms        ready to served, ms        ready to verified, ms
                                    p50    p90    max    n     p50    p90    max    n     p50    p90    max    n";

/// What the controller has used so far.
#[derive(Debug)]
pub(crate) struct Reading {
    cpu_s: f64,
    resident_mib: f64,
    writes: usize,
}

/// What it uses over a time.
#[derive(Debug)]
pub(crate) struct Cost {
    resident_mib: f64,
    cpu_percent: f64,
    writes: usize,
}

/// Times of one kind.
#[derive(Debug, Default)]
pub(crate) struct Spread(Vec<Duration>);

impl Reading {
    /// As the system and the API server's audit log have it. The controller's own metric counts whole seconds.
    pub(crate) fn now(world: &World) -> Self {
        let process = process();
        let requests = world.requests(CONTROLLER);
        Self {
            cpu_s: cpu_s(&process),
            resident_mib: resident_mib(&process),
            writes: requests.iter().filter(|request| request.writes()).count(),
        }
    }

    /// What was used since an earlier reading.
    pub(crate) fn since(&self, before: &Self, time: Duration) -> Cost {
        Cost {
            resident_mib: self.resident_mib,
            cpu_percent: (self.cpu_s - before.cpu_s) / time.as_secs_f64() * 100.0,
            writes: self.writes - before.writes,
        }
    }
}

impl Spread {
    /// One more.
    pub(crate) fn add(&mut self, time: Duration) {
        let place = self.0.partition_point(|other| *other <= time);
        self.0.insert(place, time);
    }

    /// The time that this share of all, in percent, took at most, in ms.
    fn percentile(&self, percent: usize) -> f64 {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        self.0[place].as_secs_f64() * 1000.0
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            resident_mib,
            cpu_percent,
            writes,
        } = self;
        write!(f, "{resident_mib:6.1}  {cpu_percent:6.2}  {writes:6}")
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for percent in [50, 90, 100] {
            write!(f, "{:5.0}  ", self.percentile(percent))?;
        }
        write!(f, "{:4}", self.0.len())
    }
}

/// The controller's folder in `/proc`.
fn process() -> PathBuf {
    let words = [env!("CARGO_BIN_EXE_sidestep"), "controller"].map(str::as_bytes);
    let is_it = |folder: &PathBuf| {
        let line = std::fs::read(folder.join("cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).take(2).eq(words)
    };
    let all = std::fs::read_dir("/proc").unwrap();
    let mut folders = all.map(|entry| entry.unwrap().path());
    folders.find(is_it).expect("the controller runs")
}

/// User and system time.
fn cpu_s(process: &Path) -> f64 {
    let stat = std::fs::read_to_string(process.join("stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ');
    let ticks = fields
        .skip(11)
        .take(2)
        .map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / USER_HZ
}

fn resident_mib(process: &Path) -> f64 {
    let status = std::fs::read_to_string(process.join("status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: f64 = line
        .unwrap()
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .unwrap();
    kib / 1024.0
}

/// The unit of times in `/proc`, on every Linux there is.
const USER_HZ: f64 = 100.0;
