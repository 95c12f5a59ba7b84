//! The tree → a value. It trusts the checker for nothing: what was unknown then is looked at here.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::ast::{Binary, Kind, Node, Unary};
use super::budget::Budget;
use super::functions::{self, Function};
use super::operators;
use super::predicates::Each;
use super::value::{Map, Value};
use super::{Environment, Fault};

/// Works a tree out.
pub(super) fn evaluate(
    root: &Node,
    environment: &Environment<'_>,
    budget: Budget,
) -> Result<Value, Fault> {
    let mut evaluator = Evaluator {
        variables: environment
            .variables
            .iter()
            .map(|(name, value, _)| ((*name).to_owned(), value.clone()))
            .collect(),
        functions: environment.functions,
        frames: Vec::new(),
        budget,
    };
    match evaluator.value(root) {
        Ok(value) => Ok(value),
        Err(Halt::Nil) => Ok(Value::Nil),
        Err(Halt::Fault(fault)) => Err(fault),
    }
}

/// Why a subtree has no value.
#[derive(Debug)]
pub(super) enum Halt {
    /// An error.
    Fault(Fault),
    /// `?.` met nil: the chain around is nil.
    Nil,
}

/// What a predicate looks at.
pub(super) struct Frame {
    pub(super) element: Value,
    pub(super) index: usize,
    pub(super) accumulator: Option<Value>,
}

/// The state of one evaluation.
pub(super) struct Evaluator<'a> {
    variables: Vec<(String, Value)>,
    functions: &'a [Function],
    frames: Vec<Frame>,
    budget: Budget,
}

