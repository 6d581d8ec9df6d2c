//! Pointwise convolution: a kernel of one element, as a product of the matrix of positions and that of weights.
//!
//! It takes all directions and strides. It leaves alone padding and groups, which are no such product.

use syncbn_ir::Schedule;
use syncbn_ir::schedule::{Convolution, Direct, Direction, Pointwise as Blocking};

use super::cost::{Cost, Tile, lane_channels, tensor_bytes, vectors, waste};
use super::direct::rows;
use super::{Candidate, Problem};

/// The candidate.
pub struct Pointwise;

/// The share of the peak that is reached, as that of the direct form, but without its copy of the input.
const EFFICIENCY: f64 = 0.94;

/// Sums of so few terms take as long as it takes to write them. A tile then has all output channels of its positions, so that
/// memory is written in order, and no fewer positions than [`LEAST_PIXELS`].
const FEW_TERMS: usize = 32;
const LEAST_PIXELS: usize = 4;

impl Candidate for Pointwise {
    fn accepts(&self, problem: &Problem) -> Option<Schedule> {
        let conv = problem.convolution()?;
        if conv.window.volume() != 1 || conv.is_padded() || conv.groups != 1 {
            return None;
        }
        let tile = tile(problem, conv);
        Some(Schedule::Pointwise(Blocking(Direct {
            lanes: problem.lanes(),
            pixels: tile.pixels,
            vectors: tile.vectors,
            rows: rows(problem, conv),
        })))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (conv, Schedule::Pointwise(Blocking(s))) = (problem.convolution()?, schedule) else {
            return None;
        };
        let tile = Tile {
            pixels: s.pixels,
            rows: 1,
            vectors: s.vectors,
        };
        let wasted = match conv.direction {
            Direction::BackwardWeight => waste(conv.c, s.pixels),
            Direction::Forward | Direction::BackwardData => waste(conv.outputs(), s.pixels),
        };
        let products = problem.samples as f64 * conv.multiplications() as f64 / s.lanes as f64;
        let wasted = wasted * waste(lane_channels(conv), s.lanes);
        let cycles = products * wasted * tile.cycles_per_product(&problem.machine);
        Some(Cost {
            cycles: cycles / EFFICIENCY,
            bytes: tensor_bytes(conv, problem.samples),
        })
    }
}

/// Positions lie in one row, whatever the image.
fn tile(problem: &Problem, conv: &Convolution) -> Tile {
    let mut vectors = vectors(lane_channels(conv), problem.lanes());
    let all = lane_channels(conv).div_ceil(problem.lanes());
    let terms = match conv.direction {
        Direction::Forward => conv.c,
        Direction::BackwardData => conv.k,
        Direction::BackwardWeight => usize::MAX,
    };
    if terms <= FEW_TERMS && all > vectors && all <= problem.machine.accumulators() / LEAST_PIXELS {
        vectors = all;
    }
    match conv.direction {
        Direction::BackwardWeight => Tile::for_channels(&problem.machine, conv.c, vectors),
        Direction::Forward | Direction::BackwardData => {
            Tile::for_positions(&problem.machine, conv.outputs(), 1, vectors)
        }
    }
}
