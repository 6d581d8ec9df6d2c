//! The two kernels of BatchNorm's backward pass.

use syncbn_ir::ops::{BatchNormBackwardData, BatchNormBackwardReduce, UnaryFunction};

use super::batch_norm::{Channel, Statistics};
use super::channels::{channel_sums, per_channel, width_of_sums};
use super::kernel::{Kernel, Tensor};
use super::rows::Constants;
use super::target::Quotients;
use crate::emit::{Buffer, Elem, Emitter, Index, Val};

/// Operands of the backward kernels: `x`, `dy` and what recomputes `z` before the activation.
struct Backward<'c> {
    x: Buffer<'c>,
    dy: Buffer<'c>,
    residual: Option<Buffer<'c>>,
    statistics: Statistics<'c>,
    activation: Option<UnaryFunction>,
}

impl<'c> Backward<'c> {
    /// `scale`, `bias` and `residual` are the slots of those operands, which may be absent.
    fn new(k: &Kernel<'c>, activation: Option<UnaryFunction>, [scale, bias, residual]: [usize; 3]) -> Self {
        Backward {
            x: k.operands[0].image(),
            dy: k.operands[1].image(),
            residual: k.operands.get(residual).map(Tensor::image),
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

    /// The deviation of `x` from the mean, and `dz`, at an index.
    fn at(&self, e: &Emitter<'c>, channel: &Channel<'c>, at: &[Index<'c>]) -> (Val<'c>, Val<'c>) {
        let x = e.load_stream(&self.x, at);
        let d = channel.deviation(e, x);
        let dy = e.load_stream(&self.dy, at);
        let Some(f) = self.activation else {
            return (d, dy);
        };
        let residual = self.residual.as_ref().map(|r| e.load_stream(r, at));
        let z = channel.affine(e, d, residual);
        (d, e.unary_backward(f, z, dy))
    }
}

/// What the gradient of an element needs of its channel.
struct Slope<'c> {
    channel: Channel<'c>,
    /// The mean of `dz`, rounded.
    mean: Val<'c>,
    /// What rounding took from the mean, times `-scale * inv_std`.
    rest: Option<Val<'c>>,
    /// The mean of `dz * xhat`, times `inv_std`.
    product: Val<'c>,
}

impl<'c> Constants<'c> for Slope<'c> {
    fn map(&self, f: &mut dyn FnMut(Val<'c>) -> Val<'c>) -> Self {
        Slope {
            channel: self.channel.map(f),
            mean: f(self.mean),
            rest: self.rest.map(&mut *f),
            product: f(self.product),
        }
    }
}

/// `[sum dz, sum dz * xhat]`, of which the latter is that of `dz * deviation` times the inverse deviation; and `dz` itself
/// where it is a result. The first is in f64 throughout: `data` takes it from every element, so that its error would be
/// that of what sums `dx`, such as the gradient of a bias before the layer, which is 0.
pub fn reduce<'c>(op: &BatchNormBackwardReduce, k: &Kernel<'c>, e: &Emitter<'c>) {
    let image = k.image(&k.operands[0].ty);
    let backward = Backward::new(k, op.activation, [4, 5, 6]);
    let result = k.results[0].flat();
    let stored = k.results.get(1).map(Tensor::image);
    let elem = k.operands[0].elem();
    channel_sums(
        k,
        e,
        image,
        (&[Elem::F64, elem], width_of_sums(k, image, elem)),
        &|e, c| backward.statistics.channel(e, c),
        &|e, channel, at, sums| {
            let (d, dz) = backward.at(e, channel, at);
            if let Some(stored) = &stored {
                e.store_stream(stored, at, dz);
            }
            let d = e.convert(d, sums[1].elem);
            let (term, dz) = (e.convert(dz, sums[0].elem), e.convert(dz, sums[1].elem));
            vec![e.add(sums[0], term), e.fma(dz, d, sums[1])]
        },
        &|e, c, _, sums| {
            e.store(&result, &[c], sums[0]);
            let inv_std = e.load(&backward.statistics.inv_std, &[c], None);
            let at = e.index_offset(c, image.channels);
            e.store(&result, &[at], e.mul(sums[1], inv_std));
        },
    );
}

/// `dx = scale * inv_std * (dz - B/N - xhat * G/N)`. `B/N` is subtracted in two parts: its rounding to f32 would be
/// the same in every element and add up in what sums `dx`, such as the gradient of a bias before the layer. Where there is
/// one position a channel, so few values are normalised together that each is computed in f64 and rounded once.
pub fn data<'c>(op: &BatchNormBackwardData, k: &Kernel<'c>, e: &Emitter<'c>) {
    let image = k.image(&k.operands[0].ty);
    let elem = k.operands[0].elem();
    let backward = Backward::new(k, op.activation, [4, 7, usize::MAX]);
    let (sums, count) = (k.operands[5].flat(), k.operands[6].flat());
    let result = k.results[0].image();
    let n = e.load(&count, &[Index::constant(0)], None);
    let inner = if image.positions == 1 { Elem::F64 } else { elem };
    let inverse = match k.manner.quotients {
        Quotients::Divided => None,
        Quotients::Multiplied => Some(e.div(e.float(Elem::F64, 1.0), n)),
    };
    let per_element = |e: &Emitter<'c>, sum: Val<'c>| match inverse {
        Some(inverse) => e.mul(sum, inverse),
        None => e.div(sum, n),
    };
    let prepare = |e: &Emitter<'c>, c: Index<'c>| {
        let channel = backward.statistics.channel(e, c);
        let g_at = e.index_offset(c, image.channels);
        let (b, g) = (e.load(&sums, &[c], None), e.load(&sums, &[g_at], None));
        let (b, g) = (per_element(e, b), per_element(e, g));
        let (mean, low) = e.split(b, inner);
        let inv_std = backward.statistics.inv_std(e, c);
        Slope {
            mean,
            rest: low.map(|low| e.mul(e.neg(channel.factor), low)),
            product: e.mul(e.convert(g, inner), e.convert(inv_std, inner)),
            channel,
        }
    };
    per_channel(k, e, image, k.width(elem), &prepare, &|e, slope, at| {
        let (d, dz) = backward.at(e, &slope.channel, at);
        let [d, dz, factor] = [d, dz, slope.channel.factor].map(|v| e.convert(v, inner));
        let centred = e.sub(dz, slope.mean);
        let steep = e.fma(e.neg(d), slope.product, centred);
        let dx = match slope.rest {
            Some(rest) => e.fma(factor, steep, rest),
            None => e.mul(factor, steep),
        };
        e.store_stream(&result, at, e.convert(dx, elem));
    });
}
