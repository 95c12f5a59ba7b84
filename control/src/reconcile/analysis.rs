//! The driver for AnalysisRuns: observe → step → measure → step → status → events.
//!
//! Runs of a Rollout and runs by hand are the same here. Argo gives the kind no status subresource: the status is a part of the main
//! resource, and so is its patch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::json;

use super::objects::{Key, Name};
use super::writes::Place;
use super::{Context, Error, status};
use crate::analysis::args::{self, Values};
use crate::analysis::run::{self, Ask, Due, Finished, Move};
use crate::api::AnalysisRun;
use crate::api::analysis::{AnalysisRunStatus, Measurement, SecretKeyRef};
use crate::measure;
use crate::rollout::decision::{Event, EventKind};
use crate::wire::Collection;

/// Metrics of one run that are asked side by side: a template has a handful; more wait their turn.
const SIDE_BY_SIDE: usize = 16;

/// Longest look at one run: the longest answer of a provider, and the writes.
pub const LOOK_LIMIT: Duration = Duration::from_secs(330);

/// Looks at one AnalysisRun and does what follows; answers when to look again by itself.
///
/// Dropping the future gives up the measurements under way; they are taken again at the next look.
///
/// # Errors
///
/// When the API server refuses, or what was observed has changed meanwhile.
pub async fn reconcile(
    context: &Context,
    name: &Name,
    now: Timestamp,
) -> Result<Option<Timestamp>, Error> {
    let key = Key::AnalysisRun(name.clone());
    if let Some(wait) = context.writes.catch_up(&key).await? {
        return Ok(now.checked_add(wait).ok());
    }
    let Some(run) = context.objects.runs.get(&name.namespace, &name.name) else {
        context.events.forget(name);
        return Ok(None);
    };
    if run.metadata.deletion_timestamp.is_some() {
        return Ok(None);
    }
    let before = run.status.clone().unwrap_or_default();
    let first = run::step(&run.spec, &before, Vec::new(), now);
    if first.expired {
        return expire(context, &run).await;
    }
    let moved = if first.due.is_empty() {
        first
    } else {
        measured(context, &run, first).await?
    };
    write(context, &run, &before, &moved.status).await?;
    for event in &moved.events {
        context.events.tell(&*run, &told(event), now);
    }
    Ok(moved.again)
}

/// Asks the providers what is due, and steps on with their answers.
async fn measured(context: &Context, run: &AnalysisRun, first: Move) -> Result<Move, Error> {
    let values = match values(context, run).await? {
        Ok(values) => values,
        Err(error) => return Ok(run::refuse(&first.status, run::unresolved(error), now())),
    };
    // The providers see the run as it is about to be written: begun.
    let asking = AnalysisRun {
        status: Some(first.status.clone()),
        ..run.clone()
    };
    let finished: Vec<Finished> = stream::iter(first.due)
        .map(|due| answer(context, &asking, &values, due))
        .buffer_unordered(SIDE_BY_SIDE)
        .collect()
        .await;
    let second = run::step(&run.spec, &first.status, finished, now());
    Ok(Move {
        events: first.events.into_iter().chain(second.events).collect(),
        ..second
    })
}

/// What became of one thing that was due.
async fn answer(context: &Context, run: &AnalysisRun, values: &Values, due: Due) -> Finished {
    let open = match due.ask {
        Ask::Begin => None,
        Ask::Resume(open) => Some(open),
        // No provider keeps anything for a measurement in flight: forgetting it is giving it up.
        Ask::GiveUp(_) => {
            return Finished {
                metric: due.metric,
                measurement: None,
                again: None,
            };
        }
    };
    let metric = run
        .spec
        .metrics
        .iter()
        .map(|metric| values.substitute(metric));
    let metric = metric
        .filter_map(Result::ok)
        .find(|metric| metric.name == due.metric);
    let (measurement, again) = match metric {
        Some(metric) => {
            let begun = now();
            let measured =
                measure::measure(&context.providers, run, &metric, open.as_ref(), begun).await;
            (Some(measured.measurement), measured.again)
        }
        None => (open, None),
    };
    Finished {
        metric: due.metric,
        measurement: measurement.map(|measurement| masked(values, measurement)),
        again,
    }
}

