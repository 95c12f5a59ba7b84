//! Writing: from a body to an object that its kind allows, recorded as its manager's, in the store.
//!
//! Every write goes the same way: the new object is made from the present one (a body replaces it, a patch changes it), confined to
//! the part that is written, decoded strictly, filled in, validated, recorded. `dryRun=All` is the same on a copy of the store.

use http::HeaderMap;
use serde_json::{Map, Value, json};

use super::apply::{self, Manager};
use super::kinds::{self, Kind, Scale};
use super::patch;
use super::refusal::Refusal;
use super::request::{Query, Target, Validation};
use super::schema;
use super::selector::Filter;
use super::store::{self, Deleted, Deletion, Object, Part, Store, text};
use super::strict::{self, Problem};

/// Namespaces that the cluster needs and that cannot be deleted.
const LASTING_NAMESPACES: &[&str] = &["default", "kube-system", "sidestep-system"];

/// A patch, by its media type.
#[derive(Clone, Debug)]
pub(super) enum Patch {
    /// `application/merge-patch+json`
    Merge(Value),
    /// `application/json-patch+json`
    Json(Value),
    /// `application/strategic-merge-patch+json`
    Strategic(Value),
    /// `application/apply-patch+yaml`
    Apply(Value),
}

/// What came of a write.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// The object, as its kind shows it.
    pub(super) object: Object,
    /// Whether it is new.
    pub(super) is_new: bool,
    /// What the client should know.
    pub(super) warnings: Vec<String>,
}

/// One writer: where, what, and how.
#[derive(Debug)]
pub(super) struct Writer<'a> {
    store: &'a Store,
    target: &'a Target,
    manager: Manager,
    validation: Validation,
    forced: bool,
    named: bool,
    warnings: Vec<String>,
}

impl<'a> Writer<'a> {
    /// A writer with the options of a request.
    ///
    /// # Errors
    /// 400 for options that there are not.
    pub(super) fn new(
        store: &'a Store,
        target: &'a Target,
        query: &Query,
        headers: &HeaderMap,
    ) -> Result<Self, Refusal> {
        let subresource = match target.subresource.as_deref() {
            Some("status") => "status",
            Some("scale") => "scale",
            _ => "",
        };
        let agent = headers
            .get(http::header::USER_AGENT)
            .and_then(|agent| agent.to_str().ok())
            .unwrap_or_default();
        let agent = agent
            .split('/')
            .next()
            .filter(|agent| !agent.is_empty())
            .unwrap_or("unknown");
        Ok(Self {
            store,
            target,
            manager: Manager {
                name: query.text("fieldManager").unwrap_or(agent).to_owned(),
                subresource,
                time: store::whole_seconds(store::now()),
            },
            validation: query.field_validation()?,
            forced: query.flag("force")?.unwrap_or(false),
            named: query.text("fieldManager").is_some(),
            warnings: Vec::new(),
        })
    }

