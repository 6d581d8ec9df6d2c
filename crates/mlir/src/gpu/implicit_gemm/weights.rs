//! Operands that are weights, read by output channel or by input channel.

use super::operands::{Contiguous, Operand, Place, Reduced, pixel};
use super::spatial::Spatial;
use crate::emit::{Compare, Emitter, Index, Val};

/// Weights by output channel: rows are output channels, columns (tap, input channel).
pub struct WeightRows<'c> {
    /// The weights, KRSC.
    pub weights: Val<'c>,
    /// The columns.
    pub reduced: Reduced<Index<'c>>,
    /// Number of columns.
    pub size: Index<'c>,
    /// Number of rows.
    pub rows: Index<'c>,
    /// Row 0 of the tile.
    pub first: Index<'c>,
    /// Whether all rows of all tiles exist.
    pub whole: bool,
}

impl<'c> Operand<'c> for WeightRows<'c> {
    /// Offset of the row, and the row.
    type Slot = [Index<'c>; 2];
    type Step = Index<'c>;
    const CONTIGUOUS: Contiguous = Contiguous::Reduced;

    fn pointer(&self) -> Val<'c> {
        self.weights
    }

    fn slot(&self, e: &Emitter<'c>, row: Index<'c>, _: Index<'c>) -> [Index<'c>; 2] {
        let row = e.index_add(self.first, row);
        [e.index_product(row, self.size), row]
    }

    fn step(&self, e: &Emitter<'c>, step: Index<'c>, column: Index<'c>) -> Index<'c> {
        let first = e.index_scale(step, self.reduced.depth());
        e.index_add(first, column)
    }

    fn place(&self, e: &Emitter<'c>, slot: &[Index<'c>; 2], step: &Index<'c>) -> Place<'c> {
        let row = (!self.whole).then(|| e.index_compare(Compare::Below, slot[1], self.rows));
        let partial = self.reduced.is_partial();
        let column = partial.then(|| e.index_compare(Compare::Below, *step, self.size));
        (e.index_add(slot[0], *step), e.both(row, column))
    }
}

/// Weights by input channel: rows are (tap, output channel), columns input channels.
pub struct WeightColumns<'c> {
    /// The weights, KRSC.
    pub weights: Val<'c>,
    /// The spatial axes, which say what taps of the window there are.
    pub axes: [Spatial<Index<'c>>; 2],
    /// Spatial sizes of the window.
    pub window: [Index<'c>; 2],
    /// The rows.
    pub reduced: Reduced<Index<'c>>,
    /// Number of rows.
    pub size: Index<'c>,
    /// Number of columns.
    pub columns: Index<'c>,
    /// Column 0 of the tile.
    pub first: Index<'c>,
    /// Whether all columns of all tiles exist.
    pub whole: bool,
}

impl<'c> Operand<'c> for WeightColumns<'c> {
    /// Row in the tile, and column.
    type Slot = [Index<'c>; 2];
    type Step = Index<'c>;
    const CONTIGUOUS: Contiguous = Contiguous::Kept;

    fn pointer(&self) -> Val<'c> {
        self.weights
    }

    fn slot(&self, e: &Emitter<'c>, row: Index<'c>, column: Index<'c>) -> [Index<'c>; 2] {
        [row, e.index_add(self.first, column)]
    }

    fn step(&self, _: &Emitter<'c>, step: Index<'c>, _: Index<'c>) -> Index<'c> {
        step
    }

    fn place(&self, e: &Emitter<'c>, slot: &[Index<'c>; 2], step: &Index<'c>) -> Place<'c> {
        let [h, w] = &self.axes;
        let (tap, channel, partial) = self.reduced.split(e, *step, slot[0]);
        let row = partial.map(|element| e.index_compare(Compare::Below, element, self.size));
        let column = (!self.whole).then(|| e.index_compare(Compare::Below, slot[1], self.columns));
        let (t, s) = e.index_divide_by(tap, &w.taps);
        let (r, s) = (e.index_product(t, h.tap_stride), e.index_product(s, w.tap_stride));
        let (r, s) = (e.index_add(r, h.first_tap), e.index_add(s, w.first_tap));
        let offset = pixel(e, [channel, r, s], [self.window[0], self.window[1], self.columns]);
        (e.index_add(offset, slot[1]), e.both(row, column))
    }
}