/// No Secret's value may stand in a status.
fn masked(values: &Values, measurement: Measurement) -> Measurement {
    let Measurement {
        phase,
        message,
        started_at,
        finished_at,
        resume_at,
        value,
        metadata,
    } = measurement;
    Measurement {
        phase,
        message: message.map(|text| values.mask(&text)),
        started_at,
        finished_at,
        resume_at,
        value: value.map(|text| values.mask(&text)),
        metadata: metadata
            .into_iter()
            .map(|(key, text)| (key, values.mask(&text)))
            .collect(),
    }
}

/// The arguments' values, Secrets looked up; an argument that has none ends the run, and so does one whose Secret we may not read, which
/// only an edit of our roles can change. An API server that is silent does not.
async fn values(
    context: &Context,
    run: &AnalysisRun,
) -> Result<Result<Values, args::Error>, Error> {
    let namespace = run.namespace().unwrap_or_default();
    let api = Collection::<Secret>::within(&context.client, &namespace);
    let mut secrets: BTreeMap<String, Option<Secret>> = BTreeMap::new();
    for reference in run.spec.args.iter().filter_map(secret_of) {
        if !secrets.contains_key(&reference.name) {
            let found = match api.get_opt(&reference.name).await {
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    return Ok(Err(args::Error::Secret(status.message.clone())));
                }
                found => found.map_err(|source| {
                    Error::api(format!("reading Secret {}", reference.name), source)
                })?,
            };
            secrets.insert(reference.name.clone(), found);
        }
    }
    Ok(Values::resolve(&run.spec.args, |reference| {
        let secret = secrets.get(&reference.name).and_then(Option::as_ref);
        read(secret, reference)
    }))
}

fn secret_of(argument: &crate::api::analysis::Argument) -> Option<&SecretKeyRef> {
    argument.value_from.as_ref()?.secret_key_ref.as_ref()
}

fn read(secret: Option<&Secret>, reference: &SecretKeyRef) -> Result<String, args::Error> {
    let SecretKeyRef { name, key } = reference;
    let missing = |what: String| args::Error::Secret(what);
    let secret = secret.ok_or_else(|| missing(format!("secrets \"{name}\" not found")))?;
    let value = secret.data.as_ref().and_then(|data| data.get(key));
    let value =
        value.ok_or_else(|| missing(format!("key '{key}' does not exist in secret '{name}'")))?;
    String::from_utf8(value.0.clone())
        .map_err(|_| missing(format!("key '{key}' of secret '{name}' holds no text")))
}

/// Writes the status, if it says anything new.
async fn write(
    context: &Context,
    run: &AnalysisRun,
    before: &AnalysisRunStatus,
    after: &AnalysisRunStatus,
) -> Result<(), Error> {
    // Compared as it will stand: a status has whole seconds.
    let Some(difference) = status::difference(before, after) else {
        return Ok(());
    };
    let patch = json!({
        "metadata": {"resourceVersion": run.resource_version()},
        "status": difference,
    });
    let name = Name::of(&run.metadata);
    let api = Collection::<AnalysisRun>::within(&context.client, &name.namespace);
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let request = api.patch(&name.name, &parameters, &patch);
    let key = Key::AnalysisRun(name.clone());
    let place = Place::<AnalysisRun>::new(&context.client, &context.objects, name.clone());
    let written = context.writes.send(&key, place, request).await;
    let doing = format!("writing the status of AnalysisRun {}", name.name);
    written
        .map(drop)
        .map_err(|source| Error::api(doing, source))
}

/// Deletes a run whose time to live is over, if it is still the one we know.
async fn expire(context: &Context, run: &Arc<AnalysisRun>) -> Result<Option<Timestamp>, Error> {
    let name = run.name_any();
    let namespace = run.namespace().unwrap_or_default();
    let api = Collection::<AnalysisRun>::within(&context.client, &namespace);
    let parameters = DeleteParams {
        preconditions: Some(Preconditions {
            uid: run.uid(),
            resource_version: run.resource_version(),
        }),
        ..DeleteParams::default()
    };
    match api.delete(&name, &parameters).await {
        Ok(()) => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(source) => Err(Error::api(format!("deleting AnalysisRun {name}"), source)),
    }
}

fn told(event: &run::Event) -> Event {
    let run::Event {
        warning,
        reason,
        message,
    } = event;
    Event {
        kind: if *warning {
            EventKind::Warning
        } else {
            EventKind::Normal
        },
        reason,
        message: message.clone(),
    }
}

#[expect(clippy::disallowed_methods, reason = "the edge: once an answer")]
fn now() -> Timestamp {
    Timestamp::now()
}
