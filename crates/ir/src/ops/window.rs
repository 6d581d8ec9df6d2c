//! Sliding windows: output sizes of convolutions and pools.

use crate::types::{Dim, TensorType};

/// The window of a convolution or pool over 1 to 3 spatial axes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Window {
    /// Size of the window.
    pub kernel: Vec<usize>,
    /// Step between windows.
    pub strides: Vec<usize>,
    /// Padding before each axis, then after each axis (ONNX order).
    pub pads: Vec<usize>,
    /// Step between elements of a window.
    pub dilations: Vec<usize>,
}

impl Window {
    /// Number of spatial axes.
    pub fn rank(&self) -> usize {
        self.kernel.len()
    }

    /// Padding before axis `i`.
    pub fn pad_begin(&self, i: usize) -> usize {
        self.pads[i]
    }

    /// Padding after axis `i`.
    pub fn pad_end(&self, i: usize) -> usize {
        self.pads[self.rank() + i]
    }

    /// Elements of one window; the largest number where that overflows.
    pub fn volume(&self) -> usize {
        self.kernel.iter().fold(1, |n, &k| n.saturating_mul(k))
    }

    /// Whether one of the `output` windows along axis `i` lies over padding only. A window whose first element is
    /// in the input, or which has elements side by side and more of them than padding, does not.
    pub fn misses(&self, i: usize, input: usize, output: usize) -> bool {
        let (pad, stride, dilation) = (self.pad_begin(i), self.strides[i], self.dilations[i]);
        if input >= dilation {
            return false;
        }
        // Where the first element at or behind the input's begin lies; the positions repeat after `dilation` windows.
        let starts = (0..output.min(dilation))
            .map(|o| o * stride)
            .take_while(|&start| start < pad);
        starts.map(|start| pad - start).any(|before| {
            let first = before.div_ceil(dilation);
            first >= self.kernel[i] || first * dilation - before >= input
        })
    }

    /// Output size of every spatial axis, or what is wrong. With `ceil_mode` the size is rounded up, but the
    /// last window always starts inside the input or the padding before it (the rule of ONNX and PyTorch).
    pub fn output(&self, input: &[usize], ceil_mode: bool) -> Result<Vec<usize>, String> {
        let rank = input.len();
        let lengths = [self.kernel.len(), self.strides.len(), self.dilations.len()];
        if !(1..=3).contains(&rank) {
            return Err(format!("windows slide over 1 to 3 spatial axes, not {rank}"));
        }
        if lengths.iter().any(|&n| n != rank) || self.pads.len() != 2 * rank {
            return Err(format!(
                "kernel {:?}, strides {:?}, dilations {:?} and pads {:?} do not fit {rank} spatial axes",
                self.kernel, self.strides, self.dilations, self.pads
            ));
        }
        (0..rank)
            .map(|i| self.output_axis(i, input[i], ceil_mode))
            .collect()
    }

    fn output_axis(&self, i: usize, input: usize, ceil_mode: bool) -> Result<usize, String> {
        let (kernel, stride, dilation) = (self.kernel[i], self.strides[i], self.dilations[i]);
        if kernel == 0 || stride == 0 || dilation == 0 {
            return Err(format!(
                "kernel ({kernel}), stride ({stride}) and dilation ({dilation}) of axis {i} must not be zero"
            ));
        }
        let too_large = || format!("kernel, dilation or pads of axis {i} are too large: the size overflows");
        let extent = (kernel - 1)
            .checked_mul(dilation)
            .and_then(|n| n.checked_add(1))
            .ok_or_else(too_large)?;
        let padded = input
            .checked_add(self.pad_begin(i))
            .and_then(|n| n.checked_add(self.pad_end(i)))
            .filter(|&n| n <= i32::MAX as usize && extent <= i32::MAX as usize)
            .ok_or_else(too_large)?;
        if padded < extent {
            return Err(format!(
                "a window of {extent} does not fit axis {i} of size {input} with padding {} and {}",
                self.pad_begin(i),
                self.pad_end(i)
            ));
        }
        let span = padded - extent;
        if !ceil_mode {
            return Ok(span / stride + 1);
        }
        let mut output = span.div_ceil(stride) + 1;
        if (output - 1) * stride >= input + self.pad_begin(i) {
            output -= 1;
        }
        Ok(output)
    }
}

/// The spatial sizes of a value of shape `[n, c, spatial...]`.
pub fn spatial(role: &str, ty: &TensorType) -> Result<Vec<usize>, String> {
    let dims = ty.shape.0.get(2..).unwrap_or(&[]);
    let sizes: Option<Vec<usize>> = dims.iter().map(|d| d.fixed()).collect();
    sizes
        .filter(|s| (1..=3).contains(&s.len()))
        .ok_or_else(|| format!("{role} of type {ty} is not of the form [n, c, 1 to 3 spatial sizes]"))
}

/// The type `[n, channels, spatial...]` with the element type and batch of `like`.
pub fn image(like: &TensorType, channels: usize, spatial: &[usize]) -> TensorType {
    let mut ty = like.clone();
    ty.shape.0.truncate(1);
    ty.shape.0.push(Dim::Fixed(channels));
    ty.shape.0.extend(spatial.iter().map(|&n| Dim::Fixed(n)));
    ty
}
