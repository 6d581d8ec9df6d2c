//! Direct convolution: register tiles of positions and output channels, over a copy of the input with its padding.
//!
//! It takes all directions, ranks, strides, dilations and paddings. Few input channels, as in a first layer, are treated
//! alike. It leaves alone several groups whose channels do not fill vectors, since weights are stored in vectors of
//! output channels that belong to one group; gradients for inputs with large strides, each rest of which would be code
//! of its own; and dilations and paddings that a copy would be too large for.

use syncbn_ir::Schedule;
use syncbn_ir::schedule::axis::most;
use syncbn_ir::schedule::{Convolution, Copies, Direct as Blocking, Direction, FEW_CHANNELS, MOST_COPIED};

use super::cost::{Cost, Tile, copying, lane_channels, tensor_bytes, vectors, waste};
use super::{Candidate, Problem};

/// The candidate.
pub struct Direct;

/// The share of the peak of multiply-adds that a register tile's loops leave, by measurement.
const EFFICIENCY: f64 = 0.94;

impl Candidate for Direct {
    fn accepts(&self, problem: &Problem) -> Option<Schedule> {
        let conv = problem.convolution()?;
        let lanes = problem.lanes();
        if !conv.groups_fill(lanes) {
            return None;
        }
        let tile = tile(problem, conv);
        let copies = Copies::of_direct(conv, tile.pixels)?;
        let computing = products(problem, conv, tile, lanes) / EFFICIENCY;
        Some(Schedule::Direct(Blocking {
            lanes,
            pixels: tile.pixels,
            vectors: tile.vectors,
            rows: rows_of_copy(problem, &copies, rows(problem, conv, &copies), computing),
        }))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (conv, Schedule::Direct(s)) = (problem.convolution()?, schedule) else {
            return None;
        };
        let tile = Tile::new(s.pixels, s.vectors);
        let copies = Copies::of_direct(conv, s.pixels)?;
        let copied = copying(problem, &copies, s.rows as i64);
        Some(Cost {
            cycles: products(problem, conv, tile, s.lanes) / EFFICIENCY + copied,
            bytes: tensor_bytes(conv, problem.samples),
        })
    }
}

/// The share of the time to compute that copying rows again may take before larger copies are made.
const AGAIN: f64 = 0.05;

/// Rows of results that are computed from one copy: those that the caches have room for, unless high windows make
/// copying them again take long; then so many that copying takes least.
fn rows_of_copy(problem: &Problem, copies: &Copies, rows: usize, computing: f64) -> usize {
    let cycles = |rows: usize| copying(problem, copies, rows as i64);
    let all = usize::try_from(copies.rows()).unwrap_or(1).max(1);
    let doubled = std::iter::successors(Some(rows), |&rows| (rows < all).then(|| (2 * rows).min(all)));
    let allowed = doubled.filter(|&n| n == rows || copies.bytes(n as i64) <= MOST_COPIED);
    let best = allowed
        .min_by(|&a, &b| cycles(a).total_cmp(&cycles(b)))
        .unwrap_or(rows);
    match cycles(rows) - cycles(best) > AGAIN * computing {
        true => best,
        false => rows,
    }
}

