//! Operands that are images: the gathered input or gradient, and the gradient of the output as it lies.

use super::operands::{Contiguous, OUTSIDE, Operand, Place, Reduced, pixel};
use super::spatial::Spatial;
use crate::emit::{Compare, Divisor, Emitter, Index, Val};

/// An output of a gather: row `m` of the product is (sample, i, j).
pub fn output<'c>(e: &Emitter<'c>, [h, w]: &[Spatial<Index<'c>>; 2], m: Index<'c>) -> [Index<'c>; 3] {
    let (rest, j) = e.index_divide_by(m, &w.count);
    let (n, i) = e.index_divide_by(rest, &h.count);
    [n, i, j]
}

/// Outputs gather an image: rows are outputs, columns (tap, channel).
pub struct Gather<'c> {
    /// The image, NHWC.
    pub image: Val<'c>,
    /// Its spatial axes.
    pub axes: [Spatial<Index<'c>>; 2],
    /// The columns.
    pub reduced: Reduced<Index<'c>>,
    /// Number of columns.
    pub size: Index<'c>,
    /// Number of rows.
    pub rows: Index<'c>,
    /// Row 0 of the tile.
    pub first: Index<'c>,
}

impl<'c> Operand<'c> for Gather<'c> {
    type Slot = [Index<'c>; 3];
    type Step = [Index<'c>; 3];
    const CONTIGUOUS: Contiguous = Contiguous::Reduced;

    fn pointer(&self) -> Val<'c> {
        self.image
    }

    fn slot(&self, e: &Emitter<'c>, row: Index<'c>, _: Index<'c>) -> [Index<'c>; 3] {
        let [h, w] = &self.axes;
        let m = e.index_add(self.first, row);
        let [n, i, j] = output(e, &self.axes, m);
        let (y, x) = (e.index_product(i, h.stride), e.index_product(j, w.stride));
        let (y, x) = (e.index_add(y, h.start), e.index_add(x, w.start));
        let offset = pixel(e, [n, y, x], [h.source, w.source, self.reduced.channels()]);
        let exists = e.index_compare(Compare::Below, m, self.rows);
        let y = e.index_select(exists, y, Index::constant(OUTSIDE));
        [offset, y, x]
    }

    fn step(&self, e: &Emitter<'c>, step: Index<'c>, column: Index<'c>) -> [Index<'c>; 3] {
        let [h, w] = &self.axes;
        let (tap, channel, partial) = self.reduced.split(e, step, column);
        let (t, s) = e.index_divide_by(tap, &w.taps);
        let (mut y, x) = (e.index_product(t, h.reach), e.index_product(s, w.reach));
        let offset = pixel(
            e,
            [Index::constant(0), y, x],
            [Index::constant(0), w.source, self.reduced.channels()],
        );
        let offset = e.index_add(offset, channel);
        if let Some(element) = partial {
            let exists = e.index_compare(Compare::Below, element, self.size);
            y = e.index_select(exists, y, Index::constant(OUTSIDE));
        }
        [offset, y, x]
    }

    fn place(&self, e: &Emitter<'c>, slot: &[Index<'c>; 3], step: &[Index<'c>; 3]) -> Place<'c> {
        let [h, w] = &self.axes;
        let [offset, y, x] = [0, 1, 2].map(|i| e.index_add(slot[i], step[i]));
        // Rows past the last and taps past the last have y outside, so that this comparison is always needed.
        let mut exists = e.index_compare(Compare::Below, y, h.source);
        if !w.inside {
            let inside = e.index_compare(Compare::Below, x, w.source);
            exists = e.and(exists, inside);
        }
        (offset, Some(exists))
    }
}

/// The gradient of the output: rows are outputs, columns output channels.
pub struct Gradient<'c> {
    /// The gradient, NHWC.
    pub gradient: Val<'c>,
    /// Number of rows.
    pub rows: Index<'c>,
    /// Rows of a step.
    pub depth: i64,
    /// Number of columns.
    pub columns: Index<'c>,
    /// Column 0 of the tile.
    pub first: Index<'c>,
    /// Whether all columns of all tiles exist.
    pub whole: bool,
}

