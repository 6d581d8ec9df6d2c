//! The gradient of a depthwise convolution for its weights: lanes along channels, a register for each of some taps, which
//! sum over the pixels of a block of rows.

use syncbn_ir::ops::ConvBackwardWeight;
use syncbn_ir::schedule::Depthwise;
use syncbn_ir::schedule::axis::{Phase, forward, rows_of_copy, three};

use super::depthwise::exchange;
use super::filter::ragged_in;
use super::panel::{Copy, Source};
use crate::emit::{Emitter, Pointer, Val};
use crate::ops::kernel::{Kernel, fixed};
use crate::ops::window::spatial;

/// Taps that are summed at a time, at most.
const TAPS: i64 = 10;
/// Pixels that are written out, at most: they share what they read.
const PIXELS: i64 = 4;
/// Pixels that are summed for one vector of channels before the next one's, at most, but a whole row.
const POSITIONS: i64 = 56;

/// `dw[c, t] = sum over n, o of x[n, c, o*stride + t*dilation - pad] * dy[n, c, o]`
pub fn backward_weight<'c>(
    s: Depthwise,
    workspace: Val<'c>,
    op: &ConvBackwardWeight,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
    let (x, dy, dw) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let phase = forward(&op.window(), &spatial(&dy.ty));
    let source = Source::new(x, three(&spatial(&x.ty)));
    let rows = rows_of_copy(&[phase], source.channels, source.pointer.elem.bytes());
    let copy = Copy::new(&[phase], rows, &source, workspace, s.lanes);
    let gradient = Gradient {
        lanes: s.lanes,
        pixels: PIXELS.min(s.pixels as i64),
        phase,
        rows,
        source,
        copy,
        dy: Pointer::new(dy.pointer, dy.memory_elem()),
        sums: e.shift(copy.pointer, copy.panel.elements()),
        channels: fixed(x.ty.shape.0[1]),
    };
    // Threads share the channels.
    let lanes = s.lanes as i64;
    let vectors = e.slice_of((gradient.channels + lanes - 1) / lanes);
    let [low, high] = vectors.map(|i| e.mul(i, e.index(lanes)));
    let part = [low, e.min(high, e.index(gradient.channels))];
    gradient.emit(e, k.n, (vectors, part));
    let taps = phase.iter().map(|axis| axis.taps).product();
    let to = Pointer::new(dw.pointer, dw.memory_elem());
    exchange(e, gradient.sums, to, [taps, gradient.channels], part);
    Ok(())
}

struct Gradient<'c> {
    lanes: usize,
    /// Pixels that are written out.
    pixels: i64,
    phase: Phase,
    /// Rows of outputs in a block.
    rows: i64,
    source: Source<'c>,
    copy: Copy<'c>,
    dy: Pointer<'c>,
    /// The gradient as it grows, by taps and then channels.
    sums: Pointer<'c>,
    channels: i64,
}

/// Some taps of the window: those of `rows` rows, `columns` of each.
#[derive(Clone, Copy)]
struct Taps {
    rows: i64,
    columns: i64,
}

/// Some rows of a block, for a vector of channels.
#[derive(Clone, Copy)]
struct Block<'c> {
    /// The first of them, and how many.
    first: Val<'c>,
    count: Val<'c>,
    dy: Pointer<'c>,
    active: usize,
}

impl<'c> Gradient<'c> {
    /// Sums for some vectors of channels, which are those `channels`.
    fn emit(&self, e: &Emitter<'c>, n: Val<'c>, (vectors, channels): ([Val<'c>; 2], [Val<'c>; 2])) {
        let [depth, height, width] = self.phase.map(|axis| axis.outputs);
        let taps: i64 = self.phase.iter().map(|axis| axis.taps).product();
        e.zero_run(self.sums, taps * self.channels, self.lanes);
        let lanes = self.lanes as i64;
        let some = self.rows_at_a_time();
        e.each_in(e.index(0), n, |e, n| {
            let image = e.advance(self.source.pointer, n, self.source.sample());
            e.each_of(depth, |e, z| {
                let [low, high] = [0, height].map(|i| e.index(i));
                e.for_range(low, high, self.rows, &[], |e, y, _| {
                    let at = self.copy.pointer;
                    self.copy
                        .fill_channels(e, at, &self.source, image, [z, y], Some(channels));
                    let end = e.min(e.add(y, e.index(self.rows)), high);
                    let row = e.add(e.mul(n, e.index(depth)), z);
                    let row = e.mul(row, e.index(height));
                    e.for_range(y, end, some, &[], |e, low, _| {
                        let dy = e.advance(self.dy, e.add(row, low), width * self.channels);
                        let at = e.sub(low, y);
                        let count = e.sub(e.min(e.add(low, e.index(some)), end), low);
                        ragged_in(e, (self.channels, Some(vectors)), lanes, &|e, vector, active| {
                            let channel = e.mul(vector, e.index(lanes));
                            let block = Block {
                                first: at,
                                count,
                                dy: e.advance(dy, channel, 1),
                                active,
                            };
                            self.block(e, channel, block);
                        });
                        Vec::new()
                    });
                    Vec::new()
                });
            });
        });
    }

