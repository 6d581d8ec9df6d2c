//! The tile of an operand in shared memory: asynchronous copies into it, and fragments for matrix instructions out
//! of it.
//!
//! The logical byte `b` of row `r` lies at `r * row_bytes + (b ^ (f(r) << 4))`, where `f` spreads the rows that a
//! warp reads at a time over the banks. Copies and row loads move 16 bytes, which the xor leaves together.

use super::operands::{Contiguous, Operand, address};
use super::tile::{INSTRUCTION_BYTES, Tile};
use crate::emit::{COPY_BYTES, Compare, Elem, Emitter, Index, Val};

/// Which operand of a matrix instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A: fragments of 16 rows.
    Left,
    /// B: fragments of two times 8 columns.
    Right,
}

/// An operand's tile, for the current thread.
pub struct SharedTile<'c, O: Operand<'c>> {
    operand: O,
    /// Element type.
    elem: Elem,
    /// First byte in a stage.
    base: i64,
    row_bytes: i64,
    /// The column of this thread's copies.
    column: Index<'c>,
    /// Whether this thread copies at all, where there are fewer copies than threads.
    copies: Option<Val<'c>>,
    /// Byte in the stage and slot of each copy.
    slots: Vec<(Index<'c>, O::Slot)>,
    side: Side,
    /// Where in a stage this thread's fragments begin, by column.
    fragments: Vec<Index<'c>>,
}

/// What `row` adds to the 16-byte column.
fn swizzle<'c>(
    e: &Emitter<'c>,
    (contiguous, elem): (Contiguous, Elem),
    row_bytes: i64,
    row: Index<'c>,
) -> Index<'c> {
    let bits = match (contiguous, row_bytes) {
        // Four rows of eight threads each, which read words: 32 banks.
        (Contiguous::Kept, _) if elem != Elem::BF16 => {
            let low = e.index_remainder(row, 4);
            e.index_scale(low, 2)
        }
        // Eight rows of 16 bytes.
        (_, 128..) => e.index_remainder(row, 8),
        _ => {
            let pair = e.index_quotient(row, 2);
            e.index_remainder(pair, 4)
        }
    };
    e.index_scale(bits, COPY_BYTES)
}

