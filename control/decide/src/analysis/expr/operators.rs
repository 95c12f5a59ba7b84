//! What the operators between two values do, and between which types they mean something.

use std::cmp::Ordering;
use std::sync::Arc;

use regex::{Regex, RegexBuilder};

use super::ast::Binary;
use super::budget::Budget;
use super::predicates;
use super::types::Type;
use super::value::{Value, to_int};

/// Largest compiled pattern, in bytes: a pattern is a template author's text.
const PATTERN_SIZE_MAX: usize = 1 << 20;

/// The type of what an operator gives; `None` where the types do not fit.
pub(super) fn result_type(binary: Binary, left: &Type, right: &Type) -> Option<Type> {
    let numbers = left.may_be_number() && right.may_be_number();
    let strings = left.may_be_string() && right.may_be_string();
    let ints = left.may_be_int() && right.may_be_int();
    let either = |fits: bool, gives: Type| fits.then_some(gives);
    match binary {
        Binary::Or | Binary::And => either(
            left.may_be(&Type::Bool) && right.may_be(&Type::Bool),
            Type::Bool,
        ),
        Binary::Equal | Binary::NotEqual => either(left.may_equal(right), Type::Bool),
        Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual => {
            either(numbers || strings, Type::Bool)
        }
        Binary::In => either(may_hold(right, left), Type::Bool),
        Binary::Contains | Binary::StartsWith | Binary::EndsWith | Binary::Matches => {
            either(strings, Type::Bool)
        }
        Binary::Range => either(ints, Type::Int.list()),
        Binary::Add if strings && !numbers => Some(Type::String),
        Binary::Add if strings => Some(Type::Unknown),
        Binary::Add | Binary::Subtract | Binary::Multiply => {
            numbers.then(|| number_type(left, right))
        }
        Binary::Divide | Binary::Power => either(numbers, Type::Float),
        Binary::Remainder => either(ints, Type::Int),
        Binary::Coalesce => Some(match (left, right) {
            (Type::Nil, _) => right.clone(),
            (_, Type::Nil) => left.clone(),
            _ => left.clone().join(right),
        }),
    }
}

fn number_type(left: &Type, right: &Type) -> Type {
    match (left, right) {
        (Type::Unknown, _) | (_, Type::Unknown) => Type::Unknown,
        (Type::Int, Type::Int) => Type::Int,
        _ => Type::Float,
    }
}

/// Whether `item in container` can be anything but a mistake.
fn may_hold(container: &Type, item: &Type) -> bool {
    match container {
        Type::Unknown | Type::Nil => true,
        Type::List(element) => element.may_equal(item),
        Type::Map | Type::Object(_) => item.may_be_string(),
        Type::Bool | Type::Int | Type::Float | Type::String => false,
    }
}

/// An operator's value; operators that look at the right side only sometimes are not here.
pub(super) fn apply(
    binary: Binary,
    left: &Value,
    right: &Value,
    budget: &mut Budget,
) -> Result<Value, String> {
    match binary {
        Binary::Equal => equal(left, right, budget).map(Value::Bool),
        Binary::NotEqual => equal(left, right, budget).map(|equal| Value::Bool(!equal)),
        Binary::Less => compare(binary, left, right, Ordering::is_lt),
        Binary::LessOrEqual => compare(binary, left, right, Ordering::is_le),
        Binary::Greater => compare(binary, left, right, Ordering::is_gt),
        Binary::GreaterOrEqual => compare(binary, left, right, Ordering::is_ge),
        Binary::In => held(left, right, budget).map(Value::Bool),
        Binary::Contains => text(binary, left, right, |text, part| text.contains(part)),
        Binary::StartsWith => text(binary, left, right, |text, part| text.starts_with(part)),
        Binary::EndsWith => text(binary, left, right, |text, part| text.ends_with(part)),
        Binary::Matches => matches(left, right),
        Binary::Range => range(left, right, budget),
        Binary::Add => {
            if let (Value::String(left), Value::String(right)) = (left, right) {
                budget.hold(left.len() + right.len())?;
            }
            add(left, right)
        }
        Binary::Subtract => arithmetic(binary, left, right, i64::checked_sub, |l, r| l - r),
        Binary::Multiply => arithmetic(binary, left, right, i64::checked_mul, |l, r| l * r),
        Binary::Divide => floats(binary, left, right, |l, r| l / r),
        Binary::Power => floats(binary, left, right, f64::powf),
        Binary::Remainder => remainder(left, right),
        Binary::Or | Binary::And | Binary::Coalesce => Err(mismatch(binary, left, right)),
    }
}

