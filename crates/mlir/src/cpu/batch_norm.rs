//! Batch normalisation in inference form, and its per-channel parts in training.

use syncbn_ir::ops::{
    BatchNorm, BatchNormBackwardData, BatchNormBackwardReduce, BatchNormFinalize, Normalize, RunningVar,
    UnaryFunction,
};

use super::kernel::{Image, Kernel, Tensor};
use crate::emit::{Buffer, Compare, Elem, Emitter, Extent, Index, Val};

/// Runs `body` over `[n, channels, positions]` with what `channel` prepares once a channel. Lanes run over
/// positions, or over channels where there is one position.
fn per_channel<'c, P>(
    e: &mut Emitter<'c>,
    image: Image<'c>,
    width: usize,
    channel: &dyn Fn(&mut Emitter<'c>, Index<'c>) -> P,
    body: &dyn Fn(&mut Emitter<'c>, &P, &[Index<'c>]),
) {
    if image.positions == 1 {
        return e.map(&[image.n, Extent::Fixed(image.channels)], width, &|e, at| {
            let prepared = channel(e, at[1]);
            body(e, &prepared, &[at[0], at[1], Index::constant(0)]);
        });
    }
    e.for_each(image.n, |e, n| {
        e.for_each(Extent::Fixed(image.channels), |e, c| {
            let prepared = channel(e, c);
            e.map(&[Extent::Fixed(image.positions)], width, &|e, at| {
                body(e, &prepared, &[n, c, at[0]])
            });
        });
    });
}

