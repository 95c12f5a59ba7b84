//! The schemas themselves, as they are read from their files.
//!
//! They are data, one definition a line. `kubernetes.json` is what the API server of Kubernetes 1.34 publishes of the kinds served
//! here (`api/openapi-spec/swagger.json`), `argoproj.json` what the CRDs of Argo Rollouts 1.10 say, `sidestep.json` is ours.
//! Descriptions are left out. A pod template of Argo's is `PodSpec`, stricter than its CRDs about volumes and resources. How lists
//! are merged (`x-kubernetes-list-type` and its like) and defaults stand there as well; no part of the walk asks for them.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use regex::Regex;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

/// A definition.
///
/// # Panics
/// Without one of this name; a test resolves every name.
pub(super) fn definition(name: &str) -> &'static Schema {
    DEFINITIONS
        .get(name)
        .expect("a test resolves the name of every definition")
}

/// Where the definitions stand.
pub(super) const FILES: [&str; 3] = [
    include_str!("kubernetes.json"),
    include_str!("argoproj.json"),
    include_str!("sidestep.json"),
];

/// Every definition, by its name.
pub(super) static DEFINITIONS: LazyLock<HashMap<String, Schema>> =
    LazyLock::new(|| files().collect());

/// A definition as it stands in its file.
///
/// # Panics
/// Without one of this name; a test resolves every name.
pub(in crate::local) fn text(name: &str) -> &'static Value {
    static TEXTS: LazyLock<HashMap<String, Value>> = LazyLock::new(|| files().collect());
    TEXTS
        .get(name)
        .expect("a test resolves the name of every definition")
}

/// What stands in the files.
fn files<T: DeserializeOwned>() -> impl Iterator<Item = (String, T)> {
    FILES.into_iter().flat_map(|text| {
        serde_json::from_str::<HashMap<String, T>>(text)
            .expect("the schemas are part of the program, and a test reads them")
    })
}

/// One node of a schema.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Schema {
    /// It is this definition, and nothing else counts.
    #[serde(rename = "$ref")]
    pub(super) definition: Option<String>,
    /// What a value is; absent means anything.
    #[serde(rename = "type")]
    pub(super) kind: Option<Type>,
    /// How a text or number is written.
    pub(super) format: Option<Format>,
    /// An integer or a string.
    #[serde(rename = "x-kubernetes-int-or-string")]
    int_or_string: bool,
    /// Fields that are not named may stand here too.
    #[serde(rename = "x-kubernetes-preserve-unknown-fields")]
    pub(super) open: bool,
    /// What a text looks like.
    #[serde(deserialize_with = "pattern")]
    pub(super) pattern: Option<Regex>,
    /// The only texts; empty means any.
    #[serde(rename = "enum")]
    pub(super) choices: Vec<String>,
    /// The least number.
    minimum: Option<i64>,
    /// The greatest number.
    maximum: Option<i64>,
    /// How many fields there are at least.
    pub(super) min_properties: Option<usize>,
    /// How many fields there are at most.
    pub(super) max_properties: Option<usize>,
    /// Fields that must be there.
    pub(super) required: Vec<String>,
    /// Fields by name.
    pub(super) properties: BTreeMap<String, Self>,
    /// Any other field.
    pub(super) additional_properties: Option<Box<Self>>,
    /// Each item of a list.
    pub(super) items: Option<Box<Self>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    Array,
    Boolean,
    Integer,
    Number,
    Object,
    String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Format {
    Byte,
    DateTime,
    Int32,
    Int64,
}

fn pattern<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Regex>, D::Error> {
    let text = String::deserialize(deserializer)?;
    Regex::new(&text)
        .map(Some)
        .map_err(serde::de::Error::custom)
}

impl Schema {
    /// The schema of a field, if there is such a field.
    pub(super) fn field(&self, key: &str) -> Option<&Self> {
        let named = self.properties.get(key);
        named.or(self.additional_properties.as_deref())
    }

    /// Whether a value is of its type. A quantity, which is an integer or a string with a pattern, may have a fraction.
    pub(super) fn admits(&self, value: &Value) -> bool {
        match (self.kind, value) {
            _ if self.int_or_string => match value {
                Value::String(_) => true,
                Value::Number(number) => self.pattern.is_some() || is_integer(number),
                Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => false,
            },
            (Some(Type::Integer), Value::Number(number)) => is_integer(number),
            (None, _)
            | (Some(Type::Array), Value::Array(_))
            | (Some(Type::Boolean), Value::Bool(_))
            | (Some(Type::Number), Value::Number(_))
            | (Some(Type::Object), Value::Object(_))
            | (Some(Type::String), Value::String(_)) => true,
            (Some(_), _) => false,
        }
    }

    /// The least and the greatest integer that can stand here.
    pub(super) fn range(&self) -> (i64, i64) {
        let (least, most) = match self.format {
            Some(Format::Int32) => (i32::MIN.into(), i32::MAX.into()),
            Some(Format::Int64 | Format::Byte | Format::DateTime) | None => (i64::MIN, i64::MAX),
        };
        (self.minimum.unwrap_or(least), self.maximum.unwrap_or(most))
    }

    /// As it is called in complaints.
    pub(super) fn type_name(&self) -> &'static str {
        match self.kind {
            _ if self.int_or_string => "integer,string",
            Some(Type::Array) => "array",
            Some(Type::Boolean) => "boolean",
            Some(Type::Integer) => "integer",
            Some(Type::Number) => "number",
            Some(Type::Object) => "object",
            Some(Type::String) => "string",
            None => "any",
        }
    }
}

impl Format {
    /// Whether a text is written like this.
    pub(super) fn admits(self, text: &str) -> bool {
        match self {
            Self::Byte => BASE64_STANDARD.decode(text).is_ok(),
            Self::DateTime => text.parse::<Timestamp>().is_ok(),
            Self::Int32 | Self::Int64 => true,
        }
    }

    /// As it is called in schemas.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Byte => "byte",
            Self::DateTime => "date-time",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
        }
    }
}

/// Whether it was written without a fraction.
pub(super) fn is_integer(number: &Number) -> bool {
    number.is_i64() || number.is_u64()
}
