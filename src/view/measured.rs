//! A measured value beside the condition that judged it: of an object, only the fields that the condition speaks of.

use serde_json::Value;

/// What of `value` (JSON, if it is an object) the condition looked at; all of it where that is not clear.
pub(crate) fn relevant(value: &str, condition: &str) -> String {
    let Ok(object @ Value::Object(_)) = serde_json::from_str::<Value>(value) else {
        return value.to_owned();
    };
    let mut said: Vec<String> = Vec::new();
    for path in paths(condition) {
        let pointer = path.replace('.', "/");
        let Some(found) = object.pointer(&pointer) else {
            continue;
        };
        let text = format!("result{path} = {}", short(found));
        if !said.contains(&text) {
            said.push(text);
        }
    }
    if said.is_empty() {
        return value.to_owned();
    }
    said.join(", ")
}

/// Every `.field.field` that follows a `result` in a condition.
fn paths(condition: &str) -> impl Iterator<Item = &str> {
    condition.split("result").skip(1).filter_map(|rest| {
        let is_path = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
        rest.get(..end).filter(|path| path.starts_with('.'))
    })
}

/// A number to four decimals, anything else as it is.
fn short(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if !value.is_i64() && !value.is_u64() => format!("{number:.4}"),
        Some(_) | None => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_condition_looked_at_is_said() {
        let value = r#"{"requests": 27, "successRate": 0.8148148148, "p99": null, "stable": {"successRate": 1}}"#;
        let check = |condition: &str, said: &str| assert_eq!(relevant(value, condition), said);
        check(
            "result.requests > 0 && result.successRate < 0.9 && result.requests > 1",
            "result.requests = 27, result.successRate = 0.8148",
        );
        check(
            "result.successRate < result.stable.successRate",
            "result.successRate = 0.8148, result.stable.successRate = 1",
        );
        check("isNil(result.p99)", "result.p99 = null");
        check("result[\"requests\"] > 0", value);
        check("result.nosuch > 0", value);
    }

    #[test]
    fn other_values_are_said_as_they_are() {
        assert_eq!(relevant("0.62", "result >= 0.95"), "0.62");
        assert_eq!(relevant("[0.62]", "result[0] >= 0.95"), "[0.62]");
    }
}
