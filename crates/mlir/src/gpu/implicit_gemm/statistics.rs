//! Moments of the result, taken as a block stores its tile, and merged over tiles by a second kernel.
//!
//! Numbers are added about a pivot that is one of them, so that a large mean cancels exactly before anything is
//! squared: a thread adds its rows of a column about the first one in f32, a block merges its threads about the
//! tile's first row, and the second kernel merges tiles about the first one in f64. About one of its own values a set
//! has `sum^2 / count <= (count - 1) * M2`, so that subtracting this from the sum of squares magnifies the rounding
//! of f32 by less than twice the rows of a thread, which are 16 at most. Every order is fixed by the shape and the
//! largest batch.

use super::Problem;
use super::main_loop::Lane;
use super::tile::{BYTES, Tile, ceil};
use crate::emit::{Blocks, Buffer, Compare, Elem, Emitter, Index, Val, Work};

/// Channels that a block of the second kernel merges.
const CHANNELS: i64 = 8;
/// Tiles that a thread of the second kernel merges at the largest batch, unless there are too many.
const TILES: i64 = 4;
/// Threads for each channel in the second kernel, at most.
const MOST_PARTS: i64 = 64;

/// What each tile leaves for each channel: the value in its first row, and the sum and `M2` about that.
const KEPT: i64 = 3;

/// Where tiles leave their moments.
#[derive(Clone, Copy)]
pub struct Statistics<'c> {
    /// Address of `[tile][KEPT][channel]`.
    pub workspace: Val<'c>,
    /// Number of the tile among those of a channel.
    pub tile: Index<'c>,
    /// Rows of the tile that exist, at least one.
    pub rows: Index<'c>,
    /// Channels.
    pub channels: i64,
}

/// What a thread knows before it has seen a value: the pivots of its columns, and the sums and squares about them.
pub fn start<'c>(e: &mut Emitter<'c>, columns: i64) -> Vec<Val<'c>> {
    let zero = e.zero(Elem::F32);
    vec![e.splat(zero, columns as usize); KEPT as usize]
}

/// What a thread knows after it has seen `value`, which is its first one or not.
pub fn add<'c>(e: &mut Emitter<'c>, seen: &[Val<'c>], value: Val<'c>, is_first: bool) -> Vec<Val<'c>> {
    let &[pivot, sum, squares] = seen else {
        return Vec::new();
    };
    if is_first {
        return vec![value, sum, squares];
    }
    let distance = e.sub(value, pivot);
    vec![pivot, e.add(sum, distance), e.fma(distance, distance, squares)]
}

