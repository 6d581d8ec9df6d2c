//! Attributes of operations.

use melior::ir::Attribute;
use melior::ir::attribute::{DenseI32ArrayAttribute, IntegerAttribute};
use melior::ir::r#type::IntegerType;

use super::Emitter;

impl<'c> Emitter<'c> {
    /// `value : i64`
    pub fn i64_attribute(&self, value: i64) -> Attribute<'c> {
        IntegerAttribute::new(IntegerType::new(self.context, 64).into(), value).into()
    }

    /// `value : i32`
    pub fn i32_attribute(&self, value: i64) -> Attribute<'c> {
        IntegerAttribute::new(IntegerType::new(self.context, 32).into(), value).into()
    }

    /// `array<i32: ...>`
    pub fn i32_array(&self, values: &[i32]) -> Attribute<'c> {
        DenseI32ArrayAttribute::new(self.context, values).into()
    }

    /// An attribute written in MLIR's own syntax; the text is fixed in the calling code.
    pub fn parse_attribute(&self, text: &str) -> Attribute<'c> {
        match Attribute::parse(self.context, text) {
            Some(attribute) => attribute,
            None => unreachable!("attribute {text} is valid MLIR"),
        }
    }
}
