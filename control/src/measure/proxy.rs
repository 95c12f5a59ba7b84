//! The provider `plugin."sidestep/proxy"`: what the proxies themselves saw of a version.
//!
//! A measurement is what the proxies have counted within a window. It holds nothing that ended before the run, or before the moment every
//! proxy acknowledged the step's weight, and nothing that was heard before the end of the measurement before: no requests that were split
//! otherwise, and none twice. Proxies tell what they count from time to time, so a window begins that much after the run or the weight, and
//! is read when all of them have told of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;

use super::counters::{Counters, Start, Told, VersionKey, Window};
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

/// A window is read when no proxy is still to tell of more than this part of it. Proxies that are few tell at once; waiting for the last
/// fraction of a second would make each measurement start a second after it is due.
const UNTOLD: i32 = 10;

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
    /// Nothing in the window ended earlier.
    since: Timestamp,
    /// Nothing in the window was heard earlier: the measurement before has it.
    after: Option<Timestamp>,
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
        let since = began(&question).max(verified).unwrap_or(question.now);
        let subject = Subject {
            version: block.version.unwrap_or_else(|| CANARY.to_owned()),
            window,
            since,
            after: last_end(&question),
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
    let told = counters.told(&key, now);
    let from = match due(subject, told, now) {
        Ok(from) => from,
        Err(not_yet) => return Ok(not_yet),
    };
    let Some((told, window)) = told.zip(counters.window(&key, from, now)) else {
        return Err(format!(
            "no proxy reports Split {}/{}: nothing was counted",
            key.namespace, key.split
        ));
    };
    match window.start {
        Start::Known => {}
        Start::Unheard => return Ok(Answer::Waiting(later(now, NOT_YET))),
        Start::HeardFrom(heard) => {
            let full = later(heard, subject.window + now.duration_since(told.until));
            return Ok(Answer::Later(full.max(later(now, NOT_YET))));
        }
    }
    let beside = |version| counters.window(&self::key(split, version).ok()?, from, now);
    let other = match subject.version.as_str() {
        STABLE => beside(CANARY),
        _ => beside(STABLE),
    };
    let (own, other) = (Figures(&window), other.as_ref().map(Figures));
    // Read before it is compared: a window in which the canary could not carry its share tells nothing about it.
    let (tested, stable) = match subject.version.as_str() {
        STABLE => (other, Some(own.clone())),
        _ => (Some(own.clone()), other),
    };
    let seconds = now.duration_since(window.from).as_secs_f64();
    let mut result = own.to_value(seconds);
    let stable = stable.map(|stable| Value::Map(Arc::new(stable.to_value(seconds))));
    result.insert(Arc::from(STABLE), stable.unwrap_or_default());
    Ok(Answer::Result(Box::new(Answered {
        value: Value::Map(Arc::new(result)),
        kind: figures::kind(),
        metadata: metadata(&key, &window, told.until),
        doubt: tested.and_then(|tested| doubt(&tested)),
    })))
}

