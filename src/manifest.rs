//! Manifests: files, folders and stdin become objects, or complaints that name file, line and field.
//!
//! YAML is read into a tree that keeps the line of every field, then into JSON, and from there on the strict checks of the embedded
//! API server decide; so a manifest that is read here is one that can be applied. Nothing is applied unless everything can be read.

pub(crate) mod configuration;
mod meaning;
mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sidestep_control::local::{FieldError, kinds};

use crate::settings::Source;
use yaml::{Document, Lines};

/// An object that a manifest asks for.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    /// The object, with its namespace filled in.
    pub(crate) value: Value,
    /// Which object it is.
    pub(crate) id: Id,
    /// Where it stands.
    pub(crate) origin: Origin,
    lines: Lines,
}

/// Which object: what a cluster tells objects apart by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Id {
    /// `apps/v1`.
    pub(crate) api_version: String,
    /// `Deployment`.
    pub(crate) kind: String,
    /// Its namespace; `None` for kinds that have none.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            kind,
            namespace,
            name,
            ..
        } = self;
        match namespace {
            Some(namespace) => write!(f, "{kind} {namespace}/{name}"),
            None => write!(f, "{kind} {name}"),
        }
    }
}

/// Where an object stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// The file as it was named, or `<stdin>`.
    pub(crate) file: String,
    /// Which document of the file, from 1; empty ones are not counted.
    pub(crate) document: usize,
    /// The line it begins at, from 1.
    pub(crate) line: u64,
}

/// What is wrong with a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file as it was named, or `<stdin>`.
    pub(crate) file: String,
    /// The line, if one is to blame.
    pub(crate) line: Option<u64>,
    /// The object, if it got that far.
    pub(crate) object: Option<Id>,
    /// What is wrong, with the field and what is allowed there.
    pub(crate) message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(object) = &self.object {
            write!(f, ": {object}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Everything that is wrong with a set of manifests, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Faults(pub(crate) Vec<Fault>);

impl std::error::Error for Faults {}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Fault::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// Reads all objects, in the order they were named. `namespace` is that of objects that name none.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(crate) fn read(sources: &[Source], namespace: &str) -> Result<Vec<Object>, Faults> {
    let mut faults = Vec::new();
    let texts: Vec<(String, String)> = sources
        .iter()
        .flat_map(|source| texts(source, &mut faults))
        .collect();
    of_texts(&texts, namespace, faults)
}

/// Reads the objects of one text; `file` is its name in complaints.
///
/// # Errors
/// Everything that is wrong with any of them.
pub(crate) fn parse(file: &str, text: &str, namespace: &str) -> Result<Vec<Object>, Faults> {
    of_texts(&[(file.to_owned(), text.to_owned())], namespace, Vec::new())
}

fn of_texts(
    texts: &[(String, String)],
    namespace: &str,
    mut faults: Vec<Fault>,
) -> Result<Vec<Object>, Faults> {
    let mut objects = Vec::new();
    for (file, text) in texts {
        objects.extend(objects_of(file, text, namespace, &mut faults));
    }
    faults.extend(duplicates(&objects));
    faults.extend(meaning::faults(&objects));
    if faults.is_empty() {
        Ok(objects)
    } else {
        Err(Faults(faults))
    }
}

impl Object {
    /// A complaint about a field of this object, with the line of the field or of what should hold it.
    pub(crate) fn fault(&self, path: &str, message: impl Into<String>) -> Fault {
        Fault {
            file: self.origin.file.clone(),
            line: Some(self.lines.of(path)),
            object: Some(self.id.clone()),
            message: message.into(),
        }
    }
}

/// The text of each file of a source, with the file's name.
fn texts(source: &Source, faults: &mut Vec<Fault>) -> Vec<(String, String)> {
    match source {
        Source::Stdin => {
            let mut text = String::new();
            let read = std::io::stdin().read_to_string(&mut text);
            text_of("<stdin>".to_owned(), read.map(|_| text), faults)
                .into_iter()
                .collect()
        }
        Source::File(path) => file(path, faults).into_iter().collect(),
        Source::Folder(path) => match manifests_in(path) {
            Ok(paths) if paths.is_empty() => {
                faults.push(whole(
                    path.display(),
                    "there is no .yaml, .yml or .json file in this folder",
                ));
                Vec::new()
            }
            Ok(paths) => paths.iter().filter_map(|path| file(path, faults)).collect(),
            Err(error) => {
                faults.push(whole(path.display(), error));
                Vec::new()
            }
        },
    }
}

fn file(path: &Path, faults: &mut Vec<Fault>) -> Option<(String, String)> {
    text_of(path.display().to_string(), fs::read_to_string(path), faults)
}

fn text_of(
    file: String,
    text: std::io::Result<String>,
    faults: &mut Vec<Fault>,
) -> Option<(String, String)> {
    match text {
        Ok(text) => Some((file, text)),
        Err(error) => {
            faults.push(whole(file, error));
            None
        }
    }
}

fn whole(file: impl fmt::Display, message: impl fmt::Display) -> Fault {
    Fault {
        file: file.to_string(),
        line: None,
        object: None,
        message: message.to_string(),
    }
}

/// The manifests of a folder, by name; folders in it are not entered, as with `kubectl apply -f`.
pub(crate) fn manifests_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_manifest = path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known));
        if is_manifest && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn objects_of(file: &str, text: &str, namespace: &str, faults: &mut Vec<Fault>) -> Vec<Object> {
    let documents = match yaml::read(text) {
        Ok(documents) => documents,
        Err(error) => {
            faults.push(Fault {
                line: error.line,
                ..whole(file, error.message)
            });
            return Vec::new();
        }
    };
    let items = documents
        .into_iter()
        .enumerate()
        .flat_map(|(index, document)| unlisted(index, document));
    items
        .filter_map(|(index, document)| object(file, index + 1, document, namespace, faults))
        .collect()
}

