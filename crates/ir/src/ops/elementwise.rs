//! Operators that compute each element from the elements at its own index.

use super::positions::broadcast_to;
use super::{BinaryFunction, Operator, StepInfo, UnaryFunction, expect_operands, expect_type};
use crate::tensor::Array;
use crate::types::{DType, Dim, Shape, TensorType};

operator! {
    /// Operands: `x`. Results: `function(x)` of the same type.
    Unary = "unary" {
        /// The function.
        function: UnaryFunction,
    }
}

operator! {
    /// Operands: `x`, `dy`. Results: `dy * function'(x)`.
    UnaryBackward = "unary_backward" {
        /// The function.
        function: UnaryFunction,
    }
}

operator! {
    /// Operands: `a`, `b`, whose shapes broadcast as NumPy's do; beside a bf16 operand, one without a batch is f32.
    /// Results: `function(a, b)`.
    Binary = "binary" {
        /// The function.
        function: BinaryFunction,
    }
}

/// The shape that both shapes broadcast to. The batch broadcasts against 1 only.
pub fn broadcast(a: &Shape, b: &Shape) -> Option<Shape> {
    let rank = a.rank().max(b.rank());
    let at = |s: &Shape, i: usize| (i + s.rank()).checked_sub(rank).map_or(Dim::Fixed(1), |j| s.0[j]);
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Some(x),
            (Dim::Fixed(1), y) => Some(y),
            (x, Dim::Fixed(1)) => Some(x),
            _ => None,
        })
        .collect::<Option<Vec<Dim>>>()
        .map(Shape)
}

/// The element type of a result: that of the operands, or bf16 where one of them is and the other one is what
/// stands beside it, which has no batch.
fn common_type(a: &TensorType, b: &TensorType) -> Option<DType> {
    let beside = |ty: &TensorType| ty.dtype == DType::F32 && !ty.shape.has_batch();
    match (a.dtype, b.dtype) {
        (x, y) if x == y => Some(x),
        (DType::BF16, _) if beside(b) => Some(DType::BF16),
        (_, DType::BF16) if beside(a) => Some(DType::BF16),
        _ => None,
    }
}

impl Operator for Unary {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 1..=1)?;
        if !operands[0].dtype.is_float() {
            return Err(format!("operand {} must be floating point", operands[0]));
        }
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let x = operands[0];
        let data = x.data.iter().map(|&v| self.function.value(v)).collect();
        Ok(vec![Array::new(&x.dims, data)])
    }
}

impl Operator for UnaryBackward {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        expect_type("the output gradient", operands[1], operands[0])?;
        Ok(vec![operands[0].clone()])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (x, dy) = (operands[0], operands[1]);
        let data = x.data.iter().zip(&dy.data);
        let data = data.map(|(&v, &d)| d * self.function.derivative(v)).collect();
        Ok(vec![Array::new(&x.dims, data)])
    }
}

impl Operator for Binary {
    fn infer(&self, operands: &[&TensorType]) -> Result<Vec<TensorType>, String> {
        expect_operands(operands, 2..=2)?;
        let (a, b) = (operands[0], operands[1]);
        let dtype =
            common_type(a, b).ok_or_else(|| format!("operands {a} and {b} differ in element type"))?;
        let shape = broadcast(&a.shape, &b.shape)
            .ok_or_else(|| format!("shapes of operands {a} and {b} do not broadcast"))?;
        let layout = if a.shape == shape { a.layout } else { b.layout };
        Ok(vec![TensorType { dtype, shape, layout }])
    }
    fn evaluate(&self, operands: &[&Array], _: StepInfo) -> Result<Vec<Array>, String> {
        let (a, b) = (operands[0], operands[1]);
        let rank = a.dims.len().max(b.dims.len());
        let size = |x: &Array, i: usize| (i + x.dims.len()).checked_sub(rank).map_or(1, |j| x.dims[j]);
        let dims: Vec<usize> = (0..rank)
            .map(|i| if size(a, i) == 1 { size(b, i) } else { size(a, i) })
            .collect();
        let (a, b) = (broadcast_to(a, &dims), broadcast_to(b, &dims));
        let data = a.data.iter().zip(&b.data);
        let data = data.map(|(&a, &b)| self.function.value(a, b)).collect();
        Ok(vec![Array::new(&dims, data)])
    }
}