impl<'c, O: Operand<'c>> SharedTile<'c, O> {
    /// A tile of `kept` rows or columns of the product from byte `base` of each stage, for thread `thread`.
    pub fn new(e: &Emitter<'c>, operand: O, side: Side, tile: &Tile, base: i64, thread: Index<'c>) -> Self {
        let kept = match side {
            Side::Left => tile.rows,
            Side::Right => tile.columns,
        };
        let (rows, width) = match O::CONTIGUOUS {
            Contiguous::Reduced => (kept, tile.depth),
            Contiguous::Kept => (tile.depth, kept),
        };
        let elem = tile.elem;
        let row_bytes = width * elem.bytes();
        let (threads, a_row) = (tile.threads(), row_bytes / COPY_BYTES);
        let (first, column) = e.index_split(thread, a_row);
        let column = e.index_scale(column, COPY_BYTES / elem.bytes());
        let at_a_time = threads / a_row;
        let copies = (at_a_time > rows).then(|| e.index_below(first, rows));
        let mut slots = Vec::new();
        for i in 0..(rows / at_a_time).max(1) {
            let row = e.index_offset(first, i * at_a_time);
            let begin = e.index_scale(row, row_bytes);
            let byte = e.index_scale(column, elem.bytes());
            let bits = swizzle(e, (O::CONTIGUOUS, elem), row_bytes, row);
            let byte = e.index_xor(byte, bits);
            let byte = e.index_sum(&[begin, byte, Index::constant(base)]);
            slots.push((byte, operand.slot(e, row, column)));
        }
        SharedTile {
            operand,
            elem,
            base,
            row_bytes,
            column,
            copies,
            slots,
            side,
            fragments: Vec::new(),
        }
    }

    /// Starts the copies of step `step` into the stage at byte `stage`.
    pub fn copy(&self, e: &Emitter<'c>, memory: Val<'c>, step: Index<'c>, stage: Index<'c>) {
        match self.copies {
            Some(copies) => e.when(copies, |e| self.copy_all(e, memory, step, stage)),
            None => self.copy_all(e, memory, step, stage),
        }
    }

    fn copy_all(&self, e: &Emitter<'c>, memory: Val<'c>, step: Index<'c>, stage: Index<'c>) {
        let shared = self.operand.step(e, step, self.column);
        for (byte, slot) in &self.slots {
            let (offset, exists) = self.operand.place(e, slot, &shared);
            let from = address(e, self.operand.pointer(), self.elem, (offset, exists));
            let byte = e.index_add(stage, *byte);
            let to = e.address_at(memory, Elem::I8, byte);
            e.copy_async(to, from, exists);
        }
    }

    /// Prepares fragments from row or column `first` of the tile, which is where the warp of lane `lane` begins;
    /// `count` of them, of 16 each.
    pub fn prepare(&mut self, e: &Emitter<'c>, lane: Index<'c>, first: Index<'c>, tile: &Tile, count: i64) {
        let (row, byte, steps, stride) = match (O::CONTIGUOUS, self.side) {
            (Contiguous::Kept, side) if self.elem == Elem::BF16 => {
                let (upper, rest) = e.index_split(lane, 16);
                let (lower, low) = e.index_split(rest, 8);
                // Matrices of A go through its rows first, those of two B through the reduced index.
                let (reduced, kept) = match side {
                    Side::Left => (upper, lower),
                    Side::Right => (lower, upper),
                };
                let (eights, offset) = (e.index_scale(reduced, 8), e.index_scale(kept, 8));
                let column = e.index_add(first, offset);
                let byte = e.index_scale(column, self.elem.bytes());
                (e.index_add(eights, low), byte, count, INSTRUCTION_BYTES)
            }
            (Contiguous::Kept, _) => {
                let (group, row) = e.index_split(lane, 4);
                let column = e.index_add(first, group);
                let bytes = self.elem.bytes();
                // Halves of 8 columns.
                (row, e.index_scale(column, bytes), 2 * count, 8 * bytes)
            }
            (Contiguous::Reduced, side) => {
                let (half, rest) = e.index_split(lane, 16);
                let (quarter, low) = e.index_split(rest, 8);
                let (row, column) = match side {
                    Side::Left => (rest, half),
                    Side::Right => {
                        let second = e.index_scale(half, 8);
                        (e.index_add(second, low), quarter)
                    }
                };
                let row = e.index_add(first, row);
                let steps = tile.depth_bytes() / INSTRUCTION_BYTES;
                (row, e.index_scale(column, COPY_BYTES), steps, INSTRUCTION_BYTES)
            }
        };
        let begin = e.index_scale(row, self.row_bytes);
        let begin = e.index_offset(begin, self.base);
        let bits = swizzle(e, (O::CONTIGUOUS, self.elem), self.row_bytes, row);
        let byte = e.index_xor(byte, bits);
        self.fragments = (0..steps)
            .map(|i| {
                let at = e.index_xor(byte, Index::constant(i * stride));
                e.index_add(begin, at)
            })
            .collect();
    }

    /// The words of fragment `number` for block `block` of the reduced elements of the stage at byte `stage`: 8 of
    /// them in f32, 16 in bf16. A fragment of 16 rows of A, or two of 8 columns of B.
    pub fn fragment(
        &self,
        e: &Emitter<'c>,
        memory: Val<'c>,
        stage: Index<'c>,
        block: i64,
        number: i64,
    ) -> [Val<'c>; 4] {
        let at = |e: &Emitter<'c>, fragment: i64, offset: i64| {
            let byte = e.index_add(stage, self.fragments[fragment as usize]);
            let start = e.address_at(memory, Elem::I8, byte);
            e.address_at(start, Elem::I8, Index::constant(offset))
        };
        match O::CONTIGUOUS {
            Contiguous::Reduced => {
                let address = at(e, block, number * 16 * self.row_bytes);
                e.load_matrices(address, false)
            }
            Contiguous::Kept if self.elem == Elem::BF16 => {
                let address = at(e, number, 16 * block * self.row_bytes);
                e.load_matrices(address, true)
            }
            Contiguous::Kept => [0, 1, 2, 3].map(|register: i64| {
                // The registers of A go through its rows first, those of two B through the reduced index.
                let (kept, reduced) = match self.side {
                    Side::Left => (register % 2, register / 2),
                    Side::Right => (register / 2, register % 2),
                };
                let row = 8 * block + 4 * reduced;
                let address = at(e, 2 * number + kept, row * self.row_bytes);
                e.load_scalar(address, Elem::I32)
            }),
        }
    }
}

/// Whether step `step` is before `end`, as a run-time value.
pub fn before<'c>(e: &Emitter<'c>, step: Index<'c>, end: Index<'c>) -> Val<'c> {
    e.index_compare(Compare::Lt, step, end)
}
