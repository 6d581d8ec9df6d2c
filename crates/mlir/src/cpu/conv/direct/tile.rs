//! A register tile of a direct convolution, and the rows that are made of such.

use syncbn_ir::schedule::axis::{Axis, Panel, Phase};

use super::super::columns::Columns;
use super::super::panel::Copy;
use super::Sum;
use crate::cpu::product::microkernel::{Ahead, Next, Results, Tile, Turns};
use crate::emit::{Emitter, Pointer, Val};

impl<'c> Sum<'_, 'c> {
    /// A row of outputs of these channels; `y` is the first row of its block.
    pub(super) fn row(
        &self,
        e: &Emitter<'c>,
        copy: &Copy<'c>,
        phase: &Phase,
        columns: Columns<'c>,
        [n, z, y, row]: [Val<'c>; 4],
    ) {
        let [_, ay, ax] = phase;
        let panel = &copy.panel;
        let left = e.shift(copy.pointer, panel.start(phase));
        let left = e.advance(left, e.sub(row, y), ay.in_step * panel.row());
        let at = self.target_row(e, phase, [n, z, row], columns);
        let pixels = self.blocking.pixels;
        let whole = ax.outputs / pixels;
        e.each_of(whole, |e, i| {
            let first = e.mul(i, e.index(pixels));
            self.tile(e, copy, phase, columns, left, at, (first, pixels));
        });
        let rest = ax.outputs - whole * pixels;
        if rest > 0 {
            let first = e.index(whole * pixels);
            self.tile(e, copy, phase, columns, left, at, (first, rest));
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn tile(
        &self,
        e: &Emitter<'c>,
        copy: &Copy<'c>,
        phase: &Phase,
        columns: Columns<'c>,
        left: Pointer<'c>,
        at: Val<'c>,
        (first, pixels): (Val<'c>, i64),
    ) {
        let [az, ay, ax] = phase;
        let panel: &Panel = &copy.panel;
        let lanes = self.blocking.lanes;
        let left = e.advance(left, first, ax.in_step * panel.column);
        let group_start = e.mul(columns.group, e.index(self.reduced));
        let left = e.advance(left, group_start, 1);
        let f = &self.filter;
        let tap = f.tap();
        let strides = [f.kernel[1] * f.kernel[2] * tap, f.kernel[2] * tap, tap];
        let begin: i64 = (0..3).map(|i| phase[i].weight_start * strides[i]).sum();
        let channel = self.channel(e, columns);
        // The vectors of `lanes` channels stand one behind another.
        let right = e.advance(e.shift(f.pointer, begin), channel, f.vector() / lanes as i64);
        let target = Pointer::new(self.target.pointer, self.target.memory_elem());
        let start = e.add(at, e.mul(first, e.index(ax.out_step * f.outputs)));
        let moved = |pointer: Pointer<'c>, written: bool| Results {
            first: e.advance(pointer, start, 1),
            row: ax.out_step * f.outputs,
            written,
        };
        let mut results = vec![moved(target, true)];
        results.extend(self.epilogue.residual().map(|residual| moved(residual, false)));
        let tile = Tile {
            left,
            rows: (0..pixels).map(|p| p * ax.in_step * panel.column).collect(),
            right,
            vectors: (0..columns.vectors).map(|v| v * f.vector()).collect(),
            lanes,
            last: lanes,
            ahead: Ahead {
                next: (phase.iter().all(Axis::is_plain) && panel.column == self.reduced).then_some(Next {
                    distance: pixels * panel.column,
                    row: panel.column,
                }),
                later: Vec::new(),
                results,
            },
        };
        let turns = |axis: &Axis, left: i64, stride: i64| {
            Turns::fixed(axis.taps, axis.in_tap * left, axis.weight_tap * stride)
        };
        let contiguous = ax.in_tap == 1 && ax.weight_tap == 1 && panel.column == self.reduced;
        let mut loops = vec![
            turns(az, panel.slice(), strides[0]),
            turns(ay, panel.row(), strides[1]),
        ];
        match contiguous {
            true => loops.push(Turns::fixed(ax.taps * self.reduced, 1, lanes as i64)),
            false => {
                loops.push(turns(ax, panel.column, strides[2]));
                loops.push(Turns::fixed(self.reduced, 1, lanes as i64));
            }
        }
        let zeros = tile.zeros(e);
        let sums = match az.taps * ay.taps * ax.taps {
            0 => zeros,
            _ => tile.accumulate(e, &loops, &zeros),
        };
        for (r, sums) in sums.chunks(columns.vectors as usize).enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                let active = columns.active(v as i64, lanes);
                let offset = r as i64 * ax.out_step * f.outputs + v as i64 * lanes as i64;
                let bias_at = (channel, v as i64 * lanes as i64);
                let value = self.epilogue.apply(e, sum, (start, offset), bias_at, active);
                e.write_first(e.advance(target, start, 1), offset, value, active);
            }
        }
    }
}
