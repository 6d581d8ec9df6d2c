//! The gradient for the weights: the adjoint of the algorithm.

use syncbn_ir::ops::ConvBackwardWeight;

use super::groups::weights_of;
use super::tiles::{Image, Points, cover, read_points, read_tile};
use super::transform::{self, TAPS, Transform, both_axes};
use super::weights::Chunk;
use super::{Algorithm, Blocking, chunks, phases, polyphase, single, zeros};
use crate::cpu::conv::filter::{Filter, ragged, ragged_in};
use crate::cpu::product::microkernel::{Ahead, Tile, Turns};
use crate::emit::{Compare, Emitter, Extent, Pointer, Val};
use crate::ops::kernel::Kernel;

/// Tiles that a turn of the innermost loop sums over.
const STEP: i64 = 4;

/// `dw[k, c, t] = sum over n, o of x[n, c, o + t - pad] * dy[n, k, o]`
pub fn backward_weight<'c>(b: &Blocking<'c>, op: &ConvBackwardWeight, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, dy, dw) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window();
    let (algorithm, output_adjoint, filter_adjoint): (Algorithm<'c>, Transform<'c>, Transform<'c>) =
        match window.strides[0] {
            1 => (single(), transform::output_adjoint, transform::filter_adjoint),
            _ => (phases(), polyphase::output_adjoint, polyphase::filter_adjoint),
        };
    let made = algorithm.target as i64;
    let tiles = cover(dy, made);
    Gradient {
        blocking: *b,
        algorithm,
        output_adjoint,
        filter_adjoint,
        x: Image::new(
            x,
            [0, 1].map(|axis| -(window.pad_begin(axis) as i64)),
            algorithm.source,
            tiles,
        ),
        dy: Image::new(dy, [0, 0], (algorithm.target, made), tiles),
        filter: Filter::of(dw, b.lanes, [1, TAPS as i64, TAPS as i64]),
    }
    .emit(e, k.n);
}

struct Gradient<'c> {
    blocking: Blocking<'c>,
    algorithm: Algorithm<'c>,
    output_adjoint: Transform<'c>,
    filter_adjoint: Transform<'c>,
    x: Image<'c>,
    dy: Image<'c>,
    filter: Filter<'c>,
}

/// The parts of the workspace.
struct Workspace<'c> {
    zeros: Pointer<'c>,
    inputs: Points<'c>,
    outputs: Points<'c>,
    weights: Chunk<'c>,
}

