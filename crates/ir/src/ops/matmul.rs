//! Matrix product.

use super::{Operator, StepInfo, expect_operands};
use crate::tensor::Array;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// Product of two matrices, each transposed first where its attribute says so.
    ///
    /// Operands: `a [m, k]` (or `[k, m]`), `b [k, n]` (or `[n, k]`). Results: `[m, n]`. The batch may be `m`,
    /// or `k` in both (the gradient of a weight). A product of bf16 operands is f32 where it has no batch.
    MatMul = "matmul" {
        /// Whether `a` is `[k, m]`.
        transpose_a: bool,
        /// Whether `b` is `[n, k]`.
        transpose_b: bool,
        /// Whether the product of bf16 operands is f32 although it has a batch.
        wide: bool,
    }
}

impl Operator for MatMul {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        let (a, b) = (operands[0], operands[1]);
        let matrix = |ty: &TensorType, transpose: bool| -> Result<(Dim, Dim), String> {
            match *ty.shape.0.as_slice() {
                [r, c] if transpose => Ok((c, r)),
                [r, c] => Ok((r, c)),
                _ => Err(format!("operand of type {ty} is not a matrix")),
            }
        };
        let ((m, ka), (kb, n)) = (matrix(a, self.transpose_a)?, matrix(b, self.transpose_b)?);
        if ka != kb {
            return Err(format!("inner sizes of {a} and {b} differ: {ka} and {kb}"));
        }
        if a.dtype != b.dtype || !a.dtype.is_float() {
            return Err(format!("operands {a} and {b} must have one floating-point type"));
        }
        if n == Dim::Batch {
            return Err(format!("the columns of operand {b} are the batch"));
        }
        if self.wide && a.dtype != DType::BF16 {
            return Err(format!("operands {a} and {b} have no wider product"));
        }
        let dtype = match m {
            Dim::Batch if !self.wide => a.dtype,
            _ => a.dtype.arithmetic(),
        };
        Ok(vec![TensorType::new(dtype, Shape(vec![m, n]))])
    }

    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (a, b) = (operands[0], operands[1]);
        // Strides along the rows and columns of the matrices as they enter the product.
        let (m, k, a_row, a_col) = if self.transpose_a {
            (a.dims[1], a.dims[0], 1, a.dims[1])
        } else {
            (a.dims[0], a.dims[1], a.dims[1], 1)
        };
        let (n, b_row, b_col) = if self.transpose_b {
            (b.dims[0], 1, b.dims[1])
        } else {
            (b.dims[1], b.dims[1], 1)
        };
        let mut y = Array::zeros(&[m, n]);
        for i in 0..m {
            for j in 0..n {
                y.data[i * n + j] = (0..k)
                    .map(|l| a.data[i * a_row + l * a_col] * b.data[l * b_row + j * b_col])
                    .sum();
            }
        }
        Ok(vec![y])
    }
}
