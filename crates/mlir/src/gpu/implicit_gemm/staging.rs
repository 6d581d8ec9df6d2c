//! Where columns of f32 lie in shared memory, so that no two threads of an access need one bank.

use super::tile::BYTES;
use crate::emit::{COPY_BYTES, Elem, Emitter, Index, Val};

/// The byte of a column of f32 in its row of shared memory, where threads take `stored` neighbouring columns at once.
///
/// Where that is more than one access of shared memory has, they take them in two, and the threads of one access lie
/// two accesses apart. So every other 32 columns, and every other row (or what stands for it), have their halves of
/// 8 columns in the other order: then each bank is needed once.
pub fn column_byte<'c>(e: &Emitter<'c>, stored: i64, row: Index<'c>, column: Index<'c>) -> Index<'c> {
    let byte = e.index_scale(column, BYTES);
    if stored * BYTES <= COPY_BYTES {
        return byte;
    }
    let block = e.index_quotient(column, 32);
    let turn = e.index_add(block, row);
    let turn = e.index_remainder(turn, 2);
    let turn = e.index_scale(turn, COPY_BYTES);
    e.index_xor(byte, turn)
}

/// Addresses of what a thread takes at once from byte `byte` of the row that begins at byte `begin`, and their lanes.
pub fn accesses<'c>(
    e: &Emitter<'c>,
    memory: Val<'c>,
    stored: i64,
    [begin, byte]: [Index<'c>; 2],
) -> (Vec<Val<'c>>, usize) {
    let lanes = stored.min(COPY_BYTES / BYTES);
    let addresses = (0..stored / lanes).map(|i| {
        let byte = e.index_xor(byte, Index::constant(i * COPY_BYTES));
        let byte = e.index_add(begin, byte);
        e.address_at(memory, Elem::I8, byte)
    });
    (addresses.collect(), lanes as usize)
}
