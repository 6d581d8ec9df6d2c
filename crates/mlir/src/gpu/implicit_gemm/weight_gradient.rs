//! The kernels of the gradient for the weights: sums over parts of the outputs, and their sum.

use super::epilogue::{Destination, Finish, store};
use super::images::{Gradient, Patches};
use super::main_loop::{Lane, product};
use super::shape::Shape;
use super::tile::{Size, Tile, ceil, choose_split};
use super::{Problem, set_grid};
use crate::emit::{Buffer, Elem, Emitter, Extent, Index, Val, Work};

impl<'c> Problem<'c> {
    /// The gradient for the weights: `x` and `dy` to `dw`. Needs two stages.
    pub fn backward_weight(&self, e: &mut Emitter<'c>, [x, dy, dw]: [Val<'c>; 3]) {
        let Shape { c, k, .. } = self.shape;
        let columns = self.shape.taps() * c;
        let batch_bound = self.batch_bound(e);
        let size = Size {
            rows: k,
            columns,
            reduced: batch_bound * self.shape.positions(),
        };
        let (tile, splits) = choose_split(&size, self.products);
        let partial = match (&mut e.device, splits) {
            (Some(device), 2..) => {
                device.scratch_bytes = device.scratch_bytes.max(splits * k * columns * Elem::F32.bytes());
                device.scratch
            }
            _ => dw,
        };
        if e.is_current() {
            self.partial_weights(e, (&tile, splits), &size, [x, dy, partial]);
        }
        if splits == 1 {
            return;
        }
        e.then();
        let elements = k * columns;
        let (from, to) = (
            Buffer::new(partial, Elem::F32, &[elements, 1]),
            Buffer::new(dw, Elem::F32, &[1]),
        );
        e.map(&[Extent::Fixed(elements)], 1, &|e, at| {
            let zero = e.zero(Elem::F64);
            let sum = e.fold(Extent::Fixed(splits), &[zero], |e, split, sum| {
                let part = e.load(&from, &[split, at[0]], None);
                let part = e.convert(part, Elem::F64);
                vec![e.add(sum[0], part)]
            });
            let sum = e.convert(sum[0], Elem::F32);
            e.store(&to, at, sum);
        });
    }

    /// The sums over one part of the outputs in each plane.
    fn partial_weights(
        &self,
        e: &mut Emitter<'c>,
        (tile, splits): (&Tile, i64),
        size: &Size,
        [x, dy, to]: [Val<'c>; 3],
    ) {
        let Size { rows: k, columns, .. } = *size;
        let across = ceil(columns, tile.columns);
        let work = Work {
            fixed: k,
            per_sample: 0,
        };
        set_grid(e, tile, work, across, splits);
        let at = Lane::new(e, tile);
        let block = e.special_register("ctaid.x");
        let (down, across) = e.index_split(block, across);
        let (first_row, first) = (
            e.index_scale(down, tile.rows),
            e.index_scale(across, tile.columns),
        );
        let plane = match splits {
            1 => Index::constant(0),
            _ => e.special_register("ctaid.z"),
        };
        let outputs = e.index_scale(Index::uniform(self.n), self.shape.positions());
        let above = e.index_offset(outputs, tile.depth - 1);
        let steps = e.index_quotient(above, tile.depth);
        let a_split = ceil(ceil(size.reduced, tile.depth), splits).max(1);
        let low = e.index_scale(plane, a_split);
        let high = e.index_offset(low, a_split);
        let (low, high) = (e.index_least(low, steps), e.index_least(high, steps));
        let left = Gradient {
            gradient: dy,
            rows: outputs,
            depth: tile.depth,
            columns: k,
            first: first_row,
            whole: k % tile.rows == 0,
        };
        let right = Patches {
            image: x,
            axes: self.shape.forward(),
            channels: self.shape.c,
            rows: outputs,
            depth: tile.depth,
            first,
            whole: columns % tile.columns == 0,
        };
        let sums = product(e, &at, (tile, self.products), (left, right), [low, high]);
        let begin = e.index_scale(plane, k * columns);
        let place = |e: &mut Emitter<'c>, row: Index<'c>, column: Index<'c>| {
            let (row, column) = (e.index_add(first_row, row), e.index_add(first, column));
            let inside = (k % tile.rows != 0).then(|| e.index_below(row, k));
            let across = (columns % tile.columns != 0).then(|| e.index_below(column, columns));
            let start = e.index_scale(row, columns);
            (e.index_sum(&[begin, start, column]), e.both(inside, across))
        };
        let to = Destination {
            pointer: to,
            elem: Elem::F32,
            column: first,
            place: &place,
            finish: Finish::default(),
            statistics: None,
        };
        store(e, &at, tile, &sums, &to);
    }
}