impl<'c> Gradient<'c> {
    fn workspace(&self, e: &Emitter<'c>) -> Workspace<'c> {
        let b = &self.blocking;
        let start = Pointer::new(b.own, self.x.pointer.elem);
        let lanes = b.lanes as i64;
        let row = self.algorithm.source.0 as i64 * self.x.channels.max(self.dy.channels) + lanes;
        let groups = self.algorithm.groups;
        let blocks = |channels: i64| (channels + lanes - 1) / lanes;
        let (inputs, next) = Points::new(
            e,
            e.shift(start, row),
            groups,
            [blocks(self.x.channels), b.tiles],
            b.lanes,
        );
        // A chunk may end inside the padded last vectors.
        let padded = blocks(self.dy.channels);
        let (outputs, next) = Points::new(e, next, groups, [padded, b.tiles], b.lanes);
        Workspace {
            zeros: zeros(e, start, row, b.lanes),
            inputs,
            outputs,
            weights: Chunk::new(next, self.algorithm.filter, [self.x.channels, b.vectors], b.lanes),
        }
    }

    fn emit(&self, e: &Emitter<'c>, n: Val<'c>) {
        let b = &self.blocking;
        let work = self.workspace(e);
        // A rank without samples has a gradient of zeros.
        let none = e.compare(Compare::Eq, n, e.index(0));
        let size = self.filter.vectors() * self.filter.vector();
        e.when(none, |e| {
            e.once(|e| e.zero_run(self.filter.pointer, size, b.lanes));
        });
        // Threads share the input channels, and need no others' results.
        let lanes = b.lanes as i64;
        let part = e
            .team()
            .map(|_| e.slice_of((self.x.channels + lanes - 1) / lanes));
        let all = e.mul(n, e.index(self.x.count()));
        e.for_range(e.index(0), all, b.tiles, &[], |e, first, _| {
            let count = e.min(e.sub(all, first), e.index(b.tiles));
            self.transform(
                e,
                &self.x,
                &work.inputs,
                (work.zeros, self.algorithm.input),
                (first, count),
                part,
            );
            self.transform(
                e,
                &self.dy,
                &work.outputs,
                (work.zeros, self.output_adjoint),
                (first, count),
                None,
            );
            let begins = e.compare(Compare::Eq, first, e.index(0));
            chunks(e, (self.dy.channels, None), b.chunk(), &|e, i, channels| {
                let vectors = b.vectors_of(channels);
                let weights = match b.chunked {
                    true => work.weights,
                    false => work.weights.number(e, i),
                };
                self.multiply(e, &work, &weights, (i, vectors), (count, part), begins);
                if b.chunked {
                    self.finish(e, &weights, (i, vectors), part, Some(begins));
                }
            });
            Vec::new()
        });
        if !b.chunked {
            let some = e.compare(Compare::Ne, n, e.index(0));
            e.when(some, |e| {
                chunks(e, (self.dy.channels, None), b.chunk(), &|e, i, channels| {
                    let weights = work.weights.number(e, i);
                    self.finish(e, &weights, (i, b.vectors_of(channels)), part, None);
                });
            });
        }
    }

    fn transform(
        &self,
        e: &Emitter<'c>,
        image: &Image<'c>,
        points: &Points<'c>,
        (zeros, transform): (Pointer<'c>, Transform<'c>),
        (first, count): (Val<'c>, Val<'c>),
        part: Option<[Val<'c>; 2]>,
    ) {
        let lanes = self.blocking.lanes;
        e.each_in(e.index(0), count, |e, t| {
            let place = image.place(e, e.add(first, t));
            let rows = image.rows(e, &place, zeros);
            let columns = image.columns(e, &place, lanes);
            ragged_in(e, (image.channels, part), lanes as i64, &|e, block, active| {
                let at: Vec<Pointer<'c>> = rows
                    .iter()
                    .map(|&row| e.advance(row, block, lanes as i64))
                    .collect();
                let d = read_tile(e, &at, &columns, image.channels, (lanes, active));
                if self.blocking.chunked {
                    points.fetch(e, [block, t], self.algorithm.values, true);
                }
                points.write(e, block, t, &both_axes(e, transform, &d));
            });
        });
        // Sums go in whole steps: what is behind the last tile counts nothing.
        let step = e.index(STEP);
        let end = e.mul(e.div(e.add(count, e.index(STEP - 1)), step), step);
        let zero = e.splat(e.zero(points.pointer.elem), lanes);
        e.each_in(count, end, |e, t| {
            let zeros = vec![vec![zero; self.algorithm.values]; self.algorithm.values];
            ragged_in(e, (image.channels, part), lanes as i64, &|e, block, _| {
                points.write(e, block, t, &zeros);
            });
        });
    }

    /// Adds the products of all points for a chunk of output channels to its sums.
    fn multiply(
        &self,
        e: &Emitter<'c>,
        work: &Workspace<'c>,
        weights: &Chunk<'c>,
        (chunk, vectors): (Val<'c>, i64),
        (count, part): (Val<'c>, Option<[Val<'c>; 2]>),
        begins: Val<'c>,
    ) {
        let b = &self.blocking;
        let lanes = b.lanes as i64;
        let end = e.mul(
            e.div(e.add(count, e.index(STEP - 1)), e.index(STEP)),
            e.index(STEP),
        );
        let outputs = work.outputs.groups();
        for ((group, first, matrix), (_, right_first, right_matrix)) in work.inputs.groups().zip(outputs) {
            let (block, right_block) = (work.inputs.block(group), work.outputs.block(group));
            let steps = e.div(e.mul(end, e.index(group.rows)), e.index(STEP));
            e.each_of((group.matrices[0] * group.matrices[1]) as i64, |e, point| {
                let left = e.advance(e.shift(work.inputs.pointer, first), point, matrix);
                let right = e.advance(e.shift(work.outputs.pointer, right_first), point, right_matrix);
                let right = e.advance(right, chunk, b.vectors * right_block);
                let to = e.advance(weights.pointer, weights_of(e, group, point), weights.point);
                ragged_in(e, (self.x.channels, part), lanes, &|e, i, active| {
                    let (left, to) = (e.advance(left, i, block), e.advance(to, i, lanes * weights.row));
                    ragged(e, active as i64, b.pixels, &|e, part, rows| {
                        let tile = Tile {
                            left: e.advance(left, part, b.pixels),
                            rows: (0..rows as i64).collect(),
                            right,
                            vectors: (0..vectors).map(|v| v * right_block).collect(),
                            lanes: b.lanes,
                            last: b.lanes,
                            ahead: Ahead::default(),
                        };
                        let to = e.advance(to, part, b.pixels * weights.row);
                        self.add_products(e, &tile, to, weights.row, steps, begins);
                    });
                });
            });
        }
    }

    /// Adds a tile's products of all rows to its sums.
    fn add_products(
        &self,
        e: &Emitter<'c>,
        tile: &Tile<'c>,
        to: Pointer<'c>,
        row: i64,
        steps: Val<'c>,
        begins: Val<'c>,
    ) {
        let lanes = tile.lanes as i64;
        let vectors = tile.vectors.len() as i64;
        let loops = [
            Turns {
                count: Extent::Batch(steps),
                left: STEP * lanes,
                right: STEP * lanes,
            },
            Turns::fixed(STEP, lanes, lanes),
        ];
        let sums = tile.accumulate(e, &loops, &tile.zeros(e));
        let place = |i: usize| i as i64 / vectors * row + i as i64 % vectors * lanes;
        let set = |e: &Emitter<'c>| {
            for (i, &sum) in sums.iter().enumerate() {
                e.write(to, place(i), sum);
            }
        };
        if self.blocking.chunked {
            return set(e);
        }
        e.either(begins, set, |e| {
            for (i, &sum) in sums.iter().enumerate() {
                e.write(to, place(i), e.add(e.read(to, place(i), tile.lanes), sum));
            }
        });
    }

    /// Transforms the sums of a chunk to gradients of taps. With `begins`, they are added to those of earlier blocks of
    /// tiles unless it holds.
    fn finish(
        &self,
        e: &Emitter<'c>,
        weights: &Chunk<'c>,
        (chunk, vectors): (Val<'c>, i64),
        part: Option<[Val<'c>; 2]>,
        begins: Option<Val<'c>>,
    ) {
        let (b, f) = (&self.blocking, &self.filter);
        let lanes = b.lanes as i64;
        let to = e.advance(f.pointer, chunk, b.vectors * f.vector());
        let all = |add: bool| {
            move |e: &Emitter<'c>| {
                e.each_of(vectors, |e, v| {
                    let (from, to) = (e.advance(weights.pointer, v, lanes), e.advance(to, v, f.vector()));
                    let inputs = part.map(|[low, high]| {
                        let high = e.mul(high, e.index(lanes));
                        [e.mul(low, e.index(lanes)), e.min(high, e.index(f.inputs))]
                    });
                    let [low, high] = inputs.unwrap_or([e.index(0), e.index(f.inputs)]);
                    e.each_in(low, high, |e, c| {
                        let (from, to) = (e.advance(from, c, weights.row), e.advance(to, c, lanes));
                        let points = read_points(e, from, weights.point, b.lanes);
                        let taps = both_axes(e, self.filter_adjoint, &points);
                        for (tap, &value) in taps.iter().flatten().enumerate() {
                            let at = tap as i64 * f.tap();
                            let value = match add {
                                true => e.add(e.read(to, at, b.lanes), value),
                                false => value,
                            };
                            e.write(to, at, value);
                        }
                    });
                });
            }
        };
        match begins {
            Some(begins) => e.either(begins, all(false), all(true)),
            None => all(false)(e),
        }
    }
}
