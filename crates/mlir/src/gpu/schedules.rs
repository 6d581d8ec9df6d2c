//! What a GPU computes in several ways.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::machine::Gpu;
use super::{conv, matmul};
use crate::ops::target::{Borders, Channels, Lanes, Manner, Quotients, Stages, Sums, Target, Types};

impl Target for Gpu {
    fn manner(&self) -> Manner {
        Manner {
            channels: Channels::ByThreads,
            sums: Sums::InThreads,
            lanes: Lanes::OfAccesses,
            borders: Borders::Masked,
            quotients: Quotients::Multiplied,
            joins_axes: false,
        }
    }

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
        matmul::lower(op, self, types)
    }
}
