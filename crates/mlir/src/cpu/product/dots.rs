//! Matrix product of operands whose terms are neighbours: lanes along the terms, and a register for each element of a
//! square of the result.

use super::blocked::Blocked;
use super::rows::each_rows;
use crate::emit::{Emitter, Pointer, Val};

/// The whole product of `terms` terms, whose columns threads divide; a broadcasting tile of `vectors` vectors becomes one
/// that is about as high as wide, since here both sides are loads.
pub fn emit<'c>(p: &Blocked<'c>, terms: i64, vectors: i64, e: &Emitter<'c>) {
    let (rows, columns) = ((p.pixels / 2).max(1), 2 * vectors);
    let some = |e: &Emitter<'c>, first: Val<'c>, columns: i64| {
        each_rows(e, p.rows, rows, &|e, row, rows| {
            square(p, e, terms, (row, rows), (first, columns));
        });
    };
    e.divided_blocks(p.columns, columns, &|e, first, columns| {
        some(e, e.index_value(first), columns);
    });
}

fn square<'c>(
    p: &Blocked<'c>,
    e: &Emitter<'c>,
    terms: i64,
    (row, rows): (Val<'c>, i64),
    (column, columns): (Val<'c>, i64),
) {
    let a = e.advance(p.a, row, p.a_strides[0]);
    let b = e.advance(p.b, column, p.b_strides[1]);
    let add = |e: &Emitter<'c>, a: Pointer<'c>, b: Pointer<'c>, active: usize, sums: &[Val<'c>]| {
        let right: Vec<Val<'c>> = (0..columns)
            .map(|c| e.read_first(b, c * p.b_strides[1], p.lanes, active))
            .collect();
        let row = |(r, sums): (usize, &[Val<'c>])| {
            let left = e.read_first(a, r as i64 * p.a_strides[0], p.lanes, active);
            let add = |(&right, &sum): (&Val<'c>, &Val<'c>)| e.fma(left, right, sum);
            right.iter().zip(sums).map(add).collect::<Vec<_>>()
        };
        let sums: Vec<Val<'c>> = sums.chunks(columns as usize).enumerate().flat_map(row).collect();
        sums
    };
    let zero = e.splat(e.zero(p.a.elem), p.lanes);
    let zeros = vec![zero; (rows * columns) as usize];
    let lanes = p.lanes as i64;
    let sums = e.fold_of(terms / lanes, &zeros, |e, i, sums| {
        add(e, e.advance(a, i, lanes), e.advance(b, i, lanes), p.lanes, sums)
    });
    let rest = terms % lanes;
    let sums = match rest {
        0 => sums,
        _ => {
            let (a, b) = (e.shift(a, terms - rest), e.shift(b, terms - rest));
            add(e, a, b, rest as usize, &sums)
        }
    };
    let y = e.advance(e.advance(p.y, row, p.columns), column, 1);
    for (r, sums) in sums.chunks(columns as usize).enumerate() {
        for (c, &sum) in sums.iter().enumerate() {
            e.write(y, r as i64 * p.columns + c as i64, e.reduce_add(sum));
        }
    }
}
