//! Kubernetes' JSONPath, as far as a metric needs it: one expression in braces that leads to a value, `{$.items[0].status}`.
//!
//! It is a template language in Kubernetes; text around the braces, `{range}`, several expressions and filters are refused here,
//! since they make text out of values or are not needed to find one.

use serde_json::Value;

/// Why a path leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not of the dialect.
    #[error("jsonPath {path:?}: {cause}, at {at}")]
    Syntax {
        /// The path.
        path: String,
        /// What is wrong.
        cause: String,
        /// Where, in bytes; at most its length.
        at: usize,
    },
    /// The value has no such place.
    #[error("jsonPath {path:?}: {cause}")]
    Missing {
        /// The path.
        path: String,
        /// What is missing.
        cause: String,
    },
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Any of these fields; of several, those that are there.
    Fields(Vec<String>),
    /// These elements; negative ones count from the end.
    Elements(Vec<i64>),
    /// Elements from, to (without it), by.
    Slice(Option<i64>, Option<i64>, usize),
    /// All elements or fields.
    All,
    /// The value and everything below it.
    Below,
}

/// The first value that a path leads to.
///
/// # Errors
///
/// A path that is not of the dialect, or that leads nowhere.
pub fn first<'a>(path: &str, value: &'a Value) -> Result<&'a Value, Error> {
    let missing = |cause: String| Error::Missing {
        path: path.to_owned(),
        cause,
    };
    let mut found = vec![value];
    for step in parse(path)? {
        let mut next = Vec::new();
        for value in found {
            walk(&step, value, &mut next).map_err(missing)?;
        }
        found = next;
        // As in Kubernetes: of many values, some may lack the field.
        if let (Step::Fields(names), true) = (&step, found.is_empty()) {
            return Err(missing(format!("{} is not found", names.join(", "))));
        }
    }
    found
        .first()
        .copied()
        .ok_or_else(|| missing("nothing is found".to_owned()))
}

fn walk<'a>(step: &Step, value: &'a Value, into: &mut Vec<&'a Value>) -> Result<(), String> {
    match step {
        Step::Fields(names) => {
            into.extend(names.iter().filter_map(|name| value.get(name)));
            Ok(())
        }
        Step::Elements(indices) => elements(indices, value, into),
        Step::Slice(from, to, by) => {
            into.extend(slice(value, *from, *to).step_by(*by));
            Ok(())
        }
        Step::All => {
            into.extend(children(value));
            Ok(())
        }
        Step::Below => {
            below(value, into);
            Ok(())
        }
    }
}

fn elements<'a>(
    indices: &[i64],
    value: &'a Value,
    into: &mut Vec<&'a Value>,
) -> Result<(), String> {
    let items = value
        .as_array()
        .ok_or_else(|| format!("{} is no array", kind(value)))?;
    for &index in indices {
        let place = position(index, items.len()).and_then(|place| items.get(place));
        into.push(place.ok_or_else(|| {
            format!(
                "array index out of bounds: index {index}, length {}",
                items.len()
            )
        })?);
    }
    Ok(())
}

fn position(index: i64, length: usize) -> Option<usize> {
    let distance = usize::try_from(index.unsigned_abs()).ok()?;
    if index < 0 {
        length.checked_sub(distance)
    } else {
        Some(distance)
    }
}

fn slice(value: &Value, from: Option<i64>, to: Option<i64>) -> impl Iterator<Item = &Value> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    let bound = |index: i64| position(index, items.len()).unwrap_or(0).min(items.len());
    let from = from.map_or(0, bound);
    let to = to.map_or(items.len(), bound).max(from);
    items.get(from..to).unwrap_or_default().iter()
}

fn children(value: &Value) -> Box<dyn Iterator<Item = &Value> + '_> {
    match value {
        Value::Array(items) => Box::new(items.iter()),
        Value::Object(fields) => Box::new(fields.values()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Box::new(std::iter::empty())
        }
    }
}

/// Depth is bounded by that of the JSON, which its parser bounds.
fn below<'a>(value: &'a Value, into: &mut Vec<&'a Value>) {
    into.push(value);
    for child in children(value) {
        below(child, into);
    }
}

const fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn parse(path: &str) -> Result<Vec<Step>, Error> {
    let mut parser = Parser { path, at: 0 };
    let syntax = |(at, cause): (usize, String)| Error::Syntax {
        path: path.to_owned(),
        cause,
        at: at.min(path.len()),
    };
    parser.steps().map_err(syntax)
}

struct Parser<'a> {
    path: &'a str,
    at: usize,
}

