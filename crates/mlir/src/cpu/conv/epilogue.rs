//! What becomes of a sum before it is stored: bias, residual and activation, for all schedules of convolutions.

use syncbn_ir::ops::{Conv, UnaryFunction};

use crate::emit::{Emitter, Pointer, Val};
use crate::ops::kernel::Kernel;

/// `act(residual + bias + sum)`
#[derive(Debug, Clone, Copy)]
pub struct Epilogue<'c> {
    bias: Option<Pointer<'c>>,
    residual: Option<Pointer<'c>>,
    activation: Option<UnaryFunction>,
}

impl<'c> Epilogue<'c> {
    /// Of a convolution; the residual lies in memory as the result does.
    pub fn new(op: &Conv, k: &Kernel<'c>) -> Epilogue<'c> {
        let operand = |slot: usize| {
            let tensor = k.operands.get(slot)?;
            Some(Pointer::new(tensor.pointer, tensor.memory_elem()))
        };
        Epilogue {
            bias: operand(2),
            residual: operand(3),
            activation: op.activation,
        }
    }

    /// What is added to sums.
    pub fn residual(&self) -> Option<Pointer<'c>> {
        self.residual
    }

    /// Leaves sums as they are.
    pub fn none() -> Epilogue<'c> {
        Epilogue {
            bias: None,
            residual: None,
            activation: None,
        }
    }

    /// The value of `sum`, a vector of `active` channels from `channel + lane` on, which goes to `at + offset` elements of
    /// the result.
    pub fn apply(
        &self,
        e: &Emitter<'c>,
        sum: Val<'c>,
        (at, offset): (Val<'c>, i64),
        (channel, lane): (Val<'c>, i64),
        active: usize,
    ) -> Val<'c> {
        let mut value = sum;
        if let Some(bias) = self.bias {
            let bias = e.read_first(e.advance(bias, channel, 1), lane, sum.lanes, active);
            value = e.add(value, bias);
        }
        if let Some(residual) = self.residual {
            let residual = e.read_first(e.advance(residual, at, 1), offset, sum.lanes, active);
            value = e.add(value, residual);
        }
        match self.activation {
            Some(function) => e.unary(function, value),
            None => value,
        }
    }
}
