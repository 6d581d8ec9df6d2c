//! Depthwise convolution, and its gradient for the input: lanes along channels, tiles of pixels in registers, row by row of the
//! result over the rows of the input where they lie.

mod tile;
mod view;

use syncbn_ir::ops::{Conv, ConvBackwardData};
use syncbn_ir::schedule::Depthwise;
use syncbn_ir::schedule::axis::{
    Axis, Phase, backward_data as phases_of, blocks as blocks_of, forward as phase_of, leaves_moments, most,
    rows_of_copy, three,
};
use syncbn_ir::schedule::borders::reads_image;

use self::view::{Along, View};
use super::columns::Columns;
use super::epilogue::Epilogue;
use super::filter::ragged_in;
use super::items::{Items, place};
use super::moments::{Sums, Tally};
use super::panel::{Copy, Source};
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::{Kernel, Tensor, fixed};
use crate::ops::moments::moments as read_again;
use crate::ops::window::spatial;

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
    let phases = [phase_of(&window, &outputs)];
    let mut sum = Sum::new(e, s, phases.to_vec(), (x, w), (y, workspace));
    sum.epilogue = Epilogue::new(op, k);
    if op.moments && leaves_moments(&phases, sum.rows) {
        sum.moments = Some(Sums::new(k, &phases, sum.rows)?);
    }
    let moments = sum.moments;
    sum.emit(e, k.n, w);
    if op.moments {
        e.meet();
        match moments {
            Some(moments) => moments.merge(k, e, most(&phases, 0)),
            None => read_again(k, y, &k.results[1], e),
        }
    }
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
    let sum = Sum::new(e, s, phases_of(&window, &inputs), (dy, w), (dx, workspace));
    sum.emit(e, k.n, w);
    Ok(())
}

/// Sums over taps for every element of a target.
struct Sum<'a, 'c> {
    lanes: usize,
    pixels: i64,
    phases: Vec<Phase>,
    /// Depth, height and width of the window.
    window: [i64; 3],
    /// Rows of outputs that are computed at a time.
    rows: i64,
    source: Source<'c>,
    /// Where rows are copied, unless the image is read where it lies.
    copy: Option<Copy<'c>>,
    /// Where the weights lie with channels innermost.
    weights: Pointer<'c>,
    target: &'a Tensor<'c>,
    channels: i64,
    epilogue: Epilogue<'c>,
    /// Sums of what is stored, if there are such.
    moments: Option<Sums<'c>>,
}

/// A block of rows, and which vectors of channels of it.
#[derive(Clone, Copy)]
struct Block<'c> {
    number: Val<'c>,
    view: View<'c>,
    /// Sample and slice.
    place: [Val<'c>; 2],
    part: Option<[Val<'c>; 2]>,
}

/// A row of a phase.
#[derive(Clone, Copy)]
struct Row<'c> {
    /// What is read for the first tap along each axis.
    origin: [Val<'c>; 2],
    along: [Along; 3],
    /// The first output, in elements of the target.
    to: Val<'c>,
}

/// Neighbouring outputs of a row, for a vector of channels.
#[derive(Clone, Copy)]
struct Tile<'c> {
    first: First<'c>,
    pixels: i64,
    channel: Val<'c>,
    active: usize,
}

/// The first output of a tile.
#[derive(Clone, Copy)]
enum First<'c> {
    /// Of tiles that leave no tap out.
    Inner(Val<'c>),
    /// Of others.
    Border(i64),
}

