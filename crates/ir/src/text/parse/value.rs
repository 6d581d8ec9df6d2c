//! What stands inside a node: attributes, literals and types.

use std::sync::Arc;

use super::{Parsed, Parser};
use crate::attributes::Attribute;
use crate::tensor::{Literal, Values};
use crate::text::MAX_SPLAT;
use crate::text::lex::Kind;
use crate::types::{DType, Dim, Layout, Shape, TensorType};

/// Numbers as written, before their element type is known.
pub(super) enum Numbers {
    List(Vec<String>),
    Splat(String),
}

/// Literals.
impl Parser {
    /// `[1.0, 2.0]` or `splat(1.0)`.
    pub(super) fn numbers(&mut self) -> Parsed<Numbers> {
        if self.accept('[') {
            return Ok(Numbers::List(self.list(']', Parser::number)?));
        }
        if !self.is_word("splat") {
            return self.expected("`[` or `splat`");
        }
        self.bump();
        self.expect('(')?;
        let number = self.number()?;
        self.expect(')')?;
        Ok(Numbers::Splat(number))
    }

    pub(super) fn literal(&self, at: usize, ty: &TensorType, numbers: &Numbers) -> Parsed<Literal> {
        let size = match ty.shape.elements_per_sample() {
            Some(size) if !ty.shape.has_batch() => size,
            _ => return self.error_at(at, format!("a tensor of type {ty} cannot be constant")),
        };
        let texts: &[String] = match numbers {
            Numbers::List(list) => {
                if list.len() != size {
                    return self.error_at(at, format!("{ty} has {size} values, found {}", list.len()));
                }
                list
            }
            Numbers::Splat(_) if size > MAX_SPLAT => {
                return self.error_at(at, format!("a splat of type {ty} is too large"));
            }
            Numbers::Splat(number) => std::slice::from_ref(number),
        };
        let values = match ty.dtype {
            DType::F32 => convert(texts, size).map(Values::F32),
            DType::F64 => convert(texts, size).map(Values::F64),
            DType::BF16 => {
                convert(texts, size).map(|values| Literal::from_f64(ty.dtype, &[size], &values).values)
            }
            DType::I64 => convert(texts, size).map(Values::I64),
            DType::U8 => convert(texts, size).map(Values::U8),
        };
        match values {
            Ok(values) => Ok(Literal {
                dims: ty.shape.sizes(0),
                values,
            }),
            Err(text) => self.error_at(at, format!("`{text}` is not of type {}", ty.dtype)),
        }
    }
}

/// Values of a list, or of one text repeated; the text that is no value of the type if there is one.
fn convert<T: std::str::FromStr + Clone>(texts: &[String], size: usize) -> Result<Vec<T>, String> {
    let mut values: Vec<T> = Vec::with_capacity(size);
    for text in texts {
        values.push(text.parse().map_err(|_| text.clone())?);
    }
    if let [value] = values.as_slice() {
        let value = value.clone();
        values.resize(size, value);
    }
    Ok(values)
}

/// Attributes and types.
impl Parser {
    pub(super) fn named_attribute(&mut self) -> Parsed<(String, Attribute)> {
        let name = self.word("an attribute")?;
        self.expect('=')?;
        Ok((name, self.attribute()?))
    }

    fn attribute(&mut self) -> Parsed<Attribute> {
        match self.kind().clone() {
            Kind::Text(text) => {
                self.next += 1;
                Ok(Attribute::Text(text))
            }
            Kind::Number(number) => {
                let at = self.next;
                self.next += 1;
                match (number.parse(), number.parse()) {
                    (Ok(i), _) => Ok(Attribute::Int(i)),
                    (_, Ok(x)) => Ok(Attribute::Float(x)),
                    _ => self.error_at(at, format!("`{number}` is not a number")),
                }
            }
            Kind::Punctuation('[') if self.list_has_negatives() => {
                self.next += 1;
                Ok(Attribute::Ints(self.list(']', |p| p.number_as("an integer"))?))
            }
            Kind::Punctuation('[') => {
                let dims = self.dims()?;
                let fixed: Option<Vec<i64>> = dims.iter().map(|d| i64::try_from(d.fixed()?).ok()).collect();
                Ok(fixed.map_or(Attribute::Shape(Shape(dims)), Attribute::Ints))
            }
            Kind::Word(word) => self.word_attribute(&word),
            _ => self.expected("an attribute's value"),
        }
    }

