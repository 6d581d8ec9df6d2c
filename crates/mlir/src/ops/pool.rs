//! Pooling. The backward directions gather: each input element looks at the windows that read it.

use syncbn_ir::ops::{AveragePool, AveragePoolBackward, MaxPool, MaxPoolBackward, Window};

use super::kernel::Kernel;
use super::window::Sliding;
use crate::emit::{Compare, Elem, Emitter, Index, Val};

/// Row-major position of a tap in its window.
fn position<'c>(e: &Emitter<'c>, w: &Window, tap: &[Index<'c>]) -> Val<'c> {
    let mut position = Index::constant(0);
    for (&t, &size) in tap.iter().zip(&w.kernel) {
        position = e.index_scale(position, size as i64);
        position = e.index_add(position, t);
    }
    e.index_value(position)
}

/// Codes are computed as indices and kept as their type says.
pub fn max_forward<'c>(op: &MaxPool, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y, code) = (&k.operands[0], &k.results[0], &k.results[1]);
    let slide = Sliding::new(op.window(), &x.ty, &y.ty);
    let (xb, yb, cb) = (x.buffer(), y.buffer(), code.buffer());
    let elem = x.elem();
    k.each(e, y, k.width(Elem::I64), &|e, at| {
        let lowest = e.float(elem, f64::NEG_INFINITY);
        let none = e.index(0);
        let start = [e.splat(lowest, e.lanes()), e.splat(none, e.lanes())];
        let best = e.fold_nest(&slide.taps(), &start, &mut |e, tap, best| {
            let (xi, guard) = slide.read_by(e, [at[0], at[1]], &at[2..], tap);
            let v = e.load(&xb, &xi, guard);
            let larger = e.compare(Compare::Gt, v, best[0]);
            let nan = e.compare(Compare::Ne, v, v);
            let better = e.or(larger, nan);
            let better = e.both(Some(better), guard).unwrap_or(better);
            let here = position(e, &slide.window, tap);
            vec![e.select(better, v, best[0]), e.select(better, here, best[1])]
        });
        e.store(&yb, at, best[0]);
        let code = e.convert(best[1], cb.elem);
        e.store(&cb, at, code);
    });
}

/// `dx[i]` sums `dy` of the windows whose code points at `i`.
pub fn max_backward<'c>(op: &MaxPoolBackward, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (dy, code, dx) = (&k.operands[0], &k.operands[1], &k.results[0]);
    let slide = Sliding::new(op.window(), &dx.ty, &dy.ty);
    let (dyb, cb, dxb) = (dy.buffer(), code.buffer(), dx.buffer());
    let elem = dx.elem();
    k.each(e, dx, k.width(Elem::I64), &|e, at| {
        let zero = e.zero(elem);
        let start = [e.splat(zero, e.lanes())];
        let sum = e.fold_nest(&slide.taps(), &start, &mut |e, tap, sum| {
            let (oi, guard) = slide.written_by(e, [at[0], at[1]], &at[2..], tap);
            let v = e.load(&dyb, &oi, guard);
            let winner = e.load(&cb, &oi, guard);
            let winner = e.convert(winner, e.index_elem);
            let here = position(e, &slide.window, tap);
            let wins = e.compare(Compare::Eq, winner, here);
            let zero = e.zero(elem);
            let v = e.select(wins, v, zero);
            vec![e.add(sum[0], v)]
        });
        e.store(&dxb, at, sum[0]);
    });
}

/// How many elements the mean of window `out` is over: on every axis the taps that count.
fn divisor<'c>(
    e: &Emitter<'c>,
    slide: &Sliding,
    elem: Elem,
    include_pad: bool,
    out: &[Index<'c>],
) -> Val<'c> {
    let w = &slide.window;
    let mut product = e.float(elem, 1.0);
    for (i, &size) in slide.input.iter().enumerate() {
        let (low, limit) = if include_pad {
            (
                w.pad_begin(i) as i64,
                size + (w.pad_begin(i) + w.pad_end(i)) as i64,
            )
        } else {
            (0, size)
        };
        let mut count = e.float(elem, 0.0);
        for tap in 0..w.kernel[i] as i64 {
            let (at, _) = slide.input_index(e, i, out[i], Index::constant(tap));
            let at = e.index_offset(at, low);
            let counts = e.index_below(at, limit);
            let one = e.convert(counts, elem);
            count = e.add(count, one);
        }
        product = e.mul(product, count);
    }
    product
}

/// Mean over the elements of a window that count.
pub fn average_forward<'c>(op: &AveragePool, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let slide = Sliding::new(op.window(), &x.ty, &y.ty);
    let (xb, yb) = (x.buffer(), y.buffer());
    let elem = x.elem();
    k.each(e, y, k.width(Elem::I64), &|e, at| {
        let zero = e.zero(elem);
        let start = [e.splat(zero, e.lanes())];
        let sum = e.fold_nest(&slide.taps(), &start, &mut |e, tap, sum| {
            let (xi, guard) = slide.read_by(e, [at[0], at[1]], &at[2..], tap);
            let v = e.load(&xb, &xi, guard);
            vec![e.add(sum[0], v)]
        });
        let count = divisor(e, &slide, elem, op.count_include_pad, &at[2..]);
        let mean = e.div(sum[0], count);
        e.store(&yb, at, mean);
    });
}

/// `dx[i]` sums `dy / divisor` of the windows that read `i`.
pub fn average_backward<'c>(op: &AveragePoolBackward, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (dy, dx) = (&k.operands[0], &k.results[0]);
    let slide = Sliding::new(op.window(), &dx.ty, &dy.ty);
    let (dyb, dxb) = (dy.buffer(), dx.buffer());
    let elem = dx.elem();
    k.each(e, dx, k.width(Elem::I64), &|e, at| {
        let zero = e.zero(elem);
        let start = [e.splat(zero, e.lanes())];
        let sum = e.fold_nest(&slide.taps(), &start, &mut |e, tap, sum| {
            let (oi, guard) = slide.written_by(e, [at[0], at[1]], &at[2..], tap);
            let v = e.load(&dyb, &oi, guard);
            let count = divisor(e, &slide, elem, op.count_include_pad, &oi[2..]);
            // A window that does not exist has no divisor; its gradient was not read.
            let (zero, one) = (e.zero(elem), e.float(elem, 1.0));
            let counts = e.compare(Compare::Gt, count, zero);
            let count = e.select(counts, count, one);
            let share = e.div(v, count);
            vec![e.add(sum[0], share)]
        });
        e.store(&dxb, at, sum[0]);
    });
}
