//! Losses, in f64, and their gradients. Each rank computes its share of the mean over the global batch.

use super::kernel::{Kernel, Tensor, VECTORS, fixed};
use super::parts::sum_in_parts;
use super::target::{Lanes, Sums};
use crate::emit::{Buffer, Compare, Elem, Emitter, Extent, Index, Inner, Val};

/// `(classes, positions)` of logits `[n, classes, d...]`.
fn sizes(k: &Kernel) -> (i64, i64) {
    let dims = &k.operands[0].ty.shape.0;
    (fixed(dims[1]), dims[2..].iter().map(|&d| fixed(d)).product())
}

/// How the pixels of a loss are walked through.
#[derive(Clone, Copy, PartialEq)]
enum Walk {
    /// A pixel at a time, with lanes along its classes.
    Classes,
    /// Lanes along pixels.
    Pixels,
}

impl Walk {
    /// Classes that are neighbours and fill a vector register are taken together.
    fn of(k: &Kernel) -> Walk {
        let (image, width) = (k.image(&k.operands[0].ty), k.width(Elem::F64) as i64);
        let fills = image.channels >= width || image.positions < width;
        match k.manner.lanes == Lanes::OfRegisters && image.has_channels_innermost() && fills {
            true => Walk::Classes,
            false => Walk::Pixels,
        }
    }
}

/// Largest logit of pixels and the sum of `exp(logit - largest)`, in f64.
fn largest_and_sum<'c>(
    k: &Kernel<'c>,
    e: &Emitter<'c>,
    walk: Walk,
    logits: &Buffer<'c>,
    [n, s]: [Index<'c>; 2],
) -> (Val<'c>, Val<'c>) {
    let classes = sizes(k).0;
    let logit = |e: &Emitter<'c>, c: Index<'c>| e.convert(e.load(logits, &[n, c, s], None), Elem::F64);
    if walk == Walk::Classes {
        let width = k.width(Elem::F64);
        let largest = e.largest_over(classes, width, Elem::F64, &|e, c| logit(e, c));
        let sums = e.sum_over(&[], classes, width, &[Elem::F64], &mut |e, at, sum| {
            let p = e.exp(e.sub(logit(e, at[0]), largest));
            vec![e.add(sum[0], p)]
        });
        return (largest, sums[0]);
    }
    let splat = |v: f64| e.splat(e.float(Elem::F64, v), e.lanes());
    let largest = e.fold(
        Extent::Fixed(classes),
        &[splat(f64::NEG_INFINITY)],
        |e, c, best| vec![e.max(logit(e, c), best[0])],
    )[0];
    let sum = e.fold(Extent::Fixed(classes), &[splat(0.0)], |e, c, sum| {
        let p = e.exp(e.sub(logit(e, c), largest));
        vec![e.add(sum[0], p)]
    })[0];
    (largest, sum)
}

/// Sum of `logsumexp(logits) - logits[target]` over the rank, divided by `total * positions`.
pub fn cross_entropy<'c>(k: &Kernel<'c>, e: &Emitter<'c>) -> Result<(), String> {
    let positions = sizes(k).1;
    let logits = k.operands[0].image();
    let target = k.operands[1].view(&[positions, 1]);
    let batch = k.extent(k.operands[0].ty.shape.0[0]);
    let axes = [batch, Extent::Fixed(positions)];
    let walk = Walk::of(k);
    let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sum: &[Val<'c>]| {
        let (largest, total) = largest_and_sum(k, e, walk, &logits, [at[0], at[1]]);
        let lse = e.add(largest, e.log(total));
        let label = e.convert(e.load(&target, at, None), e.index_elem);
        let logit = e.load(&logits, &[at[0], Index::uniform(label), at[1]], None);
        let loss = e.sub(lse, e.convert(logit, Elem::F64));
        vec![e.add(sum[0], loss)]
    };
    let store = |e: &Emitter<'c>, sum: Val<'c>| share_of_loss(k, e, positions, sum);
    if k.manner.sums == Sums::InThreads {
        e.sum_in_threads(
            &[],
            &axes,
            Inner::Summed,
            &[Elem::F64],
            &mut add,
            &|e, _, sums| store(e, sums[0]),
        );
        return Ok(());
    }
    let width = match walk {
        Walk::Classes => 1,
        Walk::Pixels => k.width(Elem::F64),
    };
    let memory = k
        .partials
        .ok_or("a loss has no memory for sums of parts; its graph has changed since they were counted")?;
    let row = (positions, width, sizes(k).0);
    sum_in_parts(e, memory, batch, row, &mut add, &store);
    Ok(())
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
    let one = e.float(Elem::F64, 1.0);
    let share = e.div(one, k.divisor(e, positions));
    let axes = [k.extent(k.operands[0].ty.shape.0[0]), Extent::Fixed(positions)];
    let walk = Walk::of(k);
    let pixel = |e: &Emitter<'c>, at: &[Index<'c>]| {
        let (largest, total) = largest_and_sum(k, e, walk, &logits, [at[0], at[1]]);
        let label = e.convert(e.load(&target, at, None), e.index_elem);
        let inverse = e.div(one, total);
        let class = |e: &Emitter<'c>, c: Index<'c>| {
            let v = e.convert(e.load(&logits, &[at[0], c, at[1]], None), Elem::F64);
            let p = e.mul(e.exp(e.sub(v, largest)), inverse);
            let hit = e.convert(e.compare(Compare::Eq, e.index_value(c), label), Elem::F64);
            let d = e.mul(e.sub(p, hit), share);
            e.store(&result, &[at[0], c, at[1]], e.convert(d, result.elem));
        };
        match walk {
            Walk::Classes => e.map(&[Extent::Fixed(classes)], k.width(Elem::F64), &|e, c| {
                class(e, c[0])
            }),
            Walk::Pixels => e.for_each(Extent::Fixed(classes), class),
        }
    };
    let width = match (walk, k.manner.lanes) {
        (Walk::Pixels, Lanes::OfRegisters) => k.width(Elem::F64),
        (Walk::Classes, _) | (_, Lanes::OfAccesses) => 1,
    };
    e.map_costly(&axes, width, classes.max(16), &pixel);
}

