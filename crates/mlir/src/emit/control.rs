//! Loops and conditions.

use melior::ir::RegionLike;
use melior::ir::block::BlockLike;
use melior::ir::{Block, BlockRef, Region};

use super::{Elem, Emitter, Index, Val};
use crate::handle;

/// The number of iterations of a loop axis.
#[derive(Debug, Clone, Copy)]
pub enum Extent<'c> {
    /// Known at compile time.
    Fixed(i64),
    /// The run-time batch.
    Batch(Val<'c>),
}

impl<'c> Emitter<'c> {
    fn in_block<R>(&mut self, block: &Block<'c>, body: impl FnOnce(&mut Self) -> R) -> R {
        let outer = std::mem::replace(&mut self.block, handle::block(block));
        let result = body(self);
        self.block = outer;
        result
    }

    /// `for i in low..high step step`, with values carried from one iteration to the next; `body` returns
    /// their new values. Returns the last ones.
    pub fn for_range(
        &mut self,
        low: Val<'c>,
        high: Val<'c>,
        step: i64,
        carried: &[Val<'c>],
        body: impl FnOnce(&mut Self, Val<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let step = self.index(step);
        let shapes: Vec<(Elem, usize)> = carried.iter().map(|v| (v.elem, v.lanes)).collect();
        let mut arguments = vec![(self.ty(Elem::I64, 1), self.location)];
        for &(elem, lanes) in &shapes {
            arguments.push((self.ty(elem, lanes), self.location));
        }
        let block = Block::new(&arguments);
        let argument = |n: usize, elem, lanes| match block.argument(n) {
            Ok(a) => Val {
                value: handle::value(a),
                elem,
                lanes,
            },
            Err(_) => unreachable!("the block was made with this argument"),
        };
        let i = argument(0, Elem::I64, 1);
        let inner: Vec<Val<'c>> = shapes
            .iter()
            .enumerate()
            .map(|(n, &(elem, lanes))| argument(n + 1, elem, lanes))
            .collect();
        self.in_block(&block, |e| {
            let next = body(e, i, &inner);
            let next: Vec<Val<'c>> = next
                .iter()
                .zip(&inner)
                .map(|(&v, old)| e.splat(v, old.lanes))
                .collect();
            e.op("scf.yield", &next, &[], &[]);
        });
        let region = Region::new();
        region.append_block(block);
        let operands: Vec<Val<'c>> = [low, high, step]
            .into_iter()
            .chain(carried.iter().copied())
            .collect();
        self.op_with("scf.for", &operands, &shapes, &[], vec![region], &[])
    }

    /// A loop over `0..extent` that carries nothing. An extent of 1 makes no loop.
    pub fn for_each(&mut self, extent: Extent<'c>, body: impl FnOnce(&mut Self, Index<'c>)) {
        let zero = self.index(0);
        let high = match extent {
            Extent::Fixed(1) => return body(self, Index::constant(0)),
            Extent::Fixed(n) => self.index(n),
            Extent::Batch(n) => n,
        };
        self.for_range(zero, high, 1, &[], |e, i, _| {
            body(e, Index::uniform(i));
            Vec::new()
        });
    }

    /// A loop over `0..extent` that carries values.
    pub fn fold(
        &mut self,
        extent: Extent<'c>,
        carried: &[Val<'c>],
        body: impl FnOnce(&mut Self, Index<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let zero = self.index(0);
        let high = match extent {
            Extent::Fixed(1) => {
                let next = body(self, Index::constant(0), carried);
                return next
                    .iter()
                    .zip(carried)
                    .map(|(&v, c)| self.splat(v, c.lanes))
                    .collect();
            }
            Extent::Fixed(n) => self.index(n),
            Extent::Batch(n) => n,
        };
        self.for_range(zero, high, 1, carried, |e, i, inner| {
            body(e, Index::uniform(i), inner)
        })
    }

    /// Nested loops over several axes that carry values.
    pub fn fold_nest(
        &mut self,
        extents: &[Extent<'c>],
        carried: &[Val<'c>],
        body: &mut dyn FnMut(&mut Self, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        fn nest<'c>(
            e: &mut Emitter<'c>,
            extents: &[Extent<'c>],
            at: &[Index<'c>],
            carried: &[Val<'c>],
            body: &mut dyn FnMut(&mut Emitter<'c>, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>,
        ) -> Vec<Val<'c>> {
            let Some((&extent, rest)) = extents.split_first() else {
                return body(e, at, carried);
            };
            e.fold(extent, carried, |e, i, inner| {
                nest(e, rest, &[at, &[i]].concat(), inner, body)
            })
        }
        nest(self, extents, &[], carried, body)
    }

    /// The `Map` schedule: runs `body` for every index of the axes, with lanes along the last one, of which a
    /// scalar loop does the rest.
    pub fn map(&mut self, extents: &[Extent<'c>], width: usize, body: &dyn Fn(&mut Self, &[Index<'c>])) {
        fn nest<'c>(
            e: &mut Emitter<'c>,
            extents: &[Extent<'c>],
            at: &[Index<'c>],
            width: usize,
            body: &dyn Fn(&mut Emitter<'c>, &[Index<'c>]),
        ) {
            match extents {
                [] => body(e, at),
                &[last] => e
                    .lanes_over(last, width, &[], &mut |e, i, _| {
                        body(e, &[at, &[i]].concat());
                        Vec::new()
                    })
                    .clear(),
                [first, rest @ ..] => {
                    e.for_each(*first, |e, i| nest(e, rest, &[at, &[i]].concat(), width, body));
                }
            }
        }
        nest(self, extents, &[], width, body);
    }

    /// One axis in lanes, then its rest in scalars. `carried` are the accumulators of the vector part, of any
    /// number of lanes; the scalar part gets them summed up to one lane each. Returns scalars.
    pub fn lanes_over(
        &mut self,
        extent: Extent<'c>,
        width: usize,
        carried: &[Elem],
        body: &mut dyn FnMut(&mut Self, Index<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let outer = self.lanes;
        let n = match extent {
            Extent::Fixed(n) => n,
            // A run-time axis has no vector part; schedules put such axes outside.
            Extent::Batch(_) => 0,
        };
        let lanes = if n >= 2 { width.min(1 << n.ilog2()) } else { 1 };
        let whole = n / lanes as i64 * lanes as i64;
        let zeros: Vec<Val<'c>> = carried.iter().map(|&elem| self.zero(elem)).collect();
        let mut sums = zeros;
        if lanes > 1 {
            self.lanes = lanes;
            let start: Vec<Val<'c>> = sums.iter().map(|&v| self.splat(v, lanes)).collect();
            let last = if whole == lanes as i64 {
                let next = body(self, Index::Const { base: 0, stride: 1 }, &start);
                next.iter().map(|&v| self.splat(v, lanes)).collect()
            } else {
                let (low, high) = (self.index(0), self.index(whole));
                self.for_range(low, high, lanes as i64, &start, |e, i, inner| {
                    body(e, Index::Scalar { base: i, stride: 1 }, inner)
                })
            };
            sums = last.iter().map(|&v| self.reduce_add(v)).collect();
        }
        self.lanes = 1;
        let rest = match extent {
            Extent::Fixed(n) if lanes == 1 => n,
            Extent::Fixed(n) => n - whole,
            Extent::Batch(_) => -1,
        };
        if rest == 1 && lanes > 1 {
            sums = body(self, Index::constant(whole), &sums);
        } else if rest != 0 {
            let low = self.index(if lanes > 1 { whole } else { 0 });
            let high = match extent {
                Extent::Fixed(n) => self.index(n),
                Extent::Batch(n) => n,
            };
            sums = self.for_range(low, high, 1, &sums, |e, i, inner| {
                body(e, Index::uniform(i), inner)
            });
        }
        self.lanes = outer;
        sums
    }

    /// Sums over all indices of `outer` and of the last axis `row`, with lanes along `row`: vector accumulators
    /// over everything, summed up once, then the rest of the row in scalars. Returns scalars.
    pub fn sum_over(
        &mut self,
        outer: &[Extent<'c>],
        row: i64,
        width: usize,
        elems: &[Elem],
        body: &mut dyn FnMut(&mut Self, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let saved = self.lanes;
        let lanes = if row >= 2 { width.min(1 << row.ilog2()) } else { 1 };
        let whole = row / lanes as i64;
        let rest = row % lanes as i64;
        let mut sums: Vec<Val<'c>> = elems.iter().map(|&elem| self.zero(elem)).collect();
        self.lanes = lanes;
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
            self.lanes = 1;
            let tail = [outer, &[Extent::Fixed(rest)]].concat();
            sums = self.fold_nest(&tail, &sums, &mut |e, at, inner| {
                let (&column, at) = at
                    .split_last()
                    .unwrap_or((&Index::Const { base: 0, stride: 0 }, &[]));
                let column = e.index_offset(column, whole * lanes as i64);
                body(e, &[at, &[column]].concat(), inner)
            });
        }
        self.lanes = saved;
        sums
    }

    /// Runs `body` for blocks of up to `size` neighbours out of `0..count`: `body` gets the first index and the
    /// (compile-time) size of its block.
    pub fn blocks(&mut self, count: i64, size: i64, body: &dyn Fn(&mut Self, Index<'c>, i64)) {
        if count >= size {
            self.for_each(Extent::Fixed(count / size), |e, i| {
                let first = e.index_scale(i, size);
                body(e, first, size);
            });
        }
        if count % size > 0 {
            body(self, Index::constant(count / size * size), count % size);
        }
    }

    /// Branches to `yes` or `no` and goes on in `next`.
    pub fn branch(
        &mut self,
        condition: Val<'c>,
        yes: BlockRef<'c, 'c>,
        no: BlockRef<'c, 'c>,
        next: BlockRef<'c, 'c>,
    ) {
        let segments = self.i32_array(&[1, 0, 0]);
        let attributes = [("operandSegmentSizes", segments)];
        self.op_with(
            "llvm.cond_br",
            &[condition],
            &[],
            &attributes,
            Vec::new(),
            &[yes, no],
        );
        self.block = next;
    }

    /// Branches to `target` and goes on there.
    pub fn jump(&mut self, target: BlockRef<'c, 'c>) {
        self.op_with("llvm.br", &[], &[], &[], Vec::new(), &[target]);
        self.block = target;
    }

    /// Goes on in another block.
    pub fn continue_in(&mut self, block: BlockRef<'c, 'c>) {
        self.block = block;
    }
}
