//! Operators that compute each element from the elements at its own index.

use super::positions::broadcast_to;
use super::{Operator, StepInfo, expect_operands, expect_type};
use crate::attributes::Word;
use crate::tensor::Array;
use crate::types::{Dim, Shape, TensorType};

/// A function of one number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum UnaryFunction {
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x * sigmoid(x)`
    Silu,
    /// `min(max(x, min), max)`; the derivative is 1 where `min <= x <= max`, else 0 (PyTorch)
    Clip {
        /// Lower bound.
        min: f64,
        /// Upper bound.
        max: f64,
    },
    /// `-x`
    Neg,
    /// `sqrt(x)`
    Sqrt,
    /// `1 / sqrt(x)`
    Rsqrt,
}

impl Word for UnaryFunction {
    fn to_word(&self) -> (String, Vec<f64>) {
        let (word, args) = match *self {
            UnaryFunction::Relu => ("relu", vec![]),
            UnaryFunction::Sigmoid => ("sigmoid", vec![]),
            UnaryFunction::Silu => ("silu", vec![]),
            UnaryFunction::Clip { min, max } => ("clip", vec![min, max]),
            UnaryFunction::Neg => ("neg", vec![]),
            UnaryFunction::Sqrt => ("sqrt", vec![]),
            UnaryFunction::Rsqrt => ("rsqrt", vec![]),
        };
        (word.to_string(), args)
    }
    fn from_word(word: &str, args: &[f64]) -> Option<UnaryFunction> {
        match (word, args) {
            ("relu", []) => Some(UnaryFunction::Relu),
            ("sigmoid", []) => Some(UnaryFunction::Sigmoid),
            ("silu", []) => Some(UnaryFunction::Silu),
            ("clip", &[min, max]) => Some(UnaryFunction::Clip { min, max }),
            ("neg", []) => Some(UnaryFunction::Neg),
            ("sqrt", []) => Some(UnaryFunction::Sqrt),
            ("rsqrt", []) => Some(UnaryFunction::Rsqrt),
            _ => None,
        }
    }
}

impl UnaryFunction {
    /// Its value at `x`.
    pub fn value(self, x: f64) -> f64 {
        match self {
            // `f64::max` drops NaN, which frameworks propagate.
            UnaryFunction::Relu => {
                if x > 0.0 || x.is_nan() {
                    x
                } else {
                    0.0
                }
            }
            UnaryFunction::Sigmoid => sigmoid(x),
            UnaryFunction::Silu => x * sigmoid(x),
            UnaryFunction::Clip { min, max } => {
                if x < min {
                    min
                } else if x > max {
                    max
                } else {
                    x
                }
            }
            UnaryFunction::Neg => -x,
            UnaryFunction::Sqrt => x.sqrt(),
            UnaryFunction::Rsqrt => 1.0 / x.sqrt(),
        }
    }

    /// Its derivative at `x`.
    pub fn derivative(self, x: f64) -> f64 {
        match self {
            UnaryFunction::Relu => {
                if x > 0.0 {
                    1.0
                } else {
                    0.0
                }
            }
            UnaryFunction::Sigmoid => sigmoid(x) * (1.0 - sigmoid(x)),
            UnaryFunction::Silu => sigmoid(x) * (1.0 + x * (1.0 - sigmoid(x))),
            UnaryFunction::Clip { min, max } => {
                if (min..=max).contains(&x) {
                    1.0
                } else {
                    0.0
                }
            }
            UnaryFunction::Neg => -1.0,
            UnaryFunction::Sqrt => 0.5 / x.sqrt(),
            UnaryFunction::Rsqrt => -0.5 / (x * x.sqrt()),
        }
    }
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// A function of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BinaryFunction {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
}

impl Word for BinaryFunction {
    fn to_word(&self) -> (String, Vec<f64>) {
        let word = match self {
            BinaryFunction::Add => "add",
            BinaryFunction::Sub => "sub",
            BinaryFunction::Mul => "mul",
            BinaryFunction::Div => "div",
        };
        (word.to_string(), Vec::new())
    }
    fn from_word(word: &str, args: &[f64]) -> Option<BinaryFunction> {
        let all = [
            BinaryFunction::Add,
            BinaryFunction::Sub,
            BinaryFunction::Mul,
            BinaryFunction::Div,
        ];
        all.into_iter().find(|f| f.to_word().0 == word && args.is_empty())
    }
}

impl BinaryFunction {
    /// Its value.
    pub fn value(self, a: f64, b: f64) -> f64 {
        match self {
            BinaryFunction::Add => a + b,
            BinaryFunction::Sub => a - b,
            BinaryFunction::Mul => a * b,
            BinaryFunction::Div => a / b,
        }
    }
}

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
    /// Operands: `a`, `b`, whose shapes broadcast as NumPy's do. Results: `function(a, b)`.
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
        if a.dtype != b.dtype {
            return Err(format!("operands {a} and {b} differ in element type"));
        }
        let shape = broadcast(&a.shape, &b.shape)
            .ok_or_else(|| format!("shapes of operands {a} and {b} do not broadcast"))?;
        let layout = if a.shape == shape { a.layout } else { b.layout };
        Ok(vec![TensorType {
            dtype: a.dtype,
            shape,
            layout,
        }])
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