/// Sums over samples and positions of every channel, in f64; `store` gets the channel and its sums.
fn channel_sums<'c, P>(
    e: &mut Emitter<'c>,
    image: Image<'c>,
    width: usize,
    sums: usize,
    channel: &dyn Fn(&mut Emitter<'c>, Index<'c>) -> P,
    body: &dyn Fn(&mut Emitter<'c>, &P, &[Index<'c>], &[Val<'c>]) -> Vec<Val<'c>>,
    store: &dyn Fn(&mut Emitter<'c>, Index<'c>, &P, &[Val<'c>]),
) {
    if image.positions == 1 {
        return e.map(&[Extent::Fixed(image.channels)], width, &|e, at| {
            let prepared = channel(e, at[0]);
            let zero = e.zero(Elem::F64);
            let start = vec![e.splat(zero, e.lanes); sums];
            let total = e.fold(image.n, &start, |e, n, inner| {
                body(e, &prepared, &[n, at[0], Index::constant(0)], inner)
            });
            store(e, at[0], &prepared, &total);
        });
    }
    e.for_each(Extent::Fixed(image.channels), |e, c| {
        let prepared = channel(e, c);
        let elems = vec![Elem::F64; sums];
        let total = e.sum_over(&[image.n], image.positions, width, &elems, &mut |e, at, inner| {
            body(e, &prepared, &[at[0], c, at[1]], inner)
        });
        let lanes = std::mem::replace(&mut e.lanes, 1);
        store(e, c, &prepared, &total);
        e.lanes = lanes;
    });
}

/// Moments `[m, m*mean, M2 + m*mean^2]`. Deviations are summed about the channel's first value, in f64, so
/// that a large mean cancels before anything is squared.
pub fn moments<'c>(k: &Kernel<'c>, x: &Tensor<'c>, out: &Tensor<'c>, e: &mut Emitter<'c>) {
    let image = k.image(&x.ty);
    let (xb, result) = (x.view(&image.strides()), out.flat());
    let samples = match image.n {
        Extent::Batch(n) => e.convert(n, Elem::F64),
        Extent::Fixed(n) => e.float(Elem::F64, n as f64),
    };
    let positions = e.float(Elem::F64, image.positions as f64);
    let m = e.mul(samples, positions);
    let zero = e.float(Elem::F64, 0.0);
    let some = e.compare(Compare::Gt, m, zero);
    e.store(&result, &[Index::constant(0)], m);
    channel_sums(
        e,
        image,
        k.width(Elem::F64),
        2,
        &|e, c| {
            let first = e.load(&xb, &[Index::constant(0), c, Index::constant(0)], None);
            e.convert(first, Elem::F64)
        },
        &|e, &pivot, at, sums| {
            let v = e.load(&xb, at, None);
            let v = e.convert(v, Elem::F64);
            let d = e.sub(v, pivot);
            vec![e.add(sums[0], d), e.fma(d, d, sums[1])]
        },
        &|e, c, &pivot, sums| {
            let shift = e.div(sums[0], m);
            let mean = e.add(pivot, shift);
            let product = e.mul(sums[0], shift);
            let m2 = e.sub(sums[1], product);
            let first = e.mul(m, mean);
            let second = e.fma(first, mean, m2);
            // An empty rank contributes zeros, whatever lies in its buffers.
            let (first, second) = (e.select(some, first, zero), e.select(some, second, zero));
            let at = e.index_offset(c, 1);
            e.store(&result, &[at], first);
            let at = e.index_offset(c, 1 + image.channels);
            e.store(&result, &[at], second);
        },
    );
}

/// Mean, inverse deviation and running statistics from summed moments.
pub fn finalize<'c>(op: &BatchNormFinalize, k: &Kernel<'c>, e: &mut Emitter<'c>) {
    let (moments, running) = (k.operands[0].flat(), [k.operands[1].flat(), k.operands[2].flat()]);
    let results: Vec<Buffer<'c>> = k.results.iter().map(Tensor::flat).collect();
    let channels: i64 = k.results[1].ty.shape.sizes(0).iter().product::<usize>() as i64;
    let elem = k.operands[1].elem();
    let n = e.load(&moments, &[Index::constant(0)], None);
    e.store(&results[0], &[Index::constant(0)], n);
    let (zero, one) = (e.float(Elem::F64, 0.0), e.float(Elem::F64, 1.0));
    let some = e.compare(Compare::Gt, n, zero);
    let epsilon = e.float(Elem::F64, op.epsilon);
    let (new, old) = (
        e.float(Elem::F64, op.momentum),
        e.float(Elem::F64, 1.0 - op.momentum),
    );
    let factor = match op.running_var {
        RunningVar::Population => one,
        RunningVar::Pytorch => {
            let below = e.sub(n, one);
            e.div(n, below)
        }
    };
    e.map(&[Extent::Fixed(channels)], k.width(Elem::F64), &|e, at| {
        let c = at[0];
        let (i1, i2) = (e.index_offset(c, 1), e.index_offset(c, 1 + channels));
        let (s1, s2) = (e.load(&moments, &[i1], None), e.load(&moments, &[i2], None));
        let (mean, square) = (e.div(s1, n), e.div(s2, n));
        let mean2 = e.mul(mean, mean);
        let var = e.sub(square, mean2);
        let var = e.max(var, zero);
        let shifted = e.add(var, epsilon);
        let root = e.sqrt(shifted);
        let inv_std = e.div(one, root);
        let saved = [e.select(some, mean, zero), e.select(some, inv_std, zero)];
        e.store(&results[1], &[c], saved[0]);
        e.store(&results[2], &[c], saved[1]);
        let unbiased = e.mul(var, factor);
        for (i, batch) in [mean, unbiased].into_iter().enumerate() {
            let before = e.load(&running[i], &[c], None);
            let before = e.convert(before, Elem::F64);
            let kept = e.mul(before, old);
            let after = e.fma(batch, new, kept);
            let after = e.select(some, after, before);
            let after = e.convert(after, elem);
            e.store(&results[3 + i], &[c], after);
        }
    });
}

/// What normalising needs of one channel: `xhat = ((x - high) - low) * inv_std`, where `high + low` is the
/// mean in f64: a mean rounded to f32 would leave an error of its own size in small deviations.
struct Channel<'c> {
    high: Val<'c>,
    low: Option<Val<'c>>,
    inv_std: Val<'c>,
    scale: Option<Val<'c>>,
    bias: Option<Val<'c>>,
}

/// The operands that [`Channel`] is made from.
struct Statistics<'c> {
    elem: Elem,
    mean: Buffer<'c>,
    inv_std: Buffer<'c>,
    scale: Option<Buffer<'c>>,
    bias: Option<Buffer<'c>>,
}

