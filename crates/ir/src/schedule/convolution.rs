//! What a convolution computes in any of its three directions, and the sizes of a matrix product.

use super::sums::has_channels_innermost;
use crate::ops::{MatMul, Op, Window};
use crate::types::{DType, Dim, TensorType};

/// Which of a convolution's tensors is the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// `y` of `x` and `w`.
    Forward,
    /// `dx` of `dy` and `w`.
    BackwardData,
    /// `dw` of `x` and `dy`.
    BackwardWeight,
}

/// A convolution from `x` to `y`, whatever its direction.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// What is computed.
    pub direction: Direction,
    /// Element type of what is multiplied.
    pub dtype: DType,
    /// Samples.
    pub samples: Dim,
    /// The window over `x`.
    pub window: Window,
    /// Number of groups.
    pub groups: usize,
    /// Channels of `x`.
    pub c: usize,
    /// Channels of `y`.
    pub k: usize,
    /// Spatial sizes of `x`.
    pub input: Vec<usize>,
    /// Spatial sizes of `y`.
    pub output: Vec<usize>,
}

fn sizes(ty: &TensorType, from: usize) -> Option<Vec<usize>> {
    ty.shape.0.get(from..)?.iter().map(|d| d.fixed()).collect()
}

impl Convolution {
    /// The convolution that an operator computes on these types; None for other operators, and for types that do not
    /// belong to it.
    pub fn of(op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> Option<Convolution> {
        let result = *results.first()?;
        let (first, second) = (*operands.first()?, *operands.get(1)?);
        let (direction, window, groups, x, y) = match op {
            Op::Conv(op) => (
                Direction::Forward,
                op.window(second).ok()?,
                op.groups,
                first,
                result,
            ),
            Op::ConvBackwardData(op) => (
                Direction::BackwardData,
                op.window(second).ok()?,
                op.groups,
                result,
                first,
            ),
            Op::ConvBackwardWeight(op) => (Direction::BackwardWeight, op.window(), op.groups, first, second),
            _ => return None,
        };
        let (input, output) = (sizes(x, 2)?, sizes(y, 2)?);
        (input.len() == window.rank() && output.len() == window.rank()).then_some(Convolution {
            direction,
            dtype: x.dtype,
            samples: *x.shape.0.first()?,
            window,
            groups,
            c: x.shape.0.get(1)?.fixed()?,
            k: y.shape.0.get(1)?.fixed()?,
            input,
            output,
        })
    }

    /// The operand or result slot of the weights or their gradient.
    pub fn weight_slot(&self) -> usize {
        match self.direction {
            Direction::Forward | Direction::BackwardData => 1,
            Direction::BackwardWeight => 0,
        }
    }

    /// Whether every channel has a filter of its own.
    pub fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.groups == self.c && self.c == self.k
    }

    /// Whether there is one group, or the input and output channels of each fill vectors of so many lanes.
    pub fn groups_fill(&self, lanes: usize) -> bool {
        let fills = |channels: usize| (channels / self.groups.max(1)).is_multiple_of(lanes.max(1));
        self.groups <= 1 || fills(self.c) && fills(self.k)
    }

    /// Whether kernel, strides and dilations are the same along all axes, and these.
    pub fn has_window(&self, kernel: usize, stride: usize) -> bool {
        let all = |values: &[usize], value: usize| values.iter().all(|&v| v == value);
        all(&self.window.kernel, kernel)
            && all(&self.window.strides, stride)
            && all(&self.window.dilations, 1)
    }

    /// Whether there is any padding.
    pub fn is_padded(&self) -> bool {
        self.window.pads.iter().any(|&pad| pad > 0)
    }

    /// Whether its general form on a GPU reads a copy of the weights with output channels innermost: where a thread takes
    /// several of these, which are neighbours in the result. Otherwise it reads one of each weight, or neighbours in the
    /// weight as it is.
    pub fn copies_weights_on_gpu(&self, results: &[&TensorType]) -> bool {
        let groups = self.groups.max(1);
        let (c, k) = (self.c / groups, self.k / groups);
        let has_neighbours = match self.direction {
            Direction::Forward => k.is_multiple_of(2) || (c, k) == (1, 1),
            Direction::BackwardData => (c, k) == (1, 1),
            Direction::BackwardWeight => false,
        };
        has_neighbours
            && results
                .first()
                .is_some_and(|result| has_channels_innermost(result))
    }

    /// Positions of `y`.
    pub fn outputs(&self) -> usize {
        self.output.iter().product()
    }

    /// Positions of `x`.
    pub fn inputs(&self) -> usize {
        self.input.iter().product()
    }

    /// Multiplications of one sample.
    pub fn multiplications(&self) -> u64 {
        let terms = [
            self.outputs(),
            self.k,
            self.c / self.groups.max(1),
            self.window.volume(),
        ];
        terms.iter().fold(1, |n: u64, &t| n.saturating_mul(t as u64))
    }
}

/// Rows, columns and terms of a matrix product for a batch of `batch`.
pub fn product_sizes(op: &MatMul, operands: &[&TensorType], batch: usize) -> Option<[usize; 3]> {
    let (&[a0, a1], &[b0, b1]) = (&operands.first()?.shape.0[..], &operands.get(1)?.shape.0[..]) else {
        return None;
    };
    let (rows, terms) = if op.transpose_a { (a1, a0) } else { (a0, a1) };
    let columns = if op.transpose_b { b0 } else { b1 };
    Some([rows, columns, terms].map(|d| d.size(batch)))
}
