//! Operators that move or convert elements and compute nothing new.

use super::positions::{broadcast_to, positions};
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
    /// Operands: `x`. Results: `x` in another element type; integers truncate. The reference evaluation computes in
    /// float64 throughout, so there a cast to a floating-point type changes nothing.
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
        Ok(vec![broadcast_to(operands[0], &self.shape.sizes(step.n))])
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
        Ok(vec![Array::new(
            &self.shape.sizes(step.n),
            operands[0].data.clone(),
        )])
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
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let dims: Vec<usize> = self.permutation.iter().map(|&i| x.dims[i]).collect();
        let strides = x.strides();
        let strides: Vec<usize> = self.permutation.iter().map(|&i| strides[i]).collect();
        let data = positions(&dims, &strides)
            .into_iter()
            .map(|p| x.data[p])
            .collect();
        Ok(vec![Array::new(&dims, data)])
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
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let first = operands.first().ok_or("expected at least 1 operand, found 0")?;
        let mut dims = first.dims.clone();
        dims[self.axis] = operands.iter().map(|x| x.dims[self.axis]).sum();
        let outer: usize = dims[..self.axis].iter().product();
        let mut data = Vec::with_capacity(dims.iter().product());
        for i in 0..outer {
            for x in operands {
                let block: usize = x.dims[self.axis..].iter().product();
                data.extend(&x.data[i * block..(i + 1) * block]);
            }
        }
        Ok(vec![Array::new(&dims, data)])
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
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let data = match self.dtype {
            DType::F32 | DType::F64 | DType::BF16 => x.data.clone(),
            DType::I64 => x.data.iter().map(|&v| v as i64 as f64).collect(),
            DType::U8 => x.data.iter().map(|&v| f64::from(v as u8)).collect(),
        };
        Ok(vec![Array::new(&x.dims, data)])
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