/// Where the window begins, or when to look again.
fn due(subject: &Subject, told: Option<Told>, now: Timestamp) -> Result<Timestamp, Answer> {
    let lag = told.map_or(SignedDuration::ZERO, |told| told.lag);
    let from = later(subject.since, lag);
    let from = subject.after.map_or(from, |after| from.max(after));
    let full = later(from, subject.window);
    if full > now {
        return Err(Answer::Later(full));
    }
    let Some(told) = told else {
        return Ok(from); // of which there is nothing to be had
    };
    let enough = later(full, -(subject.window / UNTOLD));
    if enough > told.until {
        let missing = enough.duration_since(told.until).min(told.lag);
        return Err(Answer::Waiting(later(now, missing.max(NOT_YET))));
    }
    Ok(from.max(later(told.until, -subject.window)))
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

fn metadata(key: &VersionKey, window: &Window, until: Timestamp) -> BTreeMap<String, String> {
    let mut metadata = BTreeMap::from([
        ("version".to_owned(), key.version.clone()),
        (
            "window".to_owned(),
            format!("{:.3} to {until:.3}", window.from),
        ),
        ("proxies".to_owned(), window.proxies.to_string()),
    ]);
    if !key.revision.is_empty() {
        metadata.insert("revision".to_owned(), key.revision.clone());
    }
    if !window.gone.is_empty() {
        let gone = window.gone.join(", ");
        metadata.insert(
            "partial".to_owned(),
            format!("left within the window: {gone}"),
        );
    }
    if window.mixed_buckets {
        let text = "no quantiles: the proxies count latencies in different buckets";
        metadata.insert("latency".to_owned(), text.to_owned());
    }
    metadata
}

fn doubt(tested: &Figures<'_>) -> Option<String> {
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
    #[derive(Debug)]
    struct Fleet {
        told: Option<Told>,
        canary: Window,
        stable: Window,
        asked: std::sync::Mutex<Vec<(String, Timestamp)>>,
    }

    impl Counters for Fleet {
        fn told(&self, _: &VersionKey, _: Timestamp) -> Option<Told> {
            self.told
        }

        fn window(&self, key: &VersionKey, from: Timestamp, _: Timestamp) -> Option<Window> {
            let mut asked = self.asked.lock().unwrap();
            asked.push((key.revision.clone(), from));
            let found = match key.version.as_str() {
                CANARY => self.canary.clone(),
                _ => self.stable.clone(),
            };
            Some(Window { from, ..found })
        }

        fn reach(&self) -> SignedDuration {
            SignedDuration::from_mins(10)
        }
    }

    /// One whose proxies tell at once.
    fn fleet(canary: Window, stable: Window) -> Fleet {
        Fleet {
            told: Some(told(40)),
            canary,
            stable,
            asked: std::sync::Mutex::default(),
        }
    }

    fn told(until: i64) -> Told {
        Told {
            until: time(until),
            lag: SignedDuration::ZERO,
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

    fn window(requests: u64, errors: u64) -> Window {
        Window {
            tally: Tally {
                requests,
                codes: BTreeMap::from([
                    ("200".to_owned(), requests - errors),
                    ("500".to_owned(), errors),
                ]),
                outcomes: BTreeMap::from([("ok".to_owned(), requests)]),
                ..Tally::default()
            },
            proxies: 2,
            ..Window::default()
        }
    }

    fn subject(version: &str, since: i64) -> Subject {
        Subject {
            version: version.to_owned(),
            window: SignedDuration::from_secs(30),
            since: time(since),
            after: None,
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
        let mut fleet = fleet(window(10, 0), Window::default());
        let mut at = |now: i64| {
            fleet.told = Some(told(now));
            take(&fleet, &split(), &subject(CANARY, 5), time(now))
        };
        assert_eq!(at(5), Ok(Answer::Later(time(35))));
        assert_eq!(at(34), Ok(Answer::Later(time(35))));
        assert!(matches!(at(35), Ok(Answer::Result(_))));
        assert!(matches!(at(60), Ok(Answer::Result(_))));
        let asked = fleet.asked.lock().unwrap().clone();
        let canary = asked.iter().filter(|(revision, _)| revision == "bbb");
        let canary: Vec<Timestamp> = canary.map(|(_, from)| *from).collect();
        assert_eq!(canary, [time(5), time(30)]);
    }

    /// Proxies tell every 9 s; the weight is verified at 0 and the window is of 30 s.
    #[test]
    fn a_window_holds_nothing_from_before_and_is_read_when_all_have_told() {
        let cases = [
            // now, told until, the measurement before, expected: read from then on, or looked at again then
            (20, 15, None, Err(Answer::Later(time(39)))),
            (40, 35, None, Err(Answer::Waiting(time(41)))),
            (40, 32, None, Err(Answer::Waiting(time(44)))),
            (40, 5, None, Err(Answer::Waiting(time(49)))),
            (40, 36, None, Ok(time(9))),
            (90, 81, None, Ok(time(51))),
            // What was heard up to the last measurement it has had; what was heard later is of this one, whenever it ended.
            (90, 87, Some(60), Ok(time(60))),
            (80, 75, Some(60), Err(Answer::Later(time(90)))),
            (40, 36, Some(3), Ok(time(9))),
        ];
        for (now, until, after, expected) in cases {
            let told = Told {
                until: time(until),
                lag: SignedDuration::from_secs(9),
            };
            let subject = Subject {
                after: after.map(time),
                ..subject(CANARY, 0)
            };
            let found = due(&subject, Some(told), time(now));
            assert_eq!(found, expected, "{now} {until} {after:?}");
        }
    }

    #[test]
    fn a_proxy_heard_late_is_waited_for() {
        let late = Window {
            start: Start::HeardFrom(time(20)),
            ..window(10, 0)
        };
        let mut fleet = fleet(late, Window::default());
        let look = |fleet: &Fleet| take(fleet, &split(), &subject(CANARY, 0), time(40));
        assert_eq!(look(&fleet), Ok(Answer::Later(time(50))));
        fleet.told = Some(told(37));
        assert_eq!(
            look(&fleet),
            Ok(Answer::Later(time(53))),
            "it tells 3 s later"
        );
        fleet.canary.start = Start::HeardFrom(time(8));
        assert_eq!(
            look(&fleet),
            Ok(Answer::Later(time(41))),
            "never at once: that would be a loop"
        );
    }

    /// One that was killed comes back, or leaves: nobody knows when.
    #[test]
    fn a_proxy_that_is_not_heard_is_waited_for_and_asked_about_again() {
        let silent = Window {
            start: Start::Unheard,
            ..window(10, 0)
        };
        let fleet = fleet(silent, Window::default());
        let answer = take(&fleet, &split(), &subject(CANARY, 0), time(40));
        assert_eq!(answer, Ok(Answer::Waiting(time(41))));
    }

    #[test]
    fn the_result_holds_the_version_and_stable_beside_it() {
        let fleet = fleet(window(100, 3), window(900, 9));
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
        let fleet = fleet(window(1, 0), Window::default());
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
        let mut short = window(10, 0);
        short.tally.fallback = BTreeMap::from([("unready".to_owned(), 4)]);
        let fleet = fleet(short, window(90, 0));
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
        let one_left = Window {
            gone: vec!["proxy-2".to_owned()],
            ..window(1, 0)
        };
        let fleet = fleet(one_left, Window::default());
        let metadata = answered(&fleet, CANARY).metadata;
        assert_eq!(metadata["partial"], "left within the window: proxy-2");
        assert_eq!(metadata["proxies"], "2");
    }

    #[test]
    fn what_cannot_be_measured_is_said() {
        let take = |version: &str| {
            let mut fleet = fleet(Window::default(), Window::default());
            fleet.told = None;
            take(&fleet, &split(), &subject(version, 0), time(40)).unwrap_err()
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
