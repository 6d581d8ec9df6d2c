//! Resampling. Source coordinates are fractions of integers and are computed as such, in both directions. The
//! backward direction gathers: each input element looks at the outputs that may read it.

use syncbn_ir::ops::{Coordinates, Resize, ResizeBackward, ResizeMode};

use super::kernel::{Kernel, Tensor, fixed};
use crate::emit::{Compare, Elem, Emitter, Extent, Index, Val};

fn spatial(tensor: &Tensor) -> Vec<usize> {
    tensor.ty.shape.0[2..]
        .iter()
        .map(|&d| fixed(d) as usize)
        .collect()
}

/// The numerator of the source coordinate of an output, held inside the input.
fn numerator<'c>(e: &Emitter<'c>, c: Coordinates, out: Index<'c>) -> Val<'c> {
    let n = e.index_scale(out, c.slope);
    let n = e.index_offset(n, c.shift);
    let n = e.index_value(n);
    let (first, last) = (e.index(0), e.index((c.input - 1) * c.divisor));
    let n = e.max(n, first);
    e.min(n, last)
}

/// Every output reads its neighbours: one, or two on every axis.
pub fn forward<'c>(op: &Resize, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let axes = op.coordinates(&spatial(x));
    let (xb, yb, elem) = (x.buffer(), y.buffer(), x.elem());
    k.each(e, y, k.width_along(y), &|e, at| {
        // Index and weight of what is read, for every combination of neighbours so far.
        let mut reads: Vec<(Vec<Index<'c>>, Option<Val<'c>>)> = vec![(at[..2].to_vec(), None)];
        for (&c, &out) in axes.iter().zip(&at[2..]) {
            let n = numerator(e, c, out);
            let divisor = e.index(c.divisor);
            let low = e.div(n, divisor);
            let mut neighbours = vec![(Index::uniform(low), None)];
            if op.mode == ResizeMode::Linear && c.divisor > 1 {
                let whole = e.mul(low, divisor);
                let rest = e.sub(n, whole);
                let (rest, divisor) = (e.convert(rest, elem), e.float(elem, c.divisor as f64));
                let (share, one) = (e.div(rest, divisor), e.float(elem, 1.0));
                let other = e.sub(one, share);
                // At the last element the share of the next one is 0.
                let (step, last) = (e.index(1), e.index(c.input - 1));
                let high = e.add(low, step);
                let high = e.min(high, last);
                neighbours = vec![
                    (Index::uniform(low), Some(other)),
                    (Index::uniform(high), Some(share)),
                ];
            }
            let mut next = Vec::new();
            for (place, weight) in &reads {
                for &(i, share) in &neighbours {
                    let weight = match (*weight, share) {
                        (Some(a), Some(b)) => Some(e.mul(a, b)),
                        (a, b) => a.or(b),
                    };
                    next.push(([place.as_slice(), &[i]].concat(), weight));
                }
            }
            reads = next;
        }
        let mut sum = None;
        for (place, weight) in reads {
            let v = e.load(&xb, &place, None);
            sum = Some(match (sum, weight) {
                (Some(sum), Some(weight)) => e.fma(v, weight, sum),
                (None, Some(weight)) => e.mul(v, weight),
                (_, None) => v,
            });
        }
        if let Some(sum) = sum {
            e.store(&yb, at, sum);
        }
    });
}

/// Numerators from here on are read by input `i`: `offset + i * divisor`, but for input 0, which is also read
/// by all numerators below.
fn offset(c: Coordinates, mode: ResizeMode) -> i64 {
    match mode {
        ResizeMode::Nearest => 0,
        ResizeMode::Linear => 1 - c.divisor,
    }
}