    /// A new object.
    ///
    /// # Errors
    /// 400, 404, 409, 422.
    pub(super) fn create(mut self, mut object: Value) -> Result<Written, Refusal> {
        let kind = self.kind();
        self.check_identity(&mut object)?;
        if !text(&object, "resourceVersion").is_empty() {
            return Err(Refusal::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        self.check(None, &mut object)?;
        if kind.status
            && let Some(fields) = object.as_object_mut()
        {
            fields.shift_remove("status");
        }
        apply::record(kind, None, &mut object, &self.manager);
        let made = self.store.create(kind, kind.hidden(object))?;
        Ok(self.written(&made, true))
    }

    /// Another object, or another status or scale, in the place of the present one.
    ///
    /// # Errors
    /// 400, 404, 409, 422.
    pub(super) fn replace(mut self, object: Value) -> Result<Written, Refusal> {
        if self.target.subresource.as_deref() == Some("scale") {
            return self.rescale(|_| Ok(object.clone()));
        }
        let mut object = object;
        self.check_identity(&mut object)?;
        if !self.kind().strategic && text(&object, "resourceVersion").is_empty() {
            let message = "must be specified for an update";
            let error =
                strict::FieldError::new("metadata.resourceVersion", Problem::Invalid, message);
            return Err(Refusal::invalid(self.kind(), self.target.name(), &[error]));
        }
        let made = self.update(|_, _| Ok((object.clone(), false)))?;
        Ok(self.written(&made, false))
    }

    /// What a patch makes of the present object, status or scale.
    ///
    /// # Errors
    /// 400, 404, 409, 415, 422.
    pub(super) fn patch(mut self, patch: &Patch) -> Result<Written, Refusal> {
        let is_apply = matches!(patch, Patch::Apply(_));
        if self.forced && !is_apply {
            return Err(Refusal::unprocessable(
                "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be specified for non-apply patch",
            ));
        }
        if is_apply && !self.named {
            return Err(Refusal::unprocessable(
                "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch",
            ));
        }
        if self.target.subresource.as_deref() == Some("scale") {
            return self.rescale(|scale| patched(None, scale, patch));
        }
        if let Patch::Apply(wanted) = patch {
            return self.apply(wanted);
        }
        let kind = self.kind();
        let made = self.update(|_, old| Ok((patched(Some(kind), old, patch)?, false)))?;
        Ok(self.written(&made, false))
    }

    fn apply(mut self, wanted: &Value) -> Result<Written, Refusal> {
        let mut wanted = wanted.clone();
        self.check_identity(&mut wanted)?;
        if wanted
            .pointer("/metadata/managedFields")
            .is_some_and(|fields| !fields.is_null())
        {
            return Err(Refusal::bad_request("metadata.managedFields must be nil"));
        }
        let errors = self.unknown(&wanted)?;
        strict::prune(&mut wanted, &errors);
        loop {
            let updated = self.update(|writer, old| Ok((writer.applied(old, &wanted)?, true)));
            match updated {
                Err(refusal)
                    if refusal.code == http::StatusCode::NOT_FOUND
                        && self.target.subresource.is_none() => {}
                other => return Ok(self.written(&other?, false)),
            }
            // It is not there yet: an apply also creates. Somebody may be faster, then it is an update after all.
            match self.apply_new(&wanted) {
                Err(refusal) if refusal.reason == "AlreadyExists" => {}
                other => return Ok(self.written(&other?, true)),
            }
        }
    }

    fn apply_new(&mut self, wanted: &Value) -> Result<Object, Refusal> {
        let kind = self.kind();
        if !text(wanted, "uid").is_empty() || !text(wanted, "resourceVersion").is_empty() {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{}\": uid mismatch: the object does not exist",
                kind.resource(),
                self.target.name()
            );
            return Err(Refusal::conflict(kind, self.target.name(), message));
        }
        let mut nothing = json!({"apiVersion": kind.api_version(), "kind": kind.kind, "metadata": {"name": self.target.name()}});
        if kind.namespaced {
            nothing["metadata"]["namespace"] = json!(self.target.namespace());
        }
        let mut object = self.applied(&nothing, wanted)?;
        self.check(None, &mut object)?;
        if kind.status
            && let Some(fields) = object.as_object_mut()
        {
            fields.shift_remove("status");
        }
        Ok(self.store.create(kind, kind.hidden(object))?)
    }

    fn applied(&self, old: &Value, wanted: &Value) -> Result<Value, Refusal> {
        let kind = self.kind();
        let version = text(wanted, "resourceVersion");
        if !version.is_empty() && version != text(old, "resourceVersion") {
            return Err(stale(kind, self.target.name()));
        }
        apply::apply(kind, old, wanted, &self.manager, self.forced).map_err(|conflicts| {
            let said: Vec<String> = conflicts.iter().map(|conflict| format!("{}: {}", conflict.message, conflict.field)).collect();
            let number = if said.len() == 1 { "1 conflict".to_owned() } else { format!("{} conflicts", said.len()) };
            let mut refusal = Refusal::conflict(kind, self.target.name(), format!("Apply failed with {number}: {}", said.join("; ")));
            let cause = |conflict: &apply::Conflict| json!({"reason": "FieldManagerConflict", "message": conflict.message, "field": conflict.field});
            refusal.details["causes"] = conflicts.iter().map(cause).collect();
            refusal
        })
    }

    /// Changes the present object; `change` also says whether its result is recorded already.
    fn update(
        &mut self,
        mut change: impl FnMut(&Self, &Value) -> Result<(Value, bool), Refusal>,
    ) -> Result<Object, Refusal> {
        let kind = self.kind();
        let part = match self.target.subresource.as_deref() {
            Some("status") => Part::Status,
            _ => Part::Main,
        };
        let (store, target) = (self.store, self.target);
        store.try_update(
            kind,
            target.namespace(),
            target.name(),
            part,
            None,
            |stored| {
                let old = kind.shown(&Object::new(stored.clone()));
                let (new, is_recorded) = change(self, &old)?;
                self.check_same(&old, &new)?;
                let mut new = store::confine(kind, part, &old, new);
                self.warnings.clear();
                self.check(Some(&old), &mut new)?;
                keep_record(&old, &mut new);
                if !is_recorded {
                    apply::record(kind, Some(&old), &mut new, &self.manager);
                }
                *stored = kind.hidden(new);
                Ok(())
            },
        )
    }

    /// Changes the number of replicas through the `scale` subresource.
    fn rescale(
        mut self,
        change: impl Fn(&Value) -> Result<Value, Refusal>,
    ) -> Result<Written, Refusal> {
        let kind = self.kind();
        let Some(scale) = kind.scale else {
            return Err(Refusal::not_found(kind, self.target.name()));
        };
        let made = self.update(|_, old| {
            let new = change(&scale_of(scale, old))?;
            let Some(replicas) = new["spec"]["replicas"]
                .as_i64()
                .filter(|replicas| *replicas >= 0)
            else {
                let message = format!(
                    "{}: must be greater than or equal to 0",
                    new["spec"]["replicas"]
                );
                let error = strict::FieldError::new("spec.replicas", Problem::Invalid, message);
                return Err(Refusal::invalid(kind, text(old, "name"), &[error]));
            };
            let mut object = old.clone();
            set(&mut object, scale.spec, json!(replicas));
            copy_version(&new, &mut object);
            Ok((object, false))
        })?;
        Ok(Written {
            object: Object::new(scale_of(scale, &made)),
            is_new: false,
            warnings: self.warnings,
        })
    }

    fn kind(&self) -> &'static Kind {
        self.target.kind
    }

