//! What an object may hold: OpenAPI schemas, and a walk that compares an object with the schema of its kind.
//!
//! The walk is one function for all kinds. Decoding into Rust types would do as well, and cost as much machine code for each field
//! of each Kubernetes type as the rest of the control plane together.

mod definitions;

use serde_json::{Map, Number, Value};

pub(super) use self::definitions::text;
use self::definitions::{Schema, definition, is_integer};
use super::kinds::Kind;
use super::strict::{FieldError, Problem, escaped, join};

/// Complains of every field that the object's kind does not know, and of every value that cannot stand where it does, by path.
///
/// A core kind may leave out what its schema requires: its Go type has a zero value, and what must be there says [`Kind::required`].
pub(super) fn check(kind: &Kind, object: &Value) -> Vec<FieldError> {
    let mut walk = Walk {
        demands: !kind.strategic,
        errors: Vec::new(),
    };
    walk.value(definition(kind.schema), object, Place::Root);
    walk.errors.sort_by(|one, other| one.path.cmp(&other.path));
    walk.errors
}

/// Where a value stands in its object.
#[derive(Clone, Copy)]
enum Place<'a> {
    Root,
    Field(&'a Self, &'a str),
    Item(&'a Self, usize),
}

impl Place<'_> {
    /// `spec.steps[2].setWeight`.
    fn path(self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Field(above, key) => join(&above.path(), key),
            Self::Item(above, index) => format!("{}[{index}]", above.path()),
        }
    }

    /// `/spec/steps/2/setWeight`.
    fn pointer(self) -> String {
        match self {
            Self::Root => String::new(),
            Self::Field(above, key) => format!("{}/{}", above.pointer(), escaped(key)),
            Self::Item(above, index) => format!("{}/{index}", above.pointer()),
        }
    }
}

/// A walk over one object.
struct Walk {
    /// Whether what is required must be there.
    demands: bool,
    errors: Vec<FieldError>,
}

impl Walk {
    fn value(&mut self, schema: &Schema, value: &Value, at: Place<'_>) {
        if let Some(name) = &schema.definition {
            return self.value(definition(name), value, at);
        }
        if !schema.admits(value) {
            return self.misfit(schema, value, at);
        }
        match value {
            Value::Object(fields) => self.object(schema, fields, at),
            Value::Array(items) => self.array(schema, items, at),
            Value::String(text) => self.text(schema, text, at),
            Value::Number(number) => self.number(schema, number, at),
            Value::Bool(_) | Value::Null => {}
        }
    }

    /// A field that is `null` is not there.
    fn object(&mut self, schema: &Schema, fields: &Map<String, Value>, at: Place<'_>) {
        for (key, value) in fields {
            let here = Place::Field(&at, key);
            match schema.field(key) {
                Some(field) if !value.is_null() => self.value(field, value, here),
                Some(_) => {}
                None if schema.open => {}
                None => self
                    .errors
                    .push(FieldError::unknown(here.path(), here.pointer())),
            }
        }
        if self.demands {
            let absent = |key: &&String| fields.get(*key).is_none_or(Value::is_null);
            for key in schema.required.iter().filter(absent) {
                let path = Place::Field(&at, key).path();
                self.errors
                    .push(FieldError::new(path, Problem::Required, ""));
            }
        }
        self.count(schema, fields, at);
    }

    fn count(&mut self, schema: &Schema, fields: &Map<String, Value>, at: Place<'_>) {
        let found = fields.len();
        let wanted = match (schema.min_properties, schema.max_properties) {
            (Some(least), _) if found < least => format!("should have at least {least} properties"),
            (_, Some(most)) if found > most => format!("should have at most {most} properties"),
            _ => return,
        };
        let shown = Value::from(fields.clone());
        self.refuse(Problem::Invalid, &shown, at, &wanted);
    }

    fn array(&mut self, schema: &Schema, items: &[Value], at: Place<'_>) {
        let Some(item) = &schema.items else {
            return;
        };
        for (index, value) in items.iter().enumerate() {
            self.value(item, value, Place::Item(&at, index));
        }
    }

    fn text(&mut self, schema: &Schema, text: &str, at: Place<'_>) {
        if !schema.choices.is_empty() && !schema.choices.iter().any(|choice| choice == text) {
            let choices: Vec<String> = schema
                .choices
                .iter()
                .map(|choice| format!("{choice:?}"))
                .collect();
            let message = format!("{text:?}: supported values: {}", choices.join(", "));
            self.errors
                .push(FieldError::new(at.path(), Problem::Unsupported, message));
        }
        if let Some(pattern) = schema
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            self.refuse(
                Problem::Invalid,
                &text.into(),
                at,
                &format!("should match '{pattern}'"),
            );
        }
        if let Some(format) = schema.format.filter(|format| !format.admits(text)) {
            let wanted = format!("must be of type {}: {text:?}", format.name());
            self.refuse(Problem::Type, &text.into(), at, &wanted);
        }
    }

    fn number(&mut self, schema: &Schema, number: &Number, at: Place<'_>) {
        let (least, most) = schema.range();
        let wanted = match (number.as_i64(), number.as_u64()) {
            (Some(number), _) if number < least => {
                format!("should be greater than or equal to {least}")
            }
            (Some(number), _) if number > most => format!("should be less than or equal to {most}"),
            (None, Some(_)) => format!("should be less than or equal to {most}"),
            _ => return,
        };
        self.refuse(Problem::Invalid, &Value::from(number.clone()), at, &wanted);
    }

    fn misfit(&mut self, schema: &Schema, value: &Value, at: Place<'_>) {
        let found = type_name(value);
        let wanted = format!("must be of type {}: \"{found}\"", schema.type_name());
        self.refuse(Problem::Type, &found.into(), at, &wanted);
    }

    /// Complains in the words of an API server: `"string": spec.replicas in body must be of type integer: "string"`.
    fn refuse(&mut self, problem: Problem, shown: &Value, at: Place<'_>, wanted: &str) {
        let path = at.path();
        let message = format!("{shown}: {path} in body {wanted}");
        self.errors.push(FieldError::new(path, problem, message));
    }
}

fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if is_integer(number) => "integer",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests;
