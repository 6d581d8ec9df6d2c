//! Winograd's minimal filtering F(4x4, 3x3) for convolutions of stride 1 in all three directions: 36 products for 16
//! outputs instead of 144.
//!
//! Tiles are taken some at a time: their inputs are transformed to one matrix for each of 36 points, which are
//! multiplied with the transformed weights of a chunk of output channels; the products are transformed back.

pub mod convolution;
pub mod tiles;
pub mod transform;
pub mod weight_gradient;
pub mod weights;

use crate::emit::{Emitter, Pointer, Val};

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
    /// Address of the node's workspace.
    pub workspace: Val<'c>,
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

/// `body` for chunks of `size` out of `0..channels`: number and channels of each. All but the last one have `size`.
fn chunks<'c>(e: &Emitter<'c>, channels: i64, size: i64, body: &dyn Fn(&Emitter<'c>, Val<'c>, i64)) {
    e.each_of(channels / size, |e, i| body(e, i, size));
    if channels % size > 0 {
        body(e, e.index(channels / size), channels % size);
    }
}

/// Rows of `zeros`: as many zeros as a row of a tile has elements.
fn zeros<'c>(e: &Emitter<'c>, at: Pointer<'c>, count: i64, lanes: usize) -> Pointer<'c> {
    e.zero_run(at, count, lanes);
    at
}
