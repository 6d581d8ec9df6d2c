//! The CPU as a target: every operator is one stage, in one function.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use super::schedules::Cpu;
use crate::ops::elementwise;
use crate::ops::stage::Stage;
use crate::ops::target::{Borders, Channels, Lanes, Manner, Quotients, Stages, Sums, Target, Types};

impl Target for Cpu {
    fn manner(&self) -> Manner {
        Manner {
            channels: Channels::BeforeLoops,
            sums: Sums::InLoops,
            lanes: Lanes::OfRegisters,
            borders: Borders::LeftOut,
            quotients: Quotients::Divided,
            joins_axes: true,
        }
    }

    fn conv<'a>(&self, op: &'a Conv, _: &Types) -> Stages<'a> {
        Ok(vec![Stage::fallible(|k, e| Cpu.conv(op, k, e))])
    }

    fn conv_backward_data<'a>(&self, op: &'a ConvBackwardData, _: &Types) -> Stages<'a> {
        Ok(vec![Stage::fallible(|k, e| Cpu.conv_backward_data(op, k, e))])
    }

    fn conv_backward_weight<'a>(&self, op: &'a ConvBackwardWeight, _: &Types) -> Stages<'a> {
        Ok(vec![Stage::fallible(|k, e| Cpu.conv_backward_weight(op, k, e))])
    }

    fn matmul<'a>(&self, op: &'a MatMul, _: &Types) -> Stages<'a> {
        Ok(vec![Stage::fallible(|k, e| Cpu.matmul(op, k, e))])
    }

    fn identity<'a>(&self, types: &Types) -> Stages<'a> {
        Ok(match types.results[0].layout.is_transformed() {
            true => vec![Stage::fallible(|k, e| Cpu.transform_filter(k, e))],
            false => vec![Stage::new(elementwise::reshape)],
        })
    }
}
