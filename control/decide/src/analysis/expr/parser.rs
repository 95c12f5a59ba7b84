//! Tokens → tree: precedence climbing, as expr-lang does it (`parser/parser.go`).

use std::sync::Arc;

use super::Fault;
use super::ast::{Binary, Kind, Node, Unary};
use super::lexer::{self, Kind as Lexeme, Token};
use super::predicates::Predicate;

/// Highest tree, and deepest nesting: far above what people write, far below what the stack of a worker thread holds.
const HEIGHT_MAX: usize = 150;

/// Longest source in bytes.
const LENGTH_MAX: usize = 20_000;

/// Binds tighter than every binary operator but `**` and `??`.
const UNARY_SIGN: u8 = 90;

/// Binds tighter than comparisons only: `not a == b` is `(not a) == b`.
const UNARY_NOT: u8 = 50;

/// Reads a whole source.
pub(super) fn parse(source: &str) -> Result<Node, Fault> {
    if source.len() > LENGTH_MAX {
        return Err(Fault::new(
            LENGTH_MAX,
            format!("longer than {LENGTH_MAX} bytes"),
        ));
    }
    let mut parser = Parser {
        tokens: lexer::lex(source)?,
        next: 0,
        depth: 0,
        predicates: 0,
    };
    let root = parser.sequence()?;
    parser.expect_end()?;
    Ok(root)
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    depth: usize,
    /// How many predicates we are within: only there `#` and `.field` mean something.
    predicates: usize,
}

/// An operator between two values.
enum Operator {
    Binary(Binary),
    Pipe,
}

impl Parser {
    fn token(&self) -> &Token {
        // The last token is `End`, and `advance` never passes it.
        &self.tokens[self.next]
    }

    fn after(&self) -> &Token {
        &self.tokens[(self.next + 1).min(self.tokens.len() - 1)]
    }

    fn at(&self) -> usize {
        self.token().at
    }

    fn advance(&mut self) {
        self.next = (self.next + 1).min(self.tokens.len() - 1);
    }

    fn sees(&self, symbol: &str) -> bool {
        matches!(&self.token().kind, Lexeme::Symbol(seen) if *seen == symbol)
    }

    fn sees_word(&self, word: &str) -> bool {
        matches!(&self.token().kind, Lexeme::Word(seen) if seen == word)
    }

