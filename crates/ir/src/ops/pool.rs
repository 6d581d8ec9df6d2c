//! Max and average pooling, forward and backward.

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

fn pooled(x: &TensorType, window: &Window, ceil_mode: bool) -> Result<TensorType, String> {
    if !x.dtype.is_float() {
        return Err(format!("input {x} must be floating point"));
    }
    let output = window.output(&spatial("the input", x)?, ceil_mode)?;
    check_pads(window)?;
    Ok(image(x, channels("the input", x)?, &output))
}

impl Operator for MaxPool {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let y = pooled(operands[0], &self.window(), self.ceil_mode)?;
        let code = TensorType {
            dtype: code_type(&self.window()),
            ..y.clone()
        };
        Ok(vec![y, code])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for MaxPoolBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        let dy = operands[0];
        let dx = image(dy, channels("the output gradient", dy)?, &self.input);
        let y = pooled(&dx, &self.window(), self.ceil_mode)?;
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
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for AveragePool {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        Ok(vec![pooled(operands[0], &self.window(), self.ceil_mode)?])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
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
            &pooled(&dx, &self.window(), self.ceil_mode)?,
        )?;
        Ok(vec![dx])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}
