//! Output channels in vectors, as many as a register tile has.

use super::Blocking;
use crate::emit::{Compare, Emitter, Val};

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
    let whole = channels / size;
    let full = |e: &Emitter<'c>, i: Val<'c>| {
        let columns = Columns {
            first: e.mul(i, e.index(size)),
            vectors: blocking.vectors,
            last: lanes as usize,
            group,
        };
        body(e, columns);
    };
    match part {
        Some([low, high]) if whole > 0 => e.each_in(low, e.min(high, e.index(whole)), full),
        _ => e.each_of(whole, full),
    }
    let rest = channels - whole * size;
    if rest > 0 {
        let vectors = (rest + lanes - 1) / lanes;
        let columns = Columns {
            first: e.index(whole * size),
            vectors,
            last: (rest - (vectors - 1) * lanes) as usize,
            group,
        };
        let is_in = part.map(|[_, high]| e.compare(Compare::Gt, high, e.index(whole)));
        e.where_inside(is_in, |e| body(e, columns));
    }
}
