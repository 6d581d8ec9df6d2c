//! Winograd's minimal filtering for 3x3 convolutions in all three directions: F(4x4, 3x3) for stride 1, with 36 products
//! for 16 outputs instead of 144, and its phases for stride 2, with 81.
//!
//! Tiles are taken some at a time: their inputs are transformed to one matrix for each of 36 points, which are
//! multiplied with the transformed weights of a chunk of output channels; the products are transformed back.

pub mod convolution;
pub mod groups;
pub mod polyphase;
pub mod tiles;
pub mod transform;
pub mod weight_gradient;
pub mod weights;

use crate::cpu::conv::filter::ragged_in;
use crate::emit::{Emitter, Pointer, Val};
use groups::{Group, PHASES, SINGLE};
use transform::Transform;

/// The transforms of a direction, and the sizes of its tiles along an axis.
#[derive(Clone, Copy)]
pub struct Algorithm<'c> {
    /// Elements of the source in a tile, and from one tile to the next.
    source: (usize, i64),
    /// Values of a transformed tile.
    values: usize,
    /// Elements of the target in a tile, which is as far as from one tile to the next.
    target: usize,
    /// Of the source to values.
    input: Transform<'c>,
    /// Of values to the target.
    output: Transform<'c>,
    /// Of taps.
    filter: Transform<'c>,
    /// How values meet weights.
    groups: &'static [Group],
}

/// Stride 1: results, and gradients for the input.
pub fn single<'c>() -> Algorithm<'c> {
    Algorithm {
        source: (6, 4),
        values: 6,
        target: 4,
        input: transform::input,
        output: transform::output,
        filter: transform::filter,
        groups: SINGLE,
    }
}

/// Stride 2: results.
pub fn phases<'c>() -> Algorithm<'c> {
    Algorithm {
        source: (9, 8),
        values: 9,
        target: 4,
        input: polyphase::input,
        output: polyphase::output,
        filter: polyphase::filter,
        groups: PHASES,
    }
}

/// Stride 2: gradients for the input.
pub fn phases_backward<'c>() -> Algorithm<'c> {
    Algorithm {
        source: (5, 4),
        target: 8,
        input: polyphase::input_backward,
        output: polyphase::output_backward,
        ..phases()
    }
}

/// How the algorithm is blocked, and the memory that it may use.
#[derive(Debug, Clone, Copy)]
pub struct Blocking<'c> {
    /// Lanes of a vector.
    pub lanes: usize,
    /// Rows of a register tile: tiles of the image, or in the gradient for weights input channels.
    pub pixels: i64,
    /// Vectors of output channels of a register tile and chunk.
    pub vectors: i64,
    /// Tiles that are transformed at a time; a multiple of `pixels` and of 4.
    pub tiles: i64,
    /// Whether weights are transformed chunk by chunk, and used at once.
    pub chunked: bool,
    /// Whether weights come transformed.
    pub prepared: bool,
    /// Address of the node's workspace, which all threads share.
    pub workspace: Val<'c>,
    /// Address of this thread's own.
    pub own: Val<'c>,
}

impl Blocking<'_> {
    /// Output channels of a chunk.
    fn chunk(&self) -> i64 {
        self.vectors * self.lanes as i64
    }

    /// Vectors of so many channels.
    fn vectors_of(&self, channels: i64) -> i64 {
        (channels + self.lanes as i64 - 1) / self.lanes as i64
    }
}

/// `body` for chunks of `size` out of `0..channels`: number and channels of each. All but the last one have `size`. Of all
/// chunks only `part`, or all.
fn chunks<'c>(
    e: &Emitter<'c>,
    (channels, part): (i64, Option<[Val<'c>; 2]>),
    size: i64,
    body: &dyn Fn(&Emitter<'c>, Val<'c>, i64),
) {
    ragged_in(e, (channels, part), size, &|e, i, channels| {
        body(e, i, channels as i64)
    });
}

/// Rows of `zeros`: as many zeros as a row of a tile has elements.
fn zeros<'c>(e: &Emitter<'c>, at: Pointer<'c>, count: i64, lanes: usize) -> Pointer<'c> {
    e.zero_run(at, count, lanes);
    at
}
