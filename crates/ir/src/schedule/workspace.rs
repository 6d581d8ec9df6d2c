//! The memory that a schedule needs while its node is computed.

use super::{Convolution, Direction, Product, Schedule, Winograd, product_sizes};
use crate::ops::Op;
use crate::types::TensorType;

/// Bytes of a cache line; positions of transformed tiles are this far apart beyond their size, so that they do not share
/// a set of the cache.
const LINE: u64 = 64;

impl Schedule {
    /// Bytes of memory that a node with this operator and these types needs while it is computed, for batches up to
    /// `batch_bound`.
    pub fn workspace(
        &self,
        op: &Op,
        operands: &[&TensorType],
        results: &[&TensorType],
        batch_bound: usize,
    ) -> u64 {
        let Some(bytes) = operands.first().map(|ty| ty.dtype.bytes()) else {
            return 0;
        };
        if let (Schedule::Product(s), Op::MatMul(op)) = (self, op) {
            let sizes = product_sizes(op, operands, batch_bound);
            return sizes.map_or(0, |sizes| product(s, sizes).saturating_mul(bytes));
        }
        let Some(conv) = Convolution::of(op, operands, results) else {
            return 0;
        };
        match self {
            Schedule::General | Schedule::Product(_) => 0,
            Schedule::Direct(s) => {
                let image = padded_image(&conv, conv_channels(&conv));
                image
                    .saturating_add(transposed(&conv, s.lanes))
                    .saturating_mul(bytes)
            }
            Schedule::Pointwise(s) => {
                let image = gathered(&conv);
                image
                    .saturating_add(transposed(&conv, s.lanes))
                    .saturating_mul(bytes)
            }
            Schedule::Depthwise(s) => padded_image(&conv, s.lanes).saturating_mul(bytes),
            Schedule::Winograd(s) => winograd(s, &conv, Winograd::values(false), bytes),
            Schedule::Polyphase(s) => winograd(s, &conv, Winograd::values(true), bytes),
        }
    }
}

fn product_of(sizes: impl IntoIterator<Item = usize>) -> u64 {
    sizes
        .into_iter()
        .fold(1, |n: u64, size| n.saturating_mul(size as u64))
}

/// Channels of the tensor that is copied with its padding.
fn conv_channels(conv: &Convolution) -> usize {
    match conv.direction {
        Direction::Forward | Direction::BackwardWeight => conv.c,
        Direction::BackwardData => conv.k,
    }
}

/// Elements of one sample, with its padding, of what the direction slides over: `x`, or `dy` for backward data, where
/// every phase of the stride sees its part of the kernel.
fn padded_image(conv: &Convolution, channels: usize) -> u64 {
    let window = &conv.window;
    let axis = |i: usize| match conv.direction {
        Direction::Forward | Direction::BackwardWeight => {
            conv.input[i] + window.pad_begin(i) + window.pad_end(i)
        }
        Direction::BackwardData => {
            let reach = window.dilations[i].saturating_mul(window.kernel[i] - 1);
            conv.output[i] + 2 * reach.div_ceil(window.strides[i])
        }
    };
    product_of((0..window.rank()).map(axis).chain([channels]))
}

/// Elements of the weights with input and output channels exchanged, which backward data reads.
fn transposed(conv: &Convolution, lanes: usize) -> u64 {
    match conv.direction {
        Direction::BackwardData => product_of([
            conv.c.next_multiple_of(lanes),
            conv.k / conv.groups.max(1),
            conv.window.volume(),
        ]),
        Direction::Forward | Direction::BackwardWeight => 0,
    }
}

/// Elements of the positions of one sample that a strided pointwise convolution reads.
fn gathered(conv: &Convolution) -> u64 {
    match conv.window.strides.iter().all(|&stride| stride == 1) {
        true => 0,
        false => product_of([conv.outputs(), conv.c]),
    }
}

/// Transformed inputs and products of the tiles that are treated at a time, and transformed weights: all of them, or
/// those of a chunk.
fn winograd(s: &Winograd, conv: &Convolution, values: u64, bytes: u64) -> u64 {
    let [c, k] = [conv.c, conv.k].map(|n| n.next_multiple_of(s.lanes));
    let weights = match (s.chunked, conv.direction) {
        (false, _) => product_of([c, k]),
        (true, Direction::BackwardData) => product_of([k, s.vectors * s.lanes]),
        (true, Direction::Forward | Direction::BackwardWeight) => product_of([c, s.vectors * s.lanes]),
    };
    let tiles = product_of([s.tiles, c + k]);
    let position = tiles.saturating_add(weights).saturating_mul(bytes);
    values.saturating_mul(position.saturating_add(3 * LINE))
}

/// One panel of columns, and the rows that meet it.
fn product(s: &Product, [rows, columns, terms]: [usize; 3]) -> u64 {
    let depth = s.depth.min(terms);
    let panel = product_of([depth, columns.next_multiple_of(s.lanes).min(s.vectors * s.lanes)]);
    panel.saturating_add(product_of([depth, rows.next_multiple_of(s.pixels)]))
}
