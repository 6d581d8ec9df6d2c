//! What each target does its own way. Operators know targets by this alone.

use syncbn_ir::TensorType;
use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::elementwise;
use super::stage::Stage;

/// Types of an operator's operands and results.
#[derive(Debug, Clone, Copy)]
pub struct Types<'a> {
    /// Of the operands in slot order.
    pub operands: &'a [&'a TensorType],
    /// Of the results in slot order.
    pub results: &'a [&'a TensorType],
}

impl<'a> From<(&'a [&'a TensorType], &'a [&'a TensorType])> for Types<'a> {
    fn from((operands, results): (&'a [&'a TensorType], &'a [&'a TensorType])) -> Types<'a> {
        Types { operands, results }
    }
}

/// The stages of an operator, or what promise the passes broke.
pub type Stages<'a> = Result<Vec<Stage<'a>>, String>;

/// The lowering of operators that a target has schedules of its own for.
pub trait Target {
    /// `y = act(x * w + bias + residual)`, and the moments of `y` where the operator has them.
    fn conv<'a>(&self, op: &'a Conv, types: &Types) -> Stages<'a>;

    /// The gradient for a convolution's input.
    fn conv_backward_data<'a>(&self, op: &'a ConvBackwardData, types: &Types) -> Stages<'a>;

    /// The gradient for a convolution's weight.
    fn conv_backward_weight<'a>(&self, op: &'a ConvBackwardWeight, types: &Types) -> Stages<'a>;

    /// The product of two matrices.
    fn matmul<'a>(&self, op: &'a MatMul, types: &Types) -> Stages<'a>;

    /// A copy, which may have another layout.
    fn identity<'a>(&self, _: &Types) -> Stages<'a> {
        Ok(vec![Stage::new(elementwise::reshape)])
    }
}
