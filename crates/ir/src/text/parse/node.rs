//! One node: what follows `=`.

use std::sync::Arc;

use super::{Parsed, Parser};
use crate::attributes::{Attribute, AttributeValue};
use crate::graph::{Arena, Location, Value};
use crate::ops::{Constant, Input, Op, Parameter, ParameterData, Role, Statistic};
use crate::schedule::Schedule;
use crate::text::lex::Kind;
use crate::types::TensorType;

/// A result's type and place as written.
pub(super) type Typed = (TensorType, Option<Location>);
/// A node as written.
pub(super) struct NodeParts {
    pub op: Op,
    pub operands: Vec<Value>,
    pub results: Results,
    pub schedule: Option<Schedule>,
}

impl NodeParts {
    fn source(op: impl Into<Op>, results: Results) -> NodeParts {
        NodeParts {
            op: op.into(),
            operands: Vec::new(),
            results,
            schedule: None,
        }
    }
}

/// What follows a node's operation: types and places of its results, the place of its workspace, its label.
pub(super) struct Results {
    pub types: Vec<Typed>,
    pub workspace: Option<Location>,
    pub label: String,
}

/// The operators, each with its results and label.
impl Parser {
    /// What follows `:`.
    fn results(&mut self) -> Parsed<Results> {
        self.expect(':')?;
        let mut types = Vec::new();
        loop {
            let ty = self.ty()?;
            let location = if self.accept('@') {
                Some(self.location()?)
            } else {
                None
            };
            types.push((ty, location));
            if !self.accept(',') {
                break;
            }
        }
        let workspace = match self.is_word("workspace") {
            true => {
                self.bump();
                self.expect('@')?;
                Some(self.location()?)
            }
            false => None,
        };
        let label = match self.kind() {
            Kind::Text(_) => self.text("a label")?,
            _ => String::new(),
        };
        Ok(Results {
            types,
            workspace,
            label,
        })
    }

    /// The results of a source node: one.
    fn result(&mut self) -> Parsed<(TensorType, Results)> {
        let at = self.next;
        let results = self.results()?;
        match results.types.first() {
            Some((ty, _)) => Ok((ty.clone(), results)),
            None => self.error_at(at, "expected a result type"),
        }
    }

    fn location(&mut self) -> Parsed<Location> {
        let at = self.next;
        let name = self.word("an arena")?;
        let Some(arena) = Arena::ALL.into_iter().find(|a| a.name() == name) else {
            return self.error_at(at, format!("unknown arena `{name}`"));
        };
        self.expect('+')?;
        let offset = self.number_as("an offset")?;
        Ok(Location { arena, offset })
    }

    pub(super) fn input(&mut self) -> Parsed<NodeParts> {
        let name = self.text("the input's name in quotes")?;
        let at = self.next;
        let word = self.word("`data` or `target`")?;
        let Some(role) = Role::from_attribute(&Attribute::Word(word, Vec::new())) else {
            return self.error_at(at, "expected `data` or `target`");
        };
        let (ty, results) = self.result()?;
        Ok(NodeParts::source(Input { name, role, ty }, results))
    }

    pub(super) fn parameter(&mut self) -> Parsed<NodeParts> {
        let name = self.text("the parameter's name in quotes")?;
        let trained = self.is_word("trained");
        if !trained && !self.is_word("frozen") {
            return self.expected("`trained` or `frozen`");
        }
        self.bump();
        let (data, ty, results) = self.data()?;
        let op = Parameter {
            name,
            trained,
            ty,
            data,
        };
        Ok(NodeParts::source(op, results))
    }

    pub(super) fn statistic(&mut self) -> Parsed<NodeParts> {
        let name = self.text("the statistic's name in quotes")?;
        let (data, ty, results) = self.data()?;
        Ok(NodeParts::source(Statistic { name, ty, data }, results))
    }

    pub(super) fn constant(&mut self) -> Parsed<NodeParts> {
        let at = self.next;
        let numbers = self.numbers()?;
        let (ty, results) = self.result()?;
        let value = Arc::new(self.literal(at, &ty, &numbers)?);
        Ok(NodeParts::source(Constant { value }, results))
    }

    pub(super) fn operation(&mut self, at: usize, name: &str) -> Parsed<NodeParts> {
        if !Op::NAMES.contains(&name) {
            return self.error_at(at, format!("unknown operator `{name}`"));
        }
        self.expect('(')?;
        let operands = self.list(')', Parser::value)?;
        let mut schedule = None;
        let attributes = if self.accept('{') {
            let written = self.list('}', |p| p.attribute_or_schedule(&mut schedule))?;
            written.into_iter().flatten().collect()
        } else {
            Vec::new()
        };
        let op = match Op::from_attributes(name, attributes) {
            Ok(op) => op,
            Err(message) => return self.error_at(at, message),
        };
        let results = self.results()?;
        Ok(NodeParts {
            op,
            operands,
            results,
            schedule,
        })
    }

    /// An attribute of the operator, or the schedule, which every operator may have.
    fn attribute_or_schedule(
        &mut self,
        schedule: &mut Option<Schedule>,
    ) -> Parsed<Option<(String, Attribute)>> {
        if !self.is_word("schedule") {
            return self.named_attribute().map(Some);
        }
        if schedule.is_some() {
            return self.error("the schedule is there twice");
        }
        self.bump();
        self.expect('=')?;
        *schedule = Some(self.schedule()?);
        Ok(None)
    }

    /// The start of a parameter or statistic, and its type.
    fn data(&mut self) -> Parsed<(ParameterData, TensorType, Results)> {
        let at = self.next;
        if *self.kind() == Kind::Punctuation('[') {
            let numbers = self.numbers()?;
            let (ty, results) = self.result()?;
            let literal = Arc::new(self.literal(at, &ty, &numbers)?);
            return Ok((ParameterData::Values(literal), ty, results));
        }
        let word = self.word("values, `fill`, `kaiming_normal` or `elided`")?;
        let data = if word == "elided" {
            self.expect('(')?;
            let hash = self.hash()?;
            self.expect(')')?;
            ParameterData::Elided { hash }
        } else {
            let args = self.arguments()?;
            match ParameterData::from_attribute(&Attribute::Word(word, args)) {
                Some(data) => data,
                None => {
                    return self.error_at(at, "expected `fill(value)`, `kaiming_normal(fan_in)` or values");
                }
            }
        };
        let (ty, results) = self.result()?;
        Ok((data, ty, results))
    }

    fn hash(&mut self) -> Parsed<u64> {
        let at = self.next;
        let digits = match self.bump() {
            Kind::Word(digits) | Kind::Number(digits) => digits,
            _ => String::new(),
        };
        match u64::from_str_radix(&digits, 16) {
            Ok(hash) if digits.len() == 16 => Ok(hash),
            _ => self.error_at(at, "expected a hash of 16 hexadecimal digits"),
        }
    }
}
