//! A copy of some rows of an image with its padding, channels innermost: what register tiles read, at constant
//! distances and without borders.

mod planes;

use syncbn_ir::Layout;
use syncbn_ir::schedule::axis::{Axis, Panel, Phase};

use super::filter::ragged_in;
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::Tensor;

/// Rows of an image that are a multiple of so many bytes apart meet in few sets of the first cache.
const ALIASES: i64 = 4096;
/// Columns that are copied into stripes at a time.
const COLUMNS: i64 = 4;

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

/// A copy whose columns have `width` channels each; those of the next channels stand `apart` elements behind it.
#[derive(Debug, Clone, Copy)]
pub struct Stripes {
    /// Channels of a stripe.
    pub width: i64,
    /// Elements from a stripe to the next one.
    pub apart: i64,
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
    /// Where it is in stripes.
    stripes: Option<Stripes>,
    /// From an output to the next one in the source, along each axis, and from an element of the copy to the next one.
    in_steps: [i64; 3],
    spreads: [i64; 3],
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
            stripes: None,
            in_steps: phases[0].map(|axis| axis.in_step * axis.spread),
            spreads: phases[0].map(|axis| axis.spread),
        }
    }

    /// The same in stripes.
    pub fn in_stripes(self, panel: Panel, stripes: Stripes) -> Copy<'c> {
        Copy {
            panel,
            stripes: Some(stripes),
            ..self
        }
    }

    /// One like it elsewhere.
    pub fn at(self, pointer: Pointer<'c>) -> Copy<'c> {
        Copy { pointer, ..self }
    }

    /// Where it is in stripes.
    pub fn stripes(&self) -> Option<Stripes> {
        self.stripes
    }

    /// Whether the rows of the image serve as well as a copy: they are the same, and neighbours are not so far apart that they
    /// displace each other in the first cache.
    pub fn is_image(&self, phases: &[Phase], source: &Source<'c>) -> bool {
        let single = matches!(phases, [phase] if phase.iter().all(Axis::is_plain));
        // Padding at an end makes more rows than there are to read.
        let inside = phases
            .iter()
            .all(|phase| (0..3).all(|i| phase[i].outputs <= source.sizes[i]));
        let row = inside && self.panel.sizes[2] == source.sizes[2] && self.panel.least == [0; 3];
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

    /// The same of some channels only, where channels are innermost and more than one; of plain images, all. Of stripes, these.
    pub fn fill_channels(
        &self,
        e: &Emitter<'c>,
        at: Pointer<'c>,
        source: &Source<'c>,
        image: Pointer<'c>,
        [z, y]: [Val<'c>; 2],
        part: Option<[Val<'c>; 2]>,
    ) {
        let origin = |first: Val<'c>, axis: usize| {
            let scaled = e.mul(first, e.index(self.in_steps[axis]));
            e.add(scaled, e.index(self.panel.least[axis]))
        };
        let (z, y) = (origin(z, 0), origin(y, 1));
        e.each_of(self.panel.sizes[0], |e, pz| {
            e.each_of(self.panel.sizes[1], |e, py| {
                let to = e.advance(e.advance(at, pz, self.panel.slice()), py, self.panel.row());
                let [pz, py] = [(pz, 0), (py, 1)].map(|(i, axis)| e.mul(i, e.index(self.spreads[axis])));
                let (z, y) = (e.add(z, pz), e.add(y, py));
                let inside =
                    |v: Val<'c>, axis: usize| e.compare(Compare::Below, v, e.index(source.sizes[axis]));
                let valid = e.and(inside(z, 0), inside(y, 1));
                let row = e.add(e.mul(z, e.index(source.sizes[1])), y);
                e.either(
                    valid,
                    |e| self.fill_row(e, source, image, row, to, part),
                    |e| self.zeros(e, to, [0, self.panel.sizes[2]], source.channels, part),
                );
            });
        });
    }

    /// Zeros in the columns `low..high` of a row.
    fn zeros(
        &self,
        e: &Emitter<'c>,
        to: Pointer<'c>,
        [low, high]: [i64; 2],
        channels: i64,
        part: Option<[Val<'c>; 2]>,
    ) {
        if low == high {
            return;
        }
        let zero = |e: &Emitter<'c>, to: Pointer<'c>| {
            let to = e.shift(to, low * self.panel.column);
            e.zero_run(to, (high - low) * self.panel.column, self.lanes);
        };
        match self.stripes {
            None => zero(e, to),
            Some(stripes) => ragged_in(e, (channels, part), stripes.width, &|e, i, _| {
                zero(e, e.advance(to, i, stripes.apart));
            }),
        }
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
        let (width, spread) = (source.sizes[2], self.spreads[2]);
        let (least, columns) = (self.panel.least[2], self.panel.sizes[2]);
        let steps = |elements: i64| elements.max(0).unsigned_abs().div_ceil(spread.unsigned_abs()) as i64;
        let before = steps(-least).min(columns);
        let first = least + before * spread;
        let count = steps(width - first).min(columns - before);
        let channels = source.channels;
        self.zeros(e, to, [0, before], channels, part);
        self.zeros(e, to, [before + count, columns], channels, part);
        let to = e.shift(to, before * self.panel.column);
        if source.layout == Layout::Plain && channels > 1 {
            let from = e.shift(e.advance(image, row, width), first);
            return self.fill_planes(e, source, from, to, count);
        }
        let from = e.shift(e.advance(image, row, width * channels), first * channels);
        if let Some(stripes) = self.stripes {
            return self.fill_stripes(e, (stripes, part), (from, channels), to, count);
        }
        let step = spread * channels;
        let all = |e: &Emitter<'c>| {
            if spread == 1 && self.panel.column == channels {
                return e.copy_run(from, to, count * channels, self.lanes);
            }
            e.each_of(count, |e, i| {
                let (from, to) = (e.advance(from, i, step), e.advance(to, i, self.panel.column));
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
                    let (from, to) = (e.advance(from, i, step), e.advance(to, i, self.panel.column));
                    e.copy_between(from, to, [low, high], self.lanes);
                });
            },
            all,
        );
    }

    /// Copies `count` columns of channels into stripes, some columns at a time, so that lines are filled at once.
    fn fill_stripes(
        &self,
        e: &Emitter<'c>,
        (stripes, part): (Stripes, Option<[Val<'c>; 2]>),
        (from, channels): (Pointer<'c>, i64),
        to: Pointer<'c>,
        count: i64,
    ) {
        let (step, column) = (self.spreads[2] * channels, self.panel.column);
        let some = |e: &Emitter<'c>, first: Val<'c>, columns: i64| {
            let (from, to) = (e.advance(from, first, step), e.advance(to, first, column));
            ragged_in(e, (channels, part), stripes.width, &|e, i, width| {
                let (from, to) = (e.advance(from, i, stripes.width), e.advance(to, i, stripes.apart));
                for c in 0..columns {
                    let value = e.read_first(from, c * step, stripes.width as usize, width);
                    e.write(to, c * column, value);
                    // The next columns', which are as far apart.
                    e.prefetch(from, (c + COLUMNS) * step, false);
                }
            });
        };
        e.each_of(count / COLUMNS, |e, i| {
            some(e, e.mul(i, e.index(COLUMNS)), COLUMNS)
        });
        match count % COLUMNS {
            0 => {}
            rest => some(e, e.index(count - rest), rest),
        }
    }
}
