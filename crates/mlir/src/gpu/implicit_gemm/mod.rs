//! Convolution on tensor cores: one generator of implicit matrix products for its three directions.
//!
//! `D[m][j] = sum over r of A[m][r] * B[r][j]`, where a block makes a tile of D and nothing is unfolded in memory:
//!
//! | direction | `m` | `r` | `j` | A | B |
//! |---|---|---|---|---|---|
//! | forward | output (n, p, q) | (tap, c) | k | x gathered | w by row |
//! | backward data | input (n, i, j) of one phase | (tap, k) | c | dy gathered | w by column |
//! | backward weight | k | output (n, p, q) | (tap, c) | dy | x gathered |
//!
//! Images are NHWC and weights KRSC, so one copy of each serves all directions. With stride `s` the backward pass
//! of the data has `s*s` phases (see [`axis::Slide::phase`]), in planes of one grid, and multiplies nothing in
//! vain. The reduced index of the weights' gradient is long and its result is small: planes of the grid sum parts of
//! it, and a second kernel adds these in order. Moments of a forward pass's result are taken as it is stored
//! ([`statistics`]). Offsets are i32 elements.
//!
//! How blocks and warps divide a product, the node's schedule says; nothing here chooses.
//!
//! Sizes are open numbers of a plan ([`crate::emit::Numbers`]), so that layers of many shapes share a kernel: its code
//! depends on the tile, on what borders there are, and on what is made of the result.
//!
//! Operands are f32, rounded to tf32 on their way to the matrix units, or bf16. Sums are f32, and so are the gradients of
//! weights; images are stored as the graph says.

mod axis;
mod cost;
mod epilogue;
mod gather;
mod images;
mod main_loop;
mod merge_tiles;
mod operands;
mod shape;
mod shared;
mod spatial;
mod staging;
mod statistics;
mod tile;
mod weight_gradient;
mod weights;

pub use epilogue::Epilogue;
pub use shape::{Linear, Shape, of_matmul};

use syncbn_ir::schedule::ImplicitGemm;

use super::machine::Gpu;
use crate::emit::{Blocks, Cost, Elem, Footprint, Key, Numbers, Work, ceil};
use crate::ops::kernel::elem;
use crate::ops::stage::{self, Stage};
use axis::Axis;
use epilogue::Finish;
use gather::{Arguments, Plan};
use tile::Tile;

/// What the three directions have in common.
#[derive(Clone, Copy)]
pub struct Problem {
    /// The convolution.
    pub shape: Shape,
    /// The GPU.
    pub gpu: Gpu,
    /// How the product is divided.
    pub schedule: ImplicitGemm,
    /// Element type in memory of what the first two directions make.
    pub result: Elem,
}

impl Problem {
    fn tile(&self) -> Tile {
        Tile::new(&self.schedule, elem(self.gpu.products.operand()))
    }

    /// The forward pass: operands 0 and 1, the input and the weights, to result 0, and to its moments, which are result 1
    /// and take a second stage.
    pub fn forward<'a>(&self, epilogue: &Epilogue) -> Vec<Stage<'a>> {
        let (k, epilogue) = (self.shape.k, *epilogue);
        let (tile, rows) = (self.tile(), self.gpu.batch_bound * self.shape.positions());
        let workspace = match epilogue.moments {
            true => self.schedule.moments(rows, k),
            false => 0,
        };
        let mut numbers = Numbers::default();
        let plan = Plan::forward(&self.shape, (tile, self.gpu.products, self.result), &mut numbers);
        let planned = stage::Plan {
            key: Key::new((plan.clone(), epilogue)),
            numbers,
            footprint: Footprint {
                cost: self.cost_of_forward(&tile, rows, epilogue.moments),
                workspace_bytes: workspace * Elem::F32.bytes(),
                ..gather_footprint(&tile, self.shape.positions(), k, 1)
            },
        };
        let mut stages = vec![Stage::planned(planned, move |k, e| {
            let workspace = epilogue
                .moments
                .then(|| e.workspace(Elem::F32, &[1], workspace).pointer);
            plan.emit(e, &Arguments::new(k, epilogue.finish(k), workspace));
        })];
        if epilogue.moments {
            stages.push(self.merge_tiles(&tile, workspace));
        }
        stages
    }

    /// The gradient for the input: operands 0 and 1, the gradient of the result and the weights, to result 0.
    pub fn backward_data<'a>(&self) -> Vec<Stage<'a>> {
        let (tile, c) = (self.tile(), self.shape.c);
        let phases = self.shape.backward();
        let mut numbers = Numbers::default();
        let plan = Plan::backward(&self.shape, (tile, self.gpu.products, self.result), &mut numbers);
        let most = phases.iter().map(taken).max().unwrap_or(0);
        let planned = stage::Plan {
            key: Key::new(plan.clone()),
            numbers,
            footprint: Footprint {
                cost: self.cost_of_backward_data(&tile, &phases),
                ..gather_footprint(&tile, most, c, phases.len() as i64)
            },
        };
        vec![Stage::planned(planned, move |k, e| {
            plan.emit(e, &Arguments::new(k, Finish::default(), None));
        })]
    }
}

/// Outputs of a sample in one phase.
fn taken([h, w]: &[Axis; 2]) -> i64 {
    h.count * w.count
}

/// What a gather needs that makes `outputs` pixels of `columns` channels of each sample in each plane.
fn gather_footprint(tile: &Tile, outputs: i64, columns: i64, planes: i64) -> Footprint {
    let work = Work {
        fixed: 0,
        per_sample: outputs,
    };
    footprint(tile, work, ceil(columns, tile.columns), planes)
}

/// What a product needs in blocks of a tile.
fn footprint(tile: &Tile, work: Work, columns: i64, planes: i64) -> Footprint {
    Footprint {
        work,
        blocks: Blocks {
            threads: tile.threads() as u32,
            takes: tile.rows,
            columns,
            planes,
            shared: tile.shared() as u32,
            cooperative: true,
            resident: Some(tile.resident),
        },
        cost: Cost::default(),
        workspace_bytes: 0,
    }
}
