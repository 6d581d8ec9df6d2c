//! Tiles of the matrix product, and which one suits a shape.

use crate::emit::{Elem, ceil};
use crate::program::Products;

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

const fn tile(
    elem: Elem,
    [rows, columns, depth]: [i64; 3],
    warp: [i64; 2],
    stages: i64,
    resident: u32,
) -> Tile {
    // The columns of a warp are staged as one block of 32 (see `column_byte`).
    assert!(warp[1] <= 32 && 32 % warp[1] == 0);
    Tile {
        elem,
        rows,
        columns,
        depth,
        warp_rows: warp[0],
        warp_columns: warp[1],
        stages,
        resident,
    }
}

use Elem::{BF16, F32};

/// Tiles for products in tf32.
const TF32: [Tile; 6] = [
    tile(F32, [128, 128, 16], [64, 32], 4, 2),
    tile(F32, [128, 64, 16], [64, 32], 4, 3),
    tile(F32, [64, 64, 32], [32, 32], 3, 4),
    tile(F32, [128, 32, 16], [32, 32], 4, 4),
    tile(F32, [64, 32, 32], [32, 16], 3, 4),
    tile(F32, [32, 64, 32], [16, 32], 3, 4),
];

/// Tiles for products in bf16: of as many bytes, and twice as deep.
const IN_BF16: [Tile; 6] = [
    tile(BF16, [128, 128, 32], [64, 32], 4, 2),
    tile(BF16, [128, 64, 32], [64, 32], 4, 3),
    tile(BF16, [64, 64, 64], [32, 32], 3, 4),
    tile(BF16, [128, 32, 32], [32, 32], 4, 4),
    tile(BF16, [64, 32, 64], [32, 16], 3, 4),
    tile(BF16, [32, 64, 64], [16, 32], 3, 4),
];

/// Tiles for three products, which need twice the registers for their operands, and some for sums of a stage.
const THREE_TF32: [Tile; 5] = [
    tile(F32, [128, 64, 16], [64, 32], 4, 2),
    tile(F32, [64, 64, 32], [32, 32], 3, 2),
    tile(F32, [128, 32, 16], [32, 32], 4, 2),
    tile(F32, [64, 32, 32], [32, 16], 3, 3),
    tile(F32, [32, 64, 32], [16, 32], 3, 3),
];

/// Multiprocessors of the GPU that tiles are ranked for, which is an A100. A fixed number: the choice of tiles
/// decides in which order products are added.
const MULTIPROCESSORS: i64 = 108;
/// Multiply-adds of tensor cores in tf32, and bytes from shared memory and from the L2 cache, in one cycle of one
/// multiprocessor (NVIDIA's data sheet of the A100).
const PER_CYCLE: [f64; 3] = [512.0, 128.0, 40.0];
/// Bytes from memory in one cycle of the whole GPU.
const MEMORY_PER_CYCLE: f64 = 1100.0;
/// Cycles until a copy from global memory has arrived.
const LATENCY: f64 = 700.0;
/// Cycles of a block besides its steps, and of a launch.
const FIXED: f64 = 1500.0;
const LAUNCH: f64 = 3000.0;
/// Steps that a split of the reduced index has at least.
const LEAST_STEPS: i64 = 4;
/// Bytes that the partial results of all splits have at most.
const MOST_PARTIAL_BYTES: i64 = 64 << 20;

/// The size of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows, at the largest batch.
    pub rows: i64,
    /// Columns.
    pub columns: i64,
    /// Reduced elements, at the largest batch.
    pub reduced: i64,
}

impl Tile {
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

    /// Cycles of a product whose reduced index is split in `splits`.
    fn cycles(&self, size: &Size, splits: i64, products: f64) -> f64 {
        let blocks = ceil(size.rows, self.rows) * ceil(size.columns, self.columns) * splits;
        let steps = ceil(ceil(size.reduced, self.depth), splits).max(1);
        let fragments = self.warps() * (self.warp_rows + self.warp_columns) * self.depth_bytes();
        let needs = [
            (self.rows * self.columns * self.depth) as f64 * products,
            (self.stage_bytes() + fragments) as f64,
            self.stage_bytes() as f64,
        ];
        let busy = needs
            .iter()
            .zip(PER_CYCLE)
            .map(|(need, rate)| need / rate)
            .fold(0.0, f64::max);
        let resident = i64::from(self.resident);
        let together = resident.min(ceil(blocks, MULTIPROCESSORS)) as f64;
        let step = (busy * together).max(LATENCY / (self.stages - 1) as f64);
        let waves = blocks as f64 / (MULTIPROCESSORS * resident) as f64;
        // Few waves are whole ones; many blend into each other.
        let waves = if waves > 4.0 { waves } else { waves.ceil() };
        let stored = (self.rows * self.columns * BYTES) as f64 / PER_CYCLE[2] * together;
        waves * (steps as f64 * step + FIXED + stored)
    }
}

fn candidates(products: Products) -> (&'static [Tile], f64) {
    match products {
        Products::Exact | Products::Tf32 => (&TF32, 1.0),
        Products::ThreeTf32 => (&THREE_TF32, 3.0),
        // Twice as many multiply-adds in a cycle.
        Products::Bf16 => (&IN_BF16, 0.5),
    }
}

/// How a product is divided: a schedule of it, chosen from its size alone before anything is emitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// How blocks divide it.
    pub tile: Tile,
    /// Parts that its reduced index is split in; a second kernel adds their results where there are several.
    pub splits: i64,
}

impl Tiling {
    /// The fastest one for a product, whose reduced index is split only if it `may_split`. It depends on nothing else, so
    /// that sums have one order on every device.
    pub fn choose(size: &Size, products: Products, may_split: bool) -> Tiling {
        let (tiles, cost) = candidates(products);
        let bytes = size.rows * size.columns * BYTES;
        let most = if may_split { 12 } else { 1 };
        let choices = tiles.iter().flat_map(|&tile| {
            let steps = ceil(size.reduced, tile.depth);
            let powers = (0..most).map(|i| 1 << i);
            powers
                .filter(move |&splits| {
                    splits == 1 || (steps / splits >= LEAST_STEPS && splits * bytes <= MOST_PARTIAL_BYTES)
                })
                .map(move |splits: i64| Tiling { tile, splits })
        });
        let cycles = |tiling: &Tiling| {
            let partial = (2 * tiling.splits * bytes) as f64 / MEMORY_PER_CYCLE;
            let merge = if tiling.splits > 1 { LAUNCH + partial } else { 0.0 };
            tiling.tile.cycles(size, tiling.splits, cost) + merge
        };
        let best = choices.min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        best.unwrap_or(Tiling {
            tile: TF32[0],
            splits: 1,
        })
    }
}