impl Evaluator<'_> {
    /// Takes memory from the budget.
    pub(super) fn hold(&mut self, at: usize, units: usize) -> Result<(), Halt> {
        self.budget
            .hold(units)
            .map_err(|message| fault(at, message))
    }

    /// Takes steps from the budget.
    pub(super) fn step(&mut self, at: usize, steps: usize) -> Result<(), Halt> {
        self.budget
            .step(steps)
            .map_err(|message| fault(at, message))
    }

    /// Works a predicate's body out for one element.
    pub(super) fn within(&mut self, frame: Frame, body: &Node) -> Result<Value, Halt> {
        self.frames.push(frame);
        let value = self.value(body);
        self.frames.pop();
        value
    }

    fn value(&mut self, node: &Node) -> Result<Value, Halt> {
        let at = node.at;
        self.step(at, 1)?;
        match &node.kind {
            Kind::Nil => Ok(Value::Nil),
            Kind::Bool(value) => Ok(Value::Bool(*value)),
            Kind::Int(number) => Ok(Value::Int(*number)),
            Kind::Float(number) => Ok(Value::Float(*number)),
            Kind::String(text) => Ok(Value::String(Arc::clone(text))),
            Kind::Name(name) => self.variable(name, at),
            Kind::Element => self.frame(at).map(|frame| frame.element.clone()),
            Kind::Index => self
                .frame(at)
                .map(|frame| Value::Int(i64::try_from(frame.index).unwrap_or(i64::MAX))),
            Kind::Accumulator => self.accumulator(at),
            Kind::Unary(unary, operand) => self.unary(*unary, operand, at),
            Kind::Binary(binary, left, right) => self.binary(*binary, left, right, at),
            Kind::Conditional(three) => {
                let [condition, then, otherwise] = &**three;
                match self.bool(condition)? {
                    true => self.value(then),
                    false => self.value(otherwise),
                }
            }
            Kind::Member {
                object,
                property,
                optional,
            } => self.member(object, property, *optional, at),
            Kind::Slice { object, from, to } => {
                self.slice(object, from.as_deref(), to.as_deref(), at)
            }
            Kind::Chain(inner) => match self.value(inner) {
                Err(Halt::Nil) => Ok(Value::Nil),
                other => other,
            },
            Kind::Call { name, arguments } => self.call(name, arguments, at),
            Kind::Each { .. } => self.each(node),
            Kind::List(items) => {
                self.hold(at, items.len())?;
                Ok(Value::list(self.values(items)?))
            }
            Kind::Map(entries) => self.map(entries, at),
            Kind::Let { name, value, body } => {
                let value = self.value(value)?;
                self.variables.push((name.clone(), value));
                let body = self.value(body);
                self.variables.pop();
                body
            }
            Kind::Sequence(items) => Ok(self.values(items)?.pop().unwrap_or_default()),
        }
    }

    fn values(&mut self, nodes: &[Node]) -> Result<Vec<Value>, Halt> {
        nodes.iter().map(|node| self.value(node)).collect()
    }

    fn bool(&mut self, node: &Node) -> Result<bool, Halt> {
        let value = self.value(node)?;
        value.as_bool().ok_or_else(|| {
            fault(
                node.at,
                format!("expected bool, but got {}", value.type_name()),
            )
        })
    }

    fn variable(&self, name: &str, at: usize) -> Result<Value, Halt> {
        if name == "$env" {
            let all: Map = self
                .variables
                .iter()
                .map(|(name, value)| (Arc::from(name.as_str()), value.clone()))
                .collect();
            return Ok(Value::Map(Arc::new(all)));
        }
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value.clone())
            .ok_or_else(|| fault(at, format!("unknown name {name}")))
    }

    fn frame(&self, at: usize) -> Result<&Frame, Halt> {
        self.frames
            .last()
            .ok_or_else(|| fault(at, "cannot use # outside of a predicate"))
    }

    fn accumulator(&self, at: usize) -> Result<Value, Halt> {
        self.frame(at)?
            .accumulator
            .clone()
            .ok_or_else(|| fault(at, "#acc has a meaning in reduce only"))
    }

    fn unary(&mut self, unary: Unary, operand: &Node, at: usize) -> Result<Value, Halt> {
        if unary == Unary::Not {
            return Ok(Value::Bool(!self.bool(operand)?));
        }
        let value = self.value(operand)?;
        match (unary, &value) {
            (Unary::Plus, Value::Int(_) | Value::Float(_)) => Ok(value),
            (Unary::Minus, Value::Float(number)) => Ok(Value::Float(-number)),
            (Unary::Minus, Value::Int(number)) => number
                .checked_neg()
                .map(Value::Int)
                .ok_or_else(|| fault(at, format!("integer overflow: -{number}"))),
            _ => Err(fault(
                at,
                format!("invalid operation: a sign before {}", value.type_name()),
            )),
        }
    }

    fn binary(
        &mut self,
        binary: Binary,
        left: &Node,
        right: &Node,
        at: usize,
    ) -> Result<Value, Halt> {
        match binary {
            Binary::And => Ok(Value::Bool(self.bool(left)? && self.bool(right)?)),
            Binary::Or => Ok(Value::Bool(self.bool(left)? || self.bool(right)?)),
            Binary::Coalesce => {
                let left = self.value(left)?;
                if left.is_nil() {
                    self.value(right)
                } else {
                    Ok(left)
                }
            }
            Binary::Equal
            | Binary::NotEqual
            | Binary::Less
            | Binary::LessOrEqual
            | Binary::Greater
            | Binary::GreaterOrEqual
            | Binary::In
            | Binary::Contains
            | Binary::StartsWith
            | Binary::EndsWith
            | Binary::Matches
            | Binary::Range
            | Binary::Add
            | Binary::Subtract
            | Binary::Multiply
            | Binary::Divide
            | Binary::Remainder
            | Binary::Power => {
                let (left, right) = (self.value(left)?, self.value(right)?);
                operators::apply(binary, &left, &right, &mut self.budget)
                    .map_err(|message| fault(at, message))
            }
        }
    }

    fn member(
        &mut self,
        object: &Node,
        property: &Node,
        optional: bool,
        at: usize,
    ) -> Result<Value, Halt> {
        let object = self.value(object)?;
        if optional && matches!(object, Value::Nil) {
            return Err(Halt::Nil);
        }
        let property = self.value(property)?;
        match (&object, &property) {
            (Value::Map(map), Value::String(key)) => Ok(map.get(key).cloned().unwrap_or_default()),
            (Value::List(items), _) => operators::index(&property, items.len())
                .map(|index| items[index].clone())
                .map_err(|message| fault(at, message)),
            _ => Err(fault(at, cannot_fetch(&object, &property))),
        }
    }

    fn slice(
        &mut self,
        object: &Node,
        from: Option<&Node>,
        to: Option<&Node>,
        at: usize,
    ) -> Result<Value, Halt> {
        let object = self.value(object)?;
        if let Value::List(items) = &object {
            let (from, to) = self.bounds(from, to, items.len(), at)?;
            return Ok(operators::slice(items, from, to));
        }
        let Value::String(text) = &object else {
            let kind = object.type_name();
            return Err(fault(at, format!("cannot slice {kind}")));
        };
        let (from, to) = self.bounds(from, to, text.len(), at)?;
        text.get(from..to)
            .map(Value::text)
            .ok_or_else(|| fault(at, "the slice cuts a character in two"))
    }

    fn bounds(
        &mut self,
        from: Option<&Node>,
        to: Option<&Node>,
        length: usize,
        at: usize,
    ) -> Result<(usize, usize), Halt> {
        let from = self.bound(from, 0, length)?;
        let to = self.bound(to, length, length)?.max(from);
        self.hold(at, to - from)?;
        Ok((from, to))
    }

    /// A slice's end: negative ones count from the end, and none passes it.
    fn bound(
        &mut self,
        node: Option<&Node>,
        otherwise: usize,
        length: usize,
    ) -> Result<usize, Halt> {
        let Some(node) = node else {
            return Ok(otherwise);
        };
        let Value::Int(bound) = self.value(node)? else {
            return Err(fault(node.at, "a slice's bound must be an integer"));
        };
        let distance = usize::try_from(bound.unsigned_abs()).unwrap_or(usize::MAX);
        Ok(match bound < 0 {
            true => length.saturating_sub(distance),
            false => distance.min(length),
        })
    }

    fn call(&mut self, name: &str, arguments: &[Node], at: usize) -> Result<Value, Halt> {
        let function = functions::find(name, self.functions)
            .ok_or_else(|| fault(at, functions::unknown(name)))?;
        let arguments = self.values(arguments)?;
        function
            .call(&arguments, &mut self.budget)
            .map_err(|message| fault(at, message))
    }

    fn each(&mut self, node: &Node) -> Result<Value, Halt> {
        let Kind::Each {
            predicate,
            list,
            body,
            extra,
        } = &node.kind
        else {
            return Err(fault(node.at, "no predicate"));
        };
        let list = self.value(list)?;
        let Value::List(items) = list else {
            let (name, kind) = (predicate.name(), list.type_name());
            return Err(fault(
                node.at,
                format!("builtin {name} takes only array (got {kind})"),
            ));
        };
        let extra = match extra {
            None => None,
            Some(extra) => Some(self.value(extra)?),
        };
        let each = Each {
            at: node.at,
            predicate: *predicate,
            items,
            body: body.as_deref(),
            extra,
        };
        each.evaluate(self)
    }

    fn map(&mut self, entries: &[(Node, Node)], at: usize) -> Result<Value, Halt> {
        self.hold(at, entries.len())?;
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let Value::String(name) = self.value(key)? else {
                return Err(fault(key.at, "a map's key must be a string"));
            };
            map.insert(name, self.value(value)?);
        }
        Ok(Value::Map(Arc::new(map)))
    }
}

fn fault(at: usize, message: impl Into<String>) -> Halt {
    Halt::Fault(Fault::new(at, message))
}

fn cannot_fetch(object: &Value, property: &Value) -> String {
    let property = property
        .as_text()
        .map_or_else(|| property.to_json().to_string(), str::to_owned);
    format!("cannot fetch {property} from {}", object.type_name())
}