fn mismatch(binary: Binary, left: &Value, right: &Value) -> String {
    mismatched(binary, left.type_name(), right.type_name())
}

/// The text for operands that do not fit.
pub(super) fn mismatched(
    binary: Binary,
    left: impl std::fmt::Display,
    right: impl std::fmt::Display,
) -> String {
    format!(
        "invalid operation: {} (mismatched types {left} and {right})",
        binary.symbol()
    )
}

/// Equality: numbers by value, lists and maps by content, and values of different kinds are not equal.
pub(super) fn equal(left: &Value, right: &Value, budget: &mut Budget) -> Result<bool, String> {
    budget.step(1)?;
    if let (Some(left), Some(right)) = (left.as_float(), right.as_float()) {
        return Ok(left.partial_cmp(&right) == Some(Ordering::Equal));
    }
    match (left, right) {
        (Value::Nil, Value::Nil) => Ok(true),
        (Value::Bool(left), Value::Bool(right)) => Ok(left == right),
        (Value::String(left), Value::String(right)) => Ok(left == right),
        (Value::List(left), Value::List(right)) if left.len() == right.len() => {
            all_equal(left.iter().zip(right.iter()), budget)
        }
        (Value::Map(left), Value::Map(right)) if left.keys().eq(right.keys()) => {
            all_equal(left.values().zip(right.values()), budget)
        }
        _ => Ok(false),
    }
}

fn all_equal<'a>(
    pairs: impl Iterator<Item = (&'a Value, &'a Value)>,
    budget: &mut Budget,
) -> Result<bool, String> {
    for (left, right) in pairs {
        if !equal(left, right, budget)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// NaN compares false with everything, as everywhere.
fn compare(
    binary: Binary,
    left: &Value,
    right: &Value,
    holds: fn(Ordering) -> bool,
) -> Result<Value, String> {
    let ordering = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => match (left.as_float(), right.as_float()) {
            (Some(left), Some(right)) => left.partial_cmp(&right),
            _ => return Err(mismatch(binary, left, right)),
        },
    };
    Ok(Value::Bool(ordering.is_some_and(holds)))
}

fn held(item: &Value, container: &Value, budget: &mut Budget) -> Result<bool, String> {
    match (container, item) {
        (Value::Nil, _) => Ok(false),
        (Value::Map(map), Value::String(key)) => Ok(map.contains_key(key)),
        (Value::List(items), _) => {
            for element in items.iter() {
                if equal(element, item, budget)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        _ => Err(mismatch(Binary::In, item, container)),
    }
}

fn text(
    binary: Binary,
    left: &Value,
    right: &Value,
    holds: fn(&str, &str) -> bool,
) -> Result<Value, String> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(Value::Bool(holds(left, right))),
        _ => Err(mismatch(binary, left, right)),
    }
}

fn matches(left: &Value, right: &Value) -> Result<Value, String> {
    match (left, right) {
        (Value::String(text), Value::String(wanted)) => {
            Ok(Value::Bool(pattern(wanted)?.is_match(text)))
        }
        _ => Err(mismatch(Binary::Matches, left, right)),
    }
}

/// Compiles a pattern; time to match is linear in the text.
pub(super) fn pattern(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE_MAX)
        .build()
        .map_err(|error| {
            let error = error.to_string();
            let cause = error.lines().last().unwrap_or_default();
            format!(
                "error parsing regexp {pattern:?}: {}",
                cause.trim_start_matches("error: ")
            )
        })
}

