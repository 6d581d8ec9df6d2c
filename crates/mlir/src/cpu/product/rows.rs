//! Rows of a product, as many at a time as a register tile has.

use crate::emit::{Emitter, Extent, Val};

/// `body` for all rows, or this thread's, in tiles of `size`, then in tiles of halves of that for what is left, with the
/// first row of each tile and how many it has.
pub fn each_rows<'c>(
    e: &Emitter<'c>,
    rows: Extent<'c>,
    size: i64,
    body: &dyn Fn(&Emitter<'c>, Val<'c>, i64),
) {
    match rows {
        Extent::Fixed(count) => {
            e.divided_blocks(count, size, &|e, first, size| body(e, e.index_value(first), size));
        }
        Extent::Batch(count) => {
            let mut first = e.index(0);
            let mut size = size;
            loop {
                let left = e.rem(e.sub(count, first), e.index(size));
                let end = e.sub(count, left);
                let tiles = e.div(e.sub(end, first), e.index(size));
                let [low, high] = e
                    .slice(tiles)
                    .map(|tile| e.add(first, e.mul(tile, e.index(size))));
                e.undivided(|e| {
                    e.for_range(low, high, size, &[], |e, row, _| {
                        body(e, row, size);
                        Vec::new()
                    });
                });
                if size == 1 {
                    return;
                }
                (first, size) = (end, size / 2);
            }
        }
    }
}
