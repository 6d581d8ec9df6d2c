//! Parts of an axis and their reverse. Each is the gradient of the other.

use std::num::NonZeroUsize;

use super::positions::positions;
use super::{Operator, StepInfo, expect_operands};
use crate::tensor::Array;
use crate::types::{Dim, TensorType};

operator! {
    /// Operands: `x`. Results: every `step`-th of the indices `begin..end` of `axis`, from `begin` on.
    Slice = "slice" {
        /// The axis; not the batch.
        axis: usize,
        /// First index.
        begin: usize,
        /// One past the last index.
        end: usize,
        /// From one index to the next.
        step: NonZeroUsize,
    }
}

operator! {
    /// Operands: `x`. Results: `x` with zeros along `axis`: before it, between its elements and after it.
    Pad = "pad" {
        /// The axis; not the batch.
        axis: usize,
        /// Zeros before the first element.
        before: usize,
        /// Zeros after the last element.
        after: usize,
        /// From one element to the next: 1 is no zero between them.
        step: NonZeroUsize,
    }
}

impl Slice {
    /// Number of indices.
    fn count(&self) -> usize {
        self.end.saturating_sub(self.begin).div_ceil(self.step.get())
    }
}

impl Operator for Slice {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        let size = x.shape.0.get(self.axis).and_then(|d| d.fixed());
        if !size.is_some_and(|n| self.begin < self.end && self.end <= n) {
            return Err(format!(
                "{}..{} is no range of axis {} of {x}",
                self.begin, self.end, self.axis
            ));
        }
        let mut result = x.clone();
        result.shape.0[self.axis] = Dim::Fixed(self.count());
        Ok(vec![result])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let mut dims = x.dims.clone();
        dims[self.axis] = self.count();
        let mut strides = x.strides();
        let start = self.begin * strides[self.axis];
        strides[self.axis] *= self.step.get();
        let data = positions(&dims, &strides)
            .into_iter()
            .map(|p| x.data[start + p])
            .collect();
        Ok(vec![Array::new(&dims, data)])
    }
}

impl Pad {
    /// Size of the axis for an operand of size `n`, if it can be counted.
    fn size(&self, n: usize) -> Option<usize> {
        let reach = n.checked_sub(1)?.checked_mul(self.step.get())?;
        reach
            .checked_add(1)?
            .checked_add(self.before)?
            .checked_add(self.after)
    }
}

impl Operator for Pad {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        let size = x.shape.0.get(self.axis).and_then(|d| d.fixed());
        let size = size.ok_or_else(|| format!("axis {} of {x} has no fixed size", self.axis))?;
        let mut result = x.clone();
        result.shape.0[self.axis] = Dim::Fixed(self.size(size).ok_or("the result is too large, or empty")?);
        Ok(vec![result])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let mut dims = x.dims.clone();
        dims[self.axis] = self
            .size(dims[self.axis])
            .ok_or("the result is too large, or empty")?;
        let mut y = Array::zeros(&dims);
        let mut strides = y.strides();
        let start = self.before * strides[self.axis];
        strides[self.axis] *= self.step.get();
        for (p, &v) in positions(&x.dims, &strides).into_iter().zip(&x.data) {
            y.data[start + p] = v;
        }
        Ok(vec![y])
    }
}
