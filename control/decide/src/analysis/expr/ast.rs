//! The tree of an expression.

use std::sync::Arc;

use super::predicates::Predicate;

/// A node, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// In bytes of the source: of an operator, the operator.
    pub(super) at: usize,
    /// Height of the tree below, so that none grows too high to walk.
    pub(super) height: usize,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    String(Arc<str>),
    /// A variable.
    Name(String),
    /// The element a predicate looks at: `#`.
    Element,
    /// Its index: `#index`.
    Index,
    /// What `reduce` has so far: `#acc`.
    Accumulator,
    Unary(Unary, Box<Node>),
    Binary(Binary, Box<Node>, Box<Node>),
    /// Condition, then, else.
    Conditional(Box<[Node; 3]>),
    /// `object.property`, `object[property]`.
    Member {
        object: Box<Node>,
        property: Box<Node>,
        optional: bool,
    },
    /// `object[from:to]`.
    Slice {
        object: Box<Node>,
        from: Option<Box<Node>>,
        to: Option<Box<Node>>,
    },
    /// The end of a chain that holds a `?.`: where nil stops it, the whole is nil.
    Chain(Box<Node>),
    Call {
        name: String,
        arguments: Vec<Node>,
    },
    /// A function that looks at each element of a list.
    Each {
        predicate: Predicate,
        list: Box<Node>,
        body: Option<Box<Node>>,
        /// `reduce`'s start, `sortBy`'s order.
        extra: Option<Box<Node>>,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    /// `let name = value; body`.
    Let {
        name: String,
        value: Box<Node>,
        body: Box<Node>,
    },
    /// All are worked out; the last one counts.
    Sequence(Vec<Node>),
}

/// Operators on one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unary {
    Not,
    Minus,
    Plus,
}

/// Operators on two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Binary {
    Or,
    And,
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Range,
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    Power,
    Coalesce,
}

impl Binary {
    /// As it is written in error messages.
    pub(super) const fn symbol(self) -> &'static str {
        match self {
            Self::Or => "or",
            Self::And => "and",
            Self::Equal => "==",
            Self::NotEqual => "!=",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
            Self::In => "in",
            Self::Contains => "contains",
            Self::StartsWith => "startsWith",
            Self::EndsWith => "endsWith",
            Self::Matches => "matches",
            Self::Range => "..",
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
            Self::Remainder => "%",
            Self::Power => "**",
            Self::Coalesce => "??",
        }
    }
}

impl Kind {
    /// The nodes right below.
    pub(super) fn children(&self) -> Vec<&Node> {
        match self {
            Self::Nil
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float(_)
            | Self::String(_)
            | Self::Name(_)
            | Self::Element
            | Self::Index
            | Self::Accumulator => Vec::new(),
            Self::Unary(_, one) | Self::Chain(one) => vec![one],
            Self::Binary(_, one, other) => vec![one, other],
            Self::Conditional(three) => three.iter().collect(),
            Self::Member {
                object, property, ..
            } => vec![object, property],
            Self::Slice { object, from, to } => [Some(object), from.as_ref(), to.as_ref()]
                .into_iter()
                .flatten()
                .map(AsRef::as_ref)
                .collect(),
            Self::Call { arguments, .. } => arguments.iter().collect(),
            Self::Each {
                list, body, extra, ..
            } => [Some(list), body.as_ref(), extra.as_ref()]
                .into_iter()
                .flatten()
                .map(AsRef::as_ref)
                .collect(),
            Self::List(items) | Self::Sequence(items) => items.iter().collect(),
            Self::Map(entries) => entries
                .iter()
                .flat_map(|(key, value)| [key, value])
                .collect(),
            Self::Let { value, body, .. } => vec![value, body],
        }
    }
}
