//! Tiles of the matrix product.

use syncbn_ir::schedule::ImplicitGemm;

use crate::emit::Elem;

/// Bytes of a sum.
pub const BYTES: i64 = 4;
/// Rows and columns of one matrix instruction.
pub const INSTRUCTION: [i64; 2] = [16, 8];
/// Bytes of the operands that a matrix instruction reduces.
pub const INSTRUCTION_BYTES: i64 = 32;
/// Bytes by which a row of the staged result is longer than its elements, so that rows start in different banks.
pub const STAGED_PADDING: i64 = 32;

/// How a block and its warps divide a matrix product.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Element type of the operands.
    pub elem: Elem,
    /// Rows of a block.
    pub rows: i64,
    /// Columns of a block.
    pub columns: i64,
    /// Reduced elements of a step.
    pub depth: i64,
    /// Rows of a warp.
    pub warp_rows: i64,
    /// Columns of a warp.
    pub warp_columns: i64,
    /// Steps in shared memory at a time.
    pub stages: i64,
    /// Blocks that a multiprocessor holds: leaves enough registers for a thread not to spill.
    pub resident: u32,
}

impl Tile {
    /// That of a schedule, for operands of `elem`.
    pub fn new(s: &ImplicitGemm, elem: Elem) -> Tile {
        Tile {
            elem,
            rows: s.rows as i64,
            columns: s.columns as i64,
            depth: s.depth as i64,
            warp_rows: s.warp_rows as i64,
            warp_columns: s.warp_columns as i64,
            stages: s.stages as i64,
            resident: s.resident as u32,
        }
    }

    /// Threads of a block.
    pub fn threads(&self) -> i64 {
        32 * self.warps()
    }

    fn warps(&self) -> i64 {
        (self.rows / self.warp_rows) * (self.columns / self.warp_columns)
    }

    /// Bytes of a step of one row or column in shared memory.
    pub fn depth_bytes(&self) -> i64 {
        self.depth * self.elem.bytes()
    }

    /// Bytes of one step in shared memory.
    pub fn stage_bytes(&self) -> i64 {
        (self.rows + self.columns) * self.depth_bytes()
    }

    /// Bytes of a row of the staged sums.
    pub fn staged_row(&self) -> i64 {
        self.columns * BYTES + STAGED_PADDING
    }

    /// Bytes of shared memory: the steps, and after them in the same place the result.
    pub fn shared(&self) -> i64 {
        (self.stages * self.stage_bytes()).max(self.rows * self.staged_row())
    }
}
