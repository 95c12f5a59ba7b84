//! Types, before anything runs: Argo compiles a condition against the type of the actual result, so that a mistake is an error
//! even on a branch that would not be taken.

use std::collections::BTreeMap;

use super::ast::{Binary, Kind, Node, Unary};
use super::functions::{self, Function};
use super::operators;
use super::predicates::Predicate;
use super::types::Type;
use super::{Environment, Fault};

/// The type of a tree.
pub(super) fn check(root: &Node, environment: &Environment<'_>) -> Result<Type, Fault> {
    let mut checker = Checker {
        variables: environment
            .variables
            .iter()
            .map(|(name, _, kind)| ((*name).to_owned(), kind.clone()))
            .collect(),
        functions: environment.functions,
        elements: Vec::new(),
    };
    checker.kind(root)
}

struct Checker<'a> {
    variables: Vec<(String, Type)>,
    functions: &'a [Function],
    /// Types of what the predicates around look at.
    elements: Vec<Type>,
}

impl Checker<'_> {
    fn kind(&mut self, node: &Node) -> Result<Type, Fault> {
        match &node.kind {
            Kind::Nil => Ok(Type::Nil),
            Kind::Bool(_) => Ok(Type::Bool),
            Kind::Int(_) | Kind::Index => Ok(Type::Int),
            Kind::Float(_) => Ok(Type::Float),
            Kind::String(_) => Ok(Type::String),
            Kind::Name(name) => self.variable(name, node.at),
            Kind::Element => Ok(self.elements.last().cloned().unwrap_or(Type::Unknown)),
            Kind::Accumulator => Ok(Type::Unknown),
            Kind::Unary(unary, operand) => self.unary(*unary, operand, node.at),
            Kind::Binary(binary, left, right) => self.binary(*binary, left, right, node.at),
            Kind::Conditional(three) => {
                let [condition, then, otherwise] = &**three;
                self.expect_bool(condition)?;
                Ok(self.kind(then)?.join(&self.kind(otherwise)?))
            }
            Kind::Member {
                object,
                property,
                optional,
            } => self.member(object, property, *optional, node.at),
            Kind::Slice { object, from, to } => self.slice(object, [from, to], node.at),
            Kind::Chain(inner) => {
                self.kind(inner)?;
                Ok(Type::Unknown)
            }
            Kind::Call { name, arguments } => self.call(name, arguments, node.at),
            Kind::Each {
                predicate,
                list,
                body,
                extra,
            } => self.each(*predicate, list, body.as_deref(), extra.as_deref(), node.at),
            Kind::List(items) => self.list(items),
            Kind::Map(entries) => self.map(entries),
            Kind::Let { name, value, body } => self.binding(name, value, body, node.at),
            Kind::Sequence(items) => {
                let mut last = Type::Nil;
                for item in items {
                    last = self.kind(item)?;
                }
                Ok(last)
            }
        }
    }

    fn variable(&self, name: &str, at: usize) -> Result<Type, Fault> {
        if name == "$env" {
            return Ok(Type::Map);
        }
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, kind)| kind.clone())
            .ok_or_else(|| Fault::new(at, functions::unknown(name)))
    }

    fn expect_bool(&mut self, node: &Node) -> Result<(), Fault> {
        let kind = self.kind(node)?;
        if kind.may_be(&Type::Bool) {
            return Ok(());
        }
        Err(Fault::new(
            node.at,
            format!("expected bool, but got {kind}"),
        ))
    }

    fn unary(&mut self, unary: Unary, operand: &Node, at: usize) -> Result<Type, Fault> {
        let kind = self.kind(operand)?;
        let (fits, symbol) = match unary {
            Unary::Not => (kind.may_be(&Type::Bool), "!"),
            Unary::Minus => (kind.may_be_number(), "-"),
            Unary::Plus => (kind.may_be_number(), "+"),
        };
        match (fits, unary) {
            (false, _) => Err(Fault::new(
                at,
                format!("invalid operation: {symbol} (mismatched type {kind})"),
            )),
            (true, Unary::Not) => Ok(Type::Bool),
            (true, Unary::Minus | Unary::Plus) => Ok(kind),
        }
    }

    fn binary(
        &mut self,
        binary: Binary,
        left: &Node,
        right: &Node,
        at: usize,
    ) -> Result<Type, Fault> {
        let (left_kind, right_kind) = (self.kind(left)?, self.kind(right)?);
        if let (Binary::Matches, Kind::String(pattern)) = (binary, &right.kind) {
            operators::pattern(pattern).map_err(|message| Fault::new(right.at, message))?;
        }
        operators::result_type(binary, &left_kind, &right_kind)
            .ok_or_else(|| Fault::new(at, operators::mismatched(binary, &left_kind, &right_kind)))
    }

    fn member(
        &mut self,
        object: &Node,
        property: &Node,
        optional: bool,
        at: usize,
    ) -> Result<Type, Fault> {
        let object = self.kind(object)?;
        let key = self.kind(property)?;
        let fault = |message: String| Err(Fault::new(at, message));
        match &object {
            Type::Unknown => Ok(Type::Unknown),
            Type::Nil if optional => Ok(Type::Nil),
            Type::List(item) if key.may_be_int() => Ok((**item).clone()),
            Type::List(_) => fault(format!(
                "array elements can only be selected using an integer (got {key})"
            )),
            Type::Map | Type::Object(_) if !key.may_be_string() => {
                fault(format!("cannot use {key} to get an element from {object}"))
            }
            Type::Map => Ok(Type::Unknown),
            Type::Object(fields) => field(fields, property),
            Type::Nil | Type::Bool | Type::Int | Type::Float | Type::String => {
                fault(if let Kind::String(name) = &property.kind {
                    format!("type {object} has no field {name}")
                } else {
                    format!("type {object}[{key}] is undefined")
                })
            }
        }
    }

    fn slice(
        &mut self,
        object: &Node,
        bounds: [&Option<Box<Node>>; 2],
        at: usize,
    ) -> Result<Type, Fault> {
        let object = self.kind(object)?;
        for bound in bounds.into_iter().flatten() {
            let kind = self.kind(bound)?;
            if !kind.may_be_int() {
                return Err(Fault::new(
                    bound.at,
                    format!("non-integer slice index {kind}"),
                ));
            }
        }
        match object {
            Type::Unknown | Type::String | Type::List(_) => Ok(object),
            Type::Nil | Type::Bool | Type::Int | Type::Float | Type::Map | Type::Object(_) => {
                Err(Fault::new(at, format!("cannot slice {object}")))
            }
        }
    }

    fn call(&mut self, name: &str, arguments: &[Node], at: usize) -> Result<Type, Fault> {
        let function = functions::find(name, self.functions)
            .ok_or_else(|| Fault::new(at, functions::unknown(name)))?;
        let mut kinds = Vec::with_capacity(arguments.len());
        for argument in arguments {
            kinds.push(self.kind(argument)?);
        }
        function.check(&kinds).map_err(|(argument, message)| {
            let at = argument.map_or(at, |index| arguments[index].at);
            Fault::new(at, message)
        })
    }

    fn each(
        &mut self,
        predicate: Predicate,
        list: &Node,
        body: Option<&Node>,
        extra: Option<&Node>,
        at: usize,
    ) -> Result<Type, Fault> {
        let list = self.kind(list)?;
        let element = list.element().ok_or_else(|| {
            let name = predicate.name();
            Fault::new(at, format!("builtin {name} takes only array (got {list})"))
        })?;
        if let Some(extra) = extra {
            self.kind(extra)?;
        }
        let (kind, at) = match body {
            None => (element.clone(), at),
            Some(body) => {
                self.elements.push(element.clone());
                let kind = self.kind(body);
                self.elements.pop();
                (kind?, body.at)
            }
        };
        if predicate.asks_bool() && !kind.may_be(&Type::Bool) {
            return Err(Fault::new(
                at,
                format!("predicate should return boolean (got {kind})"),
            ));
        }
        if predicate == Predicate::Sum && !kind.may_be_number() {
            return Err(Fault::new(at, format!("cannot sum {kind}")));
        }
        Ok(predicate.result(&element, &kind))
    }

    fn list(&mut self, items: &[Node]) -> Result<Type, Fault> {
        let mut common: Option<Type> = None;
        for item in items {
            let kind = self.kind(item)?;
            common = Some(match common {
                None => kind,
                Some(common) => common.join(&kind),
            });
        }
        Ok(common.unwrap_or(Type::Unknown).list())
    }

    fn map(&mut self, entries: &[(Node, Node)]) -> Result<Type, Fault> {
        for (key, value) in entries {
            let kind = self.kind(key)?;
            if !kind.may_be_string() {
                return Err(Fault::new(
                    key.at,
                    format!("a map's key must be a string (got {kind})"),
                ));
            }
            self.kind(value)?;
        }
        Ok(Type::Map)
    }

    fn binding(&mut self, name: &str, value: &Node, body: &Node, at: usize) -> Result<Type, Fault> {
        let taken = self.variables.iter().any(|(known, _)| known == name)
            || functions::find(name, self.functions).is_some()
            || Predicate::named(name).is_some();
        if taken {
            return Err(Fault::new(at, format!("cannot redeclare {name}")));
        }
        let kind = self.kind(value)?;
        self.variables.push((name.to_owned(), kind));
        let body = self.kind(body);
        self.variables.pop();
        body
    }
}

/// A field of an object whose fields are known; one that is computed may be any of them.
fn field(fields: &BTreeMap<&'static str, Type>, property: &Node) -> Result<Type, Fault> {
    let Kind::String(name) = &property.kind else {
        return Ok(Type::Unknown);
    };
    fields.get(&**name).cloned().ok_or_else(|| {
        let known: Vec<&str> = fields.keys().copied().collect();
        Fault::new(
            property.at,
            format!("unknown field {name}; there are {}", known.join(", ")),
        )
    })
}
