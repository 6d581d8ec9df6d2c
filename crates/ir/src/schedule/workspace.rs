//! The memory that a schedule needs while its node is computed.

use super::copies::FEW_CHANNELS;
use super::{
    Convolution, Copies, Depthwise, Direct, Direction, Pointwise, Product, Schedule, ThreadSums, Winograd,
    product_sizes,
};
use super::{axis, borders};
use crate::ops::Op;
use crate::types::{Layout, TensorType};

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
            // Rows whose terms are neighbours, and terms that are the batch, are read where they are.
            let batch = operands.first().is_some_and(|a| a.shape.has_batch());
            let in_place = if op.transpose_a { batch } else { op.transpose_b };
            if in_place {
                return 0;
            }
            let sizes = product_sizes(op, operands, batch_bound);
            return sizes.map_or(0, |[_, _, terms]| product(s, terms).saturating_mul(bytes));
        }
        if let Schedule::ImplicitGemm(s) = self {
            return s.workspace(op, operands, results, batch_bound);
        }
        let Some(conv) = Convolution::of(op, operands, results) else {
            return 0;
        };
        match self {
            Schedule::General | Schedule::Product(_) | Schedule::ImplicitGemm(_) => 0,
            Schedule::Direct(s) | Schedule::Pointwise(Pointwise(s)) => direct(&conv, s, bytes),
            Schedule::Depthwise(s) => {
                let layout = operands.first().map_or(Layout::Plain, |ty| ty.layout);
                depthwise(&conv, s, layout, bytes)
            }
            Schedule::Winograd(s) | Schedule::Polyphase(s) => winograd(s, &conv, bytes),
        }
    }
}

/// Bytes of memory that a node with this operator, schedule and types needs on a GPU while it is computed, for batches up
/// to `batch_bound`. In the general form that is for partial sums, and for a copy of a convolution's weights.
pub fn gpu_workspace(
    op: &Op,
    schedule: Option<Schedule>,
    operands: &[&TensorType],
    results: &[&TensorType],
    batch_bound: usize,
) -> u64 {
    if let Some(schedule) = schedule.filter(|s| *s != Schedule::General) {
        return schedule.workspace(op, operands, results, batch_bound);
    }
    let sums = ThreadSums::of(op, operands, results, batch_bound);
    let sums = sums.map_or(0, |sums| sums.bytes());
    let conv = Convolution::of(op, operands, results);
    match (conv, operands.get(1)) {
        (Some(conv), Some(w)) if conv.copies_weights_on_gpu(results) => {
            let elements = product_of([conv.k, conv.c / conv.groups.max(1), conv.window.volume()]);
            sums.max(elements.saturating_mul(w.dtype.bytes()))
        }
        _ => sums,
    }
}

fn product_of(sizes: impl IntoIterator<Item = usize>) -> u64 {
    sizes
        .into_iter()
        .fold(1, |n: u64, size| n.saturating_mul(size as u64))
}

/// The weights or their gradient with channels innermost, and the copy of padded rows where one is made.
fn depthwise(conv: &Convolution, s: &Depthwise, layout: Layout, bytes: u64) -> u64 {
    let Some(copies) = Copies::of_depthwise(conv) else {
        return u64::MAX;
    };
    let width = match conv.direction {
        Direction::Forward => conv.input.last(),
        Direction::BackwardData => conv.output.last(),
        Direction::BackwardWeight => None,
    };
    let in_place = width
        .is_some_and(|&width| borders::reads_image(layout, &copies.phases, width as i64, s.pixels as i64));
    let copy = match in_place {
        true => 0,
        false => copies.bytes(copies.rows_of_depthwise()) as u64,
    };
    let weights = product_of([conv.c, conv.window.volume()]);
    copy.saturating_add(weights.saturating_mul(bytes))
}

