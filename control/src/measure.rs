//! The I/O of analysis: asking a metric's provider. One file per provider, behind [`Provider`].
//!
//! What an answer *means* is decided in [`crate::analysis::verdict`]; when a metric is asked, in [`crate::analysis::run`].

pub mod counters;
mod figures;
pub mod proxy;
pub mod web;

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::analysis::expr::{Type, Value};
use crate::analysis::phase::Phase;
use crate::analysis::verdict::verdict;
use crate::api::analysis::{AnalysisRun, Measurement, Metric};
use crate::api::rollout::PLUGIN;

/// Longest a provider may take that has no limit of its own: beyond any timeout people set, so that a run never hangs.
const DEADLINE: Duration = Duration::from_secs(300);

/// What a provider is asked.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// The run that asks.
    pub run: &'a AnalysisRun,
    /// The metric, its placeholders filled, Secrets among them: nothing of it may be logged.
    pub metric: &'a Metric,
    /// The provider's block of it.
    pub block: &'a serde_json::Value,
    /// Now.
    pub now: Timestamp,
}

/// What a provider answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// A result, for the metric's conditions to judge.
    Result(Box<Answered>),
    /// Not yet: ask again then.
    Later(Timestamp),
    /// Not yet, and nobody knows when: look again then. A look in vain leaves no trace.
    Waiting(Timestamp),
}

/// A result.
#[derive(Clone, Debug)]
pub struct Answered {
    /// `result` in the conditions.
    pub value: Value,
    /// What is known of it beforehand.
    pub kind: Type,
    /// What people should know of how it came about.
    pub metadata: BTreeMap<String, String>,
    /// Why it may not count as a success, whatever the conditions say.
    pub doubt: Option<String>,
}

impl PartialEq for Answered {
    fn eq(&self, other: &Self) -> bool {
        self.value.to_json() == other.value.to_json()
            && self.kind == other.kind
            && self.metadata == other.metadata
            && self.doubt == other.doubt
    }
}

/// What a provider's answer is to the run that asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Measured {
    /// The measurement that the run records. It carries no time of its end: whoever records it knows.
    pub measurement: Measurement,
    /// When to look again, where the measurement does not say so.
    pub again: Option<Timestamp>,
}

/// Whoever can answer. Dropping the future gives the question up and leaves nothing behind.
pub trait Provider: Send + Sync + std::fmt::Debug {
    /// Asks. An error is text for people: it becomes the measurement's message.
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Answer, String>>;
}

/// The providers there are.
#[derive(Debug)]
pub struct Providers {
    /// `web`.
    pub web: web::Web,
    /// `plugin."sidestep/proxy"`.
    pub proxy: proxy::Proxy,
}

impl Providers {
    /// The provider that a metric names, and its block.
    fn find<'a>(
        &'a self,
        metric: &'a Metric,
    ) -> Result<(&'a dyn Provider, &'a serde_json::Value), String> {
        match Named::by(metric)? {
            Named::Web(block) => Ok((&self.web, block)),
            Named::Proxy(block) => Ok((&self.proxy, block)),
        }
    }
}

/// Why a metric could not be measured, if its provider is none that there is.
pub fn refusal(metric: &Metric) -> Option<String> {
    Named::by(metric).err()
}

