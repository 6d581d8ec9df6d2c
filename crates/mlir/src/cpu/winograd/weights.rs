//! Transformed weights: for each point a matrix `[reduced channels][output channels of a chunk]`, made of the plain
//! weights for one chunk of output channels at a time.

use syncbn_ir::schedule::gap;

use super::Algorithm;
use super::tiles::WEIGHTS;
use super::transform::{POINTS, TAPS, Transform, both_axes};
use crate::cpu::conv::filter::{Filter, ragged, read_square, turned};
use crate::emit::{Emitter, Pointer, Val};
use crate::ops::kernel::Tensor;

/// Transformed weights of one chunk.
#[derive(Debug, Clone, Copy)]
pub struct Chunk<'c> {
    /// The first element.
    pub pointer: Pointer<'c>,
    /// Elements from a point to the next one.
    pub point: i64,
    /// Elements from one reduced channel to the next one.
    pub row: i64,
    /// Transforms taps along an axis.
    filter: Transform<'c>,
}

impl<'c> Chunk<'c> {
    /// For so many reduced channels and vectors of output channels.
    pub fn new(
        pointer: Pointer<'c>,
        filter: Transform<'c>,
        [reduced, vectors]: [i64; 2],
        lanes: usize,
    ) -> Chunk<'c> {
        let row = vectors * lanes as i64;
        Chunk {
            pointer,
            point: reduced * row + gap(lanes) as i64,
            row,
            filter,
        }
    }

    /// The same without room between points, as in [`syncbn_ir::Layout::Winograd`].
    pub fn dense(pointer: Pointer<'c>, filter: Transform<'c>, sizes: [i64; 2], lanes: usize) -> Chunk<'c> {
        let chunk = Chunk::new(pointer, filter, sizes, lanes);
        Chunk {
            point: sizes[0] * chunk.row,
            ..chunk
        }
    }

    /// Elements of it.
    pub fn elements(&self) -> i64 {
        WEIGHTS * self.point
    }

    /// Chunk `i` of several.
    pub fn number(&self, e: &Emitter<'c>, i: Val<'c>) -> Chunk<'c> {
        Chunk {
            pointer: e.advance(self.pointer, i, self.elements()),
            ..*self
        }
    }

    fn write(&self, e: &Emitter<'c>, to: Pointer<'c>, taps: &[Vec<Val<'c>>]) {
        for (i, row) in both_axes(e, self.filter, taps).into_iter().enumerate() {
            for (j, value) in row.into_iter().enumerate() {
                e.write(to, (i * POINTS + j) as i64 * self.point, value);
            }
        }
    }

    /// Fills it for the result of a convolution, from vector `first` of its output channels on.
    pub fn forward(&self, e: &Emitter<'c>, w: &Filter<'c>, first: Val<'c>, vectors: i64) {
        let lanes = w.lanes as i64;
        let from = e.advance(w.pointer, first, w.vector());
        e.each_of(vectors, |e, v| {
            let (from, to) = (e.advance(from, v, w.vector()), e.advance(self.pointer, v, lanes));
            e.each_of(w.inputs, |e, c| {
                let (from, to) = (e.advance(from, c, lanes), e.advance(to, c, self.row));
                let tap = |i: usize, j: usize| e.read(from, (i * TAPS + j) as i64 * w.tap(), w.lanes);
                self.write(e, to, &square(tap));
            });
        });
    }

    /// Fills it for the gradient for the input, from vector `first` of the input channels on: taps come in reverse, and
    /// inputs and outputs are exchanged. `scratch` has space for all taps of a square of channels.
    pub fn backward(
        &self,
        e: &Emitter<'c>,
        w: &Filter<'c>,
        scratch: Pointer<'c>,
        first: Val<'c>,
        count: i64,
    ) {
        let lanes = w.lanes as i64;
        let from = e.advance(w.pointer, first, lanes * lanes);
        let all = (TAPS * TAPS) as i64;
        ragged(e, count, lanes, &|e, v, rows| {
            let (from, to) = (
                e.advance(from, v, lanes * lanes),
                e.advance(self.pointer, v, lanes),
            );
            ragged(e, w.outputs, lanes, &|e, block, kept| {
                let from = e.advance(from, block, w.vector());
                let to = e.advance(to, block, lanes * self.row);
                e.each_of(all, |e, tap| {
                    let from = e.advance(from, tap, w.tap());
                    let scratch = e.advance(scratch, tap, lanes * lanes);
                    let turned = turned(e, read_square(e, from, rows, w.lanes));
                    for (r, &row) in turned.iter().enumerate() {
                        e.write(scratch, r as i64 * lanes, row);
                    }
                });
                e.each_of(kept as i64, |e, k| {
                    let (scratch, to) = (e.advance(scratch, k, lanes), e.advance(to, k, self.row));
                    let tap = |i: usize, j: usize| {
                        let reverse = all - 1 - (i * TAPS + j) as i64;
                        e.read(scratch, reverse * lanes * lanes, w.lanes)
                    };
                    self.write(e, to, &square(tap));
                });
            });
        });
    }
}

/// Transforms weights `[outputs / lanes][3][3][inputs][lanes]` to `[outputs / block][6][6][inputs][block]`. Threads divide the
/// vectors of output channels; what is behind the last of them is left as it is.
pub fn prepare<'c>(
    [w, to]: [&Tensor<'c>; 2],
    algorithm: Algorithm<'c>,
    [lanes, block]: [usize; 2],
    e: &Emitter<'c>,
) {
    let w = Filter::of(w, lanes, [1, TAPS as i64, TAPS as i64]);
    let to = Pointer::new(to.pointer, to.memory_elem());
    let vectors = (block / lanes) as i64;
    let first = Chunk::dense(to, algorithm.filter, [w.inputs, vectors], lanes);
    let [low, high] = e.slice_of(w.vectors());
    e.undivided(|e| {
        e.each_in(low, high, |e, v| {
            let (chunk, within) = (e.div(v, e.index(vectors)), e.rem(v, e.index(vectors)));
            let chunk = first.number(e, chunk);
            let pointer = e.advance(chunk.pointer, within, lanes as i64);
            Chunk { pointer, ..chunk }.forward(e, &w, v, 1);
        });
    });
}

fn square<'c>(tap: impl Fn(usize, usize) -> Val<'c>) -> Vec<Vec<Val<'c>>> {
    (0..TAPS)
        .map(|i| (0..TAPS).map(|j| tap(i, j)).collect())
        .collect()
}
