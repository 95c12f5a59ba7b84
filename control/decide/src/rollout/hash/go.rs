//! JSON as Go's `encoding/json` writes a pod template or a step list that it has read into its types (R2.2).
//!
//! Fields stand in the order of the Go types, empty ones are left out where the type says so, keys of maps are sorted, quantities have
//! their canonical form and `<`, `>`, `&` are escaped. `go.txt` lists the types, read off k8s.io/api 0.34.1 and Argo Rollouts 1.9.0 by
//! reflection: a line is a type and its fields, `name=kind`; kinds are `s` text, `b` bool, `n` number, `q` quantity, `t` time, `v` number
//! or text, `r` JSON, `*k` pointer, `[]k` list, `{}k` map or the name of a type; `!` marks a field that is never left out.
//! (k8s-openapi is of no use here: its fields are in alphabetical order.)
//!
//! A field that the types lack is one of a newer API. Go would drop it; here it follows its siblings, sorted by name, so that a change
//! of it makes a new revision.

use std::sync::LazyLock;

use serde_json::{Map, Value};

use crate::rollout::quantity;

/// What Go's libraries do with a time that is not set, such as `metadata.creationTimestamp` of a template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Generation {
    /// Leave it out: since 0.34, Argo 1.9.
    Omits,
    /// Write `null`: up to 0.29, Argo 1.8.
    WritesNull,
}

/// A pod template.
pub(super) fn template(value: &Value, generation: Generation) -> String {
    written("PodTemplateSpec", value, generation)
}

/// A step list; an empty one is `null`.
pub(super) fn steps(value: &Value) -> String {
    written("[]CanaryStep", value, Generation::Omits)
}

/// A value of any type of the table.
pub(super) fn written(kind: &str, value: &Value, generation: Generation) -> String {
    let kind = Kind::read(kind, &TYPES.names);
    let mut writer = Writer {
        out: String::with_capacity(1024),
        generation,
    };
    writer.write(&kind, value);
    writer.out
}

/// Go's types.
struct Types {
    names: Vec<&'static str>,
    types: Vec<Vec<Field>>,
}

struct Field {
    name: &'static str,
    /// It is written even when it is empty.
    always: bool,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Text,
    Bool,
    Number,
    Quantity,
    Time,
    NumberOrText,
    Json,
    Pointer(Box<Self>),
    List(Box<Self>),
    Map(Box<Self>),
    /// Index in [`Types::types`].
    Type(usize),
}

static TYPES: LazyLock<Types> = LazyLock::new(|| Types::read(include_str!("go.txt")));

impl Types {
    fn read(text: &'static str) -> Self {
        let lines: Vec<(&str, &str)> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .collect();
        let names: Vec<&'static str> = lines.iter().map(|(name, _)| *name).collect();
        let field = |text: &'static str| {
            let (name, kind) = text.split_once('=')?;
            let bare = kind.strip_prefix('!');
            Some(Field {
                name,
                always: bare.is_some(),
                kind: Kind::read(bare.unwrap_or(kind), &names),
            })
        };
        let fields = |text: &'static str| text.split(' ').filter_map(field).collect();
        Self {
            types: lines.iter().map(|(_, text)| fields(text)).collect(),
            names,
        }
    }
}

impl Kind {
    fn read(text: &str, names: &[&str]) -> Self {
        let inner = |text| Box::new(Self::read(text, names));
        if let Some(text) = text.strip_prefix('*') {
            return Self::Pointer(inner(text));
        }
        if let Some(text) = text.strip_prefix("[]") {
            return Self::List(inner(text));
        }
        if let Some(text) = text.strip_prefix("{}") {
            return Self::Map(inner(text));
        }
        match text {
            "s" => Self::Text,
            "b" => Self::Bool,
            "n" => Self::Number,
            "q" => Self::Quantity,
            "t" => Self::Time,
            "v" => Self::NumberOrText,
            name => match names.iter().position(|known| *known == name) {
                Some(index) => Self::Type(index),
                None => Self::Json,
            },
        }
    }
}

struct Writer {
    out: String,
    generation: Generation,
}

