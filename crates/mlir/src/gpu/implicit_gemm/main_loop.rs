//! The product of a block: copies run some steps ahead of the matrix instructions that use them.

use super::operands::Operand;
use super::shared::{SharedTile, Side, before};
use super::tile::{INSTRUCTION, INSTRUCTION_BYTES, Tile};
use crate::emit::{Elem, Emitter, Index, Val};
use crate::program::Products;

/// The current thread's place in its block.
pub struct Lane<'c> {
    /// The thread in the block.
    pub thread: Index<'c>,
    /// The block's shared memory.
    pub memory: Val<'c>,
    /// First row of its warp in the tile.
    pub row: Index<'c>,
    /// First column of its warp in the tile.
    pub column: Index<'c>,
    /// The lane in its warp.
    pub lane: Index<'c>,
}

/// A thread's part of the product: element `[i][j]` has the four values of the lane in the 16x8 result `i` down
/// and `j` across of its warp.
pub type Sums<'c> = Vec<Vec<[Val<'c>; 4]>>;

impl<'c> Lane<'c> {
    /// The current thread's.
    pub fn new(e: &Emitter<'c>, tile: &Tile) -> Lane<'c> {
        let memory = e.shared_memory();
        let thread = e.special_register("tid.x");
        let (warp, lane) = e.index_split(thread, 32);
        let (across, down) = e.index_split(warp, tile.rows / tile.warp_rows);
        Lane {
            thread,
            memory,
            row: e.index_scale(down, tile.warp_rows),
            column: e.index_scale(across, tile.warp_columns),
            lane,
        }
    }
}

/// The product over steps `low..high`. Afterwards all threads have met and shared memory is free.
pub fn product<'c, A: Operand<'c>, B: Operand<'c>>(
    e: &Emitter<'c>,
    at: &Lane<'c>,
    (tile, products): (&Tile, Products),
    (a, b): (A, B),
    [low, high]: [Index<'c>; 2],
) -> Sums<'c> {
    let second = tile.rows * tile.depth_bytes();
    let mut a = SharedTile::new(e, a, Side::Left, tile, 0, at.thread);
    let mut b = SharedTile::new(e, b, Side::Right, tile, second, at.thread);
    let [height, width] = INSTRUCTION;
    let (down, across) = (tile.warp_rows / height, tile.warp_columns / width);
    a.prepare(e, at.lane, at.row, tile, down);
    b.prepare(e, at.lane, at.column, tile, across / 2);
    let copy = |e: &Emitter<'c>, step: Index<'c>, stage: Index<'c>| {
        a.copy(e, at.memory, step, stage);
        b.copy(e, at.memory, step, stage);
    };
    let [none, ahead] = [0, tile.stages - 1].map(|n| e.index(n));
    e.for_range(none, ahead, 1, &[], |e, ahead, _| {
        let step = e.index_add(low, Index::uniform(ahead));
        let stage = e.index_scale(Index::uniform(ahead), tile.stage_bytes());
        let exists = before(e, step, high);
        e.when(exists, |e| copy(e, step, stage));
        e.commit_copies();
        Vec::new()
    });
    let zero = e.zero(Elem::F32);
    let start = vec![zero; (down * across * 4) as usize];
    let [from, to] = [low, high].map(|i| e.index_value(i));
    let sums = e.for_range(from, to, 1, &start, |e, step, sums| {
        let step = Index::uniform(step);
        let done = e.index_subtract(step, low);
        let stage = e.index_remainder(done, tile.stages);
        let stage = e.index_scale(stage, tile.stage_bytes());
        e.wait_for_copies(tile.stages - 2);
        e.barrier();
        let next = e.index_offset(step, tile.stages - 1);
        let free = e.index_offset(done, tile.stages - 1);
        let free = e.index_remainder(free, tile.stages);
        let free = e.index_scale(free, tile.stage_bytes());
        let exists = before(e, next, high);
        e.when(exists, |e| copy(e, next, free));
        e.commit_copies();
        let mut sums = unflatten(sums, across as usize);
        for block in 0..tile.depth_bytes() / INSTRUCTION_BYTES {
            let left: Vec<Parts<'c>> = (0..down)
                .map(|i| {
                    let fragment = a.fragment(e, at.memory, stage, block, i);
                    parts(e, fragment, products)
                })
                .collect();
            for pair in 0..across / 2 {
                let fragment = b.fragment(e, at.memory, stage, block, pair);
                let right = parts(e, fragment, products);
                for half in 0..2 {
                    for (row, left) in sums.iter_mut().zip(&left) {
                        let sum = &mut row[(2 * pair) as usize + half];
                        *sum = multiply(e, left, &right, (half, products), *sum);
                    }
                }
            }
        }
        sums.concat().concat()
    });
    e.wait_for_copies(0);
    e.barrier();
    unflatten(&sums, across as usize)
}

fn unflatten<'c>(values: &[Val<'c>], across: usize) -> Sums<'c> {
    let fours: Vec<[Val<'c>; 4]> = values.chunks_exact(4).map(|v| [v[0], v[1], v[2], v[3]]).collect();
    fours.chunks(across).map(<[_]>::to_vec).collect()
}

/// Operands as the words that matrix instructions take; in tf32 perhaps in parts, the most significant one first.
type Parts<'c> = Vec<[Val<'c>; 4]>;

fn parts<'c>(e: &Emitter<'c>, fragment: [Val<'c>; 4], products: Products) -> Parts<'c> {
    if products == Products::Bf16 {
        return vec![fragment];
    }
    let fragment = fragment.map(|word| e.bitcast(word, Elem::F32));
    let high = fragment.map(|x| e.round_to_tf32(x));
    if products != Products::ThreeTf32 {
        return vec![high];
    }
    let mut low = high;
    for (low, x) in low.iter_mut().zip(fragment) {
        let rounded = e.bitcast(*low, Elem::F32);
        let rest = e.sub(x, rounded);
        *low = e.round_to_tf32(rest);
    }
    vec![high, low]
}

/// `sum + left * right`, for one half of the two right fragments. Matrix units cut off what lies below the last bit of
/// their accumulator, which is too much for the small parts of three products: these are added to 0, small ones first,
/// and their sum is rounded to nearest as it is added.
fn multiply<'c>(
    e: &Emitter<'c>,
    left: &Parts<'c>,
    right: &Parts<'c>,
    (half, products): (usize, Products),
    sum: [Val<'c>; 4],
) -> [Val<'c>; 4] {
    let half = |part: &[Val<'c>; 4]| [part[2 * half], part[2 * half + 1]];
    match (&left[..], &right[..]) {
        ([high, low], [right_high, right_low]) => {
            let zero = e.zero(Elem::F32);
            let part = e.multiply_tf32(*low, half(right_high), [zero; 4]);
            let part = e.multiply_tf32(*high, half(right_low), part);
            let part = e.multiply_tf32(*high, half(right_high), part);
            [0, 1, 2, 3].map(|i| e.add(sum[i], part[i]))
        }
        _ if products == Products::Bf16 => e.multiply_bf16(left[0], half(&right[0]), sum),
        _ => e.multiply_tf32(left[0], half(&right[0]), sum),
    }
}
