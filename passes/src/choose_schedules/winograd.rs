//! Winograd's F(4x4, 3x3): 36 products for 16 results of a 3x3 convolution, instead of 144.
//!
//! It takes all directions of 3x3 convolutions of images with stride 1 and at least 16 input and output channels. It leaves
//! alone dilation and groups, whose tiles it has not; f64, whose users want the rounding of the direct form; and few channels, where
//! transforming costs more than it saves.

use syncbn_ir::schedule::{Convolution, Direction, Winograd as Blocking};
use syncbn_ir::{DType, Schedule};

use super::cost::{Cost, MOST_VECTORS, SPARE, Tile, lane_channels, tensor_bytes, vectors, waste};
use super::machine::Machine;
use super::{Candidate, Problem};

/// The candidate.
pub struct Winograd;

/// The least channels on either side.
pub const LEAST_CHANNELS: usize = 16;

/// The least tiles that are transformed at a time: with fewer, weights are read too often.
const LEAST_TILES: usize = 16;

/// The most tiles that are transformed at a time.
const MOST_TILES: usize = 128;

/// So many tiles use a chunk of weights so often that it may be larger than a cache.
const MANY_TILES: usize = 64;

/// The share of the peak that the products of transformed tiles reach, by measurement.
const EFFICIENCY: f64 = 0.85;

/// The share of the time to read transformed weights from the third cache that products do not hide.
const READ_AHEAD: f64 = 0.2;

/// An algorithm that multiplies transformed tiles of 4x4 results.
pub struct Algorithm {
    /// Values of a transformed tile.
    pub values: usize,
    /// Cycles of the transform of a tile's input of one vector of channels.
    pub input: f64,
    /// Cycles of the transform of its products.
    pub output: f64,
    /// Cycles of the transform of a vector of weights.
    pub weight: f64,
}

/// F(4x4, 3x3).
const F43: Algorithm = Algorithm {
    values: 36,
    input: 120.0,
    output: 120.0,
    weight: 60.0,
};

impl Candidate for Winograd {
    fn accepts(&self, problem: &Problem) -> Option<Schedule> {
        let conv = problem.convolution()?;
        fits(conv, 1).then(|| Schedule::Winograd(F43.blocking(problem, conv)))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (conv, Schedule::Winograd(s)) = (problem.convolution()?, schedule) else {
            return None;
        };
        Some(F43.cost(problem, conv, s))
    }

    /// It rounds some times as much as the direct form, which only what is clearly faster is worth: on images of 2 or 3
    /// rows most of a tile is thrown away.
    fn least_gain(&self) -> Option<f64> {
        Some(1.3)
    }
}

/// Whether a convolution is one of 3x3 elements with this stride that transforming pays for.
pub fn fits(conv: &Convolution, stride: usize) -> bool {
    conv.input.len() == 2
        && conv.has_window(3, stride)
        && conv.groups == 1
        && conv.dtype == DType::F32
        && conv.c.min(conv.k) >= LEAST_CHANNELS
}

/// Tiles of 4x4 results of one sample: of `y`, or of `dx` where its phases are as large.
fn tiles(conv: &Convolution) -> usize {
    let sizes = match (conv.direction, conv.window.strides[0]) {
        (Direction::BackwardData, 1) => &conv.input,
        _ => &conv.output,
    };
    sizes.iter().map(|size| size.div_ceil(4)).product()
}

/// The largest power of two up to `n`.
fn power_of_two(n: usize) -> usize {
    1 << n.max(1).ilog2()
}

/// Of all tiles, how many are treated at a time where the caches have room for so many: whole steps.
fn at_once(all: usize, in_cache: usize, step: usize) -> usize {
    let blocks = all.div_ceil(in_cache);
    all.div_ceil(blocks).next_multiple_of(step)
}

