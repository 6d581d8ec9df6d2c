//! The second kernel of a forward pass with moments: merges what all tiles left of them.

use super::Problem;
use super::statistics::kept;
use super::tile::Tile;
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

impl Problem {
    /// The stage that makes packed moments `[m, m*mean, M2 + m*mean^2]` of those of all tiles, which are so many elements
    /// of the workspace. A rank without samples contributes zeros, whatever lies there.
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
                workspace_bytes: elements * Elem::F32.bytes(),
                ..merge_footprint(self.shape.k, parts)
            },
        };
        Stage::planned(planned, move |k, e| {
            let workspace = e.workspace(Elem::F32, &[1], elements).pointer;
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
        workspace_bytes: 0,
    }
}
