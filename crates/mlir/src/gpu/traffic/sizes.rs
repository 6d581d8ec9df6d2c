//! Sizes of what an operator works on.

use std::collections::BTreeSet;

use syncbn_ir::ops::{MatMul, Window};
use syncbn_ir::{Dim, TensorType};

use crate::host::Call;

/// Sizes of a call's tensors at a batch.
pub struct Sizes<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// The batch.
    pub batch: usize,
}

impl<'a> Sizes<'a> {
    /// Type of an operand, if there is one.
    pub fn operand(&self, i: usize) -> Option<&'a TensorType> {
        self.call.types[..self.call.operands].get(i).copied()
    }

    /// Type of a result, if there is one.
    pub fn result(&self, i: usize) -> Option<&'a TensorType> {
        self.call.types[self.call.operands..].get(i).copied()
    }

    /// Bytes of a tensor; 0 of none.
    pub fn bytes_of(&self, ty: Option<&TensorType>) -> u64 {
        ty.and_then(|ty| ty.bytes(self.batch)).unwrap_or(0)
    }

    /// Elements of a tensor; 0 of none.
    pub fn elements_of(&self, ty: Option<&TensorType>) -> u64 {
        self.bytes_of(ty) / ty.map_or(1, |ty| ty.dtype.bytes())
    }

    fn all(&self, types: &[&TensorType]) -> u64 {
        types.iter().map(|ty| self.bytes_of(Some(ty))).sum()
    }

    /// Bytes of all operands.
    pub fn operands(&self) -> u64 {
        self.all(&self.call.types[..self.call.operands])
    }

    /// Bytes of all results.
    pub fn results(&self) -> u64 {
        self.all(&self.call.types[self.call.operands..])
    }

    /// Elements of the first operand, and of the first result.
    pub fn elements(&self) -> [u64; 2] {
        [
            self.elements_of(self.operand(0)),
            self.elements_of(self.result(0)),
        ]
    }

    /// Bytes of the first operand, an image, that windows do not cover: those slide over it and make `outputs`.
    pub fn not_covered(&self, window: &Window, outputs: Option<&TensorType>) -> u64 {
        let (Some(image), Some(outputs)) = (self.operand(0), outputs) else {
            return 0;
        };
        let size =
            |ty: &TensorType, axis: usize| ty.shape.0.get(2 + axis).and_then(|d| d.fixed()).unwrap_or(1);
        let (mut covered, mut all) = (1, 1);
        for axis in 0..window.rank() {
            let input = size(image, axis);
            covered *= covered_along(window, axis, [input, size(outputs, axis)]);
            all *= input as u64;
        }
        let bytes = self.bytes_of(Some(image));
        bytes - bytes / all.max(1) * covered
    }

    /// Multiply-adds of a convolution between `image`, of one element for each output, and weights: two operations each.
    pub fn convolution(&self, outputs: Option<&TensorType>, weights: Option<&TensorType>) -> u64 {
        let channels = weights.and_then(|w| w.shape.0[0].fixed()).unwrap_or(1) as u64;
        2 * self.elements_of(outputs) * self.elements_of(weights) / channels.max(1)
    }

    /// The multiply-adds of a matrix product, two operations each.
    pub fn matrix_product(&self, op: &MatMul) -> u64 {
        let axis = usize::from(!op.transpose_a);
        let inner = self.operand(0).and_then(|a| a.shape.0.get(axis));
        2 * self.elements()[1] * inner.map_or(1, |d: &Dim| d.size(self.batch)) as u64
    }
}

/// Elements along an axis of `input` elements that some of `output` windows covers.
fn covered_along(window: &Window, axis: usize, [input, output]: [usize; 2]) -> u64 {
    let mut covered = BTreeSet::new();
    for out in 0..output {
        for tap in 0..window.kernel[axis] {
            let at = out * window.strides[axis] + tap * window.dilations[axis];
            covered.extend(at.checked_sub(window.pad_begin(axis)).filter(|&at| at < input));
        }
    }
    covered.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_cover_what_they_read() {
        let window = |size: usize, stride: usize, dilation: usize, pad: usize| Window {
            kernel: vec![size],
            strides: vec![stride],
            pads: vec![pad, pad],
            dilations: vec![dilation],
        };
        // Every pixel; every other one; all but the last one, which the third window of two does not reach.
        for (window, sizes, covered) in [
            (window(3, 1, 1, 1), [14, 14], 14),
            (window(1, 2, 1, 0), [14, 7], 7),
            (window(2, 2, 1, 0), [7, 3], 6),
            (window(2, 3, 2, 1), [6, 2], 3),
        ] {
            assert_eq!(covered_along(&window, 0, sizes), covered, "{window:?}");
        }
    }
}