/// Rows of results that are computed from one copy of the input: as many as leave the second cache room for the weights
/// and for what is computed. More than an image has are all rows of several images: where weights are large, and of backward
/// weights, which sums over what is copied.
pub fn rows(problem: &Problem, conv: &Convolution, copies: &Copies) -> usize {
    let [height, width] = [1, 2].map(|axis| most(&copies.phases, axis).max(1) as usize);
    let channels = match conv.direction {
        Direction::Forward | Direction::BackwardWeight => conv.c,
        Direction::BackwardData => conv.k,
    };
    // Along an axis without a window only what is read is copied.
    let strides: usize = match conv.direction {
        Direction::Forward | Direction::BackwardWeight => {
            let axes = conv.window.strides.iter().zip(&conv.window.kernel).rev().take(2);
            axes.filter(|&(_, &taps)| taps > 1)
                .fold(1, |n: usize, (&stride, _)| n.saturating_mul(stride))
        }
        Direction::BackwardData => 1,
    };
    let sizes = [width, strides, conv.dtype.bytes() as usize];
    let row_bytes = sizes
        .iter()
        .fold(channels.max(8), |n, &size| n.saturating_mul(size));
    let l2 = problem.machine.l2;
    match conv.direction {
        Direction::Forward | Direction::BackwardData => {
            let weights = tensor_bytes(conv, 0);
            let rows = l2 / 4 / row_bytes.max(1);
            // Weights that come from beyond the second cache for every block should be used for several images.
            let image = usize::try_from(copies.bytes(height as i64)).unwrap_or(usize::MAX);
            let images = match weights >= (2 * l2) as f64 {
                true => (l2 / 2 / image.max(1)).max(LEAST_IMAGES),
                false => l2 / 2 / image.max(1),
            };
            let images = images.min(problem.samples);
            match conv.output.len() {
                1 | 2 if images > 1 && weights >= (l2 / 2) as f64 => images * height,
                _ => rows.clamp(1, height.max(1)),
            }
        }
        Direction::BackwardWeight => {
            // Every block reads and writes all sums, so that it should have many terms.
            let terms = LEAST_TERMS.div_ceil(width.max(1));
            let bytes = conv.dtype.bytes() as usize;
            let gradient_bytes = conv.k.saturating_mul(width).saturating_mul(bytes);
            // Without a window no row is copied twice, so that small blocks cost nothing, and what they leave in the caches helps.
            let share = if conv.window.volume() == 1 { 16 } else { 4 };
            let rows = (l2 / share / row_bytes.saturating_add(gradient_bytes).max(1)).max(terms);
            // Blocks of volumes are of one slice.
            let most = if conv.output.len() > 2 {
                1
            } else {
                problem.samples.max(1)
            };
            let rows = rows.clamp(1, height * most);
            if rows > height {
                rows / height * height
            } else {
                rows
            }
        }
    }
}

/// Images that share one reading of weights at least twice as large as the second cache, even where the images do not fit there.
const LEAST_IMAGES: usize = 4;

/// Positions that a block of backward weights should have.
const LEAST_TERMS: usize = 256;

/// The register tile of a convolution that slides a window.
pub fn tile(problem: &Problem, conv: &Convolution) -> Tile {
    let columns = lane_channels(conv).div_ceil(problem.lanes());
    if conv.direction == Direction::BackwardWeight {
        let vectors = vectors(lane_channels(conv), problem.lanes());
        return match has_few(conv) {
            true => Tile::for_row(&problem.machine, tile_channels(conv), columns),
            false => Tile::for_channels(&problem.machine, tile_channels(conv), vectors),
        };
    }
    Tile::for_row(&problem.machine, row(conv).0, columns)
}

/// Whether tiles of backward weights have the channels of several taps.
fn has_few(conv: &Convolution) -> bool {
    conv.c / conv.groups.max(1) < FEW_CHANNELS
}

/// What the pixels of a tile of backward weights are: input channels of a group, of all taps of a row of the window where
/// they are few.
fn tile_channels(conv: &Convolution) -> usize {
    let taps = match has_few(conv) {
        true => conv.window.kernel.last().copied().unwrap_or(1),
        false => 1,
    };
    (conv.c / conv.groups.max(1)).saturating_mul(taps)
}

/// Positions of a row of what is computed, and rows; backward data computes each phase of the stride apart.
pub fn row(conv: &Convolution) -> (usize, usize) {
    let sizes: Vec<usize> = match conv.direction {
        Direction::Forward | Direction::BackwardWeight => conv.output.clone(),
        Direction::BackwardData => {
            let phases = conv.input.iter().zip(&conv.window.strides);
            phases.map(|(&size, &stride)| size.div_ceil(stride)).collect()
        }
    };
    let width = sizes.last().copied().unwrap_or(1);
    let height = sizes.iter().rev().nth(1).copied().unwrap_or(1);
    (width, height)
}

/// Cycles of all multiply-adds in register tiles, where rows have `width` positions.
pub fn products_of_rows(
    problem: &Problem,
    conv: &Convolution,
    tile: Tile,
    lanes: usize,
    width: usize,
) -> f64 {
    let channels = lane_channels(conv);
    let all = problem.samples as f64 * conv.multiplications() as f64;
    if conv.direction == Direction::BackwardWeight {
        let wasted = waste(tile_channels(conv), tile.pixels) * waste(channels, lanes);
        return all / lanes as f64 * wasted * tile.cycles_per_product(&problem.machine);
    }
    // Channels that fill no vector cost as much as those that do.
    let row = tile.row_cycles(&problem.machine, width, channels.div_ceil(lanes));
    all / (width * channels).max(1) as f64 * row
}

/// The same of what slides a window over rows of an image.
fn products(problem: &Problem, conv: &Convolution, tile: Tile, lanes: usize) -> f64 {
    products_of_rows(problem, conv, tile, lanes, row(conv).0)
}
