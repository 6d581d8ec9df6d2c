//! One node: what follows `=`.

use std::sync::Arc;

use super::{Parsed, Parser};
use crate::attributes::{Attribute, AttributeValue};
use crate::graph::{Arena, Location, Value};
use crate::ops::{Constant, Input, Op, Parameter, ParameterData, Role, Statistic};
use crate::text::lex::Kind;
use crate::types::TensorType;

/// A result's type and place as written.
pub(super) type Typed = (TensorType, Option<Location>);
/// Operator, operands, results and label.
pub(super) type NodeParts = (Op, Vec<Value>, Vec<Typed>, String);

/// The operators, each with its results and label.
impl Parser {
    /// Result types and the label, after `:`.
    fn results(&mut self) -> Parsed<(Vec<Typed>, String)> {
        self.expect(':')?;
        let mut results = Vec::new();
        loop {
            let ty = self.ty()?;
            let location = if self.accept('@') {
                Some(self.location()?)
            } else {
                None
            };
            results.push((ty, location));
            if !self.accept(',') {
                break;
            }
        }
        let label = match self.kind() {
            Kind::Text(_) => self.text("a label")?,
            _ => String::new(),
        };
        Ok((results, label))
    }

    /// The results of a source node: one.
    fn result(&mut self) -> Parsed<(TensorType, Vec<Typed>, String)> {
        let at = self.next;
        let (results, label) = self.results()?;
        match results.first() {
            Some((ty, _)) => Ok((ty.clone(), results, label)),
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
        let (ty, results, label) = self.result()?;
        Ok((Input { name, role, ty }.into(), Vec::new(), results, label))
    }

    pub(super) fn parameter(&mut self) -> Parsed<NodeParts> {
        let name = self.text("the parameter's name in quotes")?;
        let trained = self.is_word("trained");
        if !trained && !self.is_word("frozen") {
            return self.expected("`trained` or `frozen`");
        }
        self.bump();
        let (data, ty, results, label) = self.data()?;
        let op = Parameter {
            name,
            trained,
            ty,
            data,
        };
        Ok((op.into(), Vec::new(), results, label))
    }

    pub(super) fn statistic(&mut self) -> Parsed<NodeParts> {
        let name = self.text("the statistic's name in quotes")?;
        let (data, ty, results, label) = self.data()?;
        Ok((Statistic { name, ty, data }.into(), Vec::new(), results, label))
    }

    pub(super) fn constant(&mut self) -> Parsed<NodeParts> {
        let at = self.next;
        let numbers = self.numbers()?;
        let (ty, results, label) = self.result()?;
        let value = Arc::new(self.literal(at, &ty, &numbers)?);
        Ok((Constant { value }.into(), Vec::new(), results, label))
    }

    pub(super) fn operation(&mut self, at: usize, name: &str) -> Parsed<NodeParts> {
        if !Op::NAMES.contains(&name) {
            return self.error_at(at, format!("unknown operator `{name}`"));
        }
        self.expect('(')?;
        let operands = self.list(')', Parser::value)?;
        let attributes = if self.accept('{') {
            self.list('}', Parser::named_attribute)?
        } else {
            Vec::new()
        };
        let op = match Op::from_attributes(name, attributes) {
            Ok(op) => op,
            Err(message) => return self.error_at(at, message),
        };
        let (results, label) = self.results()?;
        Ok((op, operands, results, label))
    }

    /// The start of a parameter or statistic, and its type.
    fn data(&mut self) -> Parsed<(ParameterData, TensorType, Vec<Typed>, String)> {
        let at = self.next;
        if *self.kind() == Kind::Punctuation('[') {
            let numbers = self.numbers()?;
            let (ty, results, label) = self.result()?;
            let literal = Arc::new(self.literal(at, &ty, &numbers)?);
            return Ok((ParameterData::Values(literal), ty, results, label));
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
        let (ty, results, label) = self.result()?;
        Ok((data, ty, results, label))
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
