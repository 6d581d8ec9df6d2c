//! What a GPU computes in several ways.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::{conv, matmul};
use crate::Products;
use crate::emit::Emitter;
use crate::ops::kernel::Kernel;
use crate::ops::target::Target;

/// A GPU that multiplies matrices so.
pub struct Gpu(pub Products);

impl Target for Gpu {
    fn conv<'c>(&self, op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        conv::forward(op, self.0, k, e)
    }

    fn conv_backward_data<'c>(
        &self,
        op: &ConvBackwardData,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String> {
        conv::backward_data(op, self.0, k, e)
    }

    fn conv_backward_weight<'c>(
        &self,
        op: &ConvBackwardWeight,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String> {
        conv::backward_weight(op, self.0, k, e)
    }

    fn matmul<'c>(&self, op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        matmul::lower(op, self.0, k, e);
        Ok(())
    }
}