/// Elements of one sample.
fn per_sample(k: &Kernel) -> i64 {
    k.operands[0].ty.shape.0[1..].iter().map(|&d| fixed(d)).product()
}

/// Whether prediction, target and gradient, where there is one, lie in one order, so that any order will do.
fn lie_alike(k: &Kernel) -> bool {
    let layout = k.operands[0].ty.layout;
    let mut others = k.operands.iter().skip(1).chain(&k.results);
    others.all(|t| t.ty.layout == layout || t.ty.shape != k.operands[0].ty.shape)
}

/// Sum of squared differences over the rank, divided by `total * elements of a sample`.
pub fn squared_error<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let count = per_sample(k);
    let dims = &k.operands[0].ty.shape.0;
    let is_flat = k.manner.joins_axes && lie_alike(k);
    let view = |t: &Tensor<'c>| match is_flat {
        true => t.view(&[count, 1]),
        false => t.buffer(),
    };
    let (p, t) = (view(&k.operands[0]), view(&k.operands[1]));
    let mut add = |e: &Emitter<'c>, at: &[Index<'c>], sum: &[Val<'c>]| {
        let (a, b) = (e.load(&p, at, None), e.load(&t, at, None));
        let d = e.sub(e.convert(a, Elem::F64), e.convert(b, Elem::F64));
        vec![e.fma(d, d, sum[0])]
    };
    let axes: Vec<Extent<'c>> = dims.iter().map(|&d| k.extent(d)).collect();
    if k.manner.sums == Sums::InThreads {
        return e.sum_in_threads(
            &[],
            &axes,
            Inner::Summed,
            &[Elem::F64],
            &mut add,
            &|e, _, sums| share_of_loss(k, e, count, sums[0]),
        );
    }
    let width = VECTORS * k.width(Elem::F64);
    if let (true, Some(memory)) = (is_flat, k.partials) {
        return sum_in_parts(e, memory, axes[0], (count, width, 1), &mut add, &|e, sum| {
            share_of_loss(k, e, count, sum);
        });
    }
    if let (Some((&row, _)), Some((_, outer))) = (dims.split_last(), axes.split_last()) {
        e.by_first_thread(|e| {
            let sums = e.sum_over(outer, fixed(row), width, &[Elem::F64], &mut add);
            share_of_loss(k, e, count, sums[0]);
        });
    }
}

/// `2 (prediction - target) / (total * elements of a sample)`
pub fn squared_error_backward<'c>(k: &Kernel<'c>, e: &Emitter<'c>) {
    let count = per_sample(k);
    let is_flat = k.manner.joins_axes && lie_alike(k);
    let tensors = [&k.operands[0], &k.operands[1], &k.results[0]];
    let [p, t, result] = tensors.map(|t| match is_flat {
        true => t.view(&[count, 1]),
        false => t.buffer(),
    });
    let two = e.float(Elem::F64, 2.0);
    let factor = e.convert(e.div(two, k.divisor(e, count)), result.elem);
    let element = |e: &Emitter<'c>, at: &[Index<'c>]| {
        let (a, b) = (e.load(&p, at, None), e.load(&t, at, None));
        e.store(&result, at, e.mul(e.sub(a, b), factor));
    };
    if !is_flat {
        return k.each(e, &k.results[0], k.width(result.elem), &element);
    }
    let axes = [k.extent(k.operands[0].ty.shape.0[0]), Extent::Fixed(count)];
    e.map(&axes, k.width(result.elem), &element);
}
