//! Values, and how they look as text.

use std::collections::BTreeMap;
use std::sync::Arc;

/// A map's entries. They are kept sorted, so that no verdict hangs on the order of a hash.
pub type Map = BTreeMap<Arc<str>, Value>;

/// A value of the language.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// Nothing.
    #[default]
    Nil,
    /// True or false.
    Bool(bool),
    /// An integer: literals, counts, lengths.
    Int(i64),
    /// A number with a fraction: every number of JSON.
    Float(f64),
    /// Text.
    String(Arc<str>),
    /// Values in order.
    List(Arc<[Self]>),
    /// Values by name.
    Map(Arc<Map>),
}

impl Value {
    /// Text.
    #[must_use]
    pub fn text(text: impl Into<Arc<str>>) -> Self {
        Self::String(text.into())
    }

    /// A list.
    #[must_use]
    pub fn list(items: Vec<Self>) -> Self {
        Self::List(items.into())
    }

    /// A list of numbers.
    #[must_use]
    pub fn floats(numbers: &[f64]) -> Self {
        Self::List(numbers.iter().copied().map(Self::Float).collect())
    }

    /// The value's type as Go names it, for error messages.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "<nil>",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::String(_) => "string",
            Self::List(_) => "[]interface {}",
            Self::Map(_) => "map[string]interface {}",
        }
    }

    /// Whether it is nothing.
    #[must_use]
    pub const fn is_nil(&self) -> bool {
        matches!(self, Self::Nil)
    }

    /// The value, if it is true or false.
    #[must_use]
    pub const fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self {
            return Some(*value);
        }
        None
    }

    /// The value, if it is text.
    #[must_use]
    pub fn as_text(&self) -> Option<&str> {
        if let Self::String(text) = self {
            return Some(text);
        }
        None
    }

    /// The value as a number with a fraction, if it is a number.
    #[must_use]
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Self::Int(number) => Some(to_float(*number)),
            Self::Float(number) => Some(*number),
            Self::Nil | Self::Bool(_) | Self::String(_) | Self::List(_) | Self::Map(_) => None,
        }
    }

    /// The value as JSON; NaN and infinities, which JSON lacks, as text.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Self::Nil => serde_json::Value::Null,
            Self::Bool(value) => (*value).into(),
            Self::Int(number) => (*number).into(),
            Self::Float(number) => float_to_json(*number),
            Self::String(text) => (**text).into(),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(map) => serde_json::Value::Object(
                map.iter()
                    .map(|(key, value)| (key.to_string(), value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// A whole number without the `.0` that serde would write: Go prints `5`.
fn float_to_json(number: f64) -> serde_json::Value {
    match to_int(number) {
        Some(whole) if number.fract() == 0.0 && number.abs() < 1e15 => whole.into(),
        _ => serde_json::Number::from_f64(number)
            .map_or_else(|| format_float(number).into(), serde_json::Value::Number),
    }
}

impl From<&serde_json::Value> for Value {
    /// As Go decodes JSON: every number is a float.
    fn from(json: &serde_json::Value) -> Self {
        match json {
            serde_json::Value::Null => Self::Nil,
            serde_json::Value::Bool(value) => Self::Bool(*value),
            serde_json::Value::Number(number) => Self::Float(number.as_f64().unwrap_or(f64::NAN)),
            serde_json::Value::String(text) => Self::text(text.as_str()),
            serde_json::Value::Array(items) => Self::List(items.iter().map(Self::from).collect()),
            serde_json::Value::Object(fields) => Self::Map(Arc::new(
                fields
                    .iter()
                    .map(|(key, value)| (Arc::from(key.as_str()), Self::from(value)))
                    .collect(),
            )),
        }
    }
}

/// An integer as the nearest float, as Go converts it.
#[expect(clippy::cast_precision_loss, reason = "the language says: nearest")]
pub(super) const fn to_float(number: i64) -> f64 {
    number as f64
}

/// A float without its fraction, if it is in range.
#[expect(clippy::cast_possible_truncation, reason = "the range is checked")]
pub(super) fn to_int(number: f64) -> Option<i64> {
    /// 2⁶³, the first float beyond i64.
    const END: f64 = 9_223_372_036_854_775_808.0;
    (-END..END).contains(&number).then_some(number as i64)
}

/// A float as Go's `%v` prints it: the shortest digits that read back, with an exponent below 1e-4 and from 1e6.
pub(super) fn format_float(number: f64) -> String {
    if number.is_nan() {
        return "NaN".to_owned();
    }
    if number.is_infinite() {
        return if number > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    let size = number.abs();
    if number == 0.0 || (1e-4..1e6).contains(&size) {
        return number.to_string();
    }
    let text = format!("{number:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}