/// The first output that may read input `i`: the first whose numerator is at least `offset + i * divisor`.
fn first_output<'c>(e: &Emitter<'c>, c: Coordinates, mode: ResizeMode, i: Index<'c>) -> Index<'c> {
    if c.slope == 0 {
        return Index::constant(0);
    }
    let n = e.index_scale(i, c.divisor);
    let n = e.index_offset(n, offset(c, mode) - c.shift + c.slope - 1);
    let n = e.index_value(n);
    let (zero, slope) = (e.index(0), e.index(c.slope));
    let n = e.max(n, zero);
    let first = e.div(n, slope);
    let i = e.index_value(i);
    let is_first = e.compare(Compare::Eq, i, zero);
    Index::uniform(e.select(is_first, zero, first))
}

/// How many outputs from the first one on must be looked at, for the input for which these are most.
fn taps(c: Coordinates, mode: ResizeMode) -> i64 {
    let mut last = vec![None; c.input as usize];
    for o in 0..c.output {
        for (i, _) in c.reads(mode, o) {
            last[i] = Some(o);
        }
    }
    let first = |i: i64| {
        if c.slope == 0 || i == 0 {
            return 0;
        }
        (i * c.divisor + offset(c, mode) - c.shift + c.slope - 1).max(0) / c.slope
    };
    let spans = last
        .iter()
        .zip(0..)
        .filter_map(|(last, i)| last.map(|o| o - first(i) + 1));
    spans.max().unwrap_or(1).max(1)
}

/// The weight with which output `out` reads input `i`, on one axis.
fn weight<'c>(
    e: &Emitter<'c>,
    c: Coordinates,
    mode: ResizeMode,
    elem: Elem,
    out: Index<'c>,
    i: Index<'c>,
) -> Val<'c> {
    let n = numerator(e, c, out);
    let divisor = e.index(c.divisor);
    match mode {
        ResizeMode::Nearest => {
            let (read, i) = (e.div(n, divisor), e.index_value(i));
            let reads = e.compare(Compare::Eq, read, i);
            e.convert(reads, elem)
        }
        ResizeMode::Linear => {
            let own = e.index_scale(i, c.divisor);
            let own = e.index_value(own);
            let (above, below) = (e.sub(n, own), e.sub(own, n));
            let distance = e.max(above, below);
            let near = e.sub(divisor, distance);
            let zero = e.index(0);
            let near = e.max(near, zero);
            let (near, divisor) = (e.convert(near, elem), e.float(elem, c.divisor as f64));
            e.div(near, divisor)
        }
    }
}

/// `dx[i]` sums the weighted `dy` of the outputs that read `i`.
pub fn backward<'c>(op: &ResizeBackward, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (dy, dx) = (&k.operands[0], &k.results[0]);
    let axes = op.coordinates(&spatial(dy));
    let (dyb, dxb, elem) = (dy.buffer(), dx.buffer(), dx.elem());
    let window: Vec<Extent<'c>> = axes.iter().map(|&c| Extent::Fixed(taps(c, op.mode))).collect();
    k.each(e, dx, k.width_along(dx), &|e, at| {
        let mut firsts = Vec::new();
        for (&c, &i) in axes.iter().zip(&at[2..]) {
            firsts.push(first_output(e, c, op.mode, i));
        }
        let zero = e.zero(elem);
        let start = [e.splat(zero, e.lanes())];
        let sum = e.fold_nest(&window, &start, &mut |e, tap, sum| {
            let (mut place, mut guard) = (at[..2].to_vec(), None);
            let mut product = e.float(elem, 1.0);
            for (j, &c) in axes.iter().enumerate() {
                let out = e.index_add(firsts[j], tap[j]);
                let exists = e.index_below(out, c.output);
                guard = e.both(guard, Some(exists));
                let share = weight(e, c, op.mode, elem, out, at[2 + j]);
                product = e.mul(product, share);
                place.push(out);
            }
            // Only what reads this input is looked at: an infinite gradient elsewhere must not become NaN here.
            let zero = e.zero(elem);
            let reads = e.compare(Compare::Gt, product, zero);
            let guard = e.both(guard, Some(reads));
            let v = e.load(&dyb, &place, guard);
            vec![e.fma(v, product, sum[0])]
        });
        e.store(&dxb, at, sum[0]);
    });
}
