//! Pooling. The backward directions gather: each input element looks at the windows that read it.

use syncbn_ir::ops::{AveragePool, AveragePoolBackward, MaxPool, MaxPoolBackward, Window};

use super::kernel::Kernel;
use super::window::Sliding;
use crate::emit::{Compare, Elem, Emitter, Index, Val};

/// Row-major position of a tap in its window, as a code is computed.
fn position<'c>(e: &Emitter<'c>, w: &Window, tap: &[Index<'c>]) -> Val<'c> {
    let mut position = Index::constant(0);
    for (&t, &size) in tap.iter().zip(&w.kernel) {
        position = e.index_scale(position, size as i64);
        position = e.index_add(position, t);
    }
    e.convert(e.index_value(position), CODE)
}

/// Element type that codes are computed in: lanes of it are as many as of f32.
const CODE: Elem = Elem::I32;

/// Codes are computed as indices and kept as their type says.
pub fn max_forward<'c>(op: &MaxPool, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y, code) = (&k.operands[0], &k.results[0], &k.results[1]);
    let slide = Sliding::new(op.window(), &x.ty, &y.ty);
    let (xb, yb, cb) = (x.buffer(), y.buffer(), code.buffer());
    let elem = x.elem();
    k.each(e, y, k.width_along(y), &|e, at| {
        let lowest = e.float(elem, f64::NEG_INFINITY);
        let none = e.zero(CODE);
        let start = [e.splat(lowest, e.lanes()), e.splat(none, e.lanes())];
        let best = slide.fold_read(
            (e, k.manner.borders),
            at,
            &start,
            &mut |e, xi, tap, guard, best| {
                let v = e.load(&xb, xi, guard);
                let larger = e.compare(Compare::Gt, v, best[0]);
                let nan = e.compare(Compare::Ne, v, v);
                let better = e.or(larger, nan);
                let better = e.both(Some(better), guard).unwrap_or(better);
                let here = position(e, &slide.window, tap);
                vec![e.select(better, v, best[0]), e.select(better, here, best[1])]
            },
        );
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
    k.each(e, dx, k.width_along(dx), &|e, at| {
        let start = [e.splat(e.zero(elem), e.lanes())];
        let sum = slide.fold_written(
            (e, k.manner.borders),
            at,
            &start,
            &mut |e, oi, tap, guard, sum| {
                let v = e.load(&dyb, oi, guard);
                let winner = e.load(&cb, oi, guard);
                let winner = e.convert(winner, CODE);
                let here = position(e, &slide.window, tap);
                let wins = e.compare(Compare::Eq, winner, here);
                let v = e.select(wins, v, e.zero(elem));
                vec![e.add(sum[0], v)]
            },
        );
        e.store(&dxb, at, sum[0]);
    });
}

/// One over the number of elements that the mean of window `out` is over: on every axis the taps that count. A window
/// that does not exist has some number.
fn share<'c>(e: &Emitter<'c>, slide: &Sliding, elem: Elem, include_pad: bool, out: &[Index<'c>]) -> Val<'c> {
    let w = &slide.window;
    let mut product = e.float(elem, 1.0);
    for (i, &size) in slide.input.iter().enumerate() {
        let (before, behind) = match include_pad {
            true => (w.pad_begin(i) as i64, w.pad_end(i) as i64),
            false => (0, 0),
        };
        let kernel = w.kernel[i] as i64;
        if slide.is_inside(i, before, size + behind) {
            product = e.mul(product, e.float(elem, kernel as f64));
            continue;
        }
        let mut count = e.float(elem, 0.0);
        for tap in 0..kernel {
            let (at, _) = slide.input_index(e, i, out[i], Index::constant(tap));
            let counts = e.index_below(e.index_offset(at, before), before + size + behind);
            count = e.add(count, e.convert(counts, elem));
        }
        product = e.mul(product, count);
    }
    let one = e.float(elem, 1.0);
    e.div(one, e.max(product, one))
}

/// Mean over the elements of a window that count.
pub fn average_forward<'c>(op: &AveragePool, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let slide = Sliding::new(op.window(), &x.ty, &y.ty);
    let (xb, yb) = (x.buffer(), y.buffer());
    let elem = x.elem();
    k.each(e, y, k.width_along(y), &|e, at| {
        let start = [e.splat(e.zero(elem), e.lanes())];
        let sum = slide.fold_read((e, k.manner.borders), at, &start, &mut |e, xi, _, guard, sum| {
            vec![e.add(sum[0], e.load(&xb, xi, guard))]
        });
        let share = share(e, &slide, elem, op.count_include_pad, &at[2..]);
        e.store(&yb, at, e.mul(sum[0], share));
    });
}

/// `dx[i]` sums `dy / divisor` of the windows that read `i`.
pub fn average_backward<'c>(op: &AveragePoolBackward, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (dy, dx) = (&k.operands[0], &k.results[0]);
    let slide = Sliding::new(op.window(), &dx.ty, &dy.ty);
    let (dyb, dxb) = (dy.buffer(), dx.buffer());
    let elem = dx.elem();
    k.each(e, dx, k.width_along(dx), &|e, at| {
        let start = [e.splat(e.zero(elem), e.lanes())];
        let sum = slide.fold_written((e, k.manner.borders), at, &start, &mut |e, oi, _, guard, sum| {
            let v = e.load(&dyb, oi, guard);
            let share = share(e, &slide, elem, op.count_include_pad, &oi[2..]);
            vec![e.fma(v, share, sum[0])]
        });
        e.store(&dxb, at, sum[0]);
    });
}