    /// Rows of a block that are gone through for one vector of channels before the next: few, so that memory is read nearly in
    /// order.
    fn rows_at_a_time(&self) -> i64 {
        (POSITIONS / self.phase[2].outputs.max(1)).clamp(1, self.rows)
    }

    /// Adds what a block says of all taps of a vector of channels.
    fn block(&self, e: &Emitter<'c>, channel: Val<'c>, block: Block<'c>) {
        let [az, ay, ax] = self.phase;
        let panel = &self.copy.panel;
        let x = e.advance(self.copy.pointer, channel, 1);
        let x = e.advance(x, block.first, ay.in_step * panel.row());
        let to = e.advance(self.sums, channel, 1);
        let columns = ax.taps.min(TAPS);
        let rows = (TAPS / columns).clamp(1, ay.taps);
        e.each_of(az.taps, |e, tz| {
            let x = e.advance(x, tz, az.in_tap * panel.slice());
            let to = e.advance(to, tz, ay.taps * ax.taps * self.channels);
            parts(e, ay.taps, rows, &|e, ty, rows| {
                let x = e.advance(x, ty, ay.in_tap * panel.row());
                let to = e.advance(to, ty, ax.taps * self.channels);
                parts(e, ax.taps, columns, &|e, tx, columns| {
                    let x = e.advance(x, tx, ax.in_tap * panel.column);
                    let to = e.advance(to, tx, self.channels);
                    self.taps(e, Taps { rows, columns }, x, to, block);
                });
            });
        });
    }

    fn taps(&self, e: &Emitter<'c>, taps: Taps, x: Pointer<'c>, to: Pointer<'c>, block: Block<'c>) {
        let [_, ay, ax] = self.phase;
        let panel = &self.copy.panel;
        let places: Vec<i64> = (0..taps.rows)
            .flat_map(|ty| (0..taps.columns).map(move |tx| (ty * ax.taps + tx) * self.channels))
            .collect();
        let old: Vec<Val<'c>> = places
            .iter()
            .map(|&at| e.read_first(to, at, self.lanes, block.active))
            .collect();
        let sums = e.for_range(e.index(0), block.count, 1, &old, |e, y, sums| {
            let x = e.advance(x, y, ay.in_step * panel.row());
            let dy = e.advance(block.dy, y, ax.outputs * self.channels);
            let whole = ax.outputs / self.pixels;
            let sums = e.fold_of(whole, sums, |e, i, sums| {
                let x = e.advance(x, i, self.pixels * ax.in_step * panel.column);
                let dy = e.advance(dy, i, self.pixels * self.channels);
                self.step(e, taps, (x, dy), self.pixels, block.active, sums)
            });
            let done = whole * self.pixels;
            let x = e.shift(x, done * ax.in_step * panel.column);
            let dy = e.shift(dy, done * self.channels);
            self.step(e, taps, (x, dy), ax.outputs - done, block.active, &sums)
        });
        for (&at, &sum) in places.iter().zip(&sums) {
            e.write_first(to, at, sum, block.active);
        }
    }

    /// Adds the products of `pixels` neighbours. What is read is read once, for all pixels and taps that meet it.
    fn step(
        &self,
        e: &Emitter<'c>,
        taps: Taps,
        (x, dy): (Pointer<'c>, Pointer<'c>),
        pixels: i64,
        active: usize,
        sums: &[Val<'c>],
    ) -> Vec<Val<'c>> {
        let mut sums = sums.to_vec();
        if pixels == 0 {
            return sums;
        }
        let [_, ay, ax] = self.phase;
        let panel = &self.copy.panel;
        let read = |p: Pointer<'c>, at: i64| e.read_first(p, at, self.lanes, active);
        let gradients: Vec<Val<'c>> = (0..pixels).map(|p| read(dy, p * self.channels)).collect();
        let next = self.rows_at_a_time() * ax.outputs;
        (0..pixels).for_each(|p| e.prefetch_far(e.shift(dy, (next + p) * self.channels)));
        let last = (pixels - 1) * ax.in_step + (taps.columns - 1) * ax.in_tap;
        for ty in 0..taps.rows {
            let x = e.shift(x, ty * ay.in_tap * panel.row());
            for column in 0..=last {
                let mut value = None;
                let meets = |p: i64, t: i64| p * ax.in_step + t * ax.in_tap == column;
                for p in 0..pixels {
                    for t in (0..taps.columns).filter(|&t| meets(p, t)) {
                        let value = *value.get_or_insert_with(|| read(x, column * panel.column));
                        let sum = &mut sums[(ty * taps.columns + t) as usize];
                        *sum = e.fma(value, gradients[p as usize], *sum);
                    }
                }
            }
        }
        sums
    }
}

/// `body` for parts of `size` out of `0..count`, with the first one of each and how many there are.
fn parts<'c>(e: &Emitter<'c>, count: i64, size: i64, body: &dyn Fn(&Emitter<'c>, Val<'c>, i64)) {
    e.each_of(count / size, |e, i| body(e, e.mul(i, e.index(size)), size));
    if count % size > 0 {
        body(e, e.index(count / size * size), count % size);
    }
}
