//! The operands of the matrix product: where element (row, column) of a tile lies in global memory.
//!
//! Tiles come in steps along the reduced index. What is known before the first step is a [`Operand::Slot`], one
//! for each copy that a thread makes; what the slots of a step share is a [`Operand::Step`].

use crate::emit::{Divisor, Elem, Emitter, Index, Number, Numbers, Val};

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
    fn slot(&self, e: &Emitter<'c>, row: Index<'c>, column: Index<'c>) -> Self::Slot;
    /// For step `step` of the tile's columns from `column`.
    fn step(&self, e: &Emitter<'c>, step: Index<'c>, column: Index<'c>) -> Self::Step;
    /// Where the element lies.
    fn place(&self, e: &Emitter<'c>, slot: &Self::Slot, step: &Self::Step) -> Place<'c>;
}

/// Along the reduced index (tap, channel): the channels of each tap, in steps of `depth`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Reduced<T> {
    /// Channels of a tap.
    channels: Divisor<T>,
    /// Steps of a tap, where it has whole ones; else not used.
    blocks: Divisor<T>,
    /// Whether there is one tap.
    single: bool,
    /// Elements of a step.
    depth: i64,
    /// Whether taps have whole steps.
    even: bool,
}

impl Reduced<Number> {
    /// The plan of `channels` of each tap. `single` says that there is one.
    pub fn new(channels: i64, single: bool, depth: i64, numbers: &mut Numbers) -> Reduced<Number> {
        let even = channels % depth == 0;
        Reduced {
            channels: numbers.open_divisor(channels),
            blocks: numbers.open_divisor(channels / depth),
            single,
            depth,
            even,
        }
    }

    /// Its values.
    pub fn values<'c>(&self, e: &Emitter<'c>) -> Reduced<Index<'c>> {
        Reduced {
            channels: e.divisor(self.channels),
            blocks: e.divisor(self.blocks),
            single: self.single,
            depth: self.depth,
            even: self.even,
        }
    }
}

impl<'c> Reduced<Index<'c>> {
    /// Channels of a tap.
    pub fn channels(&self) -> Index<'c> {
        self.channels.size
    }

    /// Elements of a step.
    pub fn depth(&self) -> i64 {
        self.depth
    }

    /// Whether the last step may not be whole.
    pub fn is_partial(&self) -> bool {
        !self.even
    }

    /// Number of elements of `taps` taps.
    pub fn size(&self, e: &Emitter<'c>, taps: Index<'c>) -> Index<'c> {
        e.index_product(taps, self.channels.size)
    }

    /// Number of steps.
    pub fn steps(&self, e: &Emitter<'c>, taps: Index<'c>) -> Index<'c> {
        if self.even {
            return e.index_product(taps, self.blocks.size);
        }
        let size = self.size(e, taps);
        let above = e.index_offset(size, self.depth - 1);
        e.index_quotient(above, self.depth)
    }

    /// Tap and channel of element `at` of a step, and the index that must be below [`Reduced::size`] where the
    /// last step is not whole.
    pub fn split(
        &self,
        e: &Emitter<'c>,
        step: Index<'c>,
        at: Index<'c>,
    ) -> (Index<'c>, Index<'c>, Option<Index<'c>>) {
        if self.even && !self.single {
            let (tap, block) = e.index_divide_by(step, &self.blocks);
            let first = e.index_scale(block, self.depth);
            return (tap, e.index_add(first, at), None);
        }
        let first = e.index_scale(step, self.depth);
        let element = e.index_add(first, at);
        let (tap, channel) = match self.single {
            true => (Index::constant(0), element),
            false => e.index_divide_by(element, &self.channels),
        };
        (tap, channel, self.is_partial().then_some(element))
    }
}

/// `((n*height + i)*width + j)*channels`
pub fn pixel<'c>(
    e: &Emitter<'c>,
    [n, i, j]: [Index<'c>; 3],
    [height, width, channels]: [Index<'c>; 3],
) -> Index<'c> {
    let row = e.index_product(n, height);
    let row = e.index_add(row, i);
    let column = e.index_product(row, width);
    let column = e.index_add(column, j);
    e.index_product(column, channels)
}

/// The address of an element, and whether it exists; where it does not, the address is that of element 0.
pub fn address<'c>(e: &Emitter<'c>, pointer: Val<'c>, elem: Elem, (offset, exists): Place<'c>) -> Val<'c> {
    let offset = match exists {
        Some(exists) => e.index_select(exists, offset, Index::constant(0)),
        None => offset,
    };
    e.address_at(pointer, elem, offset)
}
