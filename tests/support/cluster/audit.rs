//! What service accounts have asked of the API server and what it answered: its audit log.

use std::fmt;
use std::path::PathBuf;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::enclave;

/// One request, as the log has it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    user: User,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    verb: String,
    #[serde(rename = "requestURI")]
    path: String,
    #[serde(default)]
    object_ref: Target,
    pub(crate) response_status: Answer,
    /// When the API server had it.
    #[serde(rename = "requestReceivedTimestamp")]
    pub(crate) received: Timestamp,
}

#[derive(Clone, Debug, Deserialize)]
struct User {
    username: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Target {
    api_group: String,
    resource: String,
    subresource: String,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    message: Option<String>,
}

impl Request {
    /// Whether it should not have been sent: it was not allowed, made no sense, or broke the server. A request whose sender has gone
    /// is logged as a 504, or as canceled.
    pub(crate) fn is_refused(&self) -> bool {
        let Answer { code, message } = &self.response_status;
        let is_left = message.as_deref() == Some("context canceled");
        !is_left && !matches!(code, 0..400 | 404 | 409 | 410 | 429 | 504)
    }

    /// The right that it took, as [`right`] writes it; none if it was about no object.
    pub(crate) fn right(&self) -> Option<String> {
        let Target {
            api_group,
            resource,
            subresource,
        } = &self.object_ref;
        let slash = if subresource.is_empty() { "" } else { "/" };
        let resource = format!("{resource}{slash}{subresource}");
        (!self.object_ref.resource.is_empty()).then(|| right(&self.verb, api_group, &resource))
    }

    /// Whether it was forbidden.
    pub(crate) fn is_forbidden(&self) -> bool {
        self.response_status.code == 403
    }

    /// Whether it could have changed something, the leader's Lease aside.
    pub(crate) fn writes(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
            && self.object_ref.resource != "leases"
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Answer { code, message } = &self.response_status;
        let message = message.as_deref().unwrap_or_default();
        let Self {
            received,
            verb,
            path,
            ..
        } = self;
        writeln!(f, "{received} {verb} {path}: {code} {message}")
    }
}

/// A right: `patch rollouts/status.argoproj.io`.
pub(crate) fn right(verb: &str, group: &str, resource: &str) -> String {
    let dot = if group.is_empty() { "" } else { "." };
    format!("{verb} {resource}{dot}{group}")
}

/// Requests, one a line.
pub(crate) fn lines<'a>(requests: impl IntoIterator<Item = &'a Request>) -> String {
    requests.into_iter().map(ToString::to_string).collect()
}

/// Everything that a service account has asked so far, in the order of the answers.
pub(super) fn requests(namespace: &str, account: &str) -> Vec<Request> {
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let log = std::fs::read_to_string(file()).unwrap();
    // The last line may be half written.
    let whole = log.rfind('\n').map_or("", |end| log.split_at(end).0);
    let requests = whole
        .lines()
        .map(|line| serde_json::from_str(line).unwrap());
    requests
        .filter(|request: &Request| request.user.username == user)
        .collect()
}

/// Flags by which the API server keeps the log.
pub(super) fn flags() -> [String; 2] {
    let policy = enclave::folder().join("audit-policy.yaml");
    std::fs::write(&policy, self::policy().to_string()).unwrap();
    [
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", file().display()),
    ]
}

/// Service accounts of tests: not those of the control plane's own controllers.
fn policy() -> Value {
    json!({
        "apiVersion": "audit.k8s.io/v1", "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "omitManagedFields": true,
        "rules": [
            {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"]},
            {"level": "Metadata", "userGroups": ["system:serviceaccounts"]},
            {"level": "None"},
        ],
    })
}

fn file() -> PathBuf {
    enclave::folder().join("audit.log")
}