type Fault = (usize, String);

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.path.get(self.at..).unwrap_or_default()
    }

    fn take(&mut self, text: &str) -> bool {
        let taken = self.rest().starts_with(text);
        if taken {
            self.at += text.len();
        }
        taken
    }

    fn blank(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start().len();
    }

    fn fault(&self, cause: impl Into<String>) -> Fault {
        (self.at, cause.into())
    }

    fn steps(&mut self) -> Result<Vec<Step>, Fault> {
        self.blank();
        if !self.take("{") {
            return Err(self.fault("a path stands in braces, as in {$.a.b}"));
        }
        self.blank();
        if self.rest().starts_with("range") || self.rest().starts_with("end") {
            return Err(self.fault("{range} is not supported: name one value"));
        }
        self.take("$");
        let mut steps = Vec::new();
        loop {
            self.blank();
            if self.take("}") {
                break;
            }
            self.step(&mut steps)?;
        }
        self.blank();
        if self.rest().is_empty() {
            return Ok(steps);
        }
        Err(self.fault("text after the closing brace is not supported"))
    }

    fn step(&mut self, steps: &mut Vec<Step>) -> Result<(), Fault> {
        if self.take("..") {
            steps.push(Step::Below);
            if self.rest().starts_with('[') {
                return Ok(());
            }
            steps.push(self.name()?);
        } else if self.take(".") {
            // `{.}` is the whole value, and `{.[0]}` its first element.
            if !self.rest().starts_with('[') && !self.rest().trim_start().starts_with('}') {
                steps.push(self.name()?);
            }
        } else if self.take("[") {
            steps.push(self.brackets()?);
        } else if self.rest().is_empty() {
            return Err(self.fault("unclosed action: } is missing"));
        } else {
            return Err(self.fault("a path goes on with . or ["));
        }
        Ok(())
    }

    /// A name up to the next `.`, `[` or `}`; a backslash takes the next character as it is.
    fn name(&mut self) -> Result<Step, Fault> {
        if self.take("*") {
            return Ok(Step::All);
        }
        let mut name = String::new();
        let mut characters = self.rest().char_indices();
        let mut length = 0;
        while let Some((index, character)) = characters.next() {
            match character {
                '.' | '[' | '}' => break,
                '\\' => {
                    let escaped = characters.next();
                    let (_, escaped) = escaped.ok_or_else(|| self.fault("nothing is escaped"))?;
                    name.push(escaped);
                    length = index + 1 + escaped.len_utf8();
                }
                other if other.is_whitespace() => break,
                other => {
                    name.push(other);
                    length = index + other.len_utf8();
                }
            }
        }
        if name.is_empty() {
            return Err(self.fault("a name is missing"));
        }
        self.at += length;
        Ok(Step::Fields(vec![name]))
    }

    fn brackets(&mut self) -> Result<Step, Fault> {
        self.blank();
        if self.rest().starts_with("?(") {
            return Err(self.fault(
                "filters are not supported: use an index, or the whole list and a condition",
            ));
        }
        let step = if self.take("*") {
            Step::All
        } else if self.rest().starts_with(['\'', '"']) {
            Step::Fields(self.list(Self::quoted)?)
        } else {
            self.numbers()?
        };
        self.blank();
        if !self.take("]") {
            return Err(self.fault("unterminated array: ] is missing"));
        }
        Ok(step)
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> Result<T, Fault>) -> Result<Vec<T>, Fault> {
        let mut items = vec![item(self)?];
        self.blank();
        while self.take(",") {
            self.blank();
            items.push(item(self)?);
            self.blank();
        }
        Ok(items)
    }

    fn quoted(&mut self) -> Result<String, Fault> {
        let quote = if self.take("'") { '\'' } else { '"' };
        if quote == '"' && !self.take("\"") {
            return Err(self.fault("a quoted name is missing"));
        }
        let rest = self.rest();
        let end = rest
            .find(quote)
            .ok_or_else(|| self.fault("unterminated quoted string"))?;
        self.at += end + 1;
        Ok(rest.get(..end).unwrap_or_default().to_owned())
    }

    fn numbers(&mut self) -> Result<Step, Fault> {
        let first = self.number()?;
        self.blank();
        if self.take(":") {
            let to = self.number()?;
            let by = if self.take(":") { self.number()? } else { None };
            let by = usize::try_from(by.unwrap_or(1)).ok().filter(|by| *by > 0);
            let by = by.ok_or_else(|| self.fault("a step is at least 1"))?;
            return Ok(Step::Slice(first, to, by));
        }
        let needed = |number: Option<i64>, parser: &Self| {
            number.ok_or_else(|| parser.fault("an index, a quoted name or * is missing"))
        };
        let mut indices = vec![needed(first, self)?];
        while self.take(",") {
            let next = self.number()?;
            indices.push(needed(next, self)?);
            self.blank();
        }
        Ok(Step::Elements(indices))
    }

    fn number(&mut self) -> Result<Option<i64>, Fault> {
        self.blank();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '-')
            .unwrap_or(rest.len());
        let text = rest.get(..end).unwrap_or_default();
        if text.is_empty() {
            return Ok(None);
        }
        let number = text
            .parse()
            .map_err(|_| self.fault(format!("{text} is no index")))?;
        self.at += end;
        Ok(Some(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(cases: &[(&str, Result<Value, &str>)]) {
        let value = json!({
            "a": {"b": [{"c": 1}, {"c": 2, "d": 3}], "x-y": 4},
            "labels": {"example.com/x": "l"},
            "list": [10, 20, 30],
            "nothing": null,
        });
        for (path, expected) in cases {
            let actual = first(path, &value).cloned();
            let actual = actual.map_err(|error| error.to_string());
            let expected = expected
                .clone()
                .map_err(|cause| format!("jsonPath {path:?}: {cause}"));
            assert_eq!(actual, expected, "{path}");
        }
    }

    #[test]
    fn paths_lead_where_kubernetes_goes() {
        check(&[
            ("{$.a.b[0].c}", Ok(json!(1))),
            ("{.a.b[1].d}", Ok(json!(3))),
            ("{ $.a['x-y'] }", Ok(json!(4))),
            ("{.a.x-y}", Ok(json!(4))),
            ("{$['a']['b'][0]['c']}", Ok(json!(1))),
            (r"{.labels.example\.com/x}", Ok(json!("l"))),
            ("{.labels['example.com/x']}", Ok(json!("l"))),
            ("{.list[-1]}", Ok(json!(30))),
            ("{.list[1:]}", Ok(json!(20))),
            ("{.list[:-1]}", Ok(json!(10))),
            ("{.list[::2]}", Ok(json!(10))),
            ("{.list[2,0]}", Ok(json!(30))),
            ("{.list}", Ok(json!([10, 20, 30]))),
            ("{.a.b[*].c}", Ok(json!(1))),
            ("{.a.b[*].d}", Ok(json!(3))),
            ("{..d}", Ok(json!(3))),
            ("{.a.*}", Ok(json!([{"c": 1}, {"c": 2, "d": 3}]))),
            ("{.a['none','x-y']}", Ok(json!(4))),
            ("{.nothing}", Ok(json!(null))),
        ]);
        let whole = json!([1]);
        assert_eq!(first("{$}", &whole), Ok(&whole));
        assert_eq!(first("{.[0]}", &whole), Ok(&json!(1)));
    }

    #[test]
    fn what_is_missing_or_unknown_is_said() {
        check(&[
            ("{.a.none}", Err("none is not found")),
            (
                "{.list[3]}",
                Err("array index out of bounds: index 3, length 3"),
            ),
            (
                "{.list[-4]}",
                Err("array index out of bounds: index -4, length 3"),
            ),
            ("{.a[0]}", Err("an object is no array")),
            ("{.list[5:]}", Err("nothing is found")),
            ("$.a", Err("a path stands in braces, as in {$.a.b}, at 0")),
            ("{.a", Err("unclosed action: } is missing, at 3")),
            (
                "{.a} {.b}",
                Err("text after the closing brace is not supported, at 5"),
            ),
            (
                "{.a[}",
                Err("an index, a quoted name or * is missing, at 4"),
            ),
            ("{.a[0}", Err("unterminated array: ] is missing, at 5")),
            ("{.a['x}", Err("unterminated quoted string, at 5")),
            (
                "{.list[?(@ > 1)]}",
                Err(
                    "filters are not supported: use an index, or the whole list and a condition, at 7",
                ),
            ),
            (
                "{range .list[*]}{@}{end}",
                Err("{range} is not supported: name one value, at 1"),
            ),
            ("{.list[1--2]}", Err("1--2 is no index, at 7")),
        ]);
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "\\{?[$.\\[\\]*'\"a0-9:,}\\\\ é?-]{0,20}") {
            let value = json!({"a": [[1], {"a": 2}]});
            if let Err(Error::Syntax { at, .. }) = first(&path, &value) {
                prop_assert!(at <= path.len());
            }
        }
    }
}
