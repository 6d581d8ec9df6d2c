//! Sums and means over axes, accumulated in f64.

use syncbn_ir::ops::{Reduce, ReduceFunction};
use syncbn_ir::{Dim, Layout};

use super::kernel::{Kernel, fixed, strides};
use crate::emit::{Elem, Emitter, Extent, Index, Inner, Val};

/// An axis, or several neighbours that are all reduced or all kept.
struct Axis<'c> {
    extent: Extent<'c>,
    stride: i64,
    reduced: bool,
}

/// Lanes run along the last axis: over results when it is kept, over what is summed when it is reduced.
pub fn lower<'c>(op: &Reduce, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let mut axes: Vec<Axis<'c>> = Vec::new();
    let mut count = 1.0;
    let plain = y.ty.layout == Layout::Plain;
    for (i, (&dim, stride)) in x.ty.shape.0.iter().zip(strides(&x.ty)).enumerate() {
        let reduced = op.axes.contains(&i);
        if reduced {
            count *= fixed(dim) as f64;
        }
        match axes.last_mut() {
            Some(Axis {
                extent: Extent::Fixed(n),
                stride: s,
                reduced: r,
            }) if plain && *r == reduced && dim != Dim::Batch && *s == stride * fixed(dim) => {
                *n *= fixed(dim);
                *s = stride;
            }
            _ => axes.push(Axis {
                extent: k.extent(dim),
                stride,
                reduced,
            }),
        }
    }
    let select = |reduced: bool| axes.iter().filter(move |a| a.reduced == reduced);
    let kept: Vec<Extent<'c>> = select(false).map(|a| a.extent).collect();
    let summed: Vec<Extent<'c>> = select(true).map(|a| a.extent).collect();
    let own: Vec<i64> = select(false).chain(select(true)).map(|a| a.stride).collect();
    let mut result_strides = vec![1; kept.len()];
    for i in (1..kept.len()).rev() {
        let size = if let Extent::Fixed(n) = kept[i] { n } else { 1 };
        result_strides[i - 1] = result_strides[i] * size;
    }
    if !plain {
        // Axes were not merged, so every kept one is an axis of the result.
        let all = strides(&y.ty);
        let is_kept = |i: usize| !op.axes.contains(&i);
        result_strides = match op.keep_dims {
            true => (0..all.len()).filter(|&i| is_kept(i)).map(|i| all[i]).collect(),
            false => all,
        };
    }
    let (xb, yb) = (x.view(&own), y.view(&result_strides));
    let finish = |e: &Emitter<'c>, sum: Val<'c>, at: &[Index<'c>]| {
        let value = match op.function {
            ReduceFunction::Sum => sum,
            ReduceFunction::Mean => {
                let count = e.float(Elem::F64, count);
                e.div(sum, count)
            }
        };
        let value = e.convert(value, y.elem());
        e.store(&yb, at, value);
    };
    let add = |e: &Emitter<'c>, kept: &[Index<'c>], at: &[Index<'c>], sum: Val<'c>| {
        let v = e.load(&xb, &[kept, at].concat(), None);
        let v = e.convert(v, Elem::F64);
        vec![e.add(sum, v)]
    };
    let width = k.width(Elem::F64);
    if e.is_device() {
        let inner = match axes.iter().min_by_key(|axis| axis.stride) {
            Some(innermost) if innermost.reduced => Inner::Summed,
            _ => Inner::Kept,
        };
        let mut one = |e: &Emitter<'c>, at: &[Index<'c>], sums: &[Val<'c>]| {
            let (own, rest) = at.split_at(kept.len());
            add(e, own, rest, sums[0])
        };
        return e.sum_in_threads(&kept, &summed, inner, &[Elem::F64], &mut one, &|e, at, sums| {
            finish(e, sums[0], at)
        });
    }
    match (axes.last().map(|a| (a.reduced, a.extent)), summed.split_last()) {
        (Some((true, Extent::Fixed(row))), Some((_, outer))) => {
            e.fold_nest(&kept, &[], &mut |e, at, _| {
                let sums = e.sum_over(outer, row, width, &[Elem::F64], &mut |e, r, s| {
                    add(e, at, r, s[0])
                });
                finish(e, sums[0], at);
                Vec::new()
            });
        }
        _ => e.map(&kept, width, &|e, at| {
            let zero = e.zero(Elem::F64);
            let start = [e.splat(zero, e.lanes())];
            let sums = e.fold_nest(&summed, &start, &mut |e, r, s| add(e, at, r, s[0]));
            finish(e, sums[0], at);
        }),
    }
}
