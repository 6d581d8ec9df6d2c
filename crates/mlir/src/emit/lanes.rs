//! Schedules that use vectors: lanes along one axis, and a scalar rest.

use std::cell::RefCell;

use super::control::{Accumulate, Extent};
use super::device::elements;
use super::sums::{Finish, Inner};
use super::{Elem, Emitter, Index, Val};

/// The body of a nest whose iterations are independent.
pub type Each<'c, 'b> = &'b dyn Fn(&Emitter<'c>, &[Index<'c>]);

/// A map of so few steps is not worth dividing.
const SMALL: i64 = 512;
/// A body of so many steps for an element is worth finding its index by division.
const COSTLY: i64 = 16;
/// Elements of a row of which every thread takes a part.
const LONG: i64 = 4096;
/// So many indices of outer axes are enough for any number of threads.
const MANY: i64 = 64;

impl<'c> Emitter<'c> {
    /// The `Map` schedule: runs `body` for every index of the axes, with lanes along the last one, of which a
    /// scalar loop does the rest. On a GPU a `width` other than 1 says that `body` may have lanes. On the CPU threads divide
    /// it, and must meet before they read what others wrote.
    pub fn map(&self, extents: &[Extent<'c>], width: usize, body: Each<'c, '_>) {
        self.map_costly(extents, width, 1, body);
    }

    /// [`Emitter::map`] where `body` has about so many steps for an element; threads take smaller pieces of more steps.
    pub fn map_costly(&self, extents: &[Extent<'c>], width: usize, cost: i64, body: Each<'c, '_>) {
        if self.is_device() {
            return self.map_threads(extents, width, body);
        }
        let outer = self.lanes.replace(1);
        match self.team() {
            Some(_) => self.map_in_team(extents, width, cost, body),
            None => self.nest(extents, &[], width, body),
        }
        self.lanes.set(outer);
    }

    /// Loops over all axes, the last one in lanes.
    fn nest(&self, extents: &[Extent<'c>], at: &[Index<'c>], width: usize, body: Each<'c, '_>) {
        match extents {
            [] => body(self, at),
            &[Extent::Fixed(n)] => self.row(n, width, &|e, i| body(e, &[at, &[i]].concat())),
            &[batch] => self.for_each(batch, |e, i| body(e, &[at, &[i]].concat())),
            [first, rest @ ..] => {
                self.for_each(*first, |e, i| e.nest(rest, &[at, &[i]].concat(), width, body));
            }
        }
    }

    /// The same divided between threads: small ones are the first thread's, long rows are cut, what is costly is divided
    /// vector by vector, and of all else threads take outer indices.
    fn map_in_team(&self, extents: &[Extent<'c>], width: usize, cost: i64, body: Each<'c, '_>) {
        let (has_batch, fixed) = elements(extents);
        if !has_batch && fixed * cost <= SMALL {
            return self.by_first_thread(|e| e.nest(extents, &[], width, body));
        }
        let Some((&Extent::Fixed(row), outer)) = extents.split_last() else {
            return self.divided(extents, |e, at| body(e, at));
        };
        if cost >= COSTLY {
            for (lanes, first, chunks) in steps(row, width) {
                self.lanes.set(lanes);
                self.divided(&[outer, &[Extent::Fixed(chunks)]].concat(), |e, at| {
                    let mut at = at.to_vec();
                    if let Some(chunk) = at.last_mut() {
                        *chunk = e.lanes_from(*chunk, first);
                    }
                    body(e, &at);
                });
            }
            return self.lanes.set(1);
        }
        let is_one = |extent: &Extent<'c>| matches!(extent, Extent::Fixed(1));
        if row >= LONG || outer.iter().all(is_one) {
            let parts: Vec<_> = steps(row, width)
                .into_iter()
                .map(|(lanes, first, chunks)| (lanes, first, self.slice_of(chunks)))
                .collect();
            return self.undivided(|e| {
                e.fold_nest(outer, &[], &mut |e, at, _| {
                    for &(lanes, first, [low, high]) in &parts {
                        e.lanes.set(lanes);
                        e.each_in(low, high, |e, i| {
                            let i = e.lanes_from(Index::uniform(i), first);
                            body(e, &[at, &[i]].concat());
                        });
                    }
                    e.lanes.set(1);
                    Vec::new()
                });
            });
        }
        let enough = |&n: &usize| elements(&outer[..n]).1 >= MANY;
        let axes = (1..outer.len()).find(enough).unwrap_or(outer.len());
        self.divided(&outer[..axes], |e, at| e.nest(&extents[axes..], at, width, body));
    }

    /// [`Emitter::map`] of axes that have these strides in memory: lanes, or neighbouring threads, take neighbours in
    /// memory.
    pub fn map_along(&self, extents: &[Extent<'c>], strides: &[i64], width: usize, body: Each<'c, '_>) {
        // The batch stays outermost.
        let mut order: Vec<usize> = (0..extents.len()).collect();
        let batch = |i: usize| matches!(extents[i], Extent::Batch(_));
        order.sort_by_key(|&i| (!batch(i), std::cmp::Reverse(strides[i])));
        if order.is_sorted() {
            return self.map(extents, width, body);
        }
        let sorted: Vec<Extent<'c>> = order.iter().map(|&i| extents[i]).collect();
        self.map(&sorted, width, &|e, at| body(e, &in_place(&order, at)));
    }

    /// `0..n` in lanes, of which the rest takes half as many and so on, and the last few are scalars.
    fn row(&self, n: i64, width: usize, body: &dyn Fn(&Self, Index<'c>)) {
        for (lanes, first, chunks) in steps(n, width) {
            self.lanes.set(lanes);
            self.for_each(Extent::Fixed(chunks), |e, chunk| {
                let at = e.lanes_from(chunk, first);
                body(e, at);
            });
        }
        self.lanes.set(1);
    }

    /// The lanes of chunk `chunk` of an axis, counted from element `first`.
    fn lanes_from(&self, chunk: Index<'c>, first: i64) -> Index<'c> {
        self.index_offset(self.lanes_of(chunk), first)
    }

    /// `body` for every index of `begin..end`, which are i64 and known at run time only: in a loop over whole vectors, then
    /// in one over the rest. On a GPU a thread takes a vector, and `begin` is a multiple of its elements.
    pub fn each_in_range(&self, [begin, end]: [Val<'c>; 2], width: usize, body: impl Fn(&Self, Index<'c>)) {
        if self.is_device() {
            let range = [begin, end].map(|v| self.convert(v, self.index_elem));
            return self.range_in_threads(range, width, body);
        }
        let count = self.sub(end, begin);
        let lanes = self.index(width as i64);
        let chunks = self.div(count, lanes);
        self.with_lanes(width, |e| {
            e.for_each(Extent::Batch(chunks), |e, chunk| {
                let offset = e.index_scale(chunk, width as i64);
                let base = e.index_add(offset, Index::uniform(begin));
                body(e, e.index_add(base, Index::Const { base: 0, stride: 1 }));
            });
        });
        let done = self.mul(chunks, lanes);
        let from = self.add(begin, done);
        self.for_range(from, end, 1, &[], |e, i, _| {
            body(e, Index::uniform(i));
            Vec::new()
        });
    }

    /// Sums over `summed` for every index of `kept`, as [`Emitter::sum_in_threads`] does on a GPU. On the CPU lanes run along
    /// the last axis of what is innermost: over results, or over what is summed; threads divide the results.
    pub fn sum(
        &self,
        kept: &[Extent<'c>],
        summed: &[Extent<'c>],
        (inner, width): (Inner, usize),
        elems: &[Elem],
        body: Accumulate<'c, '_>,
        store: Finish<'c, '_>,
    ) {
        if self.is_device() {
            return self.sum_in_threads(kept, summed, inner, elems, body, store);
        }
        let body = RefCell::new(body);
        let add = |e: &Self, own: &[Index<'c>], term: &[Index<'c>], sums: &[Val<'c>]| {
            (body.borrow_mut())(e, &[own, term].concat(), sums)
        };
        match (inner, summed.split_last()) {
            (Inner::Summed, Some((&Extent::Fixed(row), outer))) => {
                self.divided(kept, |e, at| {
                    let sums = e.sum_over(outer, row, width, elems, &mut |e, r, s| add(e, at, r, s));
                    store(e, at, &sums);
                });
            }
            _ => self.map_costly(kept, width, elements(summed).1.max(COSTLY), &|e, at| {
                let start = elems.iter().map(|&elem| e.splat(e.zero(elem), e.lanes()));
                let start: Vec<Val<'c>> = start.collect();
                let sums = e.fold_nest(summed, &start, &mut |e, r, s| add(e, at, r, s));
                store(e, at, &sums);
            }),
        }
    }

    /// Sums over all indices of `outer` and of the last axis `row`, with lanes along `row`: vector accumulators
    /// over everything, summed up once, then the rest of the row in fewer. Returns scalars.
    pub fn sum_over(
        &self,
        outer: &[Extent<'c>],
        row: i64,
        width: usize,
        elems: &[Elem],
        body: Accumulate<'c, '_>,
    ) -> Vec<Val<'c>> {
        let saved = self.lanes();
        let mut sums: Vec<Val<'c>> = elems.iter().map(|&elem| self.zero(elem)).collect();
        for (lanes, first, chunks) in steps(row, width) {
            self.lanes.set(lanes);
            let start: Vec<Val<'c>> = match lanes {
                1 => sums.clone(),
                _ => elems
                    .iter()
                    .map(|&elem| self.splat(self.zero(elem), lanes))
                    .collect(),
            };
            let axes = [outer, &[Extent::Fixed(chunks)]].concat();
            let last = self.fold_nest(&axes, &start, &mut |e, at, inner| {
                let mut at = at.to_vec();
                if let Some(chunk) = at.last_mut() {
                    *chunk = e.lanes_from(*chunk, first);
                }
                body(e, &at, inner)
            });
            sums = match lanes {
                1 => last,
                _ => sums
                    .iter()
                    .zip(last)
                    .map(|(&sum, v)| self.add(sum, self.reduce_add(v)))
                    .collect(),
            };
        }
        self.lanes.set(saved);
        sums
    }
}

impl<'c> Emitter<'c> {
    /// The largest value along a row, with lanes along it; NaN if one is NaN. Returns a scalar.
    pub fn largest_over(
        &self,
        row: i64,
        width: usize,
        elem: Elem,
        value: &dyn Fn(&Self, Index<'c>) -> Val<'c>,
    ) -> Val<'c> {
        let saved = self.lanes();
        let mut largest = self.float(elem, f64::NEG_INFINITY);
        for (lanes, first, chunks) in steps(row, width) {
            self.lanes.set(lanes);
            let last = self.fold(
                Extent::Fixed(chunks),
                &[self.splat(largest, lanes)],
                |e, chunk, best| vec![e.max(value(e, e.lanes_from(chunk, first)), best[0])],
            );
            largest = self.reduce_max(last[0]);
        }
        self.lanes.set(saved);
        largest
    }
}

/// Indices along axes that were taken in another order: `at[i]` is that along axis `order[i]`.
pub fn in_place<'c>(order: &[usize], at: &[Index<'c>]) -> Vec<Index<'c>> {
    let mut own = vec![Index::constant(0); at.len()];
    for (&axis, &index) in order.iter().zip(at) {
        own[axis] = index;
    }
    own
}

/// Fewer lanes than this are not worth code of their own.
const FEWEST_LANES: usize = 4;

/// How a row is walked through: lanes, first element and number of turns, from full vectors to scalars.
fn steps(row: i64, width: usize) -> Vec<(usize, i64, i64)> {
    let (mut lanes, mut first, mut steps) = (width, 0, Vec::new());
    while first < row {
        let turns = (row - first) / lanes as i64;
        if turns > 0 {
            steps.push((lanes, first, turns));
            first += turns * lanes as i64;
        }
        lanes = match lanes / 2 {
            half if half >= FEWEST_LANES || first == 0 && half > 1 => half,
            _ => 1,
        };
    }
    steps
}
