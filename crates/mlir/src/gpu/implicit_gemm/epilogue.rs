//! From a thread's sums to the result in memory, through shared memory, so that stores are 16 bytes wide.

use syncbn_ir::ops::UnaryFunction;

use super::main_loop::{Lane, Sums};
use super::operands::Place;
use super::staging::{accesses, column_byte};
use super::statistics::{self, Statistics};
use super::tile::{BYTES, INSTRUCTION, Tile};
use crate::emit::{COPY_BYTES, Compare, Elem, Emitter, Index, Val};
use crate::ops::kernel::Kernel;

/// Rows of a thread that are stored in one turn of a loop.
const UNROLLED: i64 = 4;

/// What is made of a result besides storing it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epilogue {
    /// Whether operand 2 is added, by the result's column.
    pub bias: bool,
    /// Whether operand 3 is added, which lies as the result does.
    pub residual: bool,
    /// Applied in the end.
    pub activation: Option<UnaryFunction>,
    /// Whether result 1 are its moments.
    pub moments: bool,
}

impl Epilogue {
    /// What it works with in a kernel.
    pub fn finish<'c>(&self, k: &Kernel<'c>) -> Finish<'c> {
        let operand = |i: usize| k.operands.get(i).map(|tensor| tensor.pointer);
        Finish {
            bias: operand(2).filter(|_| self.bias),
            residual: operand(3).filter(|_| self.residual),
            activation: self.activation,
        }
    }
}

/// What is made of a result before it is stored.
#[derive(Default, Clone, Copy)]
pub struct Finish<'c> {
    /// Added, by the result's column.
    pub bias: Option<Val<'c>>,
    /// Added; lies as the result does.
    pub residual: Option<Val<'c>>,
    /// Applied in the end.
    pub activation: Option<UnaryFunction>,
}

/// Where results go.
pub struct Destination<'c, 'b> {
    /// Address of element 0.
    pub pointer: Val<'c>,
    /// Element type in memory.
    pub elem: Elem,
    /// Column 0 of the tile.
    pub column: Index<'c>,
    /// Where element (row, column) of the tile goes, and whether it does.
    pub place: &'b dyn Fn(&Emitter<'c>, Index<'c>, Index<'c>) -> Place<'c>,
    /// What is made of it.
    pub finish: Finish<'c>,
    /// Where its moments go; None where nobody needs them.
    pub statistics: Option<Statistics<'c>>,
}

/// Stores a block's tile. All threads meet; shared memory must be free.
pub fn store<'c>(e: &Emitter<'c>, at: &Lane<'c>, tile: &Tile, sums: &Sums<'c>, to: &Destination<'c, '_>) {
    let stored = COPY_BYTES / to.elem.bytes();
    stage(e, at, (tile, stored), sums);
    e.barrier();
    let a_row = tile.columns / stored;
    let (first, column) = e.index_split(at.thread, a_row);
    let column = e.index_scale(column, stored);
    let at_a_time = tile.threads() / a_row;
    let seen = match to.statistics {
        Some(_) => statistics::start(e, stored),
        None => Vec::new(),
    };
    let turns = tile.rows / at_a_time;
    let unrolled = turns.min(UNROLLED);
    let [none, all] = [0, turns].map(|n| e.index(n));
    let seen = e.for_range(none, all, unrolled, &seen, |e, turn, seen| {
        let mut seen = seen.to_vec();
        let is_first = e.index_compare(Compare::Eq, Index::uniform(turn), Index::constant(0));
        let passed = e.index_scale(Index::uniform(turn), at_a_time);
        let first = e.index_add(first, passed);
        for i in 0..unrolled {
            let row = e.index_offset(first, i * at_a_time);
            let value = staged(e, at, (tile, stored), row, column);
            let (offset, exists) = (to.place)(e, row, column);
            let finish = |e: &Emitter<'c>, seen: &[Val<'c>]| {
                let value = finished(e, to, value, column, offset);
                let address = e.address_at(to.pointer, to.elem, offset);
                let value = e.store_vector(address, to.elem, value);
                statistics::add(e, seen, value, (i == 0).then_some(is_first))
            };
            seen = match exists {
                Some(exists) => e.when_carrying(exists, &seen, finish),
                None => finish(e, &seen),
            };
        }
        seen
    });
    if let Some(statistics) = &to.statistics {
        statistics.store(e, at, (tile, at_a_time), [first, column, to.column], &seen);
    }
}

/// `stored` staged sums from (row, column) on.
fn staged<'c>(
    e: &Emitter<'c>,
    at: &Lane<'c>,
    (tile, stored): (&Tile, i64),
    row: Index<'c>,
    column: Index<'c>,
) -> Val<'c> {
    let begin = e.index_scale(row, tile.staged_row());
    let byte = column_byte(e, stored, row, column);
    let (addresses, lanes) = accesses(e, at.memory, stored, [begin, byte]);
    let parts: Vec<Val<'c>> = addresses
        .into_iter()
        .map(|address| e.load_vector(address, Elem::F32, lanes))
        .collect();
    match parts[..] {
        [first, second] => e.shuffle([first, second], 0..2 * lanes),
        _ => parts[0],
    }
}

/// Puts sums where the rows of the tile are contiguous.
fn stage<'c>(e: &Emitter<'c>, at: &Lane<'c>, (tile, stored): (&Tile, i64), sums: &Sums<'c>) {
    let (group, pair) = e.index_split(at.lane, 4);
    let row = e.index_add(at.row, group);
    let pair = e.index_scale(pair, 2);
    let column = e.index_add(at.column, pair);
    // What is added below keeps the parity of the row, and stays within the warp's columns.
    let begin = e.index_scale(row, tile.staged_row());
    let byte = column_byte(e, stored, row, column);
    let byte = e.index_add(begin, byte);
    let start = e.address_at(at.memory, Elem::I8, byte);
    let [height, width] = INSTRUCTION;
    for (i, row) in sums.iter().enumerate() {
        for (j, sum) in row.iter().enumerate() {
            for half in 0..2 {
                let down = i as i64 * height + half as i64 * 8;
                let offset = down * tile.staged_row() + j as i64 * width * BYTES;
                let address = e.address_at(start, Elem::I8, Index::constant(offset));
                let value = e.vector(&sum[2 * half..2 * half + 2]);
                e.store_vector(address, Elem::F32, value);
            }
        }
    }
}

fn finished<'c>(
    e: &Emitter<'c>,
    to: &Destination<'c, '_>,
    value: Val<'c>,
    column: Index<'c>,
    offset: Index<'c>,
) -> Val<'c> {
    let Finish {
        bias,
        residual,
        activation,
    } = to.finish;
    let mut value = value;
    let column = e.index_add(to.column, column);
    for (addend, elem, at) in [(bias, Elem::F32, column), (residual, to.elem, offset)] {
        if let Some(addend) = addend {
            let address = e.address_at(addend, elem, at);
            let addend = e.load_vector(address, elem, value.lanes);
            value = e.add(value, addend);
        }
    }
    match activation {
        Some(function) => e.unary(function, value),
        None => value,
    }
}