impl<'c> Operand<'c> for Gradient<'c> {
    /// Row in the tile, and column.
    type Slot = [Index<'c>; 2];
    type Step = Index<'c>;
    const CONTIGUOUS: Contiguous = Contiguous::Kept;

    fn pointer(&self) -> Val<'c> {
        self.gradient
    }

    fn slot(&self, e: &Emitter<'c>, row: Index<'c>, column: Index<'c>) -> [Index<'c>; 2] {
        [row, e.index_add(self.first, column)]
    }

    fn step(&self, e: &Emitter<'c>, step: Index<'c>, _: Index<'c>) -> Index<'c> {
        e.index_scale(step, self.depth)
    }

    fn place(&self, e: &Emitter<'c>, slot: &[Index<'c>; 2], step: &Index<'c>) -> Place<'c> {
        let m = e.index_add(*step, slot[0]);
        let row = e.index_compare(Compare::Below, m, self.rows);
        let column = (!self.whole).then(|| e.index_compare(Compare::Below, slot[1], self.columns));
        let offset = e.index_product(m, self.columns);
        (e.index_add(offset, slot[1]), e.both(Some(row), column))
    }
}

/// The input as outputs read it: rows are outputs, columns (tap, input channel).
pub struct Patches<'c> {
    /// The input, NHWC.
    pub image: Val<'c>,
    /// Its spatial axes.
    pub axes: [Spatial<Index<'c>>; 2],
    /// Its channels.
    pub channels: Divisor<Index<'c>>,
    /// Number of columns.
    pub columns: Index<'c>,
    /// Number of rows.
    pub rows: Index<'c>,
    /// Rows of a step.
    pub depth: i64,
    /// Column 0 of the tile.
    pub first: Index<'c>,
    /// Whether all columns of all tiles exist.
    pub whole: bool,
}

impl<'c> Operand<'c> for Patches<'c> {
    /// Row in the tile; offset, y and x of the tap.
    type Slot = [Index<'c>; 4];
    type Step = Index<'c>;
    const CONTIGUOUS: Contiguous = Contiguous::Kept;

    fn pointer(&self) -> Val<'c> {
        self.image
    }

    fn slot(&self, e: &Emitter<'c>, row: Index<'c>, column: Index<'c>) -> [Index<'c>; 4] {
        let [h, w] = &self.axes;
        let column = e.index_add(self.first, column);
        let (tap, channel) = match [h, w].iter().all(|axis| axis.taps.is(1)) {
            true => (Index::constant(0), column),
            false => e.index_divide_by(column, &self.channels),
        };
        let (t, s) = e.index_divide_by(tap, &w.taps);
        let (y, x) = (e.index_product(t, h.reach), e.index_product(s, w.reach));
        let (mut y, x) = (e.index_add(y, h.start), e.index_add(x, w.start));
        let image = [Index::constant(0), w.source, self.channels.size];
        let offset = pixel(e, [Index::constant(0), y, x], image);
        let offset = e.index_add(offset, channel);
        if !self.whole {
            let exists = e.index_compare(Compare::Below, column, self.columns);
            y = e.index_select(exists, y, Index::constant(OUTSIDE));
        }
        [row, offset, y, x]
    }

    fn step(&self, e: &Emitter<'c>, step: Index<'c>, _: Index<'c>) -> Index<'c> {
        e.index_scale(step, self.depth)
    }

    fn place(&self, e: &Emitter<'c>, slot: &[Index<'c>; 4], step: &Index<'c>) -> Place<'c> {
        let [h, w] = &self.axes;
        let [row, offset, y, x] = *slot;
        let m = e.index_add(*step, row);
        let [n, i, j] = output(e, &self.axes, m);
        let (i, j) = (e.index_product(i, h.stride), e.index_product(j, w.stride));
        let first = pixel(e, [n, i, j], [h.source, w.source, self.channels.size]);
        let (y, x) = (e.index_add(i, y), e.index_add(j, x));
        let mut exists = e.index_compare(Compare::Below, m, self.rows);
        for (at, size) in [(y, h.source), (x, w.source)] {
            let inside = e.index_compare(Compare::Below, at, size);
            exists = e.and(exists, inside);
        }
        (e.index_add(first, offset), Some(exists))
    }
}
