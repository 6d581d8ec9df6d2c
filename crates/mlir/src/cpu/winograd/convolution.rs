//! The result of a convolution, and its gradient for the input, which is a convolution too.

use syncbn_ir::ops::{Conv, ConvBackwardData, Window};

use super::groups::weights_of;
use super::tiles::{Image, Points, cover, read_tile};
use super::transform::{TAPS, both_axes};
use super::weights::Chunk;
use super::{Algorithm, Blocking, chunks, phases, phases_backward, single, zeros};
use crate::cpu::conv::epilogue::Epilogue;
use crate::cpu::conv::filter::{Filter, ragged};
use crate::cpu::conv::items::Items;
use crate::cpu::product::microkernel::{Ahead, Next, Tile, Turns};
use crate::emit::{Emitter, Pointer, Val};
use crate::ops::kernel::{Kernel, Tensor};

/// `y = act(residual + bias + x (*) w)`
pub fn forward<'c>(b: &Blocking<'c>, op: &Conv, k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
    let (x, w, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window(&w.ty)?;
    let filter = Filter::of(w, b.lanes, [1, TAPS as i64, TAPS as i64]);
    let algorithm = if window.strides[0] == 1 {
        single()
    } else {
        phases()
    };
    let start = [0, 1].map(|axis| -(window.pad_begin(axis) as i64));
    Convolution::new(
        (*b, algorithm),
        [x, y],
        start,
        filter,
        Epilogue::new(op, k),
        false,
    )
    .emit(e, k.n);
    Ok(())
}

/// `dx = dy (*) w`, with `w` turned around.
pub fn backward_data<'c>(
    b: &Blocking<'c>,
    op: &ConvBackwardData,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
    let (dy, w, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window: Window = op.window(&w.ty)?;
    let filter = Filter::of(w, b.lanes, [1, TAPS as i64, TAPS as i64]);
    let (algorithm, start) = match window.strides[0] {
        1 => (
            single(),
            [0, 1].map(|axis| window.pad_begin(axis) as i64 + 1 - TAPS as i64),
        ),
        _ => (phases_backward(), [0, 0]),
    };
    Convolution::new((*b, algorithm), [dy, dx], start, filter, Epilogue::none(), true).emit(e, k.n);
    Ok(())
}

struct Convolution<'c> {
    blocking: Blocking<'c>,
    algorithm: Algorithm<'c>,
    source: Image<'c>,
    target: Image<'c>,
    filter: Filter<'c>,
    epilogue: Epilogue<'c>,
    /// Whether this is the gradient for the input.
    backward: bool,
}

/// The parts of the workspace.
struct Workspace<'c> {
    zeros: Pointer<'c>,
    scratch: Pointer<'c>,
    inputs: Points<'c>,
    products: Points<'c>,
    weights: Chunk<'c>,
}

impl<'c> Convolution<'c> {
    fn new(
        (blocking, algorithm): (Blocking<'c>, Algorithm<'c>),
        [source, target]: [&Tensor<'c>; 2],
        start: [i64; 2],
        filter: Filter<'c>,
        epilogue: Epilogue<'c>,
        backward: bool,
    ) -> Convolution<'c> {
        let made = algorithm.target as i64;
        let tiles = cover(target, made);
        Convolution {
            blocking,
            algorithm,
            source: Image::new(source, start, algorithm.source, tiles),
            target: Image::new(target, [0, 0], (algorithm.target, made), tiles),
            filter,
            epilogue,
            backward,
        }
    }

    /// The parts of a workspace that begins here. What all blocks of tiles use is made once for all threads, in the common
    /// one, unless it is there already.
    fn workspace(&self, e: &Emitter<'c>) -> Workspace<'c> {
        let b = &self.blocking;
        let own = self.parts(e, b.own);
        let weights = match (b.prepared, b.chunked) {
            (true, _) => self.prepared(),
            (false, true) => own.weights,
            (false, false) => self.parts(e, b.workspace).weights,
        };
        let row = self.row();
        zeros(e, own.zeros, row, b.lanes);
        Workspace { weights, ..own }
    }

    /// Weights that come transformed.
    fn prepared(&self) -> Chunk<'c> {
        let b = &self.blocking;
        let sizes = [self.source.channels, b.vectors];
        Chunk::dense(self.filter.pointer, self.algorithm.filter, sizes, b.lanes)
    }

