//! The condition language: `result.errorRate < 0.05 && result.requests >= 100`.
//!
//! It follows expr-lang 1.17 (reference: Argo Rollouts pins it), since people's conditions are written for that. The verdict of an
//! analysis promotes or aborts, so nothing is guessed: what is not known is an error with its place, types are checked against
//! the actual result before anything runs, and a condition can neither panic nor exhaust memory or time.
//!
//! | file | what |
//! |---|---|
//! | `lexer`, `parser` | text → tokens → tree |
//! | `ast` | the tree |
//! | `types`, `check` | what is known of a value before it is there; mismatches are found on branches never taken, too |
//! | `value`, `operators`, `eval`, `predicates` | the tree → a value, within a budget |
//! | `functions` | the functions, one row each |

mod ast;
mod budget;
mod check;
mod eval;
mod functions;
mod lexer;
mod operators;
mod parser;
mod predicates;
mod types;
mod value;

use std::fmt;

pub use functions::{ARGO, Function, Kind};
pub use types::Type;
pub use value::{Map, Value};

use ast::Node;
use budget::Budget;

/// An expression that has been parsed.
#[derive(Clone, Debug)]
pub struct Expression {
    source: String,
    root: Node,
}

/// What an expression may name.
#[derive(Clone, Debug, Default)]
pub struct Environment<'a> {
    /// Variables: name, value, and what is known of it beforehand.
    pub variables: Vec<(&'a str, Value, Type)>,
    /// Functions beside the language's own.
    pub functions: &'static [Function],
}

/// What is wrong with an expression, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// In words.
    pub message: String,
    /// Where in the source, in bytes; at most its length.
    pub at: usize,
    /// The whole expression.
    pub source: String,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    /// As expr-lang prints it: the message, line and column, the line, and a caret under the place.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = self.source.get(..self.at).unwrap_or(&self.source);
        let line_number = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |line| line.chars().count());
        let line = self
            .source
            .split('\n')
            .nth(line_number - 1)
            .unwrap_or_default();
        let dots = ".".repeat(column);
        write!(
            f,
            "{} ({line_number}:{})\n | {line}\n | {dots}^",
            self.message,
            column + 1
        )
    }
}

/// A message and its place, before the source is put beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Fault {
    message: String,
    at: usize,
}

impl Fault {
    fn new(at: usize, message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            at,
        }
    }

    fn in_source(self, source: &str) -> Error {
        Error {
            message: self.message,
            at: self.at.min(source.len()),
            source: source.to_owned(),
        }
    }
}

/// Reads an expression.
///
/// # Errors
///
/// What is not of the language, or larger than any condition a person writes.
pub fn parse(source: &str) -> Result<Expression, Error> {
    match parser::parse(source) {
        Ok(root) => Ok(Expression {
            source: source.to_owned(),
            root,
        }),
        Err(fault) => Err(fault.in_source(source)),
    }
}

impl Expression {
    /// Checks the expression against the environment's types, and says what type it has.
    ///
    /// # Errors
    ///
    /// An unknown name, mismatched types, a wrong number of arguments, a pattern that does not compile.
    pub fn check(&self, environment: &Environment<'_>) -> Result<Type, Error> {
        check::check(&self.root, environment).map_err(|fault| fault.in_source(&self.source))
    }

    /// Checks the expression, then works it out.
    ///
    /// # Errors
    ///
    /// As [`Expression::check`]; then what only values tell: an index out of range, a field of nil, the budget.
    pub fn evaluate(&self, environment: &Environment<'_>) -> Result<Value, Error> {
        self.check(environment)?;
        eval::evaluate(&self.root, environment, Budget::default())
            .map_err(|fault| fault.in_source(&self.source))
    }

    /// The expression as a condition.
    ///
    /// # Errors
    ///
    /// As [`Expression::evaluate`]; and any answer but true or false.
    pub fn holds(&self, environment: &Environment<'_>) -> Result<bool, Error> {
        let kind = self.check(environment)?;
        let not_bool = |kind: &str| {
            Fault::new(0, format!("expected bool, but got {kind}")).in_source(&self.source)
        };
        if !kind.may_be(&Type::Bool) {
            return Err(not_bool(&kind.to_string()));
        }
        let value = self.evaluate(environment)?;
        value.as_bool().ok_or_else(|| not_bool(value.type_name()))
    }
}

#[cfg(test)]
mod tests;
