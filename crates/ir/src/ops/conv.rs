//! Convolution and its two backward directions.

use super::window::{Window, image, spatial};
use super::{Operator, StepInfo, UnaryFunction, channels, expect_operands, expect_type};
use crate::tensor::Array;
use crate::types::{DType, TensorType};

operator! {
    /// Convolution (ONNX `Conv`), then the activation if there is one.
    ///
    /// Operands: `x [n, C, spatial...]`, `w [K, C/groups, kernel...]`, and optionally `bias [K]`.
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

impl Conv {
    /// Its window for weights of this type.
    pub fn window(&self, weight: &TensorType) -> Result<Window, String> {
        Ok(Window {
            kernel: spatial("the weight", weight)?,
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
        })
    }
}

impl ConvBackwardData {
    /// The convolution's window for weights of this type.
    pub fn window(&self, weight: &TensorType) -> Result<Window, String> {
        Ok(Window {
            kernel: spatial("the weight", weight)?,
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
        })
    }
}

impl ConvBackwardWeight {
    /// The convolution's window.
    pub fn window(&self) -> Window {
        Window {
            kernel: self.kernel.clone(),
            strides: self.strides.clone(),
            pads: self.pads.clone(),
            dilations: self.dilations.clone(),
        }
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
        expect_operands(operands, 2..=3)?;
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
            expect_type("the bias", bias, &TensorType::fixed(x.dtype, &[k]))?;
        }
        let output = self.window(w)?.output(&input, false)?;
        let mut results = vec![image(x, k, &output)];
        if self.moments {
            results.push(TensorType::fixed(DType::F64, &[1 + 2 * k]));
        }
        Ok(results)
    }

    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
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

    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
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
        let w = TensorType::fixed(x.dtype, &dims);
        check_weight(&w, c, self.groups)?;
        Ok(vec![w])
    }

    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}
