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
mod operands;
mod shape;
mod shared;
mod spatial;
mod statistics;
mod tile;
mod weight_gradient;
mod weights;

pub use epilogue::Finish;
pub use shape::{Linear, Shape, of_matmul};

use crate::Products;
use crate::emit::{Blocks, Elem, Emitter, Key, Numbers, Val, Work, ceil};
use axis::Axis;
use gather::{Arguments, Plan};
use tile::{Size, Tile, choose};

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
        e: &Emitter<'c>,
        [x, w, y]: [Val<'c>; 3],
        finish: Finish<'c>,
        moments: Option<Val<'c>>,
    ) {
        let Shape { c, k, .. } = self.shape;
        let size = Size {
            rows: self.batch_bound(e) * self.shape.positions(),
            columns: k,
            reduced: self.shape.taps() * c,
        };
        let tile = choose(&size, self.products);
        let workspace = moments.map(|_| {
            let elements = statistics::workspace_elements(&tile, size.rows, k);
            e.scratch(Elem::F32, &[1], elements).pointer
        });
        if e.is_current() {
            let mut numbers = Numbers::default();
            let plan = Plan::forward(&self.shape, (tile, self.products, self.result), &mut numbers);
            self.set_grid(e, &tile, self.shape.positions(), k, 1);
            self.note_forward(e, &tile, size.rows, workspace.is_some());
            if e.share(
                Key::new((plan.clone(), finish.plan(), workspace.is_some())),
                numbers,
            ) {
                let arguments = self.arguments([x, w, y], finish, workspace);
                plan.emit(e, &arguments);
            }
        }
        if let (Some(workspace), Some(moments)) = (workspace, moments) {
            e.then();
            self.merge_tiles(e, &tile, workspace, moments);
        }
    }

    /// The gradient for the input: `dy` and `w` to `dx`.
    pub fn backward_data(&self, e: &Emitter<'c>, [dy, w, dx]: [Val<'c>; 3]) {
        if !e.is_current() {
            return;
        }
        let Shape { c, k, .. } = self.shape;
        let phases = self.shape.backward();
        let counts = |of: fn(&[Axis; 2]) -> i64| phases.iter().map(of);
        let size = Size {
            rows: self.batch_bound(e) * counts(taken).sum::<i64>(),
            columns: c,
            reduced: counts(taps).max().unwrap_or(1) * k,
        };
        let tile = choose(&size, self.products);
        let mut numbers = Numbers::default();
        let plan = Plan::backward(&self.shape, (tile, self.products, self.result), &mut numbers);
        let most = counts(taken).max().unwrap_or(0);
        self.set_grid(e, &tile, most, c, phases.len() as i64);
        self.note_backward_data(e, &tile, self.batch_bound(e), &phases);
        if e.share(Key::new(plan.clone()), numbers) {
            let arguments = self.arguments([dy, w, dx], Finish::default(), None);
            plan.emit(e, &arguments);
        }
    }

    fn arguments(
        &self,
        [source, weights, result]: [Val<'c>; 3],
        finish: Finish<'c>,
        workspace: Option<Val<'c>>,
    ) -> Arguments<'c> {
        Arguments {
            source,
            weights,
            result,
            finish,
            workspace,
            n: self.n,
        }
    }

    /// The grid of a gather that makes `outputs` pixels of `columns` channels of each sample in each plane.
    fn set_grid(&self, e: &Emitter<'c>, tile: &Tile, outputs: i64, columns: i64, planes: i64) {
        let work = Work {
            fixed: 0,
            per_sample: outputs,
        };
        set_grid(e, tile, work, ceil(columns, tile.columns), planes);
    }

    fn batch_bound(&self, e: &Emitter<'c>) -> i64 {
        e.device().map_or(1, |device| device.batch_bound)
    }
}

/// Outputs of a sample in one phase.
fn taken([h, w]: &[Axis; 2]) -> i64 {
    h.count * w.count
}

/// Taps of one phase.
fn taps([h, w]: &[Axis; 2]) -> i64 {
    h.taps * w.taps
}

/// Sets how the kernel under construction is launched.
fn set_grid(e: &Emitter, tile: &Tile, work: Work, columns: i64, planes: i64) {
    if let Some(mut device) = e.device_mut() {
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