/// A provider that there is, with what a metric says to it.
enum Named<'a> {
    Web(&'a serde_json::Value),
    Proxy(&'a serde_json::Value),
}

impl<'a> Named<'a> {
    fn by(metric: &'a Metric) -> Result<Self, String> {
        let Some((name, block)) = metric.provider.iter().next() else {
            return Err("no provider specified".to_owned());
        };
        match name.as_str() {
            "web" => Ok(Self::Web(block)),
            "plugin" => Self::by_plugin(block),
            other => Err(unsupported(other)),
        }
    }

    fn by_plugin(block: &'a serde_json::Value) -> Result<Self, String> {
        let plugins = block.as_object().filter(|plugins| plugins.len() == 1);
        let Some((name, block)) = plugins.and_then(|plugins| plugins.iter().next()) else {
            return Err("provider plugin: exactly one plugin must be named".to_owned());
        };
        match name.as_str() {
            PLUGIN => Ok(Self::Proxy(block)),
            other => Err(unsupported(&format!("plugin.\"{other}\""))),
        }
    }
}

fn unsupported(name: &str) -> String {
    format!("provider {name} is not supported; there are web and plugin.\"{PLUGIN}\"",)
}

/// Asks a metric's provider and judges the answer.
///
/// `open` is the measurement in flight that is gone on with, if one is. Dropping the future gives the measurement up.
pub async fn measure(
    providers: &Providers,
    run: &AnalysisRun,
    metric: &Metric,
    open: Option<&Measurement>,
    now: Timestamp,
) -> Measured {
    noted(metric, asked(providers, run, metric, now).await, open, now)
}

fn noted(
    metric: &Metric,
    answer: Result<Answer, String>,
    open: Option<&Measurement>,
    now: Timestamp,
) -> Measured {
    let started = open.and_then(|open| open.started_at.clone());
    let measurement = Measurement {
        started_at: started.or(Some(Time(now))),
        ..Measurement::default()
    };
    let running = |at| Measurement {
        phase: Phase::Running.as_str().to_owned(),
        resume_at: Some(Time(whole_seconds(at))),
        ..measurement.clone()
    };
    let (measurement, again) = match answer {
        Ok(Answer::Later(at)) => (running(at), None),
        Ok(Answer::Waiting(at)) => (open.cloned().unwrap_or_else(|| running(at)), Some(at)),
        Ok(Answer::Result(answered)) => (judged(metric, *answered, measurement), None),
        Err(message) => {
            let failed = Measurement {
                phase: Phase::Error.as_str().to_owned(),
                message: Some(message),
                ..measurement
            };
            (failed, None)
        }
    };
    Measured { measurement, again }
}

async fn asked(
    providers: &Providers,
    run: &AnalysisRun,
    metric: &Metric,
    now: Timestamp,
) -> Result<Answer, String> {
    let (provider, block) = providers.find(metric)?;
    let question = Question {
        run,
        metric,
        block,
        now,
    };
    match tokio::time::timeout(DEADLINE, provider.ask(question)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}

/// A status has whole seconds: a time to wait for is rounded up, or it would be early.
fn whole_seconds(at: Timestamp) -> Timestamp {
    let whole = at.as_second() + i64::from(at.subsec_nanosecond() > 0);
    Timestamp::from_second(whole).unwrap_or(at)
}

fn judged(metric: &Metric, answered: Answered, measurement: Measurement) -> Measurement {
    let Answered {
        value,
        kind,
        metadata,
        doubt,
    } = answered;
    let (phase, message) = match (verdict(metric, &value, &kind), doubt) {
        (Ok(Phase::Successful), Some(doubt)) => (Phase::Inconclusive, Some(doubt)),
        (Ok(phase), _) => (phase, None),
        (Err(error), _) => (Phase::Error, Some(error.to_string())),
    };
    Measurement {
        phase: phase.as_str().to_owned(),
        message,
        value: Some(value.to_json().to_string()),
        metadata,
        ..measurement
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_that_waits_for_what_nobody_knows_stays_as_it_was() {
        let time = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let look = |open: Option<&Measurement>, now: i64| {
            let answer = Ok(Answer::Waiting(time(now + 1)));
            noted(&Metric::default(), answer, open, time(now))
        };
        let first = look(None, 0);
        assert_eq!(first.measurement.resume_at, Some(Time(time(1))));
        for now in 1..10 {
            let next = look(Some(&first.measurement), now);
            assert_eq!(next.measurement, first.measurement);
            assert_eq!(next.again, Some(time(now + 1)));
        }
    }
}
