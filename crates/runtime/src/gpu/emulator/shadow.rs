//! What is kept of the accesses to an allocation: for every piece of it who has written and read it.

use std::ops;

use super::{access::Access, memory::Range};
use crate::{arena::Arena, error::Result};

/// A thread between two barriers of its block. 0 is none.
pub(super) type Mark = u32;

/// Marks of the pieces of an allocation. Pages that nobody touches take no memory.
#[derive(Debug)]
pub(super) struct Marks(Arena);

impl Marks {
    fn new(pieces: usize) -> Result<Self> {
        let arena = Arena::sparse(
            (pieces * size_of::<Mark>()) as u64,
            "the emulator's record of accesses",
        )?;
        Ok(Marks(arena))
    }

    /// One mark a piece.
    pub fn all(&mut self) -> &mut [Mark] {
        // SAFETY: the arena is aligned to pages, every bit pattern is a mark, and `self` is borrowed as long.
        unsafe { std::slice::from_raw_parts_mut(self.0.as_ptr().cast(), self.0.len() / size_of::<Mark>()) }
    }

    /// The marks of `N` pieces from `begin` on, if there are so many.
    pub fn some<const N: usize>(&mut self, begin: usize) -> Option<&mut [Mark; N]> {
        self.all().get_mut(begin..)?.first_chunk_mut()
    }
}

/// What is known of an allocation in pieces of `1 << shift` bytes: what accesses of whole such pieces, and of no larger
/// ones, have done.
#[derive(Debug)]
pub(super) struct Layer {
    shift: usize,
    /// The last writer's mark.
    pub writers: Marks,
    /// The reader's mark, or that of several threads of an interval.
    pub readers: Marks,
    /// Whether the launch has noted an access here.
    pub used: bool,
    /// Whether the launch has noted a read here.
    pub reads: bool,
}

impl Layer {
    fn new(bytes: usize, shift: usize) -> Result<Self> {
        let pieces = bytes.div_ceil(1 << shift);
        Ok(Layer {
            shift,
            writers: Marks::new(pieces)?,
            readers: Marks::new(pieces)?,
            used: false,
            reads: false,
        })
    }

    /// The pieces that bytes lie in.
    pub fn pieces(&self, bytes: &ops::Range<usize>) -> ops::Range<usize> {
        bytes.start >> self.shift..bytes.end.div_ceil(1 << self.shift)
    }
}

/// What is known of an allocation: layers of bytes, pairs of bytes and words of four, so that most accesses have few
/// marks.
#[derive(Debug)]
pub(super) struct Shadow {
    /// Where the allocation begins.
    pub begin: usize,
    /// Its size.
    pub bytes: usize,
    pub layers: [Layer; 3],
}

impl Shadow {
    /// Of an allocation that nobody has touched.
    pub fn new(range: &Range) -> Result<Self> {
        let bytes = range.end - range.begin;
        Ok(Shadow {
            begin: range.begin,
            bytes,
            layers: [
                Layer::new(bytes, 0)?,
                Layer::new(bytes, 1)?,
                Layer::new(bytes, 2)?,
            ],
        })
    }
}

/// The layer that an access is noted in.
pub(super) fn layer(access: &Access) -> usize {
    ((access.address | access.bytes).trailing_zeros() as usize).min(2)
}
