//! Max and average pooling, forward and backward.

use super::slide::Slide;
use super::window::{Window, image, spatial};
use super::{Operator, StepInfo, channels, expect_operands, expect_type};
use crate::tensor::Array;
use crate::types::{DType, TensorType};

operator! {
    /// Maximum over windows (ONNX `MaxPool`); padding never wins, NaN always does.
    ///
    /// Operands: `x [n, C, spatial...]`. Results: `y [n, C, out...]` and `code`, the row-major position in its
    /// window of the first maximum: u8 for windows of at most 256 elements, else i64.
    MaxPool = "max_pool" {
        /// Size of the window.
        kernel: Vec<usize>,
        /// Step between windows.
        strides: Vec<usize>,
        /// Padding before each axis, then after each axis.
        pads: Vec<usize>,
        /// Step between elements of a window.
        dilations: Vec<usize>,
        /// Whether output sizes round up.
        ceil_mode: bool,
    }
}

operator! {
    /// Operands: `dy [n, C, out...]`, `code` of the forward pass. Results: `dx [n, C, input...]`.
    MaxPoolBackward = "max_pool_backward" {
        /// As the pool's.
        kernel: Vec<usize>,
        /// As the pool's.
        strides: Vec<usize>,
        /// As the pool's.
        pads: Vec<usize>,
        /// As the pool's.
        dilations: Vec<usize>,
        /// As the pool's.
        ceil_mode: bool,
        /// Spatial sizes of the pool's input.
        input: Vec<usize>,
    }
}

operator! {
    /// Mean over windows (ONNX `AveragePool`). With `count_include_pad` padding counts in the divisor; what a
    /// window reaches beyond the padding (with `ceil_mode`) never does.
    ///
    /// Operands: `x [n, C, spatial...]`. Results: `y [n, C, out...]`.
    AveragePool = "average_pool" {
        /// Size of the window.
        kernel: Vec<usize>,
        /// Step between windows.
        strides: Vec<usize>,
        /// Padding before each axis, then after each axis.
        pads: Vec<usize>,
        /// Step between elements of a window.
        dilations: Vec<usize>,
        /// Whether output sizes round up.
        ceil_mode: bool,
        /// Whether padding counts in the divisor.
        count_include_pad: bool,
    }
}

operator! {
    /// Operands: `dy [n, C, out...]`. Results: `dx [n, C, input...]`.
    AveragePoolBackward = "average_pool_backward" {
        /// As the pool's.
        kernel: Vec<usize>,
        /// As the pool's.
        strides: Vec<usize>,
        /// As the pool's.
        pads: Vec<usize>,
        /// As the pool's.
        dilations: Vec<usize>,
        /// As the pool's.
        ceil_mode: bool,
        /// As the pool's.
        count_include_pad: bool,
        /// Spatial sizes of the pool's input.
        input: Vec<usize>,
    }
}

macro_rules! window_of {
    ($($t:ty),*) => {$(
        impl $t {
            /// Its window.
            pub fn window(&self) -> Window {
                Window {
                    kernel: self.kernel.clone(),
                    strides: self.strides.clone(),
                    pads: self.pads.clone(),
                    dilations: self.dilations.clone(),
                }
            }
        }
    )*};
}
window_of!(MaxPool, MaxPoolBackward, AveragePool, AveragePoolBackward);

/// Element type of the codes of max pooling.
fn code_type(window: &Window) -> DType {
    if window.volume() <= 256 {
        DType::U8
    } else {
        DType::I64
    }
}

/// Padding of a pool must be smaller than its window: otherwise a window could hold nothing but padding.
fn check_pads(window: &Window) -> Result<(), String> {
    let reach = |i: usize| (window.kernel[i].max(1) - 1).saturating_mul(window.dilations[i]) + 1;
    match (0..window.rank()).find(|&i| window.pad_begin(i) >= reach(i) || window.pad_end(i) >= reach(i)) {
        Some(i) => Err(format!(
            "pads of axis {i} are not smaller than the window: {:?}",
            window.pads
        )),
        None => Ok(()),
    }
}

/// The type of a pool's result. With `needs_elements`, every window must reach the input: the maximum and the mean
/// of nothing are not defined.
fn pooled(
    x: &TensorType,
    window: &Window,
    ceil_mode: bool,
    needs_elements: bool,
) -> Result<TensorType, String> {
    if !x.dtype.is_float() {
        return Err(format!("input {x} must be floating point"));
    }
    let input = spatial("the input", x)?;
    let output = window.output(&input, ceil_mode)?;
    check_pads(window)?;
    let axis = (0..window.rank()).find(|&i| needs_elements && window.misses(i, input[i], output[i]));
    if let Some(i) = axis {
        return Err(format!(
            "a window along axis {i} holds nothing but padding (kernel {}, stride {}, dilation {}, pads {} and {}, \
             size {})",
            window.kernel[i],
            window.strides[i],
            window.dilations[i],
            window.pad_begin(i),
            window.pad_end(i),
            input[i]
        ));
    }
    Ok(image(x, channels("the input", x)?, &output))
}

