//! The tile of registers that every product of the CPU is made of: `rows` x `vectors` accumulators, to which a step of
//! the reduction adds one broadcast element for each row times one vector for each column of the tile.
//!
//! Convolutions in all directions, the products of Winograd's algorithm and matrix products differ in the addresses
//! alone.

use crate::emit::{Compare, Emitter, Extent, LINE, Pointer, Val};

/// A loop of a reduction.
#[derive(Debug, Clone, Copy)]
pub struct Turns<'c> {
    /// How often it turns.
    pub count: Extent<'c>,
    /// Elements that a turn moves the left operand by.
    pub left: i64,
    /// Elements that a turn moves the right operand by.
    pub right: i64,
}

impl<'c> Turns<'c> {
    /// A loop of a fixed number of turns.
    pub fn fixed(count: i64, left: i64, right: i64) -> Turns<'c> {
        Turns {
            count: Extent::Fixed(count),
            left,
            right,
        }
    }
}

/// The operands of a tile.
#[derive(Debug, Clone)]
pub struct Tile<'c> {
    /// Where the elements that are broadcast begin.
    pub left: Pointer<'c>,
    /// Elements from there to those of each row.
    pub rows: Vec<i64>,
    /// Where the vectors begin.
    pub right: Pointer<'c>,
    /// Elements from there to each vector of the tile.
    pub vectors: Vec<i64>,
    /// Lanes of a vector.
    pub lanes: usize,
    /// How many lanes of the last vector are read; the others are zero.
    pub last: usize,
    /// What is fetched into the caches meanwhile.
    pub ahead: Ahead<'c>,
}

/// What a tile fetches into the caches while it sums.
#[derive(Debug, Clone, Default)]
pub struct Ahead<'c> {
    /// What the next tile reads.
    pub next: Option<Next>,
    /// What later tiles read from beyond the caches, which this one asks for.
    pub later: Vec<Later<'c>>,
    /// Where the sums go and what is added to them, if that is fetched meanwhile too.
    pub results: Vec<Results<'c>>,
}

/// Memory that later tiles copy: a tile asks for a share of it, in step with its right operand.
#[derive(Debug, Clone, Copy)]
pub struct Later<'c> {
    /// The first element of the share.
    pub first: Pointer<'c>,
    /// Elements of the right operand for each of these.
    pub every: i64,
}

/// Where the sums of a tile go, or what is added to them: lines too far apart for a processor to foresee.
#[derive(Debug, Clone, Copy)]
pub struct Results<'c> {
    /// That of the first row and vector.
    pub first: Pointer<'c>,
    /// Elements from a row to the next one.
    pub row: i64,
    /// Whether it is written.
    pub written: bool,
}

/// Elements of the left operand that a later tile reads, which lie in memory as no processor foresees: each row reads
/// neighbours, and rows are apart.
#[derive(Debug, Clone, Copy)]
pub struct Next {
    /// Elements from this tile to the later one.
    pub distance: i64,
    /// Elements from a row to the next one.
    pub row: i64,
}

impl<'c> Ahead<'c> {
    /// The same after the right operand moved by `by * right` elements.
    fn moved(&self, e: &Emitter<'c>, by: Val<'c>, right: i64) -> Ahead<'c> {
        let moved = |later: &Later<'c>| Later {
            first: e.advance(later.first, by, right / later.every),
            ..*later
        };
        Ahead {
            later: self.later.iter().map(moved).collect(),
            ..self.clone()
        }
    }

    fn fetch_later(&self, e: &Emitter<'c>) {
        self.later.iter().for_each(|later| e.prefetch_far(later.first));
    }
}

/// Turns of the innermost loop that are written out. More makes LLVM's scheduler move loads so far ahead that
/// accumulators spill.
const UNROLL: i64 = 4;

