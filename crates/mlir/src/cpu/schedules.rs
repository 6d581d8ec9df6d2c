//! What the CPU computes in several ways, and which way it takes. Begin to read here.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::{conv, product};
use crate::emit::Emitter;
use crate::ops::kernel::Kernel;
use crate::ops::moments::moments;
use crate::ops::target::Target;

/// The CPU.
pub struct Cpu;

impl Target for Cpu {
    fn conv<'c>(&self, op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        conv::general::forward(op, k, e)?;
        if op.moments {
            moments(k, &k.results[0], &k.results[1], e);
        }
        Ok(())
    }

    fn conv_backward_data<'c>(
        &self,
        op: &ConvBackwardData,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String> {
        conv::general::backward_data(op, k, e)
    }

    fn conv_backward_weight<'c>(
        &self,
        op: &ConvBackwardWeight,
        k: &Kernel<'c>,
        e: &Emitter<'c>,
    ) -> Result<(), String> {
        conv::general::backward_weight(op, k, e)
    }

    fn matmul<'c>(&self, op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
        product::general::lower(op, k, e);
        Ok(())
    }
}
