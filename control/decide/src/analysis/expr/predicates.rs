//! The functions that look at each element of a list: `all(result, # < 0.05)`.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Fault;
use super::ast::Node;
use super::eval::{Evaluator, Frame, Halt};
use super::operators;
use super::types::Type;
use super::value::{Map, Value};

/// Such a function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Predicate {
    All,
    Any,
    One,
    None,
    Filter,
    Map,
    Count,
    Find,
    FindIndex,
    FindLast,
    FindLastIndex,
    GroupBy,
    SortBy,
    Sum,
    Reduce,
}

const ALL: [Predicate; 15] = [
    Predicate::All,
    Predicate::Any,
    Predicate::One,
    Predicate::None,
    Predicate::Filter,
    Predicate::Map,
    Predicate::Count,
    Predicate::Find,
    Predicate::FindIndex,
    Predicate::FindLast,
    Predicate::FindLastIndex,
    Predicate::GroupBy,
    Predicate::SortBy,
    Predicate::Sum,
    Predicate::Reduce,
];

impl Predicate {
    pub(super) fn named(name: &str) -> Option<Self> {
        ALL.into_iter().find(|predicate| predicate.name() == name)
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Any => "any",
            Self::One => "one",
            Self::None => "none",
            Self::Filter => "filter",
            Self::Map => "map",
            Self::Count => "count",
            Self::Find => "find",
            Self::FindIndex => "findIndex",
            Self::FindLast => "findLast",
            Self::FindLastIndex => "findLastIndex",
            Self::GroupBy => "groupBy",
            Self::SortBy => "sortBy",
            Self::Sum => "sum",
            Self::Reduce => "reduce",
        }
    }

    /// `sum(list)` and `count(list)` look at the elements themselves.
    pub(super) const fn needs_body(self) -> bool {
        !matches!(self, Self::Count | Self::Sum)
    }

    /// `reduce(list, body, start)`, `sortBy(list, body, order)`.
    pub(super) const fn takes_extra(self) -> bool {
        matches!(self, Self::Reduce | Self::SortBy)
    }

    /// Whether what stands for each element must be true or false.
    pub(super) const fn asks_bool(self) -> bool {
        match self {
            Self::All
            | Self::Any
            | Self::One
            | Self::None
            | Self::Filter
            | Self::Count
            | Self::Find
            | Self::FindIndex
            | Self::FindLast
            | Self::FindLastIndex => true,
            Self::Map | Self::GroupBy | Self::SortBy | Self::Sum | Self::Reduce => false,
        }
    }

    /// The type of the whole, from those of an element and of what stands for it.
    pub(super) fn result(self, element: &Type, body: &Type) -> Type {
        match self {
            Self::All | Self::Any | Self::One | Self::None => Type::Bool,
            Self::Count => Type::Int,
            Self::Filter | Self::SortBy => element.clone().list(),
            Self::Map => body.clone().list(),
            Self::GroupBy => Type::Map,
            Self::Sum if body.may_be_number() => body.clone(),
            // What is not found is nil.
            Self::Find
            | Self::FindIndex
            | Self::FindLast
            | Self::FindLastIndex
            | Self::Sum
            | Self::Reduce => Type::Unknown,
        }
    }
}

/// A function, its place, and what it looks at.
pub(super) struct Each<'a> {
    pub(super) at: usize,
    pub(super) predicate: Predicate,
    pub(super) items: Arc<[Value]>,
    pub(super) body: Option<&'a Node>,
    pub(super) extra: Option<Value>,
}

