//! The kernel of the forward pass and of the gradient for the input: outputs gather a source.

use super::epilogue::{Destination, Finish, store};
use super::images::{Gather, output};
use super::main_loop::{Lane, Sums, product};
use super::operands::{Operand, Reduced, pixel};
use super::shape::Shape;
use super::spatial::{Space, Spatial};
use super::statistics::Statistics;
use super::tile::Tile;
use super::weights::{WeightColumns, WeightRows};
use crate::emit::{Compare, Divisor, Elem, Emitter, Index, Number, Numbers, Val, ceil};
use crate::ops::kernel::Kernel;
use crate::program::Products;

/// Which direction, and what it needs to know of the weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Weights {
    /// Forward: by row.
    Rows,
    /// Backward: by column, with the sizes of the window.
    Columns([Number; 2]),
}

/// What decides the code of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Plan {
    tile: Tile,
    products: Products,
    elem: Elem,
    space: Space,
    reduced: Reduced<Number>,
    weights: Weights,
    /// Height, width and channels of the result.
    image: [Number; 3],
    /// Tiles across.
    across: Divisor<Number>,
    /// Whether all columns of all tiles exist.
    whole: bool,
}

impl Plan {
    /// Of the forward pass.
    pub fn forward(
        shape: &Shape,
        (tile, products, elem): (Tile, Products, Elem),
        numbers: &mut Numbers,
    ) -> Plan {
        Plan {
            tile,
            products,
            elem,
            space: Space::forward(&shape.slides, numbers),
            reduced: Reduced::new(shape.c, shape.taps() == 1, tile.depth, numbers),
            weights: Weights::Rows,
            image: [shape.slides[0].output, shape.slides[1].output, shape.k].map(|size| numbers.open(size)),
            across: numbers.open_divisor(ceil(shape.k, tile.columns)),
            whole: shape.k % tile.columns == 0,
        }
    }

    /// Of the gradient for the input.
    pub fn backward(
        shape: &Shape,
        (tile, products, elem): (Tile, Products, Elem),
        numbers: &mut Numbers,
    ) -> Plan {
        let single = shape.taps() == 1 && shape.slides.iter().all(|slide| slide.stride == 1);
        Plan {
            tile,
            products,
            elem,
            space: Space::backward(&shape.slides, numbers),
            reduced: Reduced::new(shape.k, single, tile.depth, numbers),
            weights: Weights::Columns(shape.window().map(|size| numbers.number(size))),
            image: [shape.slides[0].input, shape.slides[1].input, shape.c].map(|size| numbers.open(size)),
            across: numbers.open_divisor(ceil(shape.c, tile.columns)),
            whole: shape.c % tile.columns == 0,
        }
    }
}

/// What a gather works on.
pub struct Arguments<'c> {
    /// The image that is gathered.
    pub source: Val<'c>,
    /// The weights.
    pub weights: Val<'c>,
    /// The image that is made.
    pub result: Val<'c>,
    /// What is made of each element.
    pub finish: Finish<'c>,
    /// Where the moments of the result's tiles go, if anyone needs them; the space is dense then.
    pub workspace: Option<Val<'c>>,
    /// Samples of this rank, i32.
    pub n: Val<'c>,
}

