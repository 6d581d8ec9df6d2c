//! Convolution and its two backward directions.

use super::batch_statistics::moments;
use super::slide::Slide;
use super::window::{Window, image, spatial};
use super::{Operator, StepInfo, UnaryFunction, channels, expect_operands, expect_type};
use crate::tensor::Array;
use crate::types::{DType, TensorType};

operator! {
    /// Convolution (ONNX `Conv`), then the activation if there is one.
    ///
    /// Operands: `x [n, C, spatial...]`, `w [K, C/groups, kernel...]`, and optionally `bias [K]`, and behind it
    /// optionally `residual` of the type of `y`, which is added before the activation.
    /// Results: `y [n, K, out...]`; with `moments` also `f64 [1 + 2K]`, see [`super::Moments`], of `y`.
    Conv = "conv" {
        /// Step between windows.
        strides: Vec<usize>,
        /// Padding before each axis, then after each axis.
        pads: Vec<usize>,
        /// Step between elements of a window.
        dilations: Vec<usize>,
        /// Number of groups.
        groups: usize,
        /// Whether the moments of the result are a second result.
        moments: bool,
        /// Applied to the result.
        activation: Option<UnaryFunction>,
    }
}

operator! {
    /// Gradient of a convolution for its input.
    ///
    /// Operands: `dy [n, K, out...]`, `w [K, C/groups, kernel...]`. Results: `dx [n, C, input...]`.
    ConvBackwardData = "conv_backward_data" {
        /// As the convolution's.
        strides: Vec<usize>,
        /// As the convolution's.
        pads: Vec<usize>,
        /// As the convolution's.
        dilations: Vec<usize>,
        /// As the convolution's.
        groups: usize,
        /// Spatial sizes of the convolution's input.
        input: Vec<usize>,
    }
}

operator! {
    /// Gradient of a convolution for its weights.
    ///
    /// Operands: `x [n, C, spatial...]`, `dy [n, K, out...]`. Results: `dw [K, C/groups, kernel...]`.
    ConvBackwardWeight = "conv_backward_weight" {
        /// As the convolution's.
        strides: Vec<usize>,
        /// As the convolution's.
        pads: Vec<usize>,
        /// As the convolution's.
        dilations: Vec<usize>,
        /// As the convolution's.
        groups: usize,
        /// Spatial sizes of the weights.
        kernel: Vec<usize>,
    }
}

macro_rules! window_of {
    ($($t:ty),*) => {$(
        impl $t {
            /// The convolution's window, for weights of these spatial sizes.
            fn window_of(&self, kernel: &[usize]) -> Window {
                Window {
                    kernel: kernel.to_vec(),
                    strides: self.strides.clone(),
                    pads: self.pads.clone(),
                    dilations: self.dilations.clone(),
                }
            }
        }
    )*};
}
window_of!(Conv, ConvBackwardData, ConvBackwardWeight);

macro_rules! window {
    ($($t:ty),*) => {$(
        impl $t {
            /// The convolution's window for weights of this type.
            pub fn window(&self, weight: &TensorType) -> Result<Window, String> {
                Ok(self.window_of(&spatial("the weight", weight)?))
            }
        }
    )*};
}
window!(Conv, ConvBackwardData);

impl ConvBackwardWeight {
    /// The convolution's window.
    pub fn window(&self) -> Window {
        self.window_of(&self.kernel)
    }
}

/// Checks weight and channels of a convolution from `c` channels; returns the output channels.
fn check_weight(weight: &TensorType, c: usize, groups: usize) -> Result<usize, String> {
    let k = weight
        .shape
        .0
        .first()
        .and_then(|d| d.fixed())
        .ok_or("the weight depends on the batch")?;
    let per_group = channels("the weight", weight)?;
    if groups == 0 || !c.is_multiple_of(groups) || !k.is_multiple_of(groups) {
        return Err(format!(
            "group {groups} does not divide {c} input channels and {k} output channels"
        ));
    }
    let expected = per_group.saturating_mul(groups);
    if expected != c {
        return Err(format!(
            "the weight of type {weight} expects {expected} input channels (group {groups}), found {c}"
        ));
    }
    if k == 0 || c == 0 {
        return Err("zero channels".to_string());
    }
    Ok(k)
}

