//! What each target does its own way. Operators know targets by this alone.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::kernel::Kernel;
use crate::emit::Emitter;

/// The lowering of operators that a target has schedules of its own for.
pub trait Target {
    /// `y = act(x * w + bias + residual)`, and the moments of `y` where the operator has them.
    fn conv<'c>(&self, op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String>;

    /// The gradient for a convolution's input.
    fn conv_backward_data<'c>(
        &self,
        op: &ConvBackwardData,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String>;

    /// The gradient for a convolution's weight.
    fn conv_backward_weight<'c>(
        &self,
        op: &ConvBackwardWeight,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String>;

    /// The product of two matrices.
    fn matmul<'c>(&self, op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String>;
}
