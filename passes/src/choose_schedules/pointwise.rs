//! Pointwise convolution: a kernel of one element, as a product of the matrix of positions and that of weights.
//!
//! It takes all directions and strides. It leaves alone padding and groups, which are no such product.

use syncbn_ir::Schedule;
use syncbn_ir::schedule::axis::is_short;
use syncbn_ir::schedule::{Convolution, Copies, Direct, Direction, Pointwise as Blocking};

use super::cost::{Cost, Tile, lane_channels, tensor_bytes, vectors};
use super::direct::{products_of_rows, row, rows};
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
            rows: rows(problem, conv, &Copies::of_direct(conv, tile.pixels)?),
        })))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (conv, Schedule::Pointwise(Blocking(s))) = (problem.convolution()?, schedule) else {
            return None;
        };
        let tile = Tile::new(s.pixels, s.vectors);
        let cycles = products_of_rows(problem, conv, tile, s.lanes, width(conv, s.pixels));
        Some(Cost {
            cycles: cycles / EFFICIENCY,
            bytes: tensor_bytes(conv, problem.samples),
        })
    }
}

/// Positions of a row: those of a whole image where its rows are short.
fn width(conv: &Convolution, pixels: usize) -> usize {
    let (width, _) = row(conv);
    let strided = conv.window.strides.iter().any(|&stride| stride != 1);
    match !strided && is_short(width as i64, pixels as i64) {
        true => conv.outputs(),
        false => width,
    }
}

fn tile(problem: &Problem, conv: &Convolution) -> Tile {
    let columns = lane_channels(conv).div_ceil(problem.lanes());
    let terms = match conv.direction {
        Direction::BackwardWeight => {
            // Three vectors load less for a product than two, where none is left over.
            let vectors = match columns % 3 {
                0 => 3,
                _ => vectors(lane_channels(conv), problem.lanes()),
            };
            return Tile::for_channels(&problem.machine, conv.c, vectors);
        }
        Direction::Forward => conv.c,
        Direction::BackwardData => conv.k,
    };
    let machine = &problem.machine;
    if terms <= FEW_TERMS && columns <= machine.accumulators() / LEAST_PIXELS {
        let tile = Tile::for_positions(machine, conv.outputs(), columns);
        return match width(conv, tile.pixels) {
            width if width == conv.outputs() => tile,
            width => Tile::for_positions(machine, width, columns),
        };
    }
    // The fastest of the tiles that are so for rows as they are then.
    let (short, long) = (row(conv).0, conv.outputs());
    let tiles = [short, long].map(|width| Tile::for_row(machine, width, columns));
    let cycles = |tile: &Tile| {
        let width = width(conv, tile.pixels);
        tile.row_cycles(machine, width, columns) / width.max(1) as f64
    };
    match cycles(&tiles[1]) < cycles(&tiles[0]) {
        true => tiles[1],
        false => tiles[0],
    }
}
