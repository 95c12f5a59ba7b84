//! Text, and what turns into it.

use super::{Function, Kind, bad, length, walk};
use crate::analysis::expr::budget::Budget;
use crate::analysis::expr::types::Type;
use crate::analysis::expr::value::{Value, format_float};

const TEXT_TO_TEXT: Function = Function {
    name: "",
    parameters: &[Kind::String, Kind::String],
    required: 1,
    repeats: false,
    result: |_| Type::String,
    run: |_, _| Ok(Value::Nil),
};

pub(super) static FUNCTIONS: &[Function] = &[
    Function {
        name: "type",
        parameters: &[Kind::Any],
        run: |arguments, _| Ok(Value::text(type_of(&arguments[0]))),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "string",
        parameters: &[Kind::Any],
        run: |arguments, budget| string(&arguments[0], budget),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "toJSON",
        parameters: &[Kind::Any],
        run: |arguments, budget| to_json(&arguments[0], budget),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "fromJSON",
        parameters: &[Kind::String],
        result: |_| Type::Unknown,
        run: |arguments, budget| from_json(texts("fromJSON", arguments)?[0], budget),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "upper",
        parameters: &[Kind::String],
        run: |arguments, budget| made(budget, texts("upper", arguments)?[0].to_uppercase()),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "lower",
        parameters: &[Kind::String],
        run: |arguments, budget| made(budget, texts("lower", arguments)?[0].to_lowercase()),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "trim",
        run: |arguments, budget| trim(&texts("trim", arguments)?, budget),
        ..TEXT_TO_TEXT
    },
    Function {
        name: "trimPrefix",
        run: |arguments, budget| {
            let texts = texts("trimPrefix", arguments)?;
            let prefix = texts.get(1).copied().unwrap_or(" ");
            made(budget, texts[0].strip_prefix(prefix).unwrap_or(texts[0]))
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "trimSuffix",
        run: |arguments, budget| {
            let texts = texts("trimSuffix", arguments)?;
            let suffix = texts.get(1).copied().unwrap_or(" ");
            made(budget, texts[0].strip_suffix(suffix).unwrap_or(texts[0]))
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "hasPrefix",
        required: 2,
        result: |_| Type::Bool,
        run: |arguments, _| {
            let texts = texts("hasPrefix", arguments)?;
            Ok(Value::Bool(texts[0].starts_with(texts[1])))
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "hasSuffix",
        required: 2,
        result: |_| Type::Bool,
        run: |arguments, _| {
            let texts = texts("hasSuffix", arguments)?;
            Ok(Value::Bool(texts[0].ends_with(texts[1])))
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "indexOf",
        required: 2,
        result: |_| Type::Int,
        run: |arguments, _| {
            let texts = texts("indexOf", arguments)?;
            Ok(position(texts[0].find(texts[1])))
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "lastIndexOf",
        required: 2,
        result: |_| Type::Int,
        run: |arguments, _| {
            let texts = texts("lastIndexOf", arguments)?;
            Ok(position(texts[0].rfind(texts[1])))
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "split",
        parameters: &[Kind::String, Kind::String, Kind::Int],
        required: 2,
        result: |_| Type::String.list(),
        run: |arguments, budget| {
            split("split", arguments, budget, |text, by| {
                text.split(by).map(str::to_owned).collect()
            })
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "splitAfter",
        required: 2,
        result: |_| Type::String.list(),
        run: |arguments, budget| {
            split("splitAfter", arguments, budget, |text, by| {
                text.split_inclusive(by).map(str::to_owned).collect()
            })
        },
        ..TEXT_TO_TEXT
    },
    Function {
        name: "replace",
        parameters: &[Kind::String, Kind::String, Kind::String, Kind::Int],
        required: 3,
        run: replace,
        ..TEXT_TO_TEXT
    },
    Function {
        name: "repeat",
        parameters: &[Kind::String, Kind::Int],
        required: 2,
        run: repeat,
        ..TEXT_TO_TEXT
    },
    Function {
        name: "join",
        parameters: &[Kind::List, Kind::String],
        run: join,
        ..TEXT_TO_TEXT
    },
];

/// The leading arguments that are text.
fn texts<'a>(name: &str, arguments: &'a [Value]) -> Result<Vec<&'a str>, String> {
    let texts: Vec<&str> = arguments.iter().map_while(Value::as_text).collect();
    match (texts.is_empty(), arguments.first()) {
        (true, Some(first)) => Err(bad(name, first)),
        (true, None) => Err(format!("not enough arguments to call {name}")),
        (false, _) => Ok(texts),
    }
}

fn made(budget: &mut Budget, text: impl Into<String>) -> Result<Value, String> {
    let text = text.into();
    budget.hold(text.len())?;
    Ok(Value::text(text))
}

const fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Nil => "nil",
        Value::Bool(_) => "bool",
        Value::Int(_) => "int",
        Value::Float(_) => "float",
        Value::String(_) => "string",
        Value::List(_) => "array",
        Value::Map(_) => "map",
    }
}

/// As Go prints it; lists and maps as JSON, whose order is certain.
fn string(value: &Value, budget: &mut Budget) -> Result<Value, String> {
    match value {
        Value::Nil => Ok(Value::text("nil")),
        Value::Bool(value) => Ok(Value::text(value.to_string())),
        Value::Int(number) => Ok(Value::text(number.to_string())),
        Value::Float(number) => Ok(Value::text(format_float(*number))),
        Value::String(_) => Ok(value.clone()),
        Value::List(_) | Value::Map(_) => {
            walk(value, budget)?;
            made(budget, value.to_json().to_string())
        }
    }
}

fn to_json(value: &Value, budget: &mut Budget) -> Result<Value, String> {
    walk(value, budget)?;
    let text = serde_json::to_string_pretty(&value.to_json()).map_err(|error| error.to_string())?;
    made(budget, text)
}

fn from_json(text: &str, budget: &mut Budget) -> Result<Value, String> {
    budget.hold(text.len())?;
    let json: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("fromJSON: {error}"))?;
    Ok(Value::from(&json))
}

fn trim(texts: &[&str], budget: &mut Budget) -> Result<Value, String> {
    match texts {
        [text, characters] => made(budget, text.trim_matches(|c| characters.contains(c))),
        _ => made(budget, texts[0].trim()),
    }
}

/// In bytes; -1 where there is none.
fn position(position: Option<usize>) -> Value {
    position.map_or(Value::Int(-1), length)
}

/// An empty separator splits into characters; a number joins what is beyond it.
fn split(
    name: &str,
    arguments: &[Value],
    budget: &mut Budget,
    cut: fn(&str, &str) -> Vec<String>,
) -> Result<Value, String> {
    let texts = texts(name, arguments)?;
    let (text, by) = (texts[0], texts[1]);
    budget.hold(2 * text.len() + 1)?;
    let parts: Vec<String> = match (by.is_empty(), arguments.get(2)) {
        (true, None) => text.chars().map(String::from).collect(),
        (false, None) => cut(text, by),
        (_, Some(Value::Int(most))) => match usize::try_from(*most) {
            Ok(most) => text.splitn(most, by).map(str::to_owned).collect(),
            Err(_) => cut(text, by),
        },
        (_, Some(other)) => return Err(bad(name, other)),
    };
    Ok(Value::List(parts.into_iter().map(Value::text).collect()))
}

fn replace(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let texts = texts("replace", arguments)?;
    let [text, from, to] = texts[..] else {
        return Err("replace takes strings".to_owned());
    };
    let most = match arguments.get(3) {
        Some(Value::Int(most)) => usize::try_from(*most).unwrap_or(usize::MAX),
        _ => usize::MAX,
    };
    let hits = text.matches(from).count().min(most);
    budget.hold(text.len().saturating_add(hits.saturating_mul(to.len())))?;
    Ok(Value::text(text.replacen(from, to, most)))
}

fn repeat(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    match arguments {
        [Value::String(text), Value::Int(times)] => {
            let times = usize::try_from(*times).map_err(|_| {
                format!("invalid argument for repeat (expected positive integer, got {times})")
            })?;
            budget.hold(text.len().saturating_mul(times))?;
            Ok(Value::text(text.repeat(times)))
        }
        _ => Err("repeat takes a string and an integer".to_owned()),
    }
}

fn join(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let separator = match arguments.get(1) {
        Some(Value::String(separator)) => &**separator,
        _ => "",
    };
    let Value::List(items) = &arguments[0] else {
        return Err(bad("join", &arguments[0]));
    };
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        let Value::String(item) = item else {
            return Err(format!("join takes strings (got {})", item.type_name()));
        };
        let before = if index == 0 { "" } else { separator };
        budget.hold(before.len() + item.len())?;
        joined.push_str(before);
        joined.push_str(item);
    }
    Ok(Value::text(joined))
}
