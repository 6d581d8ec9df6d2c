//! Matrix products in blocks: a panel of columns stays in the cache while all rows pass by.
//!
//! It takes every `matmul`. It leaves alone nothing.

use syncbn_ir::Schedule;
use syncbn_ir::schedule::Product as Blocking;

use super::cost::{Cost, Tile, vectors, waste};
use super::{Candidate, Problem, Work};

/// The candidate.
pub struct Product;

/// The share of the peak that is reached.
const EFFICIENCY: f64 = 0.85;

impl Candidate for Product {
    fn accepts(&self, problem: &Problem) -> Option<Schedule> {
        let Work::Product([rows, columns, terms]) = problem.work else {
            return None;
        };
        let (machine, lanes) = (&problem.machine, problem.lanes());
        let vectors = vectors(columns, lanes);
        let tile = Tile::for_positions(machine, rows, vectors);
        // A panel takes half of the first cache.
        let width = vectors * lanes * problem.dtype.bytes() as usize;
        let depth = (machine.l1 / 2 / width).min(terms).max(1);
        Some(Schedule::Product(Blocking {
            lanes,
            pixels: tile.pixels,
            vectors,
            depth,
        }))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (Work::Product([rows, columns, terms]), Schedule::Product(s)) = (&problem.work, schedule) else {
            return None;
        };
        let tile = Tile {
            pixels: s.pixels,
            vectors: s.vectors,
        };
        let products = *rows as f64 * *terms as f64 * columns.div_ceil(s.lanes) as f64;
        let elements = rows * terms + terms * columns + rows * columns;
        Some(Cost {
            cycles: products * waste(*rows, s.pixels) * tile.cycles_per_product(&problem.machine)
                / EFFICIENCY,
            bytes: elements as f64 * problem.dtype.bytes() as f64,
        })
    }
}
