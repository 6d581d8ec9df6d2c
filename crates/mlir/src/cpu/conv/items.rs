//! Work that threads divide: blocks with some items each, the last of a thread's blocks being shared with the next thread.

use crate::emit::{Compare, Emitter, Val};

/// This thread's items of all blocks' items, counted through.
pub struct Items<'c> {
    range: [Val<'c>; 2],
    per_block: i64,
}

impl<'c> Items<'c> {
    /// A slice of the items of so many blocks.
    pub fn new(e: &Emitter<'c>, blocks: Val<'c>, per_block: i64) -> Items<'c> {
        Items {
            range: e.slice(e.mul(blocks, e.index(per_block))),
            per_block,
        }
    }

    /// `body` for every block that this thread has items of, with the range of these items in the block, or None if it is all
    /// of them. What `body` does for the block besides its items is done by every thread that shares it.
    pub fn each(&self, e: &Emitter<'c>, body: impl FnOnce(&Emitter<'c>, Val<'c>, Option<[Val<'c>; 2]>)) {
        let [low, high] = self.range;
        if self.per_block == 1 {
            return e.each_in(low, high, |e, block| body(e, block, None));
        }
        let size = e.index(self.per_block);
        let first = e.div(low, size);
        // A thread without items has no block either.
        let end = e.div(e.add(high, e.index(self.per_block - 1)), size);
        let end = e.select(e.compare(Compare::Lt, low, high), end, first);
        e.each_in(first, end, |e, block| {
            let begin = e.mul(block, size);
            let from = e.max(e.sub(low, begin), e.index(0));
            let to = e.min(e.sub(high, begin), size);
            body(e, block, Some([from, to]));
        });
    }
}

/// Sample, slice and first row of a block of rows, where each slice has so many blocks of `rows` rows and each sample `depth`
/// slices.
pub fn place<'c>(e: &Emitter<'c>, block: Val<'c>, [depth, blocks]: [Val<'c>; 2], rows: i64) -> [Val<'c>; 3] {
    let (slice, in_slice) = (e.div(block, blocks), e.rem(block, blocks));
    let (n, z) = (e.div(slice, depth), e.rem(slice, depth));
    [n, z, e.mul(in_slice, e.index(rows))]
}
