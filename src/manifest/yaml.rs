//! YAML documents as JSON, with the line of every field.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::Spanned;

/// A document that is not empty.
#[derive(Clone, Debug)]
pub(super) struct Document {
    /// What it says.
    pub(super) value: Value,
    /// Where it says it.
    pub(super) lines: Lines,
}

/// The line of every field, from 1, by its path (`spec.steps[2].setWeight`); that of the document by the empty path.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines(BTreeMap<String, u64>);

/// Why a text is no YAML.
#[derive(Debug)]
pub(super) struct Malformed {
    /// The line, if one is to blame.
    pub(super) line: Option<u64>,
    /// What is wrong.
    pub(super) message: String,
}

/// Reads all documents that are not empty. JSON is YAML.
pub(super) fn read(text: &str) -> Result<Vec<Document>, Malformed> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true, with_snippet: false };
    let nodes: Vec<Node> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| Malformed {
            line: error
                .location()
                .map(|location| location.line())
                .filter(|line| *line > 0),
            message: error.without_snippet().to_string(),
        })?;
    Ok(nodes
        .into_iter()
        .filter(|node| !matches!(node.0.value, Kind::Scalar(Value::Null)))
        .map(document)
        .collect())
}

fn document(node: Node) -> Document {
    let mut lines = Lines::default();
    lines.0.insert(String::new(), node.0.referenced.line());
    let value = lines.note("", node);
    Document { value, lines }
}

impl Lines {
    /// The line of a field, or of the nearest that holds it.
    pub(super) fn of(&self, path: &str) -> u64 {
        let known = |path: &str| self.0.get(path).copied();
        let mut path = path;
        loop {
            match (known(path), path.rfind(['.', '['])) {
                (Some(line), _) => return line,
                (None, Some(end)) => path = path.get(..end).unwrap_or_default(),
                (None, None) => return known("").unwrap_or(1),
            }
        }
    }

    /// The lines of what stands below a path, as a document of its own.
    pub(super) fn below(&self, path: &str) -> Self {
        let below = self.0.iter().filter_map(|(known, line)| {
            let rest = known.strip_prefix(path)?;
            let is_within = rest.is_empty() || rest.starts_with('.');
            is_within.then(|| (rest.trim_start_matches('.').to_owned(), *line))
        });
        Self(below.collect())
    }

    /// Notes the lines of a node's fields and gives what it says.
    fn note(&mut self, path: &str, node: Node) -> Value {
        match node.0.value {
            Kind::Scalar(value) => value,
            Kind::Sequence(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    self.0.insert(path.clone(), item.0.referenced.line());
                    self.note(&path, item)
                });
                Value::Array(items.collect())
            }
            Kind::Mapping(fields) => {
                let fields = fields.into_iter().map(|(key, value)| {
                    let path = if path.is_empty() {
                        key.value.clone()
                    } else {
                        format!("{path}.{}", key.value)
                    };
                    self.0.insert(path.clone(), key.referenced.line());
                    let value = self.note(&path, value);
                    (key.value, value)
                });
                Value::Object(fields.collect::<Map<String, Value>>())
            }
        }
    }
}

/// A node and where it stands.
#[derive(Debug)]
struct Node(Spanned<Kind>);

#[derive(Debug)]
enum Kind {
    Scalar(Value),
    Sequence(Vec<Node>),
    Mapping(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Spanned::deserialize(deserializer).map(Self)
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(KindVisitor)
    }
}

struct KindVisitor;

impl<'de> Visitor<'de> for KindVisitor {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Kind, E> {
        match Number::from_f64(value) {
            Some(number) => Ok(Kind::Scalar(number.into())),
            None => Err(E::custom(format!(
                "{value} is no number that JSON can hold"
            ))),
        }
    }

    fn visit_str<E>(self, value: &str) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Kind, E> {
        Ok(Kind::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Kind, E> {
        Ok(Kind::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut sequence: A) -> Result<Kind, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = sequence.next_element()? {
            items.push(item);
        }
        Ok(Kind::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut mapping: A) -> Result<Kind, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = mapping.next_entry()? {
            fields.push(field);
        }
        Ok(Kind::Mapping(fields))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(text: &str) -> Vec<(String, u64)> {
        read(text)
            .unwrap()
            .into_iter()
            .flat_map(|document| document.lines.0)
            .collect()
    }

    #[test]
    fn every_field_knows_its_line() {
        let text = "# a comment\na: 1\nb:\n  - c: x\n    d: |\n      long\n  - [2, 3]\ne: {f: null}\n---\n\n---\ng: 4\n";
        let expected = [
            ("", 2),
            ("a", 2),
            ("b", 3),
            ("b[0]", 4),
            ("b[0].c", 4),
            ("b[0].d", 5),
            ("b[1]", 7),
            ("b[1][0]", 7),
            ("b[1][1]", 7),
            ("e", 8),
            ("e.f", 8),
            ("", 12),
            ("g", 12),
        ];
        let found = lines(text);
        assert_eq!(
            found
                .iter()
                .map(|(path, line)| (path.as_str(), *line))
                .collect::<Vec<_>>(),
            expected
        );
    }

    #[test]
    fn scalars_are_what_kubectl_takes_them_for() {
        let text = "a: yes\nb: \"3\"\nc: 3\nd: 0.5\ne: 0755\nf: ~\ng: 1e3\nh: 2026-11-21\ni: off\nj: -4\nk: 18446744073709551615";
        let value = read(text).unwrap().remove(0).value;
        let expected = json!({
            "a": true, "b": "3", "c": 3, "d": 0.5, "e": 493, "f": null, "g": 1000.0, "h": "2026-11-21", "i": false, "j": -4,
            "k": 18_446_744_073_709_551_615_u64,
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn anchors_are_followed() {
        let value = read("a: &x {b: 1}\nc: *x\n").unwrap().remove(0).value;
        assert_eq!(value, json!({"a": {"b": 1}, "c": {"b": 1}}));
    }

    #[test]
    fn json_is_yaml_tabs_included() {
        let text = "{\n\t\"a\": [1,\n\t\t2],\n\t\"b\": \"x\"\n}\n";
        assert_eq!(
            read(text).unwrap().remove(0).value,
            json!({"a": [1, 2], "b": "x"})
        );
    }

    #[test]
    fn a_path_that_is_not_there_has_the_line_of_what_should_hold_it() {
        let lines = read("a:\n  b:\n  - c: 1\n").unwrap().remove(0).lines;
        for (path, line) in [
            ("a.b[0].c", 3),
            ("a.b[0].x.y", 3),
            ("a.b[7].c", 2),
            ("a.x", 1),
            ("x", 1),
            ("", 1),
        ] {
            assert_eq!(lines.of(path), line, "{path}");
        }
    }

    #[test]
    fn what_is_no_yaml_says_where() {
        for (text, line) in [
            ("a: 1\n b: 2\n", 2),
            ("a: 1\na: 2\n", 2),
            ("a: [1\nb: 2\n", 2),
            ("a: 1\nb: *nosuch\n", 2),
        ] {
            let error = read(text).unwrap_err();
            assert_eq!(error.line, Some(line), "{text:?}: {}", error.message);
        }
    }
}
