//! Memory for sums that the threads of a rank share: over samples and positions, for every channel or of all. Their terms are cut into
//! parts, so that the order of additions does not depend on the number of threads.

use crate::graph::{Graph, NodeId};
use crate::ops::Op;
use crate::types::{DType, Layout, TensorType};

/// Parts of a sum at most.
pub const MOST_PARTS: usize = 32;
/// From so many channels on threads share these instead, which needs no memory.
const MANY_CHANNELS: usize = 1024;

/// Bytes that an operator on these operands, with these results, needs.
pub fn bytes(op: &Op, operands: &[&TensorType], results: &[&TensorType]) -> u64 {
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
    match image.shape.0.get(1).and_then(|dim| dim.fixed()) {
        Some(channels) if image.shape.has_batch() && channels < MANY_CHANNELS => {
            (MOST_PARTS * sums * channels) as u64 * DType::F64.bytes()
        }
        _ => 0,
    }
}

/// Whether all axes but that of the channels are reduced.
fn keeps_channels(axes: &[usize], operands: &[&TensorType]) -> bool {
    let rank = operands.first().map_or(0, |ty| ty.shape.rank());
    (0..rank).all(|axis| axes.contains(&axis) != (axis == 1))
}

impl Graph {
    /// Bytes for parts of the sums that a node takes.
    pub fn partial_bytes(&self, id: NodeId) -> u64 {
        let (operands, results) = self.types(id);
        bytes(self.op(id), &operands, &results)
    }
}