    fn written(self, object: &Object, is_new: bool) -> Written {
        Written {
            object: self.kind().shown(object),
            is_new,
            warnings: self.warnings,
        }
    }

    /// The body speaks of the kind, namespace and name of the path.
    fn check_identity(&self, object: &mut Value) -> Result<(), Refusal> {
        let kind = self.kind();
        let Some(fields) = object.as_object_mut() else {
            return Err(Refusal::bad_request("an object is expected"));
        };
        for (key, wanted) in [
            ("apiVersion", kind.api_version()),
            ("kind", kind.kind.to_owned()),
        ] {
            match fields.get(key).and_then(Value::as_str) {
                Some(given) if given == wanted => {}
                Some(given) => {
                    let message = format!(
                        "the {key} in the data ({given}) does not match the expected {key} ({wanted})"
                    );
                    return Err(Refusal::bad_request(message));
                }
                None => {
                    let message = format!("Object '{key}' is missing");
                    return Err(Refusal::bad_request(message));
                }
            }
        }
        let metadata = fields.entry("metadata").or_insert_with(|| json!({}));
        let Some(metadata) = metadata.as_object_mut() else {
            return Err(Refusal::bad_request("metadata: an object is expected"));
        };
        if kind.namespaced {
            same_or_set(metadata, "namespace", self.target.namespace())?;
        }
        match &self.target.name {
            Some(name) => same_or_set(metadata, "name", name),
            None => Ok(()),
        }
    }

