//! The provider `plugin."sidestep/proxy"`: what the proxies themselves saw of a version.
//!
//! A measurement is the difference of two points in the history of the proxies' counters, a whole window apart. The window starts
//! no earlier than the run, than the moment every proxy acknowledged the step's weight, and than the end of the measurement
//! before: it never holds requests that were split otherwise, and none is counted twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::counters::{Counters, Span, Start, VersionKey};
use super::figures::{self, Figures};
use super::{Answer, Answered, Provider, Question};
use crate::analysis::duration;
use crate::analysis::expr::Value;
use crate::api::analysis::AnalysisRun;
use crate::api::{Rollout, Split};
use crate::wire::Collection;

/// Length of a window unless the metric says otherwise: 30 s.
const WINDOW: SignedDuration = SignedDuration::from_secs(30);

/// Time to the next look at a weight that is not verified yet, or at a proxy that is not heard.
const NOT_YET: SignedDuration = SignedDuration::from_secs(1);

/// The version that a metric is about unless it says otherwise.
const CANARY: &str = "canary";

/// The version that others are held against.
const STABLE: &str = "stable";

/// The provider.
#[derive(Clone)]
pub struct Proxy {
    client: kube::Client,
    counters: Arc<dyn Counters>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy")
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

/// The block `provider.plugin."sidestep/proxy"`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Block {
    /// The Split; absent means the Rollout's own.
    #[serde(default)]
    split: Option<String>,
    /// `canary` (the default), `stable`, or any version of the Split.
    #[serde(default)]
    version: Option<String>,
    /// Length of a window, a Go duration; absent means 30s.
    #[serde(default)]
    window: Option<String>,
}

/// What a measurement is taken of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Subject {
    version: String,
    window: SignedDuration,
    /// The window starts no earlier.
    since: Timestamp,
}

impl Proxy {
    /// A provider that reads Splits through `client` and counters from `counters`.
    #[must_use]
    pub fn new(client: kube::Client, counters: Arc<dyn Counters>) -> Self {
        Self { client, counters }
    }

    async fn measured(&self, question: Question<'_>) -> Result<Answer, String> {
        let block = Block::deserialize(question.block)
            .map_err(|error| format!("provider sidestep/proxy: {error}"))?;
        let window = self.window(block.window.as_deref())?;
        let namespace = question
            .run
            .metadata
            .namespace
            .as_deref()
            .unwrap_or_default();
        let rollout = owner(question.run);
        let name = block.split.as_deref().or(rollout).ok_or_else(|| {
            "provider sidestep/proxy: the run belongs to no Rollout, so split must be named"
                .to_owned()
        })?;
        let split = self.split(namespace, name).await?;
        let own = rollout.filter(|rollout| *rollout == name);
        let Some(verified) = self.verified(namespace, own, &split).await? else {
            return Ok(Answer::Waiting(later(question.now, NOT_YET)));
        };
        let since = [began(&question), verified, last_end(&question)]
            .into_iter()
            .flatten()
            .max()
            .unwrap_or(question.now);
        let subject = Subject {
            version: block.version.unwrap_or_else(|| CANARY.to_owned()),
            window,
            since,
        };
        take(&*self.counters, &split, &subject, question.now)
    }

    fn window(&self, text: Option<&str>) -> Result<SignedDuration, String> {
        let window = match text {
            None => WINDOW,
            Some(text) => duration::parse(text)
                .map_err(|error| format!("provider sidestep/proxy: window: {error}"))?,
        };
        let reach = self.counters.reach();
        if window <= SignedDuration::ZERO || window > reach {
            return Err(format!(
                "provider sidestep/proxy: window: {} is not above 0s and up to {}, as far back as counters are kept",
                duration::format(window),
                duration::format(reach)
            ));
        }
        Ok(window)
    }

    async fn split(&self, namespace: &str, name: &str) -> Result<Split, String> {
        let splits = Collection::<Split>::within(&self.client, namespace);
        match splits.get_opt(name).await {
            Ok(Some(split)) => Ok(split),
            Ok(None) => Err(format!(
                "Split {namespace}/{name} not found: the proxies count per version where a Split governs the Services \
                 (trafficRouting.plugins.\"sidestep/proxy\")"
            )),
            Err(error) => Err(format!("reading Split {namespace}/{name}: {error}")),
        }
    }

