//! The kernel of the forward pass and of the gradient for the input: outputs gather a source.

use super::axis::Axis;
use super::epilogue::{Destination, Finish, store};
use super::images::{Gather, output};
use super::main_loop::{Lane, Sums, product};
use super::operands::{Operand, Reduced, pixel};
use super::statistics::Statistics;
use super::tile::{self, Tile, ceil};
use super::{Problem, set_grid};
use crate::emit::{Compare, Elem, Emitter, Index, Val, Work};

impl<'c> Problem<'c> {
    /// One kernel whose planes are `phases`.
    pub(super) fn gather<B: Operand<'c>>(
        &self,
        e: &mut Emitter<'c>,
        tile: &Tile,
        phases: &[[Axis; 2]],
        (source, channels): (Val<'c>, i64),
        result: &Gathered<'c>,
        right: &dyn Fn(&[Axis; 2], Reduced, Index<'c>) -> B,
    ) {
        if !e.is_current() {
            return;
        }
        let [_, _, columns] = result.image;
        let across = ceil(columns, tile.columns);
        let work = Work {
            fixed: 0,
            per_sample: outputs(phases),
        };
        set_grid(e, tile, work, across, phases.len() as i64);
        let at = Lane::new(e, tile);
        let block = e.special_register("ctaid.x");
        let (down, across) = e.index_split(block, across);
        let (first_row, first) = (
            e.index_scale(down, tile.rows),
            e.index_scale(across, tile.columns),
        );
        let plane = e.special_register("ctaid.z");
        for (number, axes) in phases.iter().enumerate() {
            let rows = e.index_scale(Index::uniform(self.n), taken(axes));
            // Phases have different numbers of rows.
            let mut current = e.index_compare(Compare::Lt, first_row, rows);
            if phases.len() > 1 {
                let this = e.index_compare(Compare::Eq, plane, Index::constant(number as i64));
                current = e.and(current, this);
            }
            e.when(current, |e| {
                let reduced = Reduced {
                    channels,
                    taps: taps(axes),
                    depth: tile.depth,
                };
                let sums = if reduced.size() == 0 {
                    zeros(e, tile)
                } else {
                    let left = Gather {
                        image: source,
                        axes: *axes,
                        reduced,
                        rows,
                        first: first_row,
                    };
                    let right = right(axes, reduced, first);
                    let steps = [Index::constant(0), Index::constant(reduced.steps())];
                    product(e, &at, (tile, self.products), (left, right), steps)
                };
                let place = |e: &mut Emitter<'c>, row: Index<'c>, column: Index<'c>| {
                    let m = e.index_add(first_row, row);
                    let mut exists = e.index_compare(Compare::Lt, m, rows);
                    let column = e.index_add(first, column);
                    if columns % tile.columns != 0 {
                        let inside = e.index_below(column, columns);
                        exists = e.and(exists, inside);
                    }
                    let pixel = result.pixel(e, axes, m);
                    (e.index_add(pixel, column), Some(exists))
                };
                let statistics = result.workspace.map(|workspace| {
                    let rest = e.index_subtract(rows, first_row);
                    Statistics {
                        workspace,
                        tile: down,
                        rows: e.index_least(rest, Index::constant(tile.rows)),
                        channels: columns,
                    }
                });
                let to = Destination {
                    pointer: result.pointer,
                    elem: result.elem,
                    column: first,
                    place: &place,
                    finish: result.finish,
                    statistics,
                };
                store(e, &at, tile, &sums, &to);
            });
        }
    }
}

/// The image that a gather makes.
pub struct Gathered<'c> {
    /// Address of element 0.
    pub pointer: Val<'c>,
    /// Its element type in memory.
    pub elem: Elem,
    /// Height, width, channels.
    pub image: [i64; 3],
    /// What is made of each element.
    pub finish: Finish<'c>,
    /// Where the moments of its tiles go, if anyone needs them and there is one phase.
    pub workspace: Option<Val<'c>>,
}

impl<'c> Gathered<'c> {
    /// Offset of channel 0 of row `m`.
    fn pixel(&self, e: &mut Emitter<'c>, axes: &[Axis; 2], m: Index<'c>) -> Index<'c> {
        if axes.iter().all(Axis::is_dense) {
            return e.index_scale(m, self.image[2]);
        }
        let [n, i, j] = output(e, axes, m);
        let [h, w] = axes;
        let (i, j) = (e.index_scale(i, h.spread), e.index_scale(j, w.spread));
        let (i, j) = (e.index_offset(i, h.phase), e.index_offset(j, w.phase));
        pixel(e, [n, i, j], self.image)
    }
}

/// Outputs of a sample in one phase.
pub fn taken([h, w]: &[Axis; 2]) -> i64 {
    h.count * w.count
}

/// Taps of one phase.
pub fn taps([h, w]: &[Axis; 2]) -> i64 {
    h.taps * w.taps
}

/// Outputs of a sample in the largest phase.
fn outputs(phases: &[[Axis; 2]]) -> i64 {
    phases.iter().map(taken).max().unwrap_or(0)
}

fn zeros<'c>(e: &mut Emitter<'c>, tile: &Tile) -> Sums<'c> {
    let [height, width] = tile::INSTRUCTION;
    let zero = e.zero(Elem::F32);
    vec![vec![[zero; 4]; (tile.warp_columns / width) as usize]; (tile.warp_rows / height) as usize]
}
