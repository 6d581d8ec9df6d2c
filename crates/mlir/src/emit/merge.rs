//! The second kernel of sums on a GPU: partial sums are added in f64, in an order that is fixed by the shapes.

use super::control::Extent;
use super::cost::{Share, UNROLLED};
use super::device::elements;
use super::grid::Blocks;
use super::sums::{LANES, Sum};
use super::{Buffer, Compare, Elem, Emitter, Index, Inner, Val};

/// Threads of a block that adds partial sums.
const MERGING: i64 = 256;
/// Results of such a block, at most: their neighbouring partial sums are read together.
const MERGED: i64 = 8;
/// So many partial sums are added by one thread.
const FEW_PARTS: i64 = 8;

impl<'c> Emitter<'c> {
    /// Adds the partial sums of every result.
    pub(super) fn merge(&self, sum: &Sum<'c, '_>, parts: i64, buffers: &[Buffer<'c>]) {
        self.note_cost(|cost| {
            cost.share = Share::Merge;
            cost.workspace_read = sum.partial_bytes(parts);
        });
        match parts <= FEW_PARTS {
            true => self.merge_in_threads(sum, parts, buffers),
            false => self.merge_in_blocks(sum, parts, buffers),
        }
    }

    /// One partial sum of a result for each buffer.
    fn load_partial(&self, buffers: &[Buffer<'c>], at: [Index<'c>; 2]) -> Vec<Val<'c>> {
        let mut loaded = Vec::new();
        for buffer in buffers {
            let v = self.load(buffer, &at, None);
            loaded.push(self.convert(v, Elem::F64));
        }
        loaded
    }

    /// Adds one partial sum of a result to each of `sums`.
    fn add_partial(&self, buffers: &[Buffer<'c>], at: [Index<'c>; 2], sums: &[Val<'c>]) -> Vec<Val<'c>> {
        let loaded = self.load_partial(buffers, at);
        sums.iter()
            .zip(loaded)
            .map(|(&sum, v)| self.add(sum, v))
            .collect()
    }

    /// The second kernel where there are few parts: one thread adds them.
    fn merge_in_threads(&self, sum: &Sum<'c, '_>, parts: i64, buffers: &[Buffer<'c>]) {
        self.map_threads(sum.kept, LANES, &|e, at| {
            let result = e.flatten(sum.kept, at);
            let zero = e.zero(Elem::F64);
            let start = vec![e.splat(zero, e.lanes()); buffers.len()];
            let sums = e.fold(Extent::Fixed(parts), &start, |e, part, sums| {
                e.add_partial(buffers, [part, result], sums)
            });
            (sum.store)(e, at, &sums);
        });
        self.note_cost(|cost| cost.workspace_at_once = cost.lanes * parts * sum.result_bytes());
    }

    /// The second kernel where there are many parts: the threads of a block share them, and add what they have in a
    /// tree.
    fn merge_in_blocks(&self, sum: &Sum<'c, '_>, parts: i64, buffers: &[Buffer<'c>]) {
        let merged = match sum.inner {
            Inner::Kept => MERGED.min(1 << sum.results.ilog2()),
            Inner::Summed => 1,
        };
        let shares = 1 << (MERGING / merged).min(parts).ilog2();
        let threads = merged * shares;
        let (batch, per) = elements(sum.kept);
        if let Some(mut device) = self.device_mut() {
            device.needs(batch, per);
            device.footprint.blocks = Blocks {
                takes: merged,
                shared: (buffers.len() as i64 * threads * Elem::F64.bytes()) as u32,
                cooperative: true,
                ..Blocks::of_threads(threads as u32)
            };
        }
        self.note_cost(|cost| {
            cost.workspace_at_once = (parts / shares).clamp(1, UNROLLED) * sum.result_bytes();
        });
        let thread = self.special_register("tid.x");
        let block = self.special_register("ctaid.x");
        let (share, own) = self.index_split(thread, merged);
        let result = self.index_scale(block, merged);
        let result = self.index_add(result, own);
        let count = Index::uniform(self.count(sum.kept));
        // Threads past the last result meet the others; they read the last one's sums and store nothing.
        let last = self.index_offset(count, -1);
        let read = self.index_least(result, last);
        let mut sums = self.load_partial(buffers, [share, read]);
        if parts > shares {
            let next = self.index_offset(share, shares);
            let (low, high, step) = (self.index_value(next), self.index(parts), self.index(shares));
            sums = self.for_steps([low, high, step], &sums, |e, part, sums| {
                e.add_partial(buffers, [Index::uniform(part), read], sums)
            });
        }
        let sums = self.add_over_block([thread, share], [merged, shares], sums);
        let is_first = self.index_below(share, 1);
        let exists = self.index_compare(Compare::Lt, result, count);
        let stores = self.and(is_first, exists);
        self.when(stores, |e| {
            let at = e.unflatten(sum.kept, result);
            (sum.store)(e, &at, &sums);
        });
    }

    /// Adds the f64 values of the threads whose `share` is any of `shares`, a power of two, for each of `merged`
    /// results, in a tree. The thread with share 0 has the sums. All threads meet; they need 8 bytes of shared memory each
    /// for every value.
    pub fn add_over_block(
        &self,
        [thread, share]: [Index<'c>; 2],
        [merged, shares]: [i64; 2],
        mut sums: Vec<Val<'c>>,
    ) -> Vec<Val<'c>> {
        let memory = self.shared_memory();
        let slot = |e: &Self, number: usize, ahead: i64| {
            let element = e.index_offset(thread, number as i64 * merged * shares + ahead * merged);
            e.address_at(memory, Elem::F64, element)
        };
        let mut others = shares;
        while others > 1 {
            others /= 2;
            for (number, &sum) in sums.iter().enumerate() {
                let own = slot(self, number, 0);
                self.store_scalar(own, sum);
            }
            self.barrier();
            let merges = self.index_below(share, others);
            sums = self.when_carrying(merges, &sums, |e, sums| {
                let mut next = Vec::new();
                for (number, &sum) in sums.iter().enumerate() {
                    let other = slot(e, number, others);
                    let other = e.load_scalar(other, Elem::F64);
                    next.push(e.add(sum, other));
                }
                next
            });
            self.barrier();
        }
        sums
    }
}
