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
//! it, and a second kernel adds these in order. Offsets are i32 elements.

mod axis;
mod epilogue;
mod images;
mod main_loop;
mod operands;
mod shape;
mod shared;
mod tile;
mod weights;

pub use epilogue::Finish;
pub use shape::{Linear, Shape, of_matmul};

use super::Products;
use crate::emit::{Blocks, Buffer, Compare, Elem, Emitter, Extent, Index, Val, Work};
use axis::Axis;
use epilogue::{Destination, store};
use images::{Gather, Gradient, Patches};
use main_loop::{Lane, Sums, product};
use operands::{Operand, Reduced, pixel};
use tile::{Size, Tile, ceil, choose, choose_split};
use weights::{WeightColumns, WeightRows};

/// What the three directions have in common.
#[derive(Clone, Copy)]
pub struct Problem<'c> {
    /// The convolution.
    pub shape: Shape,
    /// How to multiply.
    pub products: Products,
    /// Samples of this rank, i32.
    pub n: Val<'c>,
}

impl<'c> Problem<'c> {
    /// The forward pass: `x` and `w` to `y`.
    pub fn forward(&self, e: &mut Emitter<'c>, [x, w, y]: [Val<'c>; 3], finish: Finish<'c>) {
        let Shape { c, k, .. } = self.shape;
        let batch_bound = self.batch_bound(e);
        let size = Size {
            rows: batch_bound * self.shape.positions(),
            columns: k,
            reduced: self.shape.taps() * c,
        };
        let tile = choose(&size, self.products);
        let image = [self.shape.slides[0].output, self.shape.slides[1].output, k];
        let result = Gathered {
            pointer: y,
            image,
            finish,
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
    }

