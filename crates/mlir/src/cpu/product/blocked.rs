//! Matrix product in register tiles: a panel of columns is copied to where all rows find it in the cache. Terms that are
//! the batch need no copy.

use syncbn_ir::ops::MatMul;
use syncbn_ir::schedule::Product;

use super::microkernel::{Ahead, Tile, Turns};
use super::{dots, rows::each_rows};
use crate::emit::{Compare, Emitter, Extent, Pointer, Val};
use crate::ops::kernel::{Kernel, fixed, matrix};

/// `y[m, n] = sum over k of a[m, k] * b[k, n]`. Only what is copied needs a workspace, which is the thread's own.
pub fn lower<'c>(
    s: Product,
    workspace: Result<Val<'c>, String>,
    op: &MatMul,
    k: &Kernel<'c>,
    e: &Emitter<'c>,
) -> Result<(), String> {
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
    };
    match product.terms {
        Extent::Fixed(terms) if a_term == 1 && b_term == 1 => {
            dots::emit(&product, terms, s.vectors as i64, e)
        }
        Extent::Fixed(terms) => product.by_columns(e, Pointer::new(workspace?, b.memory_elem()), terms),
        Extent::Batch(_) => product.by_rows(e),
    }
    Ok(())
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
    /// The right operand there, and from a term to the next one.
    right: Pointer<'c>,
    step: i64,
}

impl<'c> Blocked<'c> {
    /// Panel by panel, which threads divide; each is copied to `copy` first.
    fn by_columns(&self, e: &Emitter<'c>, copy: Pointer<'c>, terms: i64) {
        self.each_columns(e, &|e, first, columns| {
            let panel = |e: &Emitter<'c>, term: Val<'c>, terms: i64| {
                let panel = Panel {
                    first,
                    columns,
                    term,
                    terms: Extent::Fixed(terms),
                    right: copy,
                    step: self.width,
                };
                self.fill(e, panel, terms);
                each_rows(e, self.rows, self.pixels, &|e, row, rows| {
                    self.tile(e, panel, row, rows)
                });
            };
            let whole = terms / self.depth;
            e.each_of(whole, |e, i| panel(e, e.mul(i, e.index(self.depth)), self.depth));
            let rest = terms - whole * self.depth;
            if rest > 0 {
                panel(e, e.index(whole * self.depth), rest);
            }
        });
    }

    /// Row by row, which threads divide: a batch has few terms, so that writing the result takes the time.
    fn by_rows(&self, e: &Emitter<'c>) {
        each_rows(e, self.rows, self.pixels, &|e, row, rows| {
            self.each_columns(e, &|e, first, columns| {
                let panel = Panel {
                    first,
                    columns,
                    term: e.index(0),
                    terms: self.terms,
                    right: e.advance(self.b, first, self.b_strides[1]),
                    step: self.b_strides[0],
                };
                self.tile(e, panel, row, rows);
            });
        });
    }

    /// `body` for the columns of each of this thread's panels, with the first one and how many there are.
    fn each_columns(&self, e: &Emitter<'c>, body: &dyn Fn(&Emitter<'c>, Val<'c>, i64)) {
        e.divided_blocks(self.columns, self.width, &|e, first, columns| {
            body(e, e.index_value(first), columns);
        });
    }

    /// Copies the panel.
    fn fill(&self, e: &Emitter<'c>, panel: Panel<'c>, terms: i64) {
        let [term_stride, column_stride] = self.b_strides;
        let from = e.advance(
            e.advance(self.b, panel.term, term_stride),
            panel.first,
            column_stride,
        );
        e.each_of(terms, |e, term| {
            let (from, to) = (
                e.advance(from, term, term_stride),
                e.advance(panel.right, term, panel.step),
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

    /// Adds the panel's terms to `rows` rows, or begins with them.
    fn tile(&self, e: &Emitter<'c>, panel: Panel<'c>, row: Val<'c>, rows: i64) {
        let [row_stride, term_stride] = self.a_strides;
        let lanes = self.lanes as i64;
        let vectors = (panel.columns + lanes - 1) / lanes;
        let tile = Tile {
            left: e.advance(e.advance(self.a, row, row_stride), panel.term, term_stride),
            rows: (0..rows).map(|r| r * row_stride).collect(),
            right: panel.right,
            vectors: (0..vectors).map(|v| v * lanes).collect(),
            lanes: self.lanes,
            last: (panel.columns - (vectors - 1) * lanes) as usize,
            ahead: Ahead::default(),
        };
        let y = e.advance(e.advance(self.y, row, self.columns), panel.first, 1);
        let places: Vec<(i64, usize)> = (0..rows)
            .flat_map(|r| (0..vectors).map(move |v| (r, v)))
            .map(|(r, v)| {
                let active = if v + 1 == vectors { tile.last } else { self.lanes };
                (r * self.columns + v * lanes, active)
            })
            .collect();
        let later = e.compare(Compare::Gt, panel.term, e.index(0));
        let old = e.when_carrying(later, &tile.zeros(e), |e, _| {
            let read = |&(at, active): &(i64, usize)| e.read_first(y, at, self.lanes, active);
            places.iter().map(read).collect()
        });
        let turns = Turns {
            count: panel.terms,
            left: term_stride,
            right: panel.step,
        };
        let sums = tile.accumulate(e, &[turns], &old);
        for (&(at, active), &sum) in places.iter().zip(&sums) {
            e.write_first(y, at, sum, active);
        }
    }
}
