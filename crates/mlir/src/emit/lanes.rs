//! Schedules that use vectors: lanes along one axis, and a scalar rest.

use super::control::{Accumulate, Extent};
use super::{Elem, Emitter, Index, Val};

/// The body of a nest whose iterations are independent.
pub type Each<'c, 'b> = &'b dyn Fn(&Emitter<'c>, &[Index<'c>]);

impl<'c> Emitter<'c> {
    /// The `Map` schedule: runs `body` for every index of the axes, with lanes along the last one, of which a
    /// scalar loop does the rest. On a GPU a `width` other than 1 says that `body` may have lanes.
    pub fn map(&self, extents: &[Extent<'c>], width: usize, body: Each<'c, '_>) {
        fn nest<'c>(
            e: &Emitter<'c>,
            extents: &[Extent<'c>],
            at: &[Index<'c>],
            width: usize,
            body: Each<'c, '_>,
        ) {
            match extents {
                [] => body(e, at),
                &[Extent::Fixed(n)] => e.row(n, width, &|e, i| body(e, &[at, &[i]].concat())),
                &[batch] => e.for_each(batch, |e, i| body(e, &[at, &[i]].concat())),
                [first, rest @ ..] => {
                    e.for_each(*first, |e, i| nest(e, rest, &[at, &[i]].concat(), width, body));
                }
            }
        }
        if self.is_device() {
            return self.map_threads(extents, width, body);
        }
        let outer = self.lanes.replace(1);
        nest(self, extents, &[], width, body);
        self.lanes.set(outer);
    }

    /// [`Emitter::map`] of axes that have these strides in memory: on a GPU neighbouring threads take neighbours
    /// in memory.
    pub fn map_along(&self, extents: &[Extent<'c>], strides: &[i64], width: usize, body: Each<'c, '_>) {
        // The batch stays outermost.
        let mut order: Vec<usize> = (0..extents.len()).collect();
        let batch = |i: usize| matches!(extents[i], Extent::Batch(_));
        order.sort_by_key(|&i| (!batch(i), std::cmp::Reverse(strides[i])));
        if !self.is_device() || order.is_sorted() {
            return self.map(extents, width, body);
        }
        let sorted: Vec<Extent<'c>> = order.iter().map(|&i| extents[i]).collect();
        self.map(&sorted, width, &|e, at| body(e, &in_place(&order, at)));
    }

    /// `0..n` in lanes, then the rest in scalars.
    fn row(&self, n: i64, width: usize, body: &dyn Fn(&Self, Index<'c>)) {
        let lanes = lanes_for(n, width);
        let whole = n / lanes as i64 * lanes as i64;
        if lanes > 1 {
            self.lanes.set(lanes);
            self.for_each(Extent::Fixed(whole / lanes as i64), |e, chunk| {
                let first = e.index_scale(chunk, lanes as i64);
                let at = e.index_add(first, Index::Const { base: 0, stride: 1 });
                body(e, at);
            });
            self.lanes.set(1);
        }
        let done = if lanes > 1 { whole } else { 0 };
        if n > done {
            self.for_each(Extent::Fixed(n - done), |e, i| {
                let at = e.index_offset(i, done);
                body(e, at);
            });
        }
    }

    /// Sums over all indices of `outer` and of the last axis `row`, with lanes along `row`: vector accumulators
    /// over everything, summed up once, then the rest of the row in scalars. Returns scalars.
    pub fn sum_over(
        &self,
        outer: &[Extent<'c>],
        row: i64,
        width: usize,
        elems: &[Elem],
        body: Accumulate<'c, '_>,
    ) -> Vec<Val<'c>> {
        let saved = self.lanes();
        let lanes = lanes_for(row, width);
        let whole = row / lanes as i64;
        let rest = row % lanes as i64;
        let mut sums: Vec<Val<'c>> = elems.iter().map(|&elem| self.zero(elem)).collect();
        self.lanes.set(lanes);
        let start: Vec<Val<'c>> = sums.iter().map(|&v| self.splat(v, lanes)).collect();
        let chunks = [outer, &[Extent::Fixed(whole)]].concat();
        let last = self.fold_nest(&chunks, &start, &mut |e, at, inner| {
            let (&chunk, at) = at
                .split_last()
                .unwrap_or((&Index::Const { base: 0, stride: 0 }, &[]));
            let first = e.index_scale(chunk, lanes as i64);
            let step = Index::Const {
                base: 0,
                stride: if lanes > 1 { 1 } else { 0 },
            };
            let column = e.index_add(first, step);
            body(e, &[at, &[column]].concat(), inner)
        });
        for (sum, v) in sums.iter_mut().zip(last) {
            *sum = self.reduce_add(v);
        }
        if rest > 0 {
            self.lanes.set(1);
            let tail = [outer, &[Extent::Fixed(rest)]].concat();
            sums = self.fold_nest(&tail, &sums, &mut |e, at, inner| {
                let (&column, at) = at
                    .split_last()
                    .unwrap_or((&Index::Const { base: 0, stride: 0 }, &[]));
                let column = e.index_offset(column, whole * lanes as i64);
                body(e, &[at, &[column]].concat(), inner)
            });
        }
        self.lanes.set(saved);
        sums
    }
}

/// Indices along axes that were taken in another order: `at[i]` is that along axis `order[i]`.
pub fn in_place<'c>(order: &[usize], at: &[Index<'c>]) -> Vec<Index<'c>> {
    let mut own = vec![Index::constant(0); at.len()];
    for (&axis, &index) in order.iter().zip(at) {
        own[axis] = index;
    }
    own
}

/// The largest power of two that neither the row nor the vector register falls short of.
fn lanes_for(row: i64, width: usize) -> usize {
    if row >= 2 { width.min(1 << row.ilog2()) } else { 1 }
}
