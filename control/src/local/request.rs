//! What a request asks for: the place in its path, the options in its query, the shape in its `Accept`.

use http::{HeaderMap, Uri, header};

use super::kinds::{self, Kind};
use super::refusal::Refusal;
use super::table::Include;

/// A collection, an object, or a part of one.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// The kind.
    pub(super) kind: &'static Kind,
    /// The namespace in the path.
    pub(super) namespace: Option<String>,
    /// The object's name; absent for a collection.
    pub(super) name: Option<String>,
    /// `status`, `scale`, `log`, `eviction`; absent for the object itself.
    pub(super) subresource: Option<String>,
}

impl Target {
    /// Finds out what a path names.
    ///
    /// # Errors
    /// 404 when nothing is served there.
    pub(super) fn parse(path: &str) -> Result<Self, Refusal> {
        let nowhere = || Refusal::no_such_path(path);
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match &segments[..] {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return Err(nowhere()),
        };
        let find = |plural: &str| kinds::at(group, version, plural).ok_or_else(nowhere);
        let (kind, namespace, rest) = match rest {
            // A namespace's own subresources stand where its content's kinds do.
            ["namespaces", _, "status" | "finalize", ..] => (find("namespaces")?, None, &rest[1..]),
            ["namespaces", namespace, plural, rest @ ..] => (
                find(plural)
                    .ok()
                    .filter(|kind| kind.namespaced)
                    .ok_or_else(nowhere)?,
                Some(*namespace),
                rest,
            ),
            [plural, rest @ ..] => (find(plural)?, None, rest),
            [] => return Err(nowhere()),
        };
        let (name, subresource) = match rest {
            [] => (None, None),
            [name] => (Some(*name), None),
            [name, subresource] => (Some(*name), Some(*subresource)),
            _ => return Err(nowhere()),
        };
        if name.is_some() && kind.namespaced && namespace.is_none() {
            return Err(nowhere());
        }
        let served = match subresource {
            None => true,
            Some("status") => kind.status,
            Some("scale") => kind.scale.is_some(),
            Some("log") => kind.log,
            Some("eviction") => *kind == kinds::POD,
            Some(_) => false,
        };
        if !served {
            return Err(nowhere());
        }
        Ok(Self {
            kind,
            namespace: namespace.map(str::to_owned),
            name: name.map(str::to_owned),
            subresource: subresource.map(str::to_owned),
        })
    }

    /// The namespace; empty for kinds without.
    pub(super) fn namespace(&self) -> &str {
        self.namespace.as_deref().unwrap_or_default()
    }

    /// The object's name; empty for a collection.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or_default()
    }
}

/// Parameters that are understood. Others are refused, so that none is silently without effect.
const PARAMETERS: &[&str] = &[
    "allowWatchBookmarks",
    "container",
    "continue",
    "dryRun",
    "fieldManager",
    "fieldSelector",
    "fieldValidation",
    "follow",
    "force",
    "gracePeriodSeconds",
    "includeObject",
    "labelSelector",
    "limit",
    "limitBytes",
    "orphanDependents",
    "pretty",
    "previous",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "sinceSeconds",
    "sinceTime",
    "tailLines",
    "timeout",
    "timeoutSeconds",
    "timestamps",
    "watch",
];

/// The options of a request.
#[derive(Clone, Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses a query.
    ///
    /// # Errors
    /// 400 for what is no query, or has an unknown parameter.
    pub(super) fn parse(uri: &Uri) -> Result<Self, Refusal> {
        let axum::extract::Query(pairs) =
            axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
                .map_err(|error| Refusal::bad_request(error.to_string()))?;
        if let Some((unknown, _)) = pairs
            .iter()
            .find(|(key, _)| !PARAMETERS.contains(&key.as_str()))
        {
            return Err(Refusal::bad_request(format!(
                "unknown query parameter {unknown:?}"
            )));
        }
        Ok(Self(pairs))
    }

    /// A parameter that is given and not empty.
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// A parameter that is a number.
    ///
    /// # Errors
    /// 400 when it is none.
    pub(super) fn number<N: std::str::FromStr>(&self, key: &str) -> Result<Option<N>, Refusal> {
        let parse = |text: &str| {
            text.parse()
                .map_err(|_| Refusal::bad_request(format!("{key}: {text:?} is not a number")))
        };
        self.text(key).map(parse).transpose()
    }

    /// A parameter that is true or false.
    ///
    /// # Errors
    /// 400 when it is neither.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, Refusal> {
        match self.text(key) {
            None => Ok(None),
            Some("true" | "1") => Ok(Some(true)),
            Some("false" | "0") => Ok(Some(false)),
            Some(other) => Err(Refusal::bad_request(format!(
                "{key}: {other:?} is neither true nor false"
            ))),
        }
    }

    /// A version.
    ///
    /// # Errors
    /// 400 when it is none of ours.
    pub(super) fn version(&self) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.text("resourceVersion") else {
            return Ok(None);
        };
        text.parse()
            .map(Some)
            .map_err(|_| Refusal::bad_request(format!("invalid resource version {text:?}")))
    }

    /// Whether nothing is to be written.
    ///
    /// # Errors
    /// 400 for a kind of dry run that there is not.
    pub(super) fn is_dry_run(&self) -> Result<bool, Refusal> {
        match self.text("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Refusal::bad_request(format!(
                "dryRun: Unsupported value: {other:?}: supported values: \"All\""
            ))),
        }
    }

    /// How unknown fields are taken.
    ///
    /// # Errors
    /// 400 for a way that there is not.
    pub(super) fn field_validation(&self) -> Result<Validation, Refusal> {
        match self.text("fieldValidation") {
            None | Some("Warn") => Ok(Validation::Warn),
            Some("Strict") => Ok(Validation::Strict),
            Some("Ignore") => Ok(Validation::Ignore),
            Some(other) => Err(Refusal::bad_request(format!(
                "fieldValidation: Unsupported value: {other:?}: supported values: \"Ignore\", \"Strict\", \"Warn\""
            ))),
        }
    }

    /// How much of an object a table's row carries.
    ///
    /// # Errors
    /// 400 for an amount that there is not.
    pub(super) fn include(&self) -> Result<Include, Refusal> {
        match self.text("includeObject") {
            None | Some("Metadata") => Ok(Include::Metadata),
            Some("Object") => Ok(Include::Object),
            Some("None") => Ok(Include::None),
            Some(other) => Err(Refusal::bad_request(format!(
                "includeObject: unknown value {other:?}"
            ))),
        }
    }
}

