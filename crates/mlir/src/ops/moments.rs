//! Moments of a BatchNorm's input, and what is made of their sum over ranks.

use syncbn_ir::ops::{BatchNormFinalize, RunningVar};

use super::channels::{Store, channel_sums, partials, width_of_sums};
use super::kernel::{Image, Kernel, Tensor};
use super::parts::Partials;
use super::rows::{self, Constants, Run, Totals};
use super::target::Sums;
use crate::emit::{Buffer, Compare, Elem, Emitter, Extent, Index, Val};

/// Moments `[m, m*mean, M2 + m*mean^2]`. Deviations are summed about the channel's first value, in f64, so
/// that a large mean cancels before anything is squared.
pub fn moments<'c>(k: &Kernel<'c>, x: &Tensor<'c>, out: &Tensor<'c>, e: &Emitter<'c>) {
    let (image, xb) = (k.image(&x.ty), x.image());
    let result = Outcome::new(k, x, out, e);
    let store = |e: &Emitter<'c>, c: Index<'c>, pivot: &Pivot<'c>, sums: &[Val<'c>]| {
        result.store(e, c, pivot, sums);
    };
    let pivot = |e: &Emitter<'c>, c: Index<'c>| {
        let first = e.load(&xb, &[Index::constant(0), c, Index::constant(0)], None);
        Pivot(e.convert(first, Elem::F64))
    };
    if k.manner.sums == Sums::InLoops && image.has_channels_innermost() {
        return moments_of_rows(k, e, image, &x.image(), &pivot, &store);
    }
    channel_sums(
        k,
        e,
        image,
        (&[Elem::F64; 2], k.width(Elem::F64)),
        &pivot,
        &|e, &Pivot(pivot), at, sums| {
            let d = e.sub(e.convert(e.load(&xb, at, None), Elem::F64), pivot);
            vec![e.add(sums[0], d), e.fma(d, d, sums[1])]
        },
        &store,
    );
}

/// The blocks of neighbouring positions that a tensor was written in.
#[derive(Clone, Copy)]
pub struct Blocks {
    /// Positions of a sample or of a slice of it, in which blocks begin anew.
    pub slice: i64,
    /// Positions of a block; the last one of a slice may have fewer.
    pub block: i64,
    /// Blocks of a slice.
    pub of_slice: i64,
}

impl Blocks {
    /// Number of positions of a block, in f64.
    fn length<'c>(&self, e: &Emitter<'c>, block: Val<'c>) -> Val<'c> {
        let before = e.mul(e.rem(block, e.index(self.of_slice)), e.index(self.block));
        let left = e.sub(e.index(self.slice), before);
        e.convert(e.min(left, e.index(self.block)), Elem::F64)
    }
}

/// [`moments`] from what `memory` has of each of `count` blocks: the block's first value, the sum of deviations from it and that of
/// their squares. All threads must have met. A block of one position has no deviations, so that sums over such are in f64
/// throughout.
pub fn moments_of_blocks<'c>(
    k: &Kernel<'c>,
    [x, out]: [&Tensor<'c>; 2],
    e: &Emitter<'c>,
    memory: &Partials<'c>,
    (count, blocks): (Val<'c>, Blocks),
) {
    let result = Outcome::new(k, x, out, e);
    let values = memory.array(e, e.index(0), 0, Index::constant(0));
    let pivot = |e: &Emitter<'c>, c: Index<'c>| Pivot(e.load(&values, &[c], None));
    let about_pivot = |e: &Emitter<'c>, block: Val<'c>, c: Index<'c>, left: Vec<Val<'c>>| {
        let length = blocks.length(e, block);
        pivot(e, c).moved(e, left[0], length, [left[1], left[2]])
    };
    let all = (Index::constant(0), result.channels);
    let store = |e: &Emitter<'c>, c: Index<'c>, sums: &[Val<'c>]| {
        result.store(e, c, &pivot(e, c), sums);
    };
    memory.merge_terms(e, count, all, (2, k.width(x.elem())), &about_pivot, &store);
}

/// Where moments go, and what they are made with.
struct Outcome<'c> {
    result: Buffer<'c>,
    channels: i64,
    /// Number of values of a channel, in f64.
    m: Val<'c>,
}

impl<'c> Outcome<'c> {
    /// The moments `out` of `x`, the number of values of which is stored.
    fn new(k: &Kernel<'c>, x: &Tensor<'c>, out: &Tensor<'c>, e: &Emitter<'c>) -> Outcome<'c> {
        let (image, result) = (k.image(&x.ty), out.flat());
        let samples = match image.n {
            Extent::Batch(n) => e.convert(n, Elem::F64),
            Extent::Fixed(n) => e.float(Elem::F64, n as f64),
        };
        let positions = e.float(Elem::F64, image.positions as f64);
        let m = e.mul(samples, positions);
        e.once(|e| e.store(&result, &[Index::constant(0)], m));
        Outcome {
            result,
            channels: image.channels,
            m,
        }
    }

    /// Stores the moments of a channel from its sums about the pivot.
    fn store(&self, e: &Emitter<'c>, c: Index<'c>, &Pivot(pivot): &Pivot<'c>, sums: &[Val<'c>]) {
        let zero = e.float(Elem::F64, 0.0);
        let some = e.compare(Compare::Gt, self.m, zero);
        let shift = e.div(sums[0], self.m);
        let mean = e.add(pivot, shift);
        let product = e.mul(sums[0], shift);
        let m2 = e.sub(sums[1], product);
        let first = e.mul(self.m, mean);
        let second = e.fma(first, mean, m2);
        // An empty rank contributes zeros, whatever lies in its buffers.
        let (first, second) = (e.select(some, first, zero), e.select(some, second, zero));
        e.store(&self.result, &[e.index_offset(c, 1)], first);
        e.store(&self.result, &[e.index_offset(c, 1 + self.channels)], second);
    }
}

