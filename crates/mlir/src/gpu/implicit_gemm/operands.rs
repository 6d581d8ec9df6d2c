//! The operands of the matrix product: where element (row, column) of a tile lies in global memory.
//!
//! Tiles come in steps along the reduced index. What is known before the first step is a [`Operand::Slot`], one
//! for each copy that a thread makes; what the slots of a step share is a [`Operand::Step`].

use crate::emit::{Elem, Emitter, Index, Val};

/// A coordinate that fails every unsigned comparison, also after a reach is added to it.
pub const OUTSIDE: i64 = -(1 << 28);

/// The index that is contiguous in memory, and therefore along the rows of the tile in shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Contiguous {
    /// The reduced one: rows of the tile are rows (or columns) of the product.
    Reduced,
    /// The kept one: rows of the tile are reduced indices.
    Kept,
}

/// An element's offset, and whether it exists unless it always does.
pub type Place<'c> = (Index<'c>, Option<Val<'c>>);

/// A matrix in global memory.
pub trait Operand<'c> {
    /// What a thread knows of one of its copies before the first step.
    type Slot;
    /// What the copies of a step share.
    type Step;
    /// Its contiguous index.
    const CONTIGUOUS: Contiguous;
    /// Address of element 0.
    fn pointer(&self) -> Val<'c>;
    /// For the copy to (row, column) of the tile.
    fn slot(&self, e: &mut Emitter<'c>, row: Index<'c>, column: Index<'c>) -> Self::Slot;
    /// For step `step` of the tile's columns from `column`.
    fn step(&self, e: &mut Emitter<'c>, step: Index<'c>, column: Index<'c>) -> Self::Step;
    /// Where the element lies.
    fn place(&self, e: &mut Emitter<'c>, slot: &Self::Slot, step: &Self::Step) -> Place<'c>;
}

/// Along the reduced index (tap, channel): `channels` of each of `taps` taps, in steps of `depth`.
#[derive(Debug, Clone, Copy)]
pub struct Reduced {
    /// Channels of a tap.
    pub channels: i64,
    /// Taps.
    pub taps: i64,
    /// Elements of a step.
    pub depth: i64,
}

impl Reduced {
    /// Number of elements.
    pub fn size(&self) -> i64 {
        self.channels * self.taps
    }

    /// Number of steps.
    pub fn steps(&self) -> i64 {
        (self.size() + self.depth - 1) / self.depth
    }

    /// Tap and channel of element `at` of a step, and the index that must be below [`Reduced::size`] where the
    /// last step is not whole.
    pub fn split<'c>(
        &self,
        e: &mut Emitter<'c>,
        step: Index<'c>,
        at: Index<'c>,
    ) -> (Index<'c>, Index<'c>, Option<Index<'c>>) {
        if self.channels % self.depth == 0 {
            let (tap, block) = e.index_split(step, self.channels / self.depth);
            let first = e.index_scale(block, self.depth);
            return (tap, e.index_add(first, at), None);
        }
        let first = e.index_scale(step, self.depth);
        let element = e.index_add(first, at);
        let (tap, channel) = e.index_split(element, self.channels);
        let partial = self.size() % self.depth != 0;
        (tap, channel, partial.then_some(element))
    }
}

/// `((n*height + i)*width + j)*channels`
pub fn pixel<'c>(
    e: &mut Emitter<'c>,
    [n, i, j]: [Index<'c>; 3],
    [height, width, channels]: [i64; 3],
) -> Index<'c> {
    let row = e.index_scale(n, height);
    let row = e.index_add(row, i);
    let column = e.index_scale(row, width);
    let column = e.index_add(column, j);
    e.index_scale(column, channels)
}

/// The address of an element, and whether it exists; where it does not, the address is that of element 0.
pub fn address<'c>(
    e: &mut Emitter<'c>,
    pointer: Val<'c>,
    elem: Elem,
    (offset, exists): Place<'c>,
) -> Val<'c> {
    let offset = match exists {
        Some(exists) => e.index_select(exists, offset, Index::constant(0)),
        None => offset,
    };
    e.address_at(pointer, elem, offset)
}
