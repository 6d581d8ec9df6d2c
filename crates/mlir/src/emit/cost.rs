//! What the kernel of a stage costs, as far as its lowering alone knows: which share of its operator it is, what it
//! leaves in its workspace, and how it divides a matrix product.

use std::fmt;

use super::Emitter;

/// Turns of a short loop whose loads ptxas puts side by side: a fact of the code that it makes, read off the SASS for
/// sm_90 (13.0.88), and no constant of a model of time.
pub const UNROLLED: i64 = 4;

/// The share of an operator that a stage is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Share {
    /// All of it.
    #[default]
    Whole,
    /// A copy of a weight in another order, to the workspace.
    Weights,
    /// From the operands to partial results in the workspace.
    Partial,
    /// From partial results to results.
    Merge,
}

/// A direction of a convolution or linear layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The result.
    Forward,
    /// The gradient for the input.
    BackwardData,
    /// The gradient for the weights.
    BackwardWeight,
}

/// How blocks divide a product on tensor cores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tiles {
    /// Which product it is.
    pub direction: Direction,
    /// Bytes of an element of the operands.
    pub operand_bytes: i64,
    /// Products of the matrix units for one of the operands' elements.
    pub products: i64,
    /// Rows, columns and reduced elements of a step of a block.
    pub block: [i64; 3],
    /// Rows and columns of a warp.
    pub warp: [i64; 2],
    /// Steps in shared memory at a time.
    pub stages: i64,
    /// Parts of the reduced index, whose results another kernel adds where there are several.
    pub splits: i64,
    /// Steps of a block, the mean of all blocks.
    pub steps: f64,
}

/// `implicit_gemm(rows = 128, columns = 64, depth = 16, warp_rows = 64, warp_columns = 32, stages = 4, splits = 1)`
impl fmt::Display for Tiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([rows, columns, depth], [warp_rows, warp_columns]) = (self.block, self.warp);
        let Tiles { stages, splits, .. } = self;
        write!(
            f,
            "implicit_gemm(rows = {rows}, columns = {columns}, depth = {depth}, "
        )?;
        write!(f, "warp_rows = {warp_rows}, warp_columns = {warp_columns}, ")?;
        write!(f, "stages = {stages}, splits = {splits})")
    }
}

/// What a stage costs besides its operands and results.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// The share of the operator.
    pub share: Share,
    /// Whether it works on the operator's first result, which another stage made, instead of on operands.
    pub of_result: bool,
    /// Bytes that it reads of the workspace.
    pub workspace_read: i64,
    /// Bytes that it writes there.
    pub workspace_written: i64,
    /// Neighbouring elements of a thread: its loads of an operand.
    pub lanes: i64,
    /// Bytes of the workspace that a thread asks for at once.
    pub workspace_at_once: i64,
    /// How it multiplies, on tensor cores.
    pub tiles: Option<Tiles>,
}

impl Emitter<'_> {
    /// Notes what the kernel under construction costs.
    pub fn note_cost(&self, note: impl FnOnce(&mut Cost)) {
        if let Some(mut device) = self.device_mut() {
            note(&mut device.footprint.cost);
        }
    }
}
