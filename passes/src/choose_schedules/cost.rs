//! What a candidate costs: cycles of arithmetic, and bytes that cross the second cache.

use syncbn_ir::schedule::{Convolution, Copies, Direction};

use super::Problem;
use super::machine::Machine;

/// A prediction for one node, the batch being at its bound, on one core.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Cost {
    /// Cycles of arithmetic, if all operands were in the second cache.
    pub cycles: f64,
    /// Bytes that come from beyond it or go there.
    pub bytes: f64,
}

impl Cost {
    /// Seconds: arithmetic and transfers overlap, so that the longer counts.
    pub fn seconds(&self, machine: &Machine) -> f64 {
        let far = self.bytes > machine.l3 as f64;
        let rate = if far {
            machine.memory_bytes_per_cycle
        } else {
            machine.l3_bytes_per_cycle
        };
        self.cycles.max(self.bytes / rate) / (machine.ghz * 1e9)
    }
}

/// A register tile of accumulators.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tile {
    /// Positions, rows of a product, or input channels.
    pub pixels: usize,
    /// Vectors of output channels or columns.
    pub vectors: usize,
}

/// Cycles that a load takes from multiply-adds, although both begin in the same cycle: they share what decodes and
/// remembers them. By measurement of tiles from 14 x 2 to 4 x 6 on two processors with two multiply-adds a cycle.
const LOAD: f64 = 0.2;
/// Most vectors of a tile, and registers that are not accumulators if there are more vectors than two.
pub const MOST_VECTORS: usize = 4;
pub const SPARE: usize = 8;

impl Tile {
    /// A tile of so many positions and vectors.
    pub fn new(pixels: usize, vectors: usize) -> Tile {
        Tile { pixels, vectors }
    }

    /// Cycles of one term of all accumulators: the tile must hide the latency, and each term needs its vectors of weights and
    /// a broadcast of each pixel.
    fn cycles(&self, machine: &Machine) -> f64 {
        let loads = (self.pixels + self.vectors) as f64;
        let products = (self.pixels * self.vectors) as f64 / machine.products_per_cycle;
        let busy = products + LOAD * loads;
        busy.max(loads / machine.loads_per_cycle).max(machine.latency)
    }

    /// Cycles of one multiply-add of vectors, loads included.
    pub fn cycles_per_product(&self, machine: &Machine) -> f64 {
        let accumulators = (self.pixels * self.vectors) as f64;
        // Loads and stores of the accumulators, and the loops around the tile.
        let around = 1.0 + 1.0 / accumulators;
        self.cycles(machine) / accumulators * around
    }

    /// Cycles of one term of a row of `width` positions and `columns` vectors, with tiles for what is left of both.
    pub fn row_cycles(&self, machine: &Machine, width: usize, columns: usize) -> f64 {
        let pieces = |size: usize, step: usize| [(step, size / step), (size % step, 1)];
        let mut cycles = 0.0;
        for (pixels, times) in pieces(width, self.pixels.max(1)) {
            for (vectors, columns) in pieces(columns, self.vectors.max(1)) {
                if pixels * vectors > 0 {
                    let products = (pixels * vectors * times * columns) as f64;
                    cycles += products * Tile::new(pixels, vectors).cycles_per_product(machine);
                }
            }
        }
        cycles
    }

    /// The tile for rows of `width` positions and `columns` vectors: the one with the fewest cycles.
    pub fn for_row(machine: &Machine, width: usize, columns: usize) -> Tile {
        let all = (1..=MOST_VECTORS.min(columns.max(1))).flat_map(|vectors| {
            let most = match vectors {
                ..=2 => machine.accumulators() / vectors,
                _ => machine.registers.saturating_sub(SPARE) / vectors,
            };
            (1..=most.min(width.max(1))).map(move |pixels| Tile::new(pixels, vectors))
        });
        let cycles = |tile: &Tile| tile.row_cycles(machine, width, columns);
        let best = all.min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        best.unwrap_or(Tile::new(1, 1))
    }

    /// The tile of so many vectors for rows of `width` positions: of those with the fewest cycles the largest.
    pub fn for_positions(machine: &Machine, width: usize, vectors: usize) -> Tile {
        let most = (machine.accumulators() / vectors.max(1)).max(1).min(width.max(1));
        let cycles =
            |tile: &Tile| width.next_multiple_of(tile.pixels) as f64 * tile.cycles_per_product(machine);
        let all = (1..=most).rev().map(|pixels| Tile::new(pixels, vectors));
        let best = all.min_by(|a, b| cycles(a).total_cmp(&cycles(b)));
        best.unwrap_or(Tile::new(1, vectors))
    }

    /// The tile of backward weights: half of the registers, of three vectors three quarters, for what input channels there are.
    pub fn for_channels(machine: &Machine, channels: usize, vectors: usize) -> Tile {
        let quarter = if machine.registers >= 32 { 8 } else { 4 };
        let most = if vectors == 3 { 3 * quarter } else { 2 * quarter };
        Tile {
            pixels: (most / vectors).min(channels).max(1),
            vectors,
        }
    }
}

/// Vectors of output channels of a register tile: as many as share a broadcast without a remainder.
pub fn vectors(channels: usize, lanes: usize) -> usize {
    match channels.div_ceil(lanes) {
        0 | 1 => 1,
        n if !n.is_multiple_of(2) && n.is_multiple_of(3) => 3,
        _ => 2,
    }
}

/// Output channels of a convolution's direction: along them lie the lanes. Of each group.
pub fn lane_channels(conv: &Convolution) -> usize {
    let channels = match conv.direction {
        Direction::Forward | Direction::BackwardWeight => conv.k,
        Direction::BackwardData => conv.c,
    };
    channels / conv.groups.max(1)
}

/// Bytes of the tensors that a convolution reads and writes once.
pub fn tensor_bytes(conv: &Convolution, samples: usize) -> f64 {
    let images = samples as f64 * (conv.c * conv.inputs() + conv.k * conv.outputs()) as f64;
    let weights = (conv.k * conv.c / conv.groups.max(1) * conv.window.volume()) as f64;
    (images + weights) * conv.dtype.bytes() as f64
}

/// Cycles of all copies of the input that are made for so many rows of results each: a load and a store of each vector,
/// which takes longer where the copy lies beyond the second cache.
pub fn copying(problem: &Problem, copies: &Copies, rows: i64) -> f64 {
    let machine = &problem.machine;
    let bytes = copies.bytes(rows) as f64;
    let near = copies.of_block(rows) as f64;
    let rate = match near {
        _ if near <= machine.l2 as f64 => machine.vector_bytes as f64,
        _ if near <= machine.l3 as f64 => machine.l3_bytes_per_cycle,
        _ => machine.memory_bytes_per_cycle,
    };
    problem.samples as f64 * copies.blocks(rows) as f64 * bytes / rate
}

/// How much more is computed because `size` is no multiple of `step`.
pub fn waste(size: usize, step: usize) -> f64 {
    size.next_multiple_of(step.max(1)) as f64 / size.max(1) as f64
}
