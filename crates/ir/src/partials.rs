//! Memory for sums that the threads of a rank share: over samples and positions, for every channel or of all. Their terms are cut into
//! parts, so that the order of additions does not depend on the number of threads: a few parts of neighbours, or the blocks
//! of rows that a convolution computes at a time.

use crate::graph::{Graph, NodeId};
use crate::ops::Op;
use crate::schedule::Schedule;
use crate::types::{DType, Layout, TensorType};

/// Parts of a sum at most.
pub const MOST_PARTS: usize = 32;
/// From so many channels on threads share these instead, which needs no memory.
const MANY_CHANNELS: usize = 1024;

/// What a block of a convolution with moments leaves of a channel: the value that deviations are taken from, their sum and that
/// of their squares.
pub const SUMS_OF_BLOCK: usize = 3;

/// Bytes that an operator on these operands, with these results, needs under a schedule for batches up to `batch_bound`.
pub fn bytes(
    op: &Op,
    schedule: Option<Schedule>,
    operands: &[&TensorType],
    results: &[&TensorType],
    batch_bound: usize,
) -> u64 {
    let blocks = schedule.and_then(|s| s.blocks_with_moments(op, operands, results));
    if let (Some(blocks), Some(channels)) = (blocks, results.first().and_then(|ty| channels(ty))) {
        let factors = [batch_bound, SUMS_OF_BLOCK, channels].map(|n| n as u64);
        let sums = factors.iter().fold(blocks, |all, &n| all.saturating_mul(n));
        return sums.saturating_mul(DType::F64.bytes());
    }
    let (image, sums) = match op {
        Op::Conv(conv) if conv.moments => (results.first(), 2),
        Op::Moments(_) | Op::BatchNormBackwardReduce(_) => (operands.first(), 2),
        Op::Reduce(reduce) if keeps_channels(&reduce.axes, operands) => (operands.first(), 1),
        Op::SoftmaxCrossEntropy(_) | Op::MeanSquaredError(_) => {
            return MOST_PARTS as u64 * DType::F64.bytes();
        }
        _ => (None, 0),
    };
    let Some(image) = image.filter(|ty| ty.layout == Layout::Nhwc || ty.shape.rank() == 2) else {
        return 0;
    };
    match channels(image) {
        Some(channels) if image.shape.has_batch() && channels < MANY_CHANNELS => {
            (MOST_PARTS * sums * channels) as u64 * DType::F64.bytes()
        }
        _ => 0,
    }
}

fn channels(image: &TensorType) -> Option<usize> {
    image.shape.0.get(1).and_then(|dim| dim.fixed())
}

/// Whether all axes but that of the channels are reduced.
fn keeps_channels(axes: &[usize], operands: &[&TensorType]) -> bool {
    let rank = operands.first().map_or(0, |ty| ty.shape.rank());
    (0..rank).all(|axis| axes.contains(&axis) != (axis == 1))
}

impl Graph {
    /// Bytes for parts of the sums that a node takes, for batches up to `batch_bound`.
    pub fn partial_bytes(&self, id: NodeId, batch_bound: usize) -> u64 {
        let (operands, results) = self.types(id);
        bytes(self.op(id), self.schedule(id), &operands, &results, batch_bound)
    }
}