/// The register tile of the products of `all` transformed tiles and `columns` vectors, where the caches have room for so many
/// tiles: one of `narrow` vectors and a power of two of rows, or a wide one, which loads less. That needs weights that stay in
/// the cache or are used often, and so many tiles that few are empty.
fn tile(
    machine: &Machine,
    (all, in_cache): (usize, usize),
    (columns, narrow): (usize, usize),
    many: bool,
) -> Tile {
    let most = power_of_two(machine.accumulators() / narrow);
    let square = Tile::new(most.min(all.next_power_of_two()), narrow);
    let wide = Tile::new((machine.registers - SPARE) / MOST_VECTORS, MOST_VECTORS);
    let cycles = |tile: &Tile| {
        let at_once = at_once(all, in_cache, tile.pixels);
        tile.row_cycles(machine, all.next_multiple_of(at_once), columns)
    };
    let stay = !many || at_once(all, in_cache, wide.pixels) >= MANY_TILES;
    match stay && columns.is_multiple_of(MOST_VECTORS) && cycles(&wide) < cycles(&square) {
        true => wide,
        false => square,
    }
}

impl Algorithm {
    /// The blocking for a convolution.
    pub fn blocking(&self, problem: &Problem, conv: &Convolution) -> Blocking {
        let (machine, lanes) = (&problem.machine, problem.lanes());
        let all = (tiles(conv) * problem.samples).max(1);
        let reduced = match conv.direction {
            Direction::Forward | Direction::BackwardWeight => conv.c,
            Direction::BackwardData => conv.k,
        };
        let bytes = self.values * reduced * conv.dtype.bytes() as usize;
        let weights = 36 * conv.c * conv.k * conv.dtype.bytes() as usize;
        // Where transformed weights are many, each is made, used for all tiles that there are or fit, and left: to read four
        // times as much as the weights themselves takes longer than to make it, and would be most of the memory of inference.
        let many = weights > 3 * machine.l2;
        let in_cache = match many {
            true => MOST_TILES,
            false => (machine.l2 / 6 / bytes.max(1)).clamp(LEAST_TILES, MOST_TILES / 2),
        };
        let narrow = vectors(lane_channels(conv), lanes).min(2);
        let Tile { pixels, vectors } = match conv.direction {
            Direction::BackwardWeight => Tile::for_channels(machine, conv.c, narrow),
            Direction::Forward | Direction::BackwardData => {
                let columns = lane_channels(conv).div_ceil(lanes);
                tile(machine, (all, in_cache), (columns, narrow), many)
            }
        };
        let step = match conv.direction {
            Direction::BackwardWeight => 4,
            Direction::Forward | Direction::BackwardData => pixels,
        };
        Blocking {
            lanes,
            pixels,
            vectors,
            tiles: at_once(all, in_cache, step),
            chunked: many,
            prepared: problem.constant_weights && !many,
        }
    }

    /// What a blocking costs.
    pub fn cost(&self, problem: &Problem, conv: &Convolution, s: &Blocking) -> Cost {
        let machine = &problem.machine;
        let all = (tiles(conv) * problem.samples) as f64;
        let blocks = (all / s.tiles as f64).ceil();
        let of = |channels: usize| channels.div_ceil(s.lanes) as f64;
        let (input, output) = match conv.direction {
            Direction::Forward | Direction::BackwardWeight => (conv.c, conv.k),
            Direction::BackwardData => (conv.k, conv.c),
        };
        let tile = Tile {
            pixels: s.pixels,
            vectors: s.vectors,
        };
        let each = tile.cycles_per_product(machine) / EFFICIENCY;
        let products = self.values as f64 * all * input as f64 * of(output) * waste(s.tiles, s.pixels);
        let transforms = all * (of(input) * self.input + of(output) * self.output);
        let times = match (s.prepared, s.chunked) {
            (true, _) => 0.0,
            (false, true) => blocks,
            (false, false) => 1.0,
        };
        let weights = times * input as f64 * of(output) * self.weight;
        // Transformed weights that are not used at once are written, unless they are there, and read for every block of tiles.
        let transformed = self.values as f64 * (conv.c * conv.k) as f64 * conv.dtype.bytes() as f64;
        let moved = match (s.prepared, s.chunked) {
            (true, _) => blocks * transformed,
            (false, true) => 0.0,
            (false, false) => (1.0 + blocks) * transformed,
        };
        // They are read in order, so that most of the time is that of the products.
        let waiting = moved / machine.l3_bytes_per_cycle * READ_AHEAD;
        Cost {
            cycles: products * each + transforms + weights + waiting,
            bytes: tensor_bytes(conv, problem.samples),
        }
    }
}
