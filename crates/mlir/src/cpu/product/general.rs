//! Matrix product: lanes along whichever axis is contiguous.

use syncbn_ir::Dim;
use syncbn_ir::ops::MatMul;

use crate::emit::{Emitter, Extent, Index, Val};
use crate::ops::kernel::{Kernel, fixed, matrix};

/// Rows or columns that share the loads of one operand.
const BLOCK: i64 = 4;
/// Terms where they are a batch.
const SOME_TERMS: i64 = 64;

/// Threads divide the columns: `y[m, n] = sum over k of a[m, k] * b[k, n]`
pub fn lower<'c>(op: &MatMul, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (a, b, y) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let (m, inner, am, ak) = matrix(&a.ty, op.transpose_a);
    let (_, n, bk, bn) = matrix(&b.ty, op.transpose_b);
    let (ab, bb, yb) = (a.view(&[am, ak]), b.view(&[bk, bn]), y.buffer());
    let (elem, columns) = (y.elem(), fixed(n));
    if let (1, 1, Dim::Fixed(inner)) = (ak, bk, inner) {
        return e.for_each(k.extent(m), |e, row| {
            e.divided_blocks(columns, BLOCK, &|e, n0, size| {
                let elems = vec![elem; size as usize];
                let sums = e.sum_over(&[], inner as i64, k.width(elem), &elems, &mut |e, at, sums| {
                    let av = e.load(&ab, &[row, at[0]], None);
                    (0..size)
                        .map(|j| {
                            let column = e.index_offset(n0, j);
                            let bv = e.load(&bb, &[at[0], column], None);
                            e.fma(av, bv, sums[j as usize])
                        })
                        .collect()
                });
                for (j, &sum) in sums.iter().enumerate() {
                    let column = e.index_offset(n0, j as i64);
                    e.store(&yb, &[row, column], sum);
                }
            });
        });
    }
    let cost = inner.fixed().map_or(SOME_TERMS, |terms| terms as i64);
    let rows = |e: &Emitter<'c>, first: Index<'c>, size: i64| {
        e.map_costly(&[Extent::Fixed(columns)], k.width(elem), cost, &|e, at| {
            let zero = e.zero(elem);
            let start: Vec<Val<'c>> = vec![e.splat(zero, e.lanes()); size as usize];
            let sums = e.fold(k.extent(inner), &start, |e, i, sums| {
                let bv = e.load(&bb, &[i, at[0]], None);
                (0..size)
                    .map(|j| {
                        let row = e.index_offset(first, j);
                        let av = e.load(&ab, &[row, i], None);
                        e.fma(av, bv, sums[j as usize])
                    })
                    .collect()
            });
            for (j, &sum) in sums.iter().enumerate() {
                let row = e.index_offset(first, j as i64);
                e.store(&yb, &[row, at[0]], sum);
            }
        });
    };
    match m {
        Dim::Batch => e.for_each(k.extent(m), |e, row| rows(e, row, 1)),
        Dim::Fixed(m) => e.blocks(m as i64, BLOCK, &rows),
    }
}