impl<'c> Tile<'c> {
    /// Zeros for all accumulators: those of row 0 first.
    pub fn zeros(&self, e: &Emitter<'c>) -> Vec<Val<'c>> {
        let zero = e.splat(e.zero(self.left.elem), self.lanes);
        vec![zero; self.rows.len() * self.vectors.len()]
    }

    /// Adds the products over all `loops`, the last of which is innermost and of a fixed number of turns.
    pub fn accumulate(&self, e: &Emitter<'c>, loops: &[Turns<'c>], sums: &[Val<'c>]) -> Vec<Val<'c>> {
        match loops {
            [] => self.step(e, sums),
            [inner] => match inner.count {
                Extent::Fixed(count) => self.unrolled(e, *inner, count, sums),
                Extent::Batch(_) => self.turn(e, *inner, &[], sums),
            },
            [outer, rest @ ..] => self.turn(e, *outer, rest, sums),
        }
    }

    fn turn(&self, e: &Emitter<'c>, turns: Turns<'c>, rest: &[Turns<'c>], sums: &[Val<'c>]) -> Vec<Val<'c>> {
        let high = match turns.count {
            Extent::Fixed(1) => return self.accumulate(e, rest, sums),
            Extent::Fixed(count) => e.index(count),
            Extent::Batch(count) => count,
        };
        e.for_range(e.index(0), high, 1, sums, |e, i, sums| {
            self.moved(e, i, turns).accumulate(e, rest, sums)
        })
    }

    fn unrolled(&self, e: &Emitter<'c>, turns: Turns<'c>, count: i64, sums: &[Val<'c>]) -> Vec<Val<'c>> {
        let several = |e: &Emitter<'c>, tile: &Tile<'c>, count: i64, sums: &[Val<'c>]| {
            (0..count).fold(sums.to_vec(), |sums, i| {
                tile.shifted(e, i * turns.left, i * turns.right).step(e, &sums)
            })
        };
        if count <= 2 * UNROLL {
            self.ahead.fetch_later(e);
            for &results in &self.ahead.results {
                (0..self.rows.len() as i64).for_each(|row| self.fetch_result(e, results, row));
            }
            return several(e, self, count, sums);
        }
        let whole = count / UNROLL * UNROLL;
        let [low, high] = [0, whole].map(|i| e.index(i));
        let sums = e.for_range(low, high, UNROLL, sums, |e, i, sums| {
            let tile = self.moved(e, i, turns);
            if let Some(next) = self.ahead.next {
                tile.fetch(e, next, i);
            }
            tile.ahead.fetch_later(e);
            if !self.ahead.results.is_empty() {
                self.fetch_results(e, i, whole / UNROLL);
            }
            several(e, &tile, UNROLL, sums)
        });
        let rest = self.shifted(e, whole * turns.left, whole * turns.right);
        several(e, &rest, count - whole, &sums)
    }

    /// Fetches what a later tile reads in a written-out turn, the one of step `i`: that of some rows, so that all are asked for
    /// by the end of a line.
    fn fetch(&self, e: &Emitter<'c>, next: Next, i: Val<'c>) {
        let Next { distance, row } = next;
        let parts = (LINE / self.left.elem.bytes() / UNROLL).max(1);
        let some = (self.rows.len() as i64 + parts - 1) / parts;
        let part = e.rem(e.div(i, e.index(UNROLL)), e.index(parts));
        let first = e.advance(e.shift(self.left, distance), part, some * row);
        (0..some).for_each(|r| e.prefetch(first, r * row, false));
    }

    /// Fetches some of the rows of results in each of the first written-out turns, the one of step `i` here: all at once they
    /// would wait for each other, and again in later turns they would take what weights come through.
    fn fetch_results(&self, e: &Emitter<'c>, i: Val<'c>, turns: i64) {
        let rows = self.rows.len() as i64;
        let parts = rows.min(turns).max(1);
        let some = (rows + parts - 1) / parts;
        let fetch = |e: &Emitter<'c>| {
            let part = e.div(i, e.index(UNROLL));
            for &results in &self.ahead.results {
                let first = e.advance(results.first, part, some * results.row);
                let results = Results { first, ..results };
                (0..some).for_each(|row| self.fetch_result(e, results, row));
            }
        };
        match parts < turns {
            true => e.when(e.compare(Compare::Below, i, e.index(parts * UNROLL)), fetch),
            false => fetch(e),
        }
    }

    fn fetch_result(&self, e: &Emitter<'c>, results: Results<'c>, row: i64) {
        let (lanes, line) = (self.lanes as i64, LINE / results.first.elem.bytes());
        (0..self.vectors.len() as i64 * lanes)
            .step_by(lanes.max(line) as usize)
            .for_each(|at| e.prefetch(results.first, row * results.row + at, results.written));
    }

    fn moved(&self, e: &Emitter<'c>, by: Val<'c>, turns: Turns<'c>) -> Tile<'c> {
        Tile {
            left: e.advance(self.left, by, turns.left),
            right: e.advance(self.right, by, turns.right),
            ahead: self.ahead.moved(e, by, turns.right),
            ..self.clone()
        }
    }

    fn shifted(&self, e: &Emitter<'c>, left: i64, right: i64) -> Tile<'c> {
        Tile {
            left: e.shift(self.left, left),
            right: e.shift(self.right, right),
            ..self.clone()
        }
    }

    fn step(&self, e: &Emitter<'c>, sums: &[Val<'c>]) -> Vec<Val<'c>> {
        let count = self.vectors.len();
        let vectors: Vec<Val<'c>> = (0..count)
            .map(|v| {
                let active = if v + 1 == count { self.last } else { self.lanes };
                e.read_first(self.right, self.vectors[v], self.lanes, active)
            })
            .collect();
        let row = |(r, &offset): (usize, &i64)| {
            let element = e.splat(e.read(self.left, offset, 1), self.lanes);
            let sums = &sums[r * count..(r + 1) * count];
            let add = |(&vector, &sum): (&Val<'c>, &Val<'c>)| e.fma(element, vector, sum);
            vectors.iter().zip(sums).map(add).collect::<Vec<Val<'c>>>()
        };
        self.rows.iter().enumerate().flat_map(row).collect()
    }
}
