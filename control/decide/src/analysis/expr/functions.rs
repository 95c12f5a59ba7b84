//! The functions of the language, one row each. A row says what it takes, what it gives, and how; checker and evaluator both go by it.

mod argo;
mod list;
mod number;
mod text;

use std::fmt;

use super::budget::Budget;
use super::types::Type;
use super::value::Value;

pub use argo::ARGO;

/// One function.
#[derive(Clone, Copy)]
pub struct Function {
    name: &'static str,
    parameters: &'static [Kind],
    /// How many of the parameters must be given.
    required: usize,
    /// The last parameter may be given many times.
    repeats: bool,
    result: fn(&[Type]) -> Type,
    run: fn(&[Value], &mut Budget) -> Result<Value, String>,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// What a parameter may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Anything, nil too.
    Any,
    /// True or false.
    Bool,
    /// An integer or a float.
    Number,
    /// An integer.
    Int,
    /// A float.
    Float,
    /// Text.
    String,
    /// A list.
    List,
    /// A map.
    Map,
    /// A list or a map.
    Collection,
    /// What has a length: text, a list, a map.
    Sized,
    /// A number, or a list of numbers.
    Numbers,
    /// A number, or text that reads as one.
    Numeric,
}

impl Kind {
    fn takes(self, kind: &Type) -> bool {
        let is = |kinds: &[Self]| kinds.contains(&self);
        match kind {
            Type::Unknown => true,
            Type::Nil => is(&[Self::Any]),
            Type::Bool => is(&[Self::Any, Self::Bool]),
            Type::Int => is(&[
                Self::Any,
                Self::Number,
                Self::Int,
                Self::Numbers,
                Self::Numeric,
            ]),
            Type::Float => is(&[
                Self::Any,
                Self::Number,
                Self::Float,
                Self::Numbers,
                Self::Numeric,
            ]),
            Type::String => is(&[Self::Any, Self::String, Self::Sized, Self::Numeric]),
            Type::List(_) => is(&[
                Self::Any,
                Self::List,
                Self::Collection,
                Self::Sized,
                Self::Numbers,
            ]),
            Type::Map | Type::Object(_) => {
                is(&[Self::Any, Self::Map, Self::Collection, Self::Sized])
            }
        }
    }
}

/// Functions that exist in the language but not here yet: the message should not call them unknown.
const NOT_YET: [&str; 8] = [
    "now",
    "duration",
    "date",
    "timezone",
    "toBase64",
    "fromBase64",
    "bitshl",
    "bitshr",
];

/// The function of a name.
pub(super) fn find<'a>(name: &str, extra: &'a [Function]) -> Option<&'a Function> {
    [extra, number::FUNCTIONS, text::FUNCTIONS, list::FUNCTIONS]
        .into_iter()
        .flatten()
        .find(|function| function.name == name)
}

/// The text for a name that is nothing's.
pub(super) fn unknown(name: &str) -> String {
    if NOT_YET.contains(&name) {
        format!("{name} is not supported yet")
    } else {
        format!("unknown name {name}")
    }
}

impl Function {
    /// The type of a call; or which argument is wrong, and how.
    pub(super) fn check(&self, arguments: &[Type]) -> Result<Type, (Option<usize>, String)> {
        if arguments.len() < self.required {
            return Err((None, format!("not enough arguments to call {}", self.name)));
        }
        if arguments.len() > self.parameters.len() && !self.repeats {
            return Err((
                Some(self.parameters.len()),
                format!("too many arguments to call {}", self.name),
            ));
        }
        for (index, argument) in arguments.iter().enumerate() {
            if !self.parameter(index).takes(argument) {
                let message = format!("invalid argument for {} (type {argument})", self.name);
                return Err((Some(index), message));
            }
        }
        Ok((self.result)(arguments))
    }

    fn parameter(&self, index: usize) -> Kind {
        let last = self.parameters.len().saturating_sub(1);
        self.parameters
            .get(index.min(last))
            .copied()
            .unwrap_or(Kind::Any)
    }

    /// A call's value. The arguments are checked again, now that they are known.
    pub(super) fn call(&self, arguments: &[Value], budget: &mut Budget) -> Result<Value, String> {
        let kinds: Vec<Type> = arguments.iter().map(Type::of).collect();
        self.check(&kinds).map_err(|(_, message)| message)?;
        budget.step(arguments.iter().map(size).sum())?;
        (self.run)(arguments, budget)
    }
}

/// What looking at all of a value costs.
fn size(value: &Value) -> usize {
    match value {
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Float(_) => 1,
        Value::String(text) => 1 + text.len() / 16,
        Value::List(items) => 1 + items.len(),
        Value::Map(map) => 1 + map.len(),
    }
}

/// The text for an argument whose kind was unknown until now.
fn bad(name: &str, value: &Value) -> String {
    format!("invalid argument for {name} (type {})", value.type_name())
}

fn length(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

/// All nodes of a value, counted against the budget before something walks it.
fn walk(value: &Value, budget: &mut Budget) -> Result<(), String> {
    budget.hold(size(value))?;
    match value {
        Value::List(items) => items.iter().try_for_each(|item| walk(item, budget)),
        Value::Map(map) => map.values().try_for_each(|item| walk(item, budget)),
        Value::Nil | Value::Bool(_) | Value::Int(_) | Value::Float(_) | Value::String(_) => Ok(()),
    }
}