fn range(left: &Value, right: &Value, budget: &mut Budget) -> Result<Value, String> {
    let (Value::Int(first), Value::Int(last)) = (left, right) else {
        return Err(mismatch(Binary::Range, left, right));
    };
    let length = last.saturating_sub(*first).saturating_add(1).max(0);
    budget.hold(usize::try_from(length).unwrap_or(usize::MAX))?;
    Ok(Value::List((*first..=*last).map(Value::Int).collect()))
}

/// Sums of numbers; text is joined.
pub(super) fn add(left: &Value, right: &Value) -> Result<Value, String> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Ok(Value::text(format!("{left}{right}"))),
        _ => arithmetic(Binary::Add, left, right, i64::checked_add, |l, r| l + r),
    }
}

fn arithmetic(
    binary: Binary,
    left: &Value,
    right: &Value,
    ints: fn(i64, i64) -> Option<i64>,
    both: fn(f64, f64) -> f64,
) -> Result<Value, String> {
    match (left, right) {
        (Value::Int(l), Value::Int(r)) => ints(*l, *r)
            .map(Value::Int)
            .ok_or_else(|| format!("integer overflow: {l} {} {r}", binary.symbol())),
        _ => floats(binary, left, right, both),
    }
}

fn floats(
    binary: Binary,
    left: &Value,
    right: &Value,
    both: fn(f64, f64) -> f64,
) -> Result<Value, String> {
    match (left.as_float(), right.as_float()) {
        (Some(l), Some(r)) => Ok(Value::Float(both(l, r))),
        _ => Err(mismatch(binary, left, right)),
    }
}

fn remainder(left: &Value, right: &Value) -> Result<Value, String> {
    match (left, right) {
        (Value::Int(_), Value::Int(0)) => Err("integer divide by zero".to_owned()),
        (Value::Int(l), Value::Int(r)) => Ok(Value::Int(l.wrapping_rem(*r))),
        _ => Err(mismatch(Binary::Remainder, left, right)),
    }
}

/// An index of a list: negative ones count from the end.
pub(super) fn index(value: &Value, length: usize) -> Result<usize, String> {
    let wanted = match value {
        Value::Int(index) => Some(*index),
        Value::Float(index) if index.fract() == 0.0 => to_int(*index),
        Value::Nil
        | Value::Bool(_)
        | Value::Float(_)
        | Value::String(_)
        | Value::List(_)
        | Value::Map(_) => None,
    };
    let wanted = wanted.ok_or_else(|| {
        format!(
            "array elements can only be selected using an integer (got {})",
            value.type_name()
        )
    })?;
    let out_of_range = || format!("index out of range: {wanted} (array length is {length})");
    let back = usize::try_from(wanted.unsigned_abs()).map_err(|_| out_of_range())?;
    let index = if wanted < 0 {
        length.checked_sub(back)
    } else {
        Some(back)
    };
    index
        .filter(|index| *index < length)
        .ok_or_else(out_of_range)
}

/// `asc` or `desc`.
pub(super) fn is_descending(order: Option<&Value>) -> Result<bool, String> {
    match order {
        None => Ok(false),
        Some(Value::String(order)) if &**order == "asc" => Ok(false),
        Some(Value::String(order)) if &**order == "desc" => Ok(true),
        Some(_) => Err("invalid order: use \"asc\" or \"desc\"".to_owned()),
    }
}

/// The indices of `keys` in ascending or descending order; equal keys keep their places.
pub(super) fn sorted_order(keys: &[Value], descending: bool) -> Result<Vec<usize>, String> {
    if let Some(odd) = keys
        .windows(2)
        .find(|two| predicates::order(&two[0], &two[1]).is_none())
    {
        return Err(format!(
            "cannot order {} and {}",
            odd[0].type_name(),
            odd[1].type_name()
        ));
    }
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by(|&one, &other| {
        let ordering = predicates::order(&keys[one], &keys[other]).unwrap_or(Ordering::Equal);
        if descending {
            ordering.reverse()
        } else {
            ordering
        }
    });
    Ok(order)
}

/// Part of a list.
pub(super) fn slice(items: &Arc<[Value]>, from: usize, to: usize) -> Value {
    Value::List(items.get(from..to).unwrap_or_default().into())
}
