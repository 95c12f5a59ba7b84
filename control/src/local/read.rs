//! Reading: one object, or a list narrowed by selectors, cut into pages, at a version.

use axum::Json;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::refusal::Refusal;
use super::request::{Query, Shape, Target};
use super::selector::{self, Filter};
use super::store::{self, Object, Store, text};
use super::table::{self, Include};

/// How objects are shown to one client.
#[derive(Clone, Copy, Debug)]
pub(super) struct View {
    pub(super) kind: &'static Kind,
    pub(super) shape: Shape,
    pub(super) include: Include,
}

impl View {
    /// One object.
    pub(super) fn object(self, object: &Object) -> Value {
        self.row(object, true)
    }

    /// One object in its shape; a table has headings if `headed`.
    pub(super) fn row(self, object: &Object, headed: bool) -> Value {
        match self.shape {
            Shape::Object => Value::clone(object),
            Shape::Metadata => table::metadata_only(object),
            Shape::Table => {
                let metadata = json!({"resourceVersion": text(object, "resourceVersion")});
                let objects = [Value::clone(object)];
                table::table(
                    self.kind,
                    &objects,
                    &metadata,
                    self.include,
                    headed,
                    store::now(),
                )
            }
        }
    }

    fn list(self, objects: Vec<Value>, metadata: &Value) -> Value {
        let (kind, api_version, items) = match self.shape {
            Shape::Table => {
                return table::table(
                    self.kind,
                    &objects,
                    metadata,
                    self.include,
                    true,
                    store::now(),
                );
            }
            Shape::Object => (
                format!("{}List", self.kind.kind),
                self.kind.api_version(),
                objects,
            ),
            Shape::Metadata => (
                "PartialObjectMetadataList".to_owned(),
                "meta.k8s.io/v1".to_owned(),
                objects.iter().map(table::metadata_only).collect(),
            ),
        };
        json!({"kind": kind, "apiVersion": api_version, "metadata": metadata, "items": items})
    }
}

/// One object.
///
/// # Errors
/// 404.
pub(super) fn get(store: &Store, target: &Target, view: View) -> Result<Response, Refusal> {
    let object = find(store, target)?;
    Ok(Json(view.object(&object)).into_response())
}

/// The object that a path names, as its kind shows it.
///
/// # Errors
/// 404.
pub(super) fn find(store: &Store, target: &Target) -> Result<Object, Refusal> {
    let found = store.get(target.kind, target.namespace(), target.name());
    found
        .map(|object| target.kind.shown(&object))
        .ok_or_else(|| Refusal::not_found(target.kind, target.name()))
}

/// The selectors of a query.
///
/// # Errors
/// 400 for what is none, or cannot be selected by.
pub(super) fn filter(kind: &Kind, query: &Query) -> Result<Filter, Refusal> {
    let labels = query.text("labelSelector").unwrap_or_default();
    let fields = query.text("fieldSelector").unwrap_or_default();
    Filter::parse(kind, labels, fields).map_err(|error| match error {
        selector::Error::Syntax(_) => Refusal::bad_request(error.to_string()),
        selector::Error::Field(_) => Refusal::bad_request(format!(
            "Unable to find {:?} that match label selector {labels:?}, field selector {fields:?}: {error}",
            kind.resource()
        )),
    })
}

/// A list, or a page of one.
///
/// # Errors
/// 400 and 422 for options that make no sense, 410 for a version that is gone, 504 for one that is not there yet.
pub(super) fn list(
    store: &Store,
    target: &Target,
    query: &Query,
    view: View,
) -> Result<Response, Refusal> {
    let filter = filter(target.kind, query)?;
    let limit = query.number::<usize>("limit")?.filter(|limit| *limit > 0);
    let page = query.text("continue").map(Page::parse).transpose()?;
    let namespace = target.namespace.as_deref();
    let listing = match (&page, version_wanted(store, query, page.is_some())?) {
        (Some(page), _) => store.list_at(target.kind, namespace, page.version)?,
        (None, Some(exact)) => store.list_at(target.kind, namespace, exact)?,
        (None, None) => store.list(target.kind, namespace),
    };
    let shown = listing
        .objects
        .iter()
        .map(|object| target.kind.shown(object));
    let mut rest = shown.filter(|object| {
        filter.admits(object) && page.as_ref().is_none_or(|page| page.is_before(object))
    });
    let objects: Vec<Value> = rest
        .by_ref()
        .take(limit.unwrap_or(usize::MAX))
        .map(|object| Value::clone(&object))
        .collect();
    let left = rest.count();
    let mut metadata = json!({"resourceVersion": listing.version.to_string()});
    if let Some(last) = objects.last().filter(|_| left > 0) {
        metadata["continue"] = json!(Page::after(listing.version, last).token());
        if filter.is_empty() {
            metadata["remainingItemCount"] = json!(left);
        }
    }
    Ok(Json(view.list(objects, &metadata)).into_response())
}

/// The version a list must be of; `None` for the latest.
fn version_wanted(
    store: &Store,
    query: &Query,
    is_continued: bool,
) -> Result<Option<u64>, Refusal> {
    let version = query.version()?;
    let matching = query.text("resourceVersionMatch");
    if query.text("sendInitialEvents").is_some() {
        return Err(Refusal::invalid_options(
            "sendInitialEvents",
            "sendInitialEvents is forbidden for list",
        ));
    }
    if is_continued && (version.is_some_and(|version| version != 0) || matching.is_some()) {
        let message = "resourceVersion and resourceVersionMatch are forbidden with continue";
        return Err(Refusal::invalid_options("resourceVersion", message));
    }
    let present = store.version();
    match (matching, version) {
        (Some(_), None) => {
            let message = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            Err(Refusal::invalid_options("resourceVersionMatch", message))
        }
        (Some("Exact"), Some(0)) => {
            let message = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            Err(Refusal::invalid_options("resourceVersionMatch", message))
        }
        (_, Some(version)) if version > present => Err(Refusal::too_new(version, present)),
        (Some("Exact"), Some(version)) => Ok(Some(version)),
        (None | Some("NotOlderThan"), _) => Ok(None),
        (Some(other), _) => {
            let message = format!(
                "Unsupported value: {other:?}: supported values: \"Exact\", \"NotOlderThan\""
            );
            Err(Refusal::invalid_options("resourceVersionMatch", &message))
        }
    }
}

/// Where a page ends and the next begins.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Page {
    #[serde(rename = "rv")]
    version: u64,
    namespace: String,
    name: String,
}

impl Page {
    fn after(version: u64, last: &Value) -> Self {
        Self {
            version,
            namespace: text(last, "namespace").to_owned(),
            name: text(last, "name").to_owned(),
        }
    }

    fn parse(token: &str) -> Result<Self, Refusal> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok();
        let page = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        page.ok_or_else(|| Refusal::bad_request("continue key is not valid"))
    }

    fn token(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(json!(self).to_string())
    }

    fn is_before(&self, object: &Value) -> bool {
        (text(object, "namespace"), text(object, "name"))
            > (self.namespace.as_str(), self.name.as_str())
    }
}
