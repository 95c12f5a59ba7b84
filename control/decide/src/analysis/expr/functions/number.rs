//! Numbers, and what turns into them.

use super::{Function, Kind, bad};
use crate::analysis::expr::budget::Budget;
use crate::analysis::expr::predicates;
use crate::analysis::expr::types::Type;
use crate::analysis::expr::value::{Value, to_float, to_int};

const ONE_NUMBER: Function = Function {
    name: "",
    parameters: &[Kind::Number],
    required: 1,
    repeats: false,
    result: |_| Type::Float,
    run: |_, _| Ok(Value::Nil),
};

/// Takes numbers and lists of numbers, mixed.
const MANY_NUMBERS: Function = Function {
    name: "",
    parameters: &[Kind::Numbers],
    required: 1,
    repeats: true,
    // Nil for no numbers at all.
    result: |_| Type::Unknown,
    run: |_, _| Ok(Value::Nil),
};

const TWO_INTS: Function = Function {
    name: "",
    parameters: &[Kind::Int, Kind::Int],
    required: 2,
    repeats: false,
    result: |_| Type::Int,
    run: |_, _| Ok(Value::Nil),
};

pub(super) static FUNCTIONS: &[Function] = &[
    Function {
        name: "abs",
        result: |arguments| arguments[0].clone(),
        run: |arguments, _| absolute(&arguments[0]),
        ..ONE_NUMBER
    },
    Function {
        name: "ceil",
        run: |arguments, _| rounded("ceil", &arguments[0], f64::ceil),
        ..ONE_NUMBER
    },
    Function {
        name: "floor",
        run: |arguments, _| rounded("floor", &arguments[0], f64::floor),
        ..ONE_NUMBER
    },
    Function {
        name: "round",
        run: |arguments, _| rounded("round", &arguments[0], f64::round),
        ..ONE_NUMBER
    },
    Function {
        name: "int",
        parameters: &[Kind::Numeric],
        result: |_| Type::Int,
        run: |arguments, _| int(&arguments[0]),
        ..ONE_NUMBER
    },
    Function {
        name: "float",
        parameters: &[Kind::Numeric],
        run: |arguments, _| float(&arguments[0]),
        ..ONE_NUMBER
    },
    Function {
        name: "max",
        run: |arguments, budget| extreme(arguments, budget, std::cmp::Ordering::Greater),
        ..MANY_NUMBERS
    },
    Function {
        name: "min",
        run: |arguments, budget| extreme(arguments, budget, std::cmp::Ordering::Less),
        ..MANY_NUMBERS
    },
    Function {
        name: "mean",
        result: |_| Type::Float,
        run: |arguments, budget| mean(arguments, budget),
        ..MANY_NUMBERS
    },
    Function {
        name: "median",
        result: |_| Type::Float,
        run: |arguments, budget| median(arguments, budget),
        ..MANY_NUMBERS
    },
    Function {
        name: "bitand",
        run: |arguments, _| bits(arguments, |one, other| one & other),
        ..TWO_INTS
    },
    Function {
        name: "bitor",
        run: |arguments, _| bits(arguments, |one, other| one | other),
        ..TWO_INTS
    },
    Function {
        name: "bitxor",
        run: |arguments, _| bits(arguments, |one, other| one ^ other),
        ..TWO_INTS
    },
    Function {
        name: "bitnand",
        run: |arguments, _| bits(arguments, |one, other| one & !other),
        ..TWO_INTS
    },
    Function {
        name: "bitnot",
        parameters: &[Kind::Int],
        required: 1,
        run: |arguments, _| bits(&[arguments[0].clone(), Value::Int(0)], |one, _| !one),
        ..TWO_INTS
    },
];

fn absolute(value: &Value) -> Result<Value, String> {
    let Value::Int(number) = value else {
        return rounded("abs", value, f64::abs);
    };
    let absolute = number.checked_abs().map(Value::Int);
    absolute.ok_or_else(|| "integer overflow in abs".to_owned())
}

