//! Concatenation.

use syncbn_ir::TensorType;
use syncbn_ir::ops::Concat;

use super::elementwise::{strided, whole};
use super::kernel::{Kernel, Tensor, VECTORS, fixed, strides};
use super::target::Lanes;
use crate::emit::{Buffer, Emitter, Extent, Index};

/// Every operand is copied to its place along the axis.
pub fn concat<'c>(op: &Concat, k: &Kernel<'c>, e: &Emitter<'c>) {
    let y = &k.results[0];
    if has_rows(op, k) {
        return in_rows(op, k, e);
    }
    let strides = strides(&y.ty);
    let mut first = 0;
    for x in &k.operands {
        let place = (y, strides.clone(), first * strides[op.axis]);
        strided(k, e, &x.ty.shape, &[whole(x, &x.ty.shape), place], &|_, v| v[0]);
        first += fixed(x.ty.shape.0[op.axis]);
    }
}

/// Elements of a row up to which operands are copied row by row: what is longer is read and written in order anyway.
const LONG: i64 = 4096;

/// Whether every tensor comes in short rows of neighbours, of which a row of the result has one of each operand.
fn has_rows<'c>(op: &Concat, k: &Kernel<'c>) -> bool {
    let y = &k.results[0].ty;
    let mut tensors = k.operands.iter().chain(&k.results).map(|t| &t.ty);
    let alike = tensors.all(|ty| ty.layout == y.layout && ty.layout.block().is_none());
    alike && op.axis > 0 && k.manner.lanes == Lanes::OfRegisters && (1..=LONG).contains(&row(y, op.axis))
}

/// Neighbours in memory that have one index along all axes before `axis`.
fn row(ty: &TensorType, axis: usize) -> i64 {
    fixed(ty.shape.0[axis]) * strides(ty)[axis]
}

/// Row by row, so that the result is written in order; the operands are many streams, which are asked for ahead.
fn in_rows<'c>(op: &Concat, k: &Kernel<'c>, e: &Emitter<'c>) {
    let y = &k.results[0];
    let row_of = |t: &Tensor<'c>| row(&t.ty, op.axis);
    let sizes = y.ty.shape.0.iter().map(|&dim| fixed(dim));
    let mut rows = e.index(sizes.product::<i64>() / row_of(y));
    if y.ty.shape.has_batch() {
        rows = e.mul(rows, k.n);
    }
    let view = |t: &Tensor<'c>, offset: i64| Buffer {
        offset,
        ..t.view(&[row_of(t), 1])
    };
    let [low, high] = e.slice(rows);
    let width = VECTORS * k.width(y.elem());
    e.undivided(|e| {
        e.each_in(low, high, |e, row| {
            let mut first = 0;
            for x in &k.operands {
                let (from, to) = (view(x, 0), view(y, first));
                e.map(&[Extent::Fixed(row_of(x))], width, &|e, at| {
                    let at = [Index::uniform(row), at[0]];
                    e.store_stream(&to, &at, e.load_stream(&from, &at));
                });
                first += row_of(x);
            }
        });
    });
}
