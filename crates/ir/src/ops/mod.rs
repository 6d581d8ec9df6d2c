//! The operators. One file an operator family; this file makes the closed enum [`Op`], the name table and the
//! dispatch from one list.
//!
//! Every operator states its operands and results in its documentation, infers result types from operand
//! types ([`Operator::infer`]) and has a plain float64 reference evaluation ([`Operator::evaluate`]).

use std::sync::Arc;

use crate::attributes::{Attribute, AttributeValue};
use crate::tensor::{Array, Literal};
use crate::types::TensorType;

/// Defines the struct of an operator whose fields are its attributes, and their text form.
macro_rules! operator {
    ($(#[$meta:meta])* $name:ident = $text:literal { $($(#[$field_meta:meta])* $field:ident: $t:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[$field_meta])* pub $field: $t,)* }

        impl $crate::ops::Attributes for $name {
            const NAME: &'static str = $text;

            fn attributes(&self) -> Vec<(&'static str, $crate::attributes::Attribute)> {
                #[allow(unused_mut)]
                let mut list = Vec::new();
                $(
                    if <$t as $crate::attributes::AttributeValue>::missing().as_ref() != Some(&self.$field) {
                        list.push((stringify!($field),
                            $crate::attributes::AttributeValue::to_attribute(&self.$field)));
                    }
                )*
                list
            }

            fn from_attributes(
                given: &mut Vec<(String, $crate::attributes::Attribute)>,
            ) -> Result<Self, String> {
                let _ = &given;
                Ok($name { $($field: $crate::ops::take_attribute::<$t>(given, stringify!($field))?,)* })
            }
        }
    };
}

/// Takes the attribute of this name out of `given`, or its value where it is left out.
pub(crate) fn take_attribute<T: AttributeValue>(
    given: &mut Vec<(String, Attribute)>,
    name: &str,
) -> Result<T, String> {
    match given.iter().position(|(n, _)| n == name) {
        Some(i) => {
            let (_, attribute) = given.remove(i);
            T::from_attribute(&attribute).ok_or_else(|| format!("attribute {name} has the wrong kind"))
        }
        None => T::missing().ok_or_else(|| format!("attribute {name} is missing")),
    }
}

/// Name and attributes of an operator: what printer and parser need.
pub trait Attributes: Sized {
    /// Name in the text form.
    const NAME: &'static str;
    /// Attributes in declaration order, without those at their missing value.
    fn attributes(&self) -> Vec<(&'static str, Attribute)>;
    /// Takes the operator's attributes out of `given`; what remains is unknown.
    fn from_attributes(given: &mut Vec<(String, Attribute)>) -> Result<Self, String>;
}

/// What a step's evaluation knows beside its operands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepInfo {
    /// Samples of this rank.
    pub n: usize,
    /// Samples of all ranks.
    pub total: usize,
}

/// Meaning of an operator.
pub trait Operator: Attributes {
    /// Types of the results, or what is wrong with the operands.
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String>;
    /// Reference evaluation in float64 on one rank. The operands have the inferred types for a batch of
    /// `step.n`.
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String>;
}

mod batch_norm;
mod batch_statistics;
mod collective;
mod conv;
mod elementwise;
mod function;
mod loss;
mod matmul;
mod pool;
mod positions;
mod reduce;
mod resize;
mod shape;
mod slice;
mod slide;
mod source;
mod sync_batch_norm;
mod window;

pub use batch_norm::{BatchNorm, BatchNormBackward, RunningVar};
pub use collective::{AllReduce, Scope};
pub use conv::{Conv, ConvBackwardData, ConvBackwardWeight};
pub use elementwise::{Binary, Unary, UnaryBackward, broadcast};
pub use function::{BinaryFunction, GELU_CUBIC, UnaryFunction};
pub use loss::{
    MeanSquaredError, MeanSquaredErrorBackward, SoftmaxCrossEntropy, SoftmaxCrossEntropyBackward,
};
pub use matmul::MatMul;
pub use pool::{AveragePool, AveragePoolBackward, MaxPool, MaxPoolBackward};
pub use reduce::{Reduce, ReduceFunction};
pub use resize::{Coordinates, Resize, ResizeBackward, ResizeMode};
pub use shape::{Cast, Concat, Dropout, Expand, Identity, Reshape, Transpose};
pub use slice::{Pad, Slice};
pub use source::{Constant, Input, Parameter, ParameterData, Role, Statistic};
pub use sync_batch_norm::{
    BatchNormBackwardData, BatchNormBackwardReduce, BatchNormFinalize, Moments, Normalize,
};
pub use window::Window;

macro_rules! ops {
    ($($name:ident),* $(,)?) => {
        /// An operator of the graph.
        #[derive(Debug, Clone)]
        #[allow(missing_docs)]
        pub enum Op { $($name($name),)* }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Op { Op::$name(op) }
        })*

        impl Op {
            /// Names of all operators, in declaration order.
            pub const NAMES: &'static [&'static str] = &[$(<$name as Attributes>::NAME),*];

            /// Name in the text form.
            pub fn name(&self) -> &'static str {
                match self { $(Op::$name(_) => <$name as Attributes>::NAME,)* }
            }

            /// Attributes in the text form.
            pub fn attributes(&self) -> Vec<(&'static str, Attribute)> {
                match self { $(Op::$name(op) => op.attributes(),)* }
            }

            /// The operator with this name and these attributes.
            pub fn from_attributes(name: &str, mut given: Vec<(String, Attribute)>) -> Result<Op, String> {
                let op = match name {
                    $(n if n == <$name as Attributes>::NAME => {
                        Op::$name(<$name as Attributes>::from_attributes(&mut given)?)
                    })*
                    _ => return Err(format!("unknown operator {name}")),
                };
                match given.first() {
                    Some((extra, _)) => Err(format!("{name} has no attribute {extra}")),
                    None => Ok(op),
                }
            }

            /// Result types for these operand types, or what is wrong with them.
            pub fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
                match self { $(Op::$name(op) => op.infer(operands),)* }
            }

            /// Reference evaluation on one rank.
            pub fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
                match self { $(Op::$name(op) => op.evaluate(operands, step),)* }
            }
        }
    };
}

