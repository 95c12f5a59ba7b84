//! How a deletion is to be done: `DeleteOptions`, alone or in an `Eviction`, and the query's parameters of the same names.

use serde_json::{Value, json};

use super::refusal::Refusal;
use super::request::{Query, Target};
use super::store::{Deletion, Propagation, text};

/// The query's parameters, and a body of `DeleteOptions`, which wins. Also: whether it is a dry run.
///
/// # Errors
/// 400 for what is not understood.
pub(super) fn options(query: &Query, body: Option<&Value>) -> Result<(Deletion, bool), Refusal> {
    let none = json!({});
    let body = body.unwrap_or(&none);
    check_fields(body)?;
    let preconditions = &body["preconditions"];
    let version = preconditions["resourceVersion"].as_str();
    let deletion = Deletion {
        grace_seconds: match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => query.number("gracePeriodSeconds")?,
        },
        propagation: propagation(query, body)?,
        uid: preconditions["uid"].as_str().map(str::to_owned),
        version: version.map(precondition).transpose()?,
    };
    Ok((deletion, is_dry_run(query, &body["dryRun"])?))
}

fn check_fields(body: &Value) -> Result<(), Refusal> {
    let known = [
        "apiVersion",
        "kind",
        "dryRun",
        "gracePeriodSeconds",
        "orphanDependents",
        "preconditions",
        "propagationPolicy",
    ];
    let Some(fields) = body.as_object() else {
        return Err(Refusal::bad_request("DeleteOptions: an object is expected"));
    };
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(unknown) => Err(Refusal::bad_request(format!(
            "DeleteOptions: unknown field {unknown:?}"
        ))),
        None => Ok(()),
    }
}

fn propagation(query: &Query, body: &Value) -> Result<Option<Propagation>, Refusal> {
    let policy = body["propagationPolicy"]
        .as_str()
        .or_else(|| query.text("propagationPolicy"));
    let orphan = match body["orphanDependents"].as_bool() {
        Some(orphan) => Some(orphan),
        None => query.flag("orphanDependents")?,
    };
    match (policy, orphan) {
        (None, None) => Ok(None),
        (Some("Background"), None) | (None, Some(false)) => Ok(Some(Propagation::Background)),
        (Some("Foreground"), None) => Ok(Some(Propagation::Foreground)),
        (Some("Orphan"), None) | (None, Some(true)) => Ok(Some(Propagation::Orphan)),
        (Some(other), None) => Err(Refusal::bad_request(format!(
            "propagationPolicy: unknown value {other:?}"
        ))),
        (Some(_), Some(_)) => Err(Refusal::bad_request(
            "orphanDependents and propagationPolicy exclude each other",
        )),
    }
}

fn is_dry_run(query: &Query, list: &Value) -> Result<bool, Refusal> {
    if list.is_null() {
        query.is_dry_run()
    } else if *list == json!(["All"]) || *list == json!([]) {
        Ok(*list != json!([]))
    } else {
        Err(Refusal::bad_request(format!(
            "dryRun: Unsupported value: {list}: supported values: \"All\""
        )))
    }
}

fn precondition(version: &str) -> Result<u64, Refusal> {
    let version = version.parse();
    version.map_err(|_| Refusal::bad_request("preconditions.resourceVersion: no version"))
}

/// The `DeleteOptions` of an `Eviction`.
///
/// # Errors
/// 400 for another body, or one that speaks of another pod.
pub(super) fn of_eviction<'a>(
    target: &Target,
    body: &'a Value,
) -> Result<Option<&'a Value>, Refusal> {
    let refuse = |why: String| Err(Refusal::bad_request(format!("Eviction: {why}")));
    let Some(fields) = body.as_object() else {
        return refuse("an object is expected".to_owned());
    };
    for (key, wanted) in [("apiVersion", "policy/v1"), ("kind", "Eviction")] {
        match fields.get(key) {
            Some(given) if given != wanted => {
                return refuse(format!("{key} is {given}, not {wanted:?}"));
            }
            Some(_) | None => {}
        }
    }
    let known = ["apiVersion", "kind", "metadata", "deleteOptions"];
    let unknown = fields
        .iter()
        .find(|(key, value)| !known.contains(&key.as_str()) && !value.is_null());
    if let Some((unknown, _)) = unknown {
        return refuse(format!("unknown field {unknown:?}"));
    }
    for (key, wanted) in [("name", target.name()), ("namespace", target.namespace())] {
        let given = text(body, key);
        if !given.is_empty() && given != wanted {
            return refuse(format!("metadata.{key} is {given:?}, not {wanted:?}"));
        }
    }
    Ok(fields
        .get("deleteOptions")
        .filter(|options| !options.is_null()))
}
