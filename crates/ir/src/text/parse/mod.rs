//! Text to graph. The grammar has no nesting, so that no text, however hostile, can exhaust the stack; sizes are
//! checked before anything is allocated for them.

mod graph;
mod node;
mod schedule;
mod value;

use std::collections::BTreeMap;

use super::lex::{Kind, Token, lex};
use crate::graph::{Graph, NodeId};
use crate::schedule::Schedule;

/// Why a text is not a graph, and where; lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// Line.
    pub line: usize,
    /// Column, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
}

/// Reads a graph. Printed result types are checked against inference; a printed layout is taken as it is.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser {
        tokens: lex(text)?,
        next: 0,
        nodes: BTreeMap::new(),
        graph: Graph::default(),
    };
    parser.graph()?;
    Ok(parser.graph)
}

/// Reads a schedule, as it stands behind `schedule =`.
pub fn parse_schedule(text: &str) -> Result<Schedule, ParseError> {
    let mut parser = Parser {
        tokens: lex(text)?,
        next: 0,
        nodes: BTreeMap::new(),
        graph: Graph::default(),
    };
    let schedule = parser.schedule()?;
    match parser.kind() {
        Kind::End => Ok(schedule),
        _ => parser.expected("the end of the schedule"),
    }
}

impl std::str::FromStr for Schedule {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Schedule, ParseError> {
        parse_schedule(text)
    }
}

struct Parser {
    tokens: Vec<Token>,
    next: usize,
    nodes: BTreeMap<String, NodeId>,
    graph: Graph,
}

type Parsed<T> = Result<T, ParseError>;

/// Reading tokens. Their list ends with `End`, which is never passed.
impl Parser {
    fn kind(&self) -> &Kind {
        &self.tokens[self.next].kind
    }

    fn bump(&mut self) -> Kind {
        let kind = self.kind().clone();
        if kind != Kind::End {
            self.next += 1;
        }
        kind
    }

    fn error_at<T>(&self, at: usize, message: impl Into<String>) -> Parsed<T> {
        let token = &self.tokens[at];
        Err(ParseError {
            line: token.line,
            column: token.column,
            message: message.into(),
        })
    }

    fn error<T>(&self, message: impl Into<String>) -> Parsed<T> {
        self.error_at(self.next, message)
    }

    fn expected<T>(&self, what: &str) -> Parsed<T> {
        let found = match self.kind() {
            Kind::Word(w) | Kind::Number(w) => format!("`{w}`"),
            Kind::Text(t) => format!("{t:?}"),
            Kind::Value(v) => format!("`%{v}`"),
            Kind::Punctuation(c) => format!("`{c}`"),
            Kind::End => "the end of the text".to_string(),
        };
        self.error(format!("expected {what}, found {found}"))
    }

    fn accept(&mut self, c: char) -> bool {
        let found = *self.kind() == Kind::Punctuation(c);
        if found {
            self.next += 1;
        }
        found
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.accept(c) {
            return Ok(());
        }
        self.expected(&format!("`{c}`"))
    }

    fn is_word(&self, word: &str) -> bool {
        matches!(self.kind(), Kind::Word(w) if w == word)
    }

    fn expect_word(&mut self, word: &str) -> Parsed<()> {
        if self.is_word(word) {
            self.next += 1;
            return Ok(());
        }
        self.expected(&format!("`{word}`"))
    }

    fn word(&mut self, what: &str) -> Parsed<String> {
        if let Kind::Word(w) = self.kind() {
            let w = w.clone();
            self.next += 1;
            return Ok(w);
        }
        self.expected(what)
    }

    fn text(&mut self, what: &str) -> Parsed<String> {
        if let Kind::Text(t) = self.kind() {
            let t = t.clone();
            self.next += 1;
            return Ok(t);
        }
        self.expected(what)
    }

    /// A number as written; `inf` and `nan` are numbers too.
    fn number(&mut self) -> Parsed<String> {
        match self.kind() {
            Kind::Number(n) => {
                let n = n.clone();
                self.next += 1;
                Ok(n)
            }
            Kind::Word(w) if w == "inf" || w == "nan" => {
                let w = w.clone();
                self.next += 1;
                Ok(w)
            }
            _ => self.expected("a number"),
        }
    }

    fn number_as<T: std::str::FromStr>(&mut self, what: &str) -> Parsed<T> {
        let at = self.next;
        let number = self.number()?;
        match number.parse() {
            Ok(n) => Ok(n),
            Err(_) => self.error_at(at, format!("`{number}` is not {what}")),
        }
    }

    /// `item, item, ...` up to `close`, which is taken.
    fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Parser) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        if self.accept(close) {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if self.accept(close) {
                return Ok(items);
            }
            if !self.accept(',') {
                return self.expected(&format!("`,` or `{close}`"));
            }
        }
    }
}