/// How unknown fields are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validation {
    /// The write is refused.
    Strict,
    /// They are dropped, with a warning.
    Warn,
    /// They are dropped.
    Ignore,
}

/// The shape in which objects are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// As they are.
    Object,
    /// As a `Table`.
    Table,
    /// Their metadata.
    Metadata,
}

/// The first shape of the `Accept` header that can be had.
///
/// # Errors
/// 406 when there is none.
pub(super) fn shape(headers: &HeaderMap) -> Result<Shape, Refusal> {
    let accepted = accepted(headers);
    if accepted.is_empty() {
        return Ok(Shape::Object);
    }
    accepted
        .iter()
        .find_map(|media| media.shape())
        .ok_or_else(Refusal::not_acceptable)
}

/// Whether a client names this media type.
pub(super) fn accepts(headers: &HeaderMap, essence: &str) -> bool {
    accepted(headers)
        .iter()
        .any(|media| media.essence.eq_ignore_ascii_case(essence))
}

/// One media type that a client accepts.
#[derive(Clone, Debug, Default)]
pub(super) struct Media {
    essence: String,
    parameters: Vec<(String, String)>,
}

impl Media {
    /// A parameter of the media type; empty if it is not given.
    pub(super) fn parameter(&self, key: &str) -> &str {
        self.parameters
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .unwrap_or_default()
    }

    fn shape(&self) -> Option<Shape> {
        if !matches!(
            self.essence.as_str(),
            "application/json" | "application/*" | "*/*"
        ) {
            return None;
        }
        match (
            self.parameter("as"),
            self.parameter("g"),
            self.parameter("v"),
        ) {
            ("", ..) => Some(Shape::Object),
            ("Table", "meta.k8s.io", "v1") => Some(Shape::Table),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io", "v1") => {
                Some(Shape::Metadata)
            }
            _ => None,
        }
    }
}

/// The media types of the `Accept` header, in its order.
pub(super) fn accepted(headers: &HeaderMap) -> Vec<Media> {
    let values = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    values
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|media| !media.is_empty())
        .map(media)
        .collect()
}

fn media(text: &str) -> Media {
    let mut parts = text.split(';').map(str::trim);
    Media {
        essence: parts.next().unwrap_or_default().to_lowercase(),
        parameters: parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned()))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_what_they_name() {
        let check = |path: &str, wanted: Option<(&str, &str, &str, &str)>| {
            let found = Target::parse(path).ok();
            let found = found.as_ref().map(|target| {
                (
                    target.kind.plural,
                    target.namespace(),
                    target.name(),
                    target.subresource.as_deref().unwrap_or_default(),
                )
            });
            assert_eq!(found, wanted, "{path}");
        };
        check("/api/v1/pods", Some(("pods", "", "", "")));
        check("/api/v1/namespaces/a/pods", Some(("pods", "a", "", "")));
        check("/api/v1/namespaces/a/pods/b", Some(("pods", "a", "b", "")));
        check(
            "/api/v1/namespaces/a/pods/b/log",
            Some(("pods", "a", "b", "log")),
        );
        check(
            "/api/v1/namespaces/a/pods/b/eviction",
            Some(("pods", "a", "b", "eviction")),
        );
        check("/api/v1/namespaces/a", Some(("namespaces", "", "a", "")));
        check(
            "/api/v1/namespaces/a/status",
            Some(("namespaces", "", "a", "status")),
        );
        check(
            "/apis/argoproj.io/v1alpha1/namespaces/a/rollouts/b/scale",
            Some(("rollouts", "a", "b", "scale")),
        );
        check(
            "/apis/argoproj.io/v1alpha1/clusteranalysistemplates/b",
            Some(("clusteranalysistemplates", "", "b", "")),
        );
        for nowhere in [
            "/",
            "/api/v2/pods",
            "/api/v1/nodes",
            "/api/v1/pods/b",
            "/api/v1/namespaces/a/pods/b/exec",
            "/api/v1/namespaces/a/namespaces",
            "/apis/argoproj.io/v1alpha1/namespaces/a/analysisruns/b/status",
            "/apis/argoproj.io/v1alpha1/namespaces/a/rollouts/b/c/d",
        ] {
            check(nowhere, None);
        }
    }

    #[test]
    fn the_first_shape_that_can_be_had_is_taken() {
        let check = |accept: &str, wanted: Option<Shape>| {
            let headers = HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]);
            assert_eq!(shape(&headers).ok(), wanted, "{accept}");
        };
        check("application/json", Some(Shape::Object));
        check(
            "application/vnd.kubernetes.protobuf, */*",
            Some(Shape::Object),
        );
        check(
            "application/json;as=Table;v=v1;g=meta.k8s.io,application/json",
            Some(Shape::Table),
        );
        check(
            "application/json;as=Table;v=v9;g=meta.k8s.io,application/json",
            Some(Shape::Object),
        );
        check(
            "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            Some(Shape::Metadata),
        );
        check("application/vnd.kubernetes.protobuf", None);
    }
}