    /// Since when the weight in force is acknowledged: `None` is not yet; a Split of no Rollout need not be.
    async fn verified(
        &self,
        namespace: &str,
        rollout: Option<&str>,
        split: &Split,
    ) -> Result<Option<Option<Timestamp>>, String> {
        let memory = split
            .status
            .as_ref()
            .and_then(|status| status.memory.verified.as_ref());
        let at = memory.map(|verified| verified.at.0);
        let Some(name) = rollout else {
            return Ok(Some(at));
        };
        let rollouts = Collection::<Rollout>::within(&self.client, namespace);
        let rollout = rollouts
            .get_opt(name)
            .await
            .map_err(|error| format!("reading Rollout {namespace}/{name}: {error}"))?;
        let weights = rollout
            .and_then(|rollout| rollout.status)
            .and_then(|status| status.canary.weights);
        let unverified = weights.and_then(|weights| weights.verified) == Some(false);
        Ok((at.is_some() && !unverified).then_some(at))
    }
}

impl Provider for Proxy {
    fn ask<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Result<Answer, String>> {
        self.measured(question).boxed()
    }
}

/// The name of the Rollout that a run belongs to.
fn owner(run: &AnalysisRun) -> Option<&str> {
    let owners = run.metadata.owner_references.as_deref().unwrap_or_default();
    owners
        .iter()
        .find(|owner| owner.kind == "Rollout" && owner.api_version.starts_with("argoproj.io/"))
        .map(|owner| owner.name.as_str())
}

fn began(question: &Question<'_>) -> Option<Timestamp> {
    let status = question.run.status.as_ref()?;
    status.started_at.as_ref().map(|time| time.0)
}

/// The end of the metric's last measurement.
fn last_end(question: &Question<'_>) -> Option<Timestamp> {
    let results = &question.run.status.as_ref()?.metric_results;
    let result = results
        .iter()
        .find(|result| result.name == question.metric.name)?;
    let ends = result.measurements.iter().rev();
    ends.filter_map(|measurement| measurement.finished_at.as_ref())
        .map(|time| time.0)
        .next()
}

fn later(now: Timestamp, wait: SignedDuration) -> Timestamp {
    now.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Takes a measurement, or says when the window will have filled.
fn take(
    counters: &dyn Counters,
    split: &Split,
    subject: &Subject,
    now: Timestamp,
) -> Result<Answer, String> {
    let key = key(split, &subject.version)?;
    let full = later(subject.since, subject.window);
    if full > now {
        return Ok(Answer::Later(full));
    }
    let from = now.checked_sub(subject.window).unwrap_or(Timestamp::MIN);
    let spans = counters.between(&key, from, now);
    if spans.is_empty() {
        return Err(format!(
            "no proxy reports Split {}/{}: nothing was counted",
            key.namespace, key.split
        ));
    }
    if spans.iter().any(|span| span.start == Start::Unheard) {
        return Ok(Answer::Waiting(later(now, NOT_YET)));
    }
    if let Some(heard) = last_heard(&spans) {
        return Ok(Answer::Later(later(heard, subject.window)));
    }
    let own = Figures::sum(&spans);
    // Read before it is compared: a window in which the canary could not carry its share tells nothing about it.
    let tested = match subject.version.as_str() {
        STABLE => figures_of(counters, split, CANARY, from, now),
        _ => Some(own.clone()),
    };
    let stable = match subject.version.as_str() {
        STABLE => Some(own.clone()),
        _ => figures_of(counters, split, STABLE, from, now),
    };
    let seconds = subject.window.as_secs_f64();
    let mut result = own.to_value(seconds);
    let stable = stable.map(|stable| Value::Map(Arc::new(stable.to_value(seconds))));
    result.insert(Arc::from(STABLE), stable.unwrap_or_default());
    Ok(Answer::Result(Box::new(Answered {
        value: Value::Map(Arc::new(result)),
        kind: figures::kind(),
        metadata: metadata(&key, from, now, spans.len(), &own),
        doubt: tested.and_then(|tested| doubt(&tested)),
    })))
}

fn key(split: &Split, version: &str) -> Result<VersionKey, String> {
    let name = split.metadata.name.clone().unwrap_or_default();
    let found = split
        .spec
        .versions
        .iter()
        .find(|known| known.name == version);
    let Some(found) = found else {
        let known: Vec<&str> = split
            .spec
            .versions
            .iter()
            .map(|v| v.name.as_str())
            .collect();
        return Err(format!(
            "Split {name} has no version {version:?}; there are {}",
            known.join(", ")
        ));
    };
    Ok(VersionKey {
        namespace: split.metadata.namespace.clone().unwrap_or_default(),
        split: name,
        uid: split.metadata.uid.clone().unwrap_or_default(),
        version: version.to_owned(),
        revision: found.revision.clone().unwrap_or_default(),
    })
}

fn figures_of(
    counters: &dyn Counters,
    split: &Split,
    version: &str,
    from: Timestamp,
    now: Timestamp,
) -> Option<Figures> {
    let key = key(split, version).ok()?;
    Some(Figures::sum(&counters.between(&key, from, now)))
}

/// When the last proxy was heard whose counters at the start are not known.
fn last_heard(spans: &[Span]) -> Option<Timestamp> {
    spans
        .iter()
        .filter_map(|span| match &span.start {
            Start::HeardFrom(heard) => Some(*heard),
            Start::At(_) | Start::Zero | Start::Unheard => None,
        })
        .max()
}

fn metadata(
    key: &VersionKey,
    from: Timestamp,
    until: Timestamp,
    proxies: usize,
    figures: &Figures,
) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("version".to_owned(), key.version.clone()),
        ("window".to_owned(), format!("{from:.3} to {until:.3}")),
        ("proxies".to_owned(), proxies.to_string()),
    ]);
    if !key.revision.is_empty() {
        metadata.insert("revision".to_owned(), key.revision.clone());
    }
    if !figures.gone.is_empty() {
        let gone = figures.gone.join(", ");
        metadata.insert(
            "partial".to_owned(),
            format!("left within the window: {gone}"),
        );
    }
    if figures.mixed_buckets {
        let text = "no quantiles: the proxies count latencies in different buckets";
        metadata.insert("latency".to_owned(), text.to_owned());
    }
    metadata
}

