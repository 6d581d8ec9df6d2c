//! Sums of what a convolution stores, taken of a few rows while they are in the first cache: moments of a BatchNorm without
//! fetching the result again. No thread reads what others store, so that LLVM may be told that nothing else points to it.

use syncbn_ir::partials::SUMS_OF_BLOCK;
use syncbn_ir::schedule::axis::{Phase, blocks};

use super::columns::Columns;
use crate::emit::{Elem, Emitter, Index, Pointer, Val};
use crate::ops::kernel::{Kernel, fixed};
use crate::ops::moments::{Blocks, moments_of_blocks};
use crate::ops::parts::Partials;
use crate::ops::rows::RUN;

/// Memory for what every block of rows leaves of every channel: its first value, the sum of deviations from it, and that of
/// their squares.
#[derive(Clone, Copy)]
pub struct Sums<'c> {
    memory: Partials<'c>,
    blocks: Blocks,
    result: Pointer<'c>,
    channels: i64,
}

impl<'c> Sums<'c> {
    /// For a result of one phase that is computed in blocks of so many rows.
    pub fn new(k: &Kernel<'c>, phases: &[Phase; 1], rows: i64) -> Result<Sums<'c>, String> {
        let pointer = k.partials.ok_or("a convolution has no memory for its moments")?;
        let [_, height, width] = phases[0].map(|axis| axis.outputs);
        let [_, of_slice] = blocks(phases, rows);
        let result = &k.results[0];
        let channels = fixed(result.ty.shape.0[1]);
        Ok(Sums {
            memory: Partials::new(pointer, SUMS_OF_BLOCK, channels),
            blocks: Blocks {
                slice: height * width,
                block: rows.clamp(1, height) * width,
                of_slice,
            },
            result: Pointer::new(result.pointer, result.memory_elem()),
            channels,
        })
    }

    /// Those of a block's `columns`, in vectors of `lanes`; `channel` is the first of them, and `first` where the first
    /// position's value of it goes.
    pub fn tally(
        &self,
        e: &Emitter<'c>,
        block: Val<'c>,
        [channel, first]: [Val<'c>; 2],
        (columns, lanes): (Columns<'c>, usize),
    ) -> Tally<'c> {
        let [base, sums @ ..] = [0, 1, 2].map(|i| {
            let array = self.memory.array(e, block, i, Index::uniform(channel));
            Pointer::new(array.pointer, Elem::F64)
        });
        Tally {
            of: *self,
            base,
            sums,
            first: e.advance(self.result, first, 1),
            columns,
            lanes,
        }
    }

    /// The moments, from what all threads left for all blocks, of which a sample has so many slices.
    pub fn merge(&self, k: &Kernel<'c>, e: &Emitter<'c>, slices: i64) {
        let count = e.mul(k.n, e.index(slices * self.blocks.of_slice));
        let tensors = [&k.results[0], &k.results[1]];
        moments_of_blocks(k, tensors, e, &self.memory, (count, self.blocks));
    }
}

/// Sums of some channels of a block.
#[derive(Clone, Copy)]
pub struct Tally<'c> {
    of: Sums<'c>,
    base: Pointer<'c>,
    sums: [Pointer<'c>; 2],
    /// The first position's values.
    first: Pointer<'c>,
    columns: Columns<'c>,
    lanes: usize,
}

impl<'c> Tally<'c> {
    /// After how many rows of so many positions each their values are added.
    pub fn rows(width: i64) -> i64 {
        (RUN / width.max(1)).max(1)
    }

    /// Begins with the block.
    pub fn clear(&self, e: &Emitter<'c>) {
        let count = (self.columns.vectors - 1) * self.lanes as i64 + self.columns.last as i64;
        self.sums.iter().for_each(|&to| e.zero_run(to, count, self.lanes));
    }

    /// Ends with the block: leaves its first value.
    pub fn finish(&self, e: &Emitter<'c>) {
        for (&value, (at, active)) in self.read(e, self.first).iter().zip(self.vectors()) {
            e.write_first(self.base, at, e.convert(value, Elem::F64), active);
        }
    }

    /// First channel of each vector, and how many channels it has.
    fn vectors(&self) -> Vec<(i64, usize)> {
        (0..self.columns.vectors)
            .map(|v| (v * self.lanes as i64, self.columns.active(v, self.lanes)))
            .collect()
    }

    fn read(&self, e: &Emitter<'c>, p: Pointer<'c>) -> Vec<Val<'c>> {
        let vectors = self.vectors();
        let vector = |&(at, active): &(i64, usize)| e.read_first(p, at, self.lanes, active);
        vectors.iter().map(vector).collect()
    }

    /// Adds the values of `count` neighbouring positions, which are stored from element `from` of the result on. Up to [`RUN`]
    /// are summed in the element type. They are read again, since values that stayed in registers would leave those that
    /// products are summed in too few.
    pub fn add(&self, e: &Emitter<'c>, from: Val<'c>, count: Val<'c>) {
        let vectors = self.vectors();
        let from = e.advance(self.of.result, from, 1);
        let first = self.read(e, self.first);
        let zero = e.splat(e.zero(from.elem), self.lanes);
        e.for_range(e.index(0), count, RUN, &[], |e, low, _| {
            let high = e.min(e.add(low, e.index(RUN)), count);
            let start = vec![zero; 2 * vectors.len()];
            let sums = e.for_range(low, high, 1, &start, |e, position, sums| {
                let values = self.read(e, e.advance(from, position, self.of.channels));
                let add = |(i, sums): (usize, &[Val<'c>])| {
                    let d = e.sub(values[i], first[i]);
                    [e.add(sums[0], d), e.fma(d, d, sums[1])]
                };
                sums.chunks(2).enumerate().flat_map(add).collect()
            });
            for (sums, &(at, active)) in sums.chunks(2).zip(&vectors) {
                for (&sum, to) in sums.iter().zip(self.sums) {
                    let before = e.read_first(to, at, self.lanes, active);
                    let after = e.add(before, e.convert(sum, Elem::F64));
                    e.write_first(to, at, after, active);
                }
            }
            Vec::new()
        });
    }
}