impl Operator for Conv {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=4)?;
        let (x, w) = (operands[0], operands[1]);
        let c = channels("the input", x)?;
        let input = spatial("the input", x)?;
        let k = check_weight(w, c, self.groups)?;
        if w.dtype != x.dtype || !x.dtype.is_float() {
            return Err(format!(
                "input {x} and weight {w} must have one floating-point type"
            ));
        }
        if let Some(bias) = operands.get(2) {
            expect_type("the bias", bias, &TensorType::fixed(x.dtype.arithmetic(), &[k]))?;
        }
        let output = self.window(w)?.output(&input, false)?;
        let mut results = vec![image(x, k, &output)];
        if let Some(residual) = operands.get(3) {
            expect_type("the residual", residual, &results[0])?;
        }
        if self.moments {
            results.push(TensorType::fixed(DType::F64, &[1 + 2 * k]));
        }
        Ok(results)
    }

    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, w) = (operands[0], operands[1]);
        let (c, k) = (x.dims[1], w.dims[0]);
        let slide = Slide::new(&self.window_of(&w.dims[2..]), &x.dims[2..], false)?;
        let (inputs, outputs, taps) = (slide.inputs(), slide.outputs(), slide.taps());
        let mut y = Array::zeros(&[&[x.dims[0], k], slide.output.as_slice()].concat());
        if let Some(bias) = operands.get(2) {
            let planes = y.data.chunks_exact_mut(outputs.max(1));
            planes
                .zip(bias.data.iter().cycle())
                .for_each(|(plane, &b)| plane.fill(b));
        }
        for pair in Pair::all(x.dims[0], c, k, self.groups) {
            let x = &x.data[pair.input * inputs..][..inputs];
            let w = &w.data[pair.weight * taps..][..taps];
            let y = &mut y.data[pair.output * outputs..][..outputs];
            for run in &slide.runs {
                for (i, o) in run.pairs() {
                    y[o] += w[run.tap] * x[i];
                }
            }
        }
        if let Some(residual) = operands.get(3) {
            y.data.iter_mut().zip(&residual.data).for_each(|(y, &r)| *y += r);
        }
        if let Some(activation) = self.activation {
            y.data.iter_mut().for_each(|v| *v = activation.value(*v));
        }
        let sums = self.moments.then(|| moments(&y));
        Ok(std::iter::once(y).chain(sums).collect())
    }
}

impl Operator for ConvBackwardData {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        let (dy, w) = (operands[0], operands[1]);
        let c = channels("the weight", w)?
            .checked_mul(self.groups)
            .ok_or("too many channels")?;
        let k = check_weight(w, c, self.groups)?;
        let output = self.window(w)?.output(&self.input, false)?;
        expect_type("the output gradient", dy, &image(dy, k, &output))?;
        Ok(vec![image(dy, c, &self.input)])
    }

    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (dy, w) = (operands[0], operands[1]);
        let (c, k) = (w.dims[1] * self.groups, w.dims[0]);
        let slide = Slide::new(&self.window_of(&w.dims[2..]), &self.input, false)?;
        let (inputs, outputs, taps) = (slide.inputs(), slide.outputs(), slide.taps());
        let mut dx = Array::zeros(&[&[dy.dims[0], c], self.input.as_slice()].concat());
        for pair in Pair::all(dy.dims[0], c, k, self.groups) {
            let dx = &mut dx.data[pair.input * inputs..][..inputs];
            let w = &w.data[pair.weight * taps..][..taps];
            let dy = &dy.data[pair.output * outputs..][..outputs];
            for run in &slide.runs {
                for (i, o) in run.pairs() {
                    dx[i] += w[run.tap] * dy[o];
                }
            }
        }
        Ok(vec![dx])
    }
}

impl Operator for ConvBackwardWeight {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        let (x, dy) = (operands[0], operands[1]);
        let (c, k) = (channels("the input", x)?, channels("the output gradient", dy)?);
        if self.groups == 0 || !c.is_multiple_of(self.groups) {
            return Err(format!(
                "group {} does not divide {c} input channels",
                self.groups
            ));
        }
        let output = self.window().output(&spatial("the input", x)?, false)?;
        expect_type("the output gradient", dy, &image(x, k, &output))?;
        let mut dims = vec![k, c / self.groups];
        dims.extend(&self.kernel);
        let w = TensorType::fixed(x.dtype.arithmetic(), &dims);
        check_weight(&w, c, self.groups)?;
        Ok(vec![w])
    }

    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, dy) = (operands[0], operands[1]);
        let (c, k) = (x.dims[1], dy.dims[1]);
        let slide = Slide::new(&self.window(), &x.dims[2..], false)?;
        let (inputs, outputs, taps) = (slide.inputs(), slide.outputs(), slide.taps());
        let mut dw = Array::zeros(&[&[k, c / self.groups], self.kernel.as_slice()].concat());
        for pair in Pair::all(x.dims[0], c, k, self.groups) {
            let x = &x.data[pair.input * inputs..][..inputs];
            let dw = &mut dw.data[pair.weight * taps..][..taps];
            let dy = &dy.data[pair.output * outputs..][..outputs];
            for run in &slide.runs {
                dw[run.tap] += run.pairs().map(|(i, o)| x[i] * dy[o]).sum::<f64>();
            }
        }
        Ok(vec![dw])
    }
}

/// One (sample, output channel, input channel) of a convolution, as indices of planes.
struct Pair {
    input: usize,
    weight: usize,
    output: usize,
}

impl Pair {
    /// All of them: `n` samples, `c` input and `k` output channels in `groups` groups.
    fn all(n: usize, c: usize, k: usize, groups: usize) -> impl Iterator<Item = Pair> {
        let (inner, outer) = (c / groups, k / groups);
        (0..n).flat_map(move |sample| {
            (0..k * inner).map(move |weight| {
                let channel = weight / inner;
                Pair {
                    input: sample * c + channel / outer * inner + weight % inner,
                    weight,
                    output: sample * k + channel,
                }
            })
        })
    }
}