impl Each<'_> {
    /// Works the function out.
    pub(super) fn evaluate(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, Halt> {
        match self.predicate {
            Predicate::All => Ok(Value::Bool(
                self.first(evaluator, false, Order::Forward)?.is_none(),
            )),
            Predicate::Any => Ok(Value::Bool(
                self.first(evaluator, true, Order::Forward)?.is_some(),
            )),
            Predicate::None => Ok(Value::Bool(
                self.first(evaluator, true, Order::Forward)?.is_none(),
            )),
            Predicate::One => Ok(Value::Bool(self.kept(evaluator)?.len() == 1)),
            Predicate::Filter => Ok(Value::list(self.kept(evaluator)?)),
            Predicate::Count => Ok(count(self.kept(evaluator)?.len())),
            Predicate::Map => Ok(Value::list(self.mapped(evaluator)?)),
            Predicate::Find => self.found(evaluator, Order::Forward),
            Predicate::FindLast => self.found(evaluator, Order::Backward),
            Predicate::FindIndex => self.found_index(evaluator, Order::Forward),
            Predicate::FindLastIndex => self.found_index(evaluator, Order::Backward),
            Predicate::GroupBy => self.grouped(evaluator),
            Predicate::SortBy => self.sorted(evaluator),
            Predicate::Sum => self.sum(evaluator),
            Predicate::Reduce => self.reduced(evaluator),
        }
    }

    fn fault(&self, message: impl Into<String>) -> Halt {
        Halt::Fault(Fault::new(self.at, message))
    }

    /// What stands for one element.
    fn look(
        &self,
        evaluator: &mut Evaluator<'_>,
        index: usize,
        accumulator: Option<Value>,
    ) -> Result<Value, Halt> {
        let element = self.items[index].clone();
        match self.body {
            None => Ok(element),
            Some(body) => evaluator.within(
                Frame {
                    element,
                    index,
                    accumulator,
                },
                body,
            ),
        }
    }

    fn asks(&self, evaluator: &mut Evaluator<'_>, index: usize) -> Result<bool, Halt> {
        let at = self.body.map_or(self.at, |body| body.at);
        let value = self.look(evaluator, index, None)?;
        value.as_bool().ok_or_else(|| {
            let kind = value.type_name();
            Halt::Fault(Fault::new(
                at,
                format!("predicate should return boolean (got {kind})"),
            ))
        })
    }

    fn first(
        &self,
        evaluator: &mut Evaluator<'_>,
        wanted: bool,
        order: Order,
    ) -> Result<Option<usize>, Halt> {
        let length = self.items.len();
        for step in 0..length {
            let index = match order {
                Order::Forward => step,
                Order::Backward => length - 1 - step,
            };
            if self.asks(evaluator, index)? == wanted {
                return Ok(Some(index));
            }
        }
        Ok(None)
    }

    fn found(&self, evaluator: &mut Evaluator<'_>, order: Order) -> Result<Value, Halt> {
        let index = self.first(evaluator, true, order)?;
        Ok(index.map_or(Value::Nil, |index| self.items[index].clone()))
    }

    fn found_index(&self, evaluator: &mut Evaluator<'_>, order: Order) -> Result<Value, Halt> {
        Ok(self
            .first(evaluator, true, order)?
            .map_or(Value::Nil, count))
    }

    fn kept(&self, evaluator: &mut Evaluator<'_>) -> Result<Vec<Value>, Halt> {
        let mut kept = Vec::new();
        for (index, item) in self.items.iter().enumerate() {
            if self.asks(evaluator, index)? {
                evaluator.hold(self.at, 1)?;
                kept.push(item.clone());
            }
        }
        Ok(kept)
    }

    fn mapped(&self, evaluator: &mut Evaluator<'_>) -> Result<Vec<Value>, Halt> {
        let mut mapped = Vec::new();
        for index in 0..self.items.len() {
            evaluator.hold(self.at, 1)?;
            mapped.push(self.look(evaluator, index, None)?);
        }
        Ok(mapped)
    }

    fn grouped(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, Halt> {
        let mut groups = std::collections::BTreeMap::<Arc<str>, Vec<Value>>::new();
        let keys = self.mapped(evaluator)?;
        for (key, item) in keys.into_iter().zip(self.items.iter()) {
            let Value::String(key) = key else {
                return Err(self.fault(format!(
                    "groupBy takes strings as keys (got {})",
                    key.type_name()
                )));
            };
            groups.entry(key).or_default().push(item.clone());
        }
        let groups: Map = groups
            .into_iter()
            .map(|(key, items)| (key, Value::list(items)))
            .collect();
        Ok(Value::Map(Arc::new(groups)))
    }

    fn sorted(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, Halt> {
        let descending =
            operators::is_descending(self.extra.as_ref()).map_err(|message| self.fault(message))?;
        let keys = self.mapped(evaluator)?;
        let order =
            operators::sorted_order(&keys, descending).map_err(|message| self.fault(message))?;
        Ok(Value::List(
            order
                .into_iter()
                .map(|index| self.items[index].clone())
                .collect(),
        ))
    }

    fn sum(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, Halt> {
        let mut sum = Value::Int(0);
        for index in 0..self.items.len() {
            let item = self.look(evaluator, index, None)?;
            evaluator.step(self.at, 1)?;
            if item.as_float().is_none() {
                return Err(self.fault(format!("cannot sum {}", item.type_name())));
            }
            sum = operators::add(&sum, &item).map_err(|message| self.fault(message))?;
        }
        Ok(sum)
    }

    /// Without a start, the first element is it.
    fn reduced(&self, evaluator: &mut Evaluator<'_>) -> Result<Value, Halt> {
        let (mut accumulator, from) = match (&self.extra, self.items.first()) {
            (Some(start), _) => (start.clone(), 0),
            (None, Some(first)) => (first.clone(), 1),
            (None, None) => return Err(self.fault("reduce of empty array with no initial value")),
        };
        for index in from..self.items.len() {
            accumulator = self.look(evaluator, index, Some(accumulator))?;
        }
        Ok(accumulator)
    }
}

#[derive(Clone, Copy)]
enum Order {
    Forward,
    Backward,
}

fn count(length: usize) -> Value {
    Value::Int(i64::try_from(length).unwrap_or(i64::MAX))
}

/// Orders two values of one kind, for sorting: NaN stands first.
pub(super) fn order(one: &Value, other: &Value) -> Option<Ordering> {
    if let (Some(one), Some(other)) = (one.as_float(), other.as_float()) {
        return Some(
            one.partial_cmp(&other)
                .unwrap_or_else(|| other.is_nan().cmp(&one.is_nan())),
        );
    }
    match (one, other) {
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        _ => None,
    }
}
