//! Moments of the result, taken as a block stores its tile, and merged over tiles by a second kernel.
//!
//! Numbers are added about a pivot that is one of them, so that a large mean cancels exactly before anything is
//! squared: a thread adds its rows of a column about the first one in f32, a block merges its threads about the
//! tile's first row, and the second kernel merges tiles about the first one in f64. About one of its own values a set
//! has `sum^2 / count <= (count - 1) * M2`, so that subtracting this from the sum of squares magnifies the rounding
//! of f32 by less than twice the rows of a thread, which are 16 at most. Every order is fixed by the shape and the
//! largest batch.

use super::Problem;
use super::epilogue::{accesses, column_byte};
use super::main_loop::Lane;
use super::tile::{BYTES, Tile};
use crate::emit::{
    Blocks, Buffer, Compare, Cost, Elem, Emitter, Footprint, Index, Key, Number, Numbers, Val, Work, ceil,
};
use crate::ops::stage::{self, Stage};

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
fn kept<'c>(e: &Emitter<'c>, [tile, channel]: [Index<'c>; 2], i: i64, channels: Index<'c>) -> Index<'c> {
    let row = e.index_scale(tile, KEPT);
    let row = e.index_offset(row, i);
    let begin = e.index_product(row, channels);
    e.index_add(begin, channel)
}

/// Elements of the workspace.
pub fn workspace_elements(tile: &Tile, rows: i64, channels: i64) -> i64 {
    ceil(rows, tile.rows) * KEPT * channels
}

impl Problem {
    /// The stage that makes packed moments `[m, m*mean, M2 + m*mean^2]` of those of all tiles, which are so many elements
    /// of scratch memory. A rank without samples contributes zeros, whatever lies there.
    pub(super) fn merge_tiles<'a>(&self, tile: &Tile, elements: i64) -> Stage<'a> {
        let positions = self.shape.positions();
        let most = ceil(self.gpu.batch_bound * positions, tile.rows);
        let parts = (most / TILES).clamp(1, MOST_PARTS);
        let parts = 1 << parts.ilog2();
        let mut numbers = Numbers::default();
        let plan = Merge {
            rows: tile.rows,
            parts,
            channels: numbers.open(self.shape.k),
            positions: numbers.open(positions),
        };
        let planned = stage::Plan {
            key: Key::new(plan),
            numbers,
            footprint: Footprint {
                cost: self.cost_of_merge(elements),
                scratch_bytes: elements * Elem::F32.bytes(),
                ..merge_footprint(self.shape.k, parts)
            },
        };
        Stage::planned(planned, move |k, e| {
            let workspace = e.scratch(Elem::F32, &[1], elements).pointer;
            plan.emit(e, k.n, workspace, k.results[1].pointer);
        })
    }
}

/// What decides the code of the kernel that merges tiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Merge {
    /// Rows of a tile.
    rows: i64,
    /// Threads for each channel.
    parts: i64,
    /// Channels.
    channels: Number,
    /// Positions of a sample.
    positions: Number,
}

impl Merge {
    fn emit<'c>(&self, e: &Emitter<'c>, n: Val<'c>, workspace: Val<'c>, moments: Val<'c>) {
        let parts = self.parts;
        let [channels, positions] = [self.channels, self.positions].map(|number| e.number(number));
        let thread = e.special_register("tid.x");
        let block = e.special_register("ctaid.x");
        let (part, own) = e.index_split(thread, CHANNELS);
        let channel = e.index_scale(block, CHANNELS);
        let channel = e.index_add(channel, own);
        // Threads past the last channel meet the others; they read the last one's moments and store nothing.
        let last = e.index_offset(channels, -1);
        let read = e.index_least(channel, last);
        let load = |e: &Emitter<'c>, tile: Index<'c>, i: i64| {
            let place = kept(e, [tile, read], i, channels);
            let address = e.address_at(workspace, Elem::F32, place);
            let value = e.load_scalar(address, Elem::F32);
            e.convert(value, Elem::F64)
        };
        let pivot = load(e, Index::constant(0), 0);
        let rows = e.index_product(Index::uniform(n), positions);
        let above = e.index_offset(rows, self.rows - 1);
        let tiles = e.index_quotient(above, self.rows);
        let (low, high, step) = (e.index_value(part), e.index_value(tiles), e.index(parts));
        let zero = e.zero(Elem::F64);
        let sums = e.for_steps([low, high, step], &[zero, zero], |e, number, sums| {
            let number = Index::uniform(number);
            let begin = e.index_scale(number, self.rows);
            let rest = e.index_subtract(rows, begin);
            let count = e.index_least(rest, Index::constant(self.rows));
            let count = e.index_value(count);
            let count = e.convert(count, Elem::F64);
            let [own, sum, m2] = [0, 1, 2].map(|i| load(e, number, i));
            let away = e.sub(own, pivot);
            let sum = e.fma(count, away, sum);
            let mean = e.div(sum, count);
            let squares = e.fma(sum, mean, m2);
            vec![e.add(sums[0], sum), e.add(sums[1], squares)]
        });
        let sums = e.add_over_block([thread, part], [CHANNELS, parts], sums);
        let is_first = e.index_below(part, 1);
        let exists = e.index_compare(Compare::Below, channel, channels);
        let stores = e.and(is_first, exists);
        e.when(stores, |e| {
            store_moments(e, moments, [channel, channels, rows], pivot, [sums[0], sums[1]])
        });
    }
}

/// Stores the moments of one channel of `channels`, whose sum and squares about the pivot are given.
fn store_moments<'c>(
    e: &Emitter<'c>,
    moments: Val<'c>,
    [channel, channels, rows]: [Index<'c>; 3],
    pivot: Val<'c>,
    [sum, squares]: [Val<'c>; 2],
) {
    let result = Buffer::new(moments, Elem::F64, &[1]);
    let m = e.index_value(rows);
    let m = e.convert(m, Elem::F64);
    let zero = e.zero(Elem::F64);
    let some = e.compare(Compare::Gt, m, zero);
    let shift = e.div(sum, m);
    let mean = e.add(pivot, shift);
    let product = e.mul(sum, shift);
    let m2 = e.sub(squares, product);
    let first = e.mul(m, mean);
    let second = e.fma(first, mean, m2);
    let after = e.index_add(channel, channels);
    for (at, value) in [(channel, first), (after, second)] {
        let at = e.index_offset(at, 1);
        let value = e.select(some, value, zero);
        e.store(&result, &[at], value);
    }
    let is_first = e.index_below(channel, 1);
    e.when(is_first, |e| e.store(&result, &[Index::constant(0)], m));
}

/// What the kernel that merges needs.
fn merge_footprint(channels: i64, parts: i64) -> Footprint {
    let threads = CHANNELS * parts;
    Footprint {
        work: Work {
            fixed: channels,
            per_sample: 0,
        },
        blocks: Blocks {
            threads: threads as u32,
            takes: CHANNELS,
            columns: 1,
            planes: 1,
            shared: (2 * threads * Elem::F64.bytes()) as u32,
            cooperative: true,
            resident: Some(2),
        },
        cost: Cost::default(),
        scratch_bytes: 0,
    }
}