ops! {
    Input, Parameter, Statistic, Constant,
    Conv, ConvBackwardData, ConvBackwardWeight, MatMul,
    BatchNorm, BatchNormBackward,
    Moments, BatchNormFinalize, Normalize, BatchNormBackwardReduce, BatchNormBackwardData,
    AllReduce,
    Unary, UnaryBackward, Binary,
    Reduce, Expand, Reshape, Transpose, Concat, Slice, Pad, Cast, Identity, Dropout,
    MaxPool, MaxPoolBackward, AveragePool, AveragePoolBackward, Resize, ResizeBackward,
    SoftmaxCrossEntropy, SoftmaxCrossEntropyBackward, MeanSquaredError, MeanSquaredErrorBackward,
}

/// Checks the number of operands.
fn expect_operands(operands: &[&TensorType], counts: std::ops::RangeInclusive<usize>) -> Result<(), String> {
    if counts.contains(&operands.len()) {
        return Ok(());
    }
    let (low, high) = (counts.start(), counts.end());
    let expected = if low == high {
        format!("{low}")
    } else {
        format!("{low} to {high}")
    };
    Err(format!("expected {expected} operands, found {}", operands.len()))
}

/// Checks that an operand has this shape and element type, and says so by its role.
fn expect_type(role: &str, found: &TensorType, expected: &TensorType) -> Result<(), String> {
    if found.dtype == expected.dtype && found.shape == expected.shape {
        return Ok(());
    }
    Err(format!("{role} has type {found}, expected {expected}"))
}

/// Channels (axis 1) of a value of rank 2 or more.
fn channels(role: &str, ty: &TensorType) -> Result<usize, String> {
    ty.shape
        .0
        .get(1)
        .and_then(|d| d.fixed())
        .ok_or_else(|| format!("{role} of type {ty} has no channel axis (axis 1)"))
}

/// Literal values behind an [`Arc`], as constants hold them.
pub fn literal(value: Literal) -> Constant {
    Constant {
        value: Arc::new(value),
    }
}
