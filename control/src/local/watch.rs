//! Watching: what there is, if that is asked for, and then every change, one JSON object a line.
//!
//! A watcher is a cursor in the store's history. Its buffer holds one batch; a client that does not read stops the cursor, and one
//! that falls out of the history gets the error event 410 `Expired`, upon which it lists again.

use std::collections::VecDeque;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use http::header;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::read::{self, View};
use super::refusal::Refusal;
use super::request::{Query, Shape, Target};
use super::selector::Filter;
use super::store::{Change, Object, Store, Subscription, What, text};

/// How long a watch lasts that names no end: a real API server ends them after 30 to 60 minutes.
const LONGEST: Duration = Duration::from_secs(3600);

/// Time between bookmarks: 10 s, so that a watcher of a quiet kind keeps up with a busy history. (A real server takes a minute.)
const BOOKMARK_EVERY: Duration = Duration::from_secs(10);

/// Says in a bookmark that what there was at the beginning has been sent.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Answers a watch.
///
/// # Errors
/// 400 and 422 for options that make no sense.
pub(super) fn watch(
    store: &Store,
    target: &Target,
    query: &Query,
    view: View,
    closing: CancellationToken,
) -> Result<Response, Refusal> {
    let start = start(query)?;
    let bookmarks = query.flag("allowWatchBookmarks")?.unwrap_or(false);
    let seconds = query
        .number::<u64>("timeoutSeconds")?
        .filter(|seconds| *seconds > 0)
        .map_or(LONGEST, Duration::from_secs);
    let mut watcher = Watcher {
        target: target.clone(),
        filter: name_filter(read::filter(target.kind, query)?, target),
        view,
        bookmarks,
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        end: Instant::now() + seconds.min(LONGEST),
        changes: store.subscribe(0),
        queue: VecDeque::new(),
        headed: true,
        is_over: false,
        closing,
    };
    watcher.begin(store, start)?;
    let lines = futures::stream::unfold(watcher, |mut watcher| async {
        watcher
            .next()
            .await
            .map(|line| (Ok::<_, std::convert::Infallible>(line), watcher))
    });
    Ok((
        [(header::CONTENT_TYPE, "application/json")],
        Body::from_stream(lines),
    )
        .into_response())
}

/// Where a watch starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// With everything there is; `told`: a bookmark says where that ends. At this version at least.
    Everything { told: bool, version: u64 },
    /// With the changes after this version; `None`: now.
    After(Option<u64>),
}

fn start(query: &Query) -> Result<Start, Refusal> {
    let version = query.version()?;
    let matching = query.text("resourceVersionMatch");
    let Some(initial) = query.flag("sendInitialEvents")? else {
        if matching.is_some() {
            let message =
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            return Err(Refusal::invalid_options("resourceVersionMatch", message));
        }
        return Ok(match version {
            None | Some(0) => Start::Everything {
                told: false,
                version: 0,
            },
            Some(version) => Start::After(Some(version)),
        });
    };
    if matching != Some("NotOlderThan") {
        let message = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        return Err(Refusal::invalid_options("resourceVersionMatch", message));
    }
    Ok(match initial {
        true => Start::Everything {
            told: true,
            version: version.unwrap_or(0),
        },
        false => Start::After(version.filter(|version| *version != 0)),
    })
}

/// A watch of one object is a watch of its collection by name.
fn name_filter(filter: Filter, target: &Target) -> Filter {
    match &target.name {
        Some(name) => filter.and_name(name),
        None => filter,
    }
}

#[derive(Debug)]
struct Watcher {
    target: Target,
    filter: Filter,
    view: View,
    bookmarks: bool,
    next_bookmark: Instant,
    end: Instant,
    changes: Subscription,
    /// Lines not yet taken: at most one batch of changes, or what there was at the beginning.
    queue: VecDeque<Bytes>,
    headed: bool,
    is_over: bool,
    closing: CancellationToken,
}

impl Watcher {
    fn begin(&mut self, store: &Store, start: Start) -> Result<(), Refusal> {
        match start {
            Start::After(version) => {
                self.changes = store.subscribe(version.unwrap_or_else(|| store.version()));
            }
            Start::Everything { told, version } => {
                let listing = store.list(self.target.kind, self.target.namespace.as_deref());
                if version > listing.version {
                    return Err(Refusal::too_new(version, listing.version));
                }
                for object in &listing.objects {
                    let object = self.target.kind.shown(object);
                    if self.filter.admits(&object) {
                        self.tell("ADDED", &object);
                    }
                }
                self.changes = store.subscribe(listing.version);
                if told && self.bookmarks {
                    self.bookmark(true);
                }
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.queue.pop_front() {
                return Some(line);
            }
            if self.is_over {
                return None;
            }
            let pause = if self.bookmarks {
                self.next_bookmark.min(self.end)
            } else {
                self.end
            };
            tokio::select! {
                biased;
                () = self.closing.cancelled() => return None,
                changes = self.changes.next() => match changes {
                    Ok(changes) => changes.iter().for_each(|change| self.take(change)),
                    Err(expired) => {
                        self.push(&json!({"type": "ERROR", "object": Refusal::from(expired).status()}));
                        self.is_over = true;
                    }
                },
                () = sleep_until(pause) => {
                    if self.bookmarks {
                        self.bookmark(false);
                    }
                    self.is_over = pause == self.end;
                }
            }
        }
    }

    fn take(&mut self, change: &Change) {
        let kind = self.target.kind;
        let elsewhere = self
            .target
            .namespace
            .as_deref()
            .is_some_and(|wanted| wanted != text(&change.object, "namespace"));
        if change.kind != kind.stored() || elsewhere {
            return;
        }
        let object = kind.shown(&change.object);
        let previous = change.previous.as_ref().map(|object| kind.shown(object));
        let was = previous
            .as_ref()
            .is_some_and(|object| self.filter.admits(object));
        let is = change.what != What::Deleted && self.filter.admits(&object);
        match (was, is) {
            (false, false) => {}
            (false, true) => self.tell("ADDED", &object),
            (true, true) => self.tell("MODIFIED", &object),
            (true, false) if change.what == What::Deleted => self.tell("DELETED", &object),
            // It is there, but not for this watcher: it goes as it was, under the version of its leaving.
            (true, false) => {
                let mut left = previous.as_deref().cloned().unwrap_or_default();
                left["metadata"]["resourceVersion"] = json!(change.version.to_string());
                self.tell("DELETED", &left.into());
            }
        }
    }

    fn tell(&mut self, what: &str, object: &Object) {
        let shown = self.view.row(object, self.headed);
        self.headed = false;
        self.push(&json!({"type": what, "object": shown}));
    }

    fn bookmark(&mut self, initial_events_end: bool) {
        let kind = self.target.kind;
        let mut metadata =
            json!({"resourceVersion": self.changes.seen().to_string(), "creationTimestamp": null});
        if initial_events_end {
            metadata["annotations"] = json!({INITIAL_EVENTS_END: "true"});
        }
        let object = match self.view.shape {
            Shape::Object => {
                json!({"kind": kind.kind, "apiVersion": kind.api_version(), "metadata": metadata})
            }
            Shape::Metadata => {
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata})
            }
            Shape::Table => {
                json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata, "columnDefinitions": null, "rows": []})
            }
        };
        self.push(&json!({"type": "BOOKMARK", "object": object}));
        self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
    }

    fn push(&mut self, event: &Value) {
        self.queue.push_back(format!("{event}\n").into());
    }
}
