//! Attributes of operators: the values that the printer writes and the parser reads.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::ops::{ParameterData, Role, Scope, UnaryFunction};
use crate::tensor::Literal;
use crate::types::{DType, Shape, TensorType};

/// An attribute's value in the text form.
#[derive(Debug, Clone)]
pub enum Attribute {
    /// `3`
    Int(i64),
    /// `0.1`; always printed with a point, an exponent, `inf` or `nan`
    Float(f64),
    /// `true`
    Bool(bool),
    /// `"text"`
    Text(String),
    /// `[1, 2]`
    Ints(Vec<i64>),
    /// `[batch, 3]`, a shape that has the batch in front
    Shape(Shape),
    /// `f32[batch, 3]`
    Type(TensorType),
    /// A bare word, with arguments if any: `silu`, `clip(0.0, 6.0)`, `group(2)`
    Word(String, Vec<f64>),
    /// `dense<f32[2]>[1.0, 2.0]`
    Literal(Arc<Literal>),
}

/// A Rust type that stands for an attribute. `missing` is the value of an attribute that is not written;
/// such values are not printed.
pub trait AttributeValue: Sized + PartialEq {
    /// Rust to text form.
    fn to_attribute(&self) -> Attribute;
    /// Text form to Rust; None when the attribute has another kind.
    fn from_attribute(attribute: &Attribute) -> Option<Self>;
    /// The value that is left out.
    fn missing() -> Option<Self> {
        None
    }
}

impl AttributeValue for usize {
    fn to_attribute(&self) -> Attribute {
        Attribute::Int(*self as i64)
    }
    fn from_attribute(attribute: &Attribute) -> Option<usize> {
        match attribute {
            Attribute::Int(i) => usize::try_from(*i).ok(),
            _ => None,
        }
    }
}

/// A step; 1 is not written.
impl AttributeValue for NonZeroUsize {
    fn to_attribute(&self) -> Attribute {
        Attribute::Int(self.get() as i64)
    }
    fn from_attribute(attribute: &Attribute) -> Option<NonZeroUsize> {
        usize::from_attribute(attribute).and_then(NonZeroUsize::new)
    }
    fn missing() -> Option<NonZeroUsize> {
        Some(NonZeroUsize::MIN)
    }
}

impl AttributeValue for f64 {
    fn to_attribute(&self) -> Attribute {
        Attribute::Float(*self)
    }
    fn from_attribute(attribute: &Attribute) -> Option<f64> {
        match attribute {
            Attribute::Float(f) => Some(*f),
            Attribute::Int(i) => Some(*i as f64),
            _ => None,
        }
    }
}

impl AttributeValue for bool {
    fn to_attribute(&self) -> Attribute {
        Attribute::Bool(*self)
    }
    fn from_attribute(attribute: &Attribute) -> Option<bool> {
        match attribute {
            Attribute::Bool(b) => Some(*b),
            _ => None,
        }
    }
    fn missing() -> Option<bool> {
        Some(false)
    }
}

impl AttributeValue for String {
    fn to_attribute(&self) -> Attribute {
        Attribute::Text(self.clone())
    }
    fn from_attribute(attribute: &Attribute) -> Option<String> {
        match attribute {
            Attribute::Text(s) => Some(s.clone()),
            _ => None,
        }
    }
}

impl AttributeValue for Vec<usize> {
    fn to_attribute(&self) -> Attribute {
        Attribute::Ints(self.iter().map(|&i| i as i64).collect())
    }
    fn from_attribute(attribute: &Attribute) -> Option<Vec<usize>> {
        match attribute {
            Attribute::Ints(v) => v.iter().map(|&i| usize::try_from(i).ok()).collect(),
            _ => None,
        }
    }
}

impl AttributeValue for Vec<i64> {
    fn to_attribute(&self) -> Attribute {
        Attribute::Ints(self.clone())
    }
    fn from_attribute(attribute: &Attribute) -> Option<Vec<i64>> {
        match attribute {
            Attribute::Ints(v) => Some(v.clone()),
            _ => None,
        }
    }
}

