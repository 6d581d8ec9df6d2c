//! Loops and conditions.

use melior::ir::attribute::FlatSymbolRefAttribute;
use melior::ir::block::BlockLike;
use melior::ir::{Attribute, Block, BlockRef, Region, RegionLike};

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

/// The body of a loop nest that carries values: indices and values to the next values.
pub type Accumulate<'c, 'b> = &'b mut dyn FnMut(&Emitter<'c>, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>;

impl<'c> Emitter<'c> {
    pub(super) fn in_block<R>(&self, block: &Block<'c>, body: impl FnOnce(&Self) -> R) -> R {
        let outer = self.block.replace(handle::block(block));
        let result = body(self);
        self.block.set(outer);
        result
    }

    /// `for i in low..high step step`, with values carried from one iteration to the next; `body` returns
    /// their new values. Returns the last ones.
    pub fn for_range(
        &self,
        low: Val<'c>,
        high: Val<'c>,
        step: i64,
        carried: &[Val<'c>],
        body: impl FnOnce(&Self, Val<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let step = self.index(step);
        self.for_steps([low, high, step], carried, body)
    }

    /// [`Emitter::for_range`] with a step that need not be a constant.
    pub fn for_steps(
        &self,
        [low, high, step]: [Val<'c>; 3],
        carried: &[Val<'c>],
        body: impl FnOnce(&Self, Val<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let counter = self.index_elem;
        let shapes: Vec<(Elem, usize)> = carried.iter().map(|v| (v.elem, v.lanes)).collect();
        let mut arguments = vec![(self.ty(counter, 1), self.location.get())];
        for &(elem, lanes) in &shapes {
            arguments.push((self.ty(elem, lanes), self.location.get()));
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
        let i = argument(0, counter, 1);
        let inner: Vec<Val<'c>> = shapes
            .iter()
            .enumerate()
            .map(|(n, &(elem, lanes))| argument(n + 1, elem, lanes))
            .collect();
        self.in_block(&block, |e| {
            let next = body(e, i, &inner);
            if next.iter().zip(&inner).any(|(v, old)| v.lanes > old.lanes) {
                e.refuse_lanes();
            }
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
    pub fn for_each(&self, extent: Extent<'c>, body: impl FnOnce(&Self, Index<'c>)) {
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
        &self,
        extent: Extent<'c>,
        carried: &[Val<'c>],
        body: impl FnOnce(&Self, Index<'c>, &[Val<'c>]) -> Vec<Val<'c>>,
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
        &self,
        extents: &[Extent<'c>],
        carried: &[Val<'c>],
        body: Accumulate<'c, '_>,
    ) -> Vec<Val<'c>> {
        fn nest<'c>(
            e: &Emitter<'c>,
            extents: &[Extent<'c>],
            at: &[Index<'c>],
            carried: &[Val<'c>],
            body: Accumulate<'c, '_>,
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

    /// Runs `body` for blocks of up to `size` neighbours out of `0..count`: `body` gets the first index and the
    /// (compile-time) size of its block.
    pub fn blocks(&self, count: i64, size: i64, body: &dyn Fn(&Self, Index<'c>, i64)) {
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

    /// Runs `body` where `condition` holds.
    pub fn when(&self, condition: Val<'c>, body: impl FnOnce(&Self)) {
        self.when_carrying(condition, &[], |e, _| {
            body(e);
            Vec::new()
        });
    }

    /// [`Emitter::when`] with values that `body` returns new ones of; where it does not run they stay.
    pub fn when_carrying(
        &self,
        condition: Val<'c>,
        carried: &[Val<'c>],
        body: impl FnOnce(&Self, &[Val<'c>]) -> Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        if condition.lanes > 1 {
            self.refuse_lanes();
        }
        let shapes: Vec<(Elem, usize)> = carried.iter().map(|v| (v.elem, v.lanes)).collect();
        let (then, otherwise) = (Region::new(), Region::new());
        let block = Block::new(&[]);
        self.in_block(&block, |e| {
            let next = body(e, carried);
            e.op("scf.yield", &next, &[], &[]);
        });
        then.append_block(block);
        if !carried.is_empty() {
            let block = Block::new(&[]);
            self.in_block(&block, |e| e.op("scf.yield", carried, &[], &[]));
            otherwise.append_block(block);
        }
        self.op_with("scf.if", &[condition], &shapes, &[], vec![then, otherwise], &[])
    }

    /// Runs `body` where `condition` holds; None always does.
    pub fn where_inside(&self, condition: Option<Val<'c>>, body: impl FnOnce(&Self)) {
        match condition {
            Some(condition) => self.when(condition, body),
            None => body(self),
        }
    }

    /// Runs `yes` where `condition`, a scalar, holds, and `no` elsewhere.
    pub fn either(&self, condition: Val<'c>, yes: impl FnOnce(&Self), no: impl FnOnce(&Self)) {
        let (then, otherwise) = (Region::new(), Region::new());
        let block = Block::new(&[]);
        self.in_block(&block, |e| {
            yes(e);
            e.op("scf.yield", &[], &[], &[]);
        });
        then.append_block(block);
        let block = Block::new(&[]);
        self.in_block(&block, |e| {
            no(e);
            e.op("scf.yield", &[], &[], &[]);
        });
        otherwise.append_block(block);
        self.op_with("scf.if", &[condition], &[], &[], vec![then, otherwise], &[]);
    }

    /// Calls a function.
    pub fn call(&self, name: &str, arguments: &[Val<'c>], result: Option<Elem>) -> Option<Val<'c>> {
        let callee: Attribute<'c> = FlatSymbolRefAttribute::new(self.context, name).into();
        let segments = self.i32_array(&[arguments.len() as i32, 0]);
        let bundles = self.i32_array(&[]);
        let attributes = [
            ("callee", callee),
            ("operandSegmentSizes", segments),
            ("op_bundle_sizes", bundles),
        ];
        let results: Vec<(Elem, usize)> = result.into_iter().map(|elem| (elem, 1)).collect();
        self.op("llvm.call", arguments, &results, &attributes)
            .first()
            .copied()
    }

    /// Branches to `yes` or `no` and goes on in `next`.
    pub fn branch(
        &self,
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
        self.block.set(next);
    }

    /// Branches to `target` and goes on there.
    pub fn jump(&self, target: BlockRef<'c, 'c>) {
        self.op_with("llvm.br", &[], &[], &[], Vec::new(), &[target]);
        self.block.set(target);
    }

    /// Goes on in another block.
    pub fn continue_in(&self, block: BlockRef<'c, 'c>) {
        self.block.set(block);
    }
}
