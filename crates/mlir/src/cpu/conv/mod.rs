//! Convolution in its three directions: one file a schedule, and what schedules share.

pub mod columns;
pub mod depthwise;
pub mod depthwise_weight;
pub mod direct;
pub mod direct_weight;
pub mod epilogue;
pub mod filter;
pub mod general;
pub mod items;
pub mod moments;
pub mod panel;

use crate::emit::Val;

/// The blocking of a direct convolution, and the memory that it may use.
#[derive(Debug, Clone, Copy)]
pub struct Blocking<'c> {
    /// Lanes of a vector.
    pub lanes: usize,
    /// Pixels of a register tile; for the gradient for weights its input channels.
    pub pixels: i64,
    /// Vectors of output channels of a register tile.
    pub vectors: i64,
    /// Rows of outputs that are computed from one copy of the input.
    pub rows: i64,
    /// Address of the node's workspace, which all threads share.
    pub workspace: Val<'c>,
    /// Address of this thread's own.
    pub own: Val<'c>,
}
