//! A copy of some rows of an image with its padding, channels innermost: what register tiles read, at constant
//! distances and without borders.

use syncbn_ir::Layout;

use super::axis::{Phase, span};
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::Tensor;

/// Where rows that begin at a multiple of this many bytes would all lie in the same few sets of a cache.
const ALIASES: i64 = 1024;
/// Bytes of a cache line.
const LINE: i64 = 64;

/// An image that is read.
#[derive(Debug, Clone, Copy)]
pub struct Source<'c> {
    /// Its first element.
    pub pointer: Pointer<'c>,
    /// Order in memory: plain, or channels innermost.
    pub layout: Layout,
    /// Channels of all groups.
    pub channels: i64,
    /// Depth, height, width.
    pub sizes: [i64; 3],
}

/// Sizes of the copy, and where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Panel<'c> {
    /// Its first element.
    pub pointer: Pointer<'c>,
    /// Lanes of vectors.
    lanes: usize,
    /// First element along each axis that the first output reads.
    least: [i64; 3],
    /// Depth, height and width of the copy.
    pub sizes: [i64; 3],
    /// Elements from one column to the next.
    pub column: i64,
    /// Of the target's rows in the source.
    in_steps: [i64; 3],
}

impl<'c> Source<'c> {
    /// An image of these channels and sizes.
    pub fn new(tensor: &Tensor<'c>, sizes: [i64; 3]) -> Source<'c> {
        Source {
            pointer: Pointer::new(tensor.pointer, tensor.memory_elem()),
            layout: tensor.ty.layout,
            channels: crate::ops::kernel::fixed(tensor.ty.shape.0[1]),
            sizes,
        }
    }

    /// Elements of a sample.
    pub fn sample(&self) -> i64 {
        self.channels * self.sizes.iter().product::<i64>()
    }
}

impl<'c> Panel<'c> {
    /// The copy that `rows` rows of outputs of these phases read, at the beginning of `workspace`.
    pub fn new(
        phases: &[Phase],
        rows: i64,
        source: &Source<'c>,
        workspace: Val<'c>,
        lanes: usize,
    ) -> Panel<'c> {
        let elem = source.pointer.elem;
        let (mut least, mut sizes) = ([0; 3], [1; 3]);
        let turns = |axis: usize| match axis {
            0 => 1,
            1 => rows,
            _ => phases.iter().map(|p| p[2].outputs).max().unwrap_or(1),
        };
        for axis in 0..3 {
            let reach;
            (least[axis], reach) = span(phases, axis);
            sizes[axis] = (turns(axis) - 1) * phases[0][axis].in_step + reach;
        }
        let mut column = source.channels;
        if column * phases[0][2].in_step * elem.bytes() % ALIASES == 0 {
            column += LINE / elem.bytes();
        }
        Panel {
            pointer: Pointer::new(workspace, elem),
            lanes,
            least,
            sizes,
            column,
            in_steps: [0, 1, 2].map(|axis| phases[0][axis].in_step),
        }
    }

    /// Elements of the copy.
    pub fn elements(&self) -> i64 {
        self.column * self.sizes.iter().product::<i64>()
    }

    /// Elements from one row to the next.
    pub fn row(&self) -> i64 {
        self.column * self.sizes[2]
    }

    /// Elements from one slice to the next.
    pub fn slice(&self) -> i64 {
        self.row() * self.sizes[1]
    }

    /// Elements from the beginning to what the first output of the block reads for tap `(z, y, x)` of a phase.
    pub fn start(&self, phase: &Phase) -> i64 {
        let [z, y, x] = [0, 1, 2].map(|axis| phase[axis].in_start - self.least[axis]);
        z * self.slice() + y * self.row() + x * self.column
    }

    /// Fills the copy for the outputs of slice `z` from row `y` on; `image` is the sample's first element. `at` is where
    /// the copy begins.
    pub fn fill(
        &self,
        e: &Emitter<'c>,
        at: Pointer<'c>,
        source: &Source<'c>,
        image: Pointer<'c>,
        [z, y]: [Val<'c>; 2],
    ) {
        let origin = |first: Val<'c>, axis: usize| {
            let scaled = e.mul(first, e.index(self.in_steps[axis]));
            e.add(scaled, e.index(self.least[axis]))
        };
        let (z, y) = (origin(z, 0), origin(y, 1));
        e.each_of(self.sizes[0], |e, pz| {
            e.each_of(self.sizes[1], |e, py| {
                let to = e.advance(e.advance(at, pz, self.slice()), py, self.row());
                let (z, y) = (e.add(z, pz), e.add(y, py));
                let inside =
                    |v: Val<'c>, axis: usize| e.compare(Compare::Below, v, e.index(source.sizes[axis]));
                let valid = e.and(inside(z, 0), inside(y, 1));
                let row = e.add(e.mul(z, e.index(source.sizes[1])), y);
                e.either(
                    valid,
                    |e| self.fill_row(e, source, image, row, to),
                    |e| e.zero_run(to, self.row(), self.lanes),
                );
            });
        });
    }

    fn fill_row(
        &self,
        e: &Emitter<'c>,
        source: &Source<'c>,
        image: Pointer<'c>,
        row: Val<'c>,
        to: Pointer<'c>,
    ) {
        let width = source.sizes[2];
        let before = (-self.least[2]).clamp(0, self.sizes[2]);
        let first = self.least[2].clamp(0, width);
        let count = (self.sizes[2] - before).min(width - first).max(0);
        let after = self.sizes[2] - before - count;
        e.zero_run(to, before * self.column, self.lanes);
        let end = e.shift(to, (before + count) * self.column);
        e.zero_run(end, after * self.column, self.lanes);
        let to = e.shift(to, before * self.column);
        let channels = source.channels;
        if source.layout == Layout::Plain && channels > 1 {
            let plane: i64 = source.sizes.iter().product();
            let from = e.shift(e.advance(image, row, width), first);
            return e.each_of(count, |e, i| {
                let (from, to) = (e.advance(from, i, 1), e.advance(to, i, self.column));
                e.each_of(channels, |e, c| {
                    let v = e.read(e.advance(from, c, plane), 0, 1);
                    e.write(e.advance(to, c, 1), 0, v);
                });
            });
        }
        let from = e.shift(e.advance(image, row, width * channels), first * channels);
        if self.column == channels {
            return e.copy_run(from, to, count * channels, self.lanes);
        }
        e.each_of(count, |e, i| {
            let (from, to) = (e.advance(from, i, channels), e.advance(to, i, self.column));
            e.copy_run(from, to, channels, self.lanes);
        });
    }
}