    /// The new object is made from the old one, and not from another of its name, or another version.
    fn check_same(&self, old: &Value, new: &Value) -> Result<(), Refusal> {
        let (kind, name) = (self.kind(), self.target.name());
        let given = |key: &str| {
            Some(text(new, key)).filter(|given| !given.is_empty() && *given != text(old, key))
        };
        if given("resourceVersion").is_some() {
            return Err(stale(kind, name));
        }
        if let Some(uid) = given("uid") {
            let message = format!(
                "Operation cannot be fulfilled on {} \"{name}\": Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                kind.resource(),
                text(old, "uid")
            );
            return Err(Refusal::conflict(kind, name, message));
        }
        match given("name").or_else(|| given("namespace")) {
            Some(other) => Err(Refusal::bad_request(format!(
                "the name or namespace of the object ({other}) does not match that of the URL ({name})"
            ))),
            None => Ok(()),
        }
    }

    /// Brings an object into the form in which it is stored, or says why it cannot be.
    fn check(&mut self, old: Option<&Value>, object: &mut Value) -> Result<(), Refusal> {
        let kind = self.kind();
        let unknown = self.unknown(object)?;
        strict::prune(object, &unknown);
        (kind.defaults)(object);
        let mut errors = strict::validate(kind, object);
        if let Some(old) = old {
            errors.extend(strict::validate_change(kind, old, object));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Refusal::invalid(kind, text(object, "name"), &errors))
        }
    }

    /// The fields of an object that its kind does not know.
    fn unknown(&mut self, object: &Value) -> Result<Vec<strict::FieldError>, Refusal> {
        let kind = self.kind();
        let (unknown, misfits): (Vec<_>, Vec<_>) = schema::check(kind, object)
            .into_iter()
            .partition(|error| error.problem == Problem::Unknown);
        let cannot = |why: &str| {
            Refusal::bad_request(format!(
                "{} in version {:?} cannot be handled as a {}: {why}",
                kind.kind, kind.version, kind.kind
            ))
        };
        if let Some(misfit) = misfits.first() {
            if kind.strategic {
                return Err(cannot(&misfit.to_string()));
            }
            return Err(Refusal::invalid(kind, text(object, "name"), &misfits));
        }
        let said: Vec<String> = unknown.iter().map(ToString::to_string).collect();
        match self.validation {
            Validation::Strict if !said.is_empty() => {
                return Err(cannot(&format!(
                    "strict decoding error: {}",
                    said.join(", ")
                )));
            }
            Validation::Warn => self.warnings.extend(said),
            Validation::Strict | Validation::Ignore => {}
        }
        Ok(unknown)
    }
}

/// What a patch other than an apply makes of a value. `None`: the value is a Scale, which has no lists to merge by key.
fn patched(kind: Option<&'static Kind>, old: &Value, patch: &Patch) -> Result<Value, Refusal> {
    let mut new = old.clone();
    let done = match (patch, kind) {
        (Patch::Merge(patch), _) => {
            patch::merge(&mut new, patch);
            Ok(())
        }
        (Patch::Json(patch), _) => patch::operations(&mut new, patch),
        (Patch::Strategic(patch), Some(kind)) if kind.strategic => {
            patch::strategic(kind, &mut new, patch)
        }
        (Patch::Strategic(_), _) => {
            let accepted = [
                "application/json-patch+json",
                "application/merge-patch+json",
                "application/apply-patch+yaml",
            ];
            return Err(Refusal::unsupported_media(
                "application/strategic-merge-patch+json",
                &accepted,
            ));
        }
        (Patch::Apply(_), _) => {
            let accepted = [
                "application/json-patch+json",
                "application/merge-patch+json",
            ];
            return Err(Refusal::unsupported_media(
                "application/apply-patch+yaml",
                &accepted,
            ));
        }
    };
    done.map_err(|error| match error {
        patch::Error::Malformed(_) => Refusal::bad_request(error.to_string()),
        patch::Error::Unfit(_) => Refusal::unprocessable(error.to_string()),
    })?;
    if new.is_object() {
        Ok(new)
    } else {
        Err(Refusal::unprocessable("the patch does not leave an object"))
    }
}