impl<'c> Statistics<'c> {
    /// Merges what the block's threads have seen of the tile that starts at column `first` of the result: each of
    /// some columns from `column`, in every `groups`-th row from `group`. All threads meet.
    pub fn store(
        &self,
        e: &mut Emitter<'c>,
        at: &Lane<'c>,
        (tile, groups): (&Tile, i64),
        [group, column, first]: [Index<'c>; 3],
        seen: &[Val<'c>],
    ) {
        // The staged result lies there until all threads have read it.
        e.barrier();
        for (i, &value) in seen.iter().enumerate() {
            let row = e.index_scale(group, KEPT);
            let row = e.index_offset(row, i as i64);
            let element = e.index_scale(row, tile.columns);
            let element = e.index_add(element, column);
            let address = e.address_at(at.memory, Elem::F32, element);
            e.store_vector(address, Elem::F32, value);
        }
        e.barrier();
        let channel = e.index_add(first, at.thread);
        let inside = e.index_below(at.thread, tile.columns);
        let exists = e.index_below(channel, self.channels);
        let merges = e.and(inside, exists);
        e.when(merges, |e| self.merge_threads(e, at, (tile, groups), channel));
    }

    /// Merges the moments of one column of the tile.
    fn merge_threads(
        &self,
        e: &mut Emitter<'c>,
        at: &Lane<'c>,
        (tile, groups): (&Tile, i64),
        channel: Index<'c>,
    ) {
        let load = |e: &mut Emitter<'c>, group: i64, i: i64| {
            let element = e.index_offset(at.thread, (group * KEPT + i) * tile.columns);
            let address = e.address_at(at.memory, Elem::F32, element);
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
        let workspace = Buffer::new(
            self.workspace,
            Elem::F32,
            &[KEPT * self.channels, self.channels, 1],
        );
        for (i, value) in [pivot, total, m2].into_iter().enumerate() {
            e.store(
                &workspace,
                &[self.tile, Index::constant(i as i64), channel],
                value,
            );
        }
    }
}

/// Bytes of the workspace.
pub fn workspace_bytes(tile: &Tile, rows: i64, channels: i64) -> i64 {
    ceil(rows, tile.rows) * KEPT * channels * BYTES
}

impl<'c> Problem<'c> {
    /// The kernel that makes packed moments `[m, m*mean, M2 + m*mean^2]` of those of all tiles. A rank without samples
    /// contributes zeros, whatever lies in the workspace.
    pub(super) fn merge_tiles(&self, e: &mut Emitter<'c>, tile: &Tile, workspace: Val<'c>, moments: Val<'c>) {
        if !e.is_current() {
            return;
        }
        let (channels, positions) = (self.shape.k, self.shape.positions());
        let most = ceil(self.batch_bound(e) * positions, tile.rows);
        let parts = (most / TILES).clamp(1, MOST_PARTS);
        let parts = 1 << parts.ilog2();
        set_grid(e, channels, parts);
        let thread = e.special_register("tid.x");
        let block = e.special_register("ctaid.x");
        let memory = e.shared_memory();
        let (part, own) = e.index_split(thread, CHANNELS);
        let channel = e.index_scale(block, CHANNELS);
        let channel = e.index_add(channel, own);
        // Threads past the last channel meet the others; they read the last one's moments and store nothing.
        let read = e.index_least(channel, Index::constant(channels - 1));
        let from = Buffer::new(workspace, Elem::F32, &[KEPT * channels, channels, 1]);
        let load = |e: &mut Emitter<'c>, tile: Index<'c>, i: i64| {
            let value = e.load(&from, &[tile, Index::constant(i), read], None);
            e.convert(value, Elem::F64)
        };
        let pivot = load(e, Index::constant(0), 0);
        let rows = e.index_scale(Index::uniform(self.n), positions);
        let above = e.index_offset(rows, tile.rows - 1);
        let tiles = e.index_quotient(above, tile.rows);
        let (low, high, step) = (e.index_value(part), e.index_value(tiles), e.index(parts));
        let zero = e.zero(Elem::F64);
        let mut sums = e.for_steps([low, high, step], &[zero, zero], |e, number, sums| {
            let number = Index::uniform(number);
            let begin = e.index_scale(number, tile.rows);
            let rest = e.index_subtract(rows, begin);
            let count = e.index_least(rest, Index::constant(tile.rows));
            let count = e.index_value(count);
            let count = e.convert(count, Elem::F64);
            let [own, sum, m2] = [0, 1, 2].map(|i| load(e, number, i));
            let away = e.sub(own, pivot);
            let sum = e.fma(count, away, sum);
            let mean = e.div(sum, count);
            let squares = e.fma(sum, mean, m2);
            vec![e.add(sums[0], sum), e.add(sums[1], squares)]
        });
        let mut others = parts;
        while others > 1 {
            others /= 2;
            let slot = |e: &mut Emitter<'c>, ahead: i64| {
                let thread = e.index_offset(thread, ahead * CHANNELS);
                let element = e.index_scale(thread, 2);
                e.address_at(memory, Elem::F64, element)
            };
            let (own, other) = (slot(e, 0), slot(e, others));
            let pair = e.vector(&sums);
            e.store_vector(own, Elem::F64, pair);
            e.barrier();
            let merges = e.index_below(part, others);
            sums = e.when_carrying(merges, &sums, |e, sums| {
                let one = e.index(1);
                let second = e.address(other, Elem::F64, one);
                let other = [other, second].map(|address| e.load_scalar(address, Elem::F64));
                vec![e.add(sums[0], other[0]), e.add(sums[1], other[1])]
            });
            e.barrier();
        }
        let is_first = e.index_below(part, 1);
        let exists = e.index_below(channel, channels);
        let stores = e.and(is_first, exists);
        e.when(stores, |e| {
            self.store_moments(e, moments, channel, pivot, [sums[0], sums[1]])
        });
    }

    /// Stores the moments of one channel, whose sum and squares about the pivot are given.
    fn store_moments(
        &self,
        e: &mut Emitter<'c>,
        moments: Val<'c>,
        channel: Index<'c>,
        pivot: Val<'c>,
        [sum, squares]: [Val<'c>; 2],
    ) {
        let result = Buffer::new(moments, Elem::F64, &[1]);
        let samples = e.convert(self.n, Elem::F64);
        let positions = e.float(Elem::F64, self.shape.positions() as f64);
        let m = e.mul(samples, positions);
        let zero = e.zero(Elem::F64);
        let some = e.compare(Compare::Gt, m, zero);
        let shift = e.div(sum, m);
        let mean = e.add(pivot, shift);
        let product = e.mul(sum, shift);
        let m2 = e.sub(squares, product);
        let first = e.mul(m, mean);
        let second = e.fma(first, mean, m2);
        for (begin, value) in [(1, first), (1 + self.shape.k, second)] {
            let at = e.index_offset(channel, begin);
            let value = e.select(some, value, zero);
            e.store(&result, &[at], value);
        }
        let is_first = e.index_below(channel, 1);
        e.when(is_first, |e| e.store(&result, &[Index::constant(0)], m));
    }
}

fn set_grid(e: &mut Emitter, channels: i64, parts: i64) {
    if let Some(device) = &mut e.device {
        let threads = CHANNELS * parts;
        device.work = Work {
            fixed: channels,
            per_sample: 0,
        };
        device.blocks = Blocks {
            threads: threads as u32,
            takes: CHANNELS,
            columns: 1,
            planes: 1,
            shared: (2 * threads * Elem::F64.bytes()) as u32,
            cooperative: true,
            resident: Some(2),
        };
    }
}
