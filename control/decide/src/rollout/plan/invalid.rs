//! Complaints about a spec in Argo's form, and what becomes of a rollout that has them (R2.22).

use std::fmt;

use jiff::Timestamp;

use super::super::conditions::{self, Says};
use super::super::decision::Decision;
use super::super::observed::Metadata;
use super::super::state::State;
use super::super::{phase, time};
use crate::api::split::Waiting;

/// One complaint about a spec, in Argo's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub fault: Fault,
    /// In words.
    pub detail: String,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It must be there.
    Required,
    /// It must not have this value, printed as Go would.
    Value(String),
    /// It is none of the values there are.
    NotSupported(String),
    /// This version does not do it.
    NotImplemented,
    /// The detail says it all.
    Bare,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            fault,
            detail,
        } = self;
        match fault {
            Fault::Required if detail.is_empty() => write!(f, "{field}: Required value"),
            Fault::Required => write!(f, "{field}: Required value: {detail}"),
            Fault::Value(value) => write!(f, "{field}: Invalid value: {value}: {detail}"),
            Fault::NotSupported(value) => {
                write!(f, "{field}: Unsupported value: {value}: {detail}")
            }
            Fault::NotImplemented => write!(f, "{field}: not supported by this version"),
            Fault::Bare => f.write_str(detail),
        }
    }
}

/// Complaints so far.
#[derive(Debug, Default)]
pub(super) struct Complaints(pub(super) Vec<Invalid>);

impl Complaints {
    pub(super) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    fn add(&mut self, field: impl Into<String>, fault: Fault, detail: impl Into<String>) {
        self.0.push(Invalid {
            field: field.into(),
            fault,
            detail: detail.into(),
        });
    }

    /// A number, or JSON, that is not allowed.
    pub(super) fn value(
        &mut self,
        field: impl Into<String>,
        value: impl fmt::Display,
        detail: impl Into<String>,
    ) {
        self.add(field, Fault::Value(value.to_string()), detail);
    }

    /// A text that is not allowed.
    pub(super) fn text(
        &mut self,
        field: impl Into<String>,
        value: &str,
        detail: impl Into<String>,
    ) {
        self.add(field, Fault::Value(format!("{value:?}")), detail);
    }

    /// Something that must be there.
    pub(super) fn required(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.add(field, Fault::Required, detail);
    }

    /// A text that is none of those there are.
    pub(super) fn not_one_of(&mut self, field: impl Into<String>, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|value| format!("{value:?}")).collect();
        let detail = format!("supported values: {}", supported.join(", "));
        self.add(field, Fault::NotSupported(format!("{value:?}")), detail);
    }

    /// Something that this version does not do.
    pub(super) fn not_implemented(&mut self, field: impl Into<String>) {
        self.add(field, Fault::NotImplemented, "");
    }

    /// A sentence of its own.
    pub(super) fn bare(&mut self, field: impl Into<String>, detail: impl Into<String>) {
        self.add(field, Fault::Bare, detail);
    }
}

/// What becomes of a rollout whose spec cannot be used: nothing, but that its status says why: the first complaint as Argo says it, all
/// of them in what is waited for. It is looked at again after 10 s, since what it refers to may appear (observed point 6).
#[must_use]
pub fn refuse(
    rollout: &Metadata,
    state: &State,
    complaints: &[Invalid],
    now: Timestamp,
) -> Decision {
    let mut next = state.clone();
    let first = complaints
        .first()
        .map(ToString::to_string)
        .unwrap_or_default();
    let message = format!("The Rollout \"{}\" is invalid: {first}", rollout.name);
    let kind = conditions::INVALID_SPEC;
    next.conditions
        .retain(|condition| condition.kind != kind || condition.message == message);
    conditions::set(
        &mut next,
        &Says {
            kind,
            status: "True",
            reason: kind,
            message: &message,
        },
        now,
    );
    next.observed_generation = Some(rollout.generation.to_string());
    let all: Vec<String> = complaints.iter().map(ToString::to_string).collect();
    next.memory.waiting = Some(Waiting {
        reason: "spec".to_owned(),
        message: format!("a valid spec: {}", all.join("; ")),
        until: None,
    });
    if let Some((phase, message)) = phase::degraded(&next) {
        next.phase = Some(phase.to_owned());
        next.message = Some(message);
    }
    Decision {
        status: next.status(),
        memory: next.memory,
        again: Some(time::after(now, 10)),
        ..Decision::default()
    }
}