fn doubt(tested: &Figures) -> Option<String> {
    let fallback = tested.fallback();
    (fallback > 0).then(|| {
        format!(
            "{fallback} requests meant for the version went elsewhere, because it could not carry its share ({}): the window \
             proves nothing good",
            tested.fallback_reasons()
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::counters::Tally;
    use super::*;

    /// What the fleet would say, by version; and from when it was asked.
    #[derive(Debug, Default)]
    struct Fleet {
        canary: Vec<Span>,
        stable: Vec<Span>,
        asked: std::sync::Mutex<Vec<(String, Timestamp, Timestamp)>>,
    }

    impl Counters for Fleet {
        fn between(&self, key: &VersionKey, from: Timestamp, until: Timestamp) -> Vec<Span> {
            let mut asked = self.asked.lock().unwrap();
            asked.push((key.revision.clone(), from, until));
            match key.version.as_str() {
                CANARY => self.canary.clone(),
                _ => self.stable.clone(),
            }
        }

        fn reach(&self) -> SignedDuration {
            SignedDuration::from_mins(10)
        }
    }

    fn time(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn split() -> Split {
        serde_json::from_value(json!({
            "apiVersion": "sidestep.dev/v1alpha1", "kind": "Split",
            "metadata": {"name": "shop", "namespace": "prod", "uid": "u"},
            "spec": {"versions": [
                {"name": "stable", "revision": "aaa", "service": "s"},
                {"name": "canary", "revision": "bbb", "service": "c"},
            ]},
        }))
        .unwrap()
    }

    fn span(requests: u64, errors: u64) -> Span {
        Span {
            instance: "proxy-1".to_owned(),
            start: Start::Zero,
            end: Arc::new(Tally {
                requests,
                codes: BTreeMap::from([
                    ("200".to_owned(), requests - errors),
                    ("500".to_owned(), errors),
                ]),
                outcomes: BTreeMap::from([("ok".to_owned(), requests)]),
                ..Tally::default()
            }),
            in_flight: 0,
            oldest_in_flight_ms: None,
            gone: false,
        }
    }

    fn subject(version: &str, since: i64) -> Subject {
        Subject {
            version: version.to_owned(),
            window: SignedDuration::from_secs(30),
            since: time(since),
        }
    }

    fn answered(fleet: &Fleet, version: &str) -> Answered {
        match take(fleet, &split(), &subject(version, 0), time(40)) {
            Ok(Answer::Result(answered)) => *answered,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_window_must_have_filled() {
        let fleet = Fleet {
            canary: vec![span(10, 0)],
            ..Fleet::default()
        };
        let at = |now: i64| take(&fleet, &split(), &subject(CANARY, 5), time(now));
        assert_eq!(at(5), Ok(Answer::Later(time(35))));
        assert_eq!(at(34), Ok(Answer::Later(time(35))));
        assert!(matches!(at(35), Ok(Answer::Result(_))));
        assert!(matches!(at(60), Ok(Answer::Result(_))));
        let asked = fleet.asked.lock().unwrap().clone();
        let canary: Vec<_> = asked
            .iter()
            .filter(|(revision, ..)| revision == "bbb")
            .collect();
        assert_eq!(canary[0], &("bbb".to_owned(), time(5), time(35)));
        assert_eq!(canary[1], &("bbb".to_owned(), time(30), time(60)));
    }

    #[test]
    fn a_proxy_heard_late_is_waited_for() {
        let late = Span {
            start: Start::HeardFrom(time(20)),
            ..span(10, 0)
        };
        let fleet = Fleet {
            canary: vec![span(10, 0), late],
            ..Fleet::default()
        };
        let answer = take(&fleet, &split(), &subject(CANARY, 0), time(40));
        assert_eq!(answer, Ok(Answer::Later(time(50))));
    }

    /// One that was killed comes back, or leaves: nobody knows when.
    #[test]
    fn a_proxy_that_is_not_heard_is_waited_for_and_asked_about_again() {
        let silent = Span {
            start: Start::Unheard,
            ..span(10, 0)
        };
        let fleet = Fleet {
            canary: vec![span(10, 0), silent],
            ..Fleet::default()
        };
        let answer = take(&fleet, &split(), &subject(CANARY, 0), time(40));
        assert_eq!(answer, Ok(Answer::Waiting(time(41))));
    }

    #[test]
    fn the_result_holds_the_version_and_stable_beside_it() {
        let fleet = Fleet {
            canary: vec![span(100, 3)],
            stable: vec![span(900, 9)],
            ..Fleet::default()
        };
        let canary = answered(&fleet, CANARY).value.to_json();
        assert_eq!(
            (&canary["requests"], &canary["errorRate"]),
            (&json!(100), &json!(0.03))
        );
        assert_eq!(canary["stable"]["errorRate"], json!(0.01));
        let stable = answered(&fleet, STABLE).value.to_json();
        assert_eq!(
            (&stable["requests"], &stable["stable"]["requests"]),
            (&json!(900), &json!(900))
        );
    }

    #[test]
    fn every_field_of_the_result_is_known_beforehand() {
        let fleet = Fleet {
            canary: vec![span(1, 0)],
            ..Fleet::default()
        };
        let answered = answered(&fleet, CANARY);
        let (crate::analysis::expr::Type::Object(kind), Value::Map(value)) =
            (&answered.kind, &answered.value)
        else {
            panic!("an object")
        };
        assert!(kind.keys().copied().eq(value.keys().map(|key| &**key)));
    }

    #[test]
    fn a_window_with_fallback_is_in_doubt_whichever_version_is_measured() {
        let mut short = span(10, 0);
        let mut tally = (*short.end).clone();
        tally.fallback = BTreeMap::from([("unready".to_owned(), 4)]);
        short.end = Arc::new(tally);
        let fleet = Fleet {
            canary: vec![short],
            stable: vec![span(90, 0)],
            ..Fleet::default()
        };
        for version in [CANARY, STABLE] {
            let doubt = answered(&fleet, version).doubt.unwrap();
            assert!(
                doubt.starts_with("4 requests") && doubt.contains("unready 4"),
                "{doubt}"
            );
        }
        assert_eq!(answered(&fleet, CANARY).value.to_json()["fallback"], 4);
    }

    #[test]
    fn a_proxy_that_left_is_named() {
        let fleet = Fleet {
            canary: vec![
                span(1, 0),
                Span {
                    instance: "proxy-2".to_owned(),
                    gone: true,
                    ..span(1, 0)
                },
            ],
            ..Fleet::default()
        };
        let metadata = answered(&fleet, CANARY).metadata;
        assert_eq!(metadata["partial"], "left within the window: proxy-2");
        assert_eq!(metadata["proxies"], "2");
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let take = |version: &str| {
            take(&Fleet::default(), &split(), &subject(version, 0), time(40)).unwrap_err()
        };
        assert_eq!(
            take(CANARY),
            "no proxy reports Split prod/shop: nothing was counted"
        );
        assert_eq!(
            take("beta"),
            "Split shop has no version \"beta\"; there are stable, canary"
        );
    }
}