    /// The gradient for the input: `dy` and `w` to `dx`.
    pub fn backward_data(&self, e: &mut Emitter<'c>, [dy, w, dx]: [Val<'c>; 3]) {
        let Shape { c, k, .. } = self.shape;
        let phases = self.shape.backward();
        let batch_bound = self.batch_bound(e);
        let size = Size {
            rows: batch_bound * outputs(&phases),
            columns: c,
            reduced: phases.iter().map(taps).max().unwrap_or(1) * k,
        };
        let tile = choose(&size, self.products);
        let image = [self.shape.slides[0].input, self.shape.slides[1].input, c];
        let result = Gathered {
            pointer: dx,
            image,
            finish: Finish::default(),
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

    /// One kernel whose planes are `phases`.
    fn gather<B: Operand<'c>>(
        &self,
        e: &mut Emitter<'c>,
        tile: &Tile,
        phases: &[[Axis; 2]],
        (source, channels): (Val<'c>, i64),
        result: &Gathered<'c>,
        right: &dyn Fn(&[Axis; 2], Reduced, Index<'c>) -> B,
    ) {
        if !e.is_current() {
            return;
        }
        let [_, _, columns] = result.image;
        let across = ceil(columns, tile.columns);
        let work = Work {
            fixed: 0,
            per_sample: outputs(phases),
        };
        set_grid(e, tile, work, across, phases.len() as i64);
        let at = Lane::new(e, tile);
        let block = e.special_register("ctaid.x");
        let (down, across) = e.index_split(block, across);
        let (first_row, first) = (
            e.index_scale(down, tile.rows),
            e.index_scale(across, tile.columns),
        );
        let plane = e.special_register("ctaid.z");
        for (number, axes) in phases.iter().enumerate() {
            let rows = e.index_scale(Index::uniform(self.n), taken(axes));
            // Phases have different numbers of rows.
            let mut current = e.index_compare(Compare::Lt, first_row, rows);
            if phases.len() > 1 {
                let this = e.index_compare(Compare::Eq, plane, Index::constant(number as i64));
                current = e.and(current, this);
            }
            e.when(current, |e| {
                let reduced = Reduced {
                    channels,
                    taps: taps(axes),
                    depth: tile.depth,
                };
                let sums = if reduced.size() == 0 {
                    zeros(e, tile)
                } else {
                    let left = Gather {
                        image: source,
                        axes: *axes,
                        reduced,
                        rows,
                        first: first_row,
                    };
                    let right = right(axes, reduced, first);
                    let steps = [Index::constant(0), Index::constant(reduced.steps())];
                    product(e, &at, (tile, self.products), (left, right), steps)
                };
                let place = |e: &mut Emitter<'c>, row: Index<'c>, column: Index<'c>| {
                    let m = e.index_add(first_row, row);
                    let mut exists = e.index_compare(Compare::Lt, m, rows);
                    let column = e.index_add(first, column);
                    if columns % tile.columns != 0 {
                        let inside = e.index_below(column, columns);
                        exists = e.and(exists, inside);
                    }
                    let pixel = result.pixel(e, axes, m);
                    (e.index_add(pixel, column), Some(exists))
                };
                let to = Destination {
                    pointer: result.pointer,
                    column: first,
                    place: &place,
                    finish: result.finish,
                };
                store(e, &at, tile, &sums, &to);
            });
        }
    }

    /// The gradient for the weights: `x` and `dy` to `dw`. Needs two stages.
    pub fn backward_weight(&self, e: &mut Emitter<'c>, [x, dy, dw]: [Val<'c>; 3]) {
        let Shape { c, k, .. } = self.shape;
        let columns = self.shape.taps() * c;
        let batch_bound = self.batch_bound(e);
        let size = Size {
            rows: k,
            columns,
            reduced: batch_bound * self.shape.positions(),
        };
        let (tile, splits) = choose_split(&size, self.products);
        let partial = match (&mut e.device, splits) {
            (Some(device), 2..) => {
                device.scratch_bytes = device.scratch_bytes.max(splits * k * columns * Elem::F32.bytes());
                device.scratch
            }
            _ => dw,
        };
        if e.is_current() {
            self.partial_weights(e, (&tile, splits), &size, [x, dy, partial]);
        }
        if splits == 1 {
            return;
        }
        e.then();
        let elements = k * columns;
        let (from, to) = (
            Buffer::new(partial, Elem::F32, &[elements, 1]),
            Buffer::new(dw, Elem::F32, &[1]),
        );
        e.map(&[Extent::Fixed(elements)], 1, &|e, at| {
            let zero = e.zero(Elem::F64);
            let sum = e.fold(Extent::Fixed(splits), &[zero], |e, split, sum| {
                let part = e.load(&from, &[split, at[0]], None);
                let part = e.convert(part, Elem::F64);
                vec![e.add(sum[0], part)]
            });
            let sum = e.convert(sum[0], Elem::F32);
            e.store(&to, at, sum);
        });
    }

    /// The sums over one part of the outputs in each plane.
    fn partial_weights(
        &self,
        e: &mut Emitter<'c>,
        (tile, splits): (&Tile, i64),
        size: &Size,
        [x, dy, to]: [Val<'c>; 3],
    ) {
        let Size { rows: k, columns, .. } = *size;
        let across = ceil(columns, tile.columns);
        let work = Work {
            fixed: k,
            per_sample: 0,
        };
        set_grid(e, tile, work, across, splits);
        let at = Lane::new(e, tile);
        let block = e.special_register("ctaid.x");
        let (down, across) = e.index_split(block, across);
        let (first_row, first) = (
            e.index_scale(down, tile.rows),
            e.index_scale(across, tile.columns),
        );
        let plane = match splits {
            1 => Index::constant(0),
            _ => e.special_register("ctaid.z"),
        };
        let outputs = e.index_scale(Index::uniform(self.n), self.shape.positions());
        let above = e.index_offset(outputs, tile.depth - 1);
        let steps = e.index_quotient(above, tile.depth);
        let a_split = ceil(ceil(size.reduced, tile.depth), splits).max(1);
        let low = e.index_scale(plane, a_split);
        let high = e.index_offset(low, a_split);
        let (low, high) = (e.index_least(low, steps), e.index_least(high, steps));
        let left = Gradient {
            gradient: dy,
            rows: outputs,
            depth: tile.depth,
            columns: k,
            first: first_row,
            whole: k % tile.rows == 0,
        };
        let right = Patches {
            image: x,
            axes: self.shape.forward(),
            channels: self.shape.c,
            rows: outputs,
            depth: tile.depth,
            first,
            whole: columns % tile.columns == 0,
        };
        let sums = product(e, &at, (tile, self.products), (left, right), [low, high]);
        let begin = e.index_scale(plane, k * columns);
        let place = |e: &mut Emitter<'c>, row: Index<'c>, column: Index<'c>| {
            let (row, column) = (e.index_add(first_row, row), e.index_add(first, column));
            let inside = (k % tile.rows != 0).then(|| e.index_below(row, k));
            let across = (columns % tile.columns != 0).then(|| e.index_below(column, columns));
            let start = e.index_scale(row, columns);
            (e.index_sum(&[begin, start, column]), e.both(inside, across))
        };
        let to = Destination {
            pointer: to,
            column: first,
            place: &place,
            finish: Finish::default(),
        };
        store(e, &at, tile, &sums, &to);
    }

    fn batch_bound(&self, e: &Emitter<'c>) -> i64 {
        e.device.as_ref().map_or(1, |device| device.batch_bound)
    }
}

/// The image that a gather makes.
struct Gathered<'c> {
    pointer: Val<'c>,
    /// Height, width, channels.
    image: [i64; 3],
    finish: Finish<'c>,
}

impl<'c> Gathered<'c> {
    /// Offset of channel 0 of row `m`.
    fn pixel(&self, e: &mut Emitter<'c>, axes: &[Axis; 2], m: Index<'c>) -> Index<'c> {
        if axes.iter().all(Axis::is_dense) {
            return e.index_scale(m, self.image[2]);
        }
        let [n, i, j] = images::output(e, axes, m);
        let [h, w] = axes;
        let (i, j) = (e.index_scale(i, h.spread), e.index_scale(j, w.spread));
        let (i, j) = (e.index_offset(i, h.phase), e.index_offset(j, w.phase));
        pixel(e, [n, i, j], self.image)
    }
}

/// Outputs of a sample in one phase.
fn taken([h, w]: &[Axis; 2]) -> i64 {
    h.count * w.count
}

fn taps([h, w]: &[Axis; 2]) -> i64 {
    h.taps * w.taps
}

/// Outputs of a sample in the largest phase.
fn outputs(phases: &[[Axis; 2]]) -> i64 {
    phases.iter().map(taken).max().unwrap_or(0)
}

fn zeros<'c>(e: &mut Emitter<'c>, tile: &Tile) -> Sums<'c> {
    let [height, width, _] = tile::INSTRUCTION;
    let zero = e.zero(Elem::F32);
    vec![vec![[zero; 4]; (tile.warp_columns / width) as usize]; (tile.warp_rows / height) as usize]
}

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