impl<'a, 'c> Sum<'a, 'c> {
    fn new(
        e: &Emitter<'c>,
        s: Depthwise,
        phases: Vec<Phase>,
        (source, w): (&Tensor<'c>, &Tensor<'c>),
        (target, workspace): (&'a Tensor<'c>, Val<'c>),
    ) -> Sum<'a, 'c> {
        let source = Source::new(source, three(&spatial(&source.ty)));
        let rows = rows_of_copy(&phases, source.channels, source.pointer.elem.bytes());
        let (pixels, lanes) = (s.pixels as i64, s.lanes);
        let in_place = reads_image(source.layout, &phases, source.sizes[2], pixels);
        let copy = (!in_place).then(|| Copy::new(&phases, rows, &source, workspace, lanes));
        Sum {
            lanes,
            pixels,
            phases,
            window: three(&spatial(&w.ty)),
            rows,
            weights: match &copy {
                Some(copy) => e.shift(copy.pointer, copy.panel.elements()),
                None => Pointer::new(workspace, w.memory_elem()),
            },
            source,
            copy,
            target,
            channels: fixed(target.ty.shape.0[1]),
            epilogue: Epilogue::none(),
            moments: None,
        }
    }

    fn emit(&self, e: &Emitter<'c>, n: Val<'c>, w: &Tensor<'c>) {
        let taps = self.window.iter().product();
        let from = Pointer::new(w.pointer, w.memory_elem());
        let all = [0, taps].map(|i| e.index(i));
        exchange(e, from, self.weights, [self.channels, taps], all);
        let height = e.index(most(&self.phases, 1));
        let [depth, blocks] = blocks_of(&self.phases, self.rows).map(|n| e.index(n));
        let lanes = self.lanes as i64;
        let vectors = (self.channels + lanes - 1) / lanes;
        let items = Items::new(e, e.mul(e.mul(n, depth), blocks), vectors);
        items.each(e, |e, number, part| {
            let [n, z, y] = place(e, number, [depth, blocks], self.rows);
            let image = e.advance(self.source.pointer, n, self.source.sample());
            let view = match &self.copy {
                Some(copy) => {
                    copy.fill(e, copy.pointer, &self.source, image, [z, y]);
                    View::of_copy(copy, [z, y])
                }
                None => View::of_image(image, &self.source),
            };
            let end = e.min(e.add(y, e.index(self.rows)), height);
            let block = Block {
                number,
                view,
                place: [n, z],
                part,
            };
            self.block(e, &block, [y, end]);
        });
    }

    /// The rows of a block, of all phases, and the sums of what is stored.
    fn block(&self, e: &Emitter<'c>, block: &Block<'c>, [y, end]: [Val<'c>; 2]) {
        let Some(moments) = self.moments else {
            return self.rows(e, block, [y, end]);
        };
        let phase = &self.phases[0];
        let of_rows = |e: &Emitter<'c>, y: Val<'c>| self.target_row(e, phase, block.place, y);
        let tally = |e: &Emitter<'c>, vector: Val<'c>, active: usize| {
            let channel = e.mul(vector, e.index(self.lanes as i64));
            let columns = Columns {
                first: channel,
                vectors: 1,
                last: active,
                group: e.index(0),
            };
            let first = e.add(of_rows(e, y), channel);
            moments.tally(e, block.number, [channel, first], (columns, self.lanes))
        };
        self.each_vector(e, block, &|e, vector, active| tally(e, vector, active).clear(e));
        let some = Tally::rows(phase[2].outputs);
        e.for_range(y, end, some, &[], |e, low, _| {
            let high = e.min(e.add(low, e.index(some)), end);
            self.rows(e, block, [low, high]);
            let positions = e.mul(e.sub(high, low), e.index(phase[2].outputs));
            self.each_vector(e, block, &|e, vector, active| {
                let from = e.add(of_rows(e, low), e.mul(vector, e.index(self.lanes as i64)));
                tally(e, vector, active).add(e, from, positions);
            });
            Vec::new()
        });
        self.each_vector(e, block, &|e, vector, active| tally(e, vector, active).finish(e));
    }

    /// `body` for the vectors of channels of a block, with the number of their channels.
    fn each_vector(&self, e: &Emitter<'c>, block: &Block<'c>, body: &dyn Fn(&Emitter<'c>, Val<'c>, usize)) {
        ragged_in(e, (self.channels, block.part), self.lanes as i64, body);
    }

    /// Some rows of a block: row by row all channels, so that memory is read and written in order.
    fn rows(&self, e: &Emitter<'c>, block: &Block<'c>, [low, high]: [Val<'c>; 2]) {
        let [n, z] = block.place;
        e.each_in(low, high, |e, y| {
            for phase in &self.phases {
                let has = |i: Val<'c>, axis: usize| {
                    let all = phase[axis].outputs == most(&self.phases, axis);
                    (!all).then(|| e.compare(Compare::Below, i, e.index(phase[axis].outputs)))
                };
                let along = [0, 1, 2].map(|axis| block.view.along(phase, axis));
                let row = |e: &Emitter<'c>| {
                    let row = Row {
                        origin: block.view.origin(e, [z, y], [along[0], along[1]]),
                        along,
                        to: self.target_row(e, phase, [n, z], y),
                    };
                    self.row(e, block, phase, &row);
                };
                e.where_inside(e.both(has(z, 0), has(y, 1)), row);
            }
        });
    }

    /// Where a row of a phase begins, in elements of the target.
    fn target_row(&self, e: &Emitter<'c>, phase: &Phase, [n, z]: [Val<'c>; 2], y: Val<'c>) -> Val<'c> {
        let out = |i: Val<'c>, axis: &Axis| e.add(e.mul(i, e.index(axis.out_step)), e.index(axis.out_start));
        let sizes = three(&spatial(&self.target.ty));
        let to = e.add(e.mul(n, e.index(sizes[0])), out(z, &phase[0]));
        let to = e.add(e.mul(to, e.index(sizes[1])), out(y, &phase[1]));
        let to = e.add(e.mul(to, e.index(sizes[2])), e.index(phase[2].out_start));
        e.mul(to, e.index(self.channels))
    }

    fn row(&self, e: &Emitter<'c>, block: &Block<'c>, phase: &Phase, row: &Row<'c>) {
        let tiles = |e: &Emitter<'c>, first: First<'c>, pixels: i64| {
            self.each_vector(e, block, &|e, vector, active| {
                let tile = Tile {
                    first,
                    pixels,
                    channel: e.mul(vector, e.index(self.lanes as i64)),
                    active,
                };
                self.tile(e, &block.view, phase, row, &tile);
            });
        };
        let pixels = self.pixels;
        let whole = phase[2].outputs / pixels;
        let inner = block.view.inner_tiles(phase, pixels);
        (0..inner.start).for_each(|i| tiles(e, First::Border(i * pixels), pixels));
        if !inner.is_empty() {
            e.each_in(e.index(inner.start), e.index(inner.end), |e, i| {
                tiles(e, First::Inner(e.mul(i, e.index(pixels))), pixels);
            });
        }
        (inner.end..whole).for_each(|i| tiles(e, First::Border(i * pixels), pixels));
        let done = whole * pixels;
        match phase[2].outputs - done {
            0 => {}
            rest if block.view.is_inner(phase, done, rest) => tiles(e, First::Inner(e.index(done)), rest),
            rest => tiles(e, First::Border(done), rest),
        }
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
