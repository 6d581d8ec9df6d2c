//! Matrix product in register tiles: a panel of columns is copied to where all rows find it in the cache.

use syncbn_ir::ops::MatMul;
use syncbn_ir::schedule::Product;

use super::microkernel::{Tile, Turns};
use super::{dots, rows::each_rows};
use crate::emit::{Emitter, Extent, Pointer, Val};
use crate::ops::kernel::{Kernel, fixed, matrix};

/// `y[m, n] = sum over k of a[m, k] * b[k, n]`
pub fn lower<'c>(s: Product, workspace: Val<'c>, op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (a, b, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let (rows, terms, a_row, a_term) = matrix(&a.ty, op.transpose_a);
    let (_, columns, b_term, b_column) = matrix(&b.ty, op.transpose_b);
    let pointer =
        |tensor: &crate::ops::kernel::Tensor<'c>| Pointer::new(tensor.pointer, tensor.memory_elem());
    let product = Blocked {
        lanes: s.lanes,
        pixels: s.pixels as i64,
        width: (s.vectors * s.lanes) as i64,
        depth: s.depth as i64,
        a: pointer(a),
        b: pointer(b),
        y: pointer(y),
        a_strides: [a_row, a_term],
        b_strides: [b_term, b_column],
        rows: k.extent(rows),
        terms: k.extent(terms),
        columns: fixed(columns),
        panel: Pointer::new(workspace, b.memory_elem()),
    };
    match product.terms {
        Extent::Fixed(terms) if a_term == 1 && b_term == 1 => {
            dots::emit(&product, terms, s.vectors as i64, e)
        }
        _ => product.emit(e),
    }
}

/// A product, and how it is blocked.
pub struct Blocked<'c> {
    /// Lanes of a vector.
    pub lanes: usize,
    /// Rows of a register tile.
    pub pixels: i64,
    /// Columns of a panel.
    width: i64,
    /// Terms of a panel.
    depth: i64,
    /// The left operand.
    pub a: Pointer<'c>,
    /// The right operand.
    pub b: Pointer<'c>,
    /// The result, its columns being neighbours.
    pub y: Pointer<'c>,
    /// From a row of the left operand to the next one, and from a term.
    pub a_strides: [i64; 2],
    /// From a term of the right operand to the next one, and from a column.
    pub b_strides: [i64; 2],
    /// Rows of the result.
    pub rows: Extent<'c>,
    terms: Extent<'c>,
    /// Columns of the result.
    pub columns: i64,
    panel: Pointer<'c>,
}

/// The panel at hand.
#[derive(Clone, Copy)]
struct Panel<'c> {
    /// First column, and how many there are.
    first: Val<'c>,
    columns: i64,
    /// First term, and how many there are.
    term: Val<'c>,
    terms: Extent<'c>,
}

impl<'c> Blocked<'c> {
    fn emit(&self, e: &Emitter<'c>) {
        each(e, self.rows, |e, row| {
            e.zero_run(e.advance(self.y, row, self.columns), self.columns, self.lanes);
        });
        let whole = self.columns / self.width;
        e.each_of(whole, |e, i| {
            self.columns(e, e.mul(i, e.index(self.width)), self.width)
        });
        let rest = self.columns - whole * self.width;
        if rest > 0 {
            self.columns(e, e.index(whole * self.width), rest);
        }
    }

    /// Some columns of the result.
    fn columns(&self, e: &Emitter<'c>, first: Val<'c>, columns: i64) {
        let panel = |e: &Emitter<'c>, term: Val<'c>, terms: Extent<'c>| {
            let panel = Panel {
                first,
                columns,
                term,
                terms,
            };
            self.fill(e, panel);
            each_rows(e, self.rows, self.pixels, &|e, row, rows| {
                self.tile(e, panel, row, rows)
            });
        };
        match self.terms {
            Extent::Fixed(terms) => {
                let whole = terms / self.depth;
                e.each_of(whole, |e, i| {
                    panel(e, e.mul(i, e.index(self.depth)), Extent::Fixed(self.depth));
                });
                let rest = terms - whole * self.depth;
                if rest > 0 {
                    panel(e, e.index(whole * self.depth), Extent::Fixed(rest));
                }
            }
            Extent::Batch(terms) => {
                e.for_range(e.index(0), terms, self.depth, &[], |e, term, _| {
                    let count = e.min(e.index(self.depth), e.sub(terms, term));
                    panel(e, term, Extent::Batch(count));
                    Vec::new()
                });
            }
        }
    }

    /// Copies the panel.
    fn fill(&self, e: &Emitter<'c>, panel: Panel<'c>) {
        let [term_stride, column_stride] = self.b_strides;
        let from = e.advance(
            e.advance(self.b, panel.term, term_stride),
            panel.first,
            column_stride,
        );
        each(e, panel.terms, |e, term| {
            let (from, to) = (
                e.advance(from, term, term_stride),
                e.advance(self.panel, term, self.width),
            );
            if column_stride == 1 {
                return e.copy_run(from, to, panel.columns, self.lanes);
            }
            e.each_of(panel.columns, |e, column| {
                let v = e.read(e.advance(from, column, column_stride), 0, 1);
                e.write(e.advance(to, column, 1), 0, v);
            });
        });
    }

    /// Adds the panel's terms to `rows` rows.
    fn tile(&self, e: &Emitter<'c>, panel: Panel<'c>, row: Val<'c>, rows: i64) {
        let [row_stride, term_stride] = self.a_strides;
        let lanes = self.lanes as i64;
        let vectors = (panel.columns + lanes - 1) / lanes;
        let tile = Tile {
            left: e.advance(e.advance(self.a, row, row_stride), panel.term, term_stride),
            rows: (0..rows).map(|r| r * row_stride).collect(),
            right: self.panel,
            vectors: (0..vectors).map(|v| v * lanes).collect(),
            lanes: self.lanes,
            last: (panel.columns - (vectors - 1) * lanes) as usize,
        };
        let y = e.advance(e.advance(self.y, row, self.columns), panel.first, 1);
        let places: Vec<(i64, usize)> = (0..rows)
            .flat_map(|r| (0..vectors).map(move |v| (r, v)))
            .map(|(r, v)| {
                let active = if v + 1 == vectors { tile.last } else { self.lanes };
                (r * self.columns + v * lanes, active)
            })
            .collect();
        let old: Vec<Val<'c>> = places
            .iter()
            .map(|&(at, active)| e.read_first(y, at, self.lanes, active))
            .collect();
        let turns = Turns {
            count: panel.terms,
            left: term_stride,
            right: self.width,
        };
        let sums = tile.accumulate(e, &[turns], &old);
        for (&(at, active), &sum) in places.iter().zip(&sums) {
            e.write_first(y, at, sum, active);
        }
    }
}

fn each<'c>(e: &Emitter<'c>, extent: Extent<'c>, body: impl FnOnce(&Emitter<'c>, Val<'c>)) {
    match extent {
        Extent::Fixed(count) => e.each_of(count, body),
        Extent::Batch(count) => e.each_in(e.index(0), count, body),
    }
}
