//! What each target does its own way. Operators know targets by this alone.

use syncbn_ir::ops::{Conv, ConvBackwardData, ConvBackwardWeight, MatMul};

use syncbn_ir::{Schedule, TensorType};

use super::elementwise;
use super::stage::Stage;

/// Types of an operator's operands and results, and its schedule.
#[derive(Debug, Clone, Copy)]
pub struct Types<'a> {
    /// Of the operands in slot order.
    pub operands: &'a [&'a TensorType],
    /// Of the results in slot order.
    pub results: &'a [&'a TensorType],
    /// How it is computed; None is the general form.
    pub schedule: Option<Schedule>,
}

type Slots<'a> = &'a [&'a TensorType];

impl<'a> From<(Slots<'a>, Slots<'a>, Option<Schedule>)> for Types<'a> {
    fn from((operands, results, schedule): (Slots<'a>, Slots<'a>, Option<Schedule>)) -> Types<'a> {
        Types {
            operands,
            results,
            schedule,
        }
    }
}

/// The stages of an operator, or what promise the passes broke.
pub type Stages<'a> = Result<Vec<Stage<'a>>, String>;

/// What is prepared once a channel, and where it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Channels {
    /// Before a loop: in arrays that stay in the first cache where channels are innermost, else in registers.
    BeforeLoops,
    /// By each thread for its own elements, of which it takes several rows where channels are innermost.
    ByThreads,
}

/// Who adds the terms of a sum over samples and positions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sums {
    /// The loops of one kernel, in memory order; threads that meet add the parts of others.
    InLoops,
    /// Neighbouring threads, each a few terms, in two kernels where terms are many.
    InThreads,
}

/// What the lanes of a loop are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lanes {
    /// Those of vector registers, which mask, shuffle and add them up; several vectors at a time hide latencies.
    OfRegisters,
    /// Neighbours in memory that one access takes, each of which is computed by itself.
    OfAccesses,
}

/// How a loop over a window treats taps outside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Borders {
    /// It leaves them out where all lanes are at one index: its bounds are computed.
    LeftOut,
    /// It masks them, so that neighbours run the same turns.
    Masked,
}

/// How `a / n` in f64 is computed for many `a`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quotients {
    /// By division.
    Divided,
    /// By multiplication with `1 / n`: divisions would be most of what a thread does.
    Multiplied,
}

/// How a target runs loops, as far as operators are written for it: all that they know of what they are lowered for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Manner {
    /// Where channels' constants are kept.
    pub channels: Channels,
    /// Who adds the terms of sums.
    pub sums: Sums,
    /// What lanes are.
    pub lanes: Lanes,
    /// How loops over windows treat borders.
    pub borders: Borders,
    /// How channels' sums are divided.
    pub quotients: Quotients,
    /// Whether axes that are neighbours in memory are walked through as one, which makes inner loops long.
    pub joins_axes: bool,
}

/// The lowering of operators that a target has schedules of its own for.
pub trait Target {
    /// How loops of all other operators run.
    fn manner(&self) -> Manner;

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
