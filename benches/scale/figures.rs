//! What is read, and how it is printed.

use std::fmt;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::support::cluster::World;

/// The controller's pod and service account.
pub(crate) const CONTROLLER: &str = "controller";

/// Names and units of a row's columns.
pub(crate) const HEADER: &str = "rollouts  MiB     CPU %   writes  template to pod, ms          ready to verified, ms\n\
                                 \x20                                p50    p90    max    n      p50    p90    max    n";

/// What the controller has used so far.
#[derive(Debug)]
pub(crate) struct Reading {
    cpu_s: f64,
    resident_bytes: f64,
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
    /// As the controller's own metrics and the API server's audit log have it.
    pub(crate) async fn now(world: &World) -> Self {
        let pod = world.api::<Pod>().get(CONTROLLER).await.unwrap();
        let address = pod.status.unwrap().pod_ip.unwrap();
        let answer = reqwest::get(format!("http://{address}:8090/metrics")).await;
        let metrics = answer.unwrap().text().await.unwrap();
        let requests = world.requests(CONTROLLER);
        Self {
            cpu_s: value(&metrics, "process_cpu_seconds_total"),
            resident_bytes: value(&metrics, "process_resident_memory_bytes"),
            writes: requests.iter().filter(|request| request.writes()).count(),
        }
    }

    /// What was used since an earlier reading.
    pub(crate) fn since(&self, before: &Self, time: Duration) -> Cost {
        Cost {
            resident_mib: self.resident_bytes / 1024.0 / 1024.0,
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

/// A metric without labels.
fn value(metrics: &str, name: &str) -> f64 {
    let mut lines = metrics.lines();
    let found = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let text = found.expect("the process tells of itself");
    text.parse().unwrap()
}
