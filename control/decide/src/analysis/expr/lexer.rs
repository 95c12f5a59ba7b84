//! Text → tokens.

use super::Fault;

/// A token, and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) at: usize,
}

/// What a token is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Int(i64),
    Float(f64),
    String(String),
    /// A name; also the operators and keywords that are words.
    Word(String),
    /// `#`, with the name that follows it, if one does.
    Pointer(String),
    /// An operator, bracket or separator.
    Symbol(&'static str),
    End,
}

/// The symbols, longer ones first.
const SYMBOLS: [&str; 32] = [
    "&&", "||", "==", "!=", "<=", ">=", "..", "**", "??", "?.", "<", ">", "!", "?", ":", "+", "-",
    "*", "/", "%", "^", "|", ".", ",", ";", "=", "(", ")", "[", "]", "{", "}",
];

/// Cuts a source into tokens; the last is [`Kind::End`].
pub(super) fn lex(source: &str) -> Result<Vec<Token>, Fault> {
    let mut lexer = Lexer { source, at: 0 };
    let mut tokens = Vec::new();
    loop {
        lexer.skip_blank()?;
        let at = lexer.at;
        let kind = lexer.token()?;
        let ended = kind == Kind::End;
        tokens.push(Token { kind, at });
        if ended {
            return Ok(tokens);
        }
    }
}

