//! Losses, in f64, and their gradients. Each rank computes its share of the mean over the global batch.

use super::kernel::{Kernel, Tensor, fixed};
use crate::emit::{Buffer, Compare, Elem, Emitter, Extent, Index, Inner, Val};

/// `(classes, positions)` of logits `[n, classes, d...]`.
fn sizes(k: &Kernel) -> (i64, i64) {
    let dims = &k.operands[0].ty.shape.0;
    (fixed(dims[1]), dims[2..].iter().map(|&d| fixed(d)).product())
}

/// Largest logit of a pixel and the sum of `exp(logit - largest)`, in f64.
fn largest_and_sum<'c>(
    e: &Emitter<'c>,
    logits: &Buffer<'c>,
    classes: i64,
    n: Index<'c>,
    s: Index<'c>,
) -> (Val<'c>, Val<'c>) {
    let lowest = e.float(Elem::F64, f64::NEG_INFINITY);
    let largest = e.fold(Extent::Fixed(classes), &[lowest], |e, c, best| {
        let v = e.load(logits, &[n, c, s], None);
        let v = e.convert(v, Elem::F64);
        vec![e.max(v, best[0])]
    })[0];
    let zero = e.float(Elem::F64, 0.0);
    let sum = e.fold(Extent::Fixed(classes), &[zero], |e, c, sum| {
        let v = e.load(logits, &[n, c, s], None);
        let v = e.convert(v, Elem::F64);
        let d = e.sub(v, largest);
        let p = e.exp(d);
        vec![e.add(sum[0], p)]
    })[0];
    (largest, sum)
}

/// Sum of `logsumexp(logits) - logits[target]` over the rank, divided by `total * positions`.
pub fn cross_entropy<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let (classes, positions) = sizes(k);
    let logits = k.operands[0].image();
    let target = k.operands[1].view(&[positions, 1]);
    let axes = [k.extent(k.operands[0].ty.shape.0[0]), Extent::Fixed(positions)];
    let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sum: &[Val<'c>]| {
        let (largest, total) = largest_and_sum(e, &logits, classes, at[0], at[1]);
        let log = e.log(total);
        let lse = e.add(largest, log);
        let label = e.load(&target, at, None);
        let label = e.convert(label, e.index_elem);
        let logit = e.load(&logits, &[at[0], Index::uniform(label), at[1]], None);
        let logit = e.convert(logit, Elem::F64);
        let loss = e.sub(lse, logit);
        vec![e.add(sum[0], loss)]
    };
    let store = |e: &Emitter<'c>, sum: Val<'c>| share_of_loss(k, e, positions, sum);
    if e.is_device() {
        return e.sum_in_threads(
            &[],
            &axes,
            Inner::Summed,
            &[Elem::F64],
            &mut add,
            &|e, _, sums| store(e, sums[0]),
        );
    }
    let zero = e.float(Elem::F64, 0.0);
    let sum = e.fold_nest(&axes, &[zero], &mut add)[0];
    store(e, sum);
}

/// Stores `sum / (total * terms)`: the rank's share of a mean with `terms` terms a sample.
fn share_of_loss<'c>(k: &Kernel<'c>, e: &Emitter<'c>, terms: i64, sum: Val<'c>) {
    let divisor = k.divisor(e, terms);
    let share = e.div(sum, divisor);
    e.store(&k.results[0].flat(), &[Index::constant(0)], share);
}

/// `(softmax(logits) - onehot(target)) / (total * positions)`
pub fn cross_entropy_backward<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let (classes, positions) = sizes(k);
    let (logits, result) = (k.operands[0].image(), k.results[0].image());
    let target = k.operands[1].view(&[positions, 1]);
    let divisor = k.divisor(e, positions);
    let axes = [k.extent(k.operands[0].ty.shape.0[0]), Extent::Fixed(positions)];
    let pixel = |e: &Emitter<'c>, at: &[Index<'c>]| {
        let (largest, total) = largest_and_sum(e, &logits, classes, at[0], at[1]);
        let label = e.load(&target, at, None);
        let label = e.convert(label, e.index_elem);
        e.for_each(Extent::Fixed(classes), |e, c| {
            let v = e.load(&logits, &[at[0], c, at[1]], None);
            let v = e.convert(v, Elem::F64);
            let d = e.sub(v, largest);
            let p = e.exp(d);
            let p = e.div(p, total);
            let class = e.index_value(c);
            let hit = e.compare(Compare::Eq, class, label);
            let hit = e.convert(hit, Elem::F64);
            let d = e.sub(p, hit);
            let d = e.div(d, divisor);
            let d = e.convert(d, result.elem);
            e.store(&result, &[at[0], c, at[1]], d);
        });
    };
    if e.is_device() {
        return e.map(&axes, 1, &pixel);
    }
    e.fold_nest(&axes, &[], &mut |e, at, _| {
        pixel(e, at);
        Vec::new()
    });
}

/// Elements of one sample.
fn per_sample(k: &Kernel) -> i64 {
    k.operands[0].ty.shape.0[1..].iter().map(|&d| fixed(d)).product()
}

/// Sum of squared differences over the rank, divided by `total * elements of a sample`.
pub fn squared_error<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let count = per_sample(k);
    let on_device = e.is_device();
    let batch = k.extent(k.operands[0].ty.shape.0[0]);
    // On a GPU prediction and target may lie in different order.
    let axes: Vec<Extent<'c>> = k.operands[0].ty.shape.0.iter().map(|&d| k.extent(d)).collect();
    let view = |t: &Tensor<'c>| {
        if on_device {
            t.buffer()
        } else {
            t.view(&[count, 1])
        }
    };
    let (p, t) = (view(&k.operands[0]), view(&k.operands[1]));
    let width = k.width(Elem::F64);
    let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sum: &[Val<'c>]| {
        let (a, b) = (e.load(&p, at, None), e.load(&t, at, None));
        let (a, b) = (e.convert(a, Elem::F64), e.convert(b, Elem::F64));
        let d = e.sub(a, b);
        vec![e.fma(d, d, sum[0])]
    };
    if on_device {
        return e.sum_in_threads(
            &[],
            &axes,
            Inner::Summed,
            &[Elem::F64],
            &mut add,
            &|e, _, sums| share_of_loss(k, e, count, sums[0]),
        );
    }
    let sums = e.sum_over(&[batch], count, width, &[Elem::F64], &mut add);
    share_of_loss(k, e, count, sums[0]);
}

/// `2 (prediction - target) / (total * elements of a sample)`
pub fn squared_error_backward<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let count = per_sample(k);
    let tensors = [&k.operands[0], &k.operands[1], &k.results[0]];
    let on_device = e.is_device();
    let [p, t, result] = tensors.map(|t| {
        if on_device {
            t.buffer()
        } else {
            t.view(&[count, 1])
        }
    });
    let divisor = k.divisor(e, count);
    let two = e.float(Elem::F64, 2.0);
    let factor = e.div(two, divisor);
    let factor = e.convert(factor, result.elem);
    let element = |e: &Emitter<'c>, at: &[Index<'c>]| {
        let (a, b) = (e.load(&p, at, None), e.load(&t, at, None));
        let d = e.sub(a, b);
        let d = e.mul(d, factor);
        e.store(&result, at, d);
    };
    if on_device {
        return k.each(e, &k.results[0], k.width(result.elem), &element);
    }
    let axes = [k.extent(k.operands[0].ty.shape.0[0]), Extent::Fixed(count)];
    e.map(&axes, k.width(result.elem), &element);
}
