//! Output channels in vectors, as many as a register tile has.

use super::Blocking;
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

/// `body` for all vectors of a group's channels, as many at a time as a tile has.
pub fn each_columns<'c>(
    e: &Emitter<'c>,
    blocking: &Blocking,
    channels: i64,
    group: Val<'c>,
    body: impl Fn(&Emitter<'c>, Columns<'c>),
) {
    let lanes = blocking.lanes as i64;
    let size = lanes * blocking.vectors;
    let whole = channels / size;
    e.each_of(whole, |e, i| {
        let first = e.mul(i, e.index(size));
        body(
            e,
            Columns {
                first,
                vectors: blocking.vectors,
                last: lanes as usize,
                group,
            },
        );
    });
    let rest = channels - whole * size;
    if rest > 0 {
        let vectors = (rest + lanes - 1) / lanes;
        let last = (rest - (vectors - 1) * lanes) as usize;
        body(
            e,
            Columns {
                first: e.index(whole * size),
                vectors,
                last,
                group,
            },
        );
    }
}
