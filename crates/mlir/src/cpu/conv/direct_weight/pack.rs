//! Gradients of results as the tiles of a gradient for weights read them, and what is asked for ahead of copying.

use syncbn_ir::schedule::axis::Axis;

use super::super::columns::{Columns, each_columns};
use super::{Block, Gradient};
use crate::cpu::product::microkernel::Later;
use crate::emit::{Emitter, Pointer, Val};

/// Gradients of results that a column of tiles meets, `[image][row][position][vector][lane]` of a block, one column behind
/// another.
#[derive(Clone, Copy)]
pub(super) struct Packed<'c> {
    /// The first element.
    pub(super) pointer: Pointer<'c>,
    /// Elements of a position, and of a row.
    pub(super) position: i64,
    pub(super) row: i64,
}

impl<'c> Gradient<'c> {
    /// The share of what the next block copies that a tile asks for: the one of output channels from `first` on and of the input
    /// channels of stripe `i`. All that is read lies together where a window takes every element once.
    pub(super) fn later(
        &self,
        e: &Emitter<'c>,
        block: Block<'c>,
        first: Val<'c>,
        i: Val<'c>,
    ) -> Vec<Later<'c>> {
        if self.groups > 1 || !self.phase.iter().all(Axis::is_plain) {
            return Vec::new();
        }
        let column = self.blocking.lanes as i64 * self.blocking.vectors;
        let (channels, outputs) = (self.channels, self.filter.outputs);
        let (positions, stripes) = (self.positions(), self.tiles());
        let tiles = stripes * ((outputs + column - 1) / column);
        let tile = e.add(e.mul(e.div(first, e.index(column)), e.index(stripes)), i);
        let share = |now: Pointer<'c>, channels: i64| {
            // No more than there is, in whole steps of the packed gradients.
            let every = (column * tiles / channels).clamp(1, column);
            let next = e.shift(now, positions * channels);
            Later {
                first: e.advance(next, tile, positions * column / every),
                every,
            }
        };
        vec![share(block.source, channels), share(block.dy, outputs)]
    }

    /// Where the gradients of some columns stand.
    pub(super) fn packed(&self, e: &Emitter<'c>, block: Block<'c>, columns: Columns<'c>) -> Packed<'c> {
        let position = columns.vectors * self.blocking.lanes as i64;
        Packed {
            pointer: e.advance(block.packed, columns.first, self.positions()),
            position,
            row: self.phase[2].outputs * position,
        }
    }

    /// Copies the gradients of `count` channels from `first` on to where those of a column are neighbours: positions are often
    /// as far apart as the sets of a cache repeat.
    pub(super) fn pack(
        &self,
        e: &Emitter<'c>,
        block: Block<'c>,
        first: Val<'c>,
        (count, part): (i64, Option<[Val<'c>; 2]>),
    ) {
        let [az, ay, ax] = self.phase.map(|axis| axis.outputs);
        let lanes = self.blocking.lanes as i64;
        let from = e.advance(block.dy, first, 1);
        e.each_in(e.index(0), block.images, |e, i| {
            let from = e.advance(from, i, az * ay * ax * self.filter.outputs);
            let positions = e.mul(block.rows, e.index(ax));
            let before = e.mul(i, e.index(self.rows * ax));
            e.each_in(e.index(0), positions, |e, at| {
                let from = e.advance(from, at, self.filter.outputs);
                let at = e.add(before, at);
                each_columns(e, &self.blocking, (count, part), e.index(0), |e, columns| {
                    let packed = self.packed(e, block, columns);
                    let from = e.advance(from, columns.first, 1);
                    let to = e.advance(packed.pointer, at, packed.position);
                    for v in 0..columns.vectors {
                        let active = columns.active(v, self.blocking.lanes);
                        let value = e.read_first(from, v * lanes, self.blocking.lanes, active);
                        e.write(to, v * lanes, value);
                    }
                    e.fetch_stream(from, columns.vectors * lanes);
                });
            });
        });
    }
}
