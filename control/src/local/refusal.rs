//! Every way the API server says no: an HTTP status, a reason a program understands, and words for a person, as a `Status` object.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use super::kinds::Kind;
use super::store::{self, Expired};
use super::strict::{FieldError, Problem};

/// An answer that is a refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) code: StatusCode,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) details: Value,
}

impl Refusal {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Value::Null,
        }
    }

    fn about(mut self, kind: &Kind, name: &str) -> Self {
        self.details = json!({"name": name, "group": kind.group, "kind": kind.plural});
        self
    }

    /// The request makes no sense.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// No credential, or a wrong one.
    pub(super) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// Nothing is served at this path.
    pub(super) fn no_such_path(path: &str) -> Self {
        let message = format!(
            "the server could not find the requested resource: nothing is served at {path}"
        );
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    /// There is no such object.
    pub(super) fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", kind.resource());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    /// The path is served, but not with this method.
    pub(super) fn method_not_allowed(method: &http::Method, path: &str) -> Self {
        let message = format!(
            "the server does not allow this method on the requested resource: {method} {path}"
        );
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    /// The body is of no type that is understood.
    pub(super) fn unsupported_media(given: &str, accepted: &[&str]) -> Self {
        let mut message = format!(
            "the body of the request was in an unknown format ({given:?}) - accepted media types include: {}",
            accepted.join(", ")
        );
        // What `kubectl create configmap` and its like send from 1.32 on; there is no switch to make them send JSON.
        if given == "application/vnd.kubernetes.protobuf" {
            message.push_str(
                " (with kubectl: add `--dry-run=client -o yaml` and pipe it to `kubectl apply -f -`)",
            );
        }
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        )
    }

    /// No type that the client accepts can be had.
    pub(super) fn not_acceptable() -> Self {
        let message = "only the following media types are accepted: application/json";
        Self::new(StatusCode::NOT_ACCEPTABLE, "NotAcceptable", message)
    }

    /// The body is too long.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("Request entity too large: limit is {limit}");
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestEntityTooLarge",
            message,
        )
    }

    /// The object is not what its kind allows.
    pub(super) fn invalid(kind: &Kind, name: &str, errors: &[FieldError]) -> Self {
        let all: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let said = match &all[..] {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let title = match kind.group {
            "" => kind.kind.to_owned(),
            group => format!("{}.{group}", kind.kind),
        };
        let causes: Vec<Value> = errors
            .iter()
            .map(|error| json!({"reason": cause(error.problem), "message": error.to_string(), "field": error.path}))
            .collect();
        let mut refusal = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("{title} \"{name}\" is invalid: {said}"),
        );
        refusal.details =
            json!({"name": name, "group": kind.group, "kind": kind.kind, "causes": causes});
        refusal
    }

    /// The query's parameters do not go together.
    pub(super) fn invalid_options(path: &str, message: &str) -> Self {
        let mut refusal = Self::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "Invalid",
            format!("ListOptions.meta.k8s.io \"\" is invalid: {path}: {message}"),
        );
        let cause = json!({"reason": "FieldValueForbidden", "message": message, "field": path});
        refusal.details = json!({"group": "meta.k8s.io", "kind": "ListOptions", "causes": [cause]});
        refusal
    }

    /// A patch that cannot be carried out.
    pub(super) fn unprocessable(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// The object is not the one the write was decided on.
    pub(super) fn conflict(kind: &Kind, name: &str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    /// Not for this client.
    pub(super) fn forbidden(message: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// The version asked for is not there yet.
    pub(super) fn too_new(asked: u64, present: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {present}");
        let mut refusal = Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message);
        let cause =
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"});
        refusal.details = json!({"causes": [cause], "retryAfterSeconds": 1});
        refusal
    }

    /// What was written could not be put on disk.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The `Status` object.
    pub(super) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        });
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }
}

fn cause(problem: Problem) -> &'static str {
    match problem {
        Problem::Unknown | Problem::Invalid => "FieldValueInvalid",
        Problem::Type => "FieldValueTypeInvalid",
        Problem::Required => "FieldValueRequired",
        Problem::Unsupported => "FieldValueNotSupported",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, Json(self.status())).into_response()
    }
}

impl From<Expired> for Refusal {
    fn from(expired: Expired) -> Self {
        Self::new(StatusCode::GONE, "Expired", expired.to_string())
    }
}

impl From<store::Error> for Refusal {
    fn from(error: store::Error) -> Self {
        let message = error.to_string();
        let about = |refusal: Self, resource: &str, name: &str| {
            let (plural, group) = resource.split_once('.').unwrap_or((resource, ""));
            Self {
                details: json!({"name": name, "group": group, "kind": plural}),
                ..refusal
            }
        };
        match error {
            store::Error::NotFound { resource, name } => about(
                Self::new(StatusCode::NOT_FOUND, "NotFound", message),
                &resource,
                &name,
            ),
            store::Error::AlreadyExists { resource, name } => about(
                Self::new(StatusCode::CONFLICT, "AlreadyExists", message),
                &resource,
                &name,
            ),
            store::Error::Conflict { resource, name, .. } => about(
                Self::new(StatusCode::CONFLICT, "Conflict", message),
                &resource,
                &name,
            ),
            store::Error::Terminating {
                resource,
                name,
                namespace,
            } => {
                let mut refusal = about(Self::forbidden(message), &resource, &name);
                refusal.details["causes"] = json!([{
                    "reason": "NamespaceTerminating",
                    "message": format!("namespace {namespace} is being terminated"),
                    "field": "metadata.namespace",
                }]);
                refusal
            }
            store::Error::Malformed(_) => Self::bad_request(message),
        }
    }
}