fn rounded(name: &str, value: &Value, round: fn(f64) -> f64) -> Result<Value, String> {
    let number = value.as_float().ok_or_else(|| bad(name, value))?;
    Ok(Value::Float(round(number)))
}

fn int(value: &Value) -> Result<Value, String> {
    let number = match value {
        Value::Int(number) => Some(*number),
        Value::Float(number) => to_int(*number),
        Value::String(text) => text.parse().ok(),
        Value::Nil | Value::Bool(_) | Value::List(_) | Value::Map(_) => None,
    };
    number
        .map(Value::Int)
        .ok_or_else(|| format!("invalid operation: int({})", value.to_json()))
}

fn float(value: &Value) -> Result<Value, String> {
    let read = |text: &str| text.parse().ok();
    value
        .as_text()
        .map_or_else(|| value.as_float(), read)
        .map(Value::Float)
        .ok_or_else(|| format!("invalid operation: float({})", value.to_json()))
}

/// All numbers of the arguments, lists opened.
fn numbers(arguments: &[Value], budget: &mut Budget, into: &mut Vec<Value>) -> Result<(), String> {
    for argument in arguments {
        budget.hold(1)?;
        match argument {
            Value::Int(_) | Value::Float(_) => into.push(argument.clone()),
            Value::List(items) => numbers(items, budget, into)?,
            Value::Nil | Value::Bool(_) | Value::String(_) | Value::Map(_) => {
                return Err(format!("{} is no number", argument.type_name()));
            }
        }
    }
    Ok(())
}

fn collected(arguments: &[Value], budget: &mut Budget) -> Result<Vec<Value>, String> {
    let mut all = Vec::new();
    numbers(arguments, budget, &mut all)?;
    Ok(all)
}

/// The largest or smallest; nil where there is none; NaN where one is, so that no bound holds by accident.
fn extreme(
    arguments: &[Value],
    budget: &mut Budget,
    wanted: std::cmp::Ordering,
) -> Result<Value, String> {
    let all = collected(arguments, budget)?;
    let nan = |value: &Value| value.as_float().is_some_and(f64::is_nan);
    if all.iter().any(nan) {
        return Ok(Value::Float(f64::NAN));
    }
    let mut all = all.into_iter();
    let first = all.next().unwrap_or_default();
    Ok(all.fold(first, |best, value| {
        match predicates::order(&value, &best) {
            Some(order) if order == wanted => value,
            Some(_) | None => best,
        }
    }))
}

fn floats(arguments: &[Value], budget: &mut Budget) -> Result<Vec<f64>, String> {
    let all = collected(arguments, budget)?;
    Ok(all.iter().filter_map(Value::as_float).collect())
}

/// 0 for no numbers, as in expr-lang.
fn mean(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let all = floats(arguments, budget)?;
    if all.is_empty() {
        return Ok(Value::Float(0.0));
    }
    let count = i64::try_from(all.len()).unwrap_or(i64::MAX);
    Ok(Value::Float(all.iter().sum::<f64>() / to_float(count)))
}

/// 0 for no numbers, as in expr-lang; NaN where one is.
fn median(arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
    let mut all = floats(arguments, budget)?;
    if all.iter().any(|number| number.is_nan()) {
        return Ok(Value::Float(f64::NAN));
    }
    all.sort_by(f64::total_cmp);
    let middle = all.len() / 2;
    Ok(Value::Float(match all.len() {
        0 => 0.0,
        count if count % 2 == 1 => all[middle],
        _ => f64::midpoint(all[middle - 1], all[middle]),
    }))
}

fn bits(arguments: &[Value], combine: fn(i64, i64) -> i64) -> Result<Value, String> {
    match arguments {
        [Value::Int(one), Value::Int(other)] => Ok(Value::Int(combine(*one, *other))),
        _ => Err("bit functions take integers".to_owned()),
    }
}
