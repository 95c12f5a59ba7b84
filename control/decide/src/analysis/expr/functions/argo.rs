//! The six functions that Argo Rollouts adds for conditions.
//!
//! In Argo `isNil` and `default` ignore their argument and look at the whole result; here they look at what they are given, which
//! is the same for every condition that works there, where the argument is always `result`.

use super::{Function, Kind, bad};
use crate::analysis::expr::types::Type;
use crate::analysis::expr::value::{Value, to_int};

/// For the conditions of metrics.
pub static ARGO: &[Function] = &[
    Function {
        name: "asInt",
        parameters: &[Kind::Numeric],
        required: 1,
        repeats: false,
        result: |_| Type::Int,
        run: |arguments, _| as_int(&arguments[0]),
    },
    Function {
        name: "asFloat",
        parameters: &[Kind::Numeric],
        required: 1,
        repeats: false,
        result: |_| Type::Float,
        run: |arguments, _| as_float(&arguments[0]),
    },
    Function {
        name: "isNaN",
        parameters: &[Kind::Float],
        required: 1,
        repeats: false,
        result: |_| Type::Bool,
        run: |arguments, _| float("isNaN", &arguments[0], f64::is_nan),
    },
    Function {
        name: "isInf",
        parameters: &[Kind::Float],
        required: 1,
        repeats: false,
        result: |_| Type::Bool,
        run: |arguments, _| float("isInf", &arguments[0], f64::is_infinite),
    },
    Function {
        name: "isNil",
        parameters: &[Kind::Any],
        required: 1,
        repeats: false,
        result: |_| Type::Bool,
        run: |arguments, _| Ok(Value::Bool(arguments[0].is_nil())),
    },
    Function {
        name: "default",
        parameters: &[Kind::Any, Kind::Any],
        required: 2,
        repeats: false,
        result: |arguments| arguments[usize::from(arguments[0] == Type::Nil)].clone(),
        run: |arguments, _| Ok(arguments[usize::from(arguments[0].is_nil())].clone()),
    },
];

fn as_int(value: &Value) -> Result<Value, String> {
    match value {
        Value::Int(number) => Ok(Value::Int(*number)),
        Value::Float(number) => to_int(*number)
            .map(Value::Int)
            .ok_or_else(|| format!("asInt: {number} is out of range")),
        Value::String(text) => text
            .parse()
            .map(Value::Int)
            .map_err(|_| format!("strconv.ParseInt: parsing {text:?}: invalid syntax")),
        Value::Nil | Value::Bool(_) | Value::List(_) | Value::Map(_) => Err(bad("asInt", value)),
    }
}

fn as_float(value: &Value) -> Result<Value, String> {
    match value {
        Value::Int(_) | Value::Float(_) => value
            .as_float()
            .map(Value::Float)
            .ok_or_else(|| bad("asFloat", value)),
        Value::String(text) => text
            .parse()
            .map(Value::Float)
            .map_err(|_| format!("strconv.ParseFloat: parsing {text:?}: invalid syntax")),
        Value::Nil | Value::Bool(_) | Value::List(_) | Value::Map(_) => Err(bad("asFloat", value)),
    }
}

fn float(name: &str, value: &Value, holds: fn(f64) -> bool) -> Result<Value, String> {
    match value {
        Value::Float(number) => Ok(Value::Bool(holds(*number))),
        Value::Nil
        | Value::Bool(_)
        | Value::Int(_)
        | Value::String(_)
        | Value::List(_)
        | Value::Map(_) => Err(bad(name, value)),
    }
}
