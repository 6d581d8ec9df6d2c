//! Normalisation: with the batch's statistics and with running ones.

use syncbn_ir::ops::{BatchNorm, Normalize};

use super::channels::per_channel;
use super::kernel::{Kernel, Tensor};
use super::rows::Constants;
use crate::emit::{Buffer, Elem, Emitter, Index, Val};

/// What normalising needs of one channel: the deviation `(x - high) - low`, where `high + low` is the mean in f64: a mean
/// rounded to f32 would leave an error of its own size in small deviations.
pub struct Channel<'c> {
    /// The mean, rounded.
    pub high: Val<'c>,
    /// What rounding took from it.
    pub low: Option<Val<'c>>,
    /// `scale / standard deviation`; the scale is 1 where the operator has none.
    pub factor: Val<'c>,
    /// Bias, where the operator has it.
    pub bias: Option<Val<'c>>,
}

/// The operands that [`Channel`] is made from.
pub struct Statistics<'c> {
    /// Element type to compute in.
    pub elem: Elem,
    /// f64 means.
    pub mean: Buffer<'c>,
    /// f64 inverse deviations.
    pub inv_std: Buffer<'c>,
    /// Scales.
    pub scale: Option<Buffer<'c>>,
    /// Biases.
    pub bias: Option<Buffer<'c>>,
}

impl<'c> Statistics<'c> {
    /// Loads what one channel needs.
    pub fn channel(&self, e: &Emitter<'c>, c: Index<'c>) -> Channel<'c> {
        let mean = e.load(&self.mean, &[c], None);
        let (high, low) = e.split(mean, self.elem);
        let inv_std = self.inv_std(e, c);
        let factor = match &self.scale {
            Some(scale) => e.mul(inv_std, e.load(scale, &[c], None)),
            None => inv_std,
        };
        let bias = self.bias.as_ref().map(|b| e.load(b, &[c], None));
        Channel {
            high,
            low,
            factor,
            bias,
        }
    }

    /// The inverse deviation of one channel, rounded.
    pub fn inv_std(&self, e: &Emitter<'c>, c: Index<'c>) -> Val<'c> {
        e.convert(e.load(&self.inv_std, &[c], None), self.elem)
    }
}

impl<'c> Constants<'c> for Channel<'c> {
    fn map(&self, f: &mut dyn FnMut(Val<'c>) -> Val<'c>) -> Self {
        Channel {
            high: f(self.high),
            low: self.low.map(&mut *f),
            factor: f(self.factor),
            bias: self.bias.map(&mut *f),
        }
    }
}

impl<'c> Channel<'c> {
    /// How far a value is from the mean.
    pub fn deviation(&self, e: &Emitter<'c>, x: Val<'c>) -> Val<'c> {
        let d = e.sub(x, self.high);
        self.low.map_or(d, |low| e.sub(d, low))
    }

    /// `deviation * factor + bias + residual`
    pub fn affine(&self, e: &Emitter<'c>, deviation: Val<'c>, residual: Option<Val<'c>>) -> Val<'c> {
        let z = match self.bias {
            Some(bias) => e.fma(deviation, self.factor, bias),
            None => e.mul(deviation, self.factor),
        };
        residual.map_or(z, |residual| e.add(z, residual))
    }
}

/// `y = activation(xhat * scale + bias + residual)`
pub fn normalize<'c>(op: &Normalize, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let image = k.image(&x.ty);
    let (xb, yb) = (x.image(), y.image());
    let residual = k.operands.get(5).map(Tensor::image);
    let statistics = Statistics {
        elem: x.elem(),
        mean: k.operands[1].flat(),
        inv_std: k.operands[2].flat(),
        scale: Some(k.operands[3].flat()),
        bias: Some(k.operands[4].flat()),
    };
    let width = k.width(x.elem());
    per_channel(
        k,
        e,
        image,
        width,
        &|e, c| statistics.channel(e, c),
        &|e, channel, at| {
            let v = e.load_stream(&xb, at);
            let r = residual.as_ref().map(|r| e.load_stream(r, at));
            let mut z = channel.affine(e, channel.deviation(e, v), r);
            if let Some(f) = op.activation {
                z = e.unary(f, z);
            }
            e.store_stream(&yb, at, z);
        },
    );
}

/// `batch_norm` with running statistics: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.
pub fn inference<'c>(op: &BatchNorm, k: &Kernel<'c>, e: &Emitter<'c>) {
    let (x, y) = (&k.operands[0], &k.results[0]);
    let image = k.image(&x.ty);
    let (xb, yb) = (x.image(), y.image());
    let elem = x.elem();
    let vectors: Vec<Buffer<'c>> = k.operands[1..].iter().map(Tensor::flat).collect();
    let prepare = |e: &Emitter<'c>, c: Index<'c>| {
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
            factor: e.mul(inv_std, scale),
            bias: Some(bias),
        }
    };
    per_channel(k, e, image, k.width(elem), &prepare, &|e, channel, at| {
        let v = e.load_stream(&xb, at);
        let z = channel.affine(e, channel.deviation(e, v), None);
        e.store_stream(&yb, at, z);
    });
}
