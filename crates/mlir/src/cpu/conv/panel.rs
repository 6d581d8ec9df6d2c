//! A copy of some rows of an image with its padding, channels innermost: what register tiles read, at constant
//! distances and without borders.

use syncbn_ir::Layout;
use syncbn_ir::schedule::axis::{Axis, Panel, Phase};

use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::Tensor;

/// Rows of an image that are a multiple of so many bytes apart meet in few sets of the first cache.
const ALIASES: i64 = 4096;

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

/// The copy, and where it lies.
#[derive(Debug, Clone, Copy)]
pub struct Copy<'c> {
    /// Its first element.
    pub pointer: Pointer<'c>,
    /// Its sizes.
    pub panel: Panel,
    /// Lanes of vectors.
    lanes: usize,
    /// From an output to the next one in the source, along each axis.
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

impl<'c> Copy<'c> {
    /// The copy that `rows` rows of outputs of these phases read, at the beginning of `workspace`.
    pub fn new(
        phases: &[Phase],
        rows: i64,
        source: &Source<'c>,
        workspace: Val<'c>,
        lanes: usize,
    ) -> Copy<'c> {
        let elem = source.pointer.elem;
        Copy {
            pointer: Pointer::new(workspace, elem),
            panel: Panel::new(phases, rows, source.channels, elem.bytes()),
            lanes,
            in_steps: [0, 1, 2].map(|axis| phases[0][axis].in_step),
        }
    }

    /// Whether the rows of the image serve as well as a copy: they are the same, and neighbours are not so far apart that they
    /// displace each other in the first cache.
    pub fn is_image(&self, phases: &[Phase], source: &Source<'c>) -> bool {
        let single = matches!(phases, [phase] if phase.iter().all(Axis::is_plain));
        let row = self.panel.sizes[2] == source.sizes[2] && self.panel.least == [0; 3];
        let apart = source.channels * source.pointer.elem.bytes();
        single && row && source.layout == Layout::Nhwc && apart % ALIASES != 0
    }

    /// The rows of an image themselves, from row `y` of slice `z` on, instead of a copy.
    pub fn of_image(
        &self,
        e: &Emitter<'c>,
        image: Pointer<'c>,
        source: &Source<'c>,
        [z, y]: [Val<'c>; 2],
    ) -> Copy<'c> {
        let panel = Panel {
            column: source.channels,
            ..self.panel
        };
        let row = e.add(e.mul(z, e.index(source.sizes[1])), y);
        Copy {
            pointer: e.advance(image, row, panel.row()),
            panel,
            ..*self
        }
    }

    /// Fills the copy for the outputs of slice `z` from row `y` on; `image` is the sample's first element. `at` is where
    /// the copy begins.
    pub fn fill(
        &self,
        e: &Emitter<'c>,
        at: Pointer<'c>,
        source: &Source<'c>,
        image: Pointer<'c>,
        place: [Val<'c>; 2],
    ) {
        self.fill_channels(e, at, source, image, place, None);
    }

    /// The same of some channels only, where channels are innermost and more than one; of plain images, all.
    pub fn fill_channels(
        &self,
        e: &Emitter<'c>,
        at: Pointer<'c>,
        source: &Source<'c>,
        image: Pointer<'c>,
        [z, y]: [Val<'c>; 2],
        channels: Option<[Val<'c>; 2]>,
    ) {
        let origin = |first: Val<'c>, axis: usize| {
            let scaled = e.mul(first, e.index(self.in_steps[axis]));
            e.add(scaled, e.index(self.panel.least[axis]))
        };
        let (z, y) = (origin(z, 0), origin(y, 1));
        e.each_of(self.panel.sizes[0], |e, pz| {
            e.each_of(self.panel.sizes[1], |e, py| {
                let to = e.advance(e.advance(at, pz, self.panel.slice()), py, self.panel.row());
                let (z, y) = (e.add(z, pz), e.add(y, py));
                let inside =
                    |v: Val<'c>, axis: usize| e.compare(Compare::Below, v, e.index(source.sizes[axis]));
                let valid = e.and(inside(z, 0), inside(y, 1));
                let row = e.add(e.mul(z, e.index(source.sizes[1])), y);
                e.either(
                    valid,
                    |e| self.fill_row(e, source, image, row, to, channels),
                    |e| e.zero_run(to, self.panel.row(), self.lanes),
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
        part: Option<[Val<'c>; 2]>,
    ) {
        let width = source.sizes[2];
        let before = (-self.panel.least[2]).clamp(0, self.panel.sizes[2]);
        let first = self.panel.least[2].clamp(0, width);
        let count = (self.panel.sizes[2] - before).min(width - first).max(0);
        let after = self.panel.sizes[2] - before - count;
        e.zero_run(to, before * self.panel.column, self.lanes);
        let end = e.shift(to, (before + count) * self.panel.column);
        e.zero_run(end, after * self.panel.column, self.lanes);
        let to = e.shift(to, before * self.panel.column);
        let channels = source.channels;
        if source.layout == Layout::Plain && channels > 1 {
            let plane: i64 = source.sizes.iter().product();
            let from = e.shift(e.advance(image, row, width), first);
            return e.each_of(count, |e, i| {
                let (from, to) = (e.advance(from, i, 1), e.advance(to, i, self.panel.column));
                e.each_of(channels, |e, c| {
                    let v = e.read(e.advance(from, c, plane), 0, 1);
                    e.write(e.advance(to, c, 1), 0, v);
                });
            });
        }
        let from = e.shift(e.advance(image, row, width * channels), first * channels);
        let all = |e: &Emitter<'c>| {
            if self.panel.column == channels {
                return e.copy_run(from, to, count * channels, self.lanes);
            }
            e.each_of(count, |e, i| {
                let (from, to) = (e.advance(from, i, channels), e.advance(to, i, self.panel.column));
                e.copy_run(from, to, channels, self.lanes);
            });
        };
        let Some([low, high]) = part else {
            return all(e);
        };
        let several = e.compare(Compare::Lt, e.sub(high, low), e.index(channels));
        e.either(
            several,
            |e| {
                e.each_of(count, |e, i| {
                    let (from, to) = (e.advance(from, i, channels), e.advance(to, i, self.panel.column));
                    e.copy_between(from, to, [low, high], self.lanes);
                });
            },
            all,
        );
    }
}
