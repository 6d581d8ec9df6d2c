//! Operators that move or convert elements and compute nothing new.

use super::{Operator, StepInfo, broadcast, expect_operands};
use crate::tensor::Array;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// Operands: `x`. Results: `x` broadcast to `shape`.
    Expand = "expand" {
        /// Shape of the result.
        shape: Shape,
    }
}

operator! {
    /// Operands: `x`. Results: the elements of `x`, in row-major order, with another shape.
    Reshape = "reshape" {
        /// Shape of the result.
        shape: Shape,
    }
}

operator! {
    /// Operands: `x`. Results: axis `i` of the result is axis `permutation[i]` of `x`. The batch stays in front.
    Transpose = "transpose" {
        /// A permutation of the axes.
        permutation: Vec<usize>,
    }
}

operator! {
    /// Operands: one or more tensors that differ only in size along `axis`. Results: all of them, one after another.
    Concat = "concat" {
        /// The axis; not the batch.
        axis: usize,
    }
}

operator! {
    /// Operands: `x`. Results: indices `begin..end` of `axis`.
    Slice = "slice" {
        /// The axis; not the batch.
        axis: usize,
        /// First index.
        begin: usize,
        /// One past the last index.
        end: usize,
    }
}

operator! {
    /// Operands: `x`. Results: `x` in another element type.
    Cast = "cast" {
        /// Element type of the result.
        dtype: DType,
    }
}

operator! {
    /// Operands: `x`. Results: `x`.
    Identity = "identity" {}
}

operator! {
    /// Dropout, kept only until `canonicalize` drops it with a warning. Operands: `x`. Results: `x`.
    Dropout = "dropout" {
        /// Share of elements that training would drop.
        ratio: f64,
    }
}

impl Operator for Expand {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        if broadcast(&x.shape, &self.shape).as_ref() != Some(&self.shape) {
            return Err(format!("{x} does not broadcast to {}", self.shape));
        }
        Ok(vec![TensorType::new(x.dtype, self.shape.clone())])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for Reshape {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        let same = x.shape.has_batch() == self.shape.has_batch()
            && self.shape.0.iter().skip(1).all(|d| *d != Dim::Batch)
            && x.shape.elements_per_sample() == self.shape.elements_per_sample();
        if !same {
            return Err(format!("{x} cannot be reshaped to {}", self.shape));
        }
        Ok(vec![TensorType::new(x.dtype, self.shape.clone())])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for Transpose {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        let mut sorted = self.permutation.clone();
        sorted.sort_unstable();
        if sorted != (0..x.shape.rank()).collect::<Vec<_>>() {
            return Err(format!(
                "{:?} is not a permutation of the axes of {x}",
                self.permutation
            ));
        }
        let dims: Vec<Dim> = self.permutation.iter().map(|&i| x.shape.0[i]).collect();
        if dims.iter().skip(1).any(|d| *d == Dim::Batch) {
            return Err(format!("{:?} moves the batch of {x}", self.permutation));
        }
        Ok(vec![TensorType::new(x.dtype, Shape(dims))])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for Concat {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        let first = *operands.first().ok_or("expected at least 1 operand, found 0")?;
        let mut result = first.clone();
        let mut size = 0usize;
        for ty in operands {
            let along = ty.shape.0.get(self.axis).and_then(|d| d.fixed());
            let along = along.ok_or_else(|| format!("axis {} of {ty} has no fixed size", self.axis))?;
            let mut other = ty.shape.clone();
            other.0[self.axis] = first.shape.0[self.axis];
            if other != first.shape || ty.dtype != first.dtype {
                return Err(format!("{ty} and {first} differ in more than axis {}", self.axis));
            }
            size = size.checked_add(along).ok_or("the result is too large")?;
        }
        result.shape.0[self.axis] = Dim::Fixed(size);
        Ok(vec![result])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
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
        result.shape.0[self.axis] = Dim::Fixed(self.end - self.begin);
        Ok(vec![result])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for Cast {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        Ok(vec![TensorType {
            dtype: self.dtype,
            ..operands[0].clone()
        }])
    }
    fn evaluate(&self, operands: &[&Array], step: StepInfo) -> Result<Vec<Array>, String> {
        let _ = (operands, step);
        Err("not evaluated".to_string())
    }
}

impl Operator for Identity {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Ok(vec![operands[0].clone()])
    }
}

impl Operator for Dropout {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        Ok(vec![operands[0].clone()])
    }
}