impl<'c> Arguments<'c> {
    /// Of a kernel with these operands: image, then weights.
    pub fn new(k: &Kernel<'c>, finish: Finish<'c>, workspace: Option<Val<'c>>) -> Arguments<'c> {
        Arguments {
            source: k.operands[0].pointer,
            weights: k.operands[1].pointer,
            result: k.results[0].pointer,
            finish,
            workspace,
            n: k.n,
        }
    }
}

impl Plan {
    /// The kernel.
    pub fn emit<'c>(&self, e: &Emitter<'c>, arguments: &Arguments<'c>) {
        let tile = &self.tile;
        let at = Lane::new(e, tile);
        let across = e.divisor(self.across);
        let block = e.special_register("ctaid.x");
        let (down, across) = e.index_divide_by(block, &across);
        let (first_row, first) = (
            e.index_scale(down, tile.rows),
            e.index_scale(across, tile.columns),
        );
        let plane = match self.space {
            Space::Dense(_) => Index::constant(0),
            Space::Strided(_) => e.special_register("ctaid.z"),
        };
        let axes = self.space.axes(e, plane);
        let [h, w] = &axes;
        let a_sample = e.index_product(h.count.size, w.count.size);
        let rows = e.index_product(Index::uniform(arguments.n), a_sample);
        // Phases have different numbers of rows.
        let current = e.index_compare(Compare::Lt, first_row, rows);
        e.when(current, |e| {
            let sums = self.sums(e, &at, arguments, (&axes, rows), [first_row, first]);
            let image = self.image.map(|size| e.number(size));
            let columns = image[2];
            let place = |e: &Emitter<'c>, row: Index<'c>, column: Index<'c>| {
                let m = e.index_add(first_row, row);
                let mut exists = e.index_compare(Compare::Lt, m, rows);
                let column = e.index_add(first, column);
                if !self.whole {
                    let inside = e.index_compare(Compare::Below, column, columns);
                    exists = e.and(exists, inside);
                }
                let pixel = self.pixel(e, &axes, image, m);
                (e.index_add(pixel, column), Some(exists))
            };
            let statistics = arguments.workspace.map(|workspace| {
                let rest = e.index_subtract(rows, first_row);
                Statistics {
                    workspace,
                    tile: down,
                    rows: e.index_least(rest, Index::constant(tile.rows)),
                    channels: columns,
                }
            });
            let to = Destination {
                pointer: arguments.result,
                elem: self.elem,
                column: first,
                place: &place,
                finish: arguments.finish,
                statistics,
            };
            store(e, &at, tile, &sums, &to);
        });
    }

    /// The product of a block.
    fn sums<'c>(
        &self,
        e: &Emitter<'c>,
        at: &Lane<'c>,
        arguments: &Arguments<'c>,
        (axes, rows): (&[Spatial<Index<'c>>; 2], Index<'c>),
        [first_row, first]: [Index<'c>; 2],
    ) -> Sums<'c> {
        let reduced = self.reduced.values(e);
        let taps = e.index_product(axes[0].taps.size, axes[1].taps.size);
        let size = reduced.size(e, taps);
        let steps = [Index::constant(0), reduced.steps(e, taps)];
        let left = Gather {
            image: arguments.source,
            axes: *axes,
            reduced,
            size,
            rows,
            first: first_row,
        };
        let columns = e.number(self.image[2]);
        match self.weights {
            Weights::Rows => {
                let right = WeightRows {
                    weights: arguments.weights,
                    reduced,
                    size,
                    rows: columns,
                    first,
                    whole: self.whole,
                };
                self.product(e, at, left, right, steps)
            }
            Weights::Columns(window) => {
                let right = WeightColumns {
                    weights: arguments.weights,
                    axes: *axes,
                    window: window.map(|size| e.number(size)),
                    reduced,
                    size,
                    columns,
                    first,
                    whole: self.whole,
                };
                self.product(e, at, left, right, steps)
            }
        }
    }

    fn product<'c, B: Operand<'c>>(
        &self,
        e: &Emitter<'c>,
        at: &Lane<'c>,
        left: Gather<'c>,
        right: B,
        steps: [Index<'c>; 2],
    ) -> Sums<'c> {
        product(e, at, (&self.tile, self.products), (left, right), steps)
    }

    /// Offset of channel 0 of row `m` of the result.
    fn pixel<'c>(
        &self,
        e: &Emitter<'c>,
        axes: &[Spatial<Index<'c>>; 2],
        image: [Index<'c>; 3],
        m: Index<'c>,
    ) -> Index<'c> {
        if let Space::Dense(_) = self.space {
            return e.index_product(m, image[2]);
        }
        let [n, i, j] = output(e, axes, m);
        let [h, w] = axes;
        let (i, j) = (e.index_product(i, h.spread), e.index_product(j, w.spread));
        let (i, j) = (e.index_add(i, h.phase), e.index_add(j, w.phase));
        pixel(e, [n, i, j], image)
    }
}