struct Lexer<'a> {
    source: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn rest(&self) -> &'a str {
        self.source.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.peek()?;
        self.at += next.len_utf8();
        Some(next)
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
        self.at += end;
        rest.get(..end).unwrap_or_default()
    }

    fn skip_blank(&mut self) -> Result<(), Fault> {
        loop {
            self.take_while(char::is_whitespace);
            if self.rest().starts_with("//") {
                self.take_while(|c| c != '\n');
            } else if self.rest().starts_with("/*") {
                let end = self.rest().find("*/");
                let end = end.ok_or_else(|| Fault::new(self.at, "unclosed comment"))?;
                self.at += end + 2;
            } else {
                return Ok(());
            }
        }
    }

    fn token(&mut self) -> Result<Kind, Fault> {
        let Some(first) = self.peek() else {
            return Ok(Kind::End);
        };
        let second = self.rest().chars().nth(1);
        match first {
            '0'..='9' => self.number(),
            '.' if second.is_some_and(|c| c.is_ascii_digit()) => self.number(),
            '"' | '\'' => self.quoted(first),
            '`' => self.raw(),
            '#' => {
                self.next();
                Ok(Kind::Pointer(self.take_while(is_word).to_owned()))
            }
            c if is_word_start(c) => self.word(),
            c => self.symbol(c),
        }
    }

    fn symbol(&mut self, first: char) -> Result<Kind, Fault> {
        let symbol = SYMBOLS
            .into_iter()
            .find(|symbol| self.rest().starts_with(symbol));
        let symbol = symbol
            .ok_or_else(|| Fault::new(self.at, format!("unrecognized character {first:?}")))?;
        self.at += symbol.len();
        Ok(Kind::Symbol(symbol))
    }

    fn word(&mut self) -> Result<Kind, Fault> {
        let at = self.at;
        let word = self.take_while(is_word);
        if word == "b" && matches!(self.peek(), Some('"' | '\'')) {
            return Err(Fault::new(at, "byte strings are not supported"));
        }
        Ok(Kind::Word(word.to_owned()))
    }

    fn number(&mut self) -> Result<Kind, Fault> {
        let at = self.at;
        let fault = |text: &str| Fault::new(at, format!("bad number syntax: {text:?}"));
        for (prefix, radix) in [
            ("0x", 16),
            ("0X", 16),
            ("0o", 8),
            ("0O", 8),
            ("0b", 2),
            ("0B", 2),
        ] {
            if self.rest().starts_with(prefix) {
                self.at += prefix.len();
                let digits = self.take_while(is_word).replace('_', "");
                return i64::from_str_radix(&digits, radix)
                    .map(Kind::Int)
                    .map_err(|_| fault(&format!("{prefix}{digits}")));
            }
        }
        let whole = self.take_digits();
        let fraction = self.fraction();
        let exponent = self.exponent();
        let text = format!("{whole}{fraction}{exponent}");
        let stray = self.take_while(is_word);
        if !stray.is_empty() {
            return Err(fault(&format!("{text}{stray}")));
        }
        if fraction.is_empty() && exponent.is_empty() {
            return text.parse().map(Kind::Int).map_err(|_| fault(&text));
        }
        match text.parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(Kind::Float(number)),
            Ok(_) | Err(_) => Err(fault(&text)),
        }
    }

    fn take_digits(&mut self) -> String {
        self.take_while(|c| c.is_ascii_digit() || c == '_')
            .replace('_', "")
    }

    /// `.5`, but not the beginning of `..`.
    fn fraction(&mut self) -> String {
        let digit_follows = self
            .rest()
            .strip_prefix('.')
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if !digit_follows {
            return String::new();
        }
        self.at += 1;
        format!(".{}", self.take_digits())
    }

    fn exponent(&mut self) -> String {
        let rest = self.rest();
        let Some(after) = rest.strip_prefix(['e', 'E']) else {
            return String::new();
        };
        let sign = ["-", "+"].into_iter().find(|sign| after.starts_with(*sign));
        let sign = sign.unwrap_or_default();
        let digit_follows = after
            .get(sign.len()..)
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if !digit_follows {
            return String::new();
        }
        self.at += 1 + sign.len();
        format!("e{sign}{}", self.take_digits())
    }

    /// A raw string: no escapes, and a doubled backtick is one.
    fn raw(&mut self) -> Result<Kind, Fault> {
        let at = self.at;
        self.next();
        let mut text = String::new();
        loop {
            text.push_str(self.take_while(|c| c != '`'));
            if self.next().is_none() {
                return Err(Fault::new(at, "literal not terminated"));
            }
            if self.peek() != Some('`') {
                return Ok(Kind::String(text));
            }
            self.next();
            text.push('`');
        }
    }

    fn quoted(&mut self, quote: char) -> Result<Kind, Fault> {
        let at = self.at;
        self.next();
        let mut text = String::new();
        loop {
            match self.next() {
                None | Some('\n') => return Err(Fault::new(at, "literal not terminated")),
                Some('\\') => text.push(self.escape()?),
                Some(c) if c == quote => return Ok(Kind::String(text)),
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Fault> {
        let at = self.at;
        let fault = || Fault::new(at, "invalid char escape");
        let c = self.next().ok_or_else(fault)?;
        Ok(match c {
            'a' => '\u{7}',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'v' => '\u{b}',
            '\\' | '\'' | '"' | '`' => c,
            'x' => self.code(2, 16).ok_or_else(fault)?,
            'u' => self.code(4, 16).ok_or_else(fault)?,
            'U' => self.code(8, 16).ok_or_else(fault)?,
            '0'..='3' => {
                self.at = at;
                self.code(3, 8).ok_or_else(fault)?
            }
            _ => return Err(fault()),
        })
    }

    fn code(&mut self, digits: usize, radix: u32) -> Option<char> {
        let text = self.rest().get(..digits)?;
        if !text.chars().all(|c| c.is_digit(radix)) {
            return None;
        }
        self.at += digits;
        char::from_u32(u32::from_str_radix(text, radix).ok()?)
    }
}

fn is_word_start(c: char) -> bool {
    c == '_' || c == '$' || c.is_alphabetic()
}

fn is_word(c: char) -> bool {
    is_word_start(c) || c.is_ascii_digit()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(source: &str) -> Result<Vec<Kind>, String> {
        let tokens = lex(source).map_err(|fault| format!("{} at {}", fault.message, fault.at))?;
        let mut kinds: Vec<Kind> = tokens.into_iter().map(|token| token.kind).collect();
        assert_eq!(kinds.pop(), Some(Kind::End));
        Ok(kinds)
    }

    #[test]
    fn numbers_are_read_as_go_reads_them() {
        let cases = [
            ("42", Ok(Kind::Int(42))),
            ("0x2A", Ok(Kind::Int(42))),
            ("0o52", Ok(Kind::Int(42))),
            ("0b101010", Ok(Kind::Int(42))),
            ("1_000", Ok(Kind::Int(1000))),
            (".5", Ok(Kind::Float(0.5))),
            ("1e3", Ok(Kind::Float(1000.0))),
            ("1.5E-1", Ok(Kind::Float(0.15))),
            ("1abc", Err("bad number syntax: \"1abc\" at 0")),
            (
                "99999999999999999999",
                Err("bad number syntax: \"99999999999999999999\" at 0"),
            ),
            ("1e999", Err("bad number syntax: \"1e999\" at 0")),
        ];
        for (source, expected) in cases {
            let expected = expected.map(|kind| vec![kind]).map_err(str::to_owned);
            assert_eq!(kinds(source), expected, "{source}");
        }
    }

    #[test]
    fn a_range_is_no_fraction() {
        let expected = [Kind::Int(1), Kind::Symbol(".."), Kind::Int(3)];
        assert_eq!(kinds("1..3").unwrap(), expected);
    }

    #[test]
    fn strings_have_three_quotes_and_escapes() {
        let cases = [
            (r#""a\"b""#, Ok("a\"b")),
            (r"'a\'b'", Ok("a'b")),
            (r"'\n\x41\u0042\103'", Ok("\nABC")),
            ("`a\\n``b`", Ok("a\\n`b")),
            ("'a", Err("literal not terminated at 0")),
            (r"'\q'", Err("invalid char escape at 2")),
            (r"'\xé'", Err("invalid char escape at 2")),
            (r"b'x'", Err("byte strings are not supported at 0")),
        ];
        for (source, expected) in cases {
            let expected = expected
                .map(|text| vec![Kind::String(text.to_owned())])
                .map_err(str::to_owned);
            assert_eq!(kinds(source), expected, "{source}");
        }
    }

    #[test]
    fn comments_are_blank() {
        assert_eq!(kinds("1 // one\n/* two */").unwrap(), [Kind::Int(1)]);
        assert_eq!(kinds("1 /* two").unwrap_err(), "unclosed comment at 2");
    }
}
