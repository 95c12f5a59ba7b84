//! Plays the Job controller: pods that run to their end; the exit code decides.
//!
//! The pause before a failed pod is replaced begins at 1 s, not 10 s, and doubles to 6 min. Refused, because a Job would not do what
//! was asked for: `completionMode: Indexed`, `podFailurePolicy`, `successPolicy`. A pod that was deleted is neither a success nor a
//! failure: another takes its place.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::kinds;
use super::notes::{self, Tone};
use super::owners;
use super::podstatus::condition_is_true;
use super::store::{self, Change, Deletion, Error, Object, Propagation, Store};
use super::workloads::{Again, Key, Player};

/// The Job controller.
#[derive(Debug)]
pub(super) struct Jobs;

impl Player for Jobs {
    fn all(&mut self, store: &Store) -> Vec<Key> {
        store
            .list(&kinds::JOB, None)
            .objects
            .iter()
            .map(Key::of)
            .collect()
    }

    fn concerned(&mut self, _: &Store, change: &Change) -> Vec<Key> {
        if change.kind == &kinds::JOB {
            return vec![Key::of(&change.object)];
        }
        if change.kind != &kinds::POD {
            return Vec::new();
        }
        let name = owners::controller_name(&change.object, &kinds::JOB);
        let namespace = store::text(&change.object, "namespace");
        name.map(|name| Key {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
        .into_iter()
        .collect()
    }

    fn settle(&mut self, store: &Store, key: &Key, now: Timestamp) -> Result<Again, Error> {
        let Some(job) = store.get(&kinds::JOB, &key.namespace, &key.name) else {
            return Ok(None);
        };
        if store::is_deleting(&job) {
            return Ok(None);
        }
        if let Some(ended) = ended(&job) {
            return clean_up(store, &job, ended, now);
        }
        let pods = owners::controlled(store, &kinds::POD, &key.namespace, &job);
        let seen = Seen::of(&job, &pods, now);
        let again = match judge(&job, &seen) {
            Verdict::Complete => None,
            Verdict::Failed { reason, message } => {
                let condition = (reason, message.as_str());
                end(store, &job, &pods, &seen, "Failed", condition, now)?;
                return Ok(Some(Duration::ZERO));
            }
            Verdict::Suspended => {
                delete_active(store, &pods)?;
                None
            }
            Verdict::Run(pause) if pause.is_zero() => {
                fill_up(store, &job, &seen)?;
                seen.deadline
            }
            Verdict::Run(pause) => {
                Some(seen.deadline.map_or(pause, |deadline| deadline.min(pause)))
            }
        };
        let pods = owners::controlled(store, &kinds::POD, &key.namespace, &job);
        let seen = Seen::of(&job, &pods, now);
        if seen.is_complete() {
            let condition = (
                "CompletionsReached",
                "Reached expected number of succeeded pods",
            );
            end(store, &job, &pods, &seen, "Complete", condition, now)?;
            return Ok(Some(Duration::ZERO));
        }
        owners::write_status(
            store,
            &kinds::JOB,
            &job,
            &Value::Object(counts(&job, &seen, now)),
        )?;
        Ok(again)
    }
}

/// What is to become of a Job.
#[derive(Clone, Debug, PartialEq)]
enum Verdict {
    /// Enough pods have succeeded.
    Complete,
    /// It will not succeed any more.
    Failed {
        reason: &'static str,
        message: String,
    },
    /// It is not to run now.
    Suspended,
    /// Its missing pods are made after this time.
    Run(Duration),
}

/// A Job's pods, counted.
#[derive(Clone, Debug, PartialEq)]
struct Seen {
    active: u64,
    ready: u64,
    succeeded: u64,
    failed: u64,
    /// Restarts of containers in pods that run.
    restarts: u64,
    /// Successes that are wanted; none means that one ends it all, once nothing runs.
    completions: Option<u64>,
    /// Time since the last pod failed.
    since_failure: Duration,
    /// Time that is left to it; zero when it is over.
    deadline: Option<Duration>,
}

impl Seen {
    fn of(job: &Value, pods: &[Object], now: Timestamp) -> Self {
        let count = |is: &dyn Fn(&Value) -> bool| pods.iter().filter(|pod| is(pod)).count() as u64;
        let phase = |phase: &'static str| move |pod: &Value| pod["status"]["phase"] == phase;
        let restarts = pods.iter().filter(|pod| owners::is_active(pod));
        let restarts = restarts
            .map(|pod| {
                pod["status"]["containerStatuses"][0]["restartCount"]
                    .as_u64()
                    .unwrap_or(0)
            })
            .sum();
        let failed = pods.iter().filter(|pod| phase("Failed")(pod));
        let last_failure = failed.filter_map(|pod| finished(pod)).max();
        let left = job["spec"]["activeDeadlineSeconds"]
            .as_i64()
            .map(SignedDuration::from_secs)
            .map(|limit| {
                limit
                    - started(job)
                        .map_or(SignedDuration::ZERO, |started| now.duration_since(started))
            });
        Self {
            active: count(&owners::is_active),
            ready: count(&|pod| owners::is_active(pod) && owners::ready_since(pod).is_some()),
            succeeded: count(&phase("Succeeded")),
            failed: count(&phase("Failed")),
            restarts,
            completions: job["spec"]["completions"].as_u64(),
            since_failure: last_failure
                .map_or(Duration::MAX, |last| unsigned(now.duration_since(last))),
            deadline: left.map(unsigned),
        }
    }

    fn is_complete(&self) -> bool {
        match self.completions {
            Some(wanted) => self.succeeded >= wanted,
            None => self.succeeded > 0 && self.active == 0,
        }
    }
}

fn unsigned(duration: SignedDuration) -> Duration {
    duration.try_into().unwrap_or(Duration::ZERO)
}

fn started(job: &Value) -> Option<Timestamp> {
    job["status"]["startTime"].as_str()?.parse().ok()
}

/// When a pod's container ended.
fn finished(pod: &Value) -> Option<Timestamp> {
    pod.pointer("/status/containerStatuses/0/state/terminated/finishedAt")?
        .as_str()?
        .parse()
        .ok()
}

/// What is to become of a Job, by its spec and its pods.
fn judge(job: &Value, seen: &Seen) -> Verdict {
    let spec = &job["spec"];
    let failed = |reason, message: &str| Verdict::Failed {
        reason,
        message: message.to_owned(),
    };
    let refused = [
        (
            spec["completionMode"] == "Indexed",
            "completionMode: Indexed",
        ),
        (spec.get("podFailurePolicy").is_some(), "podFailurePolicy"),
        (spec.get("successPolicy").is_some(), "successPolicy"),
    ];
    if let Some((_, field)) = refused.into_iter().find(|(is, _)| *is) {
        return failed(
            "NotSupported",
            &format!("spec.{field} is not supported on one machine"),
        );
    }
    let limit = spec["backoffLimit"].as_u64().unwrap_or(BACK_OFF_LIMIT);
    let on_failure = spec["template"]["spec"]["restartPolicy"] == "OnFailure";
    if seen.is_complete() {
        Verdict::Complete
    } else if seen.failed > limit || on_failure && seen.restarts > 0 && seen.restarts >= limit {
        failed(
            "BackoffLimitExceeded",
            "Job has reached the specified backoff limit",
        )
    } else if seen.deadline.is_some_and(|left| left.is_zero()) {
        failed(
            "DeadlineExceeded",
            "Job was active longer than specified deadline",
        )
    } else if spec["suspend"] == true {
        Verdict::Suspended
    } else {
        Verdict::Run(pause(seen.failed).saturating_sub(seen.since_failure))
    }
}

/// How long after the last of so many failures the next pod is made.
fn pause(failed: u64) -> Duration {
    let doublings = u32::try_from(failed.saturating_sub(1))
        .unwrap_or(u32::MAX)
        .min(16);
    if failed == 0 {
        Duration::ZERO
    } else {
        (PAUSE_MIN * 2_u32.pow(doublings)).min(PAUSE_MAX)
    }
}

/// Makes the pods that are missing.
fn fill_up(store: &Store, job: &Value, seen: &Seen) -> Result<(), Error> {
    let parallelism = job["spec"]["parallelism"].as_u64().unwrap_or(1);
    let wanted = match seen.completions {
        Some(completions) => parallelism.min(completions.saturating_sub(seen.succeeded)),
        None if seen.succeeded > 0 => seen.active,
        None => parallelism,
    };
    for _ in seen.active..wanted {
        let pod = owners::create_pod(store, job, &job["spec"]["template"])?;
        let message = format!("Created pod: {}", store::text(&pod, "name"));
        notes::note(
            store,
            job,
            COMPONENT,
            Tone::Normal,
            "SuccessfulCreate",
            &message,
        );
    }
    Ok(())
}

fn delete_active(store: &Store, pods: &[Object]) -> Result<(), Error> {
    let mut active = pods.iter().filter(|pod| owners::is_active(pod));
    active.try_for_each(|pod| owners::delete(store, &kinds::POD, pod))
}

fn counts(job: &Value, seen: &Seen, now: Timestamp) -> Map<String, Value> {
    let mut status = Map::new();
    let suspended = job["spec"]["suspend"] == true;
    if !suspended {
        let started = job["status"]["startTime"]
            .as_str()
            .map_or_else(|| store::whole_seconds(now), str::to_owned);
        status.insert("startTime".to_owned(), json!(started));
    }
    status.insert("ready".to_owned(), json!(seen.ready));
    status.insert("terminating".to_owned(), json!(0));
    for (field, count) in [
        ("active", seen.active),
        ("succeeded", seen.succeeded),
        ("failed", seen.failed),
    ] {
        if count > 0 {
            status.insert(field.to_owned(), json!(count));
        }
    }
    if suspended {
        let now = store::whole_seconds(now);
        let condition = owners::condition(
            job,
            "Suspended",
            "True",
            "JobSuspended",
            "Job suspended",
            &now,
        );
        status.insert("conditions".to_owned(), json!([condition]));
    }
    status
}

/// Ends a Job: no pod of it runs on, and a condition says how it ended.
fn end(
    store: &Store,
    job: &Value,
    pods: &[Object],
    seen: &Seen,
    how: &str,
    (reason, message): (&str, &str),
    now: Timestamp,
) -> Result<(), Error> {
    delete_active(store, pods)?;
    let seen = Seen {
        active: 0,
        ready: 0,
        ..seen.clone()
    };
    let mut status = counts(job, &seen, now);
    let at = store::whole_seconds(now);
    if how == "Complete" {
        status.insert("completionTime".to_owned(), json!(at));
    }
    let mut condition = owners::condition(job, how, "True", reason, message, &at);
    condition["lastProbeTime"] = json!(at);
    status.insert("conditions".to_owned(), json!([condition]));
    owners::write_status(store, &kinds::JOB, job, &Value::Object(status))?;
    let (tone, event) = if how == "Complete" {
        (Tone::Normal, "Completed")
    } else {
        (Tone::Warning, reason)
    };
    notes::note(store, job, COMPONENT, tone, event, message);
    Ok(())
}

/// When a Job ended, if it has.
fn ended(job: &Value) -> Option<Timestamp> {
    let how = ["Complete", "Failed"]
        .into_iter()
        .find(|how| condition_is_true(job, how))?;
    let condition = super::podstatus::find_condition(job, how)?;
    condition["lastTransitionTime"].as_str()?.parse().ok()
}

/// Deletes an ended Job when its `ttlSecondsAfterFinished` is over.
fn clean_up(store: &Store, job: &Value, ended: Timestamp, now: Timestamp) -> Result<Again, Error> {
    let Some(ttl) = job["spec"]["ttlSecondsAfterFinished"].as_i64() else {
        return Ok(None);
    };
    let left = SignedDuration::from_secs(ttl) - now.duration_since(ended);
    if left.is_positive() {
        return Ok(Some(unsigned(left)));
    }
    let deletion = Deletion {
        uid: Some(store::text(job, "uid").to_owned()),
        propagation: Some(Propagation::Foreground),
        ..Deletion::default()
    };
    owners::delete_as(store, &kinds::JOB, job, &deletion)?;
    Ok(None)
}

/// Who notes.
const COMPONENT: &str = "job-controller";
/// Failures that are allowed where a Job does not say (Kubernetes).
const BACK_OFF_LIMIT: u64 = 6;
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// As in Kubernetes.
const PAUSE_MAX: Duration = Duration::from_secs(360);

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Seen = Seen {
        active: 0,
        ready: 0,
        succeeded: 0,
        failed: 0,
        restarts: 0,
        completions: Some(1),
        since_failure: Duration::MAX,
        deadline: None,
    };

    #[test]
    fn a_job_is_judged_by_its_pods() {
        let never =
            json!({"spec": {"backoffLimit": 1, "template": {"spec": {"restartPolicy": "Never"}}}});
        let on_failure = json!({"spec": {"backoffLimit": 1, "template": {"spec": {"restartPolicy": "OnFailure"}}}});
        let indexed = json!({"spec": {"completionMode": "Indexed"}});
        let suspended = json!({"spec": {"suspend": true}});
        let word = |verdict: Verdict| match verdict {
            Verdict::Complete => "Complete".to_owned(),
            Verdict::Failed { reason, .. } => reason.to_owned(),
            Verdict::Suspended => "Suspended".to_owned(),
            Verdict::Run(pause) => format!("run in {} ms", pause.as_millis()),
        };
        let check = |job: &Value, seen: Seen, expected: &str| {
            assert_eq!(word(judge(job, &seen)), expected, "{seen:?}")
        };
        let just_failed = |failed| Seen {
            failed,
            since_failure: Duration::from_millis(300),
            ..FRESH
        };
        check(&never, FRESH, "run in 0 ms");
        check(
            &never,
            Seen {
                succeeded: 1,
                ..FRESH
            },
            "Complete",
        );
        check(&never, just_failed(1), "run in 700 ms");
        check(&never, just_failed(2), "BackoffLimitExceeded");
        check(
            &on_failure,
            Seen {
                active: 1,
                restarts: 1,
                ..FRESH
            },
            "BackoffLimitExceeded",
        );
        check(
            &never,
            Seen {
                deadline: Some(Duration::ZERO),
                ..FRESH
            },
            "DeadlineExceeded",
        );
        check(&indexed, FRESH, "NotSupported");
        check(&suspended, FRESH, "Suspended");
        check(
            &never,
            Seen {
                completions: None,
                succeeded: 1,
                ..FRESH
            },
            "Complete",
        );
    }

    #[test]
    fn the_pause_doubles_to_six_minutes() {
        let pauses = [0, 1, 2, 3, 9, 10, 100].map(|failed| pause(failed).as_secs());
        assert_eq!(pauses, [0, 1, 2, 4, 256, 360, 360]);
    }
}