/// The copies of padded rows, and for backward data the weights with input and output channels exchanged.
fn direct(conv: &Convolution, s: &Direct, bytes: u64) -> u64 {
    let transposed = match conv.direction {
        Direction::BackwardData => {
            let groups = conv.groups.max(1);
            let blocks = (conv.c / groups).next_multiple_of(s.lanes);
            product_of([groups, blocks, conv.k / groups, conv.window.volume()])
        }
        // The gradients of the results that some columns of tiles meet.
        Direction::BackwardWeight => {
            let columns = s.vectors * s.lanes;
            let groups = conv.groups.max(1);
            let positions = positions(conv, s);
            let channels = match conv.c / groups < FEW_CHANNELS {
                true => conv.k / groups,
                false => packed_channels(conv.k / groups, columns, positions.saturating_mul(bytes as usize)),
            };
            product_of([positions, channels.next_multiple_of(columns)])
        }
        Direction::Forward => 0,
    };
    copied(conv, s).saturating_add(transposed.saturating_mul(bytes))
}

/// Output channels whose gradients backward weights packs at a time, where those of one channel take so many bytes: several
/// columns of tiles, so that memory is read in long pieces, but no more than leave the second cache room.
pub fn packed_channels(channels: usize, column: usize, bytes: usize) -> usize {
    let most = (PACKED / bytes.max(1)).min(PACKED_CHANNELS);
    channels.min((most / column.max(1)).max(1) * column)
}

/// Channels that are neighbours for long enough, and bytes of those that are packed.
const PACKED_CHANNELS: usize = 512;
const PACKED: usize = 512 << 10;

/// Positions of results in a block of rows, which may be those of several images.
fn positions(conv: &Convolution, s: &Direct) -> usize {
    let Some(copies) = Copies::of_direct(conv, s.pixels) else {
        return usize::MAX;
    };
    let rows = (s.rows as i64).clamp(1, copies.rows().max(1));
    let samples = axis::samples_of_block(&copies.phases, s.rows as i64);
    let width = axis::most(&copies.phases, 2);
    usize::try_from(samples.saturating_mul(rows).saturating_mul(width)).unwrap_or(usize::MAX)
}

/// Bytes of the copies of padded rows that are there at a time: of several images where images are small.
pub(super) fn copied(conv: &Convolution, s: &Direct) -> u64 {
    let copies = Copies::of_direct(conv, s.pixels);
    copies.map_or(u64::MAX, |copies| copies.of_block(s.rows as i64) as u64)
}

/// Elements between the matrices of two points besides the matrix itself: without them all would begin in the same sets
/// of a cache.
pub fn gap(lanes: usize) -> usize {
    lanes.max(8)
}

/// A row of zeros, a square of weights, transformed inputs and products of the tiles that are treated at a time, and
/// transformed weights: all of them, those of a chunk, or none where they come transformed.
fn winograd(s: &Winograd, conv: &Convolution, bytes: u64) -> u64 {
    let stride = conv.window.strides.first().copied().unwrap_or(1);
    let (weights, taps) = (36, 9);
    // Matrices of values, rows of a tile in all of them, and elements of a row of a tile.
    let (matrices, rows, edge) = if stride == 1 { (36, 36, 6) } else { (36, 81, 9) };
    let padded = |n: usize| n.next_multiple_of(s.lanes);
    let (reduced, made) = match conv.direction {
        Direction::Forward | Direction::BackwardWeight => (conv.c, conv.k),
        Direction::BackwardData => (conv.k, conv.c),
    };
    let chunk = s.chunk();
    let chunks = match (s.prepared, s.chunked) {
        (true, _) => 0,
        (false, true) => 1,
        (false, false) => made.div_ceil(chunk),
    };
    let between = gap(s.lanes) as u64;
    let values = |elements: u64| elements.saturating_mul(rows).saturating_add(matrices * between);
    let matrix = |elements: u64| elements.saturating_add(between).saturating_mul(weights);
    let of_tiles = match conv.direction {
        Direction::BackwardWeight => padded(made),
        Direction::Forward | Direction::BackwardData => chunk,
    };
    let parts = [
        product_of([edge, reduced.max(made)]) + s.lanes as u64,
        product_of([taps, s.lanes, s.lanes]),
        values(product_of([s.tiles, padded(reduced)])),
        values(product_of([s.tiles, of_tiles])),
        matrix(product_of([reduced, chunk])).saturating_mul(chunks as u64),
    ];
    let all = parts.iter().fold(0, |sum: u64, &part| sum.saturating_add(part));
    all.saturating_mul(bytes)
}

/// One panel of columns.
fn product(s: &Product, terms: usize) -> u64 {
    product_of([s.depth.min(terms), s.vectors, s.lanes])
}