    /// Elements of a row of a tile, and a vector more.
    fn row(&self) -> i64 {
        self.algorithm.source.0 as i64 * self.source.channels + self.blocking.lanes as i64
    }

    fn parts(&self, e: &Emitter<'c>, workspace: Val<'c>) -> Workspace<'c> {
        let b = &self.blocking;
        let zeros = Pointer::new(workspace, self.source.pointer.elem);
        let lanes = b.lanes as i64;
        let scratch = e.shift(zeros, self.row());
        let next = e.shift(scratch, (TAPS * TAPS) as i64 * lanes * lanes);
        let blocks = (self.source.channels + lanes - 1) / lanes;
        let groups = self.algorithm.groups;
        let (inputs, next) = Points::new(e, next, groups, [blocks, b.tiles], b.lanes);
        let (products, next) = Points::new(e, next, groups, [b.vectors, b.tiles], b.lanes);
        let sizes = [self.source.channels, b.vectors];
        Workspace {
            zeros,
            scratch,
            inputs,
            products,
            weights: Chunk::new(next, self.algorithm.filter, sizes, b.lanes),
        }
    }

    fn emit(&self, e: &Emitter<'c>, n: Val<'c>) {
        let b = &self.blocking;
        let work = self.workspace(e);
        let made = self.target.channels;
        let per_block = (made + b.chunk() - 1) / b.chunk();
        if !b.chunked && !b.prepared {
            let own = e.team().map(|_| e.slice_of(per_block));
            chunks(e, (made, own), b.chunk(), &|e, i, channels| {
                self.transform_weights(e, &work, &work.weights.number(e, i), (i, channels));
            });
            e.meet();
        }
        let all = e.mul(n, e.index(self.source.count()));
        let size = e.index(b.tiles);
        let blocks = e.div(e.add(all, e.index(b.tiles - 1)), size);
        Items::new(e, blocks, per_block).each(e, |e, block, part| {
            let first = e.mul(block, size);
            let count = e.min(e.sub(all, first), size);
            self.transform_inputs(e, &work, first, count);
            chunks(e, (made, part), b.chunk(), &|e, i, channels| {
                let weights = match b.chunked {
                    true => {
                        self.transform_weights(e, &work, &work.weights, (i, channels));
                        work.weights
                    }
                    false => work.weights.number(e, i),
                };
                self.multiply(e, &work, &weights, b.vectors_of(channels), count);
                self.transform_outputs(e, &work, (i, channels), first, count);
            });
        });
    }

    fn transform_weights(
        &self,
        e: &Emitter<'c>,
        work: &Workspace<'c>,
        to: &Chunk<'c>,
        (i, channels): (Val<'c>, i64),
    ) {
        let b = &self.blocking;
        let first = e.mul(i, e.index(b.vectors));
        match self.backward {
            true => to.backward(e, &self.filter, work.scratch, first, channels),
            false => to.forward(e, &self.filter, first, b.vectors_of(channels)),
        }
    }

    fn transform_inputs(&self, e: &Emitter<'c>, work: &Workspace<'c>, first: Val<'c>, count: Val<'c>) {
        let (lanes, source) = (self.blocking.lanes, &self.source);
        e.each_in(e.index(0), count, |e, t| {
            let place = source.place(e, e.add(first, t));
            let rows = source.rows(e, &place, work.zeros);
            let columns = source.columns(e, &place, lanes);
            ragged(e, source.channels, lanes as i64, &|e, block, active| {
                let at: Vec<Pointer<'c>> = rows
                    .iter()
                    .map(|&row| e.advance(row, block, lanes as i64))
                    .collect();
                let d = read_tile(e, &at, &columns, source.channels, (lanes, active));
                if self.blocking.chunked {
                    work.inputs.fetch(e, [block, t], self.algorithm.values, true);
                }
                work.inputs
                    .write(e, block, t, &both_axes(e, self.algorithm.input, &d));
            });
        });
    }

    /// The products of all points for a chunk of output channels.
    fn multiply(
        &self,
        e: &Emitter<'c>,
        work: &Workspace<'c>,
        weights: &Chunk<'c>,
        vectors: i64,
        count: Val<'c>,
    ) {
        let b = &self.blocking;
        let lanes = b.lanes as i64;
        let (whole, rest) = (self.source.channels / lanes, self.source.channels % lanes);
        let products = work.products.groups();
        for ((group, first, matrix), (_, to_first, to_matrix)) in work.inputs.groups().zip(products) {
            let (block, to_block) = (work.inputs.block(group), work.products.block(group));
            let count = e.mul(count, e.index(group.rows));
            e.each_of((group.matrices[0] * group.matrices[1]) as i64, |e, point| {
                let left = e.advance(e.shift(work.inputs.pointer, first), point, matrix);
                let right = e.advance(weights.pointer, weights_of(e, group, point), weights.point);
                let to = e.advance(e.shift(work.products.pointer, to_first), point, to_matrix);
                e.for_range(e.index(0), count, b.pixels, &[], |e, t, _| {
                    let tile = Tile {
                        left: e.advance(left, t, lanes),
                        rows: (0..b.pixels).map(|p| p * lanes).collect(),
                        right,
                        vectors: (0..vectors).map(|v| v * lanes).collect(),
                        lanes: b.lanes,
                        last: b.lanes,
                        ahead: Ahead {
                            next: Some(Next {
                                distance: b.pixels * lanes,
                                row: lanes,
                            }),
                            ..Ahead::default()
                        },
                    };
                    let mut sums = tile.zeros(e);
                    if whole > 0 {
                        let blocks = Turns::fixed(whole, block, lanes * weights.row);
                        sums = tile.accumulate(e, &[blocks, Turns::fixed(lanes, 1, weights.row)], &sums);
                    }
                    if rest > 0 {
                        let tile = Tile {
                            left: e.shift(tile.left, whole * block),
                            right: e.shift(tile.right, whole * lanes * weights.row),
                            ..tile
                        };
                        sums = tile.accumulate(e, &[Turns::fixed(rest, 1, weights.row)], &sums);
                    }
                    let to = e.advance(to, t, lanes);
                    for (r, sums) in sums.chunks(vectors as usize).enumerate() {
                        for (v, &sum) in sums.iter().enumerate() {
                            e.write(to, v as i64 * to_block + r as i64 * lanes, sum);
                        }
                    }
                    Vec::new()
                });
            });
        }
    }

    fn transform_outputs(
        &self,
        e: &Emitter<'c>,
        work: &Workspace<'c>,
        (chunk, channels): (Val<'c>, i64),
        first: Val<'c>,
        count: Val<'c>,
    ) {
        let (b, target) = (&self.blocking, &self.target);
        let channel = e.mul(chunk, e.index(b.chunk()));
        e.each_in(e.index(0), count, |e, t| {
            let place = target.place(e, e.add(first, t));
            let inside = |e: &Emitter<'c>, axis: usize| -> Vec<Option<Val<'c>>> {
                (0..target.extent)
                    .map(|i| target.inside(e, &place, axis, i))
                    .collect()
            };
            let inside = [inside(e, 0), inside(e, 1)];
            let start = target.start_of(e, &place);
            ragged(e, channels, b.lanes as i64, &|e, v, active| {
                let m = work.products.read(e, v, t, self.algorithm.values);
                if b.chunked {
                    work.products.fetch(e, [v, t], self.algorithm.values, false);
                }
                let at = e.add(channel, e.mul(v, e.index(b.lanes as i64)));
                let start = e.add(start, at);
                let to = e.advance(target.pointer, start, 1);
                for (i, row) in both_axes(e, self.algorithm.output, &m).into_iter().enumerate() {
                    e.where_inside(inside[0][i], |e| {
                        for (j, &sum) in row.iter().enumerate() {
                            let offset = (i as i64 * target.sizes[1] + j as i64) * target.channels;
                            e.where_inside(inside[1][j], |e| {
                                let v = self.epilogue.apply(e, sum, (start, offset), (at, 0), active);
                                e.write_first(to, offset, v, active);
                            });
                        }
                    });
                }
            });
        });
    }
}
