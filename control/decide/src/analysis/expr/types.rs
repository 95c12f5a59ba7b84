//! What is known of a value before it is there.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::value::Value;

/// A type. [`Type::Unknown`] is above all others: it may turn out to be any of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// Anything: what stands inside of JSON.
    Unknown,
    /// Nothing.
    Nil,
    /// True or false.
    Bool,
    /// An integer.
    Int,
    /// A number with a fraction.
    Float,
    /// Text.
    String,
    /// A list of values of one type.
    List(Box<Self>),
    /// Values by names that are not known beforehand.
    Map,
    /// Values by names that are known: any other name is a typing error.
    Object(Arc<BTreeMap<&'static str, Self>>),
}

impl Type {
    /// The type of a result, as Go's decoder would give it: known outside, unknown inside.
    #[must_use]
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Nil => Self::Nil,
            Value::Bool(_) => Self::Bool,
            Value::Int(_) => Self::Int,
            Value::Float(_) => Self::Float,
            Value::String(_) => Self::String,
            Value::List(_) => Self::List(Box::new(Self::Unknown)),
            Value::Map(_) => Self::Map,
        }
    }

    /// A list of this type.
    #[must_use]
    pub fn list(self) -> Self {
        Self::List(Box::new(self))
    }

    /// The type of a list's elements, if it may be a list.
    pub(super) fn element(&self) -> Option<Self> {
        match self {
            Self::Unknown => Some(Self::Unknown),
            Self::List(element) => Some((**element).clone()),
            Self::Nil
            | Self::Bool
            | Self::Int
            | Self::Float
            | Self::String
            | Self::Map
            | Self::Object(_) => None,
        }
    }

    /// Whether a value of this type may be of the other, too.
    pub(super) fn may_be(&self, other: &Self) -> bool {
        *self == Self::Unknown || self == other
    }

    pub(super) const fn may_be_number(&self) -> bool {
        matches!(self, Self::Unknown | Self::Int | Self::Float)
    }

    pub(super) const fn may_be_int(&self) -> bool {
        matches!(self, Self::Unknown | Self::Int)
    }

    pub(super) const fn may_be_string(&self) -> bool {
        matches!(self, Self::Unknown | Self::String)
    }

    const fn is_number(&self) -> bool {
        matches!(self, Self::Int | Self::Float)
    }

    /// Whether `==` between the two can be anything but a mistake.
    pub(super) fn may_equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Unknown | Self::Nil, _) | (_, Self::Unknown | Self::Nil) => true,
            (Self::List(one), Self::List(other)) => one.may_equal(other),
            (Self::Map | Self::Object(_), Self::Map | Self::Object(_)) => true,
            _ => self == other || (self.is_number() && other.is_number()),
        }
    }

    /// The type of a value that is of one of two.
    pub(super) fn join(self, other: &Self) -> Self {
        if self == *other { self } else { Self::Unknown }
    }
}

impl fmt::Display for Type {
    /// As Go names it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("interface {}"),
            Self::Nil => f.write_str("<nil>"),
            Self::Bool => f.write_str("bool"),
            Self::Int => f.write_str("int"),
            Self::Float => f.write_str("float64"),
            Self::String => f.write_str("string"),
            Self::List(item) => write!(f, "[]{item}"),
            Self::Map | Self::Object(_) => f.write_str("map[string]interface {}"),
        }
    }
}
