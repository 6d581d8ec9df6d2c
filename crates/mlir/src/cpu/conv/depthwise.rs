//! Depthwise convolution, and its gradient for the input: lanes along channels, tiles of pixels in registers, over a
//! padded copy of some rows of the input.

use syncbn_ir::ops::{Conv, ConvBackwardData};
use syncbn_ir::schedule::Depthwise;
use syncbn_ir::schedule::axis::{
    Axis, Phase, backward_data as phases_of, forward as phase_of, most, rows_of_copy, three,
};

use super::epilogue::Epilogue;
use super::filter::ragged_in;
use super::items::{Items, place};
use super::panel::{Copy, Source};
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::{Kernel, Tensor, fixed};
use crate::ops::window::spatial;

/// Taps of a row of the window that are written out; wider windows turn a loop.
const WRITTEN_OUT: i64 = 8;

/// `y[n, c, o] = act(residual[n, c, o] + bias[c] + sum over t of x[n, c, o*stride + t*dilation - pad] * w[c, t])`
pub fn forward<'c>(
    s: Depthwise,
    workspace: Val<'c>,
    op: &Conv,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
    let (x, w, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window(&w.ty)?;
    let outputs = spatial(&y.ty);
    let sum = Sum::new(s, vec![phase_of(&window, &outputs)], x, y, workspace);
    sum.emit(e, k.n, w, &Epilogue::new(op, k));
    Ok(())
}

/// `dx[n, c, i] = sum over t of dy[n, c, o] * w[c, t]` where `o*stride = i + pad - t*dilation`
pub fn backward_data<'c>(
    s: Depthwise,
    workspace: Val<'c>,
    op: &ConvBackwardData,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
    let (dy, w, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let window = op.window(&w.ty)?;
    let inputs = spatial(&dx.ty);
    let sum = Sum::new(s, phases_of(&window, &inputs), dy, dx, workspace);
    sum.emit(e, k.n, w, &Epilogue::none());
    Ok(())
}

/// Sums over taps for every element of a target.
struct Sum<'a, 'c> {
    lanes: usize,
    pixels: i64,
    phases: Vec<Phase>,
    /// Rows of outputs that are computed from one copy.
    rows: i64,
    source: Source<'c>,
    copy: Copy<'c>,
    target: &'a Tensor<'c>,
    channels: i64,
}

/// What a row of tiles reads and writes.
#[derive(Clone, Copy)]
struct Row<'c> {
    /// The vector's first channel, and how many channels it has.
    channel: Val<'c>,
    active: usize,
    /// What the first output reads for the first tap.
    from: Pointer<'c>,
    /// The weights of that tap.
    weights: Pointer<'c>,
    /// The first output, in elements of the target.
    to: Val<'c>,
}

impl<'a, 'c> Sum<'a, 'c> {
    fn new(
        s: Depthwise,
        phases: Vec<Phase>,
        source: &Tensor<'c>,
        target: &'a Tensor<'c>,
        workspace: Val<'c>,
    ) -> Sum<'a, 'c> {
        let sizes = three(&spatial(&source.ty));
        let source = Source::new(source, sizes);
        let rows = rows_of_copy(&phases, source.channels, source.pointer.elem.bytes());
        Sum {
            lanes: s.lanes,
            pixels: s.pixels as i64,
            rows,
            source,
            copy: Copy::new(&phases, rows, &source, workspace, s.lanes),
            phases,
            target,
            channels: fixed(target.ty.shape.0[1]),
        }
    }

