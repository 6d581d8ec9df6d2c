//! Reductions over axes.

use super::positions::{broadcast_strides, positions};
use super::{Operator, StepInfo, expect_operands};
use crate::attributes::Word;
use crate::tensor::Array;
use crate::types::{Dim, Shape, TensorType};

/// How elements are combined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReduceFunction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
}

impl Word for ReduceFunction {
    fn to_word(&self) -> (String, Vec<f64>) {
        let word = match self {
            ReduceFunction::Sum => "sum",
            ReduceFunction::Mean => "mean",
        };
        (word.to_string(), Vec::new())
    }
    fn from_word(word: &str, args: &[f64]) -> Option<ReduceFunction> {
        let all = [ReduceFunction::Sum, ReduceFunction::Mean];
        all.into_iter().find(|f| f.to_word().0 == word && args.is_empty())
    }
}

operator! {
    /// Operands: `x`. Results: `x` with `axes` reduced to 1, or removed without `keep_dims`. A sum over the
    /// batch axis is the rank's own sum; a mean over it is refused, because its value would depend on the split.
    /// A result without the batch is not stored in bf16: sums of bf16 are f32.
    Reduce = "reduce" {
        /// Sum or mean.
        function: ReduceFunction,
        /// Axes in rising order.
        axes: Vec<usize>,
        /// Whether reduced axes stay with size 1.
        keep_dims: bool,
    }
}

impl Operator for Reduce {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        let x = operands[0];
        let rising = self.axes.windows(2).all(|w| w[0] < w[1]);
        if !rising || self.axes.last().is_some_and(|&a| a >= x.shape.rank()) {
            return Err(format!("axes {:?} are not rising axes of {x}", self.axes));
        }
        if self.function == ReduceFunction::Mean && self.axes.iter().any(|&a| x.shape.0[a] == Dim::Batch) {
            return Err("a mean over the batch would depend on how samples are split over ranks".to_string());
        }
        let mut dims = Vec::new();
        for (i, &d) in x.shape.0.iter().enumerate() {
            match (self.axes.contains(&i), self.keep_dims) {
                (false, _) => dims.push(d),
                (true, true) => dims.push(Dim::Fixed(1)),
                (true, false) => {}
            }
        }
        let shape = Shape(dims);
        let dtype = if shape.has_batch() {
            x.dtype
        } else {
            x.dtype.arithmetic()
        };
        Ok(vec![TensorType::new(dtype, shape)])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let kept: Vec<usize> = x
            .dims
            .iter()
            .enumerate()
            .map(|(i, &n)| if self.axes.contains(&i) { 1 } else { n })
            .collect();
        let mut y = Array::zeros(&kept);
        let strides = broadcast_strides(&y, &x.dims);
        for (&value, p) in x.data.iter().zip(positions(&x.dims, &strides)) {
            y.data[p] += value;
        }
        if self.function == ReduceFunction::Mean {
            let count: usize = self.axes.iter().map(|&a| x.dims[a]).product();
            y.data.iter_mut().for_each(|v| *v /= count as f64);
        }
        if !self.keep_dims {
            let mut axis = 0..;
            y.dims
                .retain(|_| axis.next().is_some_and(|i| !self.axes.contains(&i)));
        }
        Ok(vec![y])
    }
}
