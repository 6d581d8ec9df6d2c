//! The kernels of the gradient for the weights: sums over parts of the outputs, and their sum.

use super::cost::note_merge_of_parts;
use super::epilogue::{Destination, Finish, store};
use super::images::{Gradient, Patches};
use super::main_loop::{Lane, product};
use super::shape::Shape;
use super::spatial::Spatial;
use super::tile::Tile;
use super::{Problem, footprint};
use crate::emit::{
    Buffer, Compare, Divisor, Elem, Emitter, Extent, Footprint, Index, Key, Number, Numbers, Val, Work, ceil,
};
use crate::ops::kernel::Kernel;
use crate::ops::stage::{self, Stage};
use crate::program::Products;

impl Problem {
    /// The gradient for the weights, result 0, of the operands in these slots: the input, and the gradient of the result.
    /// Needs two stages where the outputs are summed in parts.
    pub fn backward_weight<'a>(&self, slots: [usize; 2]) -> Vec<Stage<'a>> {
        let Shape { c, k, .. } = self.shape;
        let (splits, elements) = (self.schedule.splits as i64, k * self.shape.taps() * c);
        let parts = [splits, elements];
        let (plan, planned) = self.partial_weights(splits);
        let mut stages = vec![Stage::planned(planned, move |k, e| {
            let [x, dy] = slots.map(|slot| k.operands[slot].pointer);
            plan.emit(e, k.n, [x, dy, partial(k, e, parts)]);
        })];
        if splits > 1 {
            stages.push(Stage::new(move |k, e| merge(k, e, parts)));
        }
        stages
    }

    /// The sums over one part of the outputs in each plane.
    fn partial_weights(&self, splits: i64) -> (Plan, stage::Plan) {
        let (tile, rows, columns) = (self.tile(), self.shape.k, self.shape.taps() * self.shape.c);
        let reduced = self.gpu.batch_bound * self.shape.positions();
        let across = ceil(columns, tile.columns);
        let work = Work {
            fixed: rows,
            per_sample: 0,
        };
        let steps = ceil(ceil(reduced, tile.depth), splits).max(1);
        let elements = rows * columns;
        let mut numbers = Numbers::default();
        let plan = Plan {
            tile,
            products: self.gpu.products,
            axes: self
                .shape
                .slides
                .map(|slide| Spatial::forward(&slide, false, &mut numbers)),
            channels: numbers.open_divisor(self.shape.c),
            rows: numbers.open(rows),
            columns: numbers.open(columns),
            positions: numbers.open(self.shape.positions()),
            across: numbers.open_divisor(across),
            split: numbers.open(steps),
            has_planes: splits > 1,
            whole: [rows % tile.rows == 0, columns % tile.columns == 0],
        };
        let planned = stage::Plan {
            key: Key::new(plan),
            numbers,
            footprint: Footprint {
                cost: self.cost_of_backward_weight(&tile, steps, [splits, elements]),
                workspace_bytes: match splits {
                    1 => 0,
                    _ => splits * elements * Elem::F32.bytes(),
                },
                ..footprint(&tile, work, across, splits)
            },
        };
        (plan, planned)
    }
}

/// Where the sums of `splits` parts of so many elements go: to the result where there is one.
fn partial<'c>(k: &Kernel<'c>, e: &Emitter<'c>, [splits, elements]: [i64; 2]) -> Val<'c> {
    match splits {
        1 => k.results[0].pointer,
        _ => e.workspace(Elem::F32, &[1], splits * elements).pointer,
    }
}

/// Adds the parts of every element, in order.
fn merge<'c>(k: &Kernel<'c>, e: &Emitter<'c>, [splits, elements]: [i64; 2]) {
    let (from, to) = (
        Buffer::new(partial(k, e, [splits, elements]), Elem::F32, &[elements, 1]),
        Buffer::new(k.results[0].pointer, Elem::F32, &[1]),
    );
    // Loops over few parts are unrolled, which with more lanes would take more registers than there are.
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
    note_merge_of_parts(e, [splits, elements]);
}

/// What decides the code of the kernel that sums parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Plan {
    tile: Tile,
    products: Products,
    axes: [Spatial<Number>; 2],
    /// Input channels.
    channels: Divisor<Number>,
    /// Output channels.
    rows: Number,
    /// Taps and input channels.
    columns: Number,
    /// Outputs of a sample.
    positions: Number,
    /// Tiles across.
    across: Divisor<Number>,
    /// Steps of a part.
    split: Number,
    /// Whether there are several parts.
    has_planes: bool,
    /// Whether all rows and columns of all tiles exist.
    whole: [bool; 2],
}

impl Plan {
    fn emit<'c>(&self, e: &Emitter<'c>, n: Val<'c>, [x, dy, to]: [Val<'c>; 3]) {
        let tile = &self.tile;
        let at = Lane::new(e, tile);
        let (across, channels) = (e.divisor(self.across), e.divisor(self.channels));
        let [k, columns, positions, a_split] =
            [self.rows, self.columns, self.positions, self.split].map(|number| e.number(number));
        let block = e.special_register("ctaid.x");
        let (down, across) = e.index_divide_by(block, &across);
        let (first_row, first) = (
            e.index_scale(down, tile.rows),
            e.index_scale(across, tile.columns),
        );
        let plane = match self.has_planes {
            false => Index::constant(0),
            true => e.special_register("ctaid.z"),
        };
        let outputs = e.index_product(Index::uniform(n), positions);
        let above = e.index_offset(outputs, tile.depth - 1);
        let steps = e.index_quotient(above, tile.depth);
        let low = e.index_product(plane, a_split);
        let high = e.index_add(low, a_split);
        let (low, high) = (e.index_least(low, steps), e.index_least(high, steps));
        let left = Gradient {
            gradient: dy,
            rows: outputs,
            depth: tile.depth,
            columns: k,
            first: first_row,
            whole: self.whole[0],
        };
        let right = Patches {
            image: x,
            axes: self.axes.map(|axis| axis.values(e)),
            channels,
            columns,
            rows: outputs,
            depth: tile.depth,
            first,
            whole: self.whole[1],
        };
        let sums = product(e, &at, (tile, self.products), (left, right), [low, high]);
        let all = e.index_product(k, columns);
        let begin = e.index_product(plane, all);
        let place = |e: &Emitter<'c>, row: Index<'c>, column: Index<'c>| {
            let (row, column) = (e.index_add(first_row, row), e.index_add(first, column));
            let inside = (!self.whole[0]).then(|| e.index_compare(Compare::Below, row, k));
            let across = (!self.whole[1]).then(|| e.index_compare(Compare::Below, column, columns));
            let start = e.index_product(row, columns);
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