impl Writer {
    /// Writes a value of a type; what is absent has the type's zero.
    fn write(&mut self, kind: &Kind, value: &Value) {
        match (kind, value) {
            (Kind::Pointer(inner), value) if !value.is_null() => self.write(inner, value),
            (Kind::List(inner), Value::Array(items)) => self.list(inner, items),
            (Kind::Map(inner), Value::Object(map)) => self.map(inner, map),
            (Kind::Type(index), Value::Object(map)) => self.fields(&TYPES.types[*index], map),
            (Kind::Type(index), Value::Null) => self.fields(&TYPES.types[*index], &Map::new()),
            (Kind::Quantity, value) => self.quantity(value),
            (Kind::Text, Value::Null) => self.out.push_str("\"\""),
            (Kind::Bool, Value::Null) => self.out.push_str("false"),
            (Kind::Number | Kind::NumberOrText, Value::Null) => self.out.push('0'),
            (_, value) => self.json(value),
        }
    }

    fn list(&mut self, inner: &Kind, items: &[Value]) {
        self.out.push('[');
        for (index, item) in items.iter().enumerate() {
            self.comma(index);
            self.write(inner, item);
        }
        self.out.push(']');
    }

    fn map(&mut self, inner: &Kind, map: &Map<String, Value>) {
        self.out.push('{');
        for (index, (key, value)) in sorted(map).into_iter().enumerate() {
            self.comma(index);
            self.key(key);
            self.write(inner, value);
        }
        self.out.push('}');
    }

    fn fields(&mut self, fields: &[Field], map: &Map<String, Value>) {
        self.out.push('{');
        let mut count = 0;
        for field in fields {
            let value = map.get(field.name).unwrap_or(&Value::Null);
            if field.always || !self.omits(&field.kind, value) {
                self.comma(count);
                self.key(field.name);
                self.write(&field.kind, value);
                count += 1;
            }
        }
        let known = |key: &str| fields.iter().any(|field| field.name == key);
        for (key, value) in sorted(map) {
            if !known(key) && !value.is_null() {
                self.comma(count);
                self.key(key);
                self.json(value);
                count += 1;
            }
        }
        self.out.push('}');
    }

    /// Go's `omitempty`: a struct is never empty, and neither is a pointer to something empty.
    fn omits(&self, kind: &Kind, value: &Value) -> bool {
        match kind {
            Kind::Text => value.is_null() || value == "",
            Kind::Bool => value.is_null() || value == false,
            Kind::Number => value.is_null() || value == 0,
            Kind::Json | Kind::Pointer(_) => value.is_null(),
            Kind::List(_) => value.as_array().is_some_and(Vec::is_empty) || value.is_null(),
            Kind::Map(_) => value.as_object().is_some_and(Map::is_empty) || value.is_null(),
            Kind::Time => value.is_null() && self.generation == Generation::Omits,
            Kind::Quantity | Kind::NumberOrText | Kind::Type(_) => false,
        }
    }

    fn quantity(&mut self, value: &Value) {
        let text = match value {
            Value::Null => "0".to_owned(),
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        };
        let canonical = quantity::canonical(&text).unwrap_or(text);
        self.text(&canonical);
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::Object(map) => self.map(&Kind::Json, map),
            Value::Array(items) => self.list(&Kind::Json, items),
            Value::String(text) => self.text(text),
            Value::Null | Value::Bool(_) | Value::Number(_) => {
                self.out.push_str(&value.to_string());
            }
        }
    }

    fn comma(&mut self, index: usize) {
        if index > 0 {
            self.out.push(',');
        }
    }

    fn key(&mut self, key: &str) {
        self.text(key);
        self.out.push(':');
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                '<' | '>' | '&' | '\u{2028}' | '\u{2029}' | '\0'..='\u{1f}' => {
                    self.out.push_str(&format!("\\u{:04x}", u32::from(c)));
                }
                _ => self.out.push(c),
            }
        }
        self.out.push('"');
    }
}

fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut entries: Vec<_> = map.iter().collect();
    entries.sort_by_key(|(key, _)| *key);
    entries
}
