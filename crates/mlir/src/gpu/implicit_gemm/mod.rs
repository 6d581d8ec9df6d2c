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
//! of the data has `s*s` phases (see [`axis::Slide::backward`]), in planes of one grid, and multiplies nothing in
//! vain. The reduced index of the weights' gradient is long and its result is small: planes of the grid sum parts of
//! it, and a second kernel adds these in order. Moments of a forward pass's result are taken as it is stored
//! ([`statistics`]). Offsets are i32 elements.
//!
//! Operands are f32, rounded to tf32 on their way to the matrix units, or bf16. Sums are f32, and so are the gradients of
//! weights; images are stored as the graph says.

mod axis;
mod epilogue;
mod gather;
mod images;
mod main_loop;
mod operands;
mod shape;
mod shared;
mod statistics;
mod tile;
mod weight_gradient;
mod weights;

pub use epilogue::Finish;
pub use shape::{Linear, Shape, of_matmul};

use super::Products;
use crate::emit::{Blocks, Elem, Emitter, Val, Work};
use gather::{Gathered, taken, taps};
use tile::{Size, Tile, choose};
use weights::{WeightColumns, WeightRows};

/// What the three directions have in common.
#[derive(Clone, Copy)]
pub struct Problem<'c> {
    /// The convolution.
    pub shape: Shape,
    /// How to multiply.
    pub products: Products,
    /// Element type in memory of what the first two directions make.
    pub result: Elem,
    /// Samples of this rank, i32.
    pub n: Val<'c>,
}

impl<'c> Problem<'c> {
    /// The forward pass: `x` and `w` to `y`, and to its moments where those have a place, which needs two stages.
    pub fn forward(
        &self,
        e: &mut Emitter<'c>,
        [x, w, y]: [Val<'c>; 3],
        finish: Finish<'c>,
        moments: Option<Val<'c>>,
    ) {
        let Shape { c, k, .. } = self.shape;
        let batch_bound = self.batch_bound(e);
        let size = Size {
            rows: batch_bound * self.shape.positions(),
            columns: k,
            reduced: self.shape.taps() * c,
        };
        let tile = choose(&size, self.products);
        let image = [self.shape.slides[0].output, self.shape.slides[1].output, k];
        let workspace = match (&mut e.device, moments) {
            (Some(device), Some(_)) => {
                let bytes = statistics::workspace_bytes(&tile, size.rows, k);
                device.scratch_bytes = device.scratch_bytes.max(bytes);
                Some(device.scratch)
            }
            _ => None,
        };
        let result = Gathered {
            pointer: y,
            elem: self.result,
            image,
            finish,
            workspace,
        };
        self.gather(
            e,
            &tile,
            &[self.shape.forward()],
            (x, c),
            &result,
            &|_, reduced, first| WeightRows {
                weights: w,
                reduced,
                rows: k,
                first,
                whole: k % tile.columns == 0,
            },
        );
        if let (Some(workspace), Some(moments)) = (workspace, moments) {
            e.then();
            self.merge_tiles(e, &tile, workspace, moments);
        }
    }

    /// The gradient for the input: `dy` and `w` to `dx`.
    pub fn backward_data(&self, e: &mut Emitter<'c>, [dy, w, dx]: [Val<'c>; 3]) {
        let Shape { c, k, .. } = self.shape;
        let phases = self.shape.backward();
        let batch_bound = self.batch_bound(e);
        let size = Size {
            rows: batch_bound * phases.iter().map(taken).sum::<i64>(),
            columns: c,
            reduced: phases.iter().map(taps).max().unwrap_or(1) * k,
        };
        let tile = choose(&size, self.products);
        let image = [self.shape.slides[0].input, self.shape.slides[1].input, c];
        let result = Gathered {
            pointer: dx,
            elem: self.result,
            image,
            finish: Finish::default(),
            workspace: None,
        };
        self.gather(e, &tile, &phases, (dy, k), &result, &|axes, reduced, first| {
            WeightColumns {
                weights: w,
                axes: *axes,
                window: self.shape.window(),
                reduced,
                columns: c,
                first,
                whole: c % tile.columns == 0,
            }
        });
    }

    fn batch_bound(&self, e: &Emitter<'c>) -> i64 {
        e.device.as_ref().map_or(1, |device| device.batch_bound)
    }
}

/// Sets how the kernel under construction is launched.
fn set_grid(e: &mut Emitter, tile: &Tile, work: Work, columns: i64, planes: i64) {
    if let Some(device) = &mut e.device {
        device.work = work;
        device.blocks = Blocks {
            threads: tile.threads() as u32,
            takes: tile.rows,
            columns,
            planes,
            shared: tile.shared() as u32,
            cooperative: true,
            resident: Some(tile.resident),
        };
    }
}