/// The items of a `List`, or the document itself.
fn unlisted(index: usize, document: Document) -> Vec<(usize, Document)> {
    let is_list = document.value["kind"] == "List" && document.value["apiVersion"] == "v1";
    match document
        .value
        .get("items")
        .and_then(Value::as_array)
        .filter(|_| is_list)
    {
        Some(items) => {
            let item = |(at, value): (usize, &Value)| Document {
                value: value.clone(),
                lines: document.lines.below(&format!("items[{at}]")),
            };
            items
                .iter()
                .enumerate()
                .map(item)
                .map(|item| (index, item))
                .collect()
        }
        None => vec![(index, document)],
    }
}

fn object(
    file: &str,
    document: usize,
    read: Document,
    namespace: &str,
    faults: &mut Vec<Fault>,
) -> Option<Object> {
    let Document { mut value, lines } = read;
    let origin = Origin {
        file: file.to_owned(),
        document,
        line: lines.of(""),
    };
    let fault = |path: &str, message: String| Fault {
        line: Some(lines.of(path)),
        ..whole(file, message)
    };
    let id = match identify(&mut value, namespace) {
        Ok(id) => id,
        Err(error) => {
            faults.push(fault(&error.path, text_of_error(&error)));
            return None;
        }
    };
    if let Err(errors) = kinds::check(&value) {
        let about = |error: &FieldError| Fault {
            object: Some(id.clone()),
            ..fault(&error.path, text_of_error(error))
        };
        let mut found: Vec<Fault> = errors.iter().map(about).collect();
        found.sort_by_key(|fault| fault.line);
        faults.extend(found);
        return None;
    }
    Some(Object {
        value,
        id,
        origin,
        lines,
    })
}

/// Which object it is; fills in the namespace.
fn identify(value: &mut Value, namespace: &str) -> Result<Id, FieldError> {
    let Value::Object(_) = value else {
        return Err(invalid(
            "",
            "this is no object: apiVersion, kind and metadata are needed",
        ));
    };
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let (api_version, kind) = (text(value, "/apiVersion"), text(value, "/kind"));
    let Some(row) = kinds::named(&api_version, &kind) else {
        return Err(unknown_kind(&api_version, &kind));
    };
    let name = text(value, "/metadata/name");
    if name.is_empty() {
        return Err(invalid(
            "metadata.name",
            "a name is required: what has none cannot be applied again",
        ));
    }
    let mut id = Id {
        api_version,
        kind,
        namespace: None,
        name,
    };
    if row.namespaced {
        let own = text(value, "/metadata/namespace");
        let own = if own.is_empty() {
            namespace.to_owned()
        } else {
            own
        };
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("namespace".to_owned(), own.clone().into());
        }
        id.namespace = Some(own);
    }
    Ok(id)
}

fn invalid(path: &str, message: &str) -> FieldError {
    FieldError::new(path, sidestep_control::local::Problem::Required, message)
}

/// Says what would have been known: the kind's other versions, or all kinds.
fn unknown_kind(api_version: &str, kind: &str) -> FieldError {
    if api_version.is_empty() || kind.is_empty() {
        let path = if api_version.is_empty() {
            "apiVersion"
        } else {
            "kind"
        };
        return invalid(path, "every object needs apiVersion and kind");
    }
    let same_kind: Vec<String> = kinds::ALL
        .iter()
        .filter(|row| row.kind == kind)
        .map(|row| row.api_version())
        .collect();
    let message = match same_kind.is_empty() {
        false => format!(
            "{kind} is not of {api_version} here, but of {}",
            same_kind.join(" or ")
        ),
        true => format!(
            "there is no kind {kind} of {api_version} here; there are {}",
            all_kinds()
        ),
    };
    let path = if same_kind.is_empty() {
        "kind"
    } else {
        "apiVersion"
    };
    FieldError::new(path, sidestep_control::local::Problem::Unsupported, message)
}

fn all_kinds() -> String {
    let mut all: Vec<&str> = kinds::ALL.iter().map(|row| row.kind).collect();
    all.sort_unstable();
    all.dedup();
    all.join(", ")
}

fn text_of_error(error: &FieldError) -> String {
    match error.path.is_empty() {
        true => error.message.clone(),
        false => error.to_string(),
    }
}

/// Objects that stand in the manifests more than once.
fn duplicates(objects: &[Object]) -> Vec<Fault> {
    let mut seen: BTreeMap<&Id, &Origin> = BTreeMap::new();
    let mut faults = Vec::new();
    for object in objects {
        if let Some(first) = seen.get(&object.id) {
            let message = format!(
                "this object stands in {}:{} already",
                first.file, first.line
            );
            faults.push(object.fault("", message));
        } else {
            seen.insert(&object.id, &object.origin);
        }
    }
    faults
}

#[cfg(test)]
mod tests;