impl Operator for MaxPool {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let y = pooled(operands[0], &self.window(), self.ceil_mode, true)?;
        let code = TensorType {
            dtype: code_type(&self.window()),
            ..y.clone()
        };
        Ok(vec![y, code])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let (slide, mut y) = pooled_array(x, &self.window(), self.ceil_mode)?;
        let mut code = y.clone();
        let sizes = (slide.inputs(), slide.outputs());
        for plane in 0..x.dims[0] * x.dims[1] {
            let x = &x.data[plane * sizes.0..][..sizes.0];
            let y = &mut y.data[plane * sizes.1..][..sizes.1];
            let code = &mut code.data[plane * sizes.1..][..sizes.1];
            y.fill(f64::NEG_INFINITY);
            code.fill(f64::NAN);
            for run in &slide.runs {
                for (i, o) in run.pairs() {
                    // The first value of a window always enters, so that a window of -inf has a code.
                    if code[o].is_nan() || x[i] > y[o] || (x[i].is_nan() && !y[o].is_nan()) {
                        (y[o], code[o]) = (x[i], run.tap as f64);
                    }
                }
            }
            if code.iter().any(|c| c.is_nan()) {
                return Err("a window holds nothing but padding".to_string());
            }
        }
        Ok(vec![y, code])
    }
}

impl Operator for MaxPoolBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        let dy = operands[0];
        let dx = image(dy, channels("the output gradient", dy)?, &self.input);
        let y = pooled(&dx, &self.window(), self.ceil_mode, true)?;
        expect_type("the output gradient", dy, &y)?;
        expect_type(
            "the code",
            operands[1],
            &TensorType {
                dtype: code_type(&self.window()),
                ..y
            },
        )?;
        Ok(vec![dx])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (dy, code) = (operands[0], operands[1]);
        let (slide, mut dx) = unpooled_array(dy, &self.window(), self.ceil_mode, &self.input)?;
        let sizes = (slide.inputs(), slide.outputs());
        for plane in 0..dy.dims[0] * dy.dims[1] {
            let dy = &dy.data[plane * sizes.1..][..sizes.1];
            let code = &code.data[plane * sizes.1..][..sizes.1];
            let dx = &mut dx.data[plane * sizes.0..][..sizes.0];
            for run in &slide.runs {
                for (i, o) in run.pairs().filter(|&(_, o)| code[o] == run.tap as f64) {
                    dx[i] += dy[o];
                }
            }
        }
        Ok(vec![dx])
    }
}

impl Operator for AveragePool {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        Ok(vec![pooled(
            operands[0],
            &self.window(),
            self.ceil_mode,
            !self.count_include_pad,
        )?])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let (slide, mut y) = pooled_array(x, &self.window(), self.ceil_mode)?;
        let sizes = (slide.inputs(), slide.outputs());
        let divisors = slide.divisors(self.count_include_pad);
        for plane in 0..x.dims[0] * x.dims[1] {
            let x = &x.data[plane * sizes.0..][..sizes.0];
            let y = &mut y.data[plane * sizes.1..][..sizes.1];
            for (i, o) in slide.runs.iter().flat_map(|run| run.pairs()) {
                y[o] += x[i] / divisors[o];
            }
        }
        Ok(vec![y])
    }
}

impl Operator for AveragePoolBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let dy = operands[0];
        let dx = image(dy, channels("the output gradient", dy)?, &self.input);
        expect_type(
            "the output gradient",
            dy,
            &pooled(&dx, &self.window(), self.ceil_mode, !self.count_include_pad)?,
        )?;
        Ok(vec![dx])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let dy = operands[0];
        let (slide, mut dx) = unpooled_array(dy, &self.window(), self.ceil_mode, &self.input)?;
        let sizes = (slide.inputs(), slide.outputs());
        let divisors = slide.divisors(self.count_include_pad);
        for plane in 0..dy.dims[0] * dy.dims[1] {
            let dy = &dy.data[plane * sizes.1..][..sizes.1];
            let dx = &mut dx.data[plane * sizes.0..][..sizes.0];
            for (i, o) in slide.runs.iter().flat_map(|run| run.pairs()) {
                dx[i] += dy[o] / divisors[o];
            }
        }
        Ok(vec![dx])
    }
}

/// The slide of a pool over `x`, and zeros for its result.
fn pooled_array(x: &Array, window: &Window, ceil_mode: bool) -> Result<(Slide, Array), String> {
    let slide = Slide::new(window, &x.dims[2..], ceil_mode)?;
    let y = Array::zeros(&[&x.dims[..2], slide.output.as_slice()].concat());
    Ok((slide, y))
}

/// The slide of a pool over an input of these spatial sizes, and zeros for the input's gradient.
fn unpooled_array(
    dy: &Array,
    window: &Window,
    ceil_mode: bool,
    input: &[usize],
) -> Result<(Slide, Array), String> {
    let slide = Slide::new(window, input, ceil_mode)?;
    Ok((slide, Array::zeros(&[&dy.dims[..2], input].concat())))
}
