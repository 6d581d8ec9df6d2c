//! Schedules.

use super::{Parsed, Parser};
use crate::attributes::Attribute;
use crate::schedule::Schedule;
use crate::text::lex::Kind;

impl Parser {
    /// `general`, or a name with its blocking: `direct(lanes = 16, pixels = 14, vectors = 2, rows = 1)`.
    pub(super) fn schedule(&mut self) -> Parsed<Schedule> {
        let at = self.next;
        let name = self.word("a schedule")?;
        let fields = match self.accept('(') {
            true => self.list(')', Parser::field)?,
            false => Vec::new(),
        };
        match Schedule::from_fields(&name, fields) {
            Ok(schedule) => Ok(schedule),
            Err(message) => self.error_at(at, message),
        }
    }

    fn field(&mut self) -> Parsed<(String, Attribute)> {
        let name = self.word("a field of the schedule")?;
        self.expect('=')?;
        let value = match self.kind() {
            Kind::Word(word) if word == "true" || word == "false" => Attribute::Bool(word == "true"),
            _ => return Ok((name, Attribute::Int(self.number_as("a whole number")?))),
        };
        self.bump();
        Ok((name, value))
    }
}
