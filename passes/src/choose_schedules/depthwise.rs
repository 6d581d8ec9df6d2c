//! Depthwise convolution: one filter a channel, lanes along channels.
//!
//! It takes all directions, ranks, strides and dilations of convolutions with as many groups as input and output channels. It
//! leaves alone several filters a channel, which the direct form takes.

use syncbn_ir::schedule::borders::reads_image;
use syncbn_ir::schedule::{Copies, Depthwise as Blocking, Direction};
use syncbn_ir::{Layout, Schedule};

use super::cost::{Cost, Tile, copying, tensor_bytes, waste};
use super::{Candidate, Problem};

/// The candidate.
pub struct Depthwise;

impl Candidate for Depthwise {
    fn accepts(&self, problem: &Problem) -> Option<Schedule> {
        let conv = problem.convolution()?;
        if !conv.is_depthwise() {
            return None;
        }
        let width = match conv.direction {
            Direction::Forward | Direction::BackwardWeight => conv.output.last(),
            Direction::BackwardData => conv.input.last(),
        };
        // Half of the registers hold what is multiplied.
        let most = problem.machine.accumulators() / 2;
        let width = width.copied().unwrap_or(1).max(1);
        let pixels = (1..=most.min(width)).rev().min_by(|&a, &b| {
            let cost = |pixels: usize| waste(width, pixels) * (1.0 + 1.0 / pixels as f64);
            cost(a).total_cmp(&cost(b))
        })?;
        Some(Schedule::Depthwise(Blocking {
            lanes: problem.lanes(),
            pixels,
        }))
    }

    fn cost(&self, problem: &Problem, schedule: &Schedule) -> Option<Cost> {
        let (conv, Schedule::Depthwise(s)) = (problem.convolution()?, schedule) else {
            return None;
        };
        let machine = &problem.machine;
        let tile = Tile {
            pixels: s.pixels,
            vectors: 1,
        };
        let products = problem.samples as f64 * conv.multiplications() as f64 / s.lanes as f64;
        let (made, read) = match conv.direction {
            Direction::Forward | Direction::BackwardWeight => (&conv.output, &conv.input),
            Direction::BackwardData => (&conv.input, &conv.output),
        };
        let [width, of_row] = [made, read].map(|sizes| sizes.last().copied().unwrap_or(1));
        let wasted = waste(conv.c, s.lanes) * waste(width, s.pixels);
        // Every term needs a load of its own.
        let each = tile
            .cycles_per_product(machine)
            .max(1.0 / machine.loads_per_cycle);
        let copies = Copies::of_depthwise(conv)?;
        // Images come with channels innermost where they are made by other schedules.
        let in_place = conv.direction != Direction::BackwardWeight
            && reads_image(Layout::Nhwc, &copies.phases, of_row as i64, s.pixels as i64);
        let copied = match in_place {
            true => 0.0,
            false => copying(problem, &copies, copies.rows_of_depthwise()),
        };
        Some(Cost {
            cycles: products * wasted * each + copied,
            bytes: tensor_bytes(conv, problem.samples),
        })
    }
}
