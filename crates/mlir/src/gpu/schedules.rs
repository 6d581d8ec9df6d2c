//! What a GPU computes in several ways.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::machine::Gpu;
use super::{conv, matmul};
use crate::ops::target::{Stages, Target, Types};

impl Target for Gpu {
    fn conv<'a>(&self, op: &'a Conv, types: &Types) -> Stages<'a> {
        conv::forward(op, self, types)
    }

    fn conv_backward_data<'a>(&self, op: &'a ConvBackwardData, types: &Types) -> Stages<'a> {
        conv::backward_data(op, self, types)
    }

    fn conv_backward_weight<'a>(&self, op: &'a ConvBackwardWeight, types: &Types) -> Stages<'a> {
        conv::backward_weight(op, self, types)
    }

    fn matmul<'a>(&self, op: &'a MatMul, types: &Types) -> Stages<'a> {
        Ok(matmul::lower(op, self, types))
    }
}