impl<'c> Statistics<'c> {
    fn channel(&self, e: &mut Emitter<'c>, c: Index<'c>) -> Channel<'c> {
        let mean = e.load(&self.mean, &[c], None);
        let high = e.convert(mean, self.elem);
        let low = (self.elem == Elem::F32).then(|| {
            let back = e.convert(high, Elem::F64);
            let low = e.sub(mean, back);
            e.convert(low, self.elem)
        });
        let inv_std = e.load(&self.inv_std, &[c], None);
        let inv_std = e.convert(inv_std, self.elem);
        let scale = self.scale.as_ref().map(|b| e.load(b, &[c], None));
        let bias = self.bias.as_ref().map(|b| e.load(b, &[c], None));
        Channel {
            high,
            low,
            inv_std,
            scale,
            bias,
        }
    }
}

impl<'c> Channel<'c> {
    fn xhat(&self, e: &mut Emitter<'c>, x: Val<'c>) -> Val<'c> {
        let mut d = e.sub(x, self.high);
        if let Some(low) = self.low {
            d = e.sub(d, low);
        }
        e.mul(d, self.inv_std)
    }

    /// `xhat * scale + bias + residual`
    fn affine(&self, e: &mut Emitter<'c>, xhat: Val<'c>, residual: Option<Val<'c>>) -> Val<'c> {
        let mut z = match (self.scale, self.bias) {
            (Some(scale), Some(bias)) => e.fma(xhat, scale, bias),
            _ => xhat,
        };
        if let Some(residual) = residual {
            z = e.add(z, residual);
        }
        z
    }
}

/// `y = activation(xhat * scale + bias + residual)`
pub fn normalize<'c>(op: &Normalize, k: &Kernel<'c>, e: &mut Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let image = k.image(&x.ty);
    let strides = image.strides();
    let (xb, yb) = (x.view(&strides), y.view(&strides));
    let residual = k.operands.get(5).map(|t| t.view(&strides));
    let statistics = Statistics {
        elem: x.elem(),
        mean: k.operands[1].flat(),
        inv_std: k.operands[2].flat(),
        scale: Some(k.operands[3].flat()),
        bias: Some(k.operands[4].flat()),
    };
    let width = k.width(x.elem());
    per_channel(
        e,
        image,
        width,
        &|e, c| statistics.channel(e, c),
        &|e, channel, at| {
            let v = e.load(&xb, at, None);
            let xhat = channel.xhat(e, v);
            let r = residual.as_ref().map(|r| e.load(r, at, None));
            let mut z = channel.affine(e, xhat, r);
            if let Some(f) = op.activation {
                z = e.unary(f, z);
            }
            e.store(&yb, at, z);
        },
    );
}

/// `batch_norm` with running statistics: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.
pub fn inference<'c>(op: &BatchNorm, k: &Kernel<'c>, e: &mut Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let image = k.image(&x.ty);
    let (xb, yb) = (x.view(&image.strides()), y.view(&image.strides()));
    let elem = x.elem();
    let vectors: Vec<Buffer<'c>> = k.operands[1..].iter().map(Tensor::flat).collect();
    let prepare = |e: &mut Emitter<'c>, c: Index<'c>| {
        let [scale, bias, mean, var] = [0, 1, 2, 3].map(|i| e.load(&vectors[i], &[c], None));
        let var = e.convert(var, Elem::F64);
        let (epsilon, one) = (e.float(Elem::F64, op.epsilon), e.float(Elem::F64, 1.0));
        let shifted = e.add(var, epsilon);
        let root = e.sqrt(shifted);
        let inv_std = e.div(one, root);
        let inv_std = e.convert(inv_std, elem);
        Channel {
            high: mean,
            low: None,
            inv_std,
            scale: Some(scale),
            bias: Some(bias),
        }
    };
    per_channel(e, image, k.width(elem), &prepare, &|e, channel, at| {
        let v = e.load(&xb, at, None);
        let xhat = channel.xhat(e, v);
        let z = channel.affine(e, xhat, None);
        e.store(&yb, at, z);
    });
}

/// Operands of the backward kernels: `x`, `dy` and what recomputes `z` before the activation.
struct Backward<'c> {
    x: Buffer<'c>,
    dy: Buffer<'c>,
    residual: Option<Buffer<'c>>,
    statistics: Statistics<'c>,
    activation: Option<UnaryFunction>,
}

