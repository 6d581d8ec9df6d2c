//! Sums and means over axes, accumulated in f64.

use syncbn_ir::Dim;
use syncbn_ir::ops::{Reduce, ReduceFunction};

use super::kernel::{Kernel, fixed, strides};
use super::parts::{LEAST_ROWS, Partials, Parts};
use crate::emit::{Elem, Emitter, Extent, Finish, Index, Inner, Val};

/// Vectors of sums that are taken at once.
const SUMS: usize = 8;
/// Rows ahead of the one that is added whose lines are asked for.
const ROWS_AHEAD: i64 = 8;

/// An axis, or several neighbours in memory that are all reduced or all kept.
struct Axis<'c> {
    extent: Extent<'c>,
    stride: i64,
    /// That of the result, where it is kept.
    result: i64,
    reduced: bool,
}

/// The axes in the order of the operand's memory, the batch first.
fn axes<'c>(op: &Reduce, k: &Kernel<'c>) -> Vec<Axis<'c>> {
    let (x, y) = (&k.operands[0].ty, &k.results[0].ty);
    let (own, of_result) = (strides(x), strides(y));
    let mut kept = 0;
    let mut all = Vec::new();
    for (i, &dim) in x.shape.0.iter().enumerate() {
        let reduced = op.axes.contains(&i);
        let result = match reduced {
            true => 0,
            false => of_result[if op.keep_dims { i } else { kept }],
        };
        kept += usize::from(!reduced);
        all.push((dim, own[i], result, reduced));
    }
    all.sort_by_key(|&(dim, stride, ..)| (dim != Dim::Batch, std::cmp::Reverse(stride)));
    let mut axes: Vec<Axis<'c>> = Vec::new();
    for (dim, stride, result, reduced) in all {
        let size = fixed(dim);
        match axes.last_mut() {
            Some(Axis {
                extent: Extent::Fixed(n),
                stride: s,
                result: r,
                reduced: same,
            }) if *same == reduced && *s == stride * size && *r == result * size => {
                *n *= size;
                (*s, *r) = (stride, result);
            }
            _ => axes.push(Axis {
                extent: k.extent(dim),
                stride,
                result,
                reduced,
            }),
        }
    }
    axes
}

/// Lanes run along the axis that is innermost in memory: over results when it is kept, over what is summed when it is
/// reduced.
pub fn lower<'c>(op: &Reduce, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let axes = axes(op, k);
    let count: f64 = op.axes.iter().map(|&i| fixed(x.ty.shape.0[i]) as f64).product();
    let select = |reduced: bool| axes.iter().filter(move |a| a.reduced == reduced);
    let kept: Vec<Extent<'c>> = select(false).map(|a| a.extent).collect();
    let summed: Vec<Extent<'c>> = select(true).map(|a| a.extent).collect();
    let own: Vec<i64> = select(false).chain(select(true)).map(|a| a.stride).collect();
    let of_result: Vec<i64> = select(false).map(|a| a.result).collect();
    let (xb, yb) = (x.view(&own), y.view(&of_result));
    let finish = |e: &Emitter<'c>, at: &[Index<'c>], sums: &[Val<'c>]| {
        let value = match op.function {
            ReduceFunction::Sum => sums[0],
            ReduceFunction::Mean => {
                let count = e.float(Elem::F64, count);
                e.div(sums[0], count)
            }
        };
        let value = e.convert(value, y.elem());
        e.store(&yb, at, value);
    };
    let inner = match axes.last() {
        Some(innermost) if innermost.reduced => Inner::Summed,
        _ => Inner::Kept,
    };
    let row = own.last().copied().unwrap_or(0);
    let add = |e: &Emitter<'c>, at: &[Index<'c>], sums: &[Val<'c>]| {
        let v = match inner {
            Inner::Kept => e.load_ahead(&xb, at, ROWS_AHEAD * row),
            Inner::Summed => e.load_stream(&xb, at),
        };
        let v = e.convert(v, Elem::F64);
        vec![e.add(sums[0], v)]
    };
    // As many lines of a row at a time as there are sums in registers.
    let width = SUMS * k.width(Elem::F64);
    if let (Some(memory), Inner::Kept, &[Extent::Fixed(channels)]) = (k.partials, inner, &kept[..]) {
        let partials = Partials::new(memory, 1, channels);
        return in_parts(e, (&partials, channels), &summed, width, &add, &finish);
    }
    e.sum(
        &kept,
        &summed,
        (inner, width),
        &[Elem::F64],
        &mut |e, at, sums| add(e, at, sums),
        &finish,
    );
}

/// Adds a term to sums.
type Add<'c, 'b> = &'b dyn Fn(&Emitter<'c>, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>;

/// The sums for each channel in parts, which threads share.
fn in_parts<'c>(
    e: &Emitter<'c>,
    (partials, channels): (&Partials<'c>, i64),
    summed: &[Extent<'c>],
    width: usize,
    add: Add<'c, '_>,
    finish: Finish<'c, '_>,
) {
    let first = Index::constant(0);
    let parts = Parts::of(e, e.indices(summed), LEAST_ROWS);
    parts.each(e, |e, part, [low, high]| {
        let array = partials.array(e, part, 0, first);
        e.map(&[Extent::Fixed(channels)], width, &|e, at| {
            let zero = [e.splat(e.zero(Elem::F64), e.lanes())];
            let sums = e.for_range(low, high, 1, &zero, |e, term, sums| {
                let term = e.unflatten(summed, Index::uniform(term));
                add(e, &[at, &term].concat(), sums)
            });
            e.store(&array, at, sums[0]);
        });
    });
    e.meet();
    partials.merge(e, &parts, (first, channels), width / SUMS, &|e, at, sums| {
        finish(e, &[at], sums);
    });
}
