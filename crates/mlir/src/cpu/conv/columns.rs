//! Output channels in vectors, as many as a register tile has.

use super::Blocking;
use super::filter::ragged_in;
use crate::emit::{Emitter, Val};

/// Vectors of output channels that a tile has.
#[derive(Clone, Copy)]
pub struct Columns<'c> {
    /// First channel of the group's.
    pub first: Val<'c>,
    /// How many vectors.
    pub vectors: i64,
    /// Lanes of the last one that are channels.
    pub last: usize,
    /// The group.
    pub group: Val<'c>,
}

impl Columns<'_> {
    /// Lanes of vector `v` that are channels, of so many.
    pub fn active(&self, v: i64, lanes: usize) -> usize {
        match v + 1 == self.vectors {
            true => self.last,
            false => lanes,
        }
    }
}

/// How often [`each_columns`] calls its body for so many channels.
pub fn count(blocking: &Blocking, channels: i64) -> i64 {
    let size = blocking.lanes as i64 * blocking.vectors;
    (channels + size - 1) / size
}

/// `body` for all vectors of a group's channels, as many at a time as a tile has; of these times only `part`, or all.
pub fn each_columns<'c>(
    e: &Emitter<'c>,
    blocking: &Blocking,
    (channels, part): (i64, Option<[Val<'c>; 2]>),
    group: Val<'c>,
    body: impl Fn(&Emitter<'c>, Columns<'c>),
) {
    let lanes = blocking.lanes as i64;
    let size = lanes * blocking.vectors;
    ragged_in(e, (channels, part), size, &|e, i, count| {
        let vectors = (count as i64 + lanes - 1) / lanes;
        let columns = Columns {
            first: e.mul(i, e.index(size)),
            vectors,
            last: count - (vectors - 1) as usize * blocking.lanes,
            group,
        };
        body(e, columns);
    });
}