/// The `Scale` of an object.
pub(super) fn scale_of(scale: Scale, object: &Value) -> Value {
    let at = |path: &str| {
        path.split('.')
            .fold(object, |value, key| &value[key])
            .clone()
    };
    let mut metadata = Map::new();
    for key in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        metadata.insert(key.to_owned(), object["metadata"][key].clone());
    }
    let mut status = json!({"replicas": at(scale.status).as_i64().unwrap_or(0)});
    let selector = at(scale.selector);
    if let Some(text) = selector.as_str() {
        status["selector"] = json!(text);
    } else if let Ok(selector) = super::selector::of_object(Some(&selector)) {
        status["selector"] = json!(selector.to_string());
    }
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": at(scale.spec).as_i64().unwrap_or(0)},
        "status": status,
    })
}

/// Deletes one object.
///
/// # Errors
/// 400, 403, 404, 409.
pub(super) fn delete(
    store: &Store,
    target: &Target,
    deletion: &Deletion,
) -> Result<Value, Refusal> {
    let (kind, name) = (target.kind, target.name());
    if *kind == kinds::NAMESPACE && LASTING_NAMESPACES.contains(&name) {
        return Err(Refusal::forbidden(format!(
            "namespaces \"{name}\" is forbidden: this namespace may not be deleted"
        )));
    }
    match store.delete(kind, target.namespace(), name, deletion)? {
        Deleted::Waiting(object) => Ok(Value::clone(&kind.shown(&object))),
        Deleted::Gone(object) => Ok(json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": {"name": name, "group": kind.group, "kind": kind.plural, "uid": text(&object, "uid")},
        })),
    }
}

/// Deletes all objects that a filter admits, and returns them as they were.
///
/// # Errors
/// 409 for a precondition that fails.
pub(super) fn delete_all(
    store: &Store,
    target: &Target,
    filter: &Filter,
    deletion: &Deletion,
) -> Result<Vec<Object>, Refusal> {
    let mut gone = Vec::new();
    for object in store.list(target.kind, target.namespace.as_deref()).objects {
        let object = target.kind.shown(&object);
        if !filter.admits(&object) {
            continue;
        }
        match store.delete(
            target.kind,
            text(&object, "namespace"),
            text(&object, "name"),
            deletion,
        ) {
            Ok(_) => gone.push(object),
            // Somebody else was faster.
            Err(store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(gone)
}

fn stale(kind: &Kind, name: &str) -> Refusal {
    let message = format!(
        "Operation cannot be fulfilled on {} \"{name}\": the object has been modified; please apply your changes to the latest version and try again",
        kind.resource()
    );
    Refusal::conflict(kind, name, message)
}

fn same_or_set(metadata: &mut Map<String, Value>, key: &str, wanted: &str) -> Result<(), Refusal> {
    match metadata.get(key).and_then(Value::as_str) {
        Some(given) if !given.is_empty() && given != wanted => Err(Refusal::bad_request(format!(
            "the {key} of the provided object ({given}) does not match the {key} sent on the request ({wanted})"
        ))),
        _ => {
            metadata.insert(key.to_owned(), json!(wanted));
            Ok(())
        }
    }
}

/// A body that says nothing of `managedFields` leaves them as they are.
fn keep_record(old: &Value, new: &mut Value) {
    let said = new["metadata"]
        .get("managedFields")
        .is_some_and(|fields| !fields.is_null());
    if let (false, Some(fields)) = (said, old["metadata"].get("managedFields")) {
        new["metadata"]["managedFields"] = fields.clone();
    }
}

fn copy_version(from: &Value, to: &mut Value) {
    let version = text(from, "resourceVersion");
    if !version.is_empty() {
        to["metadata"]["resourceVersion"] = json!(version);
    }
}

fn set(object: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(object, |object, key| &mut object[key]);
    *place = value;
}