    fn emit(&self, e: &Emitter<'c>, n: Val<'c>, w: &Tensor<'c>, epilogue: &Epilogue<'c>) {
        let kernel = three(&spatial(&w.ty));
        let taps = kernel.iter().product();
        let weights = e.shift(self.copy.pointer, self.copy.panel.elements());
        let from = Pointer::new(w.pointer, w.memory_elem());
        let all = [0, taps].map(|i| e.index(i));
        exchange(e, from, weights, [self.channels, taps], all);
        let height = most(&self.phases, 1);
        let depth = e.index(most(&self.phases, 0));
        let blocks = e.index((height + self.rows - 1) / self.rows);
        let lanes = self.lanes as i64;
        let vectors = (self.channels + lanes - 1) / lanes;
        let items = Items::new(e, e.mul(e.mul(n, depth), blocks), vectors);
        items.each(e, |e, block, part| {
            let [n, z, y] = place(e, block, [depth, blocks], self.rows);
            let image = e.advance(self.source.pointer, n, self.source.sample());
            self.copy.fill(e, self.copy.pointer, &self.source, image, [z, y]);
            let end = e.min(e.add(y, e.index(self.rows)), e.index(height));
            ragged_in(e, (self.channels, part), lanes, &|e, vector, active| {
                let channel = e.mul(vector, e.index(lanes));
                for phase in &self.phases {
                    let row = |e: &Emitter<'c>, y0: Val<'c>| {
                        self.row(e, phase, [n, z, y, y0], kernel, weights, (channel, active))
                    };
                    self.rows_of(e, phase, [z, y, end], &|e, y0| {
                        self.tiles(e, phase, kernel, row(e, y0), epilogue);
                    });
                }
            });
        });
    }

    /// `body` for the rows of a block that a phase has.
    fn rows_of(
        &self,
        e: &Emitter<'c>,
        phase: &Phase,
        [z, y, end]: [Val<'c>; 3],
        body: &dyn Fn(&Emitter<'c>, Val<'c>),
    ) {
        let [az, ay, _] = phase;
        let all = |e: &Emitter<'c>| {
            let end = match ay.outputs < most(&self.phases, 1) {
                true => e.min(end, e.index(ay.outputs)),
                false => end,
            };
            e.each_in(y, end, body);
        };
        match az.outputs < most(&self.phases, 0) {
            true => e.when(e.compare(Compare::Below, z, e.index(az.outputs)), all),
            false => all(e),
        }
    }