impl AttributeValue for Shape {
    fn to_attribute(&self) -> Attribute {
        Attribute::Shape(self.clone())
    }
    fn from_attribute(attribute: &Attribute) -> Option<Shape> {
        match attribute {
            Attribute::Shape(s) => Some(s.clone()),
            Attribute::Ints(v) => {
                let sizes: Option<Vec<usize>> = v.iter().map(|&i| usize::try_from(i).ok()).collect();
                sizes.map(|s| Shape::fixed(&s))
            }
            _ => None,
        }
    }
}

impl AttributeValue for TensorType {
    fn to_attribute(&self) -> Attribute {
        Attribute::Type(self.clone())
    }
    fn from_attribute(attribute: &Attribute) -> Option<TensorType> {
        match attribute {
            Attribute::Type(t) => Some(t.clone()),
            _ => None,
        }
    }
}

impl AttributeValue for DType {
    fn to_attribute(&self) -> Attribute {
        Attribute::Word(self.name().to_string(), Vec::new())
    }
    fn from_attribute(attribute: &Attribute) -> Option<DType> {
        match attribute {
            Attribute::Word(w, args) if args.is_empty() => DType::from_name(w),
            _ => None,
        }
    }
}

impl AttributeValue for Arc<Literal> {
    fn to_attribute(&self) -> Attribute {
        Attribute::Literal(self.clone())
    }
    fn from_attribute(attribute: &Attribute) -> Option<Arc<Literal>> {
        match attribute {
            Attribute::Literal(l) => Some(l.clone()),
            _ => None,
        }
    }
}

/// Enums that print as a word with numeric arguments.
pub trait Word: Sized + PartialEq + Clone {
    /// The word and its arguments.
    fn to_word(&self) -> (String, Vec<f64>);
    /// The reverse.
    fn from_word(word: &str, args: &[f64]) -> Option<Self>;
}

macro_rules! words {
    ($($t:ty),*) => {$(
        impl AttributeValue for $t {
            fn to_attribute(&self) -> Attribute {
                let (word, args) = self.to_word();
                Attribute::Word(word, args)
            }
            fn from_attribute(attribute: &Attribute) -> Option<$t> {
                match attribute {
                    Attribute::Word(w, args) => <$t>::from_word(w, args),
                    _ => None,
                }
            }
        }
    )*};
}
words!(
    UnaryFunction,
    Scope,
    Role,
    crate::ops::BinaryFunction,
    crate::ops::ReduceFunction,
    crate::ops::ResizeMode,
    crate::ops::RunningVar
);

impl AttributeValue for Option<UnaryFunction> {
    fn to_attribute(&self) -> Attribute {
        match self {
            Some(f) => f.to_attribute(),
            None => Attribute::Word("none".to_string(), Vec::new()),
        }
    }
    fn from_attribute(attribute: &Attribute) -> Option<Option<UnaryFunction>> {
        match attribute {
            Attribute::Word(w, args) if w == "none" && args.is_empty() => Some(None),
            other => UnaryFunction::from_attribute(other).map(Some),
        }
    }
    fn missing() -> Option<Option<UnaryFunction>> {
        Some(None)
    }
}

impl AttributeValue for ParameterData {
    fn to_attribute(&self) -> Attribute {
        match self {
            ParameterData::Values(l) => Attribute::Literal(l.clone()),
            ParameterData::Fill(v) => Attribute::Word("fill".to_string(), vec![*v]),
            ParameterData::KaimingNormal { fan_in } => {
                Attribute::Word("kaiming_normal".to_string(), vec![*fan_in as f64])
            }
            ParameterData::Elided { hash } => Attribute::Text(format!("elided:{hash:016x}")),
        }
    }
    fn from_attribute(attribute: &Attribute) -> Option<ParameterData> {
        match attribute {
            Attribute::Literal(l) => Some(ParameterData::Values(l.clone())),
            Attribute::Word(w, args) => match (w.as_str(), args.as_slice()) {
                ("fill", &[v]) => Some(ParameterData::Fill(v)),
                ("kaiming_normal", &[fan_in]) if fan_in >= 1.0 => Some(ParameterData::KaimingNormal {
                    fan_in: fan_in as usize,
                }),
                _ => None,
            },
            Attribute::Text(t) => {
                let hash = u64::from_str_radix(t.strip_prefix("elided:")?, 16).ok()?;
                Some(ParameterData::Elided { hash })
            }
            _ => None,
        }
    }
}