    fn take(&mut self, symbol: &str) -> bool {
        let taken = self.sees(symbol);
        if taken {
            self.advance();
        }
        taken
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Fault> {
        if self.take(symbol) {
            return Ok(());
        }
        Err(Fault::new(
            self.at(),
            format!("unexpected {}, expected {symbol:?}", self.shown()),
        ))
    }

    fn expect_end(&self) -> Result<(), Fault> {
        if self.token().kind == Lexeme::End {
            return Ok(());
        }
        Err(self.unexpected())
    }

    fn expect_word(&mut self) -> Result<String, Fault> {
        let Lexeme::Word(word) = &self.token().kind else {
            return Err(Fault::new(
                self.at(),
                format!("unexpected {}, expected a name", self.shown()),
            ));
        };
        let word = word.clone();
        self.advance();
        Ok(word)
    }

    fn unexpected(&self) -> Fault {
        Fault::new(self.at(), format!("unexpected {}", self.shown()))
    }

    fn shown(&self) -> String {
        match &self.token().kind {
            Lexeme::Int(number) => format!("number {number}"),
            Lexeme::Float(number) => format!("number {number}"),
            Lexeme::String(text) => format!("string {text:?}"),
            Lexeme::Word(word) => format!("name {word:?}"),
            Lexeme::Pointer(name) => format!("\"#{name}\""),
            Lexeme::Symbol(symbol) => format!("{symbol:?}"),
            Lexeme::End => "end of expression".to_owned(),
        }
    }

    /// Makes a node, unless it would stand too high to be walked.
    #[expect(clippy::unused_self, reason = "reads as the parser's own step")]
    fn node(&self, at: usize, kind: Kind) -> Result<Node, Fault> {
        let below = kind.children().into_iter().map(|child| child.height).max();
        let height = below.map_or(1, |below| below + 1);
        if height > HEIGHT_MAX {
            return Err(too_deep(at));
        }
        Ok(Node { kind, at, height })
    }

    /// Expressions between semicolons.
    fn sequence(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        let first = self.expression(0)?;
        if !self.sees(";") {
            return Ok(first);
        }
        let mut all = vec![first];
        while self.take(";") {
            if matches!(self.token().kind, Lexeme::End) || self.sees("}") || self.sees(")") {
                break;
            }
            all.push(self.expression(0)?);
        }
        self.node(at, Kind::Sequence(all))
    }

    /// An expression whose operators bind at least as tight as `min`.
    fn expression(&mut self, min: u8) -> Result<Node, Fault> {
        self.depth += 1;
        if self.depth > HEIGHT_MAX {
            return Err(too_deep(self.at()));
        }
        let node = self.expression_within(min);
        self.depth -= 1;
        node
    }

    fn expression_within(&mut self, min: u8) -> Result<Node, Fault> {
        if min == 0 && self.sees_word("let") {
            return self.variable();
        }
        if min == 0 && self.sees_word("if") {
            return self.if_else();
        }
        let mut left = self.operand()?;
        let mut after_coalesce = false;
        while let Some((operator, precedence, negated)) = self.operator_from(min)? {
            let at = self.at();
            let coalesces = matches!(operator, Operator::Binary(Binary::Coalesce));
            if after_coalesce && !coalesces {
                return Err(Fault::new(
                    at,
                    "operator ?? and other operators cannot be mixed: wrap either in parentheses",
                ));
            }
            after_coalesce = coalesces;
            self.advance();
            left = match operator {
                Operator::Pipe => self.piped(left)?,
                Operator::Binary(binary) if is_ordering(binary) => {
                    self.comparison(left, binary, at, precedence)?
                }
                Operator::Binary(binary) => {
                    let tighter = if binary == Binary::Power { 0 } else { 1 };
                    let right = self.expression(precedence + tighter)?;
                    self.node(at, Kind::Binary(binary, left.into(), right.into()))?
                }
            };
            if negated {
                left = self.node(at, Kind::Unary(Unary::Not, left.into()))?;
            }
        }
        if min == 0 {
            return self.conditional(left);
        }
        Ok(left)
    }

    /// The operator at this place, if it binds at least as tight as `min`; a `not` before `in` and the like is stepped over.
    fn operator_from(&mut self, min: u8) -> Result<Option<(Operator, u8, bool)>, Fault> {
        let negated = self.sees_word("not");
        let token = if negated { self.after() } else { self.token() };
        let found = operator(&token.kind);
        if negated {
            let negatable = matches!(
                found,
                Some((
                    Operator::Binary(
                        Binary::In
                            | Binary::Contains
                            | Binary::StartsWith
                            | Binary::EndsWith
                            | Binary::Matches
                    ),
                    _
                ))
            );
            if !negatable {
                return Err(self.unexpected());
            }
        }
        let found = found.filter(|(_, precedence)| *precedence >= min);
        if negated && found.is_some() {
            self.advance();
        }
        Ok(found.map(|(operator, precedence)| (operator, precedence, negated)))
    }

    /// `a < b < c` is `a < b && b < c`.
    fn comparison(
        &mut self,
        left: Node,
        first: Binary,
        first_at: usize,
        precedence: u8,
    ) -> Result<Node, Fault> {
        let (mut left, mut binary, mut at) = (left, first, first_at);
        let mut chain: Option<Node> = None;
        loop {
            let right = self.expression(precedence + 1)?;
            let link = self.node(at, Kind::Binary(binary, left.into(), right.clone().into()))?;
            chain = Some(match chain {
                None => link,
                Some(chain) => {
                    self.node(at, Kind::Binary(Binary::And, chain.into(), link.into()))?
                }
            });
            match operator(&self.token().kind) {
                Some((Operator::Binary(next), _)) if is_ordering(next) => {
                    (left, binary, at) = (right, next, self.at());
                    self.advance();
                }
                _ => break,
            }
        }
        chain.ok_or_else(|| self.unexpected())
    }

    fn conditional(&mut self, condition: Node) -> Result<Node, Fault> {
        let at = self.at();
        if !self.take("?") {
            return Ok(condition);
        }
        let (then, otherwise) = if self.take(":") {
            (condition.clone(), self.expression(0)?)
        } else {
            let then = self.expression(0)?;
            self.expect(":")?;
            (then, self.expression(0)?)
        };
        let node = self.node(
            at,
            Kind::Conditional(Box::new([condition, then, otherwise])),
        )?;
        self.conditional(node)
    }

    fn variable(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        self.advance();
        let name = self.expect_word()?;
        self.expect("=")?;
        let value = self.expression(0)?.into();
        self.expect(";")?;
        let body = self.sequence()?.into();
        self.node(at, Kind::Let { name, value, body })
    }

    fn if_else(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        self.advance();
        let condition = self.expression(0)?;
        let then = self.block()?;
        if !self.sees_word("else") {
            return Err(Fault::new(
                self.at(),
                format!("unexpected {}, expected \"else\"", self.shown()),
            ));
        }
        self.advance();
        let otherwise = if self.sees_word("if") {
            self.expression(0)?
        } else {
            self.block()?
        };
        self.node(
            at,
            Kind::Conditional(Box::new([condition, then, otherwise])),
        )
    }

    fn block(&mut self) -> Result<Node, Fault> {
        self.expect("{")?;
        let body = self.sequence()?;
        self.expect("}")?;
        Ok(body)
    }

    /// What operators stand between.
    fn operand(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        if let Some((unary, precedence)) = self.unary() {
            self.advance();
            let operand = self.expression(precedence)?.into();
            let node = self.node(at, Kind::Unary(unary, operand))?;
            return self.postfix(node);
        }
        if self.take("(") {
            let inner = self.sequence()?;
            self.expect(")")?;
            return self.postfix(inner);
        }
        if self.predicates > 0 && self.sees(".") {
            let element = self.node(at, Kind::Element)?;
            return self.postfix(element);
        }
        let node = self.atom()?;
        self.postfix(node)
    }

    fn unary(&self) -> Option<(Unary, u8)> {
        if self.sees("!") || self.sees_word("not") {
            Some((Unary::Not, UNARY_NOT))
        } else if self.sees("-") {
            Some((Unary::Minus, UNARY_SIGN))
        } else if self.sees("+") {
            Some((Unary::Plus, UNARY_SIGN))
        } else {
            None
        }
    }

    fn atom(&mut self) -> Result<Node, Fault> {
        let Token { kind, at } = self.token().clone();
        let kind = match kind {
            Lexeme::Int(number) => Kind::Int(number),
            Lexeme::Float(number) => Kind::Float(number),
            Lexeme::String(text) => Kind::String(Arc::from(text)),
            Lexeme::Pointer(name) => self.pointer(&name)?,
            Lexeme::Word(word) => return self.word(word),
            Lexeme::Symbol("[") => return self.list(),
            Lexeme::Symbol("{") => return self.map(),
            Lexeme::Symbol(_) | Lexeme::End => return Err(self.unexpected()),
        };
        self.advance();
        self.node(at, kind)
    }

    fn pointer(&self, name: &str) -> Result<Kind, Fault> {
        if self.predicates == 0 {
            return Err(Fault::new(self.at(), "cannot use # outside of a predicate"));
        }
        match name {
            "" => Ok(Kind::Element),
            "index" => Ok(Kind::Index),
            "acc" => Ok(Kind::Accumulator),
            other => Err(Fault::new(self.at(), format!("unknown pointer #{other}"))),
        }
    }

    fn word(&mut self, word: String) -> Result<Node, Fault> {
        let at = self.at();
        if is_reserved(&word) {
            return Err(self.unexpected());
        }
        self.advance();
        if self.sees("(") {
            return self.call(at, word, None);
        }
        let kind = match word.as_str() {
            "nil" => Kind::Nil,
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ => Kind::Name(word),
        };
        self.node(at, kind)
    }

    /// `x | f(y)` is `f(x, y)`.
    fn piped(&mut self, first: Node) -> Result<Node, Fault> {
        let at = self.at();
        let name = self.expect_word()?;
        let call = self.call(at, name, Some(first))?;
        self.postfix(call)
    }

    fn call(&mut self, at: usize, name: String, first: Option<Node>) -> Result<Node, Fault> {
        match Predicate::named(&name) {
            Some(predicate) => self.each(at, predicate, first),
            None => {
                let mut arguments: Vec<Node> = first.into_iter().collect();
                self.expect("(")?;
                self.items(")", |parser| {
                    arguments.push(parser.expression(0)?);
                    Ok(())
                })?;
                self.node(at, Kind::Call { name, arguments })
            }
        }
    }

    /// Items between commas, up to the closing symbol; a comma may stand last.
    fn items(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !self.take(close) {
            item(self)?;
            if !self.sees(close) {
                self.expect(",")?;
            }
        }
        Ok(())
    }

    fn each(
        &mut self,
        at: usize,
        predicate: Predicate,
        first: Option<Node>,
    ) -> Result<Node, Fault> {
        self.expect("(")?;
        let list = match first {
            Some(list) => list,
            None => {
                let list = self.expression(0)?;
                if !self.sees(")") {
                    self.expect(",")?;
                }
                list
            }
        };
        let body = match self.sees(")") {
            true if predicate.needs_body() => {
                return Err(Fault::new(
                    at,
                    format!("not enough arguments to call {}", predicate.name()),
                ));
            }
            true => None,
            false => Some(self.predicate_body()?.into()),
        };
        let extra = match self.take(",") && !self.sees(")") {
            true if !predicate.takes_extra() => {
                return Err(Fault::new(
                    self.at(),
                    format!("too many arguments to call {}", predicate.name()),
                ));
            }
            true => Some(self.expression(0)?.into()),
            false => None,
        };
        self.take(",");
        self.expect(")")?;
        let list = list.into();
        self.node(
            at,
            Kind::Each {
                predicate,
                list,
                body,
                extra,
            },
        )
    }

    /// The braces are optional.
    fn predicate_body(&mut self) -> Result<Node, Fault> {
        self.predicates += 1;
        let body = match self.sees("{") {
            true => self.block()?,
            false => self.expression(0)?,
        };
        self.predicates -= 1;
        Ok(body)
    }

    fn list(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        self.expect("[")?;
        let mut items = Vec::new();
        self.items("]", |parser| {
            items.push(parser.expression(0)?);
            Ok(())
        })?;
        self.node(at, Kind::List(items))
    }

    fn map(&mut self) -> Result<Node, Fault> {
        let at = self.at();
        self.expect("{")?;
        let mut entries = Vec::new();
        self.items("}", |parser| {
            let key = parser.map_key()?;
            parser.expect(":")?;
            entries.push((key, parser.expression(0)?));
            Ok(())
        })?;
        self.node(at, Kind::Map(entries))
    }

    fn map_key(&mut self) -> Result<Node, Fault> {
        let Token { kind, at } = self.token().clone();
        let text = match kind {
            Lexeme::String(text) | Lexeme::Word(text) => text,
            Lexeme::Int(number) => number.to_string(),
            Lexeme::Symbol("(") => return self.expression(0),
            Lexeme::Float(_) | Lexeme::Pointer(_) | Lexeme::Symbol(_) | Lexeme::End => {
                return Err(Fault::new(
                    at,
                    "a map key must be a quoted string, a number, a name, or an expression enclosed in parentheses",
                ));
            }
        };
        self.advance();
        self.node(at, Kind::String(Arc::from(text)))
    }

    /// Members, indices and slices behind a value.
    fn postfix(&mut self, node: Node) -> Result<Node, Fault> {
        let start = node.at;
        let mut node = node;
        let mut may_stop = false;
        loop {
            let at = self.at();
            if self.take("?.") {
                may_stop = true;
                node = match self.take("[") {
                    true => self.indexed(node, at, true)?,
                    false => self.member(node, at, true)?,
                };
            } else if self.take(".") {
                node = self.member(node, at, false)?;
            } else if self.take("[") {
                node = self.indexed(node, at, false)?;
            } else if may_stop {
                return self.node(start, Kind::Chain(node.into()));
            } else {
                return Ok(node);
            }
        }
    }

    fn member(&mut self, object: Node, at: usize, optional: bool) -> Result<Node, Fault> {
        let property_at = self.at();
        let name = self.expect_word()?;
        if self.sees("(") {
            return Err(Fault::new(
                property_at,
                format!("{name} is no function of this language: values have no methods"),
            ));
        }
        let property = self.node(property_at, Kind::String(Arc::from(name)))?;
        self.node(
            at,
            Kind::Member {
                object: object.into(),
                property: property.into(),
                optional,
            },
        )
    }

    fn indexed(&mut self, object: Node, at: usize, optional: bool) -> Result<Node, Fault> {
        let object = object.into();
        if self.take(":") {
            let to = self.slice_end()?;
            return self.node(
                at,
                Kind::Slice {
                    object,
                    from: None,
                    to,
                },
            );
        }
        let from: Box<Node> = self.expression(0)?.into();
        if self.take(":") {
            let to = self.slice_end()?;
            let from = Some(from);
            return self.node(at, Kind::Slice { object, from, to });
        }
        self.expect("]")?;
        self.node(
            at,
            Kind::Member {
                object,
                property: from,
                optional,
            },
        )
    }

    fn slice_end(&mut self) -> Result<Option<Box<Node>>, Fault> {
        if self.take("]") {
            return Ok(None);
        }
        let to = self.expression(0)?;
        self.expect("]")?;
        Ok(Some(to.into()))
    }
}

fn too_deep(at: usize) -> Fault {
    Fault::new(at, format!("nested deeper than {HEIGHT_MAX}"))
}

const fn is_ordering(binary: Binary) -> bool {
    matches!(
        binary,
        Binary::Less | Binary::LessOrEqual | Binary::Greater | Binary::GreaterOrEqual
    )
}

/// Words that name nothing.
fn is_reserved(word: &str) -> bool {
    matches!(
        word,
        "and"
            | "or"
            | "not"
            | "in"
            | "contains"
            | "matches"
            | "startsWith"
            | "endsWith"
            | "let"
            | "if"
            | "else"
    )
}

/// The operator between two values that a token is, and how tight it binds (expr-lang, `parser/operator`).
fn operator(token: &Lexeme) -> Option<(Operator, u8)> {
    let text = match token {
        Lexeme::Symbol(symbol) => symbol,
        Lexeme::Word(word) => word.as_str(),
        Lexeme::Int(_)
        | Lexeme::Float(_)
        | Lexeme::String(_)
        | Lexeme::Pointer(_)
        | Lexeme::End => return None,
    };
    let (binary, precedence) = match text {
        "|" => return Some((Operator::Pipe, 0)),
        "||" | "or" => (Binary::Or, 10),
        "&&" | "and" => (Binary::And, 15),
        "==" => (Binary::Equal, 20),
        "!=" => (Binary::NotEqual, 20),
        "<" => (Binary::Less, 20),
        "<=" => (Binary::LessOrEqual, 20),
        ">" => (Binary::Greater, 20),
        ">=" => (Binary::GreaterOrEqual, 20),
        "in" => (Binary::In, 20),
        "contains" => (Binary::Contains, 20),
        "startsWith" => (Binary::StartsWith, 20),
        "endsWith" => (Binary::EndsWith, 20),
        "matches" => (Binary::Matches, 20),
        ".." => (Binary::Range, 25),
        "+" => (Binary::Add, 30),
        "-" => (Binary::Subtract, 30),
        "*" => (Binary::Multiply, 60),
        "/" => (Binary::Divide, 60),
        "%" => (Binary::Remainder, 60),
        "**" | "^" => (Binary::Power, 100),
        "??" => (Binary::Coalesce, 200),
        _ => return None,
    };
    Some((Operator::Binary(binary), precedence))
}
