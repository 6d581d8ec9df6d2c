//! Weights of convolutions in vectors of output channels (`ir::Layout::Filter`), and their transposes.

use super::items::Items;
use crate::emit::{Compare, Emitter, Pointer, Val};
use crate::ops::kernel::{Tensor, fixed};

/// Weights `[outputs / lanes][depth, height, width][inputs][lanes]`, the last vectors padded with zeros.
#[derive(Debug, Clone, Copy)]
pub struct Filter<'c> {
    /// The first element.
    pub pointer: Pointer<'c>,
    /// Lanes of a vector.
    pub lanes: usize,
    /// Output channels of all groups.
    pub outputs: i64,
    /// Input channels of a group.
    pub inputs: i64,
    /// Depth, height, width of the window.
    pub kernel: [i64; 3],
}

impl<'c> Filter<'c> {
    /// The weights of a convolution.
    pub fn of(w: &Tensor<'c>, lanes: usize, kernel: [i64; 3]) -> Filter<'c> {
        Filter {
            pointer: Pointer::new(w.pointer, w.memory_elem()),
            lanes,
            outputs: fixed(w.ty.shape.0[0]),
            inputs: fixed(w.ty.shape.0[1]),
            kernel,
        }
    }

    /// Taps of the window.
    pub fn taps(&self) -> i64 {
        self.kernel.iter().product()
    }

    /// Elements of a tap of a vector of outputs.
    pub fn tap(&self) -> i64 {
        self.inputs * self.lanes as i64
    }

    /// Elements of a vector of outputs.
    pub fn vector(&self) -> i64 {
        self.taps() * self.tap()
    }

    /// Vectors of outputs.
    pub fn vectors(&self) -> i64 {
        (self.outputs + self.lanes as i64 - 1) / self.lanes as i64
    }
}

/// Writes to `to` the weights with outputs and inputs of each group exchanged; returns them, and how many elements they
/// take. Threads divide it, and must meet before they read it.
pub fn transpose<'c>(e: &Emitter<'c>, w: &Filter<'c>, to: Pointer<'c>, groups: i64) -> (Filter<'c>, i64) {
    let lanes = w.lanes as i64;
    let blocks = |n: i64| (n + lanes - 1) / lanes;
    let (outputs, inputs) = (w.outputs / groups, w.inputs);
    let transposed = Filter {
        pointer: to,
        outputs: inputs * groups,
        inputs: outputs,
        ..*w
    };
    let items = Items::new(e, e.index(groups), blocks(inputs));
    items.each(e, |e, group, part| {
        let from = e.advance(w.pointer, group, blocks(outputs) * w.vector());
        let to = e.advance(to, group, blocks(inputs) * transposed.vector());
        ragged(e, outputs, lanes, &|e, ob, kept| {
            let from = e.advance(from, ob, w.vector());
            let to = e.advance(to, ob, lanes * lanes);
            ragged_in(e, (inputs, part), lanes, &|e, ib, rows| {
                e.each_of(w.taps(), |e, tap| {
                    let from = e.advance(e.advance(from, tap, w.tap()), ib, lanes * lanes);
                    let to = e.advance(e.advance(to, tap, transposed.tap()), ib, transposed.vector());
                    let square = turned(e, read_square(e, from, rows, w.lanes));
                    for (r, &row) in square.iter().take(kept).enumerate() {
                        e.write(to, r as i64 * lanes, row);
                    }
                });
            });
        });
    });
    (transposed, groups * blocks(inputs) * transposed.vector())
}

/// `body` for blocks of `lanes` out of `0..count`, with the number of elements of each.
pub fn ragged<'c>(e: &Emitter<'c>, count: i64, lanes: i64, body: &dyn Fn(&Emitter<'c>, Val<'c>, usize)) {
    e.each_of(count / lanes, |e, i| body(e, i, lanes as usize));
    if count % lanes > 0 {
        body(e, e.index(count / lanes), (count % lanes) as usize);
    }
}

/// [`ragged`] for some of the blocks; None for all.
pub fn ragged_in<'c>(
    e: &Emitter<'c>,
    (count, part): (i64, Option<[Val<'c>; 2]>),
    lanes: i64,
    body: &dyn Fn(&Emitter<'c>, Val<'c>, usize),
) {
    let Some([low, high]) = part else {
        return ragged(e, count, lanes, body);
    };
    let whole = e.index(count / lanes);
    if count >= lanes {
        e.each_in(low, e.min(high, whole), |e, i| body(e, i, lanes as usize));
    }
    if count % lanes > 0 {
        let is_in = e.compare(Compare::Gt, high, whole);
        e.when(is_in, |e| body(e, whole, (count % lanes) as usize));
    }
}

/// `rows` vectors one behind another, and zeros up to a square.
pub fn read_square<'c>(e: &Emitter<'c>, from: Pointer<'c>, rows: usize, lanes: usize) -> Vec<Val<'c>> {
    let zero = e.splat(e.zero(from.elem), lanes);
    (0..lanes)
        .map(|r| match r < rows {
            true => e.read(from, (r * lanes) as i64, lanes),
            false => zero,
        })
        .collect()
}

/// The transpose of a square of vectors, in `log2(lanes)` rounds that exchange blocks of 1, 2, 4, ... elements.
pub fn turned<'c>(e: &Emitter<'c>, mut rows: Vec<Val<'c>>) -> Vec<Val<'c>> {
    let lanes = rows.len();
    let mut distance = 1;
    while distance < lanes {
        let has = |k: usize| k & distance != 0;
        let low: Vec<usize> = (0..lanes)
            .map(|k| if has(k) { lanes + k - distance } else { k })
            .collect();
        let high: Vec<usize> = (0..lanes)
            .map(|k| if has(k) { lanes + k } else { k + distance })
            .collect();
        for i in (0..lanes).filter(|&i| !has(i)) {
            let pair = [rows[i], rows[i + distance]];
            rows[i] = e.pick_lanes(pair, &low);
            rows[i + distance] = e.pick_lanes(pair, &high);
        }
        distance *= 2;
    }
    rows
}
