//! A configuration file as the type it describes, or a complaint that names file, line and field.

use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::yaml::{self, Document};
use super::{Fault, Faults, whole};

/// Reads a file of one YAML or JSON document. What it leaves out is taken from `beneath`, and then from the type's own defaults.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn read<T: DeserializeOwned>(path: &Path, beneath: Value) -> Result<T, Faults> {
    let text = fs::read_to_string(path).map_err(|error| fault(whole(path.display(), error)))?;
    parse(&path.display().to_string(), &text, beneath)
}

/// The same, of a text; `file` is its name in complaints.
///
/// # Errors
/// The first thing that is wrong with it.
pub(crate) fn parse<T: DeserializeOwned>(
    file: &str,
    text: &str,
    beneath: Value,
) -> Result<T, Faults> {
    let document = only(file, text)?;
    if !document.value.is_object() {
        return Err(fault(whole(file, "this is no mapping of fields to values")));
    }
    let mut value = beneath;
    json_patch::merge(&mut value, &document.value);
    serde_path_to_error::deserialize(value).map_err(|error| {
        let field = error.path().to_string();
        fault(Fault {
            line: Some(document.lines.of(&field)),
            ..whole(file, format!("{field}: {}", error.into_inner()))
        })
    })
}

fn only(file: &str, text: &str) -> Result<Document, Faults> {
    let documents = yaml::read(text).map_err(|error| {
        fault(Fault {
            line: error.line,
            ..whole(file, error.message)
        })
    })?;
    let mut documents = documents.into_iter();
    let document = documents.next().unwrap_or_else(|| Document {
        value: Value::Object(Map::new()),
        lines: yaml::Lines::default(),
    });
    match documents.next() {
        None => Ok(document),
        Some(second) => Err(fault(Fault {
            line: Some(second.lines.of("")),
            ..whole(
                file,
                "a second document begins here; a configuration is one",
            )
        })),
    }
}

fn fault(fault: Fault) -> Faults {
    Faults(vec![fault])
}