    /// Whether the list that starts here has a negative number, and so is no list of sizes.
    fn list_has_negatives(&self) -> bool {
        let rest = self.tokens.iter().skip(self.next);
        let mut items = rest.take_while(|t| t.kind != Kind::Punctuation(']'));
        items.any(|t| matches!(&t.kind, Kind::Number(n) if n.starts_with('-')))
    }

    fn word_attribute(&mut self, word: &str) -> Parsed<Attribute> {
        let followed_by =
            |c: char| matches!(self.tokens.get(self.next + 1), Some(t) if t.kind == Kind::Punctuation(c));
        if DType::from_name(word).is_some() && followed_by('[') {
            return Ok(Attribute::Type(self.ty()?));
        }
        if word == "dense" && followed_by('<') {
            self.next += 2;
            let ty = self.ty()?;
            self.expect('>')?;
            let at = self.next;
            let numbers = self.numbers()?;
            return Ok(Attribute::Literal(Arc::new(self.literal(at, &ty, &numbers)?)));
        }
        self.next += 1;
        Ok(match word {
            "true" => Attribute::Bool(true),
            "false" => Attribute::Bool(false),
            "inf" => Attribute::Float(f64::INFINITY),
            "nan" => Attribute::Float(f64::NAN),
            _ if *self.kind() == Kind::Punctuation('(') => {
                Attribute::Word(word.to_string(), self.arguments()?)
            }
            _ => Attribute::Word(word.to_string(), Vec::new()),
        })
    }

    pub(super) fn arguments(&mut self) -> Parsed<Vec<f64>> {
        self.expect('(')?;
        self.list(')', |p| p.number_as("a number"))
    }

    /// `[batch, 3, 8]`, the sizes within what an i64 holds.
    fn dims(&mut self) -> Parsed<Vec<Dim>> {
        self.expect('[')?;
        self.list(']', |p| {
            if p.is_word("batch") {
                p.bump();
                return Ok(Dim::Batch);
            }
            let at = p.next;
            let size: usize = p.number_as("a size")?;
            if i64::try_from(size).is_err() {
                return p.error_at(at, format!("the size {size} is too large"));
            }
            Ok(Dim::Fixed(size))
        })
    }

    pub(super) fn ty(&mut self) -> Parsed<TensorType> {
        let at = self.next;
        let word = self.word("a type")?;
        let Some(dtype) = DType::from_name(&word) else {
            return self.error_at(at, format!("unknown element type `{word}`"));
        };
        let shape = Shape(self.dims()?);
        if shape.0.iter().skip(1).any(|d| *d == Dim::Batch) {
            return self.error_at(at, "the batch can only be the first dimension");
        }
        let layout = if self.accept(':') {
            self.layout()?
        } else {
            Layout::Plain
        };
        let ty = TensorType { dtype, shape, layout };
        match ty.bytes(1) {
            Some(_) => Ok(ty),
            None => self.error_at(at, format!("a tensor of type {ty} is too large")),
        }
    }

    fn layout(&mut self) -> Parsed<Layout> {
        let at = self.next;
        let word = self.word("a layout")?;
        let (name, block) = word.split_at(word.find(|c: char| c.is_ascii_digit()).unwrap_or(word.len()));
        match (name, block.parse::<u32>()) {
            ("nhwc", _) if block.is_empty() => Ok(Layout::Nhwc),
            ("plain", _) if block.is_empty() => Ok(Layout::Plain),
            ("filter", Ok(v)) if v > 0 => Ok(Layout::Filter(v as usize)),
            ("winograd", Ok(v)) if v > 0 => Ok(Layout::Winograd(v as usize)),
            ("polyphase", Ok(v)) if v > 0 => Ok(Layout::Polyphase(v as usize)),
            _ => self.error_at(at, format!("unknown layout `{word}`")),
        }
    }
}