impl<'c> Backward<'c> {
    /// `scale`, `bias` and `residual` are the slots of those operands.
    fn new(
        k: &Kernel<'c>,
        activation: Option<UnaryFunction>,
        image: &Image<'c>,
        [scale, bias, residual]: [usize; 3],
    ) -> Self {
        let strides = image.strides();
        Backward {
            x: k.operands[0].view(&strides),
            dy: k.operands[1].view(&strides),
            residual: k.operands.get(residual).map(|t| t.view(&strides)),
            statistics: Statistics {
                elem: k.operands[0].elem(),
                mean: k.operands[2].flat(),
                inv_std: k.operands[3].flat(),
                scale: k.operands.get(scale).map(Tensor::flat),
                bias: k.operands.get(bias).map(Tensor::flat),
            },
            activation,
        }
    }

    /// `(xhat, dz)` at an index.
    fn at(&self, e: &mut Emitter<'c>, channel: &Channel<'c>, at: &[Index<'c>]) -> (Val<'c>, Val<'c>) {
        let x = e.load(&self.x, at, None);
        let xhat = channel.xhat(e, x);
        let dy = e.load(&self.dy, at, None);
        let Some(f) = self.activation else {
            return (xhat, dy);
        };
        let residual = self.residual.as_ref().map(|r| e.load(r, at, None));
        let z = channel.affine(e, xhat, residual);
        (xhat, e.unary_backward(f, z, dy))
    }
}

/// `[sum dz, sum dz * xhat]`
pub fn backward_reduce<'c>(op: &BatchNormBackwardReduce, k: &Kernel<'c>, e: &mut Emitter<'c>) {
    let image = k.image(&k.operands[0].ty);
    let backward = Backward::new(k, op.activation, &image, [4, 5, 6]);
    let result = k.results[0].flat();
    let width = k.width(Elem::F64);
    channel_sums(
        e,
        image,
        width,
        2,
        &|e, c| backward.statistics.channel(e, c),
        &|e, channel, at, sums| {
            let (xhat, dz) = backward.at(e, channel, at);
            let (xhat, dz) = (e.convert(xhat, Elem::F64), e.convert(dz, Elem::F64));
            vec![e.add(sums[0], dz), e.fma(dz, xhat, sums[1])]
        },
        &|e, c, _, sums| {
            e.store(&result, &[c], sums[0]);
            let at = e.index_offset(c, image.channels);
            e.store(&result, &[at], sums[1]);
        },
    );
}

/// `dx = scale * inv_std * (dz - B/N - xhat * G/N)`
pub fn backward_data<'c>(op: &BatchNormBackwardData, k: &Kernel<'c>, e: &mut Emitter<'c>) {
    let image = k.image(&k.operands[0].ty);
    let elem = k.operands[0].elem();
    let backward = Backward::new(k, op.activation, &image, [4, 7, 8]);
    let (sums, count) = (k.operands[5].flat(), k.operands[6].flat());
    let results: Vec<Buffer<'c>> = k.results.iter().map(|t| t.view(&image.strides())).collect();
    let n = e.load(&count, &[Index::constant(0)], None);
    let prepare = |e: &mut Emitter<'c>, c: Index<'c>| {
        let channel = backward.statistics.channel(e, c);
        let g_at = e.index_offset(c, image.channels);
        let (b, g) = (e.load(&sums, &[c], None), e.load(&sums, &[g_at], None));
        let (b, g) = (e.div(b, n), e.div(g, n));
        let (b, g) = (e.convert(b, elem), e.convert(g, elem));
        let factor = match channel.scale {
            Some(scale) => e.mul(scale, channel.inv_std),
            None => channel.inv_std,
        };
        (channel, b, g, factor)
    };
    per_channel(
        e,
        image,
        k.width(elem),
        &prepare,
        &|e, (channel, b, g, factor), at| {
            let (xhat, dz) = backward.at(e, channel, at);
            let centred = e.sub(dz, *b);
            let minus = e.neg(xhat);
            let rest = e.fma(minus, *g, centred);
            let dx = e.mul(*factor, rest);
            if let Some(dresidual) = results.get(1) {
                e.store(dresidual, at, dz);
            }
            e.store(&results[0], at, dx);
        },
    );
}
