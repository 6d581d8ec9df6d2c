//! Rows of a product, as many at a time as a register tile has.

use crate::emit::{Emitter, Extent, Val};

/// `body` for all rows in tiles of `size`, then in tiles of halves of that for what is left, with the first row of each
/// tile and how many it has.
pub fn each_rows<'c>(
    e: &Emitter<'c>,
    rows: Extent<'c>,
    size: i64,
    body: &dyn Fn(&Emitter<'c>, Val<'c>, i64),
) {
    match rows {
        Extent::Fixed(count) => {
            let whole = count / size;
            e.each_of(whole, |e, i| body(e, e.mul(i, e.index(size)), size));
            if count > whole * size {
                body(e, e.index(whole * size), count - whole * size);
            }
        }
        Extent::Batch(count) => {
            let mut first = e.index(0);
            let mut size = size;
            loop {
                let left = e.rem(e.sub(count, first), e.index(size));
                let end = e.sub(count, left);
                e.for_range(first, end, size, &[], |e, row, _| {
                    body(e, row, size);
                    Vec::new()
                });
                if size == 1 {
                    return;
                }
                (first, size) = (end, size / 2);
            }
        }
    }
}
