//! `preflight`: what stands in the way of taking over from Argo Rollouts. It reads, and writes nothing.
//!
//! | file | what it looks at |
//! |---|---|
//! | `definitions` | the CustomResourceDefinitions: whose they are, and what they lack |
//! | `leases` | controllers that are at work |
//! | `rollouts` | each Rollout: whether Sidestep would take it as it is |

use anyhow::bail;
use serde::Serialize;
use serde_json::json;

use super::{now, print};
use crate::cli::{Connection, OutputFormat, PreflightArgs};
use crate::client::Session;
use crate::view;

mod definitions;
mod leases;
mod rollouts;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// Nothing is in the way.
    Ok,
    /// Somebody should know.
    Warn,
    /// A takeover would go wrong.
    Stop,
}

impl Verdict {
    /// As it is printed.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warn => "warn",
            Self::Stop => "stop",
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// How bad it is.
    pub(crate) verdict: Verdict,
    /// The object it is about: `rollout/shop/web`.
    pub(crate) object: String,
    /// What was found, and what to do about it.
    pub(crate) message: String,
}

impl Finding {
    fn new(verdict: Verdict, object: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            verdict,
            object: object.into(),
            message: message.into(),
        }
    }

    /// What may not be read is not known to be in order.
    fn unread(object: &str, error: kube::Error) -> Self {
        let message = super::failure::text(&error.into());
        Self::new(Verdict::Warn, object, format!("not looked at: {message}"))
    }
}

/// Looks at everything, and prints what was found.
///
/// # Errors
/// When something stands in the way.
pub(crate) async fn run(
    session: &Session,
    at: &Connection,
    args: &PreflightArgs,
) -> anyhow::Result<()> {
    let namespace = at.namespace.as_deref();
    let mut findings = definitions::look(&session.client).await;
    findings.extend(leases::look(&session.client, now()).await);
    findings.extend(rollouts::look(&session.client, namespace, &args.ingress_class, now()).await);
    let worst = findings.iter().map(|finding| finding.verdict).max();
    let worst = worst.unwrap_or(Verdict::Ok);
    let text = match args.output {
        None => view::findings::table(&findings),
        Some(OutputFormat::Json) => {
            let all = json!({"verdict": worst, "findings": findings});
            format!("{}\n", serde_json::to_string_pretty(&all)?)
        }
    };
    print(&text)?;
    if worst == Verdict::Stop {
        bail!("something stands in the way");
    }
    Ok(())
}
