//! Moments of the result, taken as a block stores its tile, and merged over tiles by a second kernel.
//!
//! Numbers are added about a pivot that is one of them, so that a large mean cancels exactly before anything is
//! squared: a thread adds its rows of a column about the first one in f32, a block merges its threads about the
//! tile's first row, and the second kernel merges tiles about the first one in f64. About one of its own values a set
//! has `sum^2 / count <= (count - 1) * M2`, so that subtracting this from the sum of squares magnifies the rounding
//! of f32 by less than twice the rows of a thread, which are 16 at most. Every order is fixed by the shape and the
//! largest batch.

use syncbn_ir::schedule::MOMENTS_OF_TILE as KEPT;

use super::main_loop::Lane;
use super::staging::{accesses, column_byte};
use super::tile::{BYTES, Tile};
use crate::emit::{Compare, Elem, Emitter, Index, Val};

/// Where tiles leave their moments.
#[derive(Clone, Copy)]
pub struct Statistics<'c> {
    /// Address of `[tile][MOMENTS_OF_TILE][channel]`.
    pub workspace: Val<'c>,
    /// Number of the tile among those of a channel.
    pub tile: Index<'c>,
    /// Rows of the tile that exist, at least one.
    pub rows: Index<'c>,
    /// Channels.
    pub channels: Index<'c>,
}

/// What a thread knows before it has seen a value: the pivots of its columns, and the sums and squares about them.
pub fn start<'c>(e: &Emitter<'c>, columns: i64) -> Vec<Val<'c>> {
    let zero = e.zero(Elem::F32);
    vec![e.splat(zero, columns as usize); KEPT as usize]
}

/// What a thread knows after it has seen `value`, which is its first one where `is_first` says so: then it is the pivot.
pub fn add<'c>(e: &Emitter<'c>, seen: &[Val<'c>], value: Val<'c>, is_first: Option<Val<'c>>) -> Vec<Val<'c>> {
    let &[pivot, sum, squares] = seen else {
        return Vec::new();
    };
    let pivot = match is_first {
        Some(is_first) => e.select(is_first, value, pivot),
        None => pivot,
    };
    let distance = e.sub(value, pivot);
    vec![pivot, e.add(sum, distance), e.fma(distance, distance, squares)]
}

impl<'c> Statistics<'c> {
    /// Merges what the block's threads have seen of the tile that starts at column `first` of the result: each of
    /// some columns from `column`, in every `groups`-th row from `group`. All threads meet.
    pub fn store(
        &self,
        e: &Emitter<'c>,
        at: &Lane<'c>,
        (tile, groups): (&Tile, i64),
        [group, column, first]: [Index<'c>; 3],
        seen: &[Val<'c>],
    ) {
        // The staged result lies there until all threads have read it.
        e.barrier();
        let stored = seen.first().map_or(1, |value| value.lanes as i64);
        let byte = column_byte(e, stored, group, column);
        for (i, &value) in seen.iter().enumerate() {
            let row = e.index_scale(group, KEPT);
            let row = e.index_offset(row, i as i64);
            let begin = e.index_scale(row, tile.columns * BYTES);
            let (addresses, lanes) = accesses(e, at.memory, stored, [begin, byte]);
            for (part, address) in addresses.into_iter().enumerate() {
                let first = part * lanes;
                let value = match lanes == value.lanes {
                    true => value,
                    false => e.shuffle([value, value], first..first + lanes),
                };
                e.store_vector(address, Elem::F32, value);
            }
        }
        e.barrier();
        let channel = e.index_add(first, at.thread);
        let inside = e.index_below(at.thread, tile.columns);
        let exists = e.index_compare(Compare::Below, channel, self.channels);
        let merges = e.and(inside, exists);
        e.when(merges, |e| {
            self.merge_threads(e, at, (tile, groups, stored), channel);
        });
    }

    /// Merges the moments of one column of the tile.
    fn merge_threads(
        &self,
        e: &Emitter<'c>,
        at: &Lane<'c>,
        (tile, groups, stored): (&Tile, i64, i64),
        channel: Index<'c>,
    ) {
        let bytes = [0, 1].map(|group| column_byte(e, stored, Index::constant(group), at.thread));
        let load = |e: &Emitter<'c>, group: i64, i: i64| {
            let begin = (group * KEPT + i) * tile.columns * BYTES;
            let byte = e.index_offset(bytes[group as usize % 2], begin);
            let address = e.address_at(at.memory, Elem::I8, byte);
            e.load_scalar(address, Elem::F32)
        };
        let (zero, one) = (e.zero(Elem::F32), e.float(Elem::F32, 1.0));
        let pivot = load(e, 0, 0);
        let mut total = zero;
        let mut merged = Vec::new();
        for group in 0..groups {
            let rows = e.index_offset(self.rows, groups - 1 - group);
            let rows = e.index_quotient(rows, groups);
            let count = e.index_value(rows);
            let count = e.convert(count, Elem::F32);
            let [own, sum, squares] = [0, 1, 2].map(|i| load(e, group, i));
            let divisor = e.max(count, one);
            let mean = e.div(sum, divisor);
            let product = e.mul(sum, mean);
            let m2 = e.sub(squares, product);
            let away = e.sub(own, pivot);
            let mean = e.add(away, mean);
            total = e.fma(count, mean, total);
            merged.push((count, mean, m2));
        }
        let rows = e.index_value(self.rows);
        let rows = e.convert(rows, Elem::F32);
        let mean = e.div(total, rows);
        let mut m2 = zero;
        for (count, own, squares) in merged {
            let distance = e.sub(own, mean);
            let product = e.mul(distance, distance);
            let squares = e.fma(count, product, squares);
            m2 = e.add(m2, squares);
        }
        for (i, value) in [pivot, total, m2].into_iter().enumerate() {
            let place = kept(e, [self.tile, channel], i as i64, self.channels);
            let address = e.address_at(self.workspace, Elem::F32, place);
            e.store_scalar(address, value);
        }
    }
}

/// The element of the workspace where a tile keeps number `i` of a channel.
pub fn kept<'c>(e: &Emitter<'c>, [tile, channel]: [Index<'c>; 2], i: i64, channels: Index<'c>) -> Index<'c> {
    let row = e.index_scale(tile, KEPT);
    let row = e.index_offset(row, i);
    let begin = e.index_product(row, channels);
    e.index_add(begin, channel)
}