/// The value of a channel that deviations are taken from, in f64.
struct Pivot<'c>(Val<'c>);

impl<'c> Constants<'c> for Pivot<'c> {
    fn map(&self, f: &mut dyn FnMut(Val<'c>) -> Val<'c>) -> Self {
        Pivot(f(self.0))
    }
}

impl<'c> Pivot<'c> {
    /// Sums of `length` deviations from `base` and of their squares, moved to the pivot.
    fn moved(
        &self,
        e: &Emitter<'c>,
        base: Val<'c>,
        length: Val<'c>,
        [sum, squares]: [Val<'c>; 2],
    ) -> Vec<Val<'c>> {
        let shift = e.sub(e.convert(base, Elem::F64), self.0);
        let moved = e.mul(length, shift);
        let twice = e.add(e.add(sum, sum), moved);
        vec![e.add(sum, moved), e.fma(shift, twice, squares)]
    }
}

/// Deviations of a run of rows are squared in the element type about the run's first row, so that one value far from
/// the others spoils its own run only, and then moved to the channel's pivot in f64. Where there
/// is one position a channel, their sum is in f64 throughout: of so few values an error of the mean would show in what sums
/// gradients.
fn moments_of_rows<'c>(
    k: &Kernel<'c>,
    e: &Emitter<'c>,
    image: Image<'c>,
    x: &Buffer<'c>,
    pivot: &dyn Fn(&Emitter<'c>, Index<'c>) -> Pivot<'c>,
    store: Store<'c, '_, Pivot<'c>>,
) {
    let width = width_of_sums(k, image, x.elem);
    e.blocks(image.channels, rows::MOST_CHANNELS, &|e, first, count| {
        let add = |e: &Emitter<'c>, run: &Run<'c>, totals: &Totals<'c>| {
            let (row, length) = (run.first(e), run.length(e));
            let inner = if image.positions == 1 { Elem::F64 } else { x.elem };
            let base = |e: &Emitter<'c>, c: Index<'c>| e.load(x, &row.at(c), None);
            let of_row = |e: &Emitter<'c>, i: Index<'c>, row: rows::Row<'c>, sums: &[Val<'c>]| {
                let c = e.index_add(first, i);
                let (v, base) = (e.load_stream(x, &row.at(c)), base(e, c));
                let term = e.sub(e.convert(v, inner), e.convert(base, inner));
                let d = e.sub(v, base);
                vec![e.add(sums[0], term), e.fma(d, d, sums[1])]
            };
            run.sums(e, &[inner, x.elem], (count, width), &of_row, &|e, i, sums| {
                let c = e.index_add(first, i);
                let sums = [sums[0], sums[1]].map(|v| e.convert(v, Elem::F64));
                totals.add(e, i, &pivot(e, c).moved(e, base(e, c), length, sums));
            });
        };
        let store = |e: &Emitter<'c>, i: Index<'c>, sums: &[Val<'c>]| {
            let c = e.index_add(first, i);
            store(e, c, &pivot(e, c), sums);
        };
        let partials = partials(k, 2, image);
        rows::sums(
            e,
            image,
            partials.as_ref(),
            (first, count),
            (2, width),
            &add,
            &store,
        );
    });
}

/// Mean, inverse deviation and running statistics from summed moments.
pub fn finalize<'c>(op: &BatchNormFinalize, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (moments, running) = (k.operands[0].flat(), [k.operands[1].flat(), k.operands[2].flat()]);
    let results: Vec<Buffer<'c>> = k.results.iter().map(Tensor::flat).collect();
    let channels: i64 = k.results[1].ty.shape.sizes(0).iter().product::<usize>() as i64;
    let elem = k.operands[1].elem();
    let n = e.load(&moments, &[Index::constant(0)], None);
    e.once(|e| e.store(&results[0], &[Index::constant(0)], n));
    let (zero, one) = (e.float(Elem::F64, 0.0), e.float(Elem::F64, 1.0));
    let some = e.compare(Compare::Gt, n, zero);
    let epsilon = e.float(Elem::F64, op.epsilon);
    let (new, old) = (
        e.float(Elem::F64, op.momentum),
        e.float(Elem::F64, 1.0 - op.momentum),
    );
    let factor = match op.running_var {
        RunningVar::Population => one,
        RunningVar::Pytorch => {
            let below = e.sub(n, one);
            e.div(n, below)
        }
    };
    e.map(&[Extent::Fixed(channels)], k.width(Elem::F64), &|e, at| {
        let c = at[0];
        let (i1, i2) = (e.index_offset(c, 1), e.index_offset(c, 1 + channels));
        let (s1, s2) = (e.load(&moments, &[i1], None), e.load(&moments, &[i2], None));
        let (mean, square) = (e.div(s1, n), e.div(s2, n));
        let mean2 = e.mul(mean, mean);
        let var = e.sub(square, mean2);
        let var = e.max(var, zero);
        let shifted = e.add(var, epsilon);
        let root = e.sqrt(shifted);
        let inv_std = e.div(one, root);
        let saved = [e.select(some, mean, zero), e.select(some, inv_std, zero)];
        e.store(&results[1], &[c], saved[0]);
        e.store(&results[2], &[c], saved[1]);
        let unbiased = e.mul(var, factor);
        for (i, batch) in [mean, unbiased].into_iter().enumerate() {
            let before = e.load(&running[i], &[c], None);
            let before = e.convert(before, Elem::F64);
            let kept = e.mul(before, old);
            let after = e.fma(batch, new, kept);
            let after = e.select(some, after, before);
            let after = e.convert(after, elem);
            e.store(&results[3 + i], &[c], after);
        }
    });
}
