//! A tile of a depthwise convolution: the sums of some pixels of a vector of channels, in registers.

use syncbn_ir::schedule::axis::{Axis, Phase};
use syncbn_ir::schedule::borders::MOST_TAPS;

use super::view::View;
use super::{First, Row, Sum, Tile};
use crate::emit::{Emitter, Pointer, Val};

/// A row of taps of a tile.
#[derive(Clone, Copy)]
struct Taps<'c> {
    /// The column that output 0 of the tile reads for the first of them is so many elements behind this.
    from: Pointer<'c>,
    /// The column itself, where the tile may leave taps out.
    column: Option<i64>,
    weights: Pointer<'c>,
    count: i64,
}

impl<'c> Sum<'_, 'c> {
    pub(super) fn tile(
        &self,
        e: &Emitter<'c>,
        view: &View<'c>,
        phase: &Phase,
        row: &Row<'c>,
        tile: &Tile<'c>,
    ) {
        let ax = &phase[2];
        let zero = e.splat(e.zero(self.source.pointer.elem), self.lanes);
        let zeros = vec![zero; tile.pixels as usize];
        let sums = match phase.iter().any(|axis| axis.taps == 0) {
            true => zeros,
            false => self.taps(e, view, phase, (row, tile), &zeros),
        };
        let target = Pointer::new(self.target.pointer, self.target.memory_elem());
        let (first, offset) = match tile.first {
            First::Inner(first) => (e.mul(first, e.index(ax.out_step * self.channels)), 0),
            First::Border(first) => (e.index(0), first * ax.out_step * self.channels),
        };
        let start = e.add(e.add(row.to, tile.channel), first);
        let to = e.advance(target, start, 1);
        self.fetch(e, (view, phase), (row, tile), (to, offset));
        for (p, &sum) in sums.iter().enumerate() {
            let at = offset + p as i64 * ax.out_step * self.channels;
            let value = self
                .epilogue
                .apply(e, sum, (start, at), (tile.channel, 0), tile.active);
            e.write_first(to, at, value, tile.active);
        }
    }

    /// Asks for what the next tile of the row reads for its last row of taps, the others being in the cache, and what it writes.
    fn fetch(
        &self,
        e: &Emitter<'c>,
        (view, phase): (&View<'c>, &Phase),
        (row, tile): (&Row<'c>, &Tile<'c>),
        (to, offset): (Pointer<'c>, i64),
    ) {
        let [lz, ly, lx] = row.along;
        let next = |taps: i64, tap: i64| e.index((taps - 1).max(0) * tap);
        let z = e.add(row.origin[0], next(lz.taps, lz.tap));
        let y = e.add(row.origin[1], next(ly.taps, ly.tap));
        let (base, column) = match tile.first {
            First::Inner(first) => (e.mul(first, e.index(lx.step)), lx.start),
            First::Border(first) => (e.index(0), lx.start + first * lx.step),
        };
        let at = e.add(view.row(e, [z, y]), e.mul(base, e.index(view.column)));
        let from = e.advance(view.pointer, e.add(at, tile.channel), 1);
        if phase.iter().all(|axis| axis.taps > 0) {
            // Of each output as many columns as its taps read that no output before it does.
            let new = lx.step.min(lx.taps);
            for (p, tap) in
                (tile.pixels..2 * tile.pixels).flat_map(|p| (1..=new).map(move |i| (p, lx.taps - i)))
            {
                e.prefetch(from, (column + p * lx.step + tap * lx.tap) * view.column, false);
            }
        }
        for p in tile.pixels..2 * tile.pixels {
            e.prefetch(to, offset + p * phase[2].out_step * self.channels, true);
        }
    }

    /// Adds the products over all taps of a phase that are not in the padding.
    fn taps(
        &self,
        e: &Emitter<'c>,
        view: &View<'c>,
        phase: &Phase,
        (row, tile): (&Row<'c>, &Tile<'c>),
        sums: &[Val<'c>],
    ) -> Vec<Val<'c>> {
        let [lz, ly, lx] = row.along;
        let [_, height, width] = self.window;
        let weight = |i: Val<'c>, axis: &Axis| {
            let turn = e.mul(i, e.index(axis.weight_tap));
            e.add(turn, e.index(axis.weight_start))
        };
        let ax = &phase[2];
        let (base, column) = match tile.first {
            First::Inner(first) => (e.mul(first, e.index(lx.step)), None),
            First::Border(first) => (e.index(0), Some(lx.start + first * lx.step)),
        };
        let along_row = e.add(e.mul(base, e.index(view.column)), tile.channel);
        lz.each_tap(e, row.origin[0], sums, |e, tz, sums| {
            let z = e.add(row.origin[0], e.mul(tz, e.index(lz.tap)));
            let wz = e.mul(weight(tz, &phase[0]), e.index(height));
            ly.each_tap(e, row.origin[1], sums, |e, ty, sums| {
                let y = e.add(row.origin[1], e.mul(ty, e.index(ly.tap)));
                let at = e.add(view.row(e, [z, y]), along_row);
                let w = e.mul(e.add(wz, weight(ty, &phase[1])), e.index(width));
                let w = e.add(w, e.index(ax.weight_start));
                let w = e.add(e.mul(w, e.index(self.channels)), tile.channel);
                let taps = Taps {
                    from: e.advance(view.pointer, at, 1),
                    column,
                    weights: e.advance(self.weights, w, 1),
                    count: lx.taps,
                };
                if lx.taps <= MOST_TAPS {
                    return self.row_of_taps(e, (view, row), ax, (taps, tile), sums);
                }
                e.fold_of(lx.taps, sums, |e, tx, sums| {
                    let taps = Taps {
                        from: e.advance(taps.from, tx, lx.tap * view.column),
                        weights: e.advance(taps.weights, tx, ax.weight_tap * self.channels),
                        count: 1,
                        ..taps
                    };
                    self.row_of_taps(e, (view, row), ax, (taps, tile), sums)
                })
            })
        })
    }

    /// Adds neighbouring taps. What is read is read once, for all pixels that meet it.
    fn row_of_taps(
        &self,
        e: &Emitter<'c>,
        (view, row): (&View<'c>, &Row<'c>),
        ax: &Axis,
        (taps, tile): (Taps<'c>, &Tile<'c>),
        sums: &[Val<'c>],
    ) -> Vec<Val<'c>> {
        let lx = &row.along[2];
        let read = |p: Pointer<'c>, at: i64| e.read_first(p, at, self.lanes, tile.active);
        let filter: Vec<Val<'c>> = (0..taps.count)
            .map(|t| read(taps.weights, t * ax.weight_tap * self.channels))
            .collect();
        let mut sums = sums.to_vec();
        let first = taps.column.unwrap_or(lx.start);
        let last = (tile.pixels - 1) * lx.step + (taps.count - 1) * lx.tap;
        for column in (0..=last).map(|i| first + i) {
            if taps.column.is_some() && !(0..lx.size).contains(&column) {
                continue;
            }
            let meets = |p: usize, t: i64| first + p as i64 * lx.step + t * lx.tap == column;
            let mut value = None;
            for (p, sum) in sums.iter_mut().enumerate() {
                for t in (0..taps.count).filter(|&t| meets(p, t)) {
                    let value = *value.get_or_insert_with(|| read(taps.from, column * view.column));
                    *sum = e.fma(value, filter[t as usize], *sum);
                }
            }
        }
        sums
    }
}