    fn row(
        &self,
        e: &Emitter<'c>,
        phase: &Phase,
        [n, z, first, y]: [Val<'c>; 4],
        [_, height, width]: [i64; 3],
        weights: Pointer<'c>,
        (channel, active): (Val<'c>, usize),
    ) -> Row<'c> {
        let panel = &self.copy.panel;
        let from = e.shift(self.copy.pointer, panel.start(phase));
        let from = e.advance(from, e.sub(y, first), phase[1].in_step * panel.row());
        let tap = (phase[0].weight_start * height + phase[1].weight_start) * width + phase[2].weight_start;
        let sizes = three(&spatial(&self.target.ty));
        let out = |i: Val<'c>, axis: &Axis| e.add(e.mul(i, e.index(axis.out_step)), e.index(axis.out_start));
        let to = e.add(e.mul(n, e.index(sizes[0])), out(z, &phase[0]));
        let to = e.add(e.mul(to, e.index(sizes[1])), out(y, &phase[1]));
        let to = e.add(e.mul(to, e.index(sizes[2])), e.index(phase[2].out_start));
        Row {
            channel,
            active,
            from: e.advance(from, channel, 1),
            weights: e.advance(e.shift(weights, tap * self.channels), channel, 1),
            to: e.add(e.mul(to, e.index(self.channels)), channel),
        }
    }

    fn tiles(&self, e: &Emitter<'c>, phase: &Phase, kernel: [i64; 3], row: Row<'c>, epilogue: &Epilogue<'c>) {
        let outputs = phase[2].outputs;
        let whole = outputs / self.pixels;
        e.each_of(whole, |e, i| {
            let first = e.mul(i, e.index(self.pixels));
            self.tile(e, phase, kernel, row, (first, self.pixels), epilogue);
        });
        let rest = outputs - whole * self.pixels;
        if rest > 0 {
            let first = e.index(whole * self.pixels);
            self.tile(e, phase, kernel, row, (first, rest), epilogue);
        }
    }

    fn tile(
        &self,
        e: &Emitter<'c>,
        phase: &Phase,
        kernel: [i64; 3],
        row: Row<'c>,
        (first, pixels): (Val<'c>, i64),
        epilogue: &Epilogue<'c>,
    ) {
        let ax = &phase[2];
        let from = e.advance(row.from, first, ax.in_step * self.copy.panel.column);
        let zero = e.splat(e.zero(from.elem), self.lanes);
        let zeros = vec![zero; pixels as usize];
        let sums = match phase.iter().any(|axis| axis.taps == 0) {
            true => zeros,
            false => self.taps(e, phase, kernel, (from, row.weights), row.active, &zeros),
        };
        let target = Pointer::new(self.target.pointer, self.target.memory_elem());
        let start = e.add(row.to, e.mul(first, e.index(ax.out_step * self.channels)));
        for (p, &sum) in sums.iter().enumerate() {
            let offset = p as i64 * ax.out_step * self.channels;
            let value = epilogue.apply(e, sum, (start, offset), (row.channel, 0), row.active);
            e.write_first(e.advance(target, start, 1), offset, value, row.active);
        }
    }

    /// Adds the products over all taps of a phase.
    fn taps(
        &self,
        e: &Emitter<'c>,
        phase: &Phase,
        [_, height, width]: [i64; 3],
        (from, weights): (Pointer<'c>, Pointer<'c>),
        active: usize,
        sums: &[Val<'c>],
    ) -> Vec<Val<'c>> {
        let [az, ay, ax] = phase;
        let panel = &self.copy.panel;
        let turn = |e: &Emitter<'c>,
                    axis: &Axis,
                    tap: Val<'c>,
                    at: (Pointer<'c>, Pointer<'c>),
                    strides: [i64; 2]| {
            (
                e.advance(at.0, tap, axis.in_tap * strides[0]),
                e.advance(at.1, tap, axis.weight_tap * strides[1] * self.channels),
            )
        };
        e.fold_of(az.taps, sums, |e, tap, sums| {
            let at = turn(e, az, tap, (from, weights), [panel.slice(), height * width]);
            e.fold_of(ay.taps, sums, |e, tap, sums| {
                let at = turn(e, ay, tap, at, [panel.row(), width]);
                if ax.taps <= WRITTEN_OUT {
                    return self.row_of_taps(e, ax, at, ax.taps, active, sums);
                }
                e.fold_of(ax.taps, sums, |e, tap, sums| {
                    let at = turn(e, ax, tap, at, [panel.column, 1]);
                    self.row_of_taps(e, ax, at, 1, active, sums)
                })
            })
        })
    }

    /// Adds `taps` neighbouring taps. What is read is read once, for all pixels that meet it.
    fn row_of_taps(
        &self,
        e: &Emitter<'c>,
        ax: &Axis,
        (from, weights): (Pointer<'c>, Pointer<'c>),
        taps: i64,
        active: usize,
        sums: &[Val<'c>],
    ) -> Vec<Val<'c>> {
        let read = |p: Pointer<'c>, at: i64| e.read_first(p, at, self.lanes, active);
        let filter: Vec<Val<'c>> = (0..taps)
            .map(|t| read(weights, t * ax.weight_tap * self.channels))
            .collect();
        let mut sums = sums.to_vec();
        let last = (sums.len() as i64 - 1) * ax.in_step + (taps - 1) * ax.in_tap;
        for column in 0..=last {
            let meets = |p: usize, t: i64| p as i64 * ax.in_step + t * ax.in_tap == column;
            let mut value = None;
            for (p, sum) in sums.iter_mut().enumerate() {
                for t in (0..taps).filter(|&t| meets(p, t)) {
                    let value = *value.get_or_insert_with(|| read(from, column * self.copy.panel.column));
                    *sum = e.fma(value, filter[t as usize], *sum);
                }
            }
        }
        sums
    }
}

/// Copies a matrix of these sizes to its transpose; of its columns only `part`.
pub fn exchange<'c>(
    e: &Emitter<'c>,
    from: Pointer<'c>,
    to: Pointer<'c>,
    [rows, columns]: [i64; 2],
    part: [Val<'c>; 2],
) {
    e.each_in(part[0], part[1], |e, column| {
        let (from, to) = (e.advance(from, column, 1), e.advance(to, column, rows));
        e.each_of(rows, |e, row| {
            let v = e.read(e.advance(from, row, columns), 0, 1);
            e.write(e.advance(to, row, 1), 0, v);
        });
    });
}
